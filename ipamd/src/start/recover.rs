//! What a start may believe: each address that the records or the kernel name is judged by what all sources say of it.
//!
//! Nothing is released here. A lease whose sandbox is gone is ended by the watch over sandboxes, which looks a second time
//! before it believes that ([`crate::orphans`]).

use std::{collections::BTreeSet, net::IpAddr};

use eni_proto::{PodKey, is_for_egress};
use ipam_core::{
    CoolDown, EniId, Lease,
    ports::{Ec2, Interface, Scope},
    recover::{Decision, Evidence, Says, decide},
};
use tokio::sync::watch;

use super::node::Waiting;
use crate::{
    clock,
    errors::chain,
    handle::Stage,
    host::{HostNet, KernelPod, KernelState},
    kube::{News, Newsroom},
    metadata::Descriptions,
    orphans, released,
    settings::Settings,
    store::{Recorded, Store},
    waits::Waits,
};

/// Where a start reads and writes.
pub(super) struct Sources<'a, E> {
    pub(super) settings: &'a Settings,
    pub(super) host: &'a HostNet,
    pub(super) enis: Descriptions<'a, E>,
    pub(super) store: &'a Store,
    pub(super) stage: &'a watch::Sender<Stage>,
    pub(super) newsroom: &'a Newsroom,
}

/// What holds after a start.
pub(super) struct Recovered {
    /// Those on record, and those that only the kernel knew.
    pub(super) leases: Vec<Lease>,
    /// Those on record, and those of addresses that the kernel still led to although nobody was behind them.
    pub(super) cooling: Vec<CoolDown>,
}

/// One address and what is decided about it.
#[derive(Debug, PartialEq, Eq)]
struct Judged<'a> {
    address: IpAddr,
    lease: Option<&'a Lease>,
    pod: Option<&'a KernelPod>,
    decision: Decision,
}

impl<E: Ec2> Sources<'_, E> {
    /// Compares records, kernel, sandboxes and the ENIs known, and mends what can be mended without doubt.
    pub(super) async fn recover(&self, recorded: Recorded, known: &[Interface]) -> Recovered {
        let Recorded { mut leases, mut cooling, .. } = recorded;
        let kernel = match self.host.look(&self.settings.veth_prefix).await {
            Ok(kernel) => kernel,
            Err(error) => {
                // A source that cannot be read removes nothing: the records stand as they are.
                tracing::error!(error = %chain(&error), "the kernel's pods could not be listed; the records stand");
                return Recovered { leases, cooling };
            }
        };
        let mut enis = known.to_vec();
        let covered = |address| enis.iter().any(|eni| eni.owns(address));
        let unknown = kernel.pods.iter().filter(|pod| !leases.iter().any(|lease| lease.key == pod.alias.key));
        let must_ask = unknown.into_iter().any(|pod| pod.alias.addresses.of_vpc().any(|address| !covered(address)));
        if must_ask {
            enis = self.interfaces().await;
        }
        let mut adopted = Vec::new();
        let noted: BTreeSet<PodKey> = released::read(&self.settings.released_dir).into_iter().map(|n| n.key).collect();
        for judged in judge(&leases, &kernel, &enis, must_ask, |lease| orphans::is_gone(&lease.netns)) {
            tracing::debug!(address = %judged.address, decision = ?judged.decision, "address judged");
            match (judged.decision, judged.pod) {
                (Decision::AdoptFromKernel | Decision::KeepAskEc2, Some(pod)) if judged.lease.is_none() => {
                    // Each of its addresses is judged.
                    if !adopted.iter().any(|lease: &Lease| lease.key == pod.alias.key) {
                        adopted.extend(self.adopt(pod, &enis).await);
                    }
                }
                (Decision::RemoveLeftovers, _) => cooling.extend(self.clear(judged.address).await),
                (Decision::KeepImpaired, _) if judged.lease.is_some_and(|lease| noted.contains(&lease.key)) => {
                    tracing::info!(address = %judged.address, "the pod was deleted while no daemon ran");
                }
                (decision, _) => report(decision, &judged, self.newsroom),
            }
        }
        leases.extend(adopted);
        Recovered { leases, cooling }
    }

    async fn interfaces(&self) -> Vec<Interface> {
        let mut waiting = Waiting::new(self.stage);
        loop {
            let asked = Waits::begin("the description of the ENIs");
            let answer = self.enis.interfaces(Scope::Attached).await;
            drop(asked);
            match answer {
                Ok(interfaces) => return interfaces.into_iter().map(|(interface, _)| interface).collect(),
                Err(error) => waiting.after(format!("IPAM-308 pods of the kernel wait to be adopted: {error}")).await,
            }
        }
    }

    /// Makes a record of a pod that only the kernel knows, so that its address is given to nobody else.
    async fn adopt(&self, pod: &KernelPod, enis: &[Interface]) -> Option<Lease> {
        let Some(eni) = owner(pod, enis) else {
            tracing::error!(
                link = pod.link, key = %pod.alias.key, addresses = %pod.alias.addresses,
                "IPAM-313 a pod in the kernel has an address of no interface of this node; it is left alone"
            );
            return None;
        };
        let lease = Lease {
            key: pod.alias.key.clone(),
            pod: eni_proto::Pod::default(),
            netns: String::new(),
            addresses: pod.alias.addresses,
            eni,
            eni_mark: pod.alias.eni_mark,
            since: clock::now(),
        };
        tracing::warn!(link = pod.link, key = %lease.key, address = %lease.addresses, "lease adopted from the kernel");
        if let Err(error) = self.store.put(lease.clone()).await {
            tracing::error!(key = %lease.key, error = %chain(&error), "adopted lease could not be stored");
        }
        Some(lease)
    }

    /// Takes out of the kernel what still leads to an address that nobody has, and lets the address rest.
    async fn clear(&self, address: IpAddr) -> Option<CoolDown> {
        tracing::warn!(%address, "the kernel still led to an address that no pod has; it is cleared and rests");
        if let Err(error) = self.host.forget_address(address).await {
            tracing::warn!(%address, error = %chain(&error), "address could not be cleared from the kernel");
        }
        Some(CoolDown { address, until: clock::now().after(self.settings.policy.cool_down) })
    }
}

/// Says what a start found and does not mend by itself.
fn report(decision: Decision, judged: &Judged<'_>, newsroom: &Newsroom) {
    let Judged { address, lease: Some(lease), .. } = judged else { return };
    match decision {
        Decision::KeepImpaired => {
            tracing::error!(
                key = %lease.key, pod = %lease.pod, %address,
                "IPAM-312 the pod has lost its network: the kernel has no interface of it, though its sandbox lives; its address is kept"
            );
            let message = format!(
                "IPAM-312 the pod has lost its network: its interface is gone from the node, though its sandbox lives; its address \
                 {address} is kept. Delete the pod, so that its successor gets a new interface"
            );
            newsroom.tell(|| News::Lost { pod: lease.pod.clone(), message });
        }
        Decision::KeepAskEc2 => tracing::error!(
            key = %lease.key, pod = %lease.pod, %address,
            "IPAM-313 no interface of this node has the pod's address; it is kept and given to nobody else"
        ),
        Decision::ReleaseAndCool => {
            tracing::info!(key = %lease.key, %address, "the sandbox is gone; its lease ends after a second look");
        }
        Decision::Adopt
        | Decision::AdoptFromKernel
        | Decision::RemoveLeftovers
        | Decision::Free
        | Decision::Nothing => {}
    }
}

/// Judges every address that a record or the kernel names. `fresh`: EC2 has just described the ENIs; otherwise what they do
/// not list may be there all the same.
fn judge<'a>(
    leases: &'a [Lease],
    kernel: &'a KernelState,
    enis: &[Interface],
    fresh: bool,
    is_gone: impl Fn(&Lease) -> bool,
) -> Vec<Judged<'a>> {
    let named = leases.iter().flat_map(|lease| lease.addresses.all());
    let named = named.chain(kernel.pods.iter().flat_map(|pod| pod.alias.addresses.all()));
    let all: BTreeSet<IpAddr> = named.chain(kernel.loose.iter().copied()).collect();
    let one = |address: IpAddr| {
        let lease = leases.iter().find(|lease| lease.addresses.has(address));
        let pod = kernel.pods.iter().find(|pod| pod.alias.addresses.has(address));
        // What serves a pod only for its way out is on no ENI.
        let listed = is_for_egress(address) || enis.iter().any(|eni| eni.owns(address));
        let evidence = Evidence {
            record: says(lease.is_some()),
            // What leads to an address is not the pod's interface: without that the pod has lost its network.
            kernel: says(pod.is_some() || (lease.is_none() && kernel.loose.contains(&address))),
            // The kernel removes a pod's host interface together with its sandbox.
            sandbox: says(pod.is_some() || lease.is_some_and(|lease| !is_gone(lease))),
            on_eni: if listed || fresh { says(listed) } else { Says::Unknown },
        };
        Judged { address, lease, pod, decision: decide(evidence) }
    };
    all.into_iter().map(one).collect()
}

const fn says(yes: bool) -> Says {
    if yes { Says::Yes } else { Says::No }
}

/// The ENI that a pod's packets leave by: the one that has its address, or else the one that its mark names.
fn owner(pod: &KernelPod, enis: &[Interface]) -> Option<EniId> {
    let by_address = enis.iter().find(|eni| pod.alias.addresses.of_vpc().all(|own| eni.owns(own)));
    let marked = |eni: &&Interface| {
        let mark = eni.attachment.as_ref().and_then(|at| eni_proto::EniMark::of_slot(at.card, at.device_index));
        mark == Some(pod.alias.eni_mark)
    };
    by_address.or_else(|| enis.iter().find(marked)).map(|eni| eni.id.clone())
}

#[cfg(test)]
mod tests;

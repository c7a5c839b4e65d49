//! The kernel as the daemon uses it: one thread owns all netlink work, because the kernel does it inside the system call.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    sync::{Arc, mpsc},
    time::Duration,
};

use eni_datapath as datapath;
use eni_proto::{Enforcing, EniMark, LinkAlias, PodKey, VethPrefix};
use ipam_core::{
    Lease, MacAddress,
    ports::{Attachment, Cidr4, Interface, NodeIdentity},
};
use tokio::{runtime::Handle, sync::oneshot};

use crate::{metrics::METRICS, settings::Settings, waits::Waits};

/// How long the link of a freshly attached ENI may take to appear before the try is given up, and begun again.
const LINK_WAIT: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce() + Send>;

/// The way to the thread. Cheap to clone; the thread ends with the last clone.
#[derive(Clone)]
pub(crate) struct HostNet {
    jobs: mpsc::Sender<Job>,
    guard: Arc<datapath::Guard>,
}

/// A pod that the kernel has, by what its host interface says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelPod {
    pub(crate) link: String,
    pub(crate) alias: LinkAlias,
}

/// What the kernel has of pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KernelState {
    /// Pods with a host interface.
    pub(crate) pods: Vec<KernelPod>,
    /// Addresses that a route or mark leads somewhere, though no pod has them.
    pub(crate) loose: BTreeSet<IpAddr>,
}

/// Why the kernel could not be asked or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelError {
    /// The node's base could not be prepared.
    #[error("the node could not be prepared")]
    Host(#[from] datapath::HostError),
    /// An ENI could not be prepared or taken out.
    #[error("the interface could not be changed")]
    Eni(#[from] datapath::EniError),
    /// The link of an ENI did not appear.
    #[error("the interface's link did not appear")]
    Link(#[from] datapath::WatchError),
    /// The pods could not be listed.
    #[error("the pods could not be listed")]
    Observe(#[from] datapath::ObserveError),
    /// What the kernel still had of an address could not be removed.
    #[error("the address could not be cleared")]
    Address(#[from] datapath::WireError),
    /// A network that is none.
    #[error("not a network")]
    Net(#[from] datapath::InvalidNet),
    /// EC2 describes the ENI as attached to nothing.
    #[error("the interface is not attached")]
    NotAttached,
    /// The ENI hangs where no mark is left for its packets; the pool does not use such.
    #[error("device index {index} of network card {card} has no mark")]
    NoMark { card: u8, index: u8 },
    /// The thread has ended.
    #[error("the kernel thread has ended")]
    Ended,
}

impl HostNet {
    /// Starts the thread, and the guard that keeps right what it prepares.
    pub(crate) fn start(prefix: &VethPrefix) -> io::Result<Self> {
        let guard = Arc::new(datapath::Guard::start(prefix, tell)?);
        if let Some(error) = guard.unwatched() {
            tracing::warn!(%error, "IPAM-316 inotify cannot be had: kernel settings that somebody changes are mended after up to 10 s");
        }
        let figures = Arc::downgrade(&guard);
        let drift = move || figures.upgrade().map(|guard| guard.drift()).unwrap_or_default();
        // A process has one guard; another one in a test of this module would not be counted.
        let _ = METRICS.drift.set(Box::new(drift));
        let (jobs, inbox) = mpsc::channel::<Job>();
        let runtime = Handle::current();
        let work = move || {
            let _inside = runtime.enter();
            for job in inbox {
                let _waits = Waits::begin("the kernel, which does what netlink asks for within the system call");
                job();
            }
        };
        std::thread::Builder::new().name("netlink".to_owned()).spawn(work)?;
        Ok(Self { jobs, guard })
    }

    async fn run<T, E>(&self, job: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, KernelError>
    where
        T: Send + 'static,
        E: Into<KernelError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move || drop(reply.send(job())));
        self.jobs.send(job).map_err(|_| KernelError::Ended)?;
        answer.await.map_err(|_| KernelError::Ended)?.map_err(Into::into)
    }

    /// Makes the node's base and the primary ENI ready for pods. Repeatable.
    pub(crate) async fn prepare_primary(
        &self,
        node: &NodeIdentity,
        settings: &Settings,
        primary: &Interface,
    ) -> Result<(), KernelError> {
        let plan = host_plan(node, settings, primary)?;
        let guard = Arc::clone(&self.guard);
        self.run(move || guard.prepare_host(&plan)).await.map(drop)
    }

    /// Makes the node ready for pods on branch ENIs, or as it was before. Repeatable.
    pub(crate) async fn prepare_branches(&self, enforcing: Option<Enforcing>) -> Result<(), KernelError> {
        self.run(move || datapath::prepare_branches(enforcing)).await
    }

    /// Removes what pods on branch ENIs left that ended without a DEL; returns whose it was.
    pub(crate) async fn sweep_branches(&self) -> Result<Vec<PodKey>, KernelError> {
        self.run(datapath::sweep_branches).await
    }

    /// Waits for the link of an attached ENI.
    pub(crate) async fn until_link(&self, interface: &Interface) -> Result<(), KernelError> {
        Ok(datapath::wait_for_link(mac(interface.mac), LINK_WAIT).await.map(drop)?)
    }

    /// Makes an attached ENI, whose link is there, ready for pods. Repeatable.
    pub(crate) async fn prepare_eni(
        &self,
        settings: &Settings,
        interface: &Interface,
        subnet: Cidr4,
    ) -> Result<(), KernelError> {
        let plan = eni_plan(settings, interface, subnet)?;
        let guard = Arc::clone(&self.guard);
        self.run(move || guard.prepare_eni(&plan)).await.map(drop)
    }

    /// Takes an ENI out of the kernel. Repeatable.
    pub(crate) async fn forget_eni(&self, attachment: &Attachment) -> Result<(), KernelError> {
        let (card, index, mark) = (attachment.card, attachment.device_index, mark(attachment)?);
        let guard = Arc::clone(&self.guard);
        self.run(move || guard.forget_eni(card, index, mark)).await
    }

    /// Removes the interface of a lease's pod and all that leads to it. Repeatable.
    pub(crate) async fn end_pod(&self, prefix: &VethPrefix, lease: &Lease) -> Result<(), KernelError> {
        let (prefix, key, pod) = (prefix.clone(), lease.key.clone(), lease.pod.clone());
        self.run(move || datapath::del_pod(&prefix, &key, &pod, None)).await.map(drop)
    }

    /// Removes what the kernel still has of a released address. Repeatable.
    pub(crate) async fn forget_address(&self, address: IpAddr) -> Result<(), KernelError> {
        self.run(move || datapath::forget_address(address)).await.map(drop)
    }

    /// Deletes the host interfaces of pods that have ended. Repeatable.
    pub(crate) async fn delete_ended(&self) -> Result<(), KernelError> {
        self.run(datapath::delete_ended).await
    }

    /// Lists the pods that the kernel has.
    pub(crate) async fn observe(&self, prefix: &VethPrefix) -> Result<Vec<KernelPod>, KernelError> {
        Ok(self.look(prefix).await?.pods)
    }

    /// Returns all that the kernel has of pods.
    pub(crate) async fn look(&self, prefix: &VethPrefix) -> Result<KernelState, KernelError> {
        let prefix = prefix.clone();
        let state = self.run(move || datapath::observe_pods(&prefix)).await?;
        let pods = state.links.into_iter().filter_map(|link| Some(KernelPod { alias: link.alias?, link: link.name }));
        let pods: Vec<_> = pods.collect();
        let mut loose: BTreeSet<_> = state.routes.into_keys().chain(state.marks.into_keys()).collect();
        loose.retain(|address| !pods.iter().any(|pod| pod.alias.addresses.has(*address)));
        Ok(KernelState { pods, loose })
    }
}

/// How the node's base and the primary ENI shall be.
pub(crate) fn host_plan(
    node: &NodeIdentity,
    settings: &Settings,
    primary: &Interface,
) -> Result<datapath::HostPlan, KernelError> {
    let direct = node.vpc_cidrs.iter().chain(&settings.exclude_snat).map(|cidr| network(*cidr));
    Ok(datapath::HostPlan {
        primary_mac: mac(primary.mac),
        primary_address: primary.primary,
        direct: direct.collect::<Result<_, _>>()?,
        external_snat: settings.external_snat,
        node_ports: settings.node_ports,
        source_ports: settings.source_ports,
        by_main: settings.external_services.iter().map(|cidr| network(*cidr)).collect::<Result<_, _>>()?,
        veth_prefix: settings.veth_prefix.clone(),
        mtu: settings.mtu,
        ipv6: settings.policy.families.need_v6(settings.policy.egress),
    })
}

/// How an attached ENI shall be.
pub(crate) fn eni_plan(
    settings: &Settings,
    interface: &Interface,
    subnet: Cidr4,
) -> Result<datapath::EniPlan, KernelError> {
    let attachment = interface.attachment.as_ref().ok_or(KernelError::NotAttached)?;
    let ipv6 = settings.policy.families.need_v6(settings.policy.egress);
    Ok(datapath::EniPlan {
        mac: mac(interface.mac),
        primary: interface.primary,
        subnet: network(subnet)?,
        device_index: attachment.device_index,
        card: attachment.card,
        mark: mark(attachment)?,
        mtu: settings.mtu,
        ipv6,
        // No pod has the first one.
        primary_v6: interface.prefixes6.first().map(|prefix| prefix.network).filter(|_| ipv6),
    })
}

/// One event for each thing that somebody else had changed.
fn tell(repair: &datapath::Repair) {
    let milliseconds = u64::try_from(repair.took.as_millis()).unwrap_or(u64::MAX);
    let kind = repair.kind.name();
    match &repair.outcome {
        datapath::Outcome::Mended => tracing::warn!(kind, what = repair.what, milliseconds, "drift mended"),
        datapath::Outcome::Taken => tracing::warn!(kind, what = repair.what, "somebody else uses what is ours"),
        datapath::Outcome::Refused(why) => {
            tracing::error!(kind, what = repair.what, milliseconds, error = why, "drift cannot be mended");
        }
        datapath::Outcome::LeftAlone(pause) => {
            tracing::error!(
                kind,
                what = repair.what,
                seconds = pause.as_secs(),
                "somebody else changes it again and again; left alone"
            );
        }
    }
}

fn mac(mac: MacAddress) -> datapath::MacAddress {
    datapath::MacAddress(mac.0)
}

fn mark(attachment: &Attachment) -> Result<EniMark, KernelError> {
    let Attachment { card, device_index: index, .. } = *attachment;
    EniMark::of_slot(card, index).ok_or(KernelError::NoMark { card, index })
}

fn network(cidr: Cidr4) -> Result<datapath::Cidr, datapath::InvalidNet> {
    datapath::Cidr::new(cidr.network, cidr.prefix)
}

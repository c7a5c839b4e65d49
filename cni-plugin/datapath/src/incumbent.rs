//! What amazon-vpc-cni-k8s keeps in the kernel: found, taken over under running pods, and given back.
//!
//! Both ways the order is the same: what the one needs is put in place first, what the other needed goes after, and each step leaves
//! both layouts leading the same packets the same way. Connections keep their way because both remember in the same bit of the
//! connection mark (0x80) that they left by the primary ENI. Every step is planned from what is seen, so that a run that was killed is
//! finished by the next. Chains of iptables-legacy cannot be reached over netlink and are the caller's.

mod chains;
mod plan;
mod seen;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io, net::Ipv4Addr, path::PathBuf};

use eni_proto::{EniMark, LinkAlias, LinkName, PodKey};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

pub use self::{
    chains::{Chains, InvalidChains},
    seen::{FoundPod, Incumbent, find_namespaces},
};
use crate::{
    EniError, EniPlan, Family, HostError, HostPlan, MacAddress, NftError, ObserveError, Refusal, eni, host,
    nft::{Nft, stay},
    socket::{Message, NetlinkSocket},
    sysctl,
};
use plan::Step;

/// A pod of the incumbent's and whose it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// The lease that it gets.
    pub key: PodKey,
    /// Index of its link on the host.
    pub link: u32,
    /// What that link's name has after the prefix.
    pub name: Option<LinkName>,
    /// Hardware address of that link, where the pod sends to.
    pub mac: MacAddress,
    /// Its address.
    pub address: Ipv4Addr,
    /// Mark of the ENI that owns the address.
    pub eni_mark: EniMark,
}

impl Adoption {
    /// What the link shall say of itself.
    fn label(&self) -> LinkAlias {
        let Self { key, address, eni_mark, .. } = self;
        let (adopted_mac, name) = (Some(self.mac.0), self.name.clone());
        LinkAlias { key: key.clone(), addresses: (*address).into(), eni_mark: *eni_mark, adopted_mac, name }
    }
}

/// Why something could not be taken over or given back. What was done stays, and the next run goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// The node's base could not be prepared.
    #[error("cannot prepare the node")]
    Host(#[from] HostError),
    /// An ENI could not be prepared.
    #[error("cannot prepare an ENI")]
    Eni(#[from] EniError),
    /// nf_tables could not be read or changed.
    #[error("cannot change nf_tables")]
    Nft(#[from] NftError),
    /// The kernel could not be observed.
    #[error("cannot look at the node")]
    Observe(#[from] ObserveError),
    /// The kernel refused a step.
    #[error("cannot {step}")]
    Refused {
        /// The step.
        step: String,
        /// Why.
        source: Refusal,
    },
    /// There is no talking to the kernel.
    #[error("netlink socket failed")]
    Socket(#[from] io::Error),
}

/// Puts everything of ours in place beside what the incumbent has: base, ENIs, and for each pod map element, route and label.
///
/// Repeatable. Returns what was done, one thing a line.
///
/// # Errors
/// [`TakeOverError`].
pub fn adopt(
    seen: &Incumbent,
    host: &HostPlan,
    enis: &[EniPlan],
    pods: &[Adoption],
) -> Result<Vec<String>, TakeOverError> {
    // First, because an ENI's table must never be without a route.
    let mut done = carry_out(&plan::own_routes(seen, enis))?;
    host::prepare(host, None)?;
    for eni in enis {
        eni::prepare(eni)?;
    }
    let known = Nft::open()?.pods()?.unwrap_or_default();
    done.extend(carry_out(&plan::own_pods(pods, &known))?);
    Ok(done)
}

/// Removes what the incumbent has beside ours: chains, rules, routes to pods; and rules that an older version of us left.
///
/// Nothing goes that a pod of the incumbent's needs, nor a rule of the node that we have not put in place. Repeatable. Returns what was removed, one thing a line.
///
/// # Errors
/// [`TakeOverError`].
pub fn remove(seen: &Incumbent) -> Result<Vec<String>, TakeOverError> {
    let mut done = seen.chains.remove()?;
    done.extend(carry_out(&plan::remove_incumbents(seen))?);
    Ok(done)
}

/// Puts everything of the incumbent's in place beside ours: `chains`, rules, routes to all pods that links say are ours.
///
/// Repeatable. Returns what was done, one thing a line.
///
/// # Errors
/// [`TakeOverError`].
pub fn restore(seen: &Incumbent, enis: &[EniPlan], chains: &Chains) -> Result<Vec<String>, TakeOverError> {
    let mut done = carry_out(&plan::restore_incumbents(seen, enis))?;
    if seen.chains.is_empty() {
        done.extend(chains.restore()?);
    }
    Ok(done)
}

/// Removes everything of ours: rules, pods' routes and labels, nf_tables tables. Addresses and routes of ENIs become the incumbent's.
///
/// Repeatable. Returns what was done, one thing a line.
///
/// # Errors
/// [`TakeOverError`].
pub fn withdraw(seen: &Incumbent, enis: &[EniPlan]) -> Result<Vec<String>, TakeOverError> {
    let mut done = carry_out(&plan::disown(seen, enis))?;
    for family in Family::ALL {
        stay::remove(&mut Nft::open()?, family)?;
        if Nft::remove_table(family)? {
            done.push(format!("remove our nf_tables table ({family:?})"));
        }
    }
    // Last: who is killed before this finds the pods by their labels.
    let reverse_path = sysctl::read("ipv4/conf/default/rp_filter").unwrap_or(0);
    done.extend(carry_out(&plan::disown_pods(seen, reverse_path))?);
    Ok(done)
}

/// Addresses of pods, by the index of their link, whose labels say that they are ours.
#[must_use]
pub fn labelled(seen: &Incumbent) -> BTreeMap<u32, LinkAlias> {
    seen.labelled().map(|(link, alias)| (link.index, alias)).collect()
}

/// A pod's link and the file that leads to its namespace.
pub type Namespaces = BTreeMap<u32, PathBuf>;

/// One step after the other, so that what a later one needs is there whenever it happens.
fn carry_out(steps: &[Step]) -> Result<Vec<String>, TakeOverError> {
    let mut socket = NetlinkSocket::open(NETLINK_ROUTE)?;
    let mut done = Vec::new();
    for step in steps {
        match step {
            Step::Elements(elements) => {
                let mut nft = Nft::open()?;
                for (address, mark) in elements {
                    nft.add_pod([*address], *mark)?;
                }
            }
            Step::Netlink { message, fine, .. } => ask(&mut socket, message, fine, step)?,
        }
        done.push(step.to_string());
    }
    Ok(done)
}

fn ask(socket: &mut NetlinkSocket, message: &Message, fine: &[Errno], step: &Step) -> Result<(), TakeOverError> {
    match socket.ask(message.clone())?.result {
        Err(source) if !fine.contains(&source.errno) => Err(TakeOverError::Refused { step: step.to_string(), source }),
        Ok(()) | Err(_) => Ok(()),
    }
}

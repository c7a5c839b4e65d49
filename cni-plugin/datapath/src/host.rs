//! Prepares the node's base: forwarding, reverse path filter, the two rules that never change, and the nf_tables table.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
    thread,
};

use eni_proto::{
    EniMark, VethPrefix, is_for_egress,
    numbers::{PRIMARY_MARK, RULE_PRIMARY_MARK, RULE_TO_POD, TABLE_MAIN, TABLE_PODS},
};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use crate::{
    Cidr, Family, MacAddress, NftError, ObserveError, Refusal,
    apply::{Already, ApplyError, apply_on},
    connections::forget_untranslated,
    eni::{difference, families, link_steps},
    nft::{
        Nft, PodMap, stay,
        table::{self, Shape},
    },
    observe::{HostState, observe_host},
    ops::{Object, Op, Rule},
    route::Link,
    socket::NetlinkSocket,
    sysctl,
};

/// Somebody else may change nf_tables at the same time, but not for ever.
const REBUILD_ATTEMPTS: usize = 64;

/// How the node's base shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPlan {
    /// Hardware address of the primary ENI, by which its link is found.
    pub primary_mac: MacAddress,
    /// The primary ENI's primary address: what pods show to the world outside the VPC.
    pub primary_address: Ipv4Addr,
    /// Destinations that pods reach with their own address: the VPC's networks and those excluded from SNAT. Any order, may overlap.
    pub direct: Vec<Cidr>,
    /// Whether somebody outside (a NAT gateway) does SNAT, so that pods go everywhere by their own ENI.
    pub external_snat: bool,
    /// Whether what came in for the node itself by the primary ENI (NodePort) is answered by it, also when a pod of another ENI answers.
    pub node_ports: bool,
    /// How the source ports of what the node translates are chosen.
    pub source_ports: SourcePorts,
    /// Destinations that pods reach by the node's main routes, even where those do not lead by the primary ENI's default route, as
    /// services behind another link of the node. Any order, may overlap.
    pub by_main: Vec<Cidr>,
    /// First characters of the host interfaces' names.
    pub veth_prefix: VethPrefix,
    /// MTU of the primary ENI in bytes.
    pub mtu: u16,
    /// Whether pods have IPv6 addresses too, which are never translated. Pods may also have an address of one family, not of the VPC,
    /// that only leads out of the node, as the node ([`eni_proto::is_for_egress`]).
    pub ipv6: bool,
}

/// How the source port of a translated connection is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourcePorts {
    /// At random, so that two connections at the same time seldom want the same one.
    #[default]
    Random,
    /// By a hash of the connection's addresses.
    Hashed,
    /// The pod's own, unless it is taken.
    Kept,
}

/// Why the node's base could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// There is no link of the primary ENI.
    #[error("no link with the primary ENI's hardware address {mac}")]
    LinkMissing {
        /// The address.
        mac: MacAddress,
    },
    /// The kernel could not be observed.
    #[error("cannot look at the node")]
    Observe(#[from] ObserveError),
    /// A rule or link could not be changed; what had been done was taken back.
    #[error("cannot change the node")]
    Apply(#[from] ApplyError),
    /// The table could not be made or changed; it is as it was.
    #[error("cannot prepare the nf_tables table")]
    Nft(#[from] NftError),
    /// A kernel setting could not be written.
    #[error(transparent)]
    Sysctl(#[from] sysctl::SysctlError),
    /// There is no talking to the kernel.
    #[error("netlink socket failed")]
    Socket(#[from] io::Error),
}

/// Makes the node ready for pods, or makes it right. Returns the name of the primary ENI's link.
///
/// Repeatable, and right under running pods: their map elements and the ENIs' chains stay, and the rest of the table changes in one
/// transaction.
///
/// # Errors
/// [`HostError`].
pub fn prepare_host(plan: &HostPlan) -> Result<String, HostError> {
    prepare(plan, None).map(|link| link.name)
}

/// `gate` will own the last gate; without it anybody can change that.
pub(crate) fn prepare(plan: &HostPlan, mut gate: Option<&mut Nft>) -> Result<Link, HostError> {
    // Where there is no nf_tables nothing is begun.
    Nft::open()?.generation()?;
    let mut socket = NetlinkSocket::open(NETLINK_ROUTE)?;
    let state = observe_host(&mut socket)?;
    let link = state.link_of(plan.primary_mac).ok_or(HostError::LinkMissing { mac: plan.primary_mac })?;
    ensure_settings(plan, &link.name)?;
    relax_reverse_path_of_all(plan)?;
    apply_on(&mut socket, &steps(plan, link, &state), Already::Fine)?;
    for family in families(plan.ipv6) {
        prepare_table(&shape(plan, link, *family))?;
        let shape = shape(plan, link, *family);
        match &mut gate {
            Some(gate) => stay::ensure(gate, &shape, stay::Owner::Socket)?,
            None => stay::ensure(&mut Nft::open()?, &shape, stay::Owner::Anybody)?,
        };
    }
    families(plan.ipv6).iter().for_each(|family| begin_anew(plan, *family, &state));
    Ok(link.clone())
}

/// What pods have begun while the table was not right, as themselves, is translated from its next packet on; soon after this returns.
pub(crate) fn begin_anew(plan: &HostPlan, family: Family, state: &HostState) {
    let translated = |address: &IpAddr| is_for_egress(*address) || address.is_ipv4() && !plan.external_snat;
    let pods = state.labelled().flat_map(|(_, alias)| alias.addresses.all().collect::<Vec<_>>());
    let pods: BTreeSet<IpAddr> = pods.filter(|address| Family::of(*address) == family).filter(translated).collect();
    if pods.is_empty() {
        return;
    }
    // The kernel walks over the connections of the whole machine for it, which takes longer than everything else that is mended. What
    // cannot be forgotten ends by itself when no packet comes for a while.
    let forget = move || drop(forget_untranslated(family, &pods));
    let _ = thread::Builder::new().name("forget".to_owned()).spawn(forget);
}

/// The node's own settings. A node that forwards IPv6 takes router advertisements, which its default route comes from, only with 2.
pub(crate) fn settings(plan: &HostPlan, primary_link: &str) -> Vec<(String, u32)> {
    let mut settings = vec![("ipv4/ip_forward".to_owned(), 1)];
    if plan.ipv6 {
        settings.push((format!("ipv6/conf/{primary_link}/accept_ra"), 2));
        settings.push(("ipv6/conf/all/forwarding".to_owned(), 1));
    }
    settings
}

pub(crate) fn ensure_settings(plan: &HostPlan, primary_link: &str) -> Result<(), sysctl::SysctlError> {
    settings(plan, primary_link).into_iter().try_for_each(|(name, value)| sysctl::ensure(&name, value))
}

pub(crate) fn steps(plan: &HostPlan, link: &Link, state: &HostState) -> Vec<Op> {
    let mut steps = link_steps(link, plan.mtu, false);
    let ours = |rule: &&Rule| matches!(rule.priority, RULE_TO_POD | RULE_PRIMARY_MARK);
    let found = state.rules.iter().filter(ours).copied().map(Object::Rule).collect();
    steps.extend(difference(found, wanted_rules(plan.ipv6)));
    steps
}

fn wanted_rules(ipv6: bool) -> Vec<Object> {
    let of_family = |family: &Family| {
        let to_pod = Rule { family: *family, priority: RULE_TO_POD, from: None, mark: None, table: TABLE_PODS };
        let mark = Some((PRIMARY_MARK, PRIMARY_MARK));
        [to_pod, Rule { priority: RULE_PRIMARY_MARK, mark, table: TABLE_MAIN, ..to_pod }].map(Object::Rule)
    };
    families(ipv6).iter().flat_map(of_family).collect()
}

pub(crate) fn shape<'a>(plan: &'a HostPlan, link: &'a Link, family: Family) -> Shape<'a> {
    let v4 = family == Family::V4;
    Shape {
        family,
        primary_link: &link.name,
        primary_address: plan.primary_address,
        direct: if v4 { &plan.direct } else { &[] },
        by_main: if v4 { &plan.by_main } else { &[] },
        external_snat: plan.external_snat || !v4,
        node_ports: plan.node_ports,
        source_ports: plan.source_ports,
        veth_prefix: &plan.veth_prefix,
        egress: plan.ipv6,
    }
}

/// A chain or set of the same name but another make can't be changed in place; then the table is made anew with the same pods.
fn prepare_table(shape: &Shape<'_>) -> Result<(), NftError> {
    let mut nft = Nft::open()?;
    match nft.commit(&table::refresh(shape)) {
        Err(NftError::Refused { source, .. }) if is_of_another_make(&source) => rebuild_table(&mut nft, shape),
        outcome => outcome,
    }
}

/// Makes the table right again, with the chains of these ENIs; in one transaction.
///
/// `pods` counts where the table is gone: else its map stays. Returns false when somebody changed nf_tables since `generation`.
pub(crate) fn mend_table(
    nft: &mut Nft,
    generation: u32,
    shape: &Shape<'_>,
    marks: &[EniMark],
    pods: Option<&PodMap>,
) -> Result<bool, NftError> {
    let chains = || marks.iter().flat_map(|mark| table::add_eni(shape.family, *mark));
    let changes = match pods {
        None => table::refresh(shape).into_iter().chain(chains()).collect(),
        Some(pods) => [table::rebuild(shape, pods), chains().collect()].concat(),
    };
    match nft.commit_since(generation, &changes) {
        Err(NftError::Refused { source, .. }) if pods.is_none() && is_of_another_make(&source) => {
            let pods = nft.pods()?.unwrap_or_default();
            nft.commit_since(generation, &[table::rebuild(shape, &pods), chains().collect()].concat())
        }
        outcome => outcome,
    }
}

fn is_of_another_make(refusal: &Refusal) -> bool {
    matches!(refusal.errno, Errno::EEXIST | Errno::EBUSY | Errno::EOPNOTSUPP)
}

/// Tries again when a pod came or went between the look at the map and the commit.
fn rebuild_table(nft: &mut Nft, shape: &Shape<'_>) -> Result<(), NftError> {
    for _ in 0..REBUILD_ATTEMPTS {
        let generation = nft.generation()?;
        let pods = nft.pods()?.unwrap_or_default();
        if nft.commit_since(generation, &table::rebuild(shape, &pods))? {
            return Ok(());
        }
    }
    Err(NftError::Socket(io::Error::other("nf_tables changed during each of 64 attempts to make the table anew")))
}

/// Brings `rp_filter` of `all` below 2, because the kernel uses the larger of `all` and the link's own: with 2 in `all` the
/// strict check on pods' links, which stops them from using others' addresses, would not be strict.
///
/// Every other link gets the 2 for itself, so that nothing changes for it.
pub(crate) fn relax_reverse_path_of_all(plan: &HostPlan) -> Result<(), sysctl::SysctlError> {
    if sysctl::read("ipv4/conf/all/rp_filter") != Some(2) {
        return Ok(());
    }
    for link in sysctl::ipv4_links() {
        if !link.starts_with(plan.veth_prefix.as_str()) {
            // A link may vanish meanwhile.
            sysctl::write_if_present(&format!("ipv4/conf/{link}/rp_filter"), 2)?;
        }
    }
    sysctl::ensure("ipv4/conf/default/rp_filter", 2)?;
    sysctl::ensure("ipv4/conf/all/rp_filter", 0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    fn plan(direct: &[&str], external_snat: bool) -> HostPlan {
        HostPlan {
            primary_mac: MAC,
            primary_address: Ipv4Addr::new(10, 0, 0, 10),
            direct: direct.iter().map(|text| text.parse().unwrap()).collect(),
            external_snat,
            node_ports: true,
            source_ports: SourcePorts::default(),
            by_main: vec![],
            veth_prefix: VethPrefix::default(),
            mtu: 1500,
            ipv6: false,
        }
    }

    #[test]
    fn every_change_of_settings_is_one_transaction() {
        let netns = crate::Netns::fresh().unwrap();
        let transactions = netns.inside(|| {
            let link = format!("link add eth0 address {MAC} type veth peer name other");
            assert!(Command::new("ip").args(link.split(' ')).status().unwrap().success());
            let mut nft = Nft::open().unwrap();
            let grown: Vec<String> = (0..2500).map(|n| format!("10.{}.{}.0/25", n / 250, n % 250)).collect();
            let grown: Vec<&str> = grown.iter().map(String::as_str).collect();
            let plans =
                [plan(&["10.0.0.0/16"], false), plan(&["10.0.0.0/16"], true), plan(&grown, false), plan(&[], false)];
            plans.map(|plan| {
                let before = nft.generation().unwrap();
                prepare_host(&plan).unwrap();
                nft.generation().unwrap() - before
            })
        });
        // The last gate is made once.
        assert_eq!(transactions.unwrap(), [2, 1, 1, 1]);
    }
}

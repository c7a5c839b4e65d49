//! What is not as it shall be, and what mends it. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use eni_proto::{EniMark, LinkAlias, numbers::TABLE_PODS};

use super::Wanted;
use crate::{
    Family, eni, host,
    nft::PodMap,
    observe::HostState,
    ops::{Ipv4Setting, Object, Op, Setting},
    pod::{ended_alias, host_mac, pod_neighbour},
    route::{Link, pod_route},
};

/// What is to be done about something that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Remedy {
    Op(Op),
    /// A pod's element in the map.
    Pod(Element),
    /// The whole table of a family but its map.
    Table(Family),
    /// The node's own settings: it forwards.
    Settings,
    /// The strict check on pods' links is not undone by the setting for all links.
    ReversePathOfAll,
}

/// What the map shall say of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element {
    pub(super) address: IpAddr,
    /// Absent: nothing.
    pub(super) mark: Option<EniMark>,
    /// Index of the pod's link, so that another pod with the address is another thing. Zero: there is none.
    link: u32,
}

/// Something that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deviation {
    pub(super) remedy: Remedy,
    /// An ADD or DEL may be at work on it: only what stays wrong is mended.
    pub(super) passing: bool,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Op(op) => op.fmt(f),
            Self::Pod(Element { address, mark: Some(mark), .. }) => {
                write!(f, "set map element {address} to ENI {}", mark.value())
            }
            Self::Pod(Element { address, mark: None, .. }) => write!(f, "remove map element {address}"),
            Self::Table(Family::V4) => f.write_str("write the nf_tables table"),
            Self::Table(Family::V6) => f.write_str("write the nf_tables table for IPv6"),
            Self::Settings => f.write_str("let the node forward"),
            Self::ReversePathOfAll => f.write_str("set rp_filter=0 on all"),
        }
    }
}

/// Everything that is wrong with links, addresses, routes, rules and the pods' map, in an order in which it can be mended.
pub(super) fn deviations(wanted: &Wanted, state: &HostState, map: &PodMap) -> Vec<Deviation> {
    let mut ops = Vec::new();
    if let Some((plan, link)) =
        wanted.host.as_ref().and_then(|(plan, index)| Some((plan, find(state, plan.primary_mac, *index)?)))
    {
        ops.extend(mac(link, plan.primary_mac));
        ops.extend(host::steps(plan, link, state));
    }
    for (plan, index) in wanted.enis.values() {
        let Some(link) = find(state, plan.mac, *index) else { continue };
        ops.extend(mac(link, plan.mac));
        ops.extend(eni::steps(plan, link, state));
    }
    let base = ops.into_iter().map(|op| Deviation { remedy: Remedy::Op(whatever_it_is(op)), passing: false });
    base.chain(pods(state, map)).collect()
}

/// A setting is the same thing to mend whatever somebody made it.
const fn whatever_it_is(op: Op) -> Op {
    match op {
        Op::Set { link, to, from: _ } => Op::Set { link, from: to, to },
        Op::Add(_) | Op::Remove(_) => op,
    }
}

/// The link with this hardware address, or the one that had it.
pub(super) fn find(state: &HostState, mac: crate::MacAddress, index: u32) -> Option<&Link> {
    state.link_of(mac).or_else(|| state.links.iter().find(|link| link.index == index))
}

fn mac(link: &Link, wanted: crate::MacAddress) -> Option<Op> {
    let from = link.mac.filter(|found| *found != wanted)?;
    Some(Op::Set { link: link.index, from: Setting::Mac(from), to: Setting::Mac(wanted) })
}

/// Pods' links that say whose they are, with that.
pub(super) fn labelled(state: &HostState) -> impl Iterator<Item = (&Link, LinkAlias)> {
    let veths = state.links.iter().filter(|link| link.kind == "veth");
    veths.filter_map(|link| Some((link, link.alias.parse().ok()?)))
}

/// The elements that pods' links call for.
pub(super) fn elements(state: &HostState) -> PodMap {
    let secondary = labelled(state).filter(|(_, alias)| !alias.eni_mark.is_primary());
    secondary.flat_map(|(_, alias)| addresses(&alias).map(move |address| (address, alias.eni_mark))).collect()
}

fn addresses(alias: &LinkAlias) -> impl Iterator<Item = IpAddr> + use<> {
    [Some(alias.address.into()), alias.ipv6.map(IpAddr::V6)].into_iter().flatten()
}

/// What pods' links say of themselves is what is wanted. Where two say the same address, the route decides.
fn pods(state: &HostState, map: &PodMap) -> Vec<Deviation> {
    let routes: BTreeMap<IpAddr, u32> = state
        .routes
        .iter()
        .filter(|route| route.table == TABLE_PODS)
        .map(|route| (route.destination.network(), route.link))
        .collect();
    let mut remedies = Vec::new();
    let mut known = BTreeMap::new();
    for (link, alias) in labelled(state) {
        remedies.extend(on_link(link, &alias).map(whatever_it_is).map(Remedy::Op));
        remedies.extend(neighbour(state, link, &alias).map(Remedy::Op));
        for address in addresses(&alias) {
            let leads_to = routes.get(&address);
            if leads_to.is_none() {
                remedies.push(Remedy::Op(Op::Add(Object::Route(pod_route(address, link.index)))));
            }
            if leads_to.is_none_or(|other| *other == link.index) {
                known.insert(address, (alias.eni_mark, link.index));
            }
        }
    }
    for (&address, &(mark, link)) in &known {
        let mark = Some(mark).filter(|mark| !mark.is_primary());
        if map.get(&address).copied() != mark {
            remedies.push(Remedy::Pod(Element { address, mark, link }));
        }
    }
    // Their DEL has left the elements to the daemon.
    let ended = state.links.iter().filter_map(ended_alias);
    let ending: BTreeSet<IpAddr> = ended.flat_map(|alias| addresses(&alias)).collect();
    let stale = map.keys().filter(|address| !known.contains_key(*address) && !ending.contains(*address));
    remedies.extend(stale.map(|&address| Remedy::Pod(Element { address, mark: None, link: 0 })));
    remedies.into_iter().map(|remedy| Deviation { remedy, passing: true }).collect()
}

/// The pod's IPv6 address is not asked for: it is known where it lives.
fn neighbour(state: &HostState, link: &Link, alias: &LinkAlias) -> Option<Op> {
    let wanted = pod_neighbour(alias.ipv6?, link.index, &alias.key);
    (!state.neighbours.contains(&wanted)).then_some(Op::Add(Object::Neighbour(wanted)))
}

fn on_link(link: &Link, alias: &LinkAlias) -> impl Iterator<Item = Op> {
    let set = |from, to| (from != to).then_some(Op::Set { link: link.index, from, to });
    let reverse_path = Setting::Ipv4(Ipv4Setting::ReversePath, link.ipv4(Ipv4Setting::ReversePath));
    [
        mac(link, host_mac(&alias.key)),
        set(reverse_path, Setting::Ipv4(Ipv4Setting::ReversePath, 1)),
        set(Setting::Up(link.up), Setting::Up(true)),
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use eni_proto::PodKey;

    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 7);

    fn pod_link(index: u32, container: &str, mark: EniMark) -> Link {
        let key = PodKey::new("pods", container, "eth0").unwrap();
        let mac = Some(host_mac(&key));
        let alias = LinkAlias { key, address: ADDRESS, ipv6: None, eni_mark: mark }.to_string();
        let mut ipv4 = vec![0; 4 * 40];
        ipv4[4 * (Ipv4Setting::ReversePath as usize - 1)] = 1;
        Link { index, mac, alias, up: true, kind: "veth".to_owned(), ipv4, ..Link::default() }
    }

    fn found(links: Vec<Link>, routes: &[u32], map: &[(Ipv4Addr, EniMark)]) -> Vec<String> {
        let routes = routes.iter().map(|link| pod_route(ADDRESS, *link)).collect();
        let state = HostState { links, routes, ..HostState::default() };
        let deviations = deviations(
            &Wanted::default(),
            &state,
            &map.iter().map(|(address, mark)| (IpAddr::V4(*address), *mark)).collect(),
        );
        assert!(deviations.iter().all(|deviation| deviation.passing));
        deviations.iter().map(|deviation| deviation.remedy.to_string()).collect()
    }

    #[test]
    fn a_whole_pod_needs_nothing_and_a_broken_one_gets_what_it_lacks() {
        let mark = EniMark::of_device(1);
        let link = || pod_link(7, "c1", mark);
        assert_eq!(found(vec![link()], &[7], &[(ADDRESS, mark)]), [""; 0]);
        let broken = Link { up: false, ipv4: vec![], mac: None, ..link() };
        assert_eq!(
            found(vec![broken], &[], &[]),
            [
                "set rp_filter=1 on link 7",
                "set up on link 7",
                "add route 10.0.1.7/32 on link 7 in table 20000 (protocol 142)",
                "set map element 10.0.1.7 to ENI 2",
            ]
        );
        assert_eq!(
            found(vec![link()], &[7], &[(ADDRESS, EniMark::of_device(2))]),
            ["set map element 10.0.1.7 to ENI 2"]
        );
    }

    #[test]
    fn an_element_that_no_pod_needs_is_stale() {
        let mark = EniMark::of_device(1);
        assert_eq!(found(vec![], &[], &[(ADDRESS, mark)]), ["remove map element 10.0.1.7"]);
        let primary = pod_link(7, "c1", EniMark::PRIMARY);
        assert_eq!(found(vec![primary], &[7], &[(ADDRESS, mark)]), ["remove map element 10.0.1.7"]);
        let link = pod_link(7, "c1", mark);
        let ended = Link { alias: format!("ended {}", link.alias), ..link };
        assert_eq!(found(vec![ended], &[], &[(ADDRESS, mark)]), [""; 0], "the daemon is at work on it");
    }

    #[test]
    fn of_two_sandboxes_with_one_address_the_route_decides() {
        let (old, new) = (pod_link(7, "c1", EniMark::of_device(1)), pod_link(8, "c2", EniMark::of_device(2)));
        assert_eq!(found(vec![old, new], &[8], &[(ADDRESS, EniMark::of_device(2))]), [""; 0]);
    }
}

//! What is not as it shall be, and what mends it. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use eni_proto::{EniMark, LinkAlias, VethPrefix, is_for_egress, numbers::TABLE_PODS};

use super::{Kind, Wanted};
use crate::{
    EniPlan, Family, HostPlan, eni, host,
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
    /// A pod's link has lost its name, by whose first characters our table knows pods, and by all of which others do. Its index.
    Name(u32),
    /// A pod's link has lost its label. Its index.
    Label(u32),
    /// The whole table of a family but its map.
    Table(Family),
    /// The node's own settings: it forwards.
    Settings,
    /// Those of an ENI's link, by its index, of which netlink does not know.
    EniSettings(u32),
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

impl Remedy {
    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::Op(Op::Set { to: Setting::Ipv4(..), .. })
            | Self::Settings
            | Self::EniSettings(_)
            | Self::ReversePathOfAll => Kind::Setting,
            Self::Op(Op::Set {
                to: Setting::Up(_) | Setting::Mtu(_) | Setting::Mac(_) | Setting::Group(_), ..
            })
            | Self::Name(_)
            | Self::Label(_) => Kind::Link,
            Self::Op(Op::Add(object) | Op::Remove(object)) => match object {
                Object::Address(_) => Kind::Address,
                Object::Route(_) => Kind::Route,
                Object::Neighbour(_) => Kind::Neighbour,
                Object::Rule(_) => Kind::Rule,
            },
            Self::Pod(_) => Kind::Element,
            Self::Table(_) => Kind::Table,
        }
    }

    pub(super) const fn is_in_nf_tables(self) -> bool {
        matches!(self, Self::Pod(_) | Self::Table(_))
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Op(op) => op.fmt(f),
            Self::Pod(Element { address, mark: Some(mark), .. }) => {
                write!(f, "set map element {address} to ENI {}", mark.value())
            }
            Self::Pod(Element { address, mark: None, .. }) => write!(f, "remove map element {address}"),
            Self::Name(link) => write!(f, "give link {link} its name back"),
            Self::Label(link) => write!(f, "label link {link} again"),
            Self::Table(Family::V4) => f.write_str("write the nf_tables table"),
            Self::Table(Family::V6) => f.write_str("write the nf_tables table for IPv6"),
            Self::Settings => f.write_str("let the node forward"),
            Self::EniSettings(link) => write!(f, "write the IPv6 settings of link {link}"),
            Self::ReversePathOfAll => f.write_str("set rp_filter=0 on all"),
        }
    }
}

/// Everything that is wrong with links, addresses, routes, rules and the pods' map, in an order in which it can be mended.
pub(super) fn deviations(wanted: &Wanted, state: &HostState, map: &PodMap, prefix: &VethPrefix) -> Vec<Deviation> {
    let mut ops = Vec::new();
    if let Some((plan, link)) =
        wanted.host.as_ref().and_then(|(plan, index)| Some((plan, find(state, plan.primary_mac, *index)?)))
    {
        ops.extend(mac(link, plan.primary_mac));
        ops.extend(host::steps(plan, link, state));
    }
    for (plan, link) in enis(wanted, state) {
        ops.extend(mac(link, plan.mac));
        ops.extend(eni::steps(plan, link, state));
    }
    let base = ops.into_iter().map(|op| Deviation { remedy: Remedy::Op(whatever_it_is(op)), passing: false });
    base.chain(pods(state, map, prefix)).collect()
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

/// The ENIs that have a link, with that.
pub(super) fn enis<'a>(wanted: &'a Wanted, state: &'a HostState) -> impl Iterator<Item = (&'a EniPlan, &'a Link)> {
    wanted.enis.values().filter_map(|(plan, index)| Some((plan, find(state, plan.mac, *index)?)))
}

/// The plan of the node's base and the primary ENI's link.
pub(super) fn primary<'a>(wanted: &'a Wanted, state: &'a HostState) -> Option<(&'a HostPlan, &'a Link)> {
    let (plan, index) = wanted.host.as_ref()?;
    Some((plan, find(state, plan.primary_mac, *index)?))
}

fn mac(link: &Link, wanted: crate::MacAddress) -> Option<Op> {
    let from = link.mac.filter(|found| *found != wanted)?;
    Some(Op::Set { link: link.index, from: Setting::Mac(from), to: Setting::Mac(wanted) })
}

/// The elements that pods' links call for.
pub(super) fn elements(state: &HostState) -> PodMap {
    let secondary = state.labelled().filter(|(_, alias)| !alias.eni_mark.is_primary());
    secondary.flat_map(|(_, alias)| alias.addresses.of_vpc().map(move |address| (address, alias.eni_mark))).collect()
}

/// What pods' links say of themselves is what is wanted. Where two say the same address, the route decides.
fn pods(state: &HostState, map: &PodMap, prefix: &VethPrefix) -> Vec<Deviation> {
    let routes: BTreeMap<IpAddr, u32> = state
        .routes
        .iter()
        .filter(|route| route.table == TABLE_PODS)
        .map(|route| (route.destination.network(), route.link))
        .collect();
    // A route over a link that does not claim the address is nobody's decision.
    let claims: BTreeSet<(IpAddr, u32)> = state
        .labelled()
        .flat_map(|(link, alias)| alias.addresses.all().map(|address| (address, link.index)).collect::<Vec<_>>())
        .collect();
    let mut remedies = Vec::new();
    let mut known = BTreeMap::new();
    for (link, alias) in state.labelled() {
        remedies.extend((!is_named(link, &alias, prefix)).then_some(Remedy::Name(link.index)));
        remedies.extend(on_link(link, &alias).map(whatever_it_is).map(Remedy::Op));
        remedies.extend(neighbour(state, link, &alias).map(Remedy::Op));
        for address in alias.addresses.all() {
            let leads_to = routes.get(&address).filter(|other| claims.contains(&(address, **other)));
            if leads_to.is_none() {
                remedies.push(Remedy::Op(Op::Add(Object::Route(pod_route(address, link.index)))));
            }
            if leads_to.is_none_or(|other| *other == link.index) {
                known.insert(address, (alias.eni_mark, link.index));
            }
        }
    }
    for (&address, &(mark, link)) in &known {
        // What serves for the way out leaves by the primary ENI.
        let mark = Some(mark).filter(|mark| !mark.is_primary() && !is_for_egress(address));
        if map.get(&address).copied() != mark {
            remedies.push(Remedy::Pod(Element { address, mark, link }));
        }
    }
    // Their DEL has left the elements to the daemon.
    let ended = state.links.iter().filter_map(ended_alias);
    let ending: BTreeSet<IpAddr> = ended.flat_map(|alias| alias.addresses.all()).collect();
    let stale = map.keys().filter(|address| !known.contains_key(*address) && !ending.contains(*address));
    remedies.extend(stale.map(|&address| Remedy::Pod(Element { address, mark: None, link: 0 })));
    remedies.into_iter().map(|remedy| Deviation { remedy, passing: true }).collect()
}

fn is_named(link: &Link, alias: &LinkAlias, prefix: &VethPrefix) -> bool {
    alias.name.as_ref().map_or_else(|| link.name.starts_with(prefix.as_str()), |name| link.name == name.with(prefix))
}

/// The pod's IPv6 address is not asked for: it is known where it lives.
fn neighbour(state: &HostState, link: &Link, alias: &LinkAlias) -> Option<Op> {
    let wanted = pod_neighbour(alias.addresses.v6()?, link.index, &alias.key);
    (!state.neighbours.contains(&wanted)).then_some(Op::Add(Object::Neighbour(wanted)))
}

fn on_link(link: &Link, alias: &LinkAlias) -> impl Iterator<Item = Op> {
    let set = |from, to| (from != to).then_some(Op::Set { link: link.index, from, to });
    let ipv4 = |setting| set(Setting::Ipv4(setting, link.ipv4(setting)), Setting::Ipv4(setting, 1));
    [
        mac(link, alias.adopted_mac.map_or_else(|| host_mac(&alias.key), crate::MacAddress)),
        ipv4(Ipv4Setting::Forwarding),
        ipv4(Ipv4Setting::ReversePath),
        set(Setting::Group(link.group), Setting::Group(alias.eni_mark.value())),
        set(Setting::Up(link.up), Setting::Up(true)),
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use eni_proto::{PodAddresses, PodKey, numbers::EGRESS_V6};

    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 7);

    fn pod_link(index: u32, container: &str, mark: EniMark) -> Link {
        let key = PodKey::new("pods", container, "eth0").unwrap();
        let mac = Some(host_mac(&key));
        let alias =
            LinkAlias { key, addresses: ADDRESS.into(), eni_mark: mark, adopted_mac: None, name: None }.to_string();
        let mut ipv4 = vec![0; 4 * 40];
        for setting in [Ipv4Setting::Forwarding, Ipv4Setting::ReversePath] {
            ipv4[4 * (setting as usize - 1)] = 1;
        }
        Link {
            index,
            name: format!("eni{index}"),
            mac,
            alias,
            up: true,
            group: mark.value(),
            kind: "veth".to_owned(),
            ipv4,
            ..Link::default()
        }
    }

    fn found(links: Vec<Link>, routes: &[u32], map: &[(Ipv4Addr, EniMark)]) -> Vec<String> {
        let routes = routes.iter().map(|link| pod_route(ADDRESS, *link)).collect();
        let state = HostState { links, routes, ..HostState::default() };
        let deviations = deviations(
            &Wanted::default(),
            &state,
            &map.iter().map(|(address, mark)| (IpAddr::V4(*address), *mark)).collect(),
            &VethPrefix::default(),
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
                "set forwarding=1 on link 7",
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
    fn a_pod_whose_link_is_named_like_no_pods_gets_its_name_back() {
        let mark = EniMark::of_device(1);
        let link = Link { name: "veth9".to_owned(), ..pod_link(7, "c1", mark) };
        assert_eq!(found(vec![link], &[7], &[(ADDRESS, mark)]), ["give link 7 its name back"]);
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
    fn what_serves_a_pod_for_its_way_out_needs_no_element() {
        let mark = EniMark::of_device(1);
        let link = pod_link(7, "c1", mark);
        let mut alias: LinkAlias = link.alias.parse().unwrap();
        let way_out = EGRESS_V6;
        alias.addresses = PodAddresses::Dual(ADDRESS, way_out);
        let routes = alias.addresses.all().map(|address| pod_route(address, 7)).collect();
        let neighbours = vec![pod_neighbour(way_out, 7, &alias.key)];
        let links = vec![Link { alias: alias.to_string(), ..link }];
        let state = HostState { links, routes, neighbours, ..HostState::default() };
        let map = PodMap::from([(ADDRESS.into(), mark)]);
        assert_eq!(deviations(&Wanted::default(), &state, &map, &VethPrefix::default()), []);
        let map = PodMap::from([(ADDRESS.into(), mark), (way_out.into(), mark)]);
        let found = deviations(&Wanted::default(), &state, &map, &VethPrefix::default());
        assert_eq!(found.len(), 1, "it would lead out by an ENI that does not know the address: {found:?}");
    }

    #[test]
    fn a_route_over_a_link_that_does_not_claim_the_address_is_led_back() {
        let mark = EniMark::of_device(1);
        let lead = "add route 10.0.1.7/32 on link 7 in table 20000 (protocol 142)";
        let element = [(ADDRESS, mark)];
        assert_eq!(found(vec![pod_link(7, "c1", mark)], &[9], &element), [lead]);
        let other = Link { alias: String::new(), ..pod_link(9, "c2", mark) };
        assert_eq!(found(vec![pod_link(7, "c1", mark), other], &[9], &element), [lead]);
    }

    #[test]
    fn of_two_sandboxes_with_one_address_the_route_decides() {
        let (old, new) = (pod_link(7, "c1", EniMark::of_device(1)), pod_link(8, "c2", EniMark::of_device(2)));
        assert_eq!(found(vec![old, new], &[8], &[(ADDRESS, EniMark::of_device(2))]), [""; 0]);
    }
}

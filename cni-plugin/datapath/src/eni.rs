//! Prepares an ENI to carry pods: link, address, route table, rules and its chain; and takes all of it back.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use eni_proto::{
    EniMark,
    numbers::{ENI_LINK_GROUP, ENI_MARK_MASK, RULE_ENI_MARK, RULE_FROM_ENI, VPC_ROUTER_V6, eni_table},
};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use crate::{
    Cidr, Family, MacAddress, NftError, ObserveError,
    apply::{Already, ApplyError, apply_on},
    nft::{Nft, table},
    observe::{HostState, observe_host},
    ops::{Address, Ipv4Setting, Object, Op, Route, Rule, Setting},
    route::Link,
    socket::NetlinkSocket,
    sysctl,
};

/// An attached ENI and how it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniPlan {
    /// Its hardware address, by which its link is found.
    pub mac: MacAddress,
    /// Its primary address.
    pub primary: Ipv4Addr,
    /// Its subnet; the router is the subnet's base address plus one.
    pub subnet: Cidr,
    /// Slot on the network card.
    pub device_index: u8,
    /// Network card.
    pub card: u8,
    /// Mark of its packets, as in the leases of its pods.
    pub mark: EniMark,
    /// MTU of the link in bytes.
    pub mtu: u16,
    /// Whether its pods have IPv6 addresses too. The router is the VPC's link-local one.
    pub ipv6: bool,
    /// Its own IPv6 address, which no pod has: as whom the node leaves by this ENI where it translates a pod's packets, as kube-proxy
    /// makes it for services. Absent: those packets have another ENI's address, and the VPC drops them.
    pub primary_v6: Option<Ipv6Addr>,
}

/// Why an ENI could not be prepared or forgotten.
#[derive(Debug, thiserror::Error)]
pub enum EniError {
    /// The link has not appeared yet: wait for it ([`crate::wait_for_link`]) and try again.
    #[error("no link with hardware address {mac}")]
    LinkMissing {
        /// The address.
        mac: MacAddress,
    },
    /// Pods still leave by this ENI; nothing was changed.
    #[error("pods still use the ENI with mark {mark}")]
    InUse {
        /// Its mark.
        mark: u32,
    },
    /// The kernel could not be observed.
    #[error("cannot look at the node")]
    Observe(#[from] ObserveError),
    /// A step failed; what had been done was taken back.
    #[error("cannot change the node")]
    Apply(#[from] ApplyError),
    /// nf_tables could not be changed.
    #[error("cannot change the ENI's chain")]
    Nft(#[from] NftError),
    /// A kernel setting could not be written.
    #[error(transparent)]
    Sysctl(#[from] sysctl::SysctlError),
    /// There is no talking to the kernel.
    #[error("netlink socket failed")]
    Socket(#[from] io::Error),
}

/// Makes an attached ENI ready to carry pods. Returns the name of its link.
///
/// Repeatable: what is right already is left alone, so that a call on a prepared ENI changes nothing. Of the primary ENI only MTU and
/// `rp_filter` are touched; its address and routes are the operating system's. [`crate::prepare_host`] comes first.
///
/// # Errors
/// [`EniError`]. After [`EniError::Apply`] the node is as it was before.
pub fn prepare_eni(plan: &EniPlan) -> Result<String, EniError> {
    prepare(plan).map(|link| link.name)
}

pub(crate) fn prepare(plan: &EniPlan) -> Result<Link, EniError> {
    let mut socket = NetlinkSocket::open(NETLINK_ROUTE)?;
    let state = observe_host(&mut socket)?;
    let link = state.link_of(plan.mac).ok_or(EniError::LinkMissing { mac: plan.mac })?;
    let steps = steps(plan, link, &state);
    ensure_settings(plan, &link.name)?;
    apply_on(&mut socket, &steps, Already::Fine)?;
    if !plan.mark.is_primary() {
        let families = families(plan.ipv6);
        Nft::open()?
            .commit(&families.iter().flat_map(|family| table::add_eni(*family, plan.mark)).collect::<Vec<_>>())?;
    }
    Ok(link.clone())
}

/// Returns the link of an ENI that is as planned in every respect. Only looks.
pub(crate) fn as_planned(plan: &EniPlan) -> Result<Option<Link>, EniError> {
    let state = observe_host(&mut NetlinkSocket::open(NETLINK_ROUTE)?)?;
    let Some(link) = state.link_of(plan.mac).filter(|link| steps(plan, link, &state).is_empty()) else {
        return Ok(None);
    };
    if settings(plan, &link.name).iter().any(differs) {
        return Ok(None);
    }
    let mut nft = Nft::open()?;
    let chains = if plan.mark.is_primary() { &[] } else { families(plan.ipv6) };
    for family in chains {
        if !nft.has_eni(*family, plan.mark)? {
            return Ok(None);
        }
    }
    Ok(Some(link.clone()))
}

/// Takes an ENI's rules, routes, address and chain out of the kernel. Its link stays as it is: it is about to go.
///
/// Repeatable; right after the link has gone, too.
///
/// # Errors
/// [`EniError::InUse`] while a pod's element points to the ENI; else as [`prepare_eni`].
pub fn forget_eni(card: u8, device_index: u8, mark: EniMark) -> Result<(), EniError> {
    if mark.is_primary() {
        return Ok(());
    }
    for family in Family::ALL {
        match Nft::open()?.commit_removal(&table::remove_eni(family, mark)) {
            Err(NftError::Refused { source, .. }) if source.errno == Errno::EBUSY => {
                return Err(EniError::InUse { mark: mark.value() });
            }
            outcome => outcome?,
        };
    }
    let mut socket = NetlinkSocket::open(NETLINK_ROUTE)?;
    let steps = forget_steps(eni_table(card, device_index), &observe_host(&mut socket)?);
    apply_on(&mut socket, &steps, Already::Fine)?;
    Ok(())
}

/// Returns what is to be done to bring the ENI from `state` to `plan`; empty when it is there.
pub(crate) fn steps(plan: &EniPlan, link: &Link, state: &HostState) -> Vec<Op> {
    let mut steps = link_steps(link, plan.mtu, !plan.mark.is_primary());
    if plan.mark.is_primary() {
        return steps;
    }
    let table = eni_table(plan.card, plan.device_index);
    let wanted: Vec<Address> = own(plan).map(|address| own_address(link.index, address)).collect();
    let is_own = |found: &Address| wanted.iter().any(|wanted| wanted.address == found.address);
    let on_link = |(found, ours): &&(Address, bool)| *ours && found.link == link.index && !is_own(found);
    steps.extend(state.addresses.iter().filter(on_link).map(|(found, _)| Op::Remove(Object::Address(*found))));
    let missing = |address: &&Address| !state.addresses.iter().any(|(found, _)| found == *address);
    steps.extend(wanted.iter().filter(missing).map(|address| Op::Add(Object::Address(*address))));
    let routes = state.routes.iter().filter(|route| route.table == table).copied().map(Object::Route).collect();
    steps.extend(difference(routes, wanted_routes(plan, table, link.index)));
    let concerns = |rule: &&Rule| rule.table == table || rule.mark == Some((plan.mark.value(), ENI_MARK_MASK));
    let rules = state.rules.iter().filter(concerns).copied().map(Object::Rule).collect();
    steps.extend(difference(rules, wanted_rules(plan, table)));
    steps
}

/// The ENI's own addresses.
fn own(plan: &EniPlan) -> impl Iterator<Item = IpAddr> {
    [Some(plan.primary.into()), plan.primary_v6.map(IpAddr::V6)].into_iter().flatten()
}

/// The ENI's /80 holds its own IPv6 address and its pods', and the kernel takes as a source the address that is nearest to the
/// destination: what the node itself sends to such a pod would be this ENI's and no longer the node's, as which others know it.
/// A deprecated address is taken only where no other may be.
pub(crate) const fn own_address(link: u32, address: IpAddr) -> Address {
    Address { link, address, deprecated: address.is_ipv6() }
}

/// Settings of a secondary ENI's link, as under /proc/sys/net; where a link has no IPv6 they are not there.
///
/// Without a link-local address of its own nobody asks for the router, and the link that comes up now would get one a second later: the
/// kernel would first look whether somebody else has it (`accept_dad`). What the node translates on its way out by this ENI has to have
/// this ENI's address, deprecated or not (`use_oif_addrs_only`): the VPC drops others.
pub(crate) fn settings(plan: &EniPlan, link: &str) -> Vec<(String, u32)> {
    if !plan.ipv6 || plan.mark.is_primary() {
        return Vec::new();
    }
    [("accept_dad", 0), ("use_oif_addrs_only", 1)]
        .map(|(name, value)| (format!("ipv6/conf/{link}/{name}"), value))
        .into()
}

/// Whether a setting is there and is not as it shall be.
pub(crate) fn differs((name, wanted): &(String, u32)) -> bool {
    sysctl::read(name).is_some_and(|value| value != *wanted)
}

/// Writes the settings that the link has.
pub(crate) fn ensure_settings(plan: &EniPlan, link: &str) -> Result<(), sysctl::SysctlError> {
    settings(plan, link).into_iter().filter(differs).try_for_each(|(name, value)| sysctl::ensure(&name, value))
}

/// Link settings of every ENI.
///
/// `rp_filter` 2 on all, because a reply may leave by another ENI than its request came in by. A secondary ENI also keeps quiet about
/// the node's other addresses: several ENIs share a subnet, and by default Linux answers for any address on any link, so that peers
/// learn the wrong hardware address (`arp_ignore` 1), and asks with any of its addresses (`arp_announce` 2).
pub(crate) fn link_steps(link: &Link, mtu: u16, secondary: bool) -> Vec<Op> {
    let mut wanted = vec![
        (Setting::Mtu(link.mtu), Setting::Mtu(mtu.into())),
        (Setting::Group(link.group), Setting::Group(ENI_LINK_GROUP)),
        ipv4(link, Ipv4Setting::Forwarding, 1),
        ipv4(link, Ipv4Setting::ReversePath, 2),
    ];
    if secondary {
        wanted.push(ipv4(link, Ipv4Setting::ArpIgnore, 1));
        wanted.push(ipv4(link, Ipv4Setting::ArpAnnounce, 2));
        wanted.push((Setting::Up(link.up), Setting::Up(true)));
    }
    wanted
        .into_iter()
        .filter(|(from, to)| from != to)
        .map(|(from, to)| Op::Set { link: link.index, from, to })
        .collect()
}

fn ipv4(link: &Link, setting: Ipv4Setting, wanted: u32) -> (Setting, Setting) {
    (Setting::Ipv4(setting, link.ipv4(setting)), Setting::Ipv4(setting, wanted))
}

pub(crate) const fn families(ipv6: bool) -> &'static [Family] {
    if ipv6 { &Family::ALL } else { &[Family::V4] }
}

/// The router first: a route may only lead over what is on the link.
pub(crate) fn wanted_routes(plan: &EniPlan, table: u32, link: u32) -> Vec<Object> {
    let router = plan.subnet.router();
    let mut routes = vec![
        Object::Route(Route { table, destination: Cidr::host(router), gateway: None, link }),
        Object::Route(Route { table, destination: Cidr::ANY, gateway: Some(router), link }),
    ];
    if plan.ipv6 {
        let gateway = Some(VPC_ROUTER_V6.into());
        routes.push(Object::Route(Route { table, destination: Cidr::ANY_V6, gateway, link }));
    }
    routes
}

fn wanted_rules(plan: &EniPlan, table: u32) -> Vec<Object> {
    let mark = Some((plan.mark.value(), ENI_MARK_MASK));
    let by_mark = |family| Object::Rule(Rule { family, priority: RULE_ENI_MARK, from: None, mark, table });
    let mut rules: Vec<Object> = families(plan.ipv6).iter().copied().map(by_mark).collect();
    rules.extend(own(plan).map(|address| {
        let (family, from) = (Family::of(address), Some(address));
        Object::Rule(Rule { family, priority: RULE_FROM_ENI, from, mark: None, table })
    }));
    rules
}

/// Removals, last first, then additions in order.
pub(crate) fn difference(found: Vec<Object>, wanted: Vec<Object>) -> Vec<Op> {
    let removals = found.iter().rev().filter(|object| !wanted.contains(object)).map(|object| Op::Remove(*object));
    let additions = wanted.iter().filter(|object| !found.contains(object)).map(|object| Op::Add(*object));
    removals.chain(additions).collect()
}

fn forget_steps(table: u32, state: &HostState) -> Vec<Op> {
    let rules: Vec<&Rule> = state.rules.iter().filter(|rule| rule.table == table).collect();
    let is_primary = |address: IpAddr| rules.iter().any(|rule| rule.from == Some(address));
    let addresses = state.addresses.iter().filter(|(found, ours)| *ours && is_primary(found.address));
    let mut steps: Vec<Op> = rules.iter().map(|rule| Op::Remove(Object::Rule(**rule))).collect();
    // The default route goes before the route to its router.
    let mut routes: Vec<&Route> = state.routes.iter().filter(|route| route.table == table).collect();
    routes.sort_by_key(|route| route.destination.prefix());
    steps.extend(routes.into_iter().map(|route| Op::Remove(Object::Route(*route))));
    steps.extend(addresses.map(|(found, _)| Op::Remove(Object::Address(*found))));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> EniPlan {
        EniPlan {
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            primary: Ipv4Addr::new(10, 0, 0, 11),
            subnet: "10.0.0.0/20".parse().unwrap(),
            device_index: 1,
            card: 0,
            mark: EniMark::of_device(1),
            mtu: 9001,
            ipv6: false,
            primary_v6: None,
        }
    }

    fn texts(steps: &[Op]) -> Vec<String> {
        steps.iter().map(ToString::to_string).collect()
    }

    /// The state after `steps`, as far as they add or remove.
    fn carried_out(steps: &[Op], mut state: HostState) -> HostState {
        for step in steps {
            match step {
                Op::Add(Object::Address(address)) => state.addresses.push((*address, true)),
                Op::Add(Object::Route(route)) => state.routes.push(*route),
                Op::Add(Object::Rule(rule)) => state.rules.push(*rule),
                Op::Remove(Object::Address(address)) => state.addresses.retain(|(found, _)| found != address),
                Op::Remove(Object::Route(route)) => state.routes.retain(|found| found != route),
                Op::Remove(Object::Rule(rule)) => state.rules.retain(|found| found != rule),
                Op::Add(Object::Neighbour(_)) | Op::Remove(Object::Neighbour(_)) | Op::Set { .. } => {}
            }
        }
        state
    }

    #[test]
    fn a_bare_link_gets_everything_in_an_order_that_the_kernel_takes() {
        let link = Link { index: 3, mtu: 1500, ..Link::default() };
        let steps = steps(&plan(), &link, &HostState::default());
        assert_eq!(
            texts(&steps),
            [
                "set mtu 9001 on link 3",
                "set group 6647402 on link 3",
                "set forwarding=1 on link 3",
                "set rp_filter=2 on link 3",
                "set arp_ignore=1 on link 3",
                "set arp_announce=2 on link 3",
                "set up on link 3",
                "add address 10.0.0.11/32 on link 3",
                "add route 10.0.0.1/32 on link 3 in table 2 (protocol 142)",
                "add route 0.0.0.0/0 via 10.0.0.1 on link 3 in table 2 (protocol 142)",
                "add rule 1536: fwmark 0x2/0x7f lookup 2",
                "add rule 32765: from 10.0.0.11 lookup 2",
            ]
        );
    }

    #[test]
    fn with_ipv6_an_eni_has_a_rule_and_a_router_of_that_family_too() {
        let link = Link { index: 3, ..Link::default() };
        let state = carried_out(&steps(&plan(), &link, &HostState::default()), HostState::default());
        let primary_v6 = Some(Ipv6Addr::new(0x2600, 0x1f00, 0, 0, 0xb, 0, 0, 0));
        let more: Vec<Op> = steps(&EniPlan { ipv6: true, primary_v6, ..plan() }, &link, &state)
            .into_iter()
            .filter(|step| !matches!(step, Op::Set { .. }))
            .collect();
        assert_eq!(
            texts(&more),
            [
                "add address 2600:1f00:0:0:b::/128 on link 3 (deprecated)",
                "add route ::/0 via fe80:ec2::1 on link 3 in table 2 (protocol 142)",
                "add IPv6 rule 1536: fwmark 0x2/0x7f lookup 2",
                "add IPv6 rule 32765: from 2600:1f00:0:0:b:: lookup 2",
            ]
        );
    }

    #[test]
    fn the_primary_keeps_its_address_and_routes() {
        let link = Link { index: 2, mtu: 1500, ..Link::default() };
        let primary = EniPlan { device_index: 0, mark: EniMark::PRIMARY, ..plan() };
        let steps = steps(&primary, &link, &HostState::default());
        assert_eq!(
            texts(&steps),
            [
                "set mtu 9001 on link 2",
                "set group 6647402 on link 2",
                "set forwarding=1 on link 2",
                "set rp_filter=2 on link 2"
            ]
        );
    }

    #[test]
    fn an_eni_that_is_as_planned_needs_nothing_more_and_is_forgotten_completely() {
        let link = Link { index: 3, ..Link::default() };
        let state = carried_out(&steps(&plan(), &link, &HostState::default()), HostState::default());
        assert!(steps(&plan(), &link, &state).iter().all(|step| matches!(step, Op::Set { .. })));
        assert_eq!(carried_out(&forget_steps(2, &state), state), HostState::default());
    }

    #[test]
    fn what_is_not_ours_or_another_enis_is_left_alone() {
        let others = HostState {
            addresses: vec![(own_address(3, Ipv4Addr::new(10, 0, 0, 99).into()), false)],
            routes: vec![Route { table: 3, destination: Cidr::ANY, gateway: None, link: 4 }],
            rules: vec![Rule {
                family: Family::V4,
                priority: RULE_ENI_MARK,
                from: None,
                mark: Some((3, ENI_MARK_MASK)),
                table: 3,
            }],
            ..HostState::default()
        };
        let link = Link { index: 3, ..Link::default() };
        assert!(steps(&plan(), &link, &others).iter().all(|step| !matches!(step, Op::Remove(_))));
        assert_eq!(forget_steps(2, &others), []);
    }
}

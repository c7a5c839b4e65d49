//! Which steps lead from the incumbent's layout to ours, and back. Pure.

use std::{fmt, net::IpAddr};

use eni_proto::{
    EniMark,
    numbers::{
        ENI_LINK_GROUP, PRIMARY_MARK, ROUTE_PROTOCOL, RULE_ENI_MARK, RULE_FROM_ENI, RULE_PRIMARY_MARK, RULE_TO_POD,
        TABLE_MAIN, TABLE_PODS, eni_table,
    },
};
use nix::errno::Errno;

use super::{Adoption, Incumbent};
use crate::{
    Cidr, EniPlan, Family,
    eni::{own_address, wanted_routes},
    nft::PodMap,
    ops::{Object, Op, Route, Rule, Setting},
    route::{self, AnyRule, Link, pod_route},
    socket::Message,
};

/// `RTPROT_BOOT`: what the incumbent's routes are stamped with. Its rules have 0.
const PROTOCOL_BOOT: u8 = 3;
const GONE: &[Errno] = &[Errno::ENOENT, Errno::ESRCH, Errno::ENODEV, Errno::EADDRNOTAVAIL];
const THERE: &[Errno] = &[Errno::EEXIST];

/// One step.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// One message, and the answers that say that it was done before.
    Netlink { what: String, message: Message, fine: &'static [Errno] },
    /// Elements of the pods' map.
    Elements(Vec<(IpAddr, EniMark)>),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netlink { what, .. } => f.write_str(what),
            Self::Elements(elements) => write!(f, "add {} elements to the pods' map", elements.len()),
        }
    }
}

fn step(what: String, message: Message, fine: &'static [Errno]) -> Step {
    Step::Netlink { what, message, fine }
}

fn of(op: Op, fine: &'static [Errno]) -> Step {
    step(op.to_string(), route::op_message(op), fine)
}

/// Puts our stamp on the routes of ENIs' tables; the kernel replaces a route in one instant.
pub(super) fn own_routes(seen: &Incumbent, enis: &[EniPlan]) -> Vec<Step> {
    eni_routes(seen, enis)
        .filter(|route| seen.routes.iter().any(|(other, protocol)| other == route && *protocol != ROUTE_PROTOCOL))
        .map(|route| step(format!("take over {route}"), route::mend_message(Op::Add(Object::Route(route))), &[]))
        .collect()
}

/// Elements before labels: from its label on, a pod of a secondary ENI is not let through without its element.
pub(super) fn own_pods(pods: &[Adoption], known: &PodMap) -> Vec<Step> {
    let elements = pods.iter().filter(|pod| !pod.eni_mark.is_primary());
    let elements = elements.map(|pod| (IpAddr::V4(pod.address), pod.eni_mark));
    let missing: Vec<_> = elements.filter(|(address, mark)| known.get(address) != Some(mark)).collect();
    let mut steps = Vec::new();
    if !missing.is_empty() {
        steps.push(Step::Elements(missing));
    }
    for pod in pods {
        steps.push(of(Op::Add(Object::Route(pod_route(pod.address, pod.link))), THERE));
        let (label, group) = (pod.label().to_string(), pod.eni_mark.value());
        steps.push(step(
            format!("label link {} {label}", pod.link),
            route::adopt_link(pod.link, &label, group, 1),
            &[],
        ));
    }
    steps
}

/// Rules before routes: while a rule sends packets to the main table, the route must be there.
pub(super) fn remove_incumbents(seen: &Incumbent) -> Vec<Step> {
    let rules = seen.stale_rules().map(|rule| step(format!("remove {rule}"), route::others_rule(rule, false), GONE));
    let routes = seen.stale_routes().map(|(route, protocol)| {
        step(format!("remove main {}", route.destination), route::others_route(*route, *protocol, false), GONE)
    });
    let old = seen.outdated().map(|rule| of(Op::Remove(Object::Rule(rule.rule)), GONE));
    rules.chain(routes).chain(old).collect()
}

/// Routes before rules, for the same reason.
pub(super) fn restore_incumbents(seen: &Incumbent, enis: &[EniPlan]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rules = vec![rule(RULE_PRIMARY_MARK, None, None, Some((PRIMARY_MARK, PRIMARY_MARK)), TABLE_MAIN)];
    for (link, alias) in seen.labelled() {
        let Some(address) = alias.addresses.v4() else { continue };
        let destination = Cidr::host(address);
        let main = Route { table: TABLE_MAIN, destination, gateway: None, link: link.index };
        let what = format!("add main route {destination} on link {}", link.name);
        steps.push(step(what, route::others_route(main, PROTOCOL_BOOT, true), THERE));
        rules.push(rule(RULE_TO_POD, None, Some(destination), None, TABLE_MAIN));
        let eni = enis.iter().find(|eni| eni.mark == alias.eni_mark && !eni.mark.is_primary());
        rules.extend(eni.map(|eni| {
            let table = eni_table(eni.card, eni.device_index);
            rule(RULE_ENI_MARK, Some(address.into()), None, None, table)
        }));
    }
    let secondary = enis.iter().filter(|eni| !eni.mark.is_primary());
    rules.extend(
        secondary.map(|eni| {
            rule(RULE_FROM_ENI, Some(eni.primary.into()), None, None, eni_table(eni.card, eni.device_index))
        }),
    );
    rules.retain(|rule| !seen.rules.contains(rule));
    steps.extend(rules.iter().map(|rule| step(format!("add {rule}"), route::others_rule(rule, true), THERE)));
    steps
}

/// Takes our stamp off ENIs' IPv4 routes, and removes our rules and ENIs' IPv6 addresses; then nothing leads to the pods' table any more, and it is emptied.
pub(super) fn disown(seen: &Incumbent, enis: &[EniPlan]) -> Vec<Step> {
    // It uses no secondary ENI in IPv6.
    let kept: Vec<Route> = eni_routes(seen, enis).filter(|route| route.destination.family() == Family::V4).collect();
    let ours = || seen.routes.iter().filter(|(_, protocol)| *protocol == ROUTE_PROTOCOL).map(|(route, _)| *route);
    let given = ours().filter(|route| kept.contains(route));
    let given =
        given.map(|route| step(format!("give back {route}"), route::others_route(route, PROTOCOL_BOOT, true), &[]));
    let rules = seen.rules.iter().filter(|it| it.protocol == ROUTE_PROTOCOL);
    let rules = rules.map(|it| of(Op::Remove(Object::Rule(it.rule)), GONE));
    let mut rest: Vec<Route> = ours().filter(|route| !kept.contains(route)).collect();
    // A route over a router goes before the route to it.
    rest.sort_by_key(|route| route.destination.prefix());
    let rest = rest.into_iter().map(|route| of(Op::Remove(Object::Route(route)), GONE));
    let own = secondary(seen, enis).filter_map(|(eni, link)| Some(own_address(link, eni.primary_v6?.into())));
    let own = own.map(|address| of(Op::Remove(Object::Address(address)), GONE));
    let (from, to) = (Setting::Group(ENI_LINK_GROUP), Setting::Group(0));
    let enis = seen.links.iter().filter(|link| link.group == ENI_LINK_GROUP);
    let enis = enis.map(|link| of(Op::Set { link: link.index, from, to }, GONE));
    given.chain(rules).chain(rest).chain(own).chain(enis).collect()
}

/// Takes our labels off pods' links. `reverse_path`: what new links get.
pub(super) fn disown_pods(seen: &Incumbent, reverse_path: u32) -> Vec<Step> {
    let bare = |link: &Link| {
        step(format!("take the label off link {}", link.name), route::adopt_link(link.index, "", 0, reverse_path), GONE)
    };
    seen.labelled().map(|(link, _)| bare(link)).collect()
}

/// Secondary ENIs with the indexes of their links.
fn secondary<'a>(seen: &'a Incumbent, enis: &'a [EniPlan]) -> impl Iterator<Item = (&'a EniPlan, u32)> {
    let link = |eni: &EniPlan| {
        let named = seen.links.iter().filter(|link| link.mac == Some(eni.mac));
        named.map(|link| link.index).min()
    };
    let secondary = enis.iter().filter(|eni| !eni.mark.is_primary());
    secondary.filter_map(move |eni| Some((eni, link(eni)?)))
}

fn eni_routes<'a>(seen: &'a Incumbent, enis: &'a [EniPlan]) -> impl Iterator<Item = Route> + 'a {
    secondary(seen, enis).flat_map(|(eni, link)| {
        let routes = wanted_routes(eni, eni_table(eni.card, eni.device_index), link);
        routes.into_iter().filter_map(|object| match object {
            Object::Route(route) if route.table != TABLE_PODS => Some(route),
            Object::Route(_) | Object::Address(_) | Object::Neighbour(_) | Object::Rule(_) => None,
        })
    })
}

fn rule(priority: u32, from: Option<IpAddr>, to: Option<Cidr>, mark: Option<(u32, u32)>, table: u32) -> AnyRule {
    let rule = Rule { family: Family::V4, priority, from, mark, table };
    AnyRule { rule, to, incoming: None, protocol: 0 }
}

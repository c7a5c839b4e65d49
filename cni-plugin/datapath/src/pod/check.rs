//! CHECK: what an interface is like, held against what it ought to be. Looking is apart from comparing, which is pure.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, net::IpAddr, path::Path};

use eni_proto::{
    EniMark, LinkAlias, PodAddresses, PodKey,
    numbers::{POD_GATEWAY, POD_GATEWAY_V6, TABLE_MAIN, TABLE_PODS},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{WireError, look, open_inside, plan, remove::search};
use crate::{
    Cidr, Family, MacAddress, Netns,
    nft::{Nft, encode::eni_chain},
    observe,
    ops::{Neighbour, Object, Op, Route, Rule},
    route::Link,
    socket::NetlinkSocket,
};

/// What an interface ought to be like. What is absent is not compared.
#[derive(Debug, Clone)]
pub struct ExpectedPod<'a> {
    /// Whose it is.
    pub key: &'a PodKey,
    /// Path of the pod's network namespace.
    pub netns: &'a Path,
    /// Its addresses.
    pub addresses: PodAddresses,
    /// Mark of the ENI that owns the address. Absent: what the host end says of itself.
    pub eni_mark: Option<EniMark>,
    /// Whether it has the pod's default route.
    pub default_route: bool,
    /// The pod's end; its name is the key's.
    pub pod: ExpectedEnd<'a>,
    /// The host's end.
    pub host: ExpectedEnd<'a>,
}

/// One end of the pair. What is absent is not compared.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExpectedEnd<'a> {
    /// Name.
    pub name: Option<&'a str>,
    /// Hardware address.
    pub mac: Option<MacAddress>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
}

/// One thing that is not as it ought to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What, for people.
    pub what: String,
    /// What ought to be.
    pub wanted: String,
    /// What is.
    pub found: String,
}

impl Difference {
    /// Returns the difference with all three as text.
    pub fn new(what: impl fmt::Display, wanted: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self { what: what.to_string(), wanted: wanted.to_string(), found: found.to_string() }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: wanted {}, found {}", self.what, self.wanted, self.found)
    }
}

/// Looks at both ends of a pod's interface and at all that leads to it, and returns what differs; nothing when all is well.
///
/// What others added (addresses, routes, rules) is no difference. Lists all links of the host.
///
/// # Errors
/// [`WireError`]; then nothing may be concluded. [`WireError::Netns`] when the pod's namespace is gone.
pub fn check_pod(expected: &ExpectedPod<'_>) -> Result<Vec<Difference>, WireError> {
    Ok(differences(expected, &see(expected)?))
}

/// What is there, as far as it concerns the interface.
#[derive(Debug, Clone, Default)]
struct Seen {
    inner: Option<Link>,
    addresses: Vec<IpAddr>,
    neighbours: Vec<Neighbour>,
    inner_routes: Vec<Route>,
    inner_rules: Vec<Rule>,
    outer: Option<Link>,
    /// Links to which the pods' table leads, for each of the addresses.
    leads_to: BTreeMap<IpAddr, Vec<u32>>,
    /// The pods' map. Absent: it is not there.
    marks: Option<BTreeMap<IpAddr, EniMark>>,
}

fn see(expected: &ExpectedPod<'_>) -> Result<Seen, WireError> {
    let netns = Netns::open_other(expected.netns)?;
    let mut pod = open_inside(&netns)?;
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    let inner = look(&mut pod, expected.key.interface())?;
    let index = inner.as_ref().map_or(0, |link| link.index);
    let mut seen =
        Seen { inner, outer: search(&mut host, expected.key)?, marks: Nft::open()?.pods()?, ..Seen::default() };
    for address in expected.addresses.all() {
        let family = Family::of(address);
        let own = observe::addresses(&mut pod, family)?.into_iter().filter(|(it, _)| it.link == index);
        seen.addresses.extend(own.map(|(it, _)| it.address));
        seen.neighbours.extend(observe::neighbours(&mut pod, family)?.into_iter().filter(|it| it.link == index));
        // Another CNI may have made the pod, before we took it over.
        seen.inner_routes.extend(observe::all_routes(&mut pod, family)?.into_iter().filter(|it| it.link == index));
        seen.inner_rules.extend(observe::rules(&mut pod, family)?);
        let routes = observe::routes(&mut host, family, Some(TABLE_PODS))?;
        let leads_to = routes.into_iter().filter(|route| route.destination == Cidr::host(address));
        seen.leads_to.insert(address, leads_to.map(|route| route.link).collect());
    }
    Ok(seen)
}

fn differences(expected: &ExpectedPod<'_>, seen: &Seen) -> Vec<Difference> {
    let mut found = Vec::new();
    let interface = expected.key.interface();
    match &seen.inner {
        None => found.push(Difference::new(format!("interface {interface} in the pod"), "a link", "none")),
        Some(inner) => {
            end(&format!("{interface} in the pod"), &expected.pod, inner, &mut found);
            inside(expected, seen, inner.index, &mut found);
        }
    }
    let what = "host interface";
    match &seen.outer {
        None => {
            found.push(Difference::new(what, expected.host.name.unwrap_or("the attachment's"), "none"));
        }
        Some(outer) => {
            end(&format!("{what} {}", outer.name), &expected.host, outer, &mut found);
            if let Some(inner) = seen.inner.as_ref().filter(|inner| inner.peer != Some(outer.index)) {
                let peer = inner.peer.map_or("none".to_owned(), |peer| format!("index {peer}"));
                let wanted = format!("{} (index {})", outer.name, outer.index);
                found.push(Difference::new(format!("other end of {interface}"), wanted, peer));
            }
            around(expected, seen, outer, &mut found);
        }
    }
    found
}

fn end(what: &str, expected: &ExpectedEnd<'_>, link: &Link, found: &mut Vec<Difference>) {
    if let Some(name) = expected.name.filter(|name| *name != link.name) {
        found.push(Difference::new(format!("name of {what}"), name, &link.name));
    }
    if let Some(mac) = expected.mac.filter(|mac| Some(*mac) != link.mac) {
        let seen = link.mac.map_or("none".to_owned(), |mac| mac.to_string());
        found.push(Difference::new(format!("hardware address of {what}"), mac, seen));
    }
    if let Some(mtu) = expected.mtu.filter(|mtu| *mtu != link.mtu) {
        found.push(Difference::new(format!("MTU of {what}"), mtu, link.mtu));
    }
    if !link.up {
        found.push(Difference::new(what, "up", "down"));
    }
}

fn inside(expected: &ExpectedPod<'_>, seen: &Seen, link: u32, found: &mut Vec<Difference>) {
    let interface = expected.key.interface();
    let mac = seen.outer.as_ref().and_then(|outer| outer.mac).or(expected.host.mac);
    for address in expected.addresses.all() {
        if !seen.addresses.contains(&address) {
            found.push(Difference::new(format!("address of {interface}"), address, list(&seen.addresses)));
        }
        let gateway: IpAddr = if address.is_ipv4() { POD_GATEWAY.into() } else { POD_GATEWAY_V6.into() };
        let held: Vec<_> = seen.neighbours.iter().filter(|it| it.address == gateway).map(|it| it.mac).collect();
        if let Some(mac) = mac.filter(|mac| !held.contains(mac)) {
            found.push(Difference::new(format!("neighbour {gateway} on {interface}"), mac, list(&held)));
        }
    }
    // Who made a pod that was taken over reported no way out of it.
    let in_main = expected.default_route || label(seen).is_some_and(|label| label.adopted_mac.is_some());
    let table = if in_main { TABLE_MAIN } else { plan::own_table(link) };
    for step in plan::routes(link, expected.addresses, table) {
        match step {
            Op::Add(Object::Route(route)) if !seen.inner_routes.contains(&route) => {
                let others: Vec<_> =
                    seen.inner_routes.iter().filter(|it| it.destination == route.destination).collect();
                found.push(Difference::new(format!("route to {} in the pod", route.destination), route, list(&others)));
            }
            Op::Add(Object::Rule(rule)) if !seen.inner_rules.contains(&rule) => {
                found.push(Difference::new("rule in the pod", rule, list(&seen.inner_rules)));
            }
            Op::Add(_) | Op::Remove(_) | Op::Set { .. } => {}
        }
    }
}

fn around(expected: &ExpectedPod<'_>, seen: &Seen, outer: &Link, found: &mut Vec<Difference>) {
    for (address, leads_to) in seen.leads_to.iter().filter(|(_, leads_to)| **leads_to != [outer.index]) {
        let wanted = format!("over {} (index {})", outer.name, outer.index);
        let indexes: Vec<_> = leads_to.iter().map(|index| format!("over index {index}")).collect();
        found.push(Difference::new(format!("route to {address} in table {TABLE_PODS}"), wanted, list(&indexes)));
    }
    let Some(wanted) = expected.eni_mark.or(label(seen).map(|label| label.eni_mark)) else { return };
    let wanted = Some(wanted).filter(|mark| !mark.is_primary());
    let text = |mark: Option<EniMark>| mark.map_or("none".to_owned(), eni_chain);
    for address in expected.addresses.of_vpc() {
        let held = seen.marks.as_ref().map(|marks| marks.get(&address).copied());
        if held.flatten() != wanted {
            let held = held.map_or("no such map".to_owned(), text);
            found.push(Difference::new(format!("map element of {address}"), text(wanted), held));
        }
    }
}

/// What the host's end says of itself.
fn label(seen: &Seen) -> Option<LinkAlias> {
    seen.outer.as_ref()?.alias.parse().ok()
}

fn list(things: &[impl ToString]) -> String {
    match things {
        [] => "none".to_owned(),
        things => things.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

//! What the kernel has, as far as it concerns us. Only for recovery, preparation and people: nothing here is on the way of an ADD.

use std::{collections::BTreeMap, io, net::IpAddr};

use eni_proto::{
    EniMark, LinkAlias, PodKey, VethPrefix,
    numbers::{NFT_TABLE, RULE_TO_POD, TABLE_PODS},
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::{
    Family, MacAddress, NftError,
    nft::Nft,
    ops::{Address, Neighbour, Route, Rule},
    route::{self, Link, Whose},
    socket::{NetlinkSocket, Refusal},
    sysctl,
};

/// Why the kernel could not be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The kernel refused a dump.
    #[error("cannot list {what}")]
    Refused {
        /// Links, addresses, routes, rules or neighbours.
        what: &'static str,
        /// Why.
        source: Refusal,
    },
    /// There is no talking to the kernel.
    #[error("netlink socket failed")]
    Socket(#[from] io::Error),
    /// nf_tables could not be read.
    #[error("cannot list the pods' map")]
    Nft(#[from] NftError),
}

/// A pod's link on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its hardware address.
    pub mac: Option<MacAddress>,
    /// What it says of itself. Absent: an ADD died between making the link and labelling it, or it is somebody else's.
    pub alias: Option<LinkAlias>,
}

impl From<Link> for PodLink {
    fn from(link: Link) -> Self {
        Self { alias: link.alias.parse().ok(), name: link.name, index: link.index, mac: link.mac }
    }
}

/// Everything in the kernel that belongs to pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodState {
    /// Links with our prefix, by index.
    pub links: Vec<PodLink>,
    /// Addresses in the pods' table and the index of the link that each leads to.
    pub routes: BTreeMap<IpAddr, u32>,
    /// Addresses whose packets leave by a secondary ENI. The primary's are not listed.
    pub marks: BTreeMap<IpAddr, EniMark>,
}

/// What we look at before we change a node's base or an ENI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HostState {
    /// By index.
    pub(crate) links: Vec<Link>,
    /// With whether it is stamped as ours.
    pub(crate) addresses: Vec<(Address, bool)>,
    /// Ours only.
    pub(crate) routes: Vec<Route>,
    /// Ours only.
    pub(crate) rules: Vec<Rule>,
    /// Everybody else's.
    pub(crate) foreign_rules: Vec<Rule>,
    /// Those of them that every packet meets.
    pub(crate) general_rules: Vec<Rule>,
    /// Permanent ones.
    pub(crate) neighbours: Vec<Neighbour>,
}

impl HostState {
    /// Returns the link with this hardware address; the oldest when children share it with their parent.
    pub(crate) fn link_of(&self, mac: MacAddress) -> Option<&Link> {
        self.links.iter().filter(|link| link.mac == Some(mac)).min_by_key(|link| link.index)
    }

    /// Pods' links that say whose they are, with that.
    pub(crate) fn labelled(&self) -> impl Iterator<Item = (&Link, LinkAlias)> {
        let veths = self.links.iter().filter(|link| link.kind == "veth");
        veths.filter_map(|link| Some((link, link.alias.parse().ok()?)))
    }
}

/// Returns everything in the kernel that belongs to pods.
///
/// # Errors
/// [`ObserveError`]; then nothing may be concluded.
pub fn observe_pods(prefix: &VethPrefix) -> Result<PodState, ObserveError> {
    let mut socket = NetlinkSocket::open(NETLINK_ROUTE)?;
    let links = links(&mut socket)?
        .into_iter()
        .filter(|link| link.kind == "veth" && link.name.starts_with(prefix.as_str()))
        .map(PodLink::from)
        .collect();
    let mut leads_to = BTreeMap::new();
    for family in families() {
        let hosts = routes(&mut socket, family, Some(TABLE_PODS))?.into_iter().filter(|it| it.destination.is_host());
        leads_to.extend(hosts.map(|route| (route.destination.network(), route.link)));
    }
    let marks = Nft::open()?.pods()?.unwrap_or_default();
    Ok(PodState { links, routes: leads_to, marks })
}

/// The families that this kernel has.
pub(crate) fn families() -> impl Iterator<Item = Family> {
    Family::ALL.into_iter().filter(|family| *family == Family::V4 || sysctl::has_ipv6())
}

/// Of both families, where the kernel has IPv6.
pub(crate) fn observe_host(socket: &mut NetlinkSocket) -> Result<HostState, ObserveError> {
    let mut state = HostState { links: links(socket)?, ..HostState::default() };
    for family in families() {
        state.addresses.extend(addresses(socket, family)?);
        state.routes.extend(routes(socket, family, None)?);
        for (rule, whose) in all_rules(socket, family)? {
            if whose == Whose::OthersForAll {
                state.general_rules.push(rule);
            }
            if whose == Whose::Ours { &mut state.rules } else { &mut state.foreign_rules }.push(rule);
        }
        state.neighbours.extend(neighbours(socket, family)?);
    }
    Ok(state)
}

/// Returns the attachments that links of this node say they belong to, whatever the links' names; sorted, each once.
///
/// # Errors
/// [`ObserveError`]; then nothing may be concluded.
pub fn labelled_pods() -> Result<Vec<PodKey>, ObserveError> {
    let links = links(&mut NetlinkSocket::open(NETLINK_ROUTE)?)?.into_iter().filter(|link| link.kind == "veth");
    let mut keys: Vec<PodKey> = links.filter_map(|link| Some(link.alias.parse::<LinkAlias>().ok()?.key)).collect();
    keys.sort();
    keys.dedup();
    Ok(keys)
}

/// Says by what all pods of this node are cut off; nothing when nothing is missing, or there is no pod.
///
/// Quick: asks for our routes, rules and table, whose number does not depend on anything but pods.
///
/// # Errors
/// [`ObserveError`].
pub fn impairment() -> Result<Option<String>, ObserveError> {
    let mut socket = NetlinkSocket::open(NETLINK_ROUTE)?;
    for family in families() {
        if let Some(what) = impairment_of(&mut socket, family)? {
            return Ok(Some(what));
        }
    }
    Ok(None)
}

fn impairment_of(socket: &mut NetlinkSocket, family: Family) -> Result<Option<String>, ObserveError> {
    let pods = routes(socket, family, Some(TABLE_PODS))?.len();
    if pods == 0 {
        return Ok(None);
    }
    let (of, table) = match family {
        Family::V4 => ("", "ip"),
        Family::V6 => ("IPv6 ", "ip6"),
    };
    if !rules(socket, family)?.iter().any(|rule| rule.priority == RULE_TO_POD && rule.table == TABLE_PODS) {
        return Ok(Some(format!(
            "{of}rule {RULE_TO_POD} (lookup {TABLE_PODS}) is missing, so nothing reaches the {pods} pods"
        )));
    }
    if !Nft::open()?.has_table(family)? {
        return Ok(Some(format!("nf_tables table {table} {NFT_TABLE} is missing, so the {pods} pods do not get far")));
    }
    Ok(None)
}

/// With whether each is stamped as ours.
pub(crate) fn addresses(socket: &mut NetlinkSocket, family: Family) -> Result<Vec<(Address, bool)>, ObserveError> {
    dump(socket, "addresses", &route::all_addresses(family), route::read_address)
}

/// Ours only.
pub(crate) fn rules(socket: &mut NetlinkSocket, family: Family) -> Result<Vec<Rule>, ObserveError> {
    let ours = |(rule, whose)| (whose == Whose::Ours).then_some(rule);
    Ok(all_rules(socket, family)?.into_iter().filter_map(ours).collect())
}

fn all_rules(socket: &mut NetlinkSocket, family: Family) -> Result<Vec<(Rule, Whose)>, ObserveError> {
    dump(socket, "rules", &route::all_rules(family), route::read_rule)
}

/// Routes in a table of ours that somebody else made, but those that ours come before.
pub(crate) fn foreign_routes(
    socket: &mut NetlinkSocket,
    family: Family,
    table: u32,
) -> Result<Vec<Route>, ObserveError> {
    dump(socket, "routes", &route::all_routes(family, Some(table)), route::read_foreign_route)
}

/// Permanent ones only.
pub(crate) fn neighbours(socket: &mut NetlinkSocket, family: Family) -> Result<Vec<Neighbour>, ObserveError> {
    dump(socket, "neighbours", &route::all_neighbours(family), route::read_neighbour)
}

pub(crate) fn links(socket: &mut NetlinkSocket) -> Result<Vec<Link>, ObserveError> {
    dump(socket, "links", &route::all_links(), route::read_link)
}

pub(crate) fn routes(
    socket: &mut NetlinkSocket,
    family: Family,
    table: Option<u32>,
) -> Result<Vec<Route>, ObserveError> {
    dump(socket, "routes", &route::our_routes(family, table), route::read_route)
}

/// Everybody's unicast routes.
pub(crate) fn all_routes(socket: &mut NetlinkSocket, family: Family) -> Result<Vec<Route>, ObserveError> {
    let read = |kind, payload: &[u8]| route::read_any_route(kind, payload).map(|(route, _)| route);
    dump(socket, "routes", &route::all_routes(family, None), read)
}

pub(crate) fn dump<T>(
    socket: &mut NetlinkSocket,
    what: &'static str,
    request: &RouteNetlinkMessage,
    read: impl Fn(u16, &[u8]) -> Option<T>,
) -> Result<Vec<T>, ObserveError> {
    let (kind, payload) = route::dump_request(request);
    let reply = socket.dump(kind, &payload)?;
    match reply.result {
        Ok(()) => Ok(reply.data.iter().filter_map(|(kind, payload)| read(*kind, payload)).collect()),
        // A table that has never had a route does not exist.
        Err(refusal) if what == "routes" && refusal.errno == nix::errno::Errno::ENOENT => Ok(Vec::new()),
        Err(source) => Err(ObserveError::Refused { what, source }),
    }
}

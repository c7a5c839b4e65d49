//! What of the incumbent's is in the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use eni_proto::{
    LinkAlias, LinkName, VethPrefix,
    numbers::{
        ROUTE_PROTOCOL, RULE_BRANCH, RULE_ENI_MARK, RULE_FROM_ENI, RULE_PRIMARY_MARK, RULE_TO_BRANCH_POD, RULE_TO_POD,
        TABLE_MAIN,
    },
};

use netlink_sys::protocols::NETLINK_ROUTE;

use super::{Chains, Namespaces};
use crate::{
    Cidr, Family, MacAddress, Netns, ObserveError, observe,
    ops::{Route, Rule},
    route::{self, AnyRule, Link},
    socket::NetlinkSocket,
};

/// Rules `to NETWORK lookup main` for `AWS_EXTERNAL_SERVICE_CIDRS`.
const RULE_EXTERNAL_SERVICE: u32 = 1535;
/// First characters of the VLAN links of such pods.
const BRANCH_LINK: &str = "vlan.eth.";

/// Everything of the incumbent's, and what of ours belongs to the same pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Incumbent {
    /// All links of the host.
    pub(super) links: Vec<Link>,
    /// First characters of pods' links.
    pub(super) prefix: VethPrefix,
    /// Everybody's rules.
    pub(super) rules: Vec<AnyRule>,
    /// Everybody's unicast routes, with who made them.
    pub(super) routes: Vec<(Route, u8)>,
    /// What has been found of its chains.
    pub(super) chains: Chains,
}

/// A pod whose link has no label of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPod {
    /// Name of its link.
    pub link: String,
    /// The same without the prefix.
    pub name: Option<LinkName>,
    /// Index of its link.
    pub index: u32,
    /// Hardware address of its link.
    pub mac: MacAddress,
    /// Where the main table leads to by this link.
    pub address: Ipv4Addr,
    /// Index of the pod's end.
    pub peer: u32,
}

impl Incumbent {
    /// Looks at links, rules, routes and chains. Changes nothing.
    ///
    /// # Errors
    /// [`ObserveError`]; then nothing may be concluded.
    pub fn observe(prefix: &VethPrefix) -> Result<Self, ObserveError> {
        let mut socket = NetlinkSocket::open(NETLINK_ROUTE)?;
        let (mut rules, mut routes) = (Vec::new(), Vec::new());
        for family in observe::families() {
            rules.extend(observe::dump(&mut socket, "rules", &route::all_rules(family), route::read_any_rule)?);
            let all = route::all_routes(family, None);
            routes.extend(observe::dump(&mut socket, "routes", &all, route::read_any_route)?);
        }
        let links = observe::links(&mut socket)?;
        Ok(Self { links, prefix: prefix.clone(), rules, routes, chains: Chains::observe()? })
    }

    /// Its chains, as far as nf_tables has them.
    #[must_use]
    pub const fn chains(&self) -> &Chains {
        &self.chains
    }

    /// Pods that it has made and that nobody has taken over, by their links.
    #[must_use]
    pub fn pods(&self) -> Vec<FoundPod> {
        let pods = self.pod_links().filter(|link| link.alias.is_empty());
        pods.filter_map(|link| {
            Some(FoundPod {
                link: link.name.clone(),
                name: LinkName::of(&self.prefix, &link.name),
                index: link.index,
                mac: link.mac?,
                address: self.leads_over(link.index)?,
                peer: link.peer?,
            })
        })
        .collect()
    }

    /// What of pods with an ENI of their own (security groups for pods) is there, one thing a line.
    #[must_use]
    pub fn branches(&self) -> Vec<String> {
        let links = self.links.iter().filter(|link| link.name.starts_with(BRANCH_LINK));
        let rules = self.rules.iter().filter(|rule| rule.rule.priority == RULE_BRANCH && rule.incoming.is_some());
        let links = links.map(|link| format!("link {}", link.name));
        links.chain(rules.map(ToString::to_string)).collect()
    }

    /// What is left of it beside pods that nobody has taken over, one thing a line.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let outdated = self.outdated().map(|rule| format!("{rule}, which an older version made"));
        let rules = self.stale_rules().map(ToString::to_string).chain(outdated);
        let routes = self.stale_routes().map(|(route, _)| format!("main route {}", route.destination));
        rules.chain(routes).chain(self.chains.lines()).collect()
    }

    /// Pods' links that say whose they are, with that.
    pub(super) fn labelled(&self) -> impl Iterator<Item = (&Link, LinkAlias)> {
        let veths = self.links.iter().filter(|link| link.kind == "veth");
        veths.filter_map(|link| Some((link, link.alias.parse().ok()?)))
    }

    /// Its rules of pods that are ours or nobody's, and those of the node for which there is one of ours.
    pub(super) fn stale_rules(&self) -> impl Iterator<Item = &AnyRule> {
        let living = self.living();
        let ours: BTreeSet<Rule> = self.own_rules().map(|it| it.rule).collect();
        let others = self.rules.iter().filter(|rule| rule.protocol != ROUTE_PROTOCOL && rule.incoming.is_none());
        others.filter(move |it| {
            let whose = match it.rule.priority {
                RULE_TO_POD if it.rule.table == TABLE_MAIN => it.to.filter(|to| to.is_host()).map(|to| to.network()),
                RULE_ENI_MARK if it.to.is_none() && it.rule.mark.is_none() => it.rule.from,
                RULE_PRIMARY_MARK | RULE_FROM_ENI if it.to.is_none() => return ours.contains(&it.rule),
                RULE_EXTERNAL_SERVICE if it.rule.table == TABLE_MAIN => return it.to.is_some() && living.is_empty(),
                _ => None,
            };
            whose.is_some_and(|address| !living.contains(&address))
        })
    }

    /// Addresses of its pods that nobody has taken over; all that it has of those of an IPv6 cluster, which cannot be.
    fn living(&self) -> BTreeSet<IpAddr> {
        let unlabelled = self.pod_links().filter(|link| link.alias.is_empty());
        let all = unlabelled.flat_map(|link| self.main_leads_to(link.index)).filter(IpAddr::is_ipv6);
        all.chain(self.pods().into_iter().map(|pod| pod.address.into())).collect()
    }

    /// Rules of ours that nothing of today makes: of another priority, or to the table of an ENI that is gone with its routes.
    pub(super) fn outdated(&self) -> impl Iterator<Item = &AnyRule> {
        let used: BTreeSet<u32> = self.routes.iter().map(|(route, _)| route.table).collect();
        self.own_rules().filter(move |it| match it.rule.priority {
            // Of pods on branch ENIs, whoever lives: their own end takes these away.
            RULE_BRANCH | RULE_TO_BRANCH_POD => false,
            RULE_TO_POD | RULE_PRIMARY_MARK => false,
            RULE_ENI_MARK | RULE_FROM_ENI => !used.contains(&it.rule.table),
            _ => true,
        })
    }

    fn own_rules(&self) -> impl Iterator<Item = &AnyRule> {
        self.rules.iter().filter(|rule| rule.protocol == ROUTE_PROTOCOL)
    }

    /// Its routes to pods that are ours.
    pub(super) fn stale_routes(&self) -> impl Iterator<Item = &(Route, u8)> {
        let ours: BTreeSet<u32> = self.labelled().map(|(link, _)| link.index).collect();
        self.routes.iter().filter(move |(route, protocol)| {
            let to_pod = route.table == TABLE_MAIN && route.destination.is_host() && route.gateway.is_none();
            to_pod && *protocol != ROUTE_PROTOCOL && ours.contains(&route.link)
        })
    }

    fn pod_links(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(|link| link.kind == "veth" && link.name.starts_with(self.prefix.as_str()))
    }

    /// Of several addresses (a pod has one) the one for which there is a rule too.
    fn leads_over(&self, link: u32) -> Option<Ipv4Addr> {
        let v4 = |address| if let IpAddr::V4(address) = address { Some(address) } else { None };
        let mut found: Vec<Ipv4Addr> = self.main_leads_to(link).filter_map(v4).collect();
        let ruled = |to: Ipv4Addr| {
            let to = Some(Cidr::host(to));
            self.rules.iter().any(|it| it.rule.priority == RULE_TO_POD && it.to == to)
        };
        found.sort_by_key(|to| !ruled(*to));
        found.first().copied()
    }

    /// Addresses to which the main table leads by this link, without a router.
    fn main_leads_to(&self, link: u32) -> impl Iterator<Item = IpAddr> {
        let over = self.routes.iter().map(|(route, _)| route).filter(move |route| {
            route.link == link && route.table == TABLE_MAIN && route.destination.is_host() && route.gateway.is_none()
        });
        over.map(|route| route.destination.network())
    }
}

impl std::fmt::Display for AnyRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rule {}:", self.rule.priority)?;
        if let Some(from) = self.rule.from {
            write!(f, " from {from}")?;
        }
        if let Some(to) = self.to {
            write!(f, " to {to}")?;
        }
        if let Some((value, mask)) = self.rule.mark {
            write!(f, " fwmark {value:#x}/{mask:#x}")?;
        }
        if let Some(incoming) = &self.incoming {
            write!(f, " iif {incoming}")?;
        }
        write!(f, " lookup {}", self.rule.table)
    }
}

/// Finds the namespace in which each pod's end lives, among the files of a folder. Pods whose namespace has no file there are left out.
///
/// A pod's end is the other end of its link and has its address.
///
/// # Errors
/// When the folder cannot be read. A file that leads to no namespace is passed over.
pub fn find_namespaces(pods: &[FoundPod], folder: &Path) -> std::io::Result<Namespaces> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some((links, addresses)) = look_inside(&path) else { continue };
        let is_own = |pod: &&FoundPod| {
            let end = links.iter().find(|link| link.index == pod.peer && link.peer == Some(pod.index));
            end.is_some_and(|end| addresses.contains(&(end.index, pod.address.into())))
        };
        if let Some(pod) = pods.iter().find(is_own) {
            found.entry(pod.index).or_insert(path);
        }
    }
    Ok(found)
}

/// Links of a namespace, and what addresses are on which.
type Inside = (Vec<Link>, BTreeSet<(u32, IpAddr)>);

fn look_inside(path: &Path) -> Option<Inside> {
    let netns = Netns::open_other(path).ok()?;
    let look = || {
        let mut socket = NetlinkSocket::open(NETLINK_ROUTE).ok()?;
        let addresses = observe::addresses(&mut socket, Family::V4).ok()?;
        let addresses = addresses.into_iter().map(|(address, _)| (address.link, address.address)).collect();
        Some((observe::links(&mut socket).ok()?, addresses))
    };
    netns.inside(look).ok()?
}

//! What a pod on a branch ENI looks like on the host. Pure.

use std::{fmt, net::IpAddr, str::FromStr};

use eni_proto::{
    BranchEni, Enforcing, Pod, PodAddresses, PodKey, VethPrefix, host_link_name,
    numbers::{
        RULE_BRANCH, RULE_ENI_MARK, RULE_LOCAL_BEHIND, RULE_TO_BRANCH_POD, TABLE_LOCAL, TABLE_MAIN, VPC_ROUTER_V6,
        branch_table,
    },
};

use crate::{
    Cidr, Family,
    ops::{BranchRule, Ipv4Setting, Object, Op, Route, Rule, Selector, Setting},
    pod::{PodWiring, plan},
};

/// First characters of the host interface of a pod in strict mode, in place of the usual ones; the AWS CNI's.
const STRICT_PREFIX: &str = "vlan";

/// Name of the branch's link; the AWS CNI's.
pub(super) fn vlan_name(vlan: u16) -> String {
    format!("vlan.eth.{vlan}")
}

/// Name of the pod's host interface.
pub(super) fn host_name(enforcing: Enforcing, prefix: &VethPrefix, key: &PodKey, pod: &Pod) -> String {
    let usual = host_link_name(prefix, key, pod);
    match enforcing {
        Enforcing::Standard => usual,
        Enforcing::Strict => format!("{STRICT_PREFIX}{}", usual.trim_start_matches(prefix.as_str())),
    }
}

/// What leads from the branch's link to the pod and back: routes and settings, then rules.
pub(super) fn host_side(wiring: &PodWiring, branch: &BranchEni, vlan: u32, host: u32) -> (Vec<Op>, Vec<BranchRule>) {
    let (table, strict) = (branch_table(branch.vlan()), branch.enforcing() == Enforcing::Strict);
    let add = |route: Route| Op::Add(Object::Route(route));
    let loose = |link| {
        let setting = |value| Setting::Ipv4(Ipv4Setting::ReversePath, value);
        Op::Set { link, from: setting(0), to: setting(2) }
    };
    let mut ops = vec![Op::Set { link: vlan, from: Setting::Up(false), to: Setting::Up(true) }, loose(vlan)];
    if strict {
        // The kernel looks for the way back without the link that a packet came in by.
        ops.push(loose(host));
    }
    let mut rules = Vec::new();
    let name = host_name(branch.enforcing(), &wiring.network.veth_prefix, &wiring.key, &wiring.pod);
    for address in wiring.network.addresses.all() {
        let family = Family::of(address);
        let router: Option<IpAddr> = match family {
            Family::V4 => branch.router().map(IpAddr::V4),
            Family::V6 => Some(VPC_ROUTER_V6.into()),
        };
        if let Some(router) = router {
            let anywhere = if family == Family::V4 { Cidr::ANY } else { Cidr::ANY_V6 };
            ops.push(add(Route { table, destination: Cidr::host(router), gateway: None, link: vlan }));
            ops.push(add(Route { table, destination: anywhere, gateway: Some(router), link: vlan }));
        }
        let home = if strict { table } else { TABLE_MAIN };
        ops.push(add(Route { table: home, destination: Cidr::host(address), gateway: None, link: host }));
        if strict {
            for link in [vlan_name(branch.vlan()), name.clone()] {
                let (priority, selector) = (RULE_BRANCH, Selector::Incoming(link));
                rules.push(BranchRule { family, priority, selector, table, ours: true });
            }
        } else {
            let from = Rule { family, priority: RULE_ENI_MARK, from: Some(address), mark: None, table };
            ops.push(Op::Add(Object::Rule(from)));
            let (priority, selector) = (RULE_TO_BRANCH_POD, Selector::To(address));
            rules.push(BranchRule { family, priority, selector, table: TABLE_MAIN, ours: true });
        }
    }
    if let Some(address) = wiring.network.addresses.v6() {
        ops.push(Op::Add(Object::Neighbour(plan::pod_neighbour(address, host, &wiring.key))));
    }
    (ops, rules)
}

/// Where the table `local` is asked: what to add, then what to remove. In strict mode behind the rules of the pods.
pub(super) fn local_rules(strict: bool) -> [BranchRule; 4] {
    let rule =
        |family, priority| BranchRule { family, priority, selector: Selector::All, table: TABLE_LOCAL, ours: false };
    let (wanted, unwanted) = if strict { (RULE_LOCAL_BEHIND, 0) } else { (0, RULE_LOCAL_BEHIND) };
    [rule(Family::V4, wanted), rule(Family::V6, wanted), rule(Family::V4, unwanted), rule(Family::V6, unwanted)]
}

/// What both the host interface of such a pod and the branch's link say of themselves; no version of the daemon takes the first for
/// that of another pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BranchLabel {
    pub(super) key: PodKey,
    pub(super) vlan: u16,
    /// When it was made, in seconds since the machine started.
    pub(super) since: u64,
    pub(super) addresses: PodAddresses,
}

const LABEL: &str = "eni-cni-branch:1:";

impl fmt::Display for BranchLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LABEL}{}:{}:{}", self.key, self.vlan, self.since)?;
        // An IPv6 address has colons itself.
        self.addresses.all().try_for_each(|address| write!(f, "+{address}"))
    }
}

impl FromStr for BranchLabel {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        parse(text).ok_or(())
    }
}

fn parse(text: &str) -> Option<BranchLabel> {
    let mut parts = text.strip_prefix(LABEL)?.split('+');
    let mut fields = parts.next()?.split(':');
    let mut key = fields.next()?.split('/');
    let key = PodKey::new(key.next()?, key.next()?, key.next()?).ok()?;
    let (vlan, since) = (fields.next()?.parse().ok()?, fields.next().map_or(Some(0), |since| since.parse().ok())?);
    let addresses: Vec<IpAddr> = parts.map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let v4 = addresses.iter().find_map(|it| if let IpAddr::V4(address) = it { Some(*address) } else { None });
    let v6 = addresses.iter().find_map(|it| if let IpAddr::V6(address) = it { Some(*address) } else { None });
    fields.next().is_none().then_some(BranchLabel { key, vlan, since, addresses: PodAddresses::new(v4, v6)? })
}

//! What our table says.
//!
//! ```text
//! table ip eni_cni
//!   sets direct and by_main, map pod_eni, one chain eni_N for each secondary ENI
//!   inbound      prerouting mangle (-150)   iifname "eni*" ip daddr 127.0.0.0/8  drop
//!                                           iifname PRIMARY ct state new fib daddr type local  ct mark |= 0x80
//!   prerouting   prerouting -90             iifname "eni*" goto from_pod
//!   from_pod     ct mark & 0x80             meta mark |= 0x80, return
//!                ip saddr EGRESS            as the last but one, without regard to the settings, else return
//!                ip daddr @by_main          as the last but one, else return
//!                ip daddr @direct           goto by_owner
//!                ct status ! confirmed fib daddr oifname PRIMARY   ct mark |= 0x80, meta mark |= 0x80, return
//!                fib daddr oifname PRIMARY  goto by_owner
//!   by_owner     ip saddr vmap @pod_eni
//!                iifgroup != 0 meta mark & 0x7f == 0  drop
//!   output       route mangle (-150)        ip daddr @direct goto by_owner
//!   postrouting  nat srcnat (100)           oifname PRIMARY iifname "eni*" ct mark & 0x80 fib saddr type != local  snat to ADDRESS
//!                                           oifname PRIMARY iifname != "eni*" ip daddr != @direct fib saddr type != local  snat to ADDRESS
//! ```
//!
//! Two chains hang on prerouting. What came in for the node itself (NodePort) must be seen *before* DNAT (-100), which turns the
//! node's address into a pod's; which ENI a pod's packet leaves by must be decided *after* DNAT, when the real destination is known.
//! In `inbound` replies to source-NATed flows, which also arrive for the node's address, are left alone.
//!
//! The first packet of a connection decides for all of it, and the connection mark remembers: bit 0x80 means by the primary ENI, as the
//! node. So a connection outlives a change of the settings, and a packet that is between two hooks at that moment is not judged
//! twice. All others leave by the ENI that owns the pod's address, also the replies to what came in by it from anywhere, as from a
//! load balancer that keeps its clients' addresses. What the main routes do not send by the primary ENI, as to a network of
//! containers on this node, is none of our business.
//!
//! What somebody else broke must not send a pod's packet by the wrong ENI until it is mended: a pod of a secondary ENI, whose link is in
//! the ENI's group, is not let through without its element. What holds without this table is in [`super::stay`].

use std::net::{IpAddr, Ipv4Addr};

use eni_proto::{
    EniMark, VethPrefix,
    numbers::{
        EGRESS_V4, EGRESS_V4_BITS, EGRESS_V6, EGRESS_V6_BITS, ENI_MARK_MASK, NFT_BY_MAIN_SET, NFT_DIRECT_SET,
        NFT_POD_MAP, NFT_PREROUTING_PRIORITY, NFT_TABLE, PRIMARY_MARK,
    },
};

use super::{
    Nft, NftError,
    encode::{Change, Expression, Field, Hook, Step, eni_chain, next},
};
use crate::{Cidr, Family, SourcePorts};

const HOOK_PREROUTING: u32 = 0;
const HOOK_OUTPUT: u32 = 3;
pub(super) const HOOK_POSTROUTING: u32 = 4;
const PRIORITY_MANGLE: i32 = -150;
const PRIORITY_SOURCE_NAT: i32 = 100;
/// `RTN_LOCAL` of linux/rtnetlink.h, as `fib` puts it into a register.
const TYPE_LOCAL: u32 = 2;
/// Bit of a new connection in `ct state`. Source: `NF_CT_STATE_BIT(IP_CT_NEW)`.
const STATE_NEW: u32 = 8;
/// Bit of `ct status` that every packet of a connection has but the first. Source: `IPS_CONFIRMED`.
const STATUS_CONFIRMED: u32 = 8;
/// All chains that packets come to by themselves.
pub(super) const HOOKED: [&str; 4] = ["inbound", "prerouting", "output", "postrouting"];
const BY_OWNER: &str = "by_owner";
const FROM_POD: &str = "from_pod";
/// A message has room for 64 KiB of elements; a range takes up to 40 bytes.
const RANGES_PER_MESSAGE: usize = 1000;

/// What the table needs to know of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape<'a> {
    /// Of IPv6 nothing is translated.
    pub(crate) family: Family,
    pub(crate) primary_link: &'a str,
    pub(crate) primary_address: Ipv4Addr,
    pub(crate) direct: &'a [Cidr],
    pub(crate) by_main: &'a [Cidr],
    pub(crate) external_snat: bool,
    pub(crate) node_ports: bool,
    pub(crate) source_ports: SourcePorts,
    pub(crate) veth_prefix: &'a VethPrefix,
    /// Whether some pods have addresses of this family that are not the VPC's.
    pub(crate) egress: bool,
}

/// Brings the table to this shape and leaves pods and ENI chains in it as they are. Right for an absent table too.
pub(crate) fn refresh(shape: &Shape<'_>) -> Vec<Step> {
    let sets = sets(shape);
    let mut changes = vec![Change::AddTable, Change::AddPodMap];
    changes.extend(sets.map(|(set, _)| Change::AddNetworkSet { set }));
    let chains = chains(shape);
    for (name, hook, _) in &chains {
        changes.push(Change::AddChain { name: (*name).to_owned(), hook: *hook });
        changes.push(Change::ClearRules { chain: (*name).to_owned() });
    }
    for (name, _, rules) in chains {
        changes.extend(rules.into_iter().map(|expressions| Change::AddRule { chain: name.to_owned(), expressions }));
    }
    for (set, networks) in sets {
        changes.push(Change::ClearSet { set });
        let parts = merge(networks);
        changes.extend(parts.chunks(RANGES_PER_MESSAGE).map(|part| Change::AddRanges { set, ranges: part.to_vec() }));
    }
    in_family(shape.family, changes)
}

/// Tells whether the fixed chains and the sets of networks are as [`refresh`] writes them.
pub(crate) fn is_right(nft: &mut Nft, shape: &Shape<'_>) -> Result<bool, NftError> {
    for (name, _, rules) in chains(shape) {
        if !nft.rules_are(shape.family, NFT_TABLE, name, &rules)? {
            return Ok(false);
        }
    }
    for (set, networks) in sets(shape) {
        if !nft.ranges_are(shape.family, set, &merge(networks))? {
            return Ok(false);
        }
    }
    Ok(true)
}

const fn sets<'a>(shape: &Shape<'a>) -> [(&'static str, &'a [Cidr]); 2] {
    [(NFT_DIRECT_SET, shape.direct), (NFT_BY_MAIN_SET, shape.by_main)]
}

fn in_family(family: Family, changes: Vec<Change>) -> Vec<Step> {
    changes.into_iter().map(|change| (family, change)).collect()
}

/// Throws the table away and makes it anew with the same pods: for a table that an other version of us has made.
pub(crate) fn rebuild(shape: &Shape<'_>, pods: &super::PodMap) -> Vec<Step> {
    let family = shape.family;
    let mut changes = in_family(family, vec![Change::AddTable, Change::RemoveTable]);
    changes.extend(refresh(shape));
    let pods = || pods.iter().filter(|(address, _)| Family::of(**address) == family);
    let marks: std::collections::BTreeSet<EniMark> = pods().map(|(_, mark)| *mark).collect();
    changes.extend(marks.into_iter().flat_map(|mark| add_eni(family, mark)));
    changes.extend(pods().map(|(address, mark)| (family, Change::AddPod { address: *address, mark: *mark })));
    changes
}

/// Adds the chain that marks an ENI's packets, or makes it right.
pub(crate) fn add_eni(family: Family, mark: EniMark) -> Vec<Step> {
    let name = eni_chain(mark);
    let changes = vec![
        Change::AddChain { name: name.clone(), hook: None },
        Change::ClearRules { chain: name.clone() },
        Change::AddRule { chain: name, expressions: set_mark(mark).to_vec() },
    ];
    in_family(family, changes)
}

/// The one rule of an ENI's chain.
pub(super) fn set_mark(mark: EniMark) -> [Expression; 3] {
    let bits = Expression::Bits { mask: !ENI_MARK_MASK, xor: mark.value() };
    [Expression::Load(Field::Mark), bits, Expression::Store(Field::Mark)]
}

/// Removes an ENI's chain; refused (EBUSY) while a pod's element points to it.
pub(crate) fn remove_eni(family: Family, mark: EniMark) -> Vec<Step> {
    let name = eni_chain(mark);
    in_family(family, vec![Change::ClearRules { chain: name.clone() }, Change::RemoveChain { name }])
}

/// Takes all rules from the chains that packets come to by themselves.
pub(crate) fn unhook(family: Family) -> Vec<Step> {
    in_family(family, HOOKED.map(|chain| Change::ClearRules { chain: chain.to_owned() }).into())
}

type Chain = (&'static str, Option<Hook>, Vec<Vec<Expression>>);

/// All fixed chains; one that another leads to comes first.
fn chains(shape: &Shape<'_>) -> Vec<Chain> {
    let hook = |kind, number, priority| Some(Hook { kind, number, priority });
    let by_element = vec![Expression::Load(Field::Source), Expression::Follow(NFT_POD_MAP)];
    let mut without_element = vec![Expression::Load(Field::IncomingGroup), Expression::NotEqual(vec![0; 4])];
    without_element.extend(eni_of_mark());
    without_element.extend([Expression::Equal(vec![0; 4]), Expression::Drop]);
    let goto = [came_from_pod(shape).to_vec(), vec![Expression::Goto(FROM_POD.to_owned())]].concat();
    let to_owner = vec![Expression::Goto(BY_OWNER.to_owned())];
    let mut inbound: Vec<_> = shape.node_ports.then(|| remember_primary(shape.primary_link)).into_iter().collect();
    inbound.insert(0, if shape.family == Family::V4 { stays_off_loopback(shape) } else { is_itself(shape) });
    let output = if shape.external_snat { to_owner } else { when(NFT_DIRECT_SET, to_owner) };
    vec![
        (BY_OWNER, None, vec![by_element, without_element]),
        (FROM_POD, None, from_pod(shape)),
        ("inbound", hook("filter", HOOK_PREROUTING, PRIORITY_MANGLE), inbound),
        ("prerouting", hook("filter", HOOK_PREROUTING, NFT_PREROUTING_PRIORITY), vec![goto]),
        ("output", hook("route", HOOK_OUTPUT, PRIORITY_MANGLE), vec![output]),
        ("postrouting", hook("nat", HOOK_POSTROUTING, PRIORITY_SOURCE_NAT), source_nat(shape)),
    ]
}

/// What IPv4's reverse path filter does for a pod's link: a packet whose source does not live behind the link goes no further.
fn is_itself(shape: &Shape<'_>) -> Vec<Expression> {
    let mut rule = came_from_pod(shape).to_vec();
    rule.extend([Expression::Load(Field::SourceBehindLink), Expression::Equal(vec![0; 4]), Expression::Drop]);
    rule
}

/// What listens on the node's loopback is for the node alone. Others set `route_localnet`, as portmap does on the link of a pod with a
/// host port, and the kernel would let such packets in; of IPv6 it never does. Somebody's DNAT to there comes later and still works.
fn stays_off_loopback(shape: &Shape<'_>) -> Vec<Expression> {
    let mut rule = came_from_pod(shape).to_vec();
    let first_byte = [Expression::Keep(vec![u8::MAX, 0, 0, 0]), Expression::Equal(vec![127, 0, 0, 0])];
    rule.push(Expression::Load(Field::Destination));
    rule.extend(first_byte);
    rule.push(Expression::Drop);
    rule
}

fn remember_primary(primary_link: &str) -> Vec<Expression> {
    let mut rule = vec![Expression::Load(Field::IncomingName), Expression::Equal(name(primary_link))];
    rule.extend([
        Expression::Load(Field::ConnectionState),
        Expression::Bits { mask: STATE_NEW, xor: 0 },
        Expression::NotEqual(vec![0; 4]),
        Expression::Load(Field::DestinationType),
        Expression::Equal(TYPE_LOCAL.to_ne_bytes().to_vec()),
    ]);
    rule.extend(set_bit(Field::ConnectionMark));
    rule
}

/// Each rule ends the chain for what it matches.
fn from_pod(shape: &Shape<'_>) -> Vec<Vec<Expression>> {
    let to_owner = || vec![Expression::Goto(BY_OWNER.to_owned())];
    let mut by_primary = is_marked().to_vec();
    by_primary.extend(set_bit(Field::Mark));
    by_primary.push(Expression::Return);
    let mut rules = vec![by_primary];
    if shape.egress {
        rules.push([is_for_egress(shape.family), begin_by_primary(shape.primary_link)].concat());
        rules.push([is_for_egress(shape.family), vec![Expression::Return]].concat());
    }
    if !shape.by_main.is_empty() {
        if !shape.external_snat {
            rules.push(when(NFT_BY_MAIN_SET, begin_by_primary(shape.primary_link)));
        }
        rules.push(when(NFT_BY_MAIN_SET, vec![Expression::Return]));
    }
    rules.push(when(NFT_DIRECT_SET, to_owner()));
    if !shape.external_snat {
        rules.push(begin_by_primary(shape.primary_link));
    }
    rules.push([main_leads_by(shape.primary_link).to_vec(), to_owner()].concat());
    rules
}

/// The first packet of a connection to the world outside goes by the primary ENI, and so will all others.
fn begin_by_primary(primary_link: &str) -> Vec<Expression> {
    let mut rule = vec![
        Expression::Load(Field::ConnectionStatus),
        Expression::Bits { mask: STATUS_CONFIRMED, xor: 0 },
        Expression::Equal(vec![0; 4]),
    ];
    rule.extend(main_leads_by(primary_link));
    rule.extend(set_bit(Field::ConnectionMark));
    rule.extend(set_bit(Field::Mark));
    rule.push(Expression::Return);
    rule
}

/// Changes the source of what leaves by the primary ENI with an address that is not the node's.
///
/// For pods the connection mark has decided already, so that their rule stands under every setting.
fn source_nat(shape: &Shape<'_>) -> Vec<Vec<Expression>> {
    if shape.family == Family::V6 {
        // The connection mark says as the node, which only those for egress are.
        let of_pods =
            [&leaves_by(shape)[..], &came_from_pod(shape), &is_for_egress(shape.family), &is_marked()].concat();
        return vec![[of_pods, vec![Expression::Masquerade(shape.source_ports)]].concat()];
    }
    let mut translate = is_not_local().to_vec();
    translate.extend([Expression::Put(shape.primary_address), Expression::SourceNat(shape.source_ports)]);
    let leaves = leaves_by(shape);
    let of_pods = [&leaves[..], &came_from_pod(shape), &is_marked(), &translate].concat();
    if shape.external_snat {
        return vec![of_pods];
    }
    let foreign = [Expression::Load(Field::IncomingName), Expression::NotEqual(shape.veth_prefix.as_str().into())];
    let outside = [Expression::Load(Field::Destination), Expression::NotInSet(NFT_DIRECT_SET)];
    vec![of_pods, [&leaves[..], &foreign, &outside, &translate].concat()]
}

fn leaves_by(shape: &Shape<'_>) -> [Expression; 2] {
    [Expression::Load(Field::OutgoingName), Expression::Equal(name(shape.primary_link))]
}

/// The source is of the node's own range for pods that have no address of this family from the VPC.
fn is_for_egress(family: Family) -> Vec<Expression> {
    let (network, bits) = match family {
        Family::V4 => (EGRESS_V4.octets().to_vec(), EGRESS_V4_BITS),
        Family::V6 => (EGRESS_V6.octets().to_vec(), EGRESS_V6_BITS),
    };
    let mask = (0..network.len()).map(|at| {
        let left = usize::from(bits).saturating_sub(at * 8).min(8);
        u8::MAX.checked_shl(u32::try_from(8 - left).unwrap_or_default()).unwrap_or_default()
    });
    vec![Expression::Load(Field::Source), Expression::Keep(mask.collect()), Expression::Equal(network)]
}

pub(super) fn came_from_pod(shape: &Shape<'_>) -> [Expression; 2] {
    [Expression::Load(Field::IncomingName), Expression::Equal(shape.veth_prefix.as_str().into())]
}

fn eni_of_mark() -> [Expression; 2] {
    [Expression::Load(Field::Mark), Expression::Bits { mask: ENI_MARK_MASK, xor: 0 }]
}

fn is_marked() -> [Expression; 3] {
    let bit = Expression::Bits { mask: PRIMARY_MARK, xor: 0 };
    [Expression::Load(Field::ConnectionMark), bit, Expression::NotEqual(vec![0; 4])]
}

pub(super) fn is_not_local() -> [Expression; 2] {
    [Expression::Load(Field::SourceType), Expression::NotEqual(TYPE_LOCAL.to_ne_bytes().to_vec())]
}

fn main_leads_by(primary_link: &str) -> [Expression; 2] {
    [Expression::Load(Field::LinkToDestination), Expression::Equal(name(primary_link))]
}

fn when(destination_in: &'static str, then: Vec<Expression>) -> Vec<Expression> {
    [vec![Expression::Load(Field::Destination), Expression::InSet(destination_in)], then].concat()
}

fn set_bit(field: Field) -> [Expression; 3] {
    // (x & !bit) ^ bit sets the bit and keeps all others.
    let set = Expression::Bits { mask: !PRIMARY_MARK, xor: PRIMARY_MARK };
    [Expression::Load(field), set, Expression::Store(field)]
}

/// A whole link name as the kernel compares it: 16 bytes, zeros behind. A shorter one would match as a prefix.
pub(super) fn name(link: &str) -> Vec<u8> {
    let mut bytes = link.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// Returns the networks as ranges, sorted, with those that overlap or touch made one: the kernel refuses overlaps.
fn merge(networks: &[Cidr]) -> Vec<(IpAddr, IpAddr)> {
    let mut sorted: Vec<_> = networks.iter().map(|network| (network.network(), network.last())).collect();
    sorted.sort_unstable();
    let mut ranges: Vec<(IpAddr, IpAddr)> = Vec::new();
    for (first, last) in sorted {
        match ranges.last_mut() {
            Some(before) if next(before.1).is_none_or(|next| first <= next) => before.1 = before.1.max(last),
            _ => ranges.push((first, last)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_overlap_or_touch_become_one_range() {
        let networks =
            ["10.1.0.0/16", "10.0.0.0/16", "10.0.7.0/24", "192.168.0.0/24"].map(|text| text.parse().unwrap());
        let range = |first: [u8; 4], last: [u8; 4]| (IpAddr::from(first), IpAddr::from(last));
        assert_eq!(
            merge(&networks),
            [range([10, 0, 0, 0], [10, 1, 255, 255]), range([192, 168, 0, 0], [192, 168, 0, 255])]
        );
        assert_eq!(merge(&[Cidr::ANY, Cidr::ANY]), [range([0; 4], [255; 4])]);
        assert_eq!(merge(&[]), []);
    }

    #[test]
    fn with_external_snat_no_connection_begins_as_the_node() {
        let prefix = VethPrefix::default();
        let begins = |external_snat| {
            let shape = Shape {
                family: Family::V4,
                primary_link: "eth0",
                primary_address: Ipv4Addr::LOCALHOST,
                direct: &[],
                by_main: &[],
                external_snat,
                node_ports: true,
                source_ports: SourcePorts::Random,
                veth_prefix: &prefix,
                egress: false,
            };
            let first = Expression::Load(Field::ConnectionStatus);
            refresh(&shape).iter().any(
                |(_, change)| matches!(change, Change::AddRule { expressions, .. } if expressions.contains(&first)),
            )
        };
        assert!(begins(false));
        assert!(!begins(true));
    }
}

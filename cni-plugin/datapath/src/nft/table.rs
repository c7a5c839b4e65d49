//! What our table says.
//!
//! ```text
//! table ip eni_cni
//!   set direct, map pod_eni, one chain eni_N for each secondary ENI
//!   inbound      prerouting mangle (-150)   iifname PRIMARY ct state new fib daddr type local  ct mark |= 0x80
//!   prerouting   prerouting -90             iifname "eni*" goto from_pod
//!   from_pod                                ct mark & 0x80: meta mark |= 0x80, return
//!                                           ip daddr @direct ip saddr vmap @pod_eni
//!                                           ct direction reply fib daddr oifname PRIMARY ip saddr vmap @pod_eni
//!   output       route mangle (-150)        ip daddr @direct ip saddr vmap @pod_eni
//!   postrouting  nat srcnat (100)           oifname PRIMARY fib saddr type != local ip daddr != @direct snat to ADDRESS
//! ```
//!
//! Two chains hang on prerouting. What came in for the node itself (NodePort) must be seen *before* DNAT (-100), which turns the
//! node's address into a pod's; which ENI a pod's packet leaves by must be decided *after* DNAT, when the real destination is known.
//!
//! A request that came in by a pod's own ENI, as from a load balancer that keeps its clients' addresses or from a peered VPC, is
//! answered by that ENI, wherever the client is: nobody translates the source of a reply. But a reply to a network of the
//! node's own, as a bridge for containers, takes the way that the main routes know.
//!
//! Only the first packet of a connection is looked at in `inbound`: the connection mark lives on, and replies to
//! source-NATed flows, which also arrive for the node's address, are left alone.

use std::net::Ipv4Addr;

use eni_proto::{
    EniMark, VethPrefix,
    numbers::{ENI_MARK_MASK, NFT_DIRECT_SET, NFT_POD_MAP, NFT_PREROUTING_PRIORITY, PRIMARY_MARK},
};

use super::encode::{Change, Expression, Field, Hook, eni_chain};
use crate::Cidr;

const HOOK_PREROUTING: u32 = 0;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
const PRIORITY_MANGLE: i32 = -150;
const PRIORITY_SOURCE_NAT: i32 = 100;
/// `RTN_LOCAL` of linux/rtnetlink.h, as `fib` puts it into a register.
const TYPE_LOCAL: u32 = 2;
/// Bit of a new connection in `ct state`. Source: `NF_CT_STATE_BIT(IP_CT_NEW)`.
const STATE_NEW: u32 = 8;
/// Value of `ct direction` for what goes back to who began the connection. Source: `IP_CT_DIR_REPLY`.
const DIRECTION_REPLY: u8 = 1;
/// A message has room for 64 KiB of elements; a range takes up to 40 bytes.
const RANGES_PER_MESSAGE: usize = 1000;

/// What the table needs to know of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape<'a> {
    pub(crate) primary_link: &'a str,
    pub(crate) primary_address: Ipv4Addr,
    pub(crate) direct: &'a [Cidr],
    pub(crate) external_snat: bool,
    pub(crate) veth_prefix: &'a VethPrefix,
}

/// Brings the table to this shape and leaves pods and ENI chains in it as they are. Right for an absent table too.
pub(crate) fn refresh(shape: &Shape<'_>) -> Vec<Change> {
    let mut changes = vec![Change::AddTable, Change::AddDirectSet, Change::AddPodMap];
    let chains = chains(shape);
    for (name, hook, _) in &chains {
        changes.push(Change::AddChain { name: (*name).to_owned(), hook: *hook });
        changes.push(Change::ClearRules { chain: (*name).to_owned() });
    }
    for (name, _, rules) in chains {
        changes.extend(rules.into_iter().map(|expressions| Change::AddRule { chain: name.to_owned(), expressions }));
    }
    changes.push(Change::ClearDirect);
    changes
        .extend(merge(shape.direct).chunks(RANGES_PER_MESSAGE).map(|part| Change::AddDirect { ranges: part.to_vec() }));
    changes
}

/// Throws the table away and makes it anew with the same pods: for a table that an other version of us has made.
pub(crate) fn rebuild(shape: &Shape<'_>, pods: &super::PodMap) -> Vec<Change> {
    let mut changes = vec![Change::AddTable, Change::RemoveTable];
    changes.extend(refresh(shape));
    let marks: std::collections::BTreeSet<EniMark> = pods.values().copied().collect();
    changes.extend(marks.into_iter().flat_map(add_eni));
    changes.extend(pods.iter().map(|(address, mark)| Change::AddPod { address: *address, mark: *mark }));
    changes
}

/// Adds the chain that marks an ENI's packets, or makes it right.
pub(crate) fn add_eni(mark: EniMark) -> Vec<Change> {
    let name = eni_chain(mark);
    let set_mark = vec![
        Expression::Load(Field::Mark),
        Expression::Bits { mask: !ENI_MARK_MASK, xor: mark.value() },
        Expression::Store(Field::Mark),
        Expression::Accept,
    ];
    vec![
        Change::AddChain { name: name.clone(), hook: None },
        Change::ClearRules { chain: name.clone() },
        Change::AddRule { chain: name, expressions: set_mark },
    ]
}

/// Removes an ENI's chain; refused (EBUSY) while a pod's element points to it.
pub(crate) fn remove_eni(mark: EniMark) -> Vec<Change> {
    let name = eni_chain(mark);
    vec![Change::ClearRules { chain: name.clone() }, Change::RemoveChain { name }]
}

type Chain = (&'static str, Option<Hook>, Vec<Vec<Expression>>);

/// All fixed chains; one that another jumps to comes first.
fn chains(shape: &Shape<'_>) -> Vec<Chain> {
    let hook = |kind, number, priority| Some(Hook { kind, number, priority });
    let from_pod = [Expression::Load(Field::IncomingName), Expression::Equal(shape.veth_prefix.as_str().into())];
    let goto = [from_pod.to_vec(), vec![Expression::Goto("from_pod".to_owned())]].concat();
    vec![
        ("from_pod", None, from_pod_rules(shape)),
        ("inbound", hook("filter", HOOK_PREROUTING, PRIORITY_MANGLE), vec![remember_primary(shape.primary_link)]),
        ("prerouting", hook("filter", HOOK_PREROUTING, NFT_PREROUTING_PRIORITY), vec![goto]),
        ("output", hook("route", HOOK_OUTPUT, PRIORITY_MANGLE), vec![by_eni(shape.external_snat)]),
        ("postrouting", hook("nat", HOOK_POSTROUTING, PRIORITY_SOURCE_NAT), source_nat(shape)),
    ]
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

fn from_pod_rules(shape: &Shape<'_>) -> Vec<Vec<Expression>> {
    let mut rules = vec![by_primary(), by_eni(shape.external_snat)];
    if !shape.external_snat {
        rules.push(reply_by_eni(shape.primary_link));
    }
    rules
}

/// What came in by the pod's own ENI is answered by it, also outside of the direct networks.
fn reply_by_eni(primary_link: &str) -> Vec<Expression> {
    vec![
        Expression::Load(Field::ConnectionDirection),
        Expression::Equal(vec![DIRECTION_REPLY]),
        Expression::Load(Field::LinkToDestination),
        Expression::Equal(name(primary_link)),
        Expression::Load(Field::Source),
        Expression::Follow(NFT_POD_MAP),
    ]
}

/// What came in for the node itself by the primary ENI is answered by it.
fn by_primary() -> Vec<Expression> {
    let mut rule = vec![
        Expression::Load(Field::ConnectionMark),
        Expression::Bits { mask: PRIMARY_MARK, xor: 0 },
        Expression::NotEqual(vec![0; 4]),
    ];
    rule.extend(set_bit(Field::Mark));
    rule.push(Expression::Return);
    rule
}

/// With SNAT by somebody outside, packets to any destination leave by the pod's own ENI.
fn by_eni(external_snat: bool) -> Vec<Expression> {
    let direct = [Expression::Load(Field::Destination), Expression::InSet(NFT_DIRECT_SET)];
    let mut rule = if external_snat { Vec::new() } else { direct.to_vec() };
    rule.extend([Expression::Load(Field::Source), Expression::Follow(NFT_POD_MAP)]);
    rule
}

fn source_nat(shape: &Shape<'_>) -> Vec<Vec<Expression>> {
    if shape.external_snat {
        return Vec::new();
    }
    vec![vec![
        Expression::Load(Field::OutgoingName),
        Expression::Equal(name(shape.primary_link)),
        Expression::Load(Field::Destination),
        Expression::NotInSet(NFT_DIRECT_SET),
        Expression::Load(Field::SourceType),
        Expression::NotEqual(TYPE_LOCAL.to_ne_bytes().to_vec()),
        Expression::Put(shape.primary_address),
        Expression::SourceNat,
    ]]
}

fn set_bit(field: Field) -> [Expression; 3] {
    // (x & !bit) ^ bit sets the bit and keeps all others.
    let set = Expression::Bits { mask: !PRIMARY_MARK, xor: PRIMARY_MARK };
    [Expression::Load(field), set, Expression::Store(field)]
}

/// A whole link name as the kernel compares it: 16 bytes, zeros behind. A shorter one would match as a prefix.
fn name(link: &str) -> Vec<u8> {
    let mut bytes = link.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// Returns the networks as ranges, sorted, with those that overlap or touch made one: the kernel refuses overlaps.
fn merge(networks: &[Cidr]) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let mut sorted: Vec<_> = networks.iter().map(|network| (network.network(), network.last())).collect();
    sorted.sort_unstable();
    let mut ranges: Vec<(Ipv4Addr, Ipv4Addr)> = Vec::new();
    for (first, last) in sorted {
        match ranges.last_mut() {
            Some(before) if first.to_bits() <= before.1.to_bits().saturating_add(1) => before.1 = before.1.max(last),
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
        let range = |first: [u8; 4], last: [u8; 4]| (Ipv4Addr::from(first), Ipv4Addr::from(last));
        assert_eq!(
            merge(&networks),
            [range([10, 0, 0, 0], [10, 1, 255, 255]), range([192, 168, 0, 0], [192, 168, 0, 255])]
        );
        assert_eq!(merge(&[Cidr::ANY, Cidr::ANY]), [range([0; 4], [255; 4])]);
        assert_eq!(merge(&[]), []);
    }

    #[test]
    fn with_external_snat_no_source_is_changed_and_no_destination_is_asked_for() {
        let prefix = VethPrefix::default();
        let shape = |external_snat| Shape {
            primary_link: "eth0",
            primary_address: Ipv4Addr::LOCALHOST,
            direct: &[],
            external_snat,
            veth_prefix: &prefix,
        };
        let asks = |external_snat, expression: &Expression| {
            refresh(&shape(external_snat))
                .iter()
                .any(|change| matches!(change, Change::AddRule { expressions, .. } if expressions.contains(expression)))
        };
        for expression in [Expression::SourceNat, Expression::InSet(NFT_DIRECT_SET)] {
            assert!(asks(false, &expression));
            assert!(!asks(true, &expression));
        }
    }
}

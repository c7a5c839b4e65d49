//! nf_tables messages as bytes. Numbers: linux/netfilter/nf_tables.h and nfnetlink.h.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use eni_proto::{
    EniMark,
    numbers::{NFT_POD_MAP, NFT_TABLE},
};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE};

mod expression;

use crate::{
    Family, SourcePorts,
    attributes::{self, Attributes},
    socket::Message,
};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
pub(super) const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
pub(super) const DEL_TABLE: u16 = 2;
pub(super) const NEW_CHAIN: u16 = 3;
pub(super) const GET_CHAIN: u16 = 4;
pub(super) const DEL_CHAIN: u16 = 5;
pub(super) const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
pub(super) const DEL_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DEL_ELEMENT: u16 = 14;
const NEW_GENERATION: u16 = 15;
const GET_GENERATION: u16 = 16;

const FAMILY_ANY: u8 = 0;
pub(super) const FAMILY_HEADER: usize = 4;
/// The types `ipv4_addr` and `ipv6_addr` of the `nft` program, so that it can print our sets.
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_VERDICT: u32 = 0xffff_ff00;
const TABLE_OWNED: u32 = 2;
const TABLE_PERSISTENT: u32 = 4;
const SET_INTERVAL: u32 = 4;
const SET_MAP: u32 = 8;
const ELEMENT_INTERVAL_END: u32 = 1;
const JUMP: i32 = -3;
/// Policy of every chain, said each time so that somebody else's goes.
const ACCEPT: u32 = 1;

/// A hook of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hook {
    pub(crate) kind: &'static str,
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

/// Field that is loaded into the register or written from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    IncomingName,
    OutgoingName,
    /// Number of the incoming link's group.
    IncomingGroup,
    OutgoingGroup,
    Mark,
    ConnectionState,
    ConnectionStatus,
    ConnectionMark,
    Source,
    Destination,
    SourceType,
    DestinationType,
    /// Name of the link by which the main routes, without any mark, lead to the destination.
    LinkToDestination,
    /// Index of the incoming link when it leads to the source, else 0.
    SourceBehindLink,
}

/// One expression of a rule. All work on the same register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    Load(Field),
    /// Only mark and connection mark can be written.
    Store(Field),
    /// register = (register & mask) ^ xor
    Bits {
        mask: u32,
        xor: u32,
    },
    Equal(Vec<u8>),
    NotEqual(Vec<u8>),
    InSet(&'static str),
    NotInSet(&'static str),
    /// Looks the register up in a map of verdicts and follows what it finds.
    Follow(&'static str),
    Goto(String),
    Return,
    Drop,
    Put(Ipv4Addr),
    /// Source NAT to the address in the register.
    SourceNat(SourcePorts),
    /// Source NAT to an address of the link that the packet leaves by.
    Masquerade(SourcePorts),
    /// Keeps the bits under the mask, which is as long as an address.
    Keep(Vec<u8>),
}

/// One message of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A change of another table of ours, of this name.
    In(&'static str, Box<Change>),
    AddTable,
    /// A table that nobody but this socket can change, and that stays when the socket goes.
    AddOwnTable,
    RemoveTable,
    /// The map from pod address to verdict.
    AddPodMap,
    /// A set of destination networks.
    AddNetworkSet {
        set: &'static str,
    },
    AddChain {
        name: String,
        hook: Option<Hook>,
    },
    RemoveChain {
        name: String,
    },
    ClearRules {
        chain: String,
    },
    AddRule {
        chain: String,
        expressions: Vec<Expression>,
    },
    ClearSet {
        set: &'static str,
    },
    /// Ranges, sorted, neither overlapping nor touching.
    AddRanges {
        set: &'static str,
        ranges: Vec<(IpAddr, IpAddr)>,
    },
    AddPod {
        address: IpAddr,
        mark: EniMark,
    },
    RemovePod {
        address: IpAddr,
    },
}

/// A change of the table of this family.
pub(crate) type Step = (Family, Change);

pub(super) const fn code(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// Name of the chain that marks an ENI's packets.
pub(crate) fn eni_chain(mark: EniMark) -> String {
    format!("eni_{}", mark.value())
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(table, change) => write!(f, "{change} in {table}"),
            Self::AddTable | Self::AddOwnTable => write!(f, "add the table"),
            Self::RemoveTable => write!(f, "remove the table"),
            Self::AddPodMap => write!(f, "add map {NFT_POD_MAP}"),
            Self::AddNetworkSet { set } => write!(f, "add set {set}"),
            Self::AddChain { name, .. } => write!(f, "add chain {name}"),
            Self::RemoveChain { name } => write!(f, "remove chain {name}"),
            Self::ClearRules { chain } => write!(f, "clear chain {chain}"),
            Self::AddRule { chain, .. } => write!(f, "add a rule to chain {chain}"),
            Self::ClearSet { set } => write!(f, "clear set {set}"),
            Self::AddRanges { set, ranges } => write!(f, "add {} ranges to set {set}", ranges.len()),
            Self::AddPod { address, mark } => {
                write!(f, "add element {address} : jump {} to map {NFT_POD_MAP}", eni_chain(*mark))
            }
            Self::RemovePod { address } => write!(f, "remove element {address} from map {NFT_POD_MAP}"),
        }
    }
}

/// The messages of one transaction: as many as changes and two around them.
///
/// With a generation the kernel refuses all (ERESTART) when anything in nf_tables has changed since.
pub(crate) fn transaction(changes: &[Step], generation: Option<u32>) -> Vec<Message> {
    framed(changes.iter().map(|(family, change)| message(*family, NFT_TABLE, change)), generation)
}

/// The same of any messages.
///
/// Only the last one asks to be acknowledged: the kernel tells what it refuses in any case, and before that, and an answer to each change
/// of a full node would not fit into the socket.
pub(super) fn framed(changes: impl Iterator<Item = Message>, generation: Option<u32>) -> Vec<Message> {
    let border = |kind, attributes| Message { kind, flags: 0, payload: header(FAMILY_ANY, SUBSYSTEM, attributes) };
    let since = generation.map_or(Attributes::new(), |generation| Attributes::new().be32(1, generation));
    let mut messages = vec![border(BATCH_BEGIN, since)];
    messages.extend(changes.map(|change| Message { flags: change.flags & !NLM_F_ACK, ..change }));
    if let Some(last) = messages.get_mut(1..).and_then(<[Message]>::last_mut) {
        last.flags |= NLM_F_ACK;
    }
    messages.push(border(BATCH_END, Attributes::new()));
    messages
}

/// Kind and payload of the request for all elements of a set.
pub(crate) fn elements_request(family: Family, table: &str, set: &str) -> (u16, Vec<u8>) {
    let name = Attributes::new().text(1, table).text(2, set);
    list(GET_ELEMENT, family, name)
}

/// Kind and payload of the request for all rules of a table.
pub(super) fn rules_request(family: Family, table: &str) -> (u16, Vec<u8>) {
    list(GET_RULE, family, Attributes::new().text(1, table))
}

/// Kind and payload of the request for the rules of one chain.
pub(super) fn chain_rules_request(family: Family, table: &str, chain: &str) -> (u16, Vec<u8>) {
    list(GET_RULE, family, Attributes::new().text(1, table).text(2, chain))
}

/// Whether a rule that the kernel tells of has these expressions. It may tell more of each than it was told.
pub(super) fn has_expressions(family: Family, rule: &[u8], expressions: &[Expression]) -> bool {
    let told = rule.get(FAMILY_HEADER..).and_then(|rule| attributes::find(rule, 4)).unwrap_or_default();
    let wanted: Vec<_> = expressions.iter().map(|one| expression::told(family, one).into_bytes()).collect();
    attributes::read(told).count() == wanted.len()
        && attributes::read(told).zip(wanted).all(|((_, told), wanted)| attributes::includes(told, &wanted))
}

pub(super) fn chain_request(family: Family, table: &str, chain: &str) -> Message {
    single(GET_CHAIN, 0, code(family), Attributes::new().text(1, table).text(3, chain))
}

pub(crate) fn table_request(family: Family, table: &str) -> Message {
    single(GET_TABLE, 0, code(family), Attributes::new().text(1, table))
}

/// Whether the table that the kernel tells of belongs to a socket.
pub(super) fn is_owned(payload: &[u8]) -> bool {
    let flags = payload.get(FAMILY_HEADER..).and_then(|table| attributes::find(table, 2)?.first_chunk().copied());
    flags.is_some_and(|flags| u32::from_be_bytes(flags) & TABLE_OWNED != 0)
}

pub(crate) fn generation_request() -> Message {
    single(GET_GENERATION, 0, FAMILY_ANY, Attributes::new())
}

/// Reads the number that grows with every transaction in the namespace.
pub(crate) fn read_generation(kind: u16, payload: &[u8]) -> Option<u32> {
    if kind != SUBSYSTEM << 8 | NEW_GENERATION {
        return None;
    }
    let number = attributes::find(payload.get(FAMILY_HEADER..)?, 1)?;
    number.first_chunk().copied().map(u32::from_be_bytes)
}

/// Reads where the ranges of a set of networks begin, and where behind them they end (true).
pub(super) fn read_borders(payload: &[u8]) -> Vec<(IpAddr, bool)> {
    let list = payload.get(FAMILY_HEADER..).and_then(|rest| attributes::find(rest, 3)).unwrap_or_default();
    let is_end = |element| {
        let flags = attributes::find(element, 3).and_then(<[u8]>::first_chunk).copied().map(u32::from_be_bytes);
        flags.is_some_and(|flags| flags & ELEMENT_INTERVAL_END != 0)
    };
    let borders = attributes::read(list).filter_map(|(_, element)| Some((read_key(element)?, is_end(element))));
    // The programs of others begin a set with an end.
    borders.filter(|(address, is_end)| !(*is_end && address.is_unspecified())).collect()
}

/// The same of what is to be written.
pub(super) fn borders(ranges: &[(IpAddr, IpAddr)]) -> impl Iterator<Item = (IpAddr, bool)> {
    ranges.iter().flat_map(|(first, last)| {
        [Some((*first, false)), next(*last).map(|behind| (behind, true))].into_iter().flatten()
    })
}

/// Reads the elements of the pods' map; skips what is none.
pub(crate) fn read_elements(payload: &[u8]) -> Vec<(IpAddr, EniMark)> {
    let list = payload.get(FAMILY_HEADER..).and_then(|rest| attributes::find(rest, 3)).unwrap_or_default();
    attributes::read(list).filter_map(|(_, element)| read_element(element)).collect()
}

fn read_key(element: &[u8]) -> Option<IpAddr> {
    let key = attributes::find(attributes::find(element, 1)?, 1)?;
    let v4 = || <[u8; 4]>::try_from(key).map(|bytes| Ipv4Addr::from(bytes).into());
    v4().or_else(|_| <[u8; 16]>::try_from(key).map(|bytes| Ipv6Addr::from(bytes).into())).ok()
}

fn read_element(element: &[u8]) -> Option<(IpAddr, EniMark)> {
    let address = read_key(element)?;
    let verdict = attributes::find(attributes::find(element, 2)?, 2)?;
    let chain = attributes::as_text(attributes::find(verdict, 2)?);
    let mark = EniMark::new(chain.strip_prefix("eni_")?.parse().ok()?)?;
    Some((address, mark))
}

fn header(family: u8, resource: u16, attributes: Attributes) -> Vec<u8> {
    let [high, low] = resource.to_be_bytes();
    let mut payload = vec![family, 0, high, low];
    payload.extend(attributes.into_bytes());
    payload
}

fn message(family: Family, name: &str, change: &Change) -> Message {
    let table = |kind| Attributes::new().text(kind, name);
    let (kind, flags, attributes) = match change {
        Change::In(name, change) => return message(family, name, change),
        // With flags, because without any the kernel would leave a table asleep that somebody has put to sleep.
        Change::AddTable => (NEW_TABLE, NLM_F_CREATE, table(1).be32(2, 0)),
        Change::AddOwnTable => (NEW_TABLE, NLM_F_CREATE, table(1).be32(2, TABLE_OWNED | TABLE_PERSISTENT)),
        Change::RemoveTable => (DEL_TABLE, 0, table(1)),
        Change::AddPodMap => {
            let set = set(family, NFT_POD_MAP, SET_MAP).be32(6, TYPE_VERDICT);
            (NEW_SET, NLM_F_CREATE, set.be32(10, 1))
        }
        Change::AddNetworkSet { set: name } => (NEW_SET, NLM_F_CREATE, set(family, name, SET_INTERVAL).be32(10, 2)),
        Change::AddChain { name, hook } => (NEW_CHAIN, NLM_F_CREATE, chain(table(1).text(3, name), *hook)),
        Change::RemoveChain { name } => (DEL_CHAIN, 0, table(1).text(3, name)),
        Change::ClearRules { chain } => (DEL_RULE, 0, table(1).text(2, chain)),
        Change::AddRule { chain, expressions } => {
            let list =
                expressions.iter().fold(Attributes::new(), |list, one| list.nested(1, expression::encode(family, one)));
            (NEW_RULE, NLM_F_CREATE | netlink_packet_core::NLM_F_APPEND, table(1).text(2, chain).nested(4, list))
        }
        Change::ClearSet { set } => (DEL_ELEMENT, 0, table(1).text(2, set)),
        Change::AddRanges { set, ranges } => {
            (NEW_ELEMENT, NLM_F_CREATE, table(1).text(2, set).nested(3, intervals(ranges)))
        }
        Change::AddPod { address, mark } => {
            let verdict = verdict(JUMP, Some(&eni_chain(*mark)));
            let element = key(*address).nested(2, verdict);
            (NEW_ELEMENT, NLM_F_CREATE, table(1).text(2, NFT_POD_MAP).nested(3, Attributes::new().nested(1, element)))
        }
        Change::RemovePod { address } => {
            let list = Attributes::new().nested(1, key(*address));
            (DEL_ELEMENT, 0, table(1).text(2, NFT_POD_MAP).nested(3, list))
        }
    };
    single(kind, flags, code(family), attributes)
}

/// A message that the kernel answers by itself.
pub(super) fn single(kind: u16, flags: u16, family: u8, attributes: Attributes) -> Message {
    Message { kind: SUBSYSTEM << 8 | kind, flags: flags | NLM_F_ACK, payload: header(family, 0, attributes) }
}

/// Kind and payload of a request for all things of a kind.
pub(super) fn list(kind: u16, family: Family, attributes: Attributes) -> (u16, Vec<u8>) {
    (SUBSYSTEM << 8 | kind, header(code(family), 0, attributes))
}

/// The same of all families.
pub(super) fn list_of_all(kind: u16) -> (u16, Vec<u8>) {
    (SUBSYSTEM << 8 | kind, header(FAMILY_ANY, 0, Attributes::new()))
}

fn set(family: Family, name: &str, flags: u32) -> Attributes {
    let (kind, bytes) = match family {
        Family::V4 => (TYPE_IPV4, 4),
        Family::V6 => (TYPE_IPV6, 16),
    };
    Attributes::new().text(1, NFT_TABLE).text(2, name).be32(3, flags).be32(4, kind).be32(5, bytes)
}

fn chain(chain: Attributes, hook: Option<Hook>) -> Attributes {
    match hook {
        None => chain,
        Some(Hook { kind, number, priority }) => {
            let place = Attributes::new().be32(1, number).bytes(2, &priority.to_be_bytes());
            chain.nested(4, place).be32(5, ACCEPT).text(7, kind)
        }
    }
}

fn key(address: IpAddr) -> Attributes {
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    Attributes::new().nested(1, value(&bytes))
}

/// The address behind this one; nothing behind the last.
pub(super) fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(Ipv4Addr::from_bits(address.to_bits().checked_add(1)?).into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits().checked_add(1)?).into()),
    }
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::new().bytes(1, bytes)
}

fn verdict(code: i32, chain: Option<&str>) -> Attributes {
    let verdict = Attributes::new().bytes(1, &code.to_be_bytes());
    let verdict = match chain {
        Some(chain) => verdict.text(2, chain),
        None => verdict,
    };
    Attributes::new().nested(2, verdict)
}

/// A range is two elements: its first address, and the one behind its last, which is marked as an end.
fn intervals(ranges: &[(IpAddr, IpAddr)]) -> Attributes {
    borders(ranges).fold(Attributes::new(), |list, (address, is_end)| match is_end {
        false => list.nested(1, key(address)),
        true => list.nested(1, key(address).be32(3, ELEMENT_INTERVAL_END)),
    })
}

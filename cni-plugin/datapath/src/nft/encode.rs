//! nf_tables messages as bytes. Numbers: linux/netfilter/nf_tables.h and nfnetlink.h.

use std::{fmt, net::Ipv4Addr};

use eni_proto::{
    EniMark,
    numbers::{NFT_POD_MAP, NFT_TABLE},
};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE};

use crate::{
    SourcePorts,
    attributes::{self, Attributes},
    socket::Message,
};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const DEL_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DEL_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DEL_ELEMENT: u16 = 14;
const NEW_GENERATION: u16 = 15;
const GET_GENERATION: u16 = 16;

const FAMILY_ANY: u8 = 0;
const FAMILY_IPV4: u8 = 2;
pub(super) const FAMILY_HEADER: usize = 4;
/// The type `ipv4_addr` of the `nft` program, so that it can print our sets.
const TYPE_IPV4: u32 = 7;
const TYPE_VERDICT: u32 = 0xffff_ff00;
const SET_INTERVAL: u32 = 4;
const SET_MAP: u32 = 8;
const ELEMENT_INTERVAL_END: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
/// The only data register that our rules need: 16 bytes.
const REGISTER: u32 = 1;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;
const DROP: i32 = 0;
/// Policy of every chain, said each time so that somebody else's goes.
const ACCEPT: u32 = 1;
const FIB_LINK_NAME: u32 = 2;
const FIB_TYPE: u32 = 3;
const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;
const RANDOM: u32 = 1 << 2;
const FULLY_RANDOM: u32 = 1 << 4;

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
}

/// One message of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    AddTable,
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
        ranges: Vec<(Ipv4Addr, Ipv4Addr)>,
    },
    AddPod {
        address: Ipv4Addr,
        mark: EniMark,
    },
    RemovePod {
        address: Ipv4Addr,
    },
}

/// Name of the chain that marks an ENI's packets.
pub(crate) fn eni_chain(mark: EniMark) -> String {
    format!("eni_{}", mark.value())
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable => write!(f, "add the table"),
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
pub(crate) fn transaction(changes: &[Change], generation: Option<u32>) -> Vec<Message> {
    let border = |kind, attributes| Message { kind, flags: 0, payload: header(FAMILY_ANY, SUBSYSTEM, attributes) };
    let since = generation.map_or(Attributes::new(), |generation| Attributes::new().be32(1, generation));
    let mut messages = Vec::with_capacity(changes.len() + 2);
    messages.push(border(BATCH_BEGIN, since));
    messages.extend(changes.iter().map(message));
    messages.push(border(BATCH_END, Attributes::new()));
    messages
}

/// Kind and payload of the request for all elements of a set.
pub(crate) fn elements_request(table: &str, set: &str) -> (u16, Vec<u8>) {
    let name = Attributes::new().text(1, table).text(2, set);
    (SUBSYSTEM << 8 | GET_ELEMENT, header(FAMILY_IPV4, 0, name))
}

/// Kind and payload of the request for all rules of a table.
pub(super) fn rules_request(table: &str) -> (u16, Vec<u8>) {
    (SUBSYSTEM << 8 | GET_RULE, header(FAMILY_IPV4, 0, Attributes::new().text(1, table)))
}

pub(super) fn chain_request(table: &str, chain: &str) -> Message {
    let payload = header(FAMILY_IPV4, 0, Attributes::new().text(1, table).text(3, chain));
    Message { kind: SUBSYSTEM << 8 | GET_CHAIN, flags: NLM_F_ACK, payload }
}

pub(crate) fn table_request(table: &str) -> Message {
    let payload = header(FAMILY_IPV4, 0, Attributes::new().text(1, table));
    Message { kind: SUBSYSTEM << 8 | GET_TABLE, flags: NLM_F_ACK, payload }
}

pub(crate) fn generation_request() -> Message {
    let payload = header(FAMILY_ANY, 0, Attributes::new());
    Message { kind: SUBSYSTEM << 8 | GET_GENERATION, flags: NLM_F_ACK, payload }
}

/// Reads the number that grows with every transaction in the namespace.
pub(crate) fn read_generation(kind: u16, payload: &[u8]) -> Option<u32> {
    if kind != SUBSYSTEM << 8 | NEW_GENERATION {
        return None;
    }
    let number = attributes::find(payload.get(FAMILY_HEADER..)?, 1)?;
    number.first_chunk().copied().map(u32::from_be_bytes)
}

/// Reads the elements of the pods' map; skips what is none.
pub(crate) fn read_elements(payload: &[u8]) -> Vec<(Ipv4Addr, EniMark)> {
    let list = payload.get(FAMILY_HEADER..).and_then(|rest| attributes::find(rest, 3)).unwrap_or_default();
    attributes::read(list).filter_map(|(_, element)| read_element(element)).collect()
}

fn read_element(element: &[u8]) -> Option<(Ipv4Addr, EniMark)> {
    let key: [u8; 4] = attributes::find(attributes::find(element, 1)?, 1)?.try_into().ok()?;
    let verdict = attributes::find(attributes::find(element, 2)?, 2)?;
    let chain = attributes::as_text(attributes::find(verdict, 2)?);
    let mark = EniMark::new(chain.strip_prefix("eni_")?.parse().ok()?)?;
    Some((Ipv4Addr::from(key), mark))
}

fn header(family: u8, resource: u16, attributes: Attributes) -> Vec<u8> {
    let [high, low] = resource.to_be_bytes();
    let mut payload = vec![family, 0, high, low];
    payload.extend(attributes.into_bytes());
    payload
}

fn message(change: &Change) -> Message {
    let table = |kind| Attributes::new().text(kind, NFT_TABLE);
    let (kind, flags, attributes) = match change {
        Change::AddTable => (NEW_TABLE, NLM_F_CREATE, table(1)),
        Change::RemoveTable => (DEL_TABLE, 0, table(1)),
        Change::AddPodMap => {
            let set = set(NFT_POD_MAP, SET_MAP).be32(6, TYPE_VERDICT);
            (NEW_SET, NLM_F_CREATE, set.be32(10, 1))
        }
        Change::AddNetworkSet { set: name } => (NEW_SET, NLM_F_CREATE, set(name, SET_INTERVAL).be32(10, 2)),
        Change::AddChain { name, hook } => (NEW_CHAIN, NLM_F_CREATE, chain(name, *hook)),
        Change::RemoveChain { name } => (DEL_CHAIN, 0, table(1).text(3, name)),
        Change::ClearRules { chain } => (DEL_RULE, 0, table(1).text(2, chain)),
        Change::AddRule { chain, expressions } => {
            let list = expressions.iter().fold(Attributes::new(), |list, one| list.nested(1, expression(one)));
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
    Message { kind: SUBSYSTEM << 8 | kind, flags: flags | NLM_F_ACK, payload: header(FAMILY_IPV4, 0, attributes) }
}

fn set(name: &str, flags: u32) -> Attributes {
    Attributes::new().text(1, NFT_TABLE).text(2, name).be32(3, flags).be32(4, TYPE_IPV4).be32(5, 4)
}

fn chain(name: &str, hook: Option<Hook>) -> Attributes {
    let chain = Attributes::new().text(1, NFT_TABLE).text(3, name);
    match hook {
        None => chain,
        Some(Hook { kind, number, priority }) => {
            let place = Attributes::new().be32(1, number).bytes(2, &priority.to_be_bytes());
            chain.nested(4, place).be32(5, ACCEPT).text(7, kind)
        }
    }
}

fn key(address: Ipv4Addr) -> Attributes {
    Attributes::new().nested(1, value(&address.octets()))
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
fn intervals(ranges: &[(Ipv4Addr, Ipv4Addr)]) -> Attributes {
    ranges.iter().fold(Attributes::new(), |list, (first, last)| {
        let list = list.nested(1, key(*first));
        match last.to_bits().checked_add(1) {
            Some(behind) => list.nested(1, key(behind.into()).be32(3, ELEMENT_INTERVAL_END)),
            None => list,
        }
    })
}

fn expression(expression: &Expression) -> Attributes {
    let (name, data) = match expression {
        Expression::Load(field) => load(*field),
        Expression::Store(Field::ConnectionMark) => ("ct", Attributes::new().be32(2, 3).be32(4, REGISTER)),
        Expression::Store(_) => ("meta", Attributes::new().be32(2, 3).be32(3, REGISTER)),
        Expression::Bits { mask, xor } => {
            let registers = Attributes::new().be32(1, REGISTER).be32(2, REGISTER).be32(3, 4);
            ("bitwise", registers.nested(4, value(&mask.to_ne_bytes())).nested(5, value(&xor.to_ne_bytes())))
        }
        Expression::Equal(bytes) => ("cmp", Attributes::new().be32(1, REGISTER).be32(2, 0).nested(3, value(bytes))),
        Expression::NotEqual(bytes) => ("cmp", Attributes::new().be32(1, REGISTER).be32(2, 1).nested(3, value(bytes))),
        Expression::InSet(set) => ("lookup", Attributes::new().text(1, set).be32(2, REGISTER)),
        Expression::NotInSet(set) => ("lookup", Attributes::new().text(1, set).be32(2, REGISTER).be32(5, 1)),
        Expression::Follow(map) => {
            ("lookup", Attributes::new().text(1, map).be32(2, REGISTER).be32(3, VERDICT_REGISTER))
        }
        Expression::Goto(chain) => immediate(VERDICT_REGISTER, verdict(GOTO, Some(chain))),
        Expression::Return => immediate(VERDICT_REGISTER, verdict(RETURN, None)),
        Expression::Drop => immediate(VERDICT_REGISTER, verdict(DROP, None)),
        Expression::Put(address) => immediate(REGISTER, value(&address.octets())),
        Expression::SourceNat(ports) => {
            let nat = Attributes::new().be32(1, 0).be32(2, FAMILY_IPV4.into()).be32(3, REGISTER);
            let nat = match ports {
                SourcePorts::Random => nat.be32(7, FULLY_RANDOM),
                SourcePorts::Hashed => nat.be32(7, RANDOM),
                SourcePorts::Kept => nat,
            };
            ("nat", nat)
        }
    };
    Attributes::new().text(1, name).nested(2, data)
}

fn immediate(register: u32, data: Attributes) -> (&'static str, Attributes) {
    ("immediate", Attributes::new().be32(1, register).nested(2, data))
}

fn load(field: Field) -> (&'static str, Attributes) {
    let meta = |key| ("meta", Attributes::new().be32(1, REGISTER).be32(2, key));
    let ct = |key| ("ct", Attributes::new().be32(1, REGISTER).be32(2, key));
    // Base 1: the network header; both addresses have four bytes.
    let ip = |offset| ("payload", Attributes::new().be32(1, REGISTER).be32(2, 1).be32(3, offset).be32(4, 4));
    let fib = |result, flags| ("fib", Attributes::new().be32(1, REGISTER).be32(2, result).be32(3, flags));
    match field {
        Field::IncomingName => meta(6),
        Field::OutgoingName => meta(7),
        Field::IncomingGroup => meta(21),
        Field::Mark => meta(3),
        Field::ConnectionState => ct(0),
        Field::ConnectionStatus => ct(2),
        Field::ConnectionMark => ct(3),
        Field::Source => ip(12),
        Field::Destination => ip(16),
        Field::SourceType => fib(FIB_TYPE, FIB_SOURCE),
        Field::DestinationType => fib(FIB_TYPE, FIB_DESTINATION),
        Field::LinkToDestination => fib(FIB_LINK_NAME, FIB_DESTINATION),
    }
}

//! Expressions of rules as bytes.

use super::{Expression, Field, code, value, verdict};
use crate::{Family, SourcePorts, attributes::Attributes};

const VERDICT_REGISTER: u32 = 0;
/// The only data register that our rules need: 16 bytes.
const REGISTER: u32 = 1;
const GOTO: i32 = -4;
const RETURN: i32 = -5;
const DROP: i32 = 0;
const FIB_LINK: u32 = 1;
const FIB_LINK_NAME: u32 = 2;
const FIB_TYPE: u32 = 3;
const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;
const FIB_BY_INCOMING: u32 = 8;
const MAP_ADDRESSES: u32 = 1;
const RANDOM: u32 = 1 << 2;
const FULLY_RANDOM: u32 = 1 << 4;

/// The same as the kernel tells it: to source NAT it adds that addresses change. Source: `nft_nat_init` in net/netfilter/nft_nat.c.
pub(super) fn told(family: Family, expression: &Expression) -> Attributes {
    let Expression::SourceNat(ports) = expression else { return encode(family, expression) };
    let flags = flags(*ports).unwrap_or_default() | MAP_ADDRESSES;
    Attributes::new().text(1, "nat").nested(2, source_nat(family).be32(7, flags))
}

/// One expression of a rule, as an attribute's content.
pub(super) fn encode(family: Family, expression: &Expression) -> Attributes {
    let (name, data) = match expression {
        Expression::Load(field) => load(family, *field),
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
        Expression::SourceNat(ports) => ("nat", with_ports(source_nat(family), 7, *ports)),
        Expression::Masquerade(ports) => ("masq", with_ports(Attributes::new(), 1, *ports)),
        Expression::Keep(mask) => {
            let length = u32::try_from(mask.len()).unwrap_or_default();
            let registers = Attributes::new().be32(1, REGISTER).be32(2, REGISTER).be32(3, length);
            ("bitwise", registers.nested(4, value(mask)).nested(5, value(&vec![0; mask.len()])))
        }
    };
    Attributes::new().text(1, name).nested(2, data)
}

fn source_nat(family: Family) -> Attributes {
    Attributes::new().be32(1, 0).be32(2, code(family).into()).be32(3, REGISTER)
}

fn with_ports(nat: Attributes, kind: u16, ports: SourcePorts) -> Attributes {
    match flags(ports) {
        Some(flags) => nat.be32(kind, flags),
        None => nat,
    }
}

const fn flags(ports: SourcePorts) -> Option<u32> {
    match ports {
        SourcePorts::Random => Some(FULLY_RANDOM),
        SourcePorts::Hashed => Some(RANDOM),
        SourcePorts::Kept => None,
    }
}

fn immediate(register: u32, data: Attributes) -> (&'static str, Attributes) {
    ("immediate", Attributes::new().be32(1, register).nested(2, data))
}

fn load(family: Family, field: Field) -> (&'static str, Attributes) {
    let meta = |key| ("meta", Attributes::new().be32(1, REGISTER).be32(2, key));
    let ct = |key| ("ct", Attributes::new().be32(1, REGISTER).be32(2, key));
    // Base 1: the network header.
    let (source, destination, length) = match family {
        Family::V4 => (12, 16, 4),
        Family::V6 => (8, 24, 16),
    };
    let ip = |offset| ("payload", Attributes::new().be32(1, REGISTER).be32(2, 1).be32(3, offset).be32(4, length));
    let fib = |result, flags| ("fib", Attributes::new().be32(1, REGISTER).be32(2, result).be32(3, flags));
    match field {
        Field::IncomingName => meta(6),
        Field::OutgoingName => meta(7),
        Field::IncomingGroup => meta(21),
        Field::OutgoingGroup => meta(22),
        Field::Mark => meta(3),
        Field::ConnectionState => ct(0),
        Field::ConnectionStatus => ct(2),
        Field::ConnectionMark => ct(3),
        Field::Source => ip(source),
        Field::Destination => ip(destination),
        Field::SourceType => fib(FIB_TYPE, FIB_SOURCE),
        Field::DestinationType => fib(FIB_TYPE, FIB_DESTINATION),
        Field::LinkToDestination => fib(FIB_LINK_NAME, FIB_DESTINATION),
        Field::SourceBehindLink => fib(FIB_LINK, FIB_SOURCE | FIB_BY_INCOMING),
    }
}

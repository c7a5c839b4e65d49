//! Everything that we do to addresses, routes, neighbours, rules and links, as values that know their own undoing.

use std::{fmt, net::IpAddr};

use eni_proto::numbers::ROUTE_PROTOCOL;

use crate::{Cidr, Family, MacAddress};

/// An address on a link, always as /32 or /128; an IPv6 one is used at once, without a look whether somebody else has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// Whether the kernel takes it as a source only where no other address serves (`deprecated`).
    pub deprecated: bool,
}

/// A route, stamped with our protocol number: unicast, or in the table 255 to the network's own address on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The table, 1 to 2^32 - 1.
    pub table: u32,
    /// Where to.
    pub destination: Cidr,
    /// The next hop. Absent: the destination is on the link itself (scope link).
    pub gateway: Option<IpAddr>,
    /// Index of the link.
    pub link: u32,
}

/// A permanent neighbour: never asked for, never forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// Index of the link.
    pub link: u32,
    /// Whose hardware address it is.
    pub address: IpAddr,
    /// The hardware address.
    pub mac: MacAddress,
}

/// A policy rule `from SOURCE fwmark MARK lookup TABLE`, stamped with our protocol number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// For packets of this family.
    pub family: Family,
    /// Lower is asked earlier.
    pub priority: u32,
    /// Only packets from this address. Absent: from any.
    pub from: Option<IpAddr>,
    /// Only packets whose mark has this value under this mask. Absent: any mark.
    pub mark: Option<(u32, u32)>,
    /// The table to ask.
    pub table: u32,
}

/// Which packets a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    /// All.
    All,
    /// Those that came in by the link of this name.
    Incoming(String),
    /// Those to this address.
    To(IpAddr),
}

/// A policy rule `SELECTOR lookup TABLE`, of pods on branch ENIs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BranchRule {
    pub(crate) family: Family,
    pub(crate) priority: u32,
    pub(crate) selector: Selector,
    pub(crate) table: u32,
    /// Whether it is stamped as ours. The rules of the table `local` are the kernel's, and nobody's to take away.
    pub(crate) ours: bool,
}

/// One property of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// Whether the link carries packets.
    Up(bool),
    /// MTU in bytes.
    Mtu(u32),
    /// Hardware address.
    Mac(MacAddress),
    /// Number of the link's group.
    Group(u32),
    /// One of the link's IPv4 settings.
    Ipv4(Ipv4Setting, u32),
}

/// IPv4 setting of a link; the value is its number in linux/ip.h, `IPV4_DEVCONF_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Ipv4Setting {
    /// `forwarding`: 1 passes on what comes in by the link. What counts is the link's own, whatever that of all links is.
    Forwarding = 1,
    /// `rp_filter`: 1 drops what could not be answered over the same link, 2 what could not be answered at all.
    ReversePath = 8,
    /// `arp_announce`: 2 asks with the best address of the link itself.
    ArpAnnounce = 18,
    /// `arp_ignore`: 1 answers only for addresses of the link itself.
    ArpIgnore = 19,
}

/// Something that can be there or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// An address.
    Address(Address),
    /// A route.
    Route(Route),
    /// A neighbour.
    Neighbour(Neighbour),
    /// A rule.
    Rule(Rule),
}

/// One change; one message to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// Make it be there. Never replaces something else.
    Add(Object),
    /// Make it not be there.
    Remove(Object),
    /// Change one property of a link.
    Set {
        /// Index of the link.
        link: u32,
        /// What it is now.
        from: Setting,
        /// What it shall be.
        to: Setting,
    },
}

impl Op {
    /// Returns the change that takes this one back.
    #[must_use]
    pub const fn inverse(self) -> Self {
        match self {
            Self::Add(object) => Self::Remove(object),
            Self::Remove(object) => Self::Add(object),
            Self::Set { link, from, to } => Self::Set { link, from: to, to: from },
        }
    }
}

impl fmt::Display for BranchRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { priority, table, .. } = self;
        match &self.selector {
            Selector::All => write!(f, "rule {priority}: from all lookup {table}"),
            Selector::Incoming(link) => write!(f, "rule {priority}: iif {link} lookup {table}"),
            Selector::To(address) => write!(f, "rule {priority}: to {address} lookup {table}"),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(object) => write!(f, "add {object}"),
            Self::Remove(object) => write!(f, "remove {object}"),
            Self::Set { link, to, from: _ } => write!(f, "set {to} on link {link}"),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(Address { link, address, deprecated }) => {
                let last = if *deprecated { " (deprecated)" } else { "" };
                write!(f, "address {} on link {link}{last}", Cidr::host(*address))
            }
            Self::Route(route) => route.fmt(f),
            Self::Neighbour(Neighbour { link, address, mac }) => {
                write!(f, "neighbour {address} at {mac} on link {link}")
            }
            Self::Rule(rule) => rule.fmt(f),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route {}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " on link {} in table {} (protocol {ROUTE_PROTOCOL})", self.link, self.table)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.family == Family::V6 { "IPv6 " } else { "" };
        write!(f, "{family}rule {}:", self.priority)?;
        if let Some(source) = self.from {
            write!(f, " from {source}")?;
        }
        if let Some((value, mask)) = self.mark {
            write!(f, " fwmark {value:#x}/{mask:#x}")?;
        }
        write!(f, " lookup {}", self.table)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(true) => f.write_str("up"),
            Self::Up(false) => f.write_str("down"),
            Self::Mtu(bytes) => write!(f, "mtu {bytes}"),
            Self::Mac(mac) => write!(f, "hardware address {mac}"),
            Self::Group(number) => write!(f, "group {number}"),
            Self::Ipv4(setting, value) => write!(f, "{}={value}", setting.name()),
        }
    }
}

impl Ipv4Setting {
    /// The setting's name under /proc/sys/net/ipv4/conf.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forwarding => "forwarding",
            Self::ReversePath => "rp_filter",
            Self::ArpAnnounce => "arp_announce",
            Self::ArpIgnore => "arp_ignore",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn undoing_twice_is_doing() {
        let address =
            Object::Address(Address { link: 2, address: Ipv4Addr::new(10, 0, 0, 1).into(), deprecated: false });
        let set = Op::Set { link: 2, from: Setting::Mtu(1500), to: Setting::Mtu(9001) };
        for op in [Op::Add(address), Op::Remove(address), set] {
            assert_ne!(op.inverse(), op);
            assert_eq!(op.inverse().inverse(), op);
        }
    }

    #[test]
    fn a_change_says_what_it_does() {
        let rule = Rule { family: Family::V4, priority: 1536, from: None, mark: Some((3, 0x7f)), table: 3 };
        assert_eq!(Op::Add(Object::Rule(rule)).to_string(), "add rule 1536: fwmark 0x3/0x7f lookup 3");
        let set = Op::Set {
            link: 4,
            from: Setting::Ipv4(Ipv4Setting::ReversePath, 0),
            to: Setting::Ipv4(Ipv4Setting::ReversePath, 2),
        };
        assert_eq!(set.to_string(), "set rp_filter=2 on link 4");
    }
}

//! Names of host interfaces, and what an interface says of itself in its alias.

use std::{fmt, str::FromStr};

use sha1::{Digest, Sha1};

use crate::{EniMark, Pod, PodAddresses, PodKey};

/// First characters of every host interface's name: 1 to 4 ASCII letters, and none that others use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethPrefix(String);

impl VethPrefix {
    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for VethPrefix {
    fn default() -> Self {
        Self("eni".to_owned())
    }
}

impl FromStr for VethPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !(1..=4).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(format!("`{text}` must have 1 to 4 ASCII letters or digits"));
        }
        if ["eth", "ens", "lo", "vlan"].contains(&text) {
            return Err(format!("`{text}` is used by other interfaces of the node"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Returns the host interface's name: the prefix and 11 hexadecimal digits of a SHA-1, at most 15 bytes.
///
/// For a pod's `eth0` the hash covers `namespace.name`: the rule of the AWS CNI, which Calico in policy-only mode
/// relies on. Any other interface adds its name, and a sandbox whose pod is unknown is named after its key.
#[must_use]
pub fn host_link_name(prefix: &VethPrefix, key: &PodKey, pod: &Pod) -> String {
    let subject = if pod.namespace.is_empty() || pod.name.is_empty() {
        key.to_string()
    } else if key.interface() == "eth0" {
        format!("{}.{}", pod.namespace, pod.name)
    } else {
        format!("{}.{}.{}", pod.namespace, pod.name, key.interface())
    };
    format!("{}{}", prefix.as_str(), short_hash(&subject, 11))
}

/// Returns the first `digits` hexadecimal digits of the SHA-1 of `text`, at most 40.
pub(crate) fn short_hash(text: &str, digits: usize) -> String {
    let digest = Sha1::digest(text.as_bytes());
    digest.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).map(char::from).take(digits).collect()
}

/// What a host interface says of itself: whose it is, and which address it carries.
///
/// Written as the link's alias (IFLA_IFALIAS, below 256 bytes), so that a late DEL of an old sandbox cannot hurt a newer one and
/// a daemon that lost its database can adopt what the kernel has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkAlias {
    /// The attachment.
    pub key: PodKey,
    /// The pod's addresses.
    pub addresses: PodAddresses,
    /// Mark of the ENI that owns the addresses.
    pub eni_mark: EniMark,
    /// Hardware address of the host's end when another CNI made the pair, whose pod keeps sending there. Absent: the one that follows
    /// from the key.
    pub adopted_mac: Option<[u8; 6]>,
    /// What the link's name has after the prefix, so that it can be given back. Absent in what older versions wrote.
    pub name: Option<LinkName>,
}

/// What a host interface's name has after the prefix: 1 to 14 ASCII letters or digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkName(String);

impl LinkName {
    /// Returns it of a whole name; nothing when that has another prefix, or was not given by us.
    #[must_use]
    pub fn of(prefix: &VethPrefix, link: &str) -> Option<Self> {
        Self::read(link.strip_prefix(prefix.as_str())?)
    }

    /// Returns the whole name.
    #[must_use]
    pub fn with(&self, prefix: &VethPrefix) -> String {
        format!("{}{}", prefix.as_str(), self.0)
    }

    fn read(text: &str) -> Option<Self> {
        let is_right = (1..=14).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_right.then(|| Self(text.to_owned()))
    }
}

/// An alias that is not ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an alias of eni-cni")]
pub struct InvalidAlias(String);

impl fmt::Display for LinkAlias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An IPv6 address has colons itself, so it comes last.
        write!(f, "eni-cni:1:{}:", self.key)?;
        self.addresses.v4().map_or(Ok(()), |address| write!(f, "{address}"))?;
        write!(f, ":{}", self.eni_mark.value())?;
        if let Some(mac) = self.adopted_mac {
            f.write_str("@")?;
            mac.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        self.name.as_ref().map_or(Ok(()), |name| write!(f, ":{}", name.0))?;
        self.addresses.v6().map_or(Ok(()), |address| write!(f, "+{address}"))
    }
}

impl FromStr for LinkAlias {
    type Err = InvalidAlias;

    fn from_str(text: &str) -> Result<Self, InvalidAlias> {
        parse_alias(text).ok_or_else(|| InvalidAlias(text.to_owned()))
    }
}

fn parse_alias(text: &str) -> Option<LinkAlias> {
    let (text, ipv6) = text.split_once('+').map_or((text, None), |(text, ipv6)| (text, Some(ipv6)));
    let ipv6 = ipv6.map(str::parse).transpose().ok()?;
    let mut fields = text.strip_prefix("eni-cni:1:")?.split(':');
    let mut key = fields.next()?.split('/');
    let key = PodKey::new(key.next()?, key.next()?, key.next()?).ok()?;
    let ipv4 = Some(fields.next()?).filter(|text| !text.is_empty()).map(str::parse).transpose().ok()?;
    let mark = fields.next()?;
    let (mark, mac) = mark.split_once('@').map_or((mark, None), |(mark, mac)| (mark, Some(mac)));
    let adopted_mac = match mac {
        Some(mac) => Some(parse_mac(mac)?),
        None => None,
    };
    let eni_mark = EniMark::new(mark.parse().ok()?)?;
    let name = match fields.next() {
        Some(name) => Some(LinkName::read(name)?),
        None => None,
    };
    fields.next().is_none().then_some(LinkAlias {
        key,
        addresses: PodAddresses::new(ipv4, ipv6)?,
        eni_mark,
        adopted_mac,
        name,
    })
}

fn parse_mac(digits: &str) -> Option<[u8; 6]> {
    let byte = |at: usize| u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok();
    if digits.len() != 12 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some([byte(0)?, byte(1)?, byte(2)?, byte(3)?, byte(4)?, byte(5)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(interface: &str) -> PodKey {
        PodKey::new("pods", "c1", interface).unwrap()
    }

    fn pod() -> Pod {
        Pod { namespace: "default".into(), name: "web-0".into(), uid: String::new() }
    }

    #[test]
    fn the_name_of_eth0_follows_the_aws_cni() {
        // printf default.web-0 | sha1sum | cut -c1-11
        assert_eq!(host_link_name(&VethPrefix::default(), &key("eth0"), &pod()), "eni0d7763386da");
    }

    #[test]
    fn other_interfaces_and_unknown_pods_have_names_of_their_own() {
        let names = [
            host_link_name(&VethPrefix::default(), &key("eth0"), &pod()),
            host_link_name(&VethPrefix::default(), &key("net1"), &pod()),
            host_link_name(&VethPrefix::default(), &key("eth0"), &Pod::default()),
        ];
        assert!(names.iter().all(|name| name.len() == 14));
        assert_ne!(names[0], names[1]);
        assert_ne!(names[0], names[2]);
    }

    #[test]
    fn an_alias_reads_back_as_written() {
        let (ipv4, ipv6) = ([10, 0, 3, 7].into(), "2600:1f00::7".parse().unwrap());
        let alias = LinkAlias {
            key: key("eth0"),
            addresses: PodAddresses::V4(ipv4),
            eni_mark: EniMark::of_device(2),
            adopted_mac: None,
            name: None,
        };
        assert_eq!(alias.to_string(), "eni-cni:1:pods/c1/eth0:10.0.3.7:3");
        assert_eq!(alias.to_string().parse(), Ok(alias.clone()));
        let both = LinkAlias { addresses: PodAddresses::Dual(ipv4, ipv6), ..alias.clone() };
        assert_eq!(both.to_string(), "eni-cni:1:pods/c1/eth0:10.0.3.7:3+2600:1f00::7");
        assert_eq!(both.to_string().parse(), Ok(both.clone()));
        let adopted = LinkAlias { adopted_mac: Some([2, 0, 0xab, 3, 4, 5]), ..both.clone() };
        assert_eq!(adopted.to_string(), "eni-cni:1:pods/c1/eth0:10.0.3.7:3@0200ab030405+2600:1f00::7");
        assert_eq!(adopted.to_string().parse(), Ok(adopted));
        assert!("eni-cni:1:pods/c1/eth0:10.0.3.7:3@0200ab03040".parse::<LinkAlias>().is_err());
        let name = LinkName::of(&VethPrefix::default(), "eni0d7763386da");
        let named = LinkAlias { name, ..both.clone() };
        assert_eq!(named.to_string(), "eni-cni:1:pods/c1/eth0:10.0.3.7:3:0d7763386da+2600:1f00::7");
        assert_eq!(named.to_string().parse(), Ok(named));
        let only = LinkAlias { addresses: PodAddresses::V6(ipv6), ..alias };
        assert_eq!(only.to_string(), "eni-cni:1:pods/c1/eth0::3+2600:1f00::7");
        assert_eq!(only.to_string().parse(), Ok(only));
        assert!("eni-cni:1:pods/c1/eth0::3".parse::<LinkAlias>().is_err());
        assert!("eni-cni:1:pods/c1/eth0:10.0.3.7:3:more:more".parse::<LinkAlias>().is_err());
        for name in ["", "no-name", "0123456789abcde"] {
            assert!(format!("eni-cni:1:pods/c1/eth0:10.0.3.7:3:{name}").parse::<LinkAlias>().is_err(), "{name}");
        }
        assert!("somebody else's".parse::<LinkAlias>().is_err());
    }
}

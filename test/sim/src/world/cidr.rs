//! Arithmetic on IPv4 networks.

use std::net::Ipv4Addr;

use ipam_core::ports::Cidr4;

/// Reads `10.0.0.0/16`; host bits are cut off, as EC2 does.
pub(crate) fn parse(text: &str) -> Option<Cidr4> {
    let (network, prefix) = text.split_once('/')?;
    let (network, prefix) = (network.parse::<Ipv4Addr>().ok()?, prefix.parse::<u8>().ok().filter(|p| *p <= 32)?);
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    Some(Cidr4 { network: Ipv4Addr::from(u32::from(network) & mask), prefix })
}

/// Writes `10.0.0.0/16`.
pub(crate) fn text(cidr: Cidr4) -> String {
    format!("{}/{}", cidr.network, cidr.prefix)
}

/// The first and the last address.
pub(crate) fn bounds(cidr: Cidr4) -> (u32, u32) {
    let first = u32::from(cidr.network);
    (first, first | u32::MAX.checked_shr(cidr.prefix.into()).unwrap_or(0))
}

pub(crate) fn contains(outer: Cidr4, inner: Cidr4) -> bool {
    let ((first, last), (inner_first, inner_last)) = (bounds(outer), bounds(inner));
    first <= inner_first && inner_last <= last
}

pub(crate) fn overlap(a: Cidr4, b: Cidr4) -> bool {
    let ((a_first, a_last), (b_first, b_last)) = (bounds(a), bounds(b));
    a_first <= b_last && b_first <= a_last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_compared() {
        let wide = parse("10.0.7.9/16").unwrap();
        assert_eq!(text(wide), "10.0.0.0/16");
        assert!(contains(wide, parse("10.0.255.0/24").unwrap()));
        assert!(!contains(wide, parse("10.1.0.0/24").unwrap()));
        assert!(overlap(parse("10.0.1.0/24").unwrap(), parse("10.0.1.128/25").unwrap()));
        assert_eq!(text(parse("1.2.3.4/0").unwrap()), "0.0.0.0/0");
        assert_eq!(bounds(parse("1.2.3.4/32").unwrap()), (0x0102_0304, 0x0102_0304));
        for bad in ["", "10.0.0.0", "10.0.0/8", "10.0.0.0/33", "a/8"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}

//! Branch ENIs: a pod with security groups of its own, over a VLAN of the node's trunk.

use std::net::Ipv4Addr;

/// Largest VLAN id. Source: IEEE 802.1Q.
const LARGEST_VLAN: u32 = 4094;

/// How far a pod's security groups reach. Source: `POD_SECURITY_GROUP_ENFORCING_MODE` of the AWS CNI.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Enforcing {
    /// All of the pod's traffic goes over its branch ENI, also that with its own node.
    #[default]
    Strict,
    /// What is on the node stays on it; what leaves the VPC leaves as the node.
    Standard,
}

/// The branch ENI of one pod, which the VPC resource controller made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchEni {
    vlan: u16,
    mac: [u8; 6],
    trunk: [u8; 6],
    router: Option<Ipv4Addr>,
    enforcing: Enforcing,
}

/// A branch ENI that cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBranch {
    /// The VLAN id is out of range.
    #[error("VLAN {0} is outside 1..=4094")]
    Vlan(u32),
    /// A hardware address is none of one interface.
    #[error("{0:02x?} is no hardware address of an interface")]
    Mac(Vec<u8>),
    /// The router is no address.
    #[error("router `{0}` is not an IPv4 address")]
    Router(String),
}

impl BranchEni {
    /// Returns the branch with this VLAN and hardware address on the trunk with that one. `router`: the subnet's, for IPv4.
    ///
    /// # Errors
    /// The first part that is wrong.
    pub fn new(
        vlan: u32,
        mac: &[u8],
        trunk: &[u8],
        router: Option<Ipv4Addr>,
        enforcing: Enforcing,
    ) -> Result<Self, InvalidBranch> {
        let id = u16::try_from(vlan).ok().filter(|_| (1..=LARGEST_VLAN).contains(&vlan));
        // The lowest bit of the first byte makes it the address of a group.
        let unicast = |bytes: &[u8]| {
            let address = <[u8; 6]>::try_from(bytes).ok().filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6]);
            address.ok_or_else(|| InvalidBranch::Mac(bytes.to_vec()))
        };
        let vlan = id.ok_or(InvalidBranch::Vlan(vlan))?;
        Ok(Self { vlan, mac: unicast(mac)?, trunk: unicast(trunk)?, router, enforcing })
    }

    /// Id of the VLAN, 1 to 4094.
    #[must_use]
    pub const fn vlan(&self) -> u16 {
        self.vlan
    }

    /// Its hardware address.
    #[must_use]
    pub const fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Hardware address of the trunk, by which the trunk's link is found.
    #[must_use]
    pub const fn trunk(&self) -> [u8; 6] {
        self.trunk
    }

    /// The router of its subnet, for IPv4. Absent: the subnet has none.
    #[must_use]
    pub const fn router(&self) -> Option<Ipv4Addr> {
        self.router
    }

    /// How far the pod's security groups reach.
    #[must_use]
    pub const fn enforcing(&self) -> Enforcing {
        self.enforcing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_checked_part_by_part() {
        let good = [0x02, 0, 0, 0, 0, 7];
        let make = |vlan, mac: &[u8]| BranchEni::new(vlan, mac, &good, None, Enforcing::Strict);
        assert_eq!(make(4094, &good).map(|branch| branch.vlan()), Ok(4094));
        for vlan in [0, 4095, 65_537, u32::MAX] {
            assert_eq!(make(vlan, &good), Err(InvalidBranch::Vlan(vlan)));
        }
        for mac in [&[][..], &good[..5], &[0; 6], &[0x01, 0, 0x5e, 0, 0, 1], &[2; 7]] {
            assert_eq!(make(1, mac), Err(InvalidBranch::Mac(mac.to_vec())));
        }
    }
}

//! The internet: one host behind the VPC's gateway that answers and remembers who asked.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crate::{
    LabError, Namespace,
    fabric::{
        counters,
        script::{activate, own_at_once},
    },
};

/// The internet host's address (TEST-NET-2, RFC 5737).
pub const INTERNET_HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The internet gateway's address on that side.
const GATEWAY: &str = "198.51.100.1";
/// The internet host's IPv6 address (RFC 3849).
pub const INTERNET_HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x10);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);

const RULES: &str = "table ip internet {
  set seen { type ipv4_addr; size 65535; flags dynamic; counter; }
  chain input { type filter hook input priority 0; policy accept; iifname \"igw\" update @seen { ip saddr }; }
}
";

/// The internet host.
#[derive(Debug)]
pub(crate) struct Internet {
    namespace: Arc<Namespace>,
}

impl Internet {
    /// Makes the host and hangs it on `fabric` by a link that is called `igw` at both ends.
    pub(crate) fn behind(fabric: &Namespace) -> Result<Self, LabError> {
        let namespace = Arc::new(Namespace::fresh("internet")?);
        let path = namespace.path().display().to_string();
        fabric.ip(&format!(
            "link add igw mtu 1500 type veth peer name igw mtu 1500 netns {path}\n\
             link set igw addrgenmode none\nlink set igw up\naddr add {GATEWAY}/24 dev igw\n"
        ))?;
        fabric.sysctl(&[("net/ipv6/conf/igw/disable_ipv6", "0")])?;
        // Who has no link-local address cannot ask for the neighbours of what it forwards.
        fabric.ip(&format!("addr add fe80::1/64 dev igw nodad\n{}", own_at_once(GATEWAY_V6, 64, "igw")))?;
        // It offers the segments of a VPC's host, so that the path's MTU has to be found out and is not told by the handshake.
        namespace.ip(&format!(
            "link set igw up\naddr add {INTERNET_HOST}/24 dev igw\n\
             route add default via {GATEWAY} advmss 8961\n\
             {}route add default via {GATEWAY_V6} advmss 8941\n{}",
            own_at_once(INTERNET_HOST_V6, 64, "igw"),
            activate("igw")
        ))?;
        fabric.ip(&activate("igw"))?;
        namespace.nft(RULES)?;
        Ok(Self { namespace })
    }

    pub(crate) fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// Source addresses that reached the host, with the number of packets of each.
    pub(crate) fn seen(&self) -> Result<BTreeMap<Ipv4Addr, u64>, LabError> {
        let elements = counters::read(&self.namespace, "ip", "internet", "seen")?;
        elements.into_iter().map(|(key, packets)| Ok((counters::address(&key, 0)?, packets))).collect()
    }
}

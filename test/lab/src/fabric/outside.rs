//! What hangs on the VPC without being an ENI: hosts of other networks, and load balancers.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ipam_core::ports::Cidr4;

use super::{
    Fabric,
    ports::router,
    script::{activate, own_at_once},
};
use crate::{LabError, Namespace};

/// Targets answer to the client's own address, which the gateway would not let out.
const BALANCER: &str = "table ip balancer {
  map targets { type ipv4_addr . inet_service : ipv4_addr . inet_service; }
  chain in {
    type nat hook prerouting priority dstnat; policy accept;
    iifname \"igw\" meta l4proto { tcp, udp } dnat ip to ip daddr . th dport map @targets
  }
}
table ip6 balancer {
  map targets { type ipv6_addr . inet_service : ipv6_addr . inet_service; }
  chain in {
    type nat hook prerouting priority dstnat; policy accept;
    iifname \"igw\" meta l4proto { tcp, udp } dnat ip6 to ip6 daddr . th dport map @targets
  }
}
add rule ip fabric balanced ct status dnat accept
";

/// As whom the internet sees who goes through the NAT gateway (TEST-NET-2, RFC 5737).
pub const NAT_GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

const NO_NAT: &str = "flush chain ip fabric translated
add chain ip fabric nat_gateway { type nat hook postrouting priority srcnat; }
delete chain ip fabric nat_gateway
";

impl Fabric {
    pub(crate) fn set_nat_gateway(&self, there: bool) -> Result<(), LabError> {
        let rules = format!(
            "{NO_NAT}add chain ip fabric nat_gateway {{ type nat hook postrouting priority srcnat; }}
add rule ip fabric nat_gateway oifname \"igw\" ip saddr != @public snat to {NAT_GATEWAY}
add rule ip fabric translated oifname \"igw\" accept
add rule ip fabric translated ct status snat accept
"
        );
        self.namespace.nft(if there { &rules } else { NO_NAT })?;
        self.namespace.ip(&format!("addr replace {NAT_GATEWAY}/32 dev lo\n")).map(drop)
    }

    pub(crate) fn add_outside_host(
        &self,
        link: &str,
        address: Ipv4Addr,
        network: Cidr4,
    ) -> Result<Namespace, LabError> {
        let host = Namespace::fresh(link)?;
        let (path, router, prefix) = (host.path().display().to_string(), router(network), network.prefix);
        self.namespace.nft(&format!("add element ip fabric outside {{ \"{link}\" }}\n"))?;
        self.namespace.ip(&format!(
            "link add {link} mtu 9001 type veth peer name {link} mtu 9001 netns {path}\n\
             link set {link} up\naddr add {router}/{prefix} dev {link}\n"
        ))?;
        host.ip(&format!(
            "link set {link} up\naddr add {address}/{prefix} dev {link}\nroute add default via {router}\n{}",
            activate(link)
        ))?;
        self.namespace.ip(&activate(link))?;
        Ok(host)
    }

    pub(crate) fn give_outside_host_ipv6(
        &self,
        host: &Namespace,
        link: &str,
        address: Ipv6Addr,
    ) -> Result<(), LabError> {
        // The first address of the /64 is the router.
        let router = Ipv6Addr::from_bits(address.to_bits() >> 64 << 64 | 1);
        self.namespace.nft(&format!("add element ip6 fabric outside {{ \"{link}\" }}\n"))?;
        self.namespace.sysctl(&[(&format!("net/ipv6/conf/{link}/disable_ipv6"), "0")])?;
        self.namespace.ip(&format!("addr add fe80::1/64 dev {link} nodad\n{}", own_at_once(router, 64, link)))?;
        host.ip(&format!("{}route add default via {router}\n", own_at_once(address, 64, link))).map(drop)
    }

    pub(crate) fn balance(&mut self, public: SocketAddr, target: SocketAddr) -> Result<(), LabError> {
        if !std::mem::replace(&mut self.balances, true) {
            self.namespace.nft(BALANCER)?;
        }
        let pair = |address: SocketAddr| format!("{} . {}", address.ip(), address.port());
        let family = if public.is_ipv4() { "ip" } else { "ip6" };
        self.namespace
            .nft(&format!("add element {family} balancer targets {{ {} : {} }}\n", pair(public), pair(target)))
            .map(drop)
    }
}

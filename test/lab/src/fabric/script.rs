//! Writes the difference between two sets of ports as scripts for `ip` and `nft`; runs nothing itself.

use std::{
    collections::BTreeMap,
    fmt::Write,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipam_core::InstanceId;

use super::ports::{Network6, Port, Ports, router};

/// The ENI's own side of each link, seen from the router. No ENI announces it: the router's neighbour entry is permanent. A node that has
/// been up for long has a link-local address that it need not look for others with; without one nobody asks for the router.
const ENI_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xe);
/// The router's side. Source: VPC User Guide, "Subnet route tables".
const VPC_ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0xec2, 0, 0, 0, 0, 0, 1);

/// What has to be run, and where.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scripts {
    /// `ip -batch` in the fabric.
    pub(crate) ip: String,
    /// Ports of the fabric that get IPv6, after `ip`.
    pub(crate) ipv6_ports: Vec<String>,
    /// `ip -batch` in the fabric, after that.
    pub(crate) ipv6: String,
    /// `nft -f` in the fabric, before `ip`.
    pub(crate) nft: String,
    /// `ip -batch` in nodes, after `ipv6`: what the operating system would do at boot.
    pub(crate) nodes: BTreeMap<InstanceId, String>,
    /// `ip -batch` in the fabric, after `nodes`.
    pub(crate) settle: String,
}

/// Returns the scripts that lead from `now` to `next`. `netns` is the path of each node's namespace.
pub(crate) fn write(now: &Ports, next: &Ports, netns: &BTreeMap<InstanceId, String>) -> Scripts {
    let mut scripts = Scripts::default();
    // First everything that goes, so that names, slots and addresses are free for what comes.
    for (eni, port) in now {
        let kept = next.get(eni).filter(|other| other.same_link(port));
        for address in port.owns.iter().filter(|address| !kept.is_some_and(|port| port.owns.contains(address))) {
            scripts.disown(port, *address, kept.is_some());
        }
        for network in port.owns_v6.iter().filter(|network| kept.is_some_and(|port| !port.owns_v6.contains(network))) {
            scripts.line(format_args!("route del {} dev {}", text(*network), port.name));
        }
        if kept.is_none() {
            scripts.line(format_args!("link del {}", port.name));
        }
    }
    for (eni, port) in next {
        let known = now.get(eni).filter(|other| other.same_link(port));
        if known.is_none() {
            scripts.plug(eni.as_str(), port, &netns[&port.instance]);
        }
        for address in port.owns.iter().filter(|address| !known.is_some_and(|port| port.owns.contains(address))) {
            scripts.own(port, *address);
        }
        scripts.own_v6(port, known);
    }
    scripts
}

/// Makes the kernel notice that both ends of a pair are up; by itself it does so some time later, and drops packets until then.
///
/// Asking for one link is enough: `rtnl_getlink` catches up with its carrier first.
pub(crate) fn activate(link: &str) -> String {
    format!("link show dev {link}\n")
}

fn text((network, prefix): Network6) -> String {
    format!("{network}/{prefix}")
}

/// Gives a link an IPv6 address that is heard at once: the kernel makes it its own in the background, and drops what comes for it until then.
pub(crate) fn own_at_once(address: Ipv6Addr, prefix: u8, link: &str) -> String {
    format!("addr replace {address}/{prefix} dev {link} nodad\nroute replace local {address} dev {link} table local\n")
}

impl Scripts {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.ip, "{line}");
    }

    fn plug(&mut self, eni: &str, port: &Port, netns: &str) {
        let Port { name, link, mac, .. } = port;
        self.line(format_args!("link add {name} mtu 9001 type veth peer name {link} address {mac} netns {netns}"));
        self.line(format_args!("link set {name} up alias {eni} addrgenmode none"));
        // Proxy ARP would wait up to 0.8 s before it answers; only a device's own value can be set here.
        self.line(format_args!("ntable change name arp_cache dev {name} proxy_delay 0"));
        self.line(format_args!("addr replace {}/32 dev lo", router(port.subnet)));
        if port.first {
            let boot = self.nodes.entry(port.instance.clone()).or_default();
            let (address, prefix, router) = (port.primary, port.subnet.prefix, router(port.subnet));
            let _ = write!(
                boot,
                "link set {link} mtu 9001 up\naddr add {address}/{prefix} dev {link}\n\
                 route add default via {router} dev {link}\n{}",
                activate(link)
            );
            self.settle.push_str(&activate(name));
        }
    }

    fn own(&mut self, port: &Port, address: Ipv4Addr) {
        let Port { name, mac, .. } = port;
        // Permanent, so that the next hop is the ENI whatever address the packet is for.
        self.line(format_args!("neigh replace {address} lladdr {mac} dev {name} nud permanent"));
        self.line(format_args!("route replace {address}/32 dev {name}"));
        let _ = writeln!(self.nft, "add element ip fabric owned {{ \"{name}\" . {address} }}");
        if port.first && address == port.primary {
            let _ = writeln!(self.nft, "add element ip fabric public {{ {address} }}");
        }
    }

    /// The first network brings the router with it.
    fn own_v6(&mut self, port: &Port, known: Option<&Port>) {
        let Port { name, mac, link, .. } = port;
        let had = known.map(|known| &known.owns_v6).filter(|had| !had.is_empty());
        if had.is_none() && !port.owns_v6.is_empty() {
            self.ipv6_ports.push(name.clone());
            let _ = writeln!(
                self.ipv6,
                "{}neigh replace {ENI_V6} lladdr {mac} dev {name} nud permanent",
                own_at_once(VPC_ROUTER_V6, 64, name)
            );
            if let Some(address) = port.primary_v6().filter(|_| port.first) {
                let _ = writeln!(
                    self.nodes.entry(port.instance.clone()).or_default(),
                    "{}{}route replace default via {VPC_ROUTER_V6} dev {link}",
                    own_at_once(ENI_V6, 64, link),
                    own_at_once(address, 128, link)
                );
            }
        }
        for network in port.owns_v6.iter().filter(|network| had.is_none_or(|had| !had.contains(network))) {
            let _ = writeln!(self.ipv6, "route replace {} via {ENI_V6} dev {name}", text(*network));
        }
    }

    fn disown(&mut self, port: &Port, address: Ipv4Addr, link_stays: bool) {
        let name = &port.name;
        if link_stays {
            self.line(format_args!("route del {address}/32 dev {name}"));
            self.line(format_args!("neigh del {address} dev {name}"));
        }
        let _ = writeln!(self.nft, "delete element ip fabric owned {{ \"{name}\" . {address} }}");
        if port.first && address == port.primary {
            let _ = writeln!(self.nft, "delete element ip fabric public {{ {address} }}");
        }
    }
}

//! Mode `nftables`: table `ip kube-proxy`, as kube-proxy 1.33 writes it without `clusterCIDR`; and portmap's table for nftables.

use std::{fmt::Write, net::SocketAddr};

use eni_datapath::Family;

use crate::services::{HOST_PORTS, PORT, SERVICES};

const PROTOCOLS: [&str; 2] = ["tcp", "udp"];

/// The input of `nft -f`.
pub(crate) fn kube_proxy(node: &str, family: Family) -> String {
    let ip = code(family);
    let mut chains = String::new();
    let mut elements = String::new();
    for service in SERVICES {
        let _ = writeln!(elements, "add element {ip} kube-proxy cluster-ips {{ {} }}", service.address(family));
        for protocol in PROTOCOLS {
            let id = format!("{}/{protocol}", service.name);
            let (target, address) = (service.target(family), service.address(family));
            let _ = write!(
                chains,
                "  chain service-{id} {{ numgen random mod 1 vmap {{ 0 : goto endpoint-{id} }}; }}
  chain endpoint-{id} {{
    {ip} saddr {} jump mark-for-masquerade
    meta l4proto {protocol} dnat to {target}
  }}\n",
                target.ip(),
            );
            let external = match (service.local, service.is_on(node)) {
                (false, _) => format!("jump mark-for-masquerade\n    goto service-{id}"),
                (true, here) => format!(
                    "fib saddr type local jump mark-for-masquerade\n    fib saddr type local goto service-{id}\n    {}",
                    if here { format!("goto endpoint-{id}") } else { String::new() }
                ),
            };
            let _ = writeln!(chains, "  chain external-{id} {{\n    {external}\n  }}");
            let port = service.node_port;
            let _ = writeln!(
                elements,
                "add element {ip} kube-proxy service-ips {{ {address} . {protocol} . {PORT} : goto service-{id} }}\n\
                 add element {ip} kube-proxy service-nodeports {{ {protocol} . {port} : goto external-{id} }}"
            );
            if service.local && !service.is_on(node) {
                let _ = writeln!(
                    elements,
                    "add element {ip} kube-proxy no-endpoint-nodeports {{ {protocol} . {port} : drop }}"
                );
            }
        }
    }
    let kind = if family == Family::V4 { "ipv4_addr" } else { "ipv6_addr" };
    let base = BASE.replace("ADDRESS", kind).replace("ip daddr", &format!("{ip} daddr"));
    let node_ports = crate::world::address_of(node, family);
    format!(
        "table {ip} kube-proxy {{\n{base}  set nodeport-ips {{ type {kind}; elements = {{ {node_ports} }} }}\n{chains}}}\n{elements}"
    )
}

const fn code(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

const BASE: &str = "  comment \"rules for kube-proxy\";
  set cluster-ips { type ADDRESS; }
  map service-ips { type ADDRESS . inet_proto . inet_service : verdict; }
  map service-nodeports { type inet_proto . inet_service : verdict; }
  map no-endpoint-services { type ADDRESS . inet_proto . inet_service : verdict; }
  map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
  map firewall-ips { type ADDRESS . inet_proto . inet_service : verdict; }
  chain cluster-ips-check { ip daddr @cluster-ips drop; }
  chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
  chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
  chain nodeport-endpoints-check { ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }
  chain mark-for-masquerade { meta mark set meta mark | 0x4000; }
  chain masquerading {
    meta mark & 0x4000 == 0 return
    meta mark set meta mark ^ 0x4000
    masquerade fully-random
  }
  chain services {
    ip daddr . meta l4proto . th dport vmap @service-ips
    ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
  }
  chain filter-prerouting-pre-dnat { type filter hook prerouting priority -110; ct state new jump firewall-check; }
  chain filter-output-pre-dnat { type filter hook output priority -110; ct state new jump firewall-check; }
  chain filter-input {
    type filter hook input priority 0;
    ct state new jump nodeport-endpoints-check
    ct state new jump service-endpoints-check
  }
  chain filter-forward {
    type filter hook forward priority 0;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }
  chain filter-output {
    type filter hook output priority 0;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }
  chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
  chain nat-output { type nat hook output priority -100; jump services; }
  chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
";

/// What the portmap plugin adds for the pods of `node` with its nftables backend.
pub(crate) fn portmap(node: &str, family: Family) -> String {
    let ip = code(family);
    let localhost = if family == Family::V4 { "127.0.0.1" } else { "::1" };
    let mut mapped = String::new();
    let mut masqueraded = String::new();
    for host_port in HOST_PORTS.iter().filter(|host_port| crate::world::node_of(host_port.pod) == Some(node)) {
        let pod = crate::world::address_of(host_port.pod, family);
        for protocol in PROTOCOLS {
            let _ = writeln!(mapped, "    {protocol} dport {} dnat to {}", host_port.port, SocketAddr::new(pod, PORT));
        }
        let _ = writeln!(masqueraded, "    {ip} saddr {{ {pod}, {localhost} }} {ip} daddr {pod} masquerade");
    }
    format!(
        "table {ip} cni_hostport {{
  chain hostports {{\n{mapped}  }}
  chain prerouting {{ type nat hook prerouting priority -100; fib daddr type local jump hostports; }}
  chain output {{ type nat hook output priority -100; fib daddr type local jump hostports; }}
  chain masquerading {{
    type nat hook postrouting priority 100;\n{masqueraded}  }}
}}
"
    )
}

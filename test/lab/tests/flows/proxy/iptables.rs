//! Mode `iptables`: chains KUBE-*, as kube-proxy 1.33 writes them without `clusterCIDR`, which is EKS's setting; and portmap's CNI-*.

use std::fmt::Write;

use eni_datapath::{Cidr, Family};

use crate::services::{HOST_PORTS, PORT, SERVICES, Service};

const PROTOCOLS: [&str; 2] = ["tcp", "udp"];

/// What makes `route_localnet` harmless, which IPv6 has not.
const FIREWALL: &str = "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment \"block incoming localnet connections\" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\n";

/// The input of `iptables-restore --noflush` or its sister for IPv6.
pub(crate) fn kube_proxy(node: &str, family: Family) -> String {
    let mut filter = String::new();
    let mut nat = String::new();
    let mut chains = String::new();
    for service in SERVICES {
        for protocol in PROTOCOLS {
            write_service((service, family), protocol, node, &mut chains, &mut nat, &mut filter);
        }
    }
    let firewall = if family == Family::V4 { FIREWALL } else { "" };
    format!(
        "*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -j KUBE-FIREWALL
{firewall}-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{filter}COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
{chains}-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
{nat}-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
"
    )
}

/// Chains have names of hashes with kube-proxy; here the service's name does.
fn write_service(
    (service, family): (&Service, Family),
    protocol: &str,
    node: &str,
    chains: &mut String,
    nat: &mut String,
    filter: &mut String,
) {
    let id = format!("{}-{}", service.name, protocol).to_uppercase();
    let [name, port] = [format!("default/{}:{protocol}", service.name), service.node_port.to_string()];
    let (address, target) = (Cidr::host(service.address(family)), service.target(family));
    let on_port = |port: &str| format!("-p {protocol} -m {protocol} --dport {port}");
    let _ = write!(
        chains,
        ":KUBE-EXT-{id} - [0:0]\n:KUBE-SEP-{id} - [0:0]\n:KUBE-SVC-{id} - [0:0]\n:KUBE-SVL-{id} - [0:0]\n"
    );
    let _ = write!(
        nat,
        "-A KUBE-SERVICES -d {address} {} -m comment --comment \"{name} cluster IP\" -j KUBE-SVC-{id}
-A KUBE-SVC-{id} -m comment --comment \"{name} -> {target}\" -j KUBE-SEP-{id}
-A KUBE-SEP-{id} -s {} -m comment --comment {name} -j KUBE-MARK-MASQ
-A KUBE-SEP-{id} -p {protocol} -m {protocol} -m comment --comment {name} -j DNAT --to-destination {target}
",
        on_port(&PORT.to_string()),
        Cidr::host(target.ip()),
    );
    if service.local && !service.is_on(node) {
        let _ = writeln!(
            filter,
            "-A KUBE-EXTERNAL-SERVICES {} -m comment --comment \"{name} has no local endpoints\" -m addrtype --dst-type LOCAL -j DROP",
            on_port(&port)
        );
    }
    let _ = writeln!(nat, "-A KUBE-NODEPORTS {} -m comment --comment {name} -j KUBE-EXT-{id}", on_port(&port));
    let masquerade =
        format!("-m comment --comment \"masquerade traffic for {name} external destinations\" -j KUBE-MARK-MASQ");
    if service.local {
        let from_here = "-m addrtype --src-type LOCAL";
        let _ =
            writeln!(nat, "-A KUBE-EXT-{id} {from_here} {masquerade}\n-A KUBE-EXT-{id} {from_here} -j KUBE-SVC-{id}");
        if service.is_on(node) {
            let _ = writeln!(nat, "-A KUBE-EXT-{id} -j KUBE-SVL-{id}\n-A KUBE-SVL-{id} -j KUBE-SEP-{id}");
        }
    } else {
        let _ = writeln!(nat, "-A KUBE-EXT-{id} {masquerade}\n-A KUBE-EXT-{id} -j KUBE-SVC-{id}");
    }
}

/// What the portmap plugin adds for the pods of `node`.
pub(crate) fn portmap(node: &str, family: Family) -> String {
    let mut chains = String::new();
    let mut rules = String::new();
    for host_port in HOST_PORTS {
        if crate::world::node_of(host_port.pod) != Some(node) {
            continue;
        }
        let (port, pod) = (host_port.port, crate::world::address_of(host_port.pod, family));
        let (from, to) = (Cidr::host(pod), std::net::SocketAddr::new(pod, PORT));
        let localhost = if family == Family::V4 { "127.0.0.1/32" } else { "::1/128" };
        let _ = writeln!(chains, ":CNI-DN-{port} - [0:0]");
        for protocol in PROTOCOLS {
            let on_port = format!("-p {protocol} -m {protocol} --dport {port}");
            let _ = write!(
                rules,
                "-A CNI-HOSTPORT-DNAT -p {protocol} -m comment --comment \"dnat name: eni id: {pod}\" -m multiport --dports {port} -j CNI-DN-{port}
-A CNI-DN-{port} -s {from} {on_port} -j CNI-HOSTPORT-SETMARK
-A CNI-DN-{port} -s {localhost} {on_port} -j CNI-HOSTPORT-SETMARK
-A CNI-DN-{port} {on_port} -j DNAT --to-destination {to}
"
            );
        }
    }
    format!(
        "*nat
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:CNI-HOSTPORT-SETMARK - [0:0]
{chains}-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment \"CNI portfwd requiring masquerade\" -j CNI-HOSTPORT-MASQ
-A CNI-HOSTPORT-SETMARK -m comment --comment \"CNI portfwd masquerade mark\" -j MARK --set-xmark 0x2000/0x2000
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
{rules}COMMIT
"
    )
}

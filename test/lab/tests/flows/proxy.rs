//! The rules that kube-proxy and the portmap plugin write on a node, for the services of this cluster.

mod iptables;
mod nftables;

use std::{fmt, process::Command};

use lab::Node;

/// How the node's kube-proxy writes its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// Mode `iptables`, with the kernel's old ip_tables.
    IptablesLegacy,
    /// Mode `iptables`, with iptables' translation to nf_tables.
    IptablesNft,
    /// Mode `nftables`.
    Nftables,
}

impl Proxy {
    pub(crate) const ALL: [Self; 3] = [Self::IptablesLegacy, Self::IptablesNft, Self::Nftables];

    /// Writes all rules on `node`, whose own address is `address`.
    pub(crate) fn write(self, node: &Node) {
        let address = crate::world::address_of(node.name());
        match self {
            Self::IptablesLegacy => restore(node, "iptables-legacy-restore"),
            Self::IptablesNft => restore(node, "iptables-nft-restore"),
            Self::Nftables => {
                node.namespace().nft(&nftables::kube_proxy(node.name(), address)).unwrap();
                node.namespace().nft(&nftables::portmap(node.name())).unwrap();
            }
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IptablesLegacy => "iptables-legacy",
            Self::IptablesNft => "iptables-nft",
            Self::Nftables => "nftables",
        })
    }
}

fn restore(node: &Node, program: &str) {
    for rules in [iptables::kube_proxy(node.name()), iptables::portmap(node.name())] {
        let mut command = Command::new(program);
        // The machine's own lock is for the machine's own rules.
        command.arg("--noflush").env("XTABLES_LOCKFILE", node.directory().join("xtables.lock"));
        let output = node.namespace().output(&mut command, rules.as_bytes()).unwrap();
        assert!(output.status.success(), "{program}: {}\n{rules}", String::from_utf8_lossy(&output.stderr));
    }
}

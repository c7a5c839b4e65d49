//! The rules that kube-proxy and the portmap plugin write on a node, for the services of this cluster.

mod iptables;
mod nftables;

use std::{fmt, process::Command};

use eni_datapath::Family;
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

    /// Writes all rules of a family on `node`.
    pub(crate) fn write(self, node: &Node, family: Family) {
        let tables = if family == Family::V4 { "iptables" } else { "ip6tables" };
        match self {
            Self::IptablesLegacy => restore(node, family, &format!("{tables}-legacy-restore")),
            Self::IptablesNft => restore(node, family, &format!("{tables}-nft-restore")),
            Self::Nftables => {
                node.namespace().nft(&nftables::kube_proxy(node.name(), family)).unwrap();
                node.namespace().nft(&nftables::portmap(node.name(), family)).unwrap();
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

fn restore(node: &Node, family: Family, program: &str) {
    for rules in [iptables::kube_proxy(node.name(), family), iptables::portmap(node.name(), family)] {
        let mut command = Command::new(program);
        // The machine's own lock is for the machine's own rules.
        command.arg("--noflush").env("XTABLES_LOCKFILE", node.directory().join("xtables.lock"));
        let output = node.namespace().output(&mut command, rules.as_bytes()).unwrap();
        assert!(output.status.success(), "{program}: {}\n{rules}", String::from_utf8_lossy(&output.stderr));
    }
}

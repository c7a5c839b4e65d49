//! The address managers that are compared, by name.

use ipam_core::{
    Policy,
    policy::{Mode, Placement},
};

use crate::{cluster::Manager, incumbent::Warm};

/// A manager that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Its name, for arguments and reports.
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
}

/// All of them, ours first.
pub const CHOICES: [Choice; 7] = [
    Choice { name: "eni", about: "ours, WARM_ENI_TARGET=1" },
    Choice { name: "ip", about: "ours, WARM_IP_TARGET=2 MINIMUM_IP_TARGET=10" },
    Choice { name: "prefix", about: "ours, prefixes, WARM_PREFIX_TARGET=1" },
    Choice { name: "auto", about: "ours, WARM_TARGET=auto" },
    Choice { name: "aws-eni", about: "AWS CNI, WARM_ENI_TARGET=1" },
    Choice { name: "aws-ip", about: "AWS CNI, WARM_IP_TARGET=2 MINIMUM_IP_TARGET=10" },
    Choice { name: "aws-prefix", about: "AWS CNI, prefixes, WARM_PREFIX_TARGET=1" },
];

/// Returns the manager of this name; `max_pods` is the kubelet's.
#[must_use]
pub fn manager(name: &str, max_pods: u16) -> Option<Manager> {
    let base = Policy { placement: Placement::NodeSubnet, max_pods: Some(max_pods), ..Policy::default() };
    Some(match name {
        "eni" => Manager::Ours(base),
        "ip" => Manager::Ours(Policy { warm_addresses: 2, minimum_addresses: 10, ..base }),
        "prefix" => Manager::Ours(Policy { mode: Mode::Prefixes, ..base }),
        "auto" => Manager::Ours(Policy { warm_auto: true, ..base }),
        "aws-eni" => Manager::Incumbent(Warm::Enis(1)),
        "aws-ip" => Manager::Incumbent(Warm::Addresses { warm: 2, minimum: 10 }),
        "aws-prefix" => Manager::Incumbent(Warm::Prefixes(1)),
        _ => return None,
    })
}

//! What a random world is like: its instance, its settings, and what goes wrong in it.

use std::time::Duration;

use ipam_core::{CustomNetwork, Families, Limits, Mode, Placement, Policy};

/// What goes wrong, in percent of the cases unless it says otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Chance {
    /// Calls to EC2, descriptions and writes.
    pub(crate) faults: u32,
    /// Grants that EC2 does not list in its answer.
    pub(crate) vague: u32,
    /// Descriptions that leave out an ENI: one that is attached, or that was changed lately.
    pub(crate) omissions: u32,
    /// How far descriptions lag behind changes at most, in milliseconds.
    pub(crate) lag: u32,
    /// Of a thousand answers of the engine, during how many the daemon is killed.
    pub(crate) crashes: u32,
    /// Questions to the kernel that fail.
    pub(crate) kernel_faults: u32,
    /// How long the kernel takes to look, and to answer, in milliseconds.
    pub(crate) kernel_delay: u32,
    /// Pods that go and leave their address in the kernel.
    pub(crate) strays: u32,
}

impl Chance {
    pub(crate) fn draw(below: &mut impl FnMut(u32) -> u32) -> Self {
        let mut one_of = |choices: &[u32]| choices[usize::try_from(below(64)).unwrap() % choices.len()];
        let faults = one_of(&[0, 5, 30]);
        let kernel_faults = if faults > 0 { one_of(&[0, 0, 30]) } else { 0 };
        Self {
            faults,
            vague: if faults > 0 { one_of(&[0, 10]) } else { 0 },
            omissions: if faults > 0 { one_of(&[0, 10]) } else { 0 },
            lag: one_of(&[0, 1_500, 4_000]),
            crashes: one_of(&[0, 5, 30]),
            kernel_faults,
            kernel_delay: one_of(&[0, 25, 300]),
            strays: if kernel_faults == 0 { one_of(&[0, 10]) } else { 0 },
        }
    }

    /// From now on nothing goes wrong.
    pub(crate) fn calm(&mut self) {
        *self = Self { lag: self.lag, kernel_delay: self.kernel_delay, ..Self::default() };
    }
}

pub(crate) fn limits(below: &mut impl FnMut(u32) -> u32) -> Limits {
    Limits {
        max_enis: u8::try_from(2 + below(3)).unwrap(),
        addresses_per_eni: u16::try_from(3 + below(6)).unwrap(),
        prefixes: below(6) > 0,
        ..Limits::default()
    }
}

/// The settings of a node whose pods have these families.
pub(crate) fn policy_of(families: Families, egress: bool, below: &mut impl FnMut(u32) -> u32) -> Policy {
    let mut policy = policy(below);
    if families == Families::V6 && matches!(policy.placement, Placement::Custom(_)) {
        // Its pods live on the primary ENI, so that this is no setting to start with.
        policy.placement = Placement::NodeSubnet;
    }
    Policy { families, egress, ..policy }
}

fn policy(below: &mut impl FnMut(u32) -> u32) -> Policy {
    let by_address = below(2) == 0;
    let mut small = |n: u32| u16::try_from(below(n)).unwrap();
    let (warm_addresses, minimum_addresses) = if by_address { (small(5), small(8)) } else { (0, 0) };
    let (warm_enis, warm_prefixes) = (u8::try_from(small(2)).unwrap(), small(3));
    let placement = match below(8) {
        0 => Placement::Custom(CustomNetwork { subnet: "subnet-2".parse().unwrap(), security_groups: vec![] }),
        1..4 => Placement::NodeSubnet,
        _ => Placement::Discover,
    };
    Policy {
        warm_enis,
        warm_prefixes,
        warm_addresses,
        minimum_addresses,
        warm_auto: below(8) == 0,
        max_enis: (below(6) == 0).then_some(2),
        max_pods: (below(2) == 0).then(|| u16::try_from(4 + below(20)).unwrap()),
        mode: if below(3) == 0 { Mode::Prefixes } else { Mode::Addresses },
        placement,
        cool_down: Duration::from_secs([5, 30][usize::from(below(4) > 0)]),
        ..Policy::default()
    }
}

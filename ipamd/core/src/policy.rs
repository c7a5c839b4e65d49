//! What the operator wants and what the instance allows.

use std::time::Duration;

use eni_proto::numbers;

use crate::{SecurityGroupId, SubnetId};

/// How large the pool should be and where it may live. The settings have the AWS CNI's names and meanings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `WARM_ENI_TARGET`: whole ENIs to keep free. Ignored when one of the two address targets is above 0, and with
    /// prefixes.
    pub warm_enis: u8,
    /// `WARM_PREFIX_TARGET`: whole prefixes to keep free. Ignored when one of the two address targets is above 0, and
    /// without prefixes.
    pub warm_prefixes: u16,
    /// `WARM_IP_TARGET`: free addresses to keep. 0: not set.
    pub warm_addresses: u16,
    /// `MINIMUM_IP_TARGET`: addresses to hold at least, free or not. 0: not set.
    pub minimum_addresses: u16,
    /// `WARM_TARGET=auto`: as many free addresses as recent demand would have needed, instead of the warm targets above.
    /// [`Policy::minimum_addresses`] holds all the same.
    pub warm_auto: bool,
    /// `MAX_ENI`: never more ENIs than this, the primary included. Absent: what the instance type allows.
    pub max_enis: Option<u8>,
    /// The node's max pods: never more addresses than so many pods can use. Absent: not known, no limit.
    pub max_pods: Option<u16>,
    /// `ENABLE_PREFIX_DELEGATION`: whether to hold addresses in prefixes.
    pub mode: Mode,
    /// `ENABLE_IPv4`, `ENABLE_IPv6`: what addresses pods have.
    pub families: Families,
    /// `ENABLE_V4_EGRESS`, `ENABLE_V6_EGRESS`: whether pods of one family have an address of the other one for their way out, known on the
    /// node only.
    pub egress: bool,
    /// Where new ENIs live.
    pub placement: Placement,
    /// `CLUSTER_NAME`: subnets that are tagged for other clusters only are left alone. Empty: not set, any tag will do.
    pub cluster: String,
    /// `ENABLE_MULTI_NIC`: whether ENIs on network cards above 0 are used, for pods that want an address of each card.
    pub further_cards: bool,
    /// `ENABLE_POD_ENI`: whether a place is kept for the trunk, which the VPC resource controller attaches.
    pub trunk: bool,
    /// What may be asked of EC2.
    pub access: Access,
    /// `IP_COOLDOWN_PERIOD`: how long a released address rests.
    pub cool_down: Duration,
}

/// In what units addresses are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Single secondary addresses.
    #[default]
    Addresses,
    /// /28 prefixes; single addresses only while a subnet has no free /28.
    Prefixes,
}

/// What addresses pods have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Families {
    /// IPv4.
    #[default]
    V4,
    /// IPv6, of the /80 prefix of the primary ENI: no other one is needed.
    V6,
    /// Both, by the same ENI. How many pods there can be, IPv4 decides.
    Dual,
}

impl Families {
    /// Whether pods have an IPv4 address of the VPC.
    #[must_use]
    pub const fn v4(self) -> bool {
        matches!(self, Self::V4 | Self::Dual)
    }

    /// Whether the node needs IPv6: its pods have an address of the VPC, or one for their way out.
    #[must_use]
    pub const fn need_v6(self, egress: bool) -> bool {
        self.v6() || egress
    }

    /// Whether pods have an IPv6 address of the VPC.
    #[must_use]
    pub const fn v6(self) -> bool {
        matches!(self, Self::V6 | Self::Dual)
    }
}

/// In which subnets new ENIs live.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Placement {
    /// The node's subnet and those of its zone that are tagged `kubernetes.io/role/cni`
    /// (`ENABLE_SUBNET_DISCOVERY`), the one with the most free addresses first.
    #[default]
    Discover,
    /// The node's subnet only.
    NodeSubnet,
    /// Another one (`AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG`); the primary ENI then carries no pods.
    Custom(CustomNetwork),
}

/// What an `ENIConfig` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomNetwork {
    /// Where new ENIs live.
    pub subnet: SubnetId,
    /// Their security groups; empty: those of the primary ENI, as they were when ipamd started.
    pub security_groups: Vec<SecurityGroupId>,
}

/// What may be asked of EC2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Everything.
    #[default]
    Full,
    /// Descriptions only (`DISABLE_NETWORK_RESOURCE_PROVISIONING`): somebody else attaches ENIs and gives them addresses.
    ReadOnly,
    /// Nothing: the shell answers [`crate::Command::Observe`] from the metadata service.
    MetadataOnly,
}

impl Default for Policy {
    /// What holds when nothing is set.
    fn default() -> Self {
        Self {
            warm_enis: 1,
            warm_prefixes: 1,
            warm_addresses: 0,
            minimum_addresses: 0,
            warm_auto: false,
            max_enis: None,
            max_pods: None,
            mode: Mode::default(),
            families: Families::default(),
            egress: false,
            placement: Placement::default(),
            cluster: String::new(),
            further_cards: false,
            trunk: false,
            access: Access::default(),
            cool_down: Duration::from_secs(numbers::DEFAULT_COOL_DOWN_SECONDS.into()),
        }
    }
}

/// Network cards that an instance type can have. Source: the largest number in EC2's answers, 2026-08.
pub const MAX_CARDS: usize = 32;

/// What one instance can carry. Source: EC2 `DescribeInstanceTypes`, `NetworkInfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// ENIs on the default network card, the primary included.
    pub max_enis: u8,
    /// IPv4 addresses of one ENI, its primary included. A prefix takes the place of one address.
    pub addresses_per_eni: u16,
    /// Whether its ENIs can have prefixes: Nitro and bare metal do, Xen does not.
    pub prefixes: bool,
    /// ENIs on each further network card, managed only with [`Policy::further_cards`]; 0: there is no such card. The default
    /// card's place holds 0.
    pub other_cards: [u8; MAX_CARDS],
}

impl Default for Limits {
    /// The least that any instance type carries.
    fn default() -> Self {
        Self { max_enis: 2, addresses_per_eni: 2, prefixes: true, other_cards: [0; MAX_CARDS] }
    }
}

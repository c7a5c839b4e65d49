//! The things of the cloud as they are now. All are plain values; the rules are elsewhere.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipam_core::{AttachmentId, EniId, InstanceId, MacAddress, Moment, SecurityGroupId, SubnetId, VpcId, ports::Cidr4};

use crate::world::{Cidr6, Held6};

/// Tags of one thing, by key.
pub type Tags = BTreeMap<String, String>;

/// A virtual network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vpc {
    /// Its id.
    pub id: VpcId,
    /// Its IPv4 networks; the first is the one that it was made with.
    pub cidrs: Vec<Cidr4>,
    /// Its IPv6 network, a /56 of Amazon's. Absent: it has none.
    pub cidr6: Option<Cidr6>,
    /// The group that ENIs get when none is asked for.
    pub default_group: SecurityGroupId,
    /// Whether RunInstances without a subnet uses it.
    pub is_default: bool,
    /// Its tags.
    pub tags: Tags,
}

/// A range of a VPC's addresses in one zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Its id.
    pub id: SubnetId,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its network.
    pub cidr: Cidr4,
    /// Its IPv6 network, a /64. Absent: it has none.
    pub cidr6: Option<Cidr6>,
    /// Its zone.
    pub availability_zone: String,
    /// Its tags.
    pub tags: Tags,
    /// How many addresses EC2 says it could still give out, the reserved ranges left out.
    pub available: usize,
}

impl Vpc {
    /// Id of the association of the VPC with one of its ranges.
    #[must_use]
    pub fn association(&self, cidr: Cidr4) -> String {
        Self::association_of(&self.id, cidr)
    }

    pub(crate) fn association_of(vpc: &VpcId, cidr: Cidr4) -> String {
        association("vpc", vpc.as_str(), u32::from(cidr.network))
    }

    /// Id of the association of the VPC with its IPv6 network.
    #[must_use]
    pub fn association6(&self) -> Option<String> {
        self.cidr6.map(|_| association("vpc", self.id.as_str(), 6))
    }
}

fn association(kind: &str, id: &str, which: u32) -> String {
    let digits = id.rsplit('-').next().unwrap_or_default();
    let number = u64::from_str_radix(digits, 16).unwrap_or(0) ^ u64::from(which);
    format!("{kind}-cidr-assoc-0{number:016x}")
}

impl Subnet {
    /// Id of the association of the subnet with its IPv6 network.
    #[must_use]
    pub fn association6(&self) -> Option<String> {
        self.cidr6.map(|_| association("subnet", self.id.as_str(), 6))
    }

    /// The subnet's router: the first host address.
    #[must_use]
    pub fn router(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.cidr.network) + 1)
    }
}

/// What a range of a subnet is set apart for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReservationKind {
    /// Prefixes, which then come from nowhere else.
    Prefix,
    /// Whatever is asked for by name.
    Explicit,
}

impl ReservationKind {
    /// EC2's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::Explicit => "explicit",
        }
    }
}

/// A range of a subnet from which EC2 gives nothing by itself, but prefixes if it is for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CidrReservation {
    /// Its id, `scr-...`.
    pub id: ReservationId,
    /// The subnet.
    pub subnet: SubnetId,
    /// The range.
    pub cidr: Cidr4,
    /// What for.
    pub kind: ReservationKind,
    /// Its description.
    pub description: String,
    /// Its tags.
    pub tags: Tags,
}

/// A reservation of a range of a subnet. Source: EC2 `SubnetCidrReservationId`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReservationId(String);

impl std::fmt::Display for ReservationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for ReservationId {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// A security group; its rules are not simulated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroup {
    /// Its id.
    pub id: SecurityGroupId,
    /// Its name, unique in the VPC.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its tags.
    pub tags: Tags,
}

/// The life of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceState {
    /// Starting.
    Pending,
    /// Up.
    Running,
    /// On its way to `Terminated`.
    ShuttingDown,
    /// Gone; its record stays.
    Terminated,
}

impl InstanceState {
    /// EC2's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
        }
    }

    /// EC2's number of it.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
        }
    }
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its type; decides the limits.
    pub instance_type: String,
    /// Image that it was started from; not interpreted.
    pub image: String,
    /// The launch that it belongs to.
    pub reservation: String,
    /// Where it is in its life.
    pub state: InstanceState,
    /// When it was launched.
    pub launched_at: Moment,
    /// Its zone; ENIs of other zones cannot be attached.
    pub availability_zone: String,
    /// Its VPC.
    pub vpc: VpcId,
    /// Subnet of its primary ENI.
    pub subnet: SubnetId,
    /// Its tags.
    pub tags: Tags,
    /// Its ENIs by network card and device index, also those that are attaching or detaching.
    pub interfaces: BTreeMap<(u8, u8), EniId>,
}

/// Where an attachment is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachmentState {
    /// Asked for; the instance does not see it yet.
    Attaching,
    /// The instance has it.
    Attached,
    /// On its way out.
    Detaching,
}

impl AttachmentState {
    /// EC2's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attaching => "attaching",
            Self::Attached => "attached",
            Self::Detaching => "detaching",
        }
    }
}

/// How an ENI hangs on an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its id.
    pub id: AttachmentId,
    /// The instance.
    pub instance: InstanceId,
    /// Network card.
    pub card: u8,
    /// Slot on the card.
    pub device_index: u8,
    /// Where it is in its life.
    pub state: AttachmentState,
    /// When it was asked for.
    pub attach_time: Moment,
    /// Whether the ENI goes away with the instance.
    pub delete_on_termination: bool,
}

/// A security group as an ENI names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupName {
    /// Its id.
    pub id: SecurityGroupId,
    /// Its name.
    pub name: String,
}

/// What an ENI is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EniKind {
    /// Ordinary traffic.
    #[default]
    Interface,
    /// Elastic Fabric Adapter with addresses.
    Efa,
    /// Elastic Fabric Adapter without addresses.
    EfaOnly,
    /// Carries branches.
    Trunk,
    /// Reached through a trunk; never attached itself.
    Branch,
}

impl EniKind {
    const ALL: [Self; 5] = [Self::Interface, Self::Efa, Self::EfaOnly, Self::Trunk, Self::Branch];

    /// EC2's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Efa => "efa",
            Self::EfaOnly => "efa-only",
            Self::Trunk => "trunk",
            Self::Branch => "branch",
        }
    }

    /// The kind with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// An elastic network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eni {
    /// Its id.
    pub id: EniId,
    /// Its hardware address, unique in the world, locally administered.
    pub mac: MacAddress,
    /// Its subnet.
    pub subnet: SubnetId,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its zone.
    pub availability_zone: String,
    /// Its description.
    pub description: String,
    /// Its groups, in the order they were given.
    pub groups: Vec<GroupName>,
    /// What it is for.
    pub kind: EniKind,
    /// Its primary address. Absent: it is for EFA only.
    pub primary: Option<Ipv4Addr>,
    /// Its secondary addresses, in the order they were assigned.
    pub secondary: Vec<Ipv4Addr>,
    /// Its prefixes, in the order they were assigned.
    pub prefixes: Vec<Cidr4>,
    /// What of IPv6 it has.
    pub ipv6: Held6,
    /// How it hangs on an instance.
    pub attachment: Option<Attachment>,
    /// False: still `pending`.
    pub ready: bool,
    /// Its deletion was accepted and takes its time.
    pub deleting: bool,
    /// When it is, or was, ready.
    pub ready_at: Moment,
    /// Whether packets from addresses that it does not own are dropped.
    pub source_dest_check: bool,
    /// Its tags.
    pub tags: Tags,
}

impl Eni {
    /// EC2's name of its state.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        match (&self.attachment, self.ready) {
            (Some(_), _) => "in-use",
            (None, true) => "available",
            (None, false) => "pending",
        }
    }

    /// How much of the type's limit it uses: a prefix counts as one address.
    #[must_use]
    pub fn slots(&self) -> usize {
        usize::from(self.primary.is_some()) + self.secondary.len() + self.prefixes.len()
    }

    /// All its addresses but those in prefixes, the primary first.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.primary.into_iter().chain(self.secondary.iter().copied())
    }

    /// Whether its instance has a link for it: attached, or not yet fully detached.
    #[must_use]
    pub fn is_plugged_in(&self) -> bool {
        self.attachment.as_ref().is_some_and(|attachment| attachment.state != AttachmentState::Attaching)
    }
}

//! The outside world in the domain's words: what the daemon asks of EC2 and of the metadata service.
//!
//! One honest implementation each: `ipam-aws` for the real thing, `ec2-sim` for the simulated one.

mod networks;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    net::{IpAddr, Ipv4Addr},
};

pub use networks::{Cidr4, Cidr6, InvalidCidr6};

use crate::{AttachmentId, EniId, InstanceId, Limits, MacAddress, SecurityGroupId, SubnetId, VpcId};

/// Who this node is. Source: IMDS; does not change while the instance runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    /// The instance.
    pub instance: InstanceId,
    /// Instance type, as `m5.xlarge`; decides the limits.
    pub instance_type: String,
    /// Region, as `eu-central-1`.
    pub region: String,
    /// MAC of the primary ENI, by which its link is found.
    pub primary_mac: MacAddress,
    /// The primary ENI.
    pub primary_eni: EniId,
    /// Subnet of the primary ENI.
    pub subnet: SubnetId,
    /// IPv4 network of that subnet.
    pub subnet_cidr: Cidr4,
    /// Availability zone, as `eu-central-1a`: an ENI can only be attached within its zone.
    pub zone: String,
    /// The VPC.
    pub vpc: VpcId,
    /// IPv4 networks of the VPC, sorted, at least one.
    pub vpc_cidrs: Vec<Cidr4>,
    /// Security groups of the primary ENI, sorted. New ENIs get the same.
    pub security_groups: Vec<SecurityGroupId>,
}

/// One ENI as EC2 describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The ENI.
    pub id: EniId,
    /// Its hardware address, by which its link is found.
    pub mac: MacAddress,
    /// Its subnet.
    pub subnet: SubnetId,
    /// Its primary address, which belongs to the node and never to a pod.
    pub primary: Ipv4Addr,
    /// Its secondary addresses, sorted, unique, without the primary.
    pub secondary: Vec<Ipv4Addr>,
    /// Prefixes delegated to it, each a /28, sorted, unique. Every address of a prefix can be a pod's.
    pub prefixes: Vec<Cidr4>,
    /// IPv6 prefixes delegated to it, each a /80, sorted, unique. Every address of one can be a pod's.
    pub prefixes6: Vec<Cidr6>,
    /// What it is for.
    pub kind: InterfaceKind,
    /// Its security groups, sorted.
    pub security_groups: Vec<SecurityGroupId>,
    /// How it hangs on an instance. Absent: it is attached to none.
    pub attachment: Option<Attachment>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Interface {
    /// All addresses that pods can have: the secondary ones, then those of the prefixes.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.secondary.iter().copied().chain(self.prefixes.iter().flat_map(|prefix| prefix.addresses()))
    }

    /// Whether the address is its own to give to a pod, in either family.
    #[must_use]
    pub fn owns(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.has(address),
            IpAddr::V6(address) => self.prefixes6.iter().any(|prefix| prefix.contains(address)),
        }
    }

    /// Whether the address is one of [`Interface::addresses`].
    #[must_use]
    pub fn has(&self, address: Ipv4Addr) -> bool {
        self.secondary.binary_search(&address).is_ok() || self.prefixes.iter().any(|prefix| prefix.contains(address))
    }
}

/// What an ENI is for. Source: EC2 `InterfaceType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InterfaceKind {
    /// Ordinary traffic: the only kind whose addresses are given to pods.
    Plain,
    /// Elastic Fabric Adapter with addresses.
    Efa,
    /// The VPC resource controller's trunk, which carries branch ENIs.
    Trunk,
    /// Anything else (a branch, a gateway, ...).
    Other,
}

/// Which of a node's ENIs are asked for. EC2 cannot answer both in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Those attached to the instance, whoever made them.
    Attached,
    /// Those tagged as made for the instance, attached to it or not: finds what was lost on the way.
    Tagged,
}

/// How many of what to ask EC2 for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Amount {
    /// Single secondary addresses.
    Addresses(u16),
    /// /28 prefixes of 16 addresses each.
    Prefixes(u16),
    /// One /80 prefix of IPv6, which takes no place of IPv4 and is more than a node can use.
    Prefix6,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(count) => write!(f, "{count} addresses"),
            Self::Prefixes(count) => write!(f, "{count} prefixes"),
            Self::Prefix6 => write!(f, "an IPv6 prefix"),
        }
    }
}

impl Amount {
    /// EC2's name of the call that gives it to an ENI which is there already.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::Addresses(_) | Self::Prefixes(_) => "AssignPrivateIpAddresses",
            Self::Prefix6 => "AssignIpv6Addresses",
        }
    }

    /// How many places for IPv4 of an ENI that takes.
    #[must_use]
    pub const fn slots(self) -> usize {
        match self {
            Self::Addresses(count) | Self::Prefixes(count) => count as usize,
            Self::Prefix6 => 0,
        }
    }

    /// How many IPv4 addresses that is.
    #[must_use]
    pub const fn addresses(self) -> usize {
        match self {
            Self::Addresses(count) => count as usize,
            Self::Prefixes(count) => count as usize * PREFIX_SIZE,
            Self::Prefix6 => 0,
        }
    }
}

/// Addresses in one delegated prefix.
pub const PREFIX_SIZE: usize = 16;
/// Bits of a delegated IPv6 prefix.
pub const PREFIX6_BITS: u8 = 80;

/// Addresses and prefixes of one ENI: granted by EC2, or to be given back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Single secondary addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// /28 prefixes.
    pub prefixes: Vec<Cidr4>,
    /// /80 prefixes; only ever granted.
    pub prefixes6: Vec<Cidr6>,
}

impl Holdings {
    /// All IPv4 addresses: the single ones, then those of the prefixes.
    pub fn all(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses.iter().copied().chain(self.prefixes.iter().flat_map(|prefix| prefix.addresses()))
    }
}

/// A change of one ENI's attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The ENI goes away together with the instance.
    DeleteOnTermination(AttachmentId),
    /// The ENI's security groups become these; at least one.
    SecurityGroups(Vec<SecurityGroupId>),
}

/// How an ENI hangs on an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Id by which it is detached.
    pub id: AttachmentId,
    /// The instance.
    pub instance: InstanceId,
    /// Slot on the network card; 0 is the primary ENI.
    pub device_index: u8,
    /// Network card.
    pub card: u8,
    /// True: EC2 says `attached`; false: it is still attaching or already detaching.
    pub attached: bool,
    /// Whether the ENI goes away with the instance.
    pub delete_on_termination: bool,
}

/// A subnet, as far as the pool needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The subnet.
    pub id: SubnetId,
    /// Its network; its first host address is the router.
    pub cidr: Cidr4,
    /// Addresses that EC2 could still give out. Lags behind.
    pub available_addresses: u32,
    /// Its tags; `kubernetes.io/role/cni` says whether pods may live there.
    pub tags: BTreeMap<String, String>,
}

/// What a new ENI should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInterface {
    /// Idempotency token: the same token gives the same ENI. 1 to 64 ASCII characters.
    pub token: String,
    /// Where it lives.
    pub subnet: SubnetId,
    /// Its security groups; empty: the VPC's default.
    pub security_groups: Vec<SecurityGroupId>,
    /// What to ask for in the same call.
    pub amount: Amount,
    /// Whether to ask for a /80 prefix of IPv6 too.
    pub prefix6: bool,
    /// Description for people.
    pub description: String,
    /// Tags, set in the same call.
    pub tags: BTreeMap<String, String>,
}

/// What a refusal of EC2 means for us. A table in `ipam-aws` maps every error code to one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalClass {
    /// Rate limited: nothing happened; try later and less often.
    SlowDown,
    /// The subnet has no address left: another subnet may.
    SubnetFull,
    /// The subnet has no free /28 left, though it may have single addresses.
    NoPrefix,
    /// A limit of instance, ENI or account is reached: asking again does not help.
    LimitReached,
    /// The thing is not there, or not there yet.
    NotFound,
    /// The thing is in a state that forbids this now (in use, attaching, detaching).
    WrongState,
    /// We may not do this: the operator has to change permissions or credentials.
    NotAllowed,
    /// The request was wrong; repeating it cannot help.
    BadRequest,
    /// EC2 had a fault and says that nothing was done, or the code is not in the table: try again later.
    TryLater,
}

/// Why a call to EC2 did not end well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ec2Error {
    /// EC2 answered and refused: nothing was changed.
    #[error("EC2 refused {action}: {code}: {message}")]
    Refused {
        /// API action, as `AttachNetworkInterface`.
        action: &'static str,
        /// What it means for us.
        class: RefusalClass,
        /// EC2's error code.
        code: String,
        /// EC2's message, for people.
        message: String,
    },
    /// No usable answer: the change may or may not have happened. Look before repeating anything.
    #[error("outcome of {action} is unknown: {reason}")]
    Unknown {
        /// API action.
        action: &'static str,
        /// What went wrong, for people.
        reason: String,
    },
}

/// Result of one call to EC2.
pub type Ec2Result<T> = Result<T, Ec2Error>;

/// The EC2 API. Each method is one API call (a description: one for each page), sent once; retries are the planner's decision.
pub trait Ec2: Send + Sync + 'static {
    /// Returns the node's ENIs, in no particular order, each once.
    fn interfaces(&self, instance: &InstanceId, scope: Scope)
    -> impl Future<Output = Ec2Result<Vec<Interface>>> + Send;

    /// Returns the VPC's subnets in one availability zone, in no particular order, each once.
    fn subnets(&self, vpc: &VpcId, zone: &str) -> impl Future<Output = Ec2Result<Vec<Subnet>>> + Send;

    /// Returns what an instance type can carry.
    fn limits(&self, instance_type: &str) -> impl Future<Output = Ec2Result<Limits>> + Send;

    /// Makes an ENI. Repeatable with the same token.
    fn create_interface(&self, new: &NewInterface) -> impl Future<Output = Ec2Result<Interface>> + Send;

    /// Attaches an ENI. Repeatable: a taken device index is refused, so it can't happen twice.
    fn attach_interface(
        &self,
        eni: &EniId,
        instance: &InstanceId,
        card: u8,
        device_index: u8,
    ) -> impl Future<Output = Ec2Result<AttachmentId>> + Send;

    /// Changes an ENI's attributes. Repeatable.
    fn modify_interface(&self, eni: &EniId, change: &Change) -> impl Future<Output = Ec2Result<()>> + Send;

    /// Asks for more addresses or prefixes. **Not repeatable**: after an unknown outcome, look at the ENI first.
    ///
    /// Returns what the answer lists: the new ones; some stand-ins of EC2 list all, or none.
    fn assign(&self, eni: &EniId, amount: Amount) -> impl Future<Output = Ec2Result<Holdings>> + Send;

    /// Gives addresses or prefixes back, not both in one call. Repeatable: what is gone is refused as
    /// [`RefusalClass::BadRequest`].
    fn unassign(&self, eni: &EniId, holdings: &Holdings) -> impl Future<Output = Ec2Result<()>> + Send;

    /// Detaches an ENI. Repeatable: a second call is refused as [`RefusalClass::NotFound`].
    fn detach_interface(&self, attachment: &AttachmentId) -> impl Future<Output = Ec2Result<()>> + Send;

    /// Deletes a detached ENI. Repeatable: a second call is refused as [`RefusalClass::NotFound`].
    fn delete_interface(&self, eni: &EniId) -> impl Future<Output = Ec2Result<()>> + Send;
}

/// Why the metadata service could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("metadata service: {path}: {reason}")]
pub struct ImdsError {
    /// Path that was asked for.
    pub path: String,
    /// What went wrong, for people.
    pub reason: String,
}

/// The instance metadata service, version 2.
pub trait Imds: Send + Sync + 'static {
    /// Returns who this node is.
    fn identity(&self) -> impl Future<Output = Result<NodeIdentity, ImdsError>> + Send;
}

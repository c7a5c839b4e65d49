//! The outside world in the domain's words: what the daemon asks of EC2 and of the metadata service.
//!
//! One honest implementation each: `ipam-aws` for the real thing, `ec2-sim` for the simulated one.

use std::{collections::BTreeMap, future::Future, net::Ipv4Addr};

use crate::{AttachmentId, EniId, InstanceId, MacAddress, SecurityGroupId, SubnetId, VpcId};

/// An IPv4 network: address of the network and length of its prefix, 0 to 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr4 {
    /// First address of the network; host bits are zero.
    pub network: Ipv4Addr,
    /// Length of the prefix in bits, 0 to 32.
    pub prefix: u8,
}

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
    /// How it hangs on an instance. Absent: it is attached to none.
    pub attachment: Option<Attachment>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
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
    /// How many secondary addresses to ask for in the same call.
    pub secondary_count: u16,
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

/// The EC2 API. Each method is one API call, sent once; retries are the planner's decision.
pub trait Ec2: Send + Sync + 'static {
    /// Returns the ENIs attached to `instance` and those tagged as made for it, in no particular order, each once.
    fn interfaces(&self, instance: &InstanceId) -> impl Future<Output = Ec2Result<Vec<Interface>>> + Send;

    /// Returns a subnet.
    fn subnet(&self, subnet: &SubnetId) -> impl Future<Output = Ec2Result<Subnet>> + Send;

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

    /// Makes the ENI go away together with the instance. Repeatable.
    fn delete_on_termination(
        &self,
        eni: &EniId,
        attachment: &AttachmentId,
    ) -> impl Future<Output = Ec2Result<()>> + Send;

    /// Asks for `count` more secondary addresses. **Not repeatable**: after an unknown outcome, look at the ENI first.
    ///
    /// Returns nothing: some clouds answer with all addresses and some with the new ones, so the ENI is described afterwards.
    fn assign_addresses(&self, eni: &EniId, count: u16) -> impl Future<Output = Ec2Result<()>> + Send;

    /// Gives secondary addresses back. Repeatable: addresses that are gone are refused as [`RefusalClass::BadRequest`].
    fn unassign_addresses(&self, eni: &EniId, addresses: &[Ipv4Addr]) -> impl Future<Output = Ec2Result<()>> + Send;

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

//! What the engine is told and what it answers: the only two languages between deciding and doing.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use eni_proto::{Pod, PodKey, Refusal};

use crate::{
    AttachmentId, CoolDown, EniId, Lease, Moment, Policy, SecurityGroupId, SubnetId,
    ports::{Amount, Ec2Error, Holdings, Interface, Scope, Subnet},
};

/// One waiting caller; unique while the daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// One change at EC2; unique across restarts, because its text is the client token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IntentId(pub String);

impl fmt::Display for IntentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A pod wants an address of a network card and waits for it until `deadline`.
    Add {
        /// Who to answer.
        ticket: Ticket,
        /// Whose lease it will be.
        key: PodKey,
        /// The pod, for people.
        pod: Pod,
        /// The sandbox's network namespace.
        netns: String,
        /// The network card; 0 for all but pods with interfaces on several.
        card: u8,
        /// When to give up.
        deadline: Moment,
    },
    /// The caller of an Add has gone away: it must not be answered, and nothing may be kept for it.
    Cancel {
        /// Which caller.
        ticket: Ticket,
    },
    /// A pod gives its address back, and those of the interfaces that came with it.
    Del {
        /// Who to answer.
        ticket: Ticket,
        /// Whose lease it was.
        key: PodKey,
    },
    /// A lease has no sandbox any more, as far as somebody saw: it ends, unless its key was answered at that moment or later.
    Reclaim {
        /// Who to answer.
        ticket: Ticket,
        /// Whose lease it was.
        key: PodKey,
        /// When that was seen.
        seen_at: Moment,
    },
    /// A lease that was granted could not be stored; the address must not stay with the key.
    StoreFailed {
        /// Whose lease it would have been.
        key: PodKey,
    },
    /// The node's ENIs as an earlier run knew them last: what EC2 says later goes before it. Told once, first of all.
    Remembered {
        /// Each ENI once.
        interfaces: Vec<Interface>,
    },
    /// An earlier run began this change and ended before it heard what became of it. Told before the first [`Event::Tick`].
    LeftOpen {
        /// What was to be done; perhaps it was, perhaps it still will be.
        action: Action,
    },
    /// EC2 described ENIs of this node.
    Observed {
        /// When the description was asked for: what changed since then may be missing from it.
        asked_at: Moment,
        /// Which ENIs were asked for.
        scope: Scope,
        /// Each ENI once.
        interfaces: Vec<Interface>,
    },
    /// EC2 could not describe the node's ENIs.
    ObserveFailed {
        /// Why.
        error: Ec2Error,
    },
    /// EC2 described the subnets of this node's zone, or could not.
    Subnets {
        /// Each subnet once.
        outcome: Result<Vec<Subnet>, Ec2Error>,
    },
    /// An intent was carried out, or not.
    Settled {
        /// Which.
        intent: IntentId,
        /// How it ended.
        outcome: Result<Done, Ec2Error>,
    },
    /// The kernel can carry this ENI's traffic: link, address, table, rules and chain are there.
    HostReady {
        /// Which ENI.
        eni: EniId,
    },
    /// The kernel could not be prepared; the shell tries again by itself.
    HostFailed {
        /// Which ENI.
        eni: EniId,
        /// What is missing, for people.
        reason: String,
    },
    /// The kernel was asked which addresses its pods have, or could not be asked.
    Kernel {
        /// When it was asked.
        asked_at: Moment,
        /// The addresses of the pods' host links and routes. An error says why they could not be read.
        holds: Result<BTreeSet<IpAddr>, String>,
    },
    /// The primary ENI has other security groups than before: the ENIs that we manage follow.
    SecurityGroups {
        /// The new ones, at least one.
        security_groups: Vec<SecurityGroupId>,
    },
    /// The pool is to be otherwise than before: max pods or the place of new ENIs are known, or have changed.
    Policy {
        /// All of it.
        policy: Box<Policy>,
    },
    /// Time has passed.
    Tick,
}

/// What a successful intent produced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// The new ENI, not attached yet.
    Created(Interface),
    /// The attachment, perhaps still `attaching`.
    Attached(AttachmentId),
    /// The addresses or prefixes that the answer lists.
    Assigned(Holdings),
    /// Nothing to tell.
    Plain,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Store the lease if `fresh`, then answer the Add.
    Grant {
        /// Who to answer.
        ticket: Ticket,
        /// The lease.
        lease: Lease,
        /// False: the lease is stored already (same key, same answer).
        fresh: bool,
    },
    /// Answer an Add with a refusal.
    Refuse {
        /// Who to answer.
        ticket: Ticket,
        /// Why.
        refusal: Refusal,
    },
    /// Store the release and its cool-down if there was a lease, then answer the Del or Reclaim.
    Release {
        /// Who to answer. Absent: nobody asked (a cancelled Add, a lease without sandbox).
        ticket: Option<Ticket>,
        /// Whose lease it was.
        key: PodKey,
        /// What was released, IPv4 first. Empty: the key was not known.
        released: Vec<CoolDown>,
    },
    /// Ask EC2 for ENIs of this node, then report [`Event::Observed`] or [`Event::ObserveFailed`].
    Observe {
        /// Which.
        scope: Scope,
    },
    /// Ask EC2 for the subnets of this node's zone, then report [`Event::Subnets`].
    DescribeSubnets,
    /// Ask the kernel which addresses its pods have, then report [`Event::Kernel`]: something is about to be given back.
    ObserveKernel,
    /// Make the intent durable, then carry it out, then report [`Event::Settled`].
    Start {
        /// Its id; for [`Action::Create`] also the client token.
        intent: IntentId,
        /// What to do.
        action: Action,
    },
    /// Prepare the kernel for an attached ENI, then report [`Event::HostReady`]. Waits for the link to appear.
    PrepareHost {
        /// The ENI; attached.
        interface: Interface,
    },
    /// Take an ENI's table, rules and chain out of the kernel: it is about to be detached.
    ForgetHost {
        /// Which ENI.
        eni: EniId,
    },
}

/// A change at EC2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make an ENI, with addresses or prefixes in the same call.
    Create {
        /// In which subnet.
        subnet: SubnetId,
        /// Its security groups; empty: the VPC's default.
        security_groups: Vec<SecurityGroupId>,
        /// What to ask for.
        amount: Amount,
        /// Whether to ask for a /80 prefix of IPv6 too.
        prefix6: bool,
    },
    /// Attach an ENI of ours to this node at a free device index.
    Attach {
        /// Which ENI.
        eni: EniId,
        /// At which network card.
        card: u8,
        /// Where.
        device_index: u8,
    },
    /// Make the ENI go away together with the instance.
    DeleteOnTermination {
        /// Which ENI.
        eni: EniId,
        /// Its attachment.
        attachment: AttachmentId,
    },
    /// Give the ENI other security groups.
    SecurityGroups {
        /// Which ENI.
        eni: EniId,
        /// The new ones; at least one.
        security_groups: Vec<SecurityGroupId>,
    },
    /// Ask for more addresses or prefixes. Not repeatable: after an unknown outcome the ENI is observed first.
    Assign {
        /// Which ENI.
        eni: EniId,
        /// How many, at least 1.
        amount: Amount,
    },
    /// Give addresses or prefixes back, not both.
    Unassign {
        /// Which ENI.
        eni: EniId,
        /// Which; every address free: neither held nor cooling.
        holdings: Holdings,
    },
    /// Detach an ENI on which no address is held or cooling.
    Detach {
        /// Which ENI.
        eni: EniId,
        /// Its attachment.
        attachment: AttachmentId,
    },
    /// Delete an ENI of ours that is attached to nothing.
    Delete {
        /// Which ENI.
        eni: EniId,
    },
}

impl Action {
    /// The ENI that the action is about. Absent: it makes one.
    #[must_use]
    pub const fn eni(&self) -> Option<&EniId> {
        match self {
            Self::Create { .. } => None,
            Self::Attach { eni, .. }
            | Self::DeleteOnTermination { eni, .. }
            | Self::SecurityGroups { eni, .. }
            | Self::Assign { eni, .. }
            | Self::Unassign { eni, .. }
            | Self::Detach { eni, .. }
            | Self::Delete { eni } => Some(eni),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { subnet, amount, .. } => write!(f, "make an interface with {amount} in {subnet}"),
            Self::Attach { eni, card: 0, device_index } => write!(f, "attach {eni} at device index {device_index}"),
            Self::Attach { eni, card, device_index } => {
                write!(f, "attach {eni} at device index {device_index} of network card {card}")
            }
            Self::DeleteOnTermination { eni, .. } => write!(f, "let {eni} go with the instance"),
            Self::SecurityGroups { eni, security_groups } => {
                write!(f, "give {eni} the security groups")?;
                security_groups.iter().try_for_each(|group| write!(f, " {group}"))
            }
            Self::Assign { eni, amount } => write!(f, "ask for {amount} on {eni}"),
            Self::Unassign { eni, holdings } => {
                let (addresses, prefixes) = (holdings.addresses.len(), holdings.prefixes.len());
                let amount =
                    if prefixes > 0 { format!("{prefixes} prefixes") } else { format!("{addresses} addresses") };
                write!(f, "give {amount} of {eni} back")
            }
            Self::Detach { eni, .. } => write!(f, "detach {eni}"),
            Self::Delete { eni } => write!(f, "delete {eni}"),
        }
    }
}

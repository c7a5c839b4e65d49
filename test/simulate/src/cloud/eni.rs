//! One ENI and what changes of it do.

use std::{collections::BTreeMap, net::Ipv4Addr};

use eni_proto::numbers::TAG_INSTANCE;
use ipam_core::{
    Action, AttachmentId, Done, InstanceId, MacAddress, Moment, SubnetId,
    ports::{
        Amount, Attachment, Cidr4, Ec2Result, Holdings, Interface, InterfaceKind, NodeIdentity, PREFIX_SIZE,
        RefusalClass, Scope, Subnet,
    },
};

use super::{refused, slots};
use crate::account::Api;

/// All addresses are in this network.
const VPC: Cidr4 = Cidr4 { network: Ipv4Addr::new(10, 0, 0, 0), prefix: 8 };

/// Parses an id that this crate itself has written.
fn id<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("an id of our own is well-formed")
}

/// Id of the instance of a node.
#[must_use]
pub fn instance(node: usize) -> InstanceId {
    id(&format!("i-{node:017x}"))
}

pub(super) fn subnet() -> SubnetId {
    id("subnet-1")
}

pub(super) fn described_subnet() -> Subnet {
    Subnet { id: subnet(), cidr: VPC, available_addresses: 1 << 23, tags: BTreeMap::new() }
}

#[derive(Debug)]
pub(super) struct Eni {
    pub(super) interface: Interface,
    /// Absent: it hangs on nothing.
    pub(super) attached_at: Option<Moment>,
    /// Absent: it is not leaving.
    detached_at: Option<Moment>,
}

impl Eni {
    /// Addresses that pods can have.
    pub(super) fn addresses(&self) -> i64 {
        let count = self.interface.secondary.len() + self.interface.prefixes.len() * PREFIX_SIZE;
        i64::try_from(count).unwrap_or(i64::MAX)
    }

    /// Lets a detachment end that is due.
    pub(super) fn advance(&mut self, now: Moment) {
        if self.detached_at.is_some_and(|at| at <= now) {
            self.interface.attachment = None;
            (self.attached_at, self.detached_at) = (None, None);
        }
    }

    pub(super) fn is_in(&self, scope: Scope) -> bool {
        match scope {
            Scope::Attached => self.interface.attachment.is_some(),
            Scope::Tagged => self.interface.tags.contains_key(TAG_INSTANCE),
        }
    }

    /// As EC2 shows it.
    pub(super) fn described(&self, now: Moment) -> Interface {
        let mut interface = self.interface.clone();
        if let Some(attachment) = &mut interface.attachment {
            attachment.attached = self.detached_at.is_none() && self.attached_at.is_some_and(|at| at <= now);
        }
        interface
    }
}

/// Refuses an attachment at a slot that is taken, or one ENI too many.
pub(super) fn check_slot(enis: &[Eni], device_index: u8, max_enis: u8, api: Api) -> Ec2Result<()> {
    let attachments = enis.iter().filter_map(|eni| eni.interface.attachment.as_ref());
    if attachments.clone().any(|attachment| attachment.device_index == device_index) {
        return Err(refused(api, RefusalClass::BadRequest, "InvalidParameterValue"));
    }
    if attachments.count() >= usize::from(max_enis) {
        return Err(refused(api, RefusalClass::LimitReached, "AttachmentLimitExceeded"));
    }
    Ok(())
}

/// Gives each thing its name and its address, each once.
#[derive(Debug, Default)]
pub(super) struct Names {
    enis: u64,
    addresses: u32,
}

impl Names {
    fn address(&mut self) -> Ipv4Addr {
        self.addresses += 1;
        Ipv4Addr::from_bits(VPC.network.to_bits() | (self.addresses % (1 << 24)))
    }

    fn prefix(&mut self) -> Cidr4 {
        self.addresses = self.addresses.next_multiple_of(16);
        let network = Ipv4Addr::from_bits(VPC.network.to_bits() | (self.addresses % (1 << 24)));
        self.addresses += 15;
        Cidr4 { network, prefix: 28 }
    }

    fn grant(&mut self, amount: Amount) -> Holdings {
        match amount {
            // The trace has IPv4 only.
            Amount::Prefix6 => Holdings::default(),
            Amount::Addresses(count) => Holdings {
                addresses: (0..count).map(|_| self.address()).collect(),
                prefixes: vec![],
                prefixes6: vec![],
            },
            Amount::Prefixes(count) => {
                Holdings { addresses: vec![], prefixes: (0..count).map(|_| self.prefix()).collect(), prefixes6: vec![] }
            }
        }
    }

    pub(super) fn eni(&mut self, node: usize, amount: &Amount, device_index: Option<u8>) -> Eni {
        self.enis += 1;
        let number = self.enis;
        let primary = self.address();
        let holdings = self.grant(*amount);
        let [.., a, b, c, d] = number.to_be_bytes();
        let tags = device_index.is_none().then(|| (TAG_INSTANCE.to_owned(), instance(node).to_string()));
        let interface = Interface {
            id: id(&format!("eni-{number:017x}")),
            mac: MacAddress([2, 0, a, b, c, d]),
            subnet: subnet(),
            primary,
            secondary: holdings.addresses,
            prefixes: holdings.prefixes,
            prefixes6: vec![],
            kind: InterfaceKind::Plain,
            security_groups: vec![id("sg-1")],
            attachment: device_index.map(|index| self.attachment(node, index)),
            tags: tags.into_iter().collect::<BTreeMap<_, _>>(),
        };
        let attached_at = device_index.map(|_| Moment::default());
        Eni { interface, attached_at, detached_at: None }
    }

    fn attachment(&mut self, node: usize, device_index: u8) -> Attachment {
        self.enis += 1;
        Attachment {
            id: id::<AttachmentId>(&format!("eni-attach-{:017x}", self.enis)),
            instance: instance(node),
            device_index,
            card: 0,
            attached: true,
            delete_on_termination: device_index == 0,
        }
    }

    pub(super) fn identity(&self, node: usize, instance_type: &str, primary: &Interface) -> NodeIdentity {
        NodeIdentity {
            instance: instance(node),
            instance_type: instance_type.to_owned(),
            region: "eu-central-1".to_owned(),
            primary_mac: primary.mac,
            primary_eni: primary.id.clone(),
            subnet: primary.subnet.clone(),
            subnet_cidr: VPC,
            zone: "eu-central-1a".to_owned(),
            vpc: id("vpc-1"),
            vpc_cidrs: vec![VPC],
            security_groups: primary.security_groups.clone(),
        }
    }

    /// Changes one ENI; what takes time is over at `done_at`.
    pub(super) fn change(
        &mut self,
        eni: &mut Eni,
        action: &Action,
        node: usize,
        room: usize,
        done_at: Moment,
    ) -> Ec2Result<Done> {
        match action {
            Action::Assign { amount, .. } => {
                let used = eni.interface.secondary.len() + eni.interface.prefixes.len();
                if used + slots(*amount) > room {
                    let api = Api::AssignPrivateIpAddresses;
                    return Err(refused(api, RefusalClass::LimitReached, "PrivateIpAddressLimitExceeded"));
                }
                let granted = self.grant(*amount);
                eni.interface.secondary.extend(&granted.addresses);
                eni.interface.prefixes.extend(&granted.prefixes);
                Ok(Done::Assigned(granted))
            }
            Action::Unassign { holdings, .. } => {
                eni.interface.secondary.retain(|address| !holdings.addresses.contains(address));
                eni.interface.prefixes.retain(|prefix| !holdings.prefixes.contains(prefix));
                Ok(Done::Plain)
            }
            Action::Attach { device_index, .. } => {
                if eni.interface.attachment.is_some() {
                    let api = Api::AttachNetworkInterface;
                    return Err(refused(api, RefusalClass::WrongState, "InvalidNetworkInterface.InUse"));
                }
                let attachment = self.attachment(node, *device_index);
                eni.attached_at = Some(done_at);
                let attachment_id = attachment.id.clone();
                eni.interface.attachment = Some(attachment);
                Ok(Done::Attached(attachment_id))
            }
            Action::DeleteOnTermination { .. } => {
                if let Some(attachment) = &mut eni.interface.attachment {
                    attachment.delete_on_termination = true;
                }
                Ok(Done::Plain)
            }
            Action::SecurityGroups { security_groups, .. } => {
                eni.interface.security_groups.clone_from(security_groups);
                Ok(Done::Plain)
            }
            Action::Detach { attachment, .. } => {
                let known = eni.interface.attachment.as_ref().filter(|known| known.id == *attachment);
                let Some(known) = known else {
                    let api = Api::DetachNetworkInterface;
                    return Err(refused(api, RefusalClass::NotFound, "InvalidAttachmentID.NotFound"));
                };
                if known.device_index == 0 {
                    let api = Api::DetachNetworkInterface;
                    return Err(refused(api, RefusalClass::WrongState, "OperationNotPermitted"));
                }
                eni.detached_at = Some(done_at);
                Ok(Done::Plain)
            }
            // The caller has done these.
            Action::Create { .. } | Action::Delete { .. } => Ok(Done::Plain),
        }
    }
}

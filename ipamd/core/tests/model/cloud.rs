//! A cloud as small as the model test needs: ENIs, their addresses, and the limits that EC2 enforces.

use std::{collections::BTreeMap, net::Ipv4Addr};

use eni_proto::numbers;
use ipam_core::{
    Action, Done, EniId, Limits, Moment,
    ports::{Attachment, Ec2Error, Interface, InterfaceKind, RefusalClass},
};

pub(crate) const INSTANCE: &str = "i-1";

/// What EC2 has of this node.
#[derive(Debug)]
pub(crate) struct Cloud {
    pub(crate) limits: Limits,
    pub(crate) enis: BTreeMap<EniId, Interface>,
    /// When an attachment or detachment that is under way is complete.
    changing: BTreeMap<EniId, Moment>,
    /// Addresses that the subnet can still give out.
    pub(crate) subnet_free: usize,
    made: u32,
    addresses_made: u32,
}

impl Cloud {
    /// A node with its primary ENI, which has no secondary address.
    pub(crate) fn new(limits: Limits, subnet_free: usize) -> Self {
        let (enis, changing) = (BTreeMap::new(), BTreeMap::new());
        let mut cloud = Self { limits, enis, changing, subnet_free, made: 0, addresses_made: 0 };
        let primary = cloud.make(0, false);
        cloud.hang(&primary, 0, true);
        cloud
    }

    /// An ENI that an operator made and does not want us to touch, at slot `device_index`.
    pub(crate) fn add_operators_eni(&mut self, device_index: u8) -> EniId {
        let id = self.make(3, false);
        self.hang(&id, device_index, true);
        if let Some(eni) = self.enis.get_mut(&id) {
            eni.tags.insert(numbers::TAG_NO_MANAGE.to_owned(), "true".to_owned());
        }
        id
    }

    /// Whether the ENI with this address is attached, and which it is.
    pub(crate) fn owner(&self, address: Ipv4Addr) -> Option<&Interface> {
        self.enis.values().find(|eni| eni.secondary.contains(&address))
    }

    /// Completes what is under way.
    pub(crate) fn advance(&mut self, now: Moment) {
        let complete: Vec<_> = self.changing.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
        for id in complete {
            self.changing.remove(&id);
            let Some(eni) = self.enis.get_mut(&id) else { continue };
            match &mut eni.attachment {
                Some(attachment) if attachment.card == 255 => eni.attachment = None,
                Some(attachment) => attachment.attached = true,
                None => {}
            }
        }
    }

    /// What EC2 says of the node now.
    pub(crate) fn describe(&self) -> Vec<Interface> {
        let mut enis: Vec<_> = self.enis.values().cloned().collect();
        for attachment in enis.iter_mut().filter_map(|eni| eni.attachment.as_mut()) {
            attachment.card = 0;
        }
        enis
    }

    /// Carries out an action as EC2 would; `takes` is how long attaching and detaching last.
    pub(crate) fn apply(&mut self, action: &Action, done_at: Moment) -> Result<Done, Ec2Error> {
        match action {
            Action::Create { amount, .. } => self.create(amount.addresses()),
            Action::Attach { eni, device_index, .. } => self.attach(eni, *device_index, done_at),
            Action::DeleteOnTermination { eni, .. } => match self.attachment(eni) {
                Some(attachment) => {
                    attachment.delete_on_termination = true;
                    Ok(Done::Plain)
                }
                None => Err(refused(RefusalClass::NotFound)),
            },
            Action::SecurityGroups { eni, security_groups } => match self.enis.get_mut(eni) {
                Some(eni) => {
                    eni.security_groups.clone_from(security_groups);
                    Ok(Done::Plain)
                }
                None => Err(refused(RefusalClass::NotFound)),
            },
            Action::Assign { eni, amount } => self.assign(eni, amount.addresses()),
            Action::Unassign { eni, holdings } => self.unassign(eni, &holdings.addresses),
            Action::Detach { eni, .. } => match self.attachment(eni) {
                Some(attachment) if attachment.attached => {
                    attachment.attached = false;
                    // The model's own mark for "detaching"; never shown.
                    attachment.card = 255;
                    self.changing.insert(eni.clone(), done_at);
                    Ok(Done::Plain)
                }
                Some(_) => Err(refused(RefusalClass::WrongState)),
                None => Err(refused(RefusalClass::NotFound)),
            },
            Action::Delete { eni } => match self.enis.get(eni) {
                None => Err(refused(RefusalClass::NotFound)),
                Some(found) if found.attachment.is_some() => Err(refused(RefusalClass::WrongState)),
                Some(found) => {
                    self.subnet_free += 1 + found.secondary.len();
                    self.enis.remove(eni);
                    Ok(Done::Plain)
                }
            },
        }
    }

    fn create(&mut self, secondary: usize) -> Result<Done, Ec2Error> {
        if self.subnet_free < 1 + secondary {
            return Err(refused(RefusalClass::SubnetFull));
        }
        if secondary >= usize::from(self.limits.addresses_per_eni) {
            return Err(refused(RefusalClass::LimitReached));
        }
        self.subnet_free -= 1 + secondary;
        let id = self.make(secondary, true);
        Ok(Done::Created(self.enis[&id].clone()))
    }

    fn attach(&mut self, id: &EniId, device_index: u8, done_at: Moment) -> Result<Done, Ec2Error> {
        let attached: Vec<_> = self.enis.values().filter_map(|eni| eni.attachment.as_ref()).collect();
        if attached.iter().any(|attachment| attachment.device_index == device_index) {
            return Err(refused(RefusalClass::WrongState));
        }
        if attached.len() >= usize::from(self.limits.max_enis) {
            return Err(refused(RefusalClass::LimitReached));
        }
        match self.enis.get(id) {
            None => return Err(refused(RefusalClass::NotFound)),
            Some(eni) if eni.attachment.is_some() => return Err(refused(RefusalClass::WrongState)),
            Some(_) => {}
        }
        self.hang(id, device_index, false);
        self.changing.insert(id.clone(), done_at);
        Ok(Done::Attached(attachment_id(id)))
    }

    fn assign(&mut self, id: &EniId, count: usize) -> Result<Done, Ec2Error> {
        let limit = usize::from(self.limits.addresses_per_eni);
        let Some(eni) = self.enis.get(id) else { return Err(refused(RefusalClass::NotFound)) };
        if 1 + eni.secondary.len() + count > limit {
            return Err(refused(RefusalClass::LimitReached));
        }
        if self.subnet_free < count {
            return Err(refused(RefusalClass::SubnetFull));
        }
        self.subnet_free -= count;
        let new: Vec<_> = (0..count).map(|_| self.next_address()).collect();
        self.enis.get_mut(id).into_iter().for_each(|eni| eni.secondary.extend(&new));
        Ok(Done::Plain)
    }

    fn unassign(&mut self, id: &EniId, addresses: &[Ipv4Addr]) -> Result<Done, Ec2Error> {
        let Some(eni) = self.enis.get_mut(id) else { return Err(refused(RefusalClass::NotFound)) };
        if addresses.iter().any(|address| !eni.secondary.contains(address)) {
            return Err(refused(RefusalClass::BadRequest));
        }
        eni.secondary.retain(|address| !addresses.contains(address));
        self.subnet_free += addresses.len();
        Ok(Done::Plain)
    }

    fn attachment(&mut self, id: &EniId) -> Option<&mut Attachment> {
        self.enis.get_mut(id)?.attachment.as_mut()
    }

    fn next_address(&mut self) -> Ipv4Addr {
        self.addresses_made += 1;
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + self.addresses_made)
    }

    fn make(&mut self, secondary: usize, ours: bool) -> EniId {
        self.made += 1;
        let id: EniId = format!("eni-{}", self.made).parse().unwrap();
        let tag = (numbers::TAG_INSTANCE.to_owned(), INSTANCE.to_owned());
        let interface = Interface {
            id: id.clone(),
            mac: format!("02:00:00:00:{:02x}:{:02x}", self.made / 256, self.made % 256).parse().unwrap(),
            subnet: "subnet-1".parse().unwrap(),
            primary: self.next_address(),
            secondary: (0..secondary).map(|_| self.next_address()).collect(),
            prefixes: vec![],
            kind: InterfaceKind::Plain,
            security_groups: vec![],
            attachment: None,
            tags: ours.then_some(tag).into_iter().collect(),
        };
        self.enis.insert(id.clone(), interface);
        id
    }

    fn hang(&mut self, id: &EniId, device_index: u8, attached: bool) {
        let (id_of, instance) = (attachment_id(id), INSTANCE.parse().unwrap());
        if let Some(eni) = self.enis.get_mut(id) {
            let (card, delete_on_termination) = (0, false);
            eni.attachment =
                Some(Attachment { id: id_of, instance, device_index, card, attached, delete_on_termination });
        }
    }
}

fn attachment_id(eni: &EniId) -> ipam_core::AttachmentId {
    eni.as_str().replace("eni-", "eni-attach-").parse().unwrap()
}

/// A refusal of this class.
pub(crate) fn refused(class: RefusalClass) -> Ec2Error {
    Ec2Error::Refused { action: "Model", class, code: format!("{class:?}"), message: "says the model".to_owned() }
}

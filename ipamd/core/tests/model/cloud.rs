//! A cloud as small as the model test needs: subnets with real addresses, ENIs, and the limits that EC2 enforces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use eni_proto::numbers;
use ipam_core::{
    Action, AttachmentId, Done, EniId, Limits, Moment, SubnetId,
    ports::{
        Amount, Attachment, Cidr4, Cidr6, Ec2Error, Holdings, Interface, InterfaceKind, RefusalClass, Scope, Subnet,
    },
};

pub(crate) const INSTANCE: &str = "i-1";

/// One subnet: which of its addresses nobody has.
#[derive(Debug, Clone)]
struct Room {
    cidr: Cidr4,
    tags: BTreeMap<String, String>,
    free: BTreeSet<Ipv4Addr>,
}

/// What EC2 has of this node.
#[derive(Debug)]
pub(crate) struct Cloud {
    pub(crate) limits: Limits,
    pub(crate) enis: BTreeMap<EniId, Interface>,
    /// When an attachment (true) or detachment that is under way is complete.
    changing: BTreeMap<EniId, (bool, Moment)>,
    rooms: BTreeMap<SubnetId, Room>,
    made: u32,
    attached: u32,
    picked: u32,
    made6: u128,
}

impl Cloud {
    /// A node with its primary ENI, which has no secondary address, in `subnet-1`, a /20.
    pub(crate) fn new(limits: Limits) -> Self {
        let mut cloud = Self {
            limits,
            enis: BTreeMap::new(),
            changing: BTreeMap::new(),
            rooms: BTreeMap::new(),
            made: 0,
            attached: 0,
            picked: 0,
            made6: 0,
        };
        let own = cloud.add_subnet(1, None);
        let primary = cloud.make(&own, false).unwrap();
        cloud.hang(&primary, 0, true);
        cloud
    }

    /// One more /20 with this role tag.
    pub(crate) fn add_subnet(&mut self, number: u8, role: Option<&str>) -> SubnetId {
        let id: SubnetId = format!("subnet-{number}").parse().unwrap();
        let cidr = Cidr4 { network: Ipv4Addr::new(10, number, 0, 0), prefix: 20 };
        let tags = role.map(|role| ("kubernetes.io/role/cni".to_owned(), role.to_owned()));
        self.rooms.insert(id.clone(), Room { cidr, tags: tags.into_iter().collect(), free: usable(cidr).collect() });
        id
    }

    /// Somebody else takes all addresses of a subnet but those that `keeps`.
    pub(crate) fn crowd(&mut self, subnet: &SubnetId, keeps: impl Fn(Ipv4Addr) -> bool) {
        self.rooms.get_mut(subnet).unwrap().free.retain(|address| keeps(*address));
    }

    /// Somebody else gives back all that they had in a subnet.
    pub(crate) fn relieve(&mut self, subnet: &SubnetId) {
        let taken: BTreeSet<_> = self.enis.values().flat_map(|eni| eni.addresses().chain([eni.primary])).collect();
        let room = self.rooms.get_mut(subnet).unwrap();
        room.free = usable(room.cidr).filter(|address| !taken.contains(address)).collect();
    }

    /// How many addresses all subnets can still give out.
    pub(crate) fn free(&self) -> usize {
        self.rooms.values().map(|room| room.free.len()).sum()
    }

    /// An ENI that an operator made and does not want us to touch, at slot `device_index`.
    pub(crate) fn add_operators_eni(&mut self, device_index: u8, kind: InterfaceKind) -> EniId {
        let id = self.make(&"subnet-1".parse().unwrap(), false).unwrap();
        self.hang(&id, device_index, true);
        let addresses = self.pick("subnet-1", 2).unwrap();
        if let Some(eni) = self.enis.get_mut(&id) {
            (eni.secondary, eni.kind) = (addresses, kind);
            eni.tags.insert(numbers::TAG_NO_MANAGE.to_owned(), "true".to_owned());
        }
        id
    }

    /// Completes what is under way.
    pub(crate) fn advance(&mut self, now: Moment) {
        let complete: Vec<_> =
            self.changing.iter().filter(|(_, (_, at))| *at <= now).map(|(id, _)| id.clone()).collect();
        for id in complete {
            let Some((attaching, _)) = self.changing.remove(&id) else { continue };
            let Some(eni) = self.enis.get_mut(&id) else { continue };
            match &mut eni.attachment {
                Some(attachment) if attaching => attachment.attached = true,
                attachment => *attachment = None,
            }
        }
    }

    /// What EC2 says of the node now.
    pub(crate) fn describe(&self) -> Vec<Interface> {
        self.enis.values().cloned().collect()
    }

    /// What of a description is asked for.
    pub(crate) fn select(mut said: Vec<Interface>, scope: Scope) -> Vec<Interface> {
        said.retain(|eni| match scope {
            Scope::Attached => eni.attachment.is_some(),
            Scope::Tagged => eni.tags.get(numbers::TAG_INSTANCE).map(String::as_str) == Some(INSTANCE),
        });
        said
    }

    pub(crate) fn subnets(&self) -> Vec<Subnet> {
        let subnet = |(id, room): (&SubnetId, &Room)| Subnet {
            id: id.clone(),
            cidr: room.cidr,
            available_addresses: u32::try_from(room.free.len()).unwrap(),
            tags: room.tags.clone(),
        };
        self.rooms.iter().map(subnet).collect()
    }

    /// Carries out an action as EC2 would; attaching and detaching last until `done_at`.
    pub(crate) fn apply(&mut self, action: &Action, done_at: Moment) -> Result<Done, Ec2Error> {
        match action {
            Action::Create { subnet, amount, prefix6, .. } => self.create(subnet, *amount, *prefix6),
            Action::Attach { eni, device_index, .. } => self.attach(eni, *device_index, done_at),
            Action::DeleteOnTermination { eni, attachment } => {
                self.attachment(eni, attachment)?.delete_on_termination = true;
                Ok(Done::Plain)
            }
            Action::SecurityGroups { eni, security_groups } => {
                self.eni(eni)?.security_groups.clone_from(security_groups);
                Ok(Done::Plain)
            }
            Action::Assign { eni, amount } => self.assign(eni, *amount),
            Action::Unassign { eni, holdings } => self.unassign(eni, holdings),
            Action::Detach { eni, attachment } => {
                let attachment = self.attachment(eni, attachment)?;
                if !attachment.attached {
                    return Err(refused(RefusalClass::WrongState));
                }
                attachment.attached = false;
                self.changing.insert(eni.clone(), (false, done_at));
                Ok(Done::Plain)
            }
            Action::Delete { eni } => {
                if self.eni(eni)?.attachment.is_some() {
                    return Err(refused(RefusalClass::WrongState));
                }
                let gone = self.enis.remove(eni).unwrap();
                let all: Vec<_> = gone.addresses().chain([gone.primary]).collect();
                self.rooms.get_mut(&gone.subnet).unwrap().free.extend(all);
                Ok(Done::Plain)
            }
        }
    }

    fn eni(&mut self, id: &EniId) -> Result<&mut Interface, Ec2Error> {
        self.enis.get_mut(id).ok_or_else(|| refused(RefusalClass::NotFound))
    }

    fn attachment(&mut self, eni: &EniId, id: &AttachmentId) -> Result<&mut Attachment, Ec2Error> {
        let attachment = self.eni(eni)?.attachment.as_mut().filter(|attachment| attachment.id == *id);
        attachment.ok_or_else(|| refused(RefusalClass::NotFound))
    }

    fn create(&mut self, subnet: &SubnetId, amount: Amount, prefix6: bool) -> Result<Done, Ec2Error> {
        if amount.slots() >= usize::from(self.limits.addresses_per_eni) {
            return Err(refused(RefusalClass::LimitReached));
        }
        let before = self.rooms.clone();
        let id = self.make(subnet, true)?;
        if prefix6 {
            self.assign(&id, Amount::Prefix6)?;
        }
        match self.assign(&id, amount) {
            Ok(_) => Ok(Done::Created(self.enis[&id].clone())),
            Err(error) => {
                self.rooms = before;
                self.enis.remove(&id);
                Err(error)
            }
        }
    }

    fn attach(&mut self, id: &EniId, device_index: u8, done_at: Moment) -> Result<Done, Ec2Error> {
        let attached: Vec<_> = self.enis.values().filter_map(|eni| eni.attachment.as_ref()).collect();
        let count = attached.len();
        let taken = attached.iter().any(|attachment| attachment.device_index == device_index);
        if self.eni(id)?.attachment.is_some() || taken {
            return Err(refused(RefusalClass::WrongState));
        }
        if count >= usize::from(self.limits.max_enis) {
            return Err(refused(RefusalClass::LimitReached));
        }
        let attachment = self.hang(id, device_index, false);
        self.changing.insert(id.clone(), (true, done_at));
        Ok(Done::Attached(attachment))
    }

    fn assign(&mut self, id: &EniId, amount: Amount) -> Result<Done, Ec2Error> {
        let limit = usize::from(self.limits.addresses_per_eni);
        let eni = self.eni(id)?.clone();
        if 1 + eni.secondary.len() + eni.prefixes.len() + amount.slots() > limit {
            return Err(refused(RefusalClass::LimitReached));
        }
        let granted = match amount {
            Amount::Prefix6 => Holdings { prefixes6: vec![self.new_prefix6()], ..Holdings::default() },
            Amount::Addresses(count) => Holdings {
                addresses: self.pick(eni.subnet.as_str(), count.into())?,
                prefixes: vec![],
                prefixes6: vec![],
            },
            Amount::Prefixes(count) => Holdings {
                addresses: vec![],
                prefixes: self.pick_prefixes(&eni.subnet, count.into())?,
                prefixes6: vec![],
            },
        };
        let eni = self.eni(id)?;
        eni.secondary.extend(&granted.addresses);
        eni.secondary.sort_unstable();
        eni.prefixes.extend(&granted.prefixes);
        eni.prefixes.sort_unstable();
        eni.prefixes6.extend(&granted.prefixes6);
        eni.prefixes6.sort_unstable();
        Ok(Done::Assigned(granted))
    }

    /// Single addresses from here and there, all or none.
    fn pick(&mut self, subnet: &str, count: usize) -> Result<Vec<Ipv4Addr>, Ec2Error> {
        let free = &mut self.rooms.get_mut(&subnet.parse().unwrap()).unwrap().free;
        if free.len() < count {
            return Err(refused(RefusalClass::SubnetFull));
        }
        let mut picked = Vec::new();
        for _ in 0..count {
            self.picked = self.picked.wrapping_mul(1_103_515_245).wrapping_add(12345);
            let place = usize::try_from(self.picked >> 8).unwrap() % free.len().min(64);
            let address = *free.iter().nth(place).unwrap();
            free.remove(&address);
            picked.push(address);
        }
        Ok(picked)
    }

    fn pick_prefixes(&mut self, subnet: &SubnetId, count: usize) -> Result<Vec<Cidr4>, Ec2Error> {
        let room = self.rooms.get_mut(subnet).unwrap();
        let blocks = room.cidr.addresses().step_by(16).map(|network| Cidr4 { network, prefix: 28 });
        let whole = blocks.filter(|block| block.addresses().all(|address| room.free.contains(&address)));
        let picked: Vec<_> = whole.take(count).collect();
        if picked.len() < count {
            return Err(refused(RefusalClass::NoPrefix));
        }
        room.free.retain(|address| !picked.iter().any(|block| block.contains(*address)));
        Ok(picked)
    }

    fn new_prefix6(&mut self) -> Cidr6 {
        self.made6 += 1;
        Cidr6 { network: Ipv6Addr::from_bits((0x2600_1f00 << 96) + (self.made6 << 48)), prefix: 80 }
    }

    fn unassign(&mut self, id: &EniId, holdings: &Holdings) -> Result<Done, Ec2Error> {
        let eni = self.eni(id)?;
        if !holdings.addresses.iter().all(|address| eni.secondary.contains(address))
            || !holdings.prefixes.iter().all(|prefix| eni.prefixes.contains(prefix))
        {
            return Err(refused(RefusalClass::BadRequest));
        }
        eni.secondary.retain(|address| !holdings.addresses.contains(address));
        eni.prefixes.retain(|prefix| !holdings.prefixes.contains(prefix));
        let subnet = eni.subnet.clone();
        self.rooms.get_mut(&subnet).unwrap().free.extend(holdings.all());
        Ok(Done::Plain)
    }

    fn make(&mut self, subnet: &SubnetId, ours: bool) -> Result<EniId, Ec2Error> {
        let primary = self.pick(subnet.as_str(), 1)?[0];
        self.made += 1;
        let id: EniId = format!("eni-{}", self.made).parse().unwrap();
        let tag = (numbers::TAG_INSTANCE.to_owned(), INSTANCE.to_owned());
        let interface = Interface {
            id: id.clone(),
            mac: format!("02:00:00:00:{:02x}:{:02x}", self.made / 256, self.made % 256).parse().unwrap(),
            subnet: subnet.clone(),
            primary,
            secondary: vec![],
            prefixes: vec![],
            prefixes6: vec![],
            kind: InterfaceKind::Plain,
            security_groups: vec![],
            attachment: None,
            tags: ours.then_some(tag).into_iter().collect(),
        };
        self.enis.insert(id.clone(), interface);
        Ok(id)
    }

    fn hang(&mut self, id: &EniId, device_index: u8, attached: bool) -> AttachmentId {
        self.attached += 1;
        let attachment: AttachmentId = format!("eni-attach-{}", self.attached).parse().unwrap();
        let (id_of, instance) = (attachment.clone(), INSTANCE.parse().unwrap());
        if let Some(eni) = self.enis.get_mut(id) {
            let (card, delete_on_termination) = (0, false);
            eni.attachment =
                Some(Attachment { id: id_of, instance, device_index, card, attached, delete_on_termination });
        }
        attachment
    }
}

/// All addresses of a /20 but the first four and the last, which are EC2's.
fn usable(cidr: Cidr4) -> impl Iterator<Item = Ipv4Addr> {
    cidr.addresses().skip(4).take(4096 - 5)
}

/// A refusal of this class.
pub(crate) fn refused(class: RefusalClass) -> Ec2Error {
    Ec2Error::Refused { action: "Model", class, code: format!("{class:?}"), message: "says the model".to_owned() }
}

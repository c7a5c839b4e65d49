//! Everything there is, and the two ways it changes: by an action, and by time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipam_core::{AttachmentId, EniId, InstanceId, MacAddress, Moment, SecurityGroupId, SubnetId, VpcId};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use crate::{
    action::{CreateNetworkInterface, RunInstances},
    world::{
        Space6,
        config::{DelayRange, WorldConfig},
        lookup::CloudId,
        model::{CidrReservation, Eni, Instance, ReservationId, SecurityGroup, Subnet, Vpc},
        space::Space,
        timeline::Due,
        views::Views,
    },
};

/// Everything there is. Actions read and change it; nobody else does.
#[derive(Debug, Clone)]
pub struct State {
    pub(crate) config: WorldConfig,
    pub(crate) now: Moment,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) vpcs: BTreeMap<VpcId, Vpc>,
    pub(crate) subnets: BTreeMap<SubnetId, Subnet>,
    /// The addresses of each subnet.
    pub(crate) spaces: BTreeMap<SubnetId, Space>,
    /// The IPv6 addresses of each subnet that has any.
    pub(crate) spaces6: BTreeMap<SubnetId, Space6>,
    pub(crate) reservations: BTreeMap<ReservationId, CidrReservation>,
    pub(crate) groups: BTreeMap<SecurityGroupId, SecurityGroup>,
    pub(crate) instances: BTreeMap<InstanceId, Instance>,
    pub(crate) enis: BTreeMap<EniId, Eni>,
    /// Which ENI an attachment belongs to.
    pub(crate) attachments: BTreeMap<AttachmentId, EniId>,
    pub(crate) macs: BTreeSet<MacAddress>,
    /// What is told of ENIs where that may lag behind.
    pub(crate) views: Views,
    /// What each client token was first used for.
    pub(crate) create_tokens: BTreeMap<String, (CreateNetworkInterface, EniId)>,
    pub(crate) run_tokens: BTreeMap<String, (RunInstances, Vec<InstanceId>)>,
    /// What will happen by itself, in order.
    pub(crate) due: BTreeMap<(Moment, u64), Due>,
    sequence: u64,
    /// ENIs changed since the invariants were last checked.
    pub(crate) touched: BTreeSet<EniId>,
    /// How often they were checked since everything was.
    pub(crate) checks: usize,
    /// Grows with every change of an ENI.
    pub(crate) version: u64,
}

impl State {
    pub(crate) fn new(config: WorldConfig, now: Moment) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            config,
            now,
            vpcs: BTreeMap::new(),
            subnets: BTreeMap::new(),
            spaces: BTreeMap::new(),
            spaces6: BTreeMap::new(),
            reservations: BTreeMap::new(),
            groups: BTreeMap::new(),
            instances: BTreeMap::new(),
            enis: BTreeMap::new(),
            attachments: BTreeMap::new(),
            macs: BTreeSet::new(),
            views: Views::default(),
            create_tokens: BTreeMap::new(),
            run_tokens: BTreeMap::new(),
            due: BTreeMap::new(),
            sequence: 0,
            touched: BTreeSet::new(),
            checks: 0,
            version: 0,
        }
    }

    /// Changes the addresses of a subnet. Every subnet has some.
    pub(crate) fn in_space<T>(&mut self, subnet: &SubnetId, change: impl FnOnce(&mut Space) -> T) -> Option<T> {
        let space = self.spaces.get_mut(subnet)?;
        let changed = change(space);
        let resting = space.newly_resting();
        for what in resting {
            let at = self.now.after(self.config.reuse_after);
            self.schedule(at, Due::Rested(subnet.clone(), what));
        }
        if self.config.lags.available.is_zero() {
            self.count(subnet);
        } else {
            let at = self.now.after(self.draw(self.config.lags.available));
            self.schedule(at, Due::Counted(subnet.clone()));
        }
        Some(changed)
    }

    /// Tells how many addresses a subnet has.
    pub(crate) fn count(&mut self, subnet: &SubnetId) {
        if let (Some(subnet), Some(space)) = (self.subnets.get_mut(subnet), self.spaces.get(subnet)) {
            subnet.available = space.available();
        }
    }

    /// A number that no other call gets.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Draws a delay.
    pub(crate) fn draw(&mut self, range: DelayRange) -> Duration {
        let late = range.worst > range.max && self.rng.next_u32().is_multiple_of(100);
        let (from, to) = if late { (range.max, range.worst) } else { (range.min, range.max) };
        let span = u64::try_from(to.saturating_sub(from).as_millis()).unwrap_or(u64::MAX - 1);
        from + Duration::from_millis(self.rng.next_u64() % (span + 1))
    }

    /// Lets something happen `wait` after `start`, at once if that is now.
    pub(crate) fn schedule(&mut self, at: Moment, due: Due) {
        let number = self.next_number();
        self.due.insert((at, number), due);
    }

    /// Makes a new id: a zero and 16 hexadecimal digits, as those of today.
    pub(crate) fn new_id<K: CloudId>(&mut self) -> K {
        loop {
            // A zero and 16 digits always form an id; 64 random bits do not repeat in the life of a test.
            if let Ok(id) = format!("{}-0{:016x}", K::PREFIX, self.rng.next_u64()).parse() {
                return id;
            }
        }
    }

    /// Makes a hardware address that nobody has: locally administered, unicast.
    pub(crate) fn new_mac(&mut self) -> MacAddress {
        loop {
            let mut bytes = [2; 6];
            self.rng.fill_bytes(&mut bytes[1..]);
            if self.macs.insert(MacAddress(bytes)) {
                return MacAddress(bytes);
            }
        }
    }
}

//! A small EC2: only what decides how long a pool takes to grow and shrink. Budgets, delays, limits, attachments.
//!
//! Ten thousand nodes and some million calls have to pass in seconds, so subnets never fill up here, replies are never
//! lost and descriptions never lag; `ec2-sim` has all that. `tests/honest.rs` holds the two against each other.

mod eni;

use std::time::Duration;

use ipam_core::{
    Action, Done, EniId, Limits, Moment, SubnetId,
    ports::{Amount, Ec2Error, Ec2Result, Interface, NodeIdentity, RefusalClass, Scope, Subnet},
};

pub use self::eni::instance;
use self::eni::{Eni, Names};
use crate::{
    account::{Account, Api},
    measure::Gauge,
    random::{Random, Spread},
};

/// How long things take. AWS publishes no numbers; these are estimates from public reports of ENIs that attach within 1 to
/// 5 s, seldom 15 s, and become visible to the instance another 1 to 18 s later.
#[derive(Debug, Clone, Copy)]
pub struct Delays {
    /// Answer to a description.
    pub describe: Spread,
    /// Answer to a change.
    pub change: Spread,
    /// Answer to `CreateNetworkInterface`.
    pub create: Spread,
    /// Answer that says that the budget is spent.
    pub throttled: Spread,
    /// From the call until an ENI is attached.
    pub attach: Spread,
    /// From the call until an ENI is detached.
    pub detach: Spread,
    /// From the attachment until the kernel can carry the ENI's packets.
    pub kernel: Spread,
    /// From a change until the metadata service shows it.
    pub metadata: Spread,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            describe: Spread::new(120, 500),
            change: Spread::new(300, 900),
            create: Spread::new(500, 1200),
            throttled: Spread::new(40, 150),
            attach: Spread::new(2_000, 15_000),
            detach: Spread::new(3_000, 10_000),
            kernel: Spread::new(80, 400),
            metadata: Spread::new(2_000, 18_000),
        }
    }
}

/// An answer and when it arrives.
#[derive(Debug)]
pub struct Answer<T> {
    /// How the call ended.
    pub outcome: Ec2Result<T>,
    /// When the caller hears of it.
    pub at: Moment,
}

/// All instances of one account in one region.
#[derive(Debug)]
pub struct Cloud {
    /// The account's budget.
    pub account: Account,
    /// How long things take.
    pub delays: Delays,
    /// Addresses that the nodes hold for pods, on attached and unattached ENIs.
    pub held: Gauge,
    random: Random,
    limits: Limits,
    names: Names,
    /// By node; a node that has gone has none.
    nodes: Vec<Vec<Eni>>,
}

impl Cloud {
    /// An account without instances; all its instances will have these limits.
    #[must_use]
    pub fn new(seed: u64, limits: Limits, now: Moment) -> Self {
        Self {
            account: Account::new(now),
            delays: Delays::default(),
            held: Gauge::new(now),
            random: Random::new(seed),
            limits,
            names: Names::default(),
            nodes: Vec::new(),
        }
    }

    /// Launches an instance with its primary ENI; `instance_type` is only a name here.
    pub fn launch(&mut self, instance_type: &str) -> (usize, NodeIdentity) {
        let node = self.nodes.len();
        let primary = self.names.eni(node, &Amount::Addresses(0), Some(0));
        let identity = self.names.identity(node, instance_type, &primary.interface);
        self.nodes.push(vec![primary]);
        (node, identity)
    }

    /// Ends an instance; its ENIs go with it.
    pub fn terminate(&mut self, node: usize, now: Moment) {
        let enis = self.nodes.get_mut(node).map(std::mem::take).unwrap_or_default();
        self.held.add(now, -enis.iter().map(Eni::addresses).sum::<i64>());
    }

    /// Addresses that a node holds for pods.
    #[must_use]
    pub fn addresses_of(&self, node: usize) -> i64 {
        self.nodes.get(node).map_or(0, |enis| enis.iter().map(Eni::addresses).sum())
    }

    /// When an ENI is or was attached. Absent: it is not, and will not be.
    #[must_use]
    pub fn attached_at(&self, node: usize, eni: &EniId) -> Option<Moment> {
        self.nodes.get(node)?.iter().find(|known| known.interface.id == *eni)?.attached_at
    }

    /// A call of which only the price matters.
    pub fn spend(&mut self, api: Api, now: Moment) -> Answer<()> {
        let outcome = if self.account.take(api, now) { Ok(()) } else { Err(slow_down(api)) };
        let spread = match (&outcome, api) {
            (Err(_), _) => self.delays.throttled,
            (Ok(()), Api::DescribeNetworkInterfaces | Api::DescribeSubnets | Api::DescribeInstances) => {
                self.delays.describe
            }
            (Ok(()), Api::CreateNetworkInterface) => self.delays.create,
            (Ok(()), _) => self.delays.change,
        };
        Answer { outcome, at: now.after(spread.draw(&mut self.random)) }
    }

    /// The only subnet.
    #[must_use]
    pub fn subnet(&self) -> SubnetId {
        eni::subnet()
    }

    /// Describes the only subnet.
    pub fn subnets(&mut self, now: Moment) -> Answer<Vec<Subnet>> {
        let Answer { outcome, at } = self.spend(Api::DescribeSubnets, now);
        Answer { outcome: outcome.map(|()| vec![eni::described_subnet()]), at }
    }

    /// Describes a node's ENIs as they are at `now`.
    pub fn describe(&mut self, node: usize, scope: Scope, now: Moment) -> Answer<Vec<Interface>> {
        let Answer { outcome, at } = self.spend(Api::DescribeNetworkInterfaces, now);
        let outcome = outcome.map(|()| {
            let enis = self.nodes.get_mut(node).map(Vec::as_mut_slice).unwrap_or_default();
            enis.iter_mut().for_each(|eni| eni.advance(now));
            enis.iter().filter(|eni| eni.is_in(scope)).map(|eni| eni.described(now)).collect()
        });
        Answer { outcome, at }
    }

    /// Does what `action` says, as of `now`.
    pub fn carry_out(&mut self, node: usize, action: &Action, now: Moment) -> Answer<Done> {
        let api = api_of(action);
        let Answer { outcome, at } = self.spend(api, now);
        let before = self.addresses_of(node);
        let outcome = outcome.and_then(|()| self.apply(node, action, api, now));
        self.held.add(now, self.addresses_of(node) - before);
        Answer { outcome, at }
    }

    fn apply(&mut self, node: usize, action: &Action, api: Api, now: Moment) -> Ec2Result<Done> {
        let room = self.limits.capacity();
        if let Action::Create { amount, .. } = action {
            if slots(*amount) > room {
                return Err(refused(api, RefusalClass::LimitReached, "PrivateIpAddressLimitExceeded"));
            }
            let eni = self.names.eni(node, amount, None);
            let created = eni.interface.clone();
            self.nodes.get_mut(node).ok_or_else(|| gone(api))?.push(eni);
            return Ok(Done::Created(created));
        }
        let delay = match action {
            Action::Attach { .. } => self.delays.attach.draw(&mut self.random),
            Action::Detach { .. } => self.delays.detach.draw(&mut self.random),
            Action::Create { .. }
            | Action::DeleteOnTermination { .. }
            | Action::SecurityGroups { .. }
            | Action::Assign { .. }
            | Action::Unassign { .. }
            | Action::Delete { .. } => Duration::ZERO,
        };
        let enis = self.nodes.get_mut(node).ok_or_else(|| gone(api))?;
        enis.iter_mut().for_each(|eni| eni.advance(now));
        if let Action::Attach { device_index, .. } = action {
            eni::check_slot(enis, *device_index, self.limits.max_enis, api)?;
        }
        let at = enis.iter().position(|eni| Some(&eni.interface.id) == action.eni()).ok_or_else(|| gone(api))?;
        if matches!(action, Action::Delete { .. }) {
            if enis.get(at).is_some_and(|eni| eni.interface.attachment.is_some()) {
                return Err(refused(api, RefusalClass::WrongState, "InvalidNetworkInterface.InUse"));
            }
            enis.remove(at);
            return Ok(Done::Plain);
        }
        let eni = enis.get_mut(at).ok_or_else(|| gone(api))?;
        self.names.change(eni, action, node, room, now.after(delay))
    }
}

/// How many of an ENI's slots an amount takes: a prefix takes one, as an address does.
fn slots(amount: Amount) -> usize {
    match amount {
        Amount::Prefix6 => 0,
        Amount::Addresses(count) | Amount::Prefixes(count) => count.into(),
    }
}

const fn api_of(action: &Action) -> Api {
    match action {
        Action::Create { .. } => Api::CreateNetworkInterface,
        Action::Attach { .. } => Api::AttachNetworkInterface,
        Action::DeleteOnTermination { .. } | Action::SecurityGroups { .. } => Api::ModifyNetworkInterfaceAttribute,
        Action::Assign { .. } => Api::AssignPrivateIpAddresses,
        Action::Unassign { .. } => Api::UnassignPrivateIpAddresses,
        Action::Detach { .. } => Api::DetachNetworkInterface,
        Action::Delete { .. } => Api::DeleteNetworkInterface,
    }
}

fn slow_down(api: Api) -> Ec2Error {
    refused(api, RefusalClass::SlowDown, "RequestLimitExceeded")
}

fn gone(api: Api) -> Ec2Error {
    refused(api, RefusalClass::NotFound, "InvalidNetworkInterfaceID.NotFound")
}

fn refused(api: Api, class: RefusalClass, code: &str) -> Ec2Error {
    Ec2Error::Refused { action: api.name(), class, code: code.to_owned(), message: String::new() }
}

#[cfg(test)]
mod tests;

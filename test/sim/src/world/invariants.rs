//! What must be true after every call, whatever was asked.

use ipam_core::EniId;

use crate::world::{InstanceType, catalogue, model::Eni, state::State};

/// After how many changes everything is checked, not only what has changed. Large worlds: after as many as there are ENIs, so
/// that the cost of a call does not grow with the world.
const CHECK_ALL_EVERY: usize = 64;

impl State {
    /// Checks what has changed, and now and then everything. Returns the first broken rule.
    pub(crate) fn check_touched(&mut self) -> Result<(), String> {
        let touched = std::mem::take(&mut self.touched);
        if touched.is_empty() {
            return Ok(());
        }
        self.checks += 1;
        if self.checks >= CHECK_ALL_EVERY.max(self.enis.len()) {
            self.checks = 0;
            self.check_all()
        } else {
            touched.iter().try_for_each(|eni| self.check_eni(eni))
        }
    }

    /// Checks everything. Returns the first broken rule.
    pub(crate) fn check_all(&self) -> Result<(), String> {
        self.enis.keys().try_for_each(|eni| self.check_eni(eni))?;
        for (subnet, space) in &self.spaces {
            for (address, owner) in &space.owners {
                let owned = self.enis.get(owner).is_some_and(|eni| eni.addresses().any(|own| own == *address));
                ensure(owned, || format!("{address} of {subnet} is booked for {owner}, which has it not"))?;
            }
            for (network, owner) in &space.prefixes {
                let owner_eni = self.enis.get(owner);
                let owned = owner_eni.is_some_and(|eni| eni.prefixes.iter().any(|own| own.network == *network));
                ensure(owned, || format!("prefix {network} of {subnet} is booked for {owner}, which has it not"))?;
            }
            ensure(space.is_consistent(), || format!("the addresses of {subnet} overlap or are miscounted"))?;
            let told = self.subnets.get(subnet).map(|subnet| subnet.available);
            let late = !self.config.lags.available.is_zero();
            ensure(late || told == Some(space.available()), || format!("{subnet} counts its addresses wrongly"))?;
        }
        for space in self.spaces6.values() {
            for owner in space.owners.values().chain(space.prefixes.values()) {
                let there = self.enis.get(owner).is_some_and(|eni| eni.ipv6.slots() > 0);
                ensure(there, || format!("IPv6 addresses are booked for {owner}, which has none"))?;
            }
        }
        for instance in self.instances.values() {
            for eni in instance.interfaces.values() {
                let mutual = self.enis.get(eni).and_then(|eni| eni.attachment.as_ref());
                let mutual = mutual.is_some_and(|attachment| attachment.instance == instance.id);
                ensure(mutual, || format!("{} lists {eni}, which is not attached to it", instance.id))?;
            }
        }
        let attached = self.enis.values().filter(|eni| eni.attachment.is_some()).count();
        ensure(attached == self.attachments.len(), || "the index of attachments is wrong".to_owned())
    }

    fn check_eni(&self, id: &EniId) -> Result<(), String> {
        let Some(eni) = self.enis.get(id) else { return Ok(()) };
        let space = self.spaces.get(&eni.subnet).ok_or_else(|| format!("{id} is in no subnet"))?;
        for (nth, address) in eni.addresses().enumerate() {
            let owner = space.owners.get(&address);
            ensure(owner == Some(id), || format!("{address} is on {id} but booked for {owner:?}"))?;
            ensure(eni.addresses().skip(nth + 1).all(|other| other != address), || format!("{address} twice on {id}"))?;
            ensure(space.check_usable(address).is_ok(), || format!("{address} of {id} is reserved"))?;
        }
        for (nth, prefix) in eni.prefixes.iter().enumerate() {
            let owner = space.prefixes.get(&prefix.network);
            ensure(owner == Some(id), || format!("{prefix} is on {id} but booked for {owner:?}"))?;
            ensure(!eni.prefixes[nth + 1..].contains(prefix), || format!("{prefix} twice on {id}"))?;
            ensure(space.check_prefix(*prefix).is_ok(), || format!("{prefix} of {id} cannot be a prefix"))?;
        }
        self.check_ipv6(eni)?;
        let slots = eni.slots();
        ensure(slots <= usize::from(self.address_limit(eni)), || format!("{id} has {slots} addresses and prefixes"))?;
        self.check_attachment(eni)
    }

    fn check_attachment(&self, eni: &Eni) -> Result<(), String> {
        let Some(attachment) = &eni.attachment else { return Ok(()) };
        let instance = self.instances.get(&attachment.instance).ok_or_else(|| format!("{} is on nothing", eni.id))?;
        let slot = (attachment.card, attachment.device_index);
        ensure(instance.interfaces.get(&slot) == Some(&eni.id), || format!("{} is not at {slot:?}", eni.id))?;
        ensure(self.attachments.get(&attachment.id) == Some(&eni.id), || format!("{} is not indexed", attachment.id))?;
        let on_card = instance.interfaces.keys().filter(|(card, _)| *card == attachment.card).count();
        let limit = catalogue::all().get(instance.instance_type.as_str()).and_then(|t| t.cards.get(&attachment.card));
        let within = limit.is_some_and(|limit| on_card <= usize::from(*limit));
        ensure(within, || format!("{} has {on_card} ENIs on card {}", instance.id, attachment.card))
    }

    fn check_ipv6(&self, eni: &Eni) -> Result<(), String> {
        let Some(space) = self.spaces6.get(&eni.subnet) else {
            return ensure(eni.ipv6.slots() == 0, || format!("{} has IPv6 addresses of no subnet", eni.id));
        };
        for address in &eni.ipv6.addresses {
            let owned = space.owners.get(address) == Some(&eni.id) && space.is_usable(*address);
            ensure(owned, || format!("{address} is on {} and should not be", eni.id))?;
        }
        for prefix in &eni.ipv6.prefixes {
            let owned = space.prefixes.get(&prefix.network) == Some(&eni.id);
            let whole = space.is_prefix(*prefix) && space.has_no_single(*prefix);
            ensure(owned && whole, || format!("{prefix} is on {} and should not be", eni.id))?;
        }
        let slots = eni.ipv6.slots();
        ensure(slots <= usize::from(self.address_limit(eni)), || format!("{} has {slots} of IPv6", eni.id))
    }

    /// How many addresses an ENI may have where it is.
    pub(crate) fn address_limit(&self, eni: &Eni) -> u16 {
        self.instance_type_of(eni).map_or_else(catalogue::most_addresses, |found| found.addresses_per_eni)
    }

    /// The type of the instance that an ENI is attached to.
    pub(crate) fn instance_type_of(&self, eni: &Eni) -> Option<&'static InstanceType> {
        let instance = self.instances.get(&eni.attachment.as_ref()?.instance)?;
        catalogue::all().get(instance.instance_type.as_str())
    }
}

fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}

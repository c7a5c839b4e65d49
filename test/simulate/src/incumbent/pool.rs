//! What the AWS CNI keeps in its data store, and what it wants to change at each look.

use std::{collections::BTreeSet, time::Duration};

use ipam_core::{
    AttachmentId, EniId, Limits, Moment,
    ports::{Amount, Holdings, PREFIX_SIZE},
};

use crate::random::Random;

const COOL_DOWN: Duration = Duration::from_secs(30);
/// Pause between two times that addresses are given back.
const SHRINK_PAUSE: Duration = Duration::from_secs(30);
const LEAST_ENI_AGE: Duration = Duration::from_secs(60);

/// The settings that decide how much is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warm {
    /// `WARM_ENI_TARGET`.
    Enis(usize),
    /// `WARM_IP_TARGET` and `MINIMUM_IP_TARGET`.
    Addresses {
        /// Free addresses to keep.
        warm: usize,
        /// Addresses to hold at least.
        minimum: usize,
    },
    /// `ENABLE_PREFIX_DELEGATION` with `WARM_PREFIX_TARGET`.
    Prefixes(usize),
}

/// What it wants to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    Assign(EniId, Amount),
    Create(Amount),
    Unassign(EniId, Holdings),
    Free(EniId, AttachmentId),
}

/// A single address or a prefix.
#[derive(Debug)]
struct Block {
    holdings: Holdings,
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    pod: Option<usize>,
    rests_until: Moment,
}

impl Block {
    fn is_unused(&self) -> bool {
        self.slots.iter().all(|slot| slot.pod.is_none())
    }
}

#[derive(Debug)]
struct Eni {
    id: EniId,
    /// Absent: the primary.
    attachment: Option<(AttachmentId, u8)>,
    since: Moment,
    blocks: Vec<Block>,
}

impl Eni {
    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.blocks.iter().flat_map(|block| &block.slots)
    }
}

#[derive(Debug)]
pub(crate) struct Pool {
    warm: Warm,
    limits: Limits,
    max_pods: usize,
    enis: Vec<Eni>,
    shrunk_at: Moment,
}

impl Pool {
    pub(crate) fn new(primary: EniId, warm: Warm, limits: Limits, now: Moment) -> Self {
        let by_limits = usize::from(limits.max_enis) * limits.capacity() + 2;
        // Source: the max-pods file for single addresses, the EKS recommendation for prefixes.
        let max_pods = if matches!(warm, Warm::Prefixes(_)) { 110 } else { by_limits };
        let enis = vec![Eni { id: primary, attachment: None, since: now, blocks: vec![] }];
        Self { warm, limits, max_pods, enis, shrunk_at: Moment::default() }
    }

    /// Gives a pod a free address, if there is one; from a random ENI, as its maps do.
    pub(crate) fn give(&mut self, pod: usize, now: Moment, random: &mut Random) -> bool {
        let free = |slot: &Slot| slot.pod.is_none() && slot.rests_until <= now;
        let mut blocks: Vec<&mut Block> = self.enis.iter_mut().flat_map(|eni| &mut eni.blocks).collect();
        blocks.retain(|block| block.slots.iter().any(free));
        let chosen = random.below(blocks.len() as u64);
        let block = usize::try_from(chosen).ok().and_then(|chosen| blocks.get_mut(chosen));
        let Some(slot) = block.and_then(|block| block.slots.iter_mut().find(|slot| free(slot))) else { return false };
        slot.pod = Some(pod);
        true
    }

    pub(crate) fn take_back(&mut self, pod: usize, now: Moment) {
        let slots = self.enis.iter_mut().flat_map(|eni| &mut eni.blocks).flat_map(|block| &mut block.slots);
        for slot in slots.filter(|slot| slot.pod == Some(pod)) {
            *slot = Slot { pod: None, rests_until: now.after(COOL_DOWN) };
        }
    }

    pub(crate) fn free_device_index(&self) -> u8 {
        let used: BTreeSet<_> = self.enis.iter().filter_map(|eni| Some(eni.attachment.as_ref()?.1)).collect();
        (1..100).find(|index| !used.contains(index)).unwrap_or(1)
    }

    pub(crate) fn join(&mut self, id: EniId, attachment: AttachmentId, holdings: &Holdings, now: Moment) {
        let index = self.free_device_index();
        self.enis.push(Eni { id: id.clone(), attachment: Some((attachment, index)), since: now, blocks: vec![] });
        self.extend(&id, holdings);
    }

    pub(crate) fn extend(&mut self, eni: &EniId, holdings: &Holdings) {
        let Some(eni) = self.enis.iter_mut().find(|known| known.id == *eni) else { return };
        let one = |address| Holdings { addresses: vec![address], prefixes: vec![], prefixes6: vec![] };
        let many = |prefix| Holdings { addresses: vec![], prefixes: vec![prefix], prefixes6: vec![] };
        let block = |holdings, size| Block { holdings, slots: vec![Slot::default(); size] };
        eni.blocks.extend(holdings.addresses.iter().map(|address| block(one(*address), 1)));
        eni.blocks.extend(holdings.prefixes.iter().map(|prefix| block(many(*prefix), PREFIX_SIZE)));
    }

    pub(crate) fn remove(&mut self, eni: &EniId, holdings: &Holdings, now: Moment) {
        self.shrunk_at = now;
        let given = |block: &Block| {
            block.holdings.addresses.iter().all(|address| holdings.addresses.contains(address))
                && block.holdings.prefixes.iter().all(|prefix| holdings.prefixes.contains(prefix))
        };
        for eni in self.enis.iter_mut().filter(|known| known.id == *eni) {
            eni.blocks.retain(|block| !given(block));
        }
    }

    pub(crate) fn leave(&mut self, eni: &EniId) {
        self.enis.retain(|known| known.id != *eni);
    }

    fn total(&self) -> usize {
        self.enis.iter().map(|eni| eni.slots().count()).sum()
    }

    /// Resting addresses count as available.
    fn available(&self) -> usize {
        self.enis.iter().flat_map(Eni::slots).filter(|slot| slot.pod.is_none()).count()
    }

    fn free_blocks(&self) -> usize {
        self.enis.iter().flat_map(|eni| &eni.blocks).filter(|block| block.is_unused()).count()
    }

    /// The change of this look.
    pub(crate) fn wants(&self, now: Moment) -> Change {
        if self.is_low() { self.grow() } else { self.shrink(now) }
    }

    fn is_low(&self) -> bool {
        let available = self.available();
        let low = match self.warm {
            Warm::Enis(target) => available < (self.limits.capacity() * target).max(1),
            Warm::Addresses { warm, minimum } => available < warm || self.total() < minimum,
            Warm::Prefixes(target) => available < (PREFIX_SIZE * target).max(1),
        };
        low && self.total() < self.max_pods
    }

    /// One call for the first ENI with room, else one new ENI.
    fn grow(&self) -> Change {
        let room = self.limits.capacity();
        let wanted = match self.warm {
            Warm::Enis(_) => room,
            Warm::Addresses { warm, minimum } => {
                warm.saturating_sub(self.available()).max(minimum.saturating_sub(self.total()))
            }
            Warm::Prefixes(target) => target.saturating_sub(self.free_blocks()).max(1),
        };
        let amount = |count: usize| {
            let count = u16::try_from(count).unwrap_or(u16::MAX);
            if matches!(self.warm, Warm::Prefixes(_)) { Amount::Prefixes(count) } else { Amount::Addresses(count) }
        };
        if let Some(eni) = self.enis.iter().find(|eni| eni.blocks.len() < room) {
            return Change::Assign(eni.id.clone(), amount(wanted.min(room - eni.blocks.len())));
        }
        if self.enis.len() < usize::from(self.limits.max_enis) {
            return Change::Create(amount(wanted.min(room)));
        }
        Change::Nothing
    }

    fn shrink(&self, now: Moment) -> Change {
        let over = self.over();
        if over > 0 && now.since(self.shrunk_at) >= SHRINK_PAUSE {
            let unused = |eni: &&Eni| eni.blocks.iter().any(Block::is_unused);
            if let Some(eni) = self.enis.iter().find(unused) {
                let mut holdings = Holdings::default();
                for block in eni.blocks.iter().filter(|block| block.is_unused()).take(over) {
                    holdings.addresses.extend(&block.holdings.addresses);
                    holdings.prefixes.extend(&block.holdings.prefixes);
                }
                return Change::Unassign(eni.id.clone(), holdings);
            }
        }
        let spare = self.enis.iter().find(|eni| self.is_deletable(eni, now));
        match spare.and_then(|eni| Some((eni, eni.attachment.as_ref()?))) {
            Some((eni, (attachment, _))) => Change::Free(eni.id.clone(), attachment.clone()),
            None => Change::Nothing,
        }
    }

    /// Blocks that are more than wanted.
    fn over(&self) -> usize {
        match self.warm {
            Warm::Enis(_) => 0,
            Warm::Addresses { warm, minimum } => {
                self.available().saturating_sub(warm).min(self.total().saturating_sub(minimum))
            }
            Warm::Prefixes(target) => self.free_blocks().saturating_sub(target),
        }
    }

    fn is_deletable(&self, eni: &Eni, now: Moment) -> bool {
        let is_taken = |slot: &Slot| slot.pod.is_some() || slot.rests_until > now;
        if eni.attachment.is_none() || now.since(eni.since) < LEAST_ENI_AGE || eni.slots().any(is_taken) {
            return false;
        }
        let own = eni.slots().count();
        let (available, total) = (self.available() - own, self.total() - own);
        match self.warm {
            Warm::Enis(target) => available >= self.limits.capacity() * target,
            Warm::Addresses { warm, minimum } => available >= warm && total >= minimum,
            Warm::Prefixes(target) => self.free_blocks() - eni.blocks.len() >= target,
        }
    }
}

#[cfg(test)]
mod tests;

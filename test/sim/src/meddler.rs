//! Somebody else with access to the account, who changes ENIs behind the daemon's back.

use ipam_core::{Moment, SecurityGroupId};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use crate::{
    Action, ApiError, World,
    action::{
        AssignPrivateIpAddresses, Change, CreateNetworkInterface, CreateTags, DeleteNetworkInterface, DeleteTags,
        DetachNetworkInterface, ModifyNetworkInterfaceAttribute, UnassignPrivateIpAddresses,
    },
    world::model::Eni,
};

/// Picks what to do from a seed of its own. Primary ENIs are left alone: nobody detaches those.
#[derive(Debug)]
pub struct Meddler {
    rng: ChaCha8Rng,
}

impl Meddler {
    /// Returns one who has done nothing yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Does one thing to one ENI, and says what. Absent: there was nothing to do it to, or EC2 refused.
    pub fn act(&mut self, world: &mut World, now: Moment) -> Option<String> {
        let enis: Vec<Eni> = world.enis().filter(|eni| !is_primary(eni)).cloned().collect();
        let groups: Vec<_> = world.vpcs().map(|vpc| vpc.default_group.clone()).collect();
        let eni = self.one_of(&enis)?.clone();
        let interface = eni.id.to_string();
        match self.rng.next_u32() % 9 {
            0 => done(world, now, &DetachNetworkInterface { attachment: eni.attachment?.id.to_string() }),
            1 => done(world, now, &DeleteNetworkInterface { interface }),
            2 => {
                let addresses = vec![*self.one_of(&eni.secondary)?];
                done(world, now, &UnassignPrivateIpAddresses { interface, addresses, prefixes: vec![] })
            }
            3 => {
                let prefixes = vec![*self.one_of(&eni.prefixes)?];
                done(world, now, &UnassignPrivateIpAddresses { interface, addresses: vec![], prefixes })
            }
            4 => done(world, now, &AssignPrivateIpAddresses { interface, count: Some(1), ..Default::default() }),
            5 => {
                let victim = self.one_of(&enis)?.clone();
                let addresses = vec![*self.one_of(&victim.secondary)?];
                let allow_reassignment = true;
                let steal = AssignPrivateIpAddresses { interface, addresses, allow_reassignment, ..Default::default() };
                done(world, now, &steal)
            }
            6 => {
                let subnet = eni.subnet.to_string();
                done(world, now, &CreateNetworkInterface { subnet, ..Default::default() })
            }
            7 => self.retag(world, now, &eni),
            _ => self.regroup(world, now, interface, &groups),
        }
    }

    fn retag(&mut self, world: &mut World, now: Moment, eni: &Eni) -> Option<String> {
        let resources = vec![eni.id.to_string()];
        // Half of the time a tag is lost, half of the time one comes.
        let keys: Vec<_> = eni.tags.keys().cloned().collect();
        let lost = self.one_of(&keys).cloned().filter(|_| self.rng.next_u32().is_multiple_of(2));
        match lost {
            Some(key) => done(world, now, &DeleteTags { resources, tags: vec![(key, None)] }),
            None => {
                let tags = [("meddled".to_owned(), "yes".to_owned())].into();
                done(world, now, &CreateTags { resources, tags })
            }
        }
    }

    fn regroup(
        &mut self,
        world: &mut World,
        now: Moment,
        interface: String,
        groups: &[SecurityGroupId],
    ) -> Option<String> {
        let change = Change::Groups(vec![self.one_of(groups)?.to_string()]);
        done(world, now, &ModifyNetworkInterfaceAttribute { interface, change })
    }

    fn one_of<'a, T>(&mut self, things: &'a [T]) -> Option<&'a T> {
        let draw = usize::try_from(self.rng.next_u32()).unwrap_or(0);
        things.get(draw.checked_rem(things.len())?)
    }
}

fn is_primary(eni: &Eni) -> bool {
    eni.attachment.as_ref().is_some_and(|attachment| (attachment.card, attachment.device_index) == (0, 0))
}

fn done<A: Action>(world: &mut World, now: Moment, action: &A) -> Option<String> {
    let outcome: Result<A::Answer, ApiError> = world.arrange(action, now);
    outcome.ok().map(|_| format!("{action:?}"))
}

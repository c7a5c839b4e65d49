//! Pods that come, go and give up.

use eni_proto::{EniMark, Pod, PodKey};
use ipam_core::{Command, CoolDown, Event, Lease, Moment, Ticket, ports::Interface};

use super::{Later, World};

/// How many different pods a random world has.
const PODS: u32 = 24;

fn key(pod: u32) -> PodKey {
    PodKey::new("pods", &format!("c{pod}"), "eth0").unwrap()
}

impl World {
    pub(super) fn pod_comes(&mut self) {
        let (pod, deadline) = (self.below(PODS), self.soon(20_000));
        self.add_pod(pod, deadline);
    }

    /// This pod asks for an address.
    pub(crate) fn add_pod(&mut self, pod: u32, deadline: Moment) {
        let (ticket, key) = (self.ticket(), key(pod));
        self.waiting.insert(ticket, (key.clone(), deadline));
        self.tell(Event::Add { ticket, key, pod: Pod::default(), netns: "/n".to_owned(), card: 0, deadline });
    }

    /// A pod gives its address back; sometimes that is only noticed by what it left behind.
    pub(super) fn pod_goes(&mut self) {
        let pod = self.below(PODS);
        let lease = self.disk.held.get(&key(pod)).cloned();
        if let Some(lease) = lease
            && self.happens(self.chance.strays)
        {
            let (ticket, seen_at, key) = (self.ticket(), self.now, lease.key);
            self.tell(Event::Reclaim { ticket, key: key.clone(), seen_at });
            if !self.disk.held.contains_key(&key) {
                self.strays.extend(lease.addresses.all().map(|address| (address, (self.now, false))));
            }
            return;
        }
        self.delete_pod(pod);
    }

    /// This pod gives its address back; if the daemon dies over that, once more.
    pub(crate) fn delete_pod(&mut self, pod: u32) {
        let key = key(pod);
        loop {
            let (ticket, before) = (self.ticket(), self.disk.held.get(&key).cloned());
            let Some(commands) = self.tell(Event::Del { ticket, key: key.clone() }) else { continue };
            let released: Vec<_> = commands
                .iter()
                .filter_map(|command| match command {
                    Command::Release { ticket: to, released, .. } if *to == Some(ticket) => Some(released),
                    _ => None,
                })
                .collect();
            // I4: the unknown succeeds too; one answer in each case.
            assert_eq!(released.len(), 1, "DEL of {key}: {commands:?}");
            let before = before.iter().flat_map(|lease| lease.addresses.all());
            assert!(released[0].iter().map(|rest| rest.address).eq(before), "{released:?}");
            assert!(!self.waiting.values().any(|(waiter, _)| *waiter == key), "{key} still waits after its DEL");
            return;
        }
    }

    pub(super) fn caller_gives_up(&mut self) {
        let Some(&ticket) = self.waiting.keys().next() else { return };
        self.waiting.remove(&ticket);
        self.tell(Event::Cancel { ticket });
    }

    pub(super) fn granted(&mut self, ticket: Ticket, lease: &Lease, fresh: bool) {
        let waited = self.waiting.remove(&ticket);
        assert_eq!(waited.map(|(key, _)| key).as_ref(), Some(&lease.key), "{ticket:?} did not wait for this");
        if !fresh {
            // I3.
            assert_eq!(self.disk.held.get(&lease.key), Some(lease), "same key, another answer");
            // This answer was written, whatever became of the first.
            self.unstored.remove(&lease.key);
            return;
        }
        // I1.
        assert!(!lease.addresses.all().any(|address| self.holds(address)), "{lease:?} is held twice");
        assert!(!self.disk.held.contains_key(&lease.key), "{lease:?}: same key, another answer");
        // I5.
        for address in lease.addresses.all() {
            let rest = self.disk.resting.remove(&address);
            assert!(rest.is_none_or(|until| until <= self.now), "{lease:?} rests until {rest:?}");
            let stray = self.strays.remove(&address);
            assert!(stray.is_none_or(|(_, told)| !told), "{lease:?}: the kernel has it for another pod");
        }
        self.is_on_its_interface(lease);
        self.disk.held.insert(lease.key.clone(), lease.clone());
        if self.chance.faults > 0 && self.below(300) < self.chance.faults {
            self.unstored.insert(lease.key.clone());
            let at = self.soon(100);
            self.schedule(at, Later::Tell(Event::StoreFailed { key: lease.key.clone() }));
        }
    }

    fn is_on_its_interface(&self, lease: &Lease) {
        let all_on = |eni: &&Interface| lease.addresses.of_vpc().all(|address| eni.owns(address));
        let owner = self.cloud.enis.values().find(all_on).unwrap_or_else(|| panic!("{lease:?} is on no ENI"));
        assert_eq!(owner.id, lease.eni);
        assert!(!self.operators.contains(&owner.id), "the operator's ENI was used");
        let attachment = owner.attachment.as_ref().unwrap_or_else(|| panic!("{lease:?} is on no instance"));
        assert_eq!(lease.eni_mark, EniMark::of_device(attachment.device_index));
        assert!(self.prepared.contains(&lease.eni), "{lease:?}: the kernel is not prepared");
    }

    pub(super) fn released(&mut self, key: &PodKey, released: &[CoolDown]) {
        if released.is_empty() {
            return;
        }
        let lease = self.disk.held.remove(key);
        self.unstored.remove(key);
        assert!(lease.iter().flat_map(|lease| lease.addresses.all()).eq(released.iter().map(|rest| rest.address)));
        for rest in released {
            assert_eq!(rest.until, self.now.after(self.policy.cool_down));
            self.disk.resting.insert(rest.address, rest.until);
        }
    }
}

//! What will happen, in order of time; at the same time in the order in which it was put down.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use ipam_core::Moment;

#[derive(Debug)]
struct Entry<T> {
    at: Moment,
    number: u64,
    what: T,
}

impl<T> Entry<T> {
    const fn order(&self) -> (Moment, u64) {
        (self.at, self.number)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

/// A list of what will happen.
#[derive(Debug)]
pub struct Agenda<T> {
    entries: BinaryHeap<Reverse<Entry<T>>>,
    count: u64,
}

impl<T> Agenda<T> {
    /// Nothing will happen.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: BinaryHeap::new(), count: 0 }
    }

    /// Puts `what` down for `at`.
    pub fn put(&mut self, at: Moment, what: T) {
        self.count += 1;
        self.entries.push(Reverse(Entry { at, number: self.count, what }));
    }

    /// Takes what happens next off the list.
    pub fn take(&mut self) -> Option<(Moment, T)> {
        self.entries.pop().map(|Reverse(entry)| (entry.at, entry.what))
    }
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_order_of_time_and_then_of_writing() {
        let mut agenda = Agenda::new();
        for (at, what) in [(5, "c"), (1, "a"), (5, "d"), (2, "b")] {
            agenda.put(Moment::from_millis(at), what);
        }
        let order: Vec<_> = std::iter::from_fn(|| agenda.take()).map(|(_, what)| what).collect();
        assert_eq!(order, ["a", "b", "c", "d"]);
    }
}

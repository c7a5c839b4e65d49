//! What goes wrong with a metadata service, on demand and by itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

/// What is wrong with one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataEffect {
    /// This status and nothing else: 404 for what is missing, 429 for who asks too often, 500.
    Status(u16),
    /// Another text than the right one.
    Text(String),
    /// The first half of the text, as if that were all.
    Half,
    /// The first half of the text; then the connection is cut.
    BrokenOff,
    /// No answer, however long one waits.
    Silent,
}

/// A fault for the next requests of some paths. Requests for tokens count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataFault {
    /// What the path ends with; empty for each.
    pub path: String,
    /// How many requests are hit before the fault is gone.
    pub times: u32,
    /// What goes wrong.
    pub effect: MetadataEffect,
}

impl MetadataFault {
    /// The next `times` requests of paths that end with `path` go wrong.
    #[must_use]
    pub fn new(path: &str, times: u32, effect: MetadataEffect) -> Self {
        Self { path: path.to_owned(), times, effect }
    }
}

/// The faults of one service; cheap to clone, and all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct MetadataFaults(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    rules: Vec<MetadataFault>,
    /// How many of a thousand requests go wrong by themselves, and how that is drawn.
    weather: Option<(u32, ChaCha8Rng)>,
}

impl MetadataFaults {
    /// Makes coming requests fail. Rules are used up in the order they were made.
    pub fn inject(&self, fault: MetadataFault) {
        self.lock().rules.push(fault);
    }

    /// Lets this many of a thousand requests go wrong by themselves, in any way but silence.
    pub fn be_rough(&self, of_thousand: u32, seed: u64) {
        self.lock().weather = Some((of_thousand, ChaCha8Rng::seed_from_u64(seed)));
    }

    /// Takes all faults back.
    pub fn clear(&self) {
        *self.lock() = Inner::default();
    }

    /// Uses up one hit of the oldest rule for `path`, or else asks the weather.
    pub(super) fn strike(&self, path: &str) -> Option<MetadataEffect> {
        let mut inner = self.lock();
        let hit = inner.rules.iter_mut().find(|rule| rule.times > 0 && path.ends_with(&rule.path));
        if let Some(rule) = hit {
            rule.times -= 1;
            return Some(rule.effect.clone());
        }
        let (share, rng) = inner.weather.as_mut()?;
        (rng.next_u32() % 1000 < *share).then(|| match rng.next_u32() % 6 {
            0 => MetadataEffect::Status(404),
            1 => MetadataEffect::Status(if rng.next_u32().is_multiple_of(2) { 429 } else { 500 }),
            2 => MetadataEffect::Text("<html>not here</html>".to_owned()),
            3 => MetadataEffect::Text(String::new()),
            4 => MetadataEffect::Half,
            _ => MetadataEffect::BrokenOff,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

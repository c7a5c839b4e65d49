//! How long to wait after something failed.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LAST: Duration = Duration::from_secs(30);

/// Exponential back-off with jitter that depends on nothing but the seed and the number of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    seed: u64,
    failures: u32,
}

impl Backoff {
    /// No failure yet. Different seeds give different jitter, so that nodes do not march in step.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, failures: 0 }
    }

    /// Counts one more failure and returns how long to wait: 250 ms, doubling up to 30 s, less up to a quarter.
    pub fn next_wait(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(10)).min(LAST);
        self.failures = self.failures.saturating_add(1);
        let jitter = scramble(self.seed ^ u64::from(self.failures)) % 256;
        whole - whole * u32::try_from(jitter).unwrap_or(0) / 1024
    }

    /// Forgets the failures.
    pub fn succeed(&mut self) {
        self.failures = 0;
    }
}

/// Spreads the bits of a number (the finaliser of SplitMix64).
const fn scramble(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A seed from text, as a node's id (FNV-1a).
#[must_use]
pub fn seed(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_stay_below_the_limit_and_begin_again_after_success() {
        let mut backoff = Backoff::new(seed("i-1"));
        let waits: Vec<_> = (0..20).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST * 3 / 4, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LAST), "{waits:?}");
        assert!(waits[19] >= LAST * 3 / 4, "{waits:?}");
        backoff.succeed();
        assert!(backoff.next_wait() <= FIRST);
    }

    #[test]
    fn two_nodes_do_not_march_in_step() {
        let waits = |node| {
            (0..8)
                .map(|_| ())
                .fold((Backoff::new(seed(node)), vec![]), |(mut b, mut w), ()| {
                    w.push(b.next_wait());
                    (b, w)
                })
                .1
        };
        assert_ne!(waits("i-1"), waits("i-2"));
    }
}

//! A rate limit for each API action, so that one node never spends what all nodes of the account share.

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

/// How long an action rests after EC2 has said that there were too many of it; doubling up to the last.
const FIRST_REST: Duration = Duration::from_millis(500);
const LAST_REST: Duration = Duration::from_secs(8);
/// After so long without such a word the next rest is a first one.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// An API action and this node's share of its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Name of the action.
    pub action: &'static str,
    /// Calls that may be sent at once.
    pub burst: u32,
    /// Calls a second after that.
    pub per_second: u32,
}

impl Budget {
    fn quota(&self) -> Quota {
        let burst = NonZeroU32::new(self.burst).unwrap_or(NonZeroU32::MIN);
        let per_second = NonZeroU32::new(self.per_second).unwrap_or(NonZeroU32::MIN);
        Quota::per_second(per_second).allow_burst(burst)
    }
}

/// Each action's share. EC2's documented default for a whole account and region is a burst of 50 to 100 and 5 a second for
/// changes, 100 and 20 a second for descriptions; a node needs a handful of each to grow from nothing to full.
pub const BUDGETS: &[Budget] = &[
    Budget { action: "DescribeNetworkInterfaces", burst: 20, per_second: 4 },
    Budget { action: "DescribeSubnets", burst: 10, per_second: 2 },
    Budget { action: "DescribeInstanceTypes", burst: 4, per_second: 1 },
    Budget { action: "CreateNetworkInterface", burst: 8, per_second: 1 },
    Budget { action: "AttachNetworkInterface", burst: 8, per_second: 1 },
    Budget { action: "ModifyNetworkInterfaceAttribute", burst: 8, per_second: 1 },
    Budget { action: "AssignPrivateIpAddresses", burst: 10, per_second: 2 },
    Budget { action: "AssignIpv6Addresses", burst: 8, per_second: 1 },
    Budget { action: "UnassignPrivateIpAddresses", burst: 8, per_second: 1 },
    Budget { action: "DetachNetworkInterface", burst: 8, per_second: 1 },
    Budget { action: "DeleteNetworkInterface", burst: 8, per_second: 1 },
];

/// One limiter for each action of [`BUDGETS`], shared by all who call.
///
/// When EC2 itself says "too many requests", which it counts for all nodes of the account together, everybody's next call of
/// this action waits: with a jitter, so that nodes do not come back in step. Other failures say nothing of the rate; who
/// repeats those after what time is the caller's decision.
#[derive(Debug)]
pub struct Throttle {
    gates: Vec<Gate>,
}

#[derive(Debug)]
struct Gate {
    budget: Budget,
    limiter: DefaultDirectRateLimiter,
    rest: Mutex<Rest>,
    /// How many calls it let pass, and how long these waited in all, in microseconds.
    calls: AtomicU64,
    waited: AtomicU64,
}

/// How an action's share was used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// Name of the action.
    pub action: &'static str,
    /// Calls that may be sent at once.
    pub burst: u32,
    /// Calls a second after that.
    pub per_second: u32,
    /// Calls that were let pass.
    pub calls: u64,
    /// How long these waited, in all.
    pub waited: Duration,
    /// How long it still rests because EC2 said that there were too many.
    pub rests_for: Duration,
}

/// What the last words "too many requests" ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rest {
    /// When it was said last, and until when the action rests.
    last: Option<(Instant, Instant)>,
    next: Duration,
}

impl Rest {
    const NONE: Self = Self { last: None, next: FIRST_REST };

    /// EC2 has just said it. `jitter`: 0 to 255, takes up to a quarter off. What was sent before the rest began says
    /// nothing new.
    fn longer(self, now: Instant, jitter: u32) -> Self {
        match self.last {
            Some((_, until)) if now < until => self,
            Some((said, _)) if now.duration_since(said) < FORGOTTEN => Self::begun(now, self.next, jitter),
            Some(_) | None => Self::begun(now, FIRST_REST, jitter),
        }
    }

    fn begun(now: Instant, whole: Duration, jitter: u32) -> Self {
        Self { last: Some((now, now + (whole - whole * jitter / 1024))), next: (whole * 2).min(LAST_REST) }
    }
}

impl Throttle {
    /// All buckets full.
    #[must_use]
    pub fn new() -> Self {
        let limiter = |budget: &Budget| {
            let limiter = RateLimiter::direct(budget.quota());
            let (calls, waited) = (AtomicU64::new(0), AtomicU64::new(0));
            Gate { budget: *budget, limiter, rest: Mutex::new(Rest::NONE), calls, waited }
        };
        Self { gates: BUDGETS.iter().map(limiter).collect() }
    }

    fn gate(&self, action: &str) -> Option<&Gate> {
        self.gates.iter().find(|gate| gate.budget.action == action)
    }

    /// Waits until `action` may be called. An action without a budget is not held back.
    pub async fn wait(&self, action: &str) {
        let Some(gate) = self.gate(action) else { return };
        let began = Instant::now();
        let rest = || *gate.rest.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, until)) = rest().last.filter(|(_, until)| *until > Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
        gate.limiter.until_ready().await;
        gate.calls.fetch_add(1, Ordering::Relaxed);
        gate.waited.fetch_add(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How each action's share was used so far, in the order of [`BUDGETS`].
    pub fn uses(&self) -> Vec<Use> {
        let now = Instant::now();
        let of = |gate: &Gate| {
            let until = gate.rest.lock().unwrap_or_else(PoisonError::into_inner).last.map(|(_, until)| until);
            Use {
                action: gate.budget.action,
                burst: gate.budget.burst,
                per_second: gate.budget.per_second,
                calls: gate.calls.load(Ordering::Relaxed),
                waited: Duration::from_micros(gate.waited.load(Ordering::Relaxed)),
                rests_for: until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now)),
            }
        };
        self.gates.iter().map(of).collect()
    }

    /// Hears that EC2 refused `action` because there were too many requests of it.
    pub fn too_many(&self, action: &str) {
        let Some(gate) = self.gate(action) else { return };
        // The system's randomness, by the one way to it that the standard library has.
        let jitter = u32::try_from(RandomState::new().hash_one(action) % 256).unwrap_or(0);
        let mut rest = gate.rest.lock().unwrap_or_else(PoisonError::into_inner);
        *rest = rest.longer(Instant::now(), jitter);
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn a_burst_passes_and_the_next_call_has_to_wait() {
        for (nth, budget) in BUDGETS.iter().enumerate() {
            assert!(BUDGETS.iter().skip(nth + 1).all(|other| other.action != budget.action), "{} twice", budget.action);
            let clock = FakeRelativeClock::default();
            let limiter = RateLimiter::direct_with_clock(budget.quota(), clock.clone());
            let passed = (0..budget.burst).filter(|_| limiter.check().is_ok()).count();
            assert_eq!(passed, usize::try_from(budget.burst).unwrap(), "{}", budget.action);
            assert!(limiter.check().is_err(), "{}", budget.action);
            clock.advance(Duration::from_secs(1));
            assert!(limiter.check().is_ok(), "{}", budget.action);
        }
    }

    #[test]
    fn rests_grow_while_ec2_goes_on_complaining_and_begin_anew_after_a_while() {
        let began = Instant::now();
        let mut rest = Rest::NONE;
        let mut now = began;
        let mut rests = Vec::new();
        for _ in 0..6 {
            rest = rest.longer(now, 0);
            let (said, until) = rest.last.unwrap();
            assert_eq!(rest.longer(now + Duration::from_millis(1), 0), rest, "an answer to an earlier call");
            rests.push(until.duration_since(said).as_millis());
            now = until;
        }
        assert_eq!(rests, [500, 1000, 2000, 4000, 8000, 8000]);
        let (said, until) = rest.longer(now + FORGOTTEN, 255).last.unwrap();
        assert!((375..500).contains(&until.duration_since(said).as_millis()));
    }

    #[tokio::test]
    async fn whoever_calls_next_waits_for_the_same_rest_but_other_actions_do_not() {
        let throttle = Throttle::new();
        let began = Instant::now();
        throttle.too_many("DescribeSubnets");
        throttle.wait("DescribeNetworkInterfaces").await;
        let other = began.elapsed();
        tokio::join!(throttle.wait("DescribeSubnets"), throttle.wait("DescribeSubnets"));
        assert!(began.elapsed() >= Duration::from_millis(375), "{:?}", began.elapsed());
        assert!(other < Duration::from_millis(375), "{other:?}");
    }
}

//! How long to wait after something failed.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    Action, Moment,
    ports::{Ec2Error, RefusalClass},
};

/// Least wait after a refusal that only somebody else can mend. Short enough that a mended permission is soon noticed.
const LEAST_WAIT_FOR_OTHERS: Duration = Duration::from_secs(5);
/// The same for what nobody waits for: then it need not be noticed soon.
const LAST_FOR_TIDYING: Duration = Duration::from_secs(1800);
/// Least wait before something is deleted again that EC2 says is still in use.
const LEAST_WAIT_FOR_STATE: Duration = Duration::from_secs(2);
/// By so much longer what nobody waits for rests after it was throttled.
const LEISURE: u32 = 64;
const FIRST: Duration = Duration::from_millis(250);
const LAST: Duration = Duration::from_secs(30);

/// Exponential back-off with jitter that depends on nothing but the seed and the number of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    seed: u64,
    first: Duration,
    last: Duration,
    failures: u32,
}

impl Backoff {
    /// No failure yet; 250 ms up to 30 s. Different seeds give different jitter, so that nodes do not march in step.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, first: FIRST, last: LAST, failures: 0 }
    }

    /// The same, 5 s up to a minute: for what only somebody else can mend, but soon.
    #[must_use]
    pub const fn slow(seed: u64) -> Self {
        Self { seed, first: Duration::from_secs(5), last: Duration::from_secs(60), failures: 0 }
    }

    /// The same, a minute up to half an hour: for what may be wrong for days.
    #[must_use]
    pub const fn very_slow(seed: u64) -> Self {
        Self { seed, first: Duration::from_secs(60), last: Duration::from_secs(1800), failures: 0 }
    }

    /// Counts one more failure and returns how long to wait: the first wait, doubling up to the last, less up to a quarter.
    pub fn next_wait(&mut self) -> Duration {
        let whole = self.first.saturating_mul(1 << self.failures.min(13)).min(self.last);
        self.failures = self.failures.saturating_add(1);
        let jitter = scramble(self.seed ^ u64::from(self.failures)) % 256;
        whole - whole * u32::try_from(jitter).unwrap_or(0) / 1024
    }

    /// What nobody waits for rests longer by this factor, up to [`LAST_FOR_TIDYING`].
    fn next_wait_at_leisure(&self) -> Duration {
        let mut patient = Self { first: self.first * LEISURE, last: LAST_FOR_TIDYING, ..*self };
        patient.next_wait()
    }

    /// Forgets the failures.
    pub fn succeed(&mut self) {
        self.failures = 0;
    }
}

/// The kinds of changes at EC2. Each is paced for itself: a permission that one lacks must not slow the others down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Making an ENI.
    Create,
    /// Attaching one.
    Attach,
    /// Asking for addresses.
    Assign,
    /// Tying an ENI to the instance.
    DeleteOnTermination,
    /// Changing an ENI's security groups.
    SecurityGroups,
    /// Giving addresses back.
    Unassign,
    /// Detaching an ENI.
    Detach,
    /// Deleting one.
    Delete,
}

impl Call {
    /// The kind of an action.
    #[must_use]
    pub const fn of(action: &Action) -> Self {
        match action {
            Action::Create { .. } => Self::Create,
            Action::Attach { .. } => Self::Attach,
            Action::Assign { .. } => Self::Assign,
            Action::DeleteOnTermination { .. } => Self::DeleteOnTermination,
            Action::SecurityGroups { .. } => Self::SecurityGroups,
            Action::Unassign { .. } => Self::Unassign,
            Action::Detach { .. } => Self::Detach,
            Action::Delete { .. } => Self::Delete,
        }
    }

    /// Whether it brings addresses.
    #[must_use]
    pub const fn is_growth(self) -> bool {
        matches!(self, Self::Create | Self::Attach | Self::Assign)
    }

    /// Whether nobody waits for it and nothing is paid for meanwhile.
    const fn is_tidying(self) -> bool {
        matches!(self, Self::DeleteOnTermination | Self::SecurityGroups)
    }
}

#[derive(Debug, Clone)]
struct Pause {
    backoff: Backoff,
    until: Moment,
    /// The same where nobody waits.
    at_leisure: Moment,
    error: Ec2Error,
}

/// Which kinds of changes rest after a failure, and until when.
#[derive(Debug, Clone)]
pub struct Pauses {
    seed: u64,
    paused: BTreeMap<Call, Pause>,
}

impl Pauses {
    /// Nothing rests.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, paused: BTreeMap::new() }
    }

    /// Lets this kind of change rest after `error`: longer each time, and longer if only somebody else can mend it.
    pub fn failed(&mut self, call: Call, error: Ec2Error, now: Moment) {
        let seed = self.seed.rotate_left(call as u32);
        let last = if call.is_tidying() { LAST_FOR_TIDYING } else { LAST };
        let fresh = Backoff { last, ..Backoff::new(seed) };
        let mut backoff = self.paused.get(&call).map_or(fresh, |pause| pause.backoff);
        let throttled = call.is_growth() && class(&error) == Some(RefusalClass::SlowDown);
        let leisure = backoff.next_wait_at_leisure();
        let wait = backoff.next_wait();
        let wait = match class(&error) {
            _ if is_permanent(&error) => wait.max(LEAST_WAIT_FOR_OTHERS),
            Some(RefusalClass::WrongState) if call == Call::Delete => wait.max(LEAST_WAIT_FOR_STATE),
            _ => wait,
        };
        let until = now.after(wait);
        let at_leisure = if throttled { until.max(now.after(leisure)) } else { until };
        self.paused.insert(call, Pause { backoff, until, at_leisure, error });
    }

    /// Forgets the failures of this kind.
    pub fn succeeded(&mut self, call: Call) {
        self.paused.remove(&call);
    }

    /// Whether this kind still rests. All nodes of an account share EC2's budget: what is not `urgent` leaves it to those
    /// on which pods wait, for up to half an hour.
    #[must_use]
    pub fn rests(&self, call: Call, urgent: bool, now: Moment) -> bool {
        self.paused.get(&call).is_some_and(|pause| now < if urgent { pause.until } else { pause.at_leisure })
    }

    /// When each rest ends, in no particular order; those that are over included.
    pub fn ends(&self) -> impl Iterator<Item = Moment> {
        self.paused.values().flat_map(|pause| [pause.until, pause.at_leisure])
    }

    /// The refusals that keep the pool from growing now.
    pub fn against_growth(&self, now: Moment) -> impl Iterator<Item = &Ec2Error> {
        let active = self.paused.iter().filter(move |(call, pause)| call.is_growth() && pause.until > now);
        active.map(|(_, pause)| &pause.error)
    }

    /// Whether nothing has failed since it last succeeded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paused.is_empty()
    }
}

/// The class of a refusal; nothing when the outcome is unknown.
#[must_use]
pub const fn class(error: &Ec2Error) -> Option<RefusalClass> {
    match error {
        Ec2Error::Refused { class, .. } => Some(*class),
        Ec2Error::Unknown { .. } => None,
    }
}

/// Whether only somebody else can make the next try succeed.
#[must_use]
pub const fn is_permanent(error: &Ec2Error) -> bool {
    matches!(
        class(error),
        Some(
            RefusalClass::SubnetFull
                | RefusalClass::NoPrefix
                | RefusalClass::LimitReached
                | RefusalClass::NotAllowed
                | RefusalClass::BadRequest
        )
    )
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

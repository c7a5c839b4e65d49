//! Session tokens and how long they are good for.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ipam_core::Moment;

/// The tokens given out. They guard nothing here, so they need not be hard to guess.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<Given>);

#[derive(Debug, Default)]
struct Given {
    count: u64,
    expiry: BTreeMap<String, Moment>,
}

impl Tokens {
    /// Gives a token for this many seconds, 1 to 21,600.
    pub(super) fn give(&self, seconds: u32, now: Moment) -> Option<String> {
        if !(1..=21_600).contains(&seconds) {
            return None;
        }
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        given.expiry.retain(|_, until| *until > now);
        given.count += 1;
        let token = format!("AQAEA-simulated-{:016x}-{:016x}==", now.as_millis(), given.count);
        given.expiry.insert(token.clone(), now.after(Duration::from_secs(seconds.into())));
        Some(token)
    }

    pub(super) fn is_valid(&self, token: &str, now: Moment) -> bool {
        let given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        given.expiry.get(token).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_its_time_is_over() {
        let (tokens, start) = (Tokens::default(), Moment::from_millis(1_000));
        let token = tokens.give(10, start).unwrap();
        assert!(tokens.is_valid(&token, Moment::from_millis(10_999)));
        assert!(!tokens.is_valid(&token, Moment::from_millis(11_000)));
        assert!(!tokens.is_valid("another", start));
        assert_eq!(tokens.give(0, start), None);
        assert_eq!(tokens.give(21_601, start), None);
    }
}

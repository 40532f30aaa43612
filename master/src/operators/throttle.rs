//! How often somebody may try a password: per account and per address, in bounded memory.
//!
//! An attempt is counted before its password is checked, so that a hundred at the same time are a
//! hundred. A name that nobody has is counted like one that somebody has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

/// Names and addresses that are remembered, each.
const REMEMBERED: usize = 4096;
/// After how long without an attempt one is forgotten.
const FORGET: time::Duration = time::Duration::minutes(15);
/// Behind a tunnel or a proxy all operators have one address: it is given more, and waits less.
const ACCOUNT: Rule = Rule {
    free: 5,
    longest: Duration::from_secs(300),
};
const ADDRESS: Rule = Rule {
    free: 20,
    longest: Duration::from_secs(60),
};

/// How many attempts are free, and how long the wait becomes that doubles after them.
#[derive(Debug, Clone, Copy)]
struct Rule {
    free: u32,
    longest: Duration,
}

/// Counts attempts.
#[derive(Debug, Default)]
pub struct Throttle {
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    accounts: Book<[u8; 32]>,
    addresses: Book<IpAddr>,
}

/// An attempt that was counted.
#[derive(Debug)]
#[must_use = "an attempt that came to nothing bad is to be taken back"]
pub struct Attempt {
    account: [u8; 32],
    address: IpAddr,
}

#[derive(Debug)]
struct Book<K> {
    failures: HashMap<K, Failures>,
}

impl<K> Default for Book<K> {
    fn default() -> Self {
        Self {
            failures: HashMap::new(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: OffsetDateTime,
}

impl Throttle {
    /// Counts an attempt, or says after how long there may be one.
    pub fn attempt(
        &self,
        name: &str,
        from: IpAddr,
        now: OffsetDateTime,
    ) -> Result<Attempt, Duration> {
        let attempt = Attempt {
            // Of a name only the hash is kept: what is remembered has one size.
            account: Sha256::digest(name.to_lowercase()).into(),
            address: network(from),
        };
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = books
            .accounts
            .wait(&attempt.account, ACCOUNT, now)
            .max(books.addresses.wait(&attempt.address, ADDRESS, now));
        if !wait.is_zero() {
            return Err(wait);
        }
        books.accounts.count(attempt.account, now);
        books.addresses.count(attempt.address, now);
        Ok(attempt)
    }

    /// The password was right: the account begins anew, and the address has one attempt back. Not
    /// all of them: whoever has an account could else try those of others for ever.
    pub fn succeeded(&self, attempt: Attempt) {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.accounts.failures.remove(&attempt.account);
        books.addresses.take_back(&attempt.address);
    }

    /// The password was not looked at.
    pub fn withdrawn(&self, attempt: Attempt) {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.accounts.take_back(&attempt.account);
        books.addresses.take_back(&attempt.address);
    }
}

/// Whoever has one address of IPv6 has the 64 bits after the network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

impl<K: std::hash::Hash + Eq + Copy> Book<K> {
    fn wait(&self, key: &K, rule: Rule, now: OffsetDateTime) -> Duration {
        let Some(Failures { count, last }) = self.failures.get(key).copied() else {
            return Duration::ZERO;
        };
        let Some(beyond) = count.checked_sub(rule.free) else {
            return Duration::ZERO;
        };
        let pause = Duration::from_secs(1_u64.checked_shl(beyond).unwrap_or(u64::MAX));
        let until = last + pause.min(rule.longest);
        Duration::try_from(until - now).unwrap_or(Duration::ZERO)
    }

    fn count(&mut self, key: K, now: OffsetDateTime) {
        if self.failures.len() >= REMEMBERED && !self.failures.contains_key(&key) {
            self.failures.retain(|_, known| now - known.last < FORGET);
            if self.failures.len() >= REMEMBERED
                && let Some(oldest) = self
                    .failures
                    .iter()
                    .min_by_key(|(_, known)| known.last)
                    .map(|(key, _)| *key)
            {
                self.failures.remove(&oldest);
            }
        }
        let known = self.failures.entry(key).or_insert(Failures {
            count: 0,
            last: now,
        });
        if now - known.last >= FORGET {
            known.count = 0;
        }
        known.count = known.count.saturating_add(1);
        known.last = now;
    }

    fn take_back(&mut self, key: &K) {
        if let Some(known) = self.failures.get_mut(key) {
            known.count = known.count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_900_000_000 + seconds).expect("a time")
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, last])
    }

    #[test]
    fn an_account_waits_longer_and_longer_from_wherever_it_is_tried() {
        let throttle = Throttle::default();
        let ask = |last, now| throttle.attempt("alice", address(last), at(now)).map(drop);
        for number in 0..5 {
            assert_eq!(ask(number, 0), Ok(()));
        }
        assert_eq!(ask(9, 0), Err(Duration::from_secs(1)));
        assert_eq!(ask(10, 1), Ok(()));
        assert_eq!(ask(11, 1), Err(Duration::from_secs(2)));
        assert_eq!(
            throttle.attempt("ALICE", address(12), at(1)).map(drop),
            Err(Duration::from_secs(2)),
            "a name is one in any case"
        );
        assert_eq!(
            throttle.attempt("bob", address(11), at(1)).map(drop),
            Ok(()),
            "another account is another account"
        );
        let mut now = 3;
        for _ in 0..20 {
            assert_eq!(ask(13, now), Ok(()), "{now}");
            now += 300;
        }
        assert_eq!(ask(13, now + 900), Ok(()), "it is forgotten");
    }

    #[test]
    fn an_address_waits_whatever_names_it_tries() {
        let throttle = Throttle::default();
        for number in 0..20 {
            let name = format!("user-{number}");
            assert!(throttle.attempt(&name, address(1), at(0)).is_ok());
        }
        let refused = throttle.attempt("another", address(1), at(0)).map(drop);
        assert_eq!(refused, Err(Duration::from_secs(1)));
        assert!(throttle.attempt("another", address(2), at(0)).is_ok());
        let one: IpAddr = "2001:db8::1".parse().expect("an address");
        let other: IpAddr = "2001:db8::2".parse().expect("an address");
        assert_eq!(network(one), network(other));
    }

    #[test]
    fn a_right_password_sets_the_account_free_and_gives_the_address_one_attempt_back() {
        let throttle = Throttle::default();
        for _ in 0..100 {
            let attempt = throttle.attempt("alice", address(1), at(0)).expect("free");
            throttle.succeeded(attempt);
        }
        for number in 0..20 {
            let name = format!("user-{number}");
            let attempt = throttle.attempt(&name, address(1), at(0)).expect("free");
            throttle.withdrawn(attempt);
        }
        assert!(throttle.attempt("alice", address(1), at(0)).is_ok());
    }

    #[test]
    fn memory_is_bounded_whatever_is_tried() {
        let throttle = Throttle::default();
        for number in 0..3 * REMEMBERED {
            let from = IpAddr::from(u32::try_from(number).expect("small").to_be_bytes());
            let name = format!("user-{number}");
            let seconds = i64::try_from(number / 100).expect("small");
            assert!(throttle.attempt(&name, from, at(seconds)).is_ok());
        }
        let books = throttle.books.lock().expect("nobody panicked");
        assert_eq!(books.accounts.failures.len(), REMEMBERED);
        assert_eq!(books.addresses.failures.len(), REMEMBERED);
    }
}

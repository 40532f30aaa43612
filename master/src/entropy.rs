//! Randomness and identifiers: the one place of the master that draws them.

use domain::topology::draft::Entropy;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use time::OffsetDateTime;
use uuid::{Builder, NoContext, Timestamp, Uuid};

/// Random bytes that are drawn at once: a large topology takes thousands of ids, and each would be a
/// system call.
const POOL: usize = 4096;

/// The operating system's randomness, with a clock for ordered UUIDs. Not to be cloned: the same bytes
/// would be given out twice.
#[derive(Debug)]
pub struct OsEntropy {
    now: OffsetDateTime,
    /// Drawn, and not given out from `used` on.
    pool: [u8; POOL],
    used: usize,
}

impl OsEntropy {
    /// Entropy whose UUIDs (version 7) carry this time.
    pub const fn at(now: OffsetDateTime) -> Self {
        Self {
            now,
            pool: [0; POOL],
            used: POOL,
        }
    }

    fn draw<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= POOL) }
        if POOL - self.used < N {
            self.pool = random();
            self.used = 0;
        }
        let drawn = &mut self.pool[self.used..self.used + N];
        self.used += N;
        let mut bytes = [0; N];
        // What was given out is kept by nobody else.
        bytes.swap_with_slice(drawn);
        bytes
    }
}

impl Entropy for OsEntropy {
    fn uuid(&mut self) -> Uuid {
        let millis = self.now.unix_timestamp_nanos() / 1_000_000;
        let millis = u64::try_from(millis).unwrap_or(0);
        Builder::from_unix_timestamp_millis(millis, &self.draw()).into_uuid()
    }

    fn bytes(&mut self) -> [u8; 32] {
        self.draw()
    }
}

/// A version 7 UUID of the given time.
pub fn uuid_v7(now: OffsetDateTime) -> Uuid {
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.nanosecond()))
}

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0_u8; N];
    OsRng
        .try_fill_bytes(&mut bytes)
        .expect("Linux hands out randomness once it has booted");
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_drawn_is_drawn_once_and_says_its_time() {
        let now = OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(1_800_000_000);
        let mut entropy = OsEntropy::at(now);
        let ids: BTreeSet<Uuid> = (0..2000).map(|_| entropy.uuid()).collect();
        let seeds: BTreeSet<[u8; 32]> = (0..1000).map(|_| entropy.bytes()).collect();
        assert_eq!((ids.len(), seeds.len()), (2000, 1000));
        assert!(seeds.iter().all(|seed| seed != &[0; 32]));
        for id in ids {
            assert_eq!(id.get_version_num(), 7);
            let at = id.get_timestamp().expect("version 7 has one").to_unix();
            assert_eq!(at.0, 1_800_000_000);
        }
    }
}

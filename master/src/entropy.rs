//! Randomness and identifiers: the one place of the master that draws them.

use domain::topology::draft::Entropy;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

/// The operating system's randomness, with a clock for ordered UUIDs.
#[derive(Debug, Clone, Copy)]
pub struct OsEntropy {
    now: OffsetDateTime,
}

impl OsEntropy {
    /// Entropy whose UUIDs (version 7) carry this time.
    pub const fn at(now: OffsetDateTime) -> Self {
        Self { now }
    }
}

impl Entropy for OsEntropy {
    fn uuid(&mut self) -> Uuid {
        uuid_v7(self.now)
    }

    fn bytes(&mut self) -> [u8; 32] {
        random()
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

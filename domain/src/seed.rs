//! A decky's seed: everything that a scanner can compare is derived from it.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// 256 bits from which a decky's keys, banners, names and times are derived, so that no two
/// deckies agree and one decky always agrees with itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seed([u8; 32]);

/// A text that is no seed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a seed is 64 hexadecimal digits")]
pub struct InvalidSeed;

impl Seed {
    /// Takes 32 bytes of randomness.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The seed as 64 lower-case hexadecimal digits: a string, because JSON numbers end at 2^53.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// 32 bytes for one purpose: SHA-256 over a domain separator, the seed, and `purpose`.
    ///
    /// Two purposes never share bytes; the same purpose always gives the same bytes.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"decnet seed v1\0");
        hash.update(self.0);
        hash.update(purpose.as_bytes());
        hash.finalize().into()
    }

    /// A number below `bound` for one purpose; 0 when `bound` is 0.
    pub fn pick(&self, purpose: &str, bound: u64) -> u64 {
        let bytes = self.derive(purpose);
        let mut first = [0_u8; 8];
        first.copy_from_slice(&bytes[..8]);
        u64::from_be_bytes(first).checked_rem(bound).unwrap_or(0)
    }

    /// One element of `from` for one purpose.
    pub fn choose<'a, T>(&self, purpose: &str, from: &'a [T]) -> Option<&'a T> {
        let index = self.pick(purpose, from.len() as u64);
        from.get(usize::try_from(index).ok()?)
    }
}

impl FromStr for Seed {
    type Err = InvalidSeed;

    fn from_str(text: &str) -> Result<Self, InvalidSeed> {
        let mut bytes = [0_u8; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidSeed)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A seed yields host keys: it is shown nowhere but in the hydrated document.
        f.write_str("Seed(..)")
    }
}

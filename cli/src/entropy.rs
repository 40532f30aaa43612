//! Randomness: the one place of the command line that draws it.

use rand::TryRngCore as _;
use rand::rngs::OsRng;

/// A seed that nobody can guess, from the operating system.
pub(crate) fn seed() -> u64 {
    OsRng
        .try_next_u64()
        .expect("Linux hands out randomness once it has booted")
}

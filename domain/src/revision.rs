//! Counters that order things, and the fence made of two of them.

use std::fmt;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a stored or received counter.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The counter's value.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The value after this one; stays at the end of its range.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

counter!(/** Counts edits to a topology: order, not equality. */ Revision);
counter!(/** Counts assignments to a host. */ Generation);
counter!(/** Counts restores and leaderships of masters. */ Epoch);

/// What makes a late command harmless: an agent obeys only the newest fence that it has seen.
///
/// Ordered by epoch, then by generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fence {
    /// Which reign of masters gave the command.
    pub epoch: Epoch,
    /// Which assignment of that host it was.
    pub generation: Generation,
}

impl Fence {
    /// Pairs the two counters.
    pub const fn new(epoch: u64, generation: u64) -> Self {
        Self {
            epoch: Epoch::new(epoch),
            generation: Generation::new(generation),
        }
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.generation)
    }
}

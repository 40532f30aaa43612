//! Bounds the work that is done for one request: one thread serves everybody, so whoever keeps it
//! busy keeps every other session, every signal and the signs of life waiting.
//!
//! Work is counted and never timed, so that a request does the same on every machine.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Work that may still be done; a unit is about what it takes to look at one byte.
///
/// What does the work says how much it is before it begins, and gives up when there is none left.
#[derive(Debug)]
pub(crate) struct Budget(AtomicUsize);

impl Budget {
    pub(crate) const fn of(units: usize) -> Self {
        Self(AtomicUsize::new(units))
    }

    /// Begins anew with so many units.
    pub(crate) fn renew(&self, units: usize) {
        self.0.store(units, Ordering::Relaxed);
    }

    /// Takes units; false when none are left after that, and then ever after.
    pub(crate) fn spend(&self, units: usize) -> bool {
        let left = self.left().saturating_sub(units);
        self.0.store(left, Ordering::Relaxed);
        left > 0
    }

    /// Whether there is nothing left.
    pub(crate) fn is_spent(&self) -> bool {
        self.left() == 0
    }

    /// How much is left.
    pub(crate) fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_stays_spent_until_it_is_renewed() {
        let budget = Budget::of(10);
        assert!(budget.spend(9));
        assert!(!budget.spend(5), "more than there is");
        assert!(!budget.spend(0) && budget.is_spent());
        budget.renew(2);
        assert!(budget.spend(1) && !budget.is_spent());
    }
}

//! When to dial again: full jitter, so that a fleet that lost its master does not come back as one.

use std::time::Duration;

use super::{Jitter, LinkError};

/// How fast to dial again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The longest wait before the second attempt; it doubles with each.
    pub first: Duration,
    /// The longest wait at all.
    pub last: Duration,
    /// The wait after a refusal.
    pub refused: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            last: Duration::from_secs(60),
            refused: Duration::from_secs(60),
        }
    }
}

/// Counts the attempts of one connection.
pub(super) struct Retry {
    pace: Pace,
    jitter: Jitter,
    attempts: u32,
}

impl Retry {
    pub(super) const fn new(pace: Pace, jitter: Jitter) -> Self {
        Self {
            pace,
            jitter,
            attempts: 0,
        }
    }

    /// The wait before the next attempt.
    pub(super) fn after(&mut self, error: &LinkError) -> Duration {
        let ceiling = if error.is_refusal() {
            // Not from zero on: each attempt of a refused host is one too many.
            return self.pace.refused.mul_f64(0.5 + 0.5 * self.draw());
        } else {
            let doublings = self.attempts.min(16);
            self.attempts = self.attempts.saturating_add(1);
            self.pace
                .first
                .saturating_mul(1 << doublings)
                .min(self.pace.last)
        };
        ceiling.mul_f64(self.draw())
    }

    /// The wait after a connection that worked: over the spread that the master has asked for,
    /// because all its other hosts have lost it too.
    pub(super) fn after_loss(&mut self, error: &LinkError, spread: Duration) -> Duration {
        self.attempts = 0;
        if error.is_refusal() || spread.is_zero() {
            return self.after(error);
        }
        spread.min(self.pace.last).mul_f64(self.draw())
    }

    fn draw(&self) -> f64 {
        (self.jitter)().clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pki::connector::RefusedByMaster;

    use super::*;

    #[test]
    fn waits_double_up_to_the_last_and_a_loss_begins_anew() {
        let mut retry = Retry::new(Pace::default(), Arc::new(|| 1.0));
        let waits: Vec<_> = (0..9)
            .map(|_| retry.after(&LinkError::Closed).as_secs_f64())
            .collect();
        assert_eq!(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        let spread = Duration::from_secs(5);
        assert_eq!(retry.after_loss(&LinkError::Closed, spread), spread);
        assert_eq!(retry.after(&LinkError::Closed), Duration::from_millis(500));
    }

    #[test]
    fn a_refused_host_tries_slowly_from_the_first_time_on() {
        let mut retry = Retry::new(Pace::default(), Arc::new(|| 0.0));
        let refused = LinkError::Refused {
            source: RefusedByMaster::Revoked,
        };
        assert_eq!(retry.after(&refused), Duration::from_secs(30));
        assert_eq!(
            retry.after_loss(&refused, Duration::ZERO),
            Duration::from_secs(30)
        );
        assert_eq!(retry.after(&LinkError::Closed), Duration::ZERO);
    }
}

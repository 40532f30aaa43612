//! The last counters of the latest lives of one decky. Whoever owns a decky can name as many lives
//! as they like, so that only a few are remembered, here as in the spool.

use std::collections::VecDeque;

use domain::id::BootId;

use crate::spool::LIVES;

/// The latest lives, that of the latest line last.
#[derive(Debug, Default)]
pub(super) struct Lives(VecDeque<(BootId, u64)>);

impl Lives {
    /// Moves the counter of a life on, and answers where it stood: at 0 for a life that is new or
    /// was forgotten, and nothing when it stands there or further already.
    pub(super) fn advance(&mut self, boot: BootId, counter: u64) -> Option<u64> {
        let known = self.0.iter().rposition(|(known, _)| *known == boot);
        let last = known.and_then(|place| self.0.get(place));
        let last = last.map_or(0, |(_, last)| *last);
        if counter <= last {
            return None;
        }
        if let Some(place) = known {
            self.0.remove(place);
        }
        self.0.push_back((boot, counter));
        if self.0.len() > LIVES {
            self.0.pop_front();
        }
        Some(last)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn boot(number: u128) -> BootId {
        BootId::new(Uuid::from_u128(number))
    }

    #[test]
    fn a_life_goes_on_from_where_it_stood() {
        let mut lives = Lives::default();
        assert_eq!(lives.advance(boot(1), 3), Some(0));
        assert_eq!(lives.advance(boot(1), 3), None);
        assert_eq!(lives.advance(boot(2), 1), Some(0));
        assert_eq!(lives.advance(boot(1), 4), Some(3));
    }

    #[test]
    fn the_life_that_was_silent_for_longest_is_forgotten_first() {
        let mut lives = Lives::default();
        for number in 0..10_000 {
            lives.advance(boot(number), 1);
            // It speaks all the time.
            assert!(
                lives
                    .advance(boot(0), u64::try_from(number).expect("few") + 2)
                    .is_some()
            );
        }
        assert_eq!(lives.0.len(), LIVES);
        assert_eq!(lives.advance(boot(9_999), 1), None);
        assert_eq!(lives.advance(boot(9_000), 1), Some(0));
    }
}

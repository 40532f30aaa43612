//! How many deckies are made or removed at once: as many as the engine is fastest with.
//!
//! A daemon has a number of calls in flight at which it gets most done, and it differs between
//! machines and engines. It is found by climbing: the rate over a window of finished jobs is
//! compared with that of the window before; a clear gain goes on in the same direction, a clear
//! loss turns back, and what is neither goes down: of equals, fewer in flight are answered sooner.
//! What was learned is kept for the next attempt.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Jobs whose rate is compared: enough for single slow ones not to decide.
const WINDOW: u32 = 8;
/// The fewest at once: with one, the engine idles while the agent thinks.
const LEAST: usize = 2;
/// The most at once: the engine's answers get later with each, and a stop waits for all of them.
const MOST: usize = 12;
/// A change of the rate below this share is noise.
const CLEAR: f64 = 0.05;

/// The number, and how it came about.
#[derive(Debug)]
pub(super) struct Pace {
    climb: Mutex<Climb>,
}

#[derive(Debug)]
struct Climb {
    limit: usize,
    up: bool,
    /// Jobs a second in the window before.
    before: Option<f64>,
    /// When the window began; none between pools, whose idle time counts for nothing.
    since: Option<Instant>,
    done: u32,
}

impl Pace {
    /// Begins at a number.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            climb: Mutex::new(Climb {
                limit: limit.clamp(LEAST, MOST),
                up: true,
                before: None,
                since: None,
                done: 0,
            }),
        }
    }

    /// How many may run at once.
    pub(super) fn limit(&self) -> usize {
        self.climb(|climb| climb.limit)
    }

    /// A pool of jobs begins: other work than before, whose rate is not to be compared.
    pub(super) fn begin(&self, now: Instant) {
        self.climb(|climb| {
            climb.since = Some(now);
            climb.before = None;
            climb.done = 0;
        });
    }

    /// A job is done.
    pub(super) fn done(&self, now: Instant) {
        self.climb(|climb| climb.count(now));
    }

    fn climb<T>(&self, act: impl FnOnce(&mut Climb) -> T) -> T {
        // Plain numbers: a panic elsewhere leaves nothing half done.
        act(&mut self.climb.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Climb {
    fn count(&mut self, now: Instant) {
        self.done += 1;
        if self.done < WINDOW {
            return;
        }
        let since = self.since.replace(now).unwrap_or(now);
        let took = now
            .saturating_duration_since(since)
            .max(Duration::from_micros(1));
        let rate = f64::from(self.done) / took.as_secs_f64();
        self.done = 0;
        let Some(before) = self.before.replace(rate) else {
            return self.step();
        };
        if rate < before * (1.0 - CLEAR) {
            self.up = !self.up;
        } else if rate <= before * (1.0 + CLEAR) {
            self.up = false;
        }
        self.step();
    }

    fn step(&mut self) {
        match self.limit {
            LEAST => self.up = true,
            MOST => self.up = false,
            _ => {}
        }
        if self.up {
            self.limit += 1;
        } else {
            self.limit -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `jobs` on an engine that does `rate(n)` jobs a second with `n` in flight.
    fn settle(start: usize, jobs: u32, rate: impl Fn(usize) -> f64) -> Vec<usize> {
        let pace = Pace::new(start);
        let mut now = Instant::now();
        pace.begin(now);
        let mut limits = Vec::new();
        for _ in 0..jobs {
            now += Duration::from_secs_f64(1.0 / rate(pace.limit()));
            pace.done(now);
            limits.push(pace.limit());
        }
        limits.split_off(limits.len() / 2)
    }

    #[test]
    fn it_stays_about_the_number_at_which_the_engine_is_fastest() {
        // Gains up to six, then each more costs a tenth.
        let peak = |n: usize| {
            #[allow(clippy::cast_precision_loss, reason = "numbers up to twelve")]
            let n = n as f64;
            if n <= 6.0 { n } else { 6.0 - 0.6 * (n - 6.0) }
        };
        for start in [2, 4, 12] {
            let limits = settle(start, 800, peak);
            assert!(
                limits.iter().all(|limit| (4..=8).contains(limit)),
                "{start}: {limits:?}"
            );
        }
    }

    #[test]
    fn an_engine_that_gains_nothing_is_not_pressed() {
        let limits = settle(4, 400, |_| 5.0);
        assert!(limits.iter().all(|limit| *limit <= 5), "{limits:?}");
    }

    #[test]
    fn idle_time_between_pools_is_no_slowness() {
        let pace = Pace::new(4);
        let now = Instant::now();
        pace.begin(now);
        for job in 1..=WINDOW {
            pace.done(now + Duration::from_millis(u64::from(job)));
        }
        let learned = pace.limit();
        pace.begin(now + Duration::from_secs(3600));
        for job in 1..WINDOW {
            pace.done(now + Duration::from_secs(3600) + Duration::from_millis(u64::from(job)));
        }
        assert_eq!(pace.limit(), learned);
    }
}

//! The clock: passed to whoever needs the time, so that tests can set it.

pub use pki::clock::Clock;
use std::sync::Arc;
use time::OffsetDateTime;

/// The system's clock.
pub fn system() -> Clock {
    Arc::new(OffsetDateTime::now_utc)
}

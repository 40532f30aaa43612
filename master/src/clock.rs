//! The clock: passed to whoever needs the time, so that tests can set it.

pub use pki::clock::Clock;
use std::sync::Arc;
use time::OffsetDateTime;

/// The system's clock.
pub fn system() -> Clock {
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place of the master that reads the time"
    )]
    Arc::new(OffsetDateTime::now_utc)
}

//! Reads the clock: the only place that does, so that everything else can be told the time.

use time::OffsetDateTime;

/// Where a part gets the time from.
pub(crate) type Clock = fn() -> OffsetDateTime;

/// The clock of the machine.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the clock that everything else takes"
)]
pub(crate) fn system() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

//! The clock that TLS verifiers read: passed in, so that a test can be in 1970.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::UnixTime;
use time::OffsetDateTime;

/// Tells the time when it is called. It is called during handshakes, so it must not block.
pub type Clock = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

/// What webpki counts in. A clock before 1970 reads as 1970: no certificate of ours is older.
pub(crate) fn unix_time(at: OffsetDateTime) -> UnixTime {
    let seconds = u64::try_from(at.unix_timestamp()).unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

//! Forgets what nobody needs any more: sessions and idempotency keys whose time is over, and the
//! oldest evidence, where the configuration bounds it.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::clock::Clock;
use crate::db::upkeep::Retention;
use crate::db::{Store, StoreError};

/// How often it is looked for what may go.
const EVERY: Duration = Duration::from_secs(10 * 60);
/// Events that go in one transaction: those that arrive are to be stored in between.
const BATCH: u32 = 4096;

/// For how long, and how much, evidence is kept; none of either is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// Events that were received longer ago go.
    pub events_for: Option<Duration>,
    /// Of more events than that the oldest go.
    pub events_most: Option<u64>,
}

/// Forgets for as long as the master runs.
pub async fn run(store: Arc<dyn Store>, keep: Keep, clock: Clock, shutdown: CancellationToken) {
    let mut every = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = shutdown.cancelled() => return,
        }
        let now = clock();
        if let Err(error) = store.forget_expired(now).await {
            tracing::warn!(error = %Chain(&error), "what has expired could not be forgotten");
        }
        match forget(store.as_ref(), keep, now, &shutdown).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "old events are forgotten"),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "old events could not be forgotten");
            }
        }
    }
}

/// Forgets every event that is not to be kept; how many.
async fn forget(
    store: &dyn Store,
    keep: Keep,
    now: OffsetDateTime,
    shutdown: &CancellationToken,
) -> Result<u64, StoreError> {
    if keep == Keep::default() {
        return Ok(0);
    }
    let retention = Retention {
        received_before: keep.events_for.map(|age| now - age),
        keep_newest: keep.events_most,
        batch: BATCH,
    };
    let mut forgotten = 0;
    while !shutdown.is_cancelled() {
        match store.forget_events(retention).await? {
            0 => break,
            gone => forgotten += gone,
        }
    }
    Ok(forgotten)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::conformance::events::event;
    use crate::db::conformance::{at, spool};
    use crate::db::{EventFilter, NewEvent, sqlite};

    #[tokio::test]
    async fn what_is_older_or_beyond_the_bound_goes_and_nothing_else() {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let store = sqlite::open(&directory.path().join("master.db"))
            .await
            .expect("the directory is there");
        let events = (0..100)
            .map(|number| NewEvent {
                received_at: at(i64::try_from(number).expect("it is small")),
                ..event(number)
            })
            .collect();
        let host = domain::id::HostId::new(uuid::Uuid::from_u128(7));
        store
            .append_events(host, spool(1), events)
            .await
            .expect("stored");
        let shutdown = CancellationToken::new();
        let left = async |keep: Keep| {
            let forgotten = forget(&store, keep, at(100), &shutdown).await;
            let filter = EventFilter::default();
            (
                forgotten.expect("answered"),
                store.count_events(&filter).await.expect("answered"),
            )
        };
        assert_eq!(left(Keep::default()).await, (0, 100));
        let keep = Keep {
            events_for: Some(Duration::from_secs(70)),
            ..Keep::default()
        };
        assert_eq!(left(keep).await, (30, 70));
        let keep = Keep {
            events_most: Some(50),
            ..keep
        };
        assert_eq!(left(keep).await, (20, 50));
        assert_eq!(left(keep).await, (0, 50));
    }
}

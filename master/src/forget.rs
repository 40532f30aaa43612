//! Forgets what nobody needs any more: sessions and idempotency keys whose time is over, and the
//! oldest of evidence, of changes of status and of mutations, where the configuration bounds them.

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

/// For how long, and how much, is kept; none is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// Events that were received longer ago go.
    pub events_for: Option<Duration>,
    /// Of more events than that the oldest go.
    pub events_most: Option<u64>,
    /// Changes of the status of a topology that are older go, but the newest one.
    pub status_for: Option<Duration>,
    /// Mutations that have ended longer ago go, but the newest one of each topology.
    pub mutations_for: Option<Duration>,
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
        match forget_history(store.as_ref(), keep, now, &shutdown).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "old history of topologies is forgotten"),
            Err(error) => {
                let error = Chain(&error);
                tracing::warn!(%error, "old history of topologies could not be forgotten");
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
    if keep.events_for.is_none() && keep.events_most.is_none() {
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

/// Forgets every change of status and every mutation that is not to be kept; how many.
async fn forget_history(
    store: &dyn Store,
    keep: Keep,
    now: OffsetDateTime,
    shutdown: &CancellationToken,
) -> Result<u64, StoreError> {
    let mut forgotten = 0;
    if let Some(age) = keep.status_for {
        while !shutdown.is_cancelled() {
            match store.forget_status_changes(now - age, BATCH).await? {
                0 => break,
                gone => forgotten += gone,
            }
        }
    }
    if let Some(age) = keep.mutations_for {
        while !shutdown.is_cancelled() {
            match store.forget_mutations(now - age, BATCH).await? {
                0 => break,
                gone => forgotten += gone,
            }
        }
    }
    Ok(forgotten)
}

#[cfg(test)]
mod tests {
    use domain::topology::status::{StatusEvent, TopologyStatus};

    use super::*;
    use crate::db::conformance::events::event;
    use crate::db::conformance::{at, deployed, enrolled, settled, spool, topology};
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

    #[tokio::test]
    async fn history_goes_only_where_it_is_bounded() {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let store = sqlite::open(&directory.path().join("master.db")).await;
        let store: Arc<dyn Store> = Arc::new(store.expect("the directory is there"));
        let edge = enrolled(&store, 1, "edge").await;
        let maze = topology(1, "maze", 0);
        deployed(&store, &maze, edge).await;
        settled(
            &store,
            &maze,
            TopologyStatus::Deploying,
            StatusEvent::Converged,
        )
        .await;
        let shutdown = CancellationToken::new();
        let gone = async |keep: Keep| {
            let forgotten = forget_history(store.as_ref(), keep, at(100), &shutdown).await;
            forgotten.expect("answered")
        };
        let day = Some(Duration::from_secs(86_400));
        let minute = Some(Duration::from_secs(60));
        for (keep, expected) in [
            (Keep::default(), 0),
            (
                Keep {
                    status_for: day,
                    mutations_for: day,
                    ..Keep::default()
                },
                0,
            ),
            (
                Keep {
                    mutations_for: minute,
                    ..Keep::default()
                },
                0,
            ),
            (
                Keep {
                    status_for: minute,
                    ..Keep::default()
                },
                1,
            ),
            (
                Keep {
                    status_for: minute,
                    ..Keep::default()
                },
                0,
            ),
        ] {
            assert_eq!(gone(keep).await, expected, "{keep:?}");
        }
    }
}

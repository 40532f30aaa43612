//! `GET /events/stream`: events as they are stored, as server-sent events, without a gap and
//! without a duplicate.
//!
//! The table is the only source. What the pipeline announces says no more than that it is time to
//! read on: announcements of two hosts can come in another order than their rows, and one that
//! was missed costs nothing.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use proto::rest::EventQuery;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::auth::Caller;
use super::events::{Reader, filter};
use super::extract::{Malformed, Params};
use super::problem::ApiError;
use super::{Api, shapes};
use crate::chain::Chain;

/// How long a stream may be silent.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long to rest after a read that failed.
const REST: Duration = Duration::from_secs(1);

/// `GET /events/stream`
pub(super) async fn stream(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(query): Params<EventQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let listener = Listener::admit(&api, caller)?;
    // Before the newest row is read: what is stored from here on is announced.
    let announced = api.ingest.subscribe();
    let filter = filter(&api, &query).await?;
    let resumed = match headers.get("last-event-id") {
        Some(id) => Some(
            id.to_str()
                .ok()
                .and_then(|id| id.parse().ok())
                .ok_or_else(|| {
                    ApiError::Malformed(Malformed::value("Last-Event-ID", "it is none of ours"))
                })?,
        ),
        None => query.after,
    };
    let after = match resumed {
        Some(row) => row,
        None => api.store.newest_event_row().await?,
    };
    let tail = Tail {
        reader: Reader::new(filter, after),
        announced,
        api,
        listener,
    };
    let events = unfold(tail, |mut tail| async move {
        let event = tail.next().await?;
        Some((Ok(event), tail))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

struct Tail<T> {
    reader: Reader,
    announced: Receiver<T>,
    api: Arc<Api>,
    listener: Listener,
}

impl<T: Clone> Tail<T> {
    /// The next event; none when the master ends, or the caller may not go on.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.api.ending.is_cancelled() || !self.listener.may_go_on(&self.api).await {
                return None;
            }
            match self.reader.next(&self.api).await {
                Ok(Some(row)) => {
                    let data = serde_json::to_string(&shapes::event(&row))
                        .expect("an event has string keys and no custom serializer");
                    // JSON on one line: nothing from outside can end the field early.
                    return Some(Event::default().id(row.row.to_string()).data(data));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "event stream waits for the database");
                    tokio::select! {
                        () = tokio::time::sleep(REST) => continue,
                        () = self.api.ending.cancelled() => return None,
                    }
                }
            }
            tokio::select! {
                announcement = self.announced.recv() => match announcement {
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
                () = tokio::time::sleep(self.api.limits.recheck) => {}
                () = self.api.ending.cancelled() => return None,
            }
        }
    }
}

/// Who listens to a stream: a place among all streams and one among those of its caller, and
/// whether the caller may still be told anything.
pub(super) struct Listener {
    caller: Caller,
    /// When it was last looked whether the caller may still listen.
    checked: Instant,
    _places: (OwnedSemaphorePermit, Place),
}

impl Listener {
    /// A further listener, or why there is no place for one.
    pub(super) fn admit(api: &Api, caller: Caller) -> Result<Self, ApiError> {
        let place = Arc::clone(&api.streams)
            .try_acquire_owned()
            .map_err(|_| ApiError::TooManyStreams)?;
        let own = Held::take(&api.held, caller.holder(), api.limits.streams_of_one)
            .ok_or(ApiError::TooManyOfUser)?;
        Ok(Self {
            caller,
            checked: Instant::now(),
            _places: (place, own),
        })
    }

    /// Whoever was let in may have been put out since: looked at now and then, in a busy stream too.
    pub(super) async fn may_go_on(&mut self, api: &Api) -> bool {
        if self.checked.elapsed() < api.limits.recheck {
            return true;
        }
        self.checked = Instant::now();
        // A database that is away for a moment ends no stream.
        api.still_knows(&self.caller).await.unwrap_or(true)
    }
}

/// How many streams each caller holds open: one is not to take the places of all.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<HashMap<String, usize>>);

/// A caller's place for a stream, free again when it is dropped.
pub(super) struct Place {
    held: Arc<Held>,
    owner: String,
}

impl Held {
    /// A place for one more stream of that owner, unless it has as many as one may have.
    pub(super) fn take(held: &Arc<Self>, owner: String, most: usize) -> Option<Place> {
        let mut counts = held.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(owner.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place {
            held: Arc::clone(held),
            owner,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.held.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.owner);
            }
        }
    }
}

//! `GET /events/stream`: events as they are stored, as server-sent events, without a gap and
//! without a duplicate.
//!
//! The table is the only source. What the pipeline announces says no more than that it is time to
//! read on: announcements of two hosts can come in another order than their rows, and one that
//! was missed costs nothing.

use std::convert::Infallible;
use std::sync::Arc;
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

use super::events::{Reader, filter};
use super::extract::{Malformed, Params};
use super::problem::ApiError;
use super::{Api, shapes};
use crate::chain::Chain;

/// How long a stream may be silent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long to rest after a read that failed.
const REST: Duration = Duration::from_secs(1);

/// `GET /events/stream`
pub(super) async fn stream(
    State(api): State<Arc<Api>>,
    Params(query): Params<EventQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let place = Arc::clone(&api.streams)
        .try_acquire_owned()
        .map_err(|_| ApiError::TooManyStreams)?;
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
        _place: place,
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
    _place: OwnedSemaphorePermit,
}

impl<T: Clone> Tail<T> {
    /// The next event; none when the master ends.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.api.ending.is_cancelled() {
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
                () = self.api.ending.cancelled() => return None,
            }
        }
    }
}

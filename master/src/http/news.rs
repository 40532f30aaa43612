//! `GET /topologies/{topology}/events`: what happens to one topology, as server-sent events.
//!
//! The database is the only source. What the bus says is no more than that it is time to read on:
//! whoever falls behind loses nothing, and a stream that is resumed goes on where it was. An id
//! says how far each of them was read.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use domain::event::EventKind;
use domain::id::TopologyId;
use domain::topology::mutation::Regime;
use domain::topology::mutation::state::MutationState;
use futures_util::Stream;
use futures_util::stream::unfold;
use proto::rest::mutation::{TopologyEdited, TopologySnapshot};
use serde::Serialize;
use time::OffsetDateTime;

use super::auth::Caller;
use super::extract::Malformed;
use super::problem::ApiError;
use super::stream::{KEEP_ALIVE, Listener};
use super::{Api, mutations, shapes};
use crate::bus::{Delivery, Subscription};
use crate::chain::Chain;
use crate::db::queue::{Changed, MutationId, MutationPage, MutationRow};
use crate::db::upkeep::Forgotten;
use crate::db::{EventFilter, EventPage, StoreError};

/// How long to rest after a read that failed.
const REST: Duration = Duration::from_secs(1);
/// A change may be stored a little later than the time that it says: so far is read back. A
/// stream that is resumed may thereby hear the last states again, which is better than not at all.
const OVERLAP: time::Duration = time::Duration::seconds(5);
/// Events that are read at once.
const PAGE: u32 = 1000;

/// `GET /topologies/{topology}/events`
pub(super) async fn stream(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let listener = Listener::admit(&api, caller)?;
    let id = api.topologies.find(&topology).await?.topology.id;
    // Before anything is read: what happens from here on is announced.
    let told = api.topologies.bus.subscribe(&format!("topology.{id}.>"));
    let resumed = headers.get("last-event-id").map(|id| {
        let id = id.to_str().ok().and_then(|id| id.parse::<Place>().ok());
        id.ok_or_else(|| {
            ApiError::Malformed(Malformed::value("Last-Event-ID", "it is none of ours"))
        })
    });
    let mut tail = Tail {
        topology: id,
        at: Place::default(),
        edited: true,
        lately: Lately::default(),
        ready: VecDeque::new(),
        told,
        api,
        listener,
    };
    match resumed.transpose()? {
        Some(at) if !at.is_before(tail.forgotten().await?) => tail.at = at,
        // What came after it is not there any more: how everything stands is.
        Some(_) | None => tail.snapshot().await?,
    }
    let events = unfold(tail, |mut tail| async move {
        let event = tail.next().await?;
        Some((Ok(event), tail))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// How far a stream has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Place {
    /// The row of the last change of the status.
    status: i64,
    /// When a mutation last changed, in nanoseconds.
    mutation: i128,
    /// The last row of events.
    row: i64,
    /// The revision.
    revision: u64,
}

struct Tail {
    topology: TopologyId,
    at: Place,
    /// Whether the revision of a draft may be another one.
    edited: bool,
    lately: Lately,
    ready: VecDeque<Event>,
    told: Subscription,
    api: Arc<Api>,
    listener: Listener,
}

/// The states of mutations that changed so lately that they are read again, as they were told, and
/// when they changed.
#[derive(Debug, Default)]
struct Lately(HashMap<MutationId, (MutationState, OffsetDateTime)>);

// === impl Lately ===

impl Lately {
    /// Whether this state was not told yet; it counts as told from now on.
    fn is_new(&mut self, row: &MutationRow) -> bool {
        let told = self.0.insert(row.id, (row.state, row.changed_at));
        told.is_none_or(|(state, _)| state != row.state)
    }

    /// Forgets what changed before: it is not read again, however long the stream is open.
    fn forget(&mut self, before: OffsetDateTime) {
        self.0.retain(|_, (_, changed_at)| *changed_at >= before);
    }
}

// === impl Place ===

impl Place {
    /// Whether something that was forgotten came after it.
    fn is_before(&self, forgotten: Option<Forgotten>) -> bool {
        forgotten.is_some_and(|forgotten| {
            self.status < forgotten.status
                || self.mutation < forgotten.mutation.unix_timestamp_nanos()
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            status,
            mutation,
            row,
            revision,
        } = self;
        write!(f, "{status}.{mutation}.{row}.{revision}")
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('.');
        let place = Self {
            status: number(parts.next())?,
            mutation: number(parts.next())?,
            row: number(parts.next())?,
            revision: number(parts.next())?,
        };
        match parts.next() {
            None => Ok(place),
            Some(_) => Err(()),
        }
    }
}

fn number<T: FromStr>(text: Option<&str>) -> Result<T, ()> {
    text.and_then(|text| text.parse().ok()).ok_or(())
}

// === impl Tail ===

impl Tail {
    /// Everything as it stands, before anything that changes.
    async fn snapshot(&mut self) -> Result<(), ApiError> {
        let store = Arc::clone(&self.api.store);
        // The places first: what changes while the rest is read is sent again rather than lost.
        self.at.row = store.newest_event_row().await?;
        let changes = store.status_changes(self.topology).await?;
        self.at.status = changes.last().map_or(0, |change| change.row);
        let newest = MutationPage::default();
        let newest = store.mutations(self.topology, newest, PAGE).await?;
        for row in &newest {
            self.lately.is_new(row);
            self.at.mutation = self.at.mutation.max(row.changed_at.unix_timestamp_nanos());
        }
        let applying = MutationPage {
            state: Some(MutationState::Applying),
            before: None,
        };
        let mut open = store.mutations(self.topology, applying, PAGE).await?;
        open.reverse();
        open.extend(store.pending_mutations(self.topology).await?);
        let inspection = self
            .api
            .topologies
            .inspect(&self.topology.to_string())
            .await?;
        self.at.revision = inspection.row.topology.revision.get();
        let snapshot = TopologySnapshot {
            state: shapes::state(&inspection),
            mutations: open.iter().map(mutations::shape).collect(),
        };
        self.push("snapshot", &snapshot);
        Ok(())
    }

    async fn forgotten(&self) -> Result<Option<Forgotten>, StoreError> {
        self.api.store.forgotten(self.topology).await
    }

    fn push(&mut self, name: &str, data: &impl Serialize) {
        let data = serde_json::to_string(data)
            .expect("the shapes have string keys and no custom serializer");
        // JSON on one line: nothing from outside can end the field early.
        let event = Event::default()
            .event(name)
            .id(self.at.to_string())
            .data(data);
        self.ready.push_back(event);
    }

    /// The next message; none when the master ends or the topology is removed.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.api.ending.is_cancelled() || !self.listener.may_go_on(&self.api).await {
                return None;
            }
            match self.read().await {
                Ok(Some(())) if !self.ready.is_empty() => continue,
                Ok(Some(())) => {}
                Ok(None) => return None,
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "topology stream waits for the database");
                    tokio::select! {
                        () = tokio::time::sleep(REST) => continue,
                        () = self.api.ending.cancelled() => return None,
                    }
                }
            }
            let ending = self.api.ending.clone();
            tokio::select! {
                told = self.told.next() => {
                    self.edited |= match told {
                        Delivery::Message(message) => message.subject.ends_with(".edit"),
                        // Whatever it was: read on.
                        Delivery::Dropped(_) => true,
                    };
                }
                () = tokio::time::sleep(self.api.limits.recheck) => {}
                () = ending.cancelled() => return None,
            }
        }
    }

    /// Reads what has happened since; none when the topology is not there any more.
    async fn read(&mut self) -> Result<Option<()>, StoreError> {
        let store = Arc::clone(&self.api.store);
        let changes = store.status_changes(self.topology).await?;
        // A topology is large: it is read only when it may say something new.
        if self.edited || changes.is_empty() {
            let Some(row) = store.topology(self.topology).await? else {
                return Ok(None);
            };
            let revision = row.topology.revision.get();
            let is_draft = Regime::of(row.status) == Some(Regime::Pending);
            if self.at.revision < revision {
                self.at.revision = revision;
                if is_draft {
                    self.push("edited", &TopologyEdited { revision });
                }
            }
            self.edited = false;
        }
        for change in changes {
            if change.row > self.at.status {
                self.at.status = change.row;
                self.push("status", &shapes::status_change(&change));
            }
        }
        let since = OffsetDateTime::from_unix_timestamp_nanos(self.at.mutation)
            .ok()
            // What changes after a clock was set back changes before what was told.
            .map(|told| told.min((self.api.clock)()))
            .and_then(|since| since.checked_sub(OVERLAP))
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        self.lately.forget(since);
        let mut behind = Changed::since(since);
        loop {
            let rows = store.mutations_changed(self.topology, behind, PAGE).await?;
            let Some(last) = rows.last() else { break };
            behind = Changed::of(last);
            for row in &rows {
                if !self.lately.is_new(row) {
                    continue;
                }
                self.at.mutation = self.at.mutation.max(row.changed_at.unix_timestamp_nanos());
                self.push("mutation", &mutations::shape(row));
            }
            // Whatever there is to tell goes first; then it is read on.
            if !self.ready.is_empty() {
                return Ok(Some(()));
            }
        }
        let filter = EventFilter {
            topology: Some(self.topology),
            kind: Some(EventKind::Mutation),
            ..EventFilter::default()
        };
        loop {
            let page = EventPage::After { row: self.at.row };
            let rows = store.events(&filter, page, PAGE).await?;
            if rows.is_empty() {
                return Ok(Some(()));
            }
            for row in rows {
                self.at.row = row.row;
                self.push("decky_mutated", &shapes::event(&row));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::revision::Revision;
    use uuid::Uuid;

    use super::*;
    use crate::db::Actor;

    fn row(number: u64, state: MutationState) -> MutationRow {
        MutationRow {
            id: MutationId::new(Uuid::from_u128(number.into())),
            topology: TopologyId::new(Uuid::nil()),
            sequence: number,
            op: "add_lan".to_owned(),
            payload: String::new(),
            cause: "operator".to_owned(),
            actor: Actor::Reconciler,
            state,
            enqueued_at: OffsetDateTime::UNIX_EPOCH,
            changed_at: OffsetDateTime::UNIX_EPOCH,
            claims: 0,
            revision: Some(Revision::new(1)),
            fence: None,
            reason: String::new(),
        }
    }

    #[test]
    fn a_state_is_told_once_and_forgotten_with_what_is_not_read_again() {
        use MutationState::{Applied, Applying, Pending};
        let mut lately = Lately::default();
        assert!(lately.is_new(&row(1, Pending)));
        assert!(!lately.is_new(&row(1, Pending)));
        assert!(lately.is_new(&row(1, Applying)));
        assert!(lately.is_new(&row(2, Pending)));
        assert!(!lately.is_new(&row(1, Applying)), "another was told since");
        for number in 3..1000 {
            let at = |number: u64| OffsetDateTime::UNIX_EPOCH + Duration::from_secs(number);
            let changed = MutationRow {
                changed_at: at(number),
                ..row(number, Applied)
            };
            assert!(lately.is_new(&changed));
            lately.forget(at(number - 2));
            assert!(lately.0.len() <= 3, "no more than the window");
        }
    }

    #[test]
    fn a_place_is_read_as_it_was_written_and_nothing_else_is_one() {
        let place = Place {
            status: 3,
            mutation: 1_900_000_000_000_000_000,
            row: 17,
            revision: 4,
        };
        assert_eq!(place.to_string().parse(), Ok(place));
        for text in [
            "",
            "1",
            "1.2.3",
            "1.2.3.4.5",
            "a.2.3.4",
            "1.2.-.4",
            "1..3.4",
        ] {
            assert_eq!(text.parse::<Place>(), Err(()), "{text}");
        }
    }
}

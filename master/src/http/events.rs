//! The routes of events as lists and exports; the live stream is `stream`.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::IntoResponse;
use futures_util::stream::try_unfold;
use proto::line::parse_time;
use proto::rest::{EventQuery, EventShape, Page};

use super::extract::{Malformed, Params};
use super::problem::ApiError;
use super::{Api, shapes};
use crate::chain::Chain;
use crate::db::{EventFilter, EventPage, EventRow, StoreError};
use crate::topology::{FindError, find_host};

/// Events in a page when nobody says.
const USUAL: u32 = 50;
/// Most events in a page.
pub(super) const MOST: u32 = 1000;

/// `GET /events`: newest first.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Params(query): Params<EventQuery>,
) -> Result<Json<Page<EventShape>>, ApiError> {
    let limit = query.limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        return Err(malformed(
            "limit",
            format!("{limit} is not between 1 and {MOST}"),
        ));
    }
    let before = query
        .cursor
        .as_deref()
        .map(|cursor| {
            cursor
                .parse()
                .map_err(|_| malformed("cursor", "it is none of ours"))
        })
        .transpose()?;
    let filter = filter(&api, &query).await?;
    let page = EventPage::Newest { before };
    // One more than asked for tells whether there is a next page; the store gives no more than
    // `MOST`, so that behind a page of that size there may be nothing.
    let mut rows = api
        .store
        .events(&filter, page, limit.saturating_add(1).min(MOST))
        .await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > wanted || (limit == MOST && rows.len() == wanted);
    rows.truncate(wanted);
    let next = rows.last().filter(|_| more).map(|row| row.row.to_string());
    let total = api.store.count_events(&filter).await?;
    Ok(Json(Page {
        items: rows.iter().map(shapes::event).collect(),
        total,
        next,
    }))
}

/// `GET /events/export`: oldest first, up to what was stored when it began.
pub(super) async fn export(
    State(api): State<Arc<Api>>,
    Params(query): Params<EventQuery>,
) -> Result<impl IntoResponse, ApiError> {
    let filter = filter(&api, &query).await?;
    let until = api.store.newest_event_row().await?;
    let left = query.limit.map_or(u64::MAX, u64::from);
    let start = Export {
        after: query.after.unwrap_or(0),
        left,
        api,
        filter,
        until,
    };
    let lines = try_unfold(start, |mut export| async move {
        // An error cuts the body short, which a client can tell from its end.
        let page = export.next().await.inspect_err(|error| {
            tracing::warn!(error = %Chain(error), "export cut short");
        })?;
        Ok::<_, StoreError>(page.map(|lines| (lines, export)))
    });
    let headers = [
        (CONTENT_TYPE, "application/x-ndjson"),
        (
            CONTENT_DISPOSITION,
            "attachment; filename=\"events.ndjson\"",
        ),
    ];
    Ok((headers, Body::from_stream(lines)))
}

struct Export {
    api: Arc<Api>,
    filter: EventFilter,
    after: i64,
    until: i64,
    left: u64,
}

impl Export {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.left == 0 || self.after >= self.until {
            return Ok(None);
        }
        let limit = u32::try_from(self.left).unwrap_or(MOST).min(MOST);
        let page = EventPage::After { row: self.after };
        let rows = self.api.store.events(&self.filter, page, limit).await?;
        let Some(last) = rows.last() else {
            return Ok(None);
        };
        self.after = last.row;
        self.left = self.left.saturating_sub(shapes::count(rows.len()));
        let mut lines = Vec::new();
        for row in rows.iter().filter(|row| row.row <= self.until) {
            write_line(row, &mut lines);
        }
        Ok(Some(lines.into()).filter(|lines: &Bytes| !lines.is_empty()))
    }
}

fn write_line(row: &EventRow, lines: &mut Vec<u8>) {
    serde_json::to_writer(&mut *lines, &shapes::event(row))
        .expect("an event has string keys and no custom serializer");
    lines.push(b'\n');
}

fn malformed(path: &'static str, message: impl ToString) -> ApiError {
    ApiError::Malformed(Malformed::value(path, message))
}

/// Reads the filter of a query. Names are looked up; an id is taken as it is, since the events of
/// what was removed stay.
pub(super) async fn filter(api: &Api, query: &EventQuery) -> Result<EventFilter, ApiError> {
    let time = |path, text: Option<&str>| match text {
        Some(text) => parse_time(text)
            .map(Some)
            .ok_or_else(|| malformed(path, "it is no time of RFC 3339")),
        None => Ok(None),
    };
    fn word<T: std::str::FromStr<Err: ToString>>(
        path: &'static str,
        text: Option<&str>,
    ) -> Result<Option<T>, ApiError> {
        text.map(str::parse)
            .transpose()
            .map_err(|error: T::Err| malformed(path, error))
    }
    let topology = match query.topology.as_deref() {
        Some(reference) => match api.topologies.find(reference).await {
            Ok(row) => Some((row.topology.id, Some(row.topology))),
            Err(error) => Some((gone(reference, error)?, None)),
        },
        None => None,
    };
    let host = match query.host.as_deref() {
        Some(reference) => match find_host(api.store.as_ref(), reference).await {
            Ok(row) => Some(row.id),
            Err(error) => Some(gone(reference, error)?),
        },
        None => None,
    };
    let decky =
        match (query.decky.as_deref(), &topology) {
            (Some(reference), Some((_, Some(topology)))) => {
                let named = topology
                    .deckies
                    .iter()
                    .find(|decky| decky.name.as_str().eq_ignore_ascii_case(reference));
                Some(match named {
                    Some(decky) => decky.id,
                    None => gone(reference, unknown("decky", reference))?,
                })
            }
            (Some(reference), Some((_, None)) | None) => Some(reference.parse().map_err(|_| {
                malformed("decky", "it is no id; a name needs the topology beside it")
            })?),
            (None, _) => None,
        };
    Ok(EventFilter {
        topology: topology.map(|(id, _)| id),
        decky,
        host,
        kind: word("kind", query.kind.as_deref())?,
        service: word("service", query.service.as_deref())?,
        source: word("source", query.source.as_deref())?,
        since: time("since", query.since.as_deref())?,
        until: time("until", query.until.as_deref())?,
        last_transitions: false,
    })
}

fn unknown(noun: &'static str, reference: &str) -> FindError {
    FindError::Unknown {
        noun,
        key: reference.to_owned(),
    }
}

fn gone<T: std::str::FromStr>(reference: &str, error: FindError) -> Result<T, ApiError> {
    match error {
        FindError::Unknown { .. } => reference.parse().map_err(|_| ApiError::Find(error)),
        FindError::Store { .. } => Err(ApiError::Find(error)),
    }
}

/// Reads the table forward from a row: what an event stream is made of.
pub(super) struct Reader {
    filter: EventFilter,
    after: i64,
    ready: VecDeque<EventRow>,
}

impl Reader {
    pub(super) fn new(filter: EventFilter, after: i64) -> Self {
        Self {
            filter,
            after,
            ready: VecDeque::new(),
        }
    }

    /// The next event; none when the table has no more for now.
    pub(super) async fn next(&mut self, api: &Api) -> Result<Option<EventRow>, StoreError> {
        if self.ready.is_empty() {
            // Read before the page: rows that no filter lets through are not read again, and
            // none that is committed between the two reads is passed over.
            let newest = api.store.newest_event_row().await?;
            if newest <= self.after {
                return Ok(None);
            }
            let page = EventPage::After { row: self.after };
            let rows = api.store.events(&self.filter, page, MOST).await?;
            let last = rows.last().map_or(self.after, |row| row.row);
            let whole = shapes::count(rows.len()) < u64::from(MOST);
            self.after = if whole { last.max(newest) } else { last };
            self.ready = rows.into();
        }
        Ok(self.ready.pop_front())
    }
}

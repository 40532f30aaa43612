//! The routes about the master itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use domain::host::HostState;
use domain::topology::status::TopologyStatus;
use proto::line::format_time;
use proto::rest::{AuditQuery, AuditShape, Page, SystemStatus};

use super::extract::{Malformed, Params};
use super::pages::bounded;
use super::problem::ApiError;
use super::{Api, shapes};
use crate::db::upkeep::AuditFilter;
use crate::db::{EventFilter, StoreError};
use crate::metrics::Readings;

/// Entries of the audit log in a page when nobody says.
const USUAL: u32 = 50;

/// `GET /healthz`
pub(super) async fn healthz(State(api): State<Arc<Api>>) -> Result<&'static str, ApiError> {
    api.store.epoch().await?;
    Ok("ok\n")
}

/// `GET /api/v1/status`
pub(super) async fn status(State(api): State<Arc<Api>>) -> Result<Json<SystemStatus>, ApiError> {
    let counts = Counts::read(&api).await?;
    let owned = |counts: BTreeMap<&str, u64>| {
        counts
            .into_iter()
            .map(|(word, count)| (word.to_owned(), count))
            .collect()
    };
    Ok(Json(SystemStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: format_time(api.started_at),
        epoch: api.store.epoch().await?.get(),
        hosts: owned(counts.hosts),
        topologies: owned(counts.topologies),
        events: api.store.count_events(&EventFilter::default()).await?,
        master_url: api.enroll.master_url().to_owned(),
        ca_pin: api.enroll.pin(),
    }))
}

/// `GET /api/v1/audit`
pub(super) async fn audit(
    State(api): State<Arc<Api>>,
    Params(query): Params<AuditQuery>,
) -> Result<Json<Page<AuditShape>>, ApiError> {
    let limit = bounded(query.limit, USUAL)?;
    let before = query.cursor.as_deref().map(str::parse).transpose();
    let before = before
        .map_err(|_| ApiError::Malformed(Malformed::value("cursor", "it is none of ours")))?;
    let filter = AuditFilter {
        actor: query.actor,
        action: query.action,
        subject: query.subject,
    };
    // One more than asked for tells whether there is a next page.
    let rows = api
        .store
        .audit_page(&filter, before, limit.saturating_add(1));
    let mut rows = rows.await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > wanted;
    rows.truncate(wanted);
    Ok(Json(Page {
        items: rows.iter().map(|row| shapes::audit(&row.entry)).collect(),
        total: api.store.count_audit(&filter).await?,
        next: rows.last().filter(|_| more).map(|row| row.row.to_string()),
    }))
}

/// `GET /metrics`
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Result<impl IntoResponse, ApiError> {
    let counts = Counts::read(&api).await?;
    let open = api
        .limits
        .streams
        .saturating_sub(api.streams.available_permits());
    let readings = Readings {
        hosts: counts.hosts,
        topologies: counts.topologies,
        events_newest_row: u64::try_from(api.store.newest_event_row().await?).unwrap_or(0),
        heartbeats: api.fleet.heartbeats.load(Ordering::Relaxed),
        assignments_pushed: api.counts.pushed.load(Ordering::Relaxed),
        reconcile_passes: api.counts.passes.load(Ordering::Relaxed),
        event_streams: shapes::count(open),
    };
    let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, api.metrics.render(&readings)))
}

struct Counts {
    hosts: BTreeMap<&'static str, u64>,
    topologies: BTreeMap<&'static str, u64>,
}

impl Counts {
    async fn read(api: &Api) -> Result<Self, StoreError> {
        use HostState::{Late, Lost, Ready, Revoked, Unknown};
        // States with nothing in them are counted too: a graph needs its zeroes.
        let mut hosts: BTreeMap<_, _> = [Ready, Late, Lost, Unknown, Revoked]
            .map(|state| (state.as_str(), 0))
            .into();
        let now = (api.clock)();
        for row in api.store.hosts(false).await? {
            *hosts
                .entry(api.fleet.state_of(&row, now).as_str())
                .or_default() += 1;
        }
        let mut topologies: BTreeMap<_, _> = TopologyStatus::ALL
            .map(|status| (status.as_str(), 0))
            .into();
        for summary in api.store.topologies().await? {
            *topologies.entry(summary.status.as_str()).or_default() += 1;
        }
        Ok(Self { hosts, topologies })
    }
}

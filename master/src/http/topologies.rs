//! The routes of topologies.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use domain::revision::Revision;
use domain::topology::draft::Draft;
use domain::topology::status::TopologyStatus;
use proto::rest::{
    CreateTopology, DeployRequest, FindingShape, Findings, Page, StatusChangeShape,
    TeardownRequest, TopologiesQuery, TopologyFile,
};

use super::auth::Caller;
use super::extract::{Body, BodyOrDefault, Malformed, Params};
use super::kept::Made;
use super::pages::{Order, Window};
use super::precondition::{IfMatch, IfNoneMatch, tagged};
use super::problem::ApiError;
use super::{Api, shapes};
use crate::db::{Force, Replace};
use crate::topology::{Attempt, DeployOrder, TeardownOrder, find_host};

/// `GET /topologies`
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    RawQuery(asked): RawQuery,
    condition: IfNoneMatch,
    Params(query): Params<TopologiesQuery>,
) -> Result<Response, ApiError> {
    let key = format!("topologies?{}", asked.unwrap_or_default());
    let made = api
        .kept
        .or_make(api.store.as_ref(), key, listed(&api, query));
    Ok(condition.give(made.await?))
}

async fn listed(api: &Api, query: TopologiesQuery) -> Result<Made, ApiError> {
    let window = Window::new(query.limit, query.cursor.as_deref())?;
    let status: Option<TopologyStatus> = query
        .status
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|_| ApiError::Malformed(Malformed::value("status", "it is none")))?;
    let host = match query.host.as_deref() {
        Some(reference) => Some(find_host(api.store.as_ref(), reference).await?.id),
        None => None,
    };
    let part = query.name.map(|part| part.to_lowercase());
    let mut rows = api.store.topologies().await?;
    rows.retain(|row| {
        status.is_none_or(|status| row.status == status)
            && host.is_none_or(|host| row.host == Some(host))
            && part
                .as_ref()
                .is_none_or(|part| row.name.as_str().to_lowercase().contains(part))
    });
    let hosts: HashMap<_, _> = api
        .store
        .hosts(true)
        .await?
        .into_iter()
        .map(|row| (row.id, row))
        .collect();
    let page = window.cut(rows, |row| format!("{:019}", row.row), Order::Falling);
    let page = page.map(|row| shapes::summary(&row, row.host.and_then(|id| hosts.get(&id))));
    Ok(Made::of(None, &page))
}

/// `POST /topologies`
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Body(request): Body<CreateTopology>,
) -> Result<impl IntoResponse, ApiError> {
    let draft = Draft::from(request.topology);
    let created = api
        .topologies
        .create(&draft, request.host.as_deref(), caller.actor())
        .await?;
    let id = created.id.to_string();
    let mut inspection = api.topologies.inspect(&id).await?;
    inspection.findings = created.findings.into();
    let location = [(LOCATION, format!("/api/v1/topologies/{id}"))];
    let state = shapes::state(&inspection);
    let revision = inspection.row.topology.revision;
    Ok((location, tagged(StatusCode::CREATED, revision, &state)))
}

/// `POST /topologies/validate`
pub(super) async fn validate(
    State(api): State<Arc<Api>>,
    Body(file): Body<TopologyFile>,
) -> Json<Findings> {
    let findings = api.topologies.validate(&Draft::from(file));
    Json(Findings {
        findings: findings.iter().map(FindingShape::from).collect(),
    })
}

/// `GET /topologies/{topology}`
pub(super) async fn inspect(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    condition: IfNoneMatch,
) -> Result<Response, ApiError> {
    let inspection = api.topologies.inspect(&topology).await?;
    let state = shapes::state(&inspection);
    Ok(condition.answer(inspection.row.topology.revision, &state))
}

/// `GET /topologies/{topology}/document`
pub(super) async fn document(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    condition: IfNoneMatch,
) -> Result<Response, ApiError> {
    let key = format!("document {topology}");
    let make = async {
        let row = api.topologies.find(&topology).await?;
        let file = TopologyFile::from(&row.topology);
        Ok(Made::of(Some(row.topology.revision), &file))
    };
    let made = api.kept.or_make(api.store.as_ref(), key, make).await?;
    Ok(condition.give(made))
}

/// `GET /topologies/{topology}/hydrated`: its tag is the hash of the document.
pub(super) async fn hydrated(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    condition: IfNoneMatch,
) -> Result<Response, ApiError> {
    let (bytes, hash) = api.topologies.hydrated(&topology).await?;
    Ok(condition.respond(&hash.to_string(), bytes))
}

/// `GET /topologies/{topology}/status-events`
pub(super) async fn status_events(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
) -> Result<Json<Page<StatusChangeShape>>, ApiError> {
    let row = api.topologies.find(&topology).await?;
    let changes = api.store.status_changes(row.topology.id).await?;
    Ok(Json(shapes::whole(
        changes.iter().map(shapes::status_change).collect(),
    )))
}

/// `POST /topologies/{topology}/deploy`
pub(super) async fn deploy(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    caller: Caller,
    condition: IfMatch,
    BodyOrDefault(request): BodyOrDefault<DeployRequest>,
) -> Result<Response, ApiError> {
    let meant = unchanged(&api, topology, &condition).await?;
    begin(&api, meant, &caller, request, Attempt::Any).await
}

/// `POST /topologies/{topology}/retry`
pub(super) async fn retry(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    caller: Caller,
    condition: IfMatch,
    BodyOrDefault(request): BodyOrDefault<DeployRequest>,
) -> Result<Response, ApiError> {
    let meant = unchanged(&api, topology, &condition).await?;
    begin(&api, meant, &caller, request, Attempt::Retry).await
}

async fn begin(
    api: &Api,
    meant: Meant,
    caller: &Caller,
    request: DeployRequest,
    attempt: Attempt,
) -> Result<Response, ApiError> {
    let replace = if request.replace {
        Replace::Supersede
    } else {
        Replace::Refuse
    };
    let order = DeployOrder {
        attempt,
        replace,
        host: request.host,
        expected: meant.expected,
    };
    let deployed = api
        .topologies
        .deploy(&meant.reference, order, caller.actor())
        .await;
    let id = meant.told(deployed)?;
    accepted(api, &id.to_string()).await
}

/// `POST /topologies/{topology}/teardown`
pub(super) async fn teardown(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    caller: Caller,
    condition: IfMatch,
    BodyOrDefault(request): BodyOrDefault<TeardownRequest>,
) -> Result<Response, ApiError> {
    let meant = unchanged(&api, topology, &condition).await?;
    let order = TeardownOrder {
        force: if request.force { Force::Yes } else { Force::No },
        expected: meant.expected,
    };
    let torn = api
        .topologies
        .teardown(&meant.reference, order, caller.actor())
        .await;
    let id = meant.told(torn)?;
    accepted(&api, &id.to_string()).await
}

/// `DELETE /topologies/{topology}`
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    caller: Caller,
    condition: IfMatch,
) -> Result<StatusCode, ApiError> {
    let meant = unchanged(&api, topology, &condition).await?;
    let removed = api
        .topologies
        .delete(&meant.reference, meant.expected, caller.actor())
        .await;
    meant.told(removed)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The topology that is meant, and at which revision, if the caller has said.
pub(super) struct Meant {
    pub(super) reference: String,
    pub(super) expected: Option<Revision>,
    /// Whether it was said as a condition of the request.
    conditional: bool,
}

impl Meant {
    /// What is meant at a revision that is no condition of the request.
    pub(super) const fn at(reference: String, expected: Revision) -> Self {
        Self {
            reference,
            expected: Some(expected),
            conditional: false,
        }
    }

    /// What a use case has answered. A revision that was overtaken between the look at the condition
    /// and the act makes it a condition that does not hold.
    pub(super) fn told<T>(&self, outcome: Result<T, impl Into<ApiError>>) -> Result<T, ApiError> {
        outcome.map_err(|error| {
            let error = error.into();
            match error.overtaken() {
                Some(current) if self.conditional => ApiError::Precondition { current },
                Some(_) | None => error,
            }
        })
    }
}

/// What is meant, if it is at the revision that is meant.
pub(super) async fn unchanged(
    api: &Api,
    reference: String,
    condition: &IfMatch,
) -> Result<Meant, ApiError> {
    if condition.is_absent() {
        return Ok(Meant {
            reference,
            expected: None,
            conditional: false,
        });
    }
    let row = api.topologies.find(&reference).await?;
    let expected = condition.expected(row.topology.revision)?;
    Ok(Meant {
        expected,
        conditional: expected.is_some(),
        // Under its name another one may stand a moment later.
        reference: row.topology.id.to_string(),
    })
}

/// The intent is stored; its outcome is read from the topology.
async fn accepted(api: &Api, id: &str) -> Result<Response, ApiError> {
    let inspection = api.topologies.inspect(id).await?;
    let revision = inspection.row.topology.revision;
    let state = shapes::state(&inspection);
    Ok(tagged(StatusCode::ACCEPTED, revision, &state))
}

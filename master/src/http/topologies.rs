//! The routes of topologies.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION};
use axum::response::IntoResponse;
use domain::topology::draft::Draft;
use proto::rest::{
    CreateTopology, DeployRequest, FindingShape, Findings, Page, StatusChangeShape,
    TeardownRequest, TopologyFile, TopologyShape, TopologyState,
};

use super::auth::Caller;
use super::extract::{Body, BodyOrDefault};
use super::problem::ApiError;
use super::{Api, shapes};
use crate::db::{Force, Replace};
use crate::topology::{Attempt, DeployOrder};

/// `GET /topologies`
pub(super) async fn list(
    State(api): State<Arc<Api>>,
) -> Result<Json<Page<TopologyShape>>, ApiError> {
    let hosts: HashMap<_, _> = api
        .store
        .hosts(true)
        .await?
        .into_iter()
        .map(|row| (row.id, row))
        .collect();
    let items = api.store.topologies().await?;
    let items = items
        .iter()
        .map(|summary| shapes::summary(summary, summary.host.and_then(|id| hosts.get(&id))))
        .collect();
    Ok(Json(shapes::whole(items)))
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
    inspection.findings = created.findings;
    let location = [(LOCATION, format!("/api/v1/topologies/{id}"))];
    Ok((
        StatusCode::CREATED,
        location,
        Json(shapes::state(&inspection)),
    ))
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
) -> Result<Json<TopologyState>, ApiError> {
    Ok(Json(shapes::state(
        &api.topologies.inspect(&topology).await?,
    )))
}

/// `GET /topologies/{topology}/document`
pub(super) async fn document(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
) -> Result<Json<TopologyFile>, ApiError> {
    let row = api.topologies.find(&topology).await?;
    Ok(Json(TopologyFile::from(&row.topology)))
}

/// `GET /topologies/{topology}/hydrated`
pub(super) async fn hydrated(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let (bytes, hash) = api.topologies.hydrated(&topology).await?;
    let headers = [
        (CONTENT_TYPE, "application/json".to_owned()),
        (ETAG, format!("\"{hash}\"")),
    ];
    Ok((headers, bytes))
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
    BodyOrDefault(request): BodyOrDefault<DeployRequest>,
) -> Result<(StatusCode, Json<TopologyState>), ApiError> {
    begin(&api, &topology, &caller, request, Attempt::Any).await
}

/// `POST /topologies/{topology}/retry`
pub(super) async fn retry(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    caller: Caller,
    BodyOrDefault(request): BodyOrDefault<DeployRequest>,
) -> Result<(StatusCode, Json<TopologyState>), ApiError> {
    begin(&api, &topology, &caller, request, Attempt::Retry).await
}

async fn begin(
    api: &Api,
    topology: &str,
    caller: &Caller,
    request: DeployRequest,
    attempt: Attempt,
) -> Result<(StatusCode, Json<TopologyState>), ApiError> {
    let replace = if request.replace {
        Replace::Supersede
    } else {
        Replace::Refuse
    };
    let order = DeployOrder {
        attempt,
        replace,
        host: request.host,
    };
    let id = api
        .topologies
        .deploy(topology, order, caller.actor())
        .await?;
    accepted(api, &id.to_string()).await
}

/// `POST /topologies/{topology}/teardown`
pub(super) async fn teardown(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    caller: Caller,
    BodyOrDefault(request): BodyOrDefault<TeardownRequest>,
) -> Result<(StatusCode, Json<TopologyState>), ApiError> {
    let force = if request.force { Force::Yes } else { Force::No };
    let id = api
        .topologies
        .teardown(&topology, force, caller.actor())
        .await?;
    accepted(&api, &id.to_string()).await
}

/// `DELETE /topologies/{topology}`
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(topology): Path<String>,
    caller: Caller,
) -> Result<StatusCode, ApiError> {
    api.topologies.delete(&topology, caller.actor()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The intent is stored; its outcome is read from the topology.
async fn accepted(api: &Api, id: &str) -> Result<(StatusCode, Json<TopologyState>), ApiError> {
    let inspection = api.topologies.inspect(id).await?;
    Ok((StatusCode::ACCEPTED, Json(shapes::state(&inspection))))
}

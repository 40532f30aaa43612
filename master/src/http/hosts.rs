//! The routes of hosts.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use domain::host::Standing;
use proto::rest::{HostShape, HostsQuery, Page, RemoveHostQuery};

use super::auth::Caller;
use super::extract::Params;
use super::pages::{Order, Window};
use super::problem::ApiError;
use super::{Api, shapes};
use crate::db::{Force, HostRow};
use crate::topology::find_host;

/// `GET /hosts`
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Params(query): Params<HostsQuery>,
) -> Result<Json<Page<HostShape>>, ApiError> {
    let window = Window::new(query.limit, query.cursor.as_deref())?;
    let part = query.name.map(|part| part.to_lowercase());
    let rows = api.store.hosts(query.removed).await?;
    let mut shapes: Vec<HostShape> = rows.iter().map(|row| shape(&api, row)).collect();
    shapes.retain(|host| {
        query
            .state
            .as_ref()
            .is_none_or(|state| host.state == *state)
            && part
                .as_ref()
                .is_none_or(|part| host.name.to_lowercase().contains(part))
    });
    // Of hosts that were removed several may have had one name.
    let place = |host: &HostShape| format!("{}/{}", host.name.to_lowercase(), host.id);
    Ok(Json(
        window.cut(shapes, place, Order::Rising).map(|host| host),
    ))
}

/// `GET /hosts/{host}`
pub(super) async fn inspect(
    State(api): State<Arc<Api>>,
    Path(host): Path<String>,
) -> Result<Json<HostShape>, ApiError> {
    let row = find_host(api.store.as_ref(), &host).await?;
    Ok(Json(shape(&api, &row)))
}

/// `POST /hosts/{host}/cordon`
pub(super) async fn cordon(
    State(api): State<Arc<Api>>,
    Path(host): Path<String>,
    caller: Caller,
) -> Result<Json<HostShape>, ApiError> {
    change(&api, &host, Standing::Cordoned, Force::No, &caller).await
}

/// `POST /hosts/{host}/uncordon`
pub(super) async fn uncordon(
    State(api): State<Arc<Api>>,
    Path(host): Path<String>,
    caller: Caller,
) -> Result<Json<HostShape>, ApiError> {
    change(&api, &host, Standing::Open, Force::No, &caller).await
}

/// `POST /hosts/{host}/drain`
pub(super) async fn drain(
    State(api): State<Arc<Api>>,
    Path(host): Path<String>,
    caller: Caller,
) -> Result<Json<HostShape>, ApiError> {
    change(&api, &host, Standing::Draining, Force::No, &caller).await
}

/// `POST /hosts/{host}/revoke`
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Path(host): Path<String>,
    caller: Caller,
) -> Result<Json<HostShape>, ApiError> {
    change(&api, &host, Standing::Revoked, Force::No, &caller).await
}

/// `DELETE /hosts/{host}`
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(host): Path<String>,
    Params(query): Params<RemoveHostQuery>,
    caller: Caller,
) -> Result<Json<HostShape>, ApiError> {
    let force = if query.force { Force::Yes } else { Force::No };
    change(&api, &host, Standing::Removed, force, &caller).await
}

async fn change(
    api: &Api,
    host: &str,
    to: Standing,
    force: Force,
    caller: &Caller,
) -> Result<Json<HostShape>, ApiError> {
    let row = find_host(api.store.as_ref(), host).await?;
    let row = api
        .fleet
        .set_standing(row.id, to, force, caller.actor())
        .await?;
    Ok(Json(shape(api, &row)))
}

fn shape(api: &Api, row: &HostRow) -> HostShape {
    let state = api.fleet.state_of(row, (api.clock)());
    shapes::host(
        row,
        state,
        api.fleet.last_seen(row),
        api.fleet.live(row.id).as_ref(),
    )
}

//! The one table of routes: method, path, who may, and what answers. A route that is not here
//! does not exist.

use std::sync::Arc;

use axum::http::Method;
use axum::routing::{MethodRouter, delete, get, post};

use super::auth::{Access, Role};
use super::{Api, events, hosts, stream, system, tokens, topologies};

/// One route.
pub(super) struct Route {
    /// The method.
    pub(super) method: Method,
    /// The path, as axum writes it.
    pub(super) path: &'static str,
    /// Who may.
    pub(super) access: Access,
    /// What answers.
    pub(super) handler: fn() -> MethodRouter<Arc<Api>>,
}

const fn route(
    method: Method,
    path: &'static str,
    access: Access,
    handler: fn() -> MethodRouter<Arc<Api>>,
) -> Route {
    Route { method, path, access, handler }
}

const OPEN: Access = Access::Open;
const VIEWER: Access = Access::Needs(Role::Viewer);
const OPERATOR: Access = Access::Needs(Role::Operator);
const ADMIN: Access = Access::Needs(Role::Admin);

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;

/// Every route. The next one goes beside those of its noun.
#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    route(GET, "/healthz", OPEN, || get(system::healthz)),
    route(GET, "/metrics", VIEWER, || get(system::metrics)),
    route(GET, "/api/v1/status", VIEWER, || get(system::status)),
    route(GET, "/api/v1/audit", ADMIN, || get(system::audit)),

    route(GET, "/api/v1/tokens", ADMIN, || get(tokens::list)),
    route(POST, "/api/v1/tokens", ADMIN, || post(tokens::mint)),
    route(DELETE, "/api/v1/tokens/{id}", ADMIN, || delete(tokens::remove)),

    route(GET, "/api/v1/hosts", VIEWER, || get(hosts::list)),
    route(GET, "/api/v1/hosts/{host}", VIEWER, || get(hosts::inspect)),
    route(DELETE, "/api/v1/hosts/{host}", ADMIN, || delete(hosts::remove)),
    route(POST, "/api/v1/hosts/{host}/cordon", OPERATOR, || post(hosts::cordon)),
    route(POST, "/api/v1/hosts/{host}/uncordon", OPERATOR, || post(hosts::uncordon)),
    route(POST, "/api/v1/hosts/{host}/drain", OPERATOR, || post(hosts::drain)),
    route(POST, "/api/v1/hosts/{host}/revoke", ADMIN, || post(hosts::revoke)),

    route(GET, "/api/v1/topologies", VIEWER, || get(topologies::list)),
    route(POST, "/api/v1/topologies", OPERATOR, || post(topologies::create)),
    route(POST, "/api/v1/topologies/validate", VIEWER, || post(topologies::validate)),
    route(GET, "/api/v1/topologies/{topology}", VIEWER, || get(topologies::inspect)),
    route(DELETE, "/api/v1/topologies/{topology}", OPERATOR, || delete(topologies::remove)),
    route(GET, "/api/v1/topologies/{topology}/document", VIEWER, || get(topologies::document)),
    route(GET, "/api/v1/topologies/{topology}/hydrated", VIEWER, || get(topologies::hydrated)),
    route(GET, "/api/v1/topologies/{topology}/status-events", VIEWER, || get(topologies::status_events)),
    route(POST, "/api/v1/topologies/{topology}/deploy", OPERATOR, || post(topologies::deploy)),
    route(POST, "/api/v1/topologies/{topology}/retry", OPERATOR, || post(topologies::retry)),
    route(POST, "/api/v1/topologies/{topology}/teardown", OPERATOR, || post(topologies::teardown)),

    route(GET, "/api/v1/events", VIEWER, || get(events::list)),
    route(GET, "/api/v1/events/stream", VIEWER, || get(stream::stream)),
    route(GET, "/api/v1/events/export", VIEWER, || get(events::export)),
];

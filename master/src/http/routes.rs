//! The one table of routes: method, path, who may, and what answers. A route that is not here
//! does not exist.

use std::sync::Arc;

use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::auth::{Access, Role};
use super::{Api, events, hosts, mutations, news, stream, system, tokens, topologies};

/// One route.
pub(super) struct Route {
    /// The method.
    pub(super) method: Method,
    /// The path, as axum writes it.
    pub(super) path: &'static str,
    /// Who may.
    pub(super) access: Access,
    /// What answers.
    handler: fn(MethodFilter) -> MethodRouter<Arc<Api>>,
}

const fn route(
    method: Method,
    path: &'static str,
    access: Access,
    handler: fn(MethodFilter) -> MethodRouter<Arc<Api>>,
) -> Route {
    Route {
        method,
        path,
        access,
        handler,
    }
}

impl Route {
    /// What answers, under its method alone.
    pub(super) fn service(&self) -> MethodRouter<Arc<Api>> {
        let method = MethodFilter::try_from(self.method.clone());
        (self.handler)(method.expect("the table holds none but the methods of HTTP"))
    }
}

const OPEN: Access = Access::Open;
const VIEWER: Access = Access::Needs(Role::Viewer);
const OPERATOR: Access = Access::Needs(Role::Operator);
const ADMIN: Access = Access::Needs(Role::Admin);

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const DELETE: Method = Method::DELETE;

/// Every route. The next one goes beside those of its noun.
#[rustfmt::skip]
pub(super) const ROUTES: &[Route] = &[
    route(GET, "/healthz", OPEN, |method| on(method, system::healthz)),
    route(GET, "/metrics", VIEWER, |method| on(method, system::metrics)),
    route(GET, "/api/v1/status", VIEWER, |method| on(method, system::status)),
    route(GET, "/api/v1/audit", ADMIN, |method| on(method, system::audit)),

    route(GET, "/api/v1/tokens", ADMIN, |method| on(method, tokens::list)),
    route(POST, "/api/v1/tokens", ADMIN, |method| on(method, tokens::mint)),
    route(DELETE, "/api/v1/tokens/{id}", ADMIN, |method| on(method, tokens::remove)),

    route(GET, "/api/v1/hosts", VIEWER, |method| on(method, hosts::list)),
    route(GET, "/api/v1/hosts/{host}", VIEWER, |method| on(method, hosts::inspect)),
    route(DELETE, "/api/v1/hosts/{host}", ADMIN, |method| on(method, hosts::remove)),
    route(POST, "/api/v1/hosts/{host}/cordon", OPERATOR, |method| on(method, hosts::cordon)),
    route(POST, "/api/v1/hosts/{host}/uncordon", OPERATOR, |method| on(method, hosts::uncordon)),
    route(POST, "/api/v1/hosts/{host}/drain", OPERATOR, |method| on(method, hosts::drain)),
    route(POST, "/api/v1/hosts/{host}/revoke", ADMIN, |method| on(method, hosts::revoke)),

    route(GET, "/api/v1/topologies", VIEWER, |method| on(method, topologies::list)),
    route(POST, "/api/v1/topologies", OPERATOR, |method| on(method, topologies::create)),
    route(POST, "/api/v1/topologies/validate", VIEWER, |method| on(method, topologies::validate)),
    route(GET, "/api/v1/topologies/{topology}", VIEWER, |method| on(method, topologies::inspect)),
    route(DELETE, "/api/v1/topologies/{topology}", OPERATOR, |method| on(method, topologies::remove)),
    route(GET, "/api/v1/topologies/{topology}/document", VIEWER, |method| on(method, topologies::document)),
    route(GET, "/api/v1/topologies/{topology}/hydrated", VIEWER, |method| on(method, topologies::hydrated)),
    route(GET, "/api/v1/topologies/{topology}/status-events", VIEWER, |method| on(method, topologies::status_events)),
    route(POST, "/api/v1/topologies/{topology}/deploy", OPERATOR, |method| on(method, topologies::deploy)),
    route(POST, "/api/v1/topologies/{topology}/retry", OPERATOR, |method| on(method, topologies::retry)),
    route(POST, "/api/v1/topologies/{topology}/teardown", OPERATOR, |method| on(method, topologies::teardown)),
    route(POST, "/api/v1/topologies/{topology}/apply", OPERATOR, |method| on(method, mutations::apply)),
    route(GET, "/api/v1/topologies/{topology}/mutations", VIEWER, |method| on(method, mutations::list)),
    route(POST, "/api/v1/topologies/{topology}/mutations", OPERATOR, |method| on(method, mutations::edit)),
    route(POST, "/api/v1/topologies/{topology}/mutate", OPERATOR, |method| on(method, mutations::mutate_all)),
    route(POST, "/api/v1/topologies/{topology}/deckies/{decky}/mutate", OPERATOR, |method| on(method, mutations::mutate_decky)),
    route(GET, "/api/v1/topologies/{topology}/layout", VIEWER, |method| on(method, mutations::layout)),
    route(PUT, "/api/v1/topologies/{topology}/layout", OPERATOR, |method| on(method, mutations::put_layout)),
    route(GET, "/api/v1/topologies/{topology}/next-subnet", VIEWER, |method| on(method, mutations::next_subnet)),
    route(GET, "/api/v1/topologies/{topology}/lans/{lan}/next-address", VIEWER, |method| on(method, mutations::next_address)),
    route(GET, "/api/v1/topologies/{topology}/events", VIEWER, |method| on(method, news::stream)),

    route(GET, "/api/v1/mutations/{mutation}", VIEWER, |method| on(method, mutations::inspect)),
    route(POST, "/api/v1/mutations/{mutation}/cancel", OPERATOR, |method| on(method, mutations::cancel)),
    route(POST, "/api/v1/mutations/{mutation}/revert", OPERATOR, |method| on(method, mutations::revert)),

    route(GET, "/api/v1/events", VIEWER, |method| on(method, events::list)),
    route(GET, "/api/v1/events/stream", VIEWER, |method| on(method, stream::stream)),
    route(GET, "/api/v1/events/export", VIEWER, |method| on(method, events::export)),
];

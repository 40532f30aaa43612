//! The operators' side of the master: REST under `/api/v1`, event streams, `/healthz` and
//! `/metrics`. It translates: what is allowed and what it means is decided by the use cases.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::db::Store;
use crate::enroll::Enroll;
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::pipeline::Ingest;
use crate::reconcile::ReconcileCounts;
use crate::topology::Topologies;

pub mod auth;
mod events;
mod extract;
mod guard;
mod hosts;
pub mod problem;
mod routes;
mod server;
mod shapes;
mod stream;
mod system;
#[cfg(test)]
mod tests;
mod tokens;
mod topologies;

pub use guard::KnownNames;
pub use server::{BindError, bind, serve};

/// What the handlers work with.
pub struct Api {
    /// What the master must not forget.
    pub store: Arc<dyn Store>,
    /// Which hosts are there.
    pub fleet: Arc<Fleet>,
    /// Makes join tokens.
    pub enroll: Arc<Enroll>,
    /// The use cases of topologies.
    pub topologies: Arc<Topologies>,
    /// Tells of stored events.
    pub ingest: Arc<Ingest>,
    /// What the reconciler counts.
    pub reconciled: Arc<ReconcileCounts>,
    /// What everybody else counts.
    pub metrics: Arc<Metrics>,
    /// Who may ask.
    pub tokens: auth::ApiTokens,
    /// Under which names this server is asked.
    pub names: KnownNames,
    /// The time.
    pub clock: Clock,
    /// Since when the master runs.
    pub started_at: OffsetDateTime,
    /// How much is taken of one request, and how many at a time.
    pub limits: HttpLimits,
    /// Places for event streams; one is held while a stream is open.
    pub streams: Arc<Semaphore>,
    /// Ends streams and, with them, the server.
    pub shutdown: CancellationToken,
}

/// How much is taken of one request, and how many at a time.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Largest body, in bytes.
    pub body: usize,
    /// How long a request may take until its answer begins.
    pub request: std::time::Duration,
    /// Most connections.
    pub connections: usize,
    /// Most event streams.
    pub streams: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            body: proto::topology_file::MAX_FILE,
            request: std::time::Duration::from_secs(30),
            connections: 512,
            streams: 64,
        }
    }
}

/// Every route, behind what stands before all of them.
pub fn router(api: Arc<Api>) -> Router {
    let routes = routes::ROUTES.iter().fold(Router::new(), |router, route| {
        let access = (Arc::clone(&api), route.access);
        let handler = (route.handler)().route_layer(from_fn_with_state(access, auth::authorize));
        router.route(route.path, handler)
    });
    routes
        .fallback(guard::no_route)
        .method_not_allowed_fallback(guard::no_method)
        .layer(axum::extract::DefaultBodyLimit::max(api.limits.body))
        .layer(from_fn_with_state(Arc::clone(&api), guard::admit))
        .with_state(api)
}

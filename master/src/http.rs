//! The operators' side of the master: REST under `/api/v1`, event streams, `/healthz` and
//! `/metrics`. It translates: what is allowed and what it means is decided by the use cases.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Uri;
use axum::middleware::from_fn_with_state;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::auth::{AdminToken, LocalToken};
use self::guard::KnownNames;
use self::kept::Kept;
use crate::bus::Bus;
use crate::clock::Clock;
use crate::db::Store;
use crate::enroll::Enroll;
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::operators::Operators;
use crate::pipeline::Ingest;
use crate::reconcile::ReconcileCounts;
use crate::signal::{Conditions, Waker};
use crate::topology::{Editor, Judgements, Topologies};

mod api_tokens;
pub mod auth;
mod document;
mod events;
mod extract;
mod guard;
mod hosts;
mod idempotency;
mod kept;
mod mutations;
mod news;
mod pages;
mod precondition;
mod problem;
mod routes;
mod server;
mod session;
mod shapes;
mod stream;
mod system;
#[cfg(test)]
mod tests;
mod tokens;
mod topologies;
mod users;

pub use server::serve;

/// What the operators' side is made of.
pub struct ApiParts {
    /// What the master must not forget.
    pub store: Arc<dyn Store>,
    /// Which hosts are there.
    pub fleet: Arc<Fleet>,
    /// Makes join tokens.
    pub enroll: Arc<Enroll>,
    /// Tells of stored events.
    pub ingest: Arc<Ingest>,
    /// Where changes are told.
    pub bus: Arc<Bus>,
    /// Wakes the reconciler.
    pub waker: Waker,
    /// Edits topologies; every part of the master that does holds a clone of one.
    pub editor: Editor,
    /// What the reconciler awaits.
    pub conditions: Arc<Conditions>,
    /// What the reconciler counts.
    pub counts: Arc<ReconcileCounts>,
    /// What everybody else counts.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
    /// The token that may do everything.
    pub admin: AdminToken,
    /// Who may ask beside whoever has it.
    pub operators: Operators,
    /// Where operators are served.
    pub api_address: SocketAddr,
    /// Since when the master runs.
    pub started_at: OffsetDateTime,
    /// How long a deploy may take before it is given up.
    pub deploy_deadline: Duration,
}

/// What the handlers work with.
pub struct Api {
    store: Arc<dyn Store>,
    fleet: Arc<Fleet>,
    enroll: Arc<Enroll>,
    ingest: Arc<Ingest>,
    topologies: Topologies,
    kept: Kept,
    counts: Arc<ReconcileCounts>,
    metrics: Arc<Metrics>,
    local: LocalToken,
    operators: Operators,
    names: KnownNames,
    clock: Clock,
    started_at: OffsetDateTime,
    limits: HttpLimits,
    /// Places for event streams; one is held while a stream is open.
    streams: Arc<Semaphore>,
    /// How many of them each caller holds.
    held: Arc<stream::Held>,
    /// Ends streams, which would go on for ever.
    ending: CancellationToken,
}

/// How much is taken of one request, and how many at a time.
#[derive(Debug, Clone, Copy)]
struct HttpLimits {
    /// Largest body, in bytes.
    body: usize,
    /// How long a request may take until its answer begins.
    request: Duration,
    /// Most connections.
    connections: usize,
    /// Most event streams.
    streams: usize,
    /// Most event streams of one caller.
    streams_of_one: usize,
    /// How long a client may leave unread what it was sent.
    unread: Duration,
    /// How often it is looked whether the caller of a stream is still known.
    recheck: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            body: proto::topology_file::MAX_FILE,
            request: Duration::from_secs(30),
            connections: 512,
            streams: 64,
            streams_of_one: 32,
            unread: Duration::from_secs(60),
            recheck: Duration::from_secs(5),
        }
    }
}

impl Api {
    /// An API that nobody has asked yet.
    pub fn new(parts: ApiParts) -> Arc<Self> {
        Self::with(parts, HttpLimits::default())
    }

    fn with(parts: ApiParts, limits: HttpLimits) -> Arc<Self> {
        let address = match parts.api_address.ip() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        // A TLS proxy in front of this server is asked under the name that hosts dial.
        let advertised = parts.enroll.master_url().parse::<Uri>().ok();
        let advertised = advertised.as_ref().and_then(Uri::host);
        let names = KnownNames::loopback_and(advertised.into_iter().chain([address.as_str()]));
        let topologies = Topologies {
            judgements: Judgements::default(),
            editor: parts.editor,
            store: Arc::clone(&parts.store),
            fleet: Arc::clone(&parts.fleet),
            conditions: parts.conditions,
            waker: parts.waker,
            bus: parts.bus,
            clock: Arc::clone(&parts.clock),
            deploy_timeout: parts.deploy_deadline,
        };
        Arc::new(Self {
            store: parts.store,
            fleet: parts.fleet,
            enroll: parts.enroll,
            ingest: parts.ingest,
            topologies,
            kept: Kept::default(),
            counts: parts.counts,
            metrics: parts.metrics,
            local: LocalToken::new(&parts.admin),
            operators: parts.operators,
            names,
            clock: parts.clock,
            started_at: parts.started_at,
            limits,
            streams: Arc::new(Semaphore::new(limits.streams)),
            held: Arc::default(),
            ending: CancellationToken::new(),
        })
    }
}

/// Every route, behind what stands before all of them.
fn router(api: Arc<Api>) -> Router {
    let routes = routes::ROUTES.iter().fold(Router::new(), |router, route| {
        let access = (Arc::clone(&api), route.access);
        let mut handler = route.service();
        // Inside of the authorization: keys belong to whoever asks.
        if route.is_keyed() {
            let keyed = from_fn_with_state(Arc::clone(&api), idempotency::keyed);
            handler = handler.route_layer(keyed);
        }
        let handler = handler.route_layer(from_fn_with_state(access, auth::authorize));
        router.route(route.path, handler)
    });
    routes
        .fallback(guard::no_route)
        .method_not_allowed_fallback(guard::no_method)
        .layer(axum::extract::DefaultBodyLimit::max(api.limits.body))
        .layer(from_fn_with_state(Arc::clone(&api), guard::admit))
        .with_state(api)
}

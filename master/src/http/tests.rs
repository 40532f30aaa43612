//! The API in one process: a real store, real use cases, requests through the router.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use domain::assign::{HostReport, Phase};
use domain::id::{HostId, TokenId};
use domain::name::HostName;
use domain::observe::Inventory;
use domain::role::Role;
use pki::acceptor::Connections;
use pki::ca::CertificateAuthority;
use pki::fingerprint::KeyFingerprint;
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;
use tower::ServiceExt as _;

use super::auth::AdminToken;
use super::routes::{ROUTES, Route};
use super::{Api, ApiParts, HttpLimits, router};
use crate::allow::AllowTable;
use crate::bus::Bus;
use crate::clock::Clock;
use crate::db::accounts::{ApiTokenId, ApiTokenRow, PasswordHash, SessionRow, UserId, UserRow};
use crate::db::sqlite;
use crate::db::{Actor, Redemption, Store, TokenRow};
use crate::enroll::Enroll;
use crate::entropy::{random, uuid_v7};
use crate::fleet::{Fleet, FleetParts, Session};
use crate::metrics::Metrics;
use crate::operators::secret;
use crate::operators::{Operators, PASSWORD_FILE};
use crate::pipeline::Ingest;
use crate::reconcile::ReconcileCounts;
use crate::signal::{Conditions, MutationWaker, Waker};
use crate::topology::Editor;

mod access;
mod accounts;
mod bus;
mod conditions;
mod document;
mod documents;
mod events;
mod fleet;
mod hostile;
mod keys;
mod mutations;
mod news;
mod pages;
mod topologies;

const VIEWER: &str = "dca_viewer";
const OPERATOR: &str = "dca_operator";
const EXPIRED: &str = "dca_expired";
const REVOKED: &str = "dca_revoked";

/// A master without its ports.
struct World {
    api: Arc<Api>,
    router: Router,
    store: Arc<dyn Store>,
    fleet: Arc<Fleet>,
    allow: Arc<AllowTable>,
    ingest: Arc<Ingest>,
    bus: Arc<Bus>,
    admin: String,
    now: Arc<Mutex<OffsetDateTime>>,
    metrics: Arc<Metrics>,
    folder: TempDir,
}

/// What was answered.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("an answer in JSON")
    }

    /// The answer's value, of which `status` is expected.
    #[track_caller]
    fn expect(&self, status: u16) -> Value {
        let text = String::from_utf8_lossy(&self.bytes);
        assert_eq!(self.status.as_u16(), status, "{text}");
        if self.bytes.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }

    /// The problem of which status and kind are expected.
    #[track_caller]
    fn problem(&self, status: u16, kind: &str) -> Value {
        let problem = self.expect(status);
        assert_eq!(problem["type"], format!("urn:decnet:{kind}"), "{problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(self.headers[CONTENT_TYPE], "application/problem+json");
        problem
    }
}

impl World {
    async fn new() -> Self {
        Self::with(HttpLimits::default()).await
    }

    async fn with(limits: HttpLimits) -> Self {
        let folder = tempfile::tempdir().expect("temporary directory");
        let start = OffsetDateTime::from_unix_timestamp(1_900_000_000).expect("a time");
        let now = Arc::new(Mutex::new(start));
        let clock: Clock = {
            let now = Arc::clone(&now);
            Arc::new(move || *now.lock().expect("nobody panics with it"))
        };
        let metrics = Arc::<Metrics>::default();
        let store = sqlite::open(&folder.path().join("master.db")).await;
        let store = store.expect("a new database");
        let store: Arc<dyn Store> = Arc::new(store.counted_in(Arc::clone(&metrics)));
        let waker = Waker::default();
        let bus = Arc::new(Bus::default());
        let allow = Arc::<AllowTable>::default();
        let parts = FleetParts {
            store: Arc::clone(&store),
            allow: Arc::clone(&allow),
            connections: Connections::new(),
            bus: Arc::clone(&bus),
            waker: waker.clone(),
            clock: Arc::clone(&clock),
            period: Duration::from_secs(10),
        };
        let fleet = Fleet::open(parts).await.expect("a fleet of nobody");
        let enroll = Arc::new(Enroll::new(
            Arc::clone(&store),
            Arc::new(CertificateAuthority::create(start).expect("a CA")),
            Arc::clone(&fleet),
            Arc::clone(&clock),
            Duration::from_secs(86_400),
            "https://master.example:7443".to_owned(),
        ));
        let ingest = Arc::new(Ingest::new(Arc::clone(&store), Arc::clone(&clock)));
        let admin = AdminToken::generate();
        let text = admin.expose().to_owned();
        let operators = Operators::new(
            Arc::clone(&store),
            Arc::clone(&clock),
            folder.path().join(PASSWORD_FILE),
        );
        let editor = Editor::new(
            Arc::clone(&store),
            Arc::clone(&bus),
            MutationWaker::default(),
            Arc::clone(&clock),
        );
        let api = Api::with(
            ApiParts {
                store: Arc::clone(&store),
                fleet: Arc::clone(&fleet),
                enroll,
                ingest: Arc::clone(&ingest),
                bus: Arc::clone(&bus),
                waker,
                editor,
                conditions: Arc::new(Conditions::default()),
                counts: Arc::new(ReconcileCounts::default()),
                metrics: Arc::clone(&metrics),
                clock,
                admin,
                operators,
                api_address: "127.0.0.1:8080".parse().expect("an address"),
                started_at: start,
                deploy_deadline: Duration::from_secs(120),
            },
            limits,
        );
        let router = router(Arc::clone(&api));
        let world = Self {
            api,
            router,
            store,
            fleet,
            allow,
            ingest,
            bus,
            admin: text,
            now,
            metrics,
            folder,
        };
        world.token("viewer", Role::Viewer, VIEWER).await;
        world.token("operator", Role::Operator, OPERATOR).await;
        world
    }

    /// Stores an API token of that text.
    async fn token(&self, name: &str, role: Role, text: &str) -> ApiTokenId {
        let row = ApiTokenRow {
            id: ApiTokenId::new(uuid_v7(self.now())),
            hash: secret::hash(text.as_bytes()),
            name: name.to_owned(),
            role,
            creator: "test".to_owned(),
            created_at: self.now(),
            expires_at: None,
            revoked_at: None,
        };
        let stored = self.store.insert_api_token(&row, Actor::Reconciler).await;
        stored.expect("a new token is stored");
        row.id
    }

    /// Two tokens that were of use once.
    async fn expired_and_revoked(&self) {
        let id = self.token("revoked", Role::Admin, REVOKED).await;
        let now = self.now();
        let revoked = self.store.revoke_api_token(id, Actor::Reconciler, now);
        assert!(revoked.await.expect("answered"));
        let expired = ApiTokenRow {
            id: ApiTokenId::new(uuid_v7(now)),
            hash: secret::hash(EXPIRED.as_bytes()),
            name: "expired".to_owned(),
            role: Role::Admin,
            creator: "test".to_owned(),
            created_at: now - time::Duration::HOUR,
            expires_at: Some(now),
            revoked_at: None,
        };
        let stored = self.store.insert_api_token(&expired, Actor::Reconciler);
        stored.await.expect("stored");
    }

    /// A session of a new user, without the cost of a password.
    async fn session(&self, name: &str, role: Role) -> String {
        self.opened(name, role, false).await
    }

    /// A session of a new user that must change its password.
    async fn fresh_session(&self) -> String {
        self.opened("fresh", Role::Admin, true).await
    }

    async fn opened(&self, name: &str, role: Role, must_change: bool) -> String {
        let now = self.now();
        let unique = hex::encode(random::<4>());
        let user = UserRow {
            id: UserId::new(uuid_v7(now)),
            name: format!("{name}-{unique}"),
            password_hash: PasswordHash::new("none".to_owned()),
            role,
            must_change,
            created_at: now,
            password_at: now,
        };
        let stored = self.store.insert_user(&user, Actor::Reconciler).await;
        stored.expect("a new user is stored");
        let token = secret::Secret::session();
        let session = SessionRow {
            hash: token.hash(),
            user: user.id,
            origin: "203.0.113.9".to_owned(),
            created_at: now,
            expires_at: now + time::Duration::HOUR,
        };
        let stored = self.store.insert_session(&session, &user.password_hash);
        assert!(stored.await.expect("stored"), "the password is that one");
        token.expose().to_owned()
    }

    fn now(&self) -> OffsetDateTime {
        *self.now.lock().expect("nobody panics with it")
    }

    fn pass(&self, seconds: i64) {
        *self.now.lock().expect("nobody panics with it") += time::Duration::seconds(seconds);
    }

    /// Sends a request. Whatever is answered, the document says that it can be.
    async fn send(&self, request: Request<Body>) -> axum::response::Response {
        let route = route_of(request.method(), request.uri().path());
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("the router answers everything");
        if let Some(route) = route {
            let status = response.status().as_u16();
            assert!(
                route.statuses().contains(&status),
                "{} {} answered {status}, which the document does not know",
                route.method,
                route.path
            );
        }
        response
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let response = self.send(request).await;
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX)
            .await
            .expect("a whole body")
            .to_vec();
        Answer {
            status: parts.status,
            headers: parts.headers,
            bytes,
        }
    }

    fn request(&self, method: Method, path: &str) -> axum::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost:8080")
            .header(AUTHORIZATION, format!("Bearer {}", self.admin))
    }

    async fn get(&self, path: &str) -> Answer {
        let request = self.request(Method::GET, path).body(Body::empty());
        self.answer(request.expect("a request")).await
    }

    async fn delete(&self, path: &str) -> Answer {
        let request = self.request(Method::DELETE, path).body(Body::empty());
        self.answer(request.expect("a request")).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.with_body(Method::POST, path, body).await
    }

    async fn with_body(&self, method: Method, path: &str, body: Value) -> Answer {
        let request = self
            .request(method, path)
            .header(CONTENT_TYPE, "application/json");
        self.answer(
            request
                .body(Body::from(body.to_string()))
                .expect("a request"),
        )
        .await
    }

    /// Any request with any token.
    async fn as_(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(AUTHORIZATION, format!("Bearer {token}"));
        let request = match body {
            Some(body) => request
                .header(CONTENT_TYPE, "application/json")
                .body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        self.answer(request.expect("a request")).await
    }

    /// A host that has joined and never connected.
    async fn host(&self, name: &str) -> HostId {
        self.host_with(name, KeyFingerprint::from_bytes(random()))
            .await
    }

    async fn host_with(&self, name: &str, key: KeyFingerprint) -> HostId {
        let now = self.now();
        let token = TokenRow {
            id: TokenId::new(uuid_v7(now)),
            secret_hash: random(),
            name: HostName::parse(name).expect("a host name"),
            created_at: now,
            expires_at: now + time::Duration::HOUR,
            creator: "test".to_owned(),
            redeemed_by: None,
        };
        let redemption = Redemption {
            token: token.id,
            secret_hash: token.secret_hash,
            expected_name: None,
            host: HostId::new(uuid_v7(now)),
            key,
            agent_version: "0.1.0".to_owned(),
            now,
        };
        self.store.insert_token(token).await.expect("stored");
        self.store.redeem(redemption).await.expect("redeemed").host
    }

    /// A host that is connected and holds nothing.
    async fn ready_host(&self, name: &str) -> (HostId, Session) {
        let host = self.host(name).await;
        let session = self.fleet.register(host, "0.1.1", 7, empty_report());
        (host, session)
    }

    /// Stores a topology that can be deployed.
    async fn topology(&self, name: &str) -> String {
        let created = self
            .post("/api/v1/topologies", json!({ "topology": file(name) }))
            .await;
        created.expect(201)["topology"]["id"]
            .as_str()
            .expect("an id")
            .to_owned()
    }

    async fn status_of(&self, topology: &str) -> String {
        let state = self
            .get(&format!("/api/v1/topologies/{topology}"))
            .await
            .expect(200);
        state["topology"]["status"]
            .as_str()
            .expect("a status")
            .to_owned()
    }
}

/// The route that a request is for: of those that fit, the one with the fewest parameters.
fn route_of(method: &Method, path: &str) -> Option<&'static Route> {
    let fits = |route: &&Route| {
        let mut words = path.split('/');
        route.method == *method
            && route.path.split('/').all(|word| {
                words
                    .next()
                    .is_some_and(|own| word.starts_with('{') || word == own)
            })
            && words.next().is_none()
    };
    ROUTES
        .iter()
        .filter(fits)
        .min_by_key(|route| route.path.matches('{').count())
}

fn empty_report() -> HostReport {
    HostReport {
        fence: domain::revision::Fence::default(),
        phase: Phase::Idle,
        in_flight: false,
        content: None,
        applied_at: None,
        failure: None,
        refusal: None,
        observed: Some(Inventory::default()),
        drift: Vec::new(),
        timings: domain::assign::Timings::new(),
    }
}

/// A topology without findings.
fn file(name: &str) -> Value {
    json!({
        "name": name,
        "lans": [
            { "name": "dmz", "subnet": "172.30.0.0/24", "kind": "dmz" },
            { "name": "inner", "subnet": "172.30.1.0/24" },
        ],
        "deckies": [
            {
                "name": "gate", "services": ["ssh"], "forwards_l3": true,
                "publish": [{ "host_port": 2222, "decky_port": 22 }],
                "edges": [{ "lan": "dmz" }, { "lan": "inner" }],
            },
            { "name": "db", "services": ["redis"], "edges": [{ "lan": "inner" }] },
        ],
    })
}

/// The codes of a problem's or a state's findings.
fn codes(value: &Value) -> Vec<&str> {
    let findings = value["findings"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    findings
        .iter()
        .filter_map(|finding| finding["code"].as_str())
        .collect()
}

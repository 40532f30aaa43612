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
use pki::acceptor::Connections;
use pki::ca::CertificateAuthority;
use pki::fingerprint::KeyFingerprint;
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;
use tower::ServiceExt as _;

use super::auth::{AdminToken, ApiTokens, Role};
use super::{Api, ApiParts, HttpLimits, router};
use crate::allow::AllowTable;
use crate::bus::Bus;
use crate::clock::Clock;
use crate::db::sqlite;
use crate::db::{Redemption, Store, TokenRow};
use crate::enroll::Enroll;
use crate::entropy::{random, uuid_v7};
use crate::fleet::{Fleet, FleetParts, Session};
use crate::mutate::MutationWaker;
use crate::pipeline::Ingest;
use crate::reconcile::{Conditions, ReconcileCounts, Waker};

mod access;
mod events;
mod fleet;
mod mutations;
mod news;
mod topologies;

const VIEWER: &str = "dca_viewer";

/// A master without its ports.
struct World {
    api: Arc<Api>,
    router: Router,
    store: Arc<dyn Store>,
    fleet: Arc<Fleet>,
    ingest: Arc<Ingest>,
    bus: Arc<Bus>,
    admin: String,
    now: Arc<Mutex<OffsetDateTime>>,
    _folder: TempDir,
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
        let store = sqlite::open(&folder.path().join("master.db")).await;
        let store: Arc<dyn Store> = Arc::new(store.expect("a new database"));
        let waker = Waker::default();
        let bus = Arc::new(Bus::default());
        let parts = FleetParts {
            store: Arc::clone(&store),
            allow: Arc::new(AllowTable::default()),
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
        let mut api = Api::with(
            ApiParts {
                store: Arc::clone(&store),
                fleet: Arc::clone(&fleet),
                enroll,
                ingest: Arc::clone(&ingest),
                bus: Arc::clone(&bus),
                waker,
                mutations: MutationWaker::default(),
                conditions: Arc::new(Conditions::default()),
                counts: Arc::new(ReconcileCounts::default()),
                metrics: Arc::default(),
                clock,
                admin,
                api_address: "127.0.0.1:8080".parse().expect("an address"),
                started_at: start,
                deploy_deadline: Duration::from_secs(120),
            },
            limits,
        );
        let tokens = ApiTokens::default().with("admin", Role::Admin, &text);
        let unshared = Arc::get_mut(&mut api).expect("nobody else has it yet");
        unshared.tokens = tokens.with("viewer", Role::Viewer, VIEWER);
        let router = router(Arc::clone(&api));
        Self {
            api,
            router,
            store,
            fleet,
            ingest,
            bus,
            admin: text,
            now,
            _folder: folder,
        }
    }

    fn now(&self) -> OffsetDateTime {
        *self.now.lock().expect("nobody panics with it")
    }

    fn pass(&self, seconds: i64) {
        *self.now.lock().expect("nobody panics with it") += time::Duration::seconds(seconds);
    }

    async fn send(&self, request: Request<Body>) -> axum::response::Response {
        self.router
            .clone()
            .oneshot(request)
            .await
            .expect("the router answers everything")
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

    /// A host that has joined and never connected.
    async fn host(&self, name: &str) -> HostId {
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
            key: KeyFingerprint::from_bytes(random()),
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

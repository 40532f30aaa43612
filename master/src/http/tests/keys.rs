//! Idempotency keys: carried out once, answered as often as asked.

use std::future::Future as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;

use super::*;
use crate::db::AuditEntry;
use crate::http::auth::{Access, authorize};
use crate::http::idempotency;

impl World {
    async fn keyed(&self, token: &str, key: &str, path: &str, body: &Value) -> Answer {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, "localhost")
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .header("idempotency-key", key)
            .header(CONTENT_TYPE, "application/json");
        self.answer(
            request
                .body(Body::from(body.to_string()))
                .expect("a request"),
        )
        .await
    }
}

const TOPOLOGIES: &str = "/api/v1/topologies";

#[tokio::test]
async fn a_request_that_is_sent_again_is_carried_out_once_and_answered_alike() {
    let world = World::new().await;
    let body = json!({ "topology": file("maze") });
    let first = world.keyed(&world.admin, "k-1", TOPOLOGIES, &body).await;
    first.expect(201);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let again = world.keyed(&world.admin, "k-1", TOPOLOGIES, &body).await;
    again.expect(201);
    assert_eq!(again.bytes, first.bytes);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    for name in ["location", "etag", "content-type"] {
        assert_eq!(again.headers[name], first.headers[name], "{name}");
    }
    assert_eq!(world.get(TOPOLOGIES).await.expect(200)["total"], 1);

    // A refusal is an answer too.
    let refused = world.keyed(&world.admin, "k-2", TOPOLOGIES, &body).await;
    refused.problem(409, "name_taken");
    world.delete("/api/v1/topologies/maze").await.expect(204);
    let again = world.keyed(&world.admin, "k-2", TOPOLOGIES, &body).await;
    again.problem(409, "name_taken");
    assert_eq!(again.headers["idempotency-replayed"], "true");
}

#[tokio::test]
async fn a_key_belongs_to_one_request_of_one_credential() {
    let world = World::new().await;
    let body = json!({ "topology": file("maze") });
    world
        .keyed(&world.admin, "k", TOPOLOGIES, &body)
        .await
        .expect(201);
    let other = json!({ "topology": file("other") });
    world
        .keyed(&world.admin, "k", TOPOLOGIES, &other)
        .await
        .problem(422, "idempotency_key_reused");
    world
        .keyed(&world.admin, "k", "/api/v1/topologies/validate", &body)
        .await
        .problem(422, "idempotency_key_reused");
    let answer = world.keyed(OPERATOR, "k", TOPOLOGIES, &other).await;
    answer.expect(201);
    assert!(!answer.headers.contains_key("idempotency-replayed"));
    // What a viewer may not do it cannot have replayed either.
    world
        .keyed(VIEWER, "k", TOPOLOGIES, &other)
        .await
        .problem(403, "forbidden");
    world.pass(24 * 3600);
    world
        .keyed(
            &world.admin,
            "k",
            TOPOLOGIES,
            &json!({ "topology": file("third") }),
        )
        .await
        .expect(201);
}

#[tokio::test]
async fn of_requests_that_race_one_is_carried_out() {
    let world = World::new().await;
    let body = json!({ "topology": file("maze") });
    let asked = (0..8).map(|_| world.keyed(&world.admin, "k", TOPOLOGIES, &body));
    for answer in futures_util::future::join_all(asked).await {
        match answer.status.as_u16() {
            201 => {}
            409 => {
                answer.problem(409, "idempotency_key_running");
                assert_eq!(answer.headers["retry-after"], "1");
            }
            status => panic!("{status}"),
        }
    }
    let created = world.get("/api/v1/audit?action=topology.create").await;
    assert_eq!(created.expect(200)["total"], 1);
}

#[tokio::test]
async fn what_failed_for_no_fault_of_the_request_may_be_sent_again() {
    let world = World::new().await;
    world.topology("maze").await;
    let host = world.host("edge").await;
    let body = json!({ "host": "edge" });
    let path = "/api/v1/topologies/maze/deploy";
    world
        .keyed(&world.admin, "k", path, &body)
        .await
        .problem(503, "target_not_ready");
    let session = world.fleet.register(host, "0.1.1", 7, empty_report());
    world
        .keyed(&world.admin, "k", path, &body)
        .await
        .expect(202);
    drop(session);
}

/// A route behind the same keys, of which the path says what it does.
struct Probe {
    world: World,
    /// How often it was served.
    served: Arc<AtomicUsize>,
}

impl Probe {
    async fn new() -> Self {
        let mut world = World::new().await;
        let served = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&served);
        let handler = move |State(api): State<Arc<Api>>, Path(does): Path<String>| {
            counted.fetch_add(1, Ordering::Relaxed);
            async move { probed(&api, &does).await }
        };
        let access = (Arc::clone(&world.api), Access::Needs(Role::Operator));
        let keyed = from_fn_with_state(Arc::clone(&world.api), idempotency::keyed);
        let route = post(handler)
            .route_layer(keyed)
            .route_layer(from_fn_with_state(access, authorize));
        world.router = Router::new()
            .route("/{does}", route)
            .with_state(Arc::clone(&world.api));
        Self { world, served }
    }

    async fn ask(&self, path: &str) -> Answer {
        self.world.keyed(OPERATOR, "k", path, &json!({})).await
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }
}

async fn probed(api: &Api, does: &str) -> Response {
    if does.starts_with("store") {
        let entry = AuditEntry {
            at: (api.clock)(),
            actor: Actor::Reconciler,
            action: "probe".to_owned(),
            subject: String::new(),
            detail: String::new(),
        };
        api.store.audit(entry).await.expect("stored");
    }
    let large = || vec![b'x'; 2 * 1024 * 1024];
    match does {
        "store-then-die" => panic!("as a master that is killed"),
        "store-then-fail" | "fail" => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        "store-much" => (StatusCode::CREATED, [(LOCATION, "/made/1")], large()).into_response(),
        "tell-much" => large().into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

#[tokio::test]
async fn what_nobody_answered_is_not_carried_out_again() {
    let probe = Probe::new().await;
    probe.ask("/store-then-die").await.problem(503, "timed_out");
    let again = probe.ask("/store-then-die").await;
    again.problem(409, "idempotency_key_running");
    for seconds in [60, 23 * 3600] {
        probe.world.pass(seconds);
        let again = probe.ask("/store-then-die").await;
        again.problem(409, "idempotency_outcome_unknown");
    }
    assert_eq!(probe.served(), 1);
    probe.world.pass(3600);
    probe.ask("/store").await.expect(204);
}

#[tokio::test]
async fn what_failed_after_something_was_stored_is_not_carried_out_again() {
    let probe = Probe::new().await;
    let first = probe.ask("/store-then-fail").await;
    assert_eq!(first.status, StatusCode::SERVICE_UNAVAILABLE);
    for _ in 0..2 {
        let again = probe.ask("/store-then-fail").await;
        let problem = again.problem(409, "idempotency_outcome_unknown");
        assert!(problem["next_step"].is_string(), "{problem}");
        assert_eq!(again.headers["idempotency-replayed"], "true");
    }
    assert_eq!(probe.served(), 1);

    let probe = Probe::new().await;
    for times in 1..=3 {
        let answer = probe.ask("/fail").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(probe.served(), times, "nothing was stored");
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_to_keep_is_known_to_have_been_given() {
    let probe = Probe::new().await;
    let first = probe.ask("/store-much").await;
    assert_eq!(first.status, StatusCode::CREATED);
    assert_eq!(first.bytes.len(), 2 * 1024 * 1024);
    let again = probe.ask("/store-much").await;
    let problem = again.problem(409, "idempotency_answer_not_kept");
    assert_eq!(
        problem["title"],
        "the request of that idempotency key was answered 201 Created, with more than is kept"
    );
    assert_eq!(
        problem["next_step"],
        "look at /made/1; asking again is not needed"
    );
    assert_eq!(probe.served(), 1);

    let probe = Probe::new().await;
    for times in 1..=2 {
        let answer = probe.ask("/tell-much").await;
        assert_eq!(answer.bytes.len(), 2 * 1024 * 1024);
        assert_eq!(probe.served(), times, "it only tells");
    }
}

#[tokio::test]
async fn whoever_leaves_at_any_moment_finds_the_answer_when_asking_again() {
    let probe = Probe::new().await;
    let nothing = json!({});
    for polls in 1.. {
        let key = format!("k-{polls}");
        let ask = || probe.world.keyed(OPERATOR, &key, "/store", &nothing);
        let stayed = {
            let asked = ask();
            tokio::pin!(asked);
            let mut left = polls;
            std::future::poll_fn(|context| {
                left -= 1;
                match asked.as_mut().poll(context) {
                    Poll::Pending if left > 0 => Poll::Pending,
                    polled => Poll::Ready(polled.is_ready()),
                }
            })
            .await
        };
        let answered = async {
            loop {
                let answer = ask().await;
                if answer.status != StatusCode::CONFLICT {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        };
        let answered = tokio::time::timeout(Duration::from_secs(20), answered).await;
        answered.expect("it is answered").expect(204);
        assert_eq!(probe.served(), polls);
        if stayed {
            assert!(polls > 1, "it takes longer than that");
            break;
        }
    }
}

#[tokio::test]
async fn no_secret_of_an_answer_or_a_request_is_readable_in_the_store() {
    let world = World::new().await;
    let body = json!({ "name": "ci", "role": "viewer" });
    let made = world
        .keyed(&world.admin, "k", "/api/v1/api-tokens", &body)
        .await;
    let secret = made.expect(201)["secret"]
        .as_str()
        .expect("a secret")
        .to_owned();
    let again = world
        .keyed(&world.admin, "k", "/api/v1/api-tokens", &body)
        .await;
    assert_eq!(again.expect(201)["secret"], secret);
    for entry in std::fs::read_dir(world.folder.path()).expect("readable") {
        let path = entry.expect("readable").path();
        let bytes = std::fs::read(&path).expect("readable");
        let found = bytes
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!found, "{} holds the token", path.display());
    }
}

#[tokio::test]
async fn a_key_is_one_word_of_bounded_length() {
    let world = World::new().await;
    let body = json!({ "topology": file("maze") });
    for key in ["", " ", "a b", "a\tb", &"x".repeat(129), "\u{e9}"] {
        world
            .keyed(&world.admin, key, TOPOLOGIES, &body)
            .await
            .problem(422, "malformed");
    }
    let longest = "x".repeat(128);
    world
        .keyed(&world.admin, &longest, TOPOLOGIES, &body)
        .await
        .expect(201);
    // Without a body, and where a key is of no use.
    let request = world
        .request(Method::POST, "/api/v1/topologies/maze/teardown")
        .header("idempotency-key", "one");
    let answer = world
        .answer(request.body(Body::empty()).expect("a request"))
        .await;
    answer.expect(202);
    let request = world
        .request(Method::GET, "/api/v1/hosts")
        .header("idempotency-key", "one");
    let answer = world
        .answer(request.body(Body::empty()).expect("a request"))
        .await;
    answer.expect(200);
}

//! Events as lists, exports and streams.

use domain::event::{Evidence, Payload, Position, Severity, Sighting};
use domain::id::{BootId, DeckyId, SpoolId, TopologyId};
use domain::service::ServiceKind;
use futures_util::StreamExt as _;
use proto::line::{Line, encode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::http::serve;
use crate::pipeline::Spooled;

/// A world with a host that may send events, and where they come from.
struct Sender {
    world: World,
    host: HostId,
    topology: TopologyId,
    decky: DeckyId,
    spool: SpoolId,
    _session: Session,
}

impl Sender {
    async fn new() -> Self {
        Self::with(HttpLimits::default()).await
    }

    async fn with(limits: HttpLimits) -> Self {
        let world = World::with(limits).await;
        let (host, session) = world.ready_host("local").await;
        world.topology("maze").await;
        world
            .post("/api/v1/topologies/maze/deploy", json!({}))
            .await
            .expect(202);
        let row = world.api.topologies.find("maze").await.expect("stored");
        let decky = row.topology.deckies[0].id;
        let spool = SpoolId::new(uuid_v7(world.now()));
        Self {
            host,
            topology: row.topology.id,
            decky,
            spool,
            _session: session,
            world,
        }
    }

    /// Stores events with these numbers, which they also carry as their commands.
    async fn send(&self, numbers: std::ops::Range<u64>) {
        let batch = numbers.map(|number| self.event(number)).collect();
        self.world
            .ingest
            .ingest(self.host, self.spool, batch)
            .await
            .expect("stored");
    }

    fn event(&self, number: u64) -> Spooled {
        let now = self.world.now();
        let sighting = Sighting {
            at: now,
            service: Some(ServiceKind::Ssh),
            session: None,
            source: Some("203.0.113.9:4444".parse().expect("an address")),
            destination: None,
            severity: Severity::Notice,
            payload: Payload::Command {
                line: Evidence::from(number.to_string().as_str()),
            },
            raw: None,
        };
        let boot = BootId::new(self.spool.uuid());
        let line = Line {
            position: Position {
                boot,
                counter: number + 1,
            },
            sighting,
        };
        Spooled {
            sequence: number + 1,
            topology: self.topology,
            decky: self.decky,
            collected_at: now,
            line: encode(&line).into(),
        }
    }
}

fn number(event: &Value) -> u64 {
    let line = event["data"]["line"].as_str().expect("a command");
    line.parse().expect("the number that was sent")
}

fn numbers(page: &Value) -> Vec<u64> {
    page["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(number)
        .collect()
}

#[tokio::test]
async fn pages_go_from_the_newest_to_the_oldest_and_end() {
    let sender = Sender::new().await;
    sender.send(0..5).await;
    let first = sender.world.get("/api/v1/events?limit=2").await.expect(200);
    assert_eq!(
        (numbers(&first), first["total"].as_u64()),
        (vec![4, 3], Some(5))
    );
    let item = &first["items"][0];
    assert_eq!(item["decky_name"], "gate");
    assert_eq!(item["kind"], "command");
    assert_eq!(item["source"], "203.0.113.9:4444");

    // What comes meanwhile moves no page.
    sender.send(5..7).await;
    let cursor = first["next"].as_str().expect("a cursor");
    let path = format!("/api/v1/events?limit=3&cursor={cursor}");
    let last = sender.world.get(&path).await.expect(200);
    assert_eq!(numbers(&last), [2, 1, 0]);
    assert_eq!(last["next"], Value::Null);
}

#[tokio::test]
async fn a_filter_takes_names_and_ids() {
    let sender = Sender::new().await;
    sender.send(0..3).await;
    let count = async |query: &str| {
        let page = sender
            .world
            .get(&format!("/api/v1/events?{query}"))
            .await
            .expect(200);
        page["total"].as_u64().expect("a count")
    };
    assert_eq!(
        count("topology=maze&decky=gate&host=LOCAL&kind=command&service=ssh").await,
        3
    );
    assert_eq!(count(&format!("topology={}", sender.topology)).await, 3);
    assert_eq!(count(&format!("decky={}", sender.decky)).await, 3);
    assert_eq!(count("topology=maze&decky=db").await, 0);
    assert_eq!(count("kind=auth").await, 0);
    assert_eq!(count("source=203.0.113.9").await, 3);
    assert_eq!(count("since=2100-01-01T00:00:00Z").await, 0);
    // Events outlive what they are of, so an id that nothing has any more is no error.
    assert_eq!(count("host=0198c0de-0000-7000-8000-000000000000").await, 0);
    sender
        .world
        .get("/api/v1/events?topology=nothing")
        .await
        .problem(404, "unknown");
    sender
        .world
        .get("/api/v1/events?decky=gate")
        .await
        .problem(422, "malformed");
}

#[tokio::test]
async fn an_export_is_whole_and_oldest_first_whatever_its_size() {
    let sender = Sender::new().await;
    for start in [0, 1000, 2000] {
        sender.send(start..start + 1000).await;
    }
    sender.send(3000..3007).await;
    let export = sender.world.get("/api/v1/events/export").await;
    assert_eq!(export.headers[CONTENT_TYPE], "application/x-ndjson");
    let exported: Vec<u64> = export
        .bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| number(&serde_json::from_slice(line).expect("JSON on each line")))
        .collect();
    assert_eq!(exported, (0..3007).collect::<Vec<_>>());

    let some = sender
        .world
        .get("/api/v1/events/export?limit=1001&topology=maze")
        .await;
    assert_eq!(
        some.bytes.iter().filter(|byte| **byte == b'\n').count(),
        1001
    );
    let none = sender.world.get("/api/v1/events/export?kind=auth").await;
    assert!(none.bytes.is_empty());
}

/// Reads a stream until it has shown an event for each of `wanted`, in their order.
async fn follow(response: axum::response::Response, wanted: std::ops::Range<u64>) -> Vec<i64> {
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
    let mut body = response.into_body().into_data_stream();
    let mut text = String::new();
    let mut rows = Vec::new();
    let mut next = wanted.start;
    while next < wanted.end {
        let chunk = tokio::time::timeout(Duration::from_secs(20), body.next()).await;
        let chunk = chunk
            .expect("the stream goes on")
            .expect("open")
            .expect("intact");
        text.push_str(std::str::from_utf8(&chunk).expect("text"));
        while let Some((block, rest)) = text.split_once("\n\n") {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            if let (Some(id), Some(data)) = (field("id: "), field("data: ")) {
                let event: Value = serde_json::from_str(data).expect("JSON");
                assert_eq!(number(&event), next, "a gap or a duplicate");
                assert_eq!(event["row"].to_string(), id);
                rows.push(id.parse().expect("a row"));
                next += 1;
            }
            text = rest.to_owned();
        }
    }
    rows
}

#[tokio::test]
async fn a_stream_joins_what_is_stored_to_what_comes_without_gap_or_duplicate() {
    let sender = Arc::new(Sender::new().await);
    sender.send(0..750).await;
    sender.send(750..1500).await;
    let request = sender
        .world
        .request(Method::GET, "/api/v1/events/stream?after=0");
    let response = sender
        .world
        .send(request.body(Body::empty()).expect("a request"))
        .await;
    // Stored while the stream is behind, and while nobody reads it at all.
    let busy = Arc::clone(&sender);
    let storing = crate::task::spawn("storing", tracing::Span::none(), async move {
        for start in (1500..4500).step_by(7) {
            busy.send(start..(start + 7).min(4500)).await;
        }
    });
    let rows = follow(response, 0..4500).await;
    storing.await.expect("stored");

    let request = sender
        .world
        .request(Method::GET, "/api/v1/events/stream?after=0")
        .header("last-event-id", rows[4000].to_string());
    let response = sender
        .world
        .send(request.body(Body::empty()).expect("a request"))
        .await;
    follow(response, 4001..4500).await;
}

#[tokio::test]
async fn a_stream_that_names_no_start_begins_now_and_honours_its_filter() {
    let sender = Sender::new().await;
    sender.send(0..10).await;
    let ask = async |query: &str| {
        let path = format!("/api/v1/events/stream{query}");
        let request = sender.world.request(Method::GET, &path).body(Body::empty());
        sender.world.send(request.expect("a request")).await
    };
    let all = ask("").await;
    let none = ask("?kind=auth").await;
    sender.send(10..20).await;
    follow(all, 10..20).await;
    let mut body = none.into_body().into_data_stream();
    let silent = tokio::time::timeout(Duration::from_millis(200), body.next()).await;
    assert!(silent.is_err(), "an event passed the filter: {silent:?}");

    let request = sender.world.request(Method::GET, "/api/v1/events/stream");
    let request = request
        .header("last-event-id", "x")
        .body(Body::empty())
        .expect("a request");
    sender.world.answer(request).await.problem(422, "malformed");
}

#[tokio::test]
async fn streams_are_capped_and_a_closed_one_makes_room() {
    let sender = Sender::with(HttpLimits {
        streams: 1,
        ..HttpLimits::default()
    })
    .await;
    let ask = async || {
        let request = sender.world.request(Method::GET, "/api/v1/events/stream");
        sender
            .world
            .send(request.body(Body::empty()).expect("a request"))
            .await
    };
    let first = ask().await;
    assert_eq!(first.status(), StatusCode::OK);
    let refused = ask().await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    drop(first);
    assert_eq!(ask().await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_user_has_so_many_streams_and_leaves_places_for_others() {
    let sender = Sender::with(HttpLimits {
        streams_of_one: 1,
        ..HttpLimits::default()
    })
    .await;
    let world = &sender.world;
    let alice = world.session("alice", domain::role::Role::Viewer).await;
    let ask = async |token: &str| {
        let request = Request::builder()
            .uri("/api/v1/events/stream")
            .header(HOST, "localhost")
            .header(AUTHORIZATION, format!("Bearer {token}"));
        world
            .send(request.body(Body::empty()).expect("a request"))
            .await
    };
    let first = ask(&alice).await;
    assert_eq!(first.status(), StatusCode::OK);
    let refused = ask(&alice).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(ask(VIEWER).await.status(), StatusCode::OK);
    drop(first);
    assert_eq!(ask(&alice).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_stream_ends_with_the_session_that_opened_it() {
    let sender = Sender::with(HttpLimits {
        recheck: Duration::from_millis(20),
        ..HttpLimits::default()
    })
    .await;
    let world = &sender.world;
    let token = world.session("alice", domain::role::Role::Viewer).await;
    let request = Request::builder()
        .uri("/api/v1/events/stream")
        .header(HOST, "localhost")
        .header(AUTHORIZATION, format!("Bearer {token}"));
    let response = world
        .send(request.body(Body::empty()).expect("a request"))
        .await;
    sender.send(0..3).await;
    let mut body = response.into_body().into_data_stream();
    let first = body.next().await;
    assert!(matches!(first, Some(Ok(_))), "{first:?}");
    world
        .as_(&token, Method::POST, "/api/v1/logout", None)
        .await
        .expect(204);
    let ended = async {
        while let Some(chunk) = body.next().await {
            chunk.expect("ended, not cut");
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
    ended.expect("the stream ends");
}

#[tokio::test]
async fn the_end_of_the_server_ends_open_streams() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let sender = Sender::new().await;
    sender.send(0..1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let shutdown = CancellationToken::new();
    let api = Arc::clone(&sender.world.api);
    let server = serve(listener, api, shutdown.clone());
    let server = crate::task::spawn("http", tracing::Span::none(), server);

    let mut client = tokio::net::TcpStream::connect(address)
        .await
        .expect("listening");
    let request = format!(
        "GET /api/v1/events/stream?after=0 HTTP/1.1\r\nHost: {address}\r\n\
         Authorization: Bearer {}\r\n\r\n",
        sender.world.admin
    );
    client.write_all(request.as_bytes()).await.expect("open");
    let mut text = vec![0; 64];
    client.read_exact(&mut text).await.expect("an answer");
    assert!(
        text.starts_with(b"HTTP/1.1 200 OK"),
        "{}",
        String::from_utf8_lossy(&text)
    );

    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(4), server)
        .await
        .expect("in time")
        .expect("no panic");
    let mut rest = Vec::new();
    client
        .read_to_end(&mut rest)
        .await
        .expect("closed in good order");
    // The end of a chunked body: the stream was ended, not cut.
    assert!(
        rest.ends_with(b"0\r\n\r\n"),
        "{}",
        String::from_utf8_lossy(&rest)
    );
}

/// Addresses are written into logs and histories.
#[tokio::test]
async fn a_token_in_the_address_opens_nothing() {
    let world = World::new().await;
    for path in [
        "/api/v1/events/stream",
        "/api/v1/events",
        "/api/v1/topologies",
    ] {
        for name in ["token", "access_token", "authorization"] {
            let request = Request::builder()
                .uri(format!("{path}?{name}={}", world.admin))
                .header(HOST, "localhost:8080")
                .body(Body::empty());
            let answer = world.answer(request.expect("a request")).await;
            answer.problem(401, "unauthenticated");
        }
    }
}

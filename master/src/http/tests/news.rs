//! What happens to one topology, as a stream.

use axum::body::BodyDataStream;
use futures_util::StreamExt as _;

use super::mutations::{Live, services, text};
use super::*;

struct Reader {
    body: BodyDataStream,
    buffer: String,
}

/// One message: its id, its name, its data.
type News = (String, String, Value);

impl Reader {
    async fn open(world: &World, last: Option<&str>) -> Self {
        let mut request = world.request(Method::GET, "/api/v1/topologies/maze/events");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = world
            .send(request.body(Body::empty()).expect("a request"))
            .await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        Self {
            body: response.into_body().into_data_stream(),
            buffer: String::new(),
        }
    }

    async fn next(&mut self) -> News {
        loop {
            if let Some((frame, rest)) = self.buffer.split_once("\n\n") {
                let field = |name: &str| {
                    let lines = frame.lines();
                    let mut values = lines.filter_map(|line| line.strip_prefix(name));
                    values.next().unwrap_or_default().trim().to_owned()
                };
                let (id, name) = (field("id:"), field("event:"));
                let data = serde_json::from_str(&field("data:")).unwrap_or(Value::Null);
                self.buffer = rest.to_owned();
                if !name.is_empty() {
                    return (id, name, data);
                }
                continue;
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.body.next()).await;
            let chunk = chunk.expect("something comes").expect("the stream goes on");
            let chunk = chunk.expect("a chunk");
            self.buffer.push_str(&String::from_utf8_lossy(&chunk));
        }
    }

    /// The next message of that name.
    async fn find(&mut self, name: &str) -> News {
        loop {
            let news = self.next().await;
            if news.1 == name {
                return news;
            }
        }
    }
}

#[tokio::test]
async fn a_stream_begins_with_a_snapshot_and_tells_everything_after_it() {
    let mut live = Live::new().await;
    let mut reader = Reader::open(&live.world, None).await;
    let (_, name, snapshot) = reader.next().await;
    assert_eq!(name, "snapshot");
    assert_eq!(snapshot["state"]["topology"]["status"], "active");
    assert_eq!(snapshot["mutations"], json!([]));

    let id = live.queue(services("db", &["ftp"])).await;
    let (_, name, pending) = reader.next().await;
    assert_eq!(
        (name.as_str(), &pending["state"]),
        ("mutation", &json!("pending"))
    );
    assert_eq!(text(&pending["id"]), id);
    live.mutator.turn().await.expect("answered");
    assert_eq!(reader.find("mutation").await.2["state"], "applying");
    live.arrive().await;
    let mut seen = [reader.next().await, reader.next().await];
    seen.sort_by(|one, other| other.1.cmp(&one.1));
    assert_eq!(
        (seen[0].1.as_str(), &seen[0].2["state"]),
        ("mutation", &json!("applied"))
    );
    assert_eq!(seen[1].1, "decky_mutated");
    assert_eq!(seen[1].2["data"]["new"], json!(["ftp"]));
}

#[tokio::test]
async fn a_stream_goes_on_when_the_clock_is_set_back() {
    let mut live = Live::new().await;
    live.queue(services("db", &["ftp"])).await;
    live.mutator.turn().await.expect("answered");
    live.arrive().await;
    let mut reader = Reader::open(&live.world, None).await;
    assert_eq!(reader.next().await.1, "snapshot");
    live.world.pass(-3600);
    let id = live.queue(services("db", &["redis"])).await;
    let (_, name, pending) = reader.next().await;
    assert_eq!((name.as_str(), text(&pending["id"])), ("mutation", id));
}

#[tokio::test]
async fn a_resumed_stream_goes_on_where_it_was() {
    let mut live = Live::new().await;
    let mut reader = Reader::open(&live.world, None).await;
    let (last, ..) = reader.next().await;
    drop(reader);
    live.world.pass(60);
    live.queue(services("db", &["ftp"])).await;
    live.mutator.turn().await.expect("answered");
    live.arrive().await;
    live.world
        .post("/api/v1/topologies/maze/teardown", json!({}))
        .await
        .expect(202);
    let mut reader = Reader::open(&live.world, Some(&last)).await;
    let (_, name, status) = reader.next().await;
    assert_eq!(
        (name.as_str(), &status["to"]),
        ("status", &json!("tearing_down"))
    );
    let (_, name, mutation) = reader.next().await;
    assert_eq!(
        (name.as_str(), &mutation["state"]),
        ("mutation", &json!("applied"))
    );
    let (last, name, mutated) = reader.next().await;
    assert_eq!(
        (name.as_str(), &mutated["data"]["name"]),
        ("decky_mutated", &json!("db"))
    );
    drop(reader);
    // Nothing is told again but the last states of mutations.
    live.world.pass(60);
    let mut reader = Reader::open(&live.world, Some(&last)).await;
    live.world
        .post("/api/v1/topologies/maze/teardown", json!({ "force": true }))
        .await
        .expect(202);
    let (_, _, status) = reader.find("status").await;
    assert_eq!(status["to"], "torn_down");

    let request = live
        .world
        .request(Method::GET, "/api/v1/topologies/maze/events")
        .header("last-event-id", "yesterday")
        .body(Body::empty());
    let answer = live.world.answer(request.expect("a request")).await;
    answer.problem(422, "malformed");
}

#[tokio::test]
async fn a_stream_that_missed_what_is_forgotten_begins_anew() {
    let mut live = Live::new().await;
    let mut reader = Reader::open(&live.world, None).await;
    let (early, ..) = reader.next().await;
    let mut late = String::new();
    for kinds in [["ftp"], ["redis"]] {
        live.world.pass(60);
        live.queue(services("db", &kinds)).await;
        live.mutator.turn().await.expect("answered");
        live.arrive().await;
        late = loop {
            let (id, name, data) = reader.next().await;
            if name == "mutation" && data["state"] == "applied" {
                break id;
            }
        };
    }
    drop(reader);
    let store = Arc::clone(&live.world.store);
    let now = live.world.now();
    let gone = store.forget_mutations(now, 100).await.expect("answered");
    assert_eq!(gone, 1, "the newest stays");
    // Nothing is lost to the one, and the other is told how everything stands.
    let mut reader = Reader::open(&live.world, Some(&late)).await;
    live.world
        .post("/api/v1/topologies/maze/teardown", json!({}))
        .await
        .expect(202);
    loop {
        let (_, name, _) = reader.next().await;
        assert_ne!(name, "snapshot");
        if name == "status" {
            break;
        }
    }
    let mut reader = Reader::open(&live.world, Some(&early)).await;
    let (id, name, snapshot) = reader.next().await;
    assert_eq!(name, "snapshot");
    assert_eq!(snapshot["state"]["topology"]["status"], "tearing_down");
    // It goes on from there.
    live.world
        .post("/api/v1/topologies/maze/teardown", json!({ "force": true }))
        .await
        .expect(202);
    let mut reader = Reader::open(&live.world, Some(&id)).await;
    assert_eq!(reader.find("status").await.2["to"], "torn_down");

    // So are changes of its status, which are counted from the first one on, whatever is gone.
    let now = live.world.now() + time::Duration::HOUR;
    let gone = store
        .forget_status_changes(now, 100)
        .await
        .expect("answered");
    assert!(gone > 1, "{gone}");
    let mut reader = Reader::open(&live.world, Some(&late)).await;
    assert_eq!(reader.next().await.1, "snapshot");
}

#[tokio::test]
async fn a_draft_tells_its_revisions_and_ends_the_stream_when_it_is_removed() {
    let world = World::new().await;
    world.topology("maze").await;
    let mut reader = Reader::open(&world, None).await;
    assert_eq!(reader.next().await.1, "snapshot");
    // Two who draw the same draft see each other.
    let body = json!({ "ops": services("db", &["ftp"]) });
    let path = "/api/v1/topologies/maze/mutations";
    world.post(path, body).await.expect(200);
    let (_, name, edited) = reader.next().await;
    assert_eq!((name.as_str(), &edited["revision"]), ("edited", &json!(2)));
    world.delete("/api/v1/topologies/maze").await.expect(204);
    let end = tokio::time::timeout(Duration::from_secs(20), reader.body.next()).await;
    assert!(end.expect("it ends").is_none());
}

#[tokio::test]
async fn streams_of_topologies_are_capped() {
    let world = World::with(HttpLimits {
        streams: 1,
        ..HttpLimits::default()
    })
    .await;
    world.topology("maze").await;
    let reader = Reader::open(&world, None).await;
    let answer = world.get("/api/v1/topologies/maze/events").await;
    answer.problem(503, "too_many_streams");
    drop(reader);
    Reader::open(&world, None).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_dropped_and_makes_room() {
    use tokio::io::AsyncWriteExt as _;

    let live = Live::with(HttpLimits {
        streams: 1,
        unread: Duration::from_secs(1),
        ..HttpLimits::default()
    })
    .await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let shutdown = tokio_util::sync::CancellationToken::new();
    let served = super::super::serve(listener, Arc::clone(&live.world.api), shutdown.clone());
    let _server = crate::task::spawn("http", tracing::Span::none(), served);

    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(1024).expect("a small one");
    let mut client = socket.connect(address).await.expect("listening");
    let request = format!(
        "GET /api/v1/topologies/maze/events HTTP/1.1\r\nHost: {address}\r\n\
         Authorization: Bearer {}\r\n\r\n",
        live.world.admin
    );
    client.write_all(request.as_bytes()).await.expect("open");
    let free = || live.world.api.streams.available_permits() == 1;
    let end = std::time::Instant::now() + Duration::from_secs(20);
    let mut was_open = false;
    let mut number = 0;
    while !(was_open && free()) {
        was_open |= !free();
        assert!(std::time::Instant::now() < end, "it holds its place");
        // More than the buffers of both sides hold.
        if was_open && number < 400 {
            let kinds = if number % 2 == 0 { ["ftp"] } else { ["http"] };
            live.queue(services("db", &kinds)).await;
            number += 1;
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    drop(client);
    shutdown.cancel();
}

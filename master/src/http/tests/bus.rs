//! Mutations that are asked for over the socket of the bus.

use proto::bus::{Envelope, Frame, parse};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::mutations::{Live, text};
use super::*;
use crate::bus::socket::BusSocket;
use crate::mutate::Asked;

/// A client of the bus that hears of everything about deckies.
struct Program {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Program {
    async fn say(&mut self, frame: Frame) {
        let bytes = frame.encode().expect("it is short");
        self.stream
            .write_all(&bytes)
            .await
            .expect("it is connected");
    }

    async fn request(&mut self, decky: &str, payload: Value) {
        let Value::Object(payload) = payload else {
            panic!("an object")
        };
        let envelope = Envelope {
            payload,
            ..Envelope::default()
        };
        self.say(Frame::Publish(
            format!("decky.{decky}.mutate_request"),
            envelope,
        ))
        .await;
    }

    async fn hear(&mut self) -> (String, Value) {
        loop {
            if let Some((frame, length)) = parse(&self.buffer).expect("the master speaks frames") {
                self.buffer.drain(..length);
                match frame {
                    Frame::Event(subject, envelope) => return (subject, envelope.payload.into()),
                    other => panic!("{other:?}"),
                }
            }
            let read = self.stream.read_buf(&mut self.buffer).await;
            assert_ne!(read.expect("it is connected"), 0, "it was cut");
        }
    }
}

async fn served(world: &World) -> Program {
    let path = world.folder.path().join("bus.sock");
    let socket = BusSocket::bind(&path).expect("nobody else is there");
    let clock = Arc::clone(&world.api.topologies.clock);
    let shutdown = CancellationToken::new();
    let serve = socket.serve(Arc::clone(&world.bus), clock, shutdown);
    crate::task::spawn("bus", tracing::Span::none(), serve);
    let stream = UnixStream::connect(&path).await.expect("it is served");
    let mut program = Program {
        stream,
        buffer: Vec::new(),
    };
    program.say(Frame::Subscribe("decky.>".to_owned())).await;
    program
}

#[tokio::test]
async fn a_program_of_this_machine_asks_for_a_mutation_and_is_named_for_it() {
    let mut live = Live::new().await;
    let mut asked = Asked::new(live.world.api.topologies.editor.clone());
    let mut program = served(&live.world).await;
    program.request("GATE", json!({})).await;
    asked.next().await;
    let page = live
        .world
        .get("/api/v1/topologies/maze/mutations")
        .await
        .expect(200);
    assert_eq!(page["total"], 1, "{page}");
    assert_eq!(page["items"][0]["state"], "pending");
    live.turn().await;
    live.arrive().await;
    let (subject, told) = program.hear().await;
    assert_eq!(subject, "decky.gate.mutation");
    let own = std::fs::metadata("/proc/self").expect("it runs");
    let uid = std::os::unix::fs::MetadataExt::uid(&own);
    assert_eq!(told["actor"], format!("operator:uid:{uid}"));
    assert_eq!(
        (&told["decky"], &told["trigger"]),
        (&json!("gate"), &json!("operator"))
    );
    assert_ne!(told["old_services"], told["new_services"]);
    let audit = live
        .world
        .store
        .audit_log(20)
        .await
        .expect("the database answers");
    let entry = audit
        .iter()
        .find(|entry| entry.action == "mutation.enqueue");
    let actor = &entry.expect("it is audited").actor;
    assert_eq!(*actor, Actor::Operator(format!("uid:{uid}")));
}

#[tokio::test]
async fn a_request_that_means_no_decky_or_several_is_refused_with_the_reason() {
    let live = Live::new().await;
    let mut asked = Asked::new(live.world.api.topologies.editor.clone());
    let mut program = served(&live.world).await;
    let mut refused = async |decky: &str, payload: Value| {
        program.request(decky, payload).await;
        asked.next().await;
        let (subject, told) = program.hear().await;
        assert_eq!(subject, format!("decky.{decky}.mutate_refused"));
        text(&told["reason"])
    };
    assert_eq!(
        refused("nobody", json!({})).await,
        "no live topology has a decky nobody"
    );
    assert_eq!(
        refused("gate", json!({"topology_id": "maze"})).await,
        "topology_id is no id"
    );
    let other = uuid::Uuid::nil().to_string();
    assert_eq!(
        refused("gate", json!({"topology_id": other})).await,
        "no live topology has a decky gate"
    );

    let (_host, _session) = live.world.ready_host("other").await;
    let body = json!({ "topology": file("garden"), "host": "other" });
    live.world
        .post("/api/v1/topologies", body)
        .await
        .expect(201);
    // One that is not deployed has the name, too, and does not count.
    assert_eq!(live.world.status_of("garden").await, "pending");
    let path = "/api/v1/topologies/garden/deploy";
    live.world.post(path, json!({})).await.expect(202);
    assert_eq!(
        refused("gate", json!({})).await,
        "2 live topologies have a decky gate; say topology_id or decky_id"
    );
    let maze = live.world.get("/api/v1/topologies/maze").await.expect(200);
    let topology = maze["topology"]["id"].clone();
    program
        .request("gate", json!({ "topology_id": topology }))
        .await;
    asked.next().await;
    let page = live
        .world
        .get("/api/v1/topologies/maze/mutations")
        .await
        .expect(200);
    assert_eq!(page["total"], 1, "{page}");
}

//! The socket, with clients that speak to it as any program would.

use std::os::unix::fs::MetadataExt as _;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::*;

struct Served {
    folder: TempDir,
    bus: Arc<Bus>,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl Served {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("the system has a directory for temporary files");
        let socket = BusSocket::bind(&folder.path().join(FILE)).expect("nobody else is there");
        let (bus, shutdown) = (Arc::new(Bus::default()), CancellationToken::new());
        let clock: Clock = Arc::new(|| OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000));
        let serve = socket.serve(Arc::clone(&bus), clock, shutdown.clone());
        let served = task::spawn("bus", tracing::Span::none(), serve);
        Self {
            folder,
            bus,
            shutdown,
            served,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    async fn client(&self) -> Tester {
        let stream = UnixStream::connect(self.path()).await;
        Tester {
            stream: stream.expect("it is served"),
            buffer: BytesMut::new(),
        }
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.served.await.expect("it ends by itself");
        assert!(!self.folder.path().join(FILE).exists());
    }
}

struct Tester {
    stream: UnixStream,
    buffer: BytesMut,
}

impl Tester {
    async fn say(&mut self, frame: Frame) {
        let bytes = frame.encode().expect("it is short");
        // One that was cut hears of it when it reads.
        self.stream.write_all(&bytes).await.ok();
    }

    async fn publish(&mut self, subject: &str, payload: Value) {
        let Value::Object(payload) = payload else {
            panic!("an object")
        };
        let envelope = Envelope {
            kind: "note".to_owned(),
            payload,
            ..Envelope::default()
        };
        self.say(Frame::Publish(subject.to_owned(), envelope)).await;
    }

    /// Nothing when it was cut.
    async fn hear(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, length)) = parse(&self.buffer).expect("the master speaks frames") {
                drop(self.buffer.split_to(length));
                return Some(frame);
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn hear_event(&mut self) -> (String, Envelope) {
        match self.hear().await {
            Some(Frame::Event(subject, envelope)) => (subject, envelope),
            other => panic!("{other:?}"),
        }
    }

    /// Subscribes, and waits until the master has done so: it answers nothing to that.
    async fn subscribe(&mut self, served: &Served, pattern: &str) {
        // A subject that nobody else has ever heard of.
        let sync = format!("sync.{}", uuid_v7(OffsetDateTime::UNIX_EPOCH));
        self.say(Frame::Subscribe(pattern.to_owned())).await;
        self.say(Frame::Subscribe(sync.clone())).await;
        let mut round = 0;
        loop {
            round += 1;
            served.bus.publish(sync.as_str(), json!({"round": round}));
            if timeout(Duration::from_millis(20), self.hear())
                .await
                .is_ok()
            {
                break;
            }
        }
        // Those of earlier rounds may have come after all.
        served.bus.publish(sync.as_str(), json!({"round": 0}));
        while self.hear_event().await.1.payload["round"] != 0 {}
        self.say(Frame::Unsubscribe(sync)).await;
    }
}

#[tokio::test]
async fn a_client_hears_what_it_subscribed_to_and_not_its_own() {
    let served = Served::new();
    let (mut one, mut other) = (served.client().await, served.client().await);
    one.say(Frame::Hello("one".to_owned())).await;
    for client in [&mut one, &mut other] {
        client.subscribe(&served, "ext.lab.>").await;
        client.subscribe(&served, "topology.*.status").await;
    }
    one.publish("ext.lab.door", json!({"open": true})).await;
    let (subject, envelope) = other.hear_event().await;
    assert_eq!(subject, "ext.lab.door");
    assert_eq!((envelope.v, envelope.kind.as_str()), (1, "note"));
    assert_eq!(envelope.topic, subject);
    assert_eq!(envelope.id.len(), 32);
    assert!(
        (envelope.ts - 20_000.0 * 86_400.0).abs() < 1.0,
        "{}",
        envelope.ts
    );
    assert_eq!(envelope.payload["open"], true);

    served.bus.publish("topology.t1.edit", json!({}));
    served
        .bus
        .publish("topology.t1.status", json!({"to": "active"}));
    for client in [&mut other, &mut one] {
        let (subject, envelope) = client.hear_event().await;
        assert_eq!(
            (subject.as_str(), envelope.kind.as_str()),
            ("topology.t1.status", "status")
        );
    }
    one.say(Frame::Bye).await;
    assert_eq!(one.hear().await, Some(Frame::Bye));
    assert_eq!(one.hear().await, None);
    served.end().await;
}

#[tokio::test]
async fn what_a_client_may_not_say_cuts_it_and_reaches_nobody() {
    let served = Served::new();
    let mut heard = served.bus.listen();
    for pattern in ["topology.>", "ext.>", "ext", "decky.>"] {
        heard.add(pattern);
    }
    for subject in [
        "topology.t1.status",
        "ext",
        "ext.",
        "ext.a..b",
        "ext.*",
        "ext.a.>",
        "decky.*.mutate_request",
        "decky.a.b.mutate_request",
        "decky.web-1.mutation",
        "system.bus.health",
    ] {
        assert!(!may_publish(subject), "{subject}");
        let mut client = served.client().await;
        client.publish(subject, json!({})).await;
        client.say(Frame::Bye).await;
        assert_eq!(client.hear().await, None, "{subject}");
    }
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"EVT ext.a\n\0\0\0\0",
        b"PUB ext.a\n\xff\xff\xff\xff",
        b"PUB ext.a\n\0\0\0\x02[]",
        &[b'x'; 5000],
    ] {
        let mut client = served.client().await;
        client
            .stream
            .write_all(bytes)
            .await
            .expect("it is connected");
        assert_eq!(client.hear().await, None);
    }
    let mut client = served.client().await;
    for number in 0..=PATTERNS {
        client.say(Frame::Subscribe(format!("ext.{number}"))).await;
    }
    assert_eq!(client.hear().await, None);

    let mut client = served.client().await;
    client
        .publish("decky.web-1.mutate_request", json!({}))
        .await;
    client.say(Frame::Bye).await;
    assert_eq!(client.hear().await, Some(Frame::Bye));
    let Delivery::Message(message) = heard.next().await else {
        panic!("nothing is lost")
    };
    assert_eq!(&*message.subject, "decky.web-1.mutate_request");
    let from = message.from.expect("a client has said it");
    assert_eq!(from.uid, fs::metadata("/proc/self").expect("it runs").uid());
    served.end().await;
}

#[tokio::test]
async fn one_that_does_not_read_loses_its_oldest_and_holds_up_nobody() {
    const MESSAGES: u64 = 5_000;
    let served = Served::new();
    let (mut deaf, mut other) = (served.client().await, served.client().await);
    for client in [&mut deaf, &mut other] {
        client.subscribe(&served, "event.>").await;
    }
    let text = "x".repeat(1000);
    for number in 0..MESSAGES {
        served
            .bus
            .publish("event.auth", json!({"number": number, "text": text}));
        // One that reads loses nothing.
        let (_, envelope) = other.hear_event().await;
        assert_eq!(envelope.payload["number"], number);
    }
    let (mut last, mut count) = (None, 0);
    while last != Some(MESSAGES - 1) {
        let (_, envelope) = deaf.hear_event().await;
        let number = envelope.payload["number"].as_u64();
        assert!(number > last, "in their order");
        last = number;
        count += 1;
    }
    assert!(count < MESSAGES, "its queue is bounded");
    served.end().await;
}

#[tokio::test]
async fn long_words_of_clients_are_bounded_by_their_bytes() {
    let bus = Bus::default();
    let mut subscription = bus.subscribe("ext.>");
    let message = |number: u32| Message {
        subject: "ext.a".into(),
        kind: "note".into(),
        body: Arc::new(Map::from_iter([("number".to_owned(), json!(number))])),
        from: None,
        weight: proto::bus::MAX_BODY,
    };
    for number in 0..4 {
        bus.put(&message(number));
    }
    assert_eq!(subscription.next().await, Delivery::Dropped(2));
    for number in 2..4 {
        assert_eq!(
            subscription.next().await,
            Delivery::Message(message(number))
        );
    }
}

#[tokio::test]
async fn the_socket_is_of_the_owner_and_the_group_and_of_one_master() {
    let served = Served::new();
    let mode = fs::metadata(served.path()).expect("it is there").mode();
    assert_eq!(mode & 0o777, MODE);
    let taken = BusSocket::bind(&served.path()).expect_err("it is served");
    assert!(
        taken.to_string().contains("another process serves the bus"),
        "{taken}"
    );
    // One that was killed leaves its file.
    let stale = served.folder.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).expect("nobody is there"));
    assert!(stale.exists());
    let socket = BusSocket::bind(&stale).expect("nobody serves it");
    drop(socket);
    assert!(!stale.exists());
    let file = served.folder.path().join("file");
    fs::write(&file, "x").expect("the folder is ours");
    let occupied = BusSocket::bind(&file).expect_err("a file is there");
    assert!(occupied.to_string().contains("is no socket"), "{occupied}");
    let long = served.folder.path().join("x".repeat(200));
    let refused = BusSocket::bind(&long).expect_err("it is too long");
    assert!(refused.to_string().contains("107 bytes"), "{refused}");
    served.end().await;
}

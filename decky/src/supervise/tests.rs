use domain::event::{Payload, Sighting};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::emit::tests::{Sink, emitter};
use crate::ports::tests::{open_gate, set};

/// A decky in this process, on ports of the kernel's choice.
pub(crate) struct World {
    directory: tempfile::TempDir,
    pub(crate) supervisor: Supervisor,
    gate: PortGate,
    emitter: Emitter,
    sink: Sink,
}

impl World {
    /// A decky that serves `services`, as JSON.
    pub(crate) async fn serving(services: &str) -> Self {
        Self::within(services, Caps::default()).await
    }

    pub(crate) async fn within(services: &str, caps: Caps) -> Self {
        let (emitter, sink) = emitter();
        let directory = tempfile::tempdir().expect("a directory can be made");
        let gate = open_gate(directory.path());
        let supervisor = Supervisor::new(emitter.clone(), gate.clone(), Place::test(), caps);
        let mut world = Self {
            directory,
            supervisor,
            gate,
            emitter,
            sink,
        };
        world.configure(services);
        let path = world.path();
        world
            .supervisor
            .start(&path)
            .await
            .expect("the configuration is good");
        world
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("decky.json")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).expect("the directory is ours");
    }

    pub(crate) fn configure(&self, services: &str) {
        self.write(&format!(
            "{{\"hostname\":\"web-7\",\"persona\":\"linux\",\"seed\":\"{}\",\"services\":{services}}}",
            "07".repeat(32)
        ));
    }

    pub(crate) async fn reload(&mut self) {
        let path = self.path();
        self.supervisor.reload(&path).await;
    }

    pub(crate) fn address(&self, kind: ServiceKind) -> SocketAddr {
        self.supervisor.address(kind).expect("the service runs")
    }

    pub(crate) async fn connect(&self, kind: ServiceKind) -> TcpStream {
        TcpStream::connect(self.address(kind))
            .await
            .expect("the service listens")
    }

    /// What was reported so far.
    pub(crate) async fn sightings(&self) -> Vec<Sighting> {
        self.emitter.flush().await;
        self.sink
            .lines()
            .into_iter()
            .map(|line| line.sighting)
            .collect()
    }

    /// Ends every connection; everything that was reported.
    pub(crate) async fn end(mut self) -> Vec<Sighting> {
        self.supervisor.stop(|_, _| true).await;
        self.sightings().await
    }
}

async fn ping(stream: &mut TcpStream) {
    stream
        .write_all(b"PING\r\n")
        .await
        .expect("the session lives");
    let mut reply = [0; 7];
    stream
        .read_exact(&mut reply)
        .await
        .expect("the session lives");
    assert_eq!(&reply, b"+PONG\r\n");
}

/// State, digest and detail of the lifecycle lines.
fn states(sightings: &[Sighting]) -> Vec<(String, String, bool)> {
    sightings
        .iter()
        .filter_map(|sighting| match &sighting.payload {
            Payload::Lifecycle {
                state,
                config,
                detail,
                ..
            } => Some((state.clone(), config.clone(), detail.bytes().is_empty())),
            Payload::Connect
            | Payload::Disconnect { .. }
            | Payload::Auth { .. }
            | Payload::Command { .. }
            | Payload::Request { .. }
            | Payload::Fingerprint { .. }
            | Payload::Mutation(_)
            | Payload::Raw { .. } => None,
        })
        .collect()
}

#[tokio::test]
async fn a_reload_keeps_a_session_of_an_unchanged_service() {
    let mut world = World::serving(r#"{"redis":{},"http":{},"ftp":{}}"#).await;
    let (redis, http) = (
        world.address(ServiceKind::Redis),
        world.address(ServiceKind::Http),
    );
    let mut kept = world.connect(ServiceKind::Redis).await;
    ping(&mut kept).await;
    // Greeted, so accepted: one that still waits in the listener's queue would be reset with it.
    let mut lost = world.connect(ServiceKind::Ftp).await;
    let mut greeting = [0; 4];
    lost.read_exact(&mut greeting)
        .await
        .expect("ftp greets first");
    assert_eq!(&greeting, b"220 ");

    world.configure(r#"{"redis":{},"http":{"title":"New"},"telnet":{}}"#);
    world.reload().await;

    ping(&mut kept).await;
    assert_eq!(world.address(ServiceKind::Redis), redis);
    assert_ne!(world.address(ServiceKind::Http), http);
    assert_eq!(world.supervisor.address(ServiceKind::Ftp), None);
    assert!(world.supervisor.address(ServiceKind::Telnet).is_some());
    let mut rest = Vec::new();
    lost.read_to_end(&mut rest)
        .await
        .expect("a service that is gone closes its sessions");

    let digest = proto::decky_config::digest(&std::fs::read(world.path()).expect("it is there"));
    let sightings = world.end().await;
    let states = states(&sightings);
    assert_eq!(states.len(), 2);
    assert_eq!(states[0].0, "started");
    assert_eq!(states[1], ("reloaded".to_owned(), digest.clone(), true));
    assert_ne!(states[0].1, digest);
}

#[tokio::test]
async fn a_bad_configuration_changes_nothing_and_is_said() {
    let mut world = World::serving(r#"{"redis":{}}"#).await;
    let mut session = world.connect(ServiceKind::Redis).await;
    ping(&mut session).await;
    for bad in ["{", "{}", r#"{"hostname":"a b"}"#] {
        world.write(bad);
        world.reload().await;
    }
    ping(&mut session).await;
    let states = states(&world.end().await);
    assert_eq!(states.len(), 4);
    let digest = &states[0].1;
    for (state, config, silent) in &states[1..] {
        assert_eq!(
            (state.as_str(), config, *silent),
            ("refused", digest, false)
        );
    }
}

#[tokio::test]
async fn a_port_that_is_taken_stops_only_its_service() {
    let (emitter, sink) = emitter();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    // The port of http is moved onto one that is taken; that of redis is free.
    static PORT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    PORT.store(
        taken.local_addr().expect("bound").port(),
        std::sync::atomic::Ordering::Relaxed,
    );
    let place = Place {
        address: Ipv4Addr::LOCALHOST,
        ports: |kind, _| {
            if kind == ServiceKind::Http {
                PORT.load(std::sync::atomic::Ordering::Relaxed)
            } else {
                0
            }
        },
    };
    let directory = tempfile::tempdir().expect("a directory can be made");
    let gate = open_gate(directory.path());
    let supervisor = Supervisor::new(emitter.clone(), gate.clone(), place, Caps::default());
    let mut world = World {
        directory,
        supervisor,
        gate,
        emitter,
        sink,
    };
    world.configure(r#"{"http":{},"redis":{}}"#);
    let path = world.path();
    world
        .supervisor
        .start(&path)
        .await
        .expect("the configuration is good");
    assert!(world.supervisor.address(ServiceKind::Redis).is_some());
    assert!(world.supervisor.address(ServiceKind::Http).is_none());
    let before = states(&world.sightings().await);
    assert!(!before[0].2, "the trouble is in the line");
    drop(taken);
    world.reload().await;
    assert!(
        world.supervisor.address(ServiceKind::Http).is_some(),
        "a reload tries again"
    );
}

#[tokio::test]
async fn no_port_opens_before_the_network_is_wired() {
    let (emitter, sink) = emitter();
    let directory = tempfile::tempdir().expect("a directory can be made");
    let gate = open_gate(directory.path());
    set(&gate, "1024\n");
    let supervisor = Supervisor::new(
        emitter.clone(),
        gate.clone(),
        Place::test(),
        Caps::default(),
    );
    let mut world = World {
        directory,
        supervisor,
        gate,
        emitter,
        sink,
    };
    world.configure(r#"{"redis":{}}"#);
    let path = world.path();
    // Dropped once it has said that it waits, as SIGTERM does it: nothing may have been opened.
    let (emitter, sink) = (world.emitter.clone(), world.sink.clone());
    let said = async {
        while sink.lines().is_empty() {
            tokio::task::yield_now().await;
            emitter.flush().await;
        }
    };
    tokio::select! {
        started = world.supervisor.start(&path) => panic!("it did not wait: {started:?}"),
        () = said => {}
    }
    assert_eq!(world.supervisor.address(ServiceKind::Redis), None);
    let said = states(&world.sightings().await);
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0].0, "waiting");

    let gate = world.gate.clone();
    let (started, ()) = tokio::join!(world.supervisor.start(&path), async {
        tokio::task::yield_now().await;
        set(&gate, "0\n");
    });
    started.expect("the configuration is good");
    let mut session = world.connect(ServiceKind::Redis).await;
    ping(&mut session).await;
}

#[tokio::test]
async fn a_reload_behind_a_closed_gate_opens_nothing_and_keeps_what_runs() {
    let mut world = World::serving(r#"{"redis":{}}"#).await;
    let mut kept = world.connect(ServiceKind::Redis).await;
    set(&world.gate, "1024\n");
    world.configure(r#"{"redis":{},"http":{}}"#);
    world.reload().await;
    ping(&mut kept).await;
    assert_eq!(world.supervisor.address(ServiceKind::Http), None);
    let said = states(&world.sightings().await);
    assert_eq!((said[1].0.as_str(), said[1].2), ("reloaded", false));

    set(&world.gate, "0\n");
    world.reload().await;
    assert!(world.supervisor.address(ServiceKind::Http).is_some());
}

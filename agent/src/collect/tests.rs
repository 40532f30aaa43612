use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use domain::event::{Evidence, Payload, Position, Severity, Sighting};
use domain::id::{BootId, TopologyId};
use domain::observe::Inventory;
use domain::topology::hydrate::{HydratedDecky, HydratedInterface, HydratedLan};
use domain::wiring::Wiring;
use futures_util::stream::{self, BoxStream};
use proto::line::{Line, decode, encode};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;
use crate::engine::{Changed, NewDecky, Origin};
use crate::spool::Bounds;

const BOUNDS: Bounds = Bounds {
    bytes: 1 << 30,
    events: 1_000_000,
};

// An engine that only speaks what it was given to say.

type Said = Vec<Result<OutputLine, EngineError>>;

#[derive(Debug, Default)]
struct Scripted {
    /// What each `follow` says.
    says: Mutex<VecDeque<(Said, End)>>,
    asked: Mutex<Vec<Option<OffsetDateTime>>>,
    gate: Arc<tokio::sync::Notify>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Ends,
    StaysOpen,
    /// It says what it says, and ends, when the gate is opened.
    EndsAtGate,
}

impl Scripted {
    fn of(says: impl IntoIterator<Item = (Said, End)>) -> Arc<Self> {
        Arc::new(Self {
            says: Mutex::new(says.into_iter().collect()),
            ..Self::default()
        })
    }

    fn asked(&self) -> Vec<Option<OffsetDateTime>> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn no<T>() -> Result<T, EngineError> {
    Err(EngineError {
        kind: EngineErrorKind::Refused,
        attempt: "only follows".to_owned(),
        source: None,
    })
}

#[async_trait]
impl Engine for Scripted {
    async fn follow(
        &self,
        _: &Handle,
        since: Option<OffsetDateTime>,
    ) -> Result<BoxStream<'static, Result<OutputLine, EngineError>>, EngineError> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(since);
        let next = self
            .says
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        match next {
            Some((said, End::Ends)) => Ok(stream::iter(said).boxed()),
            Some((said, End::StaysOpen)) => Ok(stream::iter(said).chain(stream::pending()).boxed()),
            Some((said, End::EndsAtGate)) => {
                let gate = Arc::clone(&self.gate);
                let opened = stream::once(async move { gate.notified().await });
                let mut said = Some(said);
                Ok(opened
                    .flat_map(move |()| stream::iter(said.take().unwrap_or_default()))
                    .boxed())
            }
            None => Err(EngineError {
                kind: EngineErrorKind::NotFound,
                attempt: "no such container".to_owned(),
                source: None,
            }),
        }
    }

    async fn inventory(&self) -> Result<Inventory, EngineError> {
        no()
    }
    async fn ensure_image(&self) -> Result<(), EngineError> {
        no()
    }
    async fn create_lan(&self, _: Origin, _: &HydratedLan, _: u32) -> Result<Handle, EngineError> {
        no()
    }
    async fn remove_lan(&self, _: &Handle) -> Result<(), EngineError> {
        no()
    }
    async fn create_decky(&self, _: NewDecky<'_>) -> Result<Handle, EngineError> {
        no()
    }
    async fn start_decky(&self, _: &Handle, _: &Wiring) -> Result<(), EngineError> {
        no()
    }
    async fn rewire(&self, _: &Handle, _: &Wiring) -> Result<(), EngineError> {
        no()
    }
    async fn remove_decky(&self, _: &Handle) -> Result<(), EngineError> {
        no()
    }
    async fn connect(
        &self,
        _: &Handle,
        _: &Handle,
        _: &HydratedInterface,
    ) -> Result<(), EngineError> {
        no()
    }
    async fn disconnect(&self, _: &Handle, _: &Handle) -> Result<(), EngineError> {
        no()
    }
    async fn configure(&self, _: &Handle, _: &HydratedDecky, _: &[u8]) -> Result<(), EngineError> {
        no()
    }
    async fn changes(&self) -> Result<BoxStream<'static, Changed>, EngineError> {
        no()
    }
    async fn foreign_subnets(&self) -> Result<Vec<(String, ipnet::Ipv4Net)>, EngineError> {
        no()
    }
}

// Lines.

fn second(number: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(number)
}

fn boot(number: u128) -> BootId {
    BootId::new(Uuid::from_u128(number))
}

fn written(boot_number: u128, counter: u64, payload: Payload) -> Vec<u8> {
    let mut bytes = encode(&Line {
        position: Position {
            boot: boot(boot_number),
            counter,
        },
        sighting: Sighting {
            at: second(0),
            service: None,
            session: None,
            source: None,
            destination: None,
            severity: Severity::Info,
            payload,
            raw: None,
        },
    });
    bytes.pop();
    bytes
}

fn said(at: i64, line: impl Into<Bytes>) -> Result<OutputLine, EngineError> {
    Ok(OutputLine {
        at: second(at),
        line: line.into(),
    })
}

fn line(at: i64, boot_number: u128, counter: u64) -> Result<OutputLine, EngineError> {
    let command = Payload::Command {
        line: Evidence::from(counter.to_string().as_str()),
    };
    said(at, written(boot_number, counter, command))
}

fn alive(at: i64, counter: u64, config: &str) -> Result<OutputLine, EngineError> {
    let payload = Payload::Lifecycle {
        state: "alive".to_owned(),
        config: config.to_owned(),
        detail: Evidence::from(""),
        count: 0,
    };
    said(at, written(1, counter, payload))
}

// One host's collection.

struct World {
    directory: TempDir,
    spool: Arc<Spool>,
    saw: Arc<Mutex<Vec<String>>>,
    vitals: Arc<Vitals>,
    shutdown: CancellationToken,
    following: watch::Sender<Arc<Vec<Followed>>>,
    /// What the clock shows, in seconds.
    now: Arc<AtomicI64>,
    running: Option<JoinHandle<Result<(), CollectError>>>,
}

fn decky() -> DeckyId {
    DeckyId::new(Uuid::from_u128(77))
}

fn followed() -> Followed {
    Followed {
        decky: decky(),
        topology: TopologyId::new(Uuid::from_u128(7)),
        handle: Handle::new("c1"),
        running: true,
    }
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let notices = Arc::new(Notices::new(Arc::new(|| second(0))));
        let spool = Spool::open(directory.path(), BOUNDS, notices, second(0)).await;
        Self {
            directory,
            spool: Arc::new(spool.expect("a writable directory")),
            saw: Arc::default(),
            vitals: Arc::default(),
            shutdown: CancellationToken::new(),
            following: watch::Sender::new(Arc::new(vec![followed()])),
            now: Arc::new(AtomicI64::new(1000)),
            running: None,
        }
    }

    fn start(&mut self, engine: &Arc<Scripted>) {
        let saw = Arc::clone(&self.saw);
        let now = Arc::clone(&self.now);
        let collector = Collector {
            engine: Arc::clone(engine) as Arc<dyn Engine>,
            spool: Arc::clone(&self.spool),
            saw: Arc::new(move |_, digest| {
                saw.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(digest.to_owned());
            }),
            vitals: Arc::clone(&self.vitals),
            notices: Arc::new(Notices::new(Arc::new(|| second(0)))),
            clock: Arc::new(move || second(now.load(Ordering::Relaxed))),
            flush: Duration::from_millis(1),
        };
        self.shutdown = CancellationToken::new();
        let work = collector.run(self.following.subscribe(), self.shutdown.clone());
        self.running = Some(task::spawn("collect", tracing::Span::none(), work));
    }

    /// Waits until so many events were ever spooled.
    async fn spooled(&self, events: u64) {
        let mut figures = self.spool.figures();
        let enough = figures.wait_for(|figures| figures.last >= events);
        tokio::time::timeout(Duration::from_secs(10), enough)
            .await
            .expect("within 10 s")
            .expect("open");
    }

    async fn stop(&mut self) {
        self.shutdown.cancel();
        let running = self.running.take().expect("started");
        running.await.expect("no panic").expect("a sound spool");
    }

    /// What a person would read: commands by their text, notices by state and count, anything else
    /// as it came.
    async fn read(&self) -> Vec<String> {
        let events = self
            .spool
            .read(0, 10_000, usize::MAX)
            .await
            .expect("readable");
        events
            .iter()
            .map(|event| {
                assert_eq!(event.decky, decky());
                assert_eq!(event.topology, followed().topology);
                match decode(&event.line).map(|line| line.sighting.payload) {
                    Ok(Payload::Command { line }) => line.printable(),
                    Ok(Payload::Lifecycle { state, count, .. }) => format!("{state} {count}"),
                    Ok(other) => format!("{other:?}"),
                    Err(_) => format!("raw {}", String::from_utf8_lossy(&event.line)),
                }
            })
            .collect()
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}

#[tokio::test]
async fn lines_are_spooled_in_order_under_the_identity_of_the_container() {
    let mut world = World::new().await;
    let says = (1..=1000).map(|counter| line(1, 1, counter)).collect();
    world.start(&Scripted::of([(says, End::StaysOpen)]));
    world.spooled(1000).await;
    world.stop().await;
    let read = world.read().await;
    assert_eq!(
        read,
        (1..=1000)
            .map(|counter| counter.to_string())
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn lines_that_come_again_after_a_restart_are_skipped() {
    let mut world = World::new().await;
    let first = vec![line(5, 1, 1), line(6, 1, 2), said(6, "junk"), line(6, 1, 3)];
    world.start(&Scripted::of([(first, End::StaysOpen)]));
    world.spooled(4).await;
    world.stop().await;

    // The whole second comes again, and then what is new; also from a new life of the decky.
    let again = vec![
        line(6, 1, 2),
        said(6, "junk"),
        line(6, 1, 3),
        line(6, 1, 4),
        said(6, "more junk"),
        line(7, 2, 1),
        said(7, "junk"),
    ];
    let engine = Scripted::of([(again, End::StaysOpen)]);
    world.start(&engine);
    world.spooled(8).await;
    world.stop().await;
    assert_eq!(engine.asked(), [Some(second(6))]);
    let read = world.read().await;
    assert_eq!(
        read,
        [
            "1",
            "2",
            "raw junk",
            "3",
            "4",
            "raw more junk",
            "1",
            "raw junk"
        ]
    );
}

#[tokio::test]
async fn a_stream_that_breaks_is_followed_again_without_loss_or_repetition() {
    let mut world = World::new().await;
    let broken = EngineError {
        kind: EngineErrorKind::Timeout,
        attempt: "reading".to_owned(),
        source: None,
    };
    let engine = Scripted::of([
        (vec![line(1, 1, 1), line(2, 1, 2), Err(broken)], End::Ends),
        (vec![line(2, 1, 2), line(2, 1, 3)], End::StaysOpen),
    ]);
    world.start(&engine);
    world.spooled(3).await;
    world.stop().await;
    assert_eq!(engine.asked(), [None, Some(second(2))]);
    assert_eq!(world.read().await, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_clock_that_went_back_between_two_runs_hides_no_line_and_repeats_none() {
    let mut world = World::new().await;
    let before = || {
        vec![
            line(898, 1, 1),
            said(899, "junk"),
            line(899, 1, 2),
            said(900, "junk"),
            line(900, 1, 3),
        ]
    };
    world.start(&Scripted::of([(before(), End::StaysOpen)]));
    world.spooled(5).await;
    world.stop().await;

    // An engine that were asked for what came since 900 would show nothing of it.
    world.now.store(500, Ordering::Relaxed);
    let mut again = before();
    again.extend([
        said(400, "junk"),
        line(401, 1, 4),
        said(402, "junk"),
        line(403, 2, 1),
    ]);
    let engine = Scripted::of([(again, End::StaysOpen)]);
    world.start(&engine);
    world.spooled(9).await;
    world.stop().await;
    assert_eq!(engine.asked(), [None]);
    let wanted = [
        "1", "raw junk", "2", "raw junk", "3", "raw junk", "4", "raw junk", "1",
    ];
    assert_eq!(world.read().await, wanted);

    // From then on it is read from where it is by that clock.
    let rest = vec![line(403, 2, 1), line(404, 2, 2)];
    let engine = Scripted::of([(rest, End::StaysOpen)]);
    world.start(&engine);
    world.spooled(10).await;
    world.stop().await;
    assert_eq!(engine.asked(), [Some(second(403))]);
}

#[tokio::test]
async fn a_clock_that_goes_back_while_a_container_is_read_hides_no_line() {
    let mut world = World::new().await;
    world.start(&Scripted::of([(vec![line(900, 1, 1)], End::StaysOpen)]));
    world.spooled(1).await;
    world.stop().await;
    // Asked for what came since 900, the engine holds back what comes at 400.
    let engine = Scripted::of([
        (vec![line(900, 1, 1)], End::StaysOpen),
        (vec![line(900, 1, 1), line(400, 1, 2)], End::StaysOpen),
    ]);
    world.start(&engine);
    eventually("it is followed", || !engine.asked().is_empty()).await;
    world.now.store(399, Ordering::Relaxed);
    world.spooled(2).await;
    world.stop().await;
    assert_eq!(engine.asked(), [Some(second(900)), None]);
    assert_eq!(world.read().await, ["1", "2"]);
}

#[tokio::test]
async fn missing_lines_are_accounted_for_by_an_event() {
    let mut world = World::new().await;
    // A log that was rotated before it was read, and one that lost lines in its middle.
    let says = vec![
        line(1, 1, 11),
        line(1, 1, 12),
        line(2, 1, 15),
        line(3, 2, 1),
    ];
    world.start(&Scripted::of([(says, End::StaysOpen)]));
    world.spooled(6).await;
    world.stop().await;
    assert_eq!(
        world.read().await,
        ["gap 10", "11", "12", "gap 2", "15", "1"]
    );
}

#[tokio::test]
async fn garbage_is_kept_as_it_came_and_an_endless_line_is_cut() {
    let mut world = World::new().await;
    let endless = vec![b'x'; 100_000];
    let says = vec![
        said(1, &b"\xff\x00{\"v\":1}"[..]),
        said(1, endless),
        said(1, "twice"),
        said(1, "twice"),
        line(1, 1, 1),
    ];
    world.start(&Scripted::of([(says, End::StaysOpen)]));
    world.spooled(5).await;
    world.stop().await;
    let events = world
        .spool
        .read(0, 100, usize::MAX)
        .await
        .expect("readable");
    assert_eq!(events[0].line, &b"\xff\x00{\"v\":1}"[..]);
    assert_eq!(events[1].line.len(), domain::event::MAX_LINE);
    assert_eq!(
        (&events[2].line, &events[3].line),
        (&"twice".into(), &"twice".into())
    );
}

#[tokio::test]
async fn signs_of_life_say_which_configuration_is_in_force_also_after_a_restart() {
    let mut world = World::new().await;
    let (first, second) = ("a".repeat(64), "b".repeat(64));
    let says = vec![alive(1, 1, &first), line(2, 1, 2), alive(3, 3, &second)];
    world.start(&Scripted::of([(says, End::StaysOpen)]));
    world.spooled(3).await;
    world.stop().await;
    assert_eq!(
        *world.saw.lock().expect("no panic"),
        [first.clone(), second.clone()]
    );

    world.start(&Scripted::of([(Vec::new(), End::StaysOpen)]));
    let saw = Arc::clone(&world.saw);
    eventually("the stored one is told", || {
        saw.lock().expect("no panic").len() == 3
    })
    .await;
    world.stop().await;
    assert_eq!(
        *world.saw.lock().expect("no panic"),
        [first, second.clone(), second]
    );
}

#[tokio::test]
async fn what_an_owned_decky_says_of_its_lives_and_configurations_is_kept_in_bounds() {
    let mut world = World::new().await;
    let long = "f".repeat(10_000);
    let payload = |config: &str| Payload::Lifecycle {
        state: "alive".to_owned(),
        config: config.to_owned(),
        detail: Evidence::from(""),
        count: 0,
    };
    let digest = "0123456789abcdef".repeat(4);
    let mut says = vec![said(1, written(1, 1, payload(&digest)))];
    says.extend((2..=2000).map(|life| said(1, written(life, 1, payload(&long)))));
    says.push(said(1, written(1, 2, payload(&digest.to_uppercase()))));
    world.start(&Scripted::of([(says, End::StaysOpen)]));
    // The first life was forgotten meanwhile, and its second line seems to miss one.
    world.spooled(2002).await;
    world.stop().await;
    let marks = world.spool.marks(&Handle::new("c1")).await;
    let marks = marks.expect("readable");
    assert_eq!(marks.len(), crate::spool::LIVES);
    assert!(marks.iter().all(|mark| mark.config == digest));
    assert_eq!(*world.saw.lock().expect("no panic"), [digest]);
}

#[tokio::test]
async fn a_follower_of_a_container_that_vanished_reads_to_the_end() {
    let mut world = World::new().await;
    let engine = Scripted::of([(vec![line(1, 1, 1), line(1, 1, 2)], End::EndsAtGate)]);
    world.start(&engine);
    eventually("it is followed", || !engine.asked().is_empty()).await;
    world.following.send_replace(Arc::default());
    engine.gate.notify_one();
    world.spooled(2).await;
    world.stop().await;
    // It is not asked for again.
    assert_eq!(engine.asked(), [None]);
    assert_eq!(world.read().await, ["1", "2"]);
}

#[tokio::test]
async fn a_full_disk_holds_collection_back_and_loses_nothing() {
    let mut world = World::new().await;
    world.spool.limit_pages(20).await;
    let big = |counter| {
        let text = "x".repeat(4000);
        let payload = Payload::Command {
            line: Evidence::from(text.as_str()),
        };
        said(1, written(1, counter, payload))
    };
    let says = (1..=3000).map(big).collect();
    world.start(&Scripted::of([(says, End::StaysOpen)]));
    let vitals = Arc::clone(&world.vitals);
    eventually("the spool refuses", || !vitals.spool_ok()).await;

    world.spool.limit_pages(1_000_000).await;
    world.spooled(3000).await;
    world.stop().await;
    assert!(world.vitals.spool_ok());
    assert_eq!(world.read().await.len(), 3000);
    assert!(world.directory.path().exists());
}

#[tokio::test]
async fn stopping_stores_what_was_read_and_waits_for_no_full_disk() {
    let mut world = World::new().await;
    world.spool.limit_pages(1).await;
    let big = "x".repeat(16_000);
    let says = (0..100).map(|_| said(1, big.clone())).collect();
    world.start(&Scripted::of([(says, End::StaysOpen)]));
    let vitals = Arc::clone(&world.vitals);
    eventually("the spool refuses", || !vitals.spool_ok()).await;
    tokio::time::timeout(Duration::from_secs(5), world.stop())
        .await
        .expect("at once");
    // Neither lines nor places: the next start begins where the last one was stored.
    assert_eq!(
        world
            .spool
            .marks(&Handle::new("c1"))
            .await
            .expect("readable"),
        []
    );
}

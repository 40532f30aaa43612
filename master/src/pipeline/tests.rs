//! Laws of ingestion, on a real store, and of its writer on one that fails when it is told to.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use domain::event::{EventKind, Evidence, MAX_LINE, Payload, Position, Severity, Sighting};
use domain::id::BootId;
use domain::topology::Topology;
use futures_util::future::join_all;
use proto::line::{self, Line};
use tempfile::TempDir;

use super::writer::Table;
use super::*;
use crate::db::conformance::events::event;
use crate::db::conformance::{at, deployed, enrolled, spool, topology, uuid};
use crate::db::sqlite;
use crate::db::{Appended, Deploy, EventFilter, EventPage, EventRow, Replace};

struct World {
    store: Arc<dyn Store>,
    ingest: Arc<Ingest>,
    host: HostId,
    maze: Topology,
    _directory: TempDir,
}

fn clock() -> Clock {
    Arc::new(|| at(1000))
}

impl World {
    /// A host that carries a topology of five deckies.
    async fn new() -> Self {
        let directory = TempDir::new().expect("there is room");
        let path = directory.path().join("master.db");
        let store: Arc<dyn Store> =
            Arc::new(sqlite::open(&path).await.expect("a new database opens"));
        let host = enrolled(&store, 1, "edge").await;
        let maze = topology(1, "maze", 4);
        deployed(&store, &maze, host).await;
        let ingest = Arc::new(Ingest::new(Arc::clone(&store), clock()));
        Self {
            store,
            ingest,
            host,
            maze,
            _directory: directory,
        }
    }

    fn spooled(&self, sequence: u64, line: impl Into<Bytes>) -> Spooled {
        Spooled {
            sequence,
            topology: self.maze.id,
            decky: self.maze.deckies[0].id,
            collected_at: at(900),
            line: line.into(),
        }
    }

    async fn give(&self, batch: Vec<Spooled>) -> Result<Receipt, IngestError> {
        self.ingest.ingest(self.host, spool(1), batch).await
    }

    async fn rows(&self) -> Vec<EventRow> {
        let page = EventPage::After { row: 0 };
        self.store
            .events(&EventFilter::default(), page, 1000)
            .await
            .expect("answered")
    }

    async fn refusals(&self) -> usize {
        let log = self.store.audit_log(1000).await.expect("answered");
        log.iter()
            .filter(|entry| entry.action == "event.refuse")
            .count()
    }
}

fn written(payload: Payload) -> Vec<u8> {
    line::encode(&Line {
        position: Position {
            boot: BootId::new(uuid(7)),
            counter: 1,
        },
        sighting: Sighting {
            at: at(890),
            service: None,
            session: None,
            source: None,
            destination: None,
            severity: Severity::Info,
            payload,
            raw: None,
        },
    })
}

fn command(text: &str) -> Vec<u8> {
    written(Payload::Command { line: text.into() })
}

fn alive() -> Vec<u8> {
    written(Payload::Lifecycle {
        state: "alive".to_owned(),
        config: String::new(),
        detail: Evidence::default(),
        count: 0,
    })
}

#[tokio::test]
async fn lines_become_events_of_the_container_that_wrote_them() {
    let world = World::new().await;
    let batch = vec![
        world.spooled(3, command("id")),
        world.spooled(9, command("uname")),
    ];
    let receipt = world.give(batch.clone()).await.expect("taken");
    assert_eq!(
        receipt,
        Receipt {
            through: 9,
            stored: 2,
            refused: 0
        }
    );
    let again = world.give(batch).await.expect("taken");
    assert_eq!(
        again,
        Receipt {
            through: 9,
            stored: 0,
            refused: 0
        }
    );

    let rows = world.rows().await;
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (row.host, row.spool, row.event.sequence))
        .collect();
    assert_eq!(seen, [(world.host, spool(1), 3), (world.host, spool(1), 9)]);
    let event = &rows[0].event;
    assert_eq!(
        (event.topology, event.decky),
        (world.maze.id, world.maze.deckies[0].id)
    );
    assert_eq!((event.at, event.received_at), (at(890), at(1000)));
    assert_eq!(event.payload, Payload::Command { line: "id".into() });
    assert_eq!(event.id.uuid().get_version_num(), 7);
}

#[tokio::test]
async fn what_is_no_line_is_kept_as_it_is_and_stops_nothing() {
    let world = World::new().await;
    let long = vec![b'x'; MAX_LINE + 1];
    let batch = vec![
        world.spooled(1, &b"{\"v\":1,\"host\":\"forged\"}\xff"[..]),
        world.spooled(2, command("id")),
        world.spooled(3, long),
        world.spooled(4, &b""[..]),
    ];
    let receipt = world.give(batch).await.expect("taken");
    assert_eq!(
        receipt,
        Receipt {
            through: 4,
            stored: 4,
            refused: 0
        }
    );
    let rows = world.rows().await;
    let kinds: Vec<_> = rows.iter().map(|row| row.event.payload.kind()).collect();
    use EventKind::{Command, Raw};
    assert_eq!(kinds, [Raw, Command, Raw, Raw]);
    let raw = |index: usize| rows[index].event.raw.clone().unwrap_or_default();
    assert_eq!(raw(0).bytes(), b"{\"v\":1,\"host\":\"forged\"}\xff");
    assert_eq!(raw(2).bytes().len(), Evidence::MAX);
    assert_eq!(rows[0].event.at, at(900), "the agent's clock stands in");
    let reason = format!("line of {} bytes exceeds {MAX_LINE}", MAX_LINE + 1);
    assert_eq!(rows[2].event.payload, Payload::Raw { reason });
}

#[tokio::test]
async fn signs_of_life_are_received_and_not_stored() {
    let world = World::new().await;
    let started = written(Payload::Lifecycle {
        state: "started".to_owned(),
        config: String::new(),
        detail: Evidence::default(),
        count: 0,
    });
    let batch = vec![world.spooled(1, started), world.spooled(2, alive())];
    let receipt = world.give(batch).await.expect("taken");
    assert_eq!(
        receipt,
        Receipt {
            through: 2,
            stored: 1,
            refused: 0
        }
    );
    let receipt = world
        .give(vec![world.spooled(3, alive())])
        .await
        .expect("taken");
    assert_eq!(
        receipt,
        Receipt {
            through: 3,
            stored: 0,
            refused: 0
        }
    );
}

#[tokio::test]
async fn events_of_a_decky_that_was_never_on_the_host_are_refused_and_audited_in_bounds() {
    let world = World::new().await;
    let other = enrolled(&world.store, 2, "other").await;
    let elsewhere = topology(2, "elsewhere", 0);
    deployed(&world.store, &elsewhere, other).await;
    let foreign = |sequence, decky| Spooled {
        decky,
        ..world.spooled(sequence, command("id"))
    };
    let theirs = Spooled {
        topology: elsewhere.id,
        ..foreign(1, elsewhere.deckies[0].id)
    };
    // The right decky under the wrong topology is no decky of the host either.
    let crossed = Spooled {
        topology: elsewhere.id,
        ..world.spooled(2, command("id"))
    };
    let own = world.spooled(3, command("id"));
    let receipt = world.give(vec![theirs, crossed, own]).await.expect("taken");
    assert_eq!(
        receipt,
        Receipt {
            through: 3,
            stored: 1,
            refused: 2
        }
    );
    assert_eq!(world.rows().await.len(), 1);
    assert_eq!(world.refusals().await, 2);

    // A host that invents deckies does not fill the audit log.
    for number in 4..104 {
        let invented = foreign(number, DeckyId::new(uuid(number.into())));
        assert_eq!(world.give(vec![invented]).await.expect("taken").refused, 1);
    }
    assert_eq!(world.refusals().await, 16);
}

#[tokio::test]
async fn a_topology_that_comes_later_is_noticed() {
    let world = World::new().await;
    world
        .give(vec![world.spooled(1, command("id"))])
        .await
        .expect("taken");
    let second = topology(2, "second", 0);
    crate::db::conformance::drafted(&world.store, &second).await;
    let deploy = Deploy {
        replace: Replace::Supersede,
        ..crate::db::conformance::deploy_of(&second, world.host)
    };
    world.store.deploy(deploy).await.expect("deployed");
    // Nobody said `forget`; and late events of the first are still its own.
    let new = Spooled {
        topology: second.id,
        decky: second.deckies[0].id,
        ..world.spooled(2, command("id"))
    };
    let batch = vec![new, world.spooled(3, command("id"))];
    assert_eq!(world.give(batch).await.expect("taken").stored, 2);
    world.ingest.forget(world.host);
    let batch = vec![world.spooled(4, command("id"))];
    assert_eq!(world.give(batch).await.expect("taken").stored, 1);
}

#[tokio::test]
async fn a_batch_that_breaks_a_bound_is_not_taken() {
    let world = World::new().await;
    let many = (0..=1024)
        .map(|number| world.spooled(number, command("id")))
        .collect();
    let refused = world.give(many).await;
    assert!(
        matches!(refused, Err(IngestError::TooLarge { events: 1025, .. })),
        "{refused:?}"
    );
    let large = (1..=65)
        .map(|number| world.spooled(number, vec![0; 16 * 1024 + 1]))
        .collect();
    let refused = world.give(large).await;
    assert!(
        matches!(refused, Err(IngestError::TooLarge { events: 65, .. })),
        "{refused:?}"
    );
    for (first, second) in [(5, 5), (5, 4)] {
        let batch = vec![
            world.spooled(first, command("a")),
            world.spooled(second, command("b")),
        ];
        match world.give(batch).await {
            Err(IngestError::Order { before: 5, got }) => assert_eq!(got, second),
            other => panic!("{other:?}"),
        }
    }
    let beyond = world
        .give(vec![world.spooled(u64::MAX, command("a"))])
        .await;
    assert!(
        matches!(beyond, Err(IngestError::Order { .. })),
        "{beyond:?}"
    );
    assert_eq!(world.rows().await.len(), 0);
    let empty = world.give(Vec::new()).await.expect("taken");
    assert_eq!(
        empty,
        Receipt {
            through: 0,
            stored: 0,
            refused: 0
        }
    );
}

#[tokio::test]
async fn commits_are_announced_and_repeats_are_not() {
    let world = World::new().await;
    let mut announced = world.ingest.subscribe();
    let batch = vec![world.spooled(1, command("id"))];
    world.give(batch.clone()).await.expect("taken");
    world.give(batch).await.expect("taken");
    world
        .give(vec![world.spooled(2, alive())])
        .await
        .expect("taken");
    world
        .give(vec![world.spooled(3, command("uname"))])
        .await
        .expect("taken");
    let mut sequences = Vec::new();
    for _ in 0..2 {
        let batch = announced.recv().await.expect("announced");
        assert_eq!(batch.host, world.host);
        sequences.extend(batch.events.iter().map(|event| event.sequence));
    }
    assert_eq!(sequences, [1, 3]);
    assert!(announced.try_recv().is_err());
}

#[tokio::test]
async fn many_hosts_at_once_lose_nothing() {
    let world = World::new().await;
    let spools = 24;
    let senders = (0..spools).map(|number| {
        let world = &world;
        async move {
            for batch in 0..5 {
                let events = (0..20)
                    .map(|event| world.spooled(batch * 20 + event, command("id")))
                    .collect();
                let receipt = world
                    .ingest
                    .ingest(world.host, spool(number), events)
                    .await
                    .expect("taken");
                assert_eq!(receipt.stored, 20);
            }
        }
    });
    join_all(senders).await;
    let count = world
        .store
        .count_events(&EventFilter::default())
        .await
        .expect("answered");
    assert_eq!(count, 24 * 100);
}

#[tokio::test]
async fn what_waits_is_stored_before_the_end_and_nothing_after() {
    let world = World::new().await;
    let waiting = (1..=20).map(|number| {
        let batch = vec![world.spooled(1, command("id"))];
        let ingest = Arc::clone(&world.ingest);
        let host = world.host;
        task::spawn("sender", tracing::Span::none(), async move {
            ingest.ingest(host, spool(number), batch).await
        })
    });
    let waiting: Vec<_> = waiting.collect();
    tokio::task::yield_now().await;
    world.ingest.stop().await;
    let mut taken = 0;
    for task in waiting {
        match task.await.expect("it does not panic") {
            Ok(receipt) => taken += receipt.stored,
            Err(IngestError::Stopped) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    let stored = world
        .store
        .count_events(&EventFilter::default())
        .await
        .expect("answered");
    assert_eq!(stored, taken);
    let late = world.give(vec![world.spooled(1, command("id"))]).await;
    assert!(matches!(late, Err(IngestError::Stopped)), "{late:?}");
}

/// A table that fails when it is told to.
#[derive(Default)]
struct Faulty {
    busy: AtomicU32,
    full: AtomicU32,
}

fn once(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(1)
    })
    .is_ok()
}

#[async_trait]
impl Table for Arc<Faulty> {
    async fn append(&self, batches: &[EventBatch]) -> Result<Vec<Appended>, StoreError> {
        let attempt = "store events";
        if once(&self.busy) {
            return Err(StoreError::Busy {
                attempt,
                source: sqlx::Error::PoolTimedOut,
            });
        }
        if once(&self.full) {
            return Err(StoreError::Full {
                attempt,
                source: sqlx::Error::RowNotFound,
            });
        }
        // 13 is the number that it cannot store.
        if batches
            .iter()
            .flat_map(|batch| &batch.events)
            .any(|event| event.sequence == 13)
        {
            return Err(StoreError::Failed {
                attempt,
                source: sqlx::Error::RowNotFound,
            });
        }
        Ok(batches.iter().map(|_| Appended { stored: 1 }).collect())
    }
}

/// A writer on a faulty table.
struct Bench {
    table: Arc<Faulty>,
    jobs: mpsc::Sender<Job>,
    condition: watch::Receiver<Condition>,
}

impl Bench {
    fn new() -> Self {
        let table = Arc::new(Faulty::default());
        let (jobs, queue) = mpsc::channel(16);
        let (report, condition) = watch::channel(Condition::Storing);
        let writer = Writer {
            table: Arc::clone(&table),
            queue,
            announcements: broadcast::channel(16).0,
            condition: report,
            stop: CancellationToken::new(),
        };
        // It ends with the sender of jobs.
        drop(task::spawn(
            "event writer",
            tracing::Span::none(),
            writer.run(),
        ));
        Self {
            table,
            jobs,
            condition,
        }
    }

    async fn give(&self, number: u128, sequence: u64) -> writer::Answer {
        let host = HostId::new(uuid(1));
        let batch = EventBatch {
            host,
            spool: spool(number),
            events: vec![event(sequence)],
        };
        let (answer, answered) = oneshot::channel();
        self.jobs
            .send(Job { batch, answer })
            .await
            .expect("the writer runs");
        answered.await.expect("the writer answers")
    }

    fn condition(&self) -> Condition {
        *self.condition.borrow()
    }
}

#[tokio::test]
async fn a_busy_database_is_asked_again_and_a_full_disk_is_a_condition() {
    let bench = Bench::new();
    bench.table.busy.store(2, Ordering::Relaxed);
    assert_eq!(bench.give(1, 1).await.expect("taken in the end").stored, 1);
    assert_eq!(bench.condition(), Condition::Storing);

    bench.table.busy.store(u32::MAX, Ordering::Relaxed);
    let error = bench.give(1, 2).await.expect_err("it stays busy");
    assert!(matches!(*error, StoreError::Busy { .. }), "{error:?}");
    assert_eq!(bench.condition(), Condition::Busy);
    bench.table.busy.store(0, Ordering::Relaxed);

    bench.table.full.store(1, Ordering::Relaxed);
    let error = bench.give(1, 2).await.expect_err("the disk is full");
    assert!(matches!(*error, StoreError::Full { .. }), "{error:?}");
    assert_eq!(bench.condition(), Condition::Full);

    assert_eq!(
        bench.give(1, 2).await.expect("there is room again").stored,
        1
    );
    assert_eq!(bench.condition(), Condition::Storing);
}

#[tokio::test]
async fn a_batch_that_cannot_be_stored_stops_only_the_later_ones_of_its_spool() {
    let bench = Bench::new();
    // On one thread all of them are queued before the writer runs, so that they are merged.
    let (first, broken, later, other) = tokio::join!(
        bench.give(1, 12),
        bench.give(1, 13),
        bench.give(1, 14),
        bench.give(2, 14)
    );
    assert_eq!(first.expect("it was before").stored, 1);
    let broken = broken.expect_err("it cannot be stored");
    assert!(matches!(*broken, StoreError::Failed { .. }), "{broken:?}");
    assert!(
        later.is_err(),
        "a receipt for it would acknowledge the broken one"
    );
    assert_eq!(other.expect("it is of another spool").stored, 1);
    assert_eq!(bench.condition(), Condition::Failing);
}

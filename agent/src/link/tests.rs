use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use domain::assign::{HostReport, Phase};
use domain::id::{DeckyId, TopologyId};
use domain::observe::Inventory;
use domain::revision::Fence;
use domain::topology::hydrate::VersionHash;
use domain::usage::{Usage, Usages};
use proto::v1::{self, agent_message, master_message};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::bulk::Bulk;
use super::open::prove;
use super::scripted::{Control, DAY, Master, now, within};
use super::session::{Dialling, Session};
use super::*;
use crate::apply::{Offer, Progress};
use crate::health::Vitals;
use crate::identity::Credentials;
use crate::join::blank;
use crate::notice::Notices;
use crate::report::Obey;
use crate::spool::{Bounds, Class, NewEvent, Spool};
use crate::task;

const NEVER: u32 = 600_000;

/// An applier that notes what it is told.
struct Obedient {
    told: Mutex<Vec<String>>,
    reports: watch::Sender<Arc<HostReport>>,
    progress: watch::Sender<Option<Progress>>,
}

impl Obedient {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            told: Mutex::default(),
            reports: watch::Sender::new(Arc::new(blank())),
            progress: watch::Sender::new(None),
        })
    }

    fn note(&self, text: String) {
        self.told.lock().expect("no panic").push(text);
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().expect("no panic").clone()
    }
}

#[async_trait]
impl Obey for Obedient {
    async fn offer(&self, offer: Offer) {
        let content = offer.topology.map(|(_, _, document)| document);
        self.note(format!("offer {} {content:?}", offer.fence));
    }
    async fn set_floor(&self, floor: Fence) {
        self.note(format!("floor {floor}"));
    }
    async fn observe(&self) {
        self.note("observe".to_owned());
    }
    fn reports(&self) -> watch::Receiver<Arc<HostReport>> {
        self.reports.subscribe()
    }
    fn progress(&self) -> watch::Receiver<Option<Progress>> {
        self.progress.subscribe()
    }
}

/// An agent without an engine, on a directory of its own.
struct Agent {
    directory: TempDir,
    credentials: Arc<Credentials>,
    obey: Arc<Obedient>,
    spool: Arc<Spool>,
    usages: watch::Sender<Arc<Usages>>,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Agent {
    async fn of(master: &Master) -> Self {
        Self::joined(master, now()).await
    }

    async fn joined(master: &Master, at: time::OffsetDateTime) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let credentials = master.credentials(directory.path(), at, DAY);
        let bounds = Bounds {
            bytes: 1 << 30,
            events: 1_000_000,
        };
        let notices = Arc::new(Notices::new(Arc::new(now)));
        let spool = Spool::open(directory.path(), bounds, notices, now()).await;
        Self {
            directory,
            credentials,
            obey: Obedient::new(),
            spool: Arc::new(spool.expect("a writable directory")),
            usages: watch::Sender::default(),
            shutdown: CancellationToken::new(),
            tasks: Vec::new(),
        }
    }

    fn dialling(&self) -> Dialling {
        Dialling {
            credentials: Arc::clone(&self.credentials),
            masters: self.credentials.membership().masters,
            pace: Pace {
                first: Duration::from_millis(5),
                last: Duration::from_millis(50),
                refused: DAY,
            },
            jitter: Arc::new(|| 0.5),
        }
    }

    fn session(&self) -> Session {
        Session {
            dialling: self.dialling(),
            obey: Arc::clone(&self.obey) as Arc<dyn Obey>,
            vitals: Arc::new(Vitals::default()),
            data: self.directory.path().to_owned(),
            spool: self.spool.figures(),
            usages: self.usages.subscribe(),
            without_master: DAY,
        }
    }

    fn start_session(&mut self) {
        self.start(self.session());
    }

    fn start(&mut self, session: Session) {
        let work = session.run(self.shutdown.clone());
        self.tasks
            .push(task::spawn("session", tracing::Span::none(), work));
    }

    fn start_bulk(&mut self) {
        let bulk = Bulk {
            dialling: self.dialling(),
            spool: Arc::clone(&self.spool),
        };
        let work = bulk.run(self.shutdown.clone());
        self.tasks
            .push(task::spawn("bulk", tracing::Span::none(), work));
    }

    async fn collect(&self, events: std::ops::Range<u32>) {
        let events: Vec<_> = events
            .map(|number| NewEvent {
                topology: TopologyId::new(Uuid::from_u128(1)),
                decky: DeckyId::new(Uuid::from_u128(2)),
                collected_at: now(),
                class: Class::Evidence,
                line: number.to_string().into(),
            })
            .collect();
        self.spool.append(&events, &[]).await.expect("room");
    }

    async fn acknowledged(&self, through: u64) {
        let mut figures = self.spool.figures();
        let acked = figures.wait_for(|figures| figures.acked >= through);
        within("an acknowledgement", acked).await.expect("open");
    }

    async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            within("the end of a task", task).await.expect("no panic");
        }
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, looking).await;
}

async fn body(control: &mut Control) -> agent_message::Body {
    control
        .hear()
        .await
        .expect("a message")
        .body
        .expect("a body")
}

/// The next report, whatever heartbeats come before it.
async fn report(control: &mut Control) -> v1::Report {
    loop {
        if let agent_message::Body::Report(report) = body(control).await {
            return report;
        }
    }
}

async fn heartbeat(control: &mut Control) -> v1::Heartbeat {
    loop {
        if let agent_message::Body::Heartbeat(heartbeat) = body(control).await {
            return heartbeat;
        }
    }
}

fn order(body: master_message::Body) -> v1::MasterMessage {
    v1::MasterMessage { body: Some(body) }
}

fn seen() -> HostReport {
    HostReport {
        observed: Some(Inventory::default()),
        phase: Phase::Idle,
        ..blank()
    }
}

// The control connection.

#[tokio::test]
async fn hello_comes_first_and_tells_the_row_without_what_was_observed() {
    let mut master = Master::start().await;
    let mut agent = Agent::of(&master).await;
    agent.obey.reports.send_replace(Arc::new(seen()));
    agent.start_session();

    let mut control = master.control().await;
    let agent_message::Body::Hello(hello) = body(&mut control).await else {
        panic!("no hello")
    };
    assert_eq!(hello.agent_version, VERSION);
    assert_eq!(hello.report.expect("the row").observed, None);
    // Nothing is asked of the engine before the master has spoken.
    assert_eq!(agent.obey.told(), Vec::<String>::new());

    control.say(super::scripted::welcome(NEVER)).await;
    let first = body(&mut control).await;
    assert!(
        matches!(&first, agent_message::Body::Report(it) if it.observed.is_some()),
        "{first:?}"
    );
    let beat = heartbeat(&mut control).await;
    assert_eq!(beat.observed_digest, wire::observed_digest(&seen()));
    assert!(beat.health.expect("health").disk_free_mib > 0);
    assert_eq!(agent.obey.told(), ["floor 3.4", "observe"]);
    agent.stop().await;
}

#[tokio::test]
async fn assignments_are_handed_on_and_a_malformed_one_costs_nothing_else() {
    let mut master = Master::start().await;
    let mut agent = Agent::of(&master).await;
    agent.start_session();
    let control = master.welcomed(NEVER).await;

    let assign = |generation, topology_id: Vec<u8>| {
        order(master_message::Body::Assign(v1::Assign {
            fence: Some(v1::Fence {
                epoch: 3,
                generation,
            }),
            topology_id,
            version_hash: VersionHash::new([1; 32]).bytes().to_vec(),
            hydrated: Bytes::from_static(b"doc"),
        }))
    };
    control.say(assign(5, vec![7; 16])).await;
    control.say(assign(6, vec![7; 3])).await;
    control.say(v1::MasterMessage { body: None }).await;
    control.say(assign(7, Vec::new())).await;
    control
        .say(order(master_message::Body::ReportWanted(
            v1::ReportWanted {},
        )))
        .await;

    let obey = Arc::clone(&agent.obey);
    eventually("all is handed on", || obey.told().len() == 5).await;
    assert_eq!(
        agent.obey.told(),
        [
            "floor 3.4",
            "observe",
            "offer 3.5 Some(b\"doc\")",
            "offer 3.7 None",
            "observe"
        ]
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_change_is_reported_at_once_and_the_heartbeat_refers_to_it() {
    let mut master = Master::start().await;
    let mut agent = Agent::of(&master).await;
    agent.start_session();
    let mut control = master.welcomed(NEVER).await;
    let before = heartbeat(&mut control).await;

    agent.obey.reports.send_replace(Arc::new(seen()));
    assert!(report(&mut control).await.observed.is_some());
    let after = heartbeat(&mut control).await;
    assert_ne!(after.observed_digest, before.observed_digest);
    assert_eq!(after.observed_digest, wire::observed_digest(&seen()));

    let progress = Progress {
        fence: Fence::new(3, 5),
        done: 2,
        total: 9,
    };
    agent.obey.progress.send_replace(Some(progress));
    let said = body(&mut control).await;
    assert!(
        matches!(&said, agent_message::Body::Progress(it) if it.total == 9),
        "{said:?}"
    );

    let usage = Usage {
        memory_bytes: 4 << 20,
        refused_packets: Some(2),
        ..Usage::default()
    };
    let usages = Usages::from([(DeckyId::new(Uuid::from_u128(3)), usage)]);
    agent.usages.send_replace(Arc::new(usages.clone()));
    let agent_message::Body::Usage(said) = body(&mut control).await else {
        panic!("figures come alone: no report and no heartbeat for them");
    };
    assert_eq!(proto::convert::usages(said), Ok(usages));
    agent.stop().await;
}

#[tokio::test]
async fn heartbeats_come_in_the_period_that_the_master_wants() {
    let mut master = Master::start().await;
    let mut agent = Agent::of(&master).await;
    agent.start_session();
    let mut control = master.welcomed(20).await;
    for _ in 0..5 {
        heartbeat(&mut control).await;
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_connection_that_the_master_ends_is_made_again() {
    let mut master = Master::start().await;
    let mut agent = Agent::of(&master).await;
    agent.start_session();
    drop(master.welcomed(NEVER).await);
    let mut again = master.welcomed(NEVER).await;
    heartbeat(&mut again).await;
    agent.stop().await;
}

#[tokio::test]
async fn without_a_master_the_engine_is_looked_at_once_to_collect() {
    let master = Master::start().await;
    let mut agent = Agent::of(&master).await;
    drop(master);
    let session = Session {
        without_master: Duration::from_millis(10),
        ..agent.session()
    };
    agent.start(session);
    let obey = Arc::clone(&agent.obey);
    eventually("it looks", || obey.told() == ["observe"]).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_revoked_host_is_told_so_by_name_and_does_not_hammer() {
    let mut master = Master::start().await;
    let mut agent = Agent::of(&master).await;
    agent.start_session();
    agent.start_bulk();
    drop((master.welcomed(NEVER).await, master.bulk().await));
    // Reconnected by now, or about to; from here on nobody gets in.
    master.revoke();

    let refused = prove(&agent.credentials, &master.address, &blank()).await;
    let error = refused.expect_err("revoked");
    assert!(matches!(error, LinkError::Refused { .. }), "{error:?}");
    assert_eq!(error.reason(), "refused by master");
    assert!(
        error.next_step().contains("join with the new token"),
        "{}",
        error.next_step()
    );
    agent.stop().await;
}

#[tokio::test]
async fn an_unreachable_master_is_named_as_such() {
    let master = Master::start().await;
    let agent = Agent::of(&master).await;
    let address = master.address.clone();
    drop(master);
    let mut refused = None;
    // The port closes a moment after the master has ended.
    for _ in 0..100 {
        let error = prove(&agent.credentials, &address, &blank())
            .await
            .expect_err("no master");
        if matches!(
            &error,
            LinkError::Connect {
                source: ConnectError::PortClosed { .. }
            }
        ) {
            refused = Some(error);
            break;
        }
        tokio::task::yield_now().await;
    }
    let error = refused.expect("a closed port");
    assert_eq!(error.reason(), "unreachable");
    assert!(
        error.next_step().contains("decnet-master runs there"),
        "{}",
        error.next_step()
    );
}

// Renewal.

#[tokio::test]
async fn renewal_moves_both_connections_and_loses_no_event() {
    let mut master = Master::start().await;
    let mut agent = Agent::of(&master).await;
    agent.start_session();
    agent.start_bulk();
    let mut control = master.welcomed(NEVER).await;
    let old_key = control.host().key;
    agent.collect(0..10).await;
    let mut bulk = master.bulk().await;
    assert_ne!(
        bulk.peer.address, control.peer.address,
        "two connections, not one"
    );
    let batch = bulk.hear().await.expect("a batch");

    control
        .say(order(master_message::Body::RenewNow(v1::RenewNow {})))
        .await;
    let mut new_control = master.control().await;
    // As the master does: the newer connection of a host ends the older one, and may do so before
    // its own welcome has arrived.
    control
        .end(tonic::Status::aborted("a newer connection took over"))
        .await;
    assert!(new_control.hear().await.is_some());
    new_control.say(super::scripted::welcome(NEVER)).await;
    assert_ne!(new_control.host().key, old_key);
    assert_eq!(
        agent.credentials.identity().key().fingerprint(),
        new_control.host().key
    );
    control.ended().await;
    heartbeat(&mut new_control).await;
    // What was sent over the old connection is acknowledged over it, and only then does it end.
    let new_bulk = master.bulk();
    agent.collect(10..20).await;
    bulk.say(v1::EventReceipt {
        spool_id: batch.spool_id,
        through: 10,
        refused: 0,
    })
    .await;
    let mut new_bulk = new_bulk.await;
    bulk.ended().await;
    let rest = new_bulk.hear().await.expect("the next batch");
    assert_eq!(
        rest.events.iter().map(|it| it.sequence).collect::<Vec<_>>(),
        (11..=20).collect::<Vec<_>>()
    );
    new_bulk
        .say(v1::EventReceipt {
            spool_id: rest.spool_id,
            through: 20,
            refused: 0,
        })
        .await;
    agent.acknowledged(20).await;
    assert_eq!(new_bulk.host().key, new_control.host().key);
    assert_eq!(master.renewals(), 1);

    let stored = crate::identity::Credentials::load(agent.directory.path(), Arc::new(now));
    let stored = stored
        .expect("a stored identity")
        .identity()
        .key()
        .fingerprint();
    assert_eq!(stored, new_control.host().key);
    agent.stop().await;
}

#[tokio::test]
async fn a_certificate_is_renewed_at_half_its_life_unasked() {
    let mut master = Master::start().await;
    let mut agent = Agent::joined(&master, now() - time::Duration::hours(14)).await;
    agent.start_session();
    let first = master.welcomed(NEVER).await;
    let second = master.welcomed(NEVER).await;
    assert_ne!(first.host().key, second.host().key);
    agent.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_is_renewed_before_anything_else() {
    let mut master = Master::start().await;
    let mut agent = Agent::joined(&master, now() - time::Duration::days(3)).await;
    assert!(agent.credentials.is_expired());
    agent.start_session();
    let control = master.welcomed(NEVER).await;
    assert!(!control.host().expired);
    assert_eq!(master.renewals(), 1);
    assert!(!agent.credentials.is_expired());
    agent.stop().await;
}

#[tokio::test]
async fn a_host_whose_clock_hides_that_it_expired_renews_when_it_is_refused() {
    let mut master = Master::start().await;
    let mut agent = Agent::joined(&master, now() - time::Duration::hours(25)).await;
    // By its own clock the certificate has an hour left.
    let identity = pki::identity::files::IdentityFiles::new(agent.directory.path()).load();
    agent.credentials = Arc::new(Credentials::new(
        agent.directory.path(),
        Arc::new(|| now() - time::Duration::hours(2)),
        identity.expect("readable").expect("stored"),
        agent.credentials.membership(),
    ));
    assert!(!agent.credentials.is_expired());
    agent.start_session();
    let control = master.welcomed(NEVER).await;
    assert!(!control.host().expired);
    // The master's clock is known from then on.
    let skew = agent.credentials.membership().skew;
    assert!(
        (skew - time::Duration::hours(2)).abs() < time::Duration::seconds(10),
        "{skew}"
    );
    agent.stop().await;
}

// Evidence.

fn lines(batch: &v1::EventBatch) -> Vec<String> {
    batch
        .events
        .iter()
        .map(|it| String::from_utf8_lossy(&it.line).into_owned())
        .collect()
}

#[tokio::test]
async fn evidence_is_sent_in_order_and_removed_when_the_master_has_it() {
    let mut master = Master::start().await;
    let mut agent = Agent::of(&master).await;
    agent.collect(0..3).await;
    agent.start_bulk();
    let mut bulk = master.bulk().await;
    let batch = bulk.hear().await.expect("a batch");
    assert_eq!(batch.spool_id, agent.spool.id().uuid().as_bytes());
    assert_eq!(lines(&batch), ["0", "1", "2"]);
    bulk.say(v1::EventReceipt {
        spool_id: batch.spool_id,
        through: 3,
        refused: 0,
    })
    .await;
    agent.acknowledged(3).await;
    assert!(
        agent
            .spool
            .read(0, 10, 1000)
            .await
            .expect("readable")
            .is_empty()
    );
    agent.stop().await;
}

#[tokio::test]
async fn no_more_than_four_batches_are_under_way() {
    let mut master = Master::start().await;
    let mut agent = Agent::of(&master).await;
    agent.collect(0..5000).await;
    agent.start_bulk();
    let mut bulk = master.bulk().await;
    let mut last = 0;
    let mut id = Vec::new();
    for _ in 0..4 {
        let batch = bulk.hear().await.expect("a batch");
        assert_eq!(batch.events.len(), 512);
        last = batch.events.last().expect("events").sequence;
        id = batch.spool_id;
    }
    let more = tokio::time::timeout(Duration::from_millis(100), bulk.hear()).await;
    assert!(more.is_err(), "a fifth batch came without a receipt");
    bulk.say(v1::EventReceipt {
        spool_id: id,
        through: last,
        refused: 0,
    })
    .await;
    assert_eq!(
        bulk.hear().await.expect("the next").events[0].sequence,
        last + 1
    );
    agent.stop().await;
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_under_the_same_numbers() {
    let mut master = Master::start().await;
    let mut agent = Agent::of(&master).await;
    agent.collect(0..600).await;
    agent.start_bulk();
    let mut bulk = master.bulk().await;
    let first = bulk.hear().await.expect("a batch");
    let second = bulk.hear().await.expect("a batch");
    bulk.say(v1::EventReceipt {
        spool_id: first.spool_id,
        through: 512,
        refused: 0,
    })
    .await;
    agent.acknowledged(512).await;
    drop(bulk);

    let mut again = master.bulk().await;
    assert_eq!(again.hear().await.expect("the rest"), second);
    agent.stop().await;
}

#[tokio::test]
async fn a_receipt_for_what_was_never_sent_removes_nothing() {
    let mut master = Master::start().await;
    let mut agent = Agent::of(&master).await;
    agent.collect(0..3).await;
    agent.start_bulk();
    let mut bulk = master.bulk().await;
    let batch = bulk.hear().await.expect("a batch");
    let spool_id = batch.spool_id.clone();
    bulk.say(v1::EventReceipt {
        spool_id: vec![0; 16],
        through: 3,
        refused: 0,
    })
    .await;
    bulk.ended().await;
    let mut bulk = master.bulk().await;
    assert_eq!(bulk.hear().await.expect("all of it again"), batch);
    bulk.say(v1::EventReceipt {
        spool_id,
        through: 4,
        refused: 0,
    })
    .await;
    bulk.ended().await;
    assert_eq!(agent.spool.figures().borrow().acked, 0);
    agent.stop().await;
}

#[tokio::test]
async fn ending_the_agent_ends_both_streams_at_once() {
    let mut master = Master::start().await;
    let mut agent = Agent::of(&master).await;
    agent.start_session();
    agent.start_bulk();
    let (mut control, mut bulk) = (master.welcomed(NEVER).await, master.bulk().await);
    agent.stop().await;
    control.ended().await;
    bulk.ended().await;
    assert!(master.has_no_stream());
}

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Instant;

use domain::assign::{FailureCode, Phase};
use domain::id::HostId;
use domain::observe::DriftKind;
use domain::service::ServiceKind;
use domain::topology::hydrate::{HydratedDecky, HydratedLan, HydratedTopology};
use ipnet::Ipv4Net;
use tempfile::TempDir;

use super::*;
use crate::engine::EngineErrorKind;
use crate::engine::fake::{FakeDaemon, FakeEngine, Fault, Op};
use crate::engine::sample;
use crate::guard::Levels;
use crate::guard::tests::{Scripted, plenty};
use crate::store::{AppliedState, Row};

mod convergence;
mod docker;

const PATIENCE: Duration = Duration::from_secs(20);

/// One host with its agent's applier on a fake daemon.
pub(super) struct World {
    pub(super) daemon: FakeDaemon,
    pub(super) engine: FakeEngine,
    /// What the host has left.
    host: Arc<Scripted>,
    board: LivenessBoard,
    directory: TempDir,
    store: Store,
    pub(super) applier: ApplierHandle,
    actor: tokio::task::JoinHandle<()>,
}

impl World {
    pub(super) async fn new() -> Self {
        let daemon = FakeDaemon::new();
        Self::on(daemon, HostId::new(sample::unique())).await
    }

    async fn on(daemon: FakeDaemon, host: HostId) -> Self {
        let board = LivenessBoard::new();
        let engine = daemon.engine(host, board.clone());
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let store = open(&directory.path().join("agent.db")).await;
        let host = Arc::new(Scripted(std::sync::Mutex::new(plenty())));
        let (applier, actor) = spawn(&engine, &host, &board, &store).await;
        Self {
            daemon,
            engine,
            host,
            board,
            directory,
            store,
            applier,
            actor,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("agent.db")
    }

    async fn kill(&mut self) {
        self.actor.abort();
        let nobody = crate::task::spawn("nobody", tracing::Span::none(), async {});
        std::mem::replace(&mut self.actor, nobody).await.ok();
        self.store.close().await;
    }

    /// The agent's process dies and comes back.
    pub(super) async fn restart(&mut self) {
        self.kill().await;
        self.store = open(&self.path()).await;
        let (applier, actor) = spawn(&self.engine, &self.host, &self.board, &self.store).await;
        (self.applier, self.actor) = (applier, actor);
    }

    pub(super) async fn offer(&self, fence: Fence, topology: Option<&HydratedTopology>) {
        self.applier
            .offer(offer(fence, topology))
            .await
            .expect("the actor runs");
    }

    /// Waits for a report of which that is true.
    pub(super) async fn report(&self, what: impl Fn(&HostReport) -> bool) -> Arc<HostReport> {
        let mut reports = self.applier.reports();
        let wait = reports.wait_for(|report| what(report));
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(report) => report.expect("the actor runs").clone(),
            Err(_) => panic!(
                "never reported; last: {:#?}",
                self.applier.reports().borrow()
            ),
        }
    }

    pub(super) async fn settled(&self, fence: Fence) -> Arc<HostReport> {
        // At work, or interrupted and not yet offered again, is not settled.
        let settled = |phase| matches!(phase, Phase::Idle | Phase::Applied | Phase::Failed);
        self.report(|it| it.fence == fence && !it.in_flight && settled(it.phase))
            .await
    }

    pub(super) async fn apply(
        &self,
        fence: Fence,
        topology: Option<&HydratedTopology>,
    ) -> Arc<HostReport> {
        self.offer(fence, topology).await;
        self.settled(fence).await
    }

    async fn refused(&self, fence: Fence, topology: Option<&HydratedTopology>) -> FailureCode {
        self.offer(fence, topology).await;
        let is = |report: &HostReport| report.refusal.as_ref().is_some_and(|it| it.fence == fence);
        let report = self.report(is).await;
        report
            .refusal
            .as_ref()
            .expect("it was waited for")
            .failure
            .code
    }
}

async fn spawn(
    engine: &FakeEngine,
    host: &Arc<Scripted>,
    board: &LivenessBoard,
    store: &Store,
) -> (ApplierHandle, tokio::task::JoinHandle<()>) {
    let applier = Applier {
        engine: Arc::new(engine.clone()),
        store: store.clone(),
        board: board.clone(),
        clock: Arc::new(|| OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
        settings: settings(),
        guard: Guard::new(crate::config::GuardConfig::default(), host.clone()),
    };
    let (handle, actor) = applier.start().await.expect("the row can be read");
    (
        handle,
        crate::task::spawn("applier", tracing::Span::none(), actor),
    )
}

async fn open(path: &std::path::Path) -> Store {
    Store::open(path).await.expect("the disk is there")
}

fn settings() -> Settings {
    Settings {
        gather: Duration::from_millis(1),
        configuration_within: Duration::from_millis(100),
        ..Settings::default()
    }
}

pub(super) fn offer(fence: Fence, topology: Option<&HydratedTopology>) -> Offer {
    let topology = topology.map(|topology| {
        (
            topology.id,
            topology.version_hash(),
            proto::hydrated::encode(topology).into(),
        )
    });
    Offer { fence, topology }
}

fn subnet(third: u8) -> Ipv4Net {
    Ipv4Net::new(Ipv4Addr::new(10, 7, third, 0), 24).expect("24 is a length")
}

fn fence(generation: u64) -> Fence {
    Fence::new(1, generation)
}

/// dmz - gateway - inner, and a decky on each.
fn two_lans() -> HydratedTopology {
    let (dmz, inner) = (
        sample::lan("dmz", subnet(1)),
        sample::lan("inner", subnet(2)),
    );
    let deckies = [
        sample::decky("gateway", &[&dmz, &inner], 10),
        sample::decky("web", &[&dmz], 11),
        sample::decky("files", &[&inner], 12),
    ];
    sample::topology(&[dmz, inner], &deckies)
}

fn decky<'a>(topology: &'a mut HydratedTopology, name: &str) -> &'a mut HydratedDecky {
    topology
        .deckies
        .iter_mut()
        .find(|decky| decky.name.as_str() == name)
        .expect("it is in it")
}

fn handles(report: &HostReport) -> BTreeMap<String, Handle> {
    let observed = report.observed.as_ref().expect("the engine answers");
    let deckies = observed
        .deckies
        .iter()
        .map(|it| (it.id.to_string(), it.handle.clone()));
    let lans = observed
        .lans
        .iter()
        .map(|it| (it.id.to_string(), it.handle.clone()));
    deckies.chain(lans).collect()
}

#[tokio::test]
async fn asks_the_engine_nothing_before_it_is_asked() {
    let mut world = World::new().await;
    let topology = two_lans();
    world.apply(fence(1), Some(&topology)).await;
    world.restart().await;
    world.daemon.take_log();

    let report = world.applier.reports().borrow().clone();
    assert_eq!(
        (report.phase, report.fence, &report.observed),
        (Phase::Applied, fence(1), &None)
    );
    assert!(report.applied_at.is_some());
    world
        .applier
        .set_floor(fence(1))
        .await
        .expect("the actor runs");
    assert_eq!(world.refused(fence(0), None).await, FailureCode::Stale);
    let calls = world.daemon.take_log();
    // An offer begins the watch for changes; nothing else was asked.
    assert!(
        calls
            .iter()
            .all(|(op, _)| matches!(op, Op::Changes | Op::Inventory)),
        "{calls:?}"
    );

    world.applier.observe().await.expect("the actor runs");
    let report = world.report(|report| report.observed.is_some()).await;
    assert!(report.is_converged());
}

#[tokio::test]
async fn makes_what_is_assigned_and_reports_it() {
    let world = World::new().await;
    let topology = two_lans();
    let report = world.apply(fence(1), Some(&topology)).await;
    assert_eq!(report.phase, Phase::Applied);
    assert_eq!(report.content, Some((topology.id, topology.version_hash())));
    assert!(report.is_converged(), "{report:#?}");
    assert_eq!(handles(&report).len(), 5);
    let following = world.applier.following().borrow().clone();
    assert_eq!(following.iter().filter(|it| it.running).count(), 3);
    assert_eq!(*world.applier.progress().borrow(), None);
    let row = world.store.load().await.expect("it was written");
    assert!(matches!(row.state, AppliedState::Applied { .. }));

    let report = world.apply(fence(2), None).await;
    assert_eq!((report.phase, report.content), (Phase::Idle, None));
    assert!(report.observed.as_ref().is_some_and(Inventory::is_empty));
    assert_eq!(world.daemon.snapshot(), [] as [String; 0]);
    let row = world.store.load().await.expect("it was written");
    assert_eq!(
        row,
        Row {
            fence: fence(2),
            state: AppliedState::Idle
        }
    );
}

#[tokio::test]
async fn refuses_an_older_generation_and_another_content_and_leaves_the_engine_untouched() {
    let world = World::new().await;
    let (topology, other) = (two_lans(), two_lans());
    world.apply(fence(7), Some(&topology)).await;
    let before = world.daemon.snapshot();
    assert_eq!(
        world.refused(fence(6), Some(&other)).await,
        FailureCode::Stale
    );
    assert_eq!(
        world.refused(fence(7), Some(&other)).await,
        FailureCode::Conflict
    );
    assert_eq!(world.daemon.snapshot(), before);

    world
        .applier
        .set_floor(Fence::new(3, 0))
        .await
        .expect("the actor runs");
    assert_eq!(
        world.refused(fence(8), Some(&other)).await,
        FailureCode::Stale
    );
    assert_eq!(world.daemon.snapshot(), before);
    let row = world.store.load().await.expect("it was written");
    assert_eq!(row.fence, fence(7));
}

#[tokio::test]
async fn refuses_what_is_corrupt_or_breaks_a_rule() {
    let world = World::new().await;
    let mut topology = two_lans();
    let mut wrong = offer(fence(1), Some(&topology));
    if let Some((_, hash, _)) = &mut wrong.topology {
        *hash = VersionHash::new([0; 32]);
    }
    world.applier.offer(wrong).await.expect("the actor runs");
    let report = world.report(|report| report.refusal.is_some()).await;
    let refusal = report.refusal.clone().expect("it was waited for");
    assert_eq!(refusal.failure.code, FailureCode::Corrupt);

    decky(&mut topology, "web").interfaces[0].address = Ipv4Addr::new(10, 7, 1, 10);
    assert_eq!(
        world.refused(fence(2), Some(&topology)).await,
        FailureCode::Invalid
    );
    assert_eq!(world.daemon.snapshot(), [] as [String; 0]);
    assert_eq!(world.store.load().await.expect("it is new"), Row::EMPTY);
    // A refusal is forgotten when something is accepted.
    let report = world.apply(fence(3), Some(&two_lans())).await;
    assert_eq!(report.refusal, None);
}

#[tokio::test]
async fn the_same_again_changes_nothing() {
    let mut world = World::new().await;
    let topology = two_lans();
    let first = world.apply(fence(1), Some(&topology)).await;
    world.daemon.take_log();
    for _ in 0..2 {
        let mut reports = world.applier.reports();
        reports.mark_unchanged();
        world.offer(fence(1), Some(&topology)).await;
        // It answers with a report even when that says the same.
        tokio::time::timeout(
            PATIENCE,
            reports.wait_for(|report| report.observed.is_some()),
        )
        .await
        .expect("it answers")
        .expect("the actor runs");
        world.restart().await;
    }
    let changed = world
        .daemon
        .take_log()
        .into_iter()
        .filter(|(op, _)| op.changes())
        .count();
    assert_eq!(changed, 0);
    // The same content under a newer fence is taken over without a step.
    let report = world.apply(fence(2), Some(&topology)).await;
    assert_eq!((report.phase, report.fence), (Phase::Applied, fence(2)));
    assert_eq!(handles(&report), handles(&first));
}

#[tokio::test]
async fn drift_is_reported_and_repaired_only_when_asked() {
    let world = World::new().await;
    let topology = two_lans();
    let first = world.apply(fence(1), Some(&topology)).await;
    let web = topology
        .deckies
        .iter()
        .find(|it| it.name.as_str() == "web")
        .expect("it is in it");
    let victim = handles(&first)[&web.id.to_string()].clone();
    world.daemon.take_log();
    world.daemon.remove(&world.engine, &victim);

    let report = world.report(|report| !report.is_converged()).await;
    let kinds: Vec<_> = report.drift.iter().map(|drift| drift.kind).collect();
    assert_eq!(
        (report.phase, kinds),
        (Phase::Applied, vec![DriftKind::Missing])
    );
    let calls = world.daemon.take_log();
    assert!(
        calls.iter().all(|(op, _)| !op.changes()),
        "it repairs nothing by itself: {calls:?}"
    );

    world.offer(fence(1), Some(&topology)).await;
    let report = world
        .report(|report| !report.in_flight && report.is_converged())
        .await;
    assert_eq!(report.phase, Phase::Applied);
    let (before, mut after) = (handles(&first), handles(&report));
    assert_ne!(
        after.insert(web.id.to_string(), victim.clone()),
        Some(victim)
    );
    assert_eq!(before, after, "what was well was left alone");
}

#[tokio::test]
async fn a_changed_service_is_told_and_no_container_is_made_anew() {
    let world = World::new().await;
    let mut topology = two_lans();
    let first = world.apply(fence(1), Some(&topology)).await;
    sample::serve(decky(&mut topology, "web"), &[ServiceKind::Ssh]);
    world.daemon.take_log();
    let report = world.apply(fence(2), Some(&topology)).await;
    assert_eq!(report.phase, Phase::Applied);
    assert_eq!(handles(&report), handles(&first));
    let changes: Vec<_> = world
        .daemon
        .take_log()
        .into_iter()
        .filter(|(op, _)| op.changes())
        .collect();
    assert_eq!(changes, [(Op::Configure, "web".to_owned())]);
}

#[tokio::test]
async fn a_decky_that_says_much_is_not_looked_at_as_often() {
    let world = World::new().await;
    let mut topology = two_lans();
    world.apply(fence(1), Some(&topology)).await;
    let web = decky(&mut topology, "web").id;
    let before = world.daemon.count(Op::Inventory);
    let begun = Instant::now();
    let looks = || world.daemon.count(Op::Inventory) - before;
    let mut said = 0_u32;
    while said < 400 || looks() == 0 {
        said += 1;
        world.board.saw(web, &format!("another {said}"));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let seconds = u32::try_from(begun.elapsed().as_secs()).expect("it is short");
    assert!(looks() <= 3 + seconds, "{} in {seconds} s", looks());
}

#[tokio::test]
async fn a_decky_that_ends_at_once_is_tried_a_few_times_and_then_a_failure() {
    let world = World::new().await;
    let mut topology = two_lans();
    world.daemon.doom(decky(&mut topology, "web").id);
    let report = world.apply(fence(1), Some(&topology)).await;
    let failure = report.failure.clone().expect("it ends at once");
    assert_eq!(failure.code, FailureCode::EngineRefused);
    assert!(failure.message.contains("decky web stopped"), "{failure}");
    assert_eq!(world.daemon.count(Op::StartDecky), 5);
    assert!(
        report.observed.as_ref().is_some_and(Inventory::is_empty),
        "it is taken back"
    );
}

#[tokio::test]
async fn a_decky_that_takes_no_configuration_is_made_anew_and_fails_nobody_else() {
    let world = World::new().await;
    let mut topology = two_lans();
    let first = world.apply(fence(1), Some(&topology)).await;
    let before = handles(&first);
    let web = decky(&mut topology, "web").id.to_string();
    world.daemon.deafen(&before[&web]);
    for name in ["web", "files"] {
        sample::serve(
            decky(&mut topology, name),
            &[ServiceKind::Ssh, ServiceKind::Ftp],
        );
    }
    let report = world.apply(fence(2), Some(&topology)).await;
    assert_eq!(report.phase, Phase::Applied, "{:?}", report.failure);
    assert!(report.is_converged(), "{report:#?}");
    let after = handles(&report);
    assert_ne!(after[&web], before[&web]);
    for (object, handle) in before.iter().filter(|(object, _)| **object != web) {
        assert_eq!(after[object], *handle, "{object}");
    }
}

#[tokio::test]
async fn a_failed_apply_takes_back_what_it_made_and_leaves_what_was() {
    let world = World::new().await;
    let mut topology = two_lans();
    let first = world.apply(fence(1), Some(&topology)).await;
    let before = world.daemon.snapshot();

    let extra = sample::lan("extra", subnet(3));
    let gateway = decky(&mut topology, "gateway");
    let another = sample::decky("x", &[&extra], 9);
    gateway
        .interfaces
        .push(domain::topology::hydrate::HydratedInterface {
            lan: extra.id,
            ..another.interfaces[0]
        });
    gateway.interfaces[2].address = sample::address(&extra, 10);
    let web = decky(&mut topology, "web");
    sample::serve(web, &[ServiceKind::Ssh]);
    let mut published = sample::decky("published", &[&extra], 20);
    sample::publish(&mut published, 2222);
    topology.lans.push(extra);
    topology.deckies.push(published);
    world.daemon.take_port(Ipv4Addr::LOCALHOST, 2222, "tcp");

    let report = world.apply(fence(2), Some(&topology)).await;
    assert_eq!((report.phase, report.fence), (Phase::Failed, fence(2)));
    let failure = report.failure.clone().expect("the port is taken");
    assert_eq!(failure.code, FailureCode::PortTaken);
    assert!(
        failure
            .message
            .starts_with("could not start decky published: "),
        "{failure}"
    );
    assert!(failure.message.contains("2222"), "{failure}");
    assert_eq!(world.daemon.snapshot(), before);
    assert_eq!(handles(&report), handles(&first));

    world.daemon.free_port(Ipv4Addr::LOCALHOST, 2222, "tcp");
    world.offer(fence(2), Some(&topology)).await;
    let report = world.report(|report| report.phase == Phase::Applied).await;
    assert!(report.is_converged());
}

#[tokio::test]
async fn an_error_while_taking_back_does_not_hide_the_first() {
    let world = World::new().await;
    world
        .daemon
        .fail_on(Op::StartDecky, 2, Fault::Refuse(EngineErrorKind::PortTaken));
    world
        .daemon
        .fail_on(Op::RemoveDecky, 1, Fault::Refuse(EngineErrorKind::Refused));
    let report = world.apply(fence(1), Some(&two_lans())).await;
    assert_eq!(
        report.failure.as_ref().map(|it| it.code),
        Some(FailureCode::PortTaken)
    );
    // What could not be taken back is there, and the next attempt deals with it.
    assert!(!report.observed.as_ref().is_some_and(Inventory::is_empty));
    let report = world.apply(fence(2), None).await;
    assert_eq!(report.phase, Phase::Idle);
}

#[tokio::test]
async fn a_host_that_is_short_makes_nothing_new_and_keeps_and_removes_what_there_is() {
    let world = World::new().await;
    let topology = two_lans();
    let short = |memory| {
        *world.host.0.lock().expect("no test panics with it") = Levels {
            memory: Some(memory),
            ..plenty()
        };
    };
    short(1 << 20);
    let report = world.apply(fence(1), Some(&topology)).await;
    let failure = report.failure.clone().expect("there is no memory");
    assert_eq!(failure.code, FailureCode::HostShort);
    for part in ["1 MiB of memory", "new deckies"] {
        assert!(failure.message.contains(part), "{part} is not in {failure}");
    }
    assert_eq!(world.daemon.count(Op::CreateLan), 0);
    assert_eq!(world.daemon.count(Op::CreateDecky), 0);

    short(4_000 << 20);
    let report = world.apply(fence(2), Some(&topology)).await;
    assert_eq!(report.phase, Phase::Applied);
    // What is held already is borne, and what goes makes room.
    short(1 << 20);
    let report = world.apply(fence(3), Some(&topology)).await;
    assert_eq!(report.phase, Phase::Applied);
    let report = world.apply(fence(4), None).await;
    assert_eq!(report.phase, Phase::Idle);
}

#[tokio::test]
async fn a_subnet_in_use_is_refused_before_anything_is_made() {
    let world = World::new().await;
    world
        .daemon
        .foreign_network("office", "10.7.0.0/16".parse().expect("it is one"));
    let report = world.apply(fence(1), Some(&two_lans())).await;
    let failure = report.failure.clone().expect("it overlaps");
    assert_eq!(failure.code, FailureCode::SubnetInUse);
    for part in ["dmz", "10.7.1.0/24", "office", "10.7.0.0/16"] {
        assert!(failure.message.contains(part), "{part} is not in {failure}");
    }
    assert_eq!(world.daemon.count(Op::CreateLan), 0);
}

#[tokio::test]
async fn as_many_deckies_are_made_at_once_as_the_engine_is_fastest_with() {
    for (at_once, begun) in [(None, 3), (Some(1), 1), (Some(2), 2)] {
        let mut world = World::new().await;
        if let Some(at_once) = at_once {
            world.engine = world.engine.clone().fastest_with(at_once);
            world.restart().await;
        }
        let gate = world.daemon.gate(Op::CreateDecky);
        world.offer(fence(1), Some(&two_lans())).await;
        for _ in 0..begun {
            gate.reached().await;
        }
        // Whoever else might begin is given every chance.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.daemon.count(Op::CreateDecky), begun, "{at_once:?}");
        gate.open();
        let report = world.settled(fence(1)).await;
        assert_eq!(report.phase, Phase::Applied);
    }
}

#[tokio::test]
async fn something_newer_stops_the_older_at_the_next_step() {
    let world = World::new().await;
    let (older, newer) = (two_lans(), two_lans());
    let gate = world.daemon.gate(Op::CreateDecky);
    world.offer(fence(1), Some(&older)).await;
    gate.reached().await;
    world.offer(fence(2), Some(&newer)).await;
    world
        .report(|report| report.fence == fence(2) && report.in_flight)
        .await;
    assert_eq!(
        world.refused(fence(1), Some(&older)).await,
        FailureCode::Stale
    );
    gate.open();
    let report = world
        .report(|report| report.fence == fence(2) && !report.in_flight)
        .await;
    assert_eq!(report.phase, Phase::Applied);
    assert!(report.is_converged(), "{report:#?}");
    assert_eq!(handles(&report).len(), 5);
}

#[tokio::test]
async fn the_same_while_it_is_made_attaches_to_it() {
    let world = World::new().await;
    let topology = two_lans();
    let gate = world.daemon.gate(Op::CreateDecky);
    world.offer(fence(1), Some(&topology)).await;
    gate.reached().await;
    let progress = world.applier.progress().borrow().expect("it is under way");
    assert_eq!(
        (progress.fence, progress.done, progress.total),
        (fence(1), 2, 5)
    );
    world.offer(fence(1), Some(&topology)).await;
    gate.open();
    let report = world.settled(fence(1)).await;
    assert_eq!(report.phase, Phase::Applied);
    assert_eq!(world.daemon.count(Op::CreateDecky), 3);
}

#[tokio::test]
async fn the_predecessors_objects_go_before_new_ones_come() {
    let world = World::new().await;
    world.apply(fence(1), Some(&two_lans())).await;
    world.daemon.take_log();
    let report = world.apply(fence(2), Some(&two_lans())).await;
    assert!(report.is_converged());
    let ops: Vec<_> = world
        .daemon
        .take_log()
        .into_iter()
        .map(|(op, _)| op)
        .filter(|op| op.changes())
        .collect();
    let of = |op: Op| move |it: &Op| *it == op;
    let last_removal = ops
        .iter()
        .rposition(of(Op::RemoveLan))
        .expect("there were LANs");
    let first_creation = ops
        .iter()
        .position(of(Op::CreateLan))
        .expect("there are LANs");
    assert!(last_removal < first_creation, "{ops:?}");
    let last_decky = ops
        .iter()
        .rposition(of(Op::RemoveDecky))
        .expect("there were deckies");
    assert!(
        last_decky
            < ops
                .iter()
                .position(of(Op::RemoveLan))
                .expect("there were LANs")
    );
}

#[tokio::test]
async fn a_lost_store_adopts_what_is_there() {
    let mut world = World::new().await;
    let topology = two_lans();
    let first = world.apply(fence(5), Some(&topology)).await;
    world.kill().await;
    std::fs::remove_file(world.path()).expect("it is there");
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", world.path().display())).ok();
    }
    world.restart().await;
    assert_eq!(world.applier.reports().borrow().phase, Phase::Idle);
    world
        .applier
        .set_floor(fence(5))
        .await
        .expect("the actor runs");
    assert_eq!(world.refused(fence(4), None).await, FailureCode::Stale);
    world.daemon.take_log();
    let report = world.apply(fence(5), Some(&topology)).await;
    assert_eq!(report.phase, Phase::Applied);
    assert_eq!(handles(&report), handles(&first));
    assert!(world.daemon.take_log().iter().all(|(op, _)| !op.changes()));
}

#[tokio::test]
async fn an_engine_that_goes_away_is_told_and_comes_back() {
    let world = World::new().await;
    let topology = two_lans();
    world.apply(fence(1), Some(&topology)).await;
    world.daemon.down(Some(EngineErrorKind::Unreachable));
    world.applier.observe().await.expect("the actor runs");
    let report = world.report(|report| report.observed.is_none()).await;
    assert_eq!(report.phase, Phase::Applied);
    // Whether anything differs is not known: it is neither repaired nor called failed.
    world.offer(fence(1), Some(&topology)).await;
    let report = world.apply(fence(2), Some(&topology)).await;
    let code = report.failure.as_ref().map(|failure| failure.code);
    assert_eq!(code, Some(FailureCode::EngineUnreachable));
    world.daemon.down(None);
    world.offer(fence(2), Some(&topology)).await;
    let report = world.report(|report| report.phase == Phase::Applied).await;
    assert!(report.is_converged());
}

#[tokio::test]
async fn a_full_disk_refuses_before_the_engine_is_touched() {
    let world = World::new().await;
    world.store.fill().await;
    // Large enough for a page of its own.
    let dmz = sample::lan("dmz", subnet(1));
    let deckies: Vec<_> = (2..40)
        .map(|n| sample::decky(&format!("d{n}"), &[&dmz], n))
        .collect();
    let topology = sample::topology(&[dmz], &deckies);
    assert_eq!(
        world.refused(fence(1), Some(&topology)).await,
        FailureCode::Store
    );
    assert_eq!(world.daemon.snapshot(), [] as [String; 0]);
}

#[tokio::test]
async fn an_interrupted_apply_is_reported_and_run_again_when_offered() {
    let mut world = World::new().await;
    let topology = two_lans();
    world.daemon.fail_on(Op::StartDecky, 2, Fault::HangAfter);
    world.offer(fence(1), Some(&topology)).await;
    world.report(|report| report.in_flight).await;
    let daemon = world.daemon.clone();
    crate::engine::conformance::eventually("it hangs", async || daemon.count(Op::StartDecky) >= 2)
        .await;
    world.restart().await;
    let report = world.applier.reports().borrow().clone();
    assert_eq!((report.phase, report.in_flight), (Phase::Applying, false));
    let report = world.apply(fence(1), Some(&topology)).await;
    assert!(report.is_converged());
}

#[tokio::test]
async fn a_stranger_under_our_name_is_reported_and_stays() {
    let world = World::new().await;
    let topology = two_lans();
    world.apply(fence(1), Some(&topology)).await;
    let host = world.applier.reports().borrow().fence;
    assert_eq!(host, fence(1));
    let lan: &HydratedLan = &topology.lans[0];
    let name = format!("{}stranger-{}", world.engine.prefix(), lan.name);
    let stranger = world.daemon.foreign_container(&name);
    let report = world.report(|report| !report.drift.is_empty()).await;
    assert_eq!(report.drift[0].kind, DriftKind::Foreign);
    assert!(report.is_converged());
    world.apply(fence(2), None).await;
    assert!(
        world
            .daemon
            .snapshot()
            .iter()
            .any(|line| line.starts_with(stranger.as_str()))
    );
}

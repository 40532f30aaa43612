//! The whole way once on a real daemon.

use super::*;
use crate::engine::conformance::World as _;
use crate::engine::docker::tests::RealDaemon;

/// How long a daemon may take over one step; nothing hangs on how quick it is.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn deploys_repairs_and_tears_down_on_docker() {
    let world = RealDaemon::new(13);
    let host = HostId::new(sample::unique());
    let (engine, board) = world.engine(host);
    let (dmz, inner) = (
        sample::lan("dmz", world.subnet()),
        sample::lan("inner", world.subnet()),
    );
    let mut deckies = vec![
        sample::decky("gateway", &[&dmz, &inner], 3),
        sample::decky("web", &[&dmz], 4),
        sample::decky("files", &[&inner], 5),
    ];
    sample::publish(&mut deckies[1], world.port());
    let mut topology = sample::topology(&[dmz, inner], &deckies);
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let applier = Applier {
        engine,
        store: Store::open(&directory.path().join("agent.db"))
            .await
            .expect("the disk is there"),
        board,
        clock: Arc::new(|| OffsetDateTime::UNIX_EPOCH),
        settings: Settings::default(),
        guard: crate::guard::Guard::blind(),
    };
    let (handle, actor) = applier.start().await.expect("the row can be read");
    let actor = crate::task::spawn("applier", tracing::Span::none(), actor);
    let mut reports = handle.reports();
    let mut report = async |what: &dyn Fn(&HostReport) -> bool| {
        let wait = reports.wait_for(|report| what(report));
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the daemon is not that slow")
            .expect("the actor runs")
            .clone()
    };

    handle
        .offer(offer(fence(1), Some(&topology)))
        .await
        .expect("the actor runs");
    let first = report(&|report| report.fence == fence(1) && !report.in_flight).await;
    assert_eq!((first.phase, &first.failure), (Phase::Applied, &None));
    assert!(first.is_converged(), "{first:#?}");

    // What they use is where the kernel says that they are, under the daemon's names of them.
    let observed = first.observed.as_ref().expect("the engine answers");
    let deckies = observed.deckies.iter();
    let running: Vec<Handle> = deckies.map(|it| it.handle.clone()).collect();
    let usage = crate::engine::usage::Meter::default().measure(&running);
    assert_eq!(usage.len(), running.len(), "{usage:?}");
    for figures in usage.values() {
        assert!(figures.memory_bytes > 0 && figures.pids > 0, "{figures:?}");
    }

    let web = topology
        .deckies
        .iter()
        .find(|it| it.name.as_str() == "web")
        .expect("it is in it")
        .id;
    let victim = handles(&first)[&web.to_string()].clone();
    world.remove(&victim).await;
    let drifted = report(&|report| !report.is_converged()).await;
    assert_eq!(drifted.drift.len(), 1);
    handle
        .offer(offer(fence(1), Some(&topology)))
        .await
        .expect("the actor runs");
    let repaired = report(&|report| !report.in_flight && report.is_converged()).await;
    let (before, mut after) = (handles(&first), handles(&repaired));
    after.insert(web.to_string(), victim);
    assert_eq!(before, after);

    sample::serve(decky(&mut topology, "files"), &[ServiceKind::Ssh]);
    handle
        .offer(offer(fence(2), Some(&topology)))
        .await
        .expect("the actor runs");
    let changed = report(&|report| report.fence == fence(2) && !report.in_flight).await;
    assert_eq!(
        (changed.phase, handles(&changed)),
        (Phase::Applied, handles(&repaired))
    );

    handle
        .offer(offer(fence(3), None))
        .await
        .expect("the actor runs");
    let cleared = report(&|report| report.fence == fence(3) && !report.in_flight).await;
    assert_eq!(cleared.phase, Phase::Idle);
    assert!(cleared.observed.as_ref().is_some_and(Inventory::is_empty));
    drop(handle);
    tokio::time::timeout(PATIENCE, actor)
        .await
        .expect("it ends with its handles")
        .ok();
}

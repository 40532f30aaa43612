use super::*;
use crate::engine::conformance::World as _;
use crate::engine::docker::tests::RealDaemon;

#[tokio::test]
async fn measure_tmp() {
    let world = RealDaemon::new(60);
    let host = HostId::new(sample::unique());
    let mut lines = String::new();
    for (d, l) in [(4, 3), (2, 1), (3, 2), (4, 4), (6, 4), (8, 8), (2, 2), (3, 3), (4, 2), (6, 3), (1, 1)] {
        let (engine, board) = world.engine(host);
        let lans: Vec<_> = (0..10).map(|n| sample::lan(if n == 0 { "dmz".into() } else { format!("lan{n}") }.as_str(), Ipv4Net::new(Ipv4Addr::new(10, 231, 100 + n, 0), 24).unwrap())).collect();
        let deckies: Vec<_> = (0..40u32).map(|n| {
            let a = &lans[(n % 10) as usize];
            let b = &lans[((n + 1) % 10) as usize];
            if n < 8 { sample::decky(&format!("d{n}"), &[a, b], n + 10) } else { sample::decky(&format!("d{n}"), &[a], n + 10) }
        }).collect();
        let topology = sample::topology(&lans, &deckies);
        let directory = tempfile::tempdir().unwrap();
        let applier = Applier {
            engine, store: Store::open(&directory.path().join("agent.db")).await.unwrap(), board,
            clock: Arc::new(|| OffsetDateTime::UNIX_EPOCH),
            settings: Settings { deckies_at_once: d, lans_at_once: l, ..Settings::default() },
        };
        let (handle, actor) = applier.start().await.unwrap();
        let actor = crate::task::spawn("applier", tracing::Span::none(), actor);
        let mut reports = handle.reports();
        let t = std::time::Instant::now();
        handle.offer(offer(fence(1), Some(&topology))).await.unwrap();
        let r = reports.wait_for(|r| r.fence == fence(1) && !r.in_flight).await.unwrap().clone();
        let up = t.elapsed();
        let t = std::time::Instant::now();
        handle.offer(offer(fence(2), None)).await.unwrap();
        reports.wait_for(|r| r.fence == fence(2) && !r.in_flight).await.unwrap();
        let line = format!("deckies {d} lans {l}: {:?} up {up:?} down {:?} load {}", r.phase, t.elapsed(), std::fs::read_to_string("/proc/loadavg").unwrap());
        lines.push_str(&line);
        std::fs::write("/tmp/dk/measure.txt", &lines).unwrap();
        drop(handle);
        actor.await.ok();
    }
}

use super::SqliteStore;
use crate::db::conformance::{events::event, spool, uuid, at, deployed, enrolled, topology};
use crate::db::{NewEvent, Store, EventFilter};
use domain::event::*;
use std::sync::Arc;
use std::io::Write as _;

fn real(n: u64) -> NewEvent {
    NewEvent {
        payload: Payload::Auth { method: AuthMethod::Password, username: "root".into(), secret: format!("hunter{n}").as_str().into(), outcome: AuthOutcome::Rejected },
        id: domain::id::EventId::new(crate::entropy::uuid_v7(at(n as i64))),
        decky: domain::id::DeckyId::new(uuid(u128::from(n % 50))),
        at: at(100) + time::Duration::microseconds(n as i64 * 37),
        source: Some(std::net::SocketAddr::from(([203, 0, (n % 7) as u8, (n % 251) as u8], 40000))),
        ..event(n)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rate() {
    let dir = tempfile::TempDir::new_in("/work").expect("dir");
    let store = Arc::new(SqliteStore::open(&dir.path().join("m.db")).await.expect("open"));
    let mut err = std::io::stderr();
    for size in [1024_u64, 8192] {
        let total = 400_000;
        let batches: Vec<Vec<NewEvent>> = (0..total / size).map(|b| (b * size..(b + 1) * size).map(real).collect()).collect();
        let host = domain::id::HostId::new(uuid(size.into()));
        let start = std::time::Instant::now();
        let mut n = 0;
        for batch in batches { n += store.append_events(host, spool(1), batch).await.expect("ok").stored; }
        let t = start.elapsed();
        writeln!(err, "append size {size}: {n} rows in {t:?} = {:.0}/s", n as f64 / t.as_secs_f64()).expect("w");
    }
    let start = std::time::Instant::now();
    let c = store.count_events(&EventFilter { kind: Some(EventKind::Command), ..Default::default() }).await.expect("ok");
    writeln!(err, "count {c} {:?}", start.elapsed()).expect("w");
    let size = std::fs::metadata(dir.path().join("m.db")).expect("m").len();
    writeln!(err, "file {} MiB", size >> 20).expect("w");
}

#[tokio::test(flavor = "multi_thread")]
async fn ingest_rate() {
    use crate::pipeline::{Ingest, Spooled};
    let dir = tempfile::TempDir::new_in("/work").expect("dir");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&dir.path().join("m.db")).await.expect("open"));
    let host = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 4);
    deployed(&store, &maze, host).await;
    let ingest = Arc::new(Ingest::new(Arc::clone(&store), crate::clock::system()));
    let line = |n: u64| bytes::Bytes::from(proto::line::encode(&proto::line::Line {
        position: Position { boot: domain::id::BootId::new(uuid(7)), counter: n },
        sighting: Sighting { at: at(n as i64), service: None, session: None,
            source: Some("203.0.113.9:40000".parse().expect("a")), destination: Some("10.1.0.1:22".parse().expect("a")), severity: Severity::Info,
            payload: real(n).payload, raw: None } }));
    let lines: Vec<_> = (0..1000).map(line).collect();
    let (hosts, rounds) = (8_u64, 50_u64);
    let start = std::time::Instant::now();
    let tasks: Vec<_> = (0..hosts).map(|h| {
        let (ingest, lines, t, d) = (Arc::clone(&ingest), lines.clone(), maze.id, maze.deckies[0].id);
        tokio::spawn(async move {
            for r in 0..rounds {
                let batch = (0..1000_u64).map(|i| Spooled { sequence: r * 1000 + i, topology: t, decky: d, collected_at: at(0), line: lines[i as usize].clone() }).collect();
                ingest.ingest(host, spool(u128::from(h)), batch).await.expect("ok");
            }
        })
    }).collect();
    for t in tasks { t.await.expect("ok"); }
    let t = start.elapsed();
    let n = hosts * rounds * 1000;
    writeln!(std::io::stderr(), "ingest {n} events of {hosts} spools in {t:?} = {:.0}/s", n as f64 / t.as_secs_f64()).expect("w");
}

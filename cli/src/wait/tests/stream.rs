//! Following over a stream that does everything a stream can do.

use std::time::{Duration, Instant};

use proto::rest::StatusChangeShape;
use proto::rest::mutation::TopologySnapshot;
use serde_json::json;

use super::super::*;
use crate::stub::{Script, Stub, message, ok, state};

const TOPOLOGY: &str = "GET /topologies/0190a000-0000-7000-8000-000000000001";
const STREAM: &str = "GET /topologies/0190a000-0000-7000-8000-000000000001/events";
/// Longer than any of this takes.
const LONG: Duration = Duration::from_secs(60);

fn snapshot(status: &str, id: &str) -> String {
    let snapshot = TopologySnapshot {
        state: state(status),
        mutations: Vec::new(),
    };
    message("snapshot", id, &snapshot)
}

fn status(from: &str, to: &str, id: &str) -> String {
    let change = StatusChangeShape {
        at: "2026-01-01T00:00:05Z".to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
        event: "converged".to_owned(),
        reason: format!("it came to be {to}"),
        actor: "reconciler".to_owned(),
    };
    message("status", id, &change)
}

fn master(scripts: Vec<Script>) -> Stub {
    Stub::streaming(vec![(TOPOLOGY, vec![ok(&state("deploying"))])], scripts)
}

/// Follows a deploy that was just asked for.
async fn deploy(stub: &Stub, patience: Duration) -> (Result<Followed, Failure>, TopologyState) {
    let mut way = Way {
        goal: Goal::Active,
        state: state("deploying"),
    };
    let context = stub.context(patience);
    let followed = way.follow(&context, patience, &stub.client()).await;
    (followed, way.state)
}

#[tokio::test]
async fn a_deploy_is_done_when_its_stream_says_so() {
    let news = snapshot("deploying", "1") + &status("deploying", "active", "2");
    let stub = master(vec![Script::Holds(news)]);
    let (followed, state) = deploy(&stub, LONG).await;
    assert_eq!(followed.expect("it was told"), Followed::Done);
    assert_eq!(state.topology.status, "active");
    assert_eq!(stub.bodies(STREAM).len(), 1);
}

#[tokio::test]
async fn a_deploy_that_fails_says_why() {
    let news = snapshot("deploying", "1") + &status("deploying", "failed", "2");
    let stub = master(vec![Script::Holds(news)]);
    let (followed, _) = deploy(&stub, LONG).await;
    let why = "it came to be failed".to_owned();
    assert_eq!(followed.expect("it was told"), Followed::Failed(why));
}

#[tokio::test]
async fn what_has_ended_is_not_asked_for() {
    let stub = Stub::new(Vec::new());
    let mut way = Way {
        goal: Goal::Settled,
        state: state("torn_down"),
    };
    let context = stub.context(LONG);
    let followed = way.follow(&context, LONG, &stub.client()).await;
    assert_eq!(followed.expect("it is known"), Followed::Done);
    assert!(stub.bodies(STREAM).is_empty());
}

#[tokio::test]
async fn a_stream_that_breaks_goes_on_where_it_was() {
    let half = "event: status\ndata: {\"at\":";
    let stub = master(vec![
        Script::Breaks(snapshot("deploying", "1.0.0.3") + half),
        Script::Ends(status("deploying", "degraded", "2.0.0.3")),
        Script::Closed,
        Script::Refused(
            503,
            json!({"type": "urn:decnet:ending", "status": 503, "title": "it ends"}),
        ),
        Script::Holds(status("degraded", "active", "3.0.0.3")),
    ]);
    let (followed, _) = deploy(&stub, LONG).await;
    assert_eq!(followed.expect("it was told"), Followed::Done);
    assert_eq!(
        stub.bodies(STREAM),
        [
            json!(null),
            json!("1.0.0.3"),
            json!("2.0.0.3"),
            json!("2.0.0.3"),
            json!("2.0.0.3")
        ]
    );
}

#[tokio::test]
async fn a_place_that_the_master_does_not_know_is_begun_anew() {
    let problem = json!({"type": "urn:decnet:malformed", "status": 422, "title": "none of ours"});
    let stub = master(vec![
        Script::Ends(snapshot("deploying", "1.0.0.3")),
        Script::Refused(422, problem),
        Script::Holds(snapshot("active", "7")),
    ]);
    let (followed, _) = deploy(&stub, LONG).await;
    assert_eq!(followed.expect("it was told"), Followed::Done);
    let asked = [json!(null), json!("1.0.0.3"), json!(null)];
    assert_eq!(stub.bodies(STREAM), asked);
}

#[tokio::test]
async fn lines_that_mean_nothing_are_passed_over() {
    let noise = ": keep-alive\n\nweather: rain\n\u{fffd}\u{1b}[2J\nevent: weather\ndata: {]\n\n";
    let news = format!(
        "{noise}{}{noise}{}",
        snapshot("deploying", "1"),
        status("deploying", "active", "2")
    );
    let stub = master(vec![Script::Holds(news)]);
    let (followed, _) = deploy(&stub, LONG).await;
    assert_eq!(followed.expect("it was told"), Followed::Done);
}

#[tokio::test]
async fn news_that_cannot_be_read_are_a_failure_and_no_wait() {
    for news in [
        "event: status\ndata: rain\n\n".to_owned(),
        format!("data: {}", "x".repeat(17 * 1024 * 1024)),
    ] {
        let stub = master(vec![Script::Holds(news)]);
        let (followed, _) = deploy(&stub, LONG).await;
        let failure = followed.expect_err("it is no master of this release");
        assert_eq!(failure.exit(), Exit::Failed);
        let said = failure.lines().join("\n");
        assert!(said.contains("of this release?"), "{said}");
    }
}

#[tokio::test]
async fn a_refusal_that_stays_ends_it() {
    let problem = json!({"type": "urn:decnet:unauthenticated", "status": 401, "title": "the session has ended"});
    let stub = master(vec![
        Script::Ends(snapshot("deploying", "1")),
        Script::Refused(401, problem),
    ]);
    let (followed, _) = deploy(&stub, LONG).await;
    let said = followed.expect_err("nobody is let in").lines().join("\n");
    assert!(said.contains("the session has ended"), "{said}");
    assert!(said.contains("decnet login"), "{said}");
}

#[tokio::test]
async fn silence_and_absence_last_no_longer_than_patience() {
    for script in [
        Script::Holds(String::new()),
        Script::Holds(snapshot("deploying", "1")),
        Script::Closed,
        Script::Ends(snapshot("deploying", "1")),
    ] {
        let stub = master(vec![script.clone()]);
        let started = Instant::now();
        let (followed, _) = deploy(&stub, Duration::from_millis(700)).await;
        let took = started.elapsed();
        assert!(
            matches!(followed, Ok(Followed::TimedOut(_))),
            "{script:?}: {followed:?}"
        );
        assert!(took < Duration::from_secs(20), "{script:?}: {took:?}");
    }
}

#[tokio::test]
async fn a_master_that_stays_away_is_what_is_awaited() {
    // Nothing but the stream is there to be asked for.
    let stub = Stub::streaming(Vec::new(), vec![Script::Closed]);
    let (followed, _) = deploy(&stub, Duration::from_secs(3)).await;
    let Ok(Followed::TimedOut(awaited)) = followed else {
        panic!("{followed:?}");
    };
    let said = awaited.to_string();
    assert!(said.starts_with("the master cannot tell"), "{said}");
}

#[test]
fn what_is_answered_beside_the_stream_does_not_hide_that_the_master_is_away() {
    let mut way = Way {
        goal: Goal::Active,
        state: state("deploying"),
    };
    let mut standing = Standing {
        subject: &mut way,
        awaited: "office: deploying".to_owned().into(),
        away: false,
    };
    let timeout = || ClientError::Timeout {
        route: "the stream".to_owned(),
    };
    let gauge = || {
        let mut state = state("deploying");
        state.condition = Some("waiting for host edge-07".to_owned());
        Heard::Gauge(Told::Gauge(Box::new(state)))
    };
    let away = "the master cannot tell: the stream was not answered in time";
    let shown = "office: deploying, waiting for host edge-07";
    for (heard, awaited) in [
        (gauge(), shown),
        (Heard::Away(timeout()), away),
        (gauge(), away),
        (Heard::Back, "the master answers again"),
        (gauge(), shown),
    ] {
        let told = format!("{heard:?}");
        let ended = standing.take(heard).expect("time mends all of it");
        assert_eq!(ended, None, "{told}");
        assert_eq!(standing.awaited.to_string(), awaited, "{told}");
    }
}

#[tokio::test]
async fn a_host_is_looked_at_until_it_is_empty() {
    let mut host = super::host();
    let empty = ok(&host);
    host.observed = None;
    let away = ok(&host);
    let stub = Stub::new(vec![(
        "GET /hosts/edge-07-id",
        vec![away.clone(), away, empty],
    )]);
    let mut emptying = Emptying(host);
    let context = stub.context(LONG);
    let followed = emptying.follow(&context, &stub.client()).await;
    assert_eq!(followed.expect("it was seen"), Followed::Done);
    assert_eq!(stub.bodies("GET /hosts/edge-07-id").len(), 3);
}

#[test]
fn a_gauge_shows_how_far_a_step_is_and_decides_nothing() {
    let mut way = Way {
        goal: Goal::Active,
        state: state("deploying"),
    };
    way.hear(Told::Gauge(Box::new(state("active"))));
    assert_eq!(way.state.topology.status, "deploying");
    let mut gauge = state("deploying");
    gauge.condition = Some("waiting for host edge-07".to_owned());
    way.hear(Told::Gauge(Box::new(gauge)));
    let wanted = Awaited {
        phase: "office: deploying".to_owned(),
        detail: ", waiting for host edge-07".to_owned(),
    };
    assert_eq!(way.judge(), Look::Pending(wanted));
}

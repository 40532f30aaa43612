use std::time::Duration;

use proto::rest::mutation::TopologySnapshot;
use proto::rest::{FindingShape, ProgressShape};

use super::*;
use crate::args::WaitArgs;
use crate::stub::{LOOK, Script, Stub, message, mutation, ok, queued, state};

const MUTATION: &str = "GET /mutations/0190a000-0000-7000-8000-000000000003";

fn snapshot(mutations: Vec<MutationShape>) -> String {
    let state = state("active");
    message(
        "snapshot",
        "1.0.0.3",
        &TopologySnapshot { state, mutations },
    )
}

#[tokio::test]
async fn a_mutation_is_followed_until_its_host_has_it() {
    let mut other = mutation("applied");
    other.id = "0190a000-0000-7000-8000-000000000004".to_owned();
    let news = [
        snapshot(vec![mutation("pending")]),
        message("mutation", "1.1.0.3", &other),
        message("mutation", "1.2.0.3", &mutation("applying")),
        message("mutation", "1.3.0.4", &mutation("applied")),
    ];
    let stub = Stub::streaming(Vec::new(), vec![Script::Holds(news.concat())]);
    let context = stub.context(Duration::from_secs(30));
    let followed = follow_mutation(&context, &stub.client(), mutation("pending")).await;
    let (ended, exit) = followed.expect("it is applied");
    assert_eq!((ended.state.as_str(), exit), ("applied", Exit::Done));
    assert_eq!(ended.id, mutation("pending").id);
    assert!(stub.bodies(MUTATION).is_empty());
}

#[tokio::test]
async fn a_mutation_that_has_ended_before_anybody_listens_is_asked_for() {
    let stub = Stub::streaming(
        vec![(MUTATION, vec![ok(&mutation("applied"))])],
        vec![Script::Holds(snapshot(Vec::new()))],
    );
    let context = stub.context(Duration::from_secs(30));
    let followed = follow_mutation(&context, &stub.client(), mutation("pending")).await;
    let (ended, exit) = followed.expect("it is applied");
    assert_eq!((ended.state.as_str(), exit), ("applied", Exit::Done));
}

#[tokio::test]
async fn a_mutation_that_fails_is_a_failure_with_its_findings() {
    let mut failed = mutation("failed");
    failed.reason = "there is no LAN lab".to_owned();
    failed.findings.push(FindingShape {
        severity: "error".to_owned(),
        code: "REFERENCE_UNKNOWN".to_owned(),
        message: "there is no LAN \"lab\"".to_owned(),
        target: "decky web".to_owned(),
        path: "edge.lan".to_owned(),
    });
    let news = snapshot(vec![mutation("pending")]) + &message("mutation", "1.1.0.3", &failed);
    let stub = Stub::streaming(Vec::new(), vec![Script::Holds(news)]);
    let context = stub.context(Duration::from_secs(30));
    let failure = follow_mutation(&context, &stub.client(), mutation("pending"))
        .await
        .expect_err("it failed");
    assert_eq!(failure.exit(), Exit::Failed);
    assert_eq!(
        failure.lines(),
        [
            "error: mutation 3 failed: there is no LAN lab",
            "  error [REFERENCE_UNKNOWN] edge.lan: there is no LAN \"lab\"",
            "  next: decnet topology explain 0190a000-0000-7000-8000-000000000001",
        ]
    );
}

#[test]
fn an_edit_that_its_host_is_at_work_on_says_how_far_that_is() {
    let said = |status: &str, done: Option<u32>| {
        let mut gauge = state(status);
        gauge.progress = done.map(|done| ProgressShape { done, total: 3 });
        let mut way = Way {
            mutation: mutation("applying"),
            topology: Some(state(status)),
        };
        way.hear(Told::Gauge(Box::new(gauge)));
        match way.judge() {
            Look::Pending(awaited) => awaited.detail,
            ended @ (Look::Done | Look::Failed(_)) => panic!("{ended:?}"),
        }
    };
    assert_eq!(said("active", None), "");
    assert_eq!(said("active", Some(1)), "; 1/3");
    assert_eq!(said("degraded", Some(1)), "; office: degraded 1/3");
}

#[tokio::test]
async fn time_that_runs_out_leaves_it_running() {
    let stub = Stub::streaming(Vec::new(), vec![Script::Holds(String::new())]);
    let context = stub.context(Duration::ZERO);
    let answer = queued("pending");
    let wait = WaitArgs::default();
    let exit = finish(answer, &wait, &stub.client(), &context).await;
    assert_eq!(exit.expect("it is left alone"), Exit::StillRunning);
}

#[tokio::test]
async fn nobody_is_asked_when_nothing_is_awaited() {
    let stub = Stub::new(Vec::new());
    let context = stub.context(Duration::from_secs(30));
    let exit = finish(
        queued("pending"),
        &WaitArgs::none(),
        &stub.client(),
        &context,
    )
    .await;
    assert_eq!(exit.expect("it is queued"), Exit::Done);
    assert!(stub.bodies(MUTATION).is_empty());
}

#[test]
fn what_became_of_an_edit_is_said() {
    let mut texts = Vec::new();
    for outcome in [
        EditOutcome::Applied,
        EditOutcome::Queued,
        EditOutcome::Unchanged,
        EditOutcome::Planned,
    ] {
        let mut answer = queued("pending");
        answer.outcome = outcome;
        if outcome != EditOutcome::Queued {
            answer.mutation = None;
        }
        texts.push(text(LOOK, &answer));
    }
    insta::assert_snapshot!(texts.join("---\n"));
}

#[test]
fn what_a_master_sends_is_safe_to_print() {
    let mut answer = queued("pending");
    answer.words = "+ decky \u{1b}[31mred\n".to_owned();
    assert!(text(LOOK, &answer).starts_with("+ decky \\u{1b}[31mred\n"));
    let mut mutation = mutation("failed");
    mutation.reason = "\u{202e}x".to_owned();
    assert!(standing(&mutation).ends_with("\\u{202e}x"));
}

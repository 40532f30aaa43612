use std::time::Duration;

use proto::rest::FindingShape;

use super::*;
use crate::args::WaitArgs;
use crate::stub::{LOOK, Stub, mutation, queued, state, value};

const MUTATION: &str = "GET /mutations/0190a000-0000-7000-8000-000000000003";
const TOPOLOGY: &str = "GET /topologies/0190a000-0000-7000-8000-000000000001";

fn ok(shape: &impl serde::Serialize) -> (u16, serde_json::Value) {
    (200, value(shape))
}

#[tokio::test]
async fn a_mutation_is_followed_until_its_host_has_it() {
    let stub = Stub::new(vec![
        (
            MUTATION,
            vec![
                ok(&mutation("pending")),
                ok(&mutation("applying")),
                ok(&mutation("applied")),
            ],
        ),
        (TOPOLOGY, vec![ok(&state("active"))]),
    ]);
    let context = stub.context(Duration::from_secs(30));
    let followed = follow_mutation(&context, &stub.client(), &mutation("pending")).await;
    let (ended, exit) = followed.expect("it is applied");
    assert_eq!((ended.state.as_str(), exit), ("applied", Exit::Done));
    assert_eq!(stub.bodies(MUTATION).len(), 3);
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
    let stub = Stub::new(vec![(MUTATION, vec![ok(&failed)])]);
    let context = stub.context(Duration::from_secs(30));
    let failure = follow_mutation(&context, &stub.client(), &mutation("pending"))
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

#[tokio::test]
async fn time_that_runs_out_leaves_it_running() {
    let stub = Stub::new(vec![
        (MUTATION, vec![ok(&mutation("applying"))]),
        (TOPOLOGY, vec![ok(&state("active"))]),
    ]);
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

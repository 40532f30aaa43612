mod stream;

use proto::rest::{DesiredShape, ObservedShape, ProgressShape, TopologyShape};

use super::*;

fn state(status: &str) -> TopologyState {
    TopologyState {
        topology: TopologyShape {
            id: "5b0c1a52-0000-7000-8000-000000000000".to_owned(),
            name: "office".to_owned(),
            status: status.to_owned(),
            status_at: "2026-01-01T00:00:00Z".to_owned(),
            reason: "no space left on device".to_owned(),
            revision: 1,
            host: Some("edge-07".to_owned()),
            lans: 3,
            deckies: 6,
        },
        desired: None,
        applied: None,
        observed: None,
        drift: Vec::new(),
        timings_us: std::collections::BTreeMap::new(),
        condition: Some("waiting for host edge-07".to_owned()),
        progress: Some(ProgressShape { done: 4, total: 13 }),
        findings: Vec::new(),
    }
}

#[test]
fn a_deploy_is_done_when_active_and_failed_with_its_reason() {
    let judge = |status| judge_topology(Goal::Active, &state(status));
    assert_eq!(judge("active"), Look::Done);
    assert_eq!(
        judge("failed"),
        Look::Failed("no space left on device".to_owned())
    );
    assert_eq!(
        judge("deploying"),
        Look::Pending(Awaited {
            phase: "office: deploying".to_owned(),
            detail: " 4/13, waiting for host edge-07".to_owned(),
        })
    );
    assert!(matches!(judge("degraded"), Look::Pending(_)));
    assert!(matches!(judge("torn_down"), Look::Failed(_)));
}

#[test]
fn a_teardown_is_done_only_when_torn_down() {
    let judge = |status| judge_topology(Goal::TornDown, &state(status));
    assert_eq!(judge("torn_down"), Look::Done);
    assert!(matches!(judge("tearing_down"), Look::Pending(_)));
    assert!(matches!(judge("failed"), Look::Failed(_)));
}

fn host() -> HostShape {
    HostShape {
        id: "edge-07-id".to_owned(),
        name: "edge-07".to_owned(),
        state: "ready".to_owned(),
        standing: "draining".to_owned(),
        last_seen: None,
        agent_version: String::new(),
        enrolled_at: String::new(),
        desired: None,
        settled: true,
        applied: None,
        observed: Some(ObservedShape {
            deckies: 0,
            lans: 0,
            usage: Vec::new(),
        }),
        drift: Vec::new(),
        health: None,
    }
}

#[test]
fn a_host_is_empty_only_when_it_says_so() {
    let mut host = host();
    assert_eq!(judge_empty(&host), Look::Done);
    let topology = Some("t".to_owned());
    host.desired = Some(DesiredShape {
        epoch: 1,
        generation: 1,
        topology,
        version_hash: None,
    });
    assert_eq!(
        judge_empty(&host),
        Look::Pending("edge-07: 0 objects left".to_owned().into())
    );
    host.observed = None;
    assert!(matches!(judge_empty(&host), Look::Pending(_)));
}

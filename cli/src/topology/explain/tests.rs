use proto::rest::{DriftShape, FindingShape, HealthShape};

use super::*;
use crate::stub::{mutation, state};

fn host(host_state: &str) -> HostShape {
    HostShape {
        id: "0190a000-0000-7000-8000-000000000002".to_owned(),
        name: "edge-07".to_owned(),
        state: host_state.to_owned(),
        standing: "open".to_owned(),
        last_seen: None,
        agent_version: "0.1.0".to_owned(),
        enrolled_at: "2026-01-01T00:00:00Z".to_owned(),
        desired: None,
        settled: false,
        applied: None,
        observed: None,
        drift: Vec::new(),
        health: Some(HealthShape {
            engine_ok: false,
            collect_ok: true,
            spool_ok: true,
            disk_free_mib: 100,
            memory_free_mib: 100,
            spool_events: 0,
            clock_skew_ms: 0,
        }),
    }
}

/// Without the part that tells how long ago it was.
fn shown(explanation: &Explanation) -> String {
    let text = text(explanation);
    let since = clock::ago("2026-01-01T00:00:00Z", clock::now());
    text.replace(&since, "AGO")
}

#[test]
fn each_status_is_explained_with_what_to_do() {
    let mut texts = Vec::new();
    for (status, host_state) in [
        ("pending", None),
        ("failed", Some("ready")),
        ("degraded", Some("ready")),
        ("tearing_down", Some("lost")),
        ("torn_down", None),
    ] {
        let mut state = state(status);
        if status == "pending" {
            state.findings.push(FindingShape {
                severity: "error".to_owned(),
                code: "DMZ_MISSING".to_owned(),
                message: "no LAN is the DMZ".to_owned(),
                target: "topology".to_owned(),
                path: "lans".to_owned(),
            });
        }
        let mut mutations = Vec::new();
        if status == "degraded" {
            state.topology.reason = "decky web is missing".to_owned();
            state.drift.push(DriftShape {
                kind: "missing".to_owned(),
                object: "decky web".to_owned(),
            });
            let mut failed = mutation("failed");
            failed.reason = "port 22 is taken".to_owned();
            mutations = vec![failed, mutation("applying")];
        }
        let host = host_state.map(host);
        texts.push(shown(&explain(&state, host.as_ref(), &mutations)));
    }
    insta::assert_snapshot!(texts.join("\n"));
}

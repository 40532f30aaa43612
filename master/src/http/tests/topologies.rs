//! Topologies from draft to removal.

use sha2::{Digest as _, Sha256};

use super::*;
use crate::bus::Delivery;
use crate::db::conformance::Held;

#[tokio::test]
async fn a_draft_that_cannot_be_read_is_refused_with_every_finding_and_stores_nothing() {
    let world = World::new().await;
    let mut draft = file("ma ze");
    draft["lans"][1]["subnet"] = json!("172.30.1.1/24");
    draft["deckies"][1]["edges"][0]["lan"] = json!("nowhere");
    draft["lans"][0]["kind"] = json!("internal");
    let answer = world
        .post("/api/v1/topologies", json!({ "topology": draft }))
        .await;
    let problem = answer.problem(422, "invalid_topology");
    for code in [
        "NAME_INVALID",
        "SUBNET_MALFORMED",
        "EDGE_UNKNOWN",
        "DMZ_MISSING",
    ] {
        assert!(
            codes(&problem).contains(&code),
            "{code} is not among {:?}",
            codes(&problem)
        );
    }
    assert_eq!(
        world.get("/api/v1/topologies").await.expect(200)["total"],
        0
    );
}

#[tokio::test]
async fn an_unfinished_draft_is_stored_with_its_findings_and_cannot_be_deployed() {
    let world = World::new().await;
    let (_, _session) = world.ready_host("local").await;
    let mut draft = file("maze");
    draft["lans"][0]["kind"] = json!("internal");
    let answer = world
        .post("/api/v1/topologies", json!({ "topology": draft }))
        .await;
    let state = answer.expect(201);
    assert_eq!(state["topology"]["status"], "pending");
    assert_eq!(codes(&state), ["DMZ_MISSING"]);
    let id = state["topology"]["id"].as_str().expect("an id");
    assert_eq!(
        answer.headers["location"],
        format!("/api/v1/topologies/{id}")
    );

    let refused = world
        .post("/api/v1/topologies/maze/deploy", json!({}))
        .await;
    assert_eq!(
        codes(&refused.problem(422, "invalid_topology")),
        ["DMZ_MISSING"]
    );
    assert_eq!(world.status_of("maze").await, "pending");

    let checked = world
        .post("/api/v1/topologies/validate", draft)
        .await
        .expect(200);
    assert_eq!(codes(&checked), ["DMZ_MISSING"]);
}

#[tokio::test]
async fn what_is_looked_at_again_is_read_again_only_when_it_differs() {
    let world = World::new().await;
    let path = "/api/v1/topologies/maze";
    world.topology("maze").await;
    let statements = async |count: usize| {
        let before = world.metrics.db_statements_total.get();
        for _ in 0..count {
            world.get(path).await.expect(200);
        }
        world.metrics.db_statements_total.get() - before
    };
    assert_eq!(statements(10).await, 20, "its name and its head, each time");

    // An edit of this master, of another one, and what is no edit.
    let revision = async || world.get(path).await.expect(200)["topology"]["revision"].clone();
    let ops = json!({ "ops": [{ "op": "remove_decky", "decky": "gate" }] });
    let edited = world.post(&format!("{path}/mutations"), ops).await;
    edited.expect(200);
    let state = world.get(path).await.expect(200);
    assert_eq!(state["topology"]["deckies"], 1);
    assert!(codes(&state).contains(&"DMZ_ORPHAN"), "{state}");
    let other = sqlite::open(&world.folder.path().join("master.db")).await;
    let other = other.expect("a second master opens it");
    assert_eq!(revision().await, 2);
    Held::new(&other).await.commit().await;
    assert!(statements(1).await > 2, "it is read anew");
    assert_eq!(revision().await, 3);
    world
        .post(&format!("{path}/teardown"), json!({}))
        .await
        .expect(202);
    assert_eq!(world.status_of("maze").await, "torn_down");
    world.delete(path).await.expect(204);
    world.get(path).await.problem(404, "unknown");
    world.topology("maze").await;
    assert_eq!(revision().await, 1);
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let world = World::new().await;
    world.topology("maze").await;
    let again = world
        .post("/api/v1/topologies", json!({ "topology": file("MAZE") }))
        .await;
    again.problem(409, "name_taken");
}

#[tokio::test]
async fn a_target_must_exist_and_answer() {
    let world = World::new().await;
    let body = json!({ "topology": file("maze"), "host": "nowhere" });
    let problem = world
        .post("/api/v1/topologies", body)
        .await
        .problem(422, "target_unknown");
    assert_eq!(codes(&problem), ["TARGET_UNKNOWN"]);

    world.topology("maze").await;
    let deploy = async |body: Value| world.post("/api/v1/topologies/maze/deploy", body).await;
    // None is named, and none is called `local`.
    let problem = deploy(json!({})).await.problem(422, "target_unknown");
    assert!(
        problem["title"]
            .as_str()
            .is_some_and(|title| title.contains("local"))
    );
    deploy(json!({ "host": "nowhere" }))
        .await
        .problem(422, "target_unknown");

    world.host("silent").await;
    let answer = deploy(json!({ "host": "silent" })).await;
    assert_eq!(
        answer.problem(503, "target_not_ready")["current"],
        "unknown"
    );
    assert!(answer.headers.contains_key("retry-after"));
    world.pass(60);
    let answer = deploy(json!({ "host": "silent" })).await;
    assert_eq!(answer.problem(503, "target_not_ready")["current"], "lost");

    let (_, _session) = world.ready_host("closed").await;
    world
        .post("/api/v1/hosts/closed/cordon", json!({}))
        .await
        .expect(200);
    let answer = deploy(json!({ "host": "closed" })).await;
    assert_eq!(
        answer.problem(409, "target_not_ready")["current"],
        "cordoned"
    );
    world
        .post("/api/v1/hosts/closed/revoke", json!({}))
        .await
        .expect(200);
    let answer = deploy(json!({ "host": "closed" })).await;
    assert_eq!(
        answer.problem(409, "target_not_ready")["current"],
        "revoked"
    );
    assert_eq!(world.status_of("maze").await, "pending");
}

#[tokio::test]
async fn a_late_host_still_takes_a_deploy() {
    let world = World::new().await;
    let (_, _session) = world.ready_host("local").await;
    world.topology("maze").await;
    world.pass(20);
    assert_eq!(
        world.get("/api/v1/hosts/local").await.expect(200)["state"],
        "late"
    );
    world
        .post("/api/v1/topologies/maze/deploy", json!({}))
        .await
        .expect(202);
}

#[tokio::test]
async fn a_deploy_stores_intent_and_the_export_is_the_very_document_that_is_assigned() {
    let world = World::new().await;
    let (host, _session) = world.ready_host("local").await;
    let id = world.topology("maze").await;
    let mut told = world.bus.subscribe("topology.*.status");
    let before = world
        .get(&format!("/api/v1/topologies/{id}/hydrated"))
        .await;

    let state = world
        .post("/api/v1/topologies/maze/deploy", json!({}))
        .await
        .expect(202);

    assert_eq!(state["topology"]["status"], "deploying");
    assert_eq!(state["topology"]["host"], "local");
    let Delivery::Message(message) = told.next().await else {
        panic!("a message")
    };
    assert_eq!(message.body["state"], "deploying");

    let after = world.get("/api/v1/topologies/maze/hydrated").await;
    assert_eq!(after.bytes, before.bytes);
    let hash = hex::encode(Sha256::digest(&after.bytes));
    assert_eq!(after.headers["etag"], format!("\"{hash}\""));
    assert_eq!(state["desired"]["version_hash"], hash);
    let assigned = world.store.assigned_document(host).await.expect("readable");
    assert_eq!(assigned, Some(after.bytes));

    let shown = world.get("/api/v1/hosts/local").await.expect(200);
    assert_eq!(shown["desired"]["topology"], id);
    assert_eq!(
        shown["desired"]["generation"],
        state["desired"]["generation"]
    );
    let changes = world
        .get("/api/v1/topologies/maze/status-events")
        .await
        .expect(200);
    assert_eq!(changes["items"][0]["to"], "deploying");
    assert_eq!(changes["items"][0]["actor"], "operator:admin");
}

#[tokio::test]
async fn the_document_creates_the_same_topology_again() {
    let world = World::new().await;
    world.topology("maze").await;
    let mut document = world
        .get("/api/v1/topologies/maze/document")
        .await
        .expect(200);
    document["name"] = json!("copy");
    world
        .post("/api/v1/topologies", json!({ "topology": document }))
        .await
        .expect(201);
    let mut copy = world
        .get("/api/v1/topologies/copy/document")
        .await
        .expect(200);
    copy["name"] = json!("maze");
    assert_eq!(
        copy,
        world
            .get("/api/v1/topologies/maze/document")
            .await
            .expect(200)
    );
}

#[tokio::test]
async fn an_occupied_host_refuses_until_the_other_gives_way() {
    let world = World::new().await;
    let (_, _session) = world.ready_host("local").await;
    world.topology("first").await;
    world
        .post("/api/v1/topologies/first/deploy", json!({}))
        .await
        .expect(202);
    let twice = world
        .post("/api/v1/topologies/first/deploy", json!({}))
        .await;
    assert_eq!(
        twice.problem(409, "illegal_transition")["current"],
        "deploying"
    );

    // The same subnets: a warning, since one can only follow the other.
    let created = world
        .post("/api/v1/topologies", json!({ "topology": file("second") }))
        .await;
    assert_eq!(
        codes(&created.expect(201)),
        ["SUBNET_OVERLAP", "SUBNET_OVERLAP"]
    );

    let refused = world
        .post("/api/v1/topologies/second/deploy", json!({}))
        .await;
    assert_eq!(refused.problem(409, "host_occupied")["current"], "first");
    assert_eq!(world.status_of("second").await, "pending");

    let body = json!({ "replace": true });
    world
        .post("/api/v1/topologies/second/deploy", body)
        .await
        .expect(202);
    assert_eq!(world.status_of("first").await, "tearing_down");
    assert_eq!(world.status_of("second").await, "deploying");
}

#[tokio::test]
async fn retry_is_for_what_has_failed() {
    let world = World::new().await;
    world.topology("maze").await;
    let refused = world.post("/api/v1/topologies/maze/retry", json!({})).await;
    assert_eq!(
        refused.problem(409, "illegal_transition")["current"],
        "pending"
    );
}

#[tokio::test]
async fn a_teardown_waits_for_the_host_unless_it_is_forced() {
    let world = World::new().await;
    let (_, _session) = world.ready_host("local").await;
    world.topology("maze").await;
    world
        .post("/api/v1/topologies/maze/deploy", json!({}))
        .await
        .expect(202);
    world
        .delete("/api/v1/topologies/maze")
        .await
        .problem(409, "not_removable");

    let teardown = async |body: Value| world.post("/api/v1/topologies/maze/teardown", body).await;
    assert_eq!(
        teardown(json!({})).await.expect(202)["topology"]["status"],
        "tearing_down"
    );
    let again = teardown(json!({})).await.problem(409, "illegal_transition");
    assert!(
        again["next_step"]
            .as_str()
            .is_some_and(|step| step.contains("force"))
    );

    let state = teardown(json!({ "force": true })).await.expect(202);
    assert_eq!(state["topology"]["status"], "torn_down");
    assert_eq!(
        state["topology"]["reason"],
        "forced; cleaned if the host returns"
    );

    world.delete("/api/v1/topologies/maze").await.expect(204);
    world
        .get("/api/v1/topologies/maze")
        .await
        .problem(404, "unknown");
}

#[tokio::test]
async fn a_pending_topology_is_torn_down_and_removed_at_once() {
    let world = World::new().await;
    world.topology("maze").await;
    let request = world.request(Method::POST, "/api/v1/topologies/maze/teardown");
    // No body is the default body.
    let state = world
        .answer(request.body(Body::empty()).expect("a request"))
        .await
        .expect(202);
    assert_eq!(state["topology"]["status"], "torn_down");
    world.topology("other").await;
    world.delete("/api/v1/topologies/other").await.expect(204);
}

#[tokio::test]
async fn what_deckies_use_is_shown_by_name_and_only_for_what_runs() {
    use domain::id::TopologyId;
    use domain::observe::{Handle, ObservedDecky, RunState};
    use domain::usage::{Usage, Usages};

    let world = World::new().await;
    let (host, _session) = world.ready_host("local").await;
    let id = world.topology("maze").await;
    world
        .post("/api/v1/topologies/maze/deploy", json!({}))
        .await
        .expect(202);
    let topology = TopologyId::new(id.parse().expect("a UUID"));
    let row = world.store.topology(topology).await.expect("readable");
    let row = row.expect("stored");
    let observed = row.topology.deckies.iter().map(|decky| ObservedDecky {
        handle: Handle::new(decky.name.as_str()),
        id: decky.id,
        topology,
        spec: None,
        state: if decky.name.as_str() == "gate" {
            RunState::Running
        } else {
            RunState::Exited
        },
        attachments: Vec::new(),
        config: None,
        wiring: None,
        published: None,
        outdated: false,
    });
    let report = HostReport {
        observed: Some(Inventory {
            deckies: observed.collect(),
            ..Inventory::default()
        }),
        ..empty_report()
    };
    world.fleet.reported(host, report, 1);
    let shown = async || {
        let state = world.get("/api/v1/topologies/maze").await.expect(200);
        state["observed"]["usage"].clone()
    };
    assert_eq!(shown().await, Value::Null, "nothing was measured yet");

    let usage = Usage {
        memory_bytes: 4_000_000,
        cpu_micros: 12,
        pids: 3,
        refused_packets: None,
        oom_kills: Some(1),
    };
    let deckies = row.topology.deckies.iter().map(|decky| (decky.id, usage));
    world.fleet.measured(host, deckies.collect::<Usages>());
    let gate = row
        .topology
        .deckies
        .iter()
        .find(|it| it.name.as_str() == "gate");
    assert_eq!(
        shown().await,
        json!([{
            "decky": gate.expect("it is in the file").id.to_string(),
            "name": "gate",
            "memory_bytes": 4_000_000,
            "cpu_micros": 12,
            "pids": 3,
            "oom_kills": 1,
        }])
    );
}

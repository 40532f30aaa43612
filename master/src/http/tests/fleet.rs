//! Hosts and join tokens.

use domain::host::Standing;

use super::*;
use crate::db::Force;

#[tokio::test]
async fn a_token_is_shown_once_and_can_be_taken_back() {
    let world = World::new().await;
    let request = json!({ "name": "edge-07", "ttl_seconds": 60 });
    let made = world.post("/api/v1/tokens", request).await.expect(201);
    let token = made["token"].as_str().expect("a token");
    assert!(token.starts_with("dcn1_"));
    assert_eq!(
        made["command"],
        "decnet-agent join https://master.example:7443 --token-stdin"
    );

    let listed = world.get("/api/v1/tokens").await;
    assert_eq!(listed.expect(200)["items"][0]["creator"], "admin");
    assert!(!String::from_utf8_lossy(&listed.bytes).contains("dcn1_"));

    let path = format!("/api/v1/tokens/{}", made["id"].as_str().expect("an id"));
    world.delete(&path).await.expect(204);
    world.delete(&path).await.problem(404, "unknown");
    assert_eq!(world.get("/api/v1/tokens").await.expect(200)["total"], 0);
}

#[tokio::test]
async fn no_token_is_made_for_a_wrong_name_a_wrong_life_or_a_name_that_is_taken() {
    let world = World::new().await;
    world.host("edge-07").await;
    let ask = async |body: Value| world.post("/api/v1/tokens", body).await;
    let problem = ask(json!({ "name": "edge_07" }))
        .await
        .problem(422, "malformed");
    assert_eq!(problem["findings"][0]["path"], "name");
    let problem = ask(json!({ "name": "a", "ttl_seconds": 86_401 })).await;
    assert_eq!(
        problem.problem(422, "malformed")["findings"][0]["path"],
        "ttl_seconds"
    );
    ask(json!({ "name": "a", "ttl_seconds": 0 }))
        .await
        .problem(422, "malformed");
    let problem = ask(json!({ "name": "EDGE-07" }))
        .await
        .problem(409, "name_taken");
    assert!(problem["next_step"].is_string());
}

#[tokio::test]
async fn a_host_is_found_by_name_or_id_and_shows_what_its_agent_says() {
    let world = World::new().await;
    let (id, session) = world.ready_host("edge").await;
    for reference in ["edge".to_owned(), "EDGE".to_owned(), id.to_string()] {
        let host = world
            .get(&format!("/api/v1/hosts/{reference}"))
            .await
            .expect(200);
        assert_eq!(host["id"], id.to_string());
        assert_eq!(host["state"], "ready");
        assert_eq!(host["standing"], "open");
        assert_eq!(host["agent_version"], "0.1.1");
        assert_eq!(host["observed"], json!({ "deckies": 0, "lans": 0 }));
    }
    drop(session);
    world.pass(60);
    let host = world.get("/api/v1/hosts/edge").await.expect(200);
    assert_eq!(host["state"], "lost");
    assert_eq!(host["observed"], Value::Null);
}

#[tokio::test]
async fn standing_moves_only_along_its_arrows() {
    let world = World::new().await;
    let (id, _session) = world.ready_host("edge").await;
    let ask = async |verb: &str| {
        world
            .post(&format!("/api/v1/hosts/edge/{verb}"), json!({}))
            .await
    };
    assert_eq!(ask("cordon").await.expect(200)["standing"], "cordoned");
    let problem = ask("cordon").await.problem(409, "illegal_transition");
    assert_eq!(problem["current"], "cordoned");
    assert_eq!(ask("uncordon").await.expect(200)["standing"], "open");
    assert_eq!(ask("drain").await.expect(200)["standing"], "draining");
    let revoked = ask("revoke").await.expect(200);
    assert_eq!(revoked["standing"], "revoked");
    assert_eq!(revoked["state"], "revoked");

    let removed = world.delete("/api/v1/hosts/edge").await.expect(200);
    assert_eq!(removed["standing"], "removed");
    world
        .get("/api/v1/hosts/edge")
        .await
        .problem(404, "unknown");
    world.get(&format!("/api/v1/hosts/{id}")).await.expect(200);
    assert_eq!(world.get("/api/v1/hosts").await.expect(200)["total"], 0);
    assert_eq!(
        world.get("/api/v1/hosts?removed=true").await.expect(200)["total"],
        1
    );
}

#[tokio::test]
async fn a_revocation_comes_into_force_whoever_goes_away_meanwhile() {
    let world = World::new().await;
    let keys = [1, 2].map(|byte| KeyFingerprint::from_bytes([byte; 32]));
    let hosts = [
        world.host_with("left", keys[0]).await,
        world.host_with("stored", keys[1]).await,
    ];
    world.fleet.reload_allow_list().await.expect("read");
    let allowed = |index: usize| world.allow.get(hosts[index], &keys[index]);
    assert_eq!(
        (allowed(0), allowed(1)),
        (Some(Standing::Open), Some(Standing::Open))
    );

    // Whoever asked is gone as soon as it has begun.
    let actor = || Actor::Operator("test".to_owned());
    let fleet = &world.fleet;
    let revoke = fleet.set_standing(hosts[0], Standing::Revoked, Force::No, actor());
    assert!(futures_util::poll!(Box::pin(revoke)).is_pending());
    while allowed(0).is_some() {
        tokio::task::yield_now().await;
    }

    // It was stored, and the master that did so came no further.
    let store = &world.store;
    let stored = store.set_standing(hosts[1], Standing::Revoked, Force::No, actor(), world.now());
    stored.await.expect("stored");
    assert_eq!(allowed(1), Some(Standing::Open));
    let again = world.post("/api/v1/hosts/stored/revoke", json!({})).await;
    again.problem(409, "illegal_transition");
    assert_eq!(allowed(1), None);
}

#[tokio::test]
async fn a_host_that_carries_a_topology_is_removed_by_force_only() {
    let world = World::new().await;
    let (_, _session) = world.ready_host("local").await;
    world.topology("maze").await;
    world
        .post("/api/v1/topologies/maze/deploy", json!({}))
        .await
        .expect(202);

    world
        .delete("/api/v1/hosts/local")
        .await
        .problem(409, "host_occupied");
    world
        .delete("/api/v1/hosts/local?force=true")
        .await
        .expect(200);
    assert_eq!(world.status_of("maze").await, "torn_down");
}

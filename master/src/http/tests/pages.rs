//! Lists in pages, with their filters.

use super::*;

/// Every page of a list, with a check of what each page says.
async fn every_page(world: &World, path: &str, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let glue = if path.contains('?') { '&' } else { '?' };
        let page = world
            .get(&format!("{path}{glue}limit=2{cursor}"))
            .await
            .expect(200);
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= 2);
        found.extend(
            items
                .iter()
                .map(|item| item[key].as_str().expect("text").to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => {
                assert_eq!(page["total"], found.len(), "{path}");
                return found;
            }
        }
    }
}

#[tokio::test]
async fn lists_come_in_pages_in_a_stable_order() {
    let world = World::new().await;
    for name in ["delta", "Alpha", "charlie", "bravo", "echo"] {
        world.host(&name.to_lowercase()).await;
        world.topology(name).await;
        let body = json!({ "name": name, "role": "viewer" });
        world.post("/api/v1/users", body).await.expect(201);
        let body = json!({ "name": name, "role": "viewer" });
        world.post("/api/v1/api-tokens", body).await.expect(201);
        let body = json!({ "name": format!("new-{name}"), "ttl_seconds": 60 });
        world.post("/api/v1/tokens", body).await.expect(201);
        world.pass(1);
    }
    let names = every_page(&world, "/api/v1/hosts", "name").await;
    assert_eq!(names, ["alpha", "bravo", "charlie", "delta", "echo"]);
    let names = every_page(&world, "/api/v1/users", "name").await;
    assert_eq!(names, ["Alpha", "bravo", "charlie", "delta", "echo"]);
    let newest = ["echo", "bravo", "charlie", "Alpha", "delta"];
    let names = every_page(&world, "/api/v1/topologies", "name").await;
    assert_eq!(names, newest);
    let mut names = every_page(&world, "/api/v1/api-tokens", "name").await;
    names.retain(|name| newest.contains(&&**name));
    assert_eq!(names, newest);
    let names = every_page(&world, "/api/v1/tokens", "name").await;
    assert_eq!(
        names,
        [
            "new-delta",
            "new-Alpha",
            "new-charlie",
            "new-bravo",
            "new-echo"
        ]
    );
    let subjects = every_page(&world, "/api/v1/audit?action=user.create", "subject").await;
    assert_eq!(subjects, newest);
    for list in [
        "hosts",
        "users",
        "topologies",
        "api-tokens",
        "tokens",
        "audit",
    ] {
        for query in [
            "limit=0",
            "limit=1001",
            "limit=x",
            "cursor=%25",
            "cursor=_w",
            "no=1",
        ] {
            world
                .get(&format!("/api/v1/{list}?{query}"))
                .await
                .problem(422, "malformed");
        }
    }
}

#[tokio::test]
async fn lists_are_filtered_and_count_what_is_left() {
    let world = World::new().await;
    let (_, _session) = world.ready_host("local").await;
    world.host("edge-1").await;
    world.topology("office").await;
    world.topology("plant").await;
    world
        .post("/api/v1/topologies/plant/deploy", json!({}))
        .await
        .expect(202);
    let total =
        async |path: &str| world.get(&format!("/api/v1/{path}")).await.expect(200)["total"].clone();
    assert_eq!(total("topologies?status=pending").await, 1);
    assert_eq!(total("topologies?status=deploying&host=LOCAL").await, 1);
    assert_eq!(total("topologies?host=edge-1").await, 0);
    assert_eq!(total("topologies?name=OFF").await, 1);
    assert_eq!(total("topologies?name=OFF&status=active").await, 0);
    assert_eq!(total("hosts?state=ready").await, 1);
    assert_eq!(total("hosts?name=EDGE").await, 1);
    world
        .get("/api/v1/topologies?status=well")
        .await
        .problem(422, "malformed");
    world
        .get("/api/v1/topologies?host=nowhere")
        .await
        .problem(404, "unknown");
    for (name, role) in [("ann", "viewer"), ("anna", "admin"), ("bob", "viewer")] {
        let body = json!({ "name": name, "role": role });
        world.post("/api/v1/users", body).await.expect(201);
    }
    assert_eq!(total("users?role=viewer").await, 2);
    assert_eq!(total("users?role=viewer&name=ANN").await, 1);
}

//! Logins, sessions, users and API tokens as their owners see them.

use super::*;

impl World {
    /// The first admin's password.
    async fn first_password(&self) -> String {
        self.api.operators.ensure_first().await.expect("made");
        let path = self.folder.path().join(PASSWORD_FILE);
        let text = std::fs::read_to_string(path).expect("a file");
        text.trim().to_owned()
    }

    async fn login(&self, name: &str, password: &str) -> Answer {
        let request = Request::builder()
            .method(Method::POST)
            .uri("/api/v1/login")
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json");
        let body = json!({ "name": name, "password": password }).to_string();
        self.answer(request.body(Body::from(body)).expect("a request"))
            .await
    }

    async fn page(&self, cookie: &str, csrf: Option<&str>, method: Method, path: &str) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header("cookie", cookie);
        if let Some(csrf) = csrf {
            request = request.header("x-csrf-token", csrf);
        }
        self.answer(request.body(Body::empty()).expect("a request"))
            .await
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} of {value}"))
}

#[tokio::test]
async fn the_first_admin_changes_its_password_before_anything_else() {
    let world = World::new().await;
    let password = world.first_password().await;
    let opened = world.login("admin", &password).await.expect(200);
    let token = text(&opened, "token");
    assert_eq!(opened["must_change_password"], true);
    assert_eq!(opened["role"], "admin");
    world
        .as_(token, Method::GET, "/api/v1/hosts", None)
        .await
        .problem(403, "password_change_needed");
    let me = world.as_(token, Method::GET, "/api/v1/me", None).await;
    assert_eq!(me.expect(200)["must_change_password"], true);

    let change = async |current: &str, new: &str| {
        let body = json!({ "current": current, "new": new });
        world
            .as_(token, Method::POST, "/api/v1/me/password", Some(body))
            .await
    };
    let weak = change(&password, "short").await;
    assert_eq!(
        codes(&weak.problem(422, "weak_password")),
        ["PASSWORD_WEAK"]
    );
    change("wrong", "correct horse battery")
        .await
        .problem(403, "wrong_password");
    let again = change(&password, "correct horse battery").await.expect(200);
    let token = text(&again, "token");
    assert_eq!(again["must_change_password"], false);
    world
        .as_(token, Method::GET, "/api/v1/hosts", None)
        .await
        .expect(200);
    assert!(!world.folder.path().join(PASSWORD_FILE).exists());
    world
        .login("admin", &password)
        .await
        .problem(401, "login_refused");
}

#[tokio::test]
async fn a_login_is_throttled_with_the_time_to_come_back_whoever_is_tried() {
    let world = World::new().await;
    world.first_password().await;
    for name in ["admin", "nobody"] {
        for _ in 0..5 {
            world
                .login(name, "wrong")
                .await
                .problem(401, "login_refused");
        }
        let answer = world.login(name, "wrong").await;
        answer.problem(429, "throttled");
        assert_eq!(answer.headers["retry-after"], "2", "{name}");
    }
    let audit = world
        .get("/api/v1/audit?action=session.refuse&subject=admin")
        .await
        .expect(200);
    assert_eq!(audit["total"], 5);
    assert_eq!(audit["items"][0]["detail"], "from 127.0.0.1");
}

#[tokio::test]
async fn a_cookie_is_of_use_to_a_page_of_ours_alone_and_until_logout() {
    let world = World::new().await;
    let password = world.first_password().await;
    let answer = world.login("admin", &password).await;
    let set = answer.headers["set-cookie"].to_str().expect("text");
    for part in [
        "; HttpOnly",
        "; SameSite=Strict",
        "; Path=/",
        "; Max-Age=43200",
    ] {
        assert!(set.contains(part), "{set}");
    }
    let cookie = set.split(';').next().expect("a pair").to_owned();
    let csrf = text(&answer.expect(200), "csrf_token").to_owned();

    let me = world.page(&cookie, None, Method::GET, "/api/v1/me").await;
    assert_eq!(text(&me.expect(200), "csrf_token"), csrf);
    let twice = format!("{cookie}; {cookie}");
    world
        .page(&twice, None, Method::GET, "/api/v1/me")
        .await
        .problem(401, "unauthenticated");
    for wrong in [None, Some(""), Some("x"), Some(&*csrf.to_uppercase())] {
        world
            .page(&cookie, wrong, Method::POST, "/api/v1/logout")
            .await
            .problem(403, "csrf");
    }
    let answer = world
        .page(&cookie, Some(&csrf), Method::POST, "/api/v1/logout")
        .await;
    answer.expect(204);
    let cleared = answer.headers["set-cookie"].to_str().expect("text");
    assert!(cleared.starts_with("decnet_session=;") && cleared.contains("Max-Age=0"));
    world
        .page(&cookie, None, Method::GET, "/api/v1/me")
        .await
        .problem(401, "unauthenticated");
    // A token is no session.
    let nothing = world.post("/api/v1/logout", json!({})).await;
    nothing.problem(409, "not_a_user");
}

#[tokio::test]
async fn a_session_ends_with_its_time() {
    let world = World::new().await;
    let token = world.session("alice", Role::Viewer).await;
    let me = async || world.as_(&token, Method::GET, "/api/v1/me", None).await;
    assert_eq!(me().await.expect(200)["kind"], "user");
    world.pass(3599);
    me().await.expect(200);
    world.pass(1);
    me().await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn users_are_made_changed_and_removed_and_each_change_counts_at_once() {
    let world = World::new().await;
    let body = json!({ "name": "alice", "role": "viewer" });
    let answer = world.post("/api/v1/users", body.clone()).await;
    let made = answer.expect(201);
    let id = text(&made["user"], "id").to_owned();
    let location = format!("/api/v1/users/{id}");
    assert_eq!(answer.headers["location"], location);
    let password = text(&made, "one_time_password").to_owned();
    world
        .post("/api/v1/users", body)
        .await
        .problem(409, "name_taken");

    let opened = world.login("alice", &password).await.expect(200);
    let chosen = "four words of mine";
    let change = json!({ "current": password, "new": chosen });
    let token = text(&opened, "token");
    let opened = world
        .as_(token, Method::POST, "/api/v1/me/password", Some(change))
        .await
        .expect(200);
    let token = text(&opened, "token").to_owned();
    let create = async || {
        let body = json!({ "topology": file("maze") });
        world
            .as_(&token, Method::POST, "/api/v1/topologies", Some(body))
            .await
    };
    create().await.problem(403, "forbidden");
    let patch = async |body: Value| {
        let answer = world.as_(
            &world.admin,
            Method::PATCH,
            "/api/v1/users/ALICE",
            Some(body),
        );
        answer.await
    };
    let changed = patch(json!({ "role": "operator" })).await.expect(200);
    assert_eq!(changed["user"]["role"], "operator");
    assert_eq!(changed.get("one_time_password"), None);
    create().await.expect(201);
    let audit = world.get("/api/v1/audit?action=topology.create").await;
    let told = &audit.expect(200)["items"][0];
    assert!(text(told, "actor").starts_with("operator:alice"), "{told}");

    let both = json!({ "password": "another four words", "reset_password": true });
    patch(both).await.problem(422, "malformed");
    patch(json!({ "password": "alice alice alice" }))
        .await
        .problem(422, "weak_password");
    patch(json!({ "role": "root" }))
        .await
        .problem(422, "malformed");
    let reset = patch(json!({ "reset_password": true })).await.expect(200);
    assert_eq!(reset["user"]["must_change_password"], true);
    create().await.problem(401, "unauthenticated");
    let one_time = text(&reset, "one_time_password");
    let opened = world.login("alice", one_time).await.expect(200);

    world.delete(&location).await.expect(204);
    let gone = world
        .as_(text(&opened, "token"), Method::GET, "/api/v1/me", None)
        .await;
    gone.problem(401, "unauthenticated");
    world.get(&location).await.problem(404, "unknown");
    world.delete(&location).await.problem(404, "unknown");
    for name in ["", "a b", "a@b", "a\u{0}", "é", "../x"] {
        let body = json!({ "name": name, "role": "viewer" });
        let refused = world.post("/api/v1/users", body).await;
        assert_eq!(codes(&refused.problem(422, "malformed")), ["NAME_INVALID"]);
    }
}

#[tokio::test]
async fn the_last_admin_stays() {
    let world = World::new().await;
    world.first_password().await;
    world
        .delete("/api/v1/users/admin")
        .await
        .problem(409, "last_admin");
    let patch = async |body: Value| {
        world
            .with_body(Method::PATCH, "/api/v1/users/admin", body)
            .await
    };
    patch(json!({ "role": "viewer" }))
        .await
        .problem(409, "last_admin");
}

#[tokio::test]
async fn what_is_refused_leaves_the_password_as_it_was() {
    let world = World::new().await;
    let password = world.first_password().await;
    let opened = world.login("admin", &password).await.expect(200);
    let patch = async |body: Value| {
        world
            .with_body(Method::PATCH, "/api/v1/users/admin", body)
            .await
    };
    patch(json!({ "role": "viewer", "reset_password": true }))
        .await
        .problem(409, "last_admin");
    let me = world.as_(text(&opened, "token"), Method::GET, "/api/v1/me", None);
    assert_eq!(me.await.expect(200)["role"], "admin");
    assert_eq!(world.first_password().await, password, "its file is there");
    world.login("admin", &password).await.expect(200);

    let other = json!({ "name": "bob", "role": "admin" });
    world.post("/api/v1/users", other).await.expect(201);
    let both = patch(json!({ "role": "viewer", "reset_password": true }))
        .await
        .expect(200);
    assert_eq!(both["user"]["role"], "viewer");
    let one_time = text(&both, "one_time_password");
    let opened = world.login("admin", one_time).await.expect(200);
    assert_eq!(opened["role"], "viewer");
}

#[tokio::test]
async fn an_api_token_is_shown_once_has_its_role_and_ends_when_it_is_revoked() {
    let world = World::new().await;
    let mint = async |body: Value| world.post("/api/v1/api-tokens", body).await;
    for (ttl, finding) in [(0, "ttl_seconds"), (315_360_001, "ttl_seconds")] {
        let body = json!({ "name": "ci", "role": "viewer", "ttl_seconds": ttl });
        let refused = mint(body).await.problem(422, "malformed");
        assert_eq!(refused["findings"][0]["path"], finding);
    }
    let body = json!({ "name": "ci", "role": "operator", "ttl_seconds": 60 });
    let made = mint(body).await.expect(201);
    let secret = text(&made, "secret").to_owned();
    assert!(secret.starts_with("dca_"));
    let id = text(&made["token"], "id").to_owned();
    let me = async || world.as_(&secret, Method::GET, "/api/v1/me", None).await;
    let who = me().await.expect(200);
    assert_eq!(
        (&who["kind"], &who["name"]),
        (&json!("token"), &json!("ci"))
    );
    let body = json!({ "topology": file("maze") });
    world
        .as_(&secret, Method::POST, "/api/v1/topologies", Some(body))
        .await
        .expect(201);
    let audit = world
        .get("/api/v1/audit?actor=operator:token/ci")
        .await
        .expect(200);
    assert_eq!(audit["total"], 1, "{audit}");

    let listed = world.get("/api/v1/api-tokens").await;
    assert_eq!(listed.expect(200)["total"], 3);
    assert!(!String::from_utf8_lossy(&listed.bytes).contains(&secret));
    world.pass(60);
    me().await.problem(401, "unauthenticated");
    assert_eq!(
        world.get("/api/v1/api-tokens").await.expect(200)["total"],
        2
    );

    let body = json!({ "name": "ci", "role": "viewer" });
    let made = mint(body).await.expect(201);
    let secret = text(&made, "secret").to_owned();
    let path = format!("/api/v1/api-tokens/{}", text(&made["token"], "id"));
    let me = async || world.as_(&secret, Method::GET, "/api/v1/me", None).await;
    me().await.expect(200);
    world.delete(&path).await.expect(204);
    me().await.problem(401, "unauthenticated");
    world.delete(&path).await.problem(404, "unknown");
    world
        .delete("/api/v1/api-tokens/x")
        .await
        .problem(404, "unknown");
    let all = world.get("/api/v1/api-tokens?all=true").await.expect(200);
    let states: Vec<&str> = all["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|token| text(token, "state"))
        .collect();
    assert_eq!(states[0], "revoked", "{all}");
    assert_eq!(
        states.iter().filter(|state| **state == "expired").count(),
        1
    );
    assert!(all.to_string().contains(&id), "it is listed still");
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_their_owner_or_an_admin() {
    let world = World::new().await;
    let alice = world.session("alice", Role::Viewer).await;
    let bob = world.session("bob", Role::Operator).await;
    let own = world
        .as_(&alice, Method::GET, "/api/v1/sessions", None)
        .await;
    let own = own.expect(200);
    assert_eq!(
        (&own["total"], &own["items"][0]["current"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(own["items"][0]["origin"], "203.0.113.9");
    let id = text(&own["items"][0], "id");
    let name = text(&own["items"][0], "user");
    let of_alice = format!("/api/v1/sessions?user={name}");
    world
        .as_(&bob, Method::GET, &of_alice, None)
        .await
        .problem(403, "forbidden");
    world
        .as_(&bob, Method::GET, "/api/v1/sessions?user=nobody", None)
        .await
        .problem(403, "forbidden");
    world
        .as_(&alice, Method::GET, &of_alice, None)
        .await
        .expect(200);
    world
        .as_(
            &bob,
            Method::DELETE,
            &format!("/api/v1/sessions/{id}"),
            None,
        )
        .await
        .problem(404, "unknown");
    // The machine's own token has no sessions, and may end those of anybody.
    world
        .get("/api/v1/sessions")
        .await
        .problem(409, "not_a_user");
    assert_eq!(world.get(&of_alice).await.expect(200)["total"], 1);
    let path = format!("/api/v1/sessions/{id}?user={name}");
    world.delete(&path).await.expect(204);
    world
        .as_(&alice, Method::GET, "/api/v1/me", None)
        .await
        .problem(401, "unauthenticated");
    world
        .as_(&bob, Method::DELETE, "/api/v1/sessions", None)
        .await
        .expect(204);
    world
        .as_(&bob, Method::GET, "/api/v1/me", None)
        .await
        .problem(401, "unauthenticated");
    let audit = world.get("/api/v1/audit?action=session.").await.expect(200);
    let actions: Vec<&str> = audit["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|entry| text(entry, "action"))
        .collect();
    assert_eq!(actions, ["session.end_all", "session.end"]);
}

#[tokio::test]
async fn the_address_of_an_operator_is_in_the_audit() {
    let world = World::new().await;
    let mut request = world
        .request(Method::POST, "/api/v1/topologies")
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(json!({ "topology": file("maze") }).to_string()))
        .expect("a request");
    let from = "203.0.113.77".parse().expect("an address");
    request
        .extensions_mut()
        .insert(crate::http::auth::Peer(from));
    world.answer(request).await.expect(201);
    let audit = world
        .get("/api/v1/audit?actor=operator:admin&action=topology.create")
        .await
        .expect(200);
    let told = &audit["items"][0];
    assert_eq!(text(told, "actor"), "operator:admin");
    assert_eq!(text(told, "origin"), "203.0.113.77");
}

//! Who may ask, under which name, in which form.

use super::*;
use crate::http::auth::Access;

fn bare(method: Method, path: &str) -> axum::http::request::Builder {
    let path = path.replace(['{', '}'], "");
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "localhost")
}

/// What somebody shows who asks.
#[derive(Debug, Clone)]
enum Shown {
    Nothing,
    Bearer(String),
    /// The cookie of a session, without the token against forged requests.
    Cookie(String),
    /// With it.
    Page(String),
}

async fn ask(world: &World, route: &Route, shown: &Shown) -> (StatusCode, Option<String>) {
    let mut request = bare(route.method.clone(), route.path);
    request = match shown {
        Shown::Nothing => request,
        Shown::Bearer(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
        Shown::Cookie(token) => request.header("cookie", format!("decnet_session={token}")),
        Shown::Page(token) => request
            .header("cookie", format!("a=b; decnet_session={token}"))
            .header("x-csrf-token", secret::csrf_token(token.as_bytes())),
    };
    let response = world
        .send(request.body(Body::empty()).expect("a request"))
        .await;
    let status = response.status();
    if status.is_success() {
        // A stream never ends: its status is all that is asked for.
        return (status, None);
    }
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    let problem: Value = serde_json::from_slice(&bytes.expect("a whole body")).expect("a problem");
    let kind = problem["type"].as_str().expect("a kind");
    (
        status,
        Some(kind.trim_start_matches("urn:decnet:").to_owned()),
    )
}

fn refused(status: StatusCode, kind: &str) -> (StatusCode, Option<String>) {
    (status, Some(kind.to_owned()))
}

#[tokio::test]
async fn every_route_lets_in_those_of_its_role_and_tells_all_others_why_not() {
    let world = World::new().await;
    let unknown = refused(StatusCode::UNAUTHORIZED, "unauthenticated");
    let below = refused(StatusCode::FORBIDDEN, "forbidden");
    let forged = refused(StatusCode::FORBIDDEN, "csrf");
    let must_change = refused(StatusCode::FORBIDDEN, "password_change_needed");
    world.expired_and_revoked().await;
    for route in ROUTES.iter() {
        // One world would be logged out by the first route that ends its session.
        let opened = world.session("old", Role::Admin).await;
        let fresh = world.fresh_session().await;
        let place = format!("{} {}", route.method, route.path);
        let is_let_in = |answer: &(StatusCode, Option<String>)| {
            let kind = answer.1.as_deref();
            answer.0 != StatusCode::UNAUTHORIZED
                && !answer.0.is_server_error()
                && !matches!(kind, Some("forbidden" | "csrf" | "password_change_needed"))
        };
        if route.access == Access::Open {
            let answer = ask(&world, route, &Shown::Nothing).await;
            assert!(is_let_in(&answer), "{place}: {answer:?}");
            continue;
        }
        for shown in [
            Shown::Nothing,
            Shown::Bearer(String::new()),
            Shown::Bearer("dca_wrong".to_owned()),
            Shown::Bearer(world.admin[1..].to_owned()),
            Shown::Bearer(format!("{}x", world.admin)),
            Shown::Bearer(EXPIRED.to_owned()),
            Shown::Bearer(REVOKED.to_owned()),
            Shown::Bearer(format!("{opened}x")),
            Shown::Page("dcs_wrong".to_owned()),
            // Neither the machine's own token nor an API token is anything in a cookie.
            Shown::Page(world.admin.clone()),
            Shown::Page(VIEWER.to_owned()),
        ] {
            assert_eq!(
                ask(&world, route, &shown).await,
                unknown,
                "{place} {shown:?}"
            );
        }
        let roles = [
            (Role::Viewer, VIEWER.to_owned()),
            (Role::Operator, OPERATOR.to_owned()),
            (Role::Admin, world.admin.clone()),
        ];
        for (role, token) in roles {
            let answer = ask(&world, route, &Shown::Bearer(token)).await;
            match route.access {
                Access::Needs(needed) if role < needed => {
                    assert_eq!(answer, below, "{place} {role}");
                }
                Access::Open | Access::Known | Access::Needs(_) => {
                    assert!(is_let_in(&answer), "{place} {role}: {answer:?}");
                }
            }
        }
        let answer = ask(&world, route, &Shown::Bearer(fresh.clone())).await;
        match route.access {
            Access::Needs(_) => assert_eq!(answer, must_change, "{place}"),
            Access::Open | Access::Known => assert!(is_let_in(&answer), "{place}: {answer:?}"),
        }
        let answer = ask(&world, route, &Shown::Cookie(opened.clone())).await;
        if route.method.is_safe() {
            assert!(is_let_in(&answer), "{place}: {answer:?}");
        } else {
            assert_eq!(answer, forged, "{place}");
        }
        let answer = ask(&world, route, &Shown::Page(opened)).await;
        assert!(is_let_in(&answer), "{place}: {answer:?}");
    }
}

#[tokio::test]
async fn a_refusal_says_how_to_do_better_and_carries_the_headers_of_every_answer() {
    let world = World::new().await;
    let request = bare(Method::GET, "/api/v1/hosts")
        .body(Body::empty())
        .expect("a request");
    let answer = world.answer(request).await;
    let problem = answer.problem(401, "unauthenticated");
    assert!(
        problem["next_step"]
            .as_str()
            .is_some_and(|step| step.contains("Bearer"))
    );
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        (
            "content-security-policy",
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ] {
        assert_eq!(answer.headers[name], value);
    }
}

#[tokio::test]
async fn only_known_names_and_origins_are_answered() {
    let world = World::new().await;
    let ask = async |host: &str, origin: Option<&str>| {
        let mut request = Request::builder().uri("/healthz").header(HOST, host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        world
            .answer(request.body(Body::empty()).expect("a request"))
            .await
    };
    assert_eq!(ask("127.0.0.1:8080", None).await.bytes, b"ok\n");
    assert_eq!(
        ask("localhost", Some("http://localhost:8080")).await.status,
        StatusCode::OK
    );
    assert_eq!(ask("master.example", None).await.status, StatusCode::OK);
    ask("rebound.example:8080", None)
        .await
        .problem(421, "unknown_name");
    ask("localhost", Some("http://evil.example"))
        .await
        .problem(403, "foreign_origin");
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_taken_are_problems_too() {
    let world = World::new().await;
    world.get("/api/v2/hosts").await.problem(404, "unknown");
    world.get("/").await.problem(404, "unknown");
    let answer = world.delete("/api/v1/status").await;
    answer.problem(405, "method");
    assert!(
        answer.headers["allow"]
            .to_str()
            .expect("text")
            .contains("GET")
    );
    for path in [
        "hosts/nobody",
        "topologies/nothing",
        "topologies/nothing/hydrated",
    ] {
        let problem = world
            .get(&format!("/api/v1/{path}"))
            .await
            .problem(404, "unknown");
        assert!(
            problem["title"]
                .as_str()
                .is_some_and(|title| title.contains("no")),
            "{problem}"
        );
    }
    let nobody = "0198c0de-0000-7000-8000-000000000000";
    world
        .get(&format!("/api/v1/topologies/{nobody}"))
        .await
        .problem(404, "unknown");
    world
        .delete(&format!("/api/v1/tokens/{nobody}"))
        .await
        .problem(404, "unknown");
    world
        .delete("/api/v1/tokens/x")
        .await
        .problem(404, "unknown");
}

#[tokio::test]
async fn a_malformed_request_is_answered_with_the_place_and_the_nearest_key() {
    let world = World::new().await;
    let body = json!({ "topology": { "name": "a", "lans": [{ "name": "l", "subnett": "" }] } });
    let problem = world
        .post("/api/v1/topologies", body)
        .await
        .problem(422, "malformed");
    assert_eq!(problem["findings"][0]["path"], "topology.lans[0].subnett");
    assert_eq!(problem["next_step"], "did you mean `subnet`?");

    let problem = world
        .get("/api/v1/events?topologie=x")
        .await
        .problem(422, "malformed");
    assert_eq!(problem["findings"][0]["path"], "topologie");
    assert_eq!(problem["next_step"], "did you mean `topology`?");

    for query in [
        "limit=0",
        "limit=1001",
        "cursor=x",
        "kind=nothing",
        "since=yesterday",
    ] {
        world
            .get(&format!("/api/v1/events?{query}"))
            .await
            .problem(422, "malformed");
    }

    let send = async |kind: Option<&str>, body: &str| {
        let mut request = world.request(Method::POST, "/api/v1/topologies");
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        world
            .answer(
                request
                    .body(Body::from(body.to_owned()))
                    .expect("a request"),
            )
            .await
    };
    send(Some("application/json"), "{")
        .await
        .problem(422, "malformed");
    send(Some("application/json; charset=utf-8"), "[]")
        .await
        .problem(422, "malformed");
    send(Some("text/plain"), "{}")
        .await
        .problem(415, "media_type");
    send(None, "{}").await.problem(415, "media_type");
    let large = " ".repeat(proto::topology_file::MAX_FILE + 1);
    send(Some("application/json"), &large)
        .await
        .problem(413, "too_large");
}

#[tokio::test]
async fn metrics_need_a_token_and_health_does_not() {
    let world = World::new().await;
    world.host("edge").await;
    let answer = world.get("/metrics").await;
    assert_eq!(answer.status, StatusCode::OK);
    let text = String::from_utf8(answer.bytes).expect("text");
    assert!(
        text.contains("decnet_hosts{state=\"unknown\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("decnet_topologies{status=\"active\"} 0\n"),
        "{text}"
    );
}

#[tokio::test]
async fn the_status_counts_and_the_audit_tells_who() {
    let world = World::new().await;
    let (_, _session) = world.ready_host("local").await;
    world.topology("maze").await;
    let status = world.get("/api/v1/status").await.expect(200);
    assert_eq!(status["hosts"]["ready"], 1);
    assert_eq!(status["topologies"]["pending"], 1);
    assert_eq!(status["events"], 0);
    assert_eq!(status["master_url"], "https://master.example:7443");
    assert_eq!(status["ca_pin"].as_str().map(str::len), Some(64));

    let audit = world.get("/api/v1/audit?limit=1").await.expect(200);
    assert_eq!(audit["items"][0]["actor"], "operator:admin", "{audit}");
    world
        .get("/api/v1/audit?limit=0")
        .await
        .problem(422, "malformed");
}

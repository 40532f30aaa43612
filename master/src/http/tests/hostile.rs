//! What nobody sends by accident.

use super::*;

async fn raw(world: &World, method: Method, path: &str, headers: &[(&str, &[u8])]) -> Answer {
    let mut request = world.request(method, path);
    for (name, value) in headers {
        let value = axum::http::HeaderValue::from_bytes(value).expect("a value of HTTP");
        request = request.header(*name, value);
    }
    let request = request.body(Body::from("{}")).expect("a request");
    world.answer(request).await
}

#[tokio::test]
async fn depth_is_refused_wherever_a_body_is_taken() {
    let world = World::new().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for route in ROUTES
        .iter()
        .filter(|route| route.statuses().contains(&415))
    {
        let path = route.path.replace(['{', '}'], "");
        let request = world
            .request(route.method.clone(), &path)
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(deep.clone()))
            .expect("a request");
        let answer = world.answer(request).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{path}");
    }
}

#[tokio::test]
async fn hostile_header_values_are_refused_and_break_nothing() {
    let world = World::new().await;
    let long = vec![b'a'; 20_000];
    let values: [&[u8]; 6] = [b"", b"\xff\xfe", b"\"", b"*, *", b"a\tb", &long];
    for name in [
        "if-match",
        "if-none-match",
        "idempotency-key",
        "x-csrf-token",
        "cookie",
        "last-event-id",
        "content-type",
        "accept",
        "x-forwarded-for",
    ] {
        for value in values {
            for (method, path) in [
                (Method::GET, "/api/v1/topologies/maze"),
                (Method::POST, "/api/v1/topologies/maze/deploy"),
                (Method::DELETE, "/api/v1/topologies/maze"),
            ] {
                let answer = raw(&world, method, path, &[(name, value)]).await;
                let status = answer.status.as_u16();
                assert!([404, 415, 422].contains(&status), "{name} {path}: {status}");
            }
        }
    }
    let values = [
        &b"Bearer \xff"[..],
        b"Bearer",
        b"Basic YTpi",
        b"bearer  ",
        b"Bearer a b",
    ];
    for value in values {
        let request = Request::builder()
            .uri("/api/v1/hosts")
            .header(HOST, "localhost")
            .header(
                AUTHORIZATION,
                axum::http::HeaderValue::from_bytes(value).expect("a value"),
            )
            // A credential that is none does not make the cookie count.
            .header(
                "cookie",
                format!("decnet_session={}", world.session("a", Role::Admin).await),
            );
        let answer = world
            .answer(request.body(Body::empty()).expect("a request"))
            .await;
        answer.problem(401, "unauthenticated");
    }
}

#[tokio::test]
async fn a_path_that_is_no_text_is_a_problem_too() {
    let world = World::new().await;
    for path in ["/api/v1/hosts/%ff", "/api/v1/topologies/%c3%28/deploy"] {
        let answer = raw(&world, Method::GET, path, &[]).await;
        answer.problem(400, "malformed");
    }
    for path in [
        "/api/v1/hosts/%00",
        "/api/v1/topologies/..%2f..%2fetc",
        "/api/v1/users/%0a",
    ] {
        world.get(path).await.problem(404, "unknown");
    }
}

#[tokio::test]
async fn a_page_of_another_site_is_refused_before_its_cookie_is_looked_at() {
    let world = World::new().await;
    let token = world.session("alice", Role::Admin).await;
    let ask = async |host: &str, origin: Option<&str>| {
        let mut request = Request::builder()
            .uri("/api/v1/me")
            .header(HOST, host)
            .header("cookie", format!("decnet_session={token}"));
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        world
            .answer(request.body(Body::empty()).expect("a request"))
            .await
    };
    ask("localhost", None).await.expect(200);
    ask("localhost", Some("https://evil.example"))
        .await
        .problem(403, "foreign_origin");
    ask("localhost", Some("null"))
        .await
        .problem(403, "foreign_origin");
    ask("rebound.example", None)
        .await
        .problem(421, "unknown_name");
}

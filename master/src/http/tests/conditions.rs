//! Entity tags of topologies: who has it already, and who would act on another one.

use super::*;
use crate::db::conformance::Held;
use crate::http::kept::{Kept, MOST, Made};

impl World {
    async fn under(&self, method: Method, path: &str, condition: (&str, &str)) -> Answer {
        let request = self.request(method, path).header(condition.0, condition.1);
        self.answer(request.body(Body::empty()).expect("a request"))
            .await
    }
}

#[tokio::test]
async fn an_answer_that_the_caller_has_is_not_sent_again_until_it_differs() {
    let world = World::new().await;
    world.topology("maze").await;
    for path in ["", "/maze", "/maze/document", "/maze/hydrated"] {
        let path = format!("/api/v1/topologies{path}");
        let answer = world.get(&path).await;
        answer.expect(200);
        let tag = answer.headers["etag"].to_str().expect("text").to_owned();
        for held in [
            tag.clone(),
            format!("W/{tag}"),
            format!("\"x\", {tag}"),
            "*".to_owned(),
        ] {
            let again = world
                .under(Method::GET, &path, ("if-none-match", &held))
                .await;
            again.expect(304);
            assert_eq!(again.headers["etag"], tag);
        }
        let again = world
            .under(Method::GET, &path, ("if-none-match", "\"1\""))
            .await;
        again.expect(200);
        let torn = world
            .under(Method::GET, &path, ("if-none-match", "1"))
            .await;
        torn.problem(422, "malformed");
    }
    // A change of status is no edit, and nobody is to miss it.
    let path = "/api/v1/topologies/maze";
    let tag = world.get(path).await.headers["etag"].clone();
    world
        .post(&format!("{path}/teardown"), json!({}))
        .await
        .expect(202);
    let tag = tag.to_str().expect("text");
    let again = world.under(Method::GET, path, ("if-none-match", tag)).await;
    assert_eq!(again.expect(200)["topology"]["status"], "torn_down");
}

#[tokio::test]
async fn nothing_is_done_to_a_topology_at_another_revision() {
    let world = World::new().await;
    let (_, _session) = world.ready_host("local").await;
    world.topology("maze").await;
    let path = "/api/v1/topologies/maze";
    let answer = world.get(path).await;
    let revision = answer.expect(200)["topology"]["revision"].to_string();
    let tag = answer.headers["etag"].to_str().expect("text").to_owned();
    assert!(tag.starts_with(&format!("\"{revision}-")), "{tag}");
    let actions = [
        (Method::POST, format!("{path}/deploy")),
        (Method::POST, format!("{path}/retry")),
        (Method::POST, format!("{path}/teardown")),
        (Method::DELETE, path.to_owned()),
    ];
    for (method, action) in &actions {
        for stale in ["\"999\"", &format!("W/{tag}"), "\"999-00\", \"x\""] {
            let refused = world
                .under(method.clone(), action, ("if-match", stale))
                .await;
            let problem = refused.problem(412, "stale_revision");
            assert_eq!(problem["current"], revision, "{action} {stale}");
            assert_eq!(refused.headers["etag"], format!("\"{revision}\""));
        }
        let torn = world.under(method.clone(), action, ("if-match", "x")).await;
        torn.problem(422, "malformed");
    }
    assert_eq!(world.status_of("maze").await, "pending");
    // What is not there is not there, whatever was expected of it.
    world
        .under(
            Method::DELETE,
            "/api/v1/topologies/none",
            ("if-match", "\"1\""),
        )
        .await
        .problem(404, "unknown");

    let deploy = format!("{path}/deploy");
    let taken = world.under(Method::POST, &deploy, ("if-match", &tag)).await;
    taken.expect(202);
    assert!(taken.headers.contains_key("etag"));
    let teardown = format!("{path}/teardown");
    let plain = format!("\"{revision}\"");
    world
        .under(Method::POST, &teardown, ("if-match", &plain))
        .await
        .expect(202);
    world
        .under(Method::POST, &teardown, ("if-match", "*"))
        .await
        .problem(409, "illegal_transition");
}

#[tokio::test]
async fn an_edit_between_the_condition_and_the_act_is_found_out() {
    let world = World::new().await;
    let (_, _session) = world.ready_host("local").await;
    world.topology("maze").await;
    let other = sqlite::open(&world.folder.path().join("master.db")).await;
    let other = other.expect("a second master opens it");
    let path = "/api/v1/topologies/maze";
    let ops = json!({ "ops": [{ "op": "add_lan", "name": "more" }] });
    let actions = [
        (Method::POST, format!("{path}/deploy"), None),
        (Method::POST, format!("{path}/teardown"), None),
        (Method::POST, format!("{path}/mutations"), Some(ops)),
        (Method::DELETE, path.to_owned(), None),
    ];
    for (method, action, body) in actions {
        let tag = world.get(path).await.headers["etag"].clone();
        let mut request = world.request(method, &action).header("if-match", tag);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map_or(Body::empty(), |body| Body::from(body.to_string()));
        let edit = Held::new(&other).await;
        let writes = world.metrics.db_writes_total.get();
        let act = world.answer(request.body(body).expect("a request"));
        // Committed once the act waits for its turn, so that its look at the condition is behind it.
        let between = async {
            while world.metrics.db_writes_total.get() == writes {
                tokio::task::yield_now().await;
            }
            edit.commit().await;
        };
        let (refused, ()) = tokio::join!(act, between);
        let problem = refused.problem(412, "stale_revision");
        let state = world.get(path).await.expect(200);
        let current = state["topology"]["revision"].to_string();
        assert_eq!(problem["current"], current, "{action}");
        assert_eq!(refused.headers["etag"], format!("\"{current}\""));
        assert_eq!(state["topology"]["status"], "pending");
    }
}

#[tokio::test]
async fn what_is_given_again_is_what_is_stored() {
    let world = World::new().await;
    world.topology("maze").await;
    let document = "/api/v1/topologies/maze/document";
    let list = "/api/v1/topologies?name=ma";
    let revision = |answer: Value| answer["items"][0]["revision"].clone();
    for number in 1..4 {
        // Twice each: the second one is kept.
        for _ in 0..2 {
            assert_eq!(revision(world.get(list).await.expect(200)), number);
            let file = world.get(document).await;
            assert_eq!(
                file.expect(200)["lans"].as_array().map(Vec::len),
                Some(number + 1)
            );
        }
        let ops = json!([{ "op": "add_lan", "name": format!("more-{number}") }]);
        let path = "/api/v1/topologies/maze/mutations";
        world.post(path, json!({ "ops": ops })).await.expect(200);
    }
}

#[tokio::test]
async fn an_answer_is_made_once_until_something_is_written() {
    let world = World::new().await;
    let store = world.store.as_ref();
    let kept = Kept::default();
    let made = std::cell::Cell::new(0);
    let make = || async {
        made.set(made.get() + 1);
        Ok(Made::of(None, &made.get()))
    };
    let key = || "a".to_owned();
    for _ in 0..3 {
        let answer = kept
            .or_make(store, key(), make())
            .await
            .expect("it is made");
        assert_eq!(answer.json, "1");
    }
    // What is written while it is made makes it worthless.
    world.topology("maze").await;
    let slow = async {
        let answer = make().await;
        world.topology("office").await;
        answer
    };
    kept.or_make(store, key(), slow).await.expect("it is made");
    kept.or_make(store, key(), make())
        .await
        .expect("it is made");
    assert_eq!(made.get(), 3);
    // What has no end keeps no end of memory.
    for number in 0..40 {
        let large = async { Ok(Made::of(None, &"x".repeat(1024 * 1024))) };
        kept.or_make(store, number.to_string(), large)
            .await
            .expect("it is made");
        assert!(kept.size() <= MOST, "{}", kept.size());
    }
}

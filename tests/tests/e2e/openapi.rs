//! The OpenAPI document against a running master: schemathesis makes requests of it, good ones and
//! bad ones, as nobody, as a viewer and as an admin. No answer is a fault of the master, and none is
//! other than the document says.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::cli::{Outcome, system};
use tests::shapes;
use tests::world::World;

/// What every answer is checked for.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,\
                      unsupported_method,missing_required_header";

/// Somebody who asks.
struct Asker<'a> {
    name: &'a str,
    token: Option<&'a str>,
    /// For how long requests are made up, in seconds.
    seconds: &'a str,
}

#[test]
fn the_master_answers_as_its_document_says_whoever_asks() -> Result<()> {
    let mut world = World::with_master()?;
    // Joined, and never connected: it is there for requests about hosts, and no deploy reaches it.
    world.join("edge-1")?;
    let viewer = seed(&world)?;
    let document: Value = world.api()?.get("/api/openapi.json")?;
    let path = world.root().join("openapi.json");
    std::fs::write(&path, document.to_string())?;
    let admin = world.api()?.token().to_owned();
    for asker in [
        Asker {
            name: "nobody",
            token: None,
            seconds: "10",
        },
        Asker {
            name: "viewer",
            token: Some(&viewer),
            seconds: "20",
        },
        Asker {
            name: "admin",
            token: Some(&admin),
            seconds: "40",
        },
    ] {
        ask(&world, &path, &asker)?;
    }
    let log = world.master_log();
    ensure!(!log.contains("panicked"), "the master panicked:\n{log}");
    world.done()
}

/// Puts something behind the ids and names that requests are made of; gives a viewer's token.
fn seed(world: &World) -> Result<String> {
    let api = world.api()?;
    for name in ["office", "plant"] {
        let file = shapes::small(&world.slot, name);
        let _: Value = api.post("/api/v1/topologies", &json!({ "topology": file }))?;
    }
    for (name, role) in [("alice", "viewer"), ("bob", "operator")] {
        let body = json!({ "name": name, "role": role });
        let _: Value = api.post("/api/v1/users", &body)?;
    }
    let body = json!({ "name": "watcher", "role": "viewer" });
    let made: Value = api.post("/api/v1/api-tokens", &body)?;
    let secret = made["secret"].as_str().context("a token is given")?;
    Ok(secret.to_owned())
}

#[test]
fn an_answer_that_the_document_does_not_know_is_noticed() -> Result<()> {
    let world = World::with_master()?;
    let mut document: Value = world.api()?.get("/api/openapi.json")?;
    let responses = document
        .pointer_mut("/paths/~1api~1v1~1hosts~1{host}/get/responses")
        .and_then(Value::as_object_mut)
        .context("the route is documented")?;
    responses.remove("404");
    let path = world.root().join("openapi.json");
    std::fs::write(&path, document.to_string())?;
    let admin = world.api()?.token().to_owned();
    let asker = Asker {
        name: "admin",
        token: Some(&admin),
        seconds: "5",
    };
    let only = ["--include-path", "/api/v1/hosts/{host}"];
    let outcome = run(&world, &path, &asker, &only)?;
    ensure!(
        outcome.code == Some(1) && outcome.stdout.contains("404"),
        "it was not noticed: {outcome:?}"
    );
    world.done()
}

/// Asks for as long as it was said, and takes nothing but what the document says.
fn ask(world: &World, path: &Path, asker: &Asker<'_>) -> Result<()> {
    let document: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    // Streams never end; they have tests of their own.
    let (streams, routes): (Vec<_>, Vec<_>) = operations(&document).partition(|it| is_stream(it));
    ensure!(!streams.is_empty(), "no route is a stream");
    let mut excluded = Vec::new();
    for stream in streams {
        let id = stream["operationId"].as_str();
        excluded.extend(["--exclude-operation-id", id.context("a route has an id")?]);
    }
    let outcome = run(world, path, asker, &excluded)?;
    ensure!(
        outcome.code == Some(0),
        "as {}, schemathesis found:\n{}\n{}",
        asker.name,
        outcome.stdout,
        outcome.stderr
    );
    // That it ran and found nothing is not that it asked something. A machine that is busy makes a
    // few hundred requests in the time that is given, an idle one thousands.
    let asked = asked(&outcome.stdout)
        .with_context(|| format!("it does not say what it did:\n{}", outcome.stdout))?;
    ensure!(
        asked >= routes.len(),
        "as {} it made only {asked} requests of {} routes",
        asker.name,
        routes.len()
    );
    Ok(())
}

fn run(world: &World, document: &Path, asker: &Asker<'_>, which: &[&str]) -> Result<Outcome> {
    let config = world.root().join(format!("{}.toml", asker.name));
    std::fs::write(&config, CONFIG)?;
    let document = document.to_string_lossy();
    let config = config.to_string_lossy();
    let bearer = asker
        .token
        .map(|token| format!("Authorization: Bearer {token}"));
    let program = venv()?.join("bin/schemathesis");
    let (root, program) = (world.root().to_string_lossy(), program.to_string_lossy());
    let mut arguments = vec![
        // It keeps notes where it is started.
        "-C",
        &root,
        &program,
        "--config-file",
        &config,
        "run",
        &document,
        "--url",
        world.api()?.base(),
        "--checks",
        CHECKS,
        "--phases",
        "coverage,fuzzing",
        "--max-examples",
        "10",
        "--max-time",
        asker.seconds,
        "--continue-on-failure",
        "--no-shrink",
        "--request-timeout",
        "20",
        "--seed",
        "4",
        "--warnings",
        "off",
        "--no-color",
    ];
    if let Some(bearer) = &bearer {
        arguments.extend(["--header", bearer]);
    }
    arguments.extend(which);
    system("env", &arguments, "")
}

/// Every operation of the document.
fn operations(document: &Value) -> impl Iterator<Item = &Value> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let members = paths.flat_map(|(_, path)| path.as_object().into_iter().flatten());
    // A path has members that are none, such as its parameters.
    members
        .map(|(_, member)| member)
        .filter(|member| member.get("responses").is_some())
}

/// Whether its answer is server-sent events.
fn is_stream(operation: &Value) -> bool {
    operation["responses"]["200"]["content"]
        .get("text/event-stream")
        .is_some()
}

/// How many requests were made, as the summary says: `1234 generated, 1234 passed`.
fn asked(summary: &str) -> Option<usize> {
    let line = summary.lines().find(|line| line.contains(" generated"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Where `scripts/test.sh` has put the Python programs of the tests.
fn venv() -> Result<PathBuf> {
    std::env::var_os("DECNET_VENV")
        .map(PathBuf::from)
        .context("DECNET_VENV is not set: run the tests by `make test`")
}

/// Nothing is kept from run to run. Parameters come mostly from what is there, so that requests
/// reach what is behind the look-up.
const CONFIG: &str = r#"
[cache]
enabled = false
[dictionaries.topology]
values = ["office", "plant"]
[dictionaries.host]
values = ["edge-1"]
[dictionaries.decky]
values = ["gate", "web", "cache"]
[dictionaries.lan]
values = ["dmz", "lan-1"]
[dictionaries.user]
values = ["alice", "bob", "admin"]
[dictionaries.tags]
values = ['*', '"1"', '"0"', 'W/"1"']

[parameters]
"path.topology" = { dictionary = "topology", probability = 0.8 }
"path.host" = { dictionary = "host", probability = 0.8 }
"path.decky" = { dictionary = "decky", probability = 0.8 }
"path.lan" = { dictionary = "lan", probability = 0.8 }
"path.user" = { dictionary = "user", probability = 0.8 }
"query.topology" = { dictionary = "topology", probability = 0.5 }
"query.host" = { dictionary = "host", probability = 0.5 }
"query.user" = { dictionary = "user", probability = 0.5 }
"header.If-Match" = { dictionary = "tags", probability = 0.5 }
"header.If-None-Match" = { dictionary = "tags", probability = 0.5 }
"#;

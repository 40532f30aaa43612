//! Documents that are damaged or made to hurt: whatever stands in one, the answer is in order, and
//! what is stored can be read.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use proto::topology_file::MAX_FILE;

use super::mutations::Live;
use super::*;

/// Texts that are taken for something else, or look like something else.
const WORDS: &[&str] = &[
    "",
    " ",
    "-",
    "DMZ",
    "Dmz",
    "ＤＭＺ",
    "dmz\u{200d}",
    "d\u{43c}z",
    "\u{212a}",
    "\u{130}",
    "\u{202e}zmd",
    "\u{0}",
    "inner\n",
    "../dmz",
    "%2e",
    "$(id)",
    "'; DROP TABLE lans; --",
    "<script>",
    "\u{1b}[2J",
    "0.0.0.0/0",
    "10.0.0.0/8",
    "172.30.0.0/16",
    "172.30.0.0/33",
    "172.30.0.0/-1",
    "172.30.0.1/24",
    "172.30.2.0/30",
    "172.30.2.0/32",
    "255.255.255.255/32",
    "224.0.0.0/4",
    "127.0.0.0/8",
    "::/0",
    "fd00::/64",
    "172.30.0.1",
    "172.30.0.255",
    "172.30.0.256",
    "ff:ff:ff:ff:ff:ff",
    "02:00:00:00:00:01",
    "macvlan:eth0;id",
    "dmz",
    "inner",
    "gate",
    "db",
    "internal",
    "ssh",
    "smtp",
    "linux",
    "windows-server",
    "0s",
    "99999999h",
    "00000000-0000-0000-0000-000000000000",
];

/// A file in which every field is said.
fn full(name: &str) -> Value {
    let mut file = file(name);
    file["lans"][1]["subnet6"] = json!("fd00:9::/64");
    file["lans"][1]["driver"] = json!("bridge");
    let gate = file["deckies"][0].as_object_mut().expect("a decky");
    gate.insert("hostname".to_owned(), json!("gw-1"));
    gate.insert("persona".to_owned(), json!("linux"));
    gate.insert("mutate_every".to_owned(), json!("6h"));
    gate.insert("seed".to_owned(), json!("07".repeat(32)));
    gate.insert(
        "service_config".to_owned(),
        json!({ "ssh": { "banner": "SSH-2.0-x" } }),
    );
    file["deckies"][0]["edges"][0] = json!({
        "lan": "dmz", "address": "172.30.0.9", "mac": "02:00:00:00:00:07", "home": true,
    });
    file
}

/// Operations of every kind.
fn every_op() -> Value {
    json!([
        { "op": "add_lan", "name": "more", "subnet": "172.30.7.0/24", "kind": "internal" },
        { "op": "update_lan", "lan": "more", "patch": { "name": "other", "subnet6": null } },
        { "op": "add_decky", "name": "web", "services": ["http"], "edges": [{ "lan": "other" }] },
        { "op": "attach_decky", "decky": "web", "lan": "inner", "address": "172.30.1.77" },
        { "op": "update_decky", "decky": "db", "patch": {
            "services": ["ftp"], "mutate_every": "30m",
            "service_config": { "ftp": { "anonymous": true } },
        } },
        { "op": "detach_decky", "decky": "web", "lan": "inner" },
        { "op": "remove_decky", "decky": "web" },
        { "op": "remove_lan", "lan": "other" },
    ])
}

/// Requests that carry a document: to a draft `sketch`, to a live `maze`, and to neither.
fn requests() -> Vec<(Method, &'static str, Value)> {
    let one = json!([{ "op": "update_decky", "decky": "db", "patch": { "services": ["ftp"] } }]);
    // The ranges of a live LAN stay.
    let mut live = full("maze");
    live["lans"][1]["subnet6"] = Value::Null;
    let place = json!({
        "lans": [{ "lan": "dmz", "x": 1, "y": -2, "width": 30, "height": 40 }],
        "deckies": [{ "decky": "gate", "x": 5, "y": 6 }],
    });
    vec![
        (
            Method::POST,
            "/api/v1/topologies",
            json!({ "topology": full("fresh"), "host": "local" }),
        ),
        (Method::POST, "/api/v1/topologies/validate", full("fresh")),
        (
            Method::POST,
            "/api/v1/topologies/sketch/apply",
            json!({ "topology": full("sketch"), "dry_run": false }),
        ),
        (
            Method::POST,
            "/api/v1/topologies/maze/apply",
            json!({ "topology": file("maze"), "dry_run": false, "expected_revision": null }),
        ),
        (
            Method::POST,
            "/api/v1/topologies/maze/apply",
            json!({ "topology": live, "dry_run": true }),
        ),
        (
            Method::POST,
            "/api/v1/topologies/sketch/mutations",
            json!({ "ops": every_op(), "expected_revision": null }),
        ),
        (
            Method::POST,
            "/api/v1/topologies/maze/mutations",
            json!({ "ops": every_op() }),
        ),
        (
            Method::POST,
            "/api/v1/topologies/maze/mutations",
            json!({ "ops": one }),
        ),
        (Method::PUT, "/api/v1/topologies/maze/layout", place),
    ]
}

/// How a request is damaged.
#[derive(Debug, Clone)]
enum Damage {
    /// A node of the document becomes another.
    Node(usize, Value),
    /// A node stands in the place of another, of itself also: keys and items twice.
    Copy(usize, usize),
    /// A key is another one.
    Key(usize, String),
    /// A part of the text is another one.
    Text(usize, usize, String),
    /// Everything after a place is gone.
    Cut(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let words = || prop::sample::select(WORDS.to_vec());
    let text = prop_oneof![
        3 => words().prop_map(str::to_owned),
        1 => "\\PC{0,20}",
        1 => (prop::sample::select(vec!["[", "{\"a\":", "9", "\"", "\u{fe0f}"]), 1..3000_usize)
            .prop_map(|(text, times)| text.repeat(times)),
    ];
    prop_oneof![
        8 => (any::<usize>(), value()).prop_map(|(at, value)| Damage::Node(at, value)),
        4 => (any::<usize>(), any::<usize>()).prop_map(|(from, to)| Damage::Copy(from, to)),
        1 => (any::<usize>(), words()).prop_map(|(at, key)| Damage::Key(at, key.to_owned())),
        1 => (any::<usize>(), 0..30_usize, text).prop_map(|(at, many, text)| Damage::Text(at, many, text)),
        1 => any::<usize>().prop_map(Damage::Cut),
    ]
}

/// A value that a field may be given.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        2 => prop::sample::select(vec![-1_i64, 0, 1, 22, 65_535, 65_536, i64::MAX, i64::MIN])
            .prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        8 => prop::sample::select(WORDS.to_vec()).prop_map(Value::from),
        1 => "[0-9a-f:./-]{0,20}".prop_map(Value::from),
        1 => (1..20_000_usize).prop_map(|many| Value::from("x".repeat(many))),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,12}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The nodes of a document, from above.
fn nodes(value: &Value) -> Vec<&Value> {
    let mut found = vec![value];
    match value {
        Value::Array(items) => found.extend(items.iter().flat_map(nodes)),
        Value::Object(map) => found.extend(map.values().flat_map(nodes)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    found
}

/// Where the nodes are, in the order of [`nodes`].
fn places(value: &Value, at: &str) -> Vec<String> {
    let mut found = vec![at.to_owned()];
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                found.extend(places(item, &format!("{at}/{index}")));
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                found.extend(places(item, &format!("{at}/{key}")));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    found
}

/// The node of that number, counted over and over.
fn node(document: &mut Value, number: usize) -> &mut Value {
    let places = places(document, "");
    let place = &places[number % places.len()];
    document.pointer_mut(place).expect("it was found there")
}

impl Damage {
    fn of_document(&self, document: &mut Value) {
        match self {
            Self::Node(at, value) => *node(document, *at) = value.clone(),
            Self::Copy(from, to) => {
                let found = nodes(document);
                let copy = found[from % found.len()].clone();
                match node(document, *to) {
                    Value::Array(items) => items.push(copy),
                    other => *other = copy,
                }
            }
            Self::Key(at, key) => {
                if let Value::Object(map) = node(document, *at)
                    && let Some(old) = map.keys().next().cloned()
                    && let Some(value) = map.remove(&old)
                {
                    map.insert(key.clone(), value);
                }
            }
            Self::Text(..) | Self::Cut(_) => {}
        }
    }

    fn of_text(&self, text: &mut Vec<char>) {
        let length = text.len();
        match self {
            Self::Text(at, many, word) => {
                let at = at % (length + 1);
                drop(text.splice(at..(at + many).min(length), word.chars()));
            }
            Self::Cut(at) => text.truncate(at % (length + 1)),
            Self::Node(..) | Self::Copy(..) | Self::Key(..) => {}
        }
    }
}

/// What every answer is held to.
fn in_order(answer: &Answer) -> Result<(), TestCaseError> {
    let status = answer.status.as_u16();
    let text = String::from_utf8_lossy(&answer.bytes);
    prop_assert!(status < 500, "{status}: {text}");
    prop_assert!(answer.bytes.len() < 2 * MAX_FILE);
    let Ok(value) = serde_json::from_slice::<Value>(&answer.bytes) else {
        return Err(TestCaseError::fail(format!("{status} is no JSON: {text}")));
    };
    if status >= 400 {
        prop_assert_eq!(&answer.headers[CONTENT_TYPE], "application/problem+json");
        prop_assert_eq!(&value["status"], status);
        let kind = value["type"].as_str().unwrap_or_default();
        prop_assert!(kind.starts_with("urn:decnet:"), "{text}");
    }
    let findings = value["findings"].as_array().cloned().unwrap_or_default();
    prop_assert!(status != 422 || !findings.is_empty(), "{text}");
    for finding in &findings {
        let field = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        for name in ["severity", "code", "message", "target"] {
            prop_assert!(!field(name).is_empty(), "{name} of {finding}");
        }
        // Only what is no JSON at all has no place in it but a line and a column.
        let nowhere = field("path").is_empty();
        let counted = field("message").contains(" at line ");
        prop_assert!(
            !nowhere || counted && field("target") == "body",
            "{finding}"
        );
    }
    Ok(())
}

/// Sends one damaged request, and looks at what it has left behind.
async fn case(live: &mut Live, number: usize, damages: &[Damage]) -> Result<(), TestCaseError> {
    let (method, path, mut document) = requests().swap_remove(number);
    damages
        .iter()
        .for_each(|damage| damage.of_document(&mut document));
    let mut text: Vec<char> = document.to_string().chars().collect();
    damages.iter().for_each(|damage| damage.of_text(&mut text));
    let request = live
        .world
        .request(method, path)
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(text.into_iter().collect::<String>()));
    let answer = live.world.answer(request.expect("a request")).await;
    in_order(&answer)?;
    match answer.status.as_u16() {
        201 => {
            let state = answer.json();
            let id = state["topology"]["id"].as_str().expect("an id");
            let path = format!("/api/v1/topologies/{id}");
            for part in ["", "/document", "/hydrated", "/layout"] {
                let read = live.world.get(&format!("{path}{part}")).await;
                prop_assert_eq!(read.status.as_u16(), 200, "{}", part);
            }
            live.world.delete(&path).await.expect(204);
        }
        200 if path.contains("/sketch/") => {
            let read = live.world.get("/api/v1/topologies/sketch/document").await;
            prop_assert_eq!(read.status.as_u16(), 200);
            // Whatever has come of it, a good file makes it good again.
            let good = json!({ "topology": file("sketch") });
            let path = "/api/v1/topologies/sketch/apply";
            live.world.post(path, good).await.expect(200);
        }
        202 => {
            live.mutator.turn().await.expect("answered");
            live.arrive().await;
            let read = live.world.get("/api/v1/topologies/maze/hydrated").await;
            prop_assert_eq!(read.status.as_u16(), 200);
            // Most of it is as it was, so that the next one finds something to be damaged.
            let good = json!({ "topology": file("maze") });
            let path = "/api/v1/topologies/maze/apply";
            in_order(&live.world.post(path, good).await)?;
            live.mutator.turn().await.expect("answered");
            live.arrive().await;
        }
        _ => {}
    }
    Ok(())
}

#[test]
fn a_damaged_document_is_answered_in_order() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let live = runtime.block_on(async {
        let mut live = Live::new().await;
        live.world.topology("sketch").await;
        for (number, (method, path, document)) in requests().into_iter().enumerate() {
            let answer = live.world.with_body(method, path, document).await;
            let text = String::from_utf8_lossy(&answer.bytes).into_owned();
            assert!(answer.status.is_success(), "{number}: {text}");
            live.mutator.turn().await.expect("answered");
            live.arrive().await;
        }
        live.world
            .delete("/api/v1/topologies/fresh")
            .await
            .expect(204);
        tokio::sync::Mutex::new(live)
    });
    let mut runner = TestRunner::new(ProptestConfig {
        cases: ProptestConfig::default().cases.max(500),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let input = (0..requests().len(), prop::collection::vec(damage(), 0..4));
    let outcome = runner.run(&input, |(number, damages)| {
        runtime.block_on(async { case(&mut *live.lock().await, number, &damages).await })
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Sends a document to each route that takes one in that form: as a new topology, which is removed
/// again, as what `maze` is to be, and to be judged.
async fn everywhere(world: &World, topology: &Value) -> Vec<Answer> {
    let mut other = topology.clone();
    other["name"] = json!("other");
    let create = json!({ "topology": other });
    let created = world.post("/api/v1/topologies", create).await;
    if created.status == StatusCode::CREATED {
        world.delete("/api/v1/topologies/other").await.expect(204);
    }
    let apply = json!({ "topology": topology });
    let judged = topology.clone();
    vec![
        created,
        world.post("/api/v1/topologies/maze/apply", apply).await,
        world.post("/api/v1/topologies/validate", judged).await,
    ]
}

/// The paths of the findings of a code.
fn paths(answer: &Answer, code: &str) -> Vec<String> {
    let value = answer.json();
    let findings = value["findings"].as_array().cloned().unwrap_or_default();
    let of_code = findings.iter().filter(|finding| finding["code"] == code);
    of_code
        .filter_map(|finding| finding["path"].as_str().map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn ten_thousand_lans_are_too_many() {
    let world = World::new().await;
    world.topology("maze").await;
    let lan = |number: u32| {
        let [_, high, low, rest] = number.to_be_bytes();
        json!({ "name": format!("lan-{number}"), "subnet": format!("10.{high}.{low}.{rest}/32") })
    };
    let mut many = file("maze");
    many["lans"] = (0..10_000).map(lan).collect();
    for answer in everywhere(&world, &many).await {
        in_order(&answer).expect("in order");
        assert_eq!(paths(&answer, "TOO_LARGE"), ["lans"], "{}", answer.status);
    }
    let ops: Value = (0..10_000)
        .map(|number| json!({ "op": "add_lan", "name": format!("lan-{number}") }))
        .collect();
    let path = "/api/v1/topologies/maze/mutations";
    let answer = world.post(path, json!({ "ops": ops })).await;
    in_order(&answer).expect("in order");
    answer.problem(422, "invalid_topology");
    let state = world.get("/api/v1/topologies/maze").await.expect(200);
    assert_eq!(state["topology"]["revision"], 1);
}

#[tokio::test]
async fn names_that_look_like_others_are_those_others_or_none() {
    let world = World::new().await;
    world.topology("maze").await;
    for (name, code) in [
        ("DMZ", "LAN_NAME_DUP"),
        ("Dmz", "LAN_NAME_DUP"),
        ("ＤＭＺ", "NAME_INVALID"),
        ("dmz\u{200d}", "NAME_INVALID"),
        ("d\u{43c}z", "NAME_INVALID"),
        ("\u{202e}zmd", "NAME_INVALID"),
        ("dmz\n", "NAME_INVALID"),
        ("dmz\0", "NAME_INVALID"),
        ("-dmz", "NAME_INVALID"),
        ("", "NAME_INVALID"),
    ] {
        let mut twin = file("maze");
        twin["lans"][1]["name"] = json!(name);
        for answer in everywhere(&world, &twin).await {
            in_order(&answer).expect("in order");
            assert_eq!(paths(&answer, code), ["lans[1].name"], "{name:?}");
        }
    }
    for name in ["MAZE", "Maze"] {
        let twin = json!({ "topology": file(name) });
        let answer = world.post("/api/v1/topologies", twin).await;
        answer.problem(409, "name_taken");
    }
    // The Kelvin sign folds into a letter elsewhere; here it is none.
    let kelvin = json!({ "topology": file("\u{212a}") });
    let answer = world.post("/api/v1/topologies", kelvin).await;
    answer.problem(422, "invalid_topology");
    assert_eq!(paths(&answer, "NAME_INVALID"), ["name"]);
}

#[tokio::test]
async fn ranges_that_overlap_or_make_no_sense_are_found() {
    let world = World::new().await;
    world.topology("maze").await;
    for (subnet, code) in [
        ("172.30.0.0/24", "SUBNET_OVERLAP"),
        ("172.30.0.128/25", "SUBNET_OVERLAP"),
        ("172.30.0.0/16", "SUBNET_OVERLAP"),
        ("0.0.0.0/0", "SUBNET_RESERVED"),
        ("127.0.0.0/8", "SUBNET_RESERVED"),
        ("224.0.0.0/4", "SUBNET_RESERVED"),
        ("172.30.1.1/24", "SUBNET_MALFORMED"),
        ("172.30.1.0/33", "SUBNET_MALFORMED"),
        ("172.30.1.0", "SUBNET_MALFORMED"),
        ("fd00::/64", "SUBNET_MALFORMED"),
        ("", "SUBNET_MALFORMED"),
    ] {
        let mut absurd = file("maze");
        absurd["lans"][1]["subnet"] = json!(subnet);
        for answer in everywhere(&world, &absurd).await {
            in_order(&answer).expect("in order");
            let found = paths(&answer, code);
            assert_eq!(found, ["lans[1].subnet"], "{subnet:?}: {}", answer.json());
        }
    }
}

#[tokio::test]
async fn no_more_of_a_body_is_read_than_a_document_may_have() {
    const CHUNK: usize = 64 * 1024;
    let world = World::new().await;
    // Whoever names a key has the body read before anything else.
    let keyed = (Method::POST, "/api/v1/topologies", Some("k"));
    let plain = requests()
        .into_iter()
        .map(|(method, path, _)| (method, path, None));
    for (method, path, key) in plain.chain([keyed]) {
        let read = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read);
        let chunk = bytes::Bytes::from(vec![b' '; CHUNK]);
        let body = stream::iter((0..100 * 1024 * 1024 / CHUNK).map(move |_| {
            counted.fetch_add(CHUNK, Ordering::Relaxed);
            Ok::<_, Infallible>(chunk.clone())
        }));
        let mut request = world
            .request(method, path)
            .header(CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Body::from_stream(body));
        let answer = world.answer(request.expect("a request")).await;
        answer.problem(413, "too_large");
        let read = read.load(Ordering::Relaxed);
        assert!(read <= MAX_FILE + 2 * CHUNK, "{path} has read {read}");
    }
}

#[tokio::test]
async fn what_is_not_json_is_refused_whatever_it_says_it_is() {
    let world = World::new().await;
    let yaml = "name: maze\nlans: [&a {name: dmz, subnet: 10.1.0.0/24}, *a]\n";
    let bomb = "<!DOCTYPE a [<!ENTITY b \"bb\">]><a>&b;</a>";
    for (method, path, _) in requests() {
        for (kind, status) in [("application/json", 422), ("application/yaml", 415)] {
            for text in [yaml, bomb] {
                let request = world
                    .request(method.clone(), path)
                    .header(CONTENT_TYPE, kind)
                    .body(Body::from(text));
                let answer = world.answer(request.expect("a request")).await;
                in_order(&answer).expect("in order");
                assert_eq!(answer.status.as_u16(), status, "{path} as {kind}");
            }
        }
    }
}

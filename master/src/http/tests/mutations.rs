//! Edits: at once while nothing is deployed, by the queue while something is. The worker and the
//! reconciler are led step by step, and the host says what the test has it say.

use domain::assign::{ApplyFailure, FailureCode};
use domain::observe::Inventory;

use super::*;
use crate::mutate::Mutator;
use crate::reconcile::{Reconciler, ReconcilerParts};

/// A master with a host and an active topology `maze`.
pub(super) struct Live {
    pub(super) world: World,
    host: HostId,
    _session: Session,
    pub(super) mutator: Mutator,
    reconciler: Reconciler,
}

impl Live {
    pub(super) async fn new() -> Self {
        Self::of(file("maze")).await
    }

    pub(super) async fn with(limits: HttpLimits) -> Self {
        Self::start(World::with(limits).await, file("maze")).await
    }

    async fn of(file: Value) -> Self {
        Self::start(World::new().await, file).await
    }

    async fn start(world: World, file: Value) -> Self {
        let (host, session) = world.ready_host("local").await;
        world
            .post("/api/v1/topologies", json!({ "topology": file }))
            .await
            .expect(201);
        let mutator = another_worker(&world);
        let reconciler = another_reconciler(&world);
        let mut live = Self {
            world,
            host,
            _session: session,
            mutator,
            reconciler,
        };
        live.world
            .post("/api/v1/topologies/maze/deploy", json!({}))
            .await
            .expect(202);
        live.arrive().await;
        assert_eq!(live.world.status_of("maze").await, "active");
        live
    }

    /// The host reports that it holds what it is to hold.
    pub(super) async fn arrive(&mut self) {
        let assignment = self.assignment().await;
        self.hold(assignment).await;
    }

    /// What the host is to hold.
    async fn assignment(&self) -> domain::assign::Assignment {
        let row = self.world.store.host(self.host).await.expect("answered");
        row.expect("it is there").assignment
    }

    /// The host reports that it holds what it was assigned at some time.
    async fn hold(&mut self, assignment: domain::assign::Assignment) {
        self.report(HostReport {
            fence: assignment.fence,
            phase: Phase::Applied,
            content: assignment.content,
            applied_at: Some(self.world.now()),
            observed: Some(Inventory::default()),
            ..empty_report()
        })
        .await;
    }

    /// The host reports that it could not.
    async fn fail(&mut self) {
        let assignment = self.assignment().await;
        self.report(HostReport {
            fence: assignment.fence,
            phase: Phase::Failed,
            content: assignment.content,
            failure: Some(ApplyFailure {
                code: FailureCode::PortTaken,
                message: "port 2222 is taken".to_owned(),
            }),
            ..empty_report()
        })
        .await;
    }

    async fn report(&mut self, report: HostReport) {
        self.world.fleet.reported(self.host, report, 1);
        self.reconcile().await;
    }

    /// Passes until there is nothing more to settle.
    async fn reconcile(&mut self) {
        for _ in 0..4 {
            self.reconciler.pass().await.expect("it passes");
        }
    }

    pub(super) async fn edit(&self, ops: Value) -> Answer {
        self.world
            .post("/api/v1/topologies/maze/mutations", json!({ "ops": ops }))
            .await
    }

    /// Queues an edit; the mutation's id.
    pub(super) async fn queue(&self, ops: Value) -> String {
        let answer = self.edit(ops).await.expect(202);
        assert_eq!(answer["outcome"], "queued");
        id_of(&answer["mutation"])
    }

    pub(super) async fn turn(&mut self) {
        self.mutator.turn().await.expect("the database answers");
    }

    async fn mutation(&self, id: &str) -> Value {
        let path = format!("/api/v1/mutations/{id}");
        self.world.get(&path).await.expect(200)
    }

    async fn state(&self, id: &str) -> String {
        text(&self.mutation(id).await["state"])
    }

    async fn document(&self) -> Value {
        let path = "/api/v1/topologies/maze/document";
        self.world.get(path).await.expect(200)
    }

    /// Names, old and new sets, trigger and actor of what was told, oldest first.
    async fn told(&self) -> Vec<(String, Value, Value, String, Value)> {
        let page = self.world.get("/api/v1/events?kind=mutation").await;
        let page = page.expect(200);
        let items = page["items"].as_array().expect("a list").iter().rev();
        items
            .map(|event| {
                let data = &event["data"];
                let [old, new, actor] = ["old", "new", "actor"].map(|key| data[key].clone());
                (text(&data["name"]), old, new, text(&data["trigger"]), actor)
            })
            .collect()
    }
}

fn another_worker(world: &World) -> Mutator {
    let topologies = &world.api.topologies;
    Mutator::new(topologies.editor.clone(), topologies.waker.clone())
}

fn another_reconciler(world: &World) -> Reconciler {
    let topologies = &world.api.topologies;
    Reconciler::new(ReconcilerParts {
        store: Arc::clone(&world.store),
        fleet: Arc::clone(&world.fleet),
        bus: Arc::clone(&world.bus),
        waker: topologies.waker.clone(),
        conditions: Arc::clone(&topologies.conditions),
        counts: Arc::default(),
        ingest: Arc::clone(&world.ingest),
        mutations: topologies.editor.waker.clone(),
        clock: Arc::clone(&topologies.clock),
    })
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(super) fn id_of(mutation: &Value) -> String {
    text(&mutation["id"])
}

pub(super) fn services(decky: &str, services: &[&str]) -> Value {
    json!([{ "op": "update_decky", "decky": decky, "patch": { "services": services } }])
}

#[tokio::test]
async fn one_call_edits_a_draft_at_once_and_queues_for_what_is_live() {
    let world = World::new().await;
    world.topology("maze").await;
    let path = "/api/v1/topologies/maze/mutations";
    let body = json!({ "expected_revision": 1, "ops": services("db", &["redis", "ftp"]) });
    let answer = world.post(path, body.clone()).await.expect(200);
    assert_eq!(answer["outcome"], "applied");
    assert_eq!(answer["revision"], 2);
    assert_eq!(
        answer["words"],
        "~ decky db\n    services: redis -> ftp, redis\n"
    );
    let stale = world.post(path, body).await.problem(409, "stale_revision");
    assert_eq!(stale["current"], "2");
    let again = json!({ "ops": services("db", &["ftp", "redis"]) });
    let same = world.post(path, again).await.expect(200);
    assert_eq!(
        (&same["outcome"], &same["revision"]),
        (&json!("unchanged"), &json!(2))
    );

    let mut live = Live::new().await;
    let id = live.queue(services("db", &["redis", "ftp"])).await;
    assert_eq!(live.state(&id).await, "pending");
    let before = live.document().await;
    live.turn().await;
    assert_eq!(live.state(&id).await, "applying");
    assert_ne!(live.document().await, before);
    live.reconcile().await;
    assert_eq!(
        live.state(&id).await,
        "applying",
        "the host has not reported it"
    );
    live.arrive().await;
    let done = live.mutation(&id).await;
    assert_eq!(done["state"], "applied");
    assert_eq!(
        (&done["revision"], &done["actor"]),
        (&json!(2), &json!("operator:admin"))
    );
    assert_eq!(done["changes"][0]["name"], "db");
}

#[tokio::test]
async fn edits_that_race_never_find_one_subnet_free() {
    let live = Live::new().await;
    let world = &live.world;
    for name in ["one", "two"] {
        world.topology(name).await;
    }
    // Of the live one it is only queued, of the others it is stored at once.
    let queued = live
        .queue(json!([{ "op": "add_lan", "name": "queued" }]))
        .await;
    let words = live.mutation(&queued).await["words"].to_string();
    let add = |name: String| async move {
        let body = json!({ "ops": [{ "op": "add_lan", "name": "more" }] });
        let path = format!("/api/v1/topologies/{name}/mutations");
        let answer = world.post(&path, body).await.expect(200);
        answer["words"].to_string()
    };
    let (one, two) = tokio::join!(add("one".to_owned()), add("two".to_owned()));
    let subnet = |words: &str| {
        let part = words.split_whitespace().find(|word| word.contains("/24"));
        part.expect("its range is said").to_owned()
    };
    let subnets: std::collections::BTreeSet<_> = [&words, &one, &two].map(|it| subnet(it)).into();
    assert_eq!(subnets.len(), 3, "{words} {one} {two}");
}

#[tokio::test]
async fn an_edit_is_checked_against_everything_that_is_queued_before_it() {
    let mut live = Live::new().await;
    let first = live
        .queue(json!([{ "op": "remove_decky", "decky": "db" }]))
        .await;
    let answer = live.edit(services("db", &["ftp"])).await;
    assert_eq!(
        codes(&answer.problem(422, "invalid_topology")),
        ["REFERENCE_UNKNOWN"]
    );
    let second = live
        .queue(
            json!([{ "op": "add_decky", "name": "db", "services": ["ftp"],
                        "edges": [{ "lan": "inner" }] }]),
        )
        .await;
    // Without the first there are two of one name: the second is refused when its turn comes,
    // and nothing of the topology has changed.
    let cancelled = live
        .world
        .post(&format!("/api/v1/mutations/{first}/cancel"), json!({}))
        .await
        .expect(200);
    assert_eq!(cancelled["state"], "cancelled");
    let before = live.document().await;
    live.turn().await;
    let refused = live.mutation(&second).await;
    assert_eq!(refused["state"], "failed");
    assert_eq!(codes(&refused), ["DECKY_NAME_DUP"]);
    assert_eq!(refused["revision"], Value::Null);
    assert_eq!(live.document().await, before);
    assert_eq!(live.world.status_of("maze").await, "active");
    for id in [&first, &second] {
        let path = format!("/api/v1/mutations/{id}/cancel");
        live.world
            .post(&path, json!({}))
            .await
            .problem(409, "not_pending");
        let path = format!("/api/v1/mutations/{id}/revert");
        live.world
            .post(&path, json!({}))
            .await
            .problem(409, "nothing_done");
    }
}

#[tokio::test]
async fn a_lan_may_come_before_its_gateway_and_a_batch_is_whole() {
    let mut live = Live::new().await;
    let lan = json!({ "op": "add_lan", "name": "vault" });
    let warned = live.edit(json!([lan])).await.expect(202);
    assert_eq!(codes(&warned), ["DMZ_ORPHAN"]);
    assert_eq!(warned["findings"][0]["severity"], "warning");
    live.turn().await;
    // The subnet was chosen: the first that nobody has.
    assert_eq!(live.document().await["lans"][2]["subnet"], "172.20.0.0/24");
    let refused = live
        .edit(json!([{ "op": "add_lan", "name": "cellar" },
                     { "op": "update_lan", "lan": "vault", "patch": { "name": "safe" } }]))
        .await;
    let problem = refused.problem(422, "invalid_topology");
    assert!(codes(&problem).contains(&"DMZ_ORPHAN"), "{problem}");
    let whole = live
        .edit(
            json!([{ "op": "attach_decky", "decky": "db", "lan": "vault", "forwards_l3": true },
                     { "op": "add_lan", "name": "cellar" },
                     { "op": "attach_decky", "decky": "db", "lan": "cellar" }]),
        )
        .await
        .expect(202);
    assert_eq!(whole["mutation"]["op"], "batch");
    // What is only queued is taken too.
    let next = live.world.get("/api/v1/topologies/maze/next-subnet").await;
    assert_eq!(next.expect(200)["subnet"], "172.20.2.0/24");
}

#[tokio::test]
async fn mutations_are_listed_newest_first_page_by_page() {
    let mut live = Live::new().await;
    for kind in ["ftp", "http", "ssh"] {
        live.queue(services("db", &["redis", kind])).await;
    }
    live.turn().await;
    live.queue(services("db", &["redis"])).await;
    let list = async |query: &str| {
        let path = format!("/api/v1/topologies/maze/mutations{query}");
        live.world.get(&path).await
    };
    let sequences = |page: &Value| -> Vec<u64> {
        let items = page["items"].as_array().expect("a list").iter();
        items.filter_map(|row| row["sequence"].as_u64()).collect()
    };
    let first = list("?limit=3").await.expect(200);
    assert_eq!(
        (sequences(&first), &first["total"]),
        (vec![4, 3, 2], &json!(4))
    );
    let rest = list(&format!("?limit=3&cursor={}", text(&first["next"]))).await;
    let rest = rest.expect(200);
    assert_eq!((sequences(&rest), &rest["next"]), (vec![1], &Value::Null));
    let pending = list("?state=pending").await.expect(200);
    assert_eq!(
        (sequences(&pending), &pending["total"]),
        (vec![4], &json!(1))
    );
    list("?state=gone").await.problem(422, "malformed");
    list("?limit=0").await.problem(422, "malformed");
    live.world
        .get("/api/v1/mutations/00000000-0000-7000-8000-000000000000")
        .await
        .problem(404, "unknown");
}

#[tokio::test]
async fn what_a_host_cannot_do_fails_keeps_its_rows_and_is_undone() {
    let mut live = Live::new().await;
    let id = live.queue(services("db", &["redis", "ftp"])).await;
    live.turn().await;
    live.fail().await;
    let failed = live.mutation(&id).await;
    assert_eq!(failed["state"], "failed");
    assert!(
        text(&failed["reason"]).contains("port 2222 is taken"),
        "{failed}"
    );
    assert_eq!(failed["revision"], 2);
    assert_eq!(live.world.status_of("maze").await, "degraded");
    let path = format!("/api/v1/mutations/{id}/revert");
    let undo = live.world.post(&path, json!({})).await.expect(202);
    assert_eq!(
        undo["words"],
        "~ decky db\n    services: ftp, redis -> redis\n"
    );
    live.turn().await;
    live.arrive().await;
    assert_eq!(live.state(&id_of(&undo["mutation"])).await, "applied");
    assert_eq!(live.world.status_of("maze").await, "active");
    // Nothing else was ever served, so nothing else is told.
    let mut names: Vec<_> = live.told().await.into_iter().map(|told| told.0).collect();
    names.sort();
    assert_eq!(names, ["db", "gate"]);
    // Undone twice is undone once.
    let again = live.world.post(&path, json!({})).await.expect(200);
    assert_eq!(again["outcome"], "unchanged");
}

#[tokio::test]
async fn a_file_is_planned_in_words_and_applied_as_one() {
    let mut live = Live::new().await;
    let path = "/api/v1/topologies/maze/apply";
    let same = json!({ "topology": live.document().await });
    let unchanged = live.world.post(path, same).await.expect(200);
    assert_eq!(unchanged["outcome"], "unchanged");
    let mut file = live.document().await;
    file["deckies"][1]["services"] = json!(["redis", "ftp"]);
    file["deckies"][1]["service_config"] = json!({});
    file["deckies"]
        .as_array_mut()
        .expect("a list")
        .push(json!({ "name": "files", "services": ["ftp"], "edges": [{ "lan": "inner" }] }));
    let plan = json!({ "topology": file, "dry_run": true });
    let planned = live.world.post(path, plan).await.expect(200);
    assert_eq!(planned["outcome"], "planned");
    let words = text(&planned["words"]);
    assert!(
        words.contains("+ decky files") && words.contains("~ decky db"),
        "{words}"
    );
    assert_eq!(planned["changes"][0]["action"], "add");
    let rows = live.world.get("/api/v1/topologies/maze/mutations").await;
    assert_eq!(rows.expect(200)["total"], 0);

    let body = json!({ "topology": file, "expected_revision": 1 });
    let applied = live.world.post(path, body).await.expect(202);
    live.turn().await;
    live.arrive().await;
    assert_eq!(live.state(&id_of(&applied["mutation"])).await, "applied");
    let again = json!({ "topology": file });
    let again = live.world.post(path, again).await.expect(200);
    assert_eq!(again["outcome"], "unchanged", "{again}");
    let mut named = file.clone();
    named["name"] = json!("other");
    let refused = live.world.post(path, json!({ "topology": named })).await;
    assert_eq!(
        codes(&refused.problem(422, "invalid_topology")),
        ["CHANGE_REFUSED"]
    );
}

#[tokio::test]
async fn a_claim_of_a_worker_that_died_is_taken_over_and_what_it_held_is_done_once() {
    let mut live = Live::new().await;
    let id = live.queue(services("db", &["redis", "ftp"])).await;
    let dead = crate::db::queue::WorkerId::new(uuid_v7(live.world.now()));
    let until = live.world.now() + time::Duration::seconds(5);
    let claim = live
        .world
        .store
        .claim_mutation(dead, until, live.world.now())
        .await;
    assert!(claim.expect("answered").is_some());
    let next = live.mutator.turn().await.expect("the database answers");
    assert_eq!(
        (next, live.state(&id).await.as_str()),
        (Some(until), "pending")
    );
    live.world.pass(5);
    let mut other = another_worker(&live.world);
    let (one, two) = tokio::join!(live.mutator.turn(), other.turn());
    assert!(one.is_ok() && two.is_ok());
    let row = live.mutation(&id).await;
    assert_eq!(
        (&row["state"], &row["revision"]),
        (&json!("applying"), &json!(2))
    );
}

#[tokio::test]
async fn each_change_of_services_is_told_once_whoever_reconciles() {
    let mut live = Live::new().await;
    let mut told = live.told().await;
    // What arrives together comes in the order of ids, which are chance.
    told.sort_by_key(|told| told.0.clone());
    let creation = |name: &str, kind: &str| {
        let actor = json!("operator:admin");
        (
            name.to_owned(),
            json!([]),
            json!([kind]),
            "creation".to_owned(),
            actor,
        )
    };
    assert_eq!(told, [creation("db", "redis"), creation("gate", "ssh")]);
    let mut sizes = vec![told.len()];
    for kinds in [&["ftp"][..], &["redis", "ftp"], &["redis"]] {
        live.queue(services("db", kinds)).await;
        live.turn().await;
        live.reconcile().await;
        sizes.push(live.told().await.len());
        live.arrive().await;
        // Another master, which has seen nothing of it, has nothing to add.
        live.reconciler = another_reconciler(&live.world);
        live.arrive().await;
    }
    assert_eq!(
        sizes,
        [2, 2, 3, 4],
        "nothing is told before the host has reported"
    );
    // Two changes that arrive together are one, and one that comes to nothing is none.
    live.queue(services("db", &["ftp"])).await;
    live.queue(services("db", &["redis"])).await;
    live.queue(services("gate", &["ssh", "http"])).await;
    live.turn().await;
    live.arrive().await;
    let told = live.told().await;
    assert_eq!(told.len(), 6, "{told:#?}");
    assert_eq!(told[5].0, "gate");

    live.world
        .post("/api/v1/topologies/maze/teardown", json!({}))
        .await
        .expect(202);
    live.reconcile().await;
    assert_eq!(live.told().await.len(), 6);
    let row = live.world.store.host(live.host).await.expect("answered");
    let fence = row.expect("it is there").assignment.fence;
    live.report(HostReport {
        fence,
        ..empty_report()
    })
    .await;
    assert_eq!(live.world.status_of("maze").await, "torn_down");
    let told = live.told().await;
    let mut ends: Vec<_> = told[6..]
        .iter()
        .map(|told| (told.0.as_str(), told.3.as_str()))
        .collect();
    ends.sort_unstable();
    assert_eq!(ends, [("db", "retirement"), ("gate", "retirement")]);
    let mut last: std::collections::HashMap<&str, &Value> = std::collections::HashMap::new();
    for (name, old, new, ..) in &told {
        assert_eq!(old, last.get(name.as_str()).copied().unwrap_or(&json!([])));
        assert_ne!(old, new);
        last.insert(name, new);
    }
}

#[tokio::test]
async fn what_a_host_held_is_told_also_when_more_was_queued_meanwhile() {
    let mut live = Live::new().await;
    let before = live.told().await.len();
    let told = async |live: &Live| {
        let told = live.told().await;
        let sets = told[before..].iter();
        sets.map(|(name, old, new, trigger, _)| {
            (name.clone(), old.clone(), new.clone(), trigger.clone())
        })
        .collect::<Vec<_>>()
    };
    let change = |name: &str, old: &[&str], new: &[&str], trigger: &str| {
        (name.to_owned(), json!(old), json!(new), trigger.to_owned())
    };
    live.queue(services("db", &["ftp"])).await;
    live.turn().await;
    let held = live.assignment().await;
    // It comes to nothing for the one, which is of no use to whoever has met the ftp server.
    live.queue(services("db", &["redis"])).await;
    live.queue(json!([
        { "op": "add_lan", "name": "vault" },
        { "op": "attach_decky", "decky": "db", "lan": "vault", "forwards_l3": true },
        { "op": "add_decky", "name": "web", "services": ["http"], "edges": [{ "lan": "vault" }] },
    ]))
    .await;
    live.queue(json!([{ "op": "remove_decky", "decky": "web" }]))
        .await;
    live.turn().await;
    let mut expected = vec![change("db", &["redis"], &["ftp"], "operator")];
    for _ in 0..2 {
        live.hold(held).await;
        assert_eq!(told(&live).await, expected);
    }
    // A master that was started since knows as much.
    live.reconciler = another_reconciler(&live.world);
    live.hold(held).await;
    assert_eq!(told(&live).await, expected);

    live.arrive().await;
    expected.push(change("db", &["ftp"], &["redis"], "operator"));
    assert_eq!(told(&live).await, expected, "nobody has ever seen web");
    // What the host would have been told under that fence is no news, nor what nobody knows.
    live.queue(services("db", &["ftp"])).await;
    live.turn().await;
    live.hold(held).await;
    let current = live.assignment().await;
    live.hold(domain::assign::Assignment {
        fence: domain::revision::Fence {
            generation: current.fence.generation,
            ..held.fence
        },
        ..held
    })
    .await;
    assert_eq!(told(&live).await, expected);
}

#[tokio::test]
async fn a_decky_with_an_interval_mutates_when_it_is_due_and_never_twice_at_once() {
    let mut file = file("maze");
    file["deckies"][1]["mutate_every"] = json!("30m");
    file["deckies"][1]["archetype"] = json!("web-server");
    let mut live = Live::of(file).await;
    let start = live.world.now();
    let due = start + time::Duration::minutes(30);
    assert_eq!(live.mutator.turn().await.expect("answered"), Some(due));
    live.world.pass(30 * 60);
    // Whoever wakes it, it is queued once; while it is on its way, it is not queued again.
    live.turn().await;
    live.turn().await;
    let mut other = another_worker(&live.world);
    other.turn().await.expect("answered");
    let page = live.world.get("/api/v1/topologies/maze/mutations").await;
    let page = page.expect(200);
    assert_eq!(page["total"], 1, "{page}");
    assert_eq!(page["items"][0]["cause"], "scheduled");
    live.world.pass(31 * 60);
    live.turn().await;
    let page = live.world.get("/api/v1/topologies/maze/mutations").await;
    assert_eq!(page.expect(200)["total"], 1, "the host is away");
    live.arrive().await;
    let told = live.told().await;
    assert_eq!(told.len(), 3);
    assert_eq!(
        (told[2].3.as_str(), &told[2].4),
        ("scheduled", &Value::Null)
    );
    assert_ne!(told[2].1, told[2].2);
    let last = live.world.now();
    let mut sets = vec![told[2].2.clone()];
    for _ in 0..4 {
        live.world.pass(30 * 60);
        live.turn().await;
        live.arrive().await;
        let told = live.told().await;
        sets.push(told.last().expect("it was told").2.clone());
    }
    assert!(sets.windows(2).all(|pair| pair[0] != pair[1]), "{sets:?}");
    assert_eq!(live.world.now(), last + time::Duration::hours(2));
}

#[tokio::test]
async fn deckies_that_are_due_together_mutate_together() {
    let mut file = file("maze");
    for decky in file["deckies"].as_array_mut().expect("deckies") {
        decky["mutate_every"] = json!("30m");
        decky["archetype"] = json!("web-server");
    }
    let mut live = Live::of(file).await;
    live.world.pass(30 * 60);
    live.turn().await;
    live.turn().await;
    let page = live.world.get("/api/v1/topologies/maze/mutations").await;
    let page = page.expect(200);
    assert_eq!(page["total"], 1, "{page}");
    let before = live.told().await;
    live.arrive().await;
    let told = live.told().await;
    let causes: Vec<_> = told[before.len()..]
        .iter()
        .map(|told| told.3.as_str())
        .collect();
    assert_eq!(causes, ["scheduled", "scheduled"]);
}

#[tokio::test]
async fn a_decky_is_mutated_on_demand_by_its_archetype() {
    let mut file = file("maze");
    file["deckies"][1]["archetype"] = json!("deaddeck");
    file["deckies"][1]["services"] = json!(["ssh"]);
    let mut live = Live::of(file).await;
    // Its archetype leaves it nothing else.
    let path = "/api/v1/topologies/maze/deckies/db/mutate";
    let refused = live.world.post(path, json!({})).await;
    assert_eq!(
        codes(&refused.problem(422, "invalid_topology")),
        ["CHANGE_REFUSED"]
    );
    let path = "/api/v1/topologies/maze/deckies/nobody/mutate";
    live.world
        .post(path, json!({}))
        .await
        .problem(404, "unknown");
    let all = live
        .world
        .post("/api/v1/topologies/maze/mutate", json!({}))
        .await;
    let all = all.expect(202);
    assert_eq!(all["changes"].as_array().map(Vec::len), Some(1), "{all}");
    live.turn().await;
    live.arrive().await;
    let told = live.told().await;
    let (name, _, new, trigger, actor) = told.last().expect("it was told");
    assert_eq!((name.as_str(), trigger.as_str()), ("gate", "operator"));
    assert_eq!(actor, "operator:admin");
    // The port that the outside knows stays.
    assert!(
        new.as_array().expect("a list").contains(&json!("ssh")),
        "{new}"
    );
}

#[tokio::test]
async fn a_layout_is_drawn_by_name_or_id_and_edits_nothing() {
    let world = World::new().await;
    world.topology("maze").await;
    let path = "/api/v1/topologies/maze/layout";
    let drawn = json!({
        "lans": [{ "lan": "dmz", "x": -40, "y": 20, "width": 300, "height": 200 }],
        "deckies": [{ "decky": "GATE", "x": 20, "y": 60 }],
    });
    let layout = world.with_body(Method::PUT, path, drawn).await.expect(200);
    assert_eq!(layout["lans"][0]["x"], -40);
    assert_eq!(world.get(path).await.expect(200), layout);
    let decky = text(&layout["deckies"][0]["decky"]);
    let moved = json!({ "deckies": [{ "decky": decky, "x": 1, "y": 2 }] });
    let layout = world.with_body(Method::PUT, path, moved).await.expect(200);
    assert_eq!(
        (&layout["deckies"][0]["x"], &layout["lans"][0]["width"]),
        (&json!(1), &json!(300))
    );
    let state = world.get("/api/v1/topologies/maze").await.expect(200);
    assert_eq!(state["topology"]["revision"], 1);
    let unknown = json!({ "lans": [{ "lan": "no", "x": 1, "y": 2, "width": 3, "height": 4 }] });
    let answer = world.with_body(Method::PUT, path, unknown).await;
    answer.problem(404, "unknown");

    let next = world
        .get("/api/v1/topologies/maze/lans/inner/next-address")
        .await;
    let next = next.expect(200);
    assert_eq!(next["address"], "172.30.1.4", "{next}");
    let base = "/api/v1/topologies/maze/next-subnet?base=172.30.0.0/23";
    assert_eq!(
        world.get(base).await.problem(409, "exhausted")["current"],
        "172.30.0.0/23"
    );
    let base = "/api/v1/topologies/maze/next-subnet?base=17";
    world.get(base).await.problem(422, "malformed");
}

#[tokio::test]
async fn of_editors_that_race_nobody_loses_an_update() {
    let mut file = file("maze");
    let deckies = (0..6).map(|number| {
        json!({ "name": format!("d{number}"), "services": ["ssh"], "edges": [{ "lan": "inner" }] })
    });
    file["deckies"]
        .as_array_mut()
        .expect("a list")
        .extend(deckies);
    for is_live in [false, true] {
        let mut live = if is_live {
            Live::of(file.clone()).await
        } else {
            let world = World::new().await;
            let (host, session) = world.ready_host("local").await;
            let body = json!({ "topology": file });
            world.post("/api/v1/topologies", body).await.expect(201);
            Live {
                mutator: another_worker(&world),
                reconciler: another_reconciler(&world),
                world,
                host,
                _session: session,
            }
        };
        let edit = |number: usize| {
            let live = &live;
            async move {
                for round in 0..4 {
                    let name = json!(format!("srv-{number}-{round}"));
                    let ops = json!([{ "op": "update_decky", "decky": format!("d{number}"),
                                       "patch": { "hostname": name } }]);
                    let status = live.edit(ops).await.status.as_u16();
                    assert_eq!(status, if is_live { 202 } else { 200 });
                }
            }
        };
        futures_util::future::join_all((0..6).map(edit)).await;
        live.turn().await;
        let document = live.document().await;
        for number in 0..6 {
            let hostname = &document["deckies"][2 + number]["hostname"];
            assert_eq!(*hostname, json!(format!("srv-{number}-3")));
        }
        let state = live.world.get("/api/v1/topologies/maze").await.expect(200);
        assert_eq!(state["topology"]["revision"], 25);
    }
}

//! Live edits: a topology is changed under the eyes of its attackers, and what a change does not
//! concern is not touched by it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use proto::rest::EventShape;
use proto::rest::mutation::{EditAnswer, EditOutcome, MutationShape};
use proto::topology_file::TopologyFile;
use serde_json::{Value, json};
use tests::cli;
use tests::converse::Conversation;
use tests::engine::Engine;
use tests::patience::{Look, eventually};
use tests::shapes;
use tests::slot::Slot;
use tests::world::{LONG, SOON, World};

const HOST: &str = "edge-1";
const NAME: &str = "maze";

tests::on_each_engine! {
    each_of_the_eight_operations_touches_only_what_it_must,
    a_reload_keeps_the_sessions_of_other_services,
    a_refused_edit_leaves_everything_as_it_was,
    a_mutation_is_undone_and_nothing_else_is,
    the_master_may_die_at_every_step_of_a_mutation,
    a_host_that_is_away_is_changed_when_it_returns,
    a_teardown_cancels_what_is_on_its_way,
    each_change_of_services_is_told_once_in_an_unbroken_chain,
    what_the_engine_cannot_do_fails_and_is_repaired_by_a_revert,
}

fn edit(world: &World, ops: Value) -> Result<EditAnswer> {
    let path = format!("/api/v1/topologies/{NAME}/mutations");
    world.api()?.post(&path, &json!({ "ops": ops }))
}

/// Queues an edit of a live topology.
fn queue(world: &World, ops: Value) -> Result<MutationShape> {
    let answer = edit(world, ops)?;
    ensure!(answer.outcome == EditOutcome::Queued, "{answer:?}");
    answer.mutation.context("what is queued is a mutation")
}

fn mutation(world: &World, id: &str) -> Result<MutationShape> {
    world.api()?.get(&format!("/api/v1/mutations/{id}"))
}

fn await_state(world: &World, id: &str, state: &str) -> Result<MutationShape> {
    eventually(&format!("the mutation {state}"), LONG, || {
        let now = mutation(world, id)?;
        if ["failed", "cancelled"].contains(&now.state.as_str()) && now.state != state {
            bail!("the mutation is {now:?}");
        }
        Ok(if now.state == state {
            Look::Seen(now)
        } else {
            Look::NotYet(format!("{now:?}"))
        })
    })
}

/// Edits a live topology and waits until its host has made it so.
fn apply(world: &World, ops: Value) -> Result<MutationShape> {
    let queued = queue(world, ops)?;
    let applied = await_state(world, &queued.id, "applied")?;
    world.await_converged(NAME, LONG)?;
    Ok(applied)
}

/// The id of every running container, by decky.
fn ids(world: &World) -> Result<BTreeMap<String, String>> {
    let containers = world.containers(HOST)?;
    Ok(containers
        .iter()
        .filter(|container| container.running)
        .map(|container| (container.decky().to_owned(), container.id.clone()))
        .collect())
}

/// A DMZ and an inner LAN; `witness` serves redis and http in the DMZ.
fn maze(slot: &Slot) -> TopologyFile {
    let mut file = shapes::small(slot, NAME);
    file.deckies
        .push(shapes::decky(slot, "witness", 40, &[0], &["redis", "http"]));
    file
}

/// A session with the redis of `witness`, kept open by somebody who owns `gate`.
struct Session(Conversation);

impl Session {
    fn open(world: &World) -> Result<Self> {
        let pid = world.container(HOST, &world.slot.address(0, 10))?.pid;
        let target = world.slot.address(0, 40);
        let pid = pid.to_string();
        let from = ["--net", "--target", &pid, "nc"];
        eventually("the witness answers", SOON, || {
            let look = [&from[..], &["-z", "-w", "2", &target, "6379"]].concat();
            Ok(match cli::system("nsenter", &look, "")?.code {
                Some(0) => Look::Seen(()),
                code => Look::NotYet(format!("{code:?}")),
            })
        })?;
        let client = [&from[..], &[&target, "6379"]].concat();
        let mut session = Self(Conversation::start("nsenter", &client)?);
        session.lives("after it was opened")?;
        Ok(session)
    }

    fn lives(&mut self, when: &str) -> Result<()> {
        self.0.say("PING")?;
        self.0
            .expect("PONG")
            .with_context(|| format!("the session ended {when}"))
    }
}

fn each_of_the_eight_operations_touches_only_what_it_must(engine: Engine) -> Result<()> {
    let world = World::with_host_on(engine, HOST)?;
    world.deploy(&maze(&world.slot), HOST)?;
    let mut session = Session::open(&world)?;
    let slot = &world.slot;
    let inner = slot.subnet(2);
    // What is done, and which deckies may be other containers afterwards.
    let steps: Vec<(Value, &[&str])> = vec![
        (
            json!([{ "op": "add_lan", "name": "lan-2", "subnet": inner }]),
            &[],
        ),
        (
            json!([{ "op": "add_decky", "name": "vault", "services": ["ftp"], "edges": [
                { "lan": "lan-2", "address": slot.address(2, 50) } ] }]),
            &["vault"],
        ),
        (
            json!([{ "op": "attach_decky", "decky": "cache", "lan": "lan-2",
                     "address": slot.address(2, 30), "forwards_l3": true }]),
            &[],
        ),
        // To this one a route leads already, over the gateway.
        (
            json!([{ "op": "attach_decky", "decky": "witness", "lan": "lan-1",
                     "address": slot.address(1, 40) }]),
            &[],
        ),
        (
            json!([{ "op": "detach_decky", "decky": "witness", "lan": "lan-1" }]),
            &[],
        ),
        (
            json!([{ "op": "update_decky", "decky": "cache",
                     "patch": { "services": ["redis", "ftp"] } }]),
            &[],
        ),
        (
            json!([{ "op": "update_lan", "lan": "lan-2", "patch": { "name": "vaults" } }]),
            &[],
        ),
        (
            json!([{ "op": "update_decky", "decky": "vault", "patch": { "persona": "bsd" } }]),
            &["vault"],
        ),
        (
            json!([{ "op": "detach_decky", "decky": "cache", "lan": "vaults" }]),
            &[],
        ),
        (
            json!([{ "op": "remove_decky", "decky": "vault" }]),
            &["vault"],
        ),
        (json!([{ "op": "remove_lan", "lan": "vaults" }]), &[]),
    ];
    let mut before = ids(&world)?;
    let mut vault: Option<String> = None;
    let mut revision = 1;
    for (ops, others) in steps {
        let done = apply(&world, ops.clone()).with_context(|| format!("{ops}"))?;
        revision += 1;
        ensure!(done.revision == Some(revision), "{done:?}");
        ensure!(!done.words.is_empty(), "{done:?}");
        let after = ids(&world)?;
        let touched: Vec<_> = before
            .iter()
            .filter(|(decky, id)| after.get(*decky) != Some(id))
            .collect();
        ensure!(
            touched
                .iter()
                .all(|(decky, _)| vault.as_ref() == Some(decky))
                && touched.len() <= others.len(),
            "{ops} has touched {touched:?}: {before:?} {after:?}"
        );
        vault = world
            .container(HOST, &slot.address(2, 50))
            .ok()
            .map(|container| container.decky().to_owned());
        session.lives(&format!("by {ops}"))?;
        before = after;
    }
    world.assert_holds(HOST, 4, 2)?;
    ensure!(
        world.status_path(NAME)? == ["pending>deploying", "deploying>active"],
        "a change is no fault: {:?}",
        world.status_path(NAME)?
    );
    // A LAN and its gateway, a decky and its edges: one call, one revision, checked whole.
    let done = apply(
        &world,
        json!([
            { "op": "add_lan", "name": "lan-3", "subnet": slot.subnet(3) },
            { "op": "attach_decky", "decky": "cache", "lan": "lan-3", "forwards_l3": true },
            { "op": "add_decky", "name": "store", "services": ["redis"],
              "edges": [{ "lan": "lan-3" }] },
        ]),
    )?;
    ensure!(done.op == "batch" && done.revision == Some(revision + 1));
    world.assert_holds(HOST, 5, 3)?;
    session.lives("by a batch")?;
    world.teardown(NAME)?;
    world.assert_empty(HOST)?;
    world.done()
}

fn a_reload_keeps_the_sessions_of_other_services(engine: Engine) -> Result<()> {
    let world = World::with_host_on(engine, HOST)?;
    world.deploy(&maze(&world.slot), HOST)?;
    let mut session = Session::open(&world)?;
    let before = world.container(HOST, &world.slot.address(0, 40))?;
    for services in [
        json!(["redis", "ftp"]),
        json!(["redis"]),
        json!(["redis", "http", "ftp"]),
    ] {
        apply(
            &world,
            json!([{ "op": "update_decky", "decky": "witness", "patch": { "services": services } }]),
        )?;
        session.lives(&format!("when {services} were to be served"))?;
        let after = world.container(HOST, &world.slot.address(0, 40))?;
        ensure!((&after.id, after.pid) == (&before.id, before.pid));
    }
    world.done()
}

fn a_refused_edit_leaves_everything_as_it_was(engine: Engine) -> Result<()> {
    let world = World::with_host_on(engine, HOST)?;
    world.deploy(&maze(&world.slot), HOST)?;
    let document = |world: &World| -> Result<Value> {
        world
            .api()?
            .get(&format!("/api/v1/topologies/{NAME}/document"))
    };
    let (rows, objects) = (document(&world)?, ids(&world)?);
    let path = format!("/api/v1/topologies/{NAME}/mutations");
    let api = world.api()?;
    for (ops, code) in [
        (
            json!([{ "op": "remove_decky", "decky": "nobody" }]),
            "REFERENCE_UNKNOWN",
        ),
        (json!([{ "op": "remove_lan", "lan": "lan-1" }]), "HOME_LAN"),
        (
            json!([{ "op": "update_lan", "lan": "dmz", "patch": { "subnet": "10.9.9.0/24" } }]),
            "CHANGE_REFUSED",
        ),
        (
            json!([{ "op": "update_decky", "decky": "web", "patch": { "services": ["htp"] } }]),
            "UNKNOWN_SERVICE",
        ),
        // Whole or not at all.
        (
            json!([{ "op": "add_lan", "name": "lan-2" },
                   { "op": "add_lan", "name": "LAN-2" }]),
            "LAN_NAME_DUP",
        ),
    ] {
        let answer = api.request(
            "POST",
            &path,
            Some(api.token()),
            Some(&json!({ "ops": ops })),
        )?;
        ensure!(answer.status == 422, "{ops}: {answer:?}");
        ensure!(answer.body.contains(code), "{ops}: {answer:?}");
    }
    let stale =
        json!({ "expected_revision": 7, "ops": [{ "op": "remove_decky", "decky": "web" }] });
    let answer = api.request("POST", &path, Some(api.token()), Some(&stale))?;
    let problem: Value = answer.json()?;
    ensure!(
        answer.status == 409 && problem["current"] == "1",
        "{answer:?}"
    );
    ensure!(document(&world)? == rows && ids(&world)? == objects);
    ensure!(world.inspect(NAME)?.topology.status == "active");
    ensure!(world.status_path(NAME)?.len() == 2);
    world.done()
}

fn a_mutation_is_undone_and_nothing_else_is(engine: Engine) -> Result<()> {
    let world = World::with_host_on(engine, HOST)?;
    world.deploy(&maze(&world.slot), HOST)?;
    let before: Value = world
        .api()?
        .get(&format!("/api/v1/topologies/{NAME}/document"))?;
    let first = apply(&world, json!([{ "op": "remove_decky", "decky": "web" }]))?;
    world.assert_holds(HOST, 3, 2)?;
    apply(
        &world,
        json!([{ "op": "update_decky", "decky": "cache", "patch": { "services": ["redis", "ftp"] } }]),
    )?;
    let path = format!("/api/v1/mutations/{}/revert", first.id);
    let undo: EditAnswer = world.api()?.post(&path, &json!({}))?;
    let undo = undo.mutation.context("it is queued")?;
    await_state(&world, &undo.id, "applied")?;
    world.await_converged(NAME, LONG)?;
    world.assert_holds(HOST, 4, 2)?;
    let after: Value = world
        .api()?
        .get(&format!("/api/v1/topologies/{NAME}/document"))?;
    let decky = |document: &Value, name: &str| {
        let deckies = document["deckies"].as_array().cloned().unwrap_or_default();
        deckies.into_iter().find(|decky| decky["name"] == name)
    };
    ensure!(decky(&before, "web") == decky(&after, "web"), "{after:#}");
    ensure!(decky(&before, "cache") != decky(&after, "cache"));
    world.done()
}

fn the_master_may_die_at_every_step_of_a_mutation(engine: Engine) -> Result<()> {
    let mut world = World::with_host_on(engine, HOST)?;
    world.deploy(&maze(&world.slot), HOST)?;
    let before = ids(&world)?;
    let mut services = [json!(["redis", "ftp"]), json!(["redis"])]
        .into_iter()
        .cycle();
    let mut revision = 1;
    for point in master::crash::POINTS
        .iter()
        .copied()
        .filter(|point| point.starts_with("mutation.") || *point == "substrate.told")
    {
        world.stop_master()?;
        world.spawn_master(&["--crash-at", point])?;
        let services = services.next().context("there is always another")?;
        // A point may be reached by what the new master hears before anything is asked of it.
        if world.await_master().is_ok() {
            // The answer may be lost with the master.
            edit(
                &world,
                json!([{ "op": "update_decky", "decky": "cache", "patch": { "services": services } }]),
            )
            .ok();
        }
        world
            .await_master_crash(LONG)
            .with_context(|| format!("waiting for {point}"))?;
        world.start_master(&[])?;
        world.await_settled(HOST)?;
        if world.inspect(NAME)?.topology.revision == revision {
            // It was queued before the death, or has to be asked for.
            let path = format!("/api/v1/topologies/{NAME}/mutations?state=pending");
            let queued: Value = world.api()?.get(&path)?;
            let answer = edit(
                &world,
                json!([{ "op": "update_decky", "decky": "cache", "patch": { "services": services } }]),
            )?;
            ensure!(
                queued["total"] == 0 || answer.outcome == EditOutcome::Unchanged,
                "{point}: {answer:?}"
            );
        }
        revision += 1;
        eventually(
            &format!("every mutation applied after {point}"),
            LONG,
            || {
                let path = format!("/api/v1/topologies/{NAME}/mutations");
                let page: proto::rest::Page<MutationShape> = world.api()?.get(&path)?;
                let states: Vec<_> = page.items.iter().map(|row| row.state.clone()).collect();
                Ok(if states.iter().all(|state| state == "applied") {
                    Look::Seen(())
                } else {
                    Look::NotYet(format!("{states:?}"))
                })
            },
        )?;
        let state = world.await_converged(NAME, LONG)?;
        ensure!(state.topology.revision == revision, "{point}: {state:?}");
        ensure!(ids(&world)? == before, "{point}: a container was touched");
    }
    chain(&world, "cache")?;
    world.done()
}

fn a_host_that_is_away_is_changed_when_it_returns(engine: Engine) -> Result<()> {
    let mut world = World::with_host_on(engine, HOST)?;
    world.deploy(&maze(&world.slot), HOST)?;
    let before = ids(&world)?;
    world.stop_agent(HOST)?;
    let first = queue(
        &world,
        json!([{ "op": "update_decky", "decky": "cache", "patch": { "services": ["redis", "ftp"] } }]),
    )?;
    let second = queue(&world, json!([{ "op": "remove_decky", "decky": "web" }]))?;
    // That it is away delays what is applied, never the next commit.
    for id in [&first.id, &second.id] {
        await_state(&world, id, "applying")?;
    }
    let late = world.api()?.request(
        "POST",
        &format!("/api/v1/mutations/{}/cancel", second.id),
        Some(world.api()?.token()),
        None,
    )?;
    ensure!(late.status == 409, "{late:?}");
    world.start_agent(HOST, &[])?;
    for id in [&first.id, &second.id] {
        await_state(&world, id, "applied")?;
    }
    world.await_converged(NAME, LONG)?;
    world.assert_holds(HOST, 3, 2)?;
    let after = ids(&world)?;
    ensure!(
        after
            .iter()
            .all(|(decky, id)| before.get(decky) == Some(id))
    );
    world.done()
}

fn a_teardown_cancels_what_is_on_its_way(engine: Engine) -> Result<()> {
    let mut world = World::with_host_on(engine, HOST)?;
    world.deploy(&maze(&world.slot), HOST)?;
    world.stop_agent(HOST)?;
    let queued = queue(&world, json!([{ "op": "remove_decky", "decky": "web" }]))?;
    await_state(&world, &queued.id, "applying")?;
    world
        .decnet(&["topology", "teardown", NAME, "--no-wait"])?
        .ok()?;
    await_state(&world, &queued.id, "cancelled")?;
    let path = format!("/api/v1/topologies/{NAME}/mutations");
    let api = world.api()?;
    let body = json!({ "ops": [{ "op": "remove_decky", "decky": "cache" }] });
    let late = api.request("POST", &path, Some(api.token()), Some(&body))?;
    ensure!(late.status == 409, "{late:?}");
    world.start_agent(HOST, &[])?;
    world.await_status(NAME, "torn_down", LONG)?;
    world.assert_empty(HOST)?;
    world.done()
}

/// What was told of a decky, oldest first.
fn told(world: &World, decky: &str) -> Result<Vec<EventShape>> {
    let mut events = world.events(&["--kind", "mutation"])?;
    events.retain(|event| event.data["name"] == decky);
    events.reverse();
    Ok(events)
}

/// Fails unless each set that was told to be the old one is the new one before it.
fn chain(world: &World, decky: &str) -> Result<Vec<String>> {
    let mut before = json!([]);
    let mut triggers = Vec::new();
    for event in told(world, decky)? {
        ensure!(event.data["old"] == before, "{event:?} after {before}");
        ensure!(event.data["old"] != event.data["new"], "{event:?}");
        before = event.data["new"].clone();
        triggers.push(event.data["trigger"].as_str().unwrap_or("?").to_owned());
    }
    Ok(triggers)
}

fn each_change_of_services_is_told_once_in_an_unbroken_chain(engine: Engine) -> Result<()> {
    let world = World::with_host_on(engine, HOST)?;
    let mut file = maze(&world.slot);
    for decky in &mut file.deckies {
        if decky.name == "web" {
            decky.archetype = Some("web-server".to_owned());
        }
    }
    world.deploy(&file, HOST)?;
    let await_told = |decky: &str, triggers: &[&str]| {
        eventually(&format!("{triggers:?} told of {decky}"), SOON, || {
            let seen = chain(&world, decky)?;
            Ok(if seen == triggers {
                Look::Seen(())
            } else {
                Look::NotYet(format!("{seen:?}"))
            })
        })
    };
    await_told("web", &["creation"])?;
    // Two ways to the same: services by name, and whatever comes next.
    apply(
        &world,
        json!([{ "op": "update_decky", "decky": "web", "patch": { "services": ["ftp"] } }]),
    )?;
    await_told("web", &["creation", "operator"])?;
    let path = format!("/api/v1/topologies/{NAME}/deckies/web/mutate");
    let next: EditAnswer = world.api()?.post(&path, &json!({}))?;
    let next = next.mutation.context("it is queued")?;
    await_state(&world, &next.id, "applied")?;
    await_told("web", &["creation", "operator", "operator"])?;
    // What changes no services, and what is repaired, has nothing to tell.
    apply(
        &world,
        json!([{ "op": "update_decky", "decky": "web", "patch": { "hostname": "www" } }]),
    )?;
    world.remove_container(HOST, &world.container(HOST, &world.slot.address(0, 20))?)?;
    // By what was written: it may be repaired before anybody looks.
    eventually("degraded and active again", SOON, || {
        let path = world.status_path(NAME)?;
        Ok(
            if path.ends_with(&["active>degraded".to_owned(), "degraded>active".to_owned()]) {
                Look::Seen(())
            } else {
                Look::NotYet(format!("{path:?}"))
            },
        )
    })?;
    world.await_converged(NAME, LONG)?;
    apply(&world, json!([{ "op": "remove_decky", "decky": "web" }]))?;
    await_told("web", &["creation", "operator", "operator", "retirement"])?;
    let actors: Vec<_> = told(&world, "web")?
        .iter()
        .map(|event| event.data["actor"].clone())
        .collect();
    ensure!(
        actors
            .iter()
            .all(|actor| actor == "operator:admin@127.0.0.1"),
        "{actors:?}"
    );
    await_told("cache", &["creation"])?;
    world.teardown(NAME)?;
    await_told("cache", &["creation", "retirement"])?;
    await_told("web", &["creation", "operator", "operator", "retirement"])?;
    world.done()
}

fn what_the_engine_cannot_do_fails_and_is_repaired_by_a_revert(engine: Engine) -> Result<()> {
    let world = World::with_host_on(engine, HOST)?;
    world.deploy(&maze(&world.slot), HOST)?;
    let before = ids(&world)?;
    let subnet = world.slot.subnet(9);
    let occupied = engine.occupy(&format!("dnx{}", world.slot.number()), &subnet)?;
    let queued = queue(
        &world,
        json!([{ "op": "add_lan", "name": "lan-9", "subnet": subnet },
               { "op": "attach_decky", "decky": "cache", "lan": "lan-9" }]),
    )?;
    let failed = await_state(&world, &queued.id, "failed")?;
    ensure!(failed.reason.contains("subnet_in_use"), "{failed:?}");
    ensure!(failed.revision == Some(2), "its rows stay: {failed:?}");
    world.await_status(NAME, "degraded", LONG)?;
    ensure!(ids(&world)? == before);
    let path = format!("/api/v1/mutations/{}/revert", failed.id);
    let undo: EditAnswer = world.api()?.post(&path, &json!({}))?;
    let undo = undo.mutation.context("it is queued")?;
    await_state(&world, &undo.id, "applied")?;
    world.await_converged(NAME, LONG)?;
    ensure!(ids(&world)? == before);
    occupied.stands()?;
    world.done()
}

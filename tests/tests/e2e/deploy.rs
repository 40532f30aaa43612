//! Deploying and tearing down: what is active is what was hashed, and what is torn down is gone.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::cli::system;
use tests::docker::Container;
use tests::engine::Engine;
use tests::patience::throughout;
use tests::shapes;
use tests::world::{LONG, SOON, World};

/// The version hash as anybody can compute it. The keys of the document are ASCII and its numbers
/// small integers, for which this is the canonical form of RFC 8785.
const PYTHON: &str = "
import hashlib, json, sys
document = json.loads(sys.stdin.read())
canonical = json.dumps(document, sort_keys=True, separators=(',', ':'), ensure_ascii=False)
print(hashlib.sha256(canonical.encode()).hexdigest())
";

tests::on_each_engine! {
    a_deploy_ends_active_with_the_hash_that_another_program_computes,
    an_unreachable_host_leaves_it_tearing_down_and_cleans_up_when_it_returns,
    a_forced_teardown_settles_at_once_and_is_carried_out_when_the_host_returns,
    a_host_holds_one_topology_and_gives_way_only_when_told,
    two_agents_share_a_daemon_and_touch_only_their_own,
    a_decommissioned_host_is_emptied_and_its_name_is_free_again,
}

fn is_gone(world: &World, host: &str) -> Result<bool> {
    Ok(world.object_ids(host)?.is_empty())
}

fn is_hardened_by_docker(container: &Container) -> Result<()> {
    let host = &container.inspect["HostConfig"];
    ensure!(
        host["CapDrop"].to_string().contains("ALL"),
        "{} keeps capabilities",
        container.name
    );
    ensure!(
        host["ReadonlyRootfs"] == true,
        "{} can write",
        container.name
    );
    ensure!(
        host["SecurityOpt"]
            .to_string()
            .contains("no-new-privileges"),
        "{}",
        container.name
    );
    ensure!(
        host["RestartPolicy"]["Name"] == "no" || host["RestartPolicy"]["Name"] == "",
        "{}",
        container.name
    );
    ensure!(
        host["PidsLimit"].as_i64().is_some_and(|limit| limit > 0),
        "{}",
        container.name
    );
    ensure!(
        host["Memory"].as_i64().is_some_and(|limit| limit > 0),
        "{}",
        container.name
    );
    ensure!(host["Privileged"] == false, "{}", container.name);
    ensure!(
        container.inspect["Config"]["User"]
            .as_str()
            .is_some_and(|user| user.starts_with("65534")),
        "{}",
        container.name
    );
    Ok(())
}

fn is_hardened_by_the_runtime(container: &Container) -> Result<()> {
    let process = &container.inspect["process"];
    let none = |set: &str| process["capabilities"][set] == serde_json::json!([]);
    ensure!(
        [
            "bounding",
            "effective",
            "inheritable",
            "permitted",
            "ambient"
        ]
        .into_iter()
        .all(none),
        "{} keeps capabilities",
        container.name
    );
    ensure!(process["noNewPrivileges"] == true, "{}", container.name);
    ensure!(process["user"]["uid"] == 65534, "{}", container.name);
    let inspect = &container.inspect;
    ensure!(
        inspect["root"]["readonly"] == true,
        "{} can write",
        container.name
    );
    let resources = &inspect["linux"]["resources"];
    for limit in ["/pids/limit", "/memory/limit"] {
        ensure!(
            resources
                .pointer(limit)
                .and_then(Value::as_i64)
                .is_some_and(|limit| limit > 0),
            "{} has no {limit}",
            container.name
        );
    }
    Ok(())
}

fn a_deploy_ends_active_with_the_hash_that_another_program_computes(engine: Engine) -> Result<()> {
    let world = World::with_host_on(engine, "edge-1")?;
    let file = shapes::small(&world.slot, "maze");
    let state = world.deploy(&file, "edge-1")?;

    let export = world
        .decnet(&["topology", "export", "maze", "--hydrated"])?
        .ok()?
        .stdout;
    let computed = system("python3", &["-c", PYTHON], &export)?.ok()?.stdout;
    let computed = computed.trim();

    let desired = state
        .desired
        .context("an active topology has a desired state")?;
    let applied = state.applied.context("an active topology was applied")?;
    ensure!(
        desired.version_hash.as_deref() == Some(computed),
        "{desired:?} is not {computed}"
    );
    ensure!(
        applied.version_hash == computed,
        "{applied:?} is not {computed}"
    );
    ensure!(
        applied.generation == desired.generation,
        "{applied:?} {desired:?}"
    );
    let observed = state.observed.context("its host is connected")?;
    ensure!((observed.deckies, observed.lans) == (3, 2), "{observed:?}");
    ensure!(state.drift.is_empty(), "{:?}", state.drift);
    world.assert_holds("edge-1", 3, 2)?;
    let hash = world.decnet(&["topology", "hash", "maze"])?.ok()?.stdout;
    ensure!(hash.contains(computed), "`topology hash` prints {hash}");

    // What programs read.
    let json: Value = world.decnet_json(&["topology", "inspect", "maze"])?;
    for path in [
        "/topology/id",
        "/topology/name",
        "/topology/status",
        "/topology/revision",
        "/topology/host",
        "/desired/generation",
        "/desired/version_hash",
        "/applied/generation",
        "/applied/version_hash",
        "/applied/at",
        "/observed/deckies",
        "/observed/lans",
        "/drift",
    ] {
        ensure!(
            json.pointer(path).is_some_and(|value| !value.is_null()),
            "inspect has no {path}: {json}"
        );
    }
    let hosts = world.decnet_json(&["host", "ls"])?;
    for key in [
        "id",
        "name",
        "state",
        "last_seen",
        "agent_version",
        "applied",
        "observed",
    ] {
        ensure!(
            hosts[0].get(key).is_some_and(|value| !value.is_null()),
            "host ls has no {key}: {hosts}"
        );
    }

    // What was asked for is what the engine shows.
    for container in world.containers("edge-1")? {
        match engine {
            Engine::Docker => is_hardened_by_docker(&container)?,
            Engine::Native => is_hardened_by_the_runtime(&container)?,
        }
        for label in ["decnet.generation", "decnet.spec", "decnet.topology.role"] {
            ensure!(
                container.labels.contains_key(label),
                "{} has no label {label}",
                container.name
            );
        }
    }

    let state = world.teardown("maze")?;
    ensure!(state.topology.status == "torn_down", "{:?}", state.topology);
    world.assert_empty("edge-1")?;
    ensure!(
        world.status_path("maze")?
            == [
                "pending>deploying",
                "deploying>active",
                "active>tearing_down",
                "tearing_down>torn_down"
            ],
        "{:?}",
        world.status_path("maze")?
    );
    world.done()
}

fn an_unreachable_host_leaves_it_tearing_down_and_cleans_up_when_it_returns(
    engine: Engine,
) -> Result<()> {
    let mut world = World::with_host_on(engine, "edge-1")?;
    world.deploy(&shapes::small(&world.slot, "maze"), "edge-1")?;
    world.kill_agent("edge-1")?;

    let code = world
        .decnet(&["topology", "teardown", "maze", "--wait", "--timeout", "2s"])?
        .code;
    ensure!(
        code == Some(3),
        "teardown of an unreachable host gave {code:?}, not 3"
    );
    let state = world.inspect("maze")?;
    ensure!(
        state.topology.status == "tearing_down",
        "{:?}",
        state.topology
    );
    ensure!(
        state
            .condition
            .as_deref()
            .is_some_and(|text| text.contains("does not answer")),
        "{:?}",
        state.condition
    );
    throughout(
        "tearing_down without the host",
        Duration::from_secs(2),
        || Ok(world.inspect("maze")?.topology.status == "tearing_down"),
    )?;
    world.assert_holds("edge-1", 3, 2)?;

    world.start_agent("edge-1", &[])?;
    world.await_status("maze", "torn_down", LONG)?;
    world.assert_empty("edge-1")?;
    world.done()
}

fn a_forced_teardown_settles_at_once_and_is_carried_out_when_the_host_returns(
    engine: Engine,
) -> Result<()> {
    let mut world = World::with_host_on(engine, "edge-1")?;
    world.deploy(&shapes::single(&world.slot, "lone"), "edge-1")?;
    world.kill_agent("edge-1")?;
    world
        .decnet(&["topology", "teardown", "lone", "--force"])?
        .ok()?;
    ensure!(
        world.inspect("lone")?.topology.status == "torn_down",
        "force did not settle it"
    );
    world.assert_holds("edge-1", 1, 1)?;

    world.start_agent("edge-1", &[])?;
    tests::patience::until("the host cleaned", LONG, || is_gone(&world, "edge-1"))?;
    world.done()
}

fn a_host_holds_one_topology_and_gives_way_only_when_told(engine: Engine) -> Result<()> {
    let world = World::with_host_on(engine, "edge-1")?;
    let first = shapes::single(&world.slot, "first");
    world.deploy(&first, "edge-1")?;
    let mut second = shapes::single(&world.slot, "second");
    second.lans[0].subnet = world.slot.subnet(5);
    second.deckies[0].edges[0].address = Some(world.slot.address(5, 10));
    world.create(&second, "edge-1")?;

    let said = world
        .decnet(&["topology", "deploy", "second"])?
        .refused(1)?;
    ensure!(said.contains("first"), "the occupant is not named: {said}");
    let answer = world.api()?.request(
        "POST",
        "/api/v1/topologies/second/deploy",
        Some(world.api()?.token()),
        Some(&serde_json::json!({})),
    )?;
    ensure!(
        answer.status == 409 && answer.body.contains("host_occupied"),
        "{answer:?}"
    );
    ensure!(
        answer.content_type.starts_with("application/problem+json"),
        "{answer:?}"
    );
    ensure!(
        world.inspect("second")?.topology.status == "pending",
        "a refused deploy has moved the status"
    );
    ensure!(
        world.inspect("first")?.topology.status == "active",
        "a refused deploy has touched the occupant"
    );

    world
        .decnet(&[
            "topology",
            "deploy",
            "second",
            "--replace",
            "--wait",
            "--timeout",
            "120s",
        ])?
        .ok()?;
    world.await_status("first", "torn_down", SOON)?;
    world.assert_holds("edge-1", 1, 1)?;
    world.container("edge-1", &world.slot.address(5, 10))?;
    world.done()
}

fn two_agents_share_a_daemon_and_touch_only_their_own(engine: Engine) -> Result<()> {
    let mut world = World::with_host_on(engine, "edge-1")?;
    world.add_host("edge-2")?;
    world.deploy(&shapes::single(&world.slot, "first"), "edge-1")?;
    let before = world.object_ids("edge-1")?;
    let mut second = shapes::single(&world.slot, "second");
    second.lans[0].subnet = world.slot.subnet(5);
    second.deckies[0].edges[0].address = Some(world.slot.address(5, 10));
    world.deploy(&second, "edge-2")?;
    ensure!(
        world.object_ids("edge-1")? == before,
        "the other host's objects changed"
    );
    world.teardown("second")?;
    world.assert_empty("edge-2")?;
    ensure!(
        world.object_ids("edge-1")? == before,
        "the other host's objects changed"
    );
    ensure!(
        world.inspect("first")?.topology.status == "active",
        "the other topology moved"
    );
    world.done()
}

#[test]
fn a_topology_with_errors_is_refused_with_every_finding() -> Result<()> {
    let world = World::with_host("edge-1")?;
    let mut file = shapes::single(&world.slot, "broken");
    file.lans[0].kind = None;
    file.deckies[0].edges[0].address = Some("10.1.1.1".to_owned());
    let path = world.write_file(&file)?;
    let said = world.decnet(&["topology", "validate", &path.to_string_lossy()])?;
    ensure!(said.code == Some(1), "validate gave {:?}", said.code);
    let text = format!("{}{}", said.stdout, said.stderr);
    for code in ["DMZ_MISSING", "IP_OUT_OF_SUBNET"] {
        ensure!(
            text.contains(code),
            "{code} is not among the findings: {text}"
        );
    }
    // A draft may be stored with findings; it is deploy that refuses.
    let created = world.decnet(&[
        "topology",
        "create",
        &path.to_string_lossy(),
        "--host",
        "edge-1",
    ])?;
    if created.code == Some(0) {
        let said = world
            .decnet(&["topology", "deploy", "broken"])?
            .refused(1)?;
        ensure!(said.contains("DMZ_MISSING"), "{said}");
        ensure!(
            world.inspect("broken")?.topology.status == "pending",
            "the status moved"
        );
    }
    world.assert_empty("edge-1")?;
    world.done()
}

fn a_decommissioned_host_is_emptied_and_its_name_is_free_again(engine: Engine) -> Result<()> {
    let mut world = World::with_host_on(engine, "edge-1")?;
    world.deploy(&shapes::single(&world.slot, "lone"), "edge-1")?;
    world
        .decnet(&["host", "rm", "edge-1", "--timeout", "60s"])?
        .ok()?;
    world.assert_empty("edge-1")?;
    ensure!(
        world.inspect("lone")?.topology.status == "torn_down",
        "its topology is not torn down"
    );
    ensure!(
        !world.hosts()?.iter().any(|host| host.name == "edge-1"),
        "it is still listed"
    );
    world
        .stop_agent("edge-1")
        .or_else(|_| world.kill_agent("edge-1"))
        .ok();
    let enrollment = world.enroll("edge-1", &[])?;
    let outcome = world.join_with(
        "fresh",
        &enrollment.master_url,
        &enrollment.token,
        &["--name", "edge-1"],
    )?;
    outcome.ok()?;
    world.done()
}

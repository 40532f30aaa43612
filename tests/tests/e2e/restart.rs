//! Restarts: an agent that comes back touches nothing, with its store or without it.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use tests::docker;
use tests::patience::{Look, eventually};
use tests::shapes;
use tests::world::{LONG, SOON, World};

const HOST: &str = "edge-1";

fn some_heartbeats(world: &World) -> Result<()> {
    let beats = world.api()?.metric("decnet_heartbeats_total")?;
    eventually("six heartbeats", SOON, || {
        let now = world.api()?.metric("decnet_heartbeats_total")?;
        Ok(if now >= beats + 6.0 {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{}", now - beats))
        })
    })
}

/// Runs something and fails if Docker's own event log then shows one of our objects.
fn untouched(world: &mut World, act: impl FnOnce(&mut World) -> Result<()>) -> Result<()> {
    let id = world.seat(HOST)?.id.clone();
    let before = docker::object_ids(&id)?;
    let since = docker::now()?;
    act(world)?;
    let until = docker::now()?;
    let log = docker::events_between(&since, &until, &before)?;
    ensure!(log.is_empty(), "Docker was touched: {log:#?}");
    ensure!(docker::object_ids(&id)? == before, "the objects are others");
    Ok(())
}

#[test]
fn an_agent_that_restarts_touches_nothing_in_docker() -> Result<()> {
    let mut world = World::with_host(HOST)?;
    world.deploy(&shapes::small(&world.slot, "maze"), HOST)?;
    untouched(&mut world, |world| {
        world.stop_agent(HOST)?;
        world.start_agent(HOST, &[])?;
        world.await_converged("maze", SOON)?;
        world.kill_agent(HOST)?;
        world.start_agent(HOST, &[])?;
        world.await_converged("maze", SOON)?;
        some_heartbeats(world)
    })?;
    ensure!(
        world.status_path("maze")? == ["pending>deploying", "deploying>active"],
        "{:?}",
        world.status_path("maze")?
    );
    world.done()
}

#[test]
fn a_master_that_restarts_touches_nothing_in_docker() -> Result<()> {
    let mut world = World::with_host(HOST)?;
    world.deploy(&shapes::small(&world.slot, "maze"), HOST)?;
    untouched(&mut world, |world| {
        world.stop_master()?;
        world.start_master(&[])?;
        world.await_host(HOST, "ready", SOON)?;
        world.await_converged("maze", SOON)?;
        world.kill_master()?;
        world.start_master(&[])?;
        world.await_host(HOST, "ready", SOON)?;
        world.await_converged("maze", SOON)?;
        some_heartbeats(world)
    })?;
    ensure!(
        world.status_path("maze")? == ["pending>deploying", "deploying>active"],
        "{:?}",
        world.status_path("maze")?
    );
    world.done()
}

/// The files of the agent's row, whatever SQLite keeps beside it.
fn store_files(world: &World) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(world.host_dir(HOST))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if name.starts_with("agent.db") || name.starts_with("store.") {
            found.push(path);
        }
    }
    ensure!(
        !found.is_empty(),
        "the agent keeps no store file that this test knows"
    );
    Ok(found)
}

#[test]
fn a_lost_store_is_filled_again_without_recreating_what_is_right() -> Result<()> {
    let mut world = World::with_host(HOST)?;
    world.deploy(&shapes::small(&world.slot, "maze"), HOST)?;
    untouched(&mut world, |world| {
        world.stop_agent(HOST)?;
        for file in store_files(world)? {
            std::fs::remove_file(file)?;
        }
        world.start_agent(HOST, &[])?;
        world.await_host(HOST, "ready", SOON)?;
        world.await_converged("maze", LONG)?;
        some_heartbeats(world)
    })?;
    world.teardown("maze")?;
    world.assert_empty(HOST)?;
    world.done()
}

#[test]
fn a_corrupt_store_is_filled_again_without_recreating_what_is_right() -> Result<()> {
    let mut world = World::with_host(HOST)?;
    world.deploy(&shapes::small(&world.slot, "maze"), HOST)?;
    untouched(&mut world, |world| {
        world.stop_agent(HOST)?;
        for file in store_files(world)? {
            let length = std::fs::metadata(&file)?.len().max(4096);
            std::fs::write(file, vec![0xA5; usize::try_from(length)?])?;
        }
        world.start_agent(HOST, &[])?;
        world.await_host(HOST, "ready", SOON)?;
        world.await_converged("maze", LONG)?;
        some_heartbeats(world)
    })?;
    world.teardown("maze")?;
    world.assert_empty(HOST)?;
    world.done()
}

#[test]
fn an_advertised_name_may_change_without_a_new_ca() -> Result<()> {
    let mut world = World::with_host(HOST)?;
    let before = world.enroll("probe-1", &[])?;
    let pin = |world: &World| -> Result<String> {
        let status: serde_json::Value = world.api()?.get("/api/v1/status")?;
        Ok(status["ca_pin"].to_string())
    };
    let old = pin(&world)?;
    world.stop_master()?;
    world.start_master(&["--advertise", "localhost"])?;
    world.await_host(HOST, "ready", SOON)?;
    ensure!(pin(&world)? == old, "the CA is another one");
    let after = world.enroll("probe-2", &[])?;
    ensure!(
        after.master_url.contains("localhost") && after.command.contains("localhost"),
        "{after:?}"
    );
    // A token of before the change joins at the address of after it.
    world
        .join_with("probe-1", &after.master_url, &before.token, &[])?
        .ok()?;
    world.done()
}

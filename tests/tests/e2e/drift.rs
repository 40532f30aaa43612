//! Drift: whatever happens to a topology in Docker is found, repaired where it is ours, and then
//! left in peace.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::docker;
use tests::patience::{Look, eventually, throughout};
use tests::shapes;
use tests::world::{LONG, SOON, World};

/// Ids by address, of the containers that run.
fn ids(world: &World) -> Result<BTreeMap<String, String>> {
    Ok(docker::containers(&world.seat("edge-1")?.id)?
        .into_iter()
        .filter(|container| container.running)
        .flat_map(|container| {
            let id = container.id.clone();
            container
                .addresses
                .into_values()
                .map(move |address| (address, id.clone()))
        })
        .collect())
}

/// Less than the period of the inventory: it is the engine's own events that must have told.
const NOTICED: Duration = Duration::from_secs(40);

/// Waits until the damage was seen, repaired, and the status says both.
fn repaired(world: &World, deckies: usize, lans: usize) -> Result<()> {
    eventually("degraded and active again", NOTICED, || {
        let path = world.status_path("maze")?;
        let tail: Vec<&str> = path
            .iter()
            .rev()
            .take(2)
            .rev()
            .map(String::as_str)
            .collect();
        Ok(if tail == ["active>degraded", "degraded>active"] {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{path:?}"))
        })
    })?;
    world.await_converged("maze", SOON)?;
    world.assert_holds("edge-1", deckies, lans)
}

/// Several heartbeats and an idle while: nothing may be sent to the host any more.
fn nothing_is_pushed_again(world: &World) -> Result<()> {
    let pushed = world.api()?.metric("decnet_assignments_pushed_total")?;
    let changes = world.status_path("maze")?.len();
    let objects = docker::object_ids(&world.seat("edge-1")?.id)?;
    let beats = world.api()?.metric("decnet_heartbeats_total")?;
    eventually("eight heartbeats", SOON, || {
        let now = world.api()?.metric("decnet_heartbeats_total")?;
        Ok(if now >= beats + 8.0 {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{}", now - beats))
        })
    })?;
    ensure!(
        world.api()?.metric("decnet_assignments_pushed_total")? == pushed,
        "an assignment was pushed again"
    );
    ensure!(
        world.status_path("maze")?.len() == changes,
        "the status moved again"
    );
    ensure!(
        docker::object_ids(&world.seat("edge-1")?.id)? == objects,
        "objects changed again"
    );
    Ok(())
}

fn world() -> Result<World> {
    let world = World::with_host("edge-1")?;
    world.deploy(&shapes::small(&world.slot, "maze"), "edge-1")?;
    Ok(world)
}

#[test]
fn a_removed_container_is_made_anew_and_the_others_keep_their_ids() -> Result<()> {
    let world = world()?;
    let before = ids(&world)?;
    let web = world.slot.address(0, 20);
    docker::docker(&["rm", "-f", &before[&web]])?;
    repaired(&world, 3, 2)?;
    let after = ids(&world)?;
    for (address, id) in &before {
        ensure!(
            (after.get(address) == Some(id)) == (*address != web),
            "{address}: {id} became {:?}",
            after.get(address)
        );
    }
    nothing_is_pushed_again(&world)?;
    world.done()
}

#[test]
fn a_stopped_container_runs_again() -> Result<()> {
    let world = world()?;
    let before = ids(&world)?;
    let cache = world.slot.address(1, 30);
    docker::docker(&["stop", "-t", "1", &before[&cache]])?;
    repaired(&world, 3, 2)?;
    let after = ids(&world)?;
    for (address, id) in &before {
        ensure!(
            *address == cache || after.get(address) == Some(id),
            "{address} was touched"
        );
    }
    nothing_is_pushed_again(&world)?;
    world.done()
}

#[test]
fn a_removed_network_is_made_anew() -> Result<()> {
    let world = world()?;
    let before = ids(&world)?;
    let inner = docker::networks(&world.seat("edge-1")?.id)?
        .into_iter()
        .find(|network| network.subnet == world.slot.subnet(1))
        .context("the inner LAN")?;
    for container in docker::containers(&world.seat("edge-1")?.id)? {
        if container.addresses.contains_key(&inner.id) {
            docker::docker(&["network", "disconnect", "-f", &inner.id, &container.id])?;
        }
    }
    // The repair may have been quicker than we are.
    drop(docker::docker(&["network", "rm", &inner.id]));
    repaired(&world, 3, 2)?;
    let after = ids(&world)?;
    let web = world.slot.address(0, 20);
    ensure!(
        after[&web] == before[&web],
        "a decky on another LAN was touched"
    );
    for address in [world.slot.address(1, 10), world.slot.address(1, 30)] {
        ensure!(after.contains_key(&address), "{address} is not back");
    }
    nothing_is_pushed_again(&world)?;
    world.done()
}

#[test]
fn a_disconnected_container_is_connected_again_and_not_restarted() -> Result<()> {
    let world = world()?;
    let gate = world.container("edge-1", &world.slot.address(1, 10))?;
    let inner = docker::networks(&world.seat("edge-1")?.id)?
        .into_iter()
        .find(|network| network.subnet == world.slot.subnet(1))
        .context("the inner LAN")?;
    docker::docker(&["network", "disconnect", "-f", &inner.id, &gate.id])?;
    repaired(&world, 3, 2)?;
    let again = world.container("edge-1", &world.slot.address(1, 10))?;
    ensure!(
        again.id == gate.id && again.started_at == gate.started_at,
        "the gateway was restarted"
    );
    nothing_is_pushed_again(&world)?;
    world.done()
}

#[test]
fn a_foreign_container_under_our_name_is_reported_and_left_alone() -> Result<()> {
    let mut world = world()?;
    let before = ids(&world)?;
    let web = world.container("edge-1", &world.slot.address(0, 20))?;
    let image = web.inspect["Config"]["Image"]
        .as_str()
        .context("an image")?
        .to_owned();
    world.stop_agent("edge-1")?;
    docker::docker(&["rm", "-f", &web.id])?;
    let foreign = docker::docker(&["create", "--name", &web.name, &image, "nothing"])?;
    let guard = Foreign(foreign.clone());
    world.start_agent("edge-1", &[])?;

    eventually("the foreign container reported", LONG, || {
        let state = world.inspect("maze")?;
        let found = state
            .drift
            .iter()
            .any(|drift| drift.kind == "foreign" && drift.object.contains(&web.name));
        Ok(if found {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{:?} {:?}", state.topology, state.drift))
        })
    })?;
    throughout(
        "the foreign container left alone",
        Duration::from_secs(3),
        || {
            Ok(
                docker::docker(&["inspect", "--format", "{{.State.Status}}", &foreign])?
                    == "created",
            )
        },
    )?;
    // Ours is repaired beside it, under another name.
    eventually("all of ours running", LONG, || {
        world.assert_holds("edge-1", 3, 2)?;
        let state = world.inspect("maze")?;
        Ok(if state.topology.status == "active" {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{state:?}"))
        })
    })?;
    nothing_is_pushed_again(&world)?;
    let after = ids(&world)?;
    for (address, id) in &before {
        ensure!(
            *address == world.slot.address(0, 20) || after.get(address) == Some(id),
            "{address} was touched"
        );
    }

    drop(guard);
    eventually("no trace of it when it is gone", LONG, || {
        let state = world.inspect("maze")?;
        let fine = state.topology.status == "active" && state.drift.is_empty();
        Ok(if fine {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{:?} {:?}", state.topology, state.drift))
        })
    })?;
    world.assert_holds("edge-1", 3, 2)?;
    nothing_is_pushed_again(&world)?;
    world.done()
}

/// A container of ours that carries no label of theirs.
struct Foreign(String);

impl Drop for Foreign {
    fn drop(&mut self) {
        // It may be gone.
        drop(docker::docker(&["rm", "-f", &self.0]));
    }
}

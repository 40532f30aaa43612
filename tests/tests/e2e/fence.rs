//! The fence: an assignment that was overtaken on the wire is refused, whenever it arrives.

use anyhow::{Context as _, Result, ensure};
use proto::v1;
use proto::v1::master_message::Body;
use tests::docker;
use tests::scripted::ScriptedMaster;
use tests::shapes;
use tests::world::{LONG, SOON, World};

const HOST: &str = "edge-1";

fn bytes(hex: &str) -> Result<Vec<u8>> {
    (0..hex.len() / 2)
        .map(|at| Ok(u8::from_str_radix(&hex[2 * at..2 * at + 2], 16)?))
        .collect()
}

/// The assignment of a topology, as the master has sent it.
fn assignment(world: &World, name: &str) -> Result<v1::Assign> {
    let state = world.inspect(name)?;
    let desired = state.desired.context("it was assigned")?;
    let hash = desired.version_hash.context("with a hash")?;
    let document = world
        .decnet(&["topology", "export", name, "--hydrated"])?
        .ok()?
        .stdout;
    let id: uuid::Uuid = state.topology.id.parse()?;
    Ok(v1::Assign {
        fence: Some(v1::Fence {
            epoch: desired.epoch,
            generation: desired.generation,
        }),
        topology_id: id.as_bytes().to_vec(),
        version_hash: bytes(&hash)?,
        hydrated: document.trim_end().as_bytes().to_vec().into(),
    })
}

/// Has the host connect to a scripted master, says this, and wants exactly this refusal with an
/// untouched Docker.
fn refused(world: &mut World, assign: v1::Assign, code: &str) -> Result<()> {
    let before = docker::object_ids(&world.seat(HOST)?.id)?;
    let address = world.fleet_address()?.to_owned();
    world.stop_master()?;
    let master = ScriptedMaster::start(&world.master_dir(), &address)?;
    master.await_report("hello", |_| true)?;
    let fence = assign.fence;
    master.say(Body::Assign(assign))?;
    let report = master.await_report(&format!("a refusal as {code}"), |report| {
        report
            .refusal
            .as_ref()
            .is_some_and(|refusal| refusal.fence == fence)
    })?;
    let refusal = report.refusal.context("a refusal")?;
    let said = refusal
        .failure
        .map(|failure| failure.code)
        .unwrap_or_default();
    ensure!(said == code, "refused as {said}, not {code}");
    ensure!(
        docker::object_ids(&world.seat(HOST)?.id)? == before,
        "Docker was touched"
    );
    master.stop()?;
    world.start_master(&[])?;
    world.await_host(HOST, "ready", SOON)?;
    Ok(())
}

#[test]
fn an_older_generation_delayed_on_the_wire_is_refused_also_after_teardown() -> Result<()> {
    let mut world = World::with_host(HOST)?;
    world.deploy(&shapes::single(&world.slot, "first"), HOST)?;
    let old = assignment(&world, "first")?;
    world.teardown("first")?;

    // After teardown: nothing comes back from the dead.
    refused(&mut world, old.clone(), "stale")?;
    world.assert_empty(HOST)?;

    // Under a newer one.
    let mut second = shapes::single(&world.slot, "second");
    second.lans[0].subnet = world.slot.subnet(5);
    second.deckies[0].edges[0].address = Some(world.slot.address(5, 10));
    world.deploy(&second, HOST)?;
    refused(&mut world, old, "stale")?;
    world.await_converged("second", LONG)?;
    world.assert_holds(HOST, 1, 1)?;
    world.container(HOST, &world.slot.address(5, 10))?;
    world.done()
}

#[test]
fn the_same_generation_with_other_content_is_refused() -> Result<()> {
    let mut world = World::with_host(HOST)?;
    world.deploy(&shapes::single(&world.slot, "lone"), HOST)?;
    let mut other = assignment(&world, "lone")?;
    other.version_hash = vec![7; 32];
    refused(&mut world, other, "conflict")?;
    world.await_converged("lone", LONG)?;
    world.done()
}

#[test]
fn a_document_that_is_not_the_announced_one_is_refused() -> Result<()> {
    let mut world = World::with_host(HOST)?;
    world.deploy(&shapes::single(&world.slot, "lone"), HOST)?;
    let mut altered = assignment(&world, "lone")?;
    if let Some(fence) = &mut altered.fence {
        fence.generation += 1;
    }
    let text = String::from_utf8(altered.hydrated.to_vec())?;
    altered.hydrated = text.replace("\"web\"", "\"wxb\"").into_bytes().into();
    refused(&mut world, altered, "corrupt")?;
    // The master has never sent that generation, and raises its own above what the host has seen.
    world.await_converged("lone", LONG)?;
    world.done()
}

//! What only an engine without a daemon has to promise: that a reboot, and the end of an agent at any
//! moment, leave nothing that is in the way.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::engine::Engine;
use tests::native;
use tests::patience::{Look, eventually};
use tests::shapes;
use tests::world::{LONG, World};

const HOST: &str = "edge-1";
const NAME: &str = "maze";

#[test]
fn everything_is_made_anew_after_a_reboot() -> Result<()> {
    let mut world = World::with_host_on(Engine::Native, HOST)?;
    world.deploy(&shapes::small(&world.slot, NAME), HOST)?;
    let before = world.object_ids(HOST)?;
    world.kill_agent(HOST)?;
    // Processes, namespaces, mounts, groups and rules go; files on the disk stay.
    native::remove_all_of(&world.seat(HOST)?.id)?;
    world.start_agent(HOST, &[])?;
    world.await_settled(HOST)?;
    world.await_converged(NAME, LONG)?;
    world.assert_holds(HOST, 3, 2)?;
    ensure!(
        world.object_ids(HOST)? == before,
        "deckies that could be started were made anew"
    );
    world.teardown(NAME)?;
    world.assert_empty(HOST)?;
    world.done()
}

#[test]
fn an_agent_may_be_killed_at_any_time_of_a_deploy() -> Result<()> {
    let mut world = World::with_host_on(Engine::Native, HOST)?;
    let file = shapes::small(&world.slot, NAME);
    // Not at named points: wherever it happens to be.
    for wait in [5, 60, 120, 180, 240, 300] {
        world.create(&file, HOST)?;
        world
            .decnet(&["topology", "deploy", NAME, "--no-wait"])?
            .ok()?;
        eventually("the first object", LONG, || {
            let objects = world.object_ids(HOST)?;
            Ok(if objects.is_empty() {
                Look::NotYet("nothing".to_owned())
            } else {
                Look::Seen(())
            })
        })?;
        std::thread::sleep(Duration::from_millis(wait));
        world.kill_agent(HOST)?;
        world.start_agent(HOST, &[])?;
        world
            .await_converged(NAME, LONG)
            .with_context(|| format!("killed {wait} ms after the first object"))?;
        world.assert_holds(HOST, 3, 2)?;
        world.teardown(NAME)?;
        world.assert_empty(HOST)?;
        world.decnet(&["topology", "rm", NAME])?.ok()?;
    }
    world.done()
}

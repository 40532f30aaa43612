//! Any moment is a good one to die: real processes are killed at every named point of deploy,
//! repair and teardown, and at each everything converges with nothing left over.

use anyhow::{Context as _, Result, ensure};
use tests::cli;
use tests::engine::Engine;
use tests::patience::{Look, eventually};
use tests::shapes;
use tests::world::{LONG, SOON, World};

const HOST: &str = "edge-1";
const NAME: &str = "maze";

tests::on_each_engine! {
    the_agent_may_die_at_every_step_of_a_deploy,
    the_agent_may_die_at_every_step_of_a_repair,
    the_agent_may_die_at_every_step_of_a_teardown,
    the_master_may_die_at_every_step,
    the_master_may_die_at_every_step_of_a_repair_and_a_teardown,
    both_may_die_together_in_the_middle_of_a_deploy,
}

fn agent_points(prefix: &str) -> Vec<&'static str> {
    agent::crash::POINTS
        .iter()
        .copied()
        .filter(|point| point.starts_with(prefix))
        .collect()
}

/// Nothing of the host but what is desired: no second container, no network, no row.
fn exactly(world: &World, deckies: usize, lans: usize) -> Result<()> {
    world.assert_holds(HOST, deckies, lans)?;
    let mut deckies: Vec<String> = world
        .containers(HOST)?
        .iter()
        .map(|container| container.decky().to_owned())
        .collect();
    let all = deckies.len();
    deckies.sort();
    deckies.dedup();
    ensure!(deckies.len() == all, "a decky has two containers");
    Ok(())
}

fn gone(world: &World, point: &str) -> Result<()> {
    world
        .await_status(NAME, "torn_down", LONG)
        .with_context(|| point.to_owned())?;
    world.assert_empty(HOST).with_context(|| point.to_owned())?;
    world.decnet(&["topology", "rm", NAME])?.ok()?;
    let host = world.host(HOST)?;
    ensure!(host.drift.is_empty(), "{point}: {host:?}");
    Ok(())
}

fn the_agent_may_die_at_every_step_of_a_deploy(engine: Engine) -> Result<()> {
    let mut world = World::with_host_on(engine, HOST)?;
    let file = shapes::small(&world.slot, NAME);
    for point in agent_points("apply.") {
        world.stop_agent(HOST)?;
        world.start_agent(HOST, &["--crash-at", point])?;
        world.await_settled(HOST)?;
        world.create(&file, HOST)?;
        world
            .decnet(&["topology", "deploy", NAME, "--no-wait"])?
            .ok()?;
        world
            .await_agent_crash(HOST, LONG)
            .with_context(|| format!("waiting for {point}"))?;
        world.start_agent(HOST, &[])?;
        world
            .await_converged(NAME, LONG)
            .with_context(|| format!("after {point}"))?;
        exactly(&world, 3, 2).with_context(|| format!("after {point}"))?;
        world.teardown(NAME)?;
        gone(&world, point)?;
    }
    world.done()
}

fn the_agent_may_die_at_every_step_of_a_repair(engine: Engine) -> Result<()> {
    let mut world = World::with_host_on(engine, HOST)?;
    world.deploy(&shapes::small(&world.slot, NAME), HOST)?;
    let keep = world.container(HOST, &world.slot.address(0, 20))?.id;
    for point in agent_points("repair.") {
        world.stop_agent(HOST)?;
        // Two deckies and the network between them, while nobody can be quicker with a repair than we
        // are with the damage: the repair then has every kind of step.
        for address in [world.slot.address(1, 10), world.slot.address(1, 30)] {
            world.remove_container(HOST, &world.container(HOST, &address)?)?;
        }
        let inner = world.network(HOST, &world.slot.subnet(1))?;
        world.remove_network(HOST, &inner)?;
        // And the third one's network, which is mended without touching the decky.
        let pid = world.container(HOST, &world.slot.address(0, 20))?.pid;
        let arguments = [
            "--net",
            "--target",
            &pid.to_string(),
            "nft",
            "flush",
            "ruleset",
        ];
        cli::system("nsenter", &arguments, "")?.ok()?;
        world.start_agent(HOST, &["--crash-at", point])?;
        world
            .await_agent_crash(HOST, LONG)
            .with_context(|| format!("waiting for {point}"))?;
        world.start_agent(HOST, &[])?;
        world.await_settled(HOST)?;
        world
            .await_converged(NAME, LONG)
            .with_context(|| format!("after {point}"))?;
        exactly(&world, 3, 2).with_context(|| format!("after {point}"))?;
        ensure!(
            world.container(HOST, &world.slot.address(0, 20))?.id == keep,
            "{point}: a healthy decky was touched"
        );
    }
    world.done()
}

fn the_agent_may_die_at_every_step_of_a_teardown(engine: Engine) -> Result<()> {
    let mut world = World::with_host_on(engine, HOST)?;
    let file = shapes::small(&world.slot, NAME);
    for point in agent_points("clear.") {
        world.stop_agent(HOST)?;
        world.start_agent(HOST, &["--crash-at", point])?;
        world.await_settled(HOST)?;
        world.deploy(&file, HOST)?;
        world
            .decnet(&["topology", "teardown", NAME, "--no-wait"])?
            .ok()?;
        world
            .await_agent_crash(HOST, LONG)
            .with_context(|| format!("waiting for {point}"))?;
        world.start_agent(HOST, &[])?;
        gone(&world, point)?;
    }
    world.done()
}

fn the_master_may_die_at_every_step(engine: Engine) -> Result<()> {
    let mut world = World::with_host_on(engine, HOST)?;
    let file = shapes::small(&world.slot, NAME);
    // The points of enrollment are killed at in `join`, those of live edits in `live`.
    for point in master::crash::POINTS
        .iter()
        .copied()
        .filter(|point| !point.starts_with("enroll.") && !point.starts_with("mutation."))
    {
        world.create(&file, HOST)?;
        // What is already applied is recorded when a new master first hears of it.
        if point.starts_with("teardown.") || point == "report.recorded" {
            world
                .decnet(&["topology", "deploy", NAME, "--wait"])?
                .ok()?;
        }
        world.stop_master()?;
        world.spawn_master(&["--crash-at", point])?;
        // A point of the connection's start may be reached before anything is asked.
        if world.await_master().is_ok() && point != "report.recorded" {
            let verb = if point.starts_with("teardown.") {
                "teardown"
            } else {
                "deploy"
            };
            // Refused until the host is heard; the answer may be lost with the master.
            eventually("the order taken, or the master gone", SOON, || {
                let answer = world.decnet(&["topology", verb, NAME, "--no-wait"])?;
                Ok(if answer.ok().is_ok() || !world.master_answers() {
                    Look::Seen(())
                } else {
                    Look::NotYet("that it is refused".to_owned())
                })
            })?;
        }
        world
            .await_master_crash(LONG)
            .with_context(|| format!("waiting for {point}"))?;
        world.start_master(&[])?;
        world.await_settled(HOST)?;
        let status = world.inspect(NAME)?.topology.status;
        if !point.starts_with("teardown.") {
            if status == "pending" {
                world
                    .decnet(&["topology", "deploy", NAME, "--no-wait"])?
                    .ok()?;
            }
            world
                .await_converged(NAME, LONG)
                .with_context(|| format!("after {point}"))?;
            exactly(&world, 3, 2).with_context(|| format!("after {point}"))?;
            world.teardown(NAME)?;
        } else if status == "active" {
            world
                .decnet(&["topology", "teardown", NAME, "--no-wait"])?
                .ok()?;
        }
        gone(&world, point)?;
    }
    world.done()
}

fn the_master_may_die_at_every_step_of_a_repair_and_a_teardown(engine: Engine) -> Result<()> {
    let mut world = World::with_host_on(engine, HOST)?;
    let file = shapes::small(&world.slot, NAME);
    let points = ["reconcile.pushed", "reconcile.settled"];
    for point in points
        .into_iter()
        .filter(|point| master::crash::POINTS.contains(point))
    {
        for damage in ["repair", "teardown"] {
            world.deploy(&file, HOST)?;
            world.stop_master()?;
            world.spawn_master(&["--crash-at", point])?;
            let answers = world.await_master().is_ok();
            if damage == "repair" {
                world
                    .remove_container(HOST, &world.container(HOST, &world.slot.address(0, 20))?)?;
            } else if answers {
                drop(world.decnet(&["topology", "teardown", NAME, "--no-wait"])?);
            }
            world
                .await_master_crash(LONG)
                .with_context(|| format!("waiting for {point} in {damage}"))?;
            world.start_master(&[])?;
            world.await_settled(HOST)?;
            if damage == "repair" {
                world
                    .await_converged(NAME, LONG)
                    .with_context(|| format!("after {point} in {damage}"))?;
                exactly(&world, 3, 2)?;
            }
            if world.inspect(NAME)?.topology.status != "torn_down" {
                // Asked for again: the first request may have died with the master.
                drop(world.decnet(&["topology", "teardown", NAME, "--no-wait"])?);
            }
            gone(&world, point)?;
        }
    }
    world.done()
}

fn both_may_die_together_in_the_middle_of_a_deploy(engine: Engine) -> Result<()> {
    let mut world = World::with_host_on(engine, HOST)?;
    world.create(&shapes::small(&world.slot, NAME), HOST)?;
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
    world.kill_master()?;
    world.kill_agent(HOST)?;
    world.start_agent(HOST, &[])?;
    world.start_master(&[])?;
    world.await_converged(NAME, LONG)?;
    exactly(&world, 3, 2)?;
    world.done()
}

//! Evidence: at least once on the wire, exactly once in the table, whoever dies when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proto::rest::EventShape;
use serde_json::Value;
use tests::engine::Engine;
use tests::load::Flood;
use tests::patience::{Look, eventually};
use tests::shapes;
use tests::world::{SOON, World};

const HOST: &str = "edge-1";

tests::on_each_engine! {
    a_hundred_thousand_events_survive_ten_deaths,
    evidence_waits_in_the_spool_while_the_master_is_away,
    what_a_rotated_log_has_lost_is_counted_and_told,
}

const EVENTS: u64 = 100_000;
const DEATHS: u64 = 5;
/// Requests a second.
const PACE: u64 = 2_500;
/// Requests that are asked before what came of them is stored. Docker keeps 32 MiB of a decky's output,
/// and what it drops while nobody reads is told as a gap, which is another test's matter.
const AHEAD: u64 = 20_000;

fn stored(world: &World) -> Result<u64> {
    let page: Value = world.api()?.get("/api/v1/events?kind=request&limit=1")?;
    page["total"].as_u64().context("a page has a total")
}

/// Waits until every answered request is in the table, and fails if one is there twice, under its
/// own number or under a (spool, sequence) of another.
pub(crate) fn every_number_once(
    world: &World,
    prefix: &str,
    answered: &BTreeSet<u64>,
) -> Result<()> {
    let wanted = u64::try_from(answered.len())?;
    eventually(
        "every request in the table",
        Duration::from_secs(180),
        || {
            let total = stored(world)?;
            Ok(if total >= wanted {
                Look::Seen(())
            } else {
                Look::NotYet(format!("{total} of {wanted}"))
            })
        },
    )?;
    let export = world
        .api()?
        .answer("GET", "/api/v1/events/export?kind=request", None)?
        .body;
    let mut places = BTreeSet::new();
    let mut numbers: BTreeMap<u64, u64> = BTreeMap::new();
    for line in export.lines() {
        let event: EventShape = serde_json::from_str(line).with_context(|| line.to_owned())?;
        ensure!(
            places.insert((event.spool.clone(), event.sequence)),
            "({}, {}) is there twice",
            event.spool,
            event.sequence
        );
        let target = event.data["target"].as_str().unwrap_or_default();
        let number = target
            .strip_prefix(&format!("/{prefix}/"))
            .and_then(|number| number.parse().ok());
        *numbers
            .entry(number.with_context(|| format!("a strange target {target}"))?)
            .or_default() += 1;
    }
    let twice: Vec<_> = numbers
        .iter()
        .filter(|(_, count)| **count > 1)
        .take(5)
        .collect();
    ensure!(twice.is_empty(), "requests that are there twice: {twice:?}");
    let missing: Vec<_> = answered
        .iter()
        .filter(|number| !numbers.contains_key(number))
        .collect();
    ensure!(
        missing.is_empty(),
        "{} of {wanted} requests are missing: {:?}",
        missing.len(),
        missing.iter().take(10).collect::<Vec<_>>()
    );
    Ok(())
}

fn a_hundred_thousand_events_survive_ten_deaths(engine: Engine) -> Result<()> {
    let mut world = World::with_host_on(engine, HOST)?;
    world.deploy(&shapes::single(&world.slot, "lone"), HOST)?;
    let flood = Flood::start(&world.slot.address(0, 10), "n", 8, EVENTS, PACE)?;
    for death in 1..=2 * DEATHS {
        let due = death * EVENTS / (2 * DEATHS + 1);
        eventually("the next moment to die", Duration::from_secs(120), || {
            flood.allow(stored(&world)? + AHEAD);
            let answered = flood.answered();
            Ok(if answered >= due {
                Look::Seen(())
            } else {
                Look::NotYet(format!("{answered} of {due}"))
            })
        })?;
        if death % 2 == 0 {
            world.kill_master()?;
            world.start_master(&[])?;
        } else {
            world.kill_agent(HOST)?;
            world.start_agent(HOST, &[])?;
        }
    }
    flood.allow(u64::MAX);
    let answered = flood.finish()?;
    ensure!(
        u64::try_from(answered.len())? >= EVENTS - 100,
        "only {} requests were answered: the decky itself fails",
        answered.len()
    );
    every_number_once(&world, "n", &answered)?;
    let gaps = world.events(&["--kind", "lifecycle"])?;
    let gaps: Vec<_> = gaps
        .iter()
        .filter(|event| event.data["state"] == "gap")
        .collect();
    ensure!(gaps.is_empty(), "evidence has gaps: {gaps:?}");
    world.done()
}

fn evidence_waits_in_the_spool_while_the_master_is_away(engine: Engine) -> Result<()> {
    let mut world = World::with_host_on(engine, HOST)?;
    world.deploy(&shapes::single(&world.slot, "lone"), HOST)?;
    let first = Flood::start(&world.slot.address(0, 10), "n", 2, 500, 0)?.finish()?;
    ensure!(first.len() == 500, "{} of 500 answered", first.len());
    every_number_once(&world, "n", &first)?;
    world.stop_master()?;
    let flood = Flood::start(&world.slot.address(0, 10), "away", 2, 2_000, 0)?;
    let second = flood.finish()?;
    world.stop_agent(HOST)?;
    world.start_agent(HOST, &[])?;
    world.start_master(&[])?;
    world.await_host(HOST, "ready", SOON)?;
    eventually("everything in the table", SOON, || {
        let page: Value = world.api()?.get("/api/v1/events?kind=request&limit=1")?;
        let total = page["total"].as_u64().unwrap_or_default();
        let wanted = u64::try_from(first.len() + second.len())?;
        ensure!(total <= wanted, "{total} rows of {wanted} events");
        Ok(if total == wanted {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{total} of {wanted}"))
        })
    })?;
    world.done()
}

#[test]
fn events_can_be_listed_filtered_followed_and_exported() -> Result<()> {
    let world = World::with_host(HOST)?;
    world.deploy(&shapes::single(&world.slot, "lone"), HOST)?;
    let answered = Flood::start(&world.slot.address(0, 10), "list", 1, 25, 0)?.finish()?;
    every_number_once(&world, "list", &answered)?;
    let all = world.events(&["--topology", "lone", "--kind", "request"])?;
    ensure!(all.len() == 25, "{} of 25 listed", all.len());
    ensure!(
        all.windows(2).all(|pair| pair[0].row > pair[1].row),
        "not newest first"
    );
    ensure!(
        all.iter()
            .all(|event| event.decky_name.as_deref() == Some("web")),
        "{:?}",
        all[0]
    );
    ensure!(
        world.events(&["--service", "ssh"])?.is_empty(),
        "a filter lets strangers through"
    );
    let export = world
        .decnet(&["event", "export", "--kind", "request"])?
        .ok()?
        .stdout;
    ensure!(
        export.lines().count() == 25,
        "{} of 25 exported",
        export.lines().count()
    );
    world.done()
}

fn what_a_rotated_log_has_lost_is_counted_and_told(engine: Engine) -> Result<()> {
    let mut world = World::with_host_on(engine, HOST)?;
    world.deploy(&shapes::single(&world.slot, "lone"), HOST)?;
    let first = Flood::start(&world.slot.address(0, 10), "n", 1, 10, 0)?.finish()?;
    every_number_once(&world, "n", &first)?;
    world.kill_agent(HOST)?;
    // Docker throws away what it had taken; into a full file nothing more is written, and the decky
    // itself says how much that was.
    let told_as = match engine {
        Engine::Docker => "gap",
        Engine::Native => "dropped",
    };
    // More than either keeps.
    let asked = 20_000;
    let long = format!("lost/{}", "x".repeat(3_000));
    let answered = Flood::start(&world.slot.address(0, 10), &long, 8, asked, 0)?.finish()?;
    world.start_agent(HOST, &[])?;
    eventually(
        "every line in the table or in a gap",
        Duration::from_secs(120),
        || {
            let page: Value = world.api()?.get("/api/v1/events?kind=request&limit=1")?;
            let stored = page["total"].as_u64().context("a total")? - u64::try_from(first.len())?;
            let gaps: u64 = world
                .events(&["--kind", "lifecycle"])?
                .iter()
                .filter(|event| event.data["state"] == told_as)
                .filter_map(|event| event.data["count"].as_u64())
                .sum();
            let said = u64::try_from(answered.len())?;
            // Lines of other kinds are among the lost ones: two for each connection, which ends after a
            // number of requests, and one now and then.
            let told = stored + gaps;
            ensure!(
                told <= said + said / 20,
                "{stored} stored and {gaps} missing of {said}"
            );
            Ok(if gaps > 0 && told >= said {
                Look::Seen(())
            } else {
                Look::NotYet(format!("{stored} stored and {gaps} missing of {said}"))
            })
        },
    )?;
    world.done()
}

//! Figures 5 and 6: one decky is added to a live topology, and one comes back that was removed.
//! The baseline of both is one container that is created, connected and started, until it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use domain::topology::hydrate::HydratedTopology;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use proto::rest::TopologyState;
use proto::topology_file::TopologyFile;
use proto::v1::master_message::Body;
use proto::{hydrated, v1};
use tokio::time::timeout;

use super::raw::{On, Raw, Twin};
use super::{Report, plain_world, probe};
use crate::docker;
use crate::scripted::ScriptedMaster;
use crate::shapes;
use crate::slot::Slot;
use crate::world::{LONG, World};

const HOST: &str = "bench";
const NAME: &str = "row";
const DECKIES: u8 = 6;
const RUNS: usize = 7;
/// Where the baseline stands: beside the deckies.
const SPARE: u8 = 200;

/// One LAN with some deckies, from `.10` on.
fn row(slot: &Slot) -> TopologyFile {
    let deckies = (0..DECKIES).map(|number| {
        shapes::decky(
            slot,
            &format!("node-{number}"),
            10 + number,
            &[0],
            &["http"],
        )
    });
    TopologyFile {
        name: NAME.to_owned(),
        lans: vec![shapes::lan(slot, 0)],
        deckies: deckies.collect(),
    }
}

fn http(address: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse()?, 80))
}

/// One container by the API alone, in milliseconds, until it answers; then it is removed.
fn one_raw(raw: &Raw, twin: &Twin, door: SocketAddr) -> Result<f64> {
    raw.runtime.block_on(async {
        let start = Instant::now();
        raw.make_one(twin).await?;
        probe::answers(door).await?;
        let taken = start.elapsed();
        raw.unmake(std::slice::from_ref(twin)).await?;
        Ok(taken.as_secs_f64() * 1000.0)
    })
}

/// Waits until a decky's container is started and it answers.
async fn is_back(
    starts: &mut BoxStream<'static, String>,
    decky: &str,
    door: SocketAddr,
) -> Result<Instant> {
    let started = async {
        while starts.next().await.context("the events of Docker ended")? != decky {}
        Ok::<_, anyhow::Error>(())
    };
    timeout(LONG, started)
        .await
        .with_context(|| format!("{decky} was not started"))??;
    probe::answers(door).await?;
    Ok(Instant::now())
}

/// Figure 6.
pub(super) fn drift(report: &mut Report) -> Result<()> {
    let mut world = plain_world()?;
    world.start_master(&[])?;
    world.add_host(HOST)?;
    let file = row(&world.slot);
    world.deploy(&file, HOST)?;
    let raw = Raw::new(&world.slot)?;
    let seat = world.seat(HOST)?;
    let (host, data) = (seat.id.clone(), seat.data_dir.clone());
    let spare = world.slot.address(0, SPARE);
    let twin = raw
        .record(&host, &data, On::TheHosts)?
        .swap_remove(0)
        .at(&spare);
    let (mut detected, mut repaired, mut baseline) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..RUNS {
        baseline.push(one_raw(&raw, &twin, http(&spare)?)?);

        let victim = &file.deckies[run % file.deckies.len()];
        let door = probe::door(victim)?;
        let before = ids_by_decky(&host)?;
        let container = world.container(HOST, &door.ip().to_string())?;
        let mut starts = raw.starts()?;
        raw.runtime.block_on(raw.remove(&container.id))?;
        let gone = Instant::now();
        detected.push(await_detection(&world, gone)?);
        let back = raw
            .runtime
            .block_on(is_back(&mut starts, container.decky(), door))?;
        repaired.push((back - gone).as_secs_f64() * 1000.0);

        world.await_converged(NAME, LONG)?;
        let after = ids_by_decky(&host)?;
        let changed: Vec<_> = before
            .iter()
            .filter(|(decky, id)| after.get(*decky) != Some(id))
            .collect();
        ensure!(
            changed.len() == 1,
            "other containers were made anew: {changed:?}"
        );
    }
    report.add("drift: removed to detected", "ms", &detected, "≤ 200");
    report.compare(
        "drift: removed to repaired",
        "ms",
        (&repaired, &baseline),
        "≤ 1.2 × create + start",
    );
    world.teardown(NAME)?;
    world.done()
}

fn ids_by_decky(host: &str) -> Result<BTreeMap<String, String>> {
    let containers = docker::containers(host)?;
    Ok(containers
        .into_iter()
        .map(|one| (one.decky().to_owned(), one.id))
        .collect())
}

/// Milliseconds until the master says that something is missing, or has begun to repair it.
fn await_detection(world: &World, gone: Instant) -> Result<f64> {
    let path = format!("/api/v1/topologies/{NAME}");
    loop {
        let state: TopologyState = world.api()?.get(&path)?;
        if state.topology.status != "active" || !state.drift.is_empty() {
            return Ok(gone.elapsed().as_secs_f64() * 1000.0);
        }
        ensure!(gone.elapsed() < LONG, "the master never noticed");
        std::thread::sleep(Duration::from_millis(4));
    }
}

/// Figure 5. Edits of a live topology reach an agent as an assignment of a newer generation: a
/// scripted master says it, so that the time is the agent's and the daemon's.
pub(super) fn one_more(report: &mut Report) -> Result<()> {
    let mut world = plain_world()?;
    world.start_master(&[])?;
    world.add_host(HOST)?;
    let file = row(&world.slot);
    let state = world.deploy(&file, HOST)?;
    let raw = Raw::new(&world.slot)?;
    let seat = world.seat(HOST)?;
    let spare = world.slot.address(0, SPARE);
    let twin = raw
        .record(&seat.id, &seat.data_dir, On::TheHosts)?
        .swap_remove(0)
        .at(&spare);

    let document = world
        .api()?
        .answer("GET", &format!("/api/v1/topologies/{NAME}/hydrated"), None)?
        .body;
    let whole = hydrated::decode(document.as_bytes())?;
    let mut without = whole.clone();
    let extra = without.deckies.pop().context("a topology with deckies")?;
    let door = SocketAddr::new(
        extra
            .interfaces
            .first()
            .context("with an interface")?
            .address
            .into(),
        80,
    );
    let decky = extra.id.to_string();
    let desired = state.desired.context("it was assigned")?;
    let mut fence = v1::Fence {
        epoch: desired.epoch,
        generation: desired.generation,
    };

    let address = world.fleet_address()?.to_owned();
    world.stop_master()?;
    let master = ScriptedMaster::start(&world.master_dir(), &address)?;
    master.await_report("hello", |_| true)?;
    let (mut ours, mut baseline) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        assign(&master, &mut fence, &without)?;
        await_applied(&master, fence)?;
        let before = ids_by_decky(&world.seat(HOST)?.id)?;
        baseline.push(one_raw(&raw, &twin, http(&spare)?)?);

        let mut starts = raw.starts()?;
        let start = Instant::now();
        assign(&master, &mut fence, &whole)?;
        let there = raw.runtime.block_on(is_back(&mut starts, &decky, door))?;
        ours.push((there - start).as_secs_f64() * 1000.0);
        await_applied(&master, fence)?;
        let after: BTreeSet<String> = ids_by_decky(&world.seat(HOST)?.id)?.into_values().collect();
        ensure!(
            before.values().all(|id| after.contains(id)),
            "other containers were made anew"
        );
    }
    report.compare(
        "one more decky, live: assignment to answering",
        "ms",
        (&ours, &baseline),
        "≤ 1.2 × create + start",
    );
    master.stop()?;
    // Nobody commands this host any more: the world removes what it holds.
    drop(raw);
    world.kill_agent(HOST)?;
    world.done()
}

fn assign(
    master: &ScriptedMaster,
    fence: &mut v1::Fence,
    topology: &HydratedTopology,
) -> Result<()> {
    fence.generation += 1;
    master.say(Body::Assign(v1::Assign {
        fence: Some(*fence),
        topology_id: topology.id.uuid().as_bytes().to_vec(),
        version_hash: topology.version_hash().bytes().to_vec(),
        hydrated: hydrated::encode(topology).into(),
    }))
}

fn await_applied(master: &ScriptedMaster, fence: v1::Fence) -> Result<()> {
    master.await_report("applied", |report| {
        report.fence == Some(fence) && report.phase() == v1::Phase::Applied && !report.in_flight
    })?;
    Ok(())
}

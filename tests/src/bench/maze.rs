//! Figure 1: `examples/maze.yaml`, through master and agent and by the Docker API alone, in turn.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use proto::rest::{Page, StatusChangeShape};
use proto::topology_file::TopologyFile;
use serde_json::json;

use super::raw::{Net, On, Raw, Twin};
use super::{Report, plain_world, probe};
use crate::process::repository;
use crate::shapes;
use crate::slot::Slot;
use crate::world::World;

const HOST: &str = "bench";
/// Between two questions to the master: often enough to be exact to a percent of the shortest
/// deploy, seldom enough not to be what is measured.
const LOOK: Duration = Duration::from_millis(25);
const MOST: Duration = Duration::from_secs(180);

/// Who goes in which order: neither side always meets the fresher machine.
const TURNS: [Side; 8] = {
    use Side::{Ours, Raw};
    [Ours, Raw, Raw, Ours, Raw, Ours, Ours, Raw]
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Raw,
}

#[derive(Debug, Default)]
struct Times {
    up: Vec<f64>,
    down: Vec<f64>,
}

/// What the other side makes.
struct Likeness {
    nets: Vec<Net>,
    twins: Vec<Twin>,
}

pub(super) fn measure(report: &mut Report) -> Result<()> {
    let mut world = plain_world()?;
    world.start_master(&[])?;
    world.add_host(HOST)?;
    let raw = Raw::new(&world.slot)?;
    // The image is imported once in the life of a host, and the baseline finds it there.
    world.deploy(&shapes::single(&world.slot, "warm"), HOST)?;
    world.teardown("warm")?;

    let maze = in_slot(example("maze")?, &world.slot)?;
    let doors = probe::doors(&maze)?;
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    let mut likeness = None;
    for (turn, side) in TURNS.into_iter().enumerate() {
        match side {
            Side::Ours => {
                let mut file = maze.clone();
                file.name = format!("maze-{turn}");
                world.create(&file, HOST)?;
                ours.up.push(deploy(&world, &raw, &file.name, &doors)?);
                if likeness.is_none() {
                    let seat = world.seat(HOST)?;
                    likeness = Some(Likeness {
                        nets: raw.record_networks(&seat.id)?,
                        twins: raw.record(&seat.id, &seat.data_dir, On::Own)?,
                    });
                }
                ours.down.push(teardown(&world, &file.name)?);
                world.assert_empty(HOST)?;
            }
            Side::Raw => {
                let likeness = likeness.as_ref().context("our side goes first")?;
                theirs.up.push(raw_up(&raw, likeness, &doors)?);
                theirs.down.push(raw_down(&raw, likeness)?);
            }
        }
    }
    report.compare(
        "20 LANs, 100 deckies: request to every decky answering",
        "s",
        (&ours.up, &theirs.up),
        "≤ 1.05 × raw API",
    );
    report.compare(
        "20 LANs, 100 deckies: teardown",
        "s",
        (&ours.down, &theirs.down),
        "≤ 1.05 × raw API",
    );
    world.done()
}

/// Waits for a status by the list of its changes, which costs the master next to nothing.
pub(super) fn await_status(world: &World, name: &str, status: &str) -> Result<()> {
    let path = format!("/api/v1/topologies/{name}/status-events");
    let end = Instant::now() + MOST;
    loop {
        let changes: Page<StatusChangeShape> = world.api()?.get(&path)?;
        if changes.items.iter().any(|change| change.to == status) {
            return Ok(());
        }
        let failed = changes.items.iter().find(|change| change.to == "failed");
        if let Some(StatusChangeShape { reason, .. }) = failed {
            bail!("{name} has failed: {reason}");
        }
        if Instant::now() > end {
            bail!("{name} is not {status}: {:?}", changes.items);
        }
        std::thread::sleep(LOOK);
    }
}

fn deploy(world: &World, raw: &Raw, name: &str, doors: &[SocketAddr]) -> Result<f64> {
    let start = Instant::now();
    world.api()?.answer(
        "POST",
        &format!("/api/v1/topologies/{name}/deploy"),
        Some(&json!({})),
    )?;
    await_status(world, name, "active")?;
    raw.runtime.block_on(probe::all_answer(doors))?;
    Ok(start.elapsed().as_secs_f64())
}

fn teardown(world: &World, name: &str) -> Result<f64> {
    let start = Instant::now();
    world.api()?.answer(
        "POST",
        &format!("/api/v1/topologies/{name}/teardown"),
        Some(&json!({})),
    )?;
    await_status(world, name, "torn_down")?;
    Ok(start.elapsed().as_secs_f64())
}

fn raw_up(raw: &Raw, likeness: &Likeness, doors: &[SocketAddr]) -> Result<f64> {
    let start = Instant::now();
    raw.runtime.block_on(async {
        raw.make_networks(&likeness.nets).await?;
        raw.make(&likeness.twins).await?;
        probe::all_answer(doors).await
    })?;
    Ok(start.elapsed().as_secs_f64())
}

fn raw_down(raw: &Raw, likeness: &Likeness) -> Result<f64> {
    let start = Instant::now();
    raw.runtime.block_on(async {
        raw.unmake(&likeness.twins).await?;
        raw.unmake_networks(&likeness.nets).await
    })?;
    Ok(start.elapsed().as_secs_f64())
}

/// A topology of `examples/`.
pub(super) fn example(name: &str) -> Result<TopologyFile> {
    let path = repository().join("examples").join(format!("{name}.yaml"));
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_saphyr::from_str(&text).with_context(|| path.display().to_string())
}

/// The same topology in the subnets and behind the ports of a slot, so that it collides with
/// nothing that runs on this machine.
pub(super) fn in_slot(mut file: TopologyFile, slot: &Slot) -> Result<TopologyFile> {
    let mut prefixes = BTreeMap::new();
    for (number, lan) in file.lans.iter_mut().enumerate() {
        let (prefix, _) = lan.subnet.rsplit_once('.').context("a subnet is IPv4")?;
        let subnet = slot.subnet(u8::try_from(number)?);
        let (own, _) = subnet.rsplit_once('.').context("a subnet is IPv4")?;
        prefixes.insert(prefix.to_owned(), own.to_owned());
        lan.subnet = subnet.clone();
    }
    let mut port = 0;
    for decky in &mut file.deckies {
        for address in decky
            .edges
            .iter_mut()
            .filter_map(|edge| edge.address.as_mut())
        {
            let (prefix, host) = address.rsplit_once('.').context("an address is IPv4")?;
            let own = prefixes
                .get(prefix)
                .with_context(|| format!("{address} is in no LAN"))?;
            *address = format!("{own}.{host}");
        }
        for publish in &mut decky.publish {
            publish.host_port = i64::from(slot.port(port));
            publish.host_ip = Some("127.0.0.1".to_owned());
            port += 1;
        }
    }
    Ok(file)
}

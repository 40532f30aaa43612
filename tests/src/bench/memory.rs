//! Figures 17 and 18: what is held while nothing happens.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Report, plain_world};
use crate::docker;
use crate::process::rss_kib;
use crate::shapes;
use crate::world::World;

const HOST: &str = "bench";
const SAMPLES: usize = 3;
/// What follows a deploy has died down by then.
const CALM: Duration = Duration::from_secs(8);

#[allow(clippy::cast_precision_loss, reason = "bytes of a process or a file")]
const fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn host_with(
    file: impl Fn(&World) -> proto::topology_file::TopologyFile,
) -> Result<(World, String)> {
    let mut world = plain_world()?;
    world.start_master(&[])?;
    world.add_host(HOST)?;
    let file = file(&world);
    world.deploy(&file, HOST)?;
    std::thread::sleep(CALM);
    Ok((world, file.name))
}

/// Figure 17: with one host, three deckies and their evidence.
pub(super) fn daemons(report: &mut Report) -> Result<()> {
    let (mut world, name) = host_with(|world| shapes::small(&world.slot, "small"))?;
    let (mut master, mut agent) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        master.push(mb(world.master()?.rss_kib()? * 1024));
        agent.push(mb(world.agent(HOST)?.rss_kib()? * 1024));
        std::thread::sleep(Duration::from_secs(1));
    }
    report.add("idle memory: master", "MB", &master, "≤ 40");
    report.add("idle memory: agent", "MB", &agent, "≤ 20");
    world.teardown(&name)?;
    world.done()
}

/// Figure 18.
pub(super) fn decky(report: &mut Report) -> Result<()> {
    let (world, name) = host_with(|world| shapes::bazaar(&world.slot, "bazaar"))?;
    let container = world.container(HOST, &world.slot.address(0, 10))?;
    let mut decky = Vec::new();
    for _ in 0..SAMPLES {
        decky.push(mb(rss_kib(container.pid)? * 1024));
        std::thread::sleep(Duration::from_secs(1));
    }
    let image = container.inspect["Image"]
        .as_str()
        .context("a container has an image")?;
    let size = docker::docker(&["image", "inspect", "--format", "{{.Size}}", image])?;
    report.add(
        "a decky with five services, idle: memory",
        "MB",
        &decky,
        "≤ 4",
    );
    report.add(
        "the image of the deckies",
        "MB",
        &[mb(size.parse()?)],
        "≤ 20",
    );
    world.teardown(&name)?;
    world.done()
}

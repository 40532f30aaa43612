//! Figures 9 and 10: many hosts on one master. The hosts are simulated, in this process; their
//! certificates, connections and messages are real.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use pki::identity::files::HostIdentity;
use proto::rest::SystemStatus;
use proto::v1::fleet_client::FleetClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::flock::{Flock, assign, found, herd, names, runtime};
use super::{Report, plain_world};
use crate::patience::{Look, eventually};
use crate::sim::Beat;
use crate::wire;
use crate::world::{SOON, World};

/// Hosts that beat as fast as they can.
const FLOODING: usize = 100;
const DECKIES: u8 = 79;
const MANY: usize = 1000;

/// Figure 9.
pub(super) fn heartbeats(report: &mut Report) -> Result<()> {
    let mut world = plain_world()?;
    let runtime = runtime()?;
    let names = names(FLOODING);
    let identities = found(&mut world, &runtime, &names)?;
    let address = world.fleet_address()?.to_owned();
    // First calm, so that each host is given its topology; then as fast as it goes.
    let calm = Flock::connect(&runtime, &identities, &address, Beat::AsTold)?;
    for (number, name) in names.iter().enumerate() {
        let file = herd(&world.slot, u8::try_from(number)?, name, DECKIES);
        assign(&world, &file, name)?;
    }
    let at_rest = writes_during(&world, Duration::from_secs(15))?;
    calm.check()?;
    calm.end(&runtime);
    let flood = Flock::connect(&runtime, &identities, &address, Beat::Flood)?;
    eventually("every host holds its topology again", SOON, || {
        let obeyed = flood.tally.obeyed.load(Ordering::Relaxed);
        let all = usize::try_from(obeyed)? >= FLOODING;
        Ok(if all {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{obeyed} do"))
        })
    })?;
    let (mut rates, mut costs, mut sizes, mut company) = (vec![], vec![], vec![], vec![]);
    let writes = world.api()?.metric("decnet_db_writes_total")?;
    for _ in 0..3 {
        let before = world.api()?.metric("decnet_heartbeats_total")?;
        let (start, packets) = (Instant::now(), loopback_packets()?);
        let [share, rss] = weigh(&mut world, Duration::from_secs(4))?;
        let beats = world.api()?.metric("decnet_heartbeats_total")? - before;
        let rate = beats / start.elapsed().as_secs_f64();
        rates.push(rate);
        costs.push(share / 100.0 / rate * 1e6);
        sizes.push(rss);
        company.push(beats / (loopback_packets()? - packets));
    }
    let writes = world.api()?.metric("decnet_db_writes_total")? - writes;
    flood.check()?;
    flood.end(&runtime);
    report.add(
        "heartbeats handled, 100 hosts of 79 deckies, mTLS",
        "1/s",
        &rates,
        "≥ 10000",
    );
    report.add("the same: heartbeats to a packet", "", &company, "");
    report.add(
        "the same: database writes in 12 s of it",
        "writes",
        &[writes],
        "0",
    );
    report.add(
        "the same: database writes in 15 s at rest",
        "writes",
        &[at_rest],
        "0",
    );
    report.add(
        "the same: master's processor time for one",
        "µs",
        &costs,
        "",
    );
    report.add("the same: master's memory", "MB", &sizes, "");
    world.done()
}

/// Packets that have come by the loopback interface, acknowledgements among them.
fn loopback_packets() -> Result<f64> {
    let text = std::fs::read_to_string("/sys/class/net/lo/statistics/rx_packets")?;
    Ok(text.trim().parse()?)
}

fn writes_during(world: &World, span: Duration) -> Result<f64> {
    let before = world.api()?.metric("decnet_db_writes_total")?;
    std::thread::sleep(span);
    Ok(world.api()?.metric("decnet_db_writes_total")? - before)
}

/// The master's share of a core over a span, in per cent, and its memory after it, in MB.
#[allow(
    clippy::cast_precision_loss,
    reason = "milliseconds of a minute, KiB of a process"
)]
fn weigh(world: &mut World, span: Duration) -> Result<[f64; 2]> {
    let master = world.master()?;
    let (before, start) = (master.cpu_millis()?, Instant::now());
    std::thread::sleep(span);
    let spent = (master.cpu_millis()? - before) as f64 / 1000.0;
    let share = spent / start.elapsed().as_secs_f64() * 100.0;
    Ok([share, master.rss_kib()? as f64 * 1024.0 / 1e6])
}

/// Figure 10: both connections of 1,000 agents, a heartbeat of each every 5 s.
pub(super) fn thousand(report: &mut Report) -> Result<()> {
    let mut world = plain_world()?;
    world.set_master_flags(&["--heartbeat", "5s"]);
    let runtime = runtime()?;
    let identities = found(&mut world, &runtime, &names(MANY))?;
    let address = world.fleet_address()?.to_owned();
    let start = Instant::now();
    let flock = Flock::connect(&runtime, &identities, &address, Beat::AsTold)?;
    let evidence = runtime.block_on(evidence_streams(&identities, &address))?;
    let connected = start.elapsed().as_secs_f64();
    // One period, until every host has reported and been answered.
    std::thread::sleep(Duration::from_secs(6));
    let before = flock.tally.beats.load(Ordering::Relaxed);
    let (mut shares, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let [share, rss] = weigh(&mut world, Duration::from_secs(10))?;
        shares.push(share);
        sizes.push(rss);
    }
    let beats = flock.tally.beats.load(Ordering::Relaxed) - before;
    flock.check()?;
    ensure!(
        beats >= 5_500,
        "{beats} heartbeats in 30 s are not one of each host every 5 s"
    );
    let status: SystemStatus = world.api()?.get("/api/v1/status")?;
    if status.hosts.get("ready") != Some(&u64::try_from(MANY)?) {
        bail!("not every host is ready: {:?}", status.hosts);
    }
    drop(evidence);
    flock.end(&runtime);
    report.add(
        "1,000 agents, both connections: master's share of a core",
        "%",
        &shares,
        "≤ 5",
    );
    report.add(
        "1,000 agents, both connections: master's memory",
        "MB",
        &sizes,
        "≤ 100",
    );
    report.add(
        "1,000 agents: dialled, welcomed, both connections",
        "s",
        &[connected],
        "",
    );
    world.done()
}

/// The second connection of every host, on which nothing is said.
async fn evidence_streams(identities: &[Arc<HostIdentity>], fleet: &str) -> Result<Vec<Idle>> {
    let mut streams = Vec::with_capacity(identities.len());
    for identity in identities {
        let channel = wire::channel(identity, fleet).await?;
        let (silence, batches) = mpsc::channel(1);
        let mut client = FleetClient::new(channel);
        let opened = client.events(ReceiverStream::new(batches)).await;
        streams.push(Idle {
            _silence: silence,
            _heard: opened.context("the stream of evidence")?.into_inner(),
        });
    }
    Ok(streams)
}

/// An open stream of evidence.
struct Idle {
    _silence: mpsc::Sender<proto::v1::EventBatch>,
    _heard: tonic::Streaming<proto::v1::EventReceipt>,
}

//! Figure 12: from the line of a decky to the committed row.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use pki::identity::files::HostIdentity;
use proto::line::parse_time;
use proto::rest::EventShape;
use proto::v1::fleet_client::FleetClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::fleet::{self, Flock};
use super::lines::Spring;
use super::report::percentile;
use super::{Report, plain_world};
use crate::load::Flood;
use crate::patience::{Look, eventually};
use crate::shapes;
use crate::sim::Beat;
use crate::wire;
use crate::world::{LONG, World};

/// Hosts that send at the same time.
const HOSTS: usize = 4;
/// As an agent sends: events of a batch, and batches that are not acknowledged.
const BATCH: usize = 512;
const WINDOW: usize = 4;
const SUSTAINED: Duration = Duration::from_secs(15);

/// How often an agent flushes what it has read.
const FLUSH: Duration = Duration::from_millis(20);
/// Lines per second, all hosts together, of which the latency is taken.
const PACE: f64 = 10_000.0;
const PACED: Duration = Duration::from_secs(8);

const HOST: &str = "bench";
/// Requests per second of which the latency through a real decky is taken.
const REQUESTS: u64 = 500;

pub(super) fn measure(report: &mut Report) -> Result<()> {
    streams(report)?;
    real_decky(report)
}

/// Without agents: batches on the streams of simulated hosts.
fn streams(report: &mut Report) -> Result<()> {
    let mut world = plain_world()?;
    let runtime = fleet::runtime()?;
    let names = fleet::names(HOSTS);
    let identities = fleet::found(&mut world, &runtime, &names)?;
    let address = world.fleet_address()?.to_owned();
    let _flock = Flock::connect(&runtime, &identities, &address, Beat::AsTold)?;
    let mut springs = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let file = fleet::herd(&world.slot, u8::try_from(number)?, name, 5);
        springs.push(Spring::new(&fleet::assign(&world, &file, name)?)?);
    }

    let before = stored(&world)?;
    let start = Instant::now();
    let senders = identities
        .iter()
        .zip(springs.clone())
        .map(|(identity, spring)| {
            runtime.spawn(flood(
                Arc::clone(identity),
                address.clone(),
                spring,
                start + SUSTAINED,
            ))
        });
    let senders: Vec<_> = senders.collect();
    let (mut sent, mut seconds) = (0.0, 0.0_f64);
    for sender in senders {
        let (count, last) = runtime.block_on(sender)??;
        sent += whole(count);
        seconds = seconds.max((last - start).as_secs_f64());
    }
    let rows = stored(&world)? - before;
    report.add(
        "events: streams of 4 hosts to committed rows, 15 s",
        "1/s",
        &[rows / seconds],
        "≥ 50000",
    );
    report.add(
        "the same: acknowledged and not in the table",
        "events",
        &[sent - rows],
        "0",
    );

    let start = tokio::time::Instant::now();
    let senders = identities.iter().zip(&springs).map(|(identity, spring)| {
        // A spool of its own, from which nothing was sent before.
        let spring = spring.anew();
        runtime.spawn(pace(Arc::clone(identity), address.clone(), spring, start))
    });
    let senders: Vec<_> = senders.collect();
    let mut millis = Vec::new();
    for sender in senders {
        millis.extend(runtime.block_on(sender)??);
    }
    report.add(
        "p50 line to committed row at 10,000/s",
        "ms",
        &[percentile(&millis, 0.5)],
        "",
    );
    report.add(
        "p99 line to committed row at 10,000/s",
        "ms",
        &[percentile(&millis, 0.99)],
        "≤ 250",
    );
    world.done()
}

fn stored(world: &World) -> Result<f64> {
    world.api()?.metric("decnet_events_stored_total")
}

#[allow(clippy::cast_precision_loss, reason = "fewer than 2^53 events")]
const fn whole(count: u64) -> f64 {
    count as f64
}

/// Sends until a moment as fast as it is acknowledged. Gives how many events, and when the last
/// one was acknowledged.
async fn flood(
    identity: Arc<HostIdentity>,
    address: String,
    mut spring: Spring,
    until: Instant,
) -> Result<(u64, Instant)> {
    let channel = wire::channel(&identity, &address).await?;
    let (send, batches) = mpsc::channel(WINDOW);
    for _ in 0..WINDOW {
        send.send(spring.batch(BATCH)).await?;
    }
    let mut receipts = FleetClient::new(channel)
        .events(ReceiverStream::new(batches))
        .await?
        .into_inner();
    loop {
        let receipt = receipts
            .message()
            .await?
            .context("the master has ended the stream")?;
        ensure!(
            receipt.refused == 0,
            "{} events were refused",
            receipt.refused
        );
        if Instant::now() < until {
            send.send(spring.batch(BATCH)).await?;
        } else if receipt.through == spring.last() {
            return Ok((spring.last(), Instant::now()));
        }
    }
}

/// Sends this host's share of [`PACE`], in a batch at each flush. Gives for each line the
/// milliseconds from the moment at which a decky would have written it.
async fn pace(
    identity: Arc<HostIdentity>,
    address: String,
    mut spring: Spring,
    start: tokio::time::Instant,
) -> Result<Vec<f64>> {
    let channel = wire::channel(&identity, &address).await?;
    let (send, batches) = mpsc::channel(1024);
    let mut receipts = FleetClient::new(channel)
        .events(ReceiverStream::new(batches))
        .await?
        .into_inner();
    let gap = Duration::from_secs_f64(whole(HOSTS as u64) / PACE);
    let mut due = start.max(tokio::time::Instant::now());
    let end = due + PACED;
    // The moment of each line that is not acknowledged.
    let mut written: VecDeque<tokio::time::Instant> = VecDeque::new();
    let mut first = 1;
    let mut millis = Vec::new();
    let mut flush = tokio::time::interval(FLUSH);
    loop {
        tokio::select! {
            now = flush.tick(), if due < end => {
                let mut count = 0;
                while due <= now && count < BATCH {
                    written.push_back(due);
                    due += gap;
                    count += 1;
                }
                if count > 0 {
                    send.send(spring.batch(count)).await?;
                }
            }
            receipt = receipts.message() => {
                let receipt = receipt?.context("the master has ended the stream")?;
                let now = tokio::time::Instant::now();
                while first <= receipt.through {
                    let line = written.pop_front().context("a receipt for what was sent")?;
                    millis.push((now - line).as_secs_f64() * 1000.0);
                    first += 1;
                }
                if due >= end && written.is_empty() {
                    return Ok(millis);
                }
            }
        }
    }
}

/// With everything: requests to an HTTP decky, its output, the agent's spool, the master's table.
fn real_decky(report: &mut Report) -> Result<()> {
    let mut world = plain_world()?;
    world.start_master(&[])?;
    world.add_host(HOST)?;
    world.deploy(&shapes::single(&world.slot, "lone"), HOST)?;
    let decky = world.slot.address(0, 10);

    let before = stored(&world)?;
    let start = Instant::now();
    let load = Flood::start(&decky, "flood", 8, u64::MAX, 0)?;
    std::thread::sleep(Duration::from_secs(10));
    let asked = load.stop()?.len();
    let (rows, last) = await_quiet(&world)?;
    let rows = rows - before;
    let rate = rows / (last - start).as_secs_f64();
    report.add(
        "events: one real decky under 8 clients, request to row",
        "1/s",
        &[rate],
        "",
    );
    let missing = whole(asked as u64) - requests(&world, "flood")?;
    report.add(
        "the same: answered requests without a row",
        "events",
        &[missing],
        "0",
    );

    let load = Flood::start(&decky, "paced", 4, REQUESTS * 6, REQUESTS)?;
    eventually("the paced requests", LONG, || {
        let answered = load.answered();
        Ok(if answered >= REQUESTS * 6 {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{answered}"))
        })
    })?;
    load.stop()?;
    await_quiet(&world)?;
    let millis: Vec<f64> = exported(&world)?
        .iter()
        .filter(|event| target(event).starts_with("/paced/"))
        .filter_map(|event| {
            let late = parse_time(&event.received_at)? - parse_time(&event.at)?;
            Some(late.as_seconds_f64() * 1000.0)
        })
        .collect();
    ensure!(!millis.is_empty(), "no request has a row");
    report.add(
        "p99 decky's line to master, real decky, 500 requests/s",
        "ms",
        &[percentile(&millis, 0.99)],
        "",
    );
    world.teardown("lone")?;
    world.done()
}

/// Waits until no more rows come, and gives their number and when the last came.
fn await_quiet(world: &World) -> Result<(f64, Instant)> {
    let end = Instant::now() + LONG;
    let (mut rows, mut last) = (stored(world)?, Instant::now());
    // Liveness lines are not rows, so that silence is silence.
    while last.elapsed() < Duration::from_millis(1500) {
        ensure!(Instant::now() < end, "rows come and come");
        std::thread::sleep(Duration::from_millis(20));
        let now = stored(world)?;
        if now > rows {
            (rows, last) = (now, Instant::now());
        }
    }
    Ok((rows, last))
}

fn target(event: &EventShape) -> &str {
    event.data["target"].as_str().unwrap_or_default()
}

fn exported(world: &World) -> Result<Vec<EventShape>> {
    let text = world
        .api()?
        .answer("GET", "/api/v1/events/export?kind=request", None)?
        .body;
    text.lines()
        .map(|line| Ok(serde_json::from_str(line)?))
        .collect()
}

fn requests(world: &World, prefix: &str) -> Result<f64> {
    let prefix = format!("/{prefix}/");
    let found = exported(world)?;
    Ok(whole(
        found
            .iter()
            .filter(|event| target(event).starts_with(&prefix))
            .count() as u64,
    ))
}

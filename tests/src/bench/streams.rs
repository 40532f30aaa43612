//! Figure 12 without agents: batches on the streams of simulated hosts, to the committed row.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use pki::identity::files::HostIdentity;
use proto::v1::fleet_client::FleetClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::evidence::{stored, whole};
use super::flock::{self, Flock};
use super::lines::Spring;
use super::report::percentile;
use super::{Report, plain_world};
use crate::sim::Beat;
use crate::wire;

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

pub(super) fn measure(report: &mut Report) -> Result<()> {
    let mut world = plain_world()?;
    let runtime = flock::runtime()?;
    let names = flock::names(HOSTS);
    let identities = flock::found(&mut world, &runtime, &names)?;
    let address = world.fleet_address()?.to_owned();
    let _flock = Flock::connect(&runtime, &identities, &address, Beat::AsTold)?;
    let mut springs = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let file = flock::herd(&world.slot, u8::try_from(number)?, name, 5);
        springs.push(Spring::new(&flock::assign(&world, &file, name)?)?);
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

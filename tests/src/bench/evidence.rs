//! Figure 12: from the line of a decky to the committed row, on the streams alone and through a real
//! decky.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proto::line::parse_time;
use proto::rest::EventShape;

use super::report::percentile;
use super::{Report, plain_world, streams};
use crate::load::Flood;
use crate::patience::{Look, eventually};
use crate::shapes;
use crate::world::{LONG, World};

const HOST: &str = "bench";
/// Requests per second of which the latency through a real decky is taken.
const REQUESTS: u64 = 500;

pub(super) fn measure(report: &mut Report) -> Result<()> {
    streams::measure(report)?;
    real_decky(report)
}

pub(super) fn stored(world: &World) -> Result<f64> {
    world.api()?.metric("decnet_events_stored_total")
}

#[allow(clippy::cast_precision_loss, reason = "fewer than 2^53 events")]
pub(super) const fn whole(count: u64) -> f64 {
    count as f64
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

//! Figures 7 and 8: how fast a host comes in, and how fast it is put out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proto::rest::{Enrollment, HostShape};
use proto::v1::fleet_client::FleetClient;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::lines::Spring;
use super::{Report, flock, plain_world};
use crate::process::{Daemon, binary};
use crate::sim::{self, Beat, Tally};
use crate::world::{SOON, World};
use crate::{cli, wire};

const JOINS: usize = 5;
const REVOCATIONS: usize = 5;

/// Figure 7: from the start of `decnet-agent join` until the master calls the host ready.
pub(super) fn join(report: &mut Report) -> Result<()> {
    let mut world = plain_world()?;
    world.start_master(&[])?;
    let (mut joined, mut ready) = (Vec::new(), Vec::new());
    for number in 0..JOINS {
        let name = format!("edge-{number}");
        let enrollment: Enrollment = world
            .api()?
            .post("/api/v1/tokens", &json!({ "name": name }))?;
        let directory = world.host_dir(&name).to_string_lossy().into_owned();
        let start = Instant::now();
        let arguments = [
            "join",
            &enrollment.master_url,
            "--token-stdin",
            "--data-dir",
            &directory,
        ];
        cli::run(&binary("decnet-agent")?, &arguments, &[], &enrollment.token)?.ok()?;
        joined.push(start.elapsed().as_secs_f64());
        let run = ["run", "--data-dir", &directory].map(str::to_owned);
        let agent = Daemon::start(
            "decnet-agent",
            &run,
            &[],
            &world.root().join(format!("{name}.log")),
        )?;
        await_ready(&world, &name, start)?;
        ready.push(start.elapsed().as_secs_f64());
        agent.stop(SOON)?;
    }
    report.add("join: command to certificate", "s", &joined, "");
    report.add("join: command to ready", "s", &ready, "≤ 2");
    world.done()
}

fn await_ready(world: &World, name: &str, since: Instant) -> Result<()> {
    loop {
        let host: HostShape = world.api()?.get(&format!("/api/v1/hosts/{name}"))?;
        if host.state == "ready" {
            return Ok(());
        }
        ensure!(since.elapsed() < SOON, "{name} is {}", host.state);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Figure 8: from the request of the operator, before the commit, to the last event that was
/// acknowledged and to the end of the stream; so both are upper bounds.
pub(super) fn revoke(report: &mut Report) -> Result<()> {
    let mut world = plain_world()?;
    let runtime = flock::runtime()?;
    let names = flock::names(REVOCATIONS);
    let identities = flock::found(&mut world, &runtime, &names)?;
    let address = world.fleet_address()?.to_owned();
    let (mut accepted, mut cut) = (Vec::new(), Vec::new());
    for (number, (identity, name)) in identities.iter().zip(&names).enumerate() {
        let tally = Arc::new(Tally::default());
        let control = {
            let (identity, address) = (Arc::clone(identity), address.clone());
            runtime.spawn(async move { sim::live(&identity, &address, Beat::AsTold, tally).await })
        };
        let file = flock::herd(&world.slot, u8::try_from(number)?, name, 1);
        let deckies = flock::assign(&world, &file, name)?;
        let (say, mut heard) = mpsc::unbounded_channel();
        let thief = runtime.spawn({
            let (identity, address) = (Arc::clone(identity), address.clone());
            async move {
                let channel = wire::channel(&identity, &address).await?;
                let (send, batches) = mpsc::channel(1);
                let mut spring = Spring::new(&deckies)?;
                // For as long as anybody listens.
                let pump =
                    tokio::spawn(async move { while send.send(spring.batch(1)).await.is_ok() {} });
                let mut receipts = FleetClient::new(channel)
                    .events(ReceiverStream::new(batches))
                    .await?
                    .into_inner();
                while let Ok(Some(receipt)) = receipts.message().await {
                    ensure!(
                        receipt.refused == 0,
                        "events of the host's own decky were refused"
                    );
                    say.send(Instant::now())?;
                }
                pump.abort();
                Ok(Instant::now())
            }
        });
        for _ in 0..20 {
            let first =
                runtime.block_on(async { tokio::time::timeout(SOON, heard.recv()).await })?;
            first.context("the stream is not served")?;
        }
        let start = Instant::now();
        world.api()?.answer(
            "POST",
            &format!("/api/v1/hosts/{name}/revoke"),
            Some(&json!({})),
        )?;
        let ended = runtime.block_on(async { tokio::time::timeout(SOON, thief).await })???;
        let mut last = start;
        while let Ok(at) = heard.try_recv() {
            last = last.max(at);
        }
        accepted.push((last - start).as_secs_f64() * 1000.0);
        cut.push(ended.saturating_duration_since(start).as_secs_f64() * 1000.0);
        // The control stream is cut as well, or the master would still speak with that host.
        ensure!(
            runtime
                .block_on(async { tokio::time::timeout(SOON, control).await })??
                .is_err(),
            "the control stream went on"
        );
        let again = runtime.block_on(flock::is_let_in(identity, &address));
        ensure!(!again, "a revoked host was let in again");
    }
    report.add(
        "revoke: request to last acknowledged event",
        "ms",
        &accepted,
        "≤ 1000",
    );
    report.add(
        "revoke: request to the end of the streams",
        "ms",
        &cut,
        "≤ 1000",
    );
    world.done()
}

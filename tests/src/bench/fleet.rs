//! Figures 9 and 10: many hosts on one master. The hosts are simulated, in this process; their
//! certificates, connections and messages are real.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use pki::identity::files::HostIdentity;
use proto::rest::{SystemStatus, TopologyState};
use proto::topology_file::TopologyFile;
use proto::v1::fleet_client::FleetClient;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::lines::Owner;
use super::{Report, plain_world};
use crate::patience::{Look, eventually};
use crate::shapes;
use crate::sim::{self, Beat, Tally};
use crate::slot::Slot;
use crate::wire;
use crate::world::{LONG, SOON, World};

/// Hosts that beat as fast as they can.
const FLOODING: usize = 100;
const DECKIES: u8 = 79;
const MANY: usize = 1000;

pub(super) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

pub(super) fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("edge-{number}")).collect()
}

/// Enrolls hosts into a master that is then started.
pub(super) fn found(
    world: &mut World,
    runtime: &Runtime,
    names: &[String],
) -> Result<Vec<Arc<HostIdentity>>> {
    std::fs::create_dir_all(world.master_dir())?;
    let identities = runtime.block_on(sim::found_fleet(&world.master_dir(), names))?;
    world.start_master(&[])?;
    Ok(identities.into_iter().map(Arc::new).collect())
}

/// A topology of one LAN for a host that makes nothing of it.
pub(super) fn herd(slot: &Slot, lan: u8, name: &str, deckies: u8) -> TopologyFile {
    let mut segment = shapes::lan(slot, lan);
    segment.kind = Some("dmz".to_owned());
    let deckies = (0..deckies).map(|number| {
        shapes::decky(
            slot,
            &format!("node-{number}"),
            10 + number,
            &[lan],
            &["ssh"],
        )
    });
    TopologyFile {
        name: format!("herd-{name}"),
        lans: vec![segment],
        deckies: deckies.collect(),
    }
}

/// Stores a topology and deploys it on a simulated host; gives its deckies.
pub(super) fn assign(world: &World, file: &TopologyFile, host: &str) -> Result<Vec<Owner>> {
    let api = world.api()?;
    let body = json!({ "topology": file, "host": host });
    let state: TopologyState = api.post("/api/v1/topologies", &body)?;
    let id = state.topology.id;
    api.answer(
        "POST",
        &format!("/api/v1/topologies/{id}/deploy"),
        Some(&json!({})),
    )?;
    eventually(&format!("{} active", file.name), LONG, || {
        let state: TopologyState = api.get(&format!("/api/v1/topologies/{id}"))?;
        let TopologyState { topology, .. } = state;
        Ok(if topology.status == "active" {
            Look::Seen(())
        } else {
            Look::NotYet(topology.status)
        })
    })?;
    let document = api
        .answer("GET", &format!("/api/v1/topologies/{id}/hydrated"), None)?
        .body;
    let hydrated = proto::hydrated::decode(document.as_bytes())?;
    Ok(hydrated
        .deckies
        .iter()
        .map(|decky| (hydrated.id.uuid(), decky.id.uuid()))
        .collect())
}

/// Whether the master lets a host in that calls anew.
pub(super) async fn is_let_in(identity: &HostIdentity, fleet: &str) -> bool {
    let Ok(channel) = wire::channel(identity, fleet).await else {
        return false;
    };
    let (_silence, batches) = mpsc::channel(1);
    FleetClient::new(channel)
        .events(ReceiverStream::new(batches))
        .await
        .is_ok()
}

/// Simulated hosts on a runtime. They end when it is dropped.
pub(super) struct Flock {
    pub(super) tally: Arc<Tally>,
    tasks: Vec<JoinHandle<Result<()>>>,
}

impl Flock {
    /// Connects hosts, some at a time, and waits until the master has welcomed all.
    pub(super) fn connect(
        runtime: &Runtime,
        identities: &[Arc<HostIdentity>],
        fleet: &str,
        beat: Beat,
    ) -> Result<Self> {
        let tally = Arc::new(Tally::default());
        let spawn = |identity: &Arc<HostIdentity>| {
            let (identity, tally) = (Arc::clone(identity), Arc::clone(&tally));
            let fleet = fleet.to_owned();
            runtime.spawn(async move { sim::live(&identity, &fleet, beat, tally).await })
        };
        let mut tasks = Vec::with_capacity(identities.len());
        for group in identities.chunks(50) {
            tasks.extend(group.iter().map(spawn));
            eventually("the welcome of all", LONG, || {
                let connected = tally.connected.load(Ordering::Relaxed);
                let all = usize::try_from(connected)? >= tasks.len();
                Ok(if all {
                    Look::Seen(())
                } else {
                    Look::NotYet(format!("{connected}"))
                })
            })?;
        }
        Ok(Self { tally, tasks })
    }

    /// Fails unless every host is still connected.
    fn check(&self) -> Result<()> {
        let gone = self.tasks.iter().filter(|task| task.is_finished()).count();
        ensure!(
            gone == 0,
            "{gone} of {} hosts have lost their master",
            self.tasks.len()
        );
        Ok(())
    }

    fn end(self, runtime: &Runtime) {
        for task in self.tasks {
            task.abort();
            // It was told to end, and how is of no interest.
            drop(runtime.block_on(task));
        }
    }
}

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
    let (mut rates, mut company) = (Vec::new(), Vec::new());
    let writes = world.api()?.metric("decnet_db_writes_total")?;
    for _ in 0..3 {
        let before = world.api()?.metric("decnet_heartbeats_total")?;
        let (start, packets) = (Instant::now(), loopback_packets()?);
        std::thread::sleep(Duration::from_secs(4));
        let beats = world.api()?.metric("decnet_heartbeats_total")? - before;
        rates.push(beats / start.elapsed().as_secs_f64());
        company.push(beats / (loopback_packets()? - packets));
    }
    let writes = world.api()?.metric("decnet_db_writes_total")? - writes;
    flood.check()?;
    let [share, rss] = weigh(&mut world, Duration::from_secs(2))?;
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
    report.add("the same: master's share of a core", "%", &[share], "");
    report.add("the same: master's memory", "MB", &[rss], "");
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

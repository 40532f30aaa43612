//! Simulated hosts: enrolled, given topologies, connected. What they do is `sim`'s.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Result, ensure};
use pki::identity::files::HostIdentity;
use proto::rest::TopologyState;
use proto::topology_file::TopologyFile;
use proto::v1::fleet_client::FleetClient;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::lines::Owner;
use crate::patience::{Look, eventually};
use crate::shapes;
use crate::sim::{self, Beat, Tally};
use crate::slot::Slot;
use crate::wire;
use crate::world::{LONG, World};

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
    pub(super) fn check(&self) -> Result<()> {
        let gone = self.tasks.iter().filter(|task| task.is_finished()).count();
        ensure!(
            gone == 0,
            "{gone} of {} hosts have lost their master",
            self.tasks.len()
        );
        Ok(())
    }

    pub(super) fn end(self, runtime: &Runtime) {
        for task in self.tasks {
            task.abort();
            // It was told to end, and how is of no interest.
            drop(runtime.block_on(task));
        }
    }
}

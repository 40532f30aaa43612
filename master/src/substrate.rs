//! Tells what deckies have come to serve: one event for each transition, once the host holds it.
//!
//! Level-triggered: what was told is read from the events themselves, and what lacks is told, so
//! that whoever dies when, no transition is told twice and none is passed over. A failed change, a
//! repair and a set that stays the same have nothing to tell. Neither has what was committed and
//! overtaken before a host reported it: nobody can have seen it. What a host has reported is told
//! also when more was committed meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use domain::decky_mutation::{Cause, DeckyMutated, Told, Trigger};
use domain::event::{Payload, Severity};
use domain::id::{DeckyId, EventId, HostId, TopologyId};
use domain::revision::Fence;
use domain::topology::Topology;
use domain::topology::hydrate::{VersionHash, hydrate};
use domain::topology::mutation::Regime;
use domain::topology::status::{StatusEvent, TopologyStatus};
use domain::topology::validate::Limits;
use proto::queued::Queued;

use crate::bus::Bus;
use crate::clock::Clock;
use crate::crash;
use crate::db::queue::{MutationPage, MutationRow};
use crate::db::{
    Actor, EventBatch, EventFilter, EventPage, LiveTopology, NewEvent, Store, StoreError,
};
use crate::entropy::uuid_v7;
use crate::mutate::deckies_served_otherwise;
use crate::pipeline::{Ingest, spool_of_master};
use crate::signal::MutationWaker;

/// Events that are read at once.
const PAGE: u32 = 1000;
/// Most mutations that are looked through for the one that has changed a decky.
const LOOKED: u32 = 1000;

/// Tells what deckies have come to serve.
pub(crate) struct Teller {
    store: Arc<dyn Store>,
    ingest: Arc<Ingest>,
    bus: Arc<Bus>,
    waker: MutationWaker,
    clock: Clock,
    /// None before it was read what has been told.
    known: Option<HashMap<TopologyId, Known>>,
}

#[derive(Default)]
struct Known {
    told: Told,
    /// Transitions that were told: the number of the next one is one more.
    count: u64,
    /// Under which fence the host held exactly this.
    fence: Option<Fence>,
    host: Option<HostId>,
    /// Under which fence the host held what could not be found out.
    lost: Option<Fence>,
}

/// What a host was seen to hold of a topology.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) host: HostId,
    /// Under which fence.
    pub(crate) fence: Fence,
    /// The hash of the document.
    pub(crate) hash: VersionHash,
}

// === impl Teller ===

impl Teller {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        ingest: Arc<Ingest>,
        bus: Arc<Bus>,
        waker: MutationWaker,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            ingest,
            bus,
            waker,
            clock,
            known: None,
        }
    }

    /// A host was seen to hold exactly what it was told to hold of a topology, now or before it was
    /// edited again.
    pub(crate) async fn converged(
        &mut self,
        topology: TopologyId,
        seen: Seen,
    ) -> Result<(), StoreError> {
        let Seen { host, fence, .. } = seen;
        let known = self.known().await?.get(&topology);
        let is_over = |known: &Known| {
            let later = known.host == Some(host) && known.fence > Some(fence);
            known.fence == Some(fence) || known.lost == Some(fence) || later
        };
        if known.is_some_and(is_over) {
            return Ok(());
        }
        let Some(row) = self.store.topology(topology).await? else {
            return Ok(());
        };
        let graph = match row.desired {
            Some((desired, _)) if desired <= fence => Some(row.topology),
            Some(_) => self.before(row.topology, seen).await?,
            None => return Ok(()),
        };
        match graph {
            Some(graph) => self.bring(topology, host, Some((&graph, fence))).await,
            None => {
                // It is told with what the host holds next.
                self.known().await?.entry(topology).or_default().lost = Some(fence);
                Ok(())
            }
        }
    }

    /// The graph that a host was seen to hold: the one that is stored, without what was committed
    /// after it. None when that does not have the hash which the host has said.
    async fn before(
        &self,
        mut graph: Topology,
        seen: Seen,
    ) -> Result<Option<Topology>, StoreError> {
        let newest = MutationPage::default();
        let rows = self.store.mutations(graph.id, newest, LOOKED).await?;
        let later = |row: &&MutationRow| row.fence.is_some_and(|made| made > seen.fence);
        for row in rows.iter().filter(later) {
            let Ok(queued) = Queued::from_json(&row.payload) else {
                return Ok(None);
            };
            let Some(undo) = queued.undo else { continue };
            // It was sound then: what holds of edits of today is not asked of it.
            match undo.apply(&graph, Regime::Pending, &Limits::default()) {
                Ok(undone) => graph = undone.topology,
                Err(_) => return Ok(None),
            }
        }
        let is_it = hydrate(&graph).version_hash() == seen.hash;
        Ok(is_it.then_some(graph))
    }

    /// Tells the end of what was told of topologies that no host holds any more.
    pub(crate) async fn sweep(&mut self, live: &[LiveTopology]) -> Result<(), StoreError> {
        let known = self.known().await?;
        let over: Vec<(TopologyId, Option<HostId>)> = known
            .iter()
            .filter(|(id, known)| {
                !known.told.is_over() && live.iter().all(|topology| topology.id != **id)
            })
            .map(|(id, known)| (*id, known.host))
            .collect();
        for (topology, host) in over {
            let status = self.store.topology(topology).await?.map(|row| row.status);
            let gone = status.is_none_or(|status| status == TopologyStatus::TornDown);
            if let (true, Some(host)) = (gone, host) {
                self.bring(topology, host, None).await?;
            }
        }
        Ok(())
    }

    /// What was told of every topology, which is read once.
    async fn known(&mut self) -> Result<&mut HashMap<TopologyId, Known>, StoreError> {
        if self.known.is_none() {
            self.known = Some(self.read(None).await?);
        }
        Ok(self.known.get_or_insert_default())
    }

    async fn read(
        &self,
        topology: Option<TopologyId>,
    ) -> Result<HashMap<TopologyId, Known>, StoreError> {
        let filter = EventFilter {
            topology,
            last_transitions: true,
            ..EventFilter::default()
        };
        let mut known: HashMap<TopologyId, Known> = HashMap::new();
        let mut after = 0;
        loop {
            let page = EventPage::After { row: after };
            let rows = self.store.events(&filter, page, PAGE).await?;
            let Some(last) = rows.last() else {
                return Ok(known);
            };
            after = last.row;
            for row in rows {
                if let Payload::Mutation(mutated) = row.event.payload {
                    let known = known.entry(row.event.topology).or_default();
                    known.told.take(*mutated);
                    known.count = known.count.max(row.event.sequence);
                    known.host = Some(row.host);
                }
            }
        }
    }

    /// Tells what lacks until `after` is what was told.
    async fn bring(
        &mut self,
        topology: TopologyId,
        host: HostId,
        after: Option<(&Topology, Fence)>,
    ) -> Result<(), StoreError> {
        let graph = after.map(|(graph, _)| graph);
        let fence = after.map(|(_, fence)| fence);
        let unsaid = |_| Cause {
            trigger: Trigger::Operator,
            actor: None,
        };
        let known = self.known().await?.entry(topology).or_default();
        let count = known.count;
        // Most of the time there is nothing, and nothing more is read.
        let mut lacks = known.told.lacks(graph, unsaid);
        if !lacks.is_empty() {
            let causes = Causes::of(self.store.as_ref(), topology, fence).await?;
            let known = self.known().await?.entry(topology).or_default();
            lacks = known.told.lacks(graph, |decky| causes.of_decky(decky));
            let stored = self.store_events(topology, host, count, &lacks).await?;
            crash::point("substrate.told");
            if stored < u64::try_from(lacks.len()).unwrap_or(u64::MAX) {
                // Another master was quicker: what it told is read, and the rest is told then.
                return self.read_anew(topology).await;
            }
            self.announce(topology, &lacks);
        }
        let known = self.known().await?.entry(topology).or_default();
        known.count += u64::try_from(lacks.len()).unwrap_or(u64::MAX);
        lacks
            .into_iter()
            .for_each(|mutated| known.told.take(mutated));
        known.fence = fence;
        known.host = Some(host);
        // From this moment on counts when they are due next.
        self.waker.wake();
        Ok(())
    }

    async fn read_anew(&mut self, topology: TopologyId) -> Result<(), StoreError> {
        let read = self.read(Some(topology)).await?;
        let known = self.known().await?;
        known.remove(&topology);
        known.extend(read);
        Ok(())
    }

    async fn store_events(
        &self,
        topology: TopologyId,
        host: HostId,
        count: u64,
        lacks: &[DeckyMutated],
    ) -> Result<u64, StoreError> {
        let now = (self.clock)();
        let events = (count + 1..)
            .zip(lacks)
            .map(|(sequence, mutated)| NewEvent {
                id: EventId::new(uuid_v7(now)),
                sequence,
                topology,
                decky: mutated.decky,
                service: None,
                at: now,
                received_at: now,
                session: None,
                source: None,
                destination: None,
                severity: Severity::Info,
                payload: Payload::Mutation(Box::new(mutated.clone())),
                raw: None,
            })
            .collect();
        let batch = EventBatch {
            host,
            spool: spool_of_master(topology),
            events,
        };
        self.ingest
            .tell(batch)
            .await
            .map(|appended| appended.stored)
    }

    fn announce(&self, topology: TopologyId, lacks: &[DeckyMutated]) {
        for mutated in lacks {
            let words = |set: &std::collections::BTreeSet<domain::service::ServiceKind>| {
                set.iter().map(|kind| kind.as_str()).collect::<Vec<_>>()
            };
            let body = serde_json::json!({
                "topology_id": topology.to_string(),
                "decky_id": mutated.decky.to_string(),
                "decky": mutated.name.as_str(),
                "old_services": words(&mutated.old),
                "new_services": words(&mutated.new),
                "trigger": mutated.trigger.as_str(),
                "actor": mutated.actor,
            });
            self.bus
                .publish(format!("topology.{topology}.decky_mutated"), body.clone());
            self.bus
                .publish(format!("decky.{}.mutation", mutated.name), body);
        }
    }
}

/// Who has changed the deckies of a topology, and why.
struct Causes {
    /// Committed mutations, newest first.
    mutations: Vec<MutationRow>,
    /// Who has deployed it, or has taken it down.
    otherwise: Option<String>,
}

impl Causes {
    async fn of(
        store: &dyn Store,
        topology: TopologyId,
        fence: Option<Fence>,
    ) -> Result<Self, StoreError> {
        let mut mutations = Vec::new();
        let mut wanted = StatusEvent::TeardownRequested;
        if let Some(fence) = fence {
            wanted = StatusEvent::DeployRequested;
            mutations = store
                .mutations(topology, MutationPage::default(), LOOKED)
                .await?;
            mutations.retain(|row| row.fence.is_some_and(|made| made <= fence));
        }
        let changes = store.status_changes(topology).await?;
        let change = changes.iter().rev().find(|change| change.event == wanted);
        Ok(Self {
            mutations,
            otherwise: change.and_then(|change| actor(&change.actor)),
        })
    }

    fn of_decky(&self, decky: DeckyId) -> Cause {
        let mut mutations = self.mutations.iter();
        match mutations.find(|row| deckies_served_otherwise(row).contains(&decky)) {
            Some(row) => Cause {
                trigger: row.cause.parse().unwrap_or(Trigger::Operator),
                actor: actor(&row.actor),
            },
            None => Cause {
                trigger: Trigger::Operator,
                actor: self.otherwise.clone(),
            },
        }
    }
}

/// Who, where somebody asked for it.
fn actor(actor: &Actor) -> Option<String> {
    match actor {
        Actor::Operator(name) => Some(format!("operator:{name}")),
        Actor::Host(id) => Some(format!("host:{id}")),
        Actor::Reconciler => None,
    }
}

//! What those who store an intent, those who carry it out and those who watch a host tell each other:
//! that there is something to do, what is awaited, and what became of a mutation. It stands below
//! all of them, stores nothing and decides nothing: who is told nothing finds it out by itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain::id::{HostId, TopologyId};
use domain::name::TopologyName;
use domain::topology::mutation::state::MutationState;
use domain::topology::status::TopologyStatus;
use time::OffsetDateTime;
use tokio::sync::Notify;

use crate::bus::Bus;
use crate::db::queue::{Changed, MutationRow};
use crate::db::{Store, StoreError};

/// Wakes the reconciler.
#[derive(Clone, Default)]
pub struct Waker {
    inner: Arc<WakerInner>,
}

#[derive(Default)]
struct WakerInner {
    notify: Notify,
    connected: Mutex<Vec<HostId>>,
}

impl Waker {
    /// Something may have changed.
    pub fn wake(&self) {
        self.inner.notify.notify_one();
    }

    /// A host has connected: what was sent on its last connection may not have arrived.
    pub fn connected(&self, host: HostId) {
        self.inner
            .connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(host);
        self.wake();
    }

    /// Waits until it is woken: at once, when that was done meanwhile.
    pub(crate) async fn woken(&self) {
        self.inner.notify.notified().await;
    }

    /// The hosts that have connected since this was last asked.
    pub(crate) fn take_connected(&self) -> Vec<HostId> {
        std::mem::take(
            &mut *self
                .inner
                .connected
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// Wakes who carries out mutations.
#[derive(Clone, Default)]
pub struct MutationWaker {
    notify: Arc<Notify>,
}

impl MutationWaker {
    /// Something was queued, or became due.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// Waits until it is woken: at once, when that was done meanwhile.
    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }
}

/// What is awaited of each live topology, for a person.
#[derive(Default)]
pub struct Conditions {
    texts: Mutex<HashMap<TopologyId, String>>,
}

impl Conditions {
    /// What is awaited of a topology, if anything.
    pub fn of(&self, topology: TopologyId) -> Option<String> {
        self.texts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&topology)
            .cloned()
    }

    /// Puts what is awaited now in the place of what was.
    pub(crate) fn replace(&self, texts: HashMap<TopologyId, String>) {
        *self.texts.lock().unwrap_or_else(PoisonError::into_inner) = texts;
    }
}

/// Tells that a topology has changed its status.
pub(crate) fn tell_status(
    bus: &Bus,
    (topology, name): (TopologyId, &TopologyName),
    [from, to]: [TopologyStatus; 2],
    reason: &str,
) {
    bus.publish(
        format!("topology.{topology}.status"),
        serde_json::json!({
            "topology_id": topology.to_string(),
            "name": name.as_str(),
            "from": from.as_str(),
            "state": to.as_str(),
            "reason": reason,
        }),
    );
}

/// Tells that a mutation is new or has changed its state.
pub(crate) fn tell(bus: &Bus, row: &MutationRow) {
    tracing::info!(
        topology.id = %row.topology,
        mutation.id = %row.id,
        op = row.op,
        state = %row.state,
        "mutation"
    );
    let word = if row.state == MutationState::Pending {
        "enqueued"
    } else {
        row.state.as_str()
    };
    bus.publish(
        format!("topology.{}.mutation.{word}", row.topology),
        serde_json::json!({
            "topology_id": row.topology.to_string(),
            "mutation_id": row.id.to_string(),
            "sequence": row.sequence,
            "op": row.op,
            "state": row.state.as_str(),
            "cause": row.cause,
            "revision": row.revision.map(domain::revision::Revision::get),
            "reason": row.reason,
        }),
    );
}

/// Mutations that are read at once.
const PAGE: u32 = 1000;

/// Tells of the mutations that ended together with a change of their topology's status, which was
/// stored as of `at`.
pub(crate) async fn tell_ended(
    store: &dyn Store,
    bus: &Bus,
    topology: TopologyId,
    at: OffsetDateTime,
) -> Result<(), StoreError> {
    let mut behind = Changed::since(at);
    loop {
        let rows = store.mutations_changed(topology, behind, PAGE).await?;
        let ended = rows.iter().filter(|row| row.state.is_final());
        ended.for_each(|row| tell(bus, row));
        match rows.last() {
            Some(last) => behind = Changed::of(last),
            None => return Ok(()),
        }
    }
}

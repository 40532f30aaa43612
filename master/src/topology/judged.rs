//! Topologies as they were last read, with what is wrong with them: a large one takes long to be read
//! and judged, and whoever looks at it asks again and again. Whether it is still what is stored is
//! asked of the store each time, whoever else writes there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::id::TopologyId;
use domain::topology::Topology;
use domain::topology::finding::Finding;
use domain::topology::validate::validate;

use super::find::{FindError, find_topology};
use crate::db::{Store, StoreError, TopologyRow};

/// Most LANs, deckies and edges that are kept, of all topologies together.
const MOST: usize = 16_384;

/// A topology that was read and judged.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    /// What is stored.
    pub(super) row: Arc<TopologyRow>,
    /// What is wrong with it.
    pub(super) findings: Arc<[Finding]>,
}

/// What was read and judged lately.
#[derive(Debug, Default)]
pub struct Judgements(Mutex<HashMap<TopologyId, Judged>>);

impl Judgements {
    /// The topology of that id or name, as it is stored.
    pub(super) async fn of(&self, store: &dyn Store, reference: &str) -> Result<Judged, FindError> {
        let failed = |source| FindError::Store {
            noun: "topology",
            source,
        };
        let id = match reference.parse() {
            Ok(id) => Some(id),
            Err(_) => store.topology_named(reference).await.map_err(failed)?,
        };
        if let Some(id) = id
            && let Some(kept) = self.kept(store, id).await.map_err(failed)?
        {
            return Ok(kept);
        }
        let row = find_topology(store, reference).await?;
        let judged = Judged {
            findings: validate(&row.topology).into(),
            row: Arc::new(row),
        };
        self.keep(judged.clone());
        Ok(judged)
    }

    /// The one that is kept, if it is what is stored. Every edit is another revision, so that the parts
    /// need not be compared.
    async fn kept(&self, store: &dyn Store, id: TopologyId) -> Result<Option<Judged>, StoreError> {
        let Some(kept) = self.shelf().get(&id).cloned() else {
            return Ok(None);
        };
        let head = store.topology_head(id).await?;
        if head
            .as_ref()
            .is_some_and(|head| is_head_of(head, &kept.row))
        {
            return Ok(Some(kept));
        }
        self.shelf().remove(&id);
        Ok(None)
    }

    fn keep(&self, judged: Judged) {
        let mut shelf = self.shelf();
        shelf.remove(&judged.row.topology.id);
        let kept: usize = shelf.values().map(|kept| size(&kept.row.topology)).sum();
        let size = size(&judged.row.topology);
        if kept + size > MOST {
            shelf.clear();
        }
        if size <= MOST {
            shelf.insert(judged.row.topology.id, judged);
        }
    }

    fn shelf(&self) -> MutexGuard<'_, HashMap<TopologyId, Judged>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(topology: &Topology) -> usize {
    topology.lans.len() + topology.deckies.len() + topology.edges.len()
}

/// Whether a topology without its parts is the same as one with them.
fn is_head_of(head: &TopologyRow, row: &TopologyRow) -> bool {
    // No `..`: whatever a row comes to have is compared.
    let TopologyRow {
        topology,
        status,
        status_at,
        reason,
        deadline,
        desired,
        applied,
    } = row;
    let Topology {
        id,
        name,
        host,
        revision,
        lans: _,
        deckies: _,
        edges: _,
    } = topology;
    let other = &head.topology;
    (id, name, host, revision) == (&other.id, &other.name, &other.host, &other.revision)
        && (status, status_at, reason) == (&head.status, &head.status_at, &head.reason)
        && (deadline, desired, applied) == (&head.deadline, &head.desired, &head.applied)
}

//! Deckies that mutate by themselves: which are due, and when the next one is.
//!
//! The truth is in the database: when the services of a decky last changed. What is remembered
//! here is only what was tried since, so that a mutation that cannot be carried out is tried once
//! an interval and not again and again.

use std::collections::{BTreeMap, BTreeSet};

use domain::decky_mutation::{Trigger, due};
use domain::id::{DeckyId, TopologyId};
use domain::topology::mutation::Op;
use domain::topology::mutation::state::MutationState;
use proto::queued::Queued;
use time::OffsetDateTime;

use crate::chain::Chain;
use crate::db::queue::{MutationPage, MutationRow};
use crate::db::{Actor, StoreError};
use crate::topology::{Change, ChangeError, EditOrder, Editor, Mode};

/// Most mutations of one topology that are looked through for one on its way.
const LOOKED: u32 = 1000;

pub(super) struct Schedule {
    editor: Editor,
    tried: BTreeMap<DeckyId, OffsetDateTime>,
}

impl Schedule {
    pub(super) const fn new(editor: Editor) -> Self {
        Self {
            editor,
            tried: BTreeMap::new(),
        }
    }

    /// Queues a mutation of every topology of which deckies are due; when the next ones will be.
    pub(super) async fn queue_due(&mut self) -> Result<Option<OffsetDateTime>, StoreError> {
        let scheduled = self.editor.store.scheduled().await?;
        let known: BTreeSet<_> = scheduled.iter().map(|each| each.decky).collect();
        self.tried.retain(|decky, _| known.contains(decky));
        let now = (self.editor.clock)();
        let mut next: Option<OffsetDateTime> = None;
        // One mutation for all of them: what was deployed together is due together, and each that is
        // queued is judged behind all that are.
        let mut due_now: BTreeMap<TopologyId, BTreeSet<DeckyId>> = BTreeMap::new();
        for each in scheduled {
            // One of which it is not told yet that it serves anything is told of soon.
            let Some(last) = each.last else { continue };
            let last = self.tried.get(&each.decky).map_or(last, |at| last.max(*at));
            let mut at = due(each.every, last);
            if at <= now {
                due_now.entry(each.topology).or_default().insert(each.decky);
                at = due(each.every, now);
            }
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        for (topology, mut deckies) in due_now {
            let moving = self.on_their_way(topology).await?;
            let tried = deckies.clone();
            deckies.retain(|decky| !moving.contains(decky));
            if !deckies.is_empty() {
                self.queue(topology, &deckies).await?;
            }
            self.tried
                .extend(tried.into_iter().map(|decky| (decky, now)));
        }
        Ok(next)
    }

    async fn queue(
        &self,
        topology: TopologyId,
        deckies: &BTreeSet<DeckyId>,
    ) -> Result<(), StoreError> {
        let order = EditOrder {
            topology: &topology.to_string(),
            change: Change::These(deckies),
            expected: None,
            mode: Mode::Do,
            cause: Trigger::Scheduled,
            actor: Actor::Reconciler,
        };
        match self.editor.edit(&order).await {
            Ok(_) => Ok(()),
            Err(ChangeError::Read(source)) => Err(source),
            // The topology has just gone: the next interval tells.
            Err(error) => {
                tracing::info!(
                    topology.id = %topology,
                    deckies = deckies.len(),
                    error = %Chain(&error),
                    "scheduled mutation left out"
                );
                Ok(())
            }
        }
    }

    /// Deckies whose services a mutation changes that has not ended.
    async fn on_their_way(&self, topology: TopologyId) -> Result<BTreeSet<DeckyId>, StoreError> {
        let mut moving = BTreeSet::new();
        for state in [MutationState::Pending, MutationState::Applying] {
            let page = MutationPage {
                state: Some(state),
                before: None,
            };
            let rows = self.editor.store.mutations(topology, page, LOOKED).await?;
            moving.extend(rows.iter().flat_map(deckies_served_otherwise));
        }
        Ok(moving)
    }
}

/// The deckies whose services a mutation changes, new and removed ones included.
pub(crate) fn deckies_served_otherwise(row: &MutationRow) -> Vec<DeckyId> {
    let Ok(queued) = Queued::from_json(&row.payload) else {
        return Vec::new();
    };
    let ops = queued.mutation.ops().iter();
    ops.filter_map(|op| match op {
        Op::AddDecky(new) => Some(new.decky.id),
        Op::RemoveDecky { decky } => Some(*decky),
        Op::UpdateDecky { decky, patch } => patch.services.as_ref().map(|_| *decky),
        Op::AddLan(_)
        | Op::RemoveLan { .. }
        | Op::UpdateLan { .. }
        | Op::AttachDecky { .. }
        | Op::DetachDecky { .. } => None,
    })
    .collect()
}

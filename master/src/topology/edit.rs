//! Edits of topologies: read against what is stored and everything that is queued, then stored at
//! once while no host is to hold the topology, or queued while one is. It carries out nothing that
//! was queued: that is [`crate::mutate`]'s.

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::decky_mutation::{Trigger, next_mutation};
use domain::id::{DeckyId, TopologyId};
use domain::revision::Revision;
use domain::topology::allocate::{SubnetAllocator, SubnetBase};
use domain::topology::diff::Difference;
use domain::topology::draft::Draft;
use domain::topology::finding::{Finding, FindingCode};
use domain::topology::mutation::draft::{Context, MutationDraft, OpDraft, resolve};
use domain::topology::mutation::state::MutationState;
use domain::topology::mutation::{self, Mutation, Op, Regime};
use domain::topology::status::TopologyStatus;
use domain::topology::validate::Limits;
use domain::topology::{Decky, Topology};
use ipnet::Ipv4Net;
use proto::difference::changes;
use proto::queued::{InvalidQueued, Queued};
use tokio::sync::Mutex;

use super::find::{FindError, find_topology};
use crate::bus::Bus;
use crate::clock::Clock;
use crate::crash;
use crate::db::queue::{
    CancelError, EditError, EnqueueError, MutationId, MutationPage, MutationRow, NewMutation,
};
use crate::db::{Actor, Store, StoreError, TopologyRow};
use crate::entropy::{OsEntropy, random, uuid_v7};
use crate::signal::{MutationWaker, tell};

/// How often an edit is read anew when others were quicker.
const ATTEMPTS: u32 = 32;

/// Edits topologies.
#[derive(Clone)]
pub struct Editor {
    /// Where they are stored.
    pub store: Arc<dyn Store>,
    /// Where changes are told.
    pub bus: Arc<Bus>,
    /// Wakes who carries out what is queued.
    pub waker: MutationWaker,
    /// The time.
    pub clock: Clock,
    /// How large a topology may be.
    pub limits: Limits,
    /// Held from the look at which subnets are taken until one is: two edits of two topologies
    /// would find the same one free.
    allocating: Arc<Mutex<()>>,
}

/// An edit that is asked for.
#[derive(Debug, Clone)]
pub struct EditOrder<'a> {
    /// The topology, by id or name.
    pub topology: &'a str,
    /// What is to be done.
    pub change: Change<'a>,
    /// The revision that the caller has seen, if it says so.
    pub expected: Option<Revision>,
    /// Whether it is done or only told.
    pub mode: Mode,
    /// Why.
    pub cause: Trigger,
    /// Who.
    pub actor: Actor,
}

/// What an edit does.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// Operations, as they were written.
    Ops(&'a MutationDraft),
    /// Whatever makes the topology be what a file says.
    File(&'a Draft),
    /// Operations with nothing left to choose.
    Exactly(&'a Mutation),
    /// Other services for one decky, by id or name.
    Decky(&'a str),
    /// Other services for every decky that has others to show.
    Deckies,
    /// The same for those of them that are among these.
    These(&'a BTreeSet<DeckyId>),
}

/// Whether an edit is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is done.
    Do,
    /// It is only told.
    Plan,
}

/// What became of an edit.
#[derive(Debug)]
pub struct Edited {
    /// What became of it.
    pub outcome: Outcome,
    /// The revision that is stored.
    pub revision: Revision,
    /// What it changes.
    pub difference: Difference,
    /// What is wrong with what comes of it, and did not stop it.
    pub findings: Vec<Finding>,
}

/// What became of an edit.
#[derive(Debug)]
pub enum Outcome {
    /// It is stored.
    Applied,
    /// It is queued.
    Queued(Box<MutationRow>),
    /// There was nothing to do.
    Unchanged,
    /// It was only told.
    Planned,
}

/// Why an edit was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Nothing has that id or name.
    #[error(transparent)]
    Find(FindError),
    /// The topology goes, or is gone.
    #[error("a topology that is {0} is not edited")]
    NotEditable(TopologyStatus),
    /// It was edited since the caller has seen it.
    #[error("the topology has revision {current}, not {expected}")]
    Stale {
        /// What the caller saw.
        expected: Revision,
        /// What is stored.
        current: Revision,
    },
    /// It cannot be read, or breaks rules.
    #[error("the edit is refused")]
    Refused(Vec<Finding>),
    /// Others were quicker each time.
    #[error("others edit the topology without a pause")]
    Contended,
    /// The store failed.
    #[error("what the edit is read against could not be read")]
    Read(#[source] StoreError),
    /// The draft was not stored.
    #[error("the edit was not stored")]
    Edit(#[source] EditError),
    /// The mutation was not queued.
    #[error("the edit was not queued")]
    Enqueue(#[source] EnqueueError),
}

/// Why a mutation was not undone.
#[derive(Debug, thiserror::Error)]
pub enum RevertError {
    /// There is no such mutation.
    #[error("there is no such mutation")]
    Unknown,
    /// It has changed nothing.
    #[error("a mutation that is {0} and was not committed has changed nothing")]
    NothingDone(MutationState),
    /// It was queued by another release.
    #[error("what the mutation did cannot be read")]
    Malformed(#[source] InvalidQueued),
    /// The store failed.
    #[error("mutation could not be read")]
    Read(#[source] StoreError),
    /// What undoes it was not made.
    #[error(transparent)]
    Change(ChangeError),
}

/// Against what an edit is read.
struct Base {
    row: TopologyRow,
    regime: Regime,
    /// The topology once everything is done that is queued.
    topology: Topology,
    /// The last of the queue, queued or done; 0 when there never was one.
    last: u64,
}

// === impl Editor ===

impl Editor {
    /// An editor of topologies as large as may be by default.
    pub fn new(store: Arc<dyn Store>, bus: Arc<Bus>, waker: MutationWaker, clock: Clock) -> Self {
        Self {
            store,
            bus,
            waker,
            clock,
            limits: Limits::default(),
            allocating: Arc::default(),
        }
    }

    /// Makes an edit, or says why not. Others may edit meanwhile: it is then read anew.
    pub async fn edit(&self, order: &EditOrder<'_>) -> Result<Edited, ChangeError> {
        let _alone = match order.change {
            Change::Ops(draft) if wants_subnet(draft) => Some(self.allocating.lock().await),
            Change::Ops(_)
            | Change::File(_)
            | Change::Exactly(_)
            | Change::Decky(_)
            | Change::Deckies
            | Change::These(_) => None,
        };
        for _ in 0..ATTEMPTS {
            let base = self.base(order).await?;
            if let Some(edited) = self.attempt(&base, order).await? {
                return Ok(edited);
            }
        }
        Err(ChangeError::Contended)
    }

    /// Undoes what a mutation has done, and only that.
    pub async fn revert(
        &self,
        id: MutationId,
        expected: Option<Revision>,
        actor: Actor,
    ) -> Result<Edited, RevertError> {
        let row = self.store.mutation(id).await.map_err(RevertError::Read)?;
        let row = row.ok_or(RevertError::Unknown)?;
        if row.revision.is_none() {
            return Err(RevertError::NothingDone(row.state));
        }
        let queued = Queued::from_json(&row.payload).map_err(RevertError::Malformed)?;
        let nothing = Mutation::Batch(Vec::new());
        let undo = queued.undo.unwrap_or(nothing);
        self.edit(&EditOrder {
            topology: &row.topology.to_string(),
            change: Change::Exactly(&undo),
            expected,
            mode: Mode::Do,
            cause: Trigger::Operator,
            actor,
        })
        .await
        .map_err(RevertError::Change)
    }

    /// Takes a mutation back that is not committed.
    pub async fn cancel(&self, id: MutationId, actor: Actor) -> Result<MutationRow, CancelError> {
        let now = (self.clock)();
        self.store.cancel_mutation(id, actor, now).await?;
        // What was behind it is now the first of its queue.
        self.waker.wake();
        let row = self.store.mutation(id).await.map_err(CancelError::Store)?;
        let row = row.ok_or(CancelError::Unknown)?;
        tell(&self.bus, &row);
        Ok(row)
    }

    async fn base(&self, order: &EditOrder<'_>) -> Result<Base, ChangeError> {
        let row = find_topology(self.store.as_ref(), order.topology)
            .await
            .map_err(ChangeError::Find)?;
        let current = row.topology.revision;
        if let Some(expected) = order.expected.filter(|expected| *expected != current) {
            return Err(ChangeError::Stale { expected, current });
        }
        let regime = Regime::of(row.status).ok_or(ChangeError::NotEditable(row.status))?;
        let id = row.topology.id;
        let (last, queued) = match regime {
            Regime::Pending => (0, Vec::new()),
            Regime::Live => {
                // The last first: one that is queued between the two reads is then found out when
                // this is queued behind the wrong one.
                let newest = self
                    .store
                    .mutations(id, MutationPage::default(), 1)
                    .await
                    .map_err(ChangeError::Read)?;
                let last = newest.first().map_or(0, |row| row.sequence);
                (last, self.queued(id).await?)
            }
        };
        Ok(Base {
            topology: mutation::after(&row.topology, &queued, regime, &self.limits),
            row,
            regime,
            last,
        })
    }

    async fn queued(&self, topology: TopologyId) -> Result<Vec<Mutation>, ChangeError> {
        let rows = self.store.pending_mutations(topology).await;
        let rows = rows.map_err(ChangeError::Read)?;
        // One that cannot be read will be refused when its turn comes.
        Ok(rows
            .iter()
            .filter_map(|row| Queued::from_json(&row.payload).ok())
            .map(|queued| queued.mutation)
            .collect())
    }

    /// One attempt; none when others were quicker.
    async fn attempt(
        &self,
        base: &Base,
        order: &EditOrder<'_>,
    ) -> Result<Option<Edited>, ChangeError> {
        let revision = base.row.topology.revision;
        let unchanged = |findings| Edited {
            outcome: Outcome::Unchanged,
            revision,
            difference: Difference::default(),
            findings,
        };
        let Some(mutation) = self.read(base, order.change).await? else {
            return Ok(Some(unchanged(Vec::new())));
        };
        let applied = mutation
            .apply(&base.topology, base.regime, &self.limits)
            .map_err(ChangeError::Refused)?;
        let difference = Difference::between(&base.topology, &applied.topology);
        if difference.is_empty() {
            return Ok(Some(unchanged(applied.findings)));
        }
        let outcome = match (order.mode, base.regime) {
            (Mode::Plan, _) => Some((Outcome::Planned, revision)),
            (Mode::Do, Regime::Pending) => self.store_draft(base, applied.topology, order).await?,
            (Mode::Do, Regime::Live) => self.enqueue(base, mutation, &difference, order).await?,
        };
        Ok(outcome.map(|(outcome, revision)| Edited {
            outcome,
            revision,
            difference,
            findings: applied.findings,
        }))
    }

    /// What is asked for, with nothing left to choose; none when that is nothing.
    async fn read(&self, base: &Base, change: Change<'_>) -> Result<Option<Mutation>, ChangeError> {
        match change {
            Change::Exactly(mutation) => Ok(Some(mutation.clone())),
            Change::Ops(draft) => self.read_ops(base, draft).await.map(Some),
            Change::File(draft) => self.read_file(base, draft).map_err(ChangeError::Refused),
            Change::Decky(reference) => {
                let decky = find_decky(&base.topology, reference).map_err(ChangeError::Find)?;
                let next = next_mutation(decky, random());
                next.map(Some).ok_or_else(|| {
                    ChangeError::Refused(vec![Finding::error(
                        FindingCode::ChangeRefused,
                        format!("decky {}", decky.name),
                        "decky",
                        "its archetype and persona leave it no other set of services",
                    )])
                })
            }
            Change::Deckies => Ok(other_services(&base.topology, |_| true)),
            Change::These(deckies) => Ok(other_services(&base.topology, |decky| {
                deckies.contains(&decky)
            })),
        }
    }

    /// The ranges of every LAN of a topology that is not torn down, those that are only queued among
    /// them.
    pub(super) async fn taken_subnets(&self) -> Result<Vec<Ipv4Net>, StoreError> {
        // Queued first: one that is committed between the two reads is then seen twice, not never.
        let queued = self.store.every_pending_mutation().await?;
        let mut taken = self.store.taken_subnets().await?;
        for row in queued {
            // One that cannot be read will be refused when its turn comes.
            let Ok(queued) = Queued::from_json(&row.payload) else {
                continue;
            };
            let ops = queued.mutation.ops().iter();
            taken.extend(ops.filter_map(|op| match op {
                Op::AddLan(lan) => Some(lan.subnet),
                Op::RemoveLan { .. }
                | Op::UpdateLan { .. }
                | Op::AddDecky(_)
                | Op::RemoveDecky { .. }
                | Op::UpdateDecky { .. }
                | Op::AttachDecky { .. }
                | Op::DetachDecky { .. } => None,
            }));
        }
        Ok(taken)
    }

    async fn read_ops(&self, base: &Base, draft: &MutationDraft) -> Result<Mutation, ChangeError> {
        let mut taken = if wants_subnet(draft) {
            self.taken_subnets().await.map_err(ChangeError::Read)?
        } else {
            Vec::new()
        };
        taken.extend(base.topology.lans.iter().map(|lan| lan.subnet));
        resolve(
            draft,
            &mut Context {
                topology: &base.topology,
                regime: base.regime,
                limits: &self.limits,
                subnets: &mut SubnetAllocator::new(SubnetBase::default(), taken),
                entropy: &mut OsEntropy::at((self.clock)()),
            },
        )
        .map_err(ChangeError::Refused)
    }

    fn read_file(&self, base: &Base, draft: &Draft) -> Result<Option<Mutation>, Vec<Finding>> {
        let stored = &base.topology.name;
        if !draft.name.eq_ignore_ascii_case(stored.as_str()) {
            return Err(vec![Finding::error(
                FindingCode::ChangeRefused,
                "topology",
                "name",
                format!("the topology is named {stored} and stays so; give the file that name"),
            )]);
        }
        let mut entropy = OsEntropy::at((self.clock)());
        let read = draft.resolve_onto(&base.topology, &self.limits, &mut entropy);
        if !read.findings.is_empty() {
            return Err(read.findings);
        }
        Ok(Difference::between(&base.topology, &read.topology).mutation())
    }

    async fn store_draft(
        &self,
        base: &Base,
        mut topology: Topology,
        order: &EditOrder<'_>,
    ) -> Result<Option<(Outcome, Revision)>, ChangeError> {
        topology.revision = base.row.topology.revision;
        let now = (self.clock)();
        let stored = self
            .store
            .edit_draft(&topology, order.actor.clone(), now)
            .await;
        match stored {
            Ok(revision) => {
                self.bus.publish(
                    format!("topology.{}.edit", topology.id),
                    serde_json::json!({
                        "topology_id": topology.id.to_string(),
                        "name": topology.name.as_str(),
                        "revision": revision.get(),
                    }),
                );
                Ok(Some((Outcome::Applied, revision)))
            }
            Err(EditError::StaleRevision { .. } | EditError::NotDraft(_)) => Ok(None),
            Err(error @ (EditError::Unknown | EditError::Store(_))) => {
                Err(ChangeError::Edit(error))
            }
        }
    }

    async fn enqueue(
        &self,
        base: &Base,
        mutation: Mutation,
        difference: &Difference,
        order: &EditOrder<'_>,
    ) -> Result<Option<(Outcome, Revision)>, ChangeError> {
        let now = (self.clock)();
        let revision = base.row.topology.revision;
        let queued = Queued {
            undo: None,
            changes: changes(difference),
            words: difference.to_string(),
            mutation,
        };
        let new = NewMutation {
            id: MutationId::new(uuid_v7(now)),
            topology: base.row.topology.id,
            op: queued.mutation.as_str().to_owned(),
            payload: queued.to_json(),
            cause: order.cause.as_str().to_owned(),
            expected_revision: Some(revision),
            expected_last: Some(base.last),
            actor: order.actor.clone(),
            now,
        };
        match self.store.enqueue_mutation(new).await {
            Ok(row) => {
                crash::point("mutation.enqueued");
                tell(&self.bus, &row);
                self.waker.wake();
                Ok(Some((Outcome::Queued(Box::new(row)), revision)))
            }
            Err(
                EnqueueError::StaleRevision { .. }
                | EnqueueError::Overtaken { .. }
                | EnqueueError::NotLive(_),
            ) => Ok(None),
            Err(error @ (EnqueueError::Unknown | EnqueueError::Store(_))) => {
                Err(ChangeError::Enqueue(error))
            }
        }
    }
}

/// Whether a subnet has to be found: only then is it read which are taken.
fn wants_subnet(draft: &MutationDraft) -> bool {
    let ops = match draft {
        MutationDraft::One(op) => std::slice::from_ref(op),
        MutationDraft::Batch(ops) => ops,
    };
    ops.iter()
        .any(|op| matches!(op, OpDraft::AddLan(lan) if lan.subnet.is_empty()))
}

/// Other services for the deckies that are meant and have others to show; none when there is none.
fn other_services(topology: &Topology, meant: impl Fn(DeckyId) -> bool) -> Option<Mutation> {
    let deckies = topology.deckies.iter().filter(|decky| meant(decky.id));
    let mut mutations: Vec<Mutation> = deckies
        .filter_map(|decky| next_mutation(decky, random()))
        .collect();
    match mutations.len() {
        0 | 1 => mutations.pop(),
        _ => {
            let ops = mutations
                .iter()
                .flat_map(|mutation| mutation.ops().to_vec());
            Some(Mutation::Batch(ops.collect()))
        }
    }
}

/// The decky of that id or name.
pub(super) fn find_decky<'a>(
    topology: &'a Topology,
    reference: &str,
) -> Result<&'a Decky, FindError> {
    let id: Option<DeckyId> = reference.parse().ok();
    id.and_then(|id| topology.decky(id))
        .or_else(|| {
            let mut deckies = topology.deckies.iter();
            deckies.find(|decky| decky.name.as_str().eq_ignore_ascii_case(reference))
        })
        .ok_or_else(|| FindError::Unknown {
            noun: "decky",
            key: reference.to_owned(),
        })
}

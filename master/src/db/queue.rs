//! Edits of topologies: drafts at once, live ones through a queue; and where things are drawn.
//!
//! What a mutation means is the domain's: here it is a word and a JSON text.

use std::fmt;

use async_trait::async_trait;
use domain::assign::Assignment;
use domain::id::{DeckyId, TopologyId};
use domain::interval::Interval;
use domain::revision::{Fence, Revision};
use domain::topology::Topology;
use domain::topology::hydrate::VersionHash;
use domain::topology::mutation::state::MutationState;
use domain::topology::status::TopologyStatus;
use ipnet::Ipv4Net;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Actor, StoreError};

/// A queued edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MutationId(Uuid);

impl MutationId {
    /// Wraps a UUID that the caller made (version 7).
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The UUID itself.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for MutationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of a worker that carries out mutations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WorkerId(Uuid);

impl WorkerId {
    /// Wraps a UUID that the caller made.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The UUID itself.
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

/// A mutation that is to be queued.
#[derive(Debug, Clone)]
pub struct NewMutation {
    /// Its identity.
    pub id: MutationId,
    /// The topology.
    pub topology: TopologyId,
    /// The domain's word for what it does.
    pub op: String,
    /// What it does, as JSON.
    pub payload: String,
    /// The domain's word for what caused it.
    pub cause: String,
    /// The revision against which it was checked; none queues it whatever was edited meanwhile.
    pub expected_revision: Option<Revision>,
    /// The last of the queue against which it was checked (0: it was empty ever); none queues it
    /// whatever was queued meanwhile.
    pub expected_last: Option<u64>,
    /// Who.
    pub actor: Actor,
    /// The time.
    pub now: OffsetDateTime,
}

/// A mutation, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MutationRow {
    /// Its identity.
    pub id: MutationId,
    /// The topology.
    pub topology: TopologyId,
    /// Its place in the queue of its topology, from 1.
    pub sequence: u64,
    /// The domain's word for what it does.
    pub op: String,
    /// What it does, as JSON.
    pub payload: String,
    /// The domain's word for what caused it.
    pub cause: String,
    /// Who.
    pub actor: Actor,
    /// Where it stands.
    pub state: MutationState,
    /// When it was queued.
    pub enqueued_at: OffsetDateTime,
    /// When its state last changed.
    pub changed_at: OffsetDateTime,
    /// How often it was claimed.
    pub claims: u32,
    /// The revision that it made, once it is committed.
    pub revision: Option<Revision>,
    /// The fence under which its host is to hold it, once it is committed.
    pub fence: Option<Fence>,
    /// Why it has failed; findings are JSON.
    pub reason: String,
}

/// Why a mutation was not queued.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// No such topology.
    #[error("there is no such topology")]
    Unknown,
    /// Its status takes no mutations.
    #[error("a topology that is {0} takes no mutations")]
    NotLive(TopologyStatus),
    /// It was edited meanwhile.
    #[error("the topology has revision {current}, not {expected}")]
    StaleRevision {
        /// What the caller saw.
        expected: Revision,
        /// What is stored.
        current: Revision,
    },
    /// Another mutation was queued meanwhile.
    #[error("mutation {last} was queued meanwhile")]
    Overtaken {
        /// The last one.
        last: u64,
    },
    /// The store failed.
    #[error("mutation could not be queued")]
    Store(#[source] StoreError),
}

/// A mutation's effect, to be stored.
#[derive(Debug, Clone)]
pub struct Application {
    /// The mutation.
    pub mutation: MutationId,
    /// Who has claimed it.
    pub worker: WorkerId,
    /// The graph as it is to be; its `revision` is the one that it was made from.
    pub topology: Topology,
    /// The hash of the hydrated document.
    pub hash: VersionHash,
    /// The hydrated document.
    pub hydrated: Vec<u8>,
    /// What it has done and what undoes that, as JSON, in place of what was queued.
    pub payload: String,
    /// The time.
    pub now: OffsetDateTime,
}

/// What became of a mutation that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The new revision.
    pub revision: Revision,
    /// What its host is assigned.
    pub assignment: Assignment,
}

/// Why a mutation's effect was not stored: nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It is no longer the worker's: the lease ran out, or it was cancelled.
    #[error("the claim on the mutation is lost")]
    Lost,
    /// Its topology does not live on a host any more.
    #[error("the topology is {0}")]
    NotLive(TopologyStatus),
    /// The topology was edited meanwhile.
    #[error("the topology has revision {current}, not {expected}")]
    StaleRevision {
        /// What the worker saw.
        expected: Revision,
        /// What is stored.
        current: Revision,
    },
    /// The store failed.
    #[error("mutation could not be committed")]
    Store(#[source] StoreError),
}

/// A mutation that is refused before it is committed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The mutation.
    pub mutation: MutationId,
    /// Who has claimed it.
    pub worker: WorkerId,
    /// Why; findings are JSON.
    pub reason: String,
    /// The time.
    pub now: OffsetDateTime,
}

/// What a host says of the mutations that are on their way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// It holds what they have made.
    Reported,
    /// It could not carry them out, for that reason.
    Failed(String),
}

/// Which mutations of a topology, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MutationPage {
    /// In this state.
    pub state: Option<MutationState>,
    /// Before this sequence number.
    pub before: Option<u64>,
}

/// A place in the order in which the mutations of a topology changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// When one changed.
    pub at: OffsetDateTime,
    /// Which one: several may change at one time.
    pub sequence: u64,
}

impl Changed {
    /// The place in front of everything that changed at `at` or later: sequence numbers begin at 1.
    pub const fn since(at: OffsetDateTime) -> Self {
        Self { at, sequence: 0 }
    }

    /// The place of a mutation.
    pub const fn of(row: &MutationRow) -> Self {
        Self {
            at: row.changed_at,
            sequence: row.sequence,
        }
    }
}

/// A decky that mutates by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduled {
    /// Its topology, which a host holds.
    pub topology: TopologyId,
    /// The decky.
    pub decky: DeckyId,
    /// How often.
    pub every: Interval,
    /// When its services last changed, or were first there; none while that was not told.
    pub last: Option<OffsetDateTime>,
}

/// Why a mutation was not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// No such mutation.
    #[error("there is no such mutation")]
    Unknown,
    /// It is committed, or has ended.
    #[error("a mutation that is {0} cannot be cancelled")]
    NotPending(MutationState),
    /// The store failed.
    #[error("mutation could not be cancelled")]
    Store(#[source] StoreError),
}

/// Why a draft was not edited.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// No such topology.
    #[error("there is no such topology")]
    Unknown,
    /// It is no draft.
    #[error("a topology that is {0} is edited by mutations")]
    NotDraft(TopologyStatus),
    /// It was edited meanwhile.
    #[error("the topology has revision {current}, not {expected}")]
    StaleRevision {
        /// What the caller saw.
        expected: Revision,
        /// What is stored.
        current: Revision,
    },
    /// The store failed.
    #[error("topology could not be edited")]
    Store(#[source] StoreError),
}

/// Where an object of a topology is drawn, in pixels of the canvas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The id of a LAN or decky.
    pub object: Uuid,
    /// From the left.
    pub x: i64,
    /// From the top.
    pub y: i64,
    /// Its size, when it was given one.
    pub size: Option<(i64, i64)>,
}

/// Edits of topologies.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Stores the graph and the target of a draft (pending or failed) under the next revision,
    /// when its `revision` is still the stored one.
    async fn edit_draft(
        &self,
        topology: &Topology,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<Revision, EditError>;

    /// Queues a mutation of a topology that is deploying, active or degraded.
    async fn enqueue_mutation(&self, mutation: NewMutation) -> Result<MutationRow, EnqueueError>;
    /// Claims the first pending mutation of some queue, when nobody has a lease on it; longest
    /// queued first. Of those that race one wins.
    async fn claim_mutation(
        &self,
        worker: WorkerId,
        lease_until: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<Option<MutationRow>, StoreError>;
    /// Stores the effect of a claimed mutation: the graph under the next revision, the host's
    /// assignment under the next generation, the mutation as applying, audit; all or nothing.
    async fn commit_mutation(&self, application: Application) -> Result<Committed, CommitError>;
    /// From when on some mutation can be claimed; none when none is pending on a live topology.
    async fn next_claim(&self) -> Result<Option<OffsetDateTime>, StoreError>;
    /// Notes that a claimed mutation is refused; whether it was still the worker's to refuse.
    async fn fail_mutation(&self, failure: Failure) -> Result<bool, StoreError>;
    /// Notes what a host has said: those that are applying under that fence or an older one have
    /// ended. Gives them, in their order.
    async fn settle_mutations(
        &self,
        topology: TopologyId,
        fence: Fence,
        arrival: &Arrival,
        now: OffsetDateTime,
    ) -> Result<Vec<MutationRow>, StoreError>;
    /// Takes a pending mutation back, claimed or not.
    async fn cancel_mutation(
        &self,
        id: MutationId,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<(), CancelError>;
    /// One mutation.
    async fn mutation(&self, id: MutationId) -> Result<Option<MutationRow>, StoreError>;
    /// Mutations of a topology, newest first.
    async fn mutations(
        &self,
        topology: TopologyId,
        page: MutationPage,
        limit: u32,
    ) -> Result<Vec<MutationRow>, StoreError>;
    /// How many mutations of a topology there are, in that state when one is given.
    async fn count_mutations(
        &self,
        topology: TopologyId,
        state: Option<MutationState>,
    ) -> Result<u64, StoreError>;
    /// The first mutations of a topology whose state changed behind that place, in the order in
    /// which it did.
    async fn mutations_changed(
        &self,
        topology: TopologyId,
        behind: Changed,
        limit: u32,
    ) -> Result<Vec<MutationRow>, StoreError>;
    /// The pending mutations of a topology, in the order in which they will be applied.
    async fn pending_mutations(&self, topology: TopologyId)
    -> Result<Vec<MutationRow>, StoreError>;
    /// The pending mutations of every topology.
    async fn every_pending_mutation(&self) -> Result<Vec<MutationRow>, StoreError>;

    /// Every decky that mutates by itself and whose topology is active or degraded.
    async fn scheduled(&self) -> Result<Vec<Scheduled>, StoreError>;
    /// The ranges of the LANs of every topology that is not torn down.
    async fn taken_subnets(&self) -> Result<Vec<Ipv4Net>, StoreError>;

    /// Where the objects of a topology are drawn.
    async fn places(&self, topology: TopologyId) -> Result<Vec<Place>, StoreError>;
    /// Moves objects of a topology; others stay. No edit: the revision stays.
    async fn put_places(&self, topology: TopologyId, places: &[Place]) -> Result<(), StoreError>;
}

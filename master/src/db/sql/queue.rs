//! Mutations: queued, claimed by lease, committed with their effect, settled by what hosts report.

use async_trait::async_trait;
use domain::id::{HostId, TopologyId};
use domain::revision::{Fence, Revision};
use domain::topology::Topology;
use domain::topology::mutation::state::{MutationEvent, MutationState};
use domain::topology::status::TopologyStatus;
use ipnet::Ipv4Net;
use time::OffsetDateTime;

use super::assignments::{self, NewContent};
use super::audit::{self, Entry};
use super::cells::{Cells, actor_text, blob, failed, int, nanos};
use super::retry::again;
use super::statement::{Row, Tx, sql};
use super::{SqlStore, edits, places, status};
use crate::db::queue::{
    Application, Arrival, CancelError, Changed, CommitError, Committed, EditError, EnqueueError,
    Failure, MutationId, MutationPage, MutationRow, NewMutation, Place, Queue, Scheduled, WorkerId,
};
use crate::db::{Actor, StoreError};

const READ: &str = "read mutations";
const CHANGE: &str = "change a mutation";

/// The columns of [`mutation_row`].
macro_rules! columns {
    () => {
        "id, topology, sequence, op, payload, cause, actor, state, enqueued_at, changed_at,
         claims, revision, epoch, generation, reason"
    };
}

// Below the macro, which it uses.
mod read;

#[async_trait]
impl Queue for SqlStore {
    async fn edit_draft(
        &self,
        topology: &Topology,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<Revision, EditError> {
        again(|| edits::draft(self, topology, &actor, now)).await
    }

    async fn enqueue_mutation(&self, mutation: NewMutation) -> Result<MutationRow, EnqueueError> {
        again(|| enqueue(self, &mutation)).await
    }

    async fn claim_mutation(
        &self,
        worker: WorkerId,
        lease_until: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<Option<MutationRow>, StoreError> {
        again(|| claim(self, worker, lease_until, now)).await
    }

    async fn commit_mutation(&self, application: Application) -> Result<Committed, CommitError> {
        again(|| commit(self, &application)).await
    }

    async fn fail_mutation(&self, failure: Failure) -> Result<bool, StoreError> {
        again(|| fail(self, &failure)).await
    }

    async fn next_claim(&self) -> Result<Option<OffsetDateTime>, StoreError> {
        read::next_claim(self).await
    }

    async fn settle_mutations(
        &self,
        topology: TopologyId,
        fence: Fence,
        arrival: &Arrival,
        now: OffsetDateTime,
    ) -> Result<Vec<MutationRow>, StoreError> {
        again(|| settle(self, (topology, fence), arrival, now)).await
    }

    async fn cancel_mutation(
        &self,
        id: MutationId,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<(), CancelError> {
        again(|| cancel(self, id, &actor, now)).await
    }

    async fn mutation(&self, id: MutationId) -> Result<Option<MutationRow>, StoreError> {
        read::one(self, id).await
    }

    async fn mutations(
        &self,
        topology: TopologyId,
        page: MutationPage,
        limit: u32,
    ) -> Result<Vec<MutationRow>, StoreError> {
        read::page(self, topology, page, limit).await
    }

    async fn count_mutations(
        &self,
        topology: TopologyId,
        state: Option<MutationState>,
    ) -> Result<u64, StoreError> {
        read::count(self, topology, state).await
    }

    async fn mutations_changed(
        &self,
        topology: TopologyId,
        behind: Changed,
        limit: u32,
    ) -> Result<Vec<MutationRow>, StoreError> {
        read::changed(self, topology, behind, limit).await
    }

    async fn pending_mutations(
        &self,
        topology: TopologyId,
    ) -> Result<Vec<MutationRow>, StoreError> {
        read::pending(self, topology).await
    }

    async fn every_pending_mutation(&self) -> Result<Vec<MutationRow>, StoreError> {
        read::every_pending(self).await
    }

    async fn scheduled(&self) -> Result<Vec<Scheduled>, StoreError> {
        read::scheduled(self).await
    }

    async fn taken_subnets(&self) -> Result<Vec<Ipv4Net>, StoreError> {
        read::taken_subnets(self).await
    }

    async fn places(&self, topology: TopologyId) -> Result<Vec<Place>, StoreError> {
        places::all(self, topology).await
    }

    async fn put_places(&self, topology: TopologyId, places: &[Place]) -> Result<(), StoreError> {
        again(|| places::put(self, topology, places)).await
    }
}

fn mutation_row(row: &Row) -> Result<MutationRow, StoreError> {
    let cells = Cells::new(row, "mutation");
    let committed = cells.get::<Option<i64>>("revision")?.is_some();
    Ok(MutationRow {
        id: cells.id("id", MutationId::new)?,
        topology: cells.id("topology", TopologyId::new)?,
        sequence: cells.counter("sequence")?,
        op: cells.get("op")?,
        payload: cells.get("payload")?,
        cause: cells.get("cause")?,
        actor: cells.actor("actor")?,
        state: cells.word("state")?,
        enqueued_at: cells.time("enqueued_at")?,
        changed_at: cells.time("changed_at")?,
        claims: cells.count("claims")?,
        revision: committed.then(|| cells.revision("revision")).transpose()?,
        fence: committed
            .then(|| cells.fence("epoch", "generation"))
            .transpose()?,
        reason: cells.get("reason")?,
    })
}

/// Whether a status takes mutations: a draft is edited at once, and what goes is not edited.
const fn takes_mutations(status: TopologyStatus) -> bool {
    match status {
        TopologyStatus::Deploying | TopologyStatus::Active | TopologyStatus::Degraded => true,
        TopologyStatus::Pending
        | TopologyStatus::Failed
        | TopologyStatus::TearingDown
        | TopologyStatus::TornDown => false,
    }
}

async fn enqueue(store: &SqlStore, new: &NewMutation) -> Result<MutationRow, EnqueueError> {
    const ATTEMPT: &str = "queue a mutation";
    let mut tx = store.writing(ATTEMPT).await.map_err(EnqueueError::Store)?;
    let head = status::head(&mut tx, new.topology)
        .await
        .map_err(EnqueueError::Store)?
        .ok_or(EnqueueError::Unknown)?;
    if !takes_mutations(head.status) {
        return Err(EnqueueError::NotLive(head.status));
    }
    let current = head.revision;
    if let Some(expected) = new.expected_revision
        && expected != current
    {
        return Err(EnqueueError::StaleRevision { expected, current });
    }
    let last = last(&mut tx, new.topology)
        .await
        .map_err(EnqueueError::Store)?;
    if new.expected_last.is_some_and(|expected| expected != last) {
        return Err(EnqueueError::Overtaken { last });
    }
    let row = insert(&mut tx, new, last + 1)
        .await
        .map_err(EnqueueError::Store)?;
    tx.commit()
        .await
        .map_err(failed(ATTEMPT))
        .map_err(EnqueueError::Store)?;
    Ok(row)
}

/// The number of the newest mutation of a topology; 0 when there never was one.
async fn last(tx: &mut Tx, topology: TopologyId) -> Result<u64, StoreError> {
    let last: i64 = sql("SELECT coalesce(max(sequence), 0) FROM mutations WHERE topology = $1")
        .bind(blob(topology.uuid()))
        .fetch_value(tx)
        .await
        .map_err(failed(READ))?;
    u64::try_from(last).map_err(|_| StoreError::Malformed {
        noun: "mutation",
        column: "sequence",
    })
}

async fn insert(tx: &mut Tx, new: &NewMutation, sequence: u64) -> Result<MutationRow, StoreError> {
    let row = sql(concat!(
        "INSERT INTO mutations (id, topology, sequence, op, payload, cause, actor, state,
                                enqueued_at, changed_at, claims, reason)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'pending', $8, $8, 0, '') RETURNING ",
        columns!()
    ))
    .bind(blob(new.id.uuid()))
    .bind(blob(new.topology.uuid()))
    .bind(int(sequence))
    .bind(&new.op)
    .bind(&new.payload)
    .bind(&new.cause)
    .bind(actor_text(&new.actor))
    .bind(nanos(new.now))
    .fetch_one(&mut *tx)
    .await
    .map_err(failed("queue a mutation"))?;
    let detail = format!("{} {} of {}: {}", new.op, new.id, new.topology, new.cause);
    tell(
        tx,
        "mutation.enqueue",
        (new.id, &detail),
        &new.actor,
        new.now,
    )
    .await?;
    mutation_row(&row)
}

async fn tell(
    tx: &mut Tx,
    action: &str,
    (id, detail): (MutationId, &str),
    actor: &Actor,
    at: OffsetDateTime,
) -> Result<(), StoreError> {
    let entry = Entry {
        at,
        actor,
        action,
        subject: &id.to_string(),
        detail,
    };
    audit::record(tx, entry).await
}

async fn claim(
    store: &SqlStore,
    worker: WorkerId,
    lease_until: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<Option<MutationRow>, StoreError> {
    const ATTEMPT: &str = "claim a mutation";
    let mut tx = store.writing(ATTEMPT).await?;
    // Only the first of a queue, leased or not: what is behind it waits for it.
    let row = sql(concat!(
        "UPDATE mutations SET worker = $1, lease_until = $2, claims = claims + 1
         WHERE state = 'pending' AND mutations.row = (
             SELECT m.row FROM mutations AS m
             JOIN topologies AS t ON t.id = m.topology
             WHERE m.state = 'pending' AND (m.lease_until IS NULL OR m.lease_until <= $3)
                   AND t.status IN ('deploying', 'active', 'degraded')
                   AND NOT EXISTS (SELECT 1 FROM mutations AS earlier
                                   WHERE earlier.topology = m.topology
                                         AND earlier.state = 'pending'
                                         AND earlier.sequence < m.sequence)
             ORDER BY m.row LIMIT 1)
         RETURNING ",
        columns!()
    ))
    .bind(blob(worker.uuid()))
    .bind(nanos(lease_until))
    .bind(nanos(now))
    .fetch_optional(&mut tx)
    .await
    .map_err(failed(ATTEMPT))?;
    tx.commit().await.map_err(failed(ATTEMPT))?;
    row.as_ref().map(mutation_row).transpose()
}

/// Whether a mutation is pending and that worker's.
async fn is_claimed_by(tx: &mut Tx, id: MutationId, worker: WorkerId) -> Result<bool, StoreError> {
    sql("SELECT EXISTS (SELECT 1 FROM mutations
                        WHERE id = $1 AND state = 'pending' AND worker = $2)")
    .bind(blob(id.uuid()))
    .bind(blob(worker.uuid()))
    .fetch_value(tx)
    .await
    .map_err(failed(READ))
}

async fn commit(store: &SqlStore, effect: &Application) -> Result<Committed, CommitError> {
    const ATTEMPT: &str = "commit a mutation";
    let mut tx = store.writing(ATTEMPT).await.map_err(CommitError::Store)?;
    if !is_claimed_by(&mut tx, effect.mutation, effect.worker)
        .await
        .map_err(CommitError::Store)?
    {
        return Err(CommitError::Lost);
    }
    let id = effect.topology.id;
    let head = status::head(&mut tx, id)
        .await
        .map_err(CommitError::Store)?
        .ok_or(CommitError::Lost)?;
    let host = carrier(&mut tx, id).await.map_err(CommitError::Store)?;
    let (true, Some(host)) = (takes_mutations(head.status), host) else {
        return Err(CommitError::NotLive(head.status));
    };
    let current = head.revision;
    let expected = effect.topology.revision;
    if expected != current {
        return Err(CommitError::StaleRevision { expected, current });
    }
    let committed = write(&mut tx, effect, host)
        .await
        .map_err(CommitError::Store)?;
    tx.commit()
        .await
        .map_err(failed(ATTEMPT))
        .map_err(CommitError::Store)?;
    Ok(committed)
}

/// The host that is assigned a topology.
async fn carrier(tx: &mut Tx, topology: TopologyId) -> Result<Option<HostId>, StoreError> {
    let row = sql("SELECT host FROM assignments WHERE topology = $1")
        .bind(blob(topology.uuid()))
        .fetch_optional(tx)
        .await
        .map_err(failed("read an assignment"))?;
    row.map(|row| Cells::new(&row, "assignment").id("host", HostId::new))
        .transpose()
}

async fn write(tx: &mut Tx, effect: &Application, host: HostId) -> Result<Committed, StoreError> {
    let revision = edits::replace(tx, &effect.topology).await?;
    let content = NewContent {
        topology: effect.topology.id,
        hash: effect.hash,
        hydrated: &effect.hydrated,
    };
    let assignment = assignments::assign(tx, host, Some(content)).await?;
    let row = sql(concat!(
        "UPDATE mutations SET state = $6, worker = NULL, lease_until = NULL,
                changed_at = $2, revision = $3, epoch = $4, generation = $5, payload = $7
         WHERE id = $1 RETURNING ",
        columns!()
    ))
    .bind(blob(effect.mutation.uuid()))
    .bind(nanos(effect.now))
    .bind(int(revision.get()))
    .bind(int(assignment.fence.epoch.get()))
    .bind(int(assignment.fence.generation.get()))
    .bind(arrow(MutationState::Pending, MutationEvent::Committed)?.as_str())
    .bind(&effect.payload)
    .fetch_one(&mut *tx)
    .await
    .map_err(failed(CHANGE))?;
    let row = mutation_row(&row)?;
    let detail = format!(
        "{} of {}: revision {revision}, {}",
        row.op, row.topology, assignment.fence
    );
    let told = (effect.mutation, detail.as_str());
    tell(tx, "mutation.commit", told, &row.actor, effect.now).await?;
    Ok(Committed {
        revision,
        assignment,
    })
}

/// The state after an event that was made sure of: another one is a fault of the caller's.
fn arrow(from: MutationState, event: MutationEvent) -> Result<MutationState, StoreError> {
    from.next(event).map_err(|_| StoreError::Malformed {
        noun: "mutation",
        column: "state",
    })
}

async fn fail(store: &SqlStore, failure: &Failure) -> Result<bool, StoreError> {
    let from = MutationState::Pending;
    let mut tx = store.writing(CHANGE).await?;
    let row = sql(concat!(
        "UPDATE mutations SET state = $5, worker = NULL, lease_until = NULL,
                changed_at = $2, reason = $3
         WHERE id = $1 AND state = $4 AND worker = $6 RETURNING ",
        columns!()
    ))
    .bind(blob(failure.mutation.uuid()))
    .bind(nanos(failure.now))
    .bind(&failure.reason)
    .bind(from.as_str())
    .bind(arrow(from, MutationEvent::Refused)?.as_str())
    .bind(blob(failure.worker.uuid()))
    .fetch_optional(&mut tx)
    .await
    .map_err(failed(CHANGE))?;
    let Some(row) = row else { return Ok(false) };
    let row = mutation_row(&row)?;
    let detail = format!("{} of {}, which was {from}", row.op, row.topology);
    let told = (row.id, detail.as_str());
    tell(&mut tx, "mutation.fail", told, &row.actor, failure.now).await?;
    tx.commit().await.map_err(failed(CHANGE))?;
    Ok(true)
}

async fn settle(
    store: &SqlStore,
    (topology, fence): (TopologyId, Fence),
    arrival: &Arrival,
    now: OffsetDateTime,
) -> Result<Vec<MutationRow>, StoreError> {
    // A steady host reports the same again and again: it must not take the writers' turn for that.
    let some: bool =
        sql("SELECT EXISTS (SELECT 1 FROM mutations WHERE topology = $1 AND state = 'applying')")
            .bind(blob(topology.uuid()))
            .fetch_value(&store.read)
            .await
            .map_err(failed(READ))?;
    if !some {
        return Ok(Vec::new());
    }
    let from = MutationState::Applying;
    let (event, reason) = match arrival {
        Arrival::Reported => (MutationEvent::Reported, ""),
        Arrival::Failed(reason) => (MutationEvent::EngineFailed, reason.as_str()),
    };
    let mut tx = store.writing(CHANGE).await?;
    let rows = sql(concat!(
        "UPDATE mutations SET state = $5, changed_at = $4, reason = $7
         WHERE topology = $1 AND state = $6
               AND (epoch < $2 OR (epoch = $2 AND generation <= $3)) RETURNING ",
        columns!()
    ))
    .bind(blob(topology.uuid()))
    .bind(int(fence.epoch.get()))
    .bind(int(fence.generation.get()))
    .bind(nanos(now))
    .bind(arrow(from, event)?.as_str())
    .bind(from.as_str())
    .bind(reason)
    .fetch_all(&mut tx)
    .await
    .map_err(failed(CHANGE))?;
    let mut settled: Vec<MutationRow> = rows.iter().map(mutation_row).collect::<Result<_, _>>()?;
    settled.sort_by_key(|row| row.sequence);
    if matches!(arrival, Arrival::Failed(_)) {
        for row in &settled {
            let detail = format!("{} of {}, which was {from}", row.op, row.topology);
            tell(&mut tx, "mutation.fail", (row.id, &detail), &row.actor, now).await?;
        }
    }
    tx.commit().await.map_err(failed(CHANGE))?;
    Ok(settled)
}

async fn cancel(
    store: &SqlStore,
    id: MutationId,
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<(), CancelError> {
    let mut tx = store.writing(CHANGE).await.map_err(CancelError::Store)?;
    let row = sql(concat!(
        "SELECT ",
        columns!(),
        " FROM mutations WHERE id = $1"
    ))
    .bind(blob(id.uuid()))
    .fetch_optional(&mut tx)
    .await
    .map_err(failed(READ))
    .map_err(CancelError::Store)?
    .ok_or(CancelError::Unknown)?;
    let row = mutation_row(&row).map_err(CancelError::Store)?;
    let after = row
        .state
        .next(MutationEvent::CancelRequested)
        .map_err(|illegal| CancelError::NotPending(illegal.from))?;
    take_back(&mut tx, (&row, after), actor, now)
        .await
        .map_err(CancelError::Store)?;
    tx.commit()
        .await
        .map_err(failed(CHANGE))
        .map_err(CancelError::Store)
}

async fn take_back(
    tx: &mut Tx,
    (row, after): (&MutationRow, MutationState),
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sql(
        "UPDATE mutations SET state = $3, worker = NULL, lease_until = NULL, changed_at = $2
         WHERE id = $1 AND state = $4",
    )
    .bind(blob(row.id.uuid()))
    .bind(nanos(now))
    .bind(after.as_str())
    .bind(row.state.as_str())
    .execute(&mut *tx)
    .await
    .map_err(failed(CHANGE))?;
    let detail = format!("{} of {}", row.op, row.topology);
    tell(tx, "mutation.cancel", (row.id, &detail), actor, now).await
}

/// Why what a topology has queued or on its way ends with it.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// It is taken down: nothing of it is wanted any more.
    TornDown,
    /// Its deploy has failed: it is a draft again, and is edited at once.
    DeployFailed,
}

/// Ends what a topology has left that no host is to hold any more.
pub(super) async fn end_all(
    tx: &mut Tx,
    topology: TopologyId,
    end: End,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let (pending, applying, reason) = match end {
        End::TornDown => (
            MutationEvent::TornDown,
            MutationEvent::TornDown,
            "the topology is taken down",
        ),
        End::DeployFailed => (
            MutationEvent::Refused,
            MutationEvent::EngineFailed,
            "the deploy of the topology has failed",
        ),
    };
    for (from, event) in [
        (MutationState::Pending, pending),
        (MutationState::Applying, applying),
    ] {
        sql(
            "UPDATE mutations SET worker = NULL, lease_until = NULL, changed_at = $2, state = $4,
                    reason = $5
             WHERE topology = $1 AND state = $3",
        )
        .bind(blob(topology.uuid()))
        .bind(nanos(now))
        .bind(from.as_str())
        .bind(arrow(from, event)?.as_str())
        .bind(reason)
        .execute(&mut *tx)
        .await
        .map_err(failed(CHANGE))?;
    }
    Ok(())
}

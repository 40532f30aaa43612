//! Changes of a topology's status: what `domain` answered, with compare-and-set, its record and
//! its audit entry.

use domain::id::{HostId, TopologyId};
use domain::revision::Revision;
use domain::topology::status::{IllegalTransition, StatusEvent, TopologyStatus};
use time::OffsetDateTime;

use super::SqlStore;
use super::audit::{self, Entry};
use super::cells::{Cells, actor_text, blob, failed, nanos};
use super::queue::{self, End};
use super::statement::{Tx, sql};
use crate::db::{Actor, IntentError, StatusChange, StoreError};

const CHANGE: &str = "change a status";

/// What a change of status reads of a topology.
pub(super) struct Head {
    pub(super) id: TopologyId,
    pub(super) name: String,
    pub(super) status: TopologyStatus,
    pub(super) revision: Revision,
}

/// Why a status changes, and by whom.
pub(super) struct Cause<'a> {
    /// The audit's word for it.
    pub(super) action: &'static str,
    pub(super) reason: &'a str,
    pub(super) actor: &'a Actor,
    pub(super) now: OffsetDateTime,
}

pub(super) async fn head(tx: &mut Tx, id: TopologyId) -> Result<Option<Head>, StoreError> {
    let row = sql("SELECT id, name, status, revision FROM topologies WHERE id = $1")
        .bind(blob(id.uuid()))
        .fetch_optional(tx)
        .await
        .map_err(failed("read a topology"))?;
    row.as_ref()
        .map(|row| head_row(&Cells::new(row, "topology")))
        .transpose()
}

fn head_row(cells: &Cells<'_>) -> Result<Head, StoreError> {
    Ok(Head {
        id: cells.id("id", TopologyId::new)?,
        name: cells.get("name")?,
        status: cells.word("status")?,
        revision: cells.revision("revision")?,
    })
}

/// The topologies that occupy a host, oldest first.
pub(super) async fn live_on(tx: &mut Tx, host: HostId) -> Result<Vec<Head>, StoreError> {
    let rows = sql("SELECT id, name, status, revision FROM topologies
         WHERE host = $1 AND status IN ('deploying', 'active', 'degraded', 'tearing_down')
         ORDER BY row")
    .bind(blob(host.uuid()))
    .fetch_all(tx)
    .await
    .map_err(failed("read the topologies of a host"))?;
    rows.iter()
        .map(|row| head_row(&Cells::new(row, "topology")))
        .collect()
}

/// Why a status did not change.
pub(super) enum TakeError {
    Illegal(IllegalTransition),
    Store(StoreError),
}

impl From<TakeError> for IntentError {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Illegal(source) => Self::Illegal(source),
            TakeError::Store(source) => Self::Store(source),
        }
    }
}

/// Gives `event` to the status machine and writes what it answers.
pub(super) async fn take(
    tx: &mut Tx,
    head: &Head,
    event: StatusEvent,
    cause: &Cause<'_>,
) -> Result<TopologyStatus, TakeError> {
    let after = head.status.next(event).map_err(TakeError::Illegal)?;
    write(tx, head, (event, after), cause)
        .await
        .map_err(TakeError::Store)?;
    Ok(after)
}

async fn write(
    tx: &mut Tx,
    head: &Head,
    (event, after): (StatusEvent, TopologyStatus),
    cause: &Cause<'_>,
) -> Result<(), StoreError> {
    let Cause {
        action,
        reason,
        actor,
        now,
    } = *cause;
    let before = head.status;
    let changed = sql(
        "UPDATE topologies SET status = $1, status_at = $2, reason = $3,
                deadline = CASE WHEN $1 = 'deploying' THEN deadline END
         WHERE id = $4 AND status = $5",
    )
    .bind(after.as_str())
    .bind(nanos(now))
    .bind(reason)
    .bind(blob(head.id.uuid()))
    .bind(before.as_str())
    .execute(&mut *tx)
    .await
    .map_err(failed(CHANGE))?;
    if changed == 0 {
        // Only when `head` is of another transaction.
        return Err(failed(CHANGE)(sqlx::Error::RowNotFound));
    }
    sql(
        "INSERT INTO status_changes (topology, at, before, after, event, reason, actor)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(blob(head.id.uuid()))
    .bind(nanos(now))
    .bind(before.as_str())
    .bind(after.as_str())
    .bind(event.as_str())
    .bind(reason)
    .bind(actor_text(actor))
    .execute(&mut *tx)
    .await
    .map_err(failed(CHANGE))?;
    let end = match after {
        TopologyStatus::TearingDown | TopologyStatus::TornDown => Some(End::TornDown),
        TopologyStatus::Failed => Some(End::DeployFailed),
        TopologyStatus::Pending
        | TopologyStatus::Deploying
        | TopologyStatus::Active
        | TopologyStatus::Degraded => None,
    };
    if let Some(end) = end {
        queue::end_all(tx, head.id, end, now).await?;
    }
    let subject = head.id.to_string();
    let detail = format!("{}: {before} to {after}: {reason}", head.name);
    audit::record(
        tx,
        Entry {
            at: now,
            actor,
            action,
            subject: &subject,
            detail: &detail,
        },
    )
    .await
}

pub(super) async fn changes(
    store: &SqlStore,
    id: TopologyId,
) -> Result<Vec<StatusChange>, StoreError> {
    let rows = sql(
        "SELECT s.row, at, before, after, event, reason, actor FROM status_changes AS s
         WHERE topology = $1 ORDER BY s.row",
    )
    .bind(blob(id.uuid()))
    .fetch_all(&store.read)
    .await
    .map_err(failed("read changes of a status"))?;
    rows.iter()
        .map(|row| {
            let cells = Cells::new(row, "status change");
            let event: &str = cells.get("event")?;
            Ok(StatusChange {
                row: cells.get("row")?,
                at: cells.time("at")?,
                from: cells.word("before")?,
                to: cells.word("after")?,
                event: StatusEvent::ALL
                    .into_iter()
                    .find(|known| known.as_str() == event)
                    .ok_or_else(|| cells.malformed("event"))?,
                reason: cells.get("reason")?,
                actor: cells.actor("actor")?,
            })
        })
        .collect()
}

//! The audit log: written in the transaction of what it tells of.

use domain::id::HostId;
use time::OffsetDateTime;

use super::SqlStore;
use super::cells::{Cells, actor_text, failed, nanos};
use super::statement::{Tx, sql};
use crate::db::{Actor, AuditEntry, StoreError};

/// An entry that is about to be written.
pub(super) struct Entry<'a> {
    pub(super) at: OffsetDateTime,
    pub(super) actor: &'a Actor,
    pub(super) action: &'a str,
    pub(super) subject: &'a str,
    pub(super) detail: &'a str,
}

/// Writes an entry within a transaction.
pub(super) async fn record(tx: &mut Tx, entry: Entry<'_>) -> Result<(), StoreError> {
    let Entry {
        at,
        actor,
        action,
        subject,
        detail,
    } = entry;
    sql("INSERT INTO audit (at, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5)")
        .bind(nanos(at))
        .bind(actor_text(actor))
        .bind(action)
        .bind(subject)
        .bind(detail)
        .execute(tx)
        .await
        .map_err(failed("write the audit log"))?;
    Ok(())
}

/// Writes an entry about a host within a transaction.
pub(super) async fn record_host(
    tx: &mut Tx,
    host: HostId,
    actor: &Actor,
    (action, detail): (&str, &str),
    at: OffsetDateTime,
) -> Result<(), StoreError> {
    record(
        tx,
        Entry {
            at,
            actor,
            action,
            subject: &host.to_string(),
            detail,
        },
    )
    .await
}

pub(super) async fn write(store: &SqlStore, entry: &AuditEntry) -> Result<(), StoreError> {
    const ATTEMPT: &str = "write the audit log";
    let mut tx = store.writing(ATTEMPT).await?;
    let AuditEntry {
        at,
        actor,
        action,
        subject,
        detail,
    } = entry;
    record(
        &mut tx,
        Entry {
            at: *at,
            actor,
            action,
            subject,
            detail,
        },
    )
    .await?;
    tx.commit().await.map_err(failed(ATTEMPT))
}

pub(super) async fn log(store: &SqlStore, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
    let rows =
        sql("SELECT at, actor, action, subject, detail FROM audit ORDER BY row DESC LIMIT $1")
            .bind(limit)
            .fetch_all(&store.read)
            .await
            .map_err(failed("read the audit log"))?;
    rows.iter()
        .map(|row| {
            let cells = Cells::new(row, "audit");
            Ok(AuditEntry {
                at: cells.time("at")?,
                actor: cells.actor("actor")?,
                action: cells.get("action")?,
                subject: cells.get("subject")?,
                detail: cells.get("detail")?,
            })
        })
        .collect()
}

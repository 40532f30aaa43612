//! The audit log: written in the transaction of what it tells of.

use domain::id::HostId;
use sqlx::SqliteConnection;
use time::OffsetDateTime;

use super::SqliteStore;
use super::decode::{Cells, actor_text, failed, nanos};
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
pub(super) async fn record(tx: &mut SqliteConnection, entry: Entry<'_>) -> Result<(), StoreError> {
    let Entry {
        at,
        actor,
        action,
        subject,
        detail,
    } = entry;
    sqlx::query("INSERT INTO audit (at, actor, action, subject, detail) VALUES (?, ?, ?, ?, ?)")
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
    tx: &mut SqliteConnection,
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

pub(super) async fn write(store: &SqliteStore, entry: AuditEntry) -> Result<(), StoreError> {
    const ATTEMPT: &str = "write the audit log";
    let mut tx = store.writing(ATTEMPT).await?;
    let AuditEntry {
        at,
        actor,
        action,
        subject,
        detail,
    } = &entry;
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

pub(super) async fn log(store: &SqliteStore, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
    let rows = sqlx::query(
        "SELECT at, actor, action, subject, detail FROM audit ORDER BY row DESC LIMIT ?",
    )
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

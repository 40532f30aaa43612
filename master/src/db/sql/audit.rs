//! The audit log: written in the transaction of what it tells of, each entry with the hash of the
//! one before. The hash of the newest is kept apart, so that neither an entry that was altered nor
//! a tail that was cut off goes unnoticed, short of somebody who rewrites all that follows.

use domain::id::HostId;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::SqlStore;
use super::cells::{Cells, actor_text, failed, nanos};
use super::statement::{Builder, Tx, sql, storable};
use crate::db::upkeep::{AuditChain, AuditFilter, AuditRow};
use crate::db::{Actor, AuditEntry, StoreError};

const WRITE: &str = "write the audit log";
const READ: &str = "read the audit log";

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
    let previous = head(tx).await?;
    // As it is kept: what is read back is to give the same hash.
    let subject = storable(subject);
    let detail = storable(detail);
    let actor = actor_text(actor);
    let link = Link {
        at: nanos(at),
        actor: &storable(&actor),
        action,
        subject: &subject,
        detail: &detail,
    };
    sql(
        "INSERT INTO audit (at, actor, action, subject, detail, previous)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(link.at)
    .bind(link.actor)
    .bind(link.action)
    .bind(link.subject)
    .bind(link.detail)
    .bind(previous.as_slice())
    .execute(&mut *tx)
    .await
    .map_err(failed(WRITE))?;
    sql("UPDATE meta SET audit_head = $1")
        .bind(link.hash(&previous).as_slice())
        .execute(tx)
        .await
        .map_err(failed(WRITE))?;
    Ok(())
}

/// The hash before the first entry.
const START: [u8; 32] = [0; 32];

/// What of an entry is hashed, as it is kept.
struct Link<'a> {
    at: i64,
    actor: &'a str,
    action: &'a str,
    subject: &'a str,
    detail: &'a str,
}

impl Link<'_> {
    /// The hash of the entry: of the one before, and of every field with its length before it, so
    /// that nothing moves from one field into the next unseen.
    fn hash(&self, previous: &[u8; 32]) -> [u8; 32] {
        let Self {
            at,
            actor,
            action,
            subject,
            detail,
        } = self;
        let mut hash = Sha256::new();
        hash.update(previous);
        hash.update(at.to_be_bytes());
        for field in [actor, action, subject, detail] {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field.as_bytes());
        }
        hash.finalize().into()
    }
}

/// The hash of the newest entry.
async fn head(tx: &mut Tx) -> Result<[u8; 32], StoreError> {
    match stored_head(tx).await? {
        Some(head) => Ok(head),
        // The first entry since there is a chain: it vouches for those of before.
        None => follow(tx).await.map(|walk| walk.head),
    }
}

async fn stored_head(tx: &mut Tx) -> Result<Option<[u8; 32]>, StoreError> {
    let row = sql("SELECT audit_head FROM meta")
        .fetch_one(tx)
        .await
        .map_err(failed(READ))?;
    let cells = Cells::new(&row, "meta");
    match cells.get::<Option<&[u8]>>("audit_head")? {
        Some(_) => cells.bytes32("audit_head").map(Some),
        None => Ok(None),
    }
}

/// The way from the first entry to the last one, or to the first that does not fit.
struct Walk {
    head: [u8; 32],
    entries: u64,
    broken: Option<i64>,
}

/// Entries that are read at once.
const STEP: u32 = 1000;

async fn follow(tx: &mut Tx) -> Result<Walk, StoreError> {
    let mut walk = Walk {
        head: START,
        entries: 0,
        broken: None,
    };
    let mut chained = false;
    let mut after = 0;
    loop {
        let rows = sql(
            "SELECT a.row, at, actor, action, subject, detail, previous FROM audit AS a
             WHERE a.row > $1 ORDER BY a.row LIMIT $2",
        )
        .bind(after)
        .bind(STEP)
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(READ))?;
        if rows.is_empty() {
            return Ok(walk);
        }
        for row in &rows {
            let cells = Cells::new(row, "audit");
            after = cells.get("row")?;
            // Only entries of before the chain have none.
            let fits = match cells.get::<Option<&[u8]>>("previous")? {
                Some(previous) => previous == walk.head,
                None => !chained,
            };
            chained |= cells.get::<Option<&[u8]>>("previous")?.is_some();
            if !fits {
                walk.broken = Some(after);
                return Ok(walk);
            }
            let link = Link {
                at: cells.get("at")?,
                actor: cells.get("actor")?,
                action: cells.get("action")?,
                subject: cells.get("subject")?,
                detail: cells.get("detail")?,
            };
            walk.head = link.hash(&walk.head);
            walk.entries += 1;
        }
    }
}

pub(super) async fn verify(store: &SqlStore) -> Result<AuditChain, StoreError> {
    let mut tx = store.reading(READ).await?;
    let Walk {
        head,
        entries,
        broken,
    } = follow(&mut tx).await?;
    if let Some(row) = broken {
        return Ok(AuditChain::Broken { row });
    }
    match stored_head(&mut tx).await? {
        Some(stored) if stored != head => Ok(AuditChain::Cut { entries }),
        Some(_) | None => Ok(AuditChain::Intact { entries }),
    }
}

pub(super) async fn page(
    store: &SqlStore,
    filter: &AuditFilter,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<AuditRow>, StoreError> {
    let mut query = Builder::new(
        store.read.pool.dialect(),
        "SELECT a.row, at, actor, action, subject, detail, previous FROM audit AS a
         WHERE a.row < ",
    );
    query.push_bind(before.unwrap_or(i64::MAX));
    narrow(&mut query, filter);
    query.push(" ORDER BY a.row DESC LIMIT ").push_bind(limit);
    let rows = query
        .build()
        .fetch_all(&store.read)
        .await
        .map_err(failed(READ))?;
    rows.iter()
        .map(|row| {
            let cells = Cells::new(row, "audit");
            let previous = match cells.get::<Option<&[u8]>>("previous")? {
                Some(_) => Some(cells.bytes32("previous")?),
                None => None,
            };
            Ok(AuditRow {
                row: cells.get("row")?,
                previous,
                entry: entry(&cells)?,
            })
        })
        .collect()
}

pub(super) async fn count(store: &SqlStore, filter: &AuditFilter) -> Result<u64, StoreError> {
    let mut query = Builder::new(
        store.read.pool.dialect(),
        "SELECT count(*) FROM audit AS a WHERE TRUE",
    );
    narrow(&mut query, filter);
    let count: i64 = query
        .build()
        .fetch_value(&store.read)
        .await
        .map_err(failed(READ))?;
    u64::try_from(count).map_err(|_| StoreError::Malformed {
        noun: "audit",
        column: "count",
    })
}

fn narrow(query: &mut Builder, filter: &AuditFilter) {
    let AuditFilter {
        actor,
        action,
        subject,
    } = filter;
    if let Some(actor) = actor {
        // With the address of an operator behind an `@`, or without one.
        query.push(" AND (a.actor = ").push_bind(actor);
        query
            .push(" OR substr(a.actor, 1, length(")
            .push_bind(actor)
            .push(") + 1) = ")
            .push_bind(format!("{actor}@"))
            .push(")");
    }
    match action {
        Some(noun) if noun.ends_with('.') => {
            query
                .push(" AND substr(a.action, 1, length(")
                .push_bind(noun)
                .push(")) = ")
                .push_bind(noun);
        }
        Some(action) => {
            query.push(" AND a.action = ").push_bind(action);
        }
        None => {}
    }
    if let Some(subject) = subject {
        query.push(" AND a.subject = ").push_bind(subject);
    }
}

fn entry(cells: &Cells<'_>) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        at: cells.time("at")?,
        actor: cells.actor("actor")?,
        action: cells.get("action")?,
        subject: cells.get("subject")?,
        detail: cells.get("detail")?,
    })
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
        .map(|row| entry(&Cells::new(row, "audit")))
        .collect()
}

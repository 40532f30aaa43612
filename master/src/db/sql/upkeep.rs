//! Retention, in batches that let others write in between, and the door to the audit's chain.

use async_trait::async_trait;
use domain::id::TopologyId;
use time::OffsetDateTime;

use super::cells::{failed, nanos};
use super::retry::again;
use super::statement::sql;
use super::{SqlStore, audit, history};
use crate::db::StoreError;
use crate::db::upkeep::{AuditChain, AuditFilter, AuditRow, Forgotten, Retention, Upkeep};

const FORGET: &str = "forget events";
const EXPIRE: &str = "forget what has expired";

#[async_trait]
impl Upkeep for SqlStore {
    async fn audit_page(
        &self,
        filter: &AuditFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditRow>, StoreError> {
        audit::page(self, filter, before, limit).await
    }

    async fn count_audit(&self, filter: &AuditFilter) -> Result<u64, StoreError> {
        audit::count(self, filter).await
    }

    async fn verify_audit(&self) -> Result<AuditChain, StoreError> {
        audit::verify(self).await
    }

    async fn forget_events(&self, retention: Retention) -> Result<u64, StoreError> {
        let old = match retention.received_before {
            Some(before) => again(|| forget_older(self, before, retention.batch)).await?,
            None => 0,
        };
        if old > 0 {
            return Ok(old);
        }
        match retention.keep_newest {
            Some(newest) => again(|| forget_beyond(self, newest, retention.batch)).await,
            None => Ok(0),
        }
    }

    async fn forget_status_changes(
        &self,
        before: OffsetDateTime,
        batch: u32,
    ) -> Result<u64, StoreError> {
        again(|| history::forget_status_changes(self, before, batch)).await
    }

    async fn forget_mutations(
        &self,
        before: OffsetDateTime,
        batch: u32,
    ) -> Result<u64, StoreError> {
        again(|| history::forget_mutations(self, before, batch)).await
    }

    async fn forgotten(&self, topology: TopologyId) -> Result<Option<Forgotten>, StoreError> {
        history::forgotten(self, topology).await
    }

    async fn forget_expired(&self, now: OffsetDateTime) -> Result<u64, StoreError> {
        again(|| forget_expired(self, now)).await
    }
}

/// Of the oldest rows those that were received before: rows are in the order of arrival, so that
/// no index of the time of arrival is needed. Mutations stay: what a decky serves is read from
/// them.
async fn forget_older(
    store: &SqlStore,
    before: OffsetDateTime,
    batch: u32,
) -> Result<u64, StoreError> {
    let mut tx = store.appending(FORGET).await?;
    let gone = sql("DELETE FROM events WHERE events.row IN (
             SELECT oldest.row FROM (SELECT e.row, e.received_at FROM events AS e
                                     WHERE e.kind <> 'mutation'
                                     ORDER BY e.row LIMIT $2) AS oldest
             WHERE oldest.received_at < $1)")
    .bind(nanos(before))
    .bind(batch)
    .execute(&mut tx)
    .await
    .map_err(failed(FORGET))?;
    tx.commit().await.map_err(failed(FORGET))?;
    Ok(gone)
}

async fn forget_beyond(store: &SqlStore, newest: u64, batch: u32) -> Result<u64, StoreError> {
    let skipped = i64::try_from(newest).unwrap_or(i64::MAX);
    let mut tx = store.appending(FORGET).await?;
    let gone = sql("DELETE FROM events WHERE events.row IN (
             SELECT e.row FROM events AS e
             WHERE e.row <= (SELECT k.row FROM events AS k ORDER BY k.row DESC LIMIT 1 OFFSET $1)
                   AND e.kind <> 'mutation'
             ORDER BY e.row LIMIT $2)")
    .bind(skipped)
    .bind(batch)
    .execute(&mut tx)
    .await
    .map_err(failed(FORGET))?;
    tx.commit().await.map_err(failed(FORGET))?;
    Ok(gone)
}

async fn forget_expired(store: &SqlStore, now: OffsetDateTime) -> Result<u64, StoreError> {
    let mut tx = store.writing(EXPIRE).await?;
    let mut gone = 0;
    for text in [
        "DELETE FROM sessions WHERE expires_at <= $1",
        "DELETE FROM idempotency_keys WHERE expires_at <= $1",
    ] {
        gone += sql(text)
            .bind(nanos(now))
            .execute(&mut tx)
            .await
            .map_err(failed(EXPIRE))?;
    }
    tx.commit().await.map_err(failed(EXPIRE))?;
    Ok(gone)
}

//! Idempotency keys: a request that is sent again gets the answer of the first time.

use super::SqlStore;
use super::cells::{Cells, failed, nanos};
use super::statement::{Row, sql};
use crate::db::StoreError;
use crate::db::accounts::{Keyed, KeyedRequest};

const ATTEMPT: &str = "keep an idempotency key";

pub(super) async fn take(store: &SqlStore, request: &KeyedRequest) -> Result<Keyed, StoreError> {
    let mut tx = store.writing(ATTEMPT).await?;
    let row = sql(
        "SELECT digest, lease_until, expires_at, status, body FROM idempotency_keys
         WHERE owner = $1 AND key = $2",
    )
    .bind(&request.owner)
    .bind(&request.key)
    .fetch_optional(&mut tx)
    .await
    .map_err(failed(ATTEMPT))?;
    if let Some(keyed) = row.map(|row| stored(&row, request)).transpose()?.flatten() {
        return Ok(keyed);
    }
    sql(
        "INSERT INTO idempotency_keys (owner, key, digest, lease_until, expires_at)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (owner, key) DO UPDATE
             SET digest = excluded.digest, lease_until = excluded.lease_until,
                 expires_at = excluded.expires_at, status = NULL, body = NULL",
    )
    .bind(&request.owner)
    .bind(&request.key)
    .bind(request.digest.as_slice())
    .bind(nanos(request.lease_until))
    .bind(nanos(request.expires_at))
    .execute(&mut tx)
    .await
    .map_err(failed(ATTEMPT))?;
    tx.commit().await.map_err(failed(ATTEMPT))?;
    Ok(Keyed::Fresh)
}

/// What a stored key says about a request; nothing when its time is over. The end of a lease does not
/// free it: whoever held it may have died after the effect and before the answer was kept.
fn stored(row: &Row, request: &KeyedRequest) -> Result<Option<Keyed>, StoreError> {
    let cells = Cells::new(row, "idempotency key");
    if cells.time("expires_at")? <= request.now {
        return Ok(None);
    }
    if cells.bytes32("digest")? != request.digest {
        return Ok(Some(Keyed::Differs));
    }
    let Some(status) = cells.get::<Option<i64>>("status")? else {
        let is_served = cells.time("lease_until")? > request.now;
        return Ok(Some(if is_served {
            Keyed::Running
        } else {
            Keyed::Unknown
        }));
    };
    Ok(Some(Keyed::Answered {
        status: u16::try_from(status).map_err(|_| cells.malformed("status"))?,
        body: cells.get("body")?,
    }))
}

pub(super) async fn keep(
    store: &SqlStore,
    request: &KeyedRequest,
    status: u16,
    body: &[u8],
) -> Result<(), StoreError> {
    let mut tx = store.writing(ATTEMPT).await?;
    sql("UPDATE idempotency_keys SET status = $4, body = $5
         WHERE owner = $1 AND key = $2 AND digest = $3 AND status IS NULL")
    .bind(&request.owner)
    .bind(&request.key)
    .bind(request.digest.as_slice())
    .bind(i64::from(status))
    .bind(body)
    .execute(&mut tx)
    .await
    .map_err(failed(ATTEMPT))?;
    tx.commit().await.map_err(failed(ATTEMPT))
}

pub(super) async fn release(store: &SqlStore, request: &KeyedRequest) -> Result<(), StoreError> {
    let mut tx = store.writing(ATTEMPT).await?;
    sql("DELETE FROM idempotency_keys
         WHERE owner = $1 AND key = $2 AND digest = $3 AND status IS NULL")
    .bind(&request.owner)
    .bind(&request.key)
    .bind(request.digest.as_slice())
    .execute(&mut tx)
    .await
    .map_err(failed(ATTEMPT))?;
    tx.commit().await.map_err(failed(ATTEMPT))
}

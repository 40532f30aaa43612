//! Hosts and the keys that they may use.

use domain::assign::Assignment;
use domain::host::Standing;
use domain::id::HostId;
use domain::name::HostName;
use pki::fingerprint::KeyFingerprint;
use time::OffsetDateTime;

use super::SqlStore;
use super::audit;
use super::cells::{Cells, blob, failed, nanos};
use super::statement::{Builder, Row, Tx, sql};
use crate::db::{Actor, AllowedKey, HostRow, StoreError};

/// A renewal of a host's key.
pub(super) struct NewKey {
    pub(super) host: HostId,
    pub(super) key: KeyFingerprint,
    pub(super) current: KeyFingerprint,
    pub(super) now: OffsetDateTime,
    pub(super) forget_before: OffsetDateTime,
}

/// The columns of [`host_row`]; not the document, which may be megabytes.
macro_rules! select_host {
    ($rest:literal) => {
        concat!(
            "SELECT h.id, h.name, h.standing, h.enrolled_at, h.last_seen, h.agent_version,
                    a.epoch, a.generation, a.topology, a.hash
             FROM hosts AS h JOIN assignments AS a ON a.host = h.id ",
            $rest
        )
    };
}

pub(super) fn host_row(row: &Row) -> Result<HostRow, StoreError> {
    let cells = Cells::new(row, "host");
    Ok(HostRow {
        id: cells.id("id", HostId::new)?,
        name: cells.word("name")?,
        standing: cells.word("standing")?,
        enrolled_at: cells.time("enrolled_at")?,
        last_seen: cells.maybe_time("last_seen")?,
        agent_version: cells.get("agent_version")?,
        assignment: Assignment {
            fence: cells.fence("epoch", "generation")?,
            content: cells.content("topology", "hash")?,
        },
    })
}

pub(super) async fn list(store: &SqlStore, removed: bool) -> Result<Vec<HostRow>, StoreError> {
    let rows = sql(select_host!(
        "WHERE $1 OR h.standing <> 'removed' ORDER BY h.name_fold, h.enrolled_at"
    ))
    .bind(removed)
    .fetch_all(&store.read)
    .await
    .map_err(failed("list hosts"))?;
    rows.iter().map(host_row).collect()
}

pub(super) async fn one(store: &SqlStore, id: HostId) -> Result<Option<HostRow>, StoreError> {
    let row = sql(select_host!("WHERE h.id = $1"))
        .bind(blob(id.uuid()))
        .fetch_optional(&store.read)
        .await
        .map_err(failed("read a host"))?;
    row.as_ref().map(host_row).transpose()
}

/// Every host that may connect, removed ones among them: those are told to hold nothing.
pub(super) async fn connectable(tx: &mut Tx) -> Result<Vec<HostRow>, StoreError> {
    let rows = sql(select_host!(
        "WHERE h.standing <> 'revoked' ORDER BY h.name_fold, h.id"
    ))
    .fetch_all(tx)
    .await
    .map_err(failed("list hosts"))?;
    rows.iter().map(host_row).collect()
}

/// One host, within a transaction.
pub(super) async fn in_transaction(tx: &mut Tx, id: HostId) -> Result<Option<HostRow>, StoreError> {
    let row = sql(select_host!("WHERE h.id = $1"))
        .bind(blob(id.uuid()))
        .fetch_optional(tx)
        .await
        .map_err(failed("read a host"))?;
    row.as_ref().map(host_row).transpose()
}

pub(super) async fn standing(tx: &mut Tx, id: HostId) -> Result<Option<Standing>, StoreError> {
    let row = sql("SELECT standing FROM hosts WHERE id = $1")
        .bind(blob(id.uuid()))
        .fetch_optional(tx)
        .await
        .map_err(failed("read a host"))?;
    row.map(|row| Cells::new(&row, "host").word("standing"))
        .transpose()
}

pub(super) async fn is_name_taken(tx: &mut Tx, name: &HostName) -> Result<bool, StoreError> {
    sql("SELECT EXISTS (SELECT 1 FROM hosts WHERE name_fold = $1 AND standing <> 'removed')")
        .bind(name.folded())
        .fetch_value(tx)
        .await
        .map_err(failed("look for a host's name"))
}

pub(super) async fn allowed_keys(store: &SqlStore) -> Result<Vec<AllowedKey>, StoreError> {
    let rows = sql(
        "SELECT k.host, k.key, h.standing FROM host_keys AS k JOIN hosts AS h ON h.id = k.host
         ORDER BY k.host, k.added_at, k.key",
    )
    .fetch_all(&store.read)
    .await
    .map_err(failed("read the allow-list"))?;
    rows.iter()
        .map(|row| {
            let cells = Cells::new(row, "host key");
            Ok(AllowedKey {
                host: cells.id("host", HostId::new)?,
                key: cells.key("key")?,
                standing: cells.word("standing")?,
            })
        })
        .collect()
}

pub(super) async fn add_key(store: &SqlStore, new: &NewKey) -> Result<(), StoreError> {
    const ATTEMPT: &str = "allow a further key";
    let NewKey {
        host,
        key,
        current,
        now,
        forget_before,
    } = *new;
    let mut tx = store.writing(ATTEMPT).await?;
    // Revocation takes a host's keys: one that renews at that moment has no current key any more.
    let added = sql("INSERT INTO host_keys (host, key, added_at)
         SELECT $1, $2, $3 FROM host_keys WHERE host = $1 AND key = $4
         ON CONFLICT (host, key) DO UPDATE SET added_at = excluded.added_at")
    .bind(blob(host.uuid()))
    .bind(key.as_bytes().as_slice())
    .bind(nanos(now))
    .bind(current.as_bytes().as_slice())
    .execute(&mut tx)
    .await
    .map_err(failed(ATTEMPT))?;
    if added == 0 {
        return Err(failed(ATTEMPT)(sqlx::Error::RowNotFound));
    }
    let forgotten =
        sql("DELETE FROM host_keys WHERE host = $1 AND added_at < $2 AND key NOT IN ($3, $4)")
            .bind(blob(host.uuid()))
            .bind(nanos(forget_before))
            .bind(current.as_bytes().as_slice())
            .bind(key.as_bytes().as_slice())
            .execute(&mut tx)
            .await
            .map_err(failed(ATTEMPT))?;
    let detail = format!("key {key} is allowed besides {current}; {forgotten} forgotten");
    audit::record_host(
        &mut tx,
        host,
        &Actor::Host(host),
        ("host.renew", &detail),
        now,
    )
    .await?;
    tx.commit().await.map_err(failed(ATTEMPT))
}

pub(super) async fn touch(
    store: &SqlStore,
    seen: &[(HostId, OffsetDateTime, String)],
) -> Result<(), StoreError> {
    const ATTEMPT: &str = "note when hosts were heard";
    /// Three variables a host; SQLite takes 32766 in one statement, PostgreSQL 65535.
    const HOSTS: usize = 8192;
    if seen.is_empty() {
        return Ok(());
    }
    let mut tx = store.writing(ATTEMPT).await?;
    for part in seen.chunks(HOSTS) {
        let mut query = Builder::new(tx.dialect(), "WITH seen (id, at, version) AS (VALUES ");
        query.push_rows(part, |(host, at, version)| {
            [blob(host.uuid()).into(), nanos(*at).into(), version.into()]
        });
        query.push(
            ") UPDATE hosts SET last_seen = CASE WHEN last_seen > seen.at THEN last_seen
                                                 ELSE seen.at END,
                               agent_version = seen.version
             FROM seen WHERE hosts.id = seen.id",
        );
        query
            .build_once()
            .execute(&mut tx)
            .await
            .map_err(failed(ATTEMPT))?;
    }
    tx.commit().await.map_err(failed(ATTEMPT))
}

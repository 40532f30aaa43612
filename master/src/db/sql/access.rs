//! Sessions and API tokens: found by the hash of what was presented.

use time::OffsetDateTime;

use super::SqlStore;
use super::audit::{self, Entry};
use super::cells::{Cells, blob, failed, nanos};
use super::statement::{Row, sql};
use super::users::user_row;
use crate::db::accounts::{ApiTokenId, ApiTokenRow, PasswordHash, SessionRow, UserId, UserRow};
use crate::db::{Actor, StoreError};

const SESSION: &str = "store a session";
const TOKEN: &str = "store an API token";
const READ: &str = "read who asks";

/// The columns of [`session_row`]; those of the user bear its own names.
macro_rules! session_columns {
    () => {
        "s.hash AS session_hash, s.owner AS session_owner, s.origin AS session_origin,
         s.created_at AS session_created_at, s.expires_at AS session_expires_at"
    };
}

/// The columns of [`token_row`].
macro_rules! select_token {
    ($rest:literal) => {
        concat!(
            "SELECT id, hash, name, role, creator, created_at, expires_at, revoked_at
             FROM api_tokens ",
            $rest
        )
    };
}

fn session_row(row: &Row) -> Result<SessionRow, StoreError> {
    let cells = Cells::new(row, "session");
    Ok(SessionRow {
        hash: cells.bytes32("session_hash")?,
        user: cells.id("session_owner", UserId::new)?,
        origin: cells.get("session_origin")?,
        created_at: cells.time("session_created_at")?,
        expires_at: cells.time("session_expires_at")?,
    })
}

fn token_row(row: &Row) -> Result<ApiTokenRow, StoreError> {
    let cells = Cells::new(row, "API token");
    Ok(ApiTokenRow {
        id: cells.id("id", ApiTokenId::new)?,
        hash: cells.bytes32("hash")?,
        name: cells.get("name")?,
        role: cells.word("role")?,
        creator: cells.get("creator")?,
        created_at: cells.time("created_at")?,
        expires_at: cells.maybe_time("expires_at")?,
        revoked_at: cells.maybe_time("revoked_at")?,
    })
}

pub(super) async fn insert_session(
    store: &SqlStore,
    session: &SessionRow,
    shown: &PasswordHash,
) -> Result<bool, StoreError> {
    let mut tx = store.writing(SESSION).await?;
    let added = sql(
        "INSERT INTO sessions (hash, owner, origin, created_at, expires_at)
         SELECT $1, id, $3, $4, $5 FROM users WHERE id = $2 AND password_hash = $6",
    )
    .bind(session.hash.as_slice())
    .bind(blob(session.user.uuid()))
    .bind(&session.origin)
    .bind(nanos(session.created_at))
    .bind(nanos(session.expires_at))
    .bind(shown.expose())
    .execute(&mut tx)
    .await
    .map_err(failed(SESSION))?;
    tx.commit().await.map_err(failed(SESSION))?;
    Ok(added > 0)
}

pub(super) async fn session(
    store: &SqlStore,
    hash: &[u8; 32],
    now: OffsetDateTime,
) -> Result<Option<(SessionRow, UserRow)>, StoreError> {
    let row = sql(concat!(
        "SELECT ",
        session_columns!(),
        ", u.id, u.name, u.password_hash, u.role, u.must_change, u.created_at, u.password_at
         FROM sessions AS s JOIN users AS u ON u.id = s.owner
         WHERE s.hash = $1 AND s.expires_at > $2"
    ))
    .bind(hash.as_slice())
    .bind(nanos(now))
    .fetch_optional(&store.read)
    .await
    .map_err(failed(READ))?;
    row.map(|row| Ok((session_row(&row)?, user_row(&row)?)))
        .transpose()
}

pub(super) async fn sessions(
    store: &SqlStore,
    user: UserId,
    now: OffsetDateTime,
) -> Result<Vec<SessionRow>, StoreError> {
    let rows = sql(concat!(
        "SELECT ",
        session_columns!(),
        " FROM sessions AS s WHERE s.owner = $1 AND s.expires_at > $2
          ORDER BY s.created_at DESC, s.hash"
    ))
    .bind(blob(user.uuid()))
    .bind(nanos(now))
    .fetch_all(&store.read)
    .await
    .map_err(failed(READ))?;
    rows.iter().map(session_row).collect()
}

pub(super) async fn end_session(store: &SqlStore, hash: &[u8; 32]) -> Result<bool, StoreError> {
    let mut tx = store.writing(SESSION).await?;
    let ended = sql("DELETE FROM sessions WHERE hash = $1")
        .bind(hash.as_slice())
        .execute(&mut tx)
        .await
        .map_err(failed(SESSION))?;
    tx.commit().await.map_err(failed(SESSION))?;
    Ok(ended > 0)
}

pub(super) async fn end_sessions(store: &SqlStore, user: UserId) -> Result<u64, StoreError> {
    let mut tx = store.writing(SESSION).await?;
    let ended = sql("DELETE FROM sessions WHERE owner = $1")
        .bind(blob(user.uuid()))
        .execute(&mut tx)
        .await
        .map_err(failed(SESSION))?;
    tx.commit().await.map_err(failed(SESSION))?;
    Ok(ended)
}

pub(super) async fn insert_token(
    store: &SqlStore,
    token: &ApiTokenRow,
    actor: &Actor,
) -> Result<(), StoreError> {
    let mut tx = store.writing(TOKEN).await?;
    sql(
        "INSERT INTO api_tokens (id, hash, name, role, creator, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(blob(token.id.uuid()))
    .bind(token.hash.as_slice())
    .bind(&token.name)
    .bind(token.role.as_str())
    .bind(&token.creator)
    .bind(nanos(token.created_at))
    .bind(token.expires_at.map(nanos))
    .execute(&mut tx)
    .await
    .map_err(failed(TOKEN))?;
    let entry = Entry {
        at: token.created_at,
        actor,
        action: "api_token.create",
        subject: &token.id.uuid().to_string(),
        detail: &format!("{}, {}", token.name, token.role.as_str()),
    };
    audit::record(&mut tx, entry).await?;
    tx.commit().await.map_err(failed(TOKEN))
}

pub(super) async fn token(
    store: &SqlStore,
    hash: &[u8; 32],
    now: OffsetDateTime,
) -> Result<Option<ApiTokenRow>, StoreError> {
    let row = sql(select_token!(
        "WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)"
    ))
    .bind(hash.as_slice())
    .bind(nanos(now))
    .fetch_optional(&store.read)
    .await
    .map_err(failed(READ))?;
    row.as_ref().map(token_row).transpose()
}

pub(super) async fn tokens(store: &SqlStore) -> Result<Vec<ApiTokenRow>, StoreError> {
    let rows = sql(select_token!("ORDER BY created_at DESC, id"))
        .fetch_all(&store.read)
        .await
        .map_err(failed(READ))?;
    rows.iter().map(token_row).collect()
}

pub(super) async fn revoke_token(
    store: &SqlStore,
    id: ApiTokenId,
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    const ATTEMPT: &str = "revoke an API token";
    let mut tx = store.writing(ATTEMPT).await?;
    let revoked = sql("UPDATE api_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL")
        .bind(blob(id.uuid()))
        .bind(nanos(now))
        .execute(&mut tx)
        .await
        .map_err(failed(ATTEMPT))?;
    if revoked == 0 {
        return Ok(false);
    }
    let entry = Entry {
        at: now,
        actor,
        action: "api_token.revoke",
        subject: &id.uuid().to_string(),
        detail: "",
    };
    audit::record(&mut tx, entry).await?;
    tx.commit().await.map_err(failed(ATTEMPT))?;
    Ok(true)
}

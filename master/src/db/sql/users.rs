//! Users: made, listed, changed, removed, and never so that no admin is left.

use domain::role::Role;
use time::OffsetDateTime;

use super::SqlStore;
use super::audit::{self, Entry};
use super::cells::{Cells, blob, failed, nanos};
use super::statement::{Row, Tx, sql};
use crate::db::accounts::{PasswordHash, UserChange, UserError, UserId, UserRow};
use crate::db::{Actor, StoreError};

const STORE: &str = "store a user";
const CHANGE: &str = "change a user";
const READ: &str = "read users";

/// The columns of [`user_row`], of `users AS u`.
macro_rules! select_user {
    ($rest:literal) => {
        concat!(
            "SELECT u.id, u.name, u.password_hash, u.role, u.must_change, u.created_at,
                    u.password_at FROM users AS u ",
            $rest
        )
    };
}

pub(super) fn user_row(row: &Row) -> Result<UserRow, StoreError> {
    let cells = Cells::new(row, "user");
    Ok(UserRow {
        id: cells.id("id", UserId::new)?,
        name: cells.get("name")?,
        password_hash: PasswordHash::new(cells.get("password_hash")?),
        role: cells.word("role")?,
        must_change: cells.flag("must_change")?,
        created_at: cells.time("created_at")?,
        password_at: cells.time("password_at")?,
    })
}

pub(super) async fn list(store: &SqlStore) -> Result<Vec<UserRow>, StoreError> {
    let rows = sql(select_user!("ORDER BY u.name_fold"))
        .fetch_all(&store.read)
        .await
        .map_err(failed(READ))?;
    rows.iter().map(user_row).collect()
}

pub(super) async fn named(store: &SqlStore, name: &str) -> Result<Option<UserRow>, StoreError> {
    let row = sql(select_user!("WHERE u.name_fold = $1"))
        .bind(name.to_lowercase())
        .fetch_optional(&store.read)
        .await
        .map_err(failed(READ))?;
    row.as_ref().map(user_row).transpose()
}

pub(super) async fn find(store: &SqlStore, id: UserId) -> Result<Option<UserRow>, StoreError> {
    let row = sql(select_user!("WHERE u.id = $1"))
        .bind(blob(id.uuid()))
        .fetch_optional(&store.read)
        .await
        .map_err(failed(READ))?;
    row.as_ref().map(user_row).transpose()
}

async fn one(tx: &mut Tx, id: UserId) -> Result<UserRow, UserError> {
    let row = sql(select_user!("WHERE u.id = $1"))
        .bind(blob(id.uuid()))
        .fetch_optional(tx)
        .await
        .map_err(failed(READ))
        .map_err(UserError::Store)?
        .ok_or(UserError::Unknown)?;
    user_row(&row).map_err(UserError::Store)
}

pub(super) async fn insert(
    store: &SqlStore,
    user: &UserRow,
    actor: &Actor,
) -> Result<(), UserError> {
    let mut tx = store.writing(STORE).await.map_err(UserError::Store)?;
    let added = insert_row(&mut tx, user).await.map_err(UserError::Store)?;
    if added == 0 {
        return Err(UserError::NameTaken);
    }
    let told = ("user.create", user.role.as_str());
    finish(tx, user, actor, told, user.created_at).await
}

pub(super) async fn insert_first(store: &SqlStore, user: &UserRow) -> Result<bool, UserError> {
    let mut tx = store.writing(STORE).await.map_err(UserError::Store)?;
    let some: bool = sql("SELECT EXISTS (SELECT 1 FROM users)")
        .fetch_value(&mut tx)
        .await
        .map_err(failed(STORE))
        .map_err(UserError::Store)?;
    if some {
        return Ok(false);
    }
    insert_row(&mut tx, user).await.map_err(UserError::Store)?;
    let told = ("user.create", "the first one");
    finish(tx, user, &Actor::Reconciler, told, user.created_at).await?;
    Ok(true)
}

async fn insert_row(tx: &mut Tx, user: &UserRow) -> Result<u64, StoreError> {
    sql(
        "INSERT INTO users (id, name, name_fold, password_hash, role, must_change, created_at,
                            password_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (name_fold) DO NOTHING",
    )
    .bind(blob(user.id.uuid()))
    .bind(&user.name)
    .bind(user.name.to_lowercase())
    .bind(user.password_hash.expose())
    .bind(user.role.as_str())
    .bind(user.must_change)
    .bind(nanos(user.created_at))
    .bind(nanos(user.password_at))
    .execute(tx)
    .await
    .map_err(failed(STORE))
}

pub(super) async fn change(store: &SqlStore, change: &UserChange) -> Result<UserRow, UserError> {
    let mut tx = store.writing(CHANGE).await.map_err(UserError::Store)?;
    let before = one(&mut tx, change.user).await?;
    let mut user = before.clone();
    let mut told = Vec::new();
    if let Some(role) = change.role.filter(|role| *role != before.role) {
        keep_an_admin(&mut tx, &before).await?;
        user.role = role;
        let detail = format!("{} to {}", before.role.as_str(), role.as_str());
        told.push(("user.role", detail));
    }
    if let Some(new) = &change.password {
        let overtaken = |verified: &PasswordHash| *verified != before.password_hash;
        if new.replaces.as_ref().is_some_and(overtaken) {
            return Err(UserError::Overtaken);
        }
        user.password_hash = new.hash.clone();
        user.must_change = new.must_change;
        user.password_at = change.now;
        end_sessions(&mut tx, &user)
            .await
            .map_err(UserError::Store)?;
        told.push(("user.password", String::new()));
    }
    if told.is_empty() {
        return Ok(user);
    }
    update(&mut tx, &user).await.map_err(UserError::Store)?;
    for (action, detail) in &told {
        let told = (*action, detail.as_str());
        record(&mut tx, &user, &change.actor, told, change.now).await?;
    }
    commit(tx).await?;
    Ok(user)
}

async fn update(tx: &mut Tx, user: &UserRow) -> Result<(), StoreError> {
    sql(
        "UPDATE users SET role = $2, password_hash = $3, must_change = $4, password_at = $5
         WHERE id = $1",
    )
    .bind(blob(user.id.uuid()))
    .bind(user.role.as_str())
    .bind(user.password_hash.expose())
    .bind(user.must_change)
    .bind(nanos(user.password_at))
    .execute(tx)
    .await
    .map_err(failed(CHANGE))?;
    Ok(())
}

/// Whoever knew the old password is not to stay.
async fn end_sessions(tx: &mut Tx, user: &UserRow) -> Result<(), StoreError> {
    sql("DELETE FROM sessions WHERE owner = $1")
        .bind(blob(user.id.uuid()))
        .execute(tx)
        .await
        .map_err(failed(CHANGE))?;
    Ok(())
}

pub(super) async fn delete(
    store: &SqlStore,
    id: UserId,
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<(), UserError> {
    let mut tx = store.writing(CHANGE).await.map_err(UserError::Store)?;
    let user = one(&mut tx, id).await?;
    keep_an_admin(&mut tx, &user).await?;
    // Its sessions go by their foreign key.
    sql("DELETE FROM users WHERE id = $1")
        .bind(blob(id.uuid()))
        .execute(&mut tx)
        .await
        .map_err(failed(CHANGE))
        .map_err(UserError::Store)?;
    finish(tx, &user, actor, ("user.delete", ""), now).await
}

/// Refuses to take the last admin away.
async fn keep_an_admin(tx: &mut Tx, user: &UserRow) -> Result<(), UserError> {
    if user.role != Role::Admin {
        return Ok(());
    }
    let others: bool = sql("SELECT EXISTS (SELECT 1 FROM users WHERE role = 'admin' AND id <> $1)")
        .bind(blob(user.id.uuid()))
        .fetch_value(tx)
        .await
        .map_err(failed(CHANGE))
        .map_err(UserError::Store)?;
    if others {
        Ok(())
    } else {
        Err(UserError::LastAdmin)
    }
}

/// Audits and commits.
async fn finish(
    mut tx: Tx,
    user: &UserRow,
    actor: &Actor,
    told: (&str, &str),
    at: OffsetDateTime,
) -> Result<(), UserError> {
    record(&mut tx, user, actor, told, at).await?;
    commit(tx).await
}

async fn record(
    tx: &mut Tx,
    user: &UserRow,
    actor: &Actor,
    (action, detail): (&str, &str),
    at: OffsetDateTime,
) -> Result<(), UserError> {
    let entry = Entry {
        at,
        actor,
        action,
        subject: &user.name,
        detail,
    };
    audit::record(tx, entry).await.map_err(UserError::Store)
}

async fn commit(tx: Tx) -> Result<(), UserError> {
    tx.commit()
        .await
        .map_err(failed(CHANGE))
        .map_err(UserError::Store)
}

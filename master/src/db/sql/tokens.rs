//! Join tokens: made, listed, redeemed once.

use domain::host::Standing;
use domain::id::{HostId, TokenId};
use domain::name::HostName;
use pki::fingerprint::KeyFingerprint;
use pki::token::same_hash;
use time::OffsetDateTime;

use super::audit::{self, Entry};
use super::cells::{Cells, blob, failed, nanos};
use super::statement::{Row, Tx, sql};
use super::{SqlStore, assignments, hosts};
use crate::db::{Actor, RedeemError, Redeemed, Redemption, StoreError, TokenRefusal, TokenRow};

const REDEEM: &str = "redeem a token";

pub(super) async fn insert(store: &SqlStore, token: &TokenRow) -> Result<(), StoreError> {
    const ATTEMPT: &str = "store a token";
    let mut tx = store.writing(ATTEMPT).await?;
    sql(
        "INSERT INTO tokens (id, secret_hash, name, created_at, expires_at, creator)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(blob(token.id.uuid()))
    .bind(token.secret_hash.as_slice())
    .bind(token.name.as_str())
    .bind(nanos(token.created_at))
    .bind(nanos(token.expires_at))
    .bind(&token.creator)
    .execute(&mut tx)
    .await
    .map_err(failed(ATTEMPT))?;
    let entry = Entry {
        at: token.created_at,
        actor: &Actor::Operator(token.creator.clone()),
        action: "token.create",
        subject: &token.id.to_string(),
        detail: &format!("for host {} until {}", token.name, token.expires_at),
    };
    audit::record(&mut tx, entry).await?;
    tx.commit().await.map_err(failed(ATTEMPT))
}

pub(super) async fn open(
    store: &SqlStore,
    now: OffsetDateTime,
) -> Result<Vec<TokenRow>, StoreError> {
    let rows = sql(
        "SELECT id, secret_hash, name, created_at, expires_at, creator, host FROM tokens
         WHERE host IS NULL AND expires_at > $1 ORDER BY expires_at, id",
    )
    .bind(nanos(now))
    .fetch_all(&store.read)
    .await
    .map_err(failed("list tokens"))?;
    rows.iter().map(token_row).collect()
}

fn token_row(row: &Row) -> Result<TokenRow, StoreError> {
    let cells = Cells::new(row, "token");
    Ok(TokenRow {
        id: cells.id("id", TokenId::new)?,
        secret_hash: cells.bytes32("secret_hash")?,
        name: cells.word("name")?,
        created_at: cells.time("created_at")?,
        expires_at: cells.time("expires_at")?,
        creator: cells.get("creator")?,
        redeemed_by: cells.maybe_id("host", HostId::new)?,
    })
}

pub(super) async fn delete(
    store: &SqlStore,
    id: TokenId,
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    const ATTEMPT: &str = "remove a token";
    let mut tx = store.writing(ATTEMPT).await?;
    let removed = sql("DELETE FROM tokens WHERE id = $1")
        .bind(blob(id.uuid()))
        .execute(&mut tx)
        .await
        .map_err(failed(ATTEMPT))?;
    if removed == 0 {
        return Ok(false);
    }
    let subject = id.to_string();
    let entry = Entry {
        at: now,
        actor,
        action: "token.delete",
        subject: &subject,
        detail: "",
    };
    audit::record(&mut tx, entry).await?;
    tx.commit().await.map_err(failed(ATTEMPT))?;
    Ok(true)
}

pub(super) async fn keep_certificate(
    store: &SqlStore,
    token: TokenId,
    certificate: &[u8],
) -> Result<(), StoreError> {
    const ATTEMPT: &str = "keep a certificate";
    let mut tx = store.writing(ATTEMPT).await?;
    sql("UPDATE tokens SET certificate = $1 WHERE id = $2 AND host IS NOT NULL")
        .bind(certificate)
        .bind(blob(token.uuid()))
        .execute(&mut tx)
        .await
        .map_err(failed(ATTEMPT))?;
    tx.commit().await.map_err(failed(ATTEMPT))
}

pub(super) async fn redeem(
    store: &SqlStore,
    redemption: &Redemption,
) -> Result<Redeemed, RedeemError> {
    let mut tx = store.writing(REDEEM).await.map_err(RedeemError::Store)?;
    let verdict = consume(&mut tx, redemption)
        .await
        .map_err(RedeemError::Store)?;
    let key = redemption.key;
    let token = redemption.token;
    let (actor, action, subject, detail) = match &verdict {
        Ok(redeemed) => (
            Actor::Host(redeemed.host),
            "host.enroll",
            redeemed.host.to_string(),
            format!("{} by token {token} with key {key}", redeemed.name),
        ),
        // Nobody has proved to be anybody: what is refused is told by the master itself.
        Err(refusal) => (
            Actor::Reconciler,
            "token.refuse",
            token.to_string(),
            format!("{}; key {key}", words(*refusal)),
        ),
    };
    let entry = Entry {
        at: redemption.now,
        actor: &actor,
        action,
        subject: &subject,
        detail: &detail,
    };
    audit::record(&mut tx, entry)
        .await
        .map_err(RedeemError::Store)?;
    tx.commit()
        .await
        .map_err(failed(REDEEM))
        .map_err(RedeemError::Store)?;
    verdict.map_err(RedeemError::Refused)
}

const fn words(refusal: TokenRefusal) -> &'static str {
    match refusal {
        TokenRefusal::Unknown => "no such token or a wrong secret",
        TokenRefusal::Used => "redeemed before by another key, or its host is gone",
        TokenRefusal::Expired => "expired",
        TokenRefusal::Misnamed => "the host expects another name",
        TokenRefusal::NameTaken => "a living host has the name",
    }
}

struct StoredToken {
    name: HostName,
    expires_at: OffsetDateTime,
    /// By whom and with which key it was redeemed.
    redeemed: Option<(HostId, KeyFingerprint)>,
    certificate: Option<Vec<u8>>,
}

async fn consume(
    tx: &mut Tx,
    redemption: &Redemption,
) -> Result<Result<Redeemed, TokenRefusal>, StoreError> {
    let Some(token) = authentic(tx, redemption).await? else {
        return Ok(Err(TokenRefusal::Unknown));
    };
    if token.redeemed.is_some_and(|(_, key)| key != redemption.key) {
        return Ok(Err(TokenRefusal::Used));
    }
    if redemption.now >= token.expires_at {
        return Ok(Err(TokenRefusal::Expired));
    }
    if let Some(expected) = &redemption.expected_name
        && expected.to_ascii_lowercase() != token.name.folded()
    {
        return Ok(Err(TokenRefusal::Misnamed));
    }
    if let Some((host, _)) = token.redeemed {
        return match hosts::standing(tx, host).await? {
            Some(Standing::Open | Standing::Cordoned | Standing::Draining) => Ok(Ok(Redeemed {
                host,
                name: token.name,
                certificate: token.certificate,
            })),
            Some(Standing::Revoked | Standing::Removed) | None => Ok(Err(TokenRefusal::Used)),
        };
    }
    if hosts::is_name_taken(tx, &token.name).await? {
        return Ok(Err(TokenRefusal::NameTaken));
    }
    admit(tx, redemption, &token.name).await?;
    Ok(Ok(Redeemed {
        host: redemption.host,
        name: token.name,
        certificate: None,
    }))
}

/// The token, when the secret is its secret.
async fn authentic(
    tx: &mut Tx,
    redemption: &Redemption,
) -> Result<Option<StoredToken>, StoreError> {
    let row = sql(
        "SELECT secret_hash, name, expires_at, host, key, certificate FROM tokens WHERE id = $1",
    )
    .bind(blob(redemption.token.uuid()))
    .fetch_optional(tx)
    .await
    .map_err(failed(REDEEM))?;
    // Ids of tokens are no secret, so that an unknown one may answer sooner.
    let Some(row) = row else { return Ok(None) };
    let cells = Cells::new(&row, "token");
    if !same_hash(&cells.bytes32("secret_hash")?, &redemption.secret_hash) {
        return Ok(None);
    }
    let redeemed = match cells.maybe_id("host", HostId::new)? {
        Some(host) => Some((host, cells.key("key")?)),
        None => None,
    };
    Ok(Some(StoredToken {
        name: cells.word("name")?,
        expires_at: cells.time("expires_at")?,
        redeemed,
        certificate: cells.get("certificate")?,
    }))
}

/// Inserts the host with its key and an assignment of nothing, and marks the token.
async fn admit(tx: &mut Tx, redemption: &Redemption, name: &HostName) -> Result<(), StoreError> {
    let host = blob(redemption.host.uuid());
    let now = nanos(redemption.now);
    sql(
        "INSERT INTO hosts (id, name, name_fold, standing, enrolled_at, agent_version)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&host)
    .bind(name.as_str())
    .bind(name.folded())
    .bind(Standing::Open.as_str())
    .bind(now)
    .bind(&redemption.agent_version)
    .execute(&mut *tx)
    .await
    .map_err(failed(REDEEM))?;
    sql("INSERT INTO host_keys (host, key, added_at) VALUES ($1, $2, $3)")
        .bind(&host)
        .bind(redemption.key.as_bytes().as_slice())
        .bind(now)
        .execute(&mut *tx)
        .await
        .map_err(failed(REDEEM))?;
    assignments::insert_empty(tx, redemption.host).await?;
    sql("UPDATE tokens SET host = $1, key = $2 WHERE id = $3")
        .bind(&host)
        .bind(redemption.key.as_bytes().as_slice())
        .bind(blob(redemption.token.uuid()))
        .execute(tx)
        .await
        .map_err(failed(REDEEM))?;
    Ok(())
}

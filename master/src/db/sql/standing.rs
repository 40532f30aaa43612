//! What an operator decides about a host, and what that does to what the host carries.

use domain::host::Standing;
use domain::id::HostId;
use domain::topology::status::StatusEvent;
use time::OffsetDateTime;

use super::cells::{blob, failed};
use super::statement::{Tx, sql};
use super::status::{self, Cause, Head, TakeError};
use super::{SqlStore, assignments, audit, hosts};
use crate::db::{Actor, Force, HostRow, StandingError};

const ATTEMPT: &str = "change the standing of a host";

/// A decision about a host.
pub(super) struct Decision {
    pub(super) host: HostId,
    pub(super) to: Standing,
    pub(super) force: Force,
    pub(super) actor: Actor,
    pub(super) now: OffsetDateTime,
}

pub(super) async fn set(store: &SqlStore, decision: &Decision) -> Result<HostRow, StandingError> {
    let mut tx = store.writing(ATTEMPT).await.map_err(StandingError::Store)?;
    let row = decide(&mut tx, decision).await?;
    tx.commit()
        .await
        .map_err(failed(ATTEMPT))
        .map_err(StandingError::Store)?;
    Ok(row)
}

async fn decide(tx: &mut Tx, decision: &Decision) -> Result<HostRow, StandingError> {
    let Decision {
        host,
        to,
        force,
        actor,
        now,
    } = decision;
    let (host, to) = (*host, *to);
    let row = hosts::in_transaction(tx, host)
        .await
        .map_err(StandingError::Store)?
        .ok_or(StandingError::Unknown)?;
    let from = row.standing;
    if !from.may_become(to) {
        return Err(StandingError::Illegal { from, to });
    }
    let live = status::live_on(tx, host)
        .await
        .map_err(StandingError::Store)?;
    match to {
        Standing::Open | Standing::Cordoned => {}
        Standing::Draining => {
            let reason = format!("the host {} is drained", row.name);
            let cause = Cause {
                action: "topology.teardown",
                reason: &reason,
                actor,
                now: *now,
            };
            for head in &live {
                end(tx, head, &[StatusEvent::TeardownRequested], &cause).await?;
            }
            assignments::clear(tx, host)
                .await
                .map_err(StandingError::Store)?;
        }
        Standing::Revoked => {
            sql("DELETE FROM host_keys WHERE host = $1")
                .bind(blob(host.uuid()))
                .execute(&mut *tx)
                .await
                .map_err(failed(ATTEMPT))
                .map_err(StandingError::Store)?;
        }
        Standing::Removed => {
            if let (Some(head), Force::No) = (live.first(), force) {
                return Err(StandingError::Occupied(head.id));
            }
            let reason = format!("the host {} was removed by force", row.name);
            let cause = Cause {
                action: "topology.teardown",
                reason: &reason,
                actor,
                now: *now,
            };
            let events = [StatusEvent::TeardownRequested, StatusEvent::HostIsEmpty];
            for head in &live {
                end(tx, head, &events, &cause).await?;
            }
            assignments::clear(tx, host)
                .await
                .map_err(StandingError::Store)?;
        }
    }
    sql("UPDATE hosts SET standing = $1 WHERE id = $2")
        .bind(to.as_str())
        .bind(blob(host.uuid()))
        .execute(&mut *tx)
        .await
        .map_err(failed(ATTEMPT))
        .map_err(StandingError::Store)?;
    let detail = format!("{}: {from} to {to}", row.name);
    audit::record_host(tx, host, actor, ("host.standing", &detail), *now)
        .await
        .map_err(StandingError::Store)?;
    hosts::in_transaction(tx, host)
        .await
        .map_err(StandingError::Store)?
        .ok_or(StandingError::Unknown)
}

/// Gives `events` to a topology in turn; those that its status does not take are left out, since
/// it may be on that way already.
async fn end(
    tx: &mut Tx,
    head: &Head,
    events: &[StatusEvent],
    cause: &Cause<'_>,
) -> Result<(), StandingError> {
    let mut at = Head {
        id: head.id,
        name: head.name.clone(),
        status: head.status,
        revision: head.revision,
    };
    for event in events {
        match status::take(tx, &at, *event, cause).await {
            Ok(after) => at.status = after,
            Err(TakeError::Illegal(_)) => {}
            Err(TakeError::Store(source)) => return Err(StandingError::Store(source)),
        }
    }
    Ok(())
}

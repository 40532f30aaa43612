//! Intent and what became of it: deploy, teardown, settlement, and what a reconcile pass reads.

use domain::assign::Assignment;
use domain::host::Standing;
use domain::id::{HostId, TopologyId};
use domain::name::TopologyName;
use domain::revision::{Fence, Revision};
use domain::topology::hydrate::VersionHash;
use domain::topology::status::{StatusEvent, TopologyStatus};
use time::OffsetDateTime;

use super::assignments::{self, NewContent};
use super::cells::{Cells, blob, failed, int, nanos};
use super::statement::{Tx, sql};
use super::status::{self, Cause, Head};
use super::{SqlStore, hosts};
use crate::db::{
    Deploy, IntentError, LiveTopology, Replace, Settlement, StoreError, Teardown, Views, Withdraw,
};

pub(super) async fn deploy(store: &SqlStore, deploy: &Deploy) -> Result<Assignment, IntentError> {
    const ATTEMPT: &str = "store a deploy";
    let mut tx = store.writing(ATTEMPT).await.map_err(IntentError::Store)?;
    let head = status::head(&mut tx, deploy.topology)
        .await
        .map_err(IntentError::Store)?
        .ok_or(IntentError::Unknown)?;
    unedited(&head, Some(deploy.revision))?;
    check_host(&mut tx, deploy).await?;
    // Before anything else is touched, so that the loser of a race hears of its own topology.
    head.status
        .next(StatusEvent::DeployRequested)
        .map_err(IntentError::Illegal)?;
    supersede_others(&mut tx, deploy, &head).await?;

    sql("UPDATE topologies SET host = $1, deadline = $2 WHERE id = $3")
        .bind(blob(deploy.host.uuid()))
        .bind(nanos(deploy.deadline))
        .bind(blob(deploy.topology.uuid()))
        .execute(&mut tx)
        .await
        .map_err(failed(ATTEMPT))
        .map_err(IntentError::Store)?;
    let cause = Cause {
        action: "topology.deploy",
        reason: "a deploy was asked for",
        actor: &deploy.actor,
        now: deploy.now,
    };
    status::take(&mut tx, &head, StatusEvent::DeployRequested, &cause).await?;
    // A failed deploy may have left it assigned to another host.
    assignments::withdraw(&mut tx, deploy.topology, Some(deploy.host))
        .await
        .map_err(IntentError::Store)?;
    let content = NewContent {
        topology: deploy.topology,
        hash: deploy.hash,
        hydrated: &deploy.hydrated,
    };
    let assignment = assignments::assign(&mut tx, deploy.host, Some(content))
        .await
        .map_err(IntentError::Store)?;
    tx.commit()
        .await
        .map_err(failed(ATTEMPT))
        .map_err(IntentError::Store)?;
    Ok(assignment)
}

/// Whether a topology is still at the revision that is meant, if one is.
fn unedited(head: &Head, expected: Option<Revision>) -> Result<(), IntentError> {
    let current = head.revision;
    match expected {
        Some(expected) if expected != current => {
            Err(IntentError::StaleRevision { expected, current })
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether the host takes this topology: an open one does, and a cordoned one that holds it does.
async fn check_host(tx: &mut Tx, deploy: &Deploy) -> Result<(), IntentError> {
    let Some(host) = hosts::in_transaction(tx, deploy.host)
        .await
        .map_err(IntentError::Store)?
    else {
        return Err(IntentError::HostClosed(Standing::Removed));
    };
    let holds = host
        .assignment
        .content
        .is_some_and(|(id, _)| id == deploy.topology);
    if host.standing.takes_new() || (holds && host.standing == Standing::Cordoned) {
        Ok(())
    } else {
        Err(IntentError::HostClosed(host.standing))
    }
}

/// Moves what else lives on the host to tearing down, when the deploy may replace it.
async fn supersede_others(
    tx: &mut Tx,
    deploy: &Deploy,
    successor: &Head,
) -> Result<(), IntentError> {
    let reason = format!("replaced by {}", successor.name);
    let cause = Cause {
        action: "topology.supersede",
        reason: &reason,
        actor: &deploy.actor,
        now: deploy.now,
    };
    for other in status::live_on(tx, deploy.host)
        .await
        .map_err(IntentError::Store)?
    {
        if other.id == deploy.topology {
            continue;
        }
        match deploy.replace {
            Replace::Refuse => {
                let name = TopologyName::parse(&other.name).map_err(|_| {
                    IntentError::Store(StoreError::Malformed {
                        noun: "topology",
                        column: "name",
                    })
                })?;
                return Err(IntentError::HostOccupied(name));
            }
            Replace::Supersede if other.status == TopologyStatus::TearingDown => {}
            Replace::Supersede => {
                status::take(tx, &other, StatusEvent::TeardownRequested, &cause).await?;
            }
        }
    }
    Ok(())
}

pub(super) async fn teardown(
    store: &SqlStore,
    teardown: &Teardown,
) -> Result<TopologyStatus, IntentError> {
    const ATTEMPT: &str = "store a teardown";
    let Teardown {
        topology,
        expected,
        reason,
        actor,
        now,
    } = teardown;
    let mut tx = store.writing(ATTEMPT).await.map_err(IntentError::Store)?;
    let head = status::head(&mut tx, *topology)
        .await
        .map_err(IntentError::Store)?
        .ok_or(IntentError::Unknown)?;
    unedited(&head, *expected)?;
    let event = if head.status == TopologyStatus::Pending {
        StatusEvent::HostIsEmpty
    } else {
        StatusEvent::TeardownRequested
    };
    let cause = Cause {
        action: "topology.teardown",
        reason,
        actor,
        now: *now,
    };
    let after = status::take(&mut tx, &head, event, &cause).await?;
    assignments::withdraw(&mut tx, *topology, None)
        .await
        .map_err(IntentError::Store)?;
    tx.commit()
        .await
        .map_err(failed(ATTEMPT))
        .map_err(IntentError::Store)?;
    Ok(after)
}

pub(super) async fn settle(
    store: &SqlStore,
    settlement: &Settlement,
) -> Result<Option<TopologyStatus>, IntentError> {
    const ATTEMPT: &str = "settle a status";
    let Settlement {
        topology,
        from,
        event,
        reason,
        applied,
        withdraw,
        actor,
        now,
    } = settlement;
    let mut tx = store.writing(ATTEMPT).await.map_err(IntentError::Store)?;
    let head = status::head(&mut tx, *topology)
        .await
        .map_err(IntentError::Store)?
        .ok_or(IntentError::Unknown)?;
    if head.status != *from {
        return Ok(None);
    }
    let cause = Cause {
        action: "topology.settle",
        reason,
        actor,
        now: *now,
    };
    let after = status::take(&mut tx, &head, *event, &cause).await?;
    if let Some(applied) = applied {
        write_applied(&mut tx, *topology, *applied)
            .await
            .map_err(IntentError::Store)?;
    }
    match withdraw {
        Withdraw::Keep => {}
        Withdraw::Nothing => {
            assignments::withdraw(&mut tx, *topology, None)
                .await
                .map_err(IntentError::Store)?;
        }
    }
    tx.commit()
        .await
        .map_err(failed(ATTEMPT))
        .map_err(IntentError::Store)?;
    Ok(Some(after))
}

pub(super) async fn record_applied(
    store: &SqlStore,
    topology: TopologyId,
    applied: (Fence, VersionHash, OffsetDateTime),
) -> Result<(), StoreError> {
    const ATTEMPT: &str = "store what a host has applied";
    // A steady host says the same at every report: it must not take the writer for that.
    if is_applied(store, topology, applied).await? {
        return Ok(());
    }
    let mut tx = store.writing(ATTEMPT).await?;
    write_applied(&mut tx, topology, applied).await?;
    tx.commit().await.map_err(failed(ATTEMPT))
}

/// Whether that is what is stored; also when there is no such topology to store it for.
async fn is_applied(
    store: &SqlStore,
    topology: TopologyId,
    (fence, hash, at): (Fence, VersionHash, OffsetDateTime),
) -> Result<bool, StoreError> {
    sql(
        "SELECT NOT EXISTS (
             SELECT 1 FROM topologies
             WHERE id = $5 AND (applied_epoch IS DISTINCT FROM $1 OR applied_generation IS DISTINCT FROM $2
                                OR applied_hash IS DISTINCT FROM $3 OR applied_at IS DISTINCT FROM $4))",
    )
    .bind(int(fence.epoch.get()))
    .bind(int(fence.generation.get()))
    .bind(hash.bytes().as_slice())
    .bind(nanos(at))
    .bind(blob(topology.uuid()))
    .fetch_value(&store.read)
    .await
    .map_err(failed("read what a host has applied"))
}

async fn write_applied(
    tx: &mut Tx,
    topology: TopologyId,
    (fence, hash, at): (Fence, VersionHash, OffsetDateTime),
) -> Result<(), StoreError> {
    sql(
        "UPDATE topologies SET applied_epoch = $1, applied_generation = $2, applied_hash = $3,
                applied_at = $4
         WHERE id = $5",
    )
    .bind(int(fence.epoch.get()))
    .bind(int(fence.generation.get()))
    .bind(hash.bytes().as_slice())
    .bind(nanos(at))
    .bind(blob(topology.uuid()))
    .execute(tx)
    .await
    .map_err(failed("store what a host has applied"))?;
    Ok(())
}

pub(super) async fn views(store: &SqlStore) -> Result<Views, StoreError> {
    const ATTEMPT: &str = "read what is to be reconciled";
    let mut tx = store.reading(ATTEMPT).await?;
    let hosts = hosts::connectable(&mut tx).await?;
    let rows = sql("SELECT id, name, host, status, deadline FROM topologies
         WHERE status IN ('deploying', 'active', 'degraded', 'tearing_down') ORDER BY row")
    .fetch_all(&mut tx)
    .await
    .map_err(failed(ATTEMPT))?;
    let topologies = rows
        .iter()
        .map(|row| {
            let cells = Cells::new(row, "topology");
            Ok(LiveTopology {
                id: cells.id("id", TopologyId::new)?,
                name: cells.word("name")?,
                host: cells.id("host", HostId::new)?,
                status: cells.word("status")?,
                deadline: cells.maybe_time("deadline")?,
            })
        })
        .collect::<Result<_, StoreError>>()?;
    Ok(Views { hosts, topologies })
}

//! The graph of a topology in the place of the one before, under the next revision.

use domain::revision::Revision;
use domain::topology::Topology;
use domain::topology::status::TopologyStatus;
use time::OffsetDateTime;

use super::audit::{self, Entry};
use super::cells::{blob, failed, int};
use super::statement::{Tx, sql};
use super::{SqlStore, graph, places, status};
use crate::db::queue::EditError;
use crate::db::{Actor, StoreError};

const EDIT: &str = "edit a topology";

/// Stores the graph of `topology` under the revision after its own, which is still the stored one.
pub(super) async fn replace(tx: &mut Tx, topology: &Topology) -> Result<Revision, StoreError> {
    let (id, before) = (blob(topology.id.uuid()), topology.revision);
    let after = before.next();
    let changed = sql("UPDATE topologies SET revision = $3 WHERE id = $1 AND revision = $2")
        .bind(&id)
        .bind(int(before.get()))
        .bind(int(after.get()))
        .execute(&mut *tx)
        .await
        .map_err(failed(EDIT))?;
    if changed == 0 {
        // Only when the revision was read in another transaction.
        return Err(failed(EDIT)(sqlx::Error::RowNotFound));
    }
    graph::replace(tx, topology).await?;
    places::forget_strays(tx, topology.id).await?;
    Ok(after)
}

pub(super) async fn draft(
    store: &SqlStore,
    topology: &Topology,
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<Revision, EditError> {
    let mut tx = store.writing(EDIT).await.map_err(EditError::Store)?;
    let head = status::head(&mut tx, topology.id)
        .await
        .map_err(EditError::Store)?
        .ok_or(EditError::Unknown)?;
    match head.status {
        TopologyStatus::Pending | TopologyStatus::Failed => {}
        TopologyStatus::Deploying
        | TopologyStatus::Active
        | TopologyStatus::Degraded
        | TopologyStatus::TearingDown
        | TopologyStatus::TornDown => return Err(EditError::NotDraft(head.status)),
    }
    let (expected, current) = (topology.revision, head.revision);
    if expected != current {
        return Err(EditError::StaleRevision { expected, current });
    }
    let after = write(&mut tx, topology, actor, now)
        .await
        .map_err(EditError::Store)?;
    tx.commit()
        .await
        .map_err(failed(EDIT))
        .map_err(EditError::Store)?;
    Ok(after)
}

async fn write(
    tx: &mut Tx,
    topology: &Topology,
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<Revision, StoreError> {
    sql("UPDATE topologies SET host = $2 WHERE id = $1")
        .bind(blob(topology.id.uuid()))
        .bind(topology.host.map(|host| blob(host.uuid())))
        .execute(&mut *tx)
        .await
        .map_err(failed(EDIT))?;
    let after = replace(tx, topology).await?;
    let detail = format!(
        "{}: revision {after}, {} LANs, {} deckies",
        topology.name,
        topology.lans.len(),
        topology.deckies.len()
    );
    let entry = Entry {
        at: now,
        actor,
        action: "topology.edit",
        subject: &topology.id.to_string(),
        detail: &detail,
    };
    audit::record(tx, entry).await?;
    Ok(after)
}

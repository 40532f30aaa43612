//! What is assigned to each host: one row, whose fence only rises.

use std::collections::BTreeSet;

use domain::assign::Assignment;
use domain::id::{DeckyId, HostId, TopologyId};
use domain::revision::{Epoch, Fence};
use domain::topology::hydrate::VersionHash;

use super::SqlStore;
use super::cells::{Cells, blob, failed, int};
use super::statement::{Tx, sql};
use crate::db::StoreError;

const ASSIGN: &str = "assign to a host";

/// What a host is to hold, with its document.
pub(super) struct NewContent<'a> {
    pub(super) topology: TopologyId,
    pub(super) hash: VersionHash,
    pub(super) hydrated: &'a [u8],
}

pub(super) async fn epoch(store: &SqlStore) -> Result<Epoch, StoreError> {
    let mut tx = store.reading("read the epoch").await?;
    epoch_in(&mut tx).await
}

async fn epoch_in(tx: &mut Tx) -> Result<Epoch, StoreError> {
    let epoch: i64 = sql("SELECT epoch FROM meta")
        .fetch_value(tx)
        .await
        .map_err(failed("read the epoch"))?;
    u64::try_from(epoch)
        .map(Epoch::new)
        .map_err(|_| StoreError::Malformed {
            noun: "meta",
            column: "epoch",
        })
}

/// The first assignment of a host: nothing, at generation 0 of the present epoch.
pub(super) async fn insert_empty(tx: &mut Tx, host: HostId) -> Result<(), StoreError> {
    sql("INSERT INTO assignments (host, epoch, generation) SELECT $1, epoch, 0 FROM meta")
        .bind(blob(host.uuid()))
        .execute(tx)
        .await
        .map_err(failed(ASSIGN))?;
    Ok(())
}

pub(super) async fn of_host(tx: &mut Tx, host: HostId) -> Result<Assignment, StoreError> {
    let row = sql("SELECT epoch, generation, topology, hash FROM assignments WHERE host = $1")
        .bind(blob(host.uuid()))
        .fetch_one(tx)
        .await
        .map_err(failed("read an assignment"))?;
    let cells = Cells::new(&row, "assignment");
    Ok(Assignment {
        fence: cells.fence("epoch", "generation")?,
        content: cells.content("topology", "hash")?,
    })
}

/// Assigns `content` to `host` under the next generation.
pub(super) async fn assign(
    tx: &mut Tx,
    host: HostId,
    content: Option<NewContent<'_>>,
) -> Result<Assignment, StoreError> {
    let fence = next_fence(tx, host).await?;
    sql(
        "UPDATE assignments SET epoch = $1, generation = $2, topology = $3, hash = $4, hydrated = $5
         WHERE host = $6",
    )
    .bind(int(fence.epoch.get()))
    .bind(int(fence.generation.get()))
    .bind(
        content
            .as_ref()
            .map(|content| blob(content.topology.uuid())),
    )
    .bind(
        content
            .as_ref()
            .map(|content| content.hash.bytes().as_slice()),
    )
    .bind(content.as_ref().map(|content| content.hydrated))
    .bind(blob(host.uuid()))
    .execute(&mut *tx)
    .await
    .map_err(failed(ASSIGN))?;
    let content = content.map(|content| (content.topology, content.hash));
    if let Some((topology, hash)) = content {
        desire(tx, topology, fence, hash).await?;
        remember_deckies(tx, host, topology).await?;
    }
    Ok(Assignment { fence, content })
}

async fn next_fence(tx: &mut Tx, host: HostId) -> Result<Fence, StoreError> {
    let before = of_host(tx, host).await?.fence;
    // A host that obeyed a fence of a later reign keeps that epoch until the master's catches up.
    let epoch = epoch_in(tx).await?.max(before.epoch);
    Ok(Fence {
        epoch,
        generation: before.generation.next(),
    })
}

async fn desire(
    tx: &mut Tx,
    topology: TopologyId,
    fence: Fence,
    hash: VersionHash,
) -> Result<(), StoreError> {
    sql(
        "UPDATE topologies SET desired_epoch = $1, desired_generation = $2, desired_hash = $3
         WHERE id = $4",
    )
    .bind(int(fence.epoch.get()))
    .bind(int(fence.generation.get()))
    .bind(hash.bytes().as_slice())
    .bind(blob(topology.uuid()))
    .execute(tx)
    .await
    .map_err(failed(ASSIGN))?;
    Ok(())
}

async fn remember_deckies(
    tx: &mut Tx,
    host: HostId,
    topology: TopologyId,
) -> Result<(), StoreError> {
    sql("INSERT INTO host_deckies (host, topology, decky)
         SELECT $1, topology, id FROM deckies WHERE topology = $2 ON CONFLICT DO NOTHING")
    .bind(blob(host.uuid()))
    .bind(blob(topology.uuid()))
    .execute(tx)
    .await
    .map_err(failed(ASSIGN))?;
    Ok(())
}

/// Assigns nothing to `host`, when something is assigned to it.
pub(super) async fn clear(tx: &mut Tx, host: HostId) -> Result<Assignment, StoreError> {
    let assignment = of_host(tx, host).await?;
    if assignment.content.is_none() {
        return Ok(assignment);
    }
    assign(tx, host, None).await
}

/// Assigns nothing to every host that is assigned `topology`, except to `keep`.
pub(super) async fn withdraw(
    tx: &mut Tx,
    topology: TopologyId,
    keep: Option<HostId>,
) -> Result<(), StoreError> {
    let rows = sql("SELECT host FROM assignments WHERE topology = $1")
        .bind(blob(topology.uuid()))
        .fetch_all(&mut *tx)
        .await
        .map_err(failed(ASSIGN))?;
    for row in &rows {
        let host = Cells::new(row, "assignment").id("host", HostId::new)?;
        if Some(host) != keep {
            assign(tx, host, None).await?;
        }
    }
    Ok(())
}

pub(super) async fn supersede(
    store: &SqlStore,
    host: HostId,
    above: Fence,
) -> Result<Assignment, StoreError> {
    const ATTEMPT: &str = "raise an assignment";
    let mut tx = store.writing(ATTEMPT).await?;
    let before = of_host(&mut tx, host).await?;
    let floor = before.fence.max(above);
    // Only this host's row: a host that claims a fence from the far future must not take the
    // whole fleet there.
    let epoch = epoch_in(&mut tx).await?.max(floor.epoch);
    let generation = before.fence.generation.max(above.generation).next();
    let fence = Fence { epoch, generation };
    sql("UPDATE assignments SET epoch = $1, generation = $2 WHERE host = $3")
        .bind(int(fence.epoch.get()))
        .bind(int(fence.generation.get()))
        .bind(blob(host.uuid()))
        .execute(&mut tx)
        .await
        .map_err(failed(ATTEMPT))?;
    if let Some((topology, hash)) = before.content {
        desire(&mut tx, topology, fence, hash).await?;
    }
    tx.commit().await.map_err(failed(ATTEMPT))?;
    // Not audited: a host could fill the audit log by claiming ever higher fences.
    tracing::warn!(
        host.id = %host,
        from = %before.fence,
        to = %fence,
        "assignment raised above a fence that its host obeys"
    );
    Ok(Assignment {
        fence,
        content: before.content,
    })
}

pub(super) async fn document(
    store: &SqlStore,
    host: HostId,
) -> Result<Option<Vec<u8>>, StoreError> {
    let row = sql("SELECT hydrated FROM assignments WHERE host = $1")
        .bind(blob(host.uuid()))
        .fetch_optional(&store.read)
        .await
        .map_err(failed("read an assigned document"))?;
    row.map_or(Ok(None), |row| {
        Cells::new(&row, "assignment").get("hydrated")
    })
}

pub(super) async fn deckies_of_host(
    store: &SqlStore,
    host: HostId,
) -> Result<BTreeSet<(TopologyId, DeckyId)>, StoreError> {
    let rows = sql("SELECT topology, decky FROM host_deckies WHERE host = $1")
        .bind(blob(host.uuid()))
        .fetch_all(&store.read)
        .await
        .map_err(failed("read the deckies of a host"))?;
    rows.iter()
        .map(|row| {
            let cells = Cells::new(row, "decky of a host");
            Ok((
                cells.id("topology", TopologyId::new)?,
                cells.id("decky", DeckyId::new)?,
            ))
        })
        .collect()
}

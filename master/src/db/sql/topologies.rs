//! Topologies: stored, read whole or in a list, removed.

use domain::id::{DeckyId, HostId, TopologyId};
use domain::topology::Topology;
use domain::topology::hydrate::VersionHash;
use domain::topology::status::TopologyStatus;
use time::OffsetDateTime;

use super::audit::{self, Entry};
use super::cells::{Cells, blob, failed, int, nanos};
use super::graph::{self, Graph};
use super::statement::{Row, Statement, Tx, sql};
use super::{SqlStore, assignments, status};
use crate::db::{Actor, Removal, StoreError, TopologyError, TopologyRow, TopologySummary};

pub(super) async fn insert(
    store: &SqlStore,
    topology: &Topology,
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<(), TopologyError> {
    const ATTEMPT: &str = "store a topology";
    let mut tx = store.writing(ATTEMPT).await.map_err(TopologyError::Store)?;
    let taken: bool = sql(
        "SELECT EXISTS (SELECT 1 FROM topologies WHERE name_fold = $1 AND status <> 'torn_down')",
    )
    .bind(topology.name.folded())
    .fetch_value(&mut tx)
    .await
    .map_err(failed(ATTEMPT))
    .map_err(TopologyError::Store)?;
    if taken {
        return Err(TopologyError::NameTaken);
    }
    insert_rows(&mut tx, topology, actor, now)
        .await
        .map_err(TopologyError::Store)?;
    tx.commit()
        .await
        .map_err(failed(ATTEMPT))
        .map_err(TopologyError::Store)
}

async fn insert_rows(
    tx: &mut Tx,
    topology: &Topology,
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sql(
        "INSERT INTO topologies (id, name, name_fold, host, revision, created_at, status,
                                 status_at, reason)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $6, 'created')",
    )
    .bind(blob(topology.id.uuid()))
    .bind(topology.name.as_str())
    .bind(topology.name.folded())
    .bind(topology.host.map(|host| blob(host.uuid())))
    .bind(int(topology.revision.get()))
    .bind(nanos(now))
    .bind(TopologyStatus::Pending.as_str())
    .execute(&mut *tx)
    .await
    .map_err(failed("store a topology"))?;
    graph::insert(tx, topology).await?;
    let detail = format!(
        "{}: {} LANs, {} deckies",
        topology.name,
        topology.lans.len(),
        topology.deckies.len()
    );
    let subject = topology.id.to_string();
    let entry = Entry {
        at: now,
        actor,
        action: "topology.create",
        subject: &subject,
        detail: &detail,
    };
    audit::record(tx, entry).await
}

pub(super) async fn one(
    store: &SqlStore,
    id: TopologyId,
) -> Result<Option<TopologyRow>, StoreError> {
    const ATTEMPT: &str = "read a topology";
    // One transaction, so that the graph is that of the revision.
    let mut tx = store.reading(ATTEMPT).await?;
    let row = head_of(id).fetch_optional(&mut tx).await;
    let row = row.map_err(failed(ATTEMPT))?;
    let Some(row) = row else { return Ok(None) };
    let graph = graph::read(&mut tx, id).await?;
    topology_row(&row, id, graph).map(Some)
}

/// A topology without what is in tables of its own.
pub(super) async fn head(
    store: &SqlStore,
    id: TopologyId,
) -> Result<Option<TopologyRow>, StoreError> {
    let row = head_of(id).fetch_optional(&store.read).await;
    let row = row.map_err(failed("read a topology"))?;
    let nothing = Graph {
        lans: Vec::new(),
        deckies: Vec::new(),
        edges: Vec::new(),
    };
    row.map(|row| topology_row(&row, id, nothing)).transpose()
}

fn head_of(id: TopologyId) -> Statement {
    sql(
        "SELECT name, host, revision, status, status_at, reason, deadline,
                desired_epoch, desired_generation, desired_hash,
                applied_epoch, applied_generation, applied_hash, applied_at
         FROM topologies WHERE id = $1",
    )
    .bind(blob(id.uuid()))
}

fn topology_row(row: &Row, id: TopologyId, graph: Graph) -> Result<TopologyRow, StoreError> {
    let cells = Cells::new(row, "topology");
    let Graph {
        lans,
        deckies,
        edges,
    } = graph;
    let desired = match cells.get::<Option<&[u8]>>("desired_hash")? {
        Some(_) => Some((
            cells.fence("desired_epoch", "desired_generation")?,
            VersionHash::new(cells.bytes32("desired_hash")?),
        )),
        None => None,
    };
    let applied = match cells.get::<Option<&[u8]>>("applied_hash")? {
        Some(_) => Some((
            cells.fence("applied_epoch", "applied_generation")?,
            VersionHash::new(cells.bytes32("applied_hash")?),
            cells.time("applied_at")?,
        )),
        None => None,
    };
    Ok(TopologyRow {
        topology: Topology {
            id,
            name: cells.word("name")?,
            host: cells.maybe_id("host", HostId::new)?,
            revision: cells.revision("revision")?,
            lans,
            deckies,
            edges,
        },
        status: cells.word("status")?,
        status_at: cells.time("status_at")?,
        reason: cells.get("reason")?,
        deadline: cells.maybe_time("deadline")?,
        desired,
        applied,
    })
}

pub(super) async fn named(store: &SqlStore, name: &str) -> Result<Option<TopologyId>, StoreError> {
    let row = sql("SELECT id FROM topologies WHERE name_fold = $1
         ORDER BY status = 'torn_down', row DESC LIMIT 1")
    .bind(name.to_ascii_lowercase())
    .fetch_optional(&store.read)
    .await
    .map_err(failed("look for a topology"))?;
    row.as_ref()
        .map(|row| Cells::new(row, "topology").id("id", TopologyId::new))
        .transpose()
}

pub(super) async fn deckies_named(
    store: &SqlStore,
    name: &str,
) -> Result<Vec<(TopologyId, TopologyStatus, DeckyId)>, StoreError> {
    let rows = sql("SELECT topology, status, deckies.id FROM deckies
         JOIN topologies ON topologies.id = topology WHERE lower(deckies.name) = $1")
    .bind(name.to_ascii_lowercase())
    .fetch_all(&store.read)
    .await
    .map_err(failed("look for a decky"))?;
    rows.iter()
        .map(|row| {
            let cells = Cells::new(row, "decky");
            Ok((
                cells.id("topology", TopologyId::new)?,
                cells.word("status")?,
                cells.id("id", DeckyId::new)?,
            ))
        })
        .collect()
}

pub(super) async fn list(store: &SqlStore) -> Result<Vec<TopologySummary>, StoreError> {
    let rows = sql(
        "SELECT t.row, id, name, host, revision, status, status_at, reason,
                (SELECT count(*) FROM lans WHERE topology = t.id) AS lans,
                (SELECT count(*) FROM deckies WHERE topology = t.id) AS deckies
         FROM topologies AS t ORDER BY row DESC",
    )
    .fetch_all(&store.read)
    .await
    .map_err(failed("list topologies"))?;
    rows.iter()
        .map(|row| {
            let cells = Cells::new(row, "topology");
            Ok(TopologySummary {
                row: cells.get("row")?,
                id: cells.id("id", TopologyId::new)?,
                name: cells.word("name")?,
                host: cells.maybe_id("host", HostId::new)?,
                revision: cells.revision("revision")?,
                status: cells.word("status")?,
                status_at: cells.time("status_at")?,
                reason: cells.get("reason")?,
                lans: cells.count("lans")?,
                deckies: cells.count("deckies")?,
            })
        })
        .collect()
}

pub(super) async fn delete(store: &SqlStore, removal: &Removal) -> Result<(), TopologyError> {
    const ATTEMPT: &str = "remove a topology";
    let Removal {
        topology: id,
        expected,
        observed_empty,
        actor,
        now,
    } = removal;
    let mut tx = store.writing(ATTEMPT).await.map_err(TopologyError::Store)?;
    let head = status::head(&mut tx, *id)
        .await
        .map_err(TopologyError::Store)?
        .ok_or(TopologyError::Unknown)?;
    let current = head.revision;
    if let Some(expected) = expected.filter(|expected| *expected != current) {
        return Err(TopologyError::StaleRevision { expected, current });
    }
    let removable =
        head.status.is_removable() || (head.status == TopologyStatus::Failed && *observed_empty);
    if !removable {
        return Err(TopologyError::NotRemovable(head.status));
    }
    delete_rows(&mut tx, *id)
        .await
        .map_err(TopologyError::Store)?;
    let subject = id.to_string();
    let detail = format!("{}, which was {}", head.name, head.status);
    let entry = Entry {
        at: *now,
        actor,
        action: "topology.delete",
        subject: &subject,
        detail: &detail,
    };
    audit::record(&mut tx, entry)
        .await
        .map_err(TopologyError::Store)?;
    tx.commit()
        .await
        .map_err(failed(ATTEMPT))
        .map_err(TopologyError::Store)
}

async fn delete_rows(tx: &mut Tx, id: TopologyId) -> Result<(), StoreError> {
    assignments::withdraw(tx, id, None).await?;
    // What belongs to it goes by its foreign keys.
    sql("DELETE FROM topologies WHERE id = $1")
        .bind(blob(id.uuid()))
        .execute(tx)
        .await
        .map_err(failed("remove a topology"))?;
    Ok(())
}

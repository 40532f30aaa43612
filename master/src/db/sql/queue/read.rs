//! What is read of the queue, without a turn of the writers.

use domain::id::{DeckyId, TopologyId};
use domain::topology::mutation::state::MutationState;
use ipnet::Ipv4Net;
use time::OffsetDateTime;

use super::{READ, mutation_row};
use crate::db::StoreError;
use crate::db::queue::{Changed, MutationId, MutationPage, MutationRow, Scheduled};
use crate::db::sql::SqlStore;
use crate::db::sql::cells::{Cells, blob, failed, int, nanos};
use crate::db::sql::statement::{Builder, Statement, sql};

pub(super) async fn one(
    store: &SqlStore,
    id: MutationId,
) -> Result<Option<MutationRow>, StoreError> {
    let row = sql(concat!(
        "SELECT ",
        columns!(),
        " FROM mutations WHERE id = $1"
    ))
    .bind(blob(id.uuid()))
    .fetch_optional(&store.read)
    .await
    .map_err(failed(READ))?;
    row.as_ref().map(mutation_row).transpose()
}

async fn all(store: &SqlStore, query: Statement) -> Result<Vec<MutationRow>, StoreError> {
    let rows = query.fetch_all(&store.read).await.map_err(failed(READ))?;
    rows.iter().map(mutation_row).collect()
}

pub(super) async fn page(
    store: &SqlStore,
    topology: TopologyId,
    page: MutationPage,
    limit: u32,
) -> Result<Vec<MutationRow>, StoreError> {
    let mut query = Builder::new(
        store.read.pool.dialect(),
        concat!("SELECT ", columns!(), " FROM mutations WHERE topology = "),
    );
    query.push_bind(blob(topology.uuid()));
    if let Some(before) = page.before {
        query.push(" AND sequence < ").push_bind(int(before));
    }
    if let Some(state) = page.state {
        query.push(" AND state = ").push_bind(state.as_str());
    }
    query
        .push(" ORDER BY sequence DESC LIMIT ")
        .push_bind(limit);
    all(store, query.build()).await
}

pub(super) async fn count(
    store: &SqlStore,
    topology: TopologyId,
    state: Option<MutationState>,
) -> Result<u64, StoreError> {
    let mut query = Builder::new(
        store.read.pool.dialect(),
        "SELECT count(*) FROM mutations WHERE topology = ",
    );
    query.push_bind(blob(topology.uuid()));
    if let Some(state) = state {
        query.push(" AND state = ").push_bind(state.as_str());
    }
    let count: i64 = query
        .build()
        .fetch_value(&store.read)
        .await
        .map_err(failed(READ))?;
    u64::try_from(count).map_err(|_| StoreError::Malformed {
        noun: "mutation",
        column: "count",
    })
}

pub(super) async fn changed(
    store: &SqlStore,
    topology: TopologyId,
    behind: Changed,
    limit: u32,
) -> Result<Vec<MutationRow>, StoreError> {
    let query = sql(concat!(
        "SELECT ",
        columns!(),
        " FROM mutations WHERE topology = $1 AND (changed_at, sequence) > ($2, $3)
          ORDER BY changed_at, sequence LIMIT $4"
    ));
    let query = query
        .bind(blob(topology.uuid()))
        .bind(nanos(behind.at))
        .bind(int(behind.sequence))
        .bind(limit);
    all(store, query).await
}

pub(super) async fn pending(
    store: &SqlStore,
    topology: TopologyId,
) -> Result<Vec<MutationRow>, StoreError> {
    let query = sql(concat!(
        "SELECT ",
        columns!(),
        " FROM mutations WHERE topology = $1 AND state = 'pending' ORDER BY sequence"
    ));
    all(store, query.bind(blob(topology.uuid()))).await
}

pub(super) async fn every_pending(store: &SqlStore) -> Result<Vec<MutationRow>, StoreError> {
    let query = sql(concat!(
        "SELECT ",
        columns!(),
        " FROM mutations WHERE state = 'pending' ORDER BY topology, sequence"
    ));
    all(store, query).await
}

pub(super) async fn next_claim(store: &SqlStore) -> Result<Option<OffsetDateTime>, StoreError> {
    // A queue whose first is leased waits for that lease, whatever is behind it.
    let row = sql(
        "SELECT min(coalesce(m.lease_until, 0)) AS at FROM mutations AS m
         JOIN topologies AS t ON t.id = m.topology
         WHERE m.state = 'pending' AND t.status IN ('deploying', 'active', 'degraded')
               AND NOT EXISTS (SELECT 1 FROM mutations AS earlier
                               WHERE earlier.topology = m.topology
                                     AND earlier.state = 'pending'
                                     AND earlier.sequence < m.sequence)",
    )
    .fetch_one(&store.read)
    .await
    .map_err(failed(READ))?;
    Cells::new(&row, "mutation").maybe_time("at")
}

pub(super) async fn scheduled(store: &SqlStore) -> Result<Vec<Scheduled>, StoreError> {
    let rows = sql("SELECT d.topology, d.id, d.mutate_every,
                (SELECT e.at FROM events AS e WHERE e.kind = 'mutation' AND e.decky = d.id
                 ORDER BY e.row DESC LIMIT 1) AS changed_at
         FROM deckies AS d
         JOIN topologies AS t ON t.id = d.topology
         WHERE d.mutate_every IS NOT NULL AND t.status IN ('active', 'degraded')
         ORDER BY d.topology, d.position")
    .fetch_all(&store.read)
    .await
    .map_err(failed("read which deckies mutate by themselves"))?;
    rows.iter()
        .map(|row| {
            let cells = Cells::new(row, "decky");
            Ok(Scheduled {
                topology: cells.id("topology", TopologyId::new)?,
                decky: cells.id("id", DeckyId::new)?,
                every: cells.word("mutate_every")?,
                last: cells.maybe_time("changed_at")?,
            })
        })
        .collect()
}

pub(super) async fn taken_subnets(store: &SqlStore) -> Result<Vec<Ipv4Net>, StoreError> {
    let rows = sql(
        "SELECT l.subnet FROM lans AS l JOIN topologies AS t ON t.id = l.topology
         WHERE t.status <> 'torn_down' ORDER BY l.subnet",
    )
    .fetch_all(&store.read)
    .await
    .map_err(failed("read which subnets are taken"))?;
    rows.iter()
        .map(|row| Cells::new(row, "lan").word("subnet"))
        .collect()
}

//! Forgetting what became of topologies that live on: changes of their status, and mutations that
//! have ended. What goes is noted, so that whoever has read less far finds out.

use std::collections::BTreeMap;

use domain::id::TopologyId;
use domain::topology::mutation::state::MutationState;
use time::OffsetDateTime;

use super::SqlStore;
use super::cells::{Cells, blob, failed, nanos};
use super::statement::{Row, Statement, Tx, sql};
use crate::db::StoreError;
use crate::db::upkeep::Forgotten;

const FORGET: &str = "forget the history of topologies";

/// The first rows in the order of their making that may go.
macro_rules! old_changes {
    () => {
        "SELECT s.row FROM status_changes AS s
         WHERE s.at < $1
               AND s.row < (SELECT max(n.row) FROM status_changes AS n
                            WHERE n.topology = s.topology)
         ORDER BY s.row LIMIT $2"
    };
}

/// See [`old_changes`].
macro_rules! old_mutations {
    () => {
        "SELECT m.row FROM mutations AS m
         WHERE m.changed_at < $1 AND m.state IN ($3, $4, $5)
               AND m.sequence < (SELECT max(n.sequence) FROM mutations AS n
                                 WHERE n.topology = m.topology)
         ORDER BY m.row LIMIT $2"
    };
}

pub(super) async fn forget_status_changes(
    store: &SqlStore,
    before: OffsetDateTime,
    batch: u32,
) -> Result<u64, StoreError> {
    let bound = |text, batch: u32| sql(text).bind(nanos(before)).bind(batch);
    // Most of the time there is nothing, and the writers' turn is not taken for that.
    if none(store, bound(old_changes!(), 1)).await? {
        return Ok(0);
    }
    let mut tx = store.writing(FORGET).await?;
    let text = concat!(
        "DELETE FROM status_changes WHERE status_changes.row IN (",
        old_changes!(),
        ") RETURNING topology, status_changes.row AS mark"
    );
    let gone = bound(text, batch).fetch_all(&mut tx).await;
    let gone = gone.map_err(failed(FORGET))?;
    let note =
        "UPDATE topologies SET forgotten_status = $2 WHERE id = $1 AND forgotten_status < $2";
    note_marks(&mut tx, &gone, note).await?;
    tx.commit().await.map_err(failed(FORGET))?;
    Ok(count(&gone))
}

pub(super) async fn forget_mutations(
    store: &SqlStore,
    before: OffsetDateTime,
    batch: u32,
) -> Result<u64, StoreError> {
    let bound = |text, batch: u32| {
        let ended = [
            MutationState::Applied,
            MutationState::Failed,
            MutationState::Cancelled,
        ];
        let statement = sql(text).bind(nanos(before)).bind(batch);
        ended
            .iter()
            .fold(statement, |statement, state| statement.bind(state.as_str()))
    };
    if none(store, bound(old_mutations!(), 1)).await? {
        return Ok(0);
    }
    let mut tx = store.writing(FORGET).await?;
    let text = concat!(
        "DELETE FROM mutations WHERE mutations.row IN (",
        old_mutations!(),
        ") RETURNING topology, changed_at AS mark"
    );
    let gone = bound(text, batch).fetch_all(&mut tx).await;
    let gone = gone.map_err(failed(FORGET))?;
    let note =
        "UPDATE topologies SET forgotten_mutation = $2 WHERE id = $1 AND forgotten_mutation < $2";
    note_marks(&mut tx, &gone, note).await?;
    tx.commit().await.map_err(failed(FORGET))?;
    Ok(count(&gone))
}

pub(super) async fn forgotten(
    store: &SqlStore,
    topology: TopologyId,
) -> Result<Option<Forgotten>, StoreError> {
    let row = sql("SELECT forgotten_status, forgotten_mutation FROM topologies WHERE id = $1")
        .bind(blob(topology.uuid()))
        .fetch_optional(&store.read)
        .await
        .map_err(failed("read how far a history was forgotten"))?;
    row.map(|row| {
        let cells = Cells::new(&row, "topology");
        Ok(Forgotten {
            status: cells.get("forgotten_status")?,
            mutation: cells.time("forgotten_mutation")?,
        })
    })
    .transpose()
}

async fn none(store: &SqlStore, query: Statement) -> Result<bool, StoreError> {
    let rows = query.fetch_all(&store.read).await.map_err(failed(FORGET))?;
    Ok(rows.is_empty())
}

fn count(gone: &[Row]) -> u64 {
    u64::try_from(gone.len()).unwrap_or(u64::MAX)
}

/// Notes the highest mark of each topology of which something is gone.
async fn note_marks(tx: &mut Tx, gone: &[Row], note: &'static str) -> Result<(), StoreError> {
    let mut marks: BTreeMap<TopologyId, i64> = BTreeMap::new();
    for row in gone {
        let cells = Cells::new(row, "history");
        let mark: i64 = cells.get("mark")?;
        let highest = marks.entry(cells.id("topology", TopologyId::new)?);
        highest
            .and_modify(|old| *old = mark.max(*old))
            .or_insert(mark);
    }
    for (topology, mark) in marks {
        sql(note)
            .bind(blob(topology.uuid()))
            .bind(mark)
            .execute(&mut *tx)
            .await
            .map_err(failed(FORGET))?;
    }
    Ok(())
}

//! Where the objects of a topology are drawn: beside it, and no part of it.

use std::collections::BTreeMap;

use domain::id::TopologyId;

use super::SqlStore;
use super::cells::{Cells, blob, failed};
use super::statement::{Builder, Tx, sql};
use crate::db::StoreError;
use crate::db::queue::Place;

const ATTEMPT: &str = "store where a topology is drawn";

/// Places of one statement: six values each, of at most 32766.
const ROWS: usize = 4096;

pub(super) async fn all(store: &SqlStore, topology: TopologyId) -> Result<Vec<Place>, StoreError> {
    let rows =
        sql("SELECT object, x, y, width, height FROM places WHERE topology = $1 ORDER BY object")
            .bind(blob(topology.uuid()))
            .fetch_all(&store.read)
            .await
            .map_err(failed("read where a topology is drawn"))?;
    rows.iter()
        .map(|row| {
            let cells = Cells::new(row, "place");
            let width: Option<i64> = cells.get("width")?;
            Ok(Place {
                object: cells.id("object", |object| object)?,
                x: cells.get("x")?,
                y: cells.get("y")?,
                size: width.zip(cells.get("height")?),
            })
        })
        .collect()
}

pub(super) async fn put(
    store: &SqlStore,
    topology: TopologyId,
    places: &[Place],
) -> Result<(), StoreError> {
    // The last one counts; PostgreSQL does not touch a row twice in one statement.
    let distinct: BTreeMap<_, _> = places.iter().map(|place| (place.object, *place)).collect();
    let distinct: Vec<Place> = distinct.into_values().collect();
    if distinct.is_empty() {
        return Ok(());
    }
    let mut tx = store.writing(ATTEMPT).await?;
    for part in distinct.chunks(ROWS) {
        let mut statement = Builder::new(
            tx.dialect(),
            "INSERT INTO places (topology, object, x, y, width, height) VALUES ",
        );
        statement.push_rows(part, |place| {
            [
                blob(topology.uuid()).into(),
                blob(place.object).into(),
                place.x.into(),
                place.y.into(),
                place.size.map(|(width, _)| width).into(),
                place.size.map(|(_, height)| height).into(),
            ]
        });
        statement.push(
            " ON CONFLICT (topology, object) DO UPDATE
                 SET x = excluded.x, y = excluded.y, width = excluded.width,
                     height = excluded.height",
        );
        statement
            .build_once()
            .execute(&mut tx)
            .await
            .map_err(failed(ATTEMPT))?;
    }
    forget_strays(&mut tx, topology).await?;
    tx.commit().await.map_err(failed(ATTEMPT))
}

/// Forgets the places of what is not in the topology.
pub(super) async fn forget_strays(tx: &mut Tx, topology: TopologyId) -> Result<(), StoreError> {
    sql("DELETE FROM places WHERE topology = $1
             AND object NOT IN (SELECT id FROM lans WHERE topology = $1
                                UNION ALL SELECT id FROM deckies WHERE topology = $1)")
    .bind(blob(topology.uuid()))
    .execute(tx)
    .await
    .map_err(failed(ATTEMPT))?;
    Ok(())
}

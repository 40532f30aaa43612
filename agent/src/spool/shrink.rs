//! Makes room in a full spool, and accounts for what that costs.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::id::DeckyId;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row};
use time::OffsetDateTime;

use super::rows::{blob_uuid, micros, unsigned};
use super::{Bounds, CHUNKS, Figures, INSERTS, Pressure};
use crate::notice::{Notice, Notices, Want};

const DROP_STEP: i64 = 1024;
/// A full spool is emptied this far (in percent), so that not every append has to drop.
const LOW_WATER: u64 = 95;

/// How much room a spool has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Where it ends.
    pub(super) bounds: Bounds,
    /// How much of that it may not have at present.
    pub(super) pressure: Pressure,
    /// The last number that the master may have.
    pub(super) shown: u64,
}

/// Makes room in a spool that has too little.
pub(super) async fn keep_within(
    connection: &mut SqliteConnection,
    room: Room,
    now: OffsetDateTime,
    notices: &Notices,
    next: &mut Figures,
) -> Result<(), sqlx::Error> {
    let bounds = room.bounds.under(room.pressure);
    if next.bytes <= bounds.bytes && next.events <= bounds.events {
        return Ok(());
    }
    let low = Bounds {
        bytes: bounds.bytes / 100 * LOW_WATER,
        events: bounds.events.saturating_mul(LOW_WATER) / 100,
    };
    let account = Account {
        shown: room.shown,
        now,
        want: match room.pressure {
            Pressure::None => Want::Spool,
            Pressure::Short | Pressure::Dire => Want::Disk,
        },
        notices,
    };
    shrink(connection, low, account, next).await
}

/// How drops are accounted for.
#[derive(Clone, Copy)]
struct Account<'a> {
    shown: u64,
    now: OffsetDateTime,
    want: Want,
    notices: &'a Notices,
}

/// Dropped events of one decky.
#[derive(Default)]
struct Tally {
    missing: u64,
}

/// Drops the oldest noise, then the oldest of anything but accounts of drops, until the spool is
/// below `low`; then accounts for it, one event per decky, older unseen accounts merged in.
async fn shrink(
    connection: &mut SqliteConnection,
    low: Bounds,
    accounts: Account<'_>,
    next: &mut Figures,
) -> Result<(), sqlx::Error> {
    let shown = accounts.shown;
    const NOISE: &str = "SELECT sequence, topology, decky, length(line) FROM events \
         WHERE class = 1 AND sequence > ? ORDER BY sequence LIMIT ?";
    const ANYTHING: &str = "SELECT sequence, topology, decky, length(line) FROM events \
         WHERE class <> 2 AND sequence > ? ORDER BY sequence LIMIT ?";
    const DROP_NOISE: &str = "DELETE FROM events WHERE class = 1 AND sequence BETWEEN ? AND ?";
    const DROP_ANYTHING: &str = "DELETE FROM events WHERE class <> 2 AND sequence BETWEEN ? AND ?";

    let mut tallies: BTreeMap<(Vec<u8>, Vec<u8>), Tally> = BTreeMap::new();
    for (find, drop) in [(NOISE, DROP_NOISE), (ANYTHING, DROP_ANYTHING)] {
        while next.bytes > low.bytes || next.events > low.events {
            let rows = sqlx::query(find)
                .bind(shown.cast_signed())
                .bind(DROP_STEP)
                .fetch_all(&mut *connection)
                .await?;
            let mut through = None;
            for row in &rows {
                if next.bytes <= low.bytes && next.events <= low.events {
                    break;
                }
                through = Some(row.try_get::<i64, _>(0)?);
                tallies
                    .entry((row.try_get(1)?, row.try_get(2)?))
                    .or_default()
                    .missing += 1;
                next.remove(1, unsigned(row, 3)?);
                next.dropped += 1;
            }
            // Only what the master may already have is left.
            let Some(through) = through else { break };
            sqlx::query(drop)
                .bind(shown.cast_signed() + 1)
                .bind(through)
                .execute(&mut *connection)
                .await?;
        }
    }
    for ((topology, decky), tally) in tallies {
        account(connection, accounts, next, (topology, decky, tally)).await?;
    }
    Ok(())
}

async fn account(
    connection: &mut SqliteConnection,
    Account {
        shown,
        now,
        want,
        notices,
    }: Account<'_>,
    next: &mut Figures,
    (topology, decky, tally): (Vec<u8>, Vec<u8>, Tally),
) -> Result<(), sqlx::Error> {
    let mut missing = tally.missing;
    let merged = sqlx::query(
        "DELETE FROM events WHERE class = 2 AND sequence > ? AND topology = ? AND decky = ? \
         RETURNING missing, length(line)",
    )
    .bind(shown.cast_signed())
    .bind(topology.clone())
    .bind(decky.clone())
    .fetch_all(&mut *connection)
    .await?;
    for row in &merged {
        missing += unsigned(row, 0)?;
        next.remove(1, unsigned(row, 1)?);
    }
    let id = DeckyId::new(blob_uuid(&decky)?);
    let line = notices.line(id, Notice::Dropped { missing, want });
    sqlx::query(AssertSqlSafe(Arc::clone(&INSERTS[CHUNKS.len() - 1])))
        .bind(next.add(line.len()).cast_signed())
        .bind(topology)
        .bind(decky)
        .bind(micros(now))
        .bind(2_i64)
        .bind(missing.cast_signed())
        .bind(line.to_vec())
        .execute(&mut *connection)
        .await?;
    Ok(())
}

//! The table of events: appended in bulk, read by pages.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use domain::event::Evidence;
use domain::id::{DeckyId, EventId, HostId, SessionId, SpoolId, TopologyId};
use proto::line::{payload_from_json, payload_json};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::SqliteStore;
use super::decode::{Cells, blob, failed, nanos};
use crate::db::{Appended, EventBatch, EventFilter, EventPage, EventRow, NewEvent, StoreError};

const APPEND: &str = "store events";
const READ: &str = "read events";

/// Most events of one page.
const MAX_PAGE: u32 = 1000;

/// Variables of one row of the insert.
const VARIABLES: usize = 17;

/// Rows of one insert: few distinct numbers, so that every statement stays prepared. The largest
/// stays well below SQLite's 32766 variables.
const SIZES: [usize; 4] = [512, 64, 8, 1];

static INSERTS: LazyLock<[String; 4]> = LazyLock::new(|| SIZES.map(insert_of));

fn insert_of(rows: usize) -> String {
    let row = format!("({})", vec!["?"; VARIABLES].join(", "));
    format!(
        "INSERT INTO events (spool, sequence, id, topology, decky, kind, service, at, received_at,
                             session, source_ip, source_port, destination_ip, destination_port,
                             severity, payload, raw)
         VALUES {} ON CONFLICT (spool, sequence) DO NOTHING",
        vec![row; rows].join(", ")
    )
}

/// A payload and a sequence number in the form of their columns: made before the writer is taken.
struct Encoded<'a> {
    event: &'a NewEvent,
    sequence: i64,
    payload: String,
}

fn encode(event: &NewEvent) -> Result<Encoded<'_>, StoreError> {
    let sequence = i64::try_from(event.sequence).map_err(|_| StoreError::Malformed {
        noun: "event",
        column: "sequence",
    })?;
    Ok(Encoded {
        event,
        sequence,
        payload: payload_json(&event.payload).to_string(),
    })
}

pub(super) async fn append(
    store: &SqliteStore,
    batches: &[EventBatch],
) -> Result<Vec<Appended>, StoreError> {
    let encoded = batches
        .iter()
        .map(|batch| {
            batch
                .events
                .iter()
                .map(encode)
                .collect::<Result<Vec<_>, _>>()
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut tx = store.writing(APPEND).await?;
    let mut appended = Vec::with_capacity(batches.len());
    for (batch, mut events) in batches.iter().zip(encoded) {
        let spool = spool_row(&mut tx, batch).await?;
        let mut stored = 0;
        for (rows, sql) in SIZES.into_iter().zip(INSERTS.iter()) {
            while events.len() >= rows {
                let rest = events.split_off(rows);
                stored += insert(&mut tx, sql, spool, events).await?;
                events = rest;
            }
        }
        appended.push(Appended { stored });
    }
    tx.commit().await.map_err(failed(APPEND))?;
    Ok(appended)
}

async fn spool_row(tx: &mut SqliteConnection, batch: &EventBatch) -> Result<i64, StoreError> {
    let (host, spool) = (blob(batch.host.uuid()), blob(batch.spool.uuid()));
    sqlx::query("INSERT INTO spools (host, spool) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(&host)
        .bind(&spool)
        .execute(&mut *tx)
        .await
        .map_err(failed(APPEND))?;
    sqlx::query_scalar("SELECT row FROM spools WHERE host = ? AND spool = ?")
        .bind(&host)
        .bind(&spool)
        .fetch_one(tx)
        .await
        .map_err(failed(APPEND))
}

async fn insert(
    tx: &mut SqliteConnection,
    sql: &'static str,
    spool: i64,
    events: Vec<Encoded<'_>>,
) -> Result<u64, StoreError> {
    let mut query = sqlx::query(sql);
    for Encoded {
        event,
        sequence,
        payload,
    } in events
    {
        let ip = |address: SocketAddr| address.ip().to_string();
        query = query
            .bind(spool)
            .bind(sequence)
            .bind(blob(event.id.uuid()))
            .bind(blob(event.topology.uuid()))
            .bind(blob(event.decky.uuid()))
            .bind(event.payload.kind().as_str())
            .bind(event.service.map(|service| service.as_str()))
            .bind(nanos(event.at))
            .bind(nanos(event.received_at))
            .bind(event.session.map(|session| blob(session.uuid())))
            .bind(event.source.map(ip))
            .bind(event.source.map(|address| address.port()))
            .bind(event.destination.map(ip))
            .bind(event.destination.map(|address| address.port()))
            .bind(event.severity.as_str())
            .bind(payload)
            .bind(event.raw.as_ref().map(Evidence::bytes));
    }
    Ok(query
        .execute(tx)
        .await
        .map_err(failed(APPEND))?
        .rows_affected())
}

pub(super) async fn page(
    store: &SqliteStore,
    filter: &EventFilter,
    page: EventPage,
    limit: u32,
) -> Result<Vec<EventRow>, StoreError> {
    // CROSS JOIN keeps `events` outermost: its order is the order of the answer, and a page must
    // not read more than it shows.
    let mut query = QueryBuilder::new(
        "SELECT e.row, s.host, s.spool, d.name AS decky_name, e.sequence, e.id, e.topology,
                e.decky, e.service, e.at, e.received_at, e.session, e.source_ip, e.source_port,
                e.destination_ip, e.destination_port, e.severity, e.payload, e.raw
         FROM events AS e CROSS JOIN spools AS s ON s.row = e.spool
              LEFT JOIN deckies AS d ON d.id = e.decky
         WHERE TRUE",
    );
    narrow(&mut query, filter);
    let order = match page {
        EventPage::Newest { before } => {
            if let Some(before) = before {
                query.push(" AND e.row < ").push_bind(before);
            }
            " ORDER BY e.row DESC LIMIT "
        }
        EventPage::After { row } => {
            query.push(" AND e.row > ").push_bind(row);
            " ORDER BY e.row LIMIT "
        }
    };
    query.push(order).push_bind(limit.min(MAX_PAGE));
    let rows = query
        .build()
        .fetch_all(&store.read)
        .await
        .map_err(failed(READ))?;
    rows.iter().map(event_row).collect()
}

pub(super) async fn count(store: &SqliteStore, filter: &EventFilter) -> Result<u64, StoreError> {
    let mut query = QueryBuilder::new("SELECT count(*) FROM events AS e WHERE TRUE");
    narrow(&mut query, filter);
    let count: i64 = query
        .build_query_scalar()
        .fetch_one(&store.read)
        .await
        .map_err(failed(READ))?;
    u64::try_from(count).map_err(|_| StoreError::Malformed {
        noun: "event",
        column: "count",
    })
}

fn narrow(query: &mut QueryBuilder<Sqlite>, filter: &EventFilter) {
    let EventFilter {
        topology,
        decky,
        host,
        kind,
        service,
        source,
        since,
        until,
    } = filter;
    if let Some(topology) = topology {
        query
            .push(" AND e.topology = ")
            .push_bind(blob(topology.uuid()));
    }
    if let Some(decky) = decky {
        query.push(" AND e.decky = ").push_bind(blob(decky.uuid()));
    }
    if let Some(host) = host {
        query.push(" AND e.spool IN (SELECT row FROM spools WHERE host = ");
        query.push_bind(blob(host.uuid())).push(")");
    }
    if let Some(kind) = kind {
        query.push(" AND e.kind = ").push_bind(kind.as_str());
    }
    if let Some(service) = service {
        query.push(" AND e.service = ").push_bind(service.as_str());
    }
    if let Some(source) = source {
        query
            .push(" AND e.source_ip = ")
            .push_bind(source.to_string());
    }
    if let Some(since) = since {
        query.push(" AND e.at >= ").push_bind(nanos(*since));
    }
    if let Some(until) = until {
        query.push(" AND e.at < ").push_bind(nanos(*until));
    }
}

pub(super) async fn newest_row(store: &SqliteStore) -> Result<i64, StoreError> {
    sqlx::query_scalar("SELECT coalesce(max(row), 0) FROM events")
        .fetch_one(&store.read)
        .await
        .map_err(failed(READ))
}

fn event_row(row: &SqliteRow) -> Result<EventRow, StoreError> {
    let cells = Cells::new(row, "event");
    let payload = serde_json::from_str(cells.get("payload")?)
        .ok()
        .and_then(|json| payload_from_json(json).ok())
        .ok_or_else(|| cells.malformed("payload"))?;
    Ok(EventRow {
        row: cells.get("row")?,
        host: cells.id("host", HostId::new)?,
        spool: cells.id("spool", SpoolId::new)?,
        decky_name: cells.maybe_word("decky_name")?,
        event: NewEvent {
            id: cells.id("id", EventId::new)?,
            sequence: cells.counter("sequence")?,
            topology: cells.id("topology", TopologyId::new)?,
            decky: cells.id("decky", DeckyId::new)?,
            service: cells.maybe_word("service")?,
            at: cells.time("at")?,
            received_at: cells.time("received_at")?,
            session: cells.maybe_id("session", SessionId::new)?,
            source: address(&cells, "source_ip", "source_port")?,
            destination: address(&cells, "destination_ip", "destination_port")?,
            severity: cells.word("severity")?,
            payload,
            raw: cells.get::<Option<&[u8]>>("raw")?.map(Evidence::new),
        },
    })
}

fn address(
    cells: &Cells<'_>,
    ip: &'static str,
    port: &'static str,
) -> Result<Option<SocketAddr>, StoreError> {
    let Some(ip) = cells.maybe_word::<IpAddr>(ip)? else {
        return Ok(None);
    };
    let port = u16::try_from(cells.get::<i64>(port)?).map_err(|_| cells.malformed(port))?;
    Ok(Some(SocketAddr::new(ip, port)))
}

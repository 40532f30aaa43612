//! The table of events: appended in bulk, read by pages.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use domain::event::Evidence;
use domain::id::{DeckyId, EventId, HostId, SessionId, SpoolId, TopologyId};
use proto::line::{payload_from_json, payload_json};
use sqlx::PgConnection;

use super::SqlStore;
use super::cells::{Cells, blob, failed, nanos};
use super::statement::{Builder, Dialect, Row, Statement, Tx, TxLink, sql};
use crate::db::{Appended, EventBatch, EventFilter, EventPage, EventRow, NewEvent, StoreError};

const APPEND: &str = "store events";
const READ: &str = "read events";

/// Most events of one page.
const MAX_PAGE: u32 = 1000;

/// The columns of an event besides its `row` and `spool`, in the order of both inserts.
macro_rules! columns {
    () => {
        "sequence, id, topology, decky, kind, service, at, received_at, session, source_ip,
         source_port, destination_ip, destination_port, severity, payload, raw"
    };
}

/// Variables of one row of SQLite's insert.
const VARIABLES: usize = 17;

/// Rows of one insert into SQLite: few distinct numbers, so that every statement stays prepared.
/// The largest stays well below SQLite's 32766 variables.
const SIZES: [usize; 4] = [512, 64, 8, 1];

static INSERTS: LazyLock<[String; 4]> = LazyLock::new(|| SIZES.map(insert_of));

fn insert_of(rows: usize) -> String {
    // Not `$1`: that is a name to SQLite, which looks for each from the first one on.
    let row = format!("({})", vec!["?"; VARIABLES].join(", "));
    format!(
        "INSERT INTO events (spool, {}) VALUES {} ON CONFLICT (spool, sequence) DO NOTHING",
        columns!(),
        vec![row; rows].join(", ")
    )
}

/// PostgreSQL takes columns at once: one value for each, whatever the number of rows.
const INSERT_COLUMNS: &str = concat!(
    "INSERT INTO events (spool, ",
    columns!(),
    ") SELECT $1, ",
    columns!(),
    " FROM unnest($2::BIGINT[], $3::BYTEA[], $4::BYTEA[], $5::BYTEA[], $6::TEXT[], $7::TEXT[],
                  $8::BIGINT[], $9::BIGINT[], $10::BYTEA[], $11::TEXT[], $12::BIGINT[],
                  $13::TEXT[], $14::BIGINT[], $15::TEXT[], $16::TEXT[], $17::BYTEA[])
           WITH ORDINALITY AS t (",
    columns!(),
    ", place) ORDER BY place ON CONFLICT (spool, sequence) DO NOTHING"
);

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
    store: &SqlStore,
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
    let mut tx = store.appending(APPEND).await?;
    let mut appended = Vec::with_capacity(batches.len());
    for (batch, events) in batches.iter().zip(encoded) {
        let spool = spool_row(&mut tx, batch).await?;
        let stored = match &mut tx.link {
            TxLink::Postgres(connection) => insert_columns(connection, spool, &events).await,
            TxLink::Sqlite(_) => insert_rows(&mut tx, spool, events).await,
        };
        appended.push(Appended {
            stored: stored.map_err(failed(APPEND))?,
        });
    }
    tx.commit().await.map_err(failed(APPEND))?;
    Ok(appended)
}

async fn spool_row(tx: &mut Tx, batch: &EventBatch) -> Result<i64, StoreError> {
    let (host, spool) = (blob(batch.host.uuid()), blob(batch.spool.uuid()));
    sql("INSERT INTO spools (host, spool) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(&host)
        .bind(&spool)
        .execute(&mut *tx)
        .await
        .map_err(failed(APPEND))?;
    sql("SELECT row FROM spools WHERE host = $1 AND spool = $2")
        .bind(&host)
        .bind(&spool)
        .fetch_value(tx)
        .await
        .map_err(failed(APPEND))
}

async fn insert_rows(
    tx: &mut Tx,
    spool: i64,
    mut events: Vec<Encoded<'_>>,
) -> Result<u64, sqlx::Error> {
    let mut stored = 0;
    for (rows, text) in SIZES.into_iter().zip(INSERTS.iter()) {
        while events.len() >= rows {
            let rest = events.split_off(rows);
            let statement = events
                .into_iter()
                .fold(sql(text), |statement, event| event.bind(statement, spool));
            stored += statement.execute(&mut *tx).await?;
            events = rest;
        }
    }
    Ok(stored)
}

impl Encoded<'_> {
    fn bind(self, statement: Statement, spool: i64) -> Statement {
        let Self {
            event,
            sequence,
            payload,
        } = self;
        statement
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
            .bind(event.source.map(port))
            .bind(event.destination.map(ip))
            .bind(event.destination.map(port))
            .bind(event.severity.as_str())
            .bind(payload)
            .bind(event.raw.as_ref().map(Evidence::bytes))
    }
}

fn ip(address: SocketAddr) -> String {
    address.ip().to_string()
}

fn port(address: SocketAddr) -> i64 {
    address.port().into()
}

async fn insert_columns(
    connection: &mut PgConnection,
    spool: i64,
    events: &[Encoded<'_>],
) -> Result<u64, sqlx::Error> {
    fn column<'a, T>(events: &'a [Encoded<'_>], cell: impl Fn(&'a NewEvent) -> T) -> Vec<T> {
        events.iter().map(|encoded| cell(encoded.event)).collect()
    }
    if events.is_empty() {
        return Ok(0);
    }
    let sequences: Vec<i64> = events.iter().map(|encoded| encoded.sequence).collect();
    let payloads: Vec<&str> = events.iter().map(|encoded| &*encoded.payload).collect();
    let written = sqlx::query(INSERT_COLUMNS)
        .bind(spool)
        .bind(sequences)
        .bind(column(events, |event| blob(event.id.uuid())))
        .bind(column(events, |event| blob(event.topology.uuid())))
        .bind(column(events, |event| blob(event.decky.uuid())))
        .bind(column(events, |event| event.payload.kind().as_str()))
        .bind(column(events, |event| {
            event.service.map(|service| service.as_str())
        }))
        .bind(column(events, |event| nanos(event.at)))
        .bind(column(events, |event| nanos(event.received_at)))
        .bind(column(events, |event| {
            event.session.map(|session| blob(session.uuid()))
        }))
        .bind(column(events, |event| event.source.map(ip)))
        .bind(column(events, |event| event.source.map(port)))
        .bind(column(events, |event| event.destination.map(ip)))
        .bind(column(events, |event| event.destination.map(port)))
        .bind(column(events, |event| event.severity.as_str()))
        .bind(payloads)
        .bind(column(events, |event| {
            event.raw.as_ref().map(Evidence::bytes)
        }))
        .execute(connection)
        .await?;
    Ok(written.rows_affected())
}

pub(super) async fn page(
    store: &SqlStore,
    filter: &EventFilter,
    page: EventPage,
    limit: u32,
) -> Result<Vec<EventRow>, StoreError> {
    let dialect = store.read.pool.dialect();
    let mut query = Builder::new(
        dialect,
        "SELECT e.row, s.host, s.spool, d.name AS decky_name, e.sequence, e.id, e.topology,
                e.decky, e.service, e.at, e.received_at, e.session, e.source_ip, e.source_port,
                e.destination_ip, e.destination_port, e.severity, e.payload, e.raw
         FROM events AS e ",
    );
    query.push(match dialect {
        // Keeps `events` outermost: its order is the order of the answer, and a page must not
        // read more than it shows.
        Dialect::Sqlite => "CROSS JOIN",
        Dialect::Postgres => "JOIN",
    });
    query.push(
        " spools AS s ON s.row = e.spool LEFT JOIN deckies AS d ON d.id = e.decky WHERE TRUE",
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

pub(super) async fn count(store: &SqlStore, filter: &EventFilter) -> Result<u64, StoreError> {
    let mut query = Builder::new(
        store.read.pool.dialect(),
        "SELECT count(*) FROM events AS e WHERE TRUE",
    );
    narrow(&mut query, filter);
    let count: i64 = query
        .build()
        .fetch_value(&store.read)
        .await
        .map_err(failed(READ))?;
    u64::try_from(count).map_err(|_| StoreError::Malformed {
        noun: "event",
        column: "count",
    })
}

fn narrow(query: &mut Builder, filter: &EventFilter) {
    let EventFilter {
        topology,
        decky,
        host,
        kind,
        service,
        source,
        since,
        until,
        last_transitions,
    } = filter;
    if *last_transitions {
        query.push(
            " AND e.kind = 'mutation' AND NOT EXISTS (
                  SELECT 1 FROM events AS later
                  WHERE later.kind = 'mutation' AND later.decky = e.decky AND later.row > e.row)",
        );
    }
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

pub(super) async fn newest_row(store: &SqlStore) -> Result<i64, StoreError> {
    sql("SELECT coalesce(max(row), 0) FROM events")
        .fetch_value(&store.read)
        .await
        .map_err(failed(READ))
}

fn event_row(row: &Row) -> Result<EventRow, StoreError> {
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

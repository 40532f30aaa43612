//! The spool: evidence on disk between the containers and the master, in a SQLite file of its own.
//!
//! Events get sequence numbers from 1 that are never used again under one spool id. They are
//! stored in one transaction with the position in the container's output that they came from, so
//! that after a crash collection goes on exactly behind the last stored line. Nothing here knows
//! the network or the engine.
//!
//! `synchronous = NORMAL` in WAL mode: a commit is a write into the page cache, which survives
//! SIGKILL but not a power cut. What a power cut may undo is therefore never shown to the master:
//! [`Spool::sync`] flushes the log before events are sent, so an acknowledged sequence number
//! cannot come back with another event, and what is undone (events and positions together) is
//! collected again from the engine.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::id::SpoolId;
use domain::observe::Handle;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use time::OffsetDateTime;
use tokio::sync::{Mutex, watch};

use crate::notice::Notices;
use crate::task;

mod rows;
mod schema;
mod shrink;
mod types;

#[cfg(test)]
mod tests;

pub use types::{
    Bounds, Class, Figures, LIVES, Mark, NewEvent, OpenError, Pressure, SpoolError, SpooledEvent,
};

use rows::{blob_uuid, classify, log_path, mark, micros, move_aside, nanos, spooled, unsigned};
use schema::{TryOpenError, check};
use shrink::{Room, keep_within};

/// The file's name in the data directory.
pub const FILE: &str = "spool.db";

/// What a row costs beside its line: ids, numbers, the share of the index.
const ROW_COST: u64 = 96;
/// Rows per INSERT: few enough shapes for each to stay prepared.
const CHUNKS: [usize; 3] = [128, 16, 1];
/// How many marks are kept from one run to the next, which is more than the deckies of a host can
/// have at once: the oldest of more are of containers that are long gone. By number and not by age,
/// since a clock that jumps would forget those of deckies that still speak, and everything that these
/// ever said would be read as new.
const MARKS: i64 = 65_536;

static INSERTS: LazyLock<[Arc<str>; 3]> = LazyLock::new(|| {
    CHUNKS.map(|rows| {
        let values = vec!["(?,?,?,?,?,?,?)"; rows].join(",");
        format!(
            "INSERT INTO events (sequence, topology, decky, collected_at, class, missing, line) \
             VALUES {values}"
        )
        .into()
    })
});

/// The spool of this host. One process has it open for writing.
pub struct Spool {
    writer: Mutex<Writer>,
    reader: Mutex<SqliteConnection>,
    id: SpoolId,
    log: Arc<File>,
    figures: watch::Sender<Figures>,
    /// The last number that a power cut cannot undo.
    durable: AtomicU64,
    /// The last number that the master may have: dropping it would be counted as a loss that is
    /// none.
    shown: AtomicU64,
}

struct Writer {
    connection: SqliteConnection,
    bounds: Bounds,
    pressure: Pressure,
    notices: Arc<Notices>,
}

// === impl Spool ===

impl Spool {
    /// Opens the spool in `directory`, or makes one. A damaged one is moved aside and a new one,
    /// with a new id, begun: evidence that can still be collected must not wait for a person.
    pub async fn open(
        directory: &Path,
        bounds: Bounds,
        notices: Arc<Notices>,
        now: OffsetDateTime,
    ) -> Result<Self, OpenError> {
        let path = directory.join(FILE);
        match Self::try_open(&path, bounds, Arc::clone(&notices)).await {
            Ok(spool) => Ok(spool),
            Err(TryOpenError::Unusable { reason }) => {
                tracing::error!(
                    path = %path.display(), reason,
                    "the spool is unusable; moving it aside and starting a new one"
                );
                move_aside(&path, now)?;
                Self::try_open(&path, bounds, notices)
                    .await
                    .map_err(|error| OpenError::Open {
                        path: path.clone(),
                        source: error.into_sqlx(),
                    })
            }
            Err(TryOpenError::Sqlx(source)) => Err(OpenError::Open { path, source }),
        }
    }

    /// Reads the figures of the spool in `directory` without writing anything, also while an agent
    /// runs; `None` where there is no spool.
    pub async fn peek(directory: &Path) -> Result<Option<Figures>, OpenError> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        // Without a log nobody has it open, and SQLite would create one only to read.
        let closed = !log_path(&path).exists();
        let peeked = async {
            let mut connection = SqliteConnectOptions::new()
                .filename(&path)
                .read_only(true)
                .immutable(closed)
                .connect()
                .await?;
            let figures = load_figures(&mut connection).await?;
            connection.close().await?;
            Ok(figures)
        };
        match peeked.await {
            Ok(figures) => Ok(figures),
            Err(source) => Err(OpenError::Open { path, source }),
        }
    }

    async fn try_open(
        path: &Path,
        bounds: Bounds,
        notices: Arc<Notices>,
    ) -> Result<Self, TryOpenError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(10))
            .pragma("journal_size_limit", "33554432")
            .disable_statement_logging();
        let mut writer = options.connect().await?;
        check(&mut writer).await?;
        let Some(figures) = load_figures(&mut writer).await? else {
            return Err(TryOpenError::Unusable {
                reason: "it has no header",
            });
        };
        sqlx::query(
            "DELETE FROM marks WHERE turn <= \
             (SELECT turn FROM marks ORDER BY turn DESC LIMIT 1 OFFSET ?)",
        )
        .bind(MARKS)
        .execute(&mut writer)
        .await?;
        // A write, so that the log file is there to be flushed.
        sqlx::query("UPDATE spool SET one = 1")
            .execute(&mut writer)
            .await?;
        let reader = options.read_only(true).connect().await?;
        let log = OpenOptions::new()
            .read(true)
            .write(true)
            .open(log_path(path));
        let log = log.map_err(|source| TryOpenError::Sqlx(sqlx::Error::Io(source)))?;
        Ok(Self {
            writer: Mutex::new(Writer {
                connection: writer,
                bounds,
                pressure: Pressure::None,
                notices,
            }),
            reader: Mutex::new(reader),
            id: figures.id,
            log: Arc::new(log),
            figures: watch::Sender::new(figures),
            durable: AtomicU64::new(0),
            shown: AtomicU64::new(figures.acked),
        })
    }

    /// Which spool this is.
    pub const fn id(&self) -> SpoolId {
        self.id
    }

    /// The state in numbers, and its changes.
    pub fn figures(&self) -> watch::Receiver<Figures> {
        self.figures.subscribe()
    }

    /// Stores events and how far the containers have been read, together or not at all; the marks
    /// in the order of the lines that they are of. Answers how many older events had to go for it; each
    /// of them is accounted for by an event itself.
    pub async fn append(&self, events: &[NewEvent], marks: &[Mark]) -> Result<u64, SpoolError> {
        let mut writer = self.writer.lock().await;
        let mut next = *self.figures.borrow();
        let before = next.dropped;
        let shown = self.shown.load(Ordering::Acquire);
        writer
            .append(events, marks, shown, &mut next)
            .await
            .map_err(|source| classify("write to", source))?;
        self.figures.send_replace(next);
        Ok(next.dropped - before)
    }

    /// Bounds the spool tighter, or as it was, and drops at once what has no room any more. Answers
    /// how many events that were; each of them is accounted for by an event itself. The file does
    /// not become smaller, but what comes goes where the dropped ones were.
    pub async fn press(&self, pressure: Pressure, now: OffsetDateTime) -> Result<u64, SpoolError> {
        let mut writer = self.writer.lock().await;
        let before = std::mem::replace(&mut writer.pressure, pressure);
        let mut next = *self.figures.borrow();
        let dropped = next.dropped;
        let shown = self.shown.load(Ordering::Acquire);
        match writer.fit(shown, now, &mut next).await {
            Ok(()) => {
                self.figures.send_replace(next);
                Ok(next.dropped - dropped)
            }
            Err(source) => {
                writer.pressure = before;
                Err(classify("make room in", source))
            }
        }
    }

    /// How far the output of a container has been stored: one mark for each life of its decky, that
    /// of the latest line last.
    pub async fn marks(&self, handle: &Handle) -> Result<Vec<Mark>, SpoolError> {
        let mut reader = self.reader.lock().await;
        let rows = sqlx::query(
            "SELECT boot, counter, at, config FROM marks WHERE handle = ? ORDER BY turn",
        )
        .bind(handle.as_str())
        .fetch_all(&mut *reader)
        .await
        .and_then(|rows| rows.iter().map(|row| mark(handle, row)).collect());
        rows.map_err(|source| classify("read", source))
    }

    /// The events behind `after`: at most `events`, and no more than `bytes` of lines unless the
    /// first one alone is larger.
    pub async fn read(
        &self,
        after: u64,
        events: usize,
        bytes: usize,
    ) -> Result<Vec<SpooledEvent>, SpoolError> {
        let mut reader = self.reader.lock().await;
        let rows = sqlx::query(
            "SELECT sequence, topology, decky, collected_at, line FROM events \
             WHERE sequence > ? ORDER BY sequence LIMIT ?",
        )
        .bind(after.cast_signed())
        .bind(i64::try_from(events).unwrap_or(i64::MAX))
        .fetch_all(&mut *reader)
        .await
        .map_err(|source| classify("read", source))?;
        let mut read = Vec::with_capacity(rows.len());
        let mut weight = 0_usize;
        for row in rows {
            let event = spooled(&row).map_err(|source| classify("read", source))?;
            weight = weight.saturating_add(event.line.len());
            if weight > bytes && !read.is_empty() {
                break;
            }
            read.push(event);
        }
        Ok(read)
    }

    /// Makes everything stored so far safe from a power cut, and notes that events up to `through`
    /// are about to be shown to the master.
    pub async fn sync(&self, through: u64) -> Result<(), SpoolError> {
        let stored = self.figures.borrow().last;
        if self.durable.load(Ordering::Acquire) < through.min(stored) {
            let log = Arc::clone(&self.log);
            task::blocking(move || log.sync_data())
                .await
                .map_err(|source| SpoolError::Sync { source })?;
            self.durable.fetch_max(stored, Ordering::AcqRel);
        }
        self.shown.fetch_max(through, Ordering::AcqRel);
        Ok(())
    }

    /// Removes events up to and with `through`: the master has them.
    pub async fn ack(&self, through: u64) -> Result<(), SpoolError> {
        let mut writer = self.writer.lock().await;
        let mut next = *self.figures.borrow();
        let through = through.min(next.last);
        if through <= next.acked {
            return Ok(());
        }
        writer
            .ack(through, &mut next)
            .await
            .map_err(|source| classify("remove acknowledged events from", source))?;
        self.figures.send_replace(next);
        Ok(())
    }

    /// Closes both connections, so that the log is folded into the file. A crash may skip it.
    pub async fn close(self) -> Result<(), SpoolError> {
        let failed = |source| classify("close", source);
        self.reader.into_inner().close().await.map_err(failed)?;
        self.writer
            .into_inner()
            .connection
            .close()
            .await
            .map_err(failed)
    }

    /// How short of space the spool believes its disk to be.
    #[cfg(test)]
    pub(crate) async fn pressure(&self) -> Pressure {
        self.writer.lock().await.pressure
    }

    /// Lets the file have no more than so many pages: how a test fills the disk.
    #[cfg(test)]
    pub(crate) async fn limit_pages(&self, pages: i64) {
        let mut writer = self.writer.lock().await;
        sqlx::query(AssertSqlSafe(format!("PRAGMA max_page_count = {pages}")))
            .execute(&mut writer.connection)
            .await
            .expect("a pragma");
    }
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool")
            .field("figures", &*self.figures.borrow())
            .finish_non_exhaustive()
    }
}

// === impl Writer ===

impl Writer {
    async fn append(
        &mut self,
        events: &[NewEvent],
        marks: &[Mark],
        shown: u64,
        next: &mut Figures,
    ) -> Result<(), sqlx::Error> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        insert(&mut transaction, events, next).await?;
        store_marks(&mut transaction, marks).await?;
        let room = Room {
            bounds: self.bounds,
            pressure: self.pressure,
            shown,
        };
        let now = events
            .last()
            .map_or(OffsetDateTime::UNIX_EPOCH, |event| event.collected_at);
        keep_within(&mut transaction, room, now, &self.notices, next).await?;
        store_figures(&mut transaction, next).await?;
        transaction.commit().await
    }

    /// Makes room where there is too little.
    async fn fit(
        &mut self,
        shown: u64,
        now: OffsetDateTime,
        next: &mut Figures,
    ) -> Result<(), sqlx::Error> {
        let room = Room {
            bounds: self.bounds,
            pressure: self.pressure,
            shown,
        };
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        keep_within(&mut transaction, room, now, &self.notices, next).await?;
        store_figures(&mut transaction, next).await?;
        transaction.commit().await
    }

    async fn ack(&mut self, through: u64, next: &mut Figures) -> Result<(), sqlx::Error> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let row = sqlx::query(
            "SELECT count(*), coalesce(sum(length(line)), 0) FROM events WHERE sequence <= ?",
        )
        .bind(through.cast_signed())
        .fetch_one(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM events WHERE sequence <= ?")
            .bind(through.cast_signed())
            .execute(&mut *transaction)
            .await?;
        next.remove(unsigned(&row, 0)?, unsigned(&row, 1)?);
        next.acked = through;
        store_figures(&mut transaction, next).await?;
        transaction.commit().await
    }
}

async fn insert(
    connection: &mut SqliteConnection,
    events: &[NewEvent],
    next: &mut Figures,
) -> Result<(), sqlx::Error> {
    let mut rest = events;
    while !rest.is_empty() {
        let shape = CHUNKS
            .iter()
            .position(|rows| *rows <= rest.len())
            .unwrap_or(CHUNKS.len() - 1);
        let (chunk, behind) = rest.split_at(CHUNKS[shape]);
        rest = behind;
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&INSERTS[shape])));
        for event in chunk {
            let class = match event.class {
                Class::Evidence => 0_i64,
                Class::Noise => 1,
            };
            query = query
                .bind(next.add(event.line.len()).cast_signed())
                .bind(event.topology.uuid().as_bytes().to_vec())
                .bind(event.decky.uuid().as_bytes().to_vec())
                .bind(micros(event.collected_at))
                .bind(class)
                .bind(0_i64)
                .bind(event.line.to_vec());
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Stores marks, and forgets those of all but the latest lives of their deckies.
async fn store_marks(connection: &mut SqliteConnection, marks: &[Mark]) -> Result<(), sqlx::Error> {
    for mark in marks {
        sqlx::query(
            "INSERT OR REPLACE INTO marks (handle, boot, counter, at, config) \
             VALUES (?,?,?,?,?)",
        )
        .bind(mark.handle.as_str())
        .bind(
            mark.boot
                .map_or_else(Vec::new, |boot| boot.uuid().as_bytes().to_vec()),
        )
        .bind(mark.counter.cast_signed())
        .bind(nanos(mark.at))
        .bind(mark.config.as_str())
        .execute(&mut *connection)
        .await?;
    }
    let handles: BTreeSet<_> = marks.iter().map(|mark| mark.handle.as_str()).collect();
    for handle in handles {
        sqlx::query(
            "DELETE FROM marks WHERE handle = ?1 AND boot <> x'' AND turn <= \
             (SELECT turn FROM marks WHERE handle = ?1 AND boot <> x'' \
              ORDER BY turn DESC LIMIT 1 OFFSET ?2)",
        )
        .bind(handle)
        .bind(i64::try_from(LIVES).unwrap_or(i64::MAX))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

impl Figures {
    /// Counts one more event, and gives it its number.
    fn add(&mut self, line: usize) -> u64 {
        self.last += 1;
        self.events += 1;
        self.bytes += ROW_COST + u64::try_from(line).unwrap_or(u64::MAX / 2);
        self.last
    }

    fn remove(&mut self, events: u64, lines: u64) {
        self.events = self.events.saturating_sub(events);
        self.bytes = self.bytes.saturating_sub(events * ROW_COST + lines);
    }
}

async fn load_figures(connection: &mut SqliteConnection) -> Result<Option<Figures>, sqlx::Error> {
    let row = sqlx::query("SELECT id, last, acked, events, bytes, dropped FROM spool")
        .fetch_optional(connection)
        .await?;
    row.map(|row| {
        Ok(Figures {
            id: SpoolId::new(blob_uuid(row.try_get(0)?)?),
            last: unsigned(&row, 1)?,
            acked: unsigned(&row, 2)?,
            events: unsigned(&row, 3)?,
            bytes: unsigned(&row, 4)?,
            dropped: unsigned(&row, 5)?,
        })
    })
    .transpose()
}

async fn store_figures(
    connection: &mut SqliteConnection,
    figures: &Figures,
) -> Result<(), sqlx::Error> {
    let Figures {
        id: _,
        last,
        acked,
        events,
        bytes,
        dropped,
    } = figures;
    sqlx::query("UPDATE spool SET last = ?, acked = ?, events = ?, bytes = ?, dropped = ?")
        .bind(last.cast_signed())
        .bind(acked.cast_signed())
        .bind(events.cast_signed())
        .bind(bytes.cast_signed())
        .bind(dropped.cast_signed())
        .execute(connection)
        .await?;
    Ok(())
}

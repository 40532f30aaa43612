//! The agent's one passive row: the newest fence that it has obeyed and what became of it.
//!
//! A cache of what the master knows, but for the fence: when it is lost the agent is idle, and the
//! master's floor keeps old commands out. Nothing is replayed from it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use domain::assign::{ApplyFailure, Content, FailureCode, Phase};
use domain::id::TopologyId;
use domain::revision::Fence;
use domain::topology::hydrate::VersionHash;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Row as _};
use time::OffsetDateTime;

use crate::chain::Chain;

/// Of the row's form. Another one keeps its fence and loses the rest.
const VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE agent (
        one           INTEGER PRIMARY KEY CHECK (one = 1),
        epoch         INTEGER NOT NULL,
        generation    INTEGER NOT NULL,
        phase         TEXT NOT NULL,
        topology_id   TEXT,
        hash          TEXT,
        hydrated      BLOB,
        failure_code  TEXT,
        failure       TEXT,
        at            INTEGER
    ) STRICT";

/// A topology that the host was told to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub topology: TopologyId,
    /// The hash of its hydrated document.
    pub hash: VersionHash,
    /// The document.
    pub hydrated: Bytes,
}

/// Where the agent stands with its assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppliedState {
    /// It holds nothing.
    Idle,
    /// It makes a topology, or was interrupted while it did.
    Applying(Held),
    /// It has made a topology.
    Applied {
        /// Which.
        held: Held,
        /// When.
        at: OffsetDateTime,
    },
    /// It could not make a topology, or nothing, of what it holds.
    Failed {
        /// Which topology; none when it could not clear.
        held: Option<Held>,
        /// Why.
        reason: ApplyFailure,
        /// When.
        at: OffsetDateTime,
    },
    /// It removes everything, or was interrupted while it did.
    Clearing,
}

/// The one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The newest fence that was obeyed.
    pub fence: Fence,
    /// What became of it.
    pub state: AppliedState,
}

impl Row {
    /// The row of an agent that has never been told anything.
    pub const EMPTY: Self = Self {
        fence: Fence::new(0, 0),
        state: AppliedState::Idle,
    };

    /// The phase.
    pub const fn phase(&self) -> Phase {
        match self.state {
            AppliedState::Idle => Phase::Idle,
            AppliedState::Applying(_) => Phase::Applying,
            AppliedState::Applied { .. } => Phase::Applied,
            AppliedState::Failed { .. } => Phase::Failed,
            AppliedState::Clearing => Phase::Clearing,
        }
    }

    /// The topology that it was told to hold.
    pub const fn held(&self) -> Option<&Held> {
        match &self.state {
            AppliedState::Applying(held) | AppliedState::Applied { held, .. } => Some(held),
            AppliedState::Failed { held, .. } => held.as_ref(),
            AppliedState::Idle | AppliedState::Clearing => None,
        }
    }

    /// The same, by its hash.
    pub fn content(&self) -> Content {
        self.held().map(|held| (held.topology, held.hash))
    }
}

/// Why the store did not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or made.
    #[error("could not open the agent's store {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A broken file cannot be moved out of the way.
    #[error("could not move the broken store {} aside", path.display())]
    SetAside {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The row cannot be read.
    #[error("could not read the agent's row")]
    Load(#[source] sqlx::Error),
    /// The row cannot be written: the disk is full, or gone.
    #[error("could not write the agent's row")]
    Save(#[source] sqlx::Error),
}

/// The file with the row.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the file, or makes it. One that cannot be read is moved aside, and the agent starts
    /// as if it had never been told anything.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        match Self::try_open(path).await {
            Ok(store) => Ok(store),
            Err(source) if is_broken(&source) => {
                let aside = set_aside(path).map_err(|source| StoreError::SetAside {
                    path: path.to_owned(),
                    source,
                })?;
                tracing::error!(
                    error = %Chain(&source),
                    aside = %aside.display(),
                    next_step = "nothing: the master assigns again; keep the file if you want to know why",
                    "the agent's store is unreadable and was moved aside"
                );
                Self::try_open(path)
                    .await
                    .map_err(|source| StoreError::Open {
                        path: path.to_owned(),
                        source,
                    })
            }
            Err(source) => Err(StoreError::Open {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Reads the row without writing anything, also while an agent runs; none where no file is.
    pub async fn peek(path: &Path) -> Result<Option<Row>, StoreError> {
        if !path.exists() {
            return Ok(None);
        }
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            // Without a log nobody has it open, and SQLite would create one only to read.
            .immutable(!Path::new(&log).exists())
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(|source| StoreError::Open {
                path: path.to_owned(),
                source,
            })?;
        let store = Self { pool };
        let row = store.load().await;
        store.pool.close().await;
        row.map(Some)
    }

    async fn try_open(path: &Path) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // The fence must survive a loss of power: the write is before the act.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        let store = Self { pool };
        match store.prepare().await {
            Ok(()) => Ok(store),
            Err(error) => {
                store.pool.close().await;
                Err(error)
            }
        }
    }

    async fn prepare(&self) -> Result<(), sqlx::Error> {
        let version: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&self.pool)
            .await?;
        if version == VERSION {
            // A file that is only half there is found here and not in the middle of an apply.
            sqlx::query(COLUMNS).fetch_optional(&self.pool).await?;
            return Ok(());
        }
        let fence = self.other_fence().await;
        let mut transaction = self.pool.begin().await?;
        sqlx::query("DROP TABLE IF EXISTS agent")
            .execute(&mut *transaction)
            .await?;
        sqlx::query(SCHEMA).execute(&mut *transaction).await?;
        sqlx::query("PRAGMA user_version = 1")
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        if fence > Fence::default() {
            let row = Row {
                fence,
                state: AppliedState::Idle,
            };
            self.write(&row).await?;
            tracing::info!(fence = %fence, "the store is of another release; its fence was kept");
        }
        Ok(())
    }

    /// The fence of a row of another version: every release keeps these two columns.
    async fn other_fence(&self) -> Fence {
        let row = sqlx::query("SELECT epoch, generation FROM agent")
            .fetch_optional(&self.pool)
            .await;
        match row {
            Ok(Some(row)) => Fence::new(counter(&row, 0), counter(&row, 1)),
            Ok(None) | Err(_) => Fence::default(),
        }
    }

    /// Reads the row. One that says what cannot be keeps its fence and is idle.
    pub async fn load(&self) -> Result<Row, StoreError> {
        let row = sqlx::query(COLUMNS)
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::Load)?;
        let Some(row) = row else {
            return Ok(Row::EMPTY);
        };
        let fence = Fence::new(counter(&row, 0), counter(&row, 1));
        let state = read_state(&row).unwrap_or_else(|| {
            tracing::error!(
                fence = %fence,
                next_step = "nothing: the master assigns again",
                "the agent's row is malformed and was discarded but for its fence"
            );
            AppliedState::Idle
        });
        Ok(Row { fence, state })
    }

    /// Writes the row; it is on the disk when this returns.
    pub async fn save(&self, row: &Row) -> Result<(), StoreError> {
        self.write(row).await.map_err(StoreError::Save)
    }

    async fn write(&self, row: &Row) -> Result<(), sqlx::Error> {
        let held = row.held();
        let (failure, at) = match &row.state {
            AppliedState::Idle | AppliedState::Applying(_) | AppliedState::Clearing => (None, None),
            AppliedState::Applied { at, .. } => (None, Some(at)),
            AppliedState::Failed { reason, at, .. } => (Some(reason), Some(at)),
        };
        sqlx::query(
            "INSERT OR REPLACE INTO agent (one, epoch, generation, phase, topology_id, hash,
                 hydrated, failure_code, failure, at)
             VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(row.fence.epoch.get().cast_signed())
        .bind(row.fence.generation.get().cast_signed())
        .bind(row.phase().as_str())
        .bind(held.map(|held| held.topology.to_string()))
        .bind(held.map(|held| held.hash.to_string()))
        .bind(held.map(|held| held.hydrated.to_vec()))
        .bind(failure.map(|reason| reason.code.as_str()))
        .bind(failure.map(|reason| reason.message.clone()))
        .bind(at.map(|at| at.unix_timestamp()))
        .execute(&self.pool)
        .await
        .map(drop)
    }
}

#[cfg(test)]
impl Store {
    /// Ends its connection, as the end of the process would.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// Lets the file grow no more, as a full disk would.
    pub(crate) async fn fill(&self) {
        let pages: i64 = sqlx::query_scalar("PRAGMA page_count")
            .fetch_one(&self.pool)
            .await
            .expect("it is SQL");
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "PRAGMA max_page_count = {pages}"
        )))
        .execute(&self.pool)
        .await
        .expect("it is SQL");
    }
}

const COLUMNS: &str = "SELECT epoch, generation, phase, topology_id, hash, hydrated, failure_code,
    failure, at FROM agent";

fn counter(row: &SqliteRow, index: usize) -> u64 {
    row.try_get::<i64, _>(index).map_or(0, i64::cast_unsigned)
}

fn read_state(row: &SqliteRow) -> Option<AppliedState> {
    let text = |index: usize| row.try_get::<Option<String>, _>(index).ok();
    let phase: Phase = text(2)??.parse().ok()?;
    let held = match (
        text(3)?,
        text(4)?,
        row.try_get::<Option<Vec<u8>>, _>(5).ok()?,
    ) {
        (Some(topology), Some(hash), Some(hydrated)) => Some(Held {
            topology: topology.parse().ok()?,
            hash: hash.parse().ok()?,
            hydrated: hydrated.into(),
        }),
        (None, None, None) => None,
        (Some(_) | None, Some(_) | None, Some(_) | None) => return None,
    };
    let at = || {
        let seconds = row.try_get::<Option<i64>, _>(8).ok()??;
        OffsetDateTime::from_unix_timestamp(seconds).ok()
    };
    match (phase, held) {
        (Phase::Idle, None) => Some(AppliedState::Idle),
        (Phase::Clearing, None) => Some(AppliedState::Clearing),
        (Phase::Applying, Some(held)) => Some(AppliedState::Applying(held)),
        (Phase::Applied, Some(held)) => Some(AppliedState::Applied { held, at: at()? }),
        (Phase::Failed, held) => {
            let code: FailureCode = text(6)??.parse().ok()?;
            let reason = ApplyFailure {
                code,
                message: text(7)??,
            };
            Some(AppliedState::Failed {
                held,
                reason,
                at: at()?,
            })
        }
        (Phase::Idle | Phase::Clearing, Some(_)) | (Phase::Applying | Phase::Applied, None) => None,
    }
}

/// Whether the file is no store at all: what SQLite calls corrupt, or not a database, or a table
/// of ours that lacks its columns.
fn is_broken(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    // Primary result codes: 1 ERROR (no such column), 11 CORRUPT, 26 NOTADB; the low byte.
    code.and_then(|code| code.parse::<u32>().ok())
        .is_some_and(|code| [1, 11, 26].contains(&(code & 0xff)))
}

/// Moves the file and its two companions to the first free name.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = (1_u32..)
        .map(|number| beside(&format!(".corrupt-{number}")))
        .find(|candidate| !candidate.exists())
        .ok_or(io::ErrorKind::AlreadyExists)?;
    std::fs::rename(path, &aside)?;
    for suffix in ["-wal", "-shm"] {
        // A log that belongs to the broken file would be replayed into the new one.
        match std::fs::remove_file(beside(suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(aside)
}

#[cfg(test)]
mod tests;

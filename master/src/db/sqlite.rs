//! The store in one SQLite file: the file's mode, its connections, its schema, its errors.
//!
//! One connection writes, each transaction with `BEGIN IMMEDIATE`, so that no two of them ever
//! wait for each other half done; a pool of read-only connections reads beside it (WAL). The
//! writer is `synchronous=FULL` for everything: events arrive in batches that share one flush, so
//! a second, laxer connection for them would save little and would acknowledge evidence that a
//! loss of power takes back.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, SqlitePool};

use super::sql::cells::Trouble;
use super::sql::{Pool, SqlStore};

#[cfg(test)]
mod tests;

/// Marks the file as ours (`PRAGMA application_id`): "DCNT".
const APPLICATION: i64 = 0x4443_4e54;

/// The schema, in steps that only ever grow in number. The next one goes at the end.
pub(crate) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/sqlite/0001_hosts.sql"),
    include_str!("migrations/sqlite/0002_topologies.sql"),
    include_str!("migrations/sqlite/0003_events.sql"),
    include_str!("migrations/sqlite/0004_lan_subnet6.sql"),
    include_str!("migrations/sqlite/0005_mutations.sql"),
    include_str!("migrations/sqlite/0006_operators.sql"),
    include_str!("migrations/sqlite/0007_mutate_every.sql"),
    include_str!("migrations/sqlite/0008_forgotten.sql"),
    include_str!("migrations/sqlite/0009_changed.sql"),
];

/// How long a statement waits for a lock of another process (a backup, a shell).
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How long a call waits for the one writing connection.
const TURN_WAIT: Duration = Duration::from_secs(15);
const READERS: u32 = 4;

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file could not be made or its mode not be set.
    #[error("could not create database file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not an intact database.
    #[error("database {path} is damaged; move it away and restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// The file is a database of another program.
    #[error("{path} is a database of another program; give another data directory")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer release.
    #[error(
        "database {path} has schema {found} and this release knows {known}; install the newer \
         release again or restore a backup of before the update"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema of this release.
        known: i64,
    },
    /// A step of the schema failed; the file is as it was before that step.
    #[error("could not bring database {path} to schema {to}")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// The step.
        to: i64,
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// Anything else.
    #[error("could not open database {path}")]
    Connect {
        /// The file.
        path: PathBuf,
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
}

/// Opens the database at `path`, makes it when there is none, and brings an older one up to this
/// release. A file that is damaged, foreign or newer is refused and left as it is.
pub async fn open(path: &Path) -> Result<SqlStore, OpenError> {
    open_with(path, &[], MIGRATIONS).await
}

/// Opens `path`; `pragmas` are set on the writing connection besides ours, and `steps` are those
/// of the schema.
async fn open_with(
    path: &Path,
    pragmas: &[(&'static str, &'static str)],
    steps: &[&'static str],
) -> Result<SqlStore, OpenError> {
    own(path).map_err(|source| OpenError::File {
        path: path.to_owned(),
        source,
    })?;
    let failed = |source| connect_error(path, source);

    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .foreign_keys(true)
        .busy_timeout(LOCK_WAIT)
        .pragma("trusted_schema", "OFF");
    let mut writer = options
        .clone()
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("cache_size", "-32768")
        // 32 MiB of log between write-backs: the indexes of events dirty the same pages over and
        // over, and each write-back writes every one of them.
        .pragma("wal_autocheckpoint", "8192");
    for (key, value) in pragmas {
        writer = writer.pragma(*key, *value);
    }
    let write = SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(TURN_WAIT)
        // A full disk makes SQLite end the transaction by itself; the driver then still counts it
        // as open and would refuse every later one. Such a connection is not used again.
        .after_release(|connection, _| {
            Box::pin(async move {
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
        .connect_with(writer)
        .await
        .map_err(failed)?;

    if let Err(error) = migrate(&write, path, steps).await {
        write.close().await;
        return Err(error);
    }

    let read = SqlitePoolOptions::new()
        .max_connections(READERS)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(TURN_WAIT)
        .connect_with(options.read_only(true))
        .await
        .map_err(failed)?;
    Ok(SqlStore::new(Pool::Sqlite(write), Pool::Sqlite(read)))
}

/// Makes the file, or tightens its mode: SQLite gives the files beside it the same one.
fn own(path: &Path) -> io::Result<()> {
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(path, Permissions::from_mode(0o600))?;
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

async fn migrate(pool: &SqlitePool, path: &Path, steps: &[&'static str]) -> Result<(), OpenError> {
    let failed = |source| connect_error(path, source);
    let mut connection = pool.acquire().await.map_err(failed)?;
    let found = number(&mut connection, "PRAGMA user_version")
        .await
        .map_err(failed)?;
    let application = number(&mut connection, "PRAGMA application_id")
        .await
        .map_err(failed)?;
    let objects = number(&mut connection, "SELECT count(*) FROM sqlite_master")
        .await
        .map_err(failed)?;
    let fresh = found == 0 && application == 0 && objects == 0;
    if !fresh && application != APPLICATION {
        return Err(OpenError::Foreign {
            path: path.to_owned(),
        });
    }
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    for (to, sql) in (1_i64..).zip(steps).skip_while(|(to, _)| *to <= found) {
        step(&mut connection, to, sql)
            .await
            .map_err(|source| OpenError::Migrate {
                path: path.to_owned(),
                to,
                source,
            })?;
    }
    Ok(())
}

/// One step of the schema and its number, in one transaction.
async fn step(
    connection: &mut SqliteConnection,
    to: i64,
    sql: &'static str,
) -> Result<(), sqlx::Error> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(sql).execute(&mut *tx).await?;
    // Pragmas take no parameters; both values are numbers of ours.
    let mark = format!("PRAGMA user_version = {to}; PRAGMA application_id = {APPLICATION}");
    sqlx::raw_sql(AssertSqlSafe(mark)).execute(&mut *tx).await?;
    tx.commit().await
}

async fn number(connection: &mut SqliteConnection, sql: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(sql).fetch_one(connection).await
}

fn connect_error(path: &Path, source: sqlx::Error) -> OpenError {
    let path = path.to_owned();
    let code = source.as_database_error().and_then(extended_code);
    match code.map(|code| code & 0xff) {
        // SQLITE_CORRUPT, SQLITE_NOTADB
        Some(11 | 26) => OpenError::Damaged { path, source },
        Some(_) | None => OpenError::Connect { path, source },
    }
}

fn extended_code(error: &dyn DatabaseError) -> Option<i32> {
    error.code()?.parse().ok()
}

/// What of an error of SQLite a caller can do something about.
pub(super) fn trouble(error: &dyn DatabaseError) -> Trouble {
    match extended_code(error) {
        // SQLITE_IOERR_SHMSIZE: no room for the index of the log.
        Some(4874) => Trouble::Full,
        Some(code) => match code & 0xff {
            5 | 6 => Trouble::Busy, // SQLITE_BUSY, SQLITE_LOCKED
            13 => Trouble::Full,    // SQLITE_FULL
            _ => Trouble::Other,
        },
        None => Trouble::Other,
    }
}

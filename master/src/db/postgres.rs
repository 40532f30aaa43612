//! The store in a PostgreSQL database: how its server is named and reached, the database's schema,
//! its errors.
//!
//! Whoever writes waits for a turn (see `sql`); a lock that is not given in time, and a server
//! that is away or going down, are "busy": the same call may succeed later.

use std::fmt;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{Connection as _, PgConnection, PgPool};

use super::sql::cells::Trouble;
use super::sql::{Pool, SqlStore};

#[cfg(test)]
pub(super) mod tests;

/// The schema, in steps that only ever grow in number. The next one goes at the end; each has the
/// number and the name of SQLite's.
pub(crate) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/postgres/0001_hosts.sql"),
    include_str!("migrations/postgres/0002_topologies.sql"),
    include_str!("migrations/postgres/0003_events.sql"),
    include_str!("migrations/postgres/0004_lan_subnet6.sql"),
    include_str!("migrations/postgres/0005_mutations.sql"),
    include_str!("migrations/postgres/0006_operators.sql"),
    include_str!("migrations/postgres/0007_mutate_every.sql"),
    include_str!("migrations/postgres/0008_forgotten.sql"),
    include_str!("migrations/postgres/0009_changed.sql"),
];

/// The advisory lock of those who bring a database up to a release: masters may start together.
const MIGRATION_LOCK: i64 = 0x4443_4e54_0000;
/// How long a call waits for a connection, and a statement for a lock.
const TURN_WAIT: Duration = Duration::from_secs(15);
const LOCK_WAIT: &str = "15s";
/// A master that vanished with its machine gives its turn back after this.
const ABANDONED: &str = "60s";
const WRITERS: u32 = 6;
const READERS: u32 = 6;

/// A database on a server: its address and what is needed to be let in.
#[derive(Clone)]
pub struct Server {
    // Boxed: it is part of every error of opening, and large.
    options: Box<PgConnectOptions>,
}

// Not the options: they hold the password.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        match options.get_socket() {
            Some(socket) => write!(f, "{}", socket.display())?,
            None => write!(f, "{}:{}", options.get_host(), options.get_port())?,
        }
        let database = options.get_database().unwrap_or(options.get_username());
        write!(f, "/{database}")
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{self}")
    }
}

/// Why a URL names no database. The URL is not in it: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is of another kind.
    #[error("it does not begin with postgres://")]
    Scheme,
    /// The driver cannot read it.
    #[error("it is not of the form postgres://USER@HOST:PORT/DATABASE")]
    Malformed,
}

impl Server {
    /// Reads a URL; `password` wins over the one in it.
    ///
    /// A server on another machine is reached by TLS with its certificate and name verified,
    /// unless the URL says otherwise (`?sslmode=`): the driver's own default falls back to clear
    /// text when somebody between the two refuses TLS.
    pub fn new(url: &str, password: Option<&str>) -> Result<Self, UrlError> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(UrlError::Scheme);
        }
        // The driver's error may quote the URL.
        let options = PgConnectOptions::from_str(url).map_err(|_| UrlError::Malformed)?;
        let mut options = options.application_name("decnet-master");
        if let Some(password) = password {
            options = options.password(password);
        }
        let says_how = url
            .split_once('?')
            .is_some_and(|(_, query)| query.contains("sslmode=") || query.contains("ssl-mode="));
        let near = options.get_socket().is_some()
            || options.get_host().starts_with('/')
            || matches!(
                options.get_host(),
                "localhost" | "127.0.0.1" | "::1" | "[::1]"
            );
        if !says_how && !near {
            options = options.ssl_mode(PgSslMode::VerifyFull);
        }
        Ok(Self {
            options: Box::new(options),
        })
    }

    /// Whether a URL has a password in it.
    pub fn holds_password(url: &str) -> bool {
        let Some((_, rest)) = url.split_once("://") else {
            return false;
        };
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = authority.split('/').next().unwrap_or_default();
        let in_authority = authority
            .rsplit_once('@')
            .is_some_and(|(user, _)| user.contains(':'));
        in_authority || query.split('&').any(|pair| pair.starts_with("password="))
    }
}

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The server does not answer or does not let us in.
    #[error("could not connect to database {server}")]
    Connect {
        /// The database.
        server: Server,
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// The database keeps text in another encoding.
    #[error("database {server} has the encoding {found}; create one with ENCODING 'UTF8'")]
    Encoding {
        /// The database.
        server: Server,
        /// Its encoding.
        found: String,
    },
    /// The database belongs to another program.
    #[error("{server} is a database of another program; create one for DECNET alone")]
    Foreign {
        /// The database.
        server: Server,
    },
    /// The database was written by a newer release.
    #[error(
        "database {server} has schema {found} and this release knows {known}; install the newer \
         release again or restore a backup of before the update"
    )]
    Newer {
        /// The database.
        server: Server,
        /// Its schema.
        found: i64,
        /// The newest schema of this release.
        known: i64,
    },
    /// A step of the schema failed; the database is as it was before.
    #[error("could not bring database {server} to schema {to}")]
    Migrate {
        /// The database.
        server: Server,
        /// The step.
        to: i64,
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
}

/// Opens a database, fills an empty one, and brings an older one up to this release. One that is
/// foreign or newer is refused and left as it is.
pub async fn open(server: &Server) -> Result<SqlStore, OpenError> {
    let failed = |source| OpenError::Connect {
        server: server.clone(),
        source,
    };
    let options = PgConnectOptions::clone(&server.options).options([
        ("lock_timeout", LOCK_WAIT),
        ("idle_in_transaction_session_timeout", ABANDONED),
    ]);
    let write = pool(WRITERS)
        .connect_with(options.clone())
        .await
        .map_err(failed)?;
    if let Err(error) = migrate(&write, server).await {
        write.close().await;
        return Err(error);
    }
    let options = options.options([("default_transaction_read_only", "on")]);
    let read = pool(READERS).connect_with(options).await.map_err(failed)?;
    Ok(SqlStore::new(Pool::Postgres(write), Pool::Postgres(read)))
}

fn pool(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(TURN_WAIT)
}

/// All steps that are missing, in one transaction.
async fn migrate(pool: &PgPool, server: &Server) -> Result<(), OpenError> {
    let failed = |source| OpenError::Connect {
        server: server.clone(),
        source,
    };
    let mut connection = pool.acquire().await.map_err(failed)?;
    let mut tx = connection.begin().await.map_err(failed)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(MIGRATION_LOCK)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    let found = schema(&mut tx, server).await?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(OpenError::Newer {
            server: server.clone(),
            found,
            known,
        });
    }
    for (to, sql) in (1_i64..).zip(MIGRATIONS).skip_while(|(to, _)| *to <= found) {
        step(&mut tx, to, sql)
            .await
            .map_err(|source| OpenError::Migrate {
                server: server.clone(),
                to,
                source,
            })?;
    }
    tx.commit().await.map_err(failed)
}

/// The number of the last step that was run; 0 for an empty database.
async fn schema(tx: &mut PgConnection, server: &Server) -> Result<i64, OpenError> {
    let failed = |source| OpenError::Connect {
        server: server.clone(),
        source,
    };
    let encoding: String = sqlx::query_scalar("SHOW server_encoding")
        .fetch_one(&mut *tx)
        .await
        .map_err(failed)?;
    if encoding != "UTF8" {
        return Err(OpenError::Encoding {
            server: server.clone(),
            found: encoding,
        });
    }
    let ours: bool = sqlx::query_scalar("SELECT to_regclass('decnet_schema') IS NOT NULL")
        .fetch_one(&mut *tx)
        .await
        .map_err(failed)?;
    if ours {
        return sqlx::query_scalar("SELECT version FROM decnet_schema")
            .fetch_one(tx)
            .await
            .map_err(failed);
    }
    let objects: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace",
    )
    .fetch_one(tx)
    .await
    .map_err(failed)?;
    if objects > 0 {
        return Err(OpenError::Foreign {
            server: server.clone(),
        });
    }
    Ok(0)
}

async fn step(tx: &mut PgConnection, to: i64, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sql).execute(&mut *tx).await?;
    if to == 1 {
        sqlx::raw_sql("CREATE TABLE decnet_schema (version BIGINT NOT NULL)")
            .execute(&mut *tx)
            .await?;
        sqlx::raw_sql("INSERT INTO decnet_schema (version) VALUES (1)")
            .execute(&mut *tx)
            .await?;
    }
    sqlx::query("UPDATE decnet_schema SET version = $1")
        .bind(to)
        .execute(tx)
        .await?;
    Ok(())
}

/// What of an error of PostgreSQL a caller can do something about, by its SQLSTATE.
pub(super) fn trouble(state: &str) -> Trouble {
    match state {
        // disk_full
        "53100" => Trouble::Full,
        // serialization_failure, deadlock_detected, lock_not_available, query_canceled,
        // idle_in_transaction_session_timeout, too_many_connections
        "40001" | "40P01" | "55P03" | "57014" | "25P03" | "53300" => Trouble::Busy,
        // admin_shutdown and its kin; a connection that failed
        _ if state.starts_with("57P") || state.starts_with("08") => Trouble::Busy,
        _ => Trouble::Other,
    }
}

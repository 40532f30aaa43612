//! The form of the spool's file, and how a file comes to have it.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Row as _};

use super::rows::classify;
use super::types::SpoolError;
use crate::notice::random_uuid;

/// Each form makes the next out of the one before, and the first out of nothing. The number of a
/// file's form is in its header. The next one goes at the end; one that was released never changes.
pub(super) const FORMS: [&str; 2] = [FIRST, SECOND];

const FIRST: &str = "
CREATE TABLE spool (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    id      BLOB    NOT NULL,
    last    INTEGER NOT NULL,
    acked   INTEGER NOT NULL,
    events  INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    dropped INTEGER NOT NULL
) STRICT;
CREATE TABLE events (
    sequence     INTEGER PRIMARY KEY,
    topology     BLOB    NOT NULL,
    decky        BLOB    NOT NULL,
    collected_at INTEGER NOT NULL,
    class        INTEGER NOT NULL,
    missing      INTEGER NOT NULL,
    line         BLOB    NOT NULL
) STRICT;
CREATE INDEX events_by_class ON events (class, sequence) WHERE class <> 0;
CREATE TABLE marks (
    handle  TEXT    NOT NULL,
    boot    BLOB    NOT NULL,
    counter INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    config  TEXT    NOT NULL,
    PRIMARY KEY (handle, boot)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
";

/// Marks in the order in which they were stored: one that is stored again takes the next turn. What
/// is the oldest is told by it and never by `at`, which is a clock's that may jump, or a place. The
/// first form kept whatever a decky that was taken over had written into them.
const SECOND: &str = "
ALTER TABLE marks RENAME TO former;
CREATE TABLE marks (
    turn    INTEGER PRIMARY KEY,
    handle  TEXT    NOT NULL,
    boot    BLOB    NOT NULL,
    counter INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    config  TEXT    NOT NULL,
    UNIQUE (handle, boot)
) STRICT;
INSERT INTO marks (handle, boot, counter, at, config)
    SELECT handle, boot, counter, at, CASE WHEN length(config) = 64 THEN config ELSE '' END
    FROM (
        SELECT *, row_number() OVER (PARTITION BY handle, boot = x'' ORDER BY at DESC) AS age
        FROM former
    )
    WHERE age <= 16 ORDER BY at;
DROP TABLE former;
PRAGMA user_version = 2;
";

/// Why a file could not be opened as a spool.
pub(super) enum TryOpenError {
    Unusable { reason: &'static str },
    Sqlx(sqlx::Error),
}

impl TryOpenError {
    pub(super) fn into_sqlx(self) -> sqlx::Error {
        match self {
            Self::Unusable { reason } => sqlx::Error::Protocol(reason.to_owned()),
            Self::Sqlx(source) => source,
        }
    }
}

impl From<sqlx::Error> for TryOpenError {
    fn from(source: sqlx::Error) -> Self {
        match classify("open", source) {
            SpoolError::Damaged { .. } => Self::Unusable {
                reason: "it is damaged",
            },
            SpoolError::Full { source } | SpoolError::Failed { source, .. } => Self::Sqlx(source),
            SpoolError::Sync { source } => Self::Sqlx(sqlx::Error::Io(source)),
        }
    }
}

/// Gives an empty file, or one of an earlier form, the form of today; refuses a damaged one or one
/// of another version.
pub(super) async fn check(connection: &mut SqliteConnection) -> Result<(), TryOpenError> {
    let version: i64 = sqlx::query("PRAGMA user_version")
        .fetch_one(&mut *connection)
        .await?
        .try_get(0)?;
    let forms = usize::try_from(version).ok();
    let Some(missing) = forms.and_then(|had| FORMS.get(had..)) else {
        return Err(TryOpenError::Unusable {
            reason: "it is of another version",
        });
    };
    if version == 0 {
        let tables: i64 = sqlx::query("SELECT count(*) FROM sqlite_schema")
            .fetch_one(&mut *connection)
            .await?
            .try_get(0)?;
        if tables != 0 {
            return Err(TryOpenError::Unusable {
                reason: "it is no spool",
            });
        }
    } else {
        let verdict: String = sqlx::query("PRAGMA quick_check(1)")
            .fetch_one(&mut *connection)
            .await?
            .try_get(0)?;
        if verdict != "ok" {
            return Err(TryOpenError::Unusable {
                reason: "it is damaged",
            });
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for form in missing {
        sqlx::raw_sql(*form).execute(&mut *transaction).await?;
    }
    if version == 0 {
        sqlx::query("INSERT INTO spool VALUES (1, ?, 0, 0, 0, 0, 0)")
            .bind(random_uuid().as_bytes().to_vec())
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(())
}

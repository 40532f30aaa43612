//! Between the spool's rows and its types, and its files on the disk. No SQL.

use std::io;
use std::path::{Path, PathBuf};

use domain::id::{BootId, DeckyId, TopologyId};
use domain::observe::Handle;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::{Mark, OpenError, SpoolError, SpooledEvent};

pub(super) fn spooled(row: &SqliteRow) -> Result<SpooledEvent, sqlx::Error> {
    Ok(SpooledEvent {
        sequence: unsigned(row, 0)?,
        topology: TopologyId::new(blob_uuid(row.try_get(1)?)?),
        decky: DeckyId::new(blob_uuid(row.try_get(2)?)?),
        collected_at: row.try_get(3)?,
        line: row.try_get::<Vec<u8>, _>(4)?.into(),
    })
}

pub(super) fn mark(handle: &Handle, row: &SqliteRow) -> Result<Mark, sqlx::Error> {
    let boot: &[u8] = row.try_get(0)?;
    let at = i128::from(row.try_get::<i64, _>(2)?);
    Ok(Mark {
        handle: handle.clone(),
        boot: if boot.is_empty() {
            None
        } else {
            Some(BootId::new(blob_uuid(boot)?))
        },
        counter: unsigned(row, 1)?,
        at: OffsetDateTime::from_unix_timestamp_nanos(at)
            .map_err(|error| sqlx::Error::Decode(error.into()))?,
        config: row.try_get(3)?,
    })
}

pub(super) fn unsigned(row: &SqliteRow, index: usize) -> Result<u64, sqlx::Error> {
    row.try_get::<i64, _>(index).map(i64::cast_unsigned)
}

pub(super) fn blob_uuid(bytes: &[u8]) -> Result<Uuid, sqlx::Error> {
    Uuid::from_slice(bytes).map_err(|error| sqlx::Error::Decode(error.into()))
}

pub(super) fn micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(0)
}

/// Nanoseconds since the epoch; enough until the year 2262.
pub(super) fn nanos(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos()).unwrap_or(i64::MAX)
}

pub(super) fn classify(attempt: &'static str, source: sqlx::Error) -> SpoolError {
    let code = source
        .as_database_error()
        .and_then(|error| error.code())
        .and_then(|code| code.parse::<i32>().ok())
        // The primary code is the low byte of an extended one.
        .map(|code| code & 0xff);
    match code {
        // SQLITE_FULL; and SQLITE_IOERR, which is what a full disk under the log looks like.
        Some(13 | 10) => SpoolError::Full { source },
        // SQLITE_CORRUPT, SQLITE_NOTADB
        Some(11 | 26) => SpoolError::Damaged { source },
        _ if matches!(
            source,
            sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }
        ) =>
        {
            SpoolError::Damaged { source }
        }
        _ => SpoolError::Failed { attempt, source },
    }
}

pub(super) fn move_aside(path: &Path, now: OffsetDateTime) -> Result<(), OpenError> {
    for suffix in ["-wal", "-shm", ""] {
        let mut from = path.as_os_str().to_owned();
        from.push(suffix);
        let mut to = path.as_os_str().to_owned();
        to.push(format!(".damaged-{}{suffix}", now.unix_timestamp()));
        match std::fs::rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(OpenError::Aside {
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
    Ok(())
}

pub(super) fn log_path(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

//! Between rows and domain values: how each type is written, how it is read back, and how an
//! error of the driver becomes one of the store.

use std::str::FromStr;

use domain::assign::Content;
use domain::id::{HostId, TopologyId};
use domain::revision::{Fence, Revision};
use domain::topology::hydrate::VersionHash;
use pki::fingerprint::KeyFingerprint;
use sqlx::postgres::PgDatabaseError;
use time::OffsetDateTime;
use uuid::Uuid;

use super::statement::{Readable, Row};
use crate::db::{Actor, StoreError, postgres, sqlite};

/// What of a driver's error a caller can do something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::db) enum Trouble {
    /// The same may succeed later.
    Busy,
    /// There is no room.
    Full,
    /// Neither.
    Other,
}

/// Names what was attempted and sorts the driver's error by what the caller can do about it.
pub(super) fn failed(attempt: &'static str) -> impl Fn(sqlx::Error) -> StoreError + Copy {
    move |source| match trouble(&source) {
        Trouble::Busy => StoreError::Busy { attempt, source },
        Trouble::Full => StoreError::Full { attempt, source },
        Trouble::Other => StoreError::Failed { attempt, source },
    }
}

fn trouble(error: &sqlx::Error) -> Trouble {
    if matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::Io(_)) {
        return Trouble::Busy;
    }
    let Some(database) = error.as_database_error() else {
        return Trouble::Other;
    };
    match database.try_downcast_ref::<PgDatabaseError>() {
        Some(error) => postgres::trouble(error.code()),
        None => sqlite::trouble(database),
    }
}

/// Nanoseconds since 1970; a time outside of 1677 to 2262 becomes the nearest that fits, since a
/// decky's clock may say anything.
pub(super) fn nanos(at: OffsetDateTime) -> i64 {
    let nanos = at.unix_timestamp_nanos();
    i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

fn from_nanos(nanos: i64) -> OffsetDateTime {
    // Every i64 is within the range of years 1677 to 2262.
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A counter as a column keeps it; one that does not fit stays at the end of the range.
pub(super) fn int(counter: u64) -> i64 {
    i64::try_from(counter).unwrap_or(i64::MAX)
}

/// An id as a column keeps it.
pub(super) fn blob(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// Writes an actor as one word.
pub(super) fn actor_text(actor: &Actor) -> String {
    match actor {
        Actor::Operator(name) => format!("operator:{name}"),
        Actor::Host(host) => format!("host:{host}"),
        Actor::Reconciler => "reconciler".to_owned(),
    }
}

fn actor_from(text: &str) -> Option<Actor> {
    match text.split_once(':') {
        Some(("operator", name)) => Some(Actor::Operator(name.to_owned())),
        Some(("host", id)) => id.parse::<HostId>().ok().map(Actor::Host),
        None if text == "reconciler" => Some(Actor::Reconciler),
        Some(_) | None => None,
    }
}

/// One row that is being read, with the noun for what is wrong with it.
pub(super) struct Cells<'r> {
    row: &'r Row,
    noun: &'static str,
}

impl<'r> Cells<'r> {
    pub(super) const fn new(row: &'r Row, noun: &'static str) -> Self {
        Self { row, noun }
    }

    /// The error for a column that holds what no release wrote.
    pub(super) const fn malformed(&self, column: &'static str) -> StoreError {
        StoreError::Malformed {
            noun: self.noun,
            column,
        }
    }

    pub(super) fn get<T: Readable<'r>>(&self, column: &'static str) -> Result<T, StoreError> {
        self.row.get(column).map_err(|_| self.malformed(column))
    }

    pub(super) fn id<T>(
        &self,
        column: &'static str,
        make: impl Fn(Uuid) -> T,
    ) -> Result<T, StoreError> {
        let bytes: &[u8] = self.get(column)?;
        Uuid::from_slice(bytes)
            .map(make)
            .map_err(|_| self.malformed(column))
    }

    pub(super) fn maybe_id<T>(
        &self,
        column: &'static str,
        make: impl Fn(Uuid) -> T,
    ) -> Result<Option<T>, StoreError> {
        let bytes: Option<&[u8]> = self.get(column)?;
        bytes
            .map(|bytes| {
                Uuid::from_slice(bytes)
                    .map(make)
                    .map_err(|_| self.malformed(column))
            })
            .transpose()
    }

    pub(super) fn word<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError> {
        self.get::<&str>(column)?
            .parse()
            .map_err(|_| self.malformed(column))
    }

    pub(super) fn maybe_word<T: FromStr>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let text: Option<&str> = self.get(column)?;
        text.map(|text| text.parse().map_err(|_| self.malformed(column)))
            .transpose()
    }

    pub(super) fn counter(&self, column: &'static str) -> Result<u64, StoreError> {
        u64::try_from(self.get::<i64>(column)?).map_err(|_| self.malformed(column))
    }

    pub(super) fn count(&self, column: &'static str) -> Result<u32, StoreError> {
        u32::try_from(self.get::<i64>(column)?).map_err(|_| self.malformed(column))
    }

    pub(super) fn flag(&self, column: &'static str) -> Result<bool, StoreError> {
        self.get(column)
    }

    pub(super) fn time(&self, column: &'static str) -> Result<OffsetDateTime, StoreError> {
        self.get(column).map(from_nanos)
    }

    pub(super) fn maybe_time(
        &self,
        column: &'static str,
    ) -> Result<Option<OffsetDateTime>, StoreError> {
        Ok(self.get::<Option<i64>>(column)?.map(from_nanos))
    }

    pub(super) fn bytes32(&self, column: &'static str) -> Result<[u8; 32], StoreError> {
        self.get::<&[u8]>(column)?
            .try_into()
            .map_err(|_| self.malformed(column))
    }

    pub(super) fn key(&self, column: &'static str) -> Result<KeyFingerprint, StoreError> {
        self.bytes32(column).map(KeyFingerprint::from_bytes)
    }

    pub(super) fn revision(&self, column: &'static str) -> Result<Revision, StoreError> {
        self.counter(column).map(Revision::new)
    }

    pub(super) fn actor(&self, column: &'static str) -> Result<Actor, StoreError> {
        actor_from(self.get(column)?).ok_or_else(|| self.malformed(column))
    }

    /// The fence of columns `epoch` and `generation`.
    pub(super) fn fence(
        &self,
        epoch: &'static str,
        generation: &'static str,
    ) -> Result<Fence, StoreError> {
        Ok(Fence::new(self.counter(epoch)?, self.counter(generation)?))
    }

    /// The content of columns `topology` and `hash`: both or neither.
    pub(super) fn content(
        &self,
        topology: &'static str,
        hash: &'static str,
    ) -> Result<Content, StoreError> {
        let Some(topology) = self.maybe_id(topology, TopologyId::new)? else {
            return Ok(None);
        };
        Ok(Some((topology, VersionHash::new(self.bytes32(hash)?))))
    }
}

//! What is kept, checked and thrown away as time goes by.

use async_trait::async_trait;
use domain::id::TopologyId;
use time::OffsetDateTime;

use super::{AuditEntry, StoreError};

/// An entry of the audit log, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Its place: the cursor of lists.
    pub row: i64,
    /// The SHA-256 of the entry before; none for those of before the chain.
    pub previous: Option<[u8; 32]>,
    /// The entry.
    pub entry: AuditEntry,
}

/// Which entries of the audit log: those that fit to everything that is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// By whom, from wherever: `operator:NAME`, `host:ID` or `reconciler`.
    pub actor: Option<String>,
    /// What: an action, or all of a noun when it ends in a dot.
    pub action: Option<String>,
    /// On what.
    pub subject: Option<String>,
}

/// Whether the chain of the audit log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditChain {
    /// It does.
    Intact {
        /// How many entries it has.
        entries: u64,
    },
    /// It does not: what is before that entry was altered, or entries before it are missing.
    Broken {
        /// The first entry that does not fit to what is before it.
        row: i64,
    },
    /// The newest entries were altered or are missing.
    Cut {
        /// How many entries there are.
        entries: u64,
    },
}

/// Which events are to be forgotten: those that either rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Those received before.
    pub received_before: Option<OffsetDateTime>,
    /// Those beyond so many of the newest.
    pub keep_newest: Option<u64>,
    /// Most that go at once: others are to write in between.
    pub batch: u32,
}

/// How far the history of a topology was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// The row of the last change of its status that is gone; 0 when none is.
    pub status: i64,
    /// When the mutation that changed last of those that are gone did so; the epoch of UNIX when
    /// none is.
    pub mutation: OffsetDateTime,
}

/// Upkeep.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Entries of the audit log that pass the filter, newest first, before that row when one is
    /// given.
    async fn audit_page(
        &self,
        filter: &AuditFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditRow>, StoreError>;
    /// How many entries of the audit log pass the filter.
    async fn count_audit(&self, filter: &AuditFilter) -> Result<u64, StoreError>;
    /// Follows the chain of the audit log from its first entry to its last.
    async fn verify_audit(&self) -> Result<AuditChain, StoreError>;
    /// Removes one batch of the oldest events that are to be forgotten; how many. 0 says that
    /// there are no more.
    async fn forget_events(&self, retention: Retention) -> Result<u64, StoreError>;
    /// Removes one batch of changes of status from before that time, but of no topology the newest
    /// one; how many. 0 says that there are no more.
    async fn forget_status_changes(
        &self,
        before: OffsetDateTime,
        batch: u32,
    ) -> Result<u64, StoreError>;
    /// Removes one batch of mutations that have ended before that time, but of no topology the
    /// newest one, after which the next is numbered; how many. 0 says that there are no more.
    async fn forget_mutations(&self, before: OffsetDateTime, batch: u32)
    -> Result<u64, StoreError>;
    /// How far the history of a topology was forgotten; none when there is no such topology.
    async fn forgotten(&self, topology: TopologyId) -> Result<Option<Forgotten>, StoreError>;
    /// Removes sessions and idempotency keys whose time is over; how many.
    async fn forget_expired(&self, now: OffsetDateTime) -> Result<u64, StoreError>;
}

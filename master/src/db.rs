//! The store: everything that the master must not forget, behind one trait with one conformance
//! suite. SQL text occurs nowhere but in this folder.
//!
//! Each method is one transaction. What it decides (status transitions) it asks of `domain` and
//! writes with compare-and-set, together with the audit entry.

use async_trait::async_trait;
use domain::assign::Assignment;
use domain::host::Standing;
use domain::id::{DeckyId, HostId, SpoolId, TokenId, TopologyId};
use domain::revision::{Epoch, Fence};
use domain::topology::Topology;
use domain::topology::hydrate::VersionHash;
use domain::topology::status::TopologyStatus;
use pki::fingerprint::KeyFingerprint;
use time::OffsetDateTime;

pub mod accounts;
#[cfg(test)]
pub(crate) mod conformance;
pub mod postgres;
pub mod queue;
mod row;
mod sql;
pub mod sqlite;
pub mod upkeep;

pub use row::{
    Actor, AllowedKey, Appended, AuditEntry, Deploy, EventBatch, EventFilter, EventPage, EventRow,
    Force, HostRow, IntentError, LiveTopology, NewEvent, RedeemError, Redeemed, Redemption,
    Removal, Replace, Settlement, StandingError, StatusChange, Teardown, TokenRefusal, TokenRow,
    TopologyError, TopologyRow, TopologySummary, Views, Withdraw,
};
pub use sql::SqlStore;

/// The database did not do what was asked of it, for a reason that no caller can mend.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is busy or away; the same call may succeed later.
    #[error("database is busy while it should {attempt}")]
    Busy {
        /// What was attempted.
        attempt: &'static str,
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// The disk is full: nothing was written.
    #[error("disk is full while the database should {attempt}")]
    Full {
        /// What was attempted.
        attempt: &'static str,
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// Anything else.
    #[error("database could not {attempt}")]
    Failed {
        /// What was attempted.
        attempt: &'static str,
        /// What the driver says.
        #[source]
        source: sqlx::Error,
    },
    /// A row holds what no release wrote.
    #[error("database row of {noun} holds a malformed {column}")]
    Malformed {
        /// Which table's row.
        noun: &'static str,
        /// Which column.
        column: &'static str,
    },
}

/// Everything that the master must not forget.
#[async_trait]
pub trait Store: accounts::Accounts + queue::Queue + upkeep::Upkeep {
    /// A number that is another one once anything but evidence was written, and before its writer is
    /// told so; none when other masters may write too. What was read after it was asked for may be
    /// given again for as long as it stays.
    fn version(&self) -> Option<u64>;

    /// The epoch in force.
    async fn epoch(&self) -> Result<Epoch, StoreError>;

    /// Writes an audit entry on its own, for what changes no other row (a refused token).
    async fn audit(&self, entry: AuditEntry) -> Result<(), StoreError>;
    /// The newest audit entries, newest first.
    async fn audit_log(&self, limit: u32) -> Result<Vec<AuditEntry>, StoreError>;

    /// Stores a token and audits it. Fails with [`StandingError`]-free plain store errors only;
    /// the name of a living host is refused by [`Store::redeem`].
    async fn insert_token(&self, token: TokenRow) -> Result<(), StoreError>;
    /// Tokens that can still be redeemed, soonest expiry first.
    async fn tokens(&self, now: OffsetDateTime) -> Result<Vec<TokenRow>, StoreError>;
    /// Removes a token; whether it was there.
    async fn delete_token(
        &self,
        id: TokenId,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError>;
    /// Consumes a token conditionally and inserts host, key and a first assignment of nothing;
    /// audits success and refusal. The same token with the same key gives the same host again.
    async fn redeem(&self, redemption: Redemption) -> Result<Redeemed, RedeemError>;
    /// Keeps the certificate that was given for a redemption, so that it can be given again.
    async fn keep_certificate(&self, token: TokenId, certificate: &[u8]) -> Result<(), StoreError>;

    /// Every host that is not removed, by name; with `removed`, those too.
    async fn hosts(&self, removed: bool) -> Result<Vec<HostRow>, StoreError>;
    /// One host.
    async fn host(&self, id: HostId) -> Result<Option<HostRow>, StoreError>;
    /// The allow-list.
    async fn allowed_keys(&self) -> Result<Vec<AllowedKey>, StoreError>;
    /// Allows a further key of a host (renewal), and forgets keys that were allowed before
    /// `forget_before` and are not `current`.
    async fn add_key(
        &self,
        host: HostId,
        key: KeyFingerprint,
        current: KeyFingerprint,
        now: OffsetDateTime,
        forget_before: OffsetDateTime,
    ) -> Result<(), StoreError>;
    /// Changes what an operator has decided about a host. Draining also moves its live topology
    /// to tearing down and assigns nothing; removal of a host that carries a live topology is
    /// refused unless `force`, which settles that topology as torn down and leaves a tombstone.
    async fn set_standing(
        &self,
        host: HostId,
        to: Standing,
        force: Force,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<HostRow, StandingError>;
    /// Flushes when hosts were last heard, in one statement, without audit.
    async fn touch_hosts(
        &self,
        seen: &[(HostId, OffsetDateTime, String)],
    ) -> Result<(), StoreError>;

    /// Stores a new topology as pending, and audits it.
    async fn insert_topology(
        &self,
        topology: &Topology,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<(), TopologyError>;
    /// One topology without its LANs, deckies and edges: whoever holds them of its revision needs no
    /// more to know that they are what is stored.
    async fn topology_head(&self, id: TopologyId) -> Result<Option<TopologyRow>, StoreError>;
    /// One topology, whole.
    async fn topology(&self, id: TopologyId) -> Result<Option<TopologyRow>, StoreError>;
    /// The id of the topology of that name (without regard to case) that is not torn down, or
    /// else the newest that is.
    async fn topology_named(&self, name: &str) -> Result<Option<TopologyId>, StoreError>;
    /// Every decky of that name, without regard to case, with its topology and where that stands.
    async fn deckies_named(
        &self,
        name: &str,
    ) -> Result<Vec<(TopologyId, TopologyStatus, DeckyId)>, StoreError>;
    /// Every topology, newest first.
    async fn topologies(&self) -> Result<Vec<TopologySummary>, StoreError>;
    /// Removes a topology that is pending or torn down (or failed, when the caller has seen that
    /// its host holds nothing of it) with all that belongs to it; events and audit stay. A host
    /// that is assigned it is assigned nothing, under a new generation.
    async fn delete_topology(&self, removal: Removal) -> Result<(), TopologyError>;
    /// The changes of a topology's status, oldest first.
    async fn status_changes(&self, id: TopologyId) -> Result<Vec<StatusChange>, StoreError>;

    /// Stores the intent to deploy: status, status change, assignment under the next generation,
    /// hydrated document, the predecessor's move to tearing down, audit; all or nothing.
    async fn deploy(&self, deploy: Deploy) -> Result<Assignment, IntentError>;
    /// Stores the intent to tear down: status to tearing down, and nothing assigned to its host
    /// when it is this topology that is assigned; all or nothing. A pending topology, which no
    /// host holds, goes to torn down at once.
    async fn teardown(&self, teardown: Teardown) -> Result<TopologyStatus, IntentError>;
    /// Writes a decided status with compare-and-set; none when the stored status was another.
    async fn settle(&self, settlement: Settlement) -> Result<Option<TopologyStatus>, IntentError>;
    /// Stores what a host has reported as applied, when it differs from what is stored.
    async fn record_applied(
        &self,
        topology: TopologyId,
        applied: (Fence, VersionHash, OffsetDateTime),
    ) -> Result<(), StoreError>;
    /// Raises a host's assignment above a fence that it obeys, content unchanged.
    async fn supersede(&self, host: HostId, above: Fence) -> Result<Assignment, StoreError>;
    /// The hydrated document that is assigned to a host, if any.
    async fn assigned_document(&self, host: HostId) -> Result<Option<Vec<u8>>, StoreError>;
    /// What a reconcile pass reads.
    async fn views(&self) -> Result<Views, StoreError>;
    /// Whether each of these deckies belongs to a topology that is or was assigned to the host.
    async fn deckies_of_host(
        &self,
        host: HostId,
    ) -> Result<std::collections::BTreeSet<(TopologyId, DeckyId)>, StoreError>;

    /// Stores batches of several spools in one transaction, all or none of them; events that are
    /// there already are skipped. Answers each batch in its place.
    async fn append_batches(&self, batches: &[EventBatch]) -> Result<Vec<Appended>, StoreError>;
    /// Stores events of one spool of one host; those that are there already are skipped.
    async fn append_events(
        &self,
        host: HostId,
        spool: SpoolId,
        events: Vec<NewEvent>,
    ) -> Result<Appended, StoreError> {
        let appended = self
            .append_batches(&[EventBatch {
                host,
                spool,
                events,
            }])
            .await?;
        Ok(appended.first().copied().unwrap_or_default())
    }
    /// One page of events.
    async fn events(
        &self,
        filter: &EventFilter,
        page: EventPage,
        limit: u32,
    ) -> Result<Vec<EventRow>, StoreError>;
    /// How many events pass the filter.
    async fn count_events(&self, filter: &EventFilter) -> Result<u64, StoreError>;
    /// The newest row of the table of events; 0 when it is empty.
    async fn newest_event_row(&self) -> Result<i64, StoreError>;
}

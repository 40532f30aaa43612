//! The store in one SQLite file.
//!
//! One connection writes, each transaction with `BEGIN IMMEDIATE`, so that no two of them ever
//! wait for each other half done; a pool of read-only connections reads beside it (WAL). The
//! writer is `synchronous=FULL` for everything: events arrive in batches that share one flush, so
//! a second, laxer connection for them would save little and would acknowledge evidence that a
//! loss of power takes back.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use domain::assign::Assignment;
use domain::host::Standing;
use domain::id::{DeckyId, HostId, TokenId, TopologyId};
use domain::revision::{Epoch, Fence};
use domain::topology::Topology;
use domain::topology::hydrate::VersionHash;
use domain::topology::status::TopologyStatus;
use pki::fingerprint::KeyFingerprint;
use sqlx::{Sqlite, SqlitePool, Transaction};
use time::OffsetDateTime;

use super::{
    Actor, AllowedKey, Appended, AuditEntry, Deploy, EventBatch, EventFilter, EventPage, EventRow,
    Force, HostRow, IntentError, RedeemError, Redeemed, Redemption, Settlement, StandingError,
    StatusChange, Store, StoreError, TokenRow, TopologyError, TopologyRow, TopologySummary, Views,
};
use crate::metrics::Metrics;

mod assignments;
mod audit;
mod decode;
mod events;
mod graph;
mod hosts;
mod intent;
mod open;
mod standing;
mod status;
mod tokens;
mod topologies;

#[cfg(test)]
mod tests;

pub use open::OpenError;

/// The store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    write: SqlitePool,
    read: SqlitePool,
    metrics: Arc<Metrics>,
}

impl SqliteStore {
    /// Opens the database at `path`, makes it when there is none, and brings an older one up to
    /// this release. A file that is damaged, foreign or newer is refused and left as it is.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        open::open(path, &[]).await
    }

    /// The same store, counting its writes in `metrics`.
    #[must_use]
    pub fn counted_in(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// Writes back what is in the log beside the file and closes every connection. A process that
    /// is killed instead loses nothing that was committed.
    pub async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }

    async fn writing(
        &self,
        attempt: &'static str,
    ) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.metrics.db_writes_total.inc();
        self.write
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(decode::failed(attempt))
    }

    async fn reading(
        &self,
        attempt: &'static str,
    ) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.read.begin().await.map_err(decode::failed(attempt))
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn epoch(&self) -> Result<Epoch, StoreError> {
        assignments::epoch(self).await
    }

    async fn audit(&self, entry: AuditEntry) -> Result<(), StoreError> {
        audit::write(self, entry).await
    }

    async fn audit_log(&self, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        audit::log(self, limit).await
    }

    async fn insert_token(&self, token: TokenRow) -> Result<(), StoreError> {
        tokens::insert(self, token).await
    }

    async fn tokens(&self, now: OffsetDateTime) -> Result<Vec<TokenRow>, StoreError> {
        tokens::open(self, now).await
    }

    async fn delete_token(
        &self,
        id: TokenId,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        tokens::delete(self, id, actor, now).await
    }

    async fn redeem(&self, redemption: Redemption) -> Result<Redeemed, RedeemError> {
        tokens::redeem(self, &redemption).await
    }

    async fn keep_certificate(&self, token: TokenId, certificate: &[u8]) -> Result<(), StoreError> {
        tokens::keep_certificate(self, token, certificate).await
    }

    async fn hosts(&self, removed: bool) -> Result<Vec<HostRow>, StoreError> {
        hosts::list(self, removed).await
    }

    async fn host(&self, id: HostId) -> Result<Option<HostRow>, StoreError> {
        hosts::one(self, id).await
    }

    async fn allowed_keys(&self) -> Result<Vec<AllowedKey>, StoreError> {
        hosts::allowed_keys(self).await
    }

    async fn add_key(
        &self,
        host: HostId,
        key: KeyFingerprint,
        current: KeyFingerprint,
        now: OffsetDateTime,
        forget_before: OffsetDateTime,
    ) -> Result<(), StoreError> {
        hosts::add_key(
            self,
            hosts::NewKey {
                host,
                key,
                current,
                now,
                forget_before,
            },
        )
        .await
    }

    async fn set_standing(
        &self,
        host: HostId,
        to: Standing,
        force: Force,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<HostRow, StandingError> {
        standing::set(
            self,
            &standing::Decision {
                host,
                to,
                force,
                actor,
                now,
            },
        )
        .await
    }

    async fn touch_hosts(
        &self,
        seen: &[(HostId, OffsetDateTime, String)],
    ) -> Result<(), StoreError> {
        hosts::touch(self, seen).await
    }

    async fn insert_topology(
        &self,
        topology: &Topology,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<(), TopologyError> {
        topologies::insert(self, topology, &actor, now).await
    }

    async fn topology(&self, id: TopologyId) -> Result<Option<TopologyRow>, StoreError> {
        topologies::one(self, id).await
    }

    async fn topology_named(&self, name: &str) -> Result<Option<TopologyId>, StoreError> {
        topologies::named(self, name).await
    }

    async fn topologies(&self) -> Result<Vec<TopologySummary>, StoreError> {
        topologies::list(self).await
    }

    async fn delete_topology(
        &self,
        id: TopologyId,
        observed_empty: bool,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<(), TopologyError> {
        topologies::delete(self, id, observed_empty, &actor, now).await
    }

    async fn status_changes(&self, id: TopologyId) -> Result<Vec<StatusChange>, StoreError> {
        status::changes(self, id).await
    }

    async fn deploy(&self, deploy: Deploy) -> Result<Assignment, IntentError> {
        intent::deploy(self, &deploy).await
    }

    async fn teardown(
        &self,
        topology: TopologyId,
        reason: String,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<TopologyStatus, IntentError> {
        intent::teardown(self, topology, &reason, &actor, now).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<Option<TopologyStatus>, IntentError> {
        intent::settle(self, &settlement).await
    }

    async fn record_applied(
        &self,
        topology: TopologyId,
        applied: (Fence, VersionHash, OffsetDateTime),
    ) -> Result<(), StoreError> {
        intent::record_applied(self, topology, applied).await
    }

    async fn supersede(&self, host: HostId, above: Fence) -> Result<Assignment, StoreError> {
        assignments::supersede(self, host, above).await
    }

    async fn assigned_document(&self, host: HostId) -> Result<Option<Vec<u8>>, StoreError> {
        assignments::document(self, host).await
    }

    async fn views(&self) -> Result<Views, StoreError> {
        intent::views(self).await
    }

    async fn deckies_of_host(
        &self,
        host: HostId,
    ) -> Result<BTreeSet<(TopologyId, DeckyId)>, StoreError> {
        assignments::deckies_of_host(self, host).await
    }

    async fn append_batches(&self, batches: &[EventBatch]) -> Result<Vec<Appended>, StoreError> {
        events::append(self, batches).await
    }

    async fn events(
        &self,
        filter: &EventFilter,
        page: EventPage,
        limit: u32,
    ) -> Result<Vec<EventRow>, StoreError> {
        events::page(self, filter, page, limit).await
    }

    async fn count_events(&self, filter: &EventFilter) -> Result<u64, StoreError> {
        events::count(self, filter).await
    }

    async fn newest_event_row(&self) -> Result<i64, StoreError> {
        events::newest_row(self).await
    }
}

//! The store, whichever database keeps it: every statement and every decision stands here once.
//!
//! SQLite and PostgreSQL read the same texts; what is said differently to one of them is told
//! apart where it is said (`Dialect`). How a database is opened, and what its errors mean, is in
//! `sqlite` and `postgres`.
//!
//! Transactions that write take turns, in one database whoever they are of: on SQLite by
//! `BEGIN IMMEDIATE` on the one connection that writes, on PostgreSQL by an advisory lock that
//! lasts as long as the transaction. Serializable isolation was refused: every audited write
//! reads and moves the head of the audit's chain, so any two of them would conflict, and the
//! losers would do everything again. A turn makes what is read within it stay true until the
//! commit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use domain::assign::Assignment;
use domain::host::Standing;
use domain::id::{DeckyId, HostId, TokenId, TopologyId};
use domain::revision::{Epoch, Fence};
use domain::topology::Topology;
use domain::topology::hydrate::VersionHash;
use domain::topology::status::TopologyStatus;
use pki::fingerprint::KeyFingerprint;
use time::OffsetDateTime;

use super::{
    Actor, AllowedKey, Appended, AuditEntry, Deploy, EventBatch, EventFilter, EventPage, EventRow,
    Force, HostRow, IntentError, RedeemError, Redeemed, Redemption, Removal, Settlement,
    StandingError, StatusChange, Store, StoreError, Teardown, TokenRow, TopologyError, TopologyRow,
    TopologySummary, Views,
};
use crate::metrics::Metrics;

mod access;
mod accounts;
mod assignments;
mod audit;
pub(super) mod cells;
mod edits;
mod events;
mod graph;
mod history;
mod hosts;
mod intent;
mod keys;
mod places;
mod queue;
mod retry;
mod standing;
mod statement;
mod status;
mod tokens;
mod topologies;
mod upkeep;
mod users;

pub(super) use statement::{Pool, Readers, Tx};

use cells::failed;
use retry::again;
use statement::{TxLink, sql};

/// The store in one database.
#[derive(Debug)]
pub struct SqlStore {
    pub(super) write: Pool,
    pub(super) read: Readers,
    metrics: Arc<Metrics>,
    /// How often anything but evidence was written.
    version: Arc<AtomicU64>,
}

/// What a transaction waits for its turn in. On SQLite there is one turn for everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Everything that an operator or a host decides.
    Intent,
    /// Evidence: appended beside the decisions, and in an order of its own, so that a reader who
    /// has seen a row has seen every earlier one.
    Evidence,
}

impl Turn {
    /// The key of its advisory lock: a number that only this program uses in its database.
    const fn key(self) -> i64 {
        match self {
            Self::Intent => 0x4443_4e54_0001,
            Self::Evidence => 0x4443_4e54_0002,
        }
    }
}

impl SqlStore {
    pub(super) fn new(write: Pool, read: Pool) -> Self {
        let metrics = Arc::<Metrics>::default();
        Self {
            write,
            read: Readers {
                pool: read,
                metrics: Arc::clone(&metrics),
            },
            metrics,
            version: Arc::default(),
        }
    }

    /// The same store, counting its writes in `metrics`.
    #[must_use]
    pub fn counted_in(mut self, metrics: Arc<Metrics>) -> Self {
        self.read.metrics = Arc::clone(&metrics);
        self.metrics = metrics;
        self
    }

    /// Closes every connection. A process that is killed instead loses nothing that was committed.
    pub async fn close(&self) {
        self.read.pool.close().await;
        self.write.close().await;
    }

    /// Begins a transaction that writes, when it is its turn.
    pub(super) async fn writing(&self, attempt: &'static str) -> Result<Tx, StoreError> {
        self.in_turn(Turn::Intent, attempt).await
    }

    /// Begins a transaction that writes evidence, when it is its turn.
    async fn appending(&self, attempt: &'static str) -> Result<Tx, StoreError> {
        self.in_turn(Turn::Evidence, attempt).await
    }

    async fn in_turn(&self, turn: Turn, attempt: &'static str) -> Result<Tx, StoreError> {
        self.metrics.db_writes_total.inc();
        let failed = failed(attempt);
        let metrics = Arc::clone(&self.metrics);
        let version = (turn == Turn::Intent).then(|| Arc::clone(&self.version));
        match &self.write {
            Pool::Sqlite(pool) => {
                let tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
                let link = TxLink::Sqlite(tx);
                Ok(Tx {
                    link,
                    metrics,
                    version,
                })
            }
            Pool::Postgres(pool) => {
                // Whatever the server's own default is: what was committed before the turn came is seen.
                let link = TxLink::Postgres(
                    pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED")
                        .await
                        .map_err(failed)?,
                );
                let mut tx = Tx {
                    link,
                    metrics,
                    version,
                };
                sql("SELECT pg_advisory_xact_lock($1)")
                    .bind(turn.key())
                    .execute(&mut tx)
                    .await
                    .map_err(failed)?;
                Ok(tx)
            }
        }
    }

    /// Begins a transaction whose reads are all of one moment.
    async fn reading(&self, attempt: &'static str) -> Result<Tx, StoreError> {
        let failed = failed(attempt);
        let link = match &self.read.pool {
            Pool::Sqlite(pool) => TxLink::Sqlite(pool.begin().await.map_err(failed)?),
            Pool::Postgres(pool) => TxLink::Postgres(
                pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    .await
                    .map_err(failed)?,
            ),
        };
        let metrics = Arc::clone(&self.metrics);
        Ok(Tx {
            link,
            metrics,
            version: None,
        })
    }
}

#[async_trait]
impl Store for SqlStore {
    fn version(&self) -> Option<u64> {
        match &self.write {
            Pool::Sqlite(_) => Some(self.version.load(Ordering::Acquire)),
            Pool::Postgres(_) => None,
        }
    }

    async fn epoch(&self) -> Result<Epoch, StoreError> {
        assignments::epoch(self).await
    }

    async fn audit(&self, entry: AuditEntry) -> Result<(), StoreError> {
        again(|| audit::write(self, &entry)).await
    }

    async fn audit_log(&self, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        audit::log(self, limit).await
    }

    async fn insert_token(&self, token: TokenRow) -> Result<(), StoreError> {
        again(|| tokens::insert(self, &token)).await
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
        again(|| tokens::delete(self, id, &actor, now)).await
    }

    async fn redeem(&self, redemption: Redemption) -> Result<Redeemed, RedeemError> {
        again(|| tokens::redeem(self, &redemption)).await
    }

    async fn keep_certificate(&self, token: TokenId, certificate: &[u8]) -> Result<(), StoreError> {
        again(|| tokens::keep_certificate(self, token, certificate)).await
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
        let new = hosts::NewKey {
            host,
            key,
            current,
            now,
            forget_before,
        };
        again(|| hosts::add_key(self, &new)).await
    }

    async fn set_standing(
        &self,
        host: HostId,
        to: Standing,
        force: Force,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<HostRow, StandingError> {
        let decision = standing::Decision {
            host,
            to,
            force,
            actor,
            now,
        };
        again(|| standing::set(self, &decision)).await
    }

    async fn touch_hosts(
        &self,
        seen: &[(HostId, OffsetDateTime, String)],
    ) -> Result<(), StoreError> {
        again(|| hosts::touch(self, seen)).await
    }

    async fn insert_topology(
        &self,
        topology: &Topology,
        actor: Actor,
        now: OffsetDateTime,
    ) -> Result<(), TopologyError> {
        again(|| topologies::insert(self, topology, &actor, now)).await
    }

    async fn topology_head(&self, id: TopologyId) -> Result<Option<TopologyRow>, StoreError> {
        topologies::head(self, id).await
    }

    async fn topology(&self, id: TopologyId) -> Result<Option<TopologyRow>, StoreError> {
        topologies::one(self, id).await
    }

    async fn topology_named(&self, name: &str) -> Result<Option<TopologyId>, StoreError> {
        topologies::named(self, name).await
    }

    async fn deckies_named(
        &self,
        name: &str,
    ) -> Result<Vec<(TopologyId, TopologyStatus, DeckyId)>, StoreError> {
        topologies::deckies_named(self, name).await
    }

    async fn topologies(&self) -> Result<Vec<TopologySummary>, StoreError> {
        topologies::list(self).await
    }

    async fn delete_topology(&self, removal: Removal) -> Result<(), TopologyError> {
        again(|| topologies::delete(self, &removal)).await
    }

    async fn status_changes(&self, id: TopologyId) -> Result<Vec<StatusChange>, StoreError> {
        status::changes(self, id).await
    }

    async fn deploy(&self, deploy: Deploy) -> Result<Assignment, IntentError> {
        again(|| intent::deploy(self, &deploy)).await
    }

    async fn teardown(&self, teardown: Teardown) -> Result<TopologyStatus, IntentError> {
        again(|| intent::teardown(self, &teardown)).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<Option<TopologyStatus>, IntentError> {
        again(|| intent::settle(self, &settlement)).await
    }

    async fn record_applied(
        &self,
        topology: TopologyId,
        applied: (Fence, VersionHash, OffsetDateTime),
    ) -> Result<(), StoreError> {
        again(|| intent::record_applied(self, topology, applied)).await
    }

    async fn supersede(&self, host: HostId, above: Fence) -> Result<Assignment, StoreError> {
        again(|| assignments::supersede(self, host, above)).await
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
        again(|| events::append(self, batches)).await
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

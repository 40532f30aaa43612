//! The fleet: which hosts are connected, what they last reported, and what is decided about them.
//!
//! Heartbeats live in memory. Only a change reaches the database, by way of the reconciler; when
//! a host was last heard is flushed in one statement a minute.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::assign::HostReport;
use domain::host::{HostState, Standing};
use domain::id::HostId;
use domain::revision::Fence;
use domain::usage::Usages;
use pki::acceptor::Connections;
use time::OffsetDateTime;
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::allow::AllowTable;
use crate::bus::Bus;
use crate::chain::Chain;
use crate::clock::Clock;
use crate::db::{Actor, Force, HostRow, StandingError, Store, StoreError};
use crate::signal::Waker;
use crate::task;

/// How soon a change of who may connect is tried again when the database fails.
const RELOAD_AGAIN: Duration = Duration::from_secs(1);

/// How an agent and its host are, as its last heartbeat said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Whether the engine answers.
    pub engine_ok: bool,
    /// Whether evidence is collected.
    pub collect_ok: bool,
    /// Whether the spool takes it.
    pub spool_ok: bool,
    /// Free disk, MiB.
    pub disk_free_mib: u32,
    /// Free memory, MiB.
    pub memory_free_mib: u32,
    /// Events that wait to be sent.
    pub spool_events: u32,
}

/// What the master tells a connected agent.
#[derive(Debug, Clone)]
pub enum Order {
    /// Hold this.
    Assign {
        /// Its place in the order.
        fence: Fence,
        /// The topology, its hash and its canonical document; none for nothing.
        content: Option<AssignedDocument>,
    },
    /// Say what you hold.
    Report,
}

/// A hydrated document on its way to a host.
#[derive(Debug, Clone)]
pub struct AssignedDocument {
    /// The topology.
    pub topology: domain::id::TopologyId,
    /// Its hash.
    pub hash: domain::topology::hydrate::VersionHash,
    /// The very bytes that were hashed.
    pub document: bytes::Bytes,
}

/// What is known of a host's present or last connection.
#[derive(Debug, Clone, Default)]
pub struct LiveHost {
    /// Whether it is connected.
    pub connected: bool,
    /// What it last reported on its present connection.
    pub report: Option<Arc<HostReport>>,
    /// How it is.
    pub health: Option<Health>,
    /// When it was last heard by this master.
    pub last_seen: Option<OffsetDateTime>,
    /// The release of its agent.
    pub agent_version: String,
    /// Host clock minus master clock, milliseconds.
    pub clock_skew_ms: i64,
    /// How far it is with an assignment: steps done, steps in all.
    pub progress: Option<(Fence, u32, u32)>,
    /// What its deckies last used. Nothing is decided by it.
    pub usage: Arc<Usages>,
}

#[derive(Default)]
struct Entry {
    live: LiveHost,
    session: Option<(u64, mpsc::Sender<Box<Order>>, CancellationToken)>,
    /// Digest of what the last report showed; another one in a heartbeat asks for a report.
    observed_digest: u64,
    report_asked: bool,
    announced: Option<HostState>,
}

/// A registered control stream. Dropping it tells the fleet that the stream is gone.
pub struct Session {
    fleet: Arc<Fleet>,
    host: HostId,
    number: u64,
    /// What the master has to say.
    pub orders: mpsc::Receiver<Box<Order>>,
    /// Cancelled when a newer stream of the same host has taken over.
    pub superseded: CancellationToken,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.fleet.ended(self.host, self.number);
    }
}

/// Which hosts are connected, and what they last said.
pub struct Fleet {
    store: Arc<dyn Store>,
    allow: Arc<AllowTable>,
    connections: Arc<Connections>,
    bus: Arc<Bus>,
    waker: Waker,
    clock: Clock,
    period: Duration,
    listening_since: OffsetDateTime,
    hosts: Mutex<HashMap<HostId, Entry>>,
    /// Held from the reading of the allow-list until it is swapped: an older one never comes after a
    /// newer one.
    reloading: AsyncMutex<()>,
    numbers: AtomicU64,
    /// Heartbeats handled since the start.
    pub heartbeats: AtomicU64,
}

/// What a fleet is made of.
pub struct FleetParts {
    /// Where hosts are stored.
    pub store: Arc<dyn Store>,
    /// Who may connect.
    pub allow: Arc<AllowTable>,
    /// The live connections, to be cut.
    pub connections: Arc<Connections>,
    /// Where changes are told.
    pub bus: Arc<Bus>,
    /// Wakes the reconciler.
    pub waker: Waker,
    /// The time.
    pub clock: Clock,
    /// How often agents send heartbeats.
    pub period: Duration,
}

impl Fleet {
    /// A fleet that listens from this moment on, with the allow-list of the store.
    pub async fn open(parts: FleetParts) -> Result<Arc<Self>, StoreError> {
        let FleetParts {
            store,
            allow,
            connections,
            bus,
            waker,
            clock,
            period,
        } = parts;
        allow.swap(store.allowed_keys().await?);
        let listening_since = clock();
        Ok(Arc::new(Self {
            store,
            allow,
            connections,
            bus,
            waker,
            clock,
            period,
            listening_since,
            hosts: Mutex::default(),
            reloading: AsyncMutex::default(),
            numbers: AtomicU64::new(0),
            heartbeats: AtomicU64::new(0),
        }))
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<HostId, Entry>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often agents send heartbeats.
    pub const fn period(&self) -> Duration {
        self.period
    }

    /// The fence below which no assignment will ever come to a host.
    pub async fn floor(&self, host: HostId) -> Result<Fence, StoreError> {
        Ok(self
            .store
            .host(host)
            .await?
            .map(|row| row.assignment.fence)
            .unwrap_or_default())
    }

    /// Over how long agents spread their reconnections after this master has ended: so that each
    /// second sees at most 200 of them.
    pub fn reconnect_spread_ms(&self) -> u32 {
        let connected = self
            .hosts()
            .values()
            .filter(|entry| entry.session.is_some())
            .count();
        u32::try_from(connected.saturating_mul(5))
            .unwrap_or(u32::MAX)
            .min(10_000)
    }

    /// Registers a control stream; an older one of the same host is told to end.
    pub fn register(
        self: &Arc<Self>,
        host: HostId,
        agent_version: &str,
        clock_skew_ms: i64,
        row: HostReport,
    ) -> Session {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        // Newest wins: a full queue means that the agent does not read, and its stream is cut.
        let (sender, orders) = mpsc::channel(16);
        let superseded = CancellationToken::new();
        let mut hosts = self.hosts();
        let entry = hosts.entry(host).or_default();
        if let Some((_, _, older)) = entry.session.replace((number, sender, superseded.clone())) {
            older.cancel();
        }
        entry.live = LiveHost {
            connected: true,
            report: Some(Arc::new(row)),
            health: entry.live.health,
            last_seen: Some((self.clock)()),
            agent_version: agent_version.chars().take(64).collect(),
            clock_skew_ms,
            progress: None,
            usage: Arc::default(),
        };
        entry.observed_digest = 0;
        entry.report_asked = true;
        drop(hosts);
        self.waker.connected(host);
        Session {
            fleet: Arc::clone(self),
            host,
            number,
            orders,
            superseded,
        }
    }

    fn ended(&self, host: HostId, number: u64) {
        let mut hosts = self.hosts();
        if let Some(entry) = hosts.get_mut(&host)
            && entry
                .session
                .as_ref()
                .is_some_and(|(current, ..)| *current == number)
        {
            entry.session = None;
            entry.live.connected = false;
            entry.live.report = None;
            entry.live.progress = None;
            entry.live.usage = Arc::default();
            drop(hosts);
            self.waker.wake();
        }
    }

    /// Takes a report. Wakes the reconciler when it says anything new.
    pub fn reported(&self, host: HostId, report: HostReport, digest: u64) {
        let mut hosts = self.hosts();
        let Some(entry) = hosts.get_mut(&host) else {
            return;
        };
        entry.live.last_seen = Some((self.clock)());
        entry.observed_digest = digest;
        entry.report_asked = false;
        if !report.in_flight {
            entry.live.progress = None;
        }
        let changed = entry.live.report.as_deref() != Some(&report);
        entry.live.report = Some(Arc::new(report));
        drop(hosts);
        if changed {
            self.waker.wake();
        }
    }

    /// Takes a heartbeat: memory only. Asks for a report when it does not fit the last one.
    pub fn heartbeat(
        &self,
        host: HostId,
        fence: Fence,
        digest: u64,
        in_flight: bool,
        health: Health,
    ) {
        self.heartbeats.fetch_add(1, Ordering::Relaxed);
        let mut hosts = self.hosts();
        let Some(entry) = hosts.get_mut(&host) else {
            return;
        };
        entry.live.last_seen = Some((self.clock)());
        entry.live.health = Some(health);
        let known = entry.live.report.as_ref().is_some_and(|report| {
            report.fence == fence
                && report.in_flight == in_flight
                && entry.observed_digest == digest
        });
        if !known && !entry.report_asked {
            entry.report_asked = true;
            if let Some((_, orders, _)) = &entry.session {
                // A full queue holds an order already, and every order is answered by a report.
                drop(orders.try_send(Box::new(Order::Report)));
            }
        }
    }

    /// Takes word of how far an operation is.
    pub fn progressed(&self, host: HostId, fence: Fence, done: u32, total: u32) {
        if let Some(entry) = self.hosts().get_mut(&host) {
            entry.live.progress = Some((fence, done, total));
        }
    }

    /// Takes word of what deckies use: memory only, and nobody is woken for it.
    pub fn measured(&self, host: HostId, usage: Usages) {
        if let Some(entry) = self.hosts().get_mut(&host) {
            entry.live.usage = Arc::new(usage);
        }
    }

    /// Sends an order to a connected host. An agent that does not read its orders is cut.
    pub fn send(&self, host: HostId, order: Order) -> bool {
        let hosts = self.hosts();
        let Some((_, orders, ended)) = hosts.get(&host).and_then(|entry| entry.session.as_ref())
        else {
            return false;
        };
        match orders.try_send(Box::new(order)) {
            Ok(()) => true,
            Err(_) => {
                ended.cancel();
                false
            }
        }
    }

    /// What is known of a host's connection; none when this master has never heard of it.
    pub fn live(&self, host: HostId) -> Option<LiveHost> {
        self.hosts().get(&host).map(|entry| entry.live.clone())
    }

    /// The state of a host.
    pub fn state_of(&self, row: &HostRow, now: OffsetDateTime) -> HostState {
        let heard = self
            .hosts()
            .get(&row.id)
            .and_then(|entry| entry.live.last_seen);
        let period = time::Duration::try_from(self.period).unwrap_or(time::Duration::MINUTE);
        domain::host::state(row.standing, heard, self.listening_since, period, now)
    }

    /// When a host was last heard: by this master, or as the database has it.
    pub fn last_seen(&self, row: &HostRow) -> Option<OffsetDateTime> {
        self.hosts()
            .get(&row.id)
            .and_then(|entry| entry.live.last_seen)
            .max(row.last_seen)
    }

    /// Changes what is decided about a host. Nothing of a revoked host has effect after this.
    ///
    /// Whoever asks may go away meanwhile: what was stored comes into force all the same.
    pub async fn set_standing(
        self: &Arc<Self>,
        host: HostId,
        to: Standing,
        force: Force,
        actor: Actor,
    ) -> Result<HostRow, StandingError> {
        let this = Arc::clone(self);
        let deciding = task::spawn("host.standing", Span::current(), async move {
            let now = (this.clock)();
            let decided = this.store.set_standing(host, to, force, actor, now).await;
            let is_in_force = match &decided {
                Ok(_) => true,
                // It was decided before: whoever asks again sees to it that it is so.
                Err(StandingError::Illegal { from, .. }) => *from == to,
                Err(_) => false,
            };
            if is_in_force {
                this.enforce(host, to).await;
            }
            decided
        });
        match deciding.await {
            Ok(decided) => decided,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and with it whoever waits here.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Brings into force what is stored about a host.
    async fn enforce(&self, host: HostId, standing: Standing) {
        while let Err(error) = self.reload_allow_list().await {
            tracing::warn!(
                host.id = %host,
                error = %Chain(&error),
                "a change of who may connect waits for the database"
            );
            tokio::time::sleep(RELOAD_AGAIN).await;
        }
        if matches!(standing, Standing::Revoked | Standing::Removed) {
            // The list was swapped before, so whoever reconnects now meets it.
            let cut = self.connections.cut(host);
            tracing::info!(host.id = %host, connections = cut, %standing, "host cut off");
        }
        self.waker.wake();
    }

    /// Reads the allow-list anew.
    pub async fn reload_allow_list(&self) -> Result<(), StoreError> {
        let _reloading = self.reloading.lock().await;
        self.allow.swap(self.store.allowed_keys().await?);
        Ok(())
    }

    /// Flushes when hosts were last heard, and tells changes of state.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let seen: Vec<_> = self
            .hosts()
            .iter()
            .filter_map(|(host, entry)| {
                Some((
                    *host,
                    entry.live.last_seen?,
                    entry.live.agent_version.clone(),
                ))
            })
            .collect();
        if seen.is_empty() {
            return Ok(());
        }
        self.store.touch_hosts(&seen).await
    }

    /// Tells the bus of hosts whose state is another than when it was last told.
    pub fn announce(&self, rows: &[HostRow]) {
        let now = (self.clock)();
        for row in rows {
            let state = self.state_of(row, now);
            let mut hosts = self.hosts();
            let entry = hosts.entry(row.id).or_default();
            let before = entry.announced.replace(state);
            drop(hosts);
            if before != Some(state) {
                tracing::info!(host.id = %row.id, host.name = %row.name, %state, "host state");
                self.bus.publish(
                    format!("host.{}.state", row.id),
                    serde_json::json!({
                        "host": row.id.to_string(),
                        "name": row.name.as_str(),
                        "from": before.map(HostState::as_str),
                        "to": state.as_str(),
                    }),
                );
            }
        }
    }
}

//! The reconciler: reads everything, decides purely, acts. Waking it twice is waking it once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use domain::decide::{
    HostAction, HostView, TopologyAction, TopologyView, decide_host, decide_topology,
};
use domain::id::{HostId, TopologyId};
use domain::revision::Fence;
use domain::topology::status::{StatusEvent, TopologyStatus};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::chain::Chain;
use crate::clock::Clock;
use crate::crash;
use crate::db::{
    Actor, HostRow, IntentError, LiveTopology, Settlement, Store, StoreError, Withdraw,
};
use crate::fleet::{AssignedDocument, Fleet, LiveHost, Order};
use crate::pipeline::Ingest;
use crate::signal::{Conditions, MutationWaker, Waker, tell_ended, tell_status};
use crate::substrate::Teller;

mod arrival;

/// How long the reconciler rests when nothing is awaited and nobody wakes it.
const REST: Duration = Duration::from_secs(30);
/// How long it rests while a deadline or a back-off runs.
const WATCH: Duration = Duration::from_millis(500);
/// Longest time between two pushes of one assignment.
const LONGEST: Duration = Duration::from_secs(60);

/// Counts for `/metrics`.
#[derive(Debug, Default)]
pub struct ReconcileCounts {
    /// Passes since the start.
    pub passes: AtomicU64,
    /// Assignments sent since the start.
    pub pushed: AtomicU64,
}

/// Why a pass was cut short.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The views could not be read.
    #[error("could not read what is to be reconciled")]
    Views(#[source] StoreError),
    /// The document of an assignment could not be read.
    #[error("could not read the document assigned to host {host}")]
    Document {
        /// The host.
        host: HostId,
        /// What the store says.
        #[source]
        source: StoreError,
    },
    /// The fence of a host could not be raised.
    #[error("could not raise the fence of host {host}")]
    Supersede {
        /// The host.
        host: HostId,
        /// What the store says.
        #[source]
        source: StoreError,
    },
    /// A status could not be written.
    #[error("could not write {event} of topology {topology}")]
    Settle {
        /// The topology.
        topology: TopologyId,
        /// What was decided.
        event: StatusEvent,
        /// What the store says.
        #[source]
        source: IntentError,
    },
    /// What became of mutations could not be written.
    #[error("could not settle the mutations of topology {topology}")]
    Mutations {
        /// The topology.
        topology: TopologyId,
        /// What the store says.
        #[source]
        source: StoreError,
    },
    /// What deckies have come to serve could not be told.
    #[error("could not tell what the deckies serve")]
    Substrate(#[source] StoreError),
    /// What a host has applied could not be written.
    #[error("could not record what was applied of topology {topology}")]
    Applied {
        /// The topology.
        topology: TopologyId,
        /// What the store says.
        #[source]
        source: StoreError,
    },
}

#[derive(Debug, Clone, Copy)]
struct BackOff {
    fence: Fence,
    attempts: u32,
    not_before: OffsetDateTime,
}

/// Carries out what is decided.
pub struct Reconciler {
    store: Arc<dyn Store>,
    fleet: Arc<Fleet>,
    bus: Arc<Bus>,
    waker: Waker,
    conditions: Arc<Conditions>,
    counts: Arc<ReconcileCounts>,
    clock: Clock,
    back_offs: HashMap<HostId, BackOff>,
    recorded: HashMap<TopologyId, Fence>,
    /// Up to which fence mutations have ended.
    settled: HashMap<TopologyId, Fence>,
    teller: Teller,
    mutations: MutationWaker,
}

/// What a reconciler is made of.
pub struct ReconcilerParts {
    /// Where intent and status are stored.
    pub store: Arc<dyn Store>,
    /// Where reports come from and orders go to.
    pub fleet: Arc<Fleet>,
    /// Where changes are told.
    pub bus: Arc<Bus>,
    /// What wakes it.
    pub waker: Waker,
    /// Where it says what it awaits.
    pub conditions: Arc<Conditions>,
    /// What it counts.
    pub counts: Arc<ReconcileCounts>,
    /// Where events of its own are stored.
    pub ingest: Arc<Ingest>,
    /// Wakes who carries out mutations.
    pub mutations: MutationWaker,
    /// The time.
    pub clock: Clock,
}

impl Reconciler {
    /// A reconciler that has done nothing yet.
    pub fn new(parts: ReconcilerParts) -> Self {
        let ReconcilerParts {
            store,
            fleet,
            bus,
            waker,
            conditions,
            counts,
            ingest,
            mutations,
            clock,
        } = parts;
        Self {
            teller: Teller::new(
                Arc::clone(&store),
                ingest,
                Arc::clone(&bus),
                mutations.clone(),
                Arc::clone(&clock),
            ),
            mutations,
            settled: HashMap::new(),
            store,
            fleet,
            bus,
            waker,
            conditions,
            counts,
            clock,
            back_offs: HashMap::new(),
            recorded: HashMap::new(),
        }
    }

    /// Passes for as long as the master runs.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut failing = false;
        loop {
            let rest = match self.pass().await {
                Ok(Awaits::Nothing) => {
                    failing = false;
                    REST
                }
                Ok(Awaits::Something) => {
                    failing = false;
                    WATCH
                }
                Err(error) => {
                    // An idle loop logs transitions only.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(error = %Chain(&error), "reconcile pass cut short; it is repeated");
                    }
                    Duration::from_secs(2)
                }
            };
            tokio::select! {
                () = self.waker.woken() => {}
                () = tokio::time::sleep(rest) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Reads everything, decides and acts, once.
    #[tracing::instrument(name = "reconcile.pass", level = "debug", skip_all)]
    pub async fn pass(&mut self) -> Result<Awaits, PassError> {
        self.counts.passes.fetch_add(1, Ordering::Relaxed);
        for host in self.waker.take_connected() {
            self.back_offs.remove(&host);
        }
        let views = self.store.views().await.map_err(PassError::Views)?;
        self.fleet.announce(&views.hosts);
        let mut awaits = Awaits::Nothing;
        let mut conditions = HashMap::new();
        let hosts: HashMap<HostId, (&HostRow, LiveHost)> = views
            .hosts
            .iter()
            .map(|row| (row.id, (row, self.fleet.live(row.id).unwrap_or_default())))
            .collect();

        for topology in &views.topologies {
            let Some((row, live)) = hosts.get(&topology.host) else {
                continue;
            };
            let (condition, after) = self.settle(topology, row, live).await?;
            if let Some(condition) = condition {
                awaits = Awaits::Something;
                conditions.insert(topology.id, condition);
            }
            self.arrived(topology.id, after, row, live).await?;
        }
        self.teller
            .sweep(&views.topologies)
            .await
            .map_err(PassError::Substrate)?;
        for (row, live) in hosts.values() {
            let status = row.assignment.content.and_then(|(assigned, _)| {
                views
                    .topologies
                    .iter()
                    .find(|topology| topology.id == assigned)
                    .map(|topology| topology.status)
                    // Assigned, and not live: it failed, and waits for an operator.
                    .or(Some(TopologyStatus::Failed))
            });
            if self.drive(row, live, status).await? == Awaits::Something {
                awaits = Awaits::Something;
            }
        }
        self.conditions.replace(conditions);
        Ok(awaits)
    }

    /// Decides and writes the status of one topology; what is awaited of it, if anything, and
    /// where it then stands.
    async fn settle(
        &mut self,
        topology: &LiveTopology,
        row: &HostRow,
        live: &LiveHost,
    ) -> Result<(Option<String>, TopologyStatus), PassError> {
        let now = (self.clock)();
        let report = live.report.as_deref();
        let action = decide_topology(&TopologyView {
            topology: topology.id,
            status: topology.status,
            assignment: &row.assignment,
            report,
            deadline: topology.deadline,
            now,
        });
        let (event, reason, withdraw) = match action {
            TopologyAction::Rest => {
                self.record_applied(topology, row, live).await?;
                return Ok((None, topology.status));
            }
            TopologyAction::Await(text) => {
                // What failed under an older fence is no news of this one.
                let fence = row.assignment.fence;
                let failure = report.and_then(|report| {
                    let failed = report.failure.as_ref().filter(|_| report.fence == fence);
                    failed.or_else(|| report.refused(fence))
                });
                let text = match failure {
                    Some(failure) => format!("{text} ({failure})"),
                    None => text.to_owned(),
                };
                return Ok((Some(text), topology.status));
            }
            TopologyAction::Settle(event, reason) => (event, reason, Withdraw::Keep),
            TopologyAction::Withdraw(reason) => {
                (StatusEvent::ApplyFailed, reason, Withdraw::Nothing)
            }
        };
        let applied = match (event, report, row.assignment.content) {
            (StatusEvent::Converged, Some(report), Some((_, hash))) => {
                Some((report.fence, hash, report.applied_at.unwrap_or(now)))
            }
            _ => None,
        };
        if let Some((fence, ..)) = applied {
            self.recorded.insert(topology.id, fence);
        }
        let settlement = Settlement {
            topology: topology.id,
            from: topology.status,
            event,
            reason: reason.clone(),
            applied,
            withdraw,
            actor: Actor::Reconciler,
            now,
        };
        let after = self
            .store
            .settle(settlement)
            .await
            .map_err(|source| PassError::Settle {
                topology: topology.id,
                event,
                source,
            })?;
        crash::point("reconcile.settled");
        if let Some(status) = after {
            tracing::info!(
                topology.id = %topology.id,
                topology.name = %topology.name,
                from = %topology.status,
                to = %status,
                reason,
                "topology status"
            );
            let of = (topology.id, &topology.name);
            tell_status(&self.bus, of, [topology.status, status], &reason);
        }
        if event == StatusEvent::ApplyFailed {
            tell_ended(self.store.as_ref(), &self.bus, topology.id, now)
                .await
                .map_err(|source| PassError::Mutations {
                    topology: topology.id,
                    source,
                })?;
        }
        // Whatever was written, the next pass decides from it: at once.
        self.waker.wake();
        // An active topology takes what was queued while it was none, and its deckies may be due.
        self.mutations.wake();
        Ok((None, after.unwrap_or(topology.status)))
    }

    /// After a restore the host may have applied under another fence than the one on record.
    async fn record_applied(
        &mut self,
        topology: &LiveTopology,
        row: &HostRow,
        live: &LiveHost,
    ) -> Result<(), PassError> {
        let Some(report) = live.report.as_deref() else {
            return Ok(());
        };
        let (Some((assigned, hash)), Some(at)) = (row.assignment.content, report.applied_at) else {
            return Ok(());
        };
        let fresh = report.fence == row.assignment.fence
            && report.content == row.assignment.content
            && assigned == topology.id
            && report.is_converged();
        if !fresh || self.recorded.get(&topology.id) == Some(&report.fence) {
            return Ok(());
        }
        self.store
            .record_applied(topology.id, (report.fence, hash, at))
            .await
            .map_err(|source| PassError::Applied {
                topology: topology.id,
                source,
            })?;
        self.recorded.insert(topology.id, report.fence);
        crash::point("report.recorded");
        Ok(())
    }

    /// Decides and sends what one host is to be told.
    async fn drive(
        &mut self,
        row: &HostRow,
        live: &LiveHost,
        status: Option<TopologyStatus>,
    ) -> Result<Awaits, PassError> {
        let now = (self.clock)();
        let back_off = self
            .back_offs
            .get(&row.id)
            .filter(|it| it.fence == row.assignment.fence);
        let action = decide_host(&HostView {
            assignment: &row.assignment,
            status,
            report: live.report.as_deref(),
            // Later than that is said by no back-off: the clock was set back.
            not_before: back_off
                .map(|it| it.not_before)
                .filter(|at| *at <= now + LONGEST),
            now,
        });
        match action {
            HostAction::Rest => {
                // Converged and quiet: the next difference is repaired at once.
                if live.report.as_deref().is_some_and(|report| {
                    report.fence == row.assignment.fence
                        && !report.in_flight
                        && report.is_converged()
                }) {
                    self.back_offs.remove(&row.id);
                }
                Ok(Awaits::Nothing)
            }
            HostAction::Wait => Ok(Awaits::Something),
            HostAction::Supersede => {
                let above = live
                    .report
                    .as_ref()
                    .map_or(row.assignment.fence, |it| it.fence);
                let raised = self
                    .store
                    .supersede(row.id, above)
                    .await
                    .map_err(|source| PassError::Supersede {
                        host: row.id,
                        source,
                    })?;
                tracing::warn!(
                    host.id = %row.id,
                    was = %row.assignment.fence,
                    host_obeys = %above,
                    fence = %raised.fence,
                    "fence raised above what the host obeys"
                );
                self.waker.wake();
                Ok(Awaits::Something)
            }
            HostAction::Push => {
                self.push(row, now).await?;
                Ok(Awaits::Something)
            }
        }
    }

    async fn push(&mut self, row: &HostRow, now: OffsetDateTime) -> Result<(), PassError> {
        let fence = row.assignment.fence;
        let content = match row.assignment.content {
            None => None,
            Some((topology, hash)) => {
                let document = self
                    .store
                    .assigned_document(row.id)
                    .await
                    .map_err(|source| PassError::Document {
                        host: row.id,
                        source,
                    })?;
                // Assigned anew between the two reads: the next pass has the newer one.
                let Some(document) = document else {
                    return Ok(());
                };
                Some(AssignedDocument {
                    topology,
                    hash,
                    document: Bytes::from(document),
                })
            }
        };
        let generation = fence.generation;
        let topology = content.as_ref().map(|content| content.topology);
        if self.fleet.send(row.id, Order::Assign { fence, content }) {
            self.counts.pushed.fetch_add(1, Ordering::Relaxed);
            tracing::info!(
                host.id = %row.id,
                topology.id = topology.map(tracing::field::display),
                %generation,
                "assignment sent"
            );
            crash::point("reconcile.pushed");
        }
        let attempts = self
            .back_offs
            .get(&row.id)
            .filter(|it| it.fence == fence)
            .map_or(0, |it| it.attempts.saturating_add(1));
        let wait = Duration::from_secs(1)
            .saturating_mul(1_u32 << attempts.min(6))
            .min(LONGEST);
        self.back_offs.insert(
            row.id,
            BackOff {
                fence,
                attempts,
                not_before: now + wait,
            },
        );
        Ok(())
    }
}

/// Whether a pass left something that time alone may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaits {
    /// No.
    Nothing,
    /// Yes: look again soon.
    Something,
}

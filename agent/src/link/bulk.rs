//! The connection for evidence: sends what the spool holds, and removes what the master has taken.
//!
//! Delivery is at least once: what is not acknowledged is sent again after a reconnect, under the
//! same numbers, by which the master knows it.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use pki::connector::{MasterAddress, RefusalWatch};
use pki::identity::files::HostIdentity;
use proto::convert::invalid;
use proto::v1;
use proto::v1::fleet_client::FleetClient;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming};

use super::LinkError;
use super::open::dial;
use super::retry::Retry;
use super::session::{Dialling, log_once};
use crate::chain::Chain;
use crate::spool::{Figures, Spool, SpoolError, SpooledEvent};

/// Most events in a batch.
const BATCH_EVENTS: usize = 512;
/// Most bytes of lines in a batch.
const BATCH_BYTES: usize = 256 * 1024;
/// Most batches that the master has not acknowledged.
const WINDOW: usize = 4;
/// How long the master has to acknowledge what is under way on a connection that is replaced.
const DRAIN: Duration = Duration::from_secs(10);
const RETRY_SPOOL: Duration = Duration::from_secs(1);

/// The evidence connection's work.
pub struct Bulk {
    /// How to dial.
    pub dialling: Dialling,
    /// What to send.
    pub spool: Arc<Spool>,
}

/// How a connection ended.
enum Pumped {
    /// The agent ends.
    Shutdown,
    /// The next one stands already.
    Replaced(Box<Pipe>),
    /// It broke.
    Lost(LinkError),
}

/// A connection with the call begun.
struct Pipe {
    outbound: mpsc::Sender<v1::EventBatch>,
    receipts: Receipts,
    refusal: RefusalWatch,
}

/// The master's answers. The call is answered only when the master gets to it, and a master may
/// want to see a batch first.
enum Receipts {
    Opening(BoxFuture<'static, Result<Response<Streaming<v1::EventReceipt>>, Status>>),
    Open(Box<Streaming<v1::EventReceipt>>),
}

impl Receipts {
    async fn next(&mut self) -> Result<Option<v1::EventReceipt>, Status> {
        loop {
            match self {
                Self::Opening(answer) => *self = Self::Open(Box::new(answer.await?.into_inner())),
                Self::Open(stream) => return stream.message().await,
            }
        }
    }
}

impl Bulk {
    /// Sends evidence until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Dialling {
            masters,
            pace,
            jitter,
            ..
        } = &self.dialling;
        let mut retry = Retry::new(*pace, Arc::clone(jitter));
        let mut turn = 0_usize;
        let mut silenced = None;
        let mut ready = None;
        loop {
            let master = &masters[turn % masters.len()];
            let mut identities = self.dialling.credentials.identities();
            identities.mark_unchanged();
            let connected = match ready.take() {
                Some(pipe) => Ok(pipe),
                None => tokio::select! {
                    connected = connect(self.dialling.clone(), master.clone()) => connected,
                    () = shutdown.cancelled() => return,
                },
            };
            let wait = match connected {
                Ok(pipe) => {
                    let mut pump = Pump::new(&self, *pipe, master);
                    match pump.run(&mut identities, &shutdown).await {
                        Pumped::Shutdown => return,
                        Pumped::Replaced(next) => {
                            ready = Some(next);
                            continue;
                        }
                        Pumped::Lost(error) => {
                            // One that never worked is no reason to come back fast.
                            if pump.worked {
                                silenced = None;
                            }
                            log_once(&mut silenced, &error);
                            if pump.worked {
                                retry.after_loss(&error, Duration::ZERO)
                            } else {
                                retry.after(&error)
                            }
                        }
                    }
                }
                Err(error) => {
                    turn = turn.wrapping_add(1);
                    log_once(&mut silenced, &error);
                    retry.after(&error)
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                // A refused certificate has a successor: what was refused may work at once.
                _ = identities.changed() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}

impl std::fmt::Debug for Bulk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bulk")
            .field("spool", &self.spool)
            .finish_non_exhaustive()
    }
}

async fn connect(dialling: Dialling, master: MasterAddress) -> Result<Box<Pipe>, LinkError> {
    let connector = dialling
        .credentials
        .connector()
        .map_err(|source| LinkError::Identity { source })?;
    let dialled = dial(&connector, &master).await?;
    let (outbound, batches) = mpsc::channel(1);
    let mut client = FleetClient::new(dialled.channel);
    let answer = Box::pin(async move { client.events(ReceiverStream::new(batches)).await });
    let receipts = Receipts::Opening(answer);
    Ok(Box::new(Pipe {
        outbound,
        receipts,
        refusal: dialled.refusal,
    }))
}

/// One connection's state.
struct Pump<'a> {
    bulk: &'a Bulk,
    master: &'a MasterAddress,
    outbound: mpsc::Sender<v1::EventBatch>,
    receipts: Receipts,
    refusal: RefusalWatch,
    figures: watch::Receiver<Figures>,
    /// The last event that was sent on this connection, or was taken before it.
    sent: u64,
    /// The last event of each batch that is not acknowledged.
    window: VecDeque<u64>,
    /// The connection that takes this one's place.
    next: Next,
    /// Whether the master has acknowledged anything on it.
    worked: bool,
    /// Not before this is the spool read again after it failed.
    held: Option<Instant>,
}

enum Next {
    None,
    Connecting(BoxFuture<'static, Result<Box<Pipe>, LinkError>>),
    Ready {
        pipe: Option<Box<Pipe>>,
        until: Instant,
    },
}

impl<'a> Pump<'a> {
    fn new(bulk: &'a Bulk, pipe: Pipe, master: &'a MasterAddress) -> Self {
        let Pipe {
            outbound,
            receipts,
            refusal,
        } = pipe;
        let figures = bulk.spool.figures();
        let sent = figures.borrow().acked;
        Self {
            bulk,
            master,
            outbound,
            receipts,
            refusal,
            figures,
            sent,
            window: VecDeque::with_capacity(WINDOW),
            next: Next::None,
            worked: false,
            held: None,
        }
    }

    async fn run(
        &mut self,
        identities: &mut watch::Receiver<Arc<HostIdentity>>,
        shutdown: &CancellationToken,
    ) -> Pumped {
        loop {
            if let Some(pipe) = self.drained() {
                return Pumped::Replaced(pipe);
            }
            let may_send = matches!(self.next, Next::None | Next::Connecting(_))
                && self.window.len() < WINDOW
                && self.held.is_none();
            let waiting = self.figures.borrow_and_update().last > self.sent;
            let mut received = None;
            tokio::select! {
                () = shutdown.cancelled() => return Pumped::Shutdown,
                receipt = self.receipts.next() => match receipt {
                    Ok(Some(receipt)) => received = Some(receipt),
                    Ok(None) => return Pumped::Lost(LinkError::Closed),
                    Err(status) => {
                        let error = LinkError::from_status("events", status, &self.refusal);
                        return Pumped::Lost(error);
                    }
                },
                // Only once there is room is a batch read: nothing is held in memory meanwhile.
                permit = self.outbound.reserve(), if may_send && waiting => match permit {
                    Ok(permit) => match next_batch(&self.bulk.spool, self.sent).await {
                        Ok(Some((batch, last))) => {
                            permit.send(batch);
                            self.sent = last;
                            self.window.push_back(last);
                        }
                        // Dropped meanwhile, to make room.
                        Ok(None) => self.sent = self.figures.borrow().last,
                        Err(error) => {
                            tracing::warn!(error = %Chain(&error), "could not read the spool");
                            self.held = Some(Instant::now() + RETRY_SPOOL);
                        }
                    },
                    Err(_) => {
                        // The call has ended; why is what the receipts tell, and they end with it.
                        self.held = Some(Instant::now() + RETRY_SPOOL);
                    }
                },
                _ = self.figures.changed(), if may_send && !waiting => {}
                changed = identities.changed(), if changed_is_open(&self.next) => {
                    if changed.is_ok() {
                        let work = connect(self.bulk.dialling.clone(), self.master.clone());
                        self.next = Next::Connecting(Box::pin(work));
                    } else {
                        self.next = Next::Connecting(Box::pin(pending()));
                    }
                }
                step = step(&mut self.next) => match step {
                    Step::Connected(Ok(pipe)) => {
                        let until = Instant::now() + DRAIN;
                        self.next = Next::Ready { pipe: Some(pipe), until };
                    }
                    Step::Connected(Err(error)) => {
                        // This connection still works; the next one it dials has the new identity.
                        tracing::warn!(
                            error = %Chain(&error), "could not move to the new certificate"
                        );
                        self.next = Next::None;
                    }
                    // The master knows the numbers: what it did get is not stored twice.
                    Step::DrainOver => self.window.clear(),
                },
                () = wait_until(self.held) => self.held = None,
            }
            if let Some(receipt) = received
                && let Err(error) = self.taken(receipt).await
            {
                return Pumped::Lost(error);
            }
        }
    }

    /// The next connection, once it stands and nothing is under way on this one.
    fn drained(&mut self) -> Option<Box<Pipe>> {
        match &mut self.next {
            Next::Ready { pipe, .. } if self.window.is_empty() => pipe.take(),
            Next::Ready { .. } | Next::None | Next::Connecting(_) => None,
        }
    }

    async fn taken(&mut self, receipt: v1::EventReceipt) -> Result<(), LinkError> {
        let v1::EventReceipt {
            spool_id,
            through,
            refused,
        } = receipt;
        if spool_id != self.bulk.spool.id().uuid().as_bytes() {
            return Err(LinkError::Protocol {
                source: invalid("receipt.spool_id"),
            });
        }
        // An event that was never sent cannot have been taken: removing it would lose it.
        if through > self.sent {
            return Err(LinkError::Protocol {
                source: invalid("receipt.through"),
            });
        }
        if refused > 0 {
            tracing::warn!(refused, through, "the master refused evidence of this host");
        }
        while self.window.front().is_some_and(|last| *last <= through) {
            self.window.pop_front();
        }
        self.worked = true;
        if let Err(error) = self.bulk.spool.ack(through).await {
            // They stay and are sent again with the next connection; the master knows them.
            tracing::warn!(error = %Chain(&error), "could not remove acknowledged evidence");
        }
        Ok(())
    }
}

/// The events behind `after`, safe from a power cut before anybody sees them.
async fn next_batch(
    spool: &Spool,
    after: u64,
) -> Result<Option<(v1::EventBatch, u64)>, SpoolError> {
    let events = spool.read(after, BATCH_EVENTS, BATCH_BYTES).await?;
    let Some(last) = events.last().map(|event| event.sequence) else {
        return Ok(None);
    };
    spool.sync(last).await?;
    let batch = v1::EventBatch {
        spool_id: spool.id().uuid().as_bytes().to_vec(),
        events: events.into_iter().map(event).collect(),
    };
    Ok(Some((batch, last)))
}

fn event(event: SpooledEvent) -> v1::SpooledEvent {
    let SpooledEvent {
        sequence,
        topology,
        decky,
        collected_at,
        line,
    } = event;
    v1::SpooledEvent {
        sequence,
        topology_id: topology.uuid().as_bytes().to_vec(),
        decky_id: decky.uuid().as_bytes().to_vec(),
        collected_at,
        line,
    }
}

const fn changed_is_open(next: &Next) -> bool {
    matches!(next, Next::None)
}

enum Step {
    Connected(Result<Box<Pipe>, LinkError>),
    DrainOver,
}

async fn step(next: &mut Next) -> Step {
    match next {
        Next::None => pending().await,
        Next::Connecting(work) => Step::Connected(work.await),
        Next::Ready { until, .. } => {
            sleep_until(*until).await;
            Step::DrainOver
        }
    }
}

async fn wait_until(held: Option<Instant>) {
    match held {
        Some(until) => sleep_until(until).await,
        None => pending().await,
    }
}

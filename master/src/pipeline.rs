//! Ingestion: batches of a host's spool become rows of the table of events, each exactly once.
//!
//! It checks whose events they are, reads their lines and hands them to the one writer. Who may
//! send at all is decided before, by the connection; what the events mean is decided later, from
//! the table.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use domain::id::{DeckyId, HostId, SpoolId, TopologyId};
use time::OffsetDateTime;
use tokio::sync::{Mutex as AsyncMutex, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Builder;

use crate::chain::Chain;
use crate::clock::Clock;
use crate::db::{Actor, Appended, AuditEntry, EventBatch, Store, StoreError};
use crate::task;

mod refusals;
mod stamp;
mod writer;

#[cfg(test)]
mod tests;

use refusals::Refusals;
use writer::{Job, Writer};

pub use writer::Condition;

/// Most events of one batch.
pub const MAX_EVENTS: usize = 1024;
/// Most bytes of the lines of one batch.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Batches that wait for the writer; a further one waits outside, and with it its stream.
const QUEUE: usize = 64;
/// Announcements that a slow subscriber may be behind before it misses one.
const ANNOUNCEMENTS: usize = 256;

/// One line as an agent has spooled it, with the identity of the container that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spooled {
    /// Its number in the spool.
    pub sequence: u64,
    /// The topology of the container.
    pub topology: TopologyId,
    /// The decky of the container.
    pub decky: DeckyId,
    /// When the agent read it.
    pub collected_at: OffsetDateTime,
    /// The bytes, whatever they are.
    pub line: Bytes,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The last number of the batch: everything up to it is done with, and the agent may drop it.
    pub through: u64,
    /// How many events are new in the table.
    pub stored: u64,
    /// How many were refused, since their decky was never assigned to the host.
    pub refused: u64,
}

/// Why a batch was not taken. Nothing of it is stored, and the agent keeps it.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// More than any agent sends.
    #[error(
        "batch of {events} events and {bytes} bytes exceeds {MAX_EVENTS} events or {MAX_BYTES} bytes"
    )]
    TooLarge {
        /// How many events.
        events: usize,
        /// How many bytes of lines.
        bytes: usize,
    },
    /// Numbers that do not ascend, or leave the range of the table.
    #[error("sequence number {got} does not ascend from {before} or is above 2^63 - 1")]
    Order {
        /// The number before it; 0 for the first.
        before: u64,
        /// The number.
        got: u64,
    },
    /// A spool of the master's own, whose numbers no host may take.
    #[error("no host has that spool")]
    Foreign,
    /// The store failed, for this batch and for those that were merged with it.
    #[error("batch could not be stored")]
    Store(#[source] Arc<StoreError>),
    /// The master is stopping.
    #[error("the master is stopping")]
    Stopped,
}

type Deckies = BTreeSet<(TopologyId, DeckyId)>;

/// Takes batches of events, of every host at once.
pub struct Ingest {
    store: Arc<dyn Store>,
    clock: Clock,
    /// Which deckies each host has been assigned. A set only grows, so that an old copy can only
    /// refuse too much; it is read anew before anything is refused.
    deckies: Mutex<HashMap<HostId, Arc<Deckies>>>,
    refusals: Mutex<Refusals>,
    jobs: mpsc::Sender<Job>,
    announcements: broadcast::Sender<Arc<EventBatch>>,
    condition: watch::Receiver<Condition>,
    stop: CancellationToken,
    writer: AsyncMutex<Option<JoinHandle<()>>>,
}

impl Ingest {
    /// Starts the writer. Must be called within a runtime.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (announcements, _) = broadcast::channel(ANNOUNCEMENTS);
        let (report, condition) = watch::channel(Condition::Storing);
        let stop = CancellationToken::new();
        let writer = Writer {
            table: Arc::clone(&store),
            queue,
            announcements: announcements.clone(),
            condition: report,
            stop: stop.clone(),
        };
        let writer = task::spawn(
            "event writer",
            tracing::info_span!("event.write"),
            writer.run(),
        );
        Self {
            store,
            clock,
            deckies: Mutex::default(),
            refusals: Mutex::default(),
            jobs,
            announcements,
            condition,
            stop,
            writer: AsyncMutex::new(Some(writer)),
        }
    }

    /// Stores a batch of one spool of `host`, whose standing the caller has just checked, and
    /// answers after the commit.
    ///
    /// A receipt says that everything up to `through` is done with: the batches of one spool are
    /// to be given one after the other, and none after one that failed.
    #[tracing::instrument(
        name = "event.ingest",
        skip_all,
        fields(
            host.id = %host,
            batch.first_seq = batch.first().map(|event| event.sequence),
            batch.len = batch.len(),
        )
    )]
    pub async fn ingest(
        &self,
        host: HostId,
        spool: SpoolId,
        batch: Vec<Spooled>,
    ) -> Result<Receipt, IngestError> {
        check(&batch)?;
        if is_of_master(spool) {
            return Err(IngestError::Foreign);
        }
        let through = batch.last().map_or(0, |event| event.sequence);
        let now = (self.clock)();
        let (batch, refused) = self.own(host, batch).await?;
        let events = batch
            .iter()
            .filter_map(|event| stamp::event(event, now))
            .collect();
        let (answer, answered) = oneshot::channel();
        let job = Job {
            batch: EventBatch {
                host,
                spool,
                events,
            },
            answer,
        };
        self.jobs
            .send(job)
            .await
            .map_err(|_| IngestError::Stopped)?;
        // A writer that ends without an answer has stored nothing of it.
        let appended = answered
            .await
            .map_err(|_| IngestError::Stopped)?
            .map_err(IngestError::Store)?;
        let count = refused.values().sum();
        self.note_refused(host, refused, now).await;
        Ok(Receipt {
            through,
            stored: appended.stored,
            refused: count,
        })
    }

    /// Stores events that the master itself has to tell, and announces them.
    pub(crate) async fn tell(&self, batch: EventBatch) -> Result<Appended, StoreError> {
        let appended = self
            .store
            .append_batches(std::slice::from_ref(&batch))
            .await?;
        let appended = appended.first().copied().unwrap_or_default();
        if appended.stored > 0 {
            // Nobody listens: nobody has to be told.
            drop(self.announcements.send(Arc::new(batch)));
        }
        Ok(appended)
    }

    /// Forgets which deckies were assigned to a host, so that the next batch reads it anew.
    pub fn forget(&self, host: HostId) {
        self.deckies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&host);
    }

    /// Announces every batch of which at least one event is new, after its commit. A batch that
    /// was delivered twice in part is announced whole: who must see each event once, and who has
    /// lagged, reads the table.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<EventBatch>> {
        self.announcements.subscribe()
    }

    /// Whether events are being stored, and why not.
    pub fn condition(&self) -> Condition {
        *self.condition.borrow()
    }

    /// Stores what waits, then ends the writer. Batches that come later are not taken.
    pub async fn stop(&self) {
        self.stop.cancel();
        if let Some(writer) = self.writer.lock().await.take()
            && let Err(error) = writer.await
        {
            tracing::error!(error = %Chain(&error), "event writer panicked");
        }
    }

    /// The events of deckies that are or were assigned to the host, and how many of each other.
    async fn own(
        &self,
        host: HostId,
        batch: Vec<Spooled>,
    ) -> Result<(Vec<Spooled>, HashMap<(TopologyId, DeckyId), u64>), IngestError> {
        let is_own =
            |deckies: &Deckies, event: &Spooled| deckies.contains(&(event.topology, event.decky));
        let cached = self
            .deckies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&host)
            .cloned();
        let deckies = match cached {
            Some(deckies) if batch.iter().all(|event| is_own(&deckies, event)) => deckies,
            Some(_) | None => self.read_deckies(host).await?,
        };
        let mut refused: HashMap<_, u64> = HashMap::new();
        let (own, foreign): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|event| is_own(&deckies, event));
        for event in foreign {
            *refused.entry((event.topology, event.decky)).or_default() += 1;
        }
        Ok((own, refused))
    }

    async fn read_deckies(&self, host: HostId) -> Result<Arc<Deckies>, IngestError> {
        let deckies = self
            .store
            .deckies_of_host(host)
            .await
            .map_err(|error| IngestError::Store(Arc::new(error)))?;
        let deckies = Arc::new(deckies);
        self.deckies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(host, Arc::clone(&deckies));
        Ok(deckies)
    }

    /// Audits refused events, as far as the host's share of the audit log goes.
    async fn note_refused(
        &self,
        host: HostId,
        refused: HashMap<(TopologyId, DeckyId), u64>,
        now: OffsetDateTime,
    ) {
        for ((topology, decky), count) in refused {
            let is_due = self
                .refusals
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_due(host, decky, now);
            if !is_due {
                continue;
            }
            let entry = AuditEntry {
                at: now,
                actor: Actor::Host(host),
                action: "event.refuse".to_owned(),
                subject: decky.to_string(),
                detail: format!(
                    "{count} events of a decky of topology {topology} that was never assigned to \
                     this host"
                ),
            };
            if let Err(error) = self.store.audit(entry).await {
                tracing::warn!(
                    error = %Chain(&error),
                    decky.id = %decky,
                    "refused events could not be audited"
                );
            }
        }
    }
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest")
            .field("condition", &self.condition())
            .finish_non_exhaustive()
    }
}

/// The spool of what the master itself has to tell of a topology ([`Ingest::tell`]). Of a version
/// that no spool of a host has, so that no host can take its numbers.
pub(crate) fn spool_of_master(topology: TopologyId) -> SpoolId {
    SpoolId::new(Builder::from_custom_bytes(topology.uuid().into_bytes()).into_uuid())
}

fn is_of_master(spool: SpoolId) -> bool {
    spool.uuid().get_version_num() == 8
}

fn check(batch: &[Spooled]) -> Result<(), IngestError> {
    let bytes = batch.iter().map(|event| event.line.len()).sum();
    if batch.len() > MAX_EVENTS || bytes > MAX_BYTES {
        return Err(IngestError::TooLarge {
            events: batch.len(),
            bytes,
        });
    }
    let mut before = None;
    for event in batch {
        let got = event.sequence;
        if before.is_some_and(|before| got <= before) || i64::try_from(got).is_err() {
            return Err(IngestError::Order {
                before: before.unwrap_or(0),
                got,
            });
        }
        before = Some(got);
    }
    Ok(())
}

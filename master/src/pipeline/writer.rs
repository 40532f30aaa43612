//! The one writer of events: it merges the batches that wait into one transaction, so that many
//! hosts share one flush of the disk.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::id::{HostId, SpoolId};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::db::{Appended, EventBatch, Store, StoreError};

/// Most events of one transaction: beyond it the flush is no longer what costs.
const MERGE: usize = 8 * 1024;
/// How often a busy database is asked again, and how long to wait before the first time; each
/// wait doubles.
const RETRIES: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// Whether events are being stored, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// They are.
    Storing,
    /// The database is locked by another process.
    Busy,
    /// The disk is full: agents keep their events until there is room.
    Full,
    /// The database refuses them.
    Failing,
}

impl Condition {
    /// What an operator reads.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Storing => "events are being stored",
            Self::Busy => "the database is locked by another process; events wait on their hosts",
            Self::Full => "the disk is full; events wait on their hosts until there is room",
            Self::Failing => "the database refuses events; they wait on their hosts",
        }
    }
}

pub(super) type Answer = Result<Appended, Arc<StoreError>>;

/// A batch that waits, and where its answer goes.
pub(super) struct Job {
    pub(super) batch: EventBatch,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What the writer asks of the store.
#[async_trait]
pub(super) trait Table: Send + Sync {
    /// Stores all of the batches or none.
    async fn append(&self, batches: &[EventBatch]) -> Result<Vec<Appended>, StoreError>;
}

#[async_trait]
impl Table for Arc<dyn Store> {
    async fn append(&self, batches: &[EventBatch]) -> Result<Vec<Appended>, StoreError> {
        self.append_batches(batches).await
    }
}

pub(super) struct Writer<T> {
    pub(super) table: T,
    pub(super) queue: mpsc::Receiver<Job>,
    pub(super) announcements: broadcast::Sender<Arc<EventBatch>>,
    pub(super) condition: watch::Sender<Condition>,
    pub(super) stop: CancellationToken,
}

impl<T: Table> Writer<T> {
    /// Writes until it is stopped; what waits by then is still written.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        loop {
            let first = tokio::select! {
                job = self.queue.recv() => job,
                () = stop.cancelled(), if !self.queue.is_closed() => {
                    self.queue.close();
                    continue;
                }
            };
            let Some(first) = first else { return };
            let jobs = self.merge(first);
            self.write(jobs).await;
        }
    }

    fn merge(&mut self, first: Job) -> Vec<Job> {
        let mut events = first.batch.events.len();
        let mut jobs = vec![first];
        while events < MERGE {
            let Ok(job) = self.queue.try_recv() else {
                break;
            };
            events += job.batch.events.len();
            jobs.push(job);
        }
        jobs
    }

    async fn write(&self, jobs: Vec<Job>) {
        let (batches, answers): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| (job.batch, job.answer)).unzip();
        let answered = match self.append(&batches).await {
            Ok(appended) => appended.into_iter().map(Ok).collect(),
            Err(error) if batches.len() > 1 && is_of_one(&error) => {
                self.write_apart(&batches).await
            }
            Err(error) => {
                let error = Arc::new(error);
                batches.iter().map(|_| Err(Arc::clone(&error))).collect()
            }
        };
        self.note(&answered);
        for ((batch, answer), result) in batches.into_iter().zip(answers).zip(answered) {
            let is_new = result.as_ref().is_ok_and(|appended| appended.stored > 0);
            // The stream may have ended meanwhile: the agent sends the batch again, and its
            // events are there already.
            drop(answer.send(result));
            if is_new {
                // Nobody may be listening.
                drop(self.announcements.send(Arc::new(batch)));
            }
        }
    }

    /// Each batch in a transaction of its own, so that one that cannot be stored stops none but
    /// the later ones of its own spool: a receipt acknowledges everything before it.
    async fn write_apart(&self, batches: &[EventBatch]) -> Vec<Answer> {
        let mut broken: HashSet<(HostId, SpoolId)> = HashSet::new();
        let mut answered: Vec<Answer> = Vec::with_capacity(batches.len());
        let mut last = None;
        for batch in batches {
            let spool = (batch.host, batch.spool);
            if let (true, Some(error)) = (broken.contains(&spool), &last) {
                answered.push(Err(Arc::clone(error)));
                continue;
            }
            match self.append(std::slice::from_ref(batch)).await {
                Ok(appended) => answered.push(Ok(appended.first().copied().unwrap_or_default())),
                Err(error) => {
                    let error = Arc::new(error);
                    broken.insert(spool);
                    last = Some(Arc::clone(&error));
                    answered.push(Err(error));
                }
            }
        }
        answered
    }

    async fn append(&self, batches: &[EventBatch]) -> Result<Vec<Appended>, StoreError> {
        if batches.iter().all(|batch| batch.events.is_empty()) {
            return Ok(vec![Appended::default(); batches.len()]);
        }
        let mut wait = FIRST_WAIT;
        for _ in 0..RETRIES {
            match self.table.append(batches).await {
                Err(StoreError::Busy { .. }) => {
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                result => return result,
            }
        }
        self.table.append(batches).await
    }

    /// Logs and publishes a change of condition, not every batch that meets it.
    fn note(&self, answered: &[Answer]) {
        let error = answered.iter().find_map(|answer| answer.as_ref().err());
        let condition = match error.map(AsRef::as_ref) {
            None => Condition::Storing,
            Some(StoreError::Busy { .. }) => Condition::Busy,
            Some(StoreError::Full { .. }) => Condition::Full,
            Some(StoreError::Failed { .. } | StoreError::Malformed { .. }) => Condition::Failing,
        };
        let before = self.condition.send_replace(condition);
        if before == condition {
            return;
        }
        match error {
            Some(error) => {
                tracing::error!(error = %Chain(error.as_ref()), "events are not being stored");
            }
            None => tracing::info!("events are being stored again"),
        }
    }
}

/// Whether the cause may lie in one batch and not in the database as a whole.
const fn is_of_one(error: &StoreError) -> bool {
    match error {
        StoreError::Failed { .. } | StoreError::Malformed { .. } => true,
        StoreError::Busy { .. } | StoreError::Full { .. } => false,
    }
}

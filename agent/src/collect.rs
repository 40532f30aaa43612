//! Collects evidence: reads the output of every container, finds each line's place in it, and
//! spools it under the identity of the container, never under one that a line claims.
//!
//! Lines that were stored before are skipped, missing ones are accounted for. When the spool takes
//! nothing, the channel to it fills, the followers stop reading, and the engine keeps the lines.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use domain::id::DeckyId;
use domain::observe::Handle;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use pki::clock::Clock;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::apply::Followed;
use crate::chain::Chain;
use crate::engine::{Engine, EngineError, EngineErrorKind, OutputLine};
use crate::health::{Deaf, Vitals};
use crate::notice::Notices;
use crate::spool::{Mark, NewEvent, Spool, SpoolError};
use crate::task;

mod lives;
mod place;

#[cfg(test)]
mod tests;

use place::{Identity, Place};

/// Most lines in one transaction.
const BATCH: usize = 512;
/// Lines that wait for the spool. With the longest of lines these are 32 MiB.
const QUEUE: usize = 2048;
const RETRY_SPOOL: Duration = Duration::from_secs(1);
/// How often it is looked whether the clock has gone back behind the time from which on a container
/// is read.
const LOOK: Duration = if cfg!(test) {
    Duration::from_millis(20)
} else {
    Duration::from_secs(10)
};
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Told the digest of the configuration that a decky says is in force.
pub type Saw = Arc<dyn Fn(DeckyId, &str) + Send + Sync>;

/// What collection works with.
#[derive(Clone)]
pub struct Collector {
    /// Where the output comes from.
    pub engine: Arc<dyn Engine>,
    /// Where it goes.
    pub spool: Arc<Spool>,
    /// Who is told which configurations are in force.
    pub saw: Saw,
    /// Where it notes how well it works.
    pub vitals: Arc<Vitals>,
    /// Writes what the agent itself has to say.
    pub notices: Arc<Notices>,
    /// The agent's clock.
    pub clock: Clock,
    /// How long a line may wait for company on its way to the disk.
    pub flush: Duration,
}

/// Why collection ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The spool is damaged; the next start begins a new one.
    #[error("could not go on storing evidence")]
    Spool {
        /// What is wrong.
        #[source]
        source: SpoolError,
    },
}

/// What becomes of one line: events, and the place up to which its container has then been read.
struct Collected {
    events: Vec<NewEvent>,
    mark: Mark,
}

impl Collector {
    /// Collects from everything in `following` until `shutdown`, then stores what it has read. Only
    /// a damaged spool ends it before.
    pub async fn run(
        self,
        following: watch::Receiver<Arc<Vec<Followed>>>,
        shutdown: CancellationToken,
    ) -> Result<(), CollectError> {
        let (sender, queue) = mpsc::channel(QUEUE);
        let span = tracing::info_span!("evidence.spool");
        let spooler = task::spawn("spool", span, self.clone().store(queue, shutdown.clone()));
        let followers = self.follow_all(following, sender, &shutdown);
        tokio::pin!(spooler);
        let stored = tokio::select! {
            stored = &mut spooler => stored,
            // The senders are gone with the followers; what is queued is still stored.
            () = followers => (&mut spooler).await,
        };
        match stored {
            Ok(stored) => stored,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Ok(()),
            },
        }
    }

    /// Keeps one follower per container. A follower whose container vanished reads to the end of
    /// its stream and ends by itself.
    async fn follow_all(
        &self,
        mut following: watch::Receiver<Arc<Vec<Followed>>>,
        sender: mpsc::Sender<Collected>,
        shutdown: &CancellationToken,
    ) {
        let mut followers = FuturesUnordered::new();
        let mut followed_now: BTreeSet<Handle> = BTreeSet::new();
        loop {
            let wanted = Arc::clone(&following.borrow_and_update());
            for followed in wanted.iter() {
                if !followed_now.insert(followed.handle.clone()) {
                    continue;
                }
                let follower = Follower {
                    collector: self.clone(),
                    followed: followed.clone(),
                    following: following.clone(),
                    sender: sender.clone(),
                };
                let span = tracing::info_span!(
                    "evidence.follow",
                    decky.id = %followed.decky,
                    topology.id = %followed.topology
                );
                let follower = task::spawn("follow", span, follower.run(shutdown.clone()));
                let handle = followed.handle.clone();
                followers.push(async move { (handle, follower.await) });
            }
            tokio::select! {
                changed = following.changed() => if changed.is_err() {
                    // Nobody can say any more what to follow; what is followed goes on.
                    shutdown.cancelled().await;
                    break;
                },
                // It may be wanted again since it saw that it was not.
                Some((handle, _)) = followers.next() => {
                    followed_now.remove(&handle);
                }
                () = shutdown.cancelled() => break,
            }
        }
        while followers.next().await.is_some() {}
    }

    /// Stores what the followers hand in, batch by batch.
    async fn store(
        self,
        mut queue: mpsc::Receiver<Collected>,
        shutdown: CancellationToken,
    ) -> Result<(), CollectError> {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(first) = queue.recv().await {
            let deadline = Instant::now() + self.flush;
            batch.push(first);
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                match timeout_at(deadline, queue.recv_many(&mut batch, room)).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            self.store_batch(&mut batch, &shutdown).await?;
        }
        Ok(())
    }

    async fn store_batch(
        &self,
        batch: &mut Vec<Collected>,
        shutdown: &CancellationToken,
    ) -> Result<(), CollectError> {
        let mut events = Vec::with_capacity(batch.len());
        let mut marks = Vec::new();
        for collected in batch.drain(..) {
            events.extend(collected.events);
            marks.push(collected.mark);
        }
        let marks = last_of_each(marks);
        loop {
            match self.spool.append(&events, &marks).await {
                Ok(dropped) => {
                    if !self.vitals.spool_ok() {
                        tracing::info!("the spool takes evidence again");
                    }
                    self.vitals.spool_takes();
                    if dropped > 0 {
                        tracing::warn!(
                            dropped,
                            "the spool is full; the least valuable was dropped"
                        );
                    }
                    return Ok(());
                }
                Err(source @ SpoolError::Damaged { .. }) => {
                    return Err(CollectError::Spool { source });
                }
                Err(
                    error @ (SpoolError::Full { .. }
                    | SpoolError::Failed { .. }
                    | SpoolError::Sync { .. }),
                ) => {
                    if self.vitals.spool_ok() {
                        tracing::error!(
                            error = %Chain(&error),
                            "evidence waits in the containers until the spool can be written"
                        );
                    }
                    self.vitals.spool_refuses();
                }
            }
            tokio::select! {
                () = sleep(RETRY_SPOOL) => {}
                // Not lost: neither these lines nor their places are stored, so the next start
                // reads them again.
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }
}

/// The last mark of each life of each container, in the order of their lines.
fn last_of_each(mut marks: Vec<Mark>) -> Vec<Mark> {
    let mut known = HashSet::new();
    marks.reverse();
    marks.retain(|mark| known.insert((mark.handle.clone(), mark.boot)));
    marks.reverse();
    marks
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector")
            .field("spool", &self.spool)
            .finish_non_exhaustive()
    }
}

/// Reads one container.
struct Follower {
    collector: Collector,
    followed: Followed,
    following: watch::Receiver<Arc<Vec<Followed>>>,
    sender: mpsc::Sender<Collected>,
}

/// Why a follower stopped reading a stream.
enum Pause {
    /// The container's output ended, or the container is not there.
    Ended,
    /// The clock has gone back, and the engine may skip what is said until it is where it was.
    Unsound,
    /// The engine could not go on.
    Failed(EngineError),
    /// The agent ends.
    Shutdown,
}

impl Follower {
    async fn run(mut self, shutdown: CancellationToken) {
        let Some(mut place) = self.start(&shutdown).await else {
            return;
        };
        let mut deaf: Option<Deaf> = None;
        let mut retry = FIRST_RETRY;
        loop {
            let before = place.lines();
            match self.read(&mut place, &mut deaf, &shutdown).await {
                Pause::Shutdown => return,
                Pause::Ended => deaf = None,
                Pause::Unsound => continue,
                Pause::Failed(error) => {
                    if error.kind == EngineErrorKind::Unreachable {
                        self.collector.vitals.engine_silent();
                    }
                    if deaf.is_none() {
                        tracing::warn!(error = %Chain(&error), "could not read a container");
                        deaf = Some(self.collector.vitals.deaf());
                    }
                }
            }
            if !self.is_wanted() {
                return;
            }
            retry = if place.lines() > before {
                FIRST_RETRY
            } else {
                (retry * 2).min(LAST_RETRY)
            };
            tokio::select! {
                () = sleep(retry) => {}
                // Restarted or removed, perhaps.
                _ = self.following.changed() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Finds out how far this container was read before; keeps asking, since to begin at the
    /// beginning would store everything twice.
    async fn start(&self, shutdown: &CancellationToken) -> Option<Place> {
        let identity = Identity {
            topology: self.followed.topology,
            decky: self.followed.decky,
        };
        loop {
            match self.collector.spool.marks(&self.followed.handle).await {
                Ok(marks) => {
                    let place = Place::new(identity, self.followed.handle.clone(), &marks);
                    // Until the decky's next sign of life, what it last said still stands.
                    if let Some(config) = place.config() {
                        (self.collector.saw)(identity.decky, config);
                    }
                    return Some(place);
                }
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "could not read positions");
                }
            }
            tokio::select! {
                () = sleep(RETRY_SPOOL) => {}
                () = shutdown.cancelled() => return None,
            }
        }
    }

    async fn read(
        &mut self,
        place: &mut Place,
        deaf: &mut Option<Deaf>,
        shutdown: &CancellationToken,
    ) -> Pause {
        let clock = &self.collector.clock;
        let since = place.since(clock());
        let opened = tokio::select! {
            opened = self.collector.engine.follow(&self.followed.handle, since) => opened,
            () = shutdown.cancelled() => return Pause::Shutdown,
        };
        let mut lines = match opened {
            Ok(lines) => lines,
            Err(error) if error.kind == EngineErrorKind::NotFound => return Pause::Ended,
            Err(error) => return Pause::Failed(error),
        };
        *deaf = None;
        self.collector.vitals.engine_answered();
        place.replay(since);
        let mut look = interval(LOOK);
        loop {
            let next = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Pause::Shutdown,
                next = lines.next() => next,
                _ = look.tick() => {
                    if since.is_some_and(|since| since > clock()) {
                        return Pause::Unsound;
                    }
                    continue;
                }
            };
            let line = match next {
                None => return Pause::Ended,
                // It was removed while it was read, or before its first line.
                Some(Err(error)) if error.kind == EngineErrorKind::NotFound => return Pause::Ended,
                Some(Err(error)) => return Pause::Failed(error),
                Some(Ok(line)) => line,
            };
            if !self.take(place, &line).await {
                return Pause::Shutdown;
            }
        }
    }

    /// Hands a line on; whether collection goes on.
    async fn take(&self, place: &mut Place, line: &OutputLine) -> bool {
        let Collector {
            saw,
            notices,
            clock,
            ..
        } = &self.collector;
        let Some(taken) = place.take(line, notices, clock()) else {
            return true;
        };
        if let Some(config) = &taken.config {
            saw(self.followed.decky, config);
        }
        self.sender
            .send(Collected {
                events: taken.events,
                mark: taken.mark,
            })
            .await
            .is_ok()
    }

    fn is_wanted(&mut self) -> bool {
        let wanted: BTreeSet<_> = self
            .following
            .borrow_and_update()
            .iter()
            .map(|one| one.handle.clone())
            .collect();
        wanted.contains(&self.followed.handle)
    }
}

//! Writes event lines: takes sightings from every task, gives each its position, writes it.
//!
//! A thread of its own writes, because a blocked standard output (a paused container) must stop
//! nothing else. Connects and disconnects give way first: they are dropped and counted as soon as
//! the queue fills, so that evidence with content still has room; everything else waits.
//!
//! An output that is a file of a greatest size may stay full for as long as its collector is away.
//! Lines are held for a moment, and then dropped and counted: services that hang would tell an
//! attacker what they are.

mod output;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use domain::event::{Evidence, Payload, Position, Severity, Sighting};
use domain::id::BootId;
use proto::line::{Line, encode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::clock::Clock;

pub(crate) use self::output::{Output, Standard};

/// Most bytes that wait: so many lines of the greatest size would exceed the container's memory.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Most bytes handed to the output at once.
const BATCH: usize = 64 * 1024;
/// The state of a line that says no more than that the decky lives.
const ALIVE: &str = "alive";
/// The first and the longest pause before a full output is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// How much waits for an output, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Most lines that wait while it is blocked.
    pub(crate) lines: usize,
    /// How long lines are held while it is full.
    pub(crate) hold: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            lines: 4096,
            hold: Duration::from_secs(2),
        }
    }
}

/// A handle by which any task hands in what was seen.
#[derive(Clone)]
pub(crate) struct Emitter {
    items: mpsc::Sender<Item>,
    bytes: Arc<Semaphore>,
    shared: Arc<Shared>,
}

struct Shared {
    dropped: AtomicU64,
    config: Mutex<String>,
    clock: Clock,
    /// Below this many free places, connects and disconnects are dropped.
    reserve: usize,
}

enum Item {
    Sighting {
        sighting: Box<Sighting>,
        weight: OwnedSemaphorePermit,
    },
    Flush {
        done: oneshot::Sender<()>,
    },
}

impl Emitter {
    /// Starts the writing thread on `output`.
    pub(crate) fn start(
        output: impl Output,
        boot: BootId,
        bounds: Bounds,
        clock: Clock,
    ) -> io::Result<Self> {
        let Bounds { lines, hold } = bounds;
        let (items, queue) = mpsc::channel(lines.max(1));
        let shared = Arc::new(Shared {
            dropped: AtomicU64::new(0),
            config: Mutex::new(String::new()),
            clock,
            reserve: lines / 4,
        });
        let mut writer = Writer {
            output,
            boot,
            counter: 0,
            lost: 0,
            full: None,
            hold,
            shared: Arc::clone(&shared),
        };
        std::thread::Builder::new()
            .name("emit".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || {
                if let Err(error) = writer.run(queue) {
                    tracing::error!(%error, "standard output is gone");
                }
            })?;
        Ok(Self {
            items,
            bytes: Arc::new(Semaphore::new(QUEUE_BYTES)),
            shared,
        })
    }

    /// Hands in a sighting; waits while the queue is full.
    pub(crate) async fn emit(&self, sighting: Sighting) {
        let weight = weight(&sighting.payload) + raw_weight(&sighting);
        let Ok(weight) = Arc::clone(&self.bytes).acquire_many_owned(weight).await else {
            return;
        };
        // A closed queue means that the output is gone and the process is about to end.
        self.items
            .send(Item::Sighting {
                sighting: Box::new(sighting),
                weight,
            })
            .await
            .ok();
    }

    /// Hands in a sighting that may be dropped: it never waits, and what is dropped is counted.
    pub(crate) fn offer(&self, sighting: Sighting) {
        let weight = weight(&sighting.payload) + raw_weight(&sighting);
        let sent = self.items.capacity() > self.shared.reserve
            && Arc::clone(&self.bytes)
                .try_acquire_many_owned(weight)
                .is_ok_and(|weight| {
                    let item = Item::Sighting {
                        sighting: Box::new(sighting),
                        weight,
                    };
                    self.items.try_send(item).is_ok()
                });
        if !sent {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says which configuration is in force, for the lifecycle lines that follow.
    pub(crate) fn in_force(&self, digest: String) {
        *self
            .shared
            .config
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = digest;
    }

    /// The digest of the configuration in force.
    pub(crate) fn config(&self) -> String {
        self.shared
            .config
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Hands in a lifecycle line about the decky as a whole.
    pub(crate) async fn lifecycle(&self, state: &str, detail: &str) {
        let severity = if detail.is_empty() {
            Severity::Info
        } else {
            Severity::Warning
        };
        self.emit(self.shared.lifecycle(state, detail, 0, severity))
            .await;
    }

    /// Says that the decky lives, unless the output is blocked: then the silence says it better.
    pub(crate) fn alive(&self) {
        let sighting = self.shared.lifecycle(ALIVE, "", 0, Severity::Info);
        let weight = weight(&sighting.payload);
        if let Ok(weight) = Arc::clone(&self.bytes).try_acquire_many_owned(weight) {
            self.items
                .try_send(Item::Sighting {
                    sighting: Box::new(sighting),
                    weight,
                })
                .ok();
        }
    }

    /// Waits until everything that was handed in is written.
    pub(crate) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.items.send(Item::Flush { done }).await.is_ok() {
            written.await.ok();
        }
    }

    /// Waits until the output is gone.
    pub(crate) async fn gone(&self) {
        self.items.closed().await;
    }

    /// The time for a sighting.
    pub(crate) fn now(&self) -> time::OffsetDateTime {
        (self.shared.clock)()
    }
}

impl Shared {
    fn lifecycle(&self, state: &str, detail: &str, count: u64, severity: Severity) -> Sighting {
        Sighting {
            at: (self.clock)(),
            service: None,
            session: None,
            source: None,
            destination: None,
            severity,
            payload: Payload::Lifecycle {
                state: state.to_owned(),
                config: self
                    .config
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone(),
                detail: Evidence::from(detail),
                count,
            },
            raw: None,
        }
    }
}

struct Writer<W> {
    output: W,
    boot: BootId,
    counter: u64,
    /// Lines that a full output did not take, and that nobody was told of yet.
    lost: u64,
    full: Option<Full>,
    /// How long lines are held while the output is full.
    hold: Duration,
    shared: Arc<Shared>,
}

/// An output that stayed full.
struct Full {
    pause: Duration,
    try_at: Instant,
}

/// Encoded lines that are written together.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: Vec<Written>,
    flushed: Vec<oneshot::Sender<()>>,
}

/// One line of a batch.
struct Written {
    /// Where it ends.
    end: usize,
    stake: Stake,
}

/// What is lost with a line.
#[derive(Clone, Copy)]
enum Stake {
    /// Itself.
    Sighting,
    /// Nothing: a sign of life that comes too late is none.
    Alive,
    /// That so many connects and disconnects were dropped.
    Dropped(u64),
    /// That so many lines were lost.
    Lost(u64),
}

impl<W: Output> Writer<W> {
    fn run(&mut self, mut queue: mpsc::Receiver<Item>) -> io::Result<()> {
        let mut batch = Batch::default();
        while let Some(item) = queue.blocking_recv() {
            let mut next = Some(item);
            while let Some(item) = next {
                self.account(&mut batch);
                match item {
                    Item::Sighting { sighting, weight } => {
                        let stake = if is_alive(&sighting.payload) {
                            Stake::Alive
                        } else {
                            Stake::Sighting
                        };
                        self.encode(*sighting, stake, &mut batch);
                        drop(weight);
                    }
                    Item::Flush { done } => batch.flushed.push(done),
                }
                next = if batch.bytes.len() < BATCH {
                    queue.try_recv().ok()
                } else {
                    None
                };
            }
            self.write(&batch)?;
            batch.bytes.clear();
            batch.bytes.shrink_to(BATCH / 8);
            batch.lines.clear();
            for done in batch.flushed.drain(..) {
                done.send(()).ok();
            }
        }
        Ok(())
    }

    /// Says what was dropped since this was last said.
    fn account(&mut self, batch: &mut Batch) {
        let dropped = self.shared.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let detail = "connects and disconnects while the output was blocked";
            let line = self
                .shared
                .lifecycle("dropped", detail, dropped, Severity::Critical);
            self.encode(line, Stake::Dropped(dropped), batch);
        }
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            let detail = "lines while the output was full";
            let line = self
                .shared
                .lifecycle("dropped", detail, lost, Severity::Critical);
            self.encode(line, Stake::Lost(lost), batch);
        }
    }

    fn encode(&mut self, sighting: Sighting, stake: Stake, batch: &mut Batch) {
        self.counter += 1;
        let position = Position {
            boot: self.boot,
            counter: self.counter,
        };
        batch
            .bytes
            .extend_from_slice(&encode(&Line { position, sighting }));
        batch.lines.push(Written {
            end: batch.bytes.len(),
            stake,
        });
    }

    /// Writes a batch, or as much of it as a full output takes in time.
    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        if batch.bytes.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        if self.full.as_ref().is_some_and(|full| begun < full.try_at) {
            self.give_up(&batch.lines);
            return Ok(());
        }
        let mut taken = 0;
        let mut pause = RETRY.0;
        loop {
            taken += self.output.put(&batch.bytes[taken..])?;
            if taken == batch.bytes.len() {
                self.full = None;
                return Ok(());
            }
            if self.full.is_some() || begun.elapsed() >= self.hold {
                break;
            }
            // Nothing wakes this thread: it waits for another process to cut the file.
            std::thread::park_timeout(pause);
            pause = (pause * 2).min(self.hold / 8).min(RETRY.1);
        }
        let pause = self
            .full
            .as_ref()
            .map_or(RETRY.0, |full| (full.pause * 2).min(RETRY.1));
        self.full = Some(Full {
            pause,
            try_at: Instant::now() + pause,
        });
        let first = batch.lines.partition_point(|line| line.end <= taken);
        self.give_up(&batch.lines[first..]);
        Ok(())
    }

    /// Counts lines as lost. Their numbers are given again: a gap would count them a second time.
    fn give_up(&mut self, lines: &[Written]) {
        for Written { end: _, stake } in lines {
            self.counter -= 1;
            match *stake {
                Stake::Sighting => self.lost += 1,
                Stake::Alive => {}
                Stake::Dropped(dropped) => {
                    self.shared.dropped.fetch_add(dropped, Ordering::Relaxed);
                }
                Stake::Lost(lost) => self.lost += lost,
            }
        }
    }
}

fn is_alive(payload: &Payload) -> bool {
    matches!(payload, Payload::Lifecycle { state, .. } if state == ALIVE)
}

fn raw_weight(sighting: &Sighting) -> u32 {
    length(sighting.raw.as_ref().map_or(0, |raw| raw.bytes().len()))
}

/// About how many bytes a sighting holds while it waits.
fn weight(payload: &Payload) -> u32 {
    let held = match payload {
        // A mutation is the master's to tell.
        Payload::Connect | Payload::Disconnect { .. } | Payload::Mutation(_) => 0,
        Payload::Auth {
            username, secret, ..
        } => username.bytes().len() + secret.bytes().len(),
        Payload::Command { line } => line.bytes().len(),
        Payload::Request {
            method,
            target,
            headers,
            body,
            ..
        } => {
            let headers: usize = headers
                .iter()
                .map(|(name, value)| name.bytes().len() + value.bytes().len() + 64)
                .sum();
            method.bytes().len() + target.bytes().len() + headers + body.bytes().len()
        }
        Payload::Fingerprint { of, value } => of.len() + value.bytes().len(),
        Payload::Lifecycle { detail, .. } => detail.bytes().len(),
        Payload::Raw { reason } => reason.len(),
    };
    512 + length(held)
}

fn length(bytes: usize) -> u32 {
    // A sighting is capped far below; this cap only keeps one from waiting for ever.
    u32::try_from(bytes).unwrap_or(u32::MAX).min(1024 * 1024)
}

#[cfg(test)]
pub(crate) mod tests;

//! Writes event lines: takes sightings from every task, gives each its position, writes it.
//!
//! A thread of its own writes, because a blocked standard output (a paused container) must stop
//! nothing else. Connects and disconnects give way first: they are dropped and counted as soon as
//! the queue fills, so that evidence with content still has room; everything else waits.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use domain::event::{Evidence, Payload, Position, Severity, Sighting};
use domain::id::BootId;
use proto::line::{Line, encode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::clock::Clock;

/// Most lines that wait for a blocked output.
pub(crate) const QUEUE_LINES: usize = 4096;
/// Most bytes that wait: 4096 lines of the greatest size would exceed the container's memory.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Most bytes handed to the output at once.
const BATCH: usize = 64 * 1024;

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
    /// Starts the writing thread on `output`, with room for `lines` lines.
    pub(crate) fn start(
        output: impl Write + Send + 'static,
        boot: BootId,
        lines: usize,
        clock: Clock,
    ) -> io::Result<Self> {
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
        let sighting = self.shared.lifecycle("alive", "", 0, Severity::Info);
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
    shared: Arc<Shared>,
}

impl<W: Write> Writer<W> {
    fn run(&mut self, mut queue: mpsc::Receiver<Item>) -> io::Result<()> {
        let mut batch = Vec::new();
        let mut flushed = Vec::new();
        while let Some(item) = queue.blocking_recv() {
            let mut next = Some(item);
            while let Some(item) = next {
                let dropped = self.shared.dropped.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    let detail = "connects and disconnects while the output was blocked";
                    let line =
                        self.shared
                            .lifecycle("dropped", detail, dropped, Severity::Critical);
                    self.encode(line, &mut batch);
                }
                match item {
                    Item::Sighting { sighting, weight } => {
                        self.encode(*sighting, &mut batch);
                        drop(weight);
                    }
                    Item::Flush { done } => flushed.push(done),
                }
                next = if batch.len() < BATCH {
                    queue.try_recv().ok()
                } else {
                    None
                };
            }
            self.output.write_all(&batch)?;
            self.output.flush()?;
            batch.clear();
            batch.shrink_to(BATCH / 8);
            for done in flushed.drain(..) {
                done.send(()).ok();
            }
        }
        Ok(())
    }

    fn encode(&mut self, sighting: Sighting, batch: &mut Vec<u8>) {
        self.counter += 1;
        let position = Position {
            boot: self.boot,
            counter: self.counter,
        };
        batch.extend_from_slice(&encode(&Line { position, sighting }));
    }
}

fn raw_weight(sighting: &Sighting) -> u32 {
    length(sighting.raw.as_ref().map_or(0, |raw| raw.bytes().len()))
}

/// About how many bytes a sighting holds while it waits.
fn weight(payload: &Payload) -> u32 {
    let held = match payload {
        Payload::Connect | Payload::Disconnect { .. } => 0,
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

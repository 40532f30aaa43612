//! Lines that the agent itself adds to a decky's evidence: lines that went missing, events that
//! were dropped. Same form as a decky's lines, so that the master reads one format.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use domain::event::{Evidence, Payload, Position, Severity, Sighting};
use domain::id::{BootId, DeckyId};
use pki::clock::Clock;
use proto::line::{Line, encode};

/// What the agent has to say of a decky's evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Lines that the decky wrote and the engine no longer has.
    Gap {
        /// The life of the decky in which they were written.
        boot: BootId,
        /// The counter of the first missing line.
        first: u64,
        /// How many are missing.
        missing: u64,
    },
    /// Events that the spool gave up because it had no room.
    Dropped {
        /// How many.
        missing: u64,
        /// Room of what.
        want: Want,
    },
}

/// What there was too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// The spool's own room.
    Spool,
    /// The disk's, so that the spool had less of its own.
    Disk,
}

/// Writes notices. Each decky has a boot id of this process's, with counters of its own, so that
/// notices never look like a gap themselves.
pub struct Notices {
    clock: Clock,
    counters: Mutex<HashMap<DeckyId, (BootId, u64)>>,
}

impl Notices {
    /// Starts with nothing said.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            counters: Mutex::new(HashMap::new()),
        }
    }

    /// The line for a notice, without a newline.
    pub fn line(&self, decky: DeckyId, notice: Notice) -> Bytes {
        let (state, detail, count) = match notice {
            Notice::Gap {
                boot,
                first,
                missing,
            } => (
                "gap",
                format!("lines {first} and on of boot {boot} are missing"),
                missing,
            ),
            Notice::Dropped { missing, want } => (
                "dropped",
                match want {
                    Want::Spool => "the spool of the host was full",
                    Want::Disk => "the disk of the host was short of space",
                }
                .to_owned(),
                missing,
            ),
        };
        let line = Line {
            position: self.position(decky),
            sighting: Sighting {
                at: (self.clock)(),
                service: None,
                session: None,
                source: None,
                destination: None,
                severity: Severity::Critical,
                payload: Payload::Lifecycle {
                    state: state.to_owned(),
                    config: String::new(),
                    detail: Evidence::from(detail.as_str()),
                    count,
                },
                raw: None,
            },
        };
        let mut bytes = encode(&line);
        bytes.pop();
        bytes.into()
    }

    fn position(&self, decky: DeckyId) -> Position {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let (boot, counter) = counters
            .entry(decky)
            .or_insert_with(|| (BootId::new(random_uuid()), 0));
        *counter += 1;
        Position {
            boot: *boot,
            counter: *counter,
        }
    }
}

impl std::fmt::Debug for Notices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notices").finish_non_exhaustive()
    }
}

/// A random (version 4) UUID.
pub(crate) fn random_uuid() -> uuid::Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}

//! What goes into the spool and comes out of it, and why either fails.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use domain::id::{BootId, DeckyId, SpoolId, TopologyId};
use domain::observe::Handle;
use time::OffsetDateTime;

/// How much a full spool wants to keep an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Kept as long as there is any noise to drop instead.
    Evidence,
    /// Connects, disconnects, signs of life: dropped first.
    Noise,
}

/// What is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The topology of the decky, from the container.
    pub topology: TopologyId,
    /// The decky, from the container.
    pub decky: DeckyId,
    /// When the agent read it.
    pub collected_at: OffsetDateTime,
    /// How much it is worth when space runs out.
    pub class: Class,
    /// The line, verbatim, without its newline.
    pub line: Bytes,
}

/// An event as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpooledEvent {
    /// Its number.
    pub sequence: u64,
    /// The topology of the decky.
    pub topology: TopologyId,
    /// The decky.
    pub decky: DeckyId,
    /// When the agent read it, in microseconds since the epoch.
    pub collected_at: i64,
    /// The line, verbatim, without its newline.
    pub line: Bytes,
}

/// Of how many lives of a decky it is kept how far its output has been stored: of those that spoke
/// last. Whoever owns a decky can name any number.
pub const LIVES: usize = 16;

/// How far the output of one container has been stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The container.
    pub handle: Handle,
    /// Which life of the decky; none for lines that are no decky lines.
    pub boot: Option<BootId>,
    /// The counter of the last stored line; for lines that are no decky lines, the last one's hash.
    pub counter: u64,
    /// When the engine took that line.
    pub at: OffsetDateTime,
    /// The digest of the configuration that was last said to be in force; empty for none.
    pub config: String,
}

/// Where the spool ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most bytes of lines, their rows' cost included.
    pub bytes: u64,
    /// Most events.
    pub events: u64,
}

/// How short the disk of the spool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Pressure {
    /// It is not.
    #[default]
    None,
    /// There is less than is to be left free.
    Short,
    /// There is hardly anything.
    Dire,
}

impl Pressure {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Short => "short",
            Self::Dire => "dire",
        }
    }
}

impl Bounds {
    /// Where the spool ends under pressure.
    pub const fn under(self, pressure: Pressure) -> Self {
        let part = match pressure {
            Pressure::None => 1,
            Pressure::Short => 4,
            Pressure::Dire => 16,
        };
        Self {
            bytes: self.bytes / part,
            events: self.events / part,
        }
    }
}

/// The state of a spool in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Which spool.
    pub id: SpoolId,
    /// The last number given.
    pub last: u64,
    /// The last number that the master has taken.
    pub acked: u64,
    /// Events that wait.
    pub events: u64,
    /// What they weigh.
    pub bytes: u64,
    /// Events given up in this spool's life.
    pub dropped: u64,
}

/// Why there is no spool.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be opened or made.
    #[error("could not open the spool {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// It is damaged, and cannot be moved out of the way either.
    #[error("could not move the damaged spool {} aside", path.display())]
    Aside {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why a spool could not be read or written. What was stored before stands.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// No space left; may pass.
    #[error("no space is left for the spool")]
    Full {
        /// What SQLite says.
        #[source]
        source: sqlx::Error,
    },
    /// Damaged: the next start moves it aside.
    #[error("the spool is damaged")]
    Damaged {
        /// What SQLite says.
        #[source]
        source: sqlx::Error,
    },
    /// Anything else; may pass.
    #[error("could not {attempt} the spool")]
    Failed {
        /// What was attempted.
        attempt: &'static str,
        /// What SQLite says.
        #[source]
        source: sqlx::Error,
    },
    /// The log could not be flushed to the disk.
    #[error("could not flush the spool to the disk")]
    Sync {
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

//! Guards the host: looks at what it has left of disk, memory, process ids and file handles, and
//! refuses work that makes things while one of them is short; has the spool give way while it is
//! the disk.
//!
//! What is made already is never touched for it. A figure that cannot be read refuses nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pki::clock::Clock;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::config::GuardConfig;
use crate::spool::{Pressure, Spool};

mod gauges;

#[cfg(test)]
pub(crate) mod tests;

pub use gauges::HostGauges;

/// How often the host is looked at while nothing is made.
const PERIOD: Duration = Duration::from_secs(5);
const MIB: u64 = 1 << 20;

/// How much there is of something, and how much of it is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What is left.
    pub free: u64,
    /// What there is.
    pub total: u64,
}

/// What the host has left; empty where it cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Levels {
    /// Bytes, by the directory on the disk.
    pub disks: Vec<(PathBuf, Room)>,
    /// Bytes that can be had without swapping.
    pub memory: Option<u64>,
    /// Process ids, by whose limit it is.
    pub pids: Vec<(&'static str, Room)>,
    /// File handles, by whose limit it is.
    pub files: Vec<(&'static str, Room)>,
}

/// Reads the levels.
pub trait Gauges: Send + Sync {
    /// What the host has left at this moment. A few small reads; never blocks on the network.
    fn read(&self) -> Levels;
}

/// What the host has too little of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// Disk.
    #[error(
        "the disk with {} has {free} MiB free of {total}, less than the {kept} to be left free",
        path.display()
    )]
    Disk {
        /// A directory on it.
        path: PathBuf,
        /// MiB that are free.
        free: u64,
        /// MiB that there are.
        total: u64,
        /// MiB that are to stay free.
        kept: u64,
    },
    /// Memory.
    #[error("{free} MiB of memory are available, less than the {needed} for {deckies} new deckies")]
    Memory {
        /// MiB that are available.
        free: u64,
        /// MiB that are to be available before.
        needed: u64,
        /// How many are to be made.
        deckies: usize,
    },
    /// Process ids.
    #[error("{free} of {total} process ids of the {whose} are free, less than {percent} %")]
    Pids {
        /// Whose limit it is.
        whose: &'static str,
        /// How many are left.
        free: u64,
        /// How many there are.
        total: u64,
        /// How many of a hundred are to stay free.
        percent: u8,
    },
    /// File handles.
    #[error("{free} of {total} file handles of the {whose} are free, less than {percent} %")]
    Files {
        /// Whose limit it is.
        whose: &'static str,
        /// How many are left.
        free: u64,
        /// How many there are.
        total: u64,
        /// How many of a hundred are to stay free.
        percent: u8,
    },
}

impl Shortage {
    /// The word for what is short.
    pub const fn of(&self) -> &'static str {
        match self {
            Self::Disk { .. } => "disk",
            Self::Memory { .. } => "memory",
            Self::Pids { .. } => "pids",
            Self::Files { .. } => "files",
        }
    }
}

/// The guard of this host.
#[derive(Clone)]
pub struct Guard {
    thresholds: Arc<GuardConfig>,
    gauges: Arc<dyn Gauges>,
}

impl Guard {
    /// Guards by these thresholds what `gauges` shows.
    pub fn new(thresholds: GuardConfig, gauges: Arc<dyn Gauges>) -> Self {
        Self {
            thresholds: Arc::new(thresholds),
            gauges,
        }
    }

    /// A guard that refuses nothing.
    pub fn blind() -> Self {
        struct Blind;
        impl Gauges for Blind {
            fn read(&self) -> Levels {
                Levels::default()
            }
        }
        Self::new(GuardConfig::default(), Arc::new(Blind))
    }

    /// Whether the host can bear so many more deckies and LANs. What makes nothing is always borne.
    pub fn check(&self, new_deckies: usize, new_lans: usize) -> Result<(), Shortage> {
        if new_deckies == 0 && new_lans == 0 {
            return Ok(());
        }
        let levels = self.gauges.read();
        match shortages(&self.thresholds, &levels, new_deckies)
            .into_iter()
            .next()
        {
            Some(shortage) => Err(shortage),
            None => Ok(()),
        }
    }

    /// How much the spool has to give way.
    fn pressure(&self, levels: &Levels) -> Pressure {
        let of_disk = |(_, room): &(PathBuf, Room)| {
            let kept = kept_of_disk(&self.thresholds, *room);
            if room.free < kept / 4 {
                Pressure::Dire
            } else if room.free < kept {
                Pressure::Short
            } else {
                Pressure::None
            }
        };
        levels.disks.iter().map(of_disk).max().unwrap_or_default()
    }

    /// Looks at the host until `shutdown`: says what becomes short and what no longer is, and
    /// passes the pressure on to the spool.
    pub async fn watch(self, spool: Arc<Spool>, clock: Clock, shutdown: CancellationToken) {
        let mut ticker = interval(PERIOD);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut short: Vec<&'static str> = Vec::new();
        let mut pressed = Pressure::None;
        loop {
            tokio::select! {
                _ = ticker.tick() => {}
                () = shutdown.cancelled() => return,
            }
            let levels = self.gauges.read();
            short = told(&short, &shortages(&self.thresholds, &levels, 0));
            let pressure = self.pressure(&levels);
            if pressure == pressed {
                continue;
            }
            match spool.press(pressure, clock()).await {
                Ok(dropped) => {
                    pressed = pressure;
                    tracing::warn!(
                        pressure = pressure.as_str(),
                        dropped,
                        "the room of the spool follows the free space of the disk"
                    );
                }
                // Tried again at the next look.
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "could not make the spool smaller");
                }
            }
        }
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("thresholds", &self.thresholds)
            .finish_non_exhaustive()
    }
}

/// Logs what has changed; answers what is short now.
fn told(before: &[&'static str], shortages: &[Shortage]) -> Vec<&'static str> {
    let mut now: Vec<&'static str> = Vec::new();
    for shortage in shortages {
        let of = shortage.of();
        if !before.contains(&of) && !now.contains(&of) {
            tracing::warn!(
                resource = of,
                error = %shortage,
                next_step = "free some: until then nothing new is made on this host",
                "the host is short"
            );
        }
        now.push(of);
    }
    for of in before.iter().filter(|of| !now.contains(of)) {
        tracing::info!(resource = of, "the host has enough again");
    }
    now.dedup();
    now
}

/// Everything that is short, were so many deckies made.
fn shortages(thresholds: &GuardConfig, levels: &Levels, new_deckies: usize) -> Vec<Shortage> {
    let mut found = Vec::new();
    for (path, room) in &levels.disks {
        let kept = kept_of_disk(thresholds, *room);
        if room.free < kept {
            found.push(Shortage::Disk {
                path: path.clone(),
                free: room.free / MIB,
                total: room.total / MIB,
                kept: kept.div_ceil(MIB),
            });
        }
    }
    let each = thresholds.memory_per_decky_mib;
    let needed = thresholds
        .memory_free_mib
        .saturating_add(each.saturating_mul(u64::try_from(new_deckies).unwrap_or(u64::MAX)));
    if let Some(free) = levels.memory
        && free < needed.saturating_mul(MIB)
    {
        found.push(Shortage::Memory {
            free: free / MIB,
            needed,
            deckies: new_deckies,
        });
    }
    let percent = thresholds.pids_free_percent;
    for (whose, Room { free, total }) in levels.pids.iter().copied() {
        if is_below(Room { free, total }, percent) {
            found.push(Shortage::Pids {
                whose,
                free,
                total,
                percent,
            });
        }
    }
    let percent = thresholds.files_free_percent;
    for (whose, Room { free, total }) in levels.files.iter().copied() {
        if is_below(Room { free, total }, percent) {
            found.push(Shortage::Files {
                whose,
                free,
                total,
                percent,
            });
        }
    }
    found
}

/// What of a disk is to stay free: so much, or so much of it, whichever is more.
fn kept_of_disk(thresholds: &GuardConfig, room: Room) -> u64 {
    let share = room.total / 100 * u64::from(thresholds.disk_free_percent);
    thresholds.disk_free_mib.saturating_mul(MIB).max(share)
}

fn is_below(Room { free, total }: Room, percent: u8) -> bool {
    u128::from(free) * 100 < u128::from(total) * u128::from(percent)
}

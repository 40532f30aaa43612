//! How the agent and its host are, for the heartbeat: flags that the tasks keep, and figures that
//! are read when they are asked for.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::guard::Room;

/// What the agent's tasks know of their own health.
#[derive(Debug)]
pub struct Vitals {
    engine: AtomicBool,
    spool: AtomicBool,
    /// Containers whose output cannot be read at this moment.
    deaf: AtomicUsize,
}

/// One look at everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// The engine answers.
    pub engine_ok: bool,
    /// The output of every container is being read.
    pub collect_ok: bool,
    /// The spool takes events.
    pub spool_ok: bool,
    /// Free space for the agent's data; 0 when it cannot be told.
    pub disk_free_mib: u32,
    /// Memory that can be had without swapping; 0 when it cannot be told.
    pub memory_free_mib: u32,
    /// Events that wait for the master.
    pub spool_events: u32,
}

impl Default for Vitals {
    fn default() -> Self {
        Self {
            engine: AtomicBool::new(true),
            spool: AtomicBool::new(true),
            deaf: AtomicUsize::new(0),
        }
    }
}

impl Vitals {
    /// Notes that the engine answered.
    pub fn engine_answered(&self) {
        self.engine.store(true, Ordering::Relaxed);
    }

    /// Notes that the engine did not answer.
    pub fn engine_silent(&self) {
        self.engine.store(false, Ordering::Relaxed);
    }

    /// Notes that the spool took events.
    pub fn spool_takes(&self) {
        self.spool.store(true, Ordering::Relaxed);
    }

    /// Notes that the spool could not take events.
    pub fn spool_refuses(&self) {
        self.spool.store(false, Ordering::Relaxed);
    }

    /// Whether the spool took events when it was last given some.
    pub fn spool_ok(&self) -> bool {
        self.spool.load(Ordering::Relaxed)
    }

    /// Notes that a container cannot be read, for as long as the answer lives.
    pub fn deaf(self: &std::sync::Arc<Self>) -> Deaf {
        self.deaf.fetch_add(1, Ordering::Relaxed);
        Deaf(std::sync::Arc::clone(self))
    }

    /// Reads everything. Two small system calls; never blocks on the network.
    pub fn sample(&self, data: &Path, spool_events: u64) -> Health {
        Health {
            engine_ok: self.engine.load(Ordering::Relaxed),
            collect_ok: self.deaf.load(Ordering::Relaxed) == 0,
            spool_ok: self.spool_ok(),
            disk_free_mib: disk_free_mib(data).unwrap_or(0),
            memory_free_mib: memory_free_mib().unwrap_or(0),
            spool_events: u32::try_from(spool_events).unwrap_or(u32::MAX),
        }
    }
}

/// A container that cannot be read.
#[derive(Debug)]
pub struct Deaf(std::sync::Arc<Vitals>);

impl Drop for Deaf {
    fn drop(&mut self) {
        self.0.deaf.fetch_sub(1, Ordering::Relaxed);
    }
}

fn disk_free_mib(path: &Path) -> Option<u32> {
    u32::try_from(disk(path)?.free >> 20).ok()
}

/// The bytes of the disk with `path`, and those that an ordinary user can have.
pub(crate) fn disk(path: &Path) -> Option<Room> {
    let figures = rustix::fs::statvfs(path).ok()?;
    Some(Room {
        free: figures.f_bavail.saturating_mul(figures.f_frsize),
        total: figures.f_blocks.saturating_mul(figures.f_frsize),
    })
}

fn memory_free_mib() -> Option<u32> {
    let free = available(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    u32::try_from(free >> 20).ok()
}

/// The bytes that can be had without swapping, by the text of `/proc/meminfo`.
pub(crate) fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn reads_the_available_memory_as_linux_writes_it() {
        let text = "MemTotal:       24576 kB\nMemAvailable:   20480 kB\nBuffers: 1 kB\n";
        assert_eq!(available(text), Some(20 << 20));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn collection_is_well_again_when_the_last_deaf_container_is_heard() {
        let vitals = Arc::new(Vitals::default());
        let (one, two) = (vitals.deaf(), vitals.deaf());
        drop(one);
        assert!(!vitals.sample(Path::new("/"), 0).collect_ok);
        drop(two);
        let health = vitals.sample(Path::new("/"), 7);
        assert!(health.collect_ok);
        assert_eq!(health.spool_events, 7);
        assert!(health.disk_free_mib > 0);
    }
}

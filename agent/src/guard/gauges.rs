//! Reads what the host has left from the kernel's files.

use std::path::{Path, PathBuf};

use super::{Gauges, Levels, Room};

/// Most groups between this process's own and the root.
const MAX_DEPTH: usize = 32;

/// The gauges of this host.
#[derive(Debug, Clone)]
pub struct HostGauges {
    disks: Vec<PathBuf>,
    proc: PathBuf,
    cgroup: PathBuf,
}

impl HostGauges {
    /// Watches the disks with these directories; one that is not there is none.
    pub fn new(disks: Vec<PathBuf>) -> Self {
        Self {
            disks,
            proc: "/proc".into(),
            cgroup: "/sys/fs/cgroup".into(),
        }
    }

    /// The same, of a kernel's files that a test wrote.
    #[cfg(test)]
    pub(super) fn within(root: &Path) -> Self {
        Self {
            disks: Vec::new(),
            proc: root.join("proc"),
            cgroup: root.join("cgroup"),
        }
    }

    fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.proc.join(path)).ok()
    }

    fn number(&self, path: &str) -> Option<u64> {
        number(&self.proc.join(path))
    }

    fn pids(&self) -> Vec<(&'static str, Room)> {
        let mut rooms = Vec::new();
        // The fourth field is running/all; threads count, as they do against the limits.
        let used = self.text("loadavg").and_then(|text| {
            let (_, all) = text.split_whitespace().nth(3)?.split_once('/')?;
            all.parse::<u64>().ok()
        });
        let limits = ["sys/kernel/pid_max", "sys/kernel/threads-max"];
        let limit = limits.iter().filter_map(|path| self.number(path)).min();
        if let (Some(used), Some(total)) = (used, limit) {
            rooms.push(("host", room(used, total)));
        }
        if let Some(room) = self.group_pids() {
            rooms.push(("agent's control group", room));
        }
        rooms
    }

    /// The tightest limit on process ids of the groups that this process is in.
    fn group_pids(&self) -> Option<Room> {
        let groups = self.text("self/cgroup")?;
        let (controllers, group) = super::super::engine::usage::group_of(&groups, "pids")?;
        let top = match controllers {
            "" => self.cgroup.clone(),
            _ => self.cgroup.join("pids"),
        };
        let mut group = Path::new(group.trim_start_matches('/'));
        let mut tightest: Option<Room> = None;
        for _ in 0..MAX_DEPTH {
            let directory = top.join(group);
            let limit = number(&directory.join("pids.max"));
            if let (Some(total), Some(used)) = (limit, number(&directory.join("pids.current"))) {
                let here = room(used, total);
                tightest = match tightest {
                    Some(other) if other.free <= here.free => Some(other),
                    _ => Some(here),
                };
            }
            match group.parent() {
                Some(parent) => group = parent,
                None => break,
            }
        }
        tightest
    }

    fn files(&self) -> Vec<(&'static str, Room)> {
        let mut rooms = Vec::new();
        let host = self.text("sys/fs/file-nr").and_then(|text| {
            let mut fields = text.split_whitespace().map(str::parse::<u64>);
            let (allocated, unused, total) = (fields.next()?, fields.next()?, fields.next()?);
            Some(room(
                allocated.ok()?.saturating_sub(unused.ok()?),
                total.ok()?,
            ))
        });
        rooms.extend(host.map(|room| ("host", room)));
        let own = self.text("self/limits").and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("Max open files"))?;
            // The soft limit; "unlimited" is no number.
            let total = line.split_whitespace().next()?.parse().ok()?;
            let open = std::fs::read_dir(self.proc.join("self/fd")).ok()?.count();
            Some(room(u64::try_from(open).ok()?, total))
        });
        rooms.extend(own.map(|room| ("agent", room)));
        rooms
    }
}

impl Gauges for HostGauges {
    fn read(&self) -> Levels {
        Levels {
            disks: self
                .disks
                .iter()
                .filter_map(|path| Some((path.clone(), crate::health::disk(path)?)))
                .collect(),
            memory: self
                .text("meminfo")
                .and_then(|text| crate::health::available(&text)),
            pids: self.pids(),
            files: self.files(),
        }
    }
}

fn room(used: u64, total: u64) -> Room {
    Room {
        free: total.saturating_sub(used),
        total,
    }
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

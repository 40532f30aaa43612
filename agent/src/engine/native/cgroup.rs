//! Control groups of deckies, in version 1 and 2: who is in one, whether it is frozen, its end.
//!
//! runc makes them; this reads and removes them without a call to it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where the groups of all hosts of a machine are, below each hierarchy.
const ROOT: &str = "decnet";

/// The hierarchies of this machine and one host's place in them.
#[derive(Debug)]
pub(super) struct Groups {
    host: String,
    mounts: OnceLock<Vec<PathBuf>>,
}

impl Groups {
    pub(super) const fn new(host: String) -> Self {
        Self {
            host,
            mounts: OnceLock::new(),
        }
    }

    /// The path of a decky's group, as a bundle names it and as `/proc/PID/cgroup` shows it.
    pub(super) fn path(&self, handle: &str) -> String {
        format!("/{ROOT}/{}/{handle}", self.host)
    }

    /// Whether a process is in the group of a decky, and alive.
    pub(super) fn holds(&self, handle: &str, pid: u32) -> bool {
        let path = self.path(handle);
        fs::read_to_string(format!("/proc/{pid}/cgroup"))
            .is_ok_and(|text| text.lines().any(|line| line.ends_with(&path)))
            && !is_dead(pid)
    }

    /// Whether a decky has a group in any hierarchy.
    pub(super) fn exists(&self, handle: &str) -> bool {
        self.places(handle).any(|place| place.exists())
    }

    /// Every process in the group of a decky.
    pub(super) fn members(&self, handle: &str) -> Vec<u32> {
        members_of(self.mounts(), &self.path(handle))
    }

    /// Whether somebody has suspended the decky.
    pub(super) fn is_frozen(&self, handle: &str) -> bool {
        self.places(handle).any(|place| {
            let read = |name: &str| fs::read_to_string(place.join(name)).unwrap_or_default();
            read("freezer.state").trim() == "FROZEN" || read("cgroup.freeze").trim() == "1"
        })
    }

    /// Has a suspended decky go on: a frozen process does not even die.
    pub(super) fn thaw(&self, handle: &str) {
        for place in self.places(handle) {
            for (name, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                let file = place.join(name);
                if file.exists() {
                    // Whoever is still frozen is found alive afterwards, and told.
                    fs::write(file, value).ok();
                }
            }
        }
    }

    /// Removes the group of a decky, which must be empty. One that is gone is removed.
    pub(super) fn remove(&self, handle: &str) -> io::Result<()> {
        for place in self.places(handle) {
            match fs::remove_dir(&place) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Whether this machine counts swap, so that it can be limited.
    pub(super) fn counts_swap(&self) -> bool {
        let has = |name: &str| self.mounts().iter().any(|mount| mount.join(name).exists());
        // In version 2 only groups below the first have such a file; the runtime copes with its
        // absence.
        has("memory.memsw.limit_in_bytes") || !has("memory.limit_in_bytes")
    }

    /// Removes what holds the groups of this host, when no decky is left.
    pub(super) fn remove_host(&self) {
        for mount in self.mounts() {
            let root = mount.join(ROOT);
            // Others may have groups there: then it stays.
            fs::remove_dir(root.join(&self.host)).ok();
            fs::remove_dir(root).ok();
        }
    }

    fn places(&self, handle: &str) -> impl Iterator<Item = PathBuf> {
        let path = self.path(handle);
        self.mounts()
            .iter()
            .map(move |mount| mount.join(path.trim_start_matches('/')))
    }

    fn mounts(&self) -> &[PathBuf] {
        self.mounts.get_or_init(mounts)
    }
}

/// Whether anything runs in the group of that path, whoever's it is.
pub(super) fn is_populated(path: &str) -> bool {
    members_of(&mounts(), path)
        .into_iter()
        .any(|pid| !is_dead(pid))
}

fn members_of(mounts: &[PathBuf], path: &str) -> Vec<u32> {
    let mut members: Vec<u32> = mounts
        .iter()
        .filter_map(|mount| {
            fs::read_to_string(
                mount
                    .join(path.trim_start_matches('/'))
                    .join("cgroup.procs"),
            )
            .ok()
        })
        .flat_map(|text| {
            text.lines()
                .filter_map(|line| line.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect();
    members.sort_unstable();
    members.dedup();
    members
}

/// Whether a process is gone, or only waits to be reaped.
fn is_dead(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    // The name before it may hold any character.
    stat.rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next())
        .is_none_or(|state| matches!(state, "Z" | "X"))
}

fn mounts() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    parse(&table)
}

fn parse(table: &str) -> Vec<PathBuf> {
    table
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let kind = after.split(' ').next()?;
            let place = before.split(' ').nth(4)?;
            matches!(kind, "cgroup" | "cgroup2").then(|| Path::new(place).to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_hierarchies_of_both_versions() {
        let table = "\
            29 25 0:25 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
            30 29 0:26 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n\
            31 29 0:27 / /sys/fs/cgroup/pids rw,nosuid shared:9 - cgroup cgroup rw,pids\n";
        assert_eq!(
            parse(table),
            [
                PathBuf::from("/sys/fs/cgroup/unified"),
                PathBuf::from("/sys/fs/cgroup/pids")
            ]
        );
    }

    #[test]
    fn a_process_that_was_never_there_is_dead() {
        assert!(is_dead(u32::MAX));
        assert!(!is_dead(std::process::id()));
    }
}

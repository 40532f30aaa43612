//! Reads what deckies use from their control groups, of either version of the kernel's interface.
//!
//! The engine is never asked: it would take a call for each decky. Where a decky's groups are is
//! what the kernel says of one of its processes, not what an engine's layout lets one guess; a
//! process is known to be a decky's by a group that bears the engine's name of it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use domain::observe::Handle;
use domain::usage::Usage;

/// Most processes that are looked at in one pass.
const MAX_PROCESSES: usize = 262_144;
/// The least length of a handle by which groups are looked for.
const MIN_NAME: usize = 8;

/// Where the groups of one decky are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Groups {
    /// One directory for everything.
    Unified(PathBuf),
    /// One for each controller.
    Split {
        memory: Option<PathBuf>,
        cpu: Option<PathBuf>,
        pids: Option<PathBuf>,
    },
}

/// Reads the usage of deckies, and remembers where it is to be read.
#[derive(Debug)]
pub struct Meter {
    proc: PathBuf,
    root: PathBuf,
    known: HashMap<Handle, Groups>,
}

impl Default for Meter {
    fn default() -> Self {
        Self::within("/proc", "/sys/fs/cgroup")
    }
}

impl Meter {
    /// Reads the kernel's files under these directories.
    pub fn within(proc: impl Into<PathBuf>, root: impl Into<PathBuf>) -> Self {
        Self {
            proc: proc.into(),
            root: root.into(),
            known: HashMap::new(),
        }
    }

    /// What these deckies use. One whose processes are not to be found is left out; others are
    /// forgotten.
    pub fn measure(&mut self, handles: &[Handle]) -> HashMap<Handle, Usage> {
        self.known.retain(|handle, _| handles.contains(handle));
        let mut found = HashMap::with_capacity(handles.len());
        let mut lost: Vec<&Handle> = Vec::new();
        for handle in handles {
            match self.known.get(handle).and_then(Groups::usage) {
                Some(usage) => {
                    found.insert(handle.clone(), usage);
                }
                None => lost.push(handle),
            }
        }
        // New ones and restarted ones: one pass over the processes for all of them.
        if !lost.is_empty() {
            self.find(&lost);
            for handle in lost {
                if let Some(usage) = self.known.get(handle).and_then(Groups::usage) {
                    found.insert(handle.clone(), usage);
                }
            }
        }
        found
    }

    /// Takes the groups of the process `pid` for those of a decky: for an engine that knows it, and
    /// whose groups do not bear its name.
    pub fn learn(&mut self, handle: &Handle, pid: u32) {
        let groups = fs::read_to_string(self.proc.join(pid.to_string()).join("cgroup"))
            .ok()
            .and_then(|text| Groups::of(&text, &self.root));
        match groups {
            Some(groups) => self.known.insert(handle.clone(), groups),
            None => self.known.remove(handle),
        };
    }

    fn find(&mut self, wanted: &[&Handle]) {
        for handle in wanted {
            self.known.remove(*handle);
        }
        let Ok(processes) = fs::read_dir(&self.proc) else {
            return;
        };
        let mut names: HashMap<&str, &Handle> = wanted
            .iter()
            // Shorter ones are no names of an engine, and anything may bear them.
            .filter(|handle| handle.as_str().len() >= MIN_NAME)
            .map(|handle| (handle.as_str(), *handle))
            .collect();
        for process in processes.flatten().take(MAX_PROCESSES) {
            if names.is_empty() {
                return;
            }
            let is_process = process
                .file_name()
                .to_str()
                .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
            if !is_process {
                continue;
            }
            // It may have ended meanwhile.
            let Ok(text) = fs::read_to_string(process.path().join("cgroup")) else {
                continue;
            };
            if let Some(handle) = borne(&text, &names)
                && let Some(groups) = Groups::of(&text, &self.root)
            {
                names.remove(handle.as_str());
                self.known.insert(handle.clone(), groups);
            }
        }
    }
}

/// Whose name a group of the process bears: it alone, or as systemd makes units of it
/// (`docker-NAME.scope`).
fn borne<'a>(groups: &str, names: &HashMap<&str, &'a Handle>) -> Option<&'a Handle> {
    let whole_or_behind_a_dash = |part: &str| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let ends = part.match_indices('-').map(|(at, _)| &part[at + 1..]);
        std::iter::once(part)
            .chain(ends)
            .find_map(|name| names.get(name).copied())
    };
    groups
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .flat_map(|path| path.split('/'))
        .find_map(whole_or_behind_a_dash)
}

/// The group of a process for one controller, by the text of its `cgroup` file: which hierarchy
/// (empty for the unified one) and the path in it.
pub(crate) fn group_of<'a>(groups: &'a str, controller: &str) -> Option<(&'a str, &'a str)> {
    let lines = || {
        groups.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?, fields.next()?))
        })
    };
    lines()
        .find(|(controllers, _)| controllers.split(',').any(|name| name == controller))
        .or_else(|| lines().find(|(controllers, _)| controllers.is_empty()))
}

impl Groups {
    /// The groups of a process, by the text of its `cgroup` file. Its paths are of the reader's
    /// view; one that leaves it (a `..`) is none.
    fn of(groups: &str, root: &Path) -> Option<Self> {
        let place = |controller: &str| {
            let (hierarchy, path) = group_of(groups, controller)?;
            let path = path.strip_prefix('/')?;
            if path.is_empty() || path.split('/').any(|part| part == "..") {
                return None;
            }
            if hierarchy.is_empty() {
                // Beside controllers of their own, the unified one has none.
                return Some((true, root.join(path)));
            }
            // Mounted under the names of all its controllers, with a link for each, or under one.
            let top = [hierarchy, controller]
                .map(|name| root.join(name))
                .into_iter()
                .find(|top| top.is_dir())?;
            Some((false, top.join(path)))
        };
        let (memory, cpu, pids) = (place("memory"), place("cpuacct"), place("pids"));
        if let (Some((true, path)), Some((true, _)), Some((true, _))) = (&memory, &cpu, &pids) {
            return Some(Self::Unified(path.clone()));
        }
        let split = |place: Option<(bool, PathBuf)>| {
            place.and_then(|(unified, path)| (!unified).then_some(path))
        };
        let groups = Self::Split {
            memory: split(memory),
            cpu: split(cpu),
            pids: split(pids),
        };
        (groups
            != Self::Split {
                memory: None,
                cpu: None,
                pids: None,
            })
        .then_some(groups)
    }

    /// Nothing when the groups are gone.
    fn usage(&self) -> Option<Usage> {
        match self {
            Self::Unified(path) => Some(Usage {
                pids: running(number(&path.join("pids.current")))?,
                memory_bytes: number(&path.join("memory.current")).unwrap_or(0),
                cpu_micros: field(&path.join("cpu.stat"), "usage_usec").unwrap_or(0),
                refused_packets: None,
                oom_kills: field(&path.join("memory.events"), "oom_kill"),
            }),
            Self::Split { memory, cpu, pids } => {
                let of = |place: &Option<PathBuf>, name: &str| {
                    place.as_ref().map(|path| path.join(name))
                };
                let figure = |place, name| of(place, name).and_then(|path| number(&path));
                Some(Usage {
                    pids: match pids {
                        Some(path) => running(number(&path.join("pids.current")))?,
                        None => 0,
                    },
                    memory_bytes: match memory {
                        Some(path) => number(&path.join("memory.usage_in_bytes"))?,
                        None => 0,
                    },
                    // Nanoseconds.
                    cpu_micros: figure(cpu, "cpuacct.usage").unwrap_or(0) / 1000,
                    refused_packets: None,
                    oom_kills: of(memory, "memory.oom_control")
                        .and_then(|path| field(&path, "oom_kill")),
                })
            }
        }
    }
}

/// An empty group is what a decky left that has ended, or moved into another when it was restarted.
fn running(pids: Option<u64>) -> Option<u64> {
    pids.filter(|pids| *pids > 0)
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind `name` in a file of names and numbers.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests;

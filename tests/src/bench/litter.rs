//! What an interrupted run leaves behind: no destructor runs then, so that what must go is noted
//! when it is made.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use super::raw;
use crate::{cli, docker, native};

/// Something that outlives this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Litter {
    /// The Docker objects of a slot.
    Slot(u16),
    /// A directory.
    Directory(PathBuf),
    /// The data directory of a `decnet up`.
    Up(PathBuf),
}

static NOTED: Mutex<Vec<Litter>> = Mutex::new(Vec::new());

fn noted() -> MutexGuard<'static, Vec<Litter>> {
    NOTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes what must go should this run be interrupted. To note what is gone by then is harmless.
pub(super) fn note(litter: Litter) {
    let mut noted = noted();
    if !noted.contains(&litter) {
        noted.push(litter);
    }
}

/// Takes everything away. The process must end afterwards.
pub fn clear() {
    kill_children();
    // The daemons below a `decnet up` need its directory, which is inside of another one.
    let (ups, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut *noted())
        .into_iter()
        .partition(|one| matches!(one, Litter::Up(_)));
    // Each does what it can: there is nobody left to be told of a failure.
    for litter in ups.into_iter().chain(rest) {
        match litter {
            Litter::Up(data) => take_down(&data),
            Litter::Slot(number) => {
                for host in std::fs::read_to_string(slot_file(number))
                    .unwrap_or_default()
                    .lines()
                {
                    drop(docker::remove_all_of(host));
                    drop(native::remove_all_of(host));
                }
                drop(raw::sweep(number));
            }
            Litter::Directory(path) => drop(std::fs::remove_dir_all(path)),
        }
    }
}

/// Ends the data directory's daemons and what they hold in Docker.
pub(super) fn take_down(data: &Path) {
    if data.exists() {
        drop(cli::decnet(
            data,
            &["down", "--data-dir", &data.to_string_lossy()],
        ));
    }
}

/// Where a slot names the hosts of its user.
fn slot_file(number: u16) -> PathBuf {
    PathBuf::from(format!("/tmp/decnet-e2e/slot-{number:02}"))
}

/// Daemons would go on working against whoever removes their objects.
fn kill_children() {
    for task in std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children
            .split_whitespace()
            .filter_map(|id| Pid::from_raw(id.parse().ok()?))
        {
            kill_process(child, Signal::KILL).ok();
        }
    }
}

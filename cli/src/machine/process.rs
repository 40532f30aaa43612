//! Processes that may not be our children: known again without mistake, and ended.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::child::GRACE;
use crate::failure::Failure;

/// The variable by which daemons of ours are found again: it holds the data directory.
pub(crate) const MARK: &str = "DECNET_UP_DIR";
const PAUSE: Duration = Duration::from_millis(50);

/// A process, known by more than a number that the system gives away again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Its binary.
    exe: PathBuf,
    /// When it began, in ticks since the machine did.
    started: u64,
}

impl Process {
    /// The process that has this id; none when there is none, or when it is not ours to see.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self {
            pid,
            exe: undeleted(exe),
            started: start_of(&stat)?,
        })
    }

    /// Whether it still runs.
    pub(crate) fn lives(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    pub(crate) fn file_name(&self) -> Option<&str> {
        self.exe.file_name()?.to_str()
    }

    /// Every process whose environment has `name` set to `value`.
    pub(super) fn marked(name: &str, value: &Path) -> Vec<Self> {
        let mut wanted = name.as_bytes().to_vec();
        wanted.push(b'=');
        wanted.extend(value.as_os_str().as_encoded_bytes());
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| {
                std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                    environment
                        .split(|byte| *byte == 0)
                        .any(|each| each == wanted)
                })
            })
            .filter_map(Self::of)
            .collect()
    }

    /// Asks a child of ours, which is not waited for yet, to end.
    pub(super) fn terminate(pid: u32) -> io::Result<()> {
        Ok(kill_process(raw(pid)?, Signal::TERM)?)
    }

    /// Sends a signal to this process, and to no other that has taken its number since.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        // Open first, compare then: the descriptor stays with whom it was opened for.
        let handle = match pidfd_open(raw(self.pid)?, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            handle => handle?,
        };
        if !self.lives() {
            return Ok(());
        }
        match pidfd_send_signal(handle, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// Asks it to end, and ends it when it does not.
    pub(super) async fn end(&self) -> Result<(), Failure> {
        let failed =
            |error| Failure::new(error).context(format!("could not stop process {}", self.pid));
        self.signal(Signal::TERM).map_err(failed)?;
        if !self.gone_within(GRACE).await {
            self.signal(Signal::KILL).map_err(failed)?;
            if !self.gone_within(GRACE).await {
                return Err(Failure::say(format!(
                    "process {} cannot be killed",
                    self.pid
                )));
            }
        }
        Ok(())
    }

    async fn gone_within(&self, limit: Duration) -> bool {
        let started = Instant::now();
        while self.lives() {
            if started.elapsed() > limit {
                return false;
            }
            tokio::time::sleep(PAUSE).await;
        }
        true
    }
}

fn raw(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the id of a process"))
}

/// A binary that was replaced while it ran is shown with a remark.
fn undeleted(exe: PathBuf) -> PathBuf {
    let plain = exe
        .to_str()
        .and_then(|text| text.strip_suffix(" (deleted)"))
        .map(PathBuf::from);
    plain.unwrap_or(exe)
}

/// The 22nd field; the second, the name, may hold anything, blanks and brackets included.
fn start_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again_and_its_number_alone_is_not_enough() {
        let own = Process::of(std::process::id()).expect("we run");
        assert!(own.lives());
        let earlier = Process {
            started: own.started - 1,
            ..own.clone()
        };
        assert!(!earlier.lives());
        let other = Process {
            exe: "/bin/other".into(),
            ..own
        };
        assert!(!other.lives());
        // The signal would end us.
        other.signal(Signal::KILL).expect("nobody is meant");
    }

    #[test]
    fn a_name_cannot_forge_a_start() {
        let stat = "7 (a) 1 (b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0";
        assert_eq!(start_of(stat), Some(4242));
    }

    #[tokio::test]
    #[allow(clippy::disallowed_methods, reason = "it needs a process to find")]
    async fn a_marked_process_is_found_and_ended() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut child = tokio::process::Command::new("sleep")
            .arg("60")
            .env(MARK, directory.path())
            .kill_on_drop(true)
            .spawn()
            .expect("sleep is everywhere");
        let id = child.id().expect("it runs");
        // Between fork and exec the environment is still ours.
        let started = Instant::now();
        let found = loop {
            let found = Process::marked(MARK, directory.path());
            if !found.is_empty() || started.elapsed() > Duration::from_secs(10) {
                break found;
            }
            tokio::time::sleep(PAUSE).await;
        };
        assert_eq!(
            found.iter().map(|process| process.pid).collect::<Vec<_>>(),
            [id]
        );
        let (ended, status) = tokio::join!(found[0].end(), child.wait());
        ended.expect("it can be ended");
        assert!(!status.expect("ours").success());
    }
}

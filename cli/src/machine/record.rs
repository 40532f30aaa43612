//! `up.json` and `up.lock`: what runs on a data directory, so that the next command finds it after
//! any end of this one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::binaries::Daemon;
use super::make_private;
use super::process::{MARK, Process};
use crate::failure::Failure;

const FILE: &str = "up.json";
const LOCK: &str = "up.lock";
const FLEET: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7443);

/// The right to run daemons on a data directory. The kernel gives it back when we end.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "held, never read")] File);

impl Lock {
    /// Makes the directory and takes it; none while another `up` or `down` has it.
    pub(crate) fn take(directory: &Path) -> Result<Option<Self>, Failure> {
        make_private(directory)?;
        let path = directory.join(LOCK);
        let failed = || format!("could not lock {}", path.display());
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(failed)?,
        }
    }
}

/// What runs, and where it listened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// The `decnet up` itself.
    pub(crate) up: Option<Process>,
    pub(crate) master: Option<Process>,
    pub(crate) agent: Option<Process>,
    /// Where the agent found the master when it joined.
    pub(crate) fleet: Option<SocketAddr>,
    pub(crate) advertise: Option<String>,
}

impl Record {
    /// Reads it; an empty one when there is none, or when it was being written as the power went.
    pub(crate) fn read(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => {
                Err(Failure::new(error).context(format!("could not read {}", path.display())))
            }
        }
    }

    /// Replaces it as a whole.
    pub(super) fn write(&self, directory: &Path) -> Result<(), Failure> {
        let path = directory.join(FILE);
        let new = path.with_extension("json.new");
        let write = || -> anyhow::Result<()> {
            let mut file = OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            Ok(std::fs::rename(&new, &path)?)
        };
        write()
            .with_context(|| format!("could not write {}", path.display()))
            .map_err(Failure::from)
    }

    /// Where the fleet port belongs: as said, else where it was, else the usual place. Port 0 means
    /// any, and where it was is as good as any other.
    pub(super) fn fleet_address(&self, said: Option<SocketAddr>) -> SocketAddr {
        match (said, self.fleet) {
            (Some(said), Some(was)) if said.port() == 0 && said.ip() == was.ip() => was,
            (Some(said), _) => said,
            (None, was) => was.unwrap_or(FLEET),
        }
    }

    /// The daemons that still run on the directory although nobody watches them, agent first.
    pub(super) fn leftovers(&self, directory: &Path) -> Vec<(Daemon, Process)> {
        // A record is written after a start: what was started in between has its mark.
        let marked = Process::marked(MARK, directory);
        let mut found: Vec<(Daemon, Process)> = Vec::new();
        for (daemon, recorded) in [(Daemon::Agent, &self.agent), (Daemon::Master, &self.master)] {
            let named = |process: &&Process| process.file_name() == Some(daemon.file_name());
            let all = recorded
                .iter()
                .filter(|process| process.lives())
                .chain(marked.iter());
            for process in all.filter(named) {
                if found.iter().all(|(_, known)| known != process) {
                    found.push((daemon, process.clone()));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_directory_has_one_owner() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = Lock::take(directory.path())
            .expect("writable")
            .expect("free");
        assert!(Lock::take(directory.path()).expect("writable").is_none());
        drop(first);
        assert!(Lock::take(directory.path()).expect("writable").is_some());
    }

    #[test]
    fn a_record_reads_back_and_a_torn_one_is_empty() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(
            Record::read(directory.path()).expect("none"),
            Record::default()
        );
        let record = Record {
            up: Process::of(std::process::id()),
            fleet: Some(address("127.0.0.1:40123")),
            ..Record::default()
        };
        record.write(directory.path()).expect("writable");
        assert_eq!(Record::read(directory.path()).expect("written"), record);
        std::fs::write(directory.path().join(FILE), b"{\"up\":").expect("writable");
        assert_eq!(
            Record::read(directory.path()).expect("torn"),
            Record::default()
        );
    }

    #[test]
    fn any_port_is_the_port_of_last_time() {
        let record = Record {
            fleet: Some(address("127.0.0.1:40123")),
            ..Record::default()
        };
        assert_eq!(
            record.fleet_address(Some(address("127.0.0.1:0"))),
            address("127.0.0.1:40123")
        );
        assert_eq!(record.fleet_address(None), address("127.0.0.1:40123"));
        assert_eq!(
            record.fleet_address(Some(address("127.0.0.1:9"))),
            address("127.0.0.1:9")
        );
        assert_eq!(Record::default().fleet_address(None), FLEET);
    }

    #[test]
    fn a_process_of_another_name_is_no_leftover() {
        let directory = tempfile::tempdir().expect("a directory");
        let record = Record {
            master: Process::of(std::process::id()),
            ..Record::default()
        };
        assert_eq!(record.leftovers(directory.path()), []);
    }
}

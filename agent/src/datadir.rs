//! The agent's data directory: made private, and worked in by one process at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Where it is unless told otherwise.
pub const DEFAULT: &str = "/var/lib/decnet-agent";

const LOCK: &str = "lock";
const LOCK_AGAIN: Duration = Duration::from_millis(50);

/// A data directory that no other process works in while this value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data directory cannot be worked in.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It is not there and cannot be made.
    #[error("could not make the data directory {}", path.display())]
    Make {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its lock cannot be opened.
    #[error("could not open {}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("another decnet-agent works in {}", path.display())]
    Busy {
        /// Which directory.
        path: PathBuf,
    },
}

impl LockError {
    /// What to do about it: one sentence for the operator.
    pub const fn next_step(&self) -> &'static str {
        match self {
            Self::Make { .. } | Self::Open { .. } => {
                "Run as root, or choose a directory of your own with --data-dir."
            }
            Self::Busy { .. } => {
                "Stop the running agent (systemctl stop decnet-agent), or use another --data-dir."
            }
        }
    }
}

impl DataDir {
    /// Makes the directory if it is missing (mode 0700) and locks it. The lock goes with the
    /// process, however it ends.
    pub fn lock(path: &Path) -> Result<Self, LockError> {
        let path = path.to_owned();
        if let Err(source) = DirBuilder::new().recursive(true).mode(0o700).create(&path) {
            return Err(LockError::Make { path, source });
        }
        let file = path.join(LOCK);
        let opened = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&file);
        let lock = match opened {
            Ok(lock) => lock,
            Err(source) => return Err(LockError::Open { path: file, source }),
        };
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(LockError::Busy { path }),
            Err(TryLockError::Error(source)) => Err(LockError::Open { path: file, source }),
        }
    }

    /// The same, waiting up to `patience` for another process: one that was killed a moment ago
    /// keeps its lock until the kernel has taken it apart.
    pub async fn lock_within(path: &Path, patience: Duration) -> Result<Self, LockError> {
        let deadline = Instant::now() + patience;
        loop {
            match Self::lock(path) {
                Err(LockError::Busy { .. }) if Instant::now() < deadline => sleep(LOCK_AGAIN).await,
                locked => return locked,
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_data_directory_is_private_and_has_one_owner() {
        let parent = tempfile::tempdir().expect("temporary directory");
        let path = parent.path().join("agent");
        let first = DataDir::lock(&path).expect("free");
        let mode = std::fs::metadata(&path)
            .expect("made above")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);

        let refused = DataDir::lock(&path).expect_err("locked above");
        assert!(
            matches!(&refused, LockError::Busy { path: busy } if *busy == path),
            "{refused}"
        );

        drop(first);
        DataDir::lock(&path).expect("free again");
    }
}

//! Leaving: the identity and everything that came with it are removed from this host. Containers
//! are never touched; the master is not told, it has `decnet host rm` for that.

use std::path::Path;
use std::{fs, io};

use domain::assign::Phase;

use crate::datadir::{DataDir, LockError};
use crate::join::PENDING_FILE;
use crate::spool::{self, OpenError, Spool};
use crate::store::{Store, StoreError};

/// The agent's row, in the data directory.
pub const STORE_FILE: &str = "agent.db";

/// Whether to leave although something would be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolve {
    /// Refuse when something would be lost.
    Careful,
    /// Leave whatever is lost.
    Forced,
}

/// Why a host did not leave.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// The data directory cannot be worked in.
    #[error("could not use the data directory")]
    Directory {
        /// Why.
        #[source]
        source: LockError,
    },
    /// The host was told to hold a topology.
    #[error("this host holds a topology ({phase})")]
    Holds {
        /// Where it stands with it.
        phase: Phase,
    },
    /// There is evidence that the master does not have.
    #[error("{events} events have not been sent to the master")]
    Unsent {
        /// How many.
        events: u64,
    },
    /// The row cannot be read.
    #[error("could not read what this host holds")]
    Store {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The spool cannot be read.
    #[error("could not read how much evidence waits")]
    Spool {
        /// Why.
        #[source]
        source: OpenError,
    },
    /// A file cannot be removed.
    #[error("could not remove this host's files")]
    Remove {
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl LeaveError {
    /// What to do about it: one sentence for the operator.
    pub const fn next_step(&self) -> &'static str {
        match self {
            Self::Directory { source } => source.next_step(),
            Self::Holds { .. } => {
                "Run decnet host rm NAME on the master and let the agent run until it is done, or \
                 use --force and remove the containers yourself."
            }
            Self::Unsent { .. } => {
                "Let the agent run until they are sent, or use --force to lose them."
            }
            Self::Store { .. } | Self::Spool { .. } => "Use --force to leave without looking.",
            Self::Remove { .. } => "Remove the data directory yourself.",
        }
    }
}

/// Removes the identity; answers whether there was one.
pub async fn leave(data: &Path, resolve: Resolve) -> Result<bool, LeaveError> {
    let data = DataDir::lock(data).map_err(|source| LeaveError::Directory { source })?;
    if resolve == Resolve::Careful {
        check(data.path()).await?;
    }
    let failed = |source| LeaveError::Remove { source };
    // The identity first: half done, the host has left and the same command does the rest.
    let was_joined = remove_where(data.path(), is_identity).map_err(failed)?;
    remove_assignment(data.path()).map_err(failed)?;
    remove_where(data.path(), |name| name.starts_with(spool::FILE)).map_err(failed)?;
    Ok(was_joined)
}

async fn check(data: &Path) -> Result<(), LeaveError> {
    let row = Store::peek(&data.join(STORE_FILE)).await;
    let phase = row
        .map_err(|source| LeaveError::Store { source })?
        .map(|row| row.phase());
    if let Some(phase) = phase.filter(|phase| *phase != Phase::Idle) {
        return Err(LeaveError::Holds { phase });
    }
    let figures = Spool::peek(data)
        .await
        .map_err(|source| LeaveError::Spool { source })?;
    match figures.map_or(0, |figures| figures.events) {
        0 => Ok(()),
        events => Err(LeaveError::Unsent { events }),
    }
}

/// Removes what the host was assigned, its fence included.
pub(crate) fn remove_assignment(data: &Path) -> io::Result<()> {
    remove_where(data, |name| name.starts_with(STORE_FILE)).map(drop)
}

fn is_identity(name: &str) -> bool {
    name.starts_with("identity") || name == "link.json" || name == PENDING_FILE
}

fn remove_where(directory: &Path, is_it: impl Fn(&str) -> bool) -> io::Result<bool> {
    let mut any = false;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&is_it) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
            any = true;
        }
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn leaving_removes_the_identity_and_leaves_strange_files_alone() {
        let data = tempfile::tempdir().expect("temporary directory");
        let names = [
            "identity.current",
            "identity-00.key",
            "link.json",
            "join.pending",
            "notes.txt",
        ];
        for name in names {
            fs::write(data.path().join(name), b"x").expect("writable");
        }
        assert!(
            leave(data.path(), Resolve::Careful)
                .await
                .expect("nothing is lost")
        );
        let mut left: Vec<_> = fs::read_dir(data.path())
            .expect("readable")
            .map(|entry| entry.expect("readable").file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["lock", "notes.txt"]);
        assert!(
            !leave(data.path(), Resolve::Careful)
                .await
                .expect("nothing is there")
        );
    }
}

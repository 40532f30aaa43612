//! Where the daemons' binaries are: together, beside our own or where `DECNET_BIN_DIR` says.

use std::fmt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::failure::Failure;

/// A binary that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Daemon {
    Master,
    Agent,
    Decky,
}

impl Daemon {
    pub(crate) const ALL: [Self; 3] = [Self::Master, Self::Agent, Self::Decky];

    pub(crate) const fn file_name(self) -> &'static str {
        match self {
            Self::Master => "decnet-master",
            Self::Agent => "decnet-agent",
            Self::Decky => "decnet-decky",
        }
    }

    /// The stem of its log.
    pub(crate) const fn log_name(self) -> &'static str {
        match self {
            Self::Master => "master.log",
            Self::Agent => "agent.log",
            Self::Decky => "decky.log",
        }
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.file_name())
    }
}

/// The directory that holds them.
#[derive(Debug, Clone)]
pub(crate) struct Binaries(PathBuf);

impl Binaries {
    /// Names the directory; nothing is looked for.
    pub(crate) fn new(said: Option<&Path>) -> Self {
        let beside = || {
            let own = std::env::current_exe().ok()?;
            own.parent().map(Path::to_path_buf)
        };
        Self(
            said.map(Path::to_path_buf)
                .or_else(beside)
                .unwrap_or_default(),
        )
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }

    pub(crate) fn path(&self, daemon: Daemon) -> PathBuf {
        self.0.join(daemon.file_name())
    }

    /// A command line of one of them, to be filled in.
    #[allow(
        clippy::disallowed_methods,
        reason = "running the daemons is what `up` is for"
    )]
    pub(crate) fn command(&self, daemon: Daemon) -> Command {
        Command::new(self.path(daemon))
    }

    /// Fails unless all of them are there.
    pub(crate) fn require(self) -> Result<Self, Failure> {
        let missing: Vec<_> = Daemon::ALL
            .into_iter()
            .filter(|daemon| !self.path(*daemon).is_file())
            .map(Daemon::file_name)
            .collect();
        if missing.is_empty() {
            return Ok(self);
        }
        let (names, place) = (missing.join(", "), self.0.display().to_string());
        Err(Failure::say(format!("{names} not found in {place}")).next(
            "install them beside `decnet`, or say where they are with DECNET_BIN_DIR; in the \
             sources, `make up` builds them",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_binaries_are_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let binaries = Binaries::new(Some(directory.path()));
        std::fs::write(binaries.path(Daemon::Agent), b"").expect("writable");
        let text = binaries
            .require()
            .expect_err("two are missing")
            .lines()
            .join("\n");
        assert!(
            text.contains("decnet-master, decnet-decky not found"),
            "{text}"
        );
        assert!(text.contains("DECNET_BIN_DIR"), "{text}");
    }
}

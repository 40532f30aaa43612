//! A daemon as a child process: started apart from our terminal, watched, stopped in time.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::binaries::{Binaries, Daemon};
use super::make_private;
use super::process::{MARK, Process};
use crate::failure::Failure;
use crate::safe::safe;

/// How long a daemon may take to end before it is killed.
pub(super) const GRACE: Duration = Duration::from_secs(15);
/// A log longer than this is put aside when its daemon starts.
const MAX_LOG: u64 = 16 * 1024 * 1024;
/// How much of a log is shown when its daemon has died.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 16 * 1024;

#[derive(Debug)]
pub(super) struct Child {
    daemon: Daemon,
    child: tokio::process::Child,
    log: PathBuf,
    /// Where this life's lines begin in the log.
    log_start: u64,
}

impl Child {
    pub(super) fn start(
        binaries: &Binaries,
        daemon: Daemon,
        arguments: &[String],
        directory: &Path,
    ) -> Result<Self, Failure> {
        let (log, file, log_start) = open_log(daemon, directory)?;
        let also = file.try_clone().context("could not share the log")?;
        let child = command(binaries, daemon, directory)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(also)
            // Ctrl-C in a terminal goes to the whole group; the daemons are needed for teardown.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("could not start {daemon}"))?;
        Ok(Self {
            daemon,
            child,
            log,
            log_start,
        })
    }

    pub(super) fn process(&self) -> Option<Process> {
        self.child.id().and_then(Process::of)
    }

    /// Fails when it has ended, with its last lines.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        match self
            .child
            .try_wait()
            .with_context(|| format!("could not watch {}", self.daemon))?
        {
            None => Ok(()),
            Some(status) => Err(self.death(status)),
        }
    }

    fn death(&self, status: ExitStatus) -> Failure {
        let tail = tail(&self.log, self.log_start).unwrap_or_default();
        Failure::say(format!("{} has ended ({status})", self.daemon))
            .lines_after(tail)
            .next(format!("read {}", self.log.display()))
    }

    /// Asks it to end, and ends it when it does not.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        let daemon = self.daemon;
        let failed = || format!("could not stop {daemon}");
        // Until it is waited for, its id cannot be another's.
        if let Some(process) = self.child.id() {
            Process::terminate(process).with_context(failed)?;
        }
        match tokio::time::timeout(GRACE, self.child.wait()).await {
            Ok(status) => {
                status.with_context(failed)?;
            }
            Err(_) => self.child.kill().await.with_context(failed)?,
        }
        Ok(())
    }
}

fn command(binaries: &Binaries, daemon: Daemon, directory: &Path) -> Command {
    let mut command = binaries.command(daemon);
    // The operator's token is none of theirs.
    command
        .env_remove("DECNET_TOKEN")
        .env_remove("DECNET_DATA_DIR")
        .env(MARK, directory);
    command
}

/// Runs a daemon's command to its end, with a secret on its standard input.
pub(super) async fn run(
    binaries: &Binaries,
    daemon: Daemon,
    arguments: &[&str],
    input: &str,
    directory: &Path,
) -> Result<(), Failure> {
    let verb = arguments.first().copied().unwrap_or_default();
    let failed = || format!("could not run {daemon} {verb}");
    let mut child = command(binaries, daemon, directory)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading says why by itself.
        stdin.write_all(input.as_bytes()).await.ok();
    }
    let output = child.wait_with_output().await.with_context(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().map(|line| safe(line).into_owned()).collect();
    Err(Failure::say(format!("{daemon} {verb} failed ({})", output.status)).lines_after(lines))
}

fn open_log(daemon: Daemon, directory: &Path) -> Result<(PathBuf, File, u64), Failure> {
    let logs = directory.join("logs");
    make_private(&logs)?;
    let path = logs.join(daemon.log_name());
    let length = std::fs::metadata(&path).map_or(0, |found| found.len());
    if length > MAX_LOG {
        std::fs::rename(&path, path.with_extension("log.1"))
            .with_context(|| format!("could not put {} aside", path.display()))?;
    }
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("could not open {}", path.display()))?;
    Ok((path, file, if length > MAX_LOG { 0 } else { length }))
}

/// The last lines of a log, from `start` on.
fn tail(path: &Path, start: u64) -> std::io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(start.max(end.saturating_sub(TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().map(|line| safe(line).into_owned()).collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_of_this_life_and_safe() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("master.log");
        let old = "old\n".repeat(3);
        std::fs::write(&path, format!("{old}new\n\x1b[31mred\n")).expect("writable");
        let start = u64::try_from(old.len()).expect("short");
        assert_eq!(
            tail(&path, start).expect("readable"),
            ["new", "\\u{1b}[31mred"]
        );
    }

    #[test]
    fn a_long_tail_is_cut_to_its_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("agent.log");
        let text: String = (0..100_000)
            .map(|number| format!("line {number}\n"))
            .collect();
        std::fs::write(&path, text).expect("writable");
        let lines = tail(&path, 0).expect("readable");
        assert_eq!(lines.len(), TAIL_LINES);
        assert_eq!(lines.last().map(String::as_str), Some("line 99999"));
    }

    #[tokio::test]
    async fn a_daemon_that_ends_says_its_last_words() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        let binaries = Binaries::new(Some(directory.path()));
        let path = binaries.path(Daemon::Master);
        std::fs::write(&path, "#!/bin/sh\necho address in use >&2\nexit 3\n").expect("writable");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("ours");
        let mut child =
            Child::start(&binaries, Daemon::Master, &[], directory.path()).expect("a script");
        child.child.wait().await.expect("ours");
        let text = child.check().expect_err("it has ended").lines().join("\n");
        assert!(
            text.contains("decnet-master has ended (exit status: 3)"),
            "{text}"
        );
        assert!(text.contains("address in use"), "{text}");
    }
}

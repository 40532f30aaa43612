//! The programs that this engine starts: runc, nft and iptables, and how each is bounded.
//!
//! No shell, nothing secret in arguments, no environment of ours, a time limit, and no more of what
//! it says is read than an error text needs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::engine::{EngineError, EngineErrorKind};

/// Most bytes that are read of what a program complains of.
const MOST: u64 = 256 * 1024;
/// Where Debian and its like have them; the path of the agent's own environment is not asked.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a program ended, and what it complained of.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) complaint: String,
}

/// What a program said when it failed.
#[derive(Debug, thiserror::Error)]
#[error("{program} ended with {status}: {said}")]
pub(super) struct Failed {
    program: &'static str,
    status: ExitStatus,
    said: String,
}

/// Runs a program to its end, with something to read.
pub(super) async fn run(
    program: &'static str,
    arguments: &[&str],
    input: &str,
    limit: Duration,
) -> Result<Ended, EngineError> {
    let mut command = command(program, arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let work = async {
        let mut child = start(program, &mut command)?;
        let gone = |source| unreachable_program(program, source);
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // One that ends without having read it says why.
                stdin.write_all(input.as_bytes()).await.ok();
            }
        };
        let mut complaint = Vec::new();
        let hear = async {
            if let Some(stderr) = stderr {
                stderr.take(MOST).read_to_end(&mut complaint).await.ok();
            }
        };
        tokio::join!(write, hear);
        let status = child.wait().await.map_err(gone)?;
        Ok(Ended {
            status,
            complaint: String::from_utf8_lossy(&complaint).into_owned(),
        })
    };
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(too_slow(program)))
}

/// Runs a program whose standard output becomes that of the process that it leaves behind. What it
/// has to say it writes into a log of its own.
pub(super) async fn launch(
    program: &'static str,
    arguments: &[&str],
    output: File,
    limit: Duration,
) -> Result<ExitStatus, EngineError> {
    let mut command = command(program, arguments);
    command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::null());
    let work = async {
        let mut child = start(program, &mut command)?;
        child
            .wait()
            .await
            .map_err(|source| unreachable_program(program, source))
    };
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(too_slow(program)))
}

#[allow(
    clippy::disallowed_methods,
    reason = "containers are made by the OCI runtime and rules are loaded by nft, both programs; \
              this is the one place of the engine that starts any"
)]
fn command(program: &'static str, arguments: &[&str]) -> Command {
    let mut command = Command::new(found(program));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        // What ends by a time limit, or with the step that asked for it, is not left behind.
        .kill_on_drop(true);
    command
}

/// Where a program is. By its path it is started without a copy of this process being made first.
fn found(program: &'static str) -> PathBuf {
    PATH.split(':')
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.exists())
        // The failure to start it says which program is missing.
        .unwrap_or_else(|| program.into())
}

fn start(program: &'static str, command: &mut Command) -> Result<Child, EngineError> {
    command
        .spawn()
        .map_err(|source| unreachable_program(program, source))
}

fn unreachable_program(program: &'static str, source: std::io::Error) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Unreachable,
        attempt: format!("could not run {program} (Debian's packages runc, nftables, iptables)"),
        source: Some(Box::new(source)),
    }
}

fn too_slow(program: &'static str) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Timeout,
        attempt: format!("{program} did not end in time"),
        source: None,
    }
}

impl Failed {
    /// With the last line of what was said: programs in Go and C put the cause there.
    pub(super) fn new(program: &'static str, status: ExitStatus, said: &str) -> Self {
        let last = said
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default();
        Self {
            program,
            status,
            said: last.chars().take(500).collect(),
        }
    }
}

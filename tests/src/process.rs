//! Real processes: started with a log, ended by their id, never left behind.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::patience::{Look, eventually};

/// Where the binaries under test are: `DECNET_BIN_DIR`, or where `scripts/build.sh test` puts them.
pub fn binaries() -> PathBuf {
    std::env::var_os("DECNET_BIN_DIR")
        .map_or_else(|| repository().join("target/e2e"), PathBuf::from)
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(|| PathBuf::from(".."), Path::to_path_buf)
}

/// A binary under test.
pub fn binary(name: &str) -> Result<PathBuf> {
    let path = binaries().join(name);
    if !path.is_file() {
        bail!("{} is missing: run `scripts/build.sh test`", path.display());
    }
    Ok(path)
}

/// A daemon under test. It dies with the thread that started it, whatever becomes of that.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a binary under test; its output is appended to `log`.
    pub fn start(
        name: &str,
        arguments: &[String],
        environment: &[(String, String)],
        log: &Path,
    ) -> Result<Self> {
        let path = binary(name)?;
        let output = append(log)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&path)
            .args(arguments)
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .env(
                "RUST_LOG",
                std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned()),
            )
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("could not start {}", path.display()))?;
        let mut daemon = Self {
            name: name.to_owned(),
            child,
            log: log.to_path_buf(),
        };
        daemon.await_handlers()?;
        Ok(daemon)
    }

    /// Waits until it takes SIGTERM itself, or has ended: a signal before that would be its end.
    fn await_handlers(&mut self) -> Result<()> {
        let status = format!("/proc/{}/status", self.id());
        eventually(
            &format!("{} with its signal handlers", self.name),
            Duration::from_secs(20),
            || {
                if !self.is_running() {
                    return Ok(Look::Seen(()));
                }
                let text = std::fs::read_to_string(&status).unwrap_or_default();
                let caught = text
                    .lines()
                    .find_map(|line| line.strip_prefix("SigCgt:"))
                    .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
                    .unwrap_or_default();
                // Signal n is bit n - 1 (proc(5)); SIGTERM is 15.
                Ok(if caught & (1 << 14) == 0 {
                    Look::NotYet(format!("{caught:x} caught"))
                } else {
                    Look::Seen(())
                })
            },
        )
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let raw = i32::try_from(self.child.id())?;
        let pid = Pid::from_raw(raw).context("a process has an id above 0")?;
        kill_process(pid, signal)?;
        Ok(())
    }

    /// Asks it to end and waits until it has.
    pub fn stop(mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(within)
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        eventually(&format!("the end of {name}"), within, || {
            Ok(match self.child.try_wait()? {
                Some(status) => Look::Seen(status),
                None => Look::NotYet("that it runs".to_owned()),
            })
        })
    }

    /// Its resident memory in KiB.
    pub fn rss_kib(&self) -> Result<u64> {
        rss_kib(self.id())
    }

    /// Its processor time in milliseconds.
    pub fn cpu_millis(&self) -> Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks: u64 = fields
            .get(11..13)
            .context("/proc/PID/stat has user and system time")?
            .iter()
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        // 100 ticks a second on every Linux that this runs on.
        Ok(ticks * 10)
    }
}

/// Resident memory of a process in KiB.
pub fn rss_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse().ok())
        .context("/proc/PID/status has VmRSS")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended: both then fail, as they should.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Opens a log for appending.
pub fn append(log: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("could not open {}", log.display()))
}

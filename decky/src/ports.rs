//! Waits until the decky may open ports: until whoever wired its network has said that it is shut
//! in.
//!
//! The word is a kernel setting of the network namespace. A namespace that is new has the kernel's
//! own value, so a decky that somebody restarts behind the agent's back waits, too: what cannot be
//! read, or reads anything else, is closed.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::wiring::GATE;
use tokio::time::{Instant, sleep};

/// Where the kernel's settings are.
const SETTINGS: &str = "/proc/sys";

/// How the gate is looked at while it is closed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Before the second look; doubled with each that follows.
    pub(crate) first: Duration,
    /// Between looks at most.
    pub(crate) last: Duration,
    /// After this long it is worth a line.
    pub(crate) silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(1),
            last: Duration::from_millis(25),
            silence: Duration::from_secs(60),
        }
    }
}

/// The gate of the decky's network namespace.
#[derive(Debug, Clone)]
pub(crate) struct PortGate {
    path: PathBuf,
    patience: Patience,
}

impl PortGate {
    /// The gate of the namespace in which this process runs.
    pub(crate) fn of_this_namespace() -> Self {
        // The first port that needs no privilege: 1024 in a new namespace, 0 in one that is wired.
        let setting = Path::new(SETTINGS).join(GATE.replace('.', "/"));
        Self::at(setting, Patience::default())
    }

    /// A gate that is the file `path`.
    pub(crate) fn at(path: impl Into<PathBuf>, patience: Patience) -> Self {
        Self {
            path: path.into(),
            patience,
        }
    }

    /// Whether ports may be opened.
    pub(crate) fn is_open(&self) -> bool {
        let mut text = [0_u8; 16];
        let read = std::fs::File::open(&self.path).and_then(|mut setting| setting.read(&mut text));
        read.is_ok_and(|length| text[..length].trim_ascii() == b"0")
    }

    /// Returns as soon as ports may be opened. Calls `long` once when that takes long.
    pub(crate) async fn opened(&self, long: impl AsyncFnOnce()) {
        let since = Instant::now();
        let mut long = Some(long);
        let mut pause = self.patience.first;
        while !self.is_open() {
            if since.elapsed() >= self.patience.silence
                && let Some(long) = long.take()
            {
                long().await;
            }
            sleep(pause).await;
            pause = (pause * 2).min(self.patience.last);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    /// A gate in `directory` that is open.
    pub(crate) fn open_gate(directory: &Path) -> PortGate {
        let gate = gate(directory);
        set(&gate, "0\n");
        gate
    }

    fn gate(directory: &Path) -> PortGate {
        let patience = Patience {
            first: Duration::from_millis(1),
            last: Duration::from_millis(4),
            silence: Duration::from_millis(20),
        };
        PortGate::at(directory.join("ip_unprivileged_port_start"), patience)
    }

    /// What the kernel would show.
    pub(crate) fn set(gate: &PortGate, text: &str) {
        std::fs::write(&gate.path, text).expect("the directory is ours");
    }

    #[test]
    fn the_gate_of_this_namespace_is_a_setting_of_its_kernel() {
        let gate = PortGate::of_this_namespace();
        assert_eq!(
            gate.path,
            Path::new("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        );
        assert!(gate.path.exists());
    }

    #[test]
    fn only_a_zero_is_open() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let gate = gate(directory.path());
        assert!(!gate.is_open(), "what is not there is closed");
        for closed in ["1024\n", "", "\n", "00\n", "0 0\n", "80", "-0"] {
            set(&gate, closed);
            assert!(!gate.is_open(), "{closed:?}");
        }
        for open in ["0\n", "0"] {
            set(&gate, open);
            assert!(gate.is_open(), "{open:?}");
        }
    }

    #[tokio::test]
    async fn a_long_wait_is_said_once_and_goes_on() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let gate = gate(directory.path());
        set(&gate, "1024\n");
        let said = Cell::new(0);
        let waiting = gate.opened(async || said.set(said.get() + 1));
        let opening = async {
            while said.get() == 0 {
                tokio::task::yield_now().await;
            }
            // Longer than it took until it was said.
            tokio::time::sleep(Duration::from_millis(40)).await;
            assert_eq!(said.get(), 1);
            set(&gate, "0\n");
        };
        tokio::join!(waiting, opening);
        assert_eq!(said.get(), 1);
    }

    #[tokio::test]
    async fn a_gate_that_is_open_is_passed_at_once_and_in_silence() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let gate = open_gate(directory.path());
        gate.opened(async || panic!("nothing to say")).await;
    }
}

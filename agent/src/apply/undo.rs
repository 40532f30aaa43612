//! Taking back what a failed attempt made, last first. A failure here is logged and never hides
//! the one that led here.

use std::sync::atomic::{AtomicBool, Ordering};

use domain::id::DeckyId;
use domain::name::{DeckyName, LanName};
use domain::observe::Handle;

use super::attempt::Attempt;
use crate::chain::Chain;
use crate::engine::{EngineError, EngineErrorKind};

/// What an attempt has made, and how it is taken back.
#[derive(Debug)]
pub(super) enum Undo {
    /// Remove the network.
    Lan { handle: Handle, name: LanName },
    /// Remove the container.
    Decky { handle: Handle, name: DeckyName },
    /// Take the container off the network.
    Connection { handle: Handle, network: Handle },
    /// Give the decky the configuration that it had.
    Configuration { handle: Handle, decky: DeckyId },
    /// Wire the decky as it was.
    Wiring { handle: Handle, decky: DeckyId },
}

impl Attempt {
    pub(super) async fn undo(&self, made: Vec<Undo>) {
        let away = AtomicBool::new(false);
        // LANs were made first and can only go when nothing is on them.
        let (lans, others): (Vec<_>, Vec<_>) = made
            .into_iter()
            .rev()
            .partition(|undo| matches!(undo, Undo::Lan { .. }));
        for group in [others, lans] {
            self.all(group.into_iter().map(|undo| self.take_back(undo, &away)))
                .await;
        }
    }

    async fn take_back(&self, undo: Undo, away: &AtomicBool) {
        if away.load(Ordering::Relaxed) {
            return;
        }
        let (result, object) = match undo {
            Undo::Lan { handle, name } => {
                (self.engine.remove_lan(&handle).await, format!("lan {name}"))
            }
            Undo::Decky { handle, name } => (
                self.engine.remove_decky(&handle).await,
                format!("decky {name}"),
            ),
            Undo::Connection { handle, network } => (
                self.engine.disconnect(&handle, &network).await,
                format!("connection of {handle}"),
            ),
            Undo::Configuration { handle, decky } => (
                self.restore(&handle, decky).await,
                format!("configuration of {decky}"),
            ),
            Undo::Wiring { handle, decky } => (
                self.rewire(&handle, decky).await,
                format!("wiring of {decky}"),
            ),
        };
        if let Err(error) = result {
            if matches!(
                error.kind,
                EngineErrorKind::Unreachable | EngineErrorKind::Timeout
            ) {
                // Each other call would fail in the same way, after the same wait. What is there
                // is adopted or removed when the engine is back.
                away.store(true, Ordering::Relaxed);
            }
            tracing::warn!(object, error = %Chain(&error), "could not take back what was made");
        }
    }

    async fn rewire(&self, handle: &Handle, decky: DeckyId) -> Result<(), EngineError> {
        match self.before.as_ref().and_then(|before| before.wiring(decky)) {
            Some(wiring) => self.engine.rewire(handle, wiring).await,
            None => Ok(()),
        }
    }

    async fn restore(&self, handle: &Handle, decky: DeckyId) -> Result<(), EngineError> {
        match self.before.as_ref().and_then(|before| before.decky(decky)) {
            Some((decky, config)) => self.engine.configure(handle, decky, config).await,
            None => Ok(()),
        }
    }
}

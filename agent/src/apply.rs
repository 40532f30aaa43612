//! Carries out assignments: fence, then row, then engine, then report.
//!
//! One actor owns the row and the engine. It repairs nothing by itself: it reports what differs,
//! and the master offers the same assignment again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::assign::HostReport;
use domain::id::{DeckyId, TopologyId};
use domain::observe::{Handle, Inventory, RunState};
use domain::revision::Fence;
use domain::topology::hydrate::VersionHash;
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};

use self::actor::{Actor, Command};
use crate::engine::Engine;
use crate::engine::liveness::LivenessBoard;
use crate::guard::Guard;
use crate::store::{Store, StoreError};

mod actor;
mod attempt;
pub mod error;
mod pace;
mod phases;
mod pool;
mod told;
mod undo;
mod wanted;

/// Offers that may wait; the actor answers at once, so that more is a master gone mad.
const COMMANDS: usize = 64;

/// The time, as a parameter.
pub type Clock = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

/// An assignment as the master sends it.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its place in the order of assignments.
    pub fence: Fence,
    /// The topology with its hash and hydrated document; none to hold nothing.
    pub topology: Option<(TopologyId, VersionHash, Bytes)>,
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Of which assignment.
    pub fence: Fence,
    /// Steps taken.
    pub done: u32,
    /// Steps known.
    pub total: u32,
}

/// A container whose output is evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// Which decky it is.
    pub decky: DeckyId,
    /// Of which topology.
    pub topology: TopologyId,
    /// The engine's name for it.
    pub handle: Handle,
    /// Whether it ran when it was last seen.
    pub running: bool,
}

impl Followed {
    fn of(inventory: &Inventory) -> Arc<Vec<Self>> {
        let followed = inventory.deckies.iter().map(|decky| Self {
            decky: decky.id,
            topology: decky.topology,
            handle: decky.handle.clone(),
            running: decky.state == RunState::Running,
        });
        Arc::new(followed.collect())
    }
}

/// What may be tuned.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Deckies that are made or removed at once to begin with; the engine's speed decides from
    /// there.
    pub deckies_at_once: usize,
    /// LANs that are made or removed at once.
    pub lans_at_once: usize,
    /// How long hints are gathered before the engine is asked what changed.
    pub gather: Duration,
    /// How often the engine is asked when nothing hints at a change.
    pub period: Duration,
    /// How long a decky may take to say that it runs with its new configuration.
    pub configuration_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // From 4 on the daemon of two processors is hardly faster; wiring waits for the kernel
            // meanwhile.
            deckies_at_once: 6,
            lans_at_once: 4,
            gather: Duration::from_millis(10),
            period: Duration::from_secs(60),
            configuration_within: Duration::from_secs(5),
        }
    }
}

/// What an applier works with.
pub struct Applier {
    /// Makes the objects.
    pub engine: Arc<dyn Engine>,
    /// Keeps the row.
    pub store: Store,
    /// Knows which configurations are in force.
    pub board: LivenessBoard,
    /// Tells the time.
    pub clock: Clock,
    /// What may be tuned.
    pub settings: Settings,
    /// Refuses to make more than the host can bear.
    pub guard: Guard,
}

impl Applier {
    /// Loads the row and reports it. Nothing is asked of the engine before the handle is asked to
    /// observe or offered something. The future is the actor: whoever started it polls it.
    pub async fn start(
        self,
    ) -> Result<(ApplierHandle, impl Future<Output = ()> + Send + 'static), StoreError> {
        let row = self.store.load().await?;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let actor = Actor::new(self, row, inbox);
        let handle = ApplierHandle {
            commands,
            reports: actor.reports(),
            progress: actor.progress(),
            following: actor.following(),
        };
        Ok((handle, actor.run()))
    }
}

/// The applier has ended: the agent is going down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the applier has ended")]
pub struct ApplierEnded;

/// How others speak with an applier. It ends when the last handle is gone.
#[derive(Debug, Clone)]
pub struct ApplierHandle {
    commands: mpsc::Sender<Command>,
    reports: watch::Receiver<Arc<HostReport>>,
    progress: watch::Receiver<Option<Progress>>,
    following: watch::Receiver<Arc<Vec<Followed>>>,
}

impl ApplierHandle {
    /// Offers an assignment. What becomes of it is reported, a refusal too.
    pub async fn offer(&self, offer: Offer) -> Result<(), ApplierEnded> {
        self.send(Command::Offer(offer)).await
    }

    /// Sets the newest fence that the master says this host was ever given.
    pub async fn set_floor(&self, floor: Fence) -> Result<(), ApplierEnded> {
        self.send(Command::Floor(floor)).await
    }

    /// Asks the engine what is there, and reports it. From the first call on, changes are watched.
    pub async fn observe(&self) -> Result<(), ApplierEnded> {
        self.send(Command::Observe).await
    }

    /// The report, as it changes.
    pub fn reports(&self) -> watch::Receiver<Arc<HostReport>> {
        self.reports.clone()
    }

    /// How far the running attempt is; none when none runs.
    pub fn progress(&self) -> watch::Receiver<Option<Progress>> {
        self.progress.clone()
    }

    /// Whose output is to be followed.
    pub fn following(&self) -> watch::Receiver<Arc<Vec<Followed>>> {
        self.following.clone()
    }

    async fn send(&self, command: Command) -> Result<(), ApplierEnded> {
        self.commands.send(command).await.map_err(|_| ApplierEnded)
    }
}

#[cfg(test)]
mod tests;

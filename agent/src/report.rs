//! What the link needs of the applier, and nothing more: so that it is tested against a scripted
//! one.

use std::sync::Arc;

use async_trait::async_trait;
use domain::assign::HostReport;
use domain::revision::Fence;
use tokio::sync::watch;

use crate::apply::{ApplierEnded, ApplierHandle, Offer, Progress};

/// Who obeys. Answers at once; what becomes of a command is in the reports.
#[async_trait]
pub trait Obey: Send + Sync {
    /// Hands on an assignment.
    async fn offer(&self, offer: Offer);

    /// Hands on the floor: nothing below it is to be obeyed.
    async fn set_floor(&self, floor: Fence);

    /// Asks for a look at the engine.
    async fn observe(&self);

    /// The newest report, and its changes.
    fn reports(&self) -> watch::Receiver<Arc<HostReport>>;

    /// How far the running attempt is, if one runs.
    fn progress(&self) -> watch::Receiver<Option<Progress>>;
}

#[async_trait]
impl Obey for ApplierHandle {
    async fn offer(&self, offer: Offer) {
        note(self.offer(offer).await);
    }

    async fn set_floor(&self, floor: Fence) {
        note(self.set_floor(floor).await);
    }

    async fn observe(&self) {
        note(self.observe().await);
    }

    fn reports(&self) -> watch::Receiver<Arc<HostReport>> {
        self.reports()
    }

    fn progress(&self) -> watch::Receiver<Option<Progress>> {
        self.progress()
    }
}

/// An applier that has ended takes the agent down with it; the link has nothing to add.
fn note(told: Result<(), ApplierEnded>) {
    if let Err(error) = told {
        tracing::debug!(%error, "a command came too late");
    }
}

//! What the link and the collector need of the applier, and nothing more: so that both are tested
//! against a scripted one.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use domain::assign::HostReport;
use domain::id::TopologyId;
use domain::revision::Fence;
use domain::topology::hydrate::VersionHash;
use tokio::sync::watch;

/// How far an operation is. Never a ground for a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Steps {
    /// Of which assignment.
    pub fence: Fence,
    /// Steps done.
    pub done: u32,
    /// Steps in all.
    pub total: u32,
}

/// An assignment as it came from the master; whether it is obeyed is the applier's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// Its place in the order of assignments.
    pub fence: Fence,
    /// What to hold: the topology, the hash, the document. None for nothing.
    pub content: Option<(TopologyId, VersionHash, Bytes)>,
}

/// Who obeys.
#[async_trait]
pub trait Obey: Send + Sync {
    /// Hands on an assignment. Answers at once; what becomes of it is in the reports.
    async fn offer(&self, assigned: Assigned);

    /// Hands on the floor: nothing below it is to be obeyed.
    async fn set_floor(&self, floor: Fence);

    /// Asks for a look at the engine. What it shows is in the reports.
    async fn observe(&self);

    /// The newest report, and its changes.
    fn reports(&self) -> watch::Receiver<Arc<HostReport>>;

    /// How far the running operation is, if one runs.
    fn progress(&self) -> watch::Receiver<Option<Steps>>;
}

/// A container whose output is evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The decky, from the container's label.
    pub decky: domain::id::DeckyId,
    /// Its topology, from the container's label.
    pub topology: TopologyId,
    /// The container.
    pub handle: domain::observe::Handle,
}

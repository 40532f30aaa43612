//! The engine: what makes networks and containers, behind one trait with one conformance suite.
//!
//! An engine knows our labels and nothing of fences, plans or masters. Every object that it makes
//! carries the labels of [`label`]; it never removes an object that lacks this host's.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use domain::id::TopologyId;
use domain::observe::{Handle, Inventory};
use domain::revision::Generation;
use domain::topology::hydrate::{HydratedDecky, HydratedInterface, HydratedLan};
use domain::wiring::Wiring;
use futures_util::stream::BoxStream;
use time::OffsetDateTime;

#[cfg(any(test, feature = "fake"))]
pub mod conformance;
pub mod docker;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod files;
mod image;
pub mod liveness;
pub mod name;
pub mod native;
mod parent;
#[cfg(any(test, feature = "fake"))]
pub mod sample;
#[cfg(test)]
pub(crate) mod slot;
mod subnet;
pub mod usage;

/// Who uses a subnet to which the host has a route by an interface.
pub fn route_user(interface: impl fmt::Display) -> String {
    format!("a route of this host by {interface}")
}

/// Label keys, fixed when an object is made.
pub mod label {
    /// UUID of the host that owns the object. Two agents may share one daemon.
    pub const HOST: &str = "decnet.host.id";
    /// UUID of the topology.
    pub const TOPOLOGY: &str = "decnet.topology.id";
    /// UUID of the LAN, on networks.
    pub const LAN: &str = "decnet.topology.lan";
    /// UUID of the decky, on containers.
    pub const DECKY: &str = "decnet.topology.decky";
    /// `base` on the container that is the decky.
    pub const ROLE: &str = "decnet.topology.role";
    /// `true` on containers whose standard output is evidence.
    pub const SERVICE: &str = "decnet.topology.service";
    /// Generation in which the object was made.
    pub const GENERATION: &str = "decnet.generation";
    /// Digest of the object's own spec.
    pub const SPEC: &str = "decnet.spec";
    /// Hops from the DMZ, on networks.
    pub const DEPTH: &str = "decnet.topology.depth";
}

/// Of which assignment an object is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The topology.
    pub topology: TopologyId,
    /// The generation, for the label.
    pub generation: Generation,
}

/// A decky that is to be made: connected to every LAN, not yet started.
#[derive(Debug, Clone)]
pub struct NewDecky<'a> {
    /// Of which assignment.
    pub origin: Origin,
    /// The decky.
    pub decky: &'a HydratedDecky,
    /// The network of each of its interfaces, in their order.
    pub networks: Vec<(Handle, HydratedInterface)>,
    /// The bytes of its configuration file.
    pub config: &'a [u8],
    /// What its network namespace is to look like once it runs.
    pub wiring: &'a Wiring,
}

/// Why an engine could not do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EngineErrorKind {
    /// It does not answer at all.
    Unreachable,
    /// It did not answer in time.
    Timeout,
    /// The subnet overlaps one in use.
    SubnetInUse,
    /// The port of the host is taken.
    PortTaken,
    /// The image is missing and cannot be made.
    ImageMissing,
    /// The object is not there (any more).
    NotFound,
    /// The agent's own disk failed.
    Disk,
    /// It refused for another reason.
    Refused,
}

/// An engine's refusal, with what was attempted.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}")]
pub struct EngineError {
    /// Which kind.
    pub kind: EngineErrorKind,
    /// What was attempted, with its subject.
    pub attempt: String,
    /// What the engine said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A hint that something of ours may have changed: the inventory says what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed;

/// One line of a container's standard output, without its newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputLine {
    /// Where it stands in the output, told as a time: when the engine took it, by its own clock, or a
    /// time that only grows along the output.
    pub at: OffsetDateTime,
    /// The line.
    pub line: Bytes,
}

/// What makes networks and containers for one host.
#[async_trait]
pub trait Engine: Send + Sync + fmt::Debug {
    /// Every object with this host's labels, and foreign objects under names of ours. One or two
    /// calls to the engine, however many objects there are.
    async fn inventory(&self) -> Result<Inventory, EngineError>;

    /// Makes sure that the image of the deckies is there; cheap when it is.
    async fn ensure_image(&self) -> Result<(), EngineError>;

    /// Makes a network.
    async fn create_lan(
        &self,
        origin: Origin,
        lan: &HydratedLan,
        depth: u32,
    ) -> Result<Handle, EngineError>;

    /// Removes a network. One that is gone is removed.
    async fn remove_lan(&self, handle: &Handle) -> Result<(), EngineError>;

    /// Makes a container, writes its configuration, and puts it on its networks; does not start it.
    async fn create_decky(&self, new: NewDecky<'_>) -> Result<Handle, EngineError>;

    /// Starts a container and wires its network namespace; only then does the decky open a port
    /// ([`domain::wiring::GATE`]). One that runs is started, and wired again.
    async fn start_decky(&self, handle: &Handle, wiring: &Wiring) -> Result<(), EngineError>;

    /// Makes the network namespace of a running container look as it should: addresses, hardware
    /// addresses, routes, kernel settings and rules, each only where it differs; no connection
    /// that is allowed is cut.
    async fn rewire(&self, handle: &Handle, wiring: &Wiring) -> Result<(), EngineError>;

    /// Removes a container, running or not, and its configuration. One that is gone is removed.
    async fn remove_decky(&self, handle: &Handle) -> Result<(), EngineError>;

    /// Puts a container on a network. Its wiring follows by [`Engine::rewire`].
    async fn connect(
        &self,
        decky: &Handle,
        network: &Handle,
        interface: &HydratedInterface,
    ) -> Result<(), EngineError>;

    /// Takes a container off a network. One that is not on it is taken off.
    async fn disconnect(&self, decky: &Handle, network: &Handle) -> Result<(), EngineError>;

    /// Replaces the configuration of a decky and has it read it. One that does not run reads it
    /// when it is started.
    async fn configure(
        &self,
        handle: &Handle,
        decky: &HydratedDecky,
        config: &[u8],
    ) -> Result<(), EngineError>;

    /// Hints of changes, as they happen. Ends when the engine goes away; call again then.
    async fn changes(&self) -> Result<BoxStream<'static, Changed>, EngineError>;

    /// The standard output of a container from `since` on (lines of the same second may come
    /// again: the position in the line tells), then as it is written. Ends with the container.
    async fn follow(
        &self,
        handle: &Handle,
        since: Option<OffsetDateTime>,
    ) -> Result<BoxStream<'static, Result<OutputLine, EngineError>>, EngineError>;

    /// How many packets the rules of a running container have held back; none when it cannot be told.
    /// Reads from the kernel, and asks the engine nothing.
    fn refused(&self, _handle: &Handle) -> Option<u64> {
        None
    }

    /// With how many deckies at once it is fastest, where that is known; none where it is to be found
    /// by trying, because somebody else does the work.
    fn at_once(&self) -> Option<usize> {
        None
    }

    /// Subnets in use on the host that are not ours, for a clear refusal before anything is made.
    async fn foreign_subnets(&self) -> Result<Vec<(String, ipnet::Ipv4Net)>, EngineError>;
}

//! Observed state: what an engine shows of our objects on one host, and how it differs.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use crate::id::{DeckyId, LanId, TopologyId};
use crate::topology::Publish;
use crate::topology::hydrate::SpecDigest;
use crate::wiring::ObservedWiring;

/// How an engine names one of its objects. Opaque: compared, never read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(String);

impl Handle {
    /// Wraps the engine's own id.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The engine's own id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Every object with the labels of one host, and what stands in the way of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// Networks with our labels.
    pub lans: Vec<ObservedLan>,
    /// Containers with our labels.
    pub deckies: Vec<ObservedDecky>,
    /// Objects under names of ours that are not ours: reported, left alone.
    pub foreign: Vec<Foreign>,
}

/// A network with our labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedLan {
    /// The engine's name for it.
    pub handle: Handle,
    /// Which LAN it says it is.
    pub id: LanId,
    /// Of which topology.
    pub topology: TopologyId,
    /// The digest that it was made with; none when the label is missing or broken.
    pub spec: Option<SpecDigest>,
    /// Hops from the DMZ when it was made.
    pub depth: u32,
}

/// A container with our labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedDecky {
    /// The engine's name for it.
    pub handle: Handle,
    /// Which decky it says it is.
    pub id: DeckyId,
    /// Of which topology.
    pub topology: TopologyId,
    /// The digest that it was made with; none when the label is missing or broken.
    pub spec: Option<SpecDigest>,
    /// Whether it runs.
    pub state: RunState,
    /// The networks that it is on, with its addresses there.
    pub attachments: Vec<Attachment>,
    /// The digest of the configuration in force, when its liveness line has said so.
    pub config: Option<String>,
    /// What its network namespace looks like; none when it does not run or it cannot be told.
    pub wiring: Option<ObservedWiring>,
    /// Ports of the host behind which it answers, sorted; none when it does not run. Every address
    /// of the host is written as no address.
    pub published: Option<Vec<Publish>>,
    /// Whether it was made from another image than the one that the agent would take now.
    pub outdated: bool,
}

/// A container's membership of a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// The network.
    pub network: Handle,
    /// The address there, when the engine tells.
    pub address: Option<Ipv4Addr>,
}

/// Whether a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunState {
    /// Made, never started.
    Created,
    /// It runs.
    Running,
    /// Suspended by somebody.
    Paused,
    /// It has ended.
    Exited,
}

impl RunState {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Exited => "exited",
        }
    }
}

/// An object under a name of ours that is not ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Foreign {
    /// `container` or `network`.
    pub noun: &'static str,
    /// The name that it took.
    pub name: String,
}

impl Inventory {
    /// Whether nothing of `topology` is left.
    pub fn lacks(&self, topology: TopologyId) -> bool {
        self.lans.iter().all(|lan| lan.topology != topology)
            && self.deckies.iter().all(|decky| decky.topology != topology)
    }

    /// Whether nothing of ours is left.
    pub fn is_empty(&self) -> bool {
        self.lans.is_empty() && self.deckies.is_empty()
    }

    /// Which LAN an engine's network is.
    pub fn lan_of(&self, network: &Handle) -> Option<&ObservedLan> {
        self.lans.iter().find(|lan| &lan.handle == network)
    }

    /// Hops from the DMZ of each decky's nearest LAN; the farthest are removed first.
    pub fn depth_of(&self, decky: &ObservedDecky) -> u32 {
        decky
            .attachments
            .iter()
            .filter_map(|attachment| self.lan_of(&attachment.network))
            .map(|lan| lan.depth)
            .min()
            .unwrap_or(u32::MAX)
    }
}

/// How an object differs from what is desired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DriftKind {
    /// It is not there.
    Missing,
    /// It is there and does not run.
    Stopped,
    /// It was made with another spec.
    Changed,
    /// It is not on a LAN where it belongs, or not under its address.
    Detached,
    /// It is on a network where it does not belong.
    Attached,
    /// It runs with another configuration.
    Reconfigured,
    /// An interface of it has another address or hardware address.
    Readdressed,
    /// It routes otherwise.
    Rerouted,
    /// A kernel setting of its network differs.
    Retuned,
    /// The rules that keep it inside are not in force as they were loaded.
    Unsealed,
    /// The host does not answer for its ports.
    Unpublished,
    /// It carries our labels and nothing desires it.
    Stray,
    /// It stands under a name of ours and is not ours: reported, left alone.
    Foreign,
}

impl DriftKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Missing,
        Self::Stopped,
        Self::Changed,
        Self::Detached,
        Self::Attached,
        Self::Reconfigured,
        Self::Readdressed,
        Self::Rerouted,
        Self::Retuned,
        Self::Unsealed,
        Self::Unpublished,
        Self::Stray,
        Self::Foreign,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Stopped => "stopped",
            Self::Changed => "changed",
            Self::Detached => "detached",
            Self::Attached => "attached",
            Self::Reconfigured => "reconfigured",
            Self::Readdressed => "readdressed",
            Self::Rerouted => "rerouted",
            Self::Retuned => "retuned",
            Self::Unsealed => "unsealed",
            Self::Unpublished => "unpublished",
            Self::Stray => "stray",
            Self::Foreign => "foreign",
        }
    }

    /// Whether somebody has to act on it. What is not ours is not ours to repair.
    pub const fn needs_repair(self) -> bool {
        !matches!(self, Self::Foreign)
    }
}

/// One difference between desired and observed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Drift {
    /// What kind.
    pub kind: DriftKind,
    /// Of what, for a person: `decky web-1`, `lan dmz`, `container decnet-…`.
    pub object: String,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.object, self.kind.as_str())
    }
}

/// The digest of the configuration that each desired decky is to have in force.
pub type ConfigDigests = BTreeMap<DeckyId, String>;

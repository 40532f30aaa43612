//! Assignments, and what an agent reports of carrying one out.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use time::OffsetDateTime;

use crate::id::TopologyId;
use crate::observe::{Drift, Inventory};
use crate::revision::Fence;
use crate::topology::hydrate::VersionHash;

/// What a host is to hold: one topology by its hash, or nothing.
pub type Content = Option<(TopologyId, VersionHash)>;

/// What the master has assigned to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assignment {
    /// Its place in the order of assignments.
    pub fence: Fence,
    /// What the host is to hold.
    pub content: Content,
}

/// Where an agent stands with its assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It holds nothing.
    Idle,
    /// It makes what was assigned; or was interrupted while it did.
    Applying,
    /// It has made what was assigned.
    Applied,
    /// It could not.
    Failed,
    /// It removes everything; or was interrupted while it did.
    Clearing,
}

/// A word that names no phase or failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {noun}")]
pub struct UnknownWord {
    noun: &'static str,
    text: String,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 5] = [
        Self::Idle,
        Self::Applying,
        Self::Applied,
        Self::Failed,
        Self::Clearing,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Applying => "applying",
            Self::Applied => "applied",
            Self::Failed => "failed",
            Self::Clearing => "clearing",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Phase {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or_else(|| UnknownWord {
                noun: "phase",
                text: text.chars().take(64).collect(),
            })
    }
}

/// Why an agent could not, or would not, carry out an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureCode {
    /// It has seen a newer fence.
    Stale,
    /// It has seen the same fence with other content.
    Conflict,
    /// The hash is not the hash of the document.
    Corrupt,
    /// The document breaks a rule.
    Invalid,
    /// The engine does not answer.
    EngineUnreachable,
    /// The engine did not answer in time.
    EngineTimeout,
    /// A subnet overlaps one that is in use on the host.
    SubnetInUse,
    /// A published port is taken on the host.
    PortTaken,
    /// The image of the deckies is missing and cannot be made.
    ImageMissing,
    /// The engine refused for another reason.
    EngineRefused,
    /// The agent's own disk or store failed.
    Store,
    /// The host has too little left of something to make more.
    HostShort,
}

impl FailureCode {
    /// Every code.
    pub const ALL: [Self; 12] = [
        Self::Stale,
        Self::Conflict,
        Self::Corrupt,
        Self::Invalid,
        Self::EngineUnreachable,
        Self::EngineTimeout,
        Self::SubnetInUse,
        Self::PortTaken,
        Self::ImageMissing,
        Self::EngineRefused,
        Self::Store,
        Self::HostShort,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Conflict => "conflict",
            Self::Corrupt => "corrupt",
            Self::Invalid => "invalid",
            Self::EngineUnreachable => "engine_unreachable",
            Self::EngineTimeout => "engine_timeout",
            Self::SubnetInUse => "subnet_in_use",
            Self::PortTaken => "port_taken",
            Self::ImageMissing => "image_missing",
            Self::EngineRefused => "engine_refused",
            Self::Store => "store",
            Self::HostShort => "host_short",
        }
    }

    /// What an operator does about it.
    pub const fn next_step(self) -> &'static str {
        match self {
            Self::Stale | Self::Conflict => "nothing: the master assigns anew by itself",
            Self::Corrupt => "check that master and agent are of the same or neighbouring releases",
            Self::Invalid => "correct the topology and deploy again",
            Self::EngineUnreachable => "start the Docker daemon on the host, then retry",
            Self::EngineTimeout => "look at the load and the log of the Docker daemon, then retry",
            Self::SubnetInUse => {
                "remove what uses the subnet on the host or choose another, then retry"
            }
            Self::PortTaken => {
                "stop what listens on the port of the host or publish another, then retry"
            }
            Self::ImageMissing => "install the decnet-decky binary beside decnet-agent, then retry",
            Self::EngineRefused => "mend what the engine complains of on the host, then retry",
            Self::Store => "free space in the agent's data directory, then retry",
            Self::HostShort => {
                "free what the host is short of or deploy to another host, then retry"
            }
        }
    }
}

impl FromStr for FailureCode {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|code| code.as_str() == text)
            .ok_or_else(|| UnknownWord {
                noun: "failure code",
                text: text.chars().take(64).collect(),
            })
    }
}

/// Why an assignment was not carried out, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyFailure {
    /// Which kind.
    pub code: FailureCode,
    /// The first error, with its chain of causes.
    pub message: String,
}

impl fmt::Display for ApplyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}; {}",
            self.code.as_str(),
            self.message,
            self.code.next_step()
        )
    }
}

/// A stage of carrying out an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Asking the engine what is there, before each round and after the last.
    Look,
    /// Checking the host's subnets and providing the image.
    Prepare,
    /// Removing deckies, connections and LANs.
    Remove,
    /// Making LANs.
    Lans,
    /// Making, starting, wiring and configuring deckies.
    Deckies,
}

impl Stage {
    /// Every stage, in its order.
    pub const ALL: [Self; 5] = [
        Self::Look,
        Self::Prepare,
        Self::Remove,
        Self::Lans,
        Self::Deckies,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Prepare => "prepare",
            Self::Remove => "remove",
            Self::Lans => "lans",
            Self::Deckies => "deckies",
        }
    }
}

impl FromStr for Stage {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|stage| stage.as_str() == text)
            .ok_or_else(|| UnknownWord {
                noun: "stage",
                text: text.chars().take(64).collect(),
            })
    }
}

/// How long each stage of the last attempt took, by the agent's clock.
pub type Timings = BTreeMap<Stage, Duration>;

/// An assignment that an agent would not even begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The fence of the refused assignment.
    pub fence: Fence,
    /// Why.
    pub failure: ApplyFailure,
}

/// Everything that the master knows of a host's side: sent by the agent at every change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    /// The newest fence that the agent has obeyed.
    pub fence: Fence,
    /// Where it stands with it.
    pub phase: Phase,
    /// Whether it is at work on it at this moment.
    pub in_flight: bool,
    /// What it was told to hold.
    pub content: Content,
    /// When it finished.
    pub applied_at: Option<OffsetDateTime>,
    /// Why it failed, when the phase is failed.
    pub failure: Option<ApplyFailure>,
    /// The newest assignment that it would not begin, if any.
    pub refusal: Option<Refusal>,
    /// What the engine shows; none when the engine was not asked or did not answer.
    pub observed: Option<Inventory>,
    /// How that differs from what it was told to hold.
    pub drift: Vec<Drift>,
    /// How long the last attempt took; empty when there was none since the agent started.
    pub timings: Timings,
}

impl HostReport {
    /// Why the host would not begin the assignment of that fence, if it would not.
    pub fn refused(&self, fence: Fence) -> Option<&ApplyFailure> {
        let refusal = self.refusal.as_ref();
        refusal
            .filter(|refusal| refusal.fence == fence)
            .map(|refusal| &refusal.failure)
    }

    /// Whether the engine was seen to hold exactly what was assigned.
    pub fn is_converged(&self) -> bool {
        self.observed.is_some() && !self.drift.iter().any(|drift| drift.kind.needs_repair())
    }
}

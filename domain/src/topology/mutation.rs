//! Mutations: edits of a topology as a closed set of operations, applied whole or not at all.
//!
//! A mutation has nothing left to choose but addresses: ids and seeds are drawn when it is
//! resolved from what an operator wrote ([`draft`]), so that applying it is pure and its inverse
//! exists. It knows neither the queue's rows nor the host that carries the topology.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::diff::Difference;
use super::finding::{Finding, FindingCode as Code, FindingSeverity, sort};
use super::status::TopologyStatus;
use super::validate::{Limits, validate_within};
use super::{Decky, Lan, LanDriver, LanKind, Publish, Topology};
use crate::id::{DeckyId, EdgeId, LanId};
use crate::interval::Interval;
use crate::name::{DeckyName, Hostname, LanName};
use crate::persona::{Mac, Persona};
use crate::seed::Seed;
use crate::service::ServiceSet;

pub mod draft;
pub mod state;
mod step;

/// One edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Adds a LAN.
    AddLan(Lan),
    /// Removes a LAN that is no decky's home; deckies that visit it leave it.
    RemoveLan {
        /// The LAN.
        lan: LanId,
    },
    /// Changes a LAN.
    UpdateLan {
        /// The LAN.
        lan: LanId,
        /// What changes.
        patch: LanPatch,
    },
    /// Adds a decky with its memberships.
    AddDecky(Box<NewDecky>),
    /// Removes a decky and its memberships.
    RemoveDecky {
        /// The decky.
        decky: DeckyId,
    },
    /// Changes a decky.
    UpdateDecky {
        /// The decky.
        decky: DeckyId,
        /// What changes.
        patch: Box<DeckyPatch>,
    },
    /// Puts a decky on a further LAN.
    AttachDecky {
        /// The decky.
        decky: DeckyId,
        /// Its new membership.
        edge: NewEdge,
        /// Whether it routes from then on; as before when none.
        forwards_l3: Option<bool>,
    },
    /// Takes a decky off a LAN that is not its home.
    DetachDecky {
        /// The decky.
        decky: DeckyId,
        /// The LAN.
        lan: LanId,
    },
}

/// What changes of a LAN; what is none stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LanPatch {
    /// Its name.
    pub name: Option<LanName>,
    /// Its range. Refused on a live topology.
    pub subnet: Option<Ipv4Net>,
    /// Its IPv6 range; the inner none takes it away. Refused on a live topology.
    pub subnet6: Option<Option<Ipv6Net>>,
    /// Whether the outside reaches it. Refused on a live topology.
    pub kind: Option<LanKind>,
    /// How the engine makes it. Refused on a live topology.
    pub driver: Option<LanDriver>,
}

/// A decky that is to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDecky {
    /// The decky.
    pub decky: Decky,
    /// Its memberships, in the order of its interfaces.
    pub edges: Vec<NewEdge>,
}

/// A membership that is to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewEdge {
    /// Its identity.
    pub id: EdgeId,
    /// The LAN.
    pub lan: LanId,
    /// The address there; the next free one when none.
    pub address: Option<Ipv4Addr>,
    /// The hardware address there; from the decky's seed when none.
    pub mac: Option<Mac>,
    /// Whether it becomes the decky's home.
    pub home: bool,
}

/// What changes of a decky; what is none stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeckyPatch {
    /// The operator's name for it.
    pub name: Option<DeckyName>,
    /// The name that attackers see.
    pub hostname: Option<Hostname>,
    /// The archetype; the inner none takes it away.
    pub archetype: Option<Option<String>>,
    /// What it serves, whole.
    pub services: Option<ServiceSet>,
    /// The operating system that it shows.
    pub persona: Option<Persona>,
    /// Whether it routes between its LANs.
    pub forwards_l3: Option<bool>,
    /// Its published ports, whole.
    pub publish: Option<Vec<Publish>>,
    /// How often it mutates by itself; the inner none means never.
    pub mutate_every: Option<Option<Interval>>,
    /// What everything comparable is derived from.
    pub seed: Option<Seed>,
    /// Changes of memberships that it has.
    pub edges: Vec<EdgePatch>,
}

/// What changes of a membership; what is none stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgePatch {
    /// The LAN.
    pub lan: LanId,
    /// The address there.
    pub address: Option<Ipv4Addr>,
    /// The hardware address there.
    pub mac: Option<Mac>,
    /// Whether it becomes the decky's home, in place of the one before.
    pub becomes_home: bool,
}

/// What is queued and applied as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    /// One edit. On a live topology it may leave the shape unfinished, which is a warning.
    One(Op),
    /// Several edits, checked whole at their end, shape included.
    Batch(Vec<Op>),
}

/// What a topology can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Regime {
    /// It is on no host: it may be unfinished, so only names and references are refused.
    Pending,
    /// A host holds it: it stays deployable after each mutation.
    Live,
}

/// What a mutation makes of a topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The topology, at the next revision.
    pub topology: Topology,
    /// What is wrong with it and did not stop the mutation, sorted.
    pub findings: Vec<Finding>,
}

impl Regime {
    /// How a topology in this status is edited: at once while no host is to hold it, through the
    /// queue while one is; not at all when it is going or gone.
    pub const fn of(status: TopologyStatus) -> Option<Self> {
        match status {
            TopologyStatus::Pending | TopologyStatus::Failed => Some(Self::Pending),
            TopologyStatus::Deploying | TopologyStatus::Active | TopologyStatus::Degraded => {
                Some(Self::Live)
            }
            TopologyStatus::TearingDown | TopologyStatus::TornDown => None,
        }
    }
}

impl Op {
    /// The word for the operation in rows, URLs and events.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::AddLan(_) => "add_lan",
            Self::RemoveLan { .. } => "remove_lan",
            Self::UpdateLan { .. } => "update_lan",
            Self::AddDecky(_) => "add_decky",
            Self::RemoveDecky { .. } => "remove_decky",
            Self::UpdateDecky { .. } => "update_decky",
            Self::AttachDecky { .. } => "attach_decky",
            Self::DetachDecky { .. } => "detach_decky",
        }
    }
}

impl Mutation {
    /// Its edits, in their order.
    pub fn ops(&self) -> &[Op] {
        match self {
            Self::One(op) => std::slice::from_ref(op),
            Self::Batch(ops) => ops,
        }
    }

    /// The word for it: the operation's, or `batch`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::One(op) => op.as_str(),
            Self::Batch(_) => "batch",
        }
    }

    /// The topology after it, or every reason why there is none. The given one is left as it is.
    pub fn apply(
        &self,
        topology: &Topology,
        regime: Regime,
        limits: &Limits,
    ) -> Result<Applied, Vec<Finding>> {
        let mut after = topology.clone();
        for (number, op) in self.ops().iter().enumerate() {
            step::apply(op, &mut after, regime).map_err(|mut finding| {
                if matches!(self, Self::Batch(_)) {
                    finding.path = format!("ops[{number}].{}", finding.path);
                }
                vec![finding]
            })?;
        }
        after.revision = topology.revision.next();
        let mut findings = validate_within(&after, limits);
        let mut refused = Vec::new();
        for finding in &mut findings {
            match self.weigh(finding, regime) {
                Weight::Refused => refused.push(finding.clone()),
                Weight::Warning => finding.severity = FindingSeverity::Warning,
                Weight::AsItIs => {}
            }
        }
        if !refused.is_empty() {
            return Err(refused);
        }
        sort(&mut findings);
        Ok(Applied {
            topology: after,
            findings,
        })
    }

    /// What it would do once everything that is queued before it is done. A queued mutation that
    /// no longer applies is left out, as it will be.
    pub fn check_after(
        &self,
        topology: &Topology,
        queued: &[Self],
        regime: Regime,
        limits: &Limits,
    ) -> Result<Applied, Vec<Finding>> {
        self.apply(&after(topology, queued, regime, limits), regime, limits)
    }

    /// What undoes the change from `before` to `after`; none when they are equal. On a topology
    /// that has changed since, it undoes only this and is checked like any other mutation.
    pub fn revert(before: &Topology, after: &Topology) -> Option<Self> {
        let mut ops = Difference::between(after, before).ops();
        match ops.len() {
            0 => None,
            1 => ops.pop().map(Self::One),
            _ => Some(Self::Batch(ops)),
        }
    }

    fn weigh(&self, finding: &Finding, regime: Regime) -> Weight {
        let named = [
            Code::LanNameDup,
            Code::DeckyNameDup,
            Code::EdgeUnknown,
            Code::EdgeDup,
            Code::TooLarge,
        ];
        match (finding.is_error(), regime) {
            (false, _) => Weight::AsItIs,
            (true, Regime::Pending) if named.contains(&finding.code) => Weight::Refused,
            (true, Regime::Pending) => Weight::AsItIs,
            (true, Regime::Live) if finding.is_of_shape() && matches!(self, Self::One(_)) => {
                Weight::Warning
            }
            (true, Regime::Live) => Weight::Refused,
        }
    }
}

/// The topology after a queue of mutations; one that no longer applies is left out.
pub fn after(
    topology: &Topology,
    queued: &[Mutation],
    regime: Regime,
    limits: &Limits,
) -> Topology {
    queued.iter().fold(topology.clone(), |before, mutation| {
        match mutation.apply(&before, regime, limits) {
            Ok(applied) => applied.topology,
            Err(_) => before,
        }
    })
}

enum Weight {
    Refused,
    Warning,
    AsItIs,
}

#[cfg(test)]
mod tests;

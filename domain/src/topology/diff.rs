//! The difference between two forms of one topology: as data, in words, and as the operations
//! that turn the one into the other.
//!
//! Things are the same where their ids are the same; their order, and the ids of edges, mean
//! nothing.

use std::collections::BTreeSet;
use std::fmt;

use super::mutation::{DeckyPatch, EdgePatch, LanPatch, Mutation, NewDecky, NewEdge, Op};
use super::{Decky, Edge, Lan, Topology};
use crate::id::{DeckyId, LanId};
use crate::name::{DeckyName, LanName};

mod fields;

pub(super) use fields::decky_patch;

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// Its name in the topology file, such as `services`.
    pub field: &'static str,
    /// Its value before, as a person reads it.
    pub before: String,
    /// Its value after.
    pub after: String,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A LAN is new.
    LanAdded(Lan),
    /// A LAN is gone.
    LanRemoved(Lan),
    /// A LAN has changed.
    LanChanged {
        /// Which.
        lan: LanId,
        /// Its name before.
        name: LanName,
        /// What changed.
        fields: Vec<FieldChange>,
        /// The same as a patch.
        patch: LanPatch,
    },
    /// A decky is new, with its memberships.
    DeckyAdded {
        /// The decky.
        decky: Box<Decky>,
        /// Its memberships, each with its LAN's name.
        edges: Vec<(Edge, LanName)>,
    },
    /// A decky is gone.
    DeckyRemoved {
        /// Which.
        decky: DeckyId,
        /// Its name.
        name: DeckyName,
    },
    /// A decky has changed, apart from where it is.
    DeckyChanged {
        /// Which.
        decky: DeckyId,
        /// Its name before.
        name: DeckyName,
        /// What changed.
        fields: Vec<FieldChange>,
        /// The same as a patch.
        patch: Box<DeckyPatch>,
    },
    /// A decky that stays is on a further LAN.
    Attached {
        /// Its name.
        decky: DeckyName,
        /// Its new membership.
        edge: Edge,
        /// The LAN's name.
        lan: LanName,
    },
    /// A decky that stays has left a LAN.
    Detached {
        /// Its name.
        decky: DeckyName,
        /// Its membership before.
        edge: Edge,
        /// The LAN's name.
        lan: LanName,
    },
}

/// What differs, in the order in which it can be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// The changes.
    pub changes: Vec<Change>,
}

// === impl Difference ===

impl Difference {
    /// What turns `before` into `after`: what goes away makes room first, what is new is there
    /// before it is used, and a LAN goes when nobody is on it.
    pub fn between(before: &Topology, after: &Topology) -> Self {
        let mut changes = Vec::new();
        for decky in &before.deckies {
            if after.decky(decky.id).is_none() {
                changes.push(Change::DeckyRemoved {
                    decky: decky.id,
                    name: decky.name.clone(),
                });
            }
        }
        for lan in &after.lans {
            match before.lan(lan.id) {
                None => changes.push(Change::LanAdded(lan.clone())),
                Some(old) => changes.extend(lan_change(old, lan)),
            }
        }
        for decky in &after.deckies {
            if before.decky(decky.id).is_none() {
                let edges = after
                    .edges_of(decky.id)
                    .map(|edge| (*edge, lan_name(after, edge.lan)));
                changes.push(Change::DeckyAdded {
                    edges: edges.collect(),
                    decky: Box::new(decky.clone()),
                });
            }
        }
        let mut detached = Vec::new();
        for decky in &after.deckies {
            if let Some(old) = before.decky(decky.id) {
                membership(before, after, old, &mut changes, &mut detached);
                changes.extend(fields::decky_change(before, after, old, decky));
            }
        }
        changes.append(&mut detached);
        for lan in &before.lans {
            if after.lan(lan.id).is_none() {
                changes.push(Change::LanRemoved(lan.clone()));
            }
        }
        Self { changes }
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The operations that carry it out, in their order.
    pub fn ops(&self) -> Vec<Op> {
        self.changes.iter().map(Change::op).collect()
    }

    /// The one mutation that carries it out, checked whole; none when nothing differs.
    pub fn mutation(&self) -> Option<Mutation> {
        (!self.is_empty()).then(|| Mutation::Batch(self.ops()))
    }
}

impl Change {
    fn op(&self) -> Op {
        match self {
            Self::LanAdded(lan) => Op::AddLan(lan.clone()),
            Self::LanRemoved(lan) => Op::RemoveLan { lan: lan.id },
            Self::LanChanged { lan, patch, .. } => Op::UpdateLan {
                lan: *lan,
                patch: patch.clone(),
            },
            Self::DeckyAdded { decky, edges } => Op::AddDecky(Box::new(NewDecky {
                decky: Decky::clone(decky),
                edges: edges.iter().map(|(edge, _)| new_edge(edge)).collect(),
            })),
            Self::DeckyRemoved { decky, .. } => Op::RemoveDecky { decky: *decky },
            Self::DeckyChanged { decky, patch, .. } => Op::UpdateDecky {
                decky: *decky,
                patch: patch.clone(),
            },
            Self::Attached { edge, .. } => Op::AttachDecky {
                decky: edge.decky,
                edge: new_edge(edge),
                forwards_l3: None,
            },
            Self::Detached { edge, .. } => Op::DetachDecky {
                decky: edge.decky,
                lan: edge.lan,
            },
        }
    }
}

fn new_edge(edge: &Edge) -> NewEdge {
    NewEdge {
        id: edge.id,
        lan: edge.lan,
        address: Some(edge.address),
        mac: Some(edge.mac),
        home: edge.home,
    }
}

fn lan_name(topology: &Topology, id: LanId) -> LanName {
    topology.lan(id).map_or_else(
        || LanName::parse(&id.short()).expect("12 hexadecimal digits are a name"),
        |lan| lan.name.clone(),
    )
}

fn lan_change(before: &Lan, after: &Lan) -> Option<Change> {
    let patch = LanPatch {
        name: (before.name != after.name).then(|| after.name.clone()),
        subnet: (before.subnet != after.subnet).then_some(after.subnet),
        subnet6: (before.subnet6 != after.subnet6).then_some(after.subnet6),
        kind: (before.kind != after.kind).then_some(after.kind),
        driver: (before.driver != after.driver).then(|| after.driver.clone()),
    };
    if patch == LanPatch::default() {
        return None;
    }
    let mut fields = Vec::new();
    let mut field = |field, before: String, after: String| {
        if before != after {
            fields.push(FieldChange {
                field,
                before,
                after,
            });
        }
    };
    field("name", before.name.to_string(), after.name.to_string());
    field(
        "subnet",
        before.subnet.to_string(),
        after.subnet.to_string(),
    );
    let subnet6 = |lan: &Lan| {
        let range = lan.subnet6.map(|subnet| subnet.to_string());
        range.unwrap_or_else(|| "none".to_owned())
    };
    field("subnet6", subnet6(before), subnet6(after));
    field(
        "kind",
        before.kind.as_str().to_owned(),
        after.kind.as_str().to_owned(),
    );
    field(
        "driver",
        before.driver.to_string(),
        after.driver.to_string(),
    );
    Some(Change::LanChanged {
        lan: before.id,
        name: before.name.clone(),
        fields,
        patch,
    })
}

/// The LANs that a decky has joined, to be joined at once, and those that it has left, to be left
/// when its home has moved.
fn membership(
    before: &Topology,
    after: &Topology,
    decky: &Decky,
    changes: &mut Vec<Change>,
    detached: &mut Vec<Change>,
) {
    let lans = |topology: &Topology| -> BTreeSet<LanId> {
        topology.edges_of(decky.id).map(|edge| edge.lan).collect()
    };
    let (old, new) = (lans(before), lans(after));
    for edge in after.edges_of(decky.id) {
        if !old.contains(&edge.lan) {
            changes.push(Change::Attached {
                decky: decky.name.clone(),
                edge: *edge,
                lan: lan_name(after, edge.lan),
            });
        }
    }
    for edge in before.edges_of(decky.id) {
        if !new.contains(&edge.lan) {
            detached.push(Change::Detached {
                decky: decky.name.clone(),
                edge: *edge,
                lan: lan_name(before, edge.lan),
            });
        }
    }
}

/// The patch of a membership that stays; none when it is the same.
fn edge_patch(before: &Edge, after: &Edge) -> Option<EdgePatch> {
    let patch = EdgePatch {
        lan: after.lan,
        address: (before.address != after.address).then_some(after.address),
        mac: (before.mac != after.mac).then_some(after.mac),
        becomes_home: after.home && !before.home,
    };
    let changes = patch.address.is_some() || patch.mac.is_some() || patch.becomes_home;
    changes.then_some(patch)
}

impl fmt::Display for Difference {
    /// One line for each change, and one below it for each field.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes
            .iter()
            .try_for_each(|change| write!(f, "{change}"))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LanAdded(lan) => {
                let (name, kind, subnet) = (&lan.name, lan.kind.as_str(), lan.subnet);
                writeln!(f, "+ lan {name} ({kind}, {subnet})")
            }
            Self::LanRemoved(lan) => writeln!(f, "- lan {} ({})", lan.name, lan.subnet),
            Self::LanChanged { name, fields, .. } => {
                writeln!(f, "~ lan {name}")?;
                lines(f, fields)
            }
            Self::DeckyAdded { decky, edges } => {
                let services: Vec<_> = decky.services.keys().map(|kind| kind.as_str()).collect();
                write!(f, "+ decky {} ({}", decky.name, decky.persona)?;
                write!(f, "; {})", none_if_empty(&services.join(", ")))?;
                for (number, (edge, lan)) in edges.iter().enumerate() {
                    let before = if number == 0 { " on" } else { "," };
                    write!(f, "{before} {lan} as {}", edge.address)?;
                }
                writeln!(f)
            }
            Self::DeckyRemoved { name, .. } => writeln!(f, "- decky {name}"),
            Self::DeckyChanged { name, fields, .. } => {
                writeln!(f, "~ decky {name}")?;
                lines(f, fields)
            }
            Self::Attached { decky, edge, lan } => {
                writeln!(f, "+ edge {decky} on {lan} as {}", edge.address)
            }
            Self::Detached { decky, lan, .. } => writeln!(f, "- edge {decky} on {lan}"),
        }
    }
}

fn lines(f: &mut fmt::Formatter<'_>, fields: &[FieldChange]) -> fmt::Result {
    fields.iter().try_for_each(|change| {
        let FieldChange {
            field,
            before,
            after,
        } = change;
        writeln!(f, "    {field}: {before} -> {after}")
    })
}

fn none_if_empty(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

#[cfg(test)]
mod tests;

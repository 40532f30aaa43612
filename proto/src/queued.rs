//! A mutation as the queue keeps it: JSON with nothing left to choose but addresses, what it
//! changes for a person to read, and, once it is committed, what undoes it.

use std::collections::BTreeMap;

use domain::id::{DeckyId, EdgeId, LanId};
use domain::topology::draft::{Draft, DraftDecky, DraftLan, DraftPublish, Entropy, resolve};
use domain::topology::mutation::{
    DeckyPatch, EdgePatch, LanPatch, Mutation, NewDecky, NewEdge, Op,
};
use domain::topology::validate::Limits;
use domain::topology::{Decky, Lan};
use serde::{Deserialize, Serialize};

use crate::difference::ChangeShape;
use crate::rest::mutation as shape;
use crate::topology_file::{FileDecky, FileLan, FilePublish};

/// A mutation as the queue keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// What it does.
    pub mutation: Mutation,
    /// What undoes it; none before it is committed, and of one that changed nothing.
    pub undo: Option<Mutation>,
    /// What it changes, as data.
    pub changes: Vec<ChangeShape>,
    /// What it changes, in words.
    pub words: String,
}

/// Why a text is no mutation of the queue.
#[derive(Debug, thiserror::Error)]
pub enum InvalidQueued {
    /// Not its JSON.
    #[error("queued mutation is malformed")]
    Json(#[source] serde_json::Error),
    /// A field that does not hold what it should.
    #[error("{field} of a queued mutation is malformed")]
    Field {
        /// Which.
        field: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    mutation: WireMutation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    undo: Option<WireMutation>,
    changes: Vec<ChangeShape>,
    words: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireMutation {
    One(WireOp),
    Batch(Vec<WireOp>),
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum WireOp {
    AddLan {
        id: String,
        lan: FileLan,
    },
    RemoveLan {
        lan: String,
    },
    UpdateLan {
        lan: String,
        patch: shape::LanPatch,
    },
    AddDecky {
        id: String,
        decky: Box<FileDecky>,
        edges: Vec<WireEdge>,
    },
    RemoveDecky {
        decky: String,
    },
    UpdateDecky {
        decky: String,
        patch: Box<shape::DeckyPatch>,
        edges: Vec<WireEdgePatch>,
    },
    AttachDecky {
        decky: String,
        edge: WireEdge,
        forwards_l3: Option<bool>,
    },
    DetachDecky {
        decky: String,
        lan: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEdge {
    id: String,
    lan: String,
    address: Option<String>,
    mac: Option<String>,
    home: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEdgePatch {
    lan: String,
    address: Option<String>,
    mac: Option<String>,
    becomes_home: bool,
}

impl Queued {
    /// Its JSON.
    pub fn to_json(&self) -> String {
        let wire = Wire {
            mutation: (&self.mutation).into(),
            undo: self.undo.as_ref().map(WireMutation::from),
            changes: self.changes.clone(),
            words: self.words.clone(),
        };
        serde_json::to_string(&wire).expect("it has string keys and no custom serializer")
    }

    /// Reads what [`Queued::to_json`] wrote.
    pub fn from_json(text: &str) -> Result<Self, InvalidQueued> {
        let wire: Wire = serde_json::from_str(text).map_err(InvalidQueued::Json)?;
        Ok(Self {
            mutation: wire.mutation.try_into()?,
            undo: wire.undo.map(Mutation::try_from).transpose()?,
            changes: wire.changes,
            words: wire.words,
        })
    }
}

// === writing ===

impl From<&Mutation> for WireMutation {
    fn from(mutation: &Mutation) -> Self {
        match mutation {
            Mutation::One(op) => Self::One(op.into()),
            Mutation::Batch(ops) => Self::Batch(ops.iter().map(WireOp::from).collect()),
        }
    }
}

impl From<&Op> for WireOp {
    fn from(op: &Op) -> Self {
        match op {
            Op::AddLan(lan) => Self::AddLan {
                id: lan.id.to_string(),
                lan: DraftLan::from(lan).into(),
            },
            Op::RemoveLan { lan } => Self::RemoveLan {
                lan: lan.to_string(),
            },
            Op::UpdateLan { lan, patch } => Self::UpdateLan {
                lan: lan.to_string(),
                patch: lan_patch(patch),
            },
            Op::AddDecky(new) => Self::AddDecky {
                id: new.decky.id.to_string(),
                decky: Box::new(DraftDecky::from(&new.decky).into()),
                edges: new.edges.iter().map(WireEdge::from).collect(),
            },
            Op::RemoveDecky { decky } => Self::RemoveDecky {
                decky: decky.to_string(),
            },
            Op::UpdateDecky { decky, patch } => Self::UpdateDecky {
                decky: decky.to_string(),
                edges: patch.edges.iter().map(WireEdgePatch::from).collect(),
                patch: Box::new(decky_patch(patch)),
            },
            Op::AttachDecky {
                decky,
                edge,
                forwards_l3,
            } => Self::AttachDecky {
                decky: decky.to_string(),
                edge: edge.into(),
                forwards_l3: *forwards_l3,
            },
            Op::DetachDecky { decky, lan } => Self::DetachDecky {
                decky: decky.to_string(),
                lan: lan.to_string(),
            },
        }
    }
}

impl From<&NewEdge> for WireEdge {
    fn from(edge: &NewEdge) -> Self {
        let NewEdge {
            id,
            lan,
            address,
            mac,
            home,
        } = edge;
        Self {
            id: id.to_string(),
            lan: lan.to_string(),
            address: address.map(|address| address.to_string()),
            mac: mac.map(|mac| mac.to_string()),
            home: *home,
        }
    }
}

impl From<&EdgePatch> for WireEdgePatch {
    fn from(patch: &EdgePatch) -> Self {
        let EdgePatch {
            lan,
            address,
            mac,
            becomes_home,
        } = patch;
        Self {
            lan: lan.to_string(),
            address: address.map(|address| address.to_string()),
            mac: mac.map(|mac| mac.to_string()),
            becomes_home: *becomes_home,
        }
    }
}

fn lan_patch(patch: &LanPatch) -> shape::LanPatch {
    let LanPatch {
        name,
        subnet,
        subnet6,
        kind,
        driver,
    } = patch;
    shape::LanPatch {
        name: name.as_ref().map(ToString::to_string),
        subnet: subnet.map(|subnet| subnet.to_string()),
        subnet6: subnet6.map(|subnet| subnet.map(|subnet| subnet.to_string())),
        kind: kind.map(|kind| kind.as_str().to_owned()),
        driver: driver.as_ref().map(ToString::to_string),
    }
}

/// All but the edges, which are kept by id and not by name.
fn decky_patch(patch: &DeckyPatch) -> shape::DeckyPatch {
    let DeckyPatch {
        name,
        hostname,
        archetype,
        services,
        persona,
        forwards_l3,
        publish,
        mutate_every,
        seed,
        edges: _,
    } = patch;
    let mut written = shape::DeckyPatch {
        name: name.as_ref().map(ToString::to_string),
        hostname: hostname.as_ref().map(ToString::to_string),
        archetype: archetype.clone(),
        services: None,
        service_config: BTreeMap::new(),
        persona: persona.map(|persona| persona.as_str().to_owned()),
        forwards_l3: *forwards_l3,
        publish: publish
            .as_ref()
            .map(|all| all.iter().map(|one| file_publish(one.into())).collect()),
        mutate_every: mutate_every.map(|every| every.map(|every| every.to_string())),
        seed: seed.as_ref().map(domain::seed::Seed::hex),
        edges: Vec::new(),
    };
    if let Some(services) = services {
        let kinds = services.keys().map(|kind| kind.as_str().to_owned());
        written.services = Some(kinds.collect());
        for (kind, options) in services {
            let options: BTreeMap<_, _> = options
                .iter()
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect();
            if !options.is_empty() {
                written
                    .service_config
                    .insert(kind.as_str().to_owned(), options);
            }
        }
    }
    written
}

fn file_publish(publish: DraftPublish) -> FilePublish {
    FilePublish {
        host_ip: publish.host_ip,
        host_port: publish.host_port,
        decky_port: publish.decky_port,
        protocol: publish.protocol,
    }
}

// === reading ===

const fn bad(field: &'static str) -> InvalidQueued {
    InvalidQueued::Field { field }
}

fn parsed<T: std::str::FromStr>(text: &str, field: &'static str) -> Result<T, InvalidQueued> {
    text.parse().map_err(|_| bad(field))
}

fn maybe<T: std::str::FromStr>(
    text: Option<&String>,
    field: &'static str,
) -> Result<Option<T>, InvalidQueued> {
    text.map(|text| parsed(text, field)).transpose()
}

impl TryFrom<WireMutation> for Mutation {
    type Error = InvalidQueued;

    fn try_from(wire: WireMutation) -> Result<Self, InvalidQueued> {
        Ok(match wire {
            WireMutation::One(op) => Self::One(op.try_into()?),
            WireMutation::Batch(ops) => Self::Batch(
                ops.into_iter()
                    .map(Op::try_from)
                    .collect::<Result<_, _>>()?,
            ),
        })
    }
}

impl TryFrom<WireOp> for Op {
    type Error = InvalidQueued;

    fn try_from(wire: WireOp) -> Result<Self, InvalidQueued> {
        Ok(match wire {
            WireOp::AddLan { id, lan } => Self::AddLan(Lan {
                id: parsed(&id, "id")?,
                ..read_lan(lan.into())?
            }),
            WireOp::RemoveLan { lan } => Self::RemoveLan {
                lan: parsed(&lan, "lan")?,
            },
            WireOp::UpdateLan { lan, patch } => Self::UpdateLan {
                lan: parsed(&lan, "lan")?,
                patch: read_lan_patch(&patch)?,
            },
            WireOp::AddDecky { id, decky, edges } => Self::AddDecky(Box::new(NewDecky {
                decky: Decky {
                    id: parsed(&id, "id")?,
                    ..read_decky((*decky).into())?
                },
                edges: edges
                    .iter()
                    .map(NewEdge::try_from)
                    .collect::<Result<_, _>>()?,
            })),
            WireOp::RemoveDecky { decky } => Self::RemoveDecky {
                decky: parsed(&decky, "decky")?,
            },
            WireOp::UpdateDecky {
                decky,
                patch,
                edges,
            } => Self::UpdateDecky {
                decky: parsed(&decky, "decky")?,
                patch: Box::new(DeckyPatch {
                    edges: edges
                        .iter()
                        .map(EdgePatch::try_from)
                        .collect::<Result<_, _>>()?,
                    ..read_decky_patch(*patch)?
                }),
            },
            WireOp::AttachDecky {
                decky,
                edge,
                forwards_l3,
            } => Self::AttachDecky {
                decky: parsed::<DeckyId>(&decky, "decky")?,
                edge: (&edge).try_into()?,
                forwards_l3,
            },
            WireOp::DetachDecky { decky, lan } => Self::DetachDecky {
                decky: parsed::<DeckyId>(&decky, "decky")?,
                lan: parsed::<LanId>(&lan, "lan")?,
            },
        })
    }
}

impl TryFrom<&WireEdge> for NewEdge {
    type Error = InvalidQueued;

    fn try_from(wire: &WireEdge) -> Result<Self, InvalidQueued> {
        Ok(Self {
            id: parsed::<EdgeId>(&wire.id, "id")?,
            lan: parsed(&wire.lan, "lan")?,
            address: maybe(wire.address.as_ref(), "address")?,
            mac: maybe(wire.mac.as_ref(), "mac")?,
            home: wire.home,
        })
    }
}

impl TryFrom<&WireEdgePatch> for EdgePatch {
    type Error = InvalidQueued;

    fn try_from(wire: &WireEdgePatch) -> Result<Self, InvalidQueued> {
        Ok(Self {
            lan: parsed(&wire.lan, "lan")?,
            address: maybe(wire.address.as_ref(), "address")?,
            mac: maybe(wire.mac.as_ref(), "mac")?,
            becomes_home: wire.becomes_home,
        })
    }
}

fn read_lan_patch(patch: &shape::LanPatch) -> Result<LanPatch, InvalidQueued> {
    Ok(LanPatch {
        name: maybe(patch.name.as_ref(), "name")?,
        subnet: maybe(patch.subnet.as_ref(), "subnet")?,
        subnet6: match &patch.subnet6 {
            None => None,
            Some(subnet) => Some(maybe(subnet.as_ref(), "subnet6")?),
        },
        kind: maybe(patch.kind.as_ref(), "kind")?,
        driver: maybe(patch.driver.as_ref(), "driver")?,
    })
}

/// Every identity is written beside what is read here.
struct NoEntropy;

impl Entropy for NoEntropy {
    fn uuid(&mut self) -> uuid::Uuid {
        uuid::Uuid::nil()
    }

    fn bytes(&mut self) -> [u8; 32] {
        [0; 32]
    }
}

fn read_draft(lans: Vec<DraftLan>, deckies: Vec<DraftDecky>) -> Option<domain::topology::Topology> {
    let draft = Draft {
        name: "queued".to_owned(),
        lans,
        deckies,
    };
    let resolved = resolve(&draft, None, &Limits::default(), &mut NoEntropy);
    resolved.findings.is_empty().then_some(resolved.topology)
}

fn read_lan(lan: DraftLan) -> Result<Lan, InvalidQueued> {
    read_draft(vec![lan], Vec::new())
        .and_then(|read| read.lans.into_iter().next())
        .ok_or(bad("lan"))
}

fn read_decky(decky: DraftDecky) -> Result<Decky, InvalidQueued> {
    read_draft(Vec::new(), vec![decky])
        .and_then(|read| read.deckies.into_iter().next())
        .ok_or(bad("decky"))
}

/// Reads a patch as a decky of which the patch says all that counts, and takes that out again.
fn read_decky_patch(patch: shape::DeckyPatch) -> Result<DeckyPatch, InvalidQueued> {
    let written = domain::topology::mutation::draft::DeckyPatchDraft::from(patch);
    let unsaid = |text: &str| Some(text.to_owned());
    let read = read_decky(DraftDecky {
        name: written.name.clone().unwrap_or_else(|| "x".to_owned()),
        hostname: written.hostname.clone().or_else(|| unsaid("x")),
        archetype: written.archetype.clone().flatten(),
        services: written.services.clone().unwrap_or_default(),
        service_config: written.service_config,
        persona: written.persona.clone().or_else(|| unsaid("linux")),
        forwards_l3: written.forwards_l3.unwrap_or_default(),
        publish: written.publish.clone().unwrap_or_default(),
        mutate_every: written.mutate_every.clone().flatten(),
        seed: written.seed.clone().or_else(|| Some("00".repeat(32))),
        edges: Vec::new(),
    })?;
    Ok(DeckyPatch {
        name: written.name.map(|_| read.name),
        hostname: written.hostname.map(|_| read.hostname),
        archetype: written.archetype.map(|_| read.archetype),
        services: written.services.map(|_| read.services),
        persona: written.persona.map(|_| read.persona),
        forwards_l3: written.forwards_l3,
        publish: written.publish.map(|_| read.publish),
        mutate_every: written.mutate_every.map(|_| read.mutate_every),
        seed: written.seed.map(|_| read.seed),
        edges: Vec::new(),
    })
}

#[cfg(test)]
mod tests;

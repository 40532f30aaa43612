//! The shapes of edits: operations as an operator writes them, what became of them, and the
//! layout. Where a thing is named, its id and its name (without regard to case) both do.

use std::collections::BTreeMap;

use domain::topology::draft::{DraftEdge, DraftLan, DraftPublish};
use domain::topology::mutation::draft::{DeckyPatchDraft, LanPatchDraft, MutationDraft, OpDraft};
use serde::{Deserialize, Deserializer, Serialize};

use super::{EventShape, FindingShape, StatusChangeShape, TopologyState};
use crate::decky_config::WireOption;
use crate::difference::ChangeShape;
use crate::topology_file::{FileDecky, FileEdge, FilePublish, TopologyFile};

/// One edit, by its `op`. The next operation goes at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum OpShape {
    /// Adds a LAN.
    AddLan(NewLan),
    /// Removes a LAN that is no decky's home; deckies that visit it leave it.
    RemoveLan {
        /// The LAN.
        lan: String,
    },
    /// Changes a LAN. On a live topology only its name may change.
    UpdateLan {
        /// The LAN.
        lan: String,
        /// What changes.
        patch: LanPatch,
    },
    /// Adds a decky with its memberships. The fields are those of a decky in the topology file.
    AddDecky(Box<FileDecky>),
    /// Removes a decky and its memberships.
    RemoveDecky {
        /// The decky.
        decky: String,
    },
    /// Changes a decky.
    UpdateDecky {
        /// The decky.
        decky: String,
        /// What changes.
        patch: Box<DeckyPatch>,
    },
    /// Puts a decky on a further LAN.
    AttachDecky(Attachment),
    /// Takes a decky off a LAN that is not its home.
    DetachDecky {
        /// The decky.
        decky: String,
        /// The LAN.
        lan: String,
    },
}

/// A LAN that is to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewLan {
    /// Its name.
    pub name: String,
    /// Its range; the next free one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// Its IPv6 range of 64 bits; none when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet6: Option<String>,
    /// `dmz` or `internal` (the default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `bridge` (the default), `macvlan:INTERFACE` or `ipvlan:INTERFACE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
}

/// What changes of a LAN; what is left out stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanPatch {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// Its IPv6 range; null takes it away.
    #[serde(
        default,
        deserialize_with = "said",
        skip_serializing_if = "Option::is_none"
    )]
    pub subnet6: Option<Option<String>>,
    /// `dmz` or `internal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
}

/// What changes of a decky; what is left out stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeckyPatch {
    /// The operator's name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The name that attackers see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The archetype; null takes it away.
    #[serde(
        default,
        deserialize_with = "said",
        skip_serializing_if = "Option::is_none"
    )]
    pub archetype: Option<Option<String>>,
    /// What it serves, whole. Options of services that stay are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<String>>,
    /// Options by service: those of a service that is named here are replaced.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub service_config: BTreeMap<String, BTreeMap<String, WireOption>>,
    /// The operating system that it shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persona: Option<String>,
    /// Whether it routes between its LANs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwards_l3: Option<bool>,
    /// Its published ports, whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Vec<FilePublish>>,
    /// How often it mutates by itself, such as `6h`; null means never.
    #[serde(
        default,
        deserialize_with = "said",
        skip_serializing_if = "Option::is_none"
    )]
    pub mutate_every: Option<Option<String>>,
    /// 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
    /// Memberships that it has, with what changes of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<FileEdge>,
}

/// A decky on a further LAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// The decky.
    pub decky: String,
    /// The LAN.
    pub lan: String,
    /// The address there; the next free one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The hardware address there; chosen when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Whether it becomes the decky's home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<bool>,
    /// Whether the decky routes from then on; as before when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwards_l3: Option<bool>,
}

/// A field that is there, be it null, which a field that is left out is not.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// `POST /topologies/{id}/mutations`: edits a topology, at once while no host holds it, through
/// the queue while one does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditRequest {
    /// What is done, in that order, as one: all of it or nothing. Several are checked whole at
    /// their end; a single one may leave the shape of a live topology unfinished.
    pub ops: Vec<OpShape>,
    /// The revision that the caller has seen: with another one nothing is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<u64>,
}

/// `POST /topologies/{id}/apply`: makes a topology be what a file says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The file. What keeps its name keeps its identity; what it leaves out of a thing stays.
    pub topology: TopologyFile,
    /// Whether the difference is only told.
    #[serde(default)]
    pub dry_run: bool,
    /// The revision that the caller has seen: with another one nothing is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<u64>,
}

/// `POST /topologies/{id}/mutate` and `…/deckies/{decky}/mutate`: other services now; also
/// `POST /mutations/{id}/revert`. The body may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NowRequest {
    /// The revision that the caller has seen: with another one nothing is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<u64>,
}

/// What became of an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EditOutcome {
    /// It is stored; no host holds the topology.
    Applied,
    /// It is queued as a mutation.
    Queued,
    /// There is nothing to do.
    Unchanged,
    /// It was only told.
    Planned,
}

/// The answer to an edit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditAnswer {
    /// What became of it.
    pub outcome: EditOutcome,
    /// The revision that is stored; of an edit that is queued, the one that it was checked
    /// against.
    pub revision: u64,
    /// The mutation, of an edit that is queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutation: Option<MutationShape>,
    /// What it changes, as data.
    #[serde(default)]
    pub changes: Vec<ChangeShape>,
    /// What it changes, in words.
    #[serde(default)]
    pub words: String,
    /// What is wrong with what comes of it, and did not stop it.
    #[serde(default)]
    pub findings: Vec<FindingShape>,
}

/// A queued edit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MutationShape {
    /// Its identity.
    pub id: String,
    /// The topology.
    pub topology: String,
    /// Its place in the queue of its topology, from 1.
    pub sequence: u64,
    /// The operation, or `batch`.
    pub op: String,
    /// `pending`, `applying`, `applied`, `failed` or `cancelled`.
    pub state: String,
    /// `operator` or `scheduled`.
    pub cause: String,
    /// Who.
    pub actor: String,
    /// When it was queued.
    pub enqueued_at: String,
    /// When its state last changed.
    pub changed_at: String,
    /// The revision that it made; absent before it is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The generation under which its host is to hold it; absent before it is committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Why it has failed or was cancelled.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What was wrong, of one that was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<FindingShape>,
    /// What it changes, as it was when it was queued or, once it is committed, as it is.
    #[serde(default)]
    pub changes: Vec<ChangeShape>,
    /// The same in words.
    #[serde(default)]
    pub words: String,
}

/// `GET /topologies/{id}/mutations`, as query parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MutationQuery {
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// At most this many, 1 to 1,000; 50 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where the page before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `GET` and `PUT /topologies/{id}/layout`: where things are drawn. What a `PUT` does not name
/// stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayoutShape {
    /// Boxes of LANs.
    #[serde(default)]
    pub lans: Vec<LanPlace>,
    /// Places of deckies, within their home LAN.
    #[serde(default)]
    pub deckies: Vec<DeckyPlace>,
}

/// Where a LAN is drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanPlace {
    /// The LAN; its id in an answer.
    pub lan: String,
    /// From the left, in pixels.
    pub x: i32,
    /// From the top.
    pub y: i32,
    /// Its width.
    pub width: u32,
    /// Its height.
    pub height: u32,
}

/// Where a decky is drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeckyPlace {
    /// The decky; its id in an answer.
    pub decky: String,
    /// From the left, in pixels.
    pub x: i32,
    /// From the top.
    pub y: i32,
}

/// `GET /topologies/{id}/next-subnet`, as query parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubnetQuery {
    /// Out of which range, such as `10.0.0.0/16`; `172.20.0.0/16` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
}

/// A subnet that no live LAN of the master overlaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeSubnet {
    /// The range.
    pub subnet: String,
}

/// `GET /topologies/{id}/lans/{lan}/next-address`: an address that is free there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeAddress {
    /// The LAN's range.
    pub subnet: String,
    /// The address.
    pub address: String,
}

/// `GET /topologies/{id}/events`: what is sent first, unless the stream is resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologySnapshot {
    /// The topology, and where it stands.
    pub state: TopologyState,
    /// The mutations that have not ended, in their order.
    pub mutations: Vec<MutationShape>,
}

/// `edited`: a draft has another revision. What is live is edited by mutations, which are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyEdited {
    /// The revision that is stored.
    pub revision: u64,
}

/// One message of `GET /topologies/{id}/events`, by the name of its event.
#[derive(Debug, Clone, PartialEq)]
pub enum TopologyNews {
    /// `snapshot`: how everything stands.
    Snapshot(Box<TopologySnapshot>),
    /// `edited`: a draft has another revision.
    Edited(TopologyEdited),
    /// `status`: the status has changed.
    Status(StatusChangeShape),
    /// `mutation`: a mutation is new or its state has changed.
    Mutation(Box<MutationShape>),
    /// `decky_mutated`: the services of a decky have changed.
    DeckyMutated(Box<EventShape>),
}

// === conversions ===

impl From<EditRequest> for MutationDraft {
    fn from(request: EditRequest) -> Self {
        let mut ops: Vec<OpDraft> = request.ops.into_iter().map(OpDraft::from).collect();
        match ops.len() {
            1 => Self::One(ops.remove(0)),
            _ => Self::Batch(ops),
        }
    }
}

impl From<OpShape> for OpDraft {
    fn from(op: OpShape) -> Self {
        match op {
            OpShape::AddLan(lan) => Self::AddLan(DraftLan {
                name: lan.name,
                subnet: lan.subnet.unwrap_or_default(),
                subnet6: lan.subnet6,
                kind: lan.kind,
                driver: lan.driver,
            }),
            OpShape::RemoveLan { lan } => Self::RemoveLan { lan },
            OpShape::UpdateLan { lan, patch } => Self::UpdateLan {
                lan,
                patch: patch.into(),
            },
            OpShape::AddDecky(decky) => Self::AddDecky(Box::new((*decky).into())),
            OpShape::RemoveDecky { decky } => Self::RemoveDecky { decky },
            OpShape::UpdateDecky { decky, patch } => Self::UpdateDecky {
                decky,
                patch: Box::new((*patch).into()),
            },
            OpShape::AttachDecky(attachment) => Self::AttachDecky {
                decky: attachment.decky,
                edge: DraftEdge {
                    lan: attachment.lan,
                    address: attachment.address,
                    mac: attachment.mac,
                    home: attachment.home,
                },
                forwards_l3: attachment.forwards_l3,
            },
            OpShape::DetachDecky { decky, lan } => Self::DetachDecky { decky, lan },
        }
    }
}

impl From<LanPatch> for LanPatchDraft {
    fn from(patch: LanPatch) -> Self {
        Self {
            name: patch.name,
            subnet: patch.subnet,
            subnet6: patch.subnet6,
            kind: patch.kind,
            driver: patch.driver,
        }
    }
}

impl From<DeckyPatch> for DeckyPatchDraft {
    fn from(patch: DeckyPatch) -> Self {
        let options = |options: BTreeMap<String, WireOption>| {
            options
                .into_iter()
                .map(|(name, value)| (name, value.into()))
                .collect()
        };
        Self {
            name: patch.name,
            hostname: patch.hostname,
            archetype: patch.archetype,
            services: patch.services,
            service_config: patch
                .service_config
                .into_iter()
                .map(|(service, set)| (service, options(set)))
                .collect(),
            persona: patch.persona,
            forwards_l3: patch.forwards_l3,
            publish: patch
                .publish
                .map(|publish| publish.into_iter().map(DraftPublish::from).collect()),
            mutate_every: patch.mutate_every,
            seed: patch.seed,
            edges: patch.edges.into_iter().map(DraftEdge::from).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<OpShape, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn each_operation_is_written_as_it_is_read() {
        for text in [
            r#"{"op":"add_lan","name":"LAN-07","kind":"internal"}"#,
            r#"{"op":"remove_lan","lan":"LAN-07"}"#,
            r#"{"op":"update_lan","lan":"LAN-07","patch":{"name":"office","subnet6":null}}"#,
            r#"{"op":"add_decky","name":"web","services":["http"],"edges":[{"lan":"LAN-07"}]}"#,
            r#"{"op":"remove_decky","decky":"web"}"#,
            r#"{"op":"update_decky","decky":"web","patch":{"archetype":null,"services":["ssh"],"service_config":{"ssh":{"banner":"x"}},"mutate_every":"6h"}}"#,
            r#"{"op":"attach_decky","decky":"web","lan":"office","address":"10.0.7.9","forwards_l3":true}"#,
            r#"{"op":"detach_decky","decky":"web","lan":"office"}"#,
        ] {
            let op = read(text).expect(text);
            assert_eq!(serde_json::to_string(&op).expect("strings are keys"), text);
        }
    }

    #[test]
    fn what_is_null_differs_from_what_is_left_out() {
        let patch = |text: &str| serde_json::from_str::<DeckyPatch>(text).expect("a patch");
        assert_eq!(patch("{}").mutate_every, None);
        assert_eq!(patch(r#"{"mutate_every":null}"#).mutate_every, Some(None));
    }

    #[test]
    fn a_typo_is_refused_by_name_at_every_level() {
        for (text, named) in [
            (r#"{"op":"add_lna","name":"a"}"#, "add_lna"),
            (
                r#"{"op":"add_lan","name":"a","subnt":"10.0.0.0/24"}"#,
                "subnt",
            ),
            (r#"{"op":"remove_lan","lan":"a","force":true}"#, "force"),
            (
                r#"{"op":"update_decky","decky":"a","patch":{"service":[]}}"#,
                "service",
            ),
            (
                r#"{"op":"add_decky","name":"a","edges":[{"lan":"b","ip":"10.0.0.4"}]}"#,
                "ip",
            ),
            (
                r#"{"op":"attach_decky","decky":"a","lan":"b","ip":"10.0.0.4"}"#,
                "ip",
            ),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(&format!("`{named}`")), "{text}: {error}");
        }
    }

    #[test]
    fn one_operation_is_one_and_several_are_a_batch() {
        let op = OpShape::RemoveLan {
            lan: "a".to_owned(),
        };
        let draft = |ops: Vec<OpShape>| {
            MutationDraft::from(EditRequest {
                ops,
                expected_revision: None,
            })
        };
        assert!(matches!(draft(vec![op.clone()]), MutationDraft::One(_)));
        assert!(matches!(draft(vec![op.clone(), op]), MutationDraft::Batch(ops) if ops.len() == 2));
    }
}

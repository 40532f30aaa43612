//! The shapes of topologies: as they are asked for, and as they stand.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AppliedShape, DesiredShape, DriftShape, FindingShape, ObservedShape};
use crate::topology_file::TopologyFile;

/// `POST /topologies`: stores a topology.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateTopology {
    /// The topology.
    pub topology: TopologyFile,
    /// The host that is to carry it, by name or id; the one named `local` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// `POST /topologies/{id}/deploy` and `/retry`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DeployRequest {
    /// Whether a live topology on the host gives way.
    #[serde(default)]
    pub replace: bool,
    /// Another host than the stored one, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// `POST /topologies/{id}/teardown`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TeardownRequest {
    /// Settle it as torn down at once; a host that returns is cleaned then.
    #[serde(default)]
    pub force: bool,
}

/// The facts of a topology itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TopologyShape {
    /// Its identity.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `pending`, `deploying`, `active`, `degraded`, `failed`, `tearing_down`, `torn_down`.
    pub status: String,
    /// When the status last changed.
    pub status_at: String,
    /// Why the status last changed.
    pub reason: String,
    /// Counts its edits.
    pub revision: u64,
    /// The name of its host; absent while it has none.
    pub host: Option<String>,
    /// How many LANs it has.
    pub lans: u32,
    /// How many deckies it has.
    pub deckies: u32,
}

/// `GET /topologies/{id}`: a topology, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TopologyState {
    /// The topology itself.
    pub topology: TopologyShape,
    /// What was assigned.
    pub desired: Option<DesiredShape>,
    /// What its host has finished.
    pub applied: Option<AppliedShape>,
    /// What its host's engine shows of it; absent while the host is not connected.
    pub observed: Option<ObservedShape>,
    /// How that differs.
    pub drift: Vec<DriftShape>,
    /// How long the host's last attempt took in microseconds, by stage; absent when it made none since it was
    /// started.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub timings_us: BTreeMap<String, u64>,
    /// What is awaited, when something is.
    pub condition: Option<String>,
    /// How far the host is, while it is at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressShape>,
    /// What is wrong with it as it is stored.
    #[serde(default)]
    pub findings: Vec<FindingShape>,
}

/// How far a host is with an assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ProgressShape {
    /// Steps done.
    pub done: u32,
    /// Steps in all.
    pub total: u32,
}

/// One change of a topology's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StatusChangeShape {
    /// When.
    pub at: String,
    /// From where.
    pub from: String,
    /// To where.
    pub to: String,
    /// What happened.
    pub event: String,
    /// Why.
    pub reason: String,
    /// Who.
    pub actor: String,
}

/// `POST /topologies/validate` and the answer to a draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Findings {
    /// What is wrong, sorted.
    pub findings: Vec<FindingShape>,
}

/// `GET /topologies`, as query parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct TopologiesQuery {
    /// With this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "schema",
        param(pattern = "^(pending|deploying|active|degraded|failed|tearing_down|torn_down)$")
    )]
    pub status: Option<String>,
    /// Of this host, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whose name holds this, in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// At most this many, 1 to 1,000; 100 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", param(minimum = 1, maximum = 1000))]
    pub limit: Option<u32>,
    /// Where the page before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

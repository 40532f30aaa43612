//! The shapes of the REST API under `/api/v1`: JSON in, JSON out, RFC 9457 problems.
//!
//! Times are RFC 3339 in UTC, ids are UUIDs, digests are 64 hexadecimal digits.

use std::collections::BTreeMap;

use domain::topology::finding::Finding;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::access::{
    ApiTokenCreated, ApiTokenShape, ApiTokensQuery, ChangePassword, ChangeUser, CreateApiToken,
    CreateUser, LoginRequest, Me, RoleShape, SessionOpened, SessionOwnerQuery, SessionShape,
    SessionsQuery, UserChanged, UserShape, UsersQuery,
};
pub use crate::topology_file::TopologyFile;

mod access;
pub mod mutation;

/// Media type of a problem document (RFC 9457).
pub const PROBLEM: &str = "application/problem+json";

/// A problem document (RFC 9457) with our extensions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `urn:decnet:` and a word: `unknown`, `host_occupied`, `invalid_topology`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, one clause.
    pub title: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_step: Option<String>,
    /// What is wrong with a topology.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<FindingShape>,
    /// What is stored, where the caller saw something else: a status, a revision, a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Under which the log tells more, for a fault of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// One thing that is wrong with a topology.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FindingShape {
    /// `error` or `warning`.
    pub severity: String,
    /// Which rule, such as `SUBNET_OVERLAP`.
    pub code: String,
    /// Cause and way out.
    pub message: String,
    /// What it is about.
    pub target: String,
    /// Where it stands in the document.
    pub path: String,
}

impl From<&Finding> for FindingShape {
    fn from(finding: &Finding) -> Self {
        Self {
            severity: finding.severity.as_str().to_owned(),
            code: finding.code.as_str().to_owned(),
            message: finding.message.clone(),
            target: finding.target.clone(),
            path: finding.path.clone(),
        }
    }
}

/// Part of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The part.
    pub items: Vec<T>,
    /// How many there are in all.
    pub total: u64,
    /// Give it as `cursor` for the next part; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `POST /tokens`: asks for a join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EnrollRequest {
    /// The name that the host will have.
    pub name: String,
    /// For how long the token can be redeemed, in seconds: 1 to 86,400; 900 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 86_400))]
    pub ttl_seconds: Option<u32>,
}

/// A token that was just made. It is shown once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Enrollment {
    /// The token's public part.
    pub id: String,
    /// The token: a secret.
    pub token: String,
    /// The name that the host will have.
    pub name: String,
    /// Until when it can be redeemed.
    pub expires_at: String,
    /// What the host dials, such as `https://10.0.0.5:7443`.
    pub master_url: String,
    /// What to run on the host; the token is given on standard input.
    pub command: String,
}

impl std::fmt::Debug for Enrollment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrollment")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A token in a list: never its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TokenShape {
    /// The token's public part.
    pub id: String,
    /// The name that the host will have.
    pub name: String,
    /// When it was made.
    pub created_at: String,
    /// Until when it can be redeemed.
    pub expires_at: String,
    /// By whom it was made.
    pub creator: String,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HostShape {
    /// Its identity.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `ready`, `late`, `lost`, `unknown` or `revoked`.
    pub state: String,
    /// `open`, `cordoned`, `draining`, `revoked` or `removed`.
    pub standing: String,
    /// When it was last heard.
    pub last_seen: Option<String>,
    /// The release of its agent.
    pub agent_version: String,
    /// When it joined.
    pub enrolled_at: String,
    /// What it was told to hold.
    pub desired: Option<DesiredShape>,
    /// Whether it has heard that, is done with it, and has looked at its engine since.
    #[serde(default)]
    pub settled: bool,
    /// What it last finished.
    pub applied: Option<AppliedShape>,
    /// What its engine shows.
    pub observed: Option<ObservedShape>,
    /// How that differs.
    pub drift: Vec<DriftShape>,
    /// How its agent is; absent while it is not connected.
    pub health: Option<HealthShape>,
}

/// How an agent and its host are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HealthShape {
    /// Whether the engine answers.
    pub engine_ok: bool,
    /// Whether evidence is collected.
    pub collect_ok: bool,
    /// Whether the spool takes it.
    pub spool_ok: bool,
    /// Free disk, MiB.
    pub disk_free_mib: u32,
    /// Free memory, MiB.
    pub memory_free_mib: u32,
    /// Events that wait to be sent.
    pub spool_events: u32,
    /// Host clock minus master clock, milliseconds.
    pub clock_skew_ms: i64,
}

/// What a host was told to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DesiredShape {
    /// The epoch.
    pub epoch: u64,
    /// The generation.
    pub generation: u64,
    /// The topology; absent for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<String>,
    /// The hash of its hydrated document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_hash: Option<String>,
}

/// What a host has finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AppliedShape {
    /// The generation.
    pub generation: u64,
    /// The topology.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<String>,
    /// The hash of its hydrated document.
    pub version_hash: String,
    /// When.
    pub at: String,
}

/// What an engine shows, counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ObservedShape {
    /// Running deckies.
    pub deckies: u64,
    /// LANs.
    pub lans: u64,
    /// What each running decky uses, as it was last read; of a topology alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usage: Vec<UsageShape>,
}

/// What one decky uses of its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct UsageShape {
    /// Which decky.
    pub decky: String,
    /// Its name, when the topology has one for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Memory, the pages of files that it read included.
    pub memory_bytes: u64,
    /// Time on a processor since it was started, in microseconds.
    pub cpu_micros: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Packets that its containment has refused; absent when nothing counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_packets: Option<u64>,
    /// Processes that were killed because it was out of memory; absent when it cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
}

/// One difference between desired and observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DriftShape {
    /// `missing`, `stopped`, `changed`, `detached`, `attached`, `reconfigured`, `stray`, `foreign`.
    pub kind: String,
    /// Of what.
    pub object: String,
}

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

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EventShape {
    /// Its identity.
    pub id: String,
    /// Its place in the order of arrival: give it as `after` to go on from here.
    pub row: i64,
    /// The host.
    pub host: String,
    /// The topology.
    pub topology: String,
    /// The decky.
    pub decky: String,
    /// The decky's name, while its topology is stored.
    pub decky_name: Option<String>,
    /// The service.
    pub service: Option<String>,
    /// The kind.
    pub kind: String,
    /// `info`, `notice`, `warning`, `critical`.
    pub severity: String,
    /// The decky's clock.
    pub at: String,
    /// The master's clock.
    pub received_at: String,
    /// The connection or login.
    pub session: Option<String>,
    /// Who, as `address:port`.
    pub source: Option<String>,
    /// On which address and port of the decky.
    pub destination: Option<String>,
    /// The data of its kind; bytes that are not UTF-8 are `{"b64": "…"}`.
    pub data: Value,
    /// Bytes on the wire, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// The spool that it came from.
    pub spool: String,
    /// Its number there.
    pub sequence: u64,
}

/// `GET /status`: the overall state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SystemStatus {
    /// The release.
    pub version: String,
    /// Since when it runs.
    pub started_at: String,
    /// The epoch in force.
    pub epoch: u64,
    /// Hosts by state.
    pub hosts: std::collections::BTreeMap<String, u64>,
    /// Topologies by status.
    pub topologies: std::collections::BTreeMap<String, u64>,
    /// Events in the table.
    pub events: u64,
    /// What hosts dial.
    pub master_url: String,
    /// The pin of the CA, which every join token carries.
    pub ca_pin: String,
}

/// Which events, as query parameters of `/events`, `/events/stream` and `/events/export`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// Of this topology, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<String>,
    /// Of this decky, by id, or by name together with `topology`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decky: Option<String>,
    /// Of this host, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// From this source address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Seen at or after (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", param(format = DateTime))]
    pub since: Option<String>,
    /// Seen before (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", param(format = DateTime))]
    pub until: Option<String>,
    /// At most this many, 1 to 1,000; 50 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", param(minimum = 1, maximum = 1000))]
    pub limit: Option<u32>,
    /// Where the page before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// For the stream and the export: from after this row on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
}

/// `GET /hosts`, as query parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct HostsQuery {
    /// Whether hosts that were removed are listed too.
    #[serde(default)]
    pub removed: bool,
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
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

/// `GET /tokens`, as query parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct TokensQuery {
    /// At most this many, 1 to 1,000; 100 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", param(minimum = 1, maximum = 1000))]
    pub limit: Option<u32>,
    /// Where the page before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
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

/// `DELETE /hosts/{id}`, as query parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct RemoveHostQuery {
    /// Whether a host goes that still carries a topology: what it holds is removed if it returns.
    #[serde(default)]
    pub force: bool,
}

/// `GET /audit`, as query parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// By this actor: `operator:NAME`, `host:ID` or `reconciler`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// This action, such as `topology.create`; `topology.` means all of its noun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// On this subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// At most this many, 1 to 1,000; 50 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", param(minimum = 1, maximum = 1000))]
    pub limit: Option<u32>,
    /// Where the page before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AuditShape {
    /// When.
    pub at: String,
    /// Who: `operator:NAME`, `host:ID` or `reconciler`.
    pub actor: String,
    /// What, as `noun.verb`.
    pub action: String,
    /// From which address, for an operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// On what.
    pub subject: String,
    /// More for a person; never a secret.
    pub detail: String,
}

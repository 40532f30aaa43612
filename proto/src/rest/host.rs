//! The shapes of hosts, and of the tokens by which they join.

use serde::{Deserialize, Serialize};

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
    /// `missing`, `stopped`, `changed`, `detached`, `attached`, `reconfigured`, `readdressed`,
    /// `rerouted`, `retuned`, `unsealed`, `unpublished`, `stray`, `foreign`.
    pub kind: String,
    /// Of what.
    pub object: String,
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

/// `DELETE /hosts/{id}`, as query parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::IntoParams))]
#[serde(deny_unknown_fields)]
pub struct RemoveHostQuery {
    /// Whether a host goes that still carries a topology: what it holds is removed if it returns.
    #[serde(default)]
    pub force: bool,
}

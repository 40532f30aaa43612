//! The shapes of the REST API under `/api/v1`: JSON in, JSON out, RFC 9457 problems.
//!
//! Times are RFC 3339 in UTC, ids are UUIDs, digests are 64 hexadecimal digits.

use domain::topology::finding::Finding;
use serde::{Deserialize, Serialize};

pub use self::access::{
    ApiTokenCreated, ApiTokenShape, ApiTokensQuery, ChangePassword, ChangeUser, CreateApiToken,
    CreateUser, LoginRequest, Me, RoleShape, SessionOpened, SessionOwnerQuery, SessionShape,
    SessionsQuery, UserChanged, UserShape, UsersQuery,
};
pub use self::event::{EventQuery, EventShape};
pub use self::host::{
    AppliedShape, DesiredShape, DriftShape, EnrollRequest, Enrollment, HealthShape, HostShape,
    HostsQuery, ObservedShape, RemoveHostQuery, TokenShape, TokensQuery, UsageShape,
};
pub use self::topology::{
    CreateTopology, DeployRequest, Findings, ProgressShape, StatusChangeShape, TeardownRequest,
    TopologiesQuery, TopologyShape, TopologyState,
};
pub use crate::topology_file::TopologyFile;

mod access;
mod event;
mod host;
pub mod mutation;
mod topology;

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

//! The shapes of events.

use serde::{Deserialize, Serialize};
use serde_json::Value;

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

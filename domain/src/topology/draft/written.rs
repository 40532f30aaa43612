//! The draft: a topology, or a part of one, as a person wrote it.

use std::collections::BTreeMap;

use crate::service::OptionValue;

/// A topology as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Draft {
    /// Its name.
    pub name: String,
    /// Its segments.
    pub lans: Vec<DraftLan>,
    /// Its machines, each with its edges.
    pub deckies: Vec<DraftDecky>,
}

/// A segment as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DraftLan {
    /// Its name.
    pub name: String,
    /// Its range in CIDR form.
    pub subnet: String,
    /// Its IPv6 range in CIDR form, if its machines speak IPv6.
    pub subnet6: Option<String>,
    /// `dmz` or `internal`; internal when left out.
    pub kind: Option<String>,
    /// `bridge`, `macvlan:INTERFACE` or `ipvlan:INTERFACE`; bridge when left out.
    pub driver: Option<String>,
}

/// A machine as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DraftDecky {
    /// The operator's name for it.
    pub name: String,
    /// The name that attackers see; from the seed when left out.
    pub hostname: Option<String>,
    /// The set of services that it was made from.
    pub archetype: Option<String>,
    /// What it serves.
    pub services: Vec<String>,
    /// Options by service.
    pub service_config: BTreeMap<String, BTreeMap<String, OptionValue>>,
    /// The operating system that it shows; when left out, the archetype's, or the first on which
    /// its services are plausible.
    pub persona: Option<String>,
    /// Whether it routes between its LANs.
    pub forwards_l3: bool,
    /// Ports of the host that it answers behind.
    pub publish: Vec<DraftPublish>,
    /// How often it mutates by itself, such as `6h`; never when left out.
    pub mutate_every: Option<String>,
    /// 64 hexadecimal digits; random when left out.
    pub seed: Option<String>,
    /// Its LANs, in the order of its interfaces.
    pub edges: Vec<DraftEdge>,
}

/// A published port as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DraftPublish {
    /// The host's address; all of them when left out.
    pub host_ip: Option<String>,
    /// The host's port.
    pub host_port: i64,
    /// The decky's port.
    pub decky_port: i64,
    /// `tcp` or `udp`; TCP when left out.
    pub protocol: Option<String>,
}

/// A membership of a LAN as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DraftEdge {
    /// The LAN's name.
    pub lan: String,
    /// The address there; the next free one when left out.
    pub address: Option<String>,
    /// The hardware address there; from the seed when left out.
    pub mac: Option<String>,
    /// Whether the LAN is where the machine belongs; the first one when nobody says.
    pub home: Option<bool>,
}

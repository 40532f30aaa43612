//! The topology document: what operators write (YAML), send (JSON) and export.

use std::collections::BTreeMap;

use domain::service::OptionValue;
use domain::topology::Topology;
use domain::topology::draft::{Draft, DraftDecky, DraftEdge, DraftLan, DraftPublish};
use serde::{Deserialize, Serialize};

use crate::decky_config::WireOption;

/// Largest document, in bytes.
pub const MAX_FILE: usize = 4 * 1024 * 1024;

/// A topology as an operator writes it. Names are its references.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopologyFile {
    /// Its name.
    pub name: String,
    /// Its segments.
    pub lans: Vec<FileLan>,
    /// Its machines.
    #[serde(default)]
    pub deckies: Vec<FileDecky>,
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileLan {
    /// Its name.
    pub name: String,
    /// Its range, such as `10.0.1.0/24`.
    pub subnet: String,
    /// Its IPv6 range of 64 bits, such as `fd00:9::/64`; none when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet6: Option<String>,
    /// `dmz` or `internal` (the default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `bridge` (the default), `macvlan:INTERFACE` or `ipvlan:INTERFACE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDecky {
    /// The operator's name for it.
    pub name: String,
    /// The name that attackers see; chosen when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The set of services that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archetype: Option<String>,
    /// The operating system that it shows; when left out, the archetype's, or the first on which
    /// its services are plausible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persona: Option<String>,
    /// What it serves.
    #[serde(default)]
    pub services: Vec<String>,
    /// Options by service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub service_config: BTreeMap<String, BTreeMap<String, WireOption>>,
    /// Whether it routes between its LANs.
    #[serde(default, skip_serializing_if = "is_false")]
    pub forwards_l3: bool,
    /// Ports of the host behind which it answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<FilePublish>,
    /// How often it mutates by itself, such as `6h`; never when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutate_every: Option<String>,
    /// 64 hexadecimal digits; random when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
    /// Its LANs, in the order of its interfaces.
    pub edges: Vec<FileEdge>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature is serde's"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePublish {
    /// The host's address; all of them when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    /// The host's port.
    pub host_port: i64,
    /// The decky's port.
    pub decky_port: i64,
    /// `tcp` (the default) or `udp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// A membership of a LAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEdge {
    /// The LAN's name.
    pub lan: String,
    /// The address there; the next free one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The hardware address there; chosen when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Whether it is where the machine belongs; the first one is when nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<bool>,
}

impl From<TopologyFile> for Draft {
    fn from(file: TopologyFile) -> Self {
        Self {
            name: file.name,
            lans: file.lans.into_iter().map(DraftLan::from).collect(),
            deckies: file.deckies.into_iter().map(DraftDecky::from).collect(),
        }
    }
}

impl From<FileLan> for DraftLan {
    fn from(lan: FileLan) -> Self {
        Self {
            name: lan.name,
            subnet: lan.subnet,
            subnet6: lan.subnet6,
            kind: lan.kind,
            driver: lan.driver,
        }
    }
}

impl From<FileDecky> for DraftDecky {
    fn from(decky: FileDecky) -> Self {
        let options = |options: BTreeMap<String, WireOption>| {
            options
                .into_iter()
                .map(|(name, value)| (name, value.into()))
                .collect()
        };
        Self {
            name: decky.name,
            hostname: decky.hostname,
            archetype: decky.archetype,
            services: decky.services,
            service_config: decky
                .service_config
                .into_iter()
                .map(|(service, set)| (service, options(set)))
                .collect(),
            persona: decky.persona,
            forwards_l3: decky.forwards_l3,
            publish: decky.publish.into_iter().map(DraftPublish::from).collect(),
            mutate_every: decky.mutate_every,
            seed: decky.seed,
            edges: decky.edges.into_iter().map(DraftEdge::from).collect(),
        }
    }
}

impl From<FilePublish> for DraftPublish {
    fn from(publish: FilePublish) -> Self {
        Self {
            host_ip: publish.host_ip,
            host_port: publish.host_port,
            decky_port: publish.decky_port,
            protocol: publish.protocol,
        }
    }
}

impl From<FileEdge> for DraftEdge {
    fn from(edge: FileEdge) -> Self {
        Self {
            lan: edge.lan,
            address: edge.address,
            mac: edge.mac,
            home: edge.home,
        }
    }
}

impl From<Draft> for TopologyFile {
    fn from(draft: Draft) -> Self {
        Self {
            name: draft.name,
            lans: draft.lans.into_iter().map(FileLan::from).collect(),
            deckies: draft.deckies.into_iter().map(FileDecky::from).collect(),
        }
    }
}

impl From<DraftLan> for FileLan {
    fn from(lan: DraftLan) -> Self {
        Self {
            name: lan.name,
            subnet: lan.subnet,
            subnet6: lan.subnet6,
            kind: lan.kind,
            driver: lan.driver,
        }
    }
}

impl From<DraftDecky> for FileDecky {
    fn from(decky: DraftDecky) -> Self {
        let options = |options: &BTreeMap<String, OptionValue>| {
            options
                .iter()
                .map(|(name, value)| (name.clone(), value.into()))
                .collect()
        };
        Self {
            name: decky.name,
            hostname: decky.hostname,
            archetype: decky.archetype,
            persona: decky.persona,
            services: decky.services,
            service_config: decky
                .service_config
                .iter()
                .map(|(service, set)| (service.clone(), options(set)))
                .collect(),
            forwards_l3: decky.forwards_l3,
            publish: decky
                .publish
                .into_iter()
                .map(|publish| FilePublish {
                    host_ip: publish.host_ip,
                    host_port: publish.host_port,
                    decky_port: publish.decky_port,
                    protocol: publish.protocol,
                })
                .collect(),
            mutate_every: decky.mutate_every,
            seed: decky.seed,
            edges: decky
                .edges
                .into_iter()
                .map(|edge| FileEdge {
                    lan: edge.lan,
                    address: edge.address,
                    mac: edge.mac,
                    home: edge.home,
                })
                .collect(),
        }
    }
}

impl From<&Topology> for TopologyFile {
    fn from(topology: &Topology) -> Self {
        Draft::from(topology).into()
    }
}

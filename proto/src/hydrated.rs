//! The hydrated document: canonical JSON that travels to agents, is stored by them, and is what
//! `decnet topology export --hydrated` prints. Written by `domain`, read here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use domain::name::{DeckyName, Hostname, LanName};
use domain::service::{ServiceKind, ServiceOptions, ServiceSet};
use domain::topology::hydrate::{
    DeckyLimits, HydratedDecky, HydratedInterface, HydratedLan, HydratedTopology, SCHEMA,
    VersionHash,
};
use domain::topology::{Protocol, Publish};
use domain::wiring::Route;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;

use crate::decky_config::WireOption;

/// Largest document, in bytes.
pub const MAX_DOCUMENT: usize = 8 * 1024 * 1024;

/// Why bytes are no hydrated document.
#[derive(Debug, thiserror::Error)]
pub enum InvalidHydrated {
    /// Larger than any master sends.
    #[error("hydrated document of {got} bytes exceeds {MAX_DOCUMENT}")]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// Not the JSON of a hydrated topology.
    #[error("hydrated document is malformed")]
    Json(#[source] serde_json::Error),
    /// Of another schema.
    #[error("hydrated document has schema {got}, this release knows {SCHEMA}")]
    Schema {
        /// The schema that it says.
        got: u32,
    },
    /// A field that does not hold what it should.
    #[error("{field} of the hydrated document is malformed: {cause}")]
    Field {
        /// Which.
        field: &'static str,
        /// Why.
        cause: Box<str>,
    },
    /// The document is not the one that was announced.
    #[error("hydrated document has hash {got:?}, announced was {announced:?}")]
    Hash {
        /// What it hashes to.
        got: VersionHash,
        /// What was announced.
        announced: VersionHash,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireTopology {
    schema: u32,
    id: String,
    lans: Vec<WireLan>,
    deckies: Vec<WireDecky>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireLan {
    id: String,
    name: String,
    subnet: String,
    subnet6: Option<String>,
    gateway: Ipv4Addr,
    kind: String,
    driver: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireDecky {
    id: String,
    name: String,
    hostname: String,
    persona: String,
    seed: String,
    forwards_l3: bool,
    services: BTreeMap<String, BTreeMap<String, WireOption>>,
    interfaces: Vec<WireInterface>,
    routes: Vec<WireRoute>,
    publish: Vec<WirePublish>,
    sysctls: BTreeMap<String, String>,
    limits: WireLimits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireInterface {
    lan: String,
    address: Ipv4Addr,
    address6: Option<Ipv6Addr>,
    mac: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRoute {
    to: String,
    via: IpAddr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePublish {
    host_ip: Option<Ipv4Addr>,
    host_port: u16,
    decky_port: u16,
    protocol: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireLimits {
    memory_mib: u32,
    pids: u32,
    cpu_milli: u32,
}

fn field<E: std::fmt::Display>(field: &'static str) -> impl Fn(E) -> InvalidHydrated {
    move |error| InvalidHydrated::Field {
        field,
        cause: error.to_string().into_boxed_str(),
    }
}

/// The bytes that are hashed, sent and stored.
pub fn encode(topology: &HydratedTopology) -> Vec<u8> {
    topology.document().into_bytes()
}

/// Reads a document and checks that it is the one whose hash was announced.
pub fn decode_announced(
    bytes: &[u8],
    announced: VersionHash,
) -> Result<HydratedTopology, InvalidHydrated> {
    let topology = decode(bytes)?;
    let got = topology.version_hash();
    if got == announced {
        Ok(topology)
    } else {
        Err(InvalidHydrated::Hash { got, announced })
    }
}

/// Reads a document.
pub fn decode(bytes: &[u8]) -> Result<HydratedTopology, InvalidHydrated> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(InvalidHydrated::TooLong { got: bytes.len() });
    }
    let wire: WireTopology = serde_json::from_slice(bytes).map_err(InvalidHydrated::Json)?;
    if wire.schema != SCHEMA {
        return Err(InvalidHydrated::Schema { got: wire.schema });
    }
    Ok(HydratedTopology {
        id: wire.id.parse().map_err(field("id"))?,
        lans: wire.lans.into_iter().map(lan).collect::<Result<_, _>>()?,
        deckies: wire
            .deckies
            .into_iter()
            .map(decky)
            .collect::<Result<_, _>>()?,
    })
}

fn lan(wire: WireLan) -> Result<HydratedLan, InvalidHydrated> {
    Ok(HydratedLan {
        id: wire.id.parse().map_err(field("lans.id"))?,
        name: LanName::parse(&wire.name).map_err(field("lans.name"))?,
        subnet: wire
            .subnet
            .parse::<Ipv4Net>()
            .map_err(field("lans.subnet"))?,
        subnet6: wire
            .subnet6
            .map(|subnet| subnet.parse::<Ipv6Net>().map_err(field("lans.subnet6")))
            .transpose()?,
        gateway: wire.gateway,
        kind: wire.kind.parse().map_err(field("lans.kind"))?,
        driver: wire.driver.parse().map_err(field("lans.driver"))?,
    })
}

fn decky(wire: WireDecky) -> Result<HydratedDecky, InvalidHydrated> {
    let mut services = ServiceSet::new();
    for (name, options) in wire.services {
        let kind: ServiceKind = name.parse().map_err(field("deckies.services"))?;
        let mut set = ServiceOptions::default();
        for (option, value) in options {
            set.set(kind, &option, value.into())
                .map_err(field("deckies.services"))?;
        }
        services.insert(kind, set);
    }
    let interface = |wire: WireInterface| {
        Ok(HydratedInterface {
            lan: wire.lan.parse().map_err(field("deckies.interfaces.lan"))?,
            address: wire.address,
            address6: wire.address6,
            mac: wire.mac.parse().map_err(field("deckies.interfaces.mac"))?,
        })
    };
    let route = |wire: WireRoute| {
        Ok(Route {
            to: wire
                .to
                .parse::<IpNet>()
                .map_err(field("deckies.routes.to"))?,
            via: wire.via,
        })
    };
    let publish = |wire: WirePublish| {
        Ok(Publish {
            host_ip: wire.host_ip,
            host_port: wire.host_port,
            decky_port: wire.decky_port,
            protocol: wire
                .protocol
                .parse::<Protocol>()
                .map_err(field("deckies.publish.protocol"))?,
        })
    };
    Ok(HydratedDecky {
        id: wire.id.parse().map_err(field("deckies.id"))?,
        name: DeckyName::parse(&wire.name).map_err(field("deckies.name"))?,
        hostname: Hostname::parse(&wire.hostname).map_err(field("deckies.hostname"))?,
        persona: wire.persona.parse().map_err(field("deckies.persona"))?,
        seed: wire.seed.parse().map_err(field("deckies.seed"))?,
        forwards_l3: wire.forwards_l3,
        services,
        interfaces: wire
            .interfaces
            .into_iter()
            .map(interface)
            .collect::<Result<_, _>>()?,
        routes: wire
            .routes
            .into_iter()
            .map(route)
            .collect::<Result<_, _>>()?,
        publish: wire
            .publish
            .into_iter()
            .map(publish)
            .collect::<Result<_, _>>()?,
        sysctls: wire.sysctls.into(),
        limits: DeckyLimits {
            memory_mib: wire.limits.memory_mib,
            pids: wire.limits.pids,
            cpu_milli: wire.limits.cpu_milli,
        },
    })
}

#[cfg(test)]
mod tests;

//! Hydration: a topology with nothing left to decide, its canonical form and its version hash.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::{LanDriver, LanKind, Publish, Topology, allocate};
use crate::canonical::Canonical;
use crate::id::{DeckyId, LanId, TopologyId};
use crate::name::{DeckyName, Hostname, LanName};
use crate::persona::{Mac, Persona};
use crate::seed::Seed;
use crate::service::{OptionValue, ServiceOptions, ServiceSet};
use crate::wiring::Route;

mod route;

/// Version of the hydrated form, part of what is hashed.
pub const SCHEMA: u32 = 1;

/// What a host is to hold: the very value that is hashed, sent and applied.
///
/// Sorted by id throughout, so that two topologies that differ only in order hydrate to equal
/// values. It has no positions, no status and no times: there is nothing to leave out of the hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HydratedTopology {
    /// The topology's identity.
    pub id: TopologyId,
    /// Its segments.
    pub lans: Vec<HydratedLan>,
    /// Its machines.
    pub deckies: Vec<HydratedDecky>,
}

/// One segment, ready to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HydratedLan {
    /// Its identity.
    pub id: LanId,
    /// Its name.
    pub name: LanName,
    /// Its range.
    pub subnet: Ipv4Net,
    /// Its IPv6 range, if any.
    pub subnet6: Option<Ipv6Net>,
    /// The address that the engine takes, or that of the router of a real network.
    pub gateway: Ipv4Addr,
    /// Whether the outside reaches it.
    pub kind: LanKind,
    /// How it is made.
    pub driver: LanDriver,
}

/// One machine, ready to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HydratedDecky {
    /// Its identity.
    pub id: DeckyId,
    /// The operator's name for it.
    pub name: DeckyName,
    /// The name that attackers see.
    pub hostname: Hostname,
    /// The operating system that it shows.
    pub persona: Persona,
    /// What everything comparable is derived from.
    pub seed: Seed,
    /// Whether it routes between its LANs.
    pub forwards_l3: bool,
    /// What it serves.
    pub services: ServiceSet,
    /// Its interfaces in their order.
    pub interfaces: Vec<HydratedInterface>,
    /// Its routes besides those to its own LANs, sorted.
    pub routes: Vec<Route>,
    /// Ports of the host behind which it answers, sorted.
    pub publish: Vec<Publish>,
    /// Kernel settings of its network namespace.
    pub sysctls: BTreeMap<String, String>,
    /// What it may use.
    pub limits: DeckyLimits,
}

/// One interface of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HydratedInterface {
    /// The segment.
    pub lan: LanId,
    /// Its address there.
    pub address: Ipv4Addr,
    /// Its IPv6 address there, when the LAN has a range: what such a machine would choose by
    /// itself (RFC 4291, appendix A).
    pub address6: Option<Ipv6Addr>,
    /// Its hardware address there.
    pub mac: Mac,
}

/// What a decky may use of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeckyLimits {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processes and threads.
    pub pids: u32,
    /// Thousandths of a processor.
    pub cpu_milli: u32,
}

impl Default for DeckyLimits {
    fn default() -> Self {
        Self {
            memory_mib: 64,
            pids: 64,
            cpu_milli: 500,
        }
    }
}

/// Makes every choice that is left in `topology`.
pub fn hydrate(topology: &Topology) -> HydratedTopology {
    let mut lans: Vec<_> = topology
        .lans
        .iter()
        .map(|lan| HydratedLan {
            id: lan.id,
            name: lan.name.clone(),
            subnet: lan.subnet,
            subnet6: lan.subnet6,
            gateway: allocate::gateway(lan.subnet),
            kind: lan.kind,
            driver: lan.driver.clone(),
        })
        .collect();
    lans.sort_by_key(|lan| lan.id);

    let subnet6_of: BTreeMap<_, _> = lans.iter().map(|lan| (lan.id, lan.subnet6)).collect();
    let mut interfaces_of: BTreeMap<DeckyId, Vec<(bool, HydratedInterface)>> = BTreeMap::new();
    for edge in &topology.edges {
        let interface = HydratedInterface {
            lan: edge.lan,
            address: edge.address,
            address6: subnet6_of
                .get(&edge.lan)
                .copied()
                .flatten()
                .map(|subnet| interface_address6(subnet, edge.mac)),
            mac: edge.mac,
        };
        interfaces_of
            .entry(edge.decky)
            .or_default()
            .push((edge.home, interface));
    }
    let mut deckies: Vec<_> = topology
        .deckies
        .iter()
        .map(|decky| {
            let mut interfaces = interfaces_of.remove(&decky.id).unwrap_or_default();
            // Home first, then by LAN: the order in the file must not alter the machine.
            interfaces.sort_by_key(|(home, interface)| (!*home, interface.lan, interface.address));
            let mut publish = decky.publish.clone();
            publish.sort();
            let mut sysctls: BTreeMap<String, String> = decky
                .persona
                .sysctls()
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
            let forward = if decky.forwards_l3 { "1" } else { "0" };
            sysctls.insert("net.ipv4.ip_forward".to_owned(), forward.to_owned());
            let speaks6 = interfaces
                .iter()
                .any(|(_, interface)| interface.address6.is_some());
            if speaks6 {
                sysctls.insert(
                    "net.ipv6.conf.all.forwarding".to_owned(),
                    forward.to_owned(),
                );
            }
            HydratedDecky {
                id: decky.id,
                name: decky.name.clone(),
                hostname: decky.hostname.clone(),
                persona: decky.persona,
                seed: decky.seed,
                forwards_l3: decky.forwards_l3,
                services: decky.services.clone(),
                interfaces: interfaces
                    .into_iter()
                    .map(|(_, interface)| interface)
                    .collect(),
                routes: Vec::new(),
                publish,
                sysctls,
                limits: DeckyLimits::default(),
            }
        })
        .collect();
    deckies.sort_by_key(|decky| decky.id);
    route::fill(&lans, &mut deckies);
    HydratedTopology {
        id: topology.id,
        lans,
        deckies,
    }
}

/// The address that the host, or a real network's router, has in an IPv6 range: the first one.
pub fn gateway6(subnet: Ipv6Net) -> Ipv6Addr {
    Ipv6Addr::from_bits(subnet.network().to_bits().saturating_add(1))
}

/// The address that a machine with this hardware address chooses in a range of 64 bits: the modified
/// EUI-64 of RFC 4291, appendix A.
pub fn interface_address6(subnet: Ipv6Net, mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.bytes();
    let host = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from_bits(subnet.network().to_bits() | u128::from(host))
}

impl HydratedTopology {
    /// The canonical document: what `decnet topology export --hydrated` prints, what travels to
    /// the agent, and what is hashed.
    pub fn document(&self) -> Canonical {
        let Self { id, lans, deckies } = self;
        Canonical::object([
            ("schema", SCHEMA.into()),
            ("id", id.to_string().into()),
            ("lans", lans.iter().map(HydratedLan::document).collect()),
            (
                "deckies",
                deckies.iter().map(HydratedDecky::document).collect(),
            ),
        ])
    }

    /// SHA-256 of the canonical document.
    pub fn version_hash(&self) -> VersionHash {
        VersionHash(self.document().digest())
    }
}

impl HydratedLan {
    fn document(&self) -> Canonical {
        let Self {
            id,
            name,
            subnet,
            subnet6,
            gateway,
            kind,
            driver,
        } = self;
        Canonical::object([
            ("id", id.to_string().into()),
            ("name", name.as_str().into()),
            ("subnet", subnet.to_string().into()),
            ("subnet6", or_null(subnet6)),
            ("gateway", gateway.to_string().into()),
            ("kind", kind.as_str().into()),
            ("driver", driver.to_string().into()),
        ])
    }

    /// The digest of what can only be changed by making the LAN anew.
    pub fn spec(&self) -> SpecDigest {
        let Self {
            id: _,
            name: _,
            subnet,
            subnet6,
            gateway,
            kind: _,
            driver,
        } = self;
        SpecDigest::of(&Canonical::object([
            ("subnet", subnet.to_string().into()),
            ("subnet6", or_null(subnet6)),
            ("gateway", gateway.to_string().into()),
            ("driver", driver.to_string().into()),
        ]))
    }
}

impl HydratedDecky {
    fn document(&self) -> Canonical {
        let Self {
            id,
            name,
            hostname,
            persona,
            seed,
            forwards_l3,
            services,
            interfaces,
            routes,
            publish,
            sysctls,
            limits,
        } = self;
        Canonical::object([
            ("id", id.to_string().into()),
            ("name", name.as_str().into()),
            ("hostname", hostname.as_str().into()),
            ("persona", persona.as_str().into()),
            ("seed", seed.hex().into()),
            ("forwards_l3", (*forwards_l3).into()),
            ("services", services_document(services)),
            (
                "interfaces",
                interfaces.iter().map(HydratedInterface::document).collect(),
            ),
            ("routes", routes.iter().map(route_document).collect()),
            ("publish", publish.iter().map(publish_document).collect()),
            ("sysctls", sysctls_document(sysctls)),
            ("limits", limits.document()),
        ])
    }

    /// The digest of what can only be changed by making the decky anew: not its services, which
    /// are reloaded, not its interfaces, routes and kernel settings, which are wired while it runs,
    /// not its name, which is a label.
    pub fn spec(&self) -> SpecDigest {
        let Self {
            id: _,
            name: _,
            hostname,
            persona,
            seed,
            forwards_l3: _, // among the sysctls
            services: _,
            interfaces: _,
            routes: _,
            publish,
            sysctls: _,
            limits,
        } = self;
        SpecDigest::of(&Canonical::object([
            ("hostname", hostname.as_str().into()),
            ("persona", persona.as_str().into()),
            ("seed", seed.hex().into()),
            ("publish", publish.iter().map(publish_document).collect()),
            ("limits", limits.document()),
        ]))
    }
}

impl HydratedInterface {
    fn document(&self) -> Canonical {
        let Self {
            lan,
            address,
            address6,
            mac,
        } = self;
        Canonical::object([
            ("lan", lan.to_string().into()),
            ("address", address.to_string().into()),
            ("address6", or_null(address6)),
            ("mac", mac.to_string().into()),
        ])
    }
}

impl DeckyLimits {
    fn document(&self) -> Canonical {
        let Self {
            memory_mib,
            pids,
            cpu_milli,
        } = self;
        Canonical::object([
            ("memory_mib", (*memory_mib).into()),
            ("pids", (*pids).into()),
            ("cpu_milli", (*cpu_milli).into()),
        ])
    }
}

fn or_null(value: &Option<impl ToString>) -> Canonical {
    value
        .as_ref()
        .map_or(Canonical::Null, |value| value.to_string().into())
}

fn route_document(route: &Route) -> Canonical {
    let Route { to, via } = route;
    Canonical::object([
        ("to", to.to_string().into()),
        ("via", via.to_string().into()),
    ])
}

fn publish_document(publish: &Publish) -> Canonical {
    let Publish {
        host_ip,
        host_port,
        decky_port,
        protocol,
    } = publish;
    Canonical::object([
        (
            "host_ip",
            host_ip.map_or(Canonical::Null, |ip| ip.to_string().into()),
        ),
        ("host_port", (*host_port).into()),
        ("decky_port", (*decky_port).into()),
        ("protocol", protocol.as_str().into()),
    ])
}

fn sysctls_document(sysctls: &BTreeMap<String, String>) -> Canonical {
    Canonical::Object(
        sysctls
            .iter()
            .map(|(key, value)| (key.clone().into(), value.as_str().into()))
            .collect(),
    )
}

fn services_document(services: &ServiceSet) -> Canonical {
    Canonical::Object(
        services
            .iter()
            .map(|(kind, options)| (kind.as_str().into(), options_document(options)))
            .collect(),
    )
}

fn options_document(options: &ServiceOptions) -> Canonical {
    Canonical::Object(
        options
            .iter()
            .map(|(name, value)| {
                let value = match value {
                    OptionValue::Text(text) => Canonical::Text(text.clone()),
                    OptionValue::Integer(number) => Canonical::Integer(*number),
                    OptionValue::Boolean(flag) => Canonical::Boolean(*flag),
                };
                (name.to_owned().into(), value)
            })
            .collect(),
    )
}

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $error:ident, $noun:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        /// A text that is no such digest.
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[error("a {noun} is 64 hexadecimal digits", noun = $noun)]
        pub struct $error;

        impl $name {
            /// Wraps 32 bytes that were stored or received.
            pub const fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", &hex::encode(self.0)[..12])
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                let mut bytes = [0_u8; 32];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| $error)?;
                Ok(Self(bytes))
            }
        }
    };
}

digest!(
    /** SHA-256 of a hydrated topology's canonical document: equality, not order. */
    VersionHash, InvalidVersionHash, "version hash"
);
digest!(
    /** Digest of an engine object's own spec: another value means it must be made anew. */
    SpecDigest, InvalidSpecDigest, "spec digest"
);

impl SpecDigest {
    fn of(document: &Canonical) -> Self {
        Self(document.digest())
    }
}

#[cfg(test)]
mod tests;

//! Hydration: a topology with nothing left to decide, its canonical form and its version hash.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};

use super::{Edge, LanDriver, LanKind, Publish, Topology, allocate};
use crate::id::{DeckyId, LanId, TopologyId};
use crate::name::{DeckyName, Hostname, LanName};
use crate::persona::{Mac, Persona};
use crate::seed::Seed;
use crate::service::ServiceSet;
use crate::wiring::Route;

mod document;
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
    /// Kernel settings of its network namespace, shared with the deckies that have the same.
    pub sysctls: Arc<BTreeMap<String, String>>,
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

    let subnet6_of: BTreeMap<_, _> = lans
        .iter()
        .filter_map(|lan| Some((lan.id, lan.subnet6?)))
        .collect();
    let interface = |edge: &Edge| HydratedInterface {
        lan: edge.lan,
        address: edge.address,
        address6: subnet6_of
            .get(&edge.lan)
            .map(|subnet| interface_address6(*subnet, edge.mac)),
        mac: edge.mac,
    };
    let mut edges_of = topology.edges_by_decky();
    // A thousand deckies have a handful of different ones.
    let mut sysctls_of = BTreeMap::new();
    let mut deckies: Vec<_> = topology
        .deckies
        .iter()
        .map(|decky| {
            let mut edges = edges_of.remove(&decky.id).unwrap_or_default();
            // Home first, then by LAN: the order in the file must not alter the machine.
            edges.sort_by_key(|edge| (!edge.home, edge.lan, edge.address));
            let interfaces: Vec<_> = edges.into_iter().map(interface).collect();
            let mut publish = decky.publish.clone();
            publish.sort();
            let kernel = Kernel {
                persona: decky.persona,
                forwards: decky.forwards_l3,
                speaks6: interfaces.iter().any(|face| face.address6.is_some()),
            };
            let sysctls = sysctls_of
                .entry(kernel)
                .or_insert_with(|| Arc::new(kernel.sysctls()));
            HydratedDecky {
                id: decky.id,
                name: decky.name.clone(),
                hostname: decky.hostname.clone(),
                persona: decky.persona,
                seed: decky.seed,
                forwards_l3: decky.forwards_l3,
                services: decky.services.clone(),
                interfaces,
                routes: Vec::new(),
                publish,
                sysctls: Arc::clone(sysctls),
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

/// What the kernel settings of a decky depend on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kernel {
    persona: Persona,
    forwards: bool,
    speaks6: bool,
}

impl Kernel {
    fn sysctls(self) -> BTreeMap<String, String> {
        let forward = if self.forwards { "1" } else { "0" };
        let forward6 = ("net.ipv6.conf.all.forwarding", forward);
        self.persona
            .sysctls()
            .into_iter()
            .chain([("net.ipv4.ip_forward", forward)])
            .chain(self.speaks6.then_some(forward6))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
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

#[cfg(test)]
mod tests;

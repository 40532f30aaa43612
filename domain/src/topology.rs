//! The topology: the graph that an operator intends, with every address stored on its edge.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::id::{DeckyId, EdgeId, HostId, LanId, TopologyId};
use crate::interval::Interval;
use crate::name::{DeckyName, Hostname, InterfaceName, LanName, TopologyName};
use crate::persona::{Mac, Persona};
use crate::revision::Revision;
use crate::seed::Seed;
use crate::service::ServiceSet;

pub mod allocate;
pub mod diff;
pub mod draft;
pub mod finding;
pub mod generate;
pub mod hydrate;
pub mod layout;
pub mod mutation;
pub mod status;
pub mod validate;

/// A network of fake machines, as intended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Its identity.
    pub id: TopologyId,
    /// Its name.
    pub name: TopologyName,
    /// The host that is to carry it; none for the host named `local`.
    pub host: Option<HostId>,
    /// Counts its edits.
    pub revision: Revision,
    /// Its segments, in the order in which they were given.
    pub lans: Vec<Lan>,
    /// Its machines, in the order in which they were given.
    pub deckies: Vec<Decky>,
    /// Which machine is on which segment, grouped by decky in the order of its interfaces.
    pub edges: Vec<Edge>,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lan {
    /// Its identity.
    pub id: LanId,
    /// Its name.
    pub name: LanName,
    /// Its address range; the first host address is the engine's.
    pub subnet: Ipv4Net,
    /// Its IPv6 range of 64 bits, when its machines speak IPv6 too.
    pub subnet6: Option<Ipv6Net>,
    /// Whether the outside reaches it.
    pub kind: LanKind,
    /// How the engine makes it.
    pub driver: LanDriver,
}

/// Whether the outside reaches a LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LanKind {
    /// The one LAN that the outside reaches.
    Dmz,
    /// Reached only through a gateway.
    Internal,
}

impl LanKind {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dmz => "dmz",
            Self::Internal => "internal",
        }
    }
}

/// How the engine makes a LAN. Written `bridge`, `macvlan:eth0`, `ipvlan:eth0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LanDriver {
    /// A software bridge on the host.
    Bridge,
    /// The real network behind an interface of the host, each machine with its own MAC.
    Macvlan(InterfaceName),
    /// The real network behind an interface of the host, all machines with the host's MAC.
    Ipvlan(InterfaceName),
}

impl LanDriver {
    /// The word for the kind.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan(_) => "ipvlan",
        }
    }

    /// The interface of the host whose network it is; none when the LAN exists on the host only.
    pub const fn parent(&self) -> Option<&InterfaceName> {
        match self {
            Self::Bridge => None,
            Self::Macvlan(parent) | Self::Ipvlan(parent) => Some(parent),
        }
    }
}

impl fmt::Display for LanDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parent() {
            None => f.write_str(self.as_str()),
            Some(parent) => write!(f, "{}:{parent}", self.as_str()),
        }
    }
}

/// A word that is not of the closed set where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is none of {known}")]
pub struct UnknownKind {
    text: String,
    known: &'static str,
}

impl UnknownKind {
    fn new(text: &str, known: &'static str) -> Self {
        Self {
            text: text.chars().take(64).collect(),
            known,
        }
    }
}

impl FromStr for LanKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        match text {
            "dmz" => Ok(Self::Dmz),
            "internal" => Ok(Self::Internal),
            _ => Err(UnknownKind::new(text, "dmz, internal")),
        }
    }
}

impl FromStr for LanDriver {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let unknown = || UnknownKind::new(text, "bridge, macvlan:INTERFACE, ipvlan:INTERFACE");
        let parent = |name: &str| InterfaceName::parse(name).map_err(|_| unknown());
        match text.split_once(':') {
            None if text == "bridge" => Ok(Self::Bridge),
            Some(("macvlan", name)) => Ok(Self::Macvlan(parent(name)?)),
            Some(("ipvlan", name)) => Ok(Self::Ipvlan(parent(name)?)),
            Some(_) | None => Err(unknown()),
        }
    }
}

/// One fake machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decky {
    /// Its identity.
    pub id: DeckyId,
    /// The operator's name for it; attackers never see it.
    pub name: DeckyName,
    /// The name that attackers see.
    pub hostname: Hostname,
    /// The named set of services that it was made from, for the operator's eyes.
    pub archetype: Option<String>,
    /// What it serves.
    pub services: ServiceSet,
    /// The operating system that it shows.
    pub persona: Persona,
    /// Whether it routes between its LANs.
    pub forwards_l3: bool,
    /// Which of its ports the host answers for.
    pub publish: Vec<Publish>,
    /// How often it mutates by itself; never when none. No part of what a host holds.
    pub mutate_every: Option<Interval>,
    /// What everything comparable is derived from.
    pub seed: Seed,
}

/// A port of the host behind which a decky answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Publish {
    /// The host's address; none for all of them.
    pub host_ip: Option<Ipv4Addr>,
    /// The host's port.
    pub host_port: u16,
    /// The decky's port.
    pub decky_port: u16,
    /// The transport.
    pub protocol: Protocol,
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = self.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
        write!(
            f,
            "{ip}:{}->{}/{}",
            self.host_port,
            self.decky_port,
            self.protocol.as_str()
        )
    }
}

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl FromStr for Protocol {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(UnknownKind::new(text, "tcp, udp")),
        }
    }
}

/// A decky's membership of a LAN. Its address is allocated once and stored here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// Its identity.
    pub id: EdgeId,
    /// The machine.
    pub decky: DeckyId,
    /// The segment.
    pub lan: LanId,
    /// The machine's address there.
    pub address: Ipv4Addr,
    /// Its hardware address there.
    pub mac: Mac,
    /// Whether it is the LAN where the machine belongs.
    pub home: bool,
}

impl Topology {
    /// The LAN with this id.
    pub fn lan(&self, id: LanId) -> Option<&Lan> {
        self.lans.iter().find(|lan| lan.id == id)
    }

    /// The decky with this id.
    pub fn decky(&self, id: DeckyId) -> Option<&Decky> {
        self.deckies.iter().find(|decky| decky.id == id)
    }

    /// A decky's membership of a LAN.
    pub fn edge(&self, decky: DeckyId, lan: LanId) -> Option<&Edge> {
        self.edges_of(decky).find(|edge| edge.lan == lan)
    }

    /// The edges of every decky that has any, each in the order of its interfaces: for whoever
    /// would ask for each decky's in turn.
    pub fn edges_by_decky(&self) -> BTreeMap<DeckyId, Vec<&Edge>> {
        let mut edges: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for edge in &self.edges {
            edges.entry(edge.decky).or_default().push(edge);
        }
        edges
    }

    /// The edges of one decky, in the order of its interfaces.
    pub fn edges_of(&self, decky: DeckyId) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.decky == decky)
    }
}

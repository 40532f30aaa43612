//! The generator: a tree of LANs and the deckies in it, from a few numbers and a seed.
//!
//! Everything that is random comes from one stream, ChaCha8 (RFC 8439 with 8 rounds) keyed by
//! SHA-256 of `decnet generator v1`, a zero byte and the seed as 8 bytes, highest first. The same
//! parameters and the same reserved subnets give the same draft, byte for byte, on every machine.
//! Whoever knows the seed knows every seed of a decky: a topology that is to stay secret needs a
//! seed that nobody can guess.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use self::choose::Chooser;
use self::stream::Stream;
use super::allocate::{AddressAllocator, SubnetAllocator, SubnetBase};
use super::draft::{Draft, DraftDecky, DraftEdge, DraftLan, DraftPublish};
use super::finding::{Finding, FindingCode as Code, sort};
use super::validate::Limits;
use super::{LanKind, Protocol};
use crate::archetype::Archetype;
use crate::name::TopologyName;
use crate::service::ServiceKind;

mod blank;
mod choose;
mod stream;

pub use blank::blank;

/// A probability in millionths: exact, so that it is the same on every machine and in every file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Probability(u32);

/// A number that is no probability.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{value} is not between 0 and 1")]
pub struct InvalidProbability {
    value: f64,
}

impl Probability {
    /// It never happens.
    pub const NEVER: Self = Self(0);
    /// It always happens.
    pub const ALWAYS: Self = Self(1_000_000);

    /// Rounds a number from 0 to 1 to millionths.
    pub fn new(value: f64) -> Result<Self, InvalidProbability> {
        if !(0.0..=1.0).contains(&value) {
            return Err(InvalidProbability { value });
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number from 0 to 1 gives one from 0 to a million"
        )]
        Ok(Self((value * 1_000_000.0).round() as u32))
    }

    /// The probability in millionths.
    pub const fn millionths(self) -> u32 {
        self.0
    }
}

/// What the deckies serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceChoice {
    /// All of them these.
    Explicit(BTreeSet<ServiceKind>),
    /// Each of them one to three of this pool, no two alike while there are others.
    Random(BTreeSet<ServiceKind>),
    /// Each of them what one archetype serves, drawn by these weights.
    Archetypes(Vec<(Archetype, u32)>),
}

impl ServiceChoice {
    /// A random choice among everything that a decky can carry out.
    pub fn random() -> Self {
        Self::Random(ServiceKind::IMPLEMENTED.iter().copied().collect())
    }
}

/// What a topology is generated from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// Its name.
    pub name: String,
    /// Levels of LANs below the DMZ, 1 to 16.
    pub depth: u32,
    /// Most LANs behind one, 1 to 8.
    pub branching: u32,
    /// Fewest deckies whose home is one inner LAN, 0 to 32; a LAN without any gets one.
    pub deckies_min: u32,
    /// Most deckies whose home is one inner LAN, 1 to 32.
    pub deckies_max: u32,
    /// How likely a decky on two LANs routes between them.
    pub forward: Probability,
    /// How likely a LAN is joined to one that is neither its parent nor its child.
    pub cross_edge: Probability,
    /// What the deckies serve.
    pub services: ServiceChoice,
    /// Where the subnets come from.
    pub subnet_base: SubnetBase,
    /// Added to each port of the DMZ's home decky to give the host's, 0 to 30000: a host whose
    /// own SSH server listens on 22 cannot publish 22.
    pub publish_offset: u32,
    /// What everything random is drawn from.
    pub seed: u64,
}

impl Parameters {
    /// The parameters that hold when only a name, a size and a seed are given.
    pub fn new(name: &str, depth: u32, branching: u32, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            depth,
            branching,
            deckies_min: 1,
            deckies_max: 3,
            forward: Probability::ALWAYS,
            cross_edge: Probability::NEVER,
            services: ServiceChoice::random(),
            subnet_base: SubnetBase::default(),
            publish_offset: 0,
            seed,
        }
    }

    /// What is wrong with them, sorted.
    pub fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Err(error) = TopologyName::parse(&self.name) {
            findings.push(Finding::error(
                Code::NameInvalid,
                "parameters",
                "name",
                error.to_string(),
            ));
        }
        let mut wrong = |path: &str, message: String| {
            findings.push(Finding::error(
                Code::ValueInvalid,
                "parameters",
                path,
                message,
            ));
        };
        for (path, value, min, max) in [
            ("depth", self.depth, 1, 16),
            ("branching", self.branching, 1, 8),
            ("deckies_min", self.deckies_min, 0, 32),
            ("deckies_max", self.deckies_max, 1, 32),
            ("publish_offset", self.publish_offset, 0, 30_000),
        ] {
            if !(min..=max).contains(&value) {
                wrong(path, format!("{value} is not between {min} and {max}"));
            }
        }
        if self.deckies_min > self.deckies_max {
            wrong(
                "deckies_min",
                "deckies_min must not be greater than deckies_max".to_owned(),
            );
        }
        for reason in choose::faults(&self.services) {
            wrong("services", reason);
        }
        sort(&mut findings);
        findings
    }
}

/// Where a LAN stands in the tree, and who is at home there.
struct Place {
    parent: Option<usize>,
    addresses: AddressAllocator,
    home: Vec<usize>,
}

struct Generator<'a> {
    parameters: &'a Parameters,
    stream: Stream,
    draft: Draft,
    places: Vec<Place>,
}

/// Generates a draft whose subnets overlap none of `reserved`. With [`super::draft::resolve`] it
/// becomes a topology without an error; or it says why there is none.
pub fn generate(
    parameters: &Parameters,
    reserved: &[Ipv4Net],
    limits: &Limits,
) -> Result<Draft, Vec<Finding>> {
    let findings = parameters.check();
    if !findings.is_empty() {
        return Err(findings);
    }
    let mut this = Generator {
        parameters,
        stream: Stream::keyed(parameters.seed),
        draft: Draft {
            name: parameters.name.clone(),
            ..Draft::default()
        },
        places: Vec::new(),
    };
    let lans = this.lans(reserved, limits);
    let built = lans.and_then(|()| this.deckies(limits));
    built.map_err(|finding| vec![finding])?;
    this.tree_gateways();
    this.cross_gateways();
    this.publish();
    Ok(this.draft)
}

fn too_large(what: &str, limit: usize) -> Finding {
    Finding::error(
        Code::TooLarge,
        "parameters",
        what,
        format!("these parameters give more {what} than the limit of {limit}"),
    )
}

// === impl Generator ===

impl Generator<'_> {
    /// The tree, level by level: each LAN of a level has one child or more, up to the depth.
    fn lans(&mut self, reserved: &[Ipv4Net], limits: &Limits) -> Result<(), Finding> {
        let base = self.parameters.subnet_base;
        let mut subnets = SubnetAllocator::new(base, reserved.iter().copied());
        let mut level: Vec<Option<usize>> = vec![None];
        for _ in 0..=self.parameters.depth {
            let mut next = Vec::new();
            for parent in level {
                // The DMZ is the only LAN of the first level.
                let children = match parent {
                    None => 1,
                    Some(_) => 1 + self.stream.below(self.parameters.branching),
                };
                for _ in 0..children {
                    let index = self.places.len();
                    if index == limits.lans {
                        return Err(too_large("lans", limits.lans));
                    }
                    let subnet = subnets.next_free().ok_or_else(|| {
                        Finding::error(
                            Code::SubnetExhausted,
                            "parameters",
                            "subnet_base",
                            format!("no free /24 is left in {base}; give a larger range"),
                        )
                    })?;
                    self.draft.lans.push(DraftLan {
                        name: format!("LAN-{index:02}"),
                        subnet: subnet.to_string(),
                        kind: Some(kind(parent).as_str().to_owned()),
                        ..DraftLan::default()
                    });
                    self.places.push(Place {
                        parent,
                        addresses: AddressAllocator::new(subnet),
                        home: Vec::new(),
                    });
                    next.push(Some(index));
                }
            }
            level = next;
        }
        Ok(())
    }

    fn deckies(&mut self, limits: &Limits) -> Result<(), Finding> {
        let mut chooser = Chooser::new(&self.parameters.services);
        let (min, max) = (self.parameters.deckies_min, self.parameters.deckies_max);
        for lan in 0..self.places.len() {
            let count = match self.places[lan].parent {
                None => 1,
                Some(_) => (min + self.stream.below(max - min + 1)).max(1),
            };
            for _ in 0..count {
                let index = self.draft.deckies.len();
                if index == limits.deckies {
                    return Err(too_large("deckies", limits.deckies));
                }
                let choice = chooser.next(&mut self.stream);
                self.draft.deckies.push(DraftDecky {
                    name: format!("decky-{:03}", index + 1),
                    archetype: choice.archetype.map(|each| each.as_str().to_owned()),
                    services: choice
                        .services
                        .iter()
                        .map(|kind| kind.as_str().to_owned())
                        .collect(),
                    persona: Some(choice.persona.as_str().to_owned()),
                    seed: Some(self.stream.seed().hex()),
                    ..DraftDecky::default()
                });
                self.places[lan].home.push(index);
                self.join(index, lan);
            }
        }
        Ok(())
    }

    /// One decky of each inner LAN is its way to the parent.
    fn tree_gateways(&mut self) {
        for lan in 0..self.places.len() {
            if let Some(parent) = self.places[lan].parent {
                let gateway = self.one_at_home(lan);
                self.bridge(gateway, parent);
            }
        }
    }

    /// Some inner LANs are joined to a LAN that is neither parent nor child.
    fn cross_gateways(&mut self) {
        if self.parameters.cross_edge == Probability::NEVER {
            return;
        }
        for lan in 0..self.places.len() {
            let Some(parent) = self.places[lan].parent else {
                continue;
            };
            if !self.stream.chance(self.parameters.cross_edge) {
                continue;
            }
            let peers: Vec<usize> = (0..self.places.len())
                .filter(|peer| *peer != lan && *peer != parent)
                .filter(|peer| self.places[*peer].parent != Some(lan))
                .collect();
            if peers.is_empty() {
                continue;
            }
            let peer = peers[self.stream.index(peers.len())];
            let gateway = self.one_at_home(lan);
            let there = &self.draft.lans[peer].name;
            let mut edges = self.draft.deckies[gateway].edges.iter();
            if edges.all(|edge| edge.lan != *there) {
                self.bridge(gateway, peer);
            }
        }
    }

    /// The DMZ's home decky is the one that the outside reaches.
    fn publish(&mut self) {
        let offset = i64::from(self.parameters.publish_offset);
        for decky in self.draft.deckies.iter_mut().take(1) {
            decky.publish = decky
                .services
                .iter()
                .filter_map(|name| name.parse::<ServiceKind>().ok())
                .flat_map(ServiceKind::listens)
                .map(|(protocol, port)| DraftPublish {
                    host_ip: None,
                    host_port: i64::from(port) + offset,
                    decky_port: i64::from(port),
                    protocol: (protocol == Protocol::Udp).then(|| protocol.as_str().to_owned()),
                })
                .collect();
        }
    }

    fn one_at_home(&mut self, lan: usize) -> usize {
        let home = &self.places[lan].home;
        home[self.stream.index(home.len())]
    }

    fn bridge(&mut self, decky: usize, lan: usize) {
        let forwards = self.stream.chance(self.parameters.forward);
        self.draft.deckies[decky].forwards_l3 |= forwards;
        self.join(decky, lan);
    }

    /// Puts a decky on a LAN at the next free address. A LAN that is full is left as it is: a /24
    /// holds every home decky and every child's gateway, so only a cross edge can be left out.
    fn join(&mut self, decky: usize, lan: usize) {
        if let Some(address) = self.places[lan].addresses.next_free() {
            self.draft.deckies[decky].edges.push(DraftEdge {
                lan: self.draft.lans[lan].name.clone(),
                address: Some(address.to_string()),
                ..DraftEdge::default()
            });
        }
    }
}

fn kind(parent: Option<usize>) -> LanKind {
    match parent {
        None => LanKind::Dmz,
        Some(_) => LanKind::Internal,
    }
}

#[cfg(test)]
mod tests;

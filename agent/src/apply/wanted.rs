//! What an assignment asks for, read and checked once, before anything is touched.

use std::collections::{BTreeMap, BTreeSet};

use domain::assign::{ApplyFailure, FailureCode};
use domain::id::{DeckyId, LanId};
use domain::observe::ConfigDigests;
use domain::plan::Desired;
use domain::topology::allocate::{self, AddressRefused};
use domain::topology::hydrate::{HydratedDecky, HydratedLan, HydratedTopology};
use domain::wiring::{self, Wiring, Wirings};
use proto::decky_config::{DeckyConfig, digest};
use proto::hydrated::{InvalidHydrated, decode_announced};

use crate::chain::Chain;
use crate::store::Held;

/// A topology with the configuration of each of its deckies.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) topology: HydratedTopology,
    configs: BTreeMap<DeckyId, Vec<u8>>,
    digests: ConfigDigests,
    wirings: Wirings,
}

/// Nothing has a configuration.
static NO_DIGESTS: ConfigDigests = BTreeMap::new();
/// Nothing is wired.
static NO_WIRINGS: Wirings = BTreeMap::new();

/// Why a document cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum RefusedContent {
    #[error("could not read the hydrated topology")]
    Document(#[source] InvalidHydrated),
    #[error("the hydrated topology is of another topology than announced")]
    OtherTopology,
    #[error("the hydrated topology breaks a rule")]
    Rule(#[source] BrokenRule),
}

/// What the engine could not make, or would make wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BrokenRule {
    #[error("two objects have the id {0}")]
    Twice(Box<str>),
    #[error("subnets of lan {0} and lan {1} overlap")]
    Overlap(Box<str>, Box<str>),
    #[error("gateway of lan {0} lies outside its subnet")]
    Gateway(Box<str>),
    #[error("decky {0} has no interface")]
    Detached(Box<str>),
    #[error("decky {0} is on a lan that is not there")]
    NoLan(Box<str>),
    #[error("decky {0} is on lan {1} twice")]
    TwiceOn(Box<str>, Box<str>),
    #[error("address of decky {decky} on lan {lan} is unusable")]
    Address {
        decky: Box<str>,
        lan: Box<str>,
        #[source]
        source: AddressRefused,
    },
    #[error("two deckies publish {0}")]
    Publish(Box<str>),
}

impl RefusedContent {
    pub(super) fn failure(&self) -> ApplyFailure {
        let code = match self {
            Self::Document(InvalidHydrated::Field { .. }) | Self::Rule(_) => FailureCode::Invalid,
            Self::Document(
                InvalidHydrated::TooLong { .. }
                | InvalidHydrated::Json(_)
                | InvalidHydrated::Schema { .. }
                | InvalidHydrated::Hash { .. },
            )
            | Self::OtherTopology => FailureCode::Corrupt,
        };
        ApplyFailure {
            code,
            message: Chain(self).to_string(),
        }
    }
}

impl Wanted {
    /// Reads and checks what is to be held.
    pub(super) fn read(held: &Held) -> Result<Self, RefusedContent> {
        let topology =
            decode_announced(&held.hydrated, held.hash).map_err(RefusedContent::Document)?;
        if topology.id != held.topology {
            return Err(RefusedContent::OtherTopology);
        }
        check(&topology).map_err(RefusedContent::Rule)?;
        let configs: BTreeMap<_, _> = topology
            .deckies
            .iter()
            .map(|decky| (decky.id, config(decky)))
            .collect();
        let digests = configs
            .iter()
            .map(|(id, bytes)| (*id, digest(bytes)))
            .collect();
        let wirings = wiring::all(&topology)
            .into_iter()
            .map(|(decky, wiring)| {
                let rules = crate::netns::rules::digest(&wiring);
                (decky, (wiring, rules))
            })
            .collect();
        Ok(Self {
            topology,
            configs,
            digests,
            wirings,
        })
    }

    pub(super) fn lan(&self, id: LanId) -> Option<&HydratedLan> {
        self.topology.lans.iter().find(|lan| lan.id == id)
    }

    pub(super) fn decky(&self, id: DeckyId) -> Option<(&HydratedDecky, &[u8])> {
        let decky = self.topology.deckies.iter().find(|decky| decky.id == id)?;
        Some((decky, self.configs.get(&id)?))
    }

    pub(super) fn wiring(&self, id: DeckyId) -> Option<&Wiring> {
        self.wirings.get(&id).map(|(wiring, _)| wiring)
    }

    pub(super) fn digest(&self, id: DeckyId) -> Option<&str> {
        self.digests.get(&id).map(String::as_str)
    }
}

/// What a host is to hold, for the plan.
pub(super) fn desired(wanted: Option<&Wanted>) -> Desired<'_> {
    match wanted {
        Some(wanted) => Desired {
            topology: Some(&wanted.topology),
            configs: &wanted.digests,
            wirings: &wanted.wirings,
        },
        None => Desired {
            topology: None,
            configs: &NO_DIGESTS,
            wirings: &NO_WIRINGS,
        },
    }
}

fn config(decky: &HydratedDecky) -> Vec<u8> {
    DeckyConfig {
        hostname: decky.hostname.clone(),
        persona: decky.persona,
        seed: decky.seed,
        services: decky.services.clone(),
    }
    .encode()
}

/// The master has validated it; this keeps a broken one from being half made.
fn check(topology: &HydratedTopology) -> Result<(), BrokenRule> {
    let mut lans: BTreeMap<LanId, &HydratedLan> = BTreeMap::new();
    for lan in &topology.lans {
        let overlaps = |other: &&&HydratedLan| {
            other.subnet.contains(&lan.subnet) || lan.subnet.contains(&other.subnet)
        };
        if let Some(other) = lans.values().find(overlaps) {
            return Err(BrokenRule::Overlap(
                other.name.as_str().into(),
                lan.name.as_str().into(),
            ));
        }
        if !lan.subnet.contains(&lan.gateway) {
            return Err(BrokenRule::Gateway(lan.name.as_str().into()));
        }
        if lans.insert(lan.id, lan).is_some() {
            return Err(BrokenRule::Twice(lan.id.to_string().into()));
        }
    }
    let (mut ids, mut taken, mut published) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for decky in &topology.deckies {
        let name = || decky.name.as_str().into();
        if !ids.insert(decky.id) {
            return Err(BrokenRule::Twice(decky.id.to_string().into()));
        }
        if decky.interfaces.is_empty() {
            return Err(BrokenRule::Detached(name()));
        }
        let mut on = BTreeSet::new();
        for interface in &decky.interfaces {
            let Some(lan) = lans.get(&interface.lan) else {
                return Err(BrokenRule::NoLan(name()));
            };
            if !on.insert(lan.id) {
                return Err(BrokenRule::TwiceOn(name(), lan.name.as_str().into()));
            }
            let free = if taken.insert((lan.id, interface.address)) {
                allocate::check(lan.subnet, interface.address)
            } else {
                Err(AddressRefused::Taken)
            };
            free.map_err(|source| BrokenRule::Address {
                decky: name(),
                lan: lan.name.as_str().into(),
                source,
            })?;
        }
        for publish in &decky.publish {
            if !published.insert((publish.host_ip, publish.host_port, publish.protocol)) {
                return Err(BrokenRule::Publish(publish.to_string().into()));
            }
        }
    }
    Ok(())
}

//! Decky mutations: the transitions of a decky's service set, their chain, and what comes next.
//!
//! Every change of a set, by whatever path, is one `decky_mutated`; what stays equal is none. It
//! is told when the host has reported the change, which is not this module's business.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use time::OffsetDateTime;

use crate::archetype::Archetype;
use crate::id::DeckyId;
use crate::interval::Interval;
use crate::name::DeckyName;
use crate::persona::Persona;
use crate::seed::Seed;
use crate::service::{ServiceKind, ServiceSet};
use crate::topology::mutation::{DeckyPatch, Mutation, Op};
use crate::topology::{Decky, Topology};

/// Why a set changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    /// The decky is new: nothing came before.
    Creation,
    /// The decky is gone: nothing comes after.
    Retirement,
    /// Its interval ran out.
    Scheduled,
    /// An operator asked for it.
    Operator,
    /// An attacker's behaviour called for it.
    Behavioral,
    /// A repair called for it.
    Healer,
    /// Another site called for it.
    Federation,
}

/// A text that names no trigger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no trigger of a decky mutation")]
pub struct UnknownTrigger {
    text: String,
}

/// One transition of a decky's service set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeckyMutated {
    /// The decky.
    pub decky: DeckyId,
    /// Its name at that time.
    pub name: DeckyName,
    /// The set before: the new one of the transition before this.
    pub old: BTreeSet<ServiceKind>,
    /// The set after.
    pub new: BTreeSet<ServiceKind>,
    /// Why.
    pub trigger: Trigger,
    /// Who asked for it, where somebody did.
    pub actor: Option<String>,
}

/// Who changed a topology, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Why a set changed that was there before and after.
    pub trigger: Trigger,
    /// Who.
    pub actor: Option<String>,
}

/// The transitions from one form of a topology to the next, in the order of the deckies' ids; none
/// stands for a topology that is not deployed. Each decky has one at most.
pub fn transitions(
    before: Option<&Topology>,
    after: Option<&Topology>,
    cause: &Cause,
) -> Vec<DeckyMutated> {
    let (before, after) = (sets(before), sets(after));
    let ids: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
    ids.into_iter()
        .filter_map(|decky| {
            let (name, old, new, trigger) = match (before.get(&decky), after.get(&decky)) {
                (None, None) => return None,
                (None, Some((name, new))) => (name, None, Some(new), Trigger::Creation),
                (Some((name, old)), None) => (name, Some(old), None, Trigger::Retirement),
                (Some((_, old)), Some((name, new))) => (name, Some(old), Some(new), cause.trigger),
            };
            let mutated = DeckyMutated {
                decky,
                name: DeckyName::clone(name),
                old: old.cloned().unwrap_or_default(),
                new: new.cloned().unwrap_or_default(),
                trigger,
                actor: cause.actor.clone(),
            };
            (mutated.old != mutated.new).then_some(mutated)
        })
        .collect()
}

type Sets<'a> = BTreeMap<DeckyId, (&'a DeckyName, BTreeSet<ServiceKind>)>;

fn sets(topology: Option<&Topology>) -> Sets<'_> {
    let deckies = topology.into_iter().flat_map(|topology| &topology.deckies);
    deckies
        .map(|decky| (decky.id, (&decky.name, kinds(&decky.services))))
        .collect()
}

fn kinds(services: &ServiceSet) -> BTreeSet<ServiceKind> {
    services.keys().copied().collect()
}

/// What every decky served at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Substrate {
    /// The sets; a decky that serves nothing is not here.
    pub services: BTreeMap<DeckyId, BTreeSet<ServiceKind>>,
    /// The deckies of which a transition is missing: an old set was not the new one before it.
    pub broken: BTreeSet<DeckyId>,
}

/// What every decky served at `at`: the transitions up to then, in the order of their times, and
/// in the order in which they came where the times are equal.
pub fn substrate_state<'a>(
    history: impl IntoIterator<Item = (OffsetDateTime, &'a DeckyMutated)>,
    at: OffsetDateTime,
) -> Substrate {
    let mut known: Vec<_> = history
        .into_iter()
        .filter(|(time, _)| *time <= at)
        .collect();
    known.sort_by_key(|(time, _)| *time);
    let mut state = Substrate::default();
    for (_, mutated) in known {
        state.take(mutated);
    }
    state
}

impl Substrate {
    /// Takes one more transition. What it says is believed also where one before it is missing.
    pub fn take(&mut self, mutated: &DeckyMutated) {
        let DeckyMutated {
            decky, old, new, ..
        } = mutated;
        let before = self.services.remove(decky).unwrap_or_default();
        if before != *old {
            self.broken.insert(*decky);
        }
        if !new.is_empty() {
            self.services.insert(*decky, new.clone());
        }
    }
}

/// What has been told of the deckies of one topology: the last transition of each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    last: BTreeMap<DeckyId, DeckyMutated>,
}

impl Told {
    /// Takes the next transition that was told.
    pub fn take(&mut self, mutated: DeckyMutated) {
        self.last.insert(mutated.decky, mutated);
    }

    /// Whether, as far as it was told, no decky serves anything any more.
    pub fn is_over(&self) -> bool {
        self.last.values().all(|last| last.new.is_empty())
    }

    /// What is to be told once a host holds `after`, or nothing of the topology where none is
    /// given, in the order of the deckies' ids: each old set is the new one that was told before.
    pub fn lacks(
        &self,
        after: Option<&Topology>,
        cause: impl Fn(DeckyId) -> Cause,
    ) -> Vec<DeckyMutated> {
        let after = sets(after);
        let gone = self.last.iter().filter_map(|(decky, last)| {
            let stays = after.contains_key(decky) || last.trigger == Trigger::Retirement;
            (!stays).then(|| DeckyMutated {
                old: last.new.clone(),
                new: BTreeSet::new(),
                trigger: Trigger::Retirement,
                actor: cause(*decky).actor,
                ..last.clone()
            })
        });
        let there = after.iter().map(|(decky, (name, new))| {
            let last = self.last.get(decky);
            let Cause { trigger, actor } = cause(*decky);
            let is_new = last.is_none_or(|last| last.trigger == Trigger::Retirement);
            DeckyMutated {
                decky: *decky,
                name: DeckyName::clone(name),
                old: last.map(|last| last.new.clone()).unwrap_or_default(),
                new: new.clone(),
                trigger: if is_new { Trigger::Creation } else { trigger },
                actor,
            }
        });
        let mut lacking: Vec<_> = gone
            .chain(there)
            .filter(|mutated| mutated.old != mutated.new)
            .collect();
        lacking.sort_by_key(|mutated| mutated.decky);
        lacking
    }
}

/// Most services of a set that was chosen.
const MOST: usize = 3;

/// The set that `decky` shows next: one to three of its archetype's services, or of all that fit
/// its persona where it has no archetype, never the set that it shows. Services behind published
/// ports stay, because a port that the outside knows does not vanish from a machine that is well.
/// Options of services that stay are kept. None when there is no other set.
///
/// `bits` are 32 random bytes: the same give the same choice.
pub fn next_services(decky: &Decky, bits: [u8; 32]) -> Option<ServiceSet> {
    let pool = pool(decky.archetype.as_deref(), decky.persona);
    let pinned: BTreeSet<_> = decky
        .services
        .keys()
        .copied()
        .filter(|kind| {
            let mut ports = decky.publish.iter();
            ports.any(|publish| {
                kind.listens()
                    .any(|listens| listens == (publish.protocol, publish.decky_port))
            })
        })
        .collect();
    let chosen = choose(&pool, &pinned, &kinds(&decky.services), bits)?;
    let options = |kind| decky.services.get(&kind).cloned().unwrap_or_default();
    Some(
        chosen
            .into_iter()
            .map(|kind| (kind, options(kind)))
            .collect(),
    )
}

/// The same as a mutation of the topology, for the queue.
pub fn next_mutation(decky: &Decky, bits: [u8; 32]) -> Option<Mutation> {
    let patch = DeckyPatch {
        services: Some(next_services(decky, bits)?),
        ..DeckyPatch::default()
    };
    Some(Mutation::One(Op::UpdateDecky {
        decky: decky.id,
        patch: Box::new(patch),
    }))
}

fn pool(archetype: Option<&str>, persona: Persona) -> BTreeSet<ServiceKind> {
    let all = || ServiceKind::ALL.iter().copied().collect();
    let named = Archetype::pool_of(archetype);
    let mut pool: BTreeSet<ServiceKind> = named.unwrap_or_else(all);
    pool.retain(|kind| kind.is_implemented() && kind.fits(persona));
    pool
}

/// One set of those that differ from `current`, hold `pinned`, share no port, and add one to
/// three of `pool` (or none to what is pinned). First the size is drawn, then the set.
fn choose(
    pool: &BTreeSet<ServiceKind>,
    pinned: &BTreeSet<ServiceKind>,
    current: &BTreeSet<ServiceKind>,
    bits: [u8; 32],
) -> Option<BTreeSet<ServiceKind>> {
    let free: Vec<_> = pool.difference(pinned).copied().collect();
    let mut by_size: BTreeMap<usize, Vec<BTreeSet<ServiceKind>>> = BTreeMap::new();
    let mut grow = vec![(pinned.clone(), 0)];
    while let Some((set, from)) = grow.pop() {
        if !set.is_empty() && set != *current {
            by_size.entry(set.len()).or_default().push(set.clone());
        }
        if set.len() < pinned.len() + MOST {
            for (index, kind) in free.iter().enumerate().skip(from) {
                let mut larger = set.clone();
                larger.insert(*kind);
                if shares_no_port(&larger) {
                    grow.push((larger, index + 1));
                }
            }
        }
    }
    let sizes: Vec<_> = by_size.into_values().collect();
    let bits = Seed::new(bits);
    let sets = bits.choose("decky mutation size", &sizes)?;
    bits.choose("decky mutation set", sets).cloned()
}

fn shares_no_port(services: &BTreeSet<ServiceKind>) -> bool {
    let mut taken = BTreeSet::new();
    let mut ports = services.iter().flat_map(|kind| kind.listens());
    ports.all(|listens| taken.insert(listens))
}

/// When a decky mutates by itself: an interval after it last did. One that never did counts from
/// when it was deployed.
pub fn due(every: Interval, last: OffsetDateTime) -> OffsetDateTime {
    last.checked_add(time::Duration::seconds(
        i64::try_from(every.seconds()).unwrap_or(i64::MAX),
    ))
    .unwrap_or(last)
}

impl Trigger {
    /// Every trigger.
    pub const ALL: [Self; 7] = [
        Self::Creation,
        Self::Retirement,
        Self::Scheduled,
        Self::Operator,
        Self::Behavioral,
        Self::Healer,
        Self::Federation,
    ];

    /// The word for it in events and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creation => "creation",
            Self::Retirement => "retirement",
            Self::Scheduled => "scheduled",
            Self::Operator => "operator",
            Self::Behavioral => "behavioral",
            Self::Healer => "healer",
            Self::Federation => "federation",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Trigger {
    type Err = UnknownTrigger;

    fn from_str(text: &str) -> Result<Self, UnknownTrigger> {
        Self::ALL
            .into_iter()
            .find(|trigger| trigger.as_str() == text)
            .ok_or_else(|| UnknownTrigger {
                text: text.chars().take(64).collect(),
            })
    }
}

#[cfg(test)]
mod tests;

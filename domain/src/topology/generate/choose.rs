//! What the next decky of a generated topology serves, and as what it shows itself.

use std::collections::BTreeSet;

use super::ServiceChoice;
use super::stream::Stream;
use crate::archetype::Archetype;
use crate::persona::Persona;
use crate::service::ServiceKind;

/// How often a set that was used is drawn again before a repetition is taken.
const ATTEMPTS: usize = 20;
/// Most services of a set that is drawn.
const MOST: usize = 3;

pub(super) struct Choice {
    pub(super) archetype: Option<Archetype>,
    pub(super) services: BTreeSet<ServiceKind>,
    pub(super) persona: Persona,
}

pub(super) struct Chooser<'a> {
    choice: &'a ServiceChoice,
    pool: Pool,
    used: BTreeSet<u64>,
}

/// A pool whose sets are bits: a large topology draws tens of thousands of them.
struct Pool {
    kinds: Vec<ServiceKind>,
    /// For each service, those with which it shares a port.
    clashes: Vec<u64>,
    /// For each service, the personas that it fits.
    personas: Vec<u64>,
    /// How many different sets can be drawn.
    sets: usize,
}

/// Why a choice cannot be made.
pub(super) fn faults(choice: &ServiceChoice) -> Vec<String> {
    let mut faults = Vec::new();
    match choice {
        ServiceChoice::Explicit(services) => {
            if let Some(port) = clash(services) {
                faults.push(format!("two of the services listen on port {port}"));
            }
        }
        ServiceChoice::Random(_) => {}
        ServiceChoice::Archetypes(mix) => {
            let total: u64 = mix.iter().map(|(_, weight)| u64::from(*weight)).sum();
            if !(1..=1_000_000).contains(&total) {
                faults.push("the weights of the archetypes must add up to 1 to 1000000".to_owned());
            }
        }
    }
    faults
}

/// A port on which two of `services` would listen.
fn clash(services: &BTreeSet<ServiceKind>) -> Option<u16> {
    let mut taken = BTreeSet::new();
    services
        .iter()
        .flat_map(|kind| kind.listens())
        .find(|listens| !taken.insert(*listens))
        .map(|(_, port)| port)
}

// === impl Pool ===

impl Pool {
    fn new(kinds: impl Iterator<Item = ServiceKind>) -> Self {
        let kinds: Vec<_> = kinds.collect();
        let bits = |holds: &dyn Fn(usize) -> bool, count: usize| -> u64 {
            (0..count).filter(|index| holds(*index)).map(bit).sum()
        };
        let clashes = kinds.iter().map(|kind| {
            let holds = |other: usize| {
                kinds[other] != *kind && clash(&BTreeSet::from([kinds[other], *kind])).is_some()
            };
            bits(&holds, kinds.len())
        });
        let personas = kinds.iter().map(|kind| {
            let holds = |persona: usize| kind.fits(Persona::ALL[persona]);
            bits(&holds, Persona::ALL.len())
        });
        let mut pool = Self {
            clashes: clashes.collect(),
            personas: personas.collect(),
            sets: 0,
            kinds,
        };
        pool.sets = pool.count(0, 0, MOST);
        pool
    }

    /// How many sets larger than `set` there are with services from `from` on, `more` at most.
    fn count(&self, set: u64, from: usize, more: usize) -> usize {
        if more == 0 {
            return 0;
        }
        let larger = (from..self.kinds.len()).map(|index| {
            let set = set | bit(index);
            if self.is_plausible(set) {
                1 + self.count(set, index + 1, more - 1)
            } else {
                0
            }
        });
        larger.sum()
    }

    fn members(&self, set: u64) -> impl Iterator<Item = usize> {
        (0..self.kinds.len()).filter(move |index| set & bit(*index) != 0)
    }

    /// Whether one machine could serve all of them.
    fn is_plausible(&self, set: u64) -> bool {
        let mut personas = u64::MAX;
        for index in self.members(set) {
            personas &= self.personas[index];
            if self.clashes[index] & set != 0 {
                return false;
            }
        }
        personas != 0
    }

    /// One to `most` services; none of an empty pool.
    fn sample(&self, most: usize, stream: &mut Stream) -> u64 {
        let mut left: Vec<usize> = (0..self.kinds.len()).collect();
        let most = most.min(left.len());
        if most == 0 {
            return 0;
        }
        let count = 1 + stream.index(most);
        (0..count)
            .map(|_| bit(left.swap_remove(stream.index(left.len()))))
            .sum()
    }
}

fn bit(index: usize) -> u64 {
    1 << index
}

// === impl Chooser ===

impl<'a> Chooser<'a> {
    pub(super) fn new(choice: &'a ServiceChoice) -> Self {
        let pool = match choice {
            ServiceChoice::Random(pool) => Pool::new(pool.iter().copied()),
            ServiceChoice::Explicit(_) | ServiceChoice::Archetypes(_) => {
                Pool::new(std::iter::empty())
            }
        };
        Self {
            choice,
            pool,
            used: BTreeSet::new(),
        }
    }

    pub(super) fn next(&mut self, stream: &mut Stream) -> Choice {
        match self.choice {
            ServiceChoice::Explicit(services) => Choice {
                archetype: None,
                services: services.clone(),
                persona: Persona::fitting(services.iter().copied()),
            },
            ServiceChoice::Random(_) => self.random(stream),
            ServiceChoice::Archetypes(mix) => {
                let archetype = weighted(mix, stream);
                let personas = archetype.personas();
                Choice {
                    archetype: Some(archetype),
                    services: archetype.services().iter().copied().collect(),
                    persona: personas[stream.index(personas.len())],
                }
            }
        }
    }

    fn random(&mut self, stream: &mut Stream) -> Choice {
        let mut attempt = 0;
        let set = loop {
            attempt += 1;
            // In the end one service alone: it clashes with nothing and fits somewhere.
            let most = if attempt > 2 * ATTEMPTS { 1 } else { MOST };
            let set = self.pool.sample(most, stream);
            let others = self.used.len() < self.pool.sets && attempt <= ATTEMPTS;
            if self.pool.is_plausible(set) && !(others && self.used.contains(&set)) {
                break set;
            }
        };
        self.used.insert(set);
        let services: BTreeSet<_> = self
            .pool
            .members(set)
            .map(|index| self.pool.kinds[index])
            .collect();
        Choice {
            archetype: None,
            persona: Persona::fitting(services.iter().copied()),
            services,
        }
    }
}

fn weighted(mix: &[(Archetype, u32)], stream: &mut Stream) -> Archetype {
    let total = mix.iter().map(|(_, weight)| weight).sum();
    let mut left = stream.below(total);
    for (archetype, weight) in mix {
        if left < *weight {
            return *archetype;
        }
        left -= weight;
    }
    Archetype::Deaddeck
}

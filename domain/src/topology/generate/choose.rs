//! What the next decky of a generated topology serves, and as what it shows itself.

use std::collections::BTreeSet;

use super::ServiceChoice;
use super::stream::Stream;
use crate::archetype::Archetype;
use crate::persona::Persona;
use crate::service::ServiceKind;

/// How often a set that was used is drawn again before a repetition is taken.
const ATTEMPTS: usize = 20;

pub(super) struct Choice {
    pub(super) archetype: Option<Archetype>,
    pub(super) services: BTreeSet<ServiceKind>,
    pub(super) persona: Persona,
}

pub(super) struct Chooser<'a> {
    choice: &'a ServiceChoice,
    used: BTreeSet<BTreeSet<ServiceKind>>,
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

/// Whether one machine could serve all of them.
fn plausible(services: &BTreeSet<ServiceKind>) -> bool {
    let fits = |persona: Persona| services.iter().all(|kind| kind.fits(persona));
    clash(services).is_none() && Persona::ALL.into_iter().any(fits)
}

// === impl Chooser ===

impl<'a> Chooser<'a> {
    pub(super) fn new(choice: &'a ServiceChoice) -> Self {
        Self {
            choice,
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
            ServiceChoice::Random(pool) => self.random(pool, stream),
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

    fn random(&mut self, pool: &BTreeSet<ServiceKind>, stream: &mut Stream) -> Choice {
        let mut attempt = 0;
        loop {
            attempt += 1;
            // In the end one service alone: it clashes with nothing and fits somewhere.
            let most = if attempt > 2 * ATTEMPTS { 1 } else { 3 };
            let services = sample(pool, most, stream);
            let repeats = self.used.contains(&services) && attempt <= ATTEMPTS;
            if repeats || !plausible(&services) {
                continue;
            }
            self.used.insert(services.clone());
            return Choice {
                archetype: None,
                persona: Persona::fitting(services.iter().copied()),
                services,
            };
        }
    }
}

/// One to `most` services of the pool; none of an empty one.
fn sample(pool: &BTreeSet<ServiceKind>, most: u32, stream: &mut Stream) -> BTreeSet<ServiceKind> {
    let mut left: Vec<_> = pool.iter().copied().collect();
    let most = most.min(u32::try_from(left.len()).unwrap_or(most));
    if most == 0 {
        return BTreeSet::new();
    }
    let count = 1 + stream.below(most);
    (0..count)
        .map(|_| left.swap_remove(stream.index(left.len())))
        .collect()
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

//! Admits connections within the caps of a service, and counts those that it refuses.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Caps;

/// Most sources whose refusals are counted apart in one window.
const MAX_FLOODS: usize = 256;

/// The connections of one service, counted by source.
pub(crate) struct Gate {
    caps: Caps,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    total: usize,
    open: HashMap<IpAddr, usize>,
    refused: BTreeMap<Option<IpAddr>, u64>,
}

/// The right to one connection; given back when dropped.
pub(crate) struct Permit {
    gate: Arc<Gate>,
    source: IpAddr,
}

/// How many connections were refused since the last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flood {
    /// From where; none for the sources beyond those that are counted apart.
    pub(crate) source: Option<IpAddr>,
    /// How many.
    pub(crate) refused: u64,
}

impl Gate {
    pub(crate) fn new(caps: Caps) -> Self {
        Self {
            caps,
            counts: Mutex::default(),
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a connection from `source`, or counts it as refused.
    pub(crate) fn admit(gate: &Arc<Self>, source: IpAddr) -> Option<Permit> {
        let mut counts = gate.counts();
        let open = counts.open.get(&source).copied().unwrap_or(0);
        if counts.total >= gate.caps.total || open >= gate.caps.per_source {
            let known = counts.refused.contains_key(&Some(source));
            let apart = known || counts.refused.len() < MAX_FLOODS;
            *counts.refused.entry(apart.then_some(source)).or_default() += 1;
            return None;
        }
        counts.total += 1;
        counts.open.insert(source, open + 1);
        Some(Permit {
            gate: Arc::clone(gate),
            source,
        })
    }

    /// Whether a connection was refused since the last report.
    pub(crate) fn is_flooded(&self) -> bool {
        !self.counts().refused.is_empty()
    }

    /// Takes the refusals since the last report.
    pub(crate) fn take_floods(&self) -> Vec<Flood> {
        std::mem::take(&mut self.counts().refused)
            .into_iter()
            .map(|(source, refused)| Flood { source, refused })
            .collect()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.gate.counts();
        counts.total = counts.total.saturating_sub(1);
        if let Some(open) = counts.open.get_mut(&self.source) {
            *open -= 1;
            if *open == 0 {
                counts.open.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn gate(per_source: usize, total: usize) -> Arc<Gate> {
        Arc::new(Gate::new(Caps {
            per_source,
            total,
            ..Caps::default()
        }))
    }

    #[test]
    fn refused_connections_are_counted_by_source_and_reported_once() {
        let gate = gate(2, 3);
        let held: Vec<_> = [A, A, B]
            .map(|ip| Gate::admit(&gate, ip))
            .into_iter()
            .collect();
        assert!(held.iter().all(Option::is_some));
        assert!(Gate::admit(&gate, A).is_none());
        assert!(Gate::admit(&gate, B).is_none());
        assert!(Gate::admit(&gate, B).is_none());
        assert_eq!(
            gate.take_floods(),
            [
                Flood {
                    source: Some(A),
                    refused: 1
                },
                Flood {
                    source: Some(B),
                    refused: 2
                }
            ]
        );
        assert_eq!(gate.take_floods(), []);
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_ends() {
        let gate = gate(1, 8);
        let held = Gate::admit(&gate, A);
        assert!(Gate::admit(&gate, A).is_none());
        drop(held);
        assert!(Gate::admit(&gate, A).is_some());
    }

    #[test]
    fn a_flood_from_many_sources_is_counted_in_bounded_memory() {
        let gate = gate(0, 0);
        for number in 0..10_000_u32 {
            assert!(Gate::admit(&gate, IpAddr::from(number.to_be_bytes())).is_none());
        }
        let floods = gate.take_floods();
        assert_eq!(floods.len(), MAX_FLOODS + 1);
        assert_eq!(
            floods.iter().map(|flood| flood.refused).sum::<u64>(),
            10_000
        );
    }
}

//! Reads a draft as the next form of a topology that exists: what the draft leaves out stays as
//! it is, and what keeps its name keeps its identity.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Draft, DraftDecky, DraftEdge, Entropy, Resolved, resolve};
use crate::topology::validate::Limits;
use crate::topology::{Decky, Topology};

impl Draft {
    /// Resolves the draft as the next form of `current`. LANs and deckies are the same where
    /// their names are the same, without regard to case; what has another name is another thing.
    pub fn resolve_onto(
        &self,
        current: &Topology,
        limits: &Limits,
        entropy: &mut dyn Entropy,
    ) -> Resolved {
        let mut draft = self.clone();
        // What is beyond the limits is not read, so nothing is sought for it.
        let lans = &self.lans[..self.lans.len().min(limits.lans)];
        for decky in draft.deckies.iter_mut().take(limits.deckies) {
            let same = |known: &&Decky| known.name.as_str().eq_ignore_ascii_case(&decky.name);
            if let Some(known) = current.deckies.iter().find(same) {
                let most = decky.edges.len().min(limits.edges_per_decky);
                fill(decky, most, (known, current), lans);
            }
        }
        let mut resolved = resolve(&draft, current.host, limits, entropy);
        adopt(&mut resolved, current);
        resolved
    }
}

/// Takes what is left out of `decky` from `known`.
fn fill(
    decky: &mut DraftDecky,
    edges: usize,
    (known, current): (&Decky, &Topology),
    lans: &[super::DraftLan],
) {
    decky.seed.get_or_insert_with(|| known.seed.hex());
    decky
        .hostname
        .get_or_insert_with(|| known.hostname.to_string());
    // A persona that is left out stays only while nothing speaks for another.
    if decky.archetype == known.archetype {
        decky
            .persona
            .get_or_insert_with(|| known.persona.as_str().to_owned());
    }
    let nobody_says = decky.edges.iter().all(|edge| edge.home.is_none());
    let home = current
        .edges_of(known.id)
        .find(|edge| edge.home)
        .and_then(|edge| current.lan(edge.lan));
    for edge in &mut decky.edges[..edges] {
        let Some(lan) = current
            .lans
            .iter()
            .find(|lan| lan.name.as_str().eq_ignore_ascii_case(&edge.lan))
        else {
            continue;
        };
        let is_home = home.is_some_and(|home| home.id == lan.id);
        if nobody_says && is_home {
            edge.home = Some(true);
        }
        if let Some(stored) = current.edge(known.id, lan.id) {
            edge.mac.get_or_insert_with(|| stored.mac.to_string());
            let lacks = edge.address.as_ref().is_none_or(String::is_empty);
            if lacks && holds(lans, edge, stored.address) {
                edge.address = Some(stored.address.to_string());
            }
        }
    }
}

/// Whether the LAN of `edge`, as the draft has it, still has room for `address`.
fn holds(lans: &[super::DraftLan], edge: &DraftEdge, address: Ipv4Addr) -> bool {
    lans.iter()
        .find(|lan| lan.name.eq_ignore_ascii_case(&edge.lan))
        .and_then(|lan| lan.subnet.parse::<Ipv4Net>().ok())
        .is_some_and(|subnet| subnet.contains(&address))
}

/// Gives everything that `current` has by the same name its identity there.
fn adopt(resolved: &mut Resolved, current: &Topology) {
    let topology = &mut resolved.topology;
    topology.id = current.id;
    topology.revision = current.revision;
    let mut lans = BTreeMap::new();
    for lan in &mut topology.lans {
        let same = |known: &&crate::topology::Lan| known.name.folded() == lan.name.folded();
        if let Some(known) = current.lans.iter().find(same) {
            lans.insert(lan.id, known.id);
            lan.id = known.id;
        }
    }
    let mut deckies = BTreeMap::new();
    for decky in &mut topology.deckies {
        let same = |known: &&Decky| known.name.folded() == decky.name.folded();
        if let Some(known) = current.deckies.iter().find(same) {
            deckies.insert(decky.id, known.id);
            decky.id = known.id;
        }
    }
    for edge in &mut topology.edges {
        edge.lan = lans.get(&edge.lan).copied().unwrap_or(edge.lan);
        edge.decky = deckies.get(&edge.decky).copied().unwrap_or(edge.decky);
        if let Some(known) = current.edge(edge.decky, edge.lan) {
            edge.id = known.id;
        }
    }
    resolved.incomplete = resolved
        .incomplete
        .iter()
        .map(|id| deckies.get(id).copied().unwrap_or(*id))
        .collect();
}

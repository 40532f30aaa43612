//! Rules of the graph: the DMZ, the ways to it, names, homes.

use std::collections::{BTreeMap, BTreeSet};

use super::super::finding::{Finding, FindingCode as Code};
use super::super::{LanKind, Topology};
use crate::id::LanId;

pub(super) fn exactly_one_dmz(topology: &Topology, findings: &mut Vec<Finding>) {
    let dmzs: Vec<_> = topology
        .lans
        .iter()
        .filter(|lan| lan.kind == LanKind::Dmz)
        .map(|lan| lan.name.as_str())
        .collect();
    match dmzs.len() {
        1 => {}
        0 => findings.push(Finding::error(
            Code::DmzMissing,
            "topology",
            "lans",
            "no LAN has `kind: dmz`; exactly one must",
        )),
        more => findings.push(Finding::error(
            Code::DmzMultiple,
            format!("lans {}", dmzs.join(", ")),
            "lans",
            format!("{more} LANs have `kind: dmz`; exactly one may"),
        )),
    }
}

pub(super) fn every_lan_reaches_the_dmz(topology: &Topology, findings: &mut Vec<Finding>) {
    let mut reached: BTreeSet<LanId> = topology
        .lans
        .iter()
        .filter(|lan| lan.kind == LanKind::Dmz)
        .map(|lan| lan.id)
        .collect();
    if reached.is_empty() {
        return;
    }
    let mut lans_of: BTreeMap<_, Vec<LanId>> = BTreeMap::new();
    for edge in &topology.edges {
        lans_of.entry(edge.decky).or_default().push(edge.lan);
    }
    loop {
        let before = reached.len();
        for lans in lans_of.values() {
            if lans.iter().any(|lan| reached.contains(lan)) {
                reached.extend(lans);
            }
        }
        if reached.len() == before {
            break;
        }
    }
    for (index, lan) in topology.lans.iter().enumerate() {
        if !reached.contains(&lan.id) {
            findings.push(Finding::error(
                Code::DmzOrphan,
                format!("lan {}", lan.name),
                format!("lans[{index}]"),
                "no chain of deckies joins this LAN to the DMZ; put a decky on both sides",
            ));
        }
    }
}

pub(super) fn every_decky_has_a_lan(topology: &Topology, findings: &mut Vec<Finding>) {
    let placed: BTreeSet<_> = topology.edges.iter().map(|edge| edge.decky).collect();
    for (index, decky) in topology.deckies.iter().enumerate() {
        if !placed.contains(&decky.id) {
            findings.push(Finding::error(
                Code::DeckyOrphan,
                format!("decky {}", decky.name),
                format!("deckies[{index}].edges"),
                "the decky is on no LAN",
            ));
        }
    }
}

pub(super) fn every_decky_has_one_home(topology: &Topology, findings: &mut Vec<Finding>) {
    let mut homes = BTreeMap::new();
    for edge in &topology.edges {
        *homes.entry(edge.decky).or_insert(0_u32) += u32::from(edge.home);
    }
    for (index, decky) in topology.deckies.iter().enumerate() {
        // A decky on no LAN at all is another rule's.
        if homes.get(&decky.id).is_some_and(|count| *count != 1) {
            findings.push(Finding::error(
                Code::HomeLan,
                format!("decky {}", decky.name),
                format!("deckies[{index}].edges"),
                "exactly one edge of a decky has `home: true`",
            ));
        }
    }
}

pub(super) fn edges_lead_somewhere(topology: &Topology, findings: &mut Vec<Finding>) {
    let lans: BTreeSet<_> = topology.lans.iter().map(|lan| lan.id).collect();
    let deckies: BTreeSet<_> = topology.deckies.iter().map(|decky| decky.id).collect();
    for (index, edge) in topology.edges.iter().enumerate() {
        if !deckies.contains(&edge.decky) {
            findings.push(Finding::error(
                Code::EdgeUnknown,
                format!("edge {}", edge.id),
                format!("edges[{index}].decky"),
                format!("there is no decky {}", edge.decky),
            ));
        }
    }
    let edges = topology.edges_by_decky();
    for (index, decky) in topology.deckies.iter().enumerate() {
        for (number, edge) in edges.get(&decky.id).into_iter().flatten().enumerate() {
            if !lans.contains(&edge.lan) {
                findings.push(Finding::error(
                    Code::EdgeUnknown,
                    format!("decky {}", decky.name),
                    format!("deckies[{index}].edges[{number}].lan"),
                    format!("there is no LAN {}", edge.lan),
                ));
            }
        }
    }
}

pub(super) fn lan_names_are_unique(topology: &Topology, findings: &mut Vec<Finding>) {
    let mut seen = BTreeSet::new();
    for (index, lan) in topology.lans.iter().enumerate() {
        if !seen.insert(lan.name.folded()) {
            findings.push(Finding::error(
                Code::LanNameDup,
                format!("lan {}", lan.name),
                format!("lans[{index}].name"),
                format!(
                    "another LAN is named {}; names differ by more than case",
                    lan.name
                ),
            ));
        }
    }
}

pub(super) fn decky_names_are_unique(topology: &Topology, findings: &mut Vec<Finding>) {
    let mut seen = BTreeSet::new();
    for (index, decky) in topology.deckies.iter().enumerate() {
        if !seen.insert(decky.name.folded()) {
            findings.push(Finding::error(
                Code::DeckyNameDup,
                format!("decky {}", decky.name),
                format!("deckies[{index}].name"),
                format!(
                    "another decky is named {}; names differ by more than case",
                    decky.name
                ),
            ));
        }
    }
}

//! Rules of the graph: the DMZ, the ways to it, names, homes.

use std::collections::BTreeSet;

use super::super::LanKind;
use super::super::finding::{Finding, FindingCode as Code};
use super::Subject;
use crate::id::LanId;

pub(super) fn exactly_one_dmz(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let dmzs: Vec<_> = subject
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

pub(super) fn every_lan_reaches_the_dmz(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let mut reached: BTreeSet<LanId> = subject
        .lans
        .iter()
        .filter(|lan| lan.kind == LanKind::Dmz)
        .map(|lan| lan.id)
        .collect();
    if reached.is_empty() {
        return;
    }
    let lans_of = subject.deckies.iter().map(|(_, edges)| edges);
    let joining: Vec<_> = lans_of.filter(|edges| edges.len() > 1).collect();
    loop {
        let before = reached.len();
        for edges in &joining {
            if edges.iter().any(|edge| reached.contains(&edge.lan)) {
                reached.extend(edges.iter().map(|edge| edge.lan));
            }
        }
        if reached.len() == before {
            break;
        }
    }
    for (index, lan) in subject.lans.iter().enumerate() {
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

pub(super) fn every_decky_has_a_lan(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    for (index, (decky, edges)) in subject.deckies.iter().enumerate() {
        if edges.is_empty() {
            findings.push(Finding::error(
                Code::DeckyOrphan,
                format!("decky {}", decky.name),
                format!("deckies[{index}].edges"),
                "the decky is on no LAN",
            ));
        }
    }
}

pub(super) fn every_decky_has_one_home(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    for (index, (decky, edges)) in subject.deckies.iter().enumerate() {
        // A decky on no LAN at all is another rule's.
        if !edges.is_empty() && edges.iter().filter(|edge| edge.home).count() != 1 {
            findings.push(Finding::error(
                Code::HomeLan,
                format!("decky {}", decky.name),
                format!("deckies[{index}].edges"),
                "exactly one edge of a decky has `home: true`",
            ));
        }
    }
}

pub(super) fn edges_lead_somewhere(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let lans: BTreeSet<_> = subject.lans.iter().map(|lan| lan.id).collect();
    let deckies: BTreeSet<_> = subject.deckies.iter().map(|(decky, _)| decky.id).collect();
    for (index, edge) in subject.edges.iter().enumerate() {
        if !deckies.contains(&edge.decky) {
            findings.push(Finding::error(
                Code::EdgeUnknown,
                format!("edge {}", edge.id),
                format!("edges[{index}].decky"),
                format!("there is no decky {}", edge.decky),
            ));
        }
    }
    for (index, (decky, edges)) in subject.deckies.iter().enumerate() {
        for (number, edge) in edges.iter().enumerate() {
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

pub(super) fn lan_names_are_unique(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let mut seen = BTreeSet::new();
    for (index, lan) in subject.lans.iter().enumerate() {
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

pub(super) fn decky_names_are_unique(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let mut seen = BTreeSet::new();
    for (index, (decky, _)) in subject.deckies.iter().enumerate() {
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

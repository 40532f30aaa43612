//! The validator: one function a rule, every finding returned, in one order.

use super::draft::Resolved;
use super::finding::{Finding, FindingCode as Code, sort};
use super::{Decky, Edge, Lan, Topology};

mod address;
mod publish;
mod service;
mod shape;

/// How large a topology may be. Configuration of the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most LANs.
    pub lans: usize,
    /// Most deckies.
    pub deckies: usize,
    /// Most LANs that one decky is on.
    pub edges_per_decky: usize,
    /// Most published ports of one decky.
    pub publish_per_decky: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lans: 256,
            deckies: 2048,
            edges_per_decky: 16,
            publish_per_decky: 64,
        }
    }
}

/// Findings of a draft: those of reading it and those of the rules, sorted, with the places of
/// the draft.
pub fn check(resolved: &Resolved) -> Vec<Finding> {
    let mut findings = resolved.findings.clone();
    let topology = &resolved.topology;
    for mut finding in validate(topology) {
        let decky = index(&finding.path, "deckies[");
        // What could not be read is reported as such; that the decky then lacks an edge, or a
        // LAN its way to the DMZ, is no second fault.
        let secondary = match finding.code {
            Code::DeckyOrphan => decky
                .and_then(|place| topology.deckies.get(place))
                .is_some_and(|decky| resolved.incomplete.contains(&decky.id)),
            Code::HomeLan => decky
                .and_then(|place| topology.deckies.get(place))
                .is_some_and(|decky| resolved.incomplete.contains(&decky.id)),
            Code::DmzOrphan => {
                resolved.lacks_lan || resolved.lacks_decky || !resolved.incomplete.is_empty()
            }
            Code::DmzMissing => resolved.lacks_dmz,
            Code::DmzMultiple
            | Code::LanNameDup
            | Code::DeckyNameDup
            | Code::NameInvalid
            | Code::ValueInvalid
            | Code::IpMalformed
            | Code::IpOutOfSubnet
            | Code::IpUnknownLan
            | Code::IpCollision
            | Code::IpReserved
            | Code::IpExhausted
            | Code::SubnetMalformed
            | Code::SubnetOverlap
            | Code::SubnetReserved
            | Code::SubnetExhausted
            | Code::UnknownService
            | Code::ServiceCfgUndeclared
            | Code::ServiceCfgInvalid
            | Code::ServiceUnimplemented
            | Code::PersonaMismatch
            | Code::PortCollision
            | Code::GatewayNotInDmz
            | Code::PublishCollision
            | Code::PublishUnserved
            | Code::PublishUnbridged
            | Code::EdgeDup
            | Code::EdgeUnknown
            | Code::TooLarge
            | Code::ReferenceUnknown
            | Code::ChangeRefused
            | Code::ImportChanged => false,
        };
        if secondary {
            continue;
        }
        for (list, places) in [
            ("lans[", &resolved.lan_places),
            ("deckies[", &resolved.decky_places),
        ] {
            if let Some(place) = index(&finding.path, list)
                && let Some(written) = places.get(place)
            {
                let tail = &finding.path[list.len() + place.to_string().len()..];
                finding.path = format!("{list}{written}{tail}");
            }
        }
        findings.push(finding);
    }
    sort(&mut findings);
    findings
}

/// The index of a path that begins with an element of this list.
fn index(path: &str, list: &str) -> Option<usize> {
    path.strip_prefix(list)?.split_once(']')?.0.parse().ok()
}

/// Findings of every rule, sorted.
pub fn validate(topology: &Topology) -> Vec<Finding> {
    findings_of(&Subject::of(topology))
}

/// Findings of every rule and of the limits, sorted.
pub fn validate_within(topology: &Topology, limits: &Limits) -> Vec<Finding> {
    let subject = Subject::of(topology);
    let mut findings = findings_of(&subject);
    sizes_keep_the_limits(&subject, limits, &mut findings);
    sort(&mut findings);
    findings
}

fn findings_of(subject: &Subject<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in RULES {
        rule(subject, &mut findings);
    }
    sort(&mut findings);
    findings
}

/// A topology as the rules look at it.
struct Subject<'a> {
    lans: &'a [Lan],
    /// Each with its edges, in the order of its interfaces.
    deckies: Vec<(&'a Decky, Vec<&'a Edge>)>,
    edges: &'a [Edge],
}

impl<'a> Subject<'a> {
    fn of(topology: &'a Topology) -> Self {
        let mut edges_of = topology.edges_by_decky();
        let deckies = topology.deckies.iter();
        Self {
            lans: &topology.lans,
            deckies: deckies
                .map(|decky| (decky, edges_of.remove(&decky.id).unwrap_or_default()))
                .collect(),
            edges: &topology.edges,
        }
    }
}

type Rule = fn(&Subject<'_>, &mut Vec<Finding>);

/// Every rule. The next one goes at the end of its file's part.
const RULES: [Rule; 20] = [
    shape::exactly_one_dmz,
    shape::every_lan_reaches_the_dmz,
    shape::every_decky_has_a_lan,
    shape::every_decky_has_one_home,
    shape::edges_lead_somewhere,
    shape::lan_names_are_unique,
    shape::decky_names_are_unique,
    address::subnets_are_usable,
    address::subnets_do_not_overlap,
    address::ipv6_ranges_are_usable,
    address::addresses_are_usable,
    address::addresses_are_unique,
    service::services_share_no_port,
    service::options_keep_their_schema,
    service::services_are_implemented,
    service::services_fit_the_persona,
    service::archetypes_are_known,
    publish::only_the_dmz_publishes,
    publish::published_ports_are_bridged,
    publish::published_ports_lead_somewhere,
];

fn sizes_keep_the_limits(subject: &Subject<'_>, limits: &Limits, findings: &mut Vec<Finding>) {
    let mut over = |what: &str, decky: Option<(usize, &Decky)>, list: &str, got, limit| {
        if got > limit {
            let (target, path) = match decky {
                None => ("topology".to_owned(), list.to_owned()),
                Some((index, decky)) => (
                    format!("decky {}", decky.name),
                    format!("deckies[{index}].{list}"),
                ),
            };
            findings.push(Finding::error(
                Code::TooLarge,
                target,
                path,
                format!("{got} {what} exceed the limit of {limit}"),
            ));
        }
    };
    let (lans, deckies) = (subject.lans.len(), subject.deckies.len());
    over("LANs", None, "lans", lans, limits.lans);
    over("deckies", None, "deckies", deckies, limits.deckies);
    for (index, (decky, edges)) in subject.deckies.iter().enumerate() {
        let (at, publish) = (Some((index, *decky)), decky.publish.len());
        over("edges", at, "edges", edges.len(), limits.edges_per_decky);
        let limit = limits.publish_per_decky;
        over("published ports", at, "publish", publish, limit);
    }
}

#[cfg(test)]
mod tests;

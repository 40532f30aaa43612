//! The validator: one function a rule, every finding returned, in one order.

use super::Topology;
use super::draft::Resolved;
use super::finding::{Finding, FindingCode as Code, sort};

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
    let mut findings = Vec::new();
    for rule in RULES {
        rule(topology, &mut findings);
    }
    sort(&mut findings);
    findings
}

/// Findings of every rule and of the limits, sorted.
pub fn validate_within(topology: &Topology, limits: &Limits) -> Vec<Finding> {
    let mut findings = validate(topology);
    sizes_keep_the_limits(topology, limits, &mut findings);
    sort(&mut findings);
    findings
}

type Rule = fn(&Topology, &mut Vec<Finding>);

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

fn sizes_keep_the_limits(topology: &Topology, limits: &Limits, findings: &mut Vec<Finding>) {
    let mut over = |what: &str, target: String, path: String, got: usize, limit: usize| {
        if got > limit {
            findings.push(Finding::error(
                Code::TooLarge,
                target,
                path,
                format!("{got} {what} exceed the limit of {limit}"),
            ));
        }
    };
    let edges = topology.edges_by_decky();
    let whole = || "topology".to_owned();
    let (lans, deckies) = (topology.lans.len(), topology.deckies.len());
    over("LANs", whole(), "lans".to_owned(), lans, limits.lans);
    over(
        "deckies",
        whole(),
        "deckies".to_owned(),
        deckies,
        limits.deckies,
    );
    for (index, decky) in topology.deckies.iter().enumerate() {
        let target = || format!("decky {}", decky.name);
        over(
            "edges",
            target(),
            format!("deckies[{index}].edges"),
            edges.get(&decky.id).map_or(0, Vec::len),
            limits.edges_per_decky,
        );
        over(
            "published ports",
            target(),
            format!("deckies[{index}].publish"),
            decky.publish.len(),
            limits.publish_per_decky,
        );
    }
}

#[cfg(test)]
mod tests;

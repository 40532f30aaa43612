//! The validator: one function a rule, every finding returned, in one order.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::Resolved;
use super::finding::{Finding, FindingCode as Code, sort};
use super::{LanKind, Topology};
use crate::id::LanId;

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
            Code::DmzOrphan => resolved.lacks_lan || !resolved.incomplete.is_empty(),
            Code::DmzMissing => resolved.lacks_dmz,
            Code::DmzMultiple
            | Code::LanNameDup
            | Code::DeckyNameDup
            | Code::NameInvalid
            | Code::ValueInvalid
            | Code::IpMalformed
            | Code::IpOutOfSubnet
            | Code::IpCollision
            | Code::IpReserved
            | Code::IpExhausted
            | Code::SubnetMalformed
            | Code::SubnetOverlap
            | Code::SubnetReserved
            | Code::UnknownService
            | Code::ServiceCfgUndeclared
            | Code::ServiceCfgInvalid
            | Code::PortCollision
            | Code::GatewayNotInDmz
            | Code::PublishCollision
            | Code::PublishUnserved
            | Code::PublishUnbridged
            | Code::EdgeDup
            | Code::EdgeUnknown
            | Code::TooLarge => false,
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
    let rules: [fn(&Topology, &mut Vec<Finding>); 10] = [
        exactly_one_dmz,
        every_lan_reaches_the_dmz,
        every_decky_has_a_lan,
        subnets_are_usable,
        subnets_do_not_overlap,
        ipv6_ranges_are_usable,
        published_ports_are_bridged,
        addresses_are_unique,
        services_share_no_port,
        published_ports_lead_somewhere,
    ];
    for rule in rules {
        rule(topology, &mut findings);
    }
    sort(&mut findings);
    findings
}

fn exactly_one_dmz(topology: &Topology, findings: &mut Vec<Finding>) {
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

fn every_lan_reaches_the_dmz(topology: &Topology, findings: &mut Vec<Finding>) {
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

fn every_decky_has_a_lan(topology: &Topology, findings: &mut Vec<Finding>) {
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

fn subnets_are_usable(topology: &Topology, findings: &mut Vec<Finding>) {
    for (index, lan) in topology.lans.iter().enumerate() {
        let target = format!("lan {}", lan.name);
        let path = format!("lans[{index}].subnet");
        let first = lan.subnet.network();
        let length = lan.subnet.prefix_len();
        if !(8..=29).contains(&length) {
            findings.push(Finding::error(
                Code::SubnetReserved,
                target,
                path,
                format!("/{length} is not between /8 and /29"),
            ));
        } else if first.is_loopback()
            || first.is_multicast()
            || first.is_link_local()
            || first.octets()[0] == 0
            || first.octets()[0] >= 240
        {
            findings.push(Finding::error(
                Code::SubnetReserved,
                target,
                path,
                format!(
                    "{} is reserved (RFC 6890) and no LAN can have it",
                    lan.subnet
                ),
            ));
        }
    }
}

fn subnets_do_not_overlap(topology: &Topology, findings: &mut Vec<Finding>) {
    for (index, lan) in topology.lans.iter().enumerate() {
        for earlier in &topology.lans[..index] {
            if lan.subnet.contains(&earlier.subnet) || earlier.subnet.contains(&lan.subnet) {
                findings.push(Finding::error(
                    Code::SubnetOverlap,
                    format!("lans {}, {}", earlier.name, lan.name),
                    format!("lans[{index}].subnet"),
                    format!(
                        "{} overlaps {} of LAN {}",
                        lan.subnet, earlier.subnet, earlier.name
                    ),
                ));
            }
        }
    }
}

fn ipv6_ranges_are_usable(topology: &Topology, findings: &mut Vec<Finding>) {
    for (index, lan) in topology.lans.iter().enumerate() {
        let Some(subnet) = lan.subnet6 else { continue };
        let path = format!("lans[{index}].subnet6");
        let first = subnet.network();
        // Machines choose their addresses by their MAC (RFC 4291, appendix A), which takes 64 bits.
        if subnet.prefix_len() != 64 {
            findings.push(Finding::error(
                Code::SubnetReserved,
                format!("lan {}", lan.name),
                path,
                format!("/{} is not /64", subnet.prefix_len()),
            ));
            continue;
        }
        if first.is_unspecified()
            || first.is_loopback()
            || first.is_multicast()
            || first.is_unicast_link_local()
            || first.to_ipv4_mapped().is_some()
        {
            findings.push(Finding::error(
                Code::SubnetReserved,
                format!("lan {}", lan.name),
                path,
                format!("{subnet} is reserved (RFC 6890) and no LAN can have it"),
            ));
            continue;
        }
        let earlier = topology.lans[..index]
            .iter()
            .find(|earlier| earlier.subnet6 == Some(subnet));
        if let Some(earlier) = earlier {
            findings.push(Finding::error(
                Code::SubnetOverlap,
                format!("lans {}, {}", earlier.name, lan.name),
                path,
                format!("{subnet} is the IPv6 range of LAN {}", earlier.name),
            ));
        }
    }
}

fn published_ports_are_bridged(topology: &Topology, findings: &mut Vec<Finding>) {
    let real: BTreeSet<_> = topology
        .lans
        .iter()
        .filter(|lan| lan.kind == LanKind::Dmz && lan.driver.parent().is_some())
        .map(|lan| lan.id)
        .collect();
    for (index, decky) in topology.deckies.iter().enumerate() {
        let on_real = topology
            .edges_of(decky.id)
            .any(|edge| real.contains(&edge.lan));
        if !decky.publish.is_empty() && on_real {
            findings.push(Finding::error(
                Code::PublishUnbridged,
                format!("decky {}", decky.name),
                format!("deckies[{index}].publish"),
                "the DMZ is a real network, where the decky answers under its own address; \
                 publish nothing, or give the DMZ the driver bridge",
            ));
        }
    }
}

fn addresses_are_unique(topology: &Topology, findings: &mut Vec<Finding>) {
    let mut holders = BTreeMap::new();
    for (index, decky) in topology.deckies.iter().enumerate() {
        let mut lans = BTreeSet::new();
        for (number, edge) in topology.edges_of(decky.id).enumerate() {
            let target = format!("decky {}", decky.name);
            let path = format!("deckies[{index}].edges[{number}]");
            if !lans.insert(edge.lan) {
                findings.push(Finding::error(
                    Code::EdgeDup,
                    target.clone(),
                    format!("{path}.lan"),
                    "the decky is on this LAN already",
                ));
            } else if let Some(other) = holders.insert((edge.lan, edge.address), &decky.name) {
                findings.push(Finding::error(
                    Code::IpCollision,
                    target,
                    format!("{path}.address"),
                    format!("{} is the address of decky {other}", edge.address),
                ));
            }
        }
    }
}

fn services_share_no_port(topology: &Topology, findings: &mut Vec<Finding>) {
    for (index, decky) in topology.deckies.iter().enumerate() {
        let mut ports = BTreeMap::new();
        for kind in decky.services.keys() {
            for port in kind.ports() {
                if let Some(other) = ports.insert(port, kind) {
                    findings.push(Finding::error(
                        Code::PortCollision,
                        format!("decky {}", decky.name),
                        format!("deckies[{index}].services"),
                        format!("{kind} and {other} both listen on port {port}"),
                    ));
                }
            }
        }
    }
}

fn published_ports_lead_somewhere(topology: &Topology, findings: &mut Vec<Finding>) {
    let dmz: BTreeSet<_> = topology
        .lans
        .iter()
        .filter(|lan| lan.kind == LanKind::Dmz)
        .map(|lan| lan.id)
        .collect();
    let mut holders = Vec::new();
    for (index, decky) in topology.deckies.iter().enumerate() {
        let target = format!("decky {}", decky.name);
        if !decky.publish.is_empty()
            && !dmz.is_empty()
            && !topology
                .edges_of(decky.id)
                .any(|edge| dmz.contains(&edge.lan))
        {
            findings.push(Finding::error(
                Code::GatewayNotInDmz,
                target.clone(),
                format!("deckies[{index}].publish"),
                "only a decky in the DMZ may publish ports: others are reached through a gateway",
            ));
        }
        for (number, publish) in decky.publish.iter().enumerate() {
            let path = format!("deckies[{index}].publish[{number}]");
            if !decky
                .services
                .keys()
                .any(|kind| kind.ports().contains(&publish.decky_port))
            {
                findings.push(Finding::warning(
                    Code::PublishUnserved,
                    target.clone(),
                    format!("{path}.decky_port"),
                    format!(
                        "no service of the decky listens on port {}",
                        publish.decky_port
                    ),
                ));
            }
            let clash = holders.iter().find(|(other, _): &&(super::Publish, _)| {
                other.host_port == publish.host_port
                    && other.protocol == publish.protocol
                    && (other.host_ip.is_none()
                        || publish.host_ip.is_none()
                        || other.host_ip == publish.host_ip)
            });
            if let Some((_, other)) = clash {
                findings.push(Finding::error(
                    Code::PublishCollision,
                    target.clone(),
                    format!("{path}.host_port"),
                    format!(
                        "port {} of the host is published by decky {other}",
                        publish.host_port
                    ),
                ));
            }
            holders.push((*publish, &decky.name));
        }
    }
}

//! Rules of subnets and addresses.

use std::collections::{BTreeMap, BTreeSet};

use super::super::allocate::{self, AddressRefused};
use super::super::finding::{Finding, FindingCode as Code};
use super::Subject;

pub(super) fn subnets_are_usable(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    for (index, lan) in subject.lans.iter().enumerate() {
        let first = lan.subnet.network();
        let length = lan.subnet.prefix_len();
        let fault = if !(8..=29).contains(&length) {
            format!("/{length} is not between /8 and /29")
        } else if first.is_loopback()
            || first.is_multicast()
            || first.is_link_local()
            || first.octets()[0] == 0
            || first.octets()[0] >= 240
        {
            format!(
                "{} is reserved (RFC 6890) and no LAN can have it",
                lan.subnet
            )
        } else {
            continue;
        };
        findings.push(Finding::error(
            Code::SubnetReserved,
            format!("lan {}", lan.name),
            format!("lans[{index}].subnet"),
            fault,
        ));
    }
}

pub(super) fn subnets_do_not_overlap(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    for (index, lan) in subject.lans.iter().enumerate() {
        for earlier in &subject.lans[..index] {
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

pub(super) fn ipv6_ranges_are_usable(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    for (index, lan) in subject.lans.iter().enumerate() {
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
        let earlier = subject.lans[..index]
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

pub(super) fn addresses_are_usable(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let lans: BTreeMap<_, _> = subject.lans.iter().map(|lan| (lan.id, lan)).collect();
    for (index, (decky, edges)) in subject.deckies.iter().enumerate() {
        for (number, edge) in edges.iter().enumerate() {
            let Some(lan) = lans.get(&edge.lan) else {
                continue;
            };
            let code = match allocate::check(lan.subnet, edge.address) {
                Ok(()) | Err(AddressRefused::Taken) => continue,
                Err(AddressRefused::OutOfSubnet) => Code::IpOutOfSubnet,
                Err(AddressRefused::Reserved) => Code::IpReserved,
            };
            findings.push(Finding::error(
                code,
                format!("decky {}", decky.name),
                format!("deckies[{index}].edges[{number}].address"),
                format!(
                    "{} is no address for a decky in {} of LAN {}",
                    edge.address, lan.subnet, lan.name
                ),
            ));
        }
    }
}

pub(super) fn addresses_are_unique(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let mut holders = BTreeMap::new();
    for (index, (decky, edges)) in subject.deckies.iter().enumerate() {
        let mut lans = BTreeSet::new();
        for (number, edge) in edges.iter().enumerate() {
            let target = || format!("decky {}", decky.name);
            let path = |field| format!("deckies[{index}].edges[{number}].{field}");
            if !lans.insert(edge.lan) {
                findings.push(Finding::error(
                    Code::EdgeDup,
                    target(),
                    path("lan"),
                    "the decky is on this LAN already",
                ));
            } else if let Some(other) = holders.insert((edge.lan, edge.address), &decky.name) {
                findings.push(Finding::error(
                    Code::IpCollision,
                    target(),
                    path("address"),
                    format!("{} is the address of decky {other}", edge.address),
                ));
            }
        }
    }
}

//! Rules of published ports.

use std::collections::BTreeSet;

use super::super::finding::{Finding, FindingCode as Code};
use super::super::{LanKind, Publish};
use super::Subject;

pub(super) fn only_the_dmz_publishes(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let dmz: BTreeSet<_> = subject
        .lans
        .iter()
        .filter(|lan| lan.kind == LanKind::Dmz)
        .map(|lan| lan.id)
        .collect();
    for (index, (decky, edges)) in subject.deckies.iter().enumerate() {
        if !decky.publish.is_empty()
            && !dmz.is_empty()
            && !edges.iter().any(|edge| dmz.contains(&edge.lan))
        {
            findings.push(Finding::error(
                Code::GatewayNotInDmz,
                format!("decky {}", decky.name),
                format!("deckies[{index}].publish"),
                "only a decky in the DMZ may publish ports: others are reached through a gateway",
            ));
        }
    }
}

pub(super) fn published_ports_are_bridged(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let real: BTreeSet<_> = subject
        .lans
        .iter()
        .filter(|lan| lan.kind == LanKind::Dmz && lan.driver.parent().is_some())
        .map(|lan| lan.id)
        .collect();
    for (index, (decky, edges)) in subject.deckies.iter().enumerate() {
        let on_real = edges.iter().any(|edge| real.contains(&edge.lan));
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

pub(super) fn published_ports_lead_somewhere(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let mut holders = Vec::new();
    for (index, (decky, _)) in subject.deckies.iter().enumerate() {
        let target = || format!("decky {}", decky.name);
        for (number, publish) in decky.publish.iter().enumerate() {
            let path = format!("deckies[{index}].publish[{number}]");
            let served = decky
                .services
                .keys()
                .flat_map(|kind| kind.listens())
                .any(|listens| listens == (publish.protocol, publish.decky_port));
            if !served {
                findings.push(Finding::warning(
                    Code::PublishUnserved,
                    target(),
                    format!("{path}.decky_port"),
                    format!(
                        "no service of the decky listens on {} port {}",
                        publish.protocol.as_str(),
                        publish.decky_port
                    ),
                ));
            }
            let clash = holders.iter().find(|(other, _): &&(Publish, _)| {
                other.host_port == publish.host_port
                    && other.protocol == publish.protocol
                    && (other.host_ip.is_none()
                        || publish.host_ip.is_none()
                        || other.host_ip == publish.host_ip)
            });
            if let Some((_, other)) = clash {
                findings.push(Finding::error(
                    Code::PublishCollision,
                    target(),
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

//! Rules of services, their options, personas and archetypes.

use std::collections::BTreeMap;

use super::super::finding::{Finding, FindingCode as Code};
use super::Subject;
use crate::archetype::Archetype;
use crate::service::ServiceOptions;

pub(super) fn services_share_no_port(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    for (index, (decky, _)) in subject.deckies.iter().enumerate() {
        let mut ports = BTreeMap::new();
        for kind in decky.services.keys().copied() {
            for (protocol, port) in kind.listens() {
                if let Some(other) = ports.insert((protocol, port), kind) {
                    findings.push(Finding::error(
                        Code::PortCollision,
                        format!("decky {}", decky.name),
                        format!("deckies[{index}].services"),
                        format!(
                            "{kind} and {other} both listen on {} port {port}",
                            protocol.as_str()
                        ),
                    ));
                }
            }
        }
    }
}

pub(super) fn options_keep_their_schema(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    for (index, (decky, _)) in subject.deckies.iter().enumerate() {
        for (kind, options) in &decky.services {
            for (name, value) in options.iter() {
                // Options that were made for another service would pass by their type.
                if let Err(error) = ServiceOptions::default().set(*kind, name, value.clone()) {
                    findings.push(Finding::error(
                        Code::ServiceCfgInvalid,
                        format!("decky {}", decky.name),
                        format!("deckies[{index}].service_config.{kind}.{name}"),
                        error.to_string(),
                    ));
                }
            }
        }
    }
}

/// A warning, because the rest of such a decky works and its topology stays worth deploying.
pub(super) fn services_are_implemented(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    for (index, (decky, _)) in subject.deckies.iter().enumerate() {
        let lacking: Vec<_> = decky
            .services
            .keys()
            .filter(|kind| !kind.is_implemented())
            .map(|kind| kind.as_str())
            .collect();
        if !lacking.is_empty() {
            findings.push(Finding::warning(
                Code::ServiceUnimplemented,
                format!("decky {}", decky.name),
                format!("deckies[{index}].services"),
                format!(
                    "this release cannot show {}: the ports stay closed",
                    lacking.join(", ")
                ),
            ));
        }
    }
}

pub(super) fn services_fit_the_persona(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    for (index, (decky, _)) in subject.deckies.iter().enumerate() {
        for kind in decky.services.keys() {
            if !kind.fits(decky.persona) {
                let personas: Vec<_> = kind.personas().iter().map(|each| each.as_str()).collect();
                findings.push(Finding::warning(
                    Code::PersonaMismatch,
                    format!("decky {}", decky.name),
                    format!("deckies[{index}].persona"),
                    format!(
                        "{kind} gives {} away; it is met on {}",
                        decky.persona,
                        personas.join(", ")
                    ),
                ));
            }
        }
    }
}

/// A warning: the name is a label, but its decky mutates among all services instead of few.
pub(super) fn archetypes_are_known(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    for (index, (decky, _)) in subject.deckies.iter().enumerate() {
        let archetype = decky.archetype.as_deref().map(str::parse::<Archetype>);
        if let Some(Err(error)) = archetype {
            findings.push(Finding::warning(
                Code::ValueInvalid,
                format!("decky {}", decky.name),
                format!("deckies[{index}].archetype"),
                error.to_string(),
            ));
        }
    }
}

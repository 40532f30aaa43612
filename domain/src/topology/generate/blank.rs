//! The least topology: a DMZ and one decky in it, to be drawn further by hand.

use ipnet::Ipv4Net;

use super::super::LanKind;
use super::super::draft::{Draft, DraftDecky, DraftEdge, DraftLan};
use crate::archetype::Archetype;

/// A draft of one DMZ with this range and one decky that is its way in. Nothing is published: who
/// draws by hand says which port of which host the outside is to reach.
pub fn blank(name: &str, subnet: Ipv4Net) -> Draft {
    let archetype = Archetype::Deaddeck;
    let dmz = LanKind::Dmz.as_str();
    Draft {
        name: name.to_owned(),
        lans: vec![DraftLan {
            name: dmz.to_owned(),
            subnet: subnet.to_string(),
            kind: Some(dmz.to_owned()),
            ..DraftLan::default()
        }],
        deckies: vec![DraftDecky {
            name: "dmz-gateway".to_owned(),
            archetype: Some(archetype.as_str().to_owned()),
            services: archetype
                .services()
                .iter()
                .map(|kind| kind.as_str().to_owned())
                .collect(),
            forwards_l3: true,
            edges: vec![DraftEdge {
                lan: dmz.to_owned(),
                ..DraftEdge::default()
            }],
            ..DraftDecky::default()
        }],
    }
}

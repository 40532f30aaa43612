//! Writes a topology down as a draft, with nothing left out.

use super::{Draft, DraftDecky, DraftEdge, DraftLan, DraftPublish};
use crate::topology::{Decky, Edge, Lan, Publish, Topology};

impl From<&Topology> for Draft {
    fn from(topology: &Topology) -> Self {
        Self {
            name: topology.name.to_string(),
            lans: topology.lans.iter().map(DraftLan::from).collect(),
            deckies: topology
                .deckies
                .iter()
                .map(|decky| DraftDecky {
                    edges: topology
                        .edges_of(decky.id)
                        .map(|edge| written(topology, edge))
                        .collect(),
                    ..DraftDecky::from(decky)
                })
                .collect(),
        }
    }
}

impl From<&Lan> for DraftLan {
    fn from(lan: &Lan) -> Self {
        Self {
            name: lan.name.to_string(),
            subnet: lan.subnet.to_string(),
            subnet6: lan.subnet6.map(|subnet| subnet.to_string()),
            kind: Some(lan.kind.as_str().to_owned()),
            driver: Some(lan.driver.to_string()),
        }
    }
}

impl From<&Decky> for DraftDecky {
    /// The decky without its edges, which are the topology's.
    fn from(decky: &Decky) -> Self {
        Self {
            name: decky.name.to_string(),
            hostname: Some(decky.hostname.to_string()),
            archetype: decky.archetype.clone(),
            services: decky
                .services
                .keys()
                .map(|kind| kind.as_str().to_owned())
                .collect(),
            service_config: decky
                .services
                .iter()
                .map(|(kind, options)| {
                    let options = options
                        .iter()
                        .map(|(name, value)| (name.to_owned(), value.clone()));
                    (kind.as_str().to_owned(), options.collect())
                })
                .filter(
                    |(_, options): &(String, std::collections::BTreeMap<_, _>)| !options.is_empty(),
                )
                .collect(),
            persona: Some(decky.persona.as_str().to_owned()),
            forwards_l3: decky.forwards_l3,
            publish: decky.publish.iter().map(DraftPublish::from).collect(),
            mutate_every: decky.mutate_every.map(|interval| interval.to_string()),
            seed: Some(decky.seed.hex()),
            edges: Vec::new(),
        }
    }
}

impl From<&Publish> for DraftPublish {
    fn from(publish: &Publish) -> Self {
        Self {
            host_ip: publish.host_ip.map(|ip| ip.to_string()),
            host_port: publish.host_port.into(),
            decky_port: publish.decky_port.into(),
            protocol: Some(publish.protocol.as_str().to_owned()),
        }
    }
}

fn written(topology: &Topology, edge: &Edge) -> DraftEdge {
    DraftEdge {
        lan: topology
            .lan(edge.lan)
            .map_or_else(|| edge.lan.to_string(), |lan| lan.name.to_string()),
        address: Some(edge.address.to_string()),
        mac: Some(edge.mac.to_string()),
        home: Some(edge.home),
    }
}

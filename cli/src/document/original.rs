//! Documents of the original system: `{"topology", "lans", "deckies", "edges"}` with references by
//! id, as its API exports them. They become documents of ours, faults included: judging them is
//! the validator's.

use std::collections::{BTreeMap, BTreeSet};

use domain::topology::finding::{Finding, FindingCode};
use proto::decky_config::WireOption;
use proto::topology_file::{FileDecky, FileEdge, FileLan, TopologyFile};
use serde::Deserialize;
use serde_json::Value;

use super::Loaded;
use super::malformed::Malformed;

// Fields that say nothing about the topology (states, times, canvas positions) are passed over.
#[derive(Deserialize)]
struct Document {
    topology: Topology,
    lans: Vec<Lan>,
    deckies: Vec<Decky>,
    edges: Vec<Edge>,
}

#[derive(Deserialize)]
struct Topology {
    name: String,
}

#[derive(Deserialize)]
struct Lan {
    id: String,
    name: String,
    subnet: String,
    #[serde(default)]
    is_dmz: bool,
}

#[derive(Deserialize)]
struct Decky {
    uuid: String,
    name: String,
    #[serde(default)]
    services: Vec<String>,
    #[serde(default)]
    decky_config: Config,
    #[serde(default)]
    ip: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Config {
    ips_by_lan: BTreeMap<String, Option<String>>,
    forwards_l3: bool,
    archetype: Option<String>,
    service_config: BTreeMap<String, BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct Edge {
    decky_uuid: String,
    lan_id: String,
    #[serde(default)]
    forwards_l3: bool,
}

/// Reads such a document as one of ours.
pub(super) fn convert(text: &str) -> Result<Loaded, Malformed> {
    let mut track = serde_path_to_error::Track::new();
    let mut json = serde_json::Deserializer::from_str(text);
    let document = Document::deserialize(serde_path_to_error::Deserializer::new(
        &mut json, &mut track,
    ))
    .map_err(|error| Malformed::of_json(&error, &track.path()))?;
    let lans: BTreeMap<&str, &str> = document
        .lans
        .iter()
        .map(|lan| (lan.id.as_str(), lan.name.as_str()))
        .collect();
    let names: BTreeSet<&str> = lans.values().copied().collect();
    let nowhere = document
        .deckies
        .iter()
        .enumerate()
        .flat_map(|(index, decky)| {
            let addressed = decky.decky_config.ips_by_lan.keys();
            addressed
                .filter(|lan| !names.contains(lan.as_str()))
                .map(move |lan| {
                    Finding::error(
                        FindingCode::IpUnknownLan,
                        format!("decky {}", decky.name),
                        format!("deckies[{index}].decky_config.ips_by_lan.{lan}"),
                        format!("there is no LAN named {lan:?}"),
                    )
                })
        });
    let findings = document
        .edges
        .iter()
        .enumerate()
        .filter(|(_, edge)| {
            document
                .deckies
                .iter()
                .all(|decky| decky.uuid != edge.decky_uuid)
        })
        .map(|(index, edge)| {
            Finding::error(
                FindingCode::EdgeUnknown,
                "topology",
                format!("edges[{index}].decky_uuid"),
                format!("there is no decky with the id {:?}", edge.decky_uuid),
            )
        })
        .chain(nowhere)
        .collect();
    let deckies = document
        .deckies
        .iter()
        .map(|decky| {
            let edges = document
                .edges
                .iter()
                .filter(|edge| edge.decky_uuid == decky.uuid);
            convert_decky(decky, edges, &lans)
        })
        .collect();
    let file = TopologyFile {
        name: document.topology.name,
        lans: document
            .lans
            .iter()
            .map(|lan| FileLan {
                name: lan.name.clone(),
                subnet: lan.subnet.clone(),
                subnet6: None,
                kind: Some(if lan.is_dmz { "dmz" } else { "internal" }.to_owned()),
                driver: None,
            })
            .collect(),
        deckies,
    };
    Ok(Loaded { file, findings })
}

fn convert_decky<'a>(
    decky: &Decky,
    edges: impl Iterator<Item = &'a Edge>,
    lans: &BTreeMap<&str, &str>,
) -> FileDecky {
    let config = &decky.decky_config;
    let mut forwards_l3 = config.forwards_l3;
    let mut edges: Vec<FileEdge> = edges
        .map(|edge| {
            forwards_l3 |= edge.forwards_l3;
            // An unknown id stays as it is, and is no LAN's name.
            let lan = lans
                .get(edge.lan_id.as_str())
                .copied()
                .unwrap_or(edge.lan_id.as_str());
            let address = config.ips_by_lan.get(lan).cloned().flatten();
            FileEdge {
                lan: lan.to_owned(),
                address,
                mac: None,
                home: None,
            }
        })
        .collect();
    // `ip` repeats the address in the LAN where the decky belongs.
    if let Some(home) = edges
        .iter_mut()
        .find(|edge| edge.address.is_some() && edge.address == decky.ip)
    {
        home.home = Some(true);
    }
    FileDecky {
        name: decky.name.clone(),
        hostname: None,
        archetype: config.archetype.clone(),
        persona: None,
        services: decky.services.clone(),
        service_config: config
            .service_config
            .iter()
            .map(|(service, options)| (service.clone(), convert_options(options)))
            .collect(),
        forwards_l3,
        publish: Vec::new(),
        mutate_every: None,
        seed: None,
        edges,
    }
}

fn convert_options(options: &BTreeMap<String, Value>) -> BTreeMap<String, WireOption> {
    let convert = |value: &Value| match value {
        Value::Bool(flag) => WireOption::Boolean(*flag),
        Value::String(text) => WireOption::Text(text.clone()),
        Value::Number(number) => number
            .as_i64()
            .map_or_else(|| WireOption::Text(number.to_string()), WireOption::Integer),
        Value::Null | Value::Array(_) | Value::Object(_) => WireOption::Text(value.to_string()),
    };
    options
        .iter()
        .map(|(name, value)| (name.clone(), convert(value)))
        .collect()
}

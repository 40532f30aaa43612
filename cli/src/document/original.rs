//! Documents of the original system: `{"topology", "lans", "deckies", "edges"}` with references by
//! id, as its API exports them and as it pushes them to its agents. They become documents of ours,
//! faults included: judging them is the validator's.
//!
//! Nothing is published: there, a decky that routes answers on the host's ports too, wherever it
//! stands. Who wants that writes `publish`.

mod shape;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use domain::topology::finding::{Finding, FindingCode};
use ipnet::Ipv4Net;
use proto::decky_config::WireOption;
use proto::topology_file::{FileDecky, FileEdge, FileLan, TopologyFile};
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::shape::{Config, Decky, Document, Edge, Lan, Pushed};
use super::Loaded;
use super::malformed::Malformed;

/// Reads such a document as one of ours.
pub(super) fn convert(text: &str) -> Result<Loaded, Malformed> {
    Ok(import(&read::<Document>(text)?, ""))
}

/// Reads what the original pushes to an agent: the document, and its hash beside it.
pub(super) fn convert_pushed(text: &str) -> Result<Loaded, Malformed> {
    Ok(import(&read::<Pushed>(text)?.hydrated, "hydrated."))
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Malformed> {
    let mut track = serde_path_to_error::Track::new();
    let mut json = serde_json::Deserializer::from_str(text);
    T::deserialize(serde_path_to_error::Deserializer::new(
        &mut json, &mut track,
    ))
    .map_err(|error| Malformed::of_json(&error, &track.path()))
}

fn import(document: &Document, root: &str) -> Loaded {
    let lans: BTreeMap<&str, &Lan> = document
        .lans
        .iter()
        .map(|lan| (lan.id.as_str(), lan))
        .collect();
    let mut edges: BTreeMap<&str, Vec<&Edge>> = BTreeMap::new();
    for edge in &document.edges {
        edges
            .entry(edge.decky_uuid.as_str())
            .or_default()
            .push(edge);
    }
    let file = TopologyFile {
        name: document.topology.name.clone(),
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
        deckies: document
            .deckies
            .iter()
            .map(|decky| {
                let edges = edges
                    .get(decky.uuid.as_str())
                    .map_or(&[][..], Vec::as_slice);
                convert_decky(decky, edges, &lans)
            })
            .collect(),
    };
    Loaded {
        file,
        findings: dangling(document, &lans, root),
    }
}

/// References that lead nowhere and that no document of ours can hold.
fn dangling(document: &Document, lans: &BTreeMap<&str, &Lan>, root: &str) -> Vec<Finding> {
    let uuids: BTreeSet<&str> = document
        .deckies
        .iter()
        .map(|decky| decky.uuid.as_str())
        .collect();
    let names: BTreeSet<&str> = lans.values().map(|lan| lan.name.as_str()).collect();
    let edges = document.edges.iter().enumerate();
    let nobodys = edges.filter(|(_, edge)| !uuids.contains(edge.decky_uuid.as_str()));
    let nobodys = nobodys.map(|(index, edge)| {
        Finding::error(
            FindingCode::EdgeUnknown,
            "topology",
            format!("{root}edges[{index}].decky_uuid"),
            format!("there is no decky with the id {:?}", clip(&edge.decky_uuid)),
        )
    });
    let nowhere = document
        .deckies
        .iter()
        .enumerate()
        .flat_map(|(index, decky)| {
            let addressed = decky.config().ips_by_lan.0.iter();
            addressed
                .filter(|(lan, _)| !names.contains(lan.as_str()))
                .map(move |(lan, _)| {
                    let lan = clip(lan);
                    Finding::error(
                        FindingCode::IpUnknownLan,
                        format!("decky {}", clip(&decky.name)),
                        format!("{root}deckies[{index}].decky_config.ips_by_lan.{lan}"),
                        format!("there is no LAN named {lan:?}"),
                    )
                })
        });
    nobodys.chain(nowhere).collect()
}

fn lies_in(address: Option<&str>, subnet: &str) -> bool {
    let address = address.and_then(|text| text.parse::<Ipv4Addr>().ok());
    let subnet = subnet.parse::<Ipv4Net>().ok();
    address
        .zip(subnet)
        .is_some_and(|(address, subnet)| subnet.contains(&address))
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

fn convert_decky(decky: &Decky, edges: &[&Edge], lans: &BTreeMap<&str, &Lan>) -> FileDecky {
    let config = decky.config();
    let addresses = config.ips_by_lan.by_lan();
    let mut converted: Vec<FileEdge> = edges
        .iter()
        .map(|edge| {
            // An unknown id stays as it is, and is no LAN's name.
            let known = lans.get(edge.lan_id.as_str());
            let lan = known.map_or(edge.lan_id.as_str(), |lan| lan.name.as_str());
            let address = addresses.get(lan).copied().flatten();
            // A row that was never filled may still say its one address.
            let own = || {
                let holds = known.is_some_and(|lan| lies_in(decky.ip.as_deref(), &lan.subnet));
                decky.ip.as_deref().filter(|_| holds)
            };
            FileEdge {
                lan: lan.to_owned(),
                address: address.or_else(own).map(str::to_owned),
                mac: None,
                home: None,
            }
        })
        .collect();
    // The first one is when nobody says.
    if let Some(index) = home(decky, config, edges, &converted).filter(|index| *index > 0) {
        converted[index].home = Some(true);
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
            .map(|(service, options)| {
                let options = options.as_ref().map(convert_options);
                (service.clone(), options.unwrap_or_default())
            })
            .collect(),
        forwards_l3: config.forwards_l3 || edges.iter().any(|edge| edge.forwards_l3),
        publish: Vec::new(),
        mutate_every: None,
        seed: None,
        edges: converted,
    }
}

/// Which edge leads to the LAN where the decky belongs: that of its own address, else the first
/// that has one, else the first that is no bridge.
fn home(decky: &Decky, config: &Config, edges: &[&Edge], converted: &[FileEdge]) -> Option<usize> {
    let by_address = decky.ip.as_ref().and_then(|ip| {
        let same = |edge: &FileEdge| edge.address.as_ref() == Some(ip);
        converted.iter().position(same)
    });
    let by_order = || {
        let mut places = BTreeMap::new();
        for (index, edge) in converted.iter().enumerate() {
            places.entry(edge.lan.as_str()).or_insert(index);
        }
        let mut lans = config.ips_by_lan.0.iter();
        lans.find_map(|(lan, _)| places.get(lan.as_str()).copied())
    };
    let by_kind = || edges.iter().position(|edge| !edge.is_bridge);
    by_address.or_else(by_order).or_else(by_kind)
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

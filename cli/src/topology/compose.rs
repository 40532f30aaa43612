//! `decnet topology export --format compose`: what the original system would have run for a
//! topology, as a Compose file. It is for comparing and for moving away from; nothing here is
//! what this system runs.

use std::collections::BTreeMap;

use domain::service::ServiceKind;
use domain::topology::LanKind;
use proto::topology_file::{FileDecky, TopologyFile};
use serde_json::{Map, Value, json};

/// The machine beneath every decky.
const BASE: &str = "debian:bookworm-slim";

/// What stands above the file.
pub(super) const HEADING: &str = "\
# What the original system would have run. Its networks are made before, one bridge for each LAN,
# internal but for the DMZ; the build contexts of its services are its own and no part of this.
";

/// The Compose file of a topology.
pub(super) fn compose(id: &str, topology: &TopologyFile) -> Value {
    let prefix = format!("decnet_t_{}", id.get(..8).unwrap_or(id));
    let network = |lan: &str| format!("{prefix}_{}", lan.to_ascii_lowercase());
    let networks: Map<String, Value> = topology
        .lans
        .iter()
        .map(|lan| {
            let name = network(&lan.name);
            let is_dmz = lan.kind.as_deref() == Some(LanKind::Dmz.as_str());
            let about = json!({ "external": true, "name": name, "x-subnet": lan.subnet, "x-internal": !is_dmz });
            (name, about)
        })
        .collect();
    let mut services = Map::new();
    for decky in &topology.deckies {
        let addresses: Map<String, Value> = decky
            .edges
            .iter()
            .map(|edge| (network(&edge.lan), json!({ "ipv4_address": edge.address })))
            .collect();
        services.insert(decky.name.clone(), base(id, &prefix, decky, addresses));
        for service in &decky.services {
            let name = format!("{}-{service}", decky.name);
            services.insert(name, served(id, decky, service));
        }
    }
    json!({ "name": "decnet", "services": services, "networks": networks })
}

fn logging() -> Value {
    json!({ "driver": "json-file", "options": { "max-size": "10m", "max-file": "5" } })
}

/// The container that holds the addresses.
fn base(id: &str, prefix: &str, decky: &FileDecky, addresses: Map<String, Value>) -> Value {
    let mut base = json!({
        "image": BASE,
        "command": ["sleep", "infinity"],
        "container_name": format!("{prefix}_{}", decky.name),
        "hostname": decky.name,
        "restart": "unless-stopped",
        "cap_add": ["NET_ADMIN"],
        "networks": addresses,
        "logging": logging(),
        "labels": {
            "decnet.topology.id": id,
            "decnet.topology.decky": decky.name,
            "decnet.topology.role": "base",
        },
    });
    // There, what routes is what the host publishes.
    if decky.forwards_l3 {
        base["sysctls"] = json!({ "net.ipv4.ip_forward": 1 });
        let kinds = decky
            .services
            .iter()
            .filter_map(|service| service.parse::<ServiceKind>().ok());
        let ports: Vec<String> = kinds
            .flat_map(|kind| kind.ports().iter().map(|port| format!("{port}:{port}")))
            .collect();
        if !ports.is_empty() {
            base["ports"] = json!(ports);
        }
    }
    base
}

/// A container of one service, in the network of its decky.
fn served(id: &str, decky: &FileDecky, service: &str) -> Value {
    let mut environment: BTreeMap<String, Value> = decky
        .service_config
        .get(service)
        .into_iter()
        .flatten()
        .map(|(option, value)| {
            let name = format!("{service}_{option}").to_ascii_uppercase();
            (name, json!(value))
        })
        .collect();
    environment.insert("HOSTNAME".to_owned(), json!(decky.name));
    environment.insert("NODE_NAME".to_owned(), json!(decky.name));
    json!({
        "build": { "context": format!("templates/{service}"), "args": { "BASE_IMAGE": BASE } },
        "container_name": format!("{}-{service}", decky.name),
        "network_mode": format!("service:{}", decky.name),
        "depends_on": [decky.name],
        "restart": "unless-stopped",
        "environment": environment,
        "logging": logging(),
        "labels": {
            "decnet.topology.id": id,
            "decnet.topology.decky": decky.name,
            "decnet.topology.service_name": service,
            "decnet.topology.service": "true",
        },
    })
}

#[cfg(test)]
mod tests;

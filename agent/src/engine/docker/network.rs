//! Networks: made so that their deckies route among themselves and the host adds nothing.

use bollard::query_parameters as query;
use domain::observe::Handle;
use domain::topology::hydrate::HydratedLan;
use ipnet::Ipv4Net;
use serde_json::json;

use super::DockerEngine;
use super::client::{message, refused, status, within};
use crate::engine::{EngineError, Origin, label, name, subnet};
use crate::task;

/// The option that names a network's bridge.
const BRIDGE: &str = "com.docker.network.bridge.name";

impl DockerEngine {
    pub(super) async fn make_network(
        &self,
        origin: Origin,
        lan: &HydratedLan,
        depth: u32,
    ) -> Result<Handle, EngineError> {
        let attempt = format!("could not make a network with subnet {}", lan.subnet);
        let mut last = None;
        for number in 1..=name::ATTEMPTS {
            let name = name::lan(self.host, depth, lan.id, number);
            let body = json!({
                "Name": name,
                // Two networks of one name make every container on them impossible to start.
                "CheckDuplicate": true,
                "Driver": lan.driver.as_str(),
                // Routing between LANs is the gateways' work; `internal` would forbid it and
                // still leave the host's address reachable.
                "Internal": false,
                "IPAM": { "Driver": "default", "Config": [{
                    "Subnet": lan.subnet.to_string(),
                    "Gateway": lan.gateway.to_string(),
                }]},
                "Options": {
                    BRIDGE: name::bridge(lan.id),
                    // Masquerading would hide attackers behind the host's address.
                    "com.docker.network.bridge.enable_ip_masquerade": "false",
                },
                "Labels": {
                    label::HOST: self.host.to_string(),
                    label::TOPOLOGY: origin.topology.to_string(),
                    label::LAN: lan.id.to_string(),
                    label::GENERATION: origin.generation.to_string(),
                    label::SPEC: lan.spec().to_string(),
                    label::DEPTH: depth.to_string(),
                },
            });
            match self
                .client
                .create(&attempt, "/networks/create", &body)
                .await?
            {
                Ok(id) => {
                    let handle = Handle::new(id);
                    self.known(|known| known.networks.insert(handle.clone(), name));
                    return Ok(handle);
                }
                Err(error) if status(&error) == Some(409) && is_name(message(&error)) => {
                    last = Some(error);
                }
                Err(error) => return Err(refused(&attempt, error)),
            }
        }
        let source = last.expect("the loop ran, and each turn that did not return set it");
        Err(refused(&attempt, source))
    }

    /// The name of a network, as containers must be made with it.
    pub(super) async fn network_name(&self, network: &Handle) -> Result<String, EngineError> {
        if let Some(name) = self.known(|known| known.networks.get(network).cloned()) {
            return Ok(name);
        }
        let attempt = format!("could not look up network {}", super::brief(network));
        let docker = self.client.docker(&attempt).await?;
        let options = None::<query::InspectNetworkOptions>;
        let found = within(
            &attempt,
            self.client.limit,
            docker.inspect_network(network.as_str(), options),
        )
        .await?;
        Ok(found.name.unwrap_or_else(|| network.as_str().to_owned()))
    }

    pub(super) async fn subnets_of_others(&self) -> Result<Vec<(String, Ipv4Net)>, EngineError> {
        let mut subnets = Vec::new();
        let mut our_bridges = Vec::new();
        for network in self.list_networks().await? {
            let ours = network
                .labels
                .as_ref()
                .and_then(|labels| labels.get(label::HOST))
                == Some(&self.host.to_string());
            if ours {
                let options = network.options.unwrap_or_default();
                our_bridges.extend(options.get(BRIDGE).cloned());
                continue;
            }
            let owner = format!("docker network {}", network.name.unwrap_or_default());
            let configs = network
                .ipam
                .and_then(|ipam| ipam.config)
                .unwrap_or_default();
            subnets.extend(configs.into_iter().filter_map(|config| {
                Some((owner.clone(), config.subnet?.parse::<Ipv4Net>().ok()?))
            }));
        }
        for (device, subnet) in task::blocking(subnet::of_routes).await {
            let known = subnets.iter().any(|(_, other)| *other == subnet);
            if !known && !our_bridges.contains(&device) {
                subnets.push((format!("a route of this host by {device}"), subnet));
            }
        }
        Ok(subnets)
    }
}

/// Whether a conflict is about the name.
fn is_name(message: &str) -> bool {
    message.contains("network with name")
}

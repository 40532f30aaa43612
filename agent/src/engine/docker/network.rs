//! Networks: made so that their deckies route among themselves and the host adds nothing.

use bollard::query_parameters as query;
use domain::id::HostId;
use domain::observe::Handle;
use domain::topology::LanDriver;
use domain::topology::hydrate::{HydratedLan, gateway6};
use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::DockerEngine;
use super::client::{message, refused, status};
use crate::engine::{
    EngineError, EngineErrorKind, Origin, label, name, parent, route_user, subnet,
};
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
        let driver = lan.driver.as_str();
        let attempt = format!(
            "could not make a {driver} network with subnet {}",
            lan.subnet
        );
        if let Some(parent) = lan.driver.parent() {
            // The daemon would say so, if at all, when the first container is started there.
            let (driver, parent) = (driver, parent.as_str().to_owned());
            task::blocking(move || parent::possible(driver, &parent))
                .await
                .map_err(|source| EngineError {
                    kind: EngineErrorKind::Refused,
                    attempt: attempt.clone(),
                    source: Some(Box::new(source)),
                })?;
        }
        let mut last = None;
        for number in 1..=name::ATTEMPTS {
            let name = name::lan(self.host, depth, lan.id, number);
            let body = body(self.host, origin, lan, depth, &name);
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
        let found = self
            .client
            .within(
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
                subnets.push((route_user(device), subnet));
            }
        }
        Ok(subnets)
    }
}

/// What the daemon is asked for.
fn body(host: HostId, origin: Origin, lan: &HydratedLan, depth: u32, name: &str) -> Value {
    let mut ranges = vec![json!({
        "Subnet": lan.subnet.to_string(),
        "Gateway": lan.gateway.to_string(),
    })];
    ranges.extend(lan.subnet6.map(
        |subnet| json!({ "Subnet": subnet.to_string(), "Gateway": gateway6(subnet).to_string() }),
    ));
    let options = match &lan.driver {
        LanDriver::Bridge => json!({
            BRIDGE: name::bridge(lan.id),
            // Masquerading would hide attackers behind the host's address.
            "com.docker.network.bridge.enable_ip_masquerade": "false",
        }),
        LanDriver::Macvlan(parent) => json!({ "parent": parent.as_str() }),
        LanDriver::Ipvlan(parent) => json!({ "parent": parent.as_str(), "ipvlan_mode": "l2" }),
    };
    json!({
        "Name": name,
        // Two networks of one name make every container on them impossible to start.
        "CheckDuplicate": true,
        "Driver": lan.driver.as_str(),
        // Routing between LANs is the gateways' work; `internal` would forbid it and
        // still leave the host's address reachable.
        "Internal": false,
        "EnableIPv6": lan.subnet6.is_some(),
        "IPAM": { "Driver": "default", "Config": ranges },
        "Options": options,
        "Labels": {
            label::HOST: host.to_string(),
            label::TOPOLOGY: origin.topology.to_string(),
            label::LAN: lan.id.to_string(),
            label::GENERATION: origin.generation.to_string(),
            label::SPEC: lan.spec().to_string(),
            label::DEPTH: depth.to_string(),
        },
    })
}

/// Whether a conflict is about the name.
fn is_name(message: &str) -> bool {
    message.contains("network with name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sample;

    fn asked(driver: &str, subnet6: Option<&str>) -> Value {
        let mut lan = sample::lan("dmz", "10.1.0.0/24".parse().expect("it is one"));
        lan.driver = driver.parse().expect("it is one");
        lan.subnet6 = subnet6.map(|subnet| subnet.parse().expect("it is one"));
        let origin = Origin {
            topology: sample::topology(&[], &[]).id,
            generation: domain::revision::Generation::new(1),
        };
        let host = HostId::new(uuid::Uuid::nil());
        let mut body = body(host, origin, &lan, 0, "name");
        assert_eq!(
            body["Labels"][label::SPEC],
            json!(lan.spec().to_string()),
            "it is recognised later"
        );
        let parts = ["Driver", "EnableIPv6", "IPAM", "Internal", "Options"];
        parts
            .map(|part| (part, body[part].take()))
            .into_iter()
            .collect()
    }

    #[test]
    fn a_bridge_neither_masks_nor_isolates() {
        let mut body = asked("bridge", None);
        let bridge = body["Options"][BRIDGE].take();
        assert!(bridge.as_str().is_some_and(|name| name.starts_with("dn")));
        assert_eq!(
            body,
            json!({
                "Driver": "bridge",
                "EnableIPv6": false,
                "IPAM": {
                    "Driver": "default",
                    "Config": [{ "Subnet": "10.1.0.0/24", "Gateway": "10.1.0.1" }],
                },
                "Internal": false,
                "Options": {
                    BRIDGE: null,
                    "com.docker.network.bridge.enable_ip_masquerade": "false",
                },
            })
        );
    }

    #[test]
    fn a_lan_on_a_real_network_names_its_interface_and_its_router() {
        for (driver, options) in [
            ("macvlan:eth0", json!({ "parent": "eth0" })),
            (
                "ipvlan:eth0",
                json!({ "parent": "eth0", "ipvlan_mode": "l2" }),
            ),
        ] {
            let body = asked(driver, None);
            assert_eq!(
                json!(driver.split_once(':').map(|(name, _)| name)),
                body["Driver"]
            );
            assert_eq!(body["Options"], options);
            assert_eq!(body["IPAM"]["Config"][0]["Gateway"], "10.1.0.1");
        }
    }

    #[test]
    fn a_lan_with_ipv6_has_a_range_of_each() {
        let body = asked("macvlan:eth0", Some("fd00:1::/64"));
        assert_eq!(body["EnableIPv6"], true);
        let ranges = json!([
            { "Subnet": "10.1.0.0/24", "Gateway": "10.1.0.1" },
            { "Subnet": "fd00:1::/64", "Gateway": "fd00:1::1" },
        ]);
        assert_eq!(body["IPAM"]["Config"], ranges);
    }
}

//! Containers: hardened always, on their networks before they start, told of a new configuration
//! without being made anew.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::models::{
    EndpointIpamConfig, EndpointSettings, NetworkConnectRequest, NetworkDisconnectRequest,
};
use bollard::query_parameters as query;
use domain::observe::Handle;
use domain::topology::hydrate::{HydratedDecky, HydratedInterface};
use domain::wiring::GATE;
use proto::decky_config::MOUNT_POINT;
use serde_json::{Value, json};

use super::client::{message, refused, status};
use super::{DockerEngine, brief, gone_is_fine};
use crate::chain::Chain;
use crate::engine::image::ENTRYPOINT;
use crate::engine::{EngineError, NewDecky, label, name};

/// The gate, shut, and no sockets for echo requests. The daemon's own defaults are the opposite, and
/// would hold until the agent comes to it. Everything else is wired.
const CLOSED: [(&str, &str); 2] = [(GATE, "1024"), ("net.ipv4.ping_group_range", "1 0")];
/// How often a removal that somebody else began is looked at.
const POLL: Duration = Duration::from_millis(50);

impl DockerEngine {
    pub(super) async fn make_container(&self, new: NewDecky<'_>) -> Result<Handle, EngineError> {
        self.files.write(new.decky.id, new.config).await?;
        let made = match self.create_container(&new).await {
            Ok(handle) => handle,
            Err(error) => {
                self.discard(None, new.decky).await;
                return Err(error);
            }
        };
        self.known(|known| known.deckies.insert(made.clone(), new.decky.id));
        crate::crash::point("apply.decky_created");
        for (network, interface) in new.networks.iter().skip(1) {
            if let Err(error) = self.join(&made, network, interface, false).await {
                self.discard(Some(&made), new.decky).await;
                return Err(error);
            }
        }
        Ok(made)
    }

    async fn create_container(&self, new: &NewDecky<'_>) -> Result<Handle, EngineError> {
        let attempt = "could not make a container".to_owned();
        let image = self.image().await?;
        let first = match new.networks.first() {
            Some((network, interface)) => Some((self.network_name(network).await?, interface)),
            None => None,
        };
        let mut body = self.body(new, &image);
        if let Some((network, interface)) = first {
            // By name in both places: only then does an old daemon take the address of the card.
            body["HostConfig"]["NetworkMode"] = json!(network);
            body["NetworkingConfig"] = json!({ "EndpointsConfig": {
                network: endpoint(interface, true),
            }});
            if self.client.is_old(&attempt).await? {
                body["MacAddress"] = json!(interface.mac.to_string());
            }
        } else {
            body["HostConfig"]["NetworkMode"] = json!("none");
        }
        let mut last = None;
        for number in 1..=name::ATTEMPTS {
            let name = name::decky(self.host, new.decky.id, number);
            let path = format!("/containers/create?name={name}");
            match self.client.create(&attempt, &path, &body).await? {
                Ok(id) => return Ok(Handle::new(id)),
                // The holder of the name is not ours to remove.
                Err(error) if status(&error) == Some(409) && is_name(message(&error)) => {
                    last = Some(error);
                }
                Err(error) => return Err(refused(&attempt, error)),
            }
        }
        let source = last.expect("the loop ran, and each turn that did not return set it");
        Err(refused(&attempt, source))
    }

    fn body(&self, new: &NewDecky<'_>, image: &str) -> Value {
        let NewDecky {
            origin,
            decky,
            networks: _,
            config: _,
            wiring: _,
        } = new;
        let memory = u64::from(decky.limits.memory_mib).saturating_mul(1024 * 1024);
        let mut ports: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for publish in &decky.publish {
            let port = format!("{}/{}", publish.decky_port, publish.protocol.as_str());
            let ip = publish.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
            let binding = json!({ "HostIp": ip, "HostPort": publish.host_port.to_string() });
            ports.entry(port).or_default().push(binding);
        }
        let exposed: BTreeMap<_, _> = ports.keys().map(|port| (port, json!({}))).collect();
        json!({
            "Hostname": decky.hostname.as_str(),
            "User": "65534:65534",
            "Image": image,
            "Entrypoint": [ENTRYPOINT],
            "ExposedPorts": exposed,
            "Labels": {
                label::HOST: self.host.to_string(),
                label::TOPOLOGY: origin.topology.to_string(),
                label::DECKY: decky.id.to_string(),
                label::ROLE: "base",
                label::SERVICE: "true",
                label::GENERATION: origin.generation.to_string(),
                label::SPEC: decky.spec().to_string(),
            },
            "HostConfig": {
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges:true"],
                "ReadonlyRootfs": true,
                "Privileged": false,
                "Init": false,
                // No shared memory: a place to write to that no file needs.
                "IpcMode": "none",
                "Sysctls": BTreeMap::from(CLOSED),
                "Memory": memory,
                // Equal to the memory: no swap.
                "MemorySwap": memory,
                "PidsLimit": decky.limits.pids,
                "NanoCpus": u64::from(decky.limits.cpu_milli).saturating_mul(1_000_000),
                // What comes back after a reboot is for the agent to say, not for the daemon.
                "RestartPolicy": { "Name": "no" },
                "LogConfig": {
                    "Type": "json-file",
                    "Config": { "max-size": "8m", "max-file": "4" },
                },
                "PortBindings": ports,
                "Mounts": [{
                    "Type": "bind",
                    "Source": self.files.directory(decky.id),
                    "Target": MOUNT_POINT,
                    "ReadOnly": true,
                }],
            },
        })
    }

    /// Takes back what a failed making left; the failure itself is what is reported.
    async fn discard(&self, made: Option<&Handle>, decky: &HydratedDecky) {
        let result = match made {
            Some(handle) => self.remove_container(handle).await,
            None => self.files.remove(decky.id).await,
        };
        if let Err(error) = result {
            tracing::warn!(decky.name = %decky.name, error = %Chain(&error), "a half-made decky is left");
        }
    }

    pub(super) async fn join(
        &self,
        container: &Handle,
        network: &Handle,
        interface: &HydratedInterface,
        leads: bool,
    ) -> Result<(), EngineError> {
        let attempt = format!(
            "could not connect container {} under {}",
            brief(container),
            interface.address
        );
        let docker = self.client.docker(&attempt).await?;
        let request = NetworkConnectRequest {
            container: container.as_str().to_owned(),
            endpoint_config: Some(endpoint(interface, leads)),
        };
        let connect = docker.connect_network(network.as_str(), request);
        self.client
            .within(&attempt, self.client.limit, connect)
            .await
    }

    pub(super) async fn part(
        &self,
        container: &Handle,
        network: &Handle,
    ) -> Result<(), EngineError> {
        let attempt = format!("could not disconnect container {}", brief(container));
        let docker = self.client.docker(&attempt).await?;
        let request = NetworkDisconnectRequest {
            container: container.as_str().to_owned(),
            force: Some(true),
        };
        let part = async {
            match docker.disconnect_network(network.as_str(), request).await {
                Err(error) if message(&error).contains("is not connected to") => Ok(()),
                other => other,
            }
        };
        gone_is_fine(self.client.within(&attempt, self.client.limit, part).await)
    }

    pub(super) async fn reconfigure(
        &self,
        handle: &Handle,
        decky: &HydratedDecky,
        config: &[u8],
    ) -> Result<(), EngineError> {
        self.files.replace(decky.id, config).await?;
        let attempt = format!(
            "could not tell container {} to read its file",
            brief(handle)
        );
        let docker = self.client.docker(&attempt).await?;
        let options = query::KillContainerOptionsBuilder::default()
            .signal("SIGHUP")
            .build();
        let told = async {
            match docker.kill_container(handle.as_str(), Some(options)).await {
                // It reads the file when it is started.
                Err(error) if message(&error).contains("is not running") => Ok(()),
                other => other,
            }
        };
        self.client
            .within(&attempt, self.client.limit, told)
            .await?;
        self.files.told(decky.id).await
    }

    pub(super) async fn remove_container(&self, handle: &Handle) -> Result<(), EngineError> {
        let attempt = format!("could not remove container {}", brief(handle));
        let docker = self.client.docker(&attempt).await?;
        let removal = async {
            let options = query::RemoveContainerOptionsBuilder::default()
                .force(true)
                .v(true);
            match docker
                .remove_container(handle.as_str(), Some(options.build()))
                .await
            {
                Err(error) if status(&error) == Some(409) => {
                    // Somebody else removes it: it counts when it is gone.
                    let inspect = || {
                        docker.inspect_container(
                            handle.as_str(),
                            None::<query::InspectContainerOptions>,
                        )
                    };
                    while inspect().await.is_ok() {
                        tokio::time::sleep(POLL).await;
                    }
                    Ok(())
                }
                other => other,
            }
        };
        let limit = self.client.limit.saturating_mul(2);
        gone_is_fine(self.client.within(&attempt, limit, removal).await)?;
        self.forget_wiring(handle);
        let (decky, last) = self.known(|known| {
            let decky = known.deckies.remove(handle);
            (
                decky,
                !known.deckies.values().any(|other| Some(*other) == decky),
            )
        });
        // A second container of one decky reads the same file.
        if let Some(decky) = decky
            && last
        {
            self.board.forget(decky);
            self.files.remove(decky).await?;
        }
        Ok(())
    }
}

fn is_name(message: &str) -> bool {
    message.contains("is already in use by container")
}

fn endpoint(interface: &HydratedInterface, leads: bool) -> EndpointSettings {
    EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(interface.address.to_string()),
            ipv6_address: interface.address6.map(|address| address.to_string()),
            ..EndpointIpamConfig::default()
        }),
        // Heeded from API 1.44 on. Before, only the first one can be set here; the wiring sets all.
        mac_address: Some(interface.mac.to_string()),
        // Heeded from API 1.48 on; before, the name of the network decides.
        gw_priority: Some(i64::from(leads)),
        ..EndpointSettings::default()
    }
}

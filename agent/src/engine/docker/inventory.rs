//! Everything of ours on the daemon, read in two calls from its labels.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, EndpointSettings, Network};
use bollard::query_parameters as query;
use domain::id::HostId;
use domain::observe::{
    Attachment, Foreign, Handle, Inventory, ObservedDecky, ObservedLan, RunState,
};

use super::published::{self, Listening};
use super::{DockerEngine, Known};
use crate::engine::{EngineError, label, name};

type Labels = HashMap<String, String>;

impl DockerEngine {
    pub(super) async fn take_inventory(&self) -> Result<Inventory, EngineError> {
        let before = self.known(|known| known.clone());
        let networks = self.list_networks().await?;
        let attempt = "could not list containers";
        let docker = self.client.docker(attempt).await?;
        let options = query::ListContainersOptionsBuilder::default()
            .all(true)
            .build();
        let containers = self
            .client
            .within(
                attempt,
                self.client.limit,
                docker.list_containers(Some(options)),
            )
            .await?;
        // Without the binary nothing can be said of its image, and the deckies run on untouched.
        let image = self.image().await.ok();
        let untold = self.files.untold().await;

        let mut inventory = Inventory::default();
        let mut known = Known::default();
        for network in &networks {
            let (Some(id), Some(name)) = (&network.id, &network.name) else {
                continue;
            };
            let handle = Handle::new(id.as_str());
            match sort(network.labels.as_ref(), name, self.host, |labels| {
                observed_lan(handle.clone(), labels)
            }) {
                Sorted::Ours(lan) => {
                    known.networks.insert(handle.clone(), name.clone());
                    inventory.lans.push(lan);
                }
                Sorted::Foreign => {
                    inventory.foreign.push(Foreign {
                        noun: "network",
                        name: name.clone(),
                    });
                }
                Sorted::Other => {}
            }
        }
        for container in &containers {
            let Some(id) = &container.id else { continue };
            let name = container_name(container);
            match sort(container.labels.as_ref(), name, self.host, |labels| {
                observed_decky(Handle::new(id.as_str()), labels, container, &networks)
            }) {
                Sorted::Ours(mut decky) => {
                    known.deckies.insert(decky.handle.clone(), decky.id);
                    decky.outdated = image.is_some() && container.image != image;
                    inventory.deckies.push(decky);
                }
                Sorted::Foreign => {
                    let name = name.to_owned();
                    inventory.foreign.push(Foreign {
                        noun: "container",
                        name,
                    });
                }
                Sorted::Other => {}
            }
        }
        let running: Vec<_> = inventory
            .deckies
            .iter()
            .filter(|decky| decky.state == RunState::Running)
            .map(|decky| (decky.handle.clone(), decky.id))
            .collect();
        let mut wirings = self.look_at(&running).await;
        let listening = Listening::read_for(&inventory).await;
        for decky in &mut inventory.deckies {
            if decky.state == RunState::Running {
                decky.wiring = wirings.remove(&decky.handle);
                if let Some(published) = &mut decky.published {
                    published.retain(|publish| listening.holds(publish));
                }
                decky.config = self
                    .board
                    .digest(decky.id)
                    .or_else(|| untold.get(&decky.id).cloned());
            }
        }
        // The daemon's own order is of its hash tables; equal states must give equal inventories.
        inventory
            .lans
            .sort_by(|a, b| (a.id, &a.handle).cmp(&(b.id, &b.handle)));
        inventory
            .deckies
            .sort_by(|a, b| (a.id, &a.handle).cmp(&(b.id, &b.handle)));
        inventory.foreign.sort();
        self.known(|now| now.update(&before, known));
        Ok(inventory)
    }

    pub(super) async fn list_networks(&self) -> Result<Vec<Network>, EngineError> {
        let attempt = "could not list networks";
        let docker = self.client.docker(attempt).await?;
        let list = docker.list_networks(None::<query::ListNetworksOptions>);
        self.client.within(attempt, self.client.limit, list).await
    }
}

enum Sorted<T> {
    Ours(T),
    Foreign,
    Other,
}

/// Ours by its labels; foreign when it stands under a name of ours, or says that it is ours and
/// does not say what it is.
fn sort<T>(
    labels: Option<&Labels>,
    object: &str,
    host: HostId,
    read: impl FnOnce(&Labels) -> Option<T>,
) -> Sorted<T> {
    let owner = labels
        .and_then(|labels| labels.get(label::HOST))
        .map(String::as_str);
    match (owner, labels) {
        (Some(owner), Some(labels)) if owner == host.to_string() => {
            read(labels).map_or(Sorted::Foreign, Sorted::Ours)
        }
        (Some(_), _) => Sorted::Other,
        (None, _) if object.starts_with(&name::prefix(host)) => Sorted::Foreign,
        (None, _) => Sorted::Other,
    }
}

fn read<T: std::str::FromStr>(labels: &Labels, key: &str) -> Option<T> {
    labels.get(key)?.parse().ok()
}

fn observed_lan(handle: Handle, labels: &Labels) -> Option<ObservedLan> {
    Some(ObservedLan {
        handle,
        id: read(labels, label::LAN)?,
        topology: read(labels, label::TOPOLOGY)?,
        spec: read(labels, label::SPEC),
        depth: read(labels, label::DEPTH).unwrap_or(u32::MAX),
    })
}

fn observed_decky(
    handle: Handle,
    labels: &Labels,
    container: &ContainerSummary,
    networks: &[Network],
) -> Option<ObservedDecky> {
    let state = run_state(container.state);
    let mut attachments: Vec<_> = container
        .network_settings
        .iter()
        .filter_map(|settings| settings.networks.as_ref())
        .flatten()
        // `none` is how the daemon says that there is none.
        .filter(|(key, _)| key.as_str() != "none")
        .map(|(key, endpoint)| attachment(key, endpoint, state, networks))
        .collect();
    attachments.sort();
    let bridged = networks.iter().any(|network| {
        network.driver.as_deref() == Some("bridge")
            && attachments
                .iter()
                .any(|attachment| network.id.as_deref() == Some(attachment.network.as_str()))
    });
    Some(ObservedDecky {
        handle,
        id: read(labels, label::DECKY)?,
        topology: read(labels, label::TOPOLOGY)?,
        spec: read(labels, label::SPEC),
        state,
        attachments,
        config: None,
        wiring: None,
        // Only a bridge has a host that could answer.
        published: (state == RunState::Running && bridged).then(|| published::of(container)),
        outdated: false,
    })
}

fn attachment(
    key: &str,
    endpoint: &EndpointSettings,
    state: RunState,
    networks: &[Network],
) -> Attachment {
    let id = endpoint.network_id.as_deref().filter(|id| !id.is_empty());
    // A container that was never started names its networks and knows no ids.
    let network = id.map(str::to_owned).unwrap_or_else(|| {
        let by_id = networks
            .iter()
            .find(|network| network.id.as_deref() == Some(key));
        let by_name = || {
            networks
                .iter()
                .find(|network| network.name.as_deref() == Some(key))
        };
        let found = by_id
            .or_else(by_name)
            .and_then(|network| network.id.clone());
        found.unwrap_or_else(|| key.to_owned())
    });
    let parse = |text: &Option<String>| text.as_ref()?.parse::<Ipv4Addr>().ok();
    let wished = || parse(&endpoint.ipam_config.as_ref()?.ipv4_address);
    let address = match state {
        RunState::Running | RunState::Paused => parse(&endpoint.ip_address),
        // It holds no address; it will get the one that it was made with.
        RunState::Created | RunState::Exited => wished(),
    };
    Attachment {
        network: Handle::new(network),
        address,
    }
}

const fn run_state(state: Option<ContainerSummaryStateEnum>) -> RunState {
    use ContainerSummaryStateEnum as State;
    match state {
        None | Some(State::EMPTY | State::CREATED) => RunState::Created,
        Some(State::RUNNING | State::RESTARTING | State::STOPPING) => RunState::Running,
        Some(State::PAUSED) => RunState::Paused,
        Some(State::EXITED | State::REMOVING | State::DEAD) => RunState::Exited,
    }
}

fn container_name(container: &ContainerSummary) -> &str {
    let first = container.names.as_ref().and_then(|names| names.first());
    first.map_or("", |name| name.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use domain::id::DeckyId;
    use uuid::Uuid;

    use super::super::scripted::Daemon;
    use super::super::{DockerConfig, LivenessBoard};
    use super::*;

    #[tokio::test]
    async fn what_is_made_and_removed_during_an_inventory_stays_made_and_removed() {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let socket = directory.path().join("docker.sock");
        let host = HostId::new(Uuid::from_u128(1));
        let config = DockerConfig {
            host,
            decky_binary: directory.path().join("none"),
            data_dir: directory.path().join("data"),
            socket: Some(socket.clone()),
            call_timeout: Duration::from_secs(30),
        };
        let engine = Arc::new(DockerEngine::connect(config, LivenessBoard::new()));
        let decky = |number| DeckyId::new(Uuid::from_u128(number));
        let handle = |name: &str| Handle::new(name);
        engine.known(|known| {
            known.deckies.insert(handle("removed"), decky(1));
            known.deckies.insert(handle("vanished"), decky(2));
            known
                .networks
                .insert(handle("vanished too"), "n".to_owned());
        });
        let busy = Arc::clone(&engine);
        let listed = serde_json::json!([{
            "Id": "removed",
            "Names": ["/removed"],
            "Labels": {
                label::HOST: host.to_string(),
                label::DECKY: decky(1).to_string(),
                label::TOPOLOGY: Uuid::from_u128(9).to_string(),
            },
        }, {
            "Id": "listed",
            "Names": ["/listed"],
            "Labels": {
                label::HOST: host.to_string(),
                label::DECKY: decky(4).to_string(),
                label::TOPOLOGY: Uuid::from_u128(9).to_string(),
            },
        }]);
        // The containers are listed, and meanwhile an attempt goes on.
        let _daemon = Daemon::at(&socket, move |path| {
            if path.ends_with("/version") {
                return (200, r#"{"ApiVersion":"1.44"}"#.to_owned());
            }
            if path.ends_with("/networks") {
                return (200, "[]".to_owned());
            }
            busy.known(|known| {
                known.deckies.remove(&handle("removed"));
                known.deckies.insert(handle("made"), decky(3));
                known.networks.insert(handle("made too"), "m".to_owned());
            });
            (200, listed.to_string())
        });

        let inventory = engine.take_inventory().await.expect("it answers");
        assert_eq!(inventory.deckies.len(), 2);
        let wanted = Known {
            deckies: [
                (Handle::new("made"), decky(3)),
                (Handle::new("listed"), decky(4)),
            ]
            .into(),
            networks: [(Handle::new("made too"), "m".to_owned())].into(),
        };
        assert_eq!(engine.known(|known| known.clone()), wanted);
    }
}

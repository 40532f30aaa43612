//! The baseline of everything that is made in Docker: the same objects, asked of the daemon
//! directly, some requests at a time.
//!
//! What is asked for is read off what an agent has made, so that both sides make the same
//! containers, down to limits and mounts. Objects carry a label of the bench's own.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, EndpointSettings, NetworkConnectRequest, NetworkCreateRequest,
    NetworkingConfig,
};
use bollard::query_parameters as query;
use domain::wiring::GATE;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::litter::{self, Litter};
use crate::docker::{self, DECKY};
use crate::slot::Slot;

/// The label of what is made here; its value is the slot.
const LABEL: &str = "decnet.bench.slot";
/// Requests in flight.
const AT_ONCE: usize = 4;

/// A network to be made.
#[derive(Debug, Clone)]
pub(super) struct Net(NetworkCreateRequest);

/// A container to be made.
#[derive(Debug, Clone)]
pub(super) struct Twin {
    name: String,
    body: ContainerCreateBody,
    /// Its networks beyond the first.
    also: Vec<(String, EndpointSettings)>,
}

impl Twin {
    /// The same container under another address of its first network.
    pub(super) fn at(mut self, address: &str) -> Self {
        let networking = self.body.networking_config.as_mut();
        let endpoints = networking.and_then(|networking| networking.endpoints_config.as_mut());
        for endpoint in endpoints.into_iter().flat_map(HashMap::values_mut) {
            if let Some(ipam) = &mut endpoint.ipam_config {
                ipam.ipv4_address = Some(address.to_owned());
            }
        }
        self
    }
}

/// A Docker daemon, asked directly.
pub(super) struct Raw {
    pub(super) docker: Docker,
    pub(super) runtime: Runtime,
    slot: u16,
    directory: TempDir,
}

impl Raw {
    pub(super) fn new(slot: &Slot) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let docker = runtime.block_on(async {
            Docker::connect_with_unix_defaults()?
                .negotiate_version()
                .await
        })?;
        let this = Self {
            docker,
            runtime,
            slot: slot.number(),
            directory: TempDir::with_prefix("decnet-bench-")?,
        };
        // A killed run may have left some.
        sweep(slot.number())?;
        litter::note(Litter::Directory(this.directory.path().to_owned()));
        Ok(this)
    }

    fn labels(&self) -> HashMap<String, String> {
        HashMap::from([(LABEL.to_owned(), self.slot.to_string())])
    }

    /// The networks of a host, to be made anew under names of our own.
    pub(super) fn record_networks(&self, host: &str) -> Result<Vec<Net>> {
        let networks = docker::networks(host)?;
        self.runtime.block_on(async {
            let mut nets = Vec::with_capacity(networks.len());
            for network in &networks {
                let options = None::<query::InspectNetworkOptions>;
                let seen = self.docker.inspect_network(&network.id, options).await?;
                nets.push(Net(NetworkCreateRequest {
                    name: own_name(&network.name),
                    driver: seen.driver,
                    internal: seen.internal,
                    ipam: seen.ipam,
                    options: seen.options,
                    labels: Some(self.labels()),
                    ..NetworkCreateRequest::default()
                }));
            }
            Ok(nets)
        })
    }

    /// The containers of a host, with copies of what they mount. On networks of our own, or on
    /// those of the host.
    pub(super) fn record(&self, host: &str, agent_data: &Path, on: On) -> Result<Vec<Twin>> {
        let containers = docker::containers(host)?;
        self.runtime.block_on(async {
            let mut twins = Vec::with_capacity(containers.len());
            for container in &containers {
                twins.push(self.twin(container, agent_data, on).await?);
            }
            Ok(twins)
        })
    }

    async fn twin(&self, container: &docker::Container, agent_data: &Path, on: On) -> Result<Twin> {
        let options = None::<query::InspectContainerOptions>;
        let seen = self
            .docker
            .inspect_container(&container.id, options)
            .await?;
        let mut body: ContainerCreateBody =
            serde_json::from_value(serde_json::to_value(seen.config)?)?;
        let mut host = seen
            .host_config
            .context("a container has a host configuration")?;
        let decky = container
            .labels
            .get(DECKY)
            .context("a container of ours names its decky")?;
        let copy = self.directory.path().join(decky);
        copy_directory(&agent_data.join("deckies").join(decky), &copy)?;
        for mount in host.mounts.iter_mut().flatten() {
            mount.source = Some(copy.to_string_lossy().into_owned());
        }
        // Nobody wires these: their gates are open from the start.
        host.sysctls
            .get_or_insert_default()
            .insert(GATE.to_owned(), "0".to_owned());
        let renamed = |name: &str| match on {
            On::Own => own_name(name),
            On::TheHosts => name.to_owned(),
        };
        let first = host
            .network_mode
            .clone()
            .context("a container has a network mode")?;
        host.network_mode = Some(renamed(&first));
        let endpoints = seen
            .network_settings
            .and_then(|settings| settings.networks)
            .unwrap_or_default();
        let wanted = |endpoint: &EndpointSettings| EndpointSettings {
            ipam_config: endpoint.ipam_config.clone(),
            ..EndpointSettings::default()
        };
        let (lead, also): (Vec<_>, Vec<_>) = endpoints
            .iter()
            .map(|(name, endpoint)| (name.clone(), wanted(endpoint)))
            .partition(|(name, _)| *name == first);
        let rename = |(name, endpoint): (String, EndpointSettings)| (renamed(&name), endpoint);
        body.networking_config = Some(NetworkingConfig {
            endpoints_config: Some(lead.into_iter().map(rename).collect()),
        });
        body.host_config = Some(host);
        body.labels = Some(self.labels());
        let also = also.into_iter().map(rename).collect();
        Ok(Twin {
            name: own_name(&container.name),
            body,
            also,
        })
    }

    /// Makes networks.
    pub(super) async fn make_networks(&self, nets: &[Net]) -> Result<()> {
        each(nets, |net| async move {
            self.docker.create_network(net.0.clone()).await?;
            Ok(())
        })
        .await
    }

    /// Makes containers and starts them.
    pub(super) async fn make(&self, twins: &[Twin]) -> Result<()> {
        each(twins, |twin| self.make_one(twin)).await
    }

    /// Makes a container, connects it and starts it.
    pub(super) async fn make_one(&self, twin: &Twin) -> Result<()> {
        let options = query::CreateContainerOptionsBuilder::default()
            .name(&twin.name)
            .build();
        let made = self
            .docker
            .create_container(Some(options), twin.body.clone())
            .await?;
        for (network, endpoint) in &twin.also {
            let request = NetworkConnectRequest {
                container: made.id.clone(),
                endpoint_config: Some(endpoint.clone()),
            };
            self.docker.connect_network(network, request).await?;
        }
        self.docker
            .start_container(&made.id, None::<query::StartContainerOptions>)
            .await?;
        Ok(())
    }

    /// Removes containers.
    pub(super) async fn unmake(&self, twins: &[Twin]) -> Result<()> {
        each(twins, |twin| self.remove(&twin.name)).await
    }

    /// Removes a container by force, as `docker rm -f` does.
    pub(super) async fn remove(&self, container: &str) -> Result<()> {
        let options = query::RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        Ok(self
            .docker
            .remove_container(container, Some(options))
            .await?)
    }

    /// Removes networks.
    pub(super) async fn unmake_networks(&self, nets: &[Net]) -> Result<()> {
        each(nets, |net| async move {
            Ok(self.docker.remove_network(&net.0.name).await?)
        })
        .await
    }

    /// The deckies whose containers are started from now on.
    pub(super) fn starts(&self) -> Result<BoxStream<'static, String>> {
        let filters: HashMap<String, Vec<String>> = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("event".to_owned(), vec!["start".to_owned()]),
        ]);
        // The request leaves with the first poll; what happens until then is replayed.
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let options = query::EventsOptionsBuilder::default()
            .since(&format!("{}.{:09}", now.as_secs(), now.subsec_nanos()))
            .filters(&filters)
            .build();
        let stream = self
            .docker
            .events(Some(options))
            .filter_map(|event| async move { event.ok()?.actor?.attributes?.remove(DECKY) });
        Ok(stream.boxed())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next run on this slot.
        drop(sweep(self.slot));
    }
}

/// On which networks a twin stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    /// Copies under names of our own.
    Own,
    /// Those of the host, which must stay there meanwhile.
    TheHosts,
}

/// Removes what was made here on a slot, in this run or a killed one.
pub(super) fn sweep(slot: u16) -> Result<()> {
    let filter = format!("label={LABEL}={slot}");
    for container in docker::docker(&["ps", "-aq", "--filter", &filter])?.lines() {
        docker::docker(&["rm", "-f", "-v", container])?;
    }
    for network in docker::docker(&["network", "ls", "-q", "--filter", &filter])?.lines() {
        docker::docker(&["network", "rm", network])?;
    }
    Ok(())
}

fn own_name(name: &str) -> String {
    // Not under the prefix of an agent, which would report a stranger.
    format!("bench-{name}")
}

async fn each<'a, T, F>(items: &'a [T], work: impl Fn(&'a T) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    futures_util::stream::iter(items.iter().map(work).map(Ok))
        .try_for_each_concurrent(AT_ONCE, |job| job)
        .await
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    Ok(())
}

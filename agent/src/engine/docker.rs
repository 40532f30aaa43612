//! The engine that drives a Docker daemon over its socket.
//!
//! It never touches the daemon before it is asked to. Networks and containers are referred to by
//! the daemon's ids; their names are for people (see [`super::name`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::errors::Error;
use bollard::query_parameters as query;
use domain::id::{DeckyId, HostId};
use domain::observe::{Handle, Inventory};
use domain::topology::hydrate::{HydratedDecky, HydratedInterface, HydratedLan};
use domain::wiring::Wiring;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ipnet::Ipv4Net;
use time::OffsetDateTime;

use self::client::Client;
use self::wiring::Wired;
use super::files::Files;
use super::image::{Binary, REPOSITORY};
use super::liveness::LivenessBoard;
use super::{Changed, Engine, EngineError, EngineErrorKind, NewDecky, Origin, OutputLine};

mod client;
mod container;
mod events;
mod follow;
mod inventory;
mod network;
mod published;
mod raw;
#[cfg(test)]
mod scripted;
mod wiring;

/// Where the daemon listens when nothing else is said.
const SOCKET: &str = "/var/run/docker.sock";

/// What a Docker engine needs to know.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// Whose objects it makes.
    pub host: HostId,
    /// The static binary that runs in every decky.
    pub decky_binary: PathBuf,
    /// The agent's data directory; configuration files are below it.
    pub data_dir: PathBuf,
    /// The daemon's socket; none for the usual place.
    pub socket: Option<PathBuf>,
    /// How long a call may take; starting a container may take twice that.
    pub call_timeout: Duration,
}

/// A Docker daemon, as one host's engine.
#[derive(Debug)]
pub struct DockerEngine {
    host: HostId,
    client: Client,
    binary: Binary,
    files: Files,
    board: LivenessBoard,
    known: Arc<Mutex<Known>>,
    wired: Mutex<BTreeMap<Handle, Wired>>,
    importing: tokio::sync::Mutex<()>,
}

/// What the daemon's ids stand for, kept from the last inventory and from what was made since.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Known {
    deckies: BTreeMap<Handle, DeckyId>,
    networks: BTreeMap<Handle, String>,
}

impl Known {
    /// Takes over what an inventory has `listed` that began when `before` was known. What was made
    /// and what was removed since then it may not have seen.
    fn update(&mut self, before: &Self, listed: Self) {
        update(&mut self.deckies, &before.deckies, listed.deckies);
        update(&mut self.networks, &before.networks, listed.networks);
    }
}

fn update<T>(
    now: &mut BTreeMap<Handle, T>,
    before: &BTreeMap<Handle, T>,
    listed: BTreeMap<Handle, T>,
) {
    let found = listed
        .into_iter()
        .filter(|(handle, _)| now.contains_key(handle) || !before.contains_key(handle))
        .collect();
    let known = std::mem::replace(now, found);
    now.extend(
        known
            .into_iter()
            .filter(|(handle, _)| !before.contains_key(handle)),
    );
}

impl DockerEngine {
    /// An engine on the daemon that `config` names. Nothing is asked of the daemon.
    pub fn connect(config: DockerConfig, board: LivenessBoard) -> Self {
        let socket = config.socket.unwrap_or_else(|| SOCKET.into());
        // The daemon mounts by absolute path; a relative one is of this process's directory.
        let data = std::path::absolute(&config.data_dir).unwrap_or(config.data_dir);
        Self {
            host: config.host,
            client: Client::new(socket, config.call_timeout),
            binary: Binary::new(config.decky_binary),
            files: Files::in_data(&data),
            board,
            known: Arc::default(),
            wired: Mutex::default(),
            importing: tokio::sync::Mutex::new(()),
        }
    }

    fn known<T>(&self, act: impl FnOnce(&mut Known) -> T) -> T {
        // A panic elsewhere leaves maps that are whole: each change is one call.
        act(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wired<T>(&self, act: impl FnOnce(&mut BTreeMap<Handle, Wired>) -> T) -> T {
        act(&mut self.wired.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn image(&self) -> Result<String, EngineError> {
        Ok(format!("{REPOSITORY}:{}", self.binary.tag().await?))
    }

    async fn has_image(&self, image: &str) -> Result<bool, EngineError> {
        let attempt = "could not look for the image of the deckies";
        let docker = self.client.docker(attempt).await?;
        match self
            .client
            .within(attempt, self.client.limit, docker.inspect_image(image))
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if is_missing(error.kind) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn import(&self, tag: &str, tarball: Vec<u8>) -> Result<(), EngineError> {
        let attempt = "could not import the image of the deckies";
        let docker = self.client.docker(attempt).await?;
        let options = query::CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(REPOSITORY)
            .tag(tag)
            .build();
        let mut progress = docker.create_image(
            Some(options),
            Some(bollard::body_full(tarball.into())),
            None,
        );
        let import = async {
            while let Some(step) = progress.next().await {
                step?;
            }
            Ok::<_, Error>(())
        };
        self.client
            .within(attempt, self.client.limit.saturating_mul(2), import)
            .await
    }
}

const fn is_missing(kind: EngineErrorKind) -> bool {
    matches!(
        kind,
        EngineErrorKind::NotFound | EngineErrorKind::ImageMissing
    )
}

#[async_trait]
impl Engine for DockerEngine {
    async fn inventory(&self) -> Result<Inventory, EngineError> {
        self.take_inventory().await
    }

    async fn ensure_image(&self) -> Result<(), EngineError> {
        if self.has_image(&self.image().await?).await? {
            return Ok(());
        }
        // One import at a time, of this agent and of every other one with the same binary.
        let _importing = self.importing.lock().await;
        let _locked = self.binary.lock().await?;
        let (tag, tarball) = self.binary.image().await?;
        if self.has_image(&format!("{REPOSITORY}:{tag}")).await? {
            return Ok(());
        }
        self.import(&tag, tarball).await
    }

    async fn create_lan(
        &self,
        origin: Origin,
        lan: &HydratedLan,
        depth: u32,
    ) -> Result<Handle, EngineError> {
        self.make_network(origin, lan, depth).await
    }

    async fn remove_lan(&self, handle: &Handle) -> Result<(), EngineError> {
        let attempt = format!("could not remove network {}", brief(handle));
        let docker = self.client.docker(&attempt).await?;
        let removal = docker.remove_network(handle.as_str());
        gone_is_fine(
            self.client
                .within(&attempt, self.client.limit, removal)
                .await,
        )?;
        self.known(|known| known.networks.remove(handle));
        Ok(())
    }

    async fn create_decky(&self, new: NewDecky<'_>) -> Result<Handle, EngineError> {
        self.make_container(new).await
    }

    async fn start_decky(&self, handle: &Handle, wiring: &Wiring) -> Result<(), EngineError> {
        let attempt = format!("could not start container {}", brief(handle));
        // What an earlier process said is void; what the new one says must not be lost.
        if let Some(decky) = self.known(|known| known.deckies.get(handle).copied()) {
            self.board.forget(decky);
        }
        let docker = self.client.docker(&attempt).await?;
        let start = docker.start_container(handle.as_str(), None::<query::StartContainerOptions>);
        self.client
            .within(&attempt, self.client.limit.saturating_mul(2), start)
            .await?;
        self.wire(handle, wiring).await
    }

    async fn rewire(&self, handle: &Handle, wiring: &Wiring) -> Result<(), EngineError> {
        self.wire(handle, wiring).await
    }

    async fn remove_decky(&self, handle: &Handle) -> Result<(), EngineError> {
        self.remove_container(handle).await
    }

    async fn connect(
        &self,
        decky: &Handle,
        network: &Handle,
        interface: &HydratedInterface,
    ) -> Result<(), EngineError> {
        self.make_way(decky, interface).await?;
        self.join(decky, network, interface, false).await
    }

    async fn disconnect(&self, decky: &Handle, network: &Handle) -> Result<(), EngineError> {
        self.part(decky, network).await
    }

    async fn configure(
        &self,
        handle: &Handle,
        decky: &HydratedDecky,
        config: &[u8],
    ) -> Result<(), EngineError> {
        self.reconfigure(handle, decky, config).await
    }

    async fn changes(&self) -> Result<BoxStream<'static, Changed>, EngineError> {
        self.watch().await
    }

    async fn follow(
        &self,
        handle: &Handle,
        since: Option<OffsetDateTime>,
    ) -> Result<BoxStream<'static, Result<OutputLine, EngineError>>, EngineError> {
        let attempt = format!("could not follow container {}", brief(handle));
        let docker = self.client.docker(&attempt).await?;
        Ok(follow::lines(&docker, handle, since, attempt))
    }

    fn refused(&self, handle: &Handle) -> Option<u64> {
        self.held_back(handle)
    }

    async fn foreign_subnets(&self) -> Result<Vec<(String, Ipv4Net)>, EngineError> {
        self.subnets_of_others().await
    }
}

/// The daemon's short form of an id, for error texts.
fn brief(handle: &Handle) -> &str {
    handle.as_str().get(..12).unwrap_or(handle.as_str())
}

fn gone_is_fine(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(error) if error.kind == EngineErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
pub(crate) mod tests;

//! Keeps the services as the configuration in force says, and changes only those that differ.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use domain::service::{ServiceKind, ServiceOptions};

use crate::config::{LoadError, Loaded, chain, load};
use crate::emit::Emitter;
use crate::persona::Facts;
use crate::ports::PortGate;
use crate::serve::{Caps, Listening, listen};
use crate::services;

/// What a decky says that finds its network unwired.
const WAITING: &str = "waiting for its network";

/// Where services listen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    address: Ipv4Addr,
    ports: fn(ServiceKind, u16) -> u16,
}

impl Place {
    /// Every address of the decky, each service on its own ports.
    pub(crate) const fn real() -> Self {
        Self {
            address: Ipv4Addr::UNSPECIFIED,
            ports: |_, port| port,
        }
    }

    /// The loopback address, ports chosen by the kernel.
    #[cfg(test)]
    pub(crate) const fn test() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST,
            ports: |_, _| 0,
        }
    }
}

/// The services of one decky.
pub(crate) struct Supervisor {
    emitter: Emitter,
    gate: PortGate,
    place: Place,
    caps: Caps,
    facts: Option<Arc<Facts>>,
    running: BTreeMap<ServiceKind, Running>,
}

struct Running {
    options: ServiceOptions,
    listening: Vec<Listening>,
}

impl Supervisor {
    pub(crate) fn new(emitter: Emitter, gate: PortGate, place: Place, caps: Caps) -> Self {
        Self {
            emitter,
            gate,
            place,
            caps,
            facts: None,
            running: BTreeMap::new(),
        }
    }

    /// Loads the configuration and starts what it says, as soon as the network is wired.
    pub(crate) async fn start(&mut self, path: &Path) -> Result<(), LoadError> {
        // A configuration that is no good is no reason to wait.
        let loaded = load(path)?;
        self.gate
            .opened(async || self.emitter.lifecycle("waiting", WAITING).await)
            .await;
        let trouble = self.apply(loaded).await;
        self.emitter.lifecycle("started", &trouble).await;
        Ok(())
    }

    /// Loads the configuration again; a bad one changes nothing.
    pub(crate) async fn reload(&mut self, path: &Path) {
        match load(path) {
            Ok(loaded) => {
                let trouble = self.apply(loaded).await;
                self.emitter.lifecycle("reloaded", &trouble).await;
            }
            Err(error) => self.emitter.lifecycle("refused", &chain(&error)).await,
        }
    }

    /// Says that the decky lives.
    pub(crate) fn alive(&self) {
        self.emitter.alive();
    }

    /// Makes `loaded` the configuration in force; says which services could not start.
    async fn apply(&mut self, loaded: Loaded) -> String {
        let Loaded { config, digest } = loaded;
        let facts = match &self.facts {
            Some(facts) if facts.agree_with(&config) => Arc::clone(facts),
            Some(_) | None => {
                // Another persona: every service shows it.
                self.stop(|_, _| true).await;
                Arc::new(Facts::new(&config))
            }
        };
        self.facts = Some(Arc::clone(&facts));
        self.stop(|kind, running| config.services.get(&kind) != Some(&running.options))
            .await;
        let mut trouble = Vec::new();
        for (kind, options) in &config.services {
            if self.running.contains_key(kind) {
                continue;
            }
            // Shut since it was opened: somebody has undone the wiring, and may do more.
            if !self.gate.is_open() {
                trouble.push(format!("{kind} does not listen: {WAITING}"));
                continue;
            }
            match self.open(*kind, options, &facts) {
                Ok(listening) => {
                    let running = Running {
                        options: options.clone(),
                        listening,
                    };
                    self.running.insert(*kind, running);
                }
                Err(error) => {
                    tracing::error!(service = %kind, %error, "could not listen");
                    trouble.push(format!("{kind} could not listen: {error}"));
                }
            }
        }
        facts.serves(self.running.keys().copied().collect());
        self.emitter.in_force(digest);
        trouble.join("; ")
    }

    async fn stop(&mut self, which: impl Fn(ServiceKind, &Running) -> bool) {
        for (_, running) in self
            .running
            .extract_if(.., |kind, running| which(*kind, running))
        {
            for listening in running.listening {
                listening.stop().await;
            }
        }
    }

    fn open(
        &self,
        kind: ServiceKind,
        options: &ServiceOptions,
        facts: &Arc<Facts>,
    ) -> io::Result<Vec<Listening>> {
        let service = services::build(kind, options, facts)?;
        kind.ports()
            .iter()
            .map(|port| {
                let address =
                    SocketAddr::from((self.place.address, (self.place.ports)(kind, *port)));
                listen(
                    kind,
                    address,
                    Arc::clone(&service),
                    self.emitter.clone(),
                    self.caps,
                )
            })
            .collect()
    }

    /// Where a running service listens.
    #[cfg(test)]
    pub(crate) fn address(&self, kind: ServiceKind) -> Option<SocketAddr> {
        self.running
            .get(&kind)?
            .listening
            .first()
            .map(Listening::address)
    }
}

#[cfg(test)]
pub(crate) mod tests;

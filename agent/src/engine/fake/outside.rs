//! What others do on the same daemon, and what a test looks at.

use std::net::Ipv4Addr;

use bytes::Bytes;
use domain::id::DeckyId;
use domain::observe::{Handle, RunState};
use domain::wiring::ObservedWiring;
use ipnet::Ipv4Net;
use tokio::sync::broadcast;

use super::{Container, FakeDaemon, FakeEngine, Network};
use crate::engine::OutputLine;

impl FakeDaemon {
    /// Ends a container's process.
    pub fn kill(&self, engine: &FakeEngine, handle: &Handle) {
        if let Some(decky) = self.with(|state| state.stop(handle)) {
            engine.board.forget(decky);
        }
        self.changed();
    }

    /// Removes a container, running or not.
    pub fn remove(&self, engine: &FakeEngine, handle: &Handle) {
        let removed = self.with(|state| state.containers.remove(handle));
        if let Some(owner) = removed.and_then(|container| container.owner) {
            engine.board.forget(owner.decky);
        }
        self.changed();
    }

    /// Suspends a container.
    pub fn pause(&self, handle: &Handle) {
        self.with(|state| {
            if let Some(container) = state.containers.get_mut(handle) {
                container.state = RunState::Paused;
            }
        });
        self.changed();
    }

    /// Takes a container off a network.
    pub fn cut(&self, container: &Handle, network: &Handle) {
        self.with(|state| {
            if let Some(container) = state.containers.get_mut(container) {
                container.leave(network);
            }
        });
        self.changed();
    }

    /// Does something to the network namespace of a running container.
    pub fn tamper(&self, container: &Handle, act: impl FnOnce(&mut ObservedWiring)) {
        self.with(|state| {
            let container = state.containers.get_mut(container);
            if let Some(wiring) = container.and_then(|container| container.wiring.as_mut()) {
                act(wiring);
            }
        });
        self.changed();
    }

    /// Takes the published ports of a container away.
    pub fn unpublish(&self, container: &Handle) {
        self.with(|state| {
            let container = state.containers.get_mut(container);
            if let Some(owner) = container.and_then(|container| container.owner.as_mut()) {
                owner.publish.clear();
            }
        });
        self.changed();
    }

    /// Removes a network, whatever is on it.
    pub fn remove_network(&self, network: &Handle) {
        self.with(|state| {
            state.networks.remove(network);
            for container in state.containers.values_mut() {
                if container.state == RunState::Running {
                    container.leave(network);
                }
            }
        });
        self.changed();
    }

    /// A stranger's network.
    pub fn foreign_network(&self, name: &str, subnet: Ipv4Net) -> Handle {
        let handle = self.with(|state| {
            let handle = state.id();
            let network = Network {
                name: name.to_owned(),
                subnet,
                owner: None,
            };
            state.networks.insert(handle.clone(), network);
            handle
        });
        self.changed();
        handle
    }

    /// A stranger's container.
    pub fn foreign_container(&self, name: &str) -> Handle {
        let handle = self.with(|state| {
            let handle = state.id();
            let container = Container {
                name: name.to_owned(),
                owner: None,
                state: RunState::Running,
                attachments: Vec::new(),
                wiring: None,
                output: Vec::new(),
                lines: broadcast::Sender::new(16),
            };
            state.containers.insert(handle.clone(), container);
            handle
        });
        self.changed();
        handle
    }

    /// A stranger listens on a port of the host.
    pub fn take_port(&self, ip: Ipv4Addr, port: u16, protocol: &'static str) {
        self.with(|state| state.ports.insert((ip, port, protocol)));
    }

    /// The stranger stops to listen.
    pub fn free_port(&self, ip: Ipv4Addr, port: u16, protocol: &'static str) {
        self.with(|state| state.ports.remove(&(ip, port, protocol)));
    }

    /// A container writes a line.
    pub fn write(&self, handle: &Handle, line: &[u8]) {
        self.with(|state| {
            let at = state.now();
            if let Some(container) = state.containers.get_mut(handle) {
                let line = OutputLine {
                    at,
                    line: Bytes::copy_from_slice(line),
                };
                container.output.push(line.clone());
                // Nobody following is fine: the line is kept.
                container.lines.send(line).ok();
            }
        });
    }

    /// From here on that decky ends as soon as it is started.
    pub fn doom(&self, decky: DeckyId) {
        self.with(|state| state.doomed.insert(decky));
    }

    /// From here on that container takes no configuration, as one that hangs.
    pub fn deafen(&self, handle: &Handle) {
        self.with(|state| state.deaf.insert(handle.clone()));
    }

    /// Whether deckies say nothing of themselves.
    pub fn mute(&self, mute: bool) {
        self.with(|state| state.mute = mute);
    }

    /// The configuration that a running decky has in force, said or not.
    pub fn in_force(&self, handle: &Handle) -> Option<String> {
        self.with(|state| {
            state
                .containers
                .get(handle)?
                .owner
                .as_ref()?
                .in_force
                .clone()
        })
    }

    /// Every object with its state, for comparison.
    pub fn snapshot(&self) -> Vec<String> {
        self.with(|state| {
            let networks = state
                .networks
                .iter()
                .map(|(handle, network)| format!("{handle} {} {}", network.name, network.subnet));
            let containers = state.containers.iter().map(|(handle, container)| {
                let Container {
                    name,
                    owner,
                    state,
                    attachments,
                    wiring: _,
                    output: _,
                    lines: _,
                } = container;
                let config = owner.as_ref().map(|owner| owner.config.as_str());
                format!(
                    "{handle} {name} {} {attachments:?} {config:?}",
                    state.as_str()
                )
            });
            networks.chain(containers).collect()
        })
    }
}

impl FakeEngine {
    /// The daemon that it is on.
    pub const fn daemon(&self) -> &FakeDaemon {
        &self.daemon
    }

    /// What the names of its host's objects begin with.
    pub fn prefix(&self) -> String {
        crate::engine::name::prefix(self.host)
    }

    pub(super) fn decky_of(&self, handle: &Handle) -> String {
        self.daemon.with(|state| {
            let name = state
                .containers
                .get(handle)
                .map(|container| container.name.clone());
            name.unwrap_or_else(|| handle.to_string())
        })
    }
}

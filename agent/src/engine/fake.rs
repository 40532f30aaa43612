//! An engine of memory with the semantics of a real one, for tests: shared between hosts, with
//! conflicts, faults on request, and a log of every call.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use domain::id::{DeckyId, HostId, LanId, TopologyId};
use domain::observe::{
    Attachment, Foreign, Handle, Inventory, ObservedDecky, ObservedLan, RunState,
};
use domain::persona::Mac;
use domain::topology::Publish;
use domain::topology::hydrate::{HydratedDecky, HydratedInterface, HydratedLan, SpecDigest};
use domain::wiring::{ObservedWiring, Wiring};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use ipnet::{IpNet, Ipv4Net};
use time::OffsetDateTime;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

pub use self::fault::{Fault, Op};
use super::liveness::LivenessBoard;
use super::{Changed, Engine, EngineError, EngineErrorKind, NewDecky, Origin, OutputLine, name};

mod fault;
mod outside;

/// The daemon: what every [`FakeEngine`] on it shares.
#[derive(Debug, Clone)]
pub struct FakeDaemon {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<()>,
}

/// One host's engine on a [`FakeDaemon`].
#[derive(Debug, Clone)]
pub struct FakeEngine {
    host: HostId,
    daemon: FakeDaemon,
    board: LivenessBoard,
    at_once: Option<usize>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    networks: BTreeMap<Handle, Network>,
    containers: BTreeMap<Handle, Container>,
    ports: BTreeSet<(Ipv4Addr, u16, &'static str)>,
    image: bool,
    clock: i64,
    faults: fault::Faults,
    mute: bool,
    doomed: BTreeSet<DeckyId>,
    deaf: BTreeSet<Handle>,
}

#[derive(Debug, Clone)]
struct Network {
    name: String,
    subnet: Ipv4Net,
    owner: Option<(HostId, LanId, TopologyId, SpecDigest, u32)>,
}

#[derive(Debug, Clone)]
struct Container {
    name: String,
    owner: Option<Owner>,
    state: RunState,
    attachments: Vec<(Handle, Ipv4Addr)>,
    /// What its namespace looks like; it comes and goes with the process.
    wiring: Option<ObservedWiring>,
    output: Vec<OutputLine>,
    lines: broadcast::Sender<OutputLine>,
}

#[derive(Debug, Clone)]
struct Owner {
    host: HostId,
    topology: TopologyId,
    decky: DeckyId,
    spec: SpecDigest,
    publish: Vec<Publish>,
    config: String,
    in_force: Option<String>,
}

impl Container {
    /// Takes it off a network; its interface and the routes by it go too.
    fn leave(&mut self, network: &Handle) {
        let gone: Vec<_> = self
            .attachments
            .extract_if(.., |(other, _)| other == network)
            .map(|(_, address)| IpAddr::from(address))
            .collect();
        if let Some(wiring) = &mut self.wiring {
            wiring.interfaces.retain(|(_, addresses)| {
                !addresses
                    .iter()
                    .any(|address| gone.contains(&address.addr()))
            });
        }
    }
}

impl Default for FakeDaemon {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeDaemon {
    /// A daemon without objects.
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            changes: broadcast::Sender::new(1024),
        }
    }

    /// The engine of `host` on it. What its deckies say of themselves is written to `board`.
    pub fn engine(&self, host: HostId, board: LivenessBoard) -> FakeEngine {
        FakeEngine {
            host,
            daemon: self.clone(),
            board,
            at_once: None,
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // A panic elsewhere must fail its own test only.
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn changed(&self) {
        // Nobody listening is fine.
        self.changes.send(()).ok();
    }
}

impl State {
    fn id(&mut self) -> Handle {
        self.next += 1;
        Handle::new(format!("object-{:06}", self.next))
    }

    fn now(&mut self) -> OffsetDateTime {
        self.clock += 1;
        OffsetDateTime::from_unix_timestamp(self.clock).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    fn free_name(&self, make: impl Fn(u32) -> String) -> String {
        let taken = |name: &String| {
            self.networks.values().any(|network| network.name == *name)
                || self
                    .containers
                    .values()
                    .any(|container| container.name == *name)
        };
        (1..)
            .map(make)
            .find(|name| !taken(name))
            .unwrap_or_default()
    }

    fn stop(&mut self, handle: &Handle) -> Option<DeckyId> {
        let container = self.containers.get_mut(handle)?;
        container.state = RunState::Exited;
        container.wiring = None;
        // Whoever follows sees the end.
        container.lines = broadcast::Sender::new(1024);
        let owner = container.owner.as_mut()?;
        owner.in_force = None;
        Some(owner.decky)
    }

    /// Makes the namespace of a container look as it should.
    fn wire(&mut self, handle: &Handle, wiring: &Wiring) -> Result<(), EngineError> {
        let Some(container) = self.containers.get_mut(handle) else {
            let text = format!("container {handle} not found");
            return Err(refusal(EngineErrorKind::NotFound, text));
        };
        if container.state != RunState::Running {
            let text = format!("container {handle} is not running");
            return Err(refusal(EngineErrorKind::Refused, text));
        }
        // Only what it is attached to has an interface to be wired.
        let interfaces = wiring.interfaces.iter().filter(|interface| {
            interface.addresses.iter().any(|address| {
                container
                    .attachments
                    .iter()
                    .any(|(_, attached)| address.addr() == IpAddr::from(*attached))
            })
        });
        container.wiring = Some(ObservedWiring {
            interfaces: interfaces
                .map(|interface| (interface.mac, interface.addresses.clone()))
                .collect(),
            routes: wiring.routes.clone(),
            sysctls: wiring.sysctls.clone(),
            rules: Some(crate::netns::rules::digest(wiring)),
            open: true,
        });
        Ok(())
    }

    fn published(&self) -> BTreeSet<(Option<Ipv4Addr>, u16, &'static str)> {
        let running = self
            .containers
            .values()
            .filter(|container| container.state == RunState::Running);
        running
            .filter_map(|container| container.owner.as_ref())
            .flat_map(|owner| owner.publish.iter().map(door))
            .chain(
                self.ports
                    .iter()
                    .map(|(ip, port, protocol)| (Some(*ip), *port, *protocol)),
            )
            .collect()
    }

    /// Whether `address` may be taken on `network` by `container`.
    fn take_address(
        &self,
        container: &Handle,
        network: &Handle,
        address: Ipv4Addr,
    ) -> Result<(), EngineError> {
        let Some(subnet) = self.networks.get(network).map(|network| network.subnet) else {
            return Err(refusal(
                EngineErrorKind::NotFound,
                format!("network {network} not found"),
            ));
        };
        if !subnet.contains(&address) {
            return Err(refusal(
                EngineErrorKind::Refused,
                format!("{address} is not in {subnet}"),
            ));
        }
        let taken = self.containers.iter().any(|(handle, other)| {
            handle != container
                && other.state == RunState::Running
                && other.attachments.contains(&(network.clone(), address))
        });
        if taken {
            return Err(refusal(
                EngineErrorKind::Refused,
                format!("address {address} in use"),
            ));
        }
        Ok(())
    }
}

/// The ports that the host answers for, every address written as none.
fn published_by(owner: &Owner) -> Vec<Publish> {
    let mut published = owner.publish.clone();
    for publish in &mut published {
        publish.host_ip = publish.host_ip.filter(|ip| !ip.is_unspecified());
    }
    published.sort();
    published
}

fn refusal(kind: EngineErrorKind, attempt: String) -> EngineError {
    EngineError {
        kind,
        attempt,
        source: None,
    }
}

fn door(publish: &Publish) -> (Option<Ipv4Addr>, u16, &'static str) {
    let Publish {
        host_ip,
        host_port,
        decky_port: _,
        protocol,
    } = publish;
    (*host_ip, *host_port, protocol.as_str())
}

fn clash(
    (left, port, protocol): (Option<Ipv4Addr>, u16, &str),
    (right, other_port, other_protocol): (Option<Ipv4Addr>, u16, &str),
) -> bool {
    let any = |ip: Option<Ipv4Addr>| ip.is_none_or(|ip| ip.is_unspecified());
    port == other_port && protocol == other_protocol && (any(left) || any(right) || left == right)
}

impl FakeEngine {
    /// The same engine, fastest with so many deckies at once.
    #[must_use]
    pub fn fastest_with(self, at_once: usize) -> Self {
        Self {
            at_once: Some(at_once),
            ..self
        }
    }

    /// Counts the call, suffers the fault that waits for it, and does the work.
    async fn run<T>(
        &self,
        op: Op,
        subject: String,
        work: impl FnOnce(&mut State) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let fault = self.daemon.with(|state| state.faults.next(op, subject));
        let gate = self.daemon.with(|state| state.faults.gate(op));
        if let Some(gate) = gate {
            gate.pass().await;
        }
        match fault {
            Some(Fault::Refuse(kind)) => {
                return Err(refusal(
                    kind,
                    format!("{} failed as requested", op.as_str()),
                ));
            }
            Some(Fault::HangBefore) => return std::future::pending().await,
            Some(Fault::HangAfter) => {
                self.daemon.with(work)?;
                return std::future::pending().await;
            }
            None => {}
        }
        // A daemon takes its time: whoever relies on being the only one that acts finds out.
        tokio::task::yield_now().await;
        let result = self.daemon.with(work);
        if result.is_ok() && op.changes() {
            self.daemon.changed();
        }
        result
    }

    fn ours<'a>(&self, state: &'a State, handle: &Handle) -> Option<(&'a Container, &'a Owner)> {
        let container = state.containers.get(handle)?;
        let owner = container
            .owner
            .as_ref()
            .filter(|owner| owner.host == self.host)?;
        Some((container, owner))
    }

    fn observe(&self, state: &State) -> Inventory {
        let mut inventory = Inventory::default();
        let stray = |name: &str| name.starts_with(&name::prefix(self.host));
        for (handle, network) in &state.networks {
            match network.owner {
                Some((host, id, topology, spec, depth)) if host == self.host => {
                    let handle = handle.clone();
                    inventory.lans.push(ObservedLan {
                        handle,
                        id,
                        topology,
                        spec: Some(spec),
                        depth,
                    });
                }
                None if stray(&network.name) => {
                    let name = network.name.clone();
                    inventory.foreign.push(Foreign {
                        noun: "network",
                        name,
                    });
                }
                Some(_) | None => {}
            }
        }
        for (handle, container) in &state.containers {
            if let Some((container, owner)) = self.ours(state, handle) {
                inventory
                    .deckies
                    .push(self.observe_decky(handle, container, owner));
            } else if container.owner.is_none() && stray(&container.name) {
                let name = container.name.clone();
                inventory.foreign.push(Foreign {
                    noun: "container",
                    name,
                });
            }
        }
        inventory
            .lans
            .sort_by(|a, b| (a.id, &a.handle).cmp(&(b.id, &b.handle)));
        inventory
            .deckies
            .sort_by(|a, b| (a.id, &a.handle).cmp(&(b.id, &b.handle)));
        inventory.foreign.sort();
        inventory
    }

    fn observe_decky(
        &self,
        handle: &Handle,
        container: &Container,
        owner: &Owner,
    ) -> ObservedDecky {
        let running = container.state == RunState::Running;
        ObservedDecky {
            handle: handle.clone(),
            id: owner.decky,
            topology: owner.topology,
            spec: Some(owner.spec),
            state: container.state,
            attachments: container
                .attachments
                .iter()
                .map(|(network, address)| Attachment {
                    network: network.clone(),
                    address: Some(*address),
                })
                .collect(),
            config: if running {
                self.board.digest(owner.decky)
            } else {
                None
            },
            wiring: container.wiring.clone(),
            published: running.then(|| published_by(owner)),
            outdated: false,
        }
    }

    fn say(&self, state: &State, decky: DeckyId, digest: &str) {
        if !state.mute {
            self.board.saw(decky, digest);
        }
    }
}

#[async_trait]
impl Engine for FakeEngine {
    async fn inventory(&self) -> Result<Inventory, EngineError> {
        self.run(
            Op::Inventory,
            String::new(),
            |state| Ok(self.observe(state)),
        )
        .await
    }

    async fn ensure_image(&self) -> Result<(), EngineError> {
        self.run(Op::EnsureImage, String::new(), |state| {
            state.image = true;
            Ok(())
        })
        .await
    }

    async fn create_lan(
        &self,
        origin: Origin,
        lan: &HydratedLan,
        depth: u32,
    ) -> Result<Handle, EngineError> {
        self.run(Op::CreateLan, lan.name.to_string(), |state| {
            let overlaps = |network: &Network| {
                network.subnet.contains(&lan.subnet) || lan.subnet.contains(&network.subnet)
            };
            if state.networks.values().any(overlaps) {
                let text = format!("subnet {} overlaps another network", lan.subnet);
                return Err(refusal(EngineErrorKind::SubnetInUse, text));
            }
            let name = state.free_name(|number| name::lan(self.host, depth, lan.id, number));
            let owner = Some((self.host, lan.id, origin.topology, lan.spec(), depth));
            let handle = state.id();
            state.networks.insert(
                handle.clone(),
                Network {
                    name,
                    subnet: lan.subnet,
                    owner,
                },
            );
            Ok(handle)
        })
        .await
    }

    async fn remove_lan(&self, handle: &Handle) -> Result<(), EngineError> {
        self.run(Op::RemoveLan, handle.to_string(), |state| {
            let used = state.containers.values().any(|container| {
                container.state == RunState::Running
                    && container
                        .attachments
                        .iter()
                        .any(|(network, _)| network == handle)
            });
            if used {
                let text = format!("network {handle} has active endpoints");
                return Err(refusal(EngineErrorKind::Refused, text));
            }
            state.networks.remove(handle);
            Ok(())
        })
        .await
    }

    async fn create_decky(&self, new: NewDecky<'_>) -> Result<Handle, EngineError> {
        self.run(Op::CreateDecky, new.decky.name.to_string(), |state| {
            if !state.image {
                let text = "no image of the deckies".to_owned();
                return Err(refusal(EngineErrorKind::ImageMissing, text));
            }
            let name = state.free_name(|number| name::decky(self.host, new.decky.id, number));
            let handle = state.id();
            for (network, interface) in &new.networks {
                state.take_address(&handle, network, interface.address)?;
            }
            let attachments = new
                .networks
                .iter()
                .map(|(network, interface)| (network.clone(), interface.address))
                .collect();
            let owner = Some(Owner {
                host: self.host,
                topology: new.origin.topology,
                decky: new.decky.id,
                spec: new.decky.spec(),
                publish: new.decky.publish.clone(),
                config: proto::decky_config::digest(new.config),
                in_force: None,
            });
            let container = Container {
                name,
                owner,
                state: RunState::Created,
                attachments,
                wiring: None,
                output: Vec::new(),
                lines: broadcast::Sender::new(1024),
            };
            state.containers.insert(handle.clone(), container);
            Ok(handle)
        })
        .await
    }

    async fn start_decky(&self, handle: &Handle, wiring: &Wiring) -> Result<(), EngineError> {
        let subject = self.decky_of(handle);
        self.run(Op::StartDecky, subject, |state| {
            let Some((container, owner)) = self.ours(state, handle) else {
                let text = format!("container {handle} not found");
                return Err(refusal(EngineErrorKind::NotFound, text));
            };
            if container.state == RunState::Running {
                return state.wire(handle, wiring);
            }
            let (decky, config) = (owner.decky, owner.config.clone());
            for (network, address) in &container.attachments {
                state.take_address(handle, network, *address)?;
            }
            let taken = state.published();
            if let Some(port) = owner
                .publish
                .iter()
                .find(|publish| taken.iter().any(|other| clash(door(publish), *other)))
            {
                let text = format!("port {} is already allocated", port.host_port);
                return Err(refusal(EngineErrorKind::PortTaken, text));
            }
            self.board.forget(decky);
            if let Some(container) = state.containers.get_mut(handle) {
                container.state = RunState::Running;
                if let Some(owner) = &mut container.owner {
                    owner.in_force = Some(config.clone());
                }
            }
            if state.doomed.contains(&decky) {
                state.stop(handle);
                return Ok(());
            }
            state.wire(handle, wiring)?;
            self.say(state, decky, &config);
            Ok(())
        })
        .await
    }

    async fn rewire(&self, handle: &Handle, wiring: &Wiring) -> Result<(), EngineError> {
        let subject = self.decky_of(handle);
        self.run(Op::Rewire, subject, |state| {
            if self.ours(state, handle).is_none() {
                let text = format!("container {handle} not found");
                return Err(refusal(EngineErrorKind::NotFound, text));
            }
            state.wire(handle, wiring)
        })
        .await
    }

    async fn remove_decky(&self, handle: &Handle) -> Result<(), EngineError> {
        let subject = self.decky_of(handle);
        self.run(Op::RemoveDecky, subject, |state| {
            if let Some(container) = state.containers.remove(handle)
                && let Some(owner) = container.owner
            {
                self.board.forget(owner.decky);
            }
            Ok(())
        })
        .await
    }

    async fn connect(
        &self,
        decky: &Handle,
        network: &Handle,
        interface: &HydratedInterface,
    ) -> Result<(), EngineError> {
        let subject = self.decky_of(decky);
        self.run(Op::Connect, subject, |state| {
            state.take_address(decky, network, interface.address)?;
            let Some(container) = state.containers.get_mut(decky) else {
                let text = format!("container {decky} not found");
                return Err(refusal(EngineErrorKind::NotFound, text));
            };
            if container
                .attachments
                .iter()
                .any(|(other, _)| other == network)
            {
                let text = format!("endpoint exists in network {network}");
                return Err(refusal(EngineErrorKind::Refused, text));
            }
            container
                .attachments
                .push((network.clone(), interface.address));
            // As a daemon does: an address of the card and a route of its own choice.
            if let Some(wiring) = &mut container.wiring {
                let address = IpNet::from(IpAddr::from(interface.address));
                wiring.interfaces.push((Mac::new([2; 6]), vec![address]));
                wiring.routes.clear();
            }
            Ok(())
        })
        .await
    }

    async fn disconnect(&self, decky: &Handle, network: &Handle) -> Result<(), EngineError> {
        let subject = self.decky_of(decky);
        self.run(Op::Disconnect, subject, |state| {
            if let Some(container) = state.containers.get_mut(decky) {
                container.leave(network);
            }
            Ok(())
        })
        .await
    }

    async fn configure(
        &self,
        handle: &Handle,
        decky: &HydratedDecky,
        config: &[u8],
    ) -> Result<(), EngineError> {
        self.run(Op::Configure, decky.name.to_string(), |state| {
            if state.deaf.contains(handle) {
                return Ok(());
            }
            let Some(container) = state.containers.get_mut(handle) else {
                let text = format!("container {handle} not found");
                return Err(refusal(EngineErrorKind::NotFound, text));
            };
            let running = container.state == RunState::Running;
            let digest = proto::decky_config::digest(config);
            if let Some(owner) = &mut container.owner {
                owner.config.clone_from(&digest);
                if running {
                    owner.in_force = Some(digest.clone());
                }
            }
            if running {
                self.say(state, decky.id, &digest);
            }
            Ok(())
        })
        .await
    }

    async fn changes(&self) -> Result<BoxStream<'static, Changed>, EngineError> {
        let changes = BroadcastStream::new(self.daemon.changes.subscribe());
        self.run(Op::Changes, String::new(), |_| Ok(())).await?;
        // One that came too fast is a hint like the others.
        Ok(changes.map(|_| Changed).boxed())
    }

    async fn follow(
        &self,
        handle: &Handle,
        since: Option<OffsetDateTime>,
    ) -> Result<BoxStream<'static, Result<OutputLine, EngineError>>, EngineError> {
        let (past, live) = self
            .run(Op::Follow, handle.to_string(), |state| {
                let Some((container, _)) = self.ours(state, handle) else {
                    let text = format!("container {handle} not found");
                    return Err(refusal(EngineErrorKind::NotFound, text));
                };
                let past: Vec<_> = container
                    .output
                    .iter()
                    .filter(|line| since.is_none_or(|since| line.at >= since))
                    .cloned()
                    .collect();
                let live = (container.state == RunState::Running)
                    .then(|| BroadcastStream::new(container.lines.subscribe()));
                Ok((past, live))
            })
            .await?;
        let live = stream::iter(live)
            .flatten()
            .filter_map(|line| std::future::ready(line.ok()));
        Ok(stream::iter(past).chain(live).map(Ok).boxed())
    }

    fn at_once(&self) -> Option<usize> {
        self.at_once
    }

    async fn foreign_subnets(&self) -> Result<Vec<(String, Ipv4Net)>, EngineError> {
        self.run(Op::ForeignSubnets, String::new(), |state| {
            let others = state.networks.values().filter(|network| {
                network
                    .owner
                    .as_ref()
                    .is_none_or(|(host, ..)| *host != self.host)
            });
            Ok(others
                .map(|network| (format!("network {}", network.name), network.subnet))
                .collect())
        })
        .await
    }
}

#[cfg(test)]
mod tests;

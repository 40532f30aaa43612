//! What every engine promises, as one suite that is run against each of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use domain::id::{DeckyId, HostId, LanId};
use domain::observe::{Attachment, DriftKind, Foreign, Handle, Inventory, ObservedDecky, RunState};
use domain::revision::Generation;
use domain::service::ServiceKind;
use domain::topology::hydrate::{HydratedDecky, HydratedLan, HydratedTopology};
use domain::wiring::{self, Wiring};
use futures_util::StreamExt as _;
use ipnet::Ipv4Net;
use proto::decky_config::DeckyConfig;

use super::liveness::LivenessBoard;
use super::{Engine, EngineError, EngineErrorKind, NewDecky, Origin, name, sample};

/// How long a daemon may take to show what it has done.
const PATIENCE: Duration = Duration::from_secs(20);

/// An engine's daemon, with hands to do on it what no engine of ours does.
#[async_trait]
pub trait World: Send + Sync {
    /// A host's engine, and what its deckies say.
    fn engine(&self, host: HostId) -> (Arc<dyn Engine>, LivenessBoard);
    /// A subnet that nobody uses.
    fn subnet(&self) -> Ipv4Net;
    /// A port of the host's loopback address that nobody uses.
    fn port(&self) -> u16;
    /// Ends a container's process.
    async fn kill(&self, container: &Handle);
    /// Removes a container.
    async fn remove(&self, container: &Handle);
    /// Takes a container off a network.
    async fn cut(&self, container: &Handle, network: &Handle);
    /// Makes a stranger's container.
    async fn foreign_container(&self, name: &str) -> Handle;
    /// Makes a stranger's network.
    async fn foreign_network(&self, name: &str, subnet: Ipv4Net) -> Handle;
    /// Whether a container or network is there.
    async fn exists(&self, object: &Handle) -> bool;
    /// Does something to the network namespace of a running container.
    async fn tamper(&self, container: &Handle, what: Tamper);
    /// Has a running container write a line, if it does not do so by itself.
    async fn speak(&self, container: &Handle);
}

/// What somebody does to the network namespace of a running decky.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tamper {
    /// Empties its rules.
    Rules,
    /// Adds a rule that lets everything out, before all others.
    Hole,
    /// Changes the hardware address of an interface.
    Mac,
    /// Takes an address away.
    Address,
    /// Takes a route away.
    Route,
    /// Changes a kernel setting.
    Sysctl,
}

impl Tamper {
    /// Everything that can be done, and the kind of drift that it is.
    pub const ALL: [(Self, DriftKind); 6] = [
        (Self::Rules, DriftKind::Unsealed),
        (Self::Hole, DriftKind::Unsealed),
        (Self::Mac, DriftKind::Readdressed),
        (Self::Address, DriftKind::Readdressed),
        (Self::Route, DriftKind::Rerouted),
        (Self::Sysctl, DriftKind::Retuned),
    ];
}

/// Runs the whole suite.
pub async fn conforms(world: &dyn World) {
    an_empty_host_has_an_empty_inventory(world).await;
    what_is_made_is_observed_as_it_was_meant(world).await;
    what_others_do_to_it_is_observed(world).await;
    removing_twice_is_removing_once(world).await;
    taken_subnets_are_told(world).await;
    taken_ports_are_told(world).await;
    two_hosts_share_a_daemon_and_see_only_their_own(world).await;
    a_stranger_under_our_name_is_reported_and_left_alone(world).await;
    a_new_configuration_keeps_the_container(world).await;
    a_connection_is_made_and_undone_while_it_runs(world).await;
    what_others_do_to_a_namespace_is_observed_and_mended(world).await;
    output_is_followed_from_where_it_was_left(world).await;
    changes_are_hinted_at(world).await;
}

/// One host with a topology on it.
pub struct Bench {
    /// Its id.
    pub host: HostId,
    /// Its engine.
    pub engine: Arc<dyn Engine>,
    /// What its deckies say.
    pub board: LivenessBoard,
    generation: u64,
    wirings: Mutex<BTreeMap<Handle, Wiring>>,
}

impl Bench {
    /// A new host in `world`.
    pub fn new(world: &dyn World) -> Self {
        let host = HostId::new(sample::unique());
        let (engine, board) = world.engine(host);
        Self {
            host,
            engine,
            board,
            generation: 1,
            wirings: Mutex::default(),
        }
    }

    fn origin(&self, topology: &HydratedTopology) -> Origin {
        Origin {
            topology: topology.id,
            generation: Generation::new(self.generation),
        }
    }

    async fn lan(&self, topology: &HydratedTopology, lan: &HydratedLan) -> Handle {
        let made = self.engine.create_lan(self.origin(topology), lan, 0).await;
        made.expect("nothing stands against this LAN")
    }

    async fn made(
        &self,
        topology: &HydratedTopology,
        decky: &HydratedDecky,
        lans: &[&Handle],
    ) -> Handle {
        let config = config(decky);
        let wiring = wiring::of(topology, decky);
        let networks = lans
            .iter()
            .zip(&decky.interfaces)
            .map(|(lan, interface)| ((*lan).clone(), *interface));
        let new = NewDecky {
            origin: self.origin(topology),
            decky,
            networks: networks.collect(),
            config: &config,
            wiring: &wiring,
        };
        let made = self.engine.create_decky(new).await;
        let handle = made.expect("nothing stands against this decky");
        self.keep(&handle, wiring);
        handle
    }

    /// From here on the decky is started and wired like that.
    fn keep(&self, handle: &Handle, wiring: Wiring) {
        self.wirings().insert(handle.clone(), wiring);
    }

    fn wirings(&self) -> MutexGuard<'_, BTreeMap<Handle, Wiring>> {
        self.wirings.lock().expect("no test panics here")
    }

    fn wiring(&self, handle: &Handle) -> Wiring {
        self.wirings()
            .get(handle)
            .cloned()
            .expect("a decky is made before it is started")
    }

    async fn start(&self, handle: &Handle) -> Result<(), EngineError> {
        let wiring = self.wiring(handle);
        self.engine.start_decky(handle, &wiring).await
    }

    /// How what is seen of a decky differs from how it was last wired.
    async fn difference(&self, decky: DeckyId) -> Option<DriftKind> {
        let seen = self.see(decky).await.expect("it is there");
        let wiring = self.wiring(&seen.handle);
        let seen = seen.wiring.expect("it runs");
        wiring.difference(&seen, &crate::netns::rules::digest(&wiring))
    }

    async fn inventory(&self) -> Inventory {
        self.engine.inventory().await.expect("the daemon answers")
    }

    async fn see(&self, decky: DeckyId) -> Option<ObservedDecky> {
        self.inventory()
            .await
            .deckies
            .into_iter()
            .find(|seen| seen.id == decky)
    }

    async fn await_decky(&self, decky: DeckyId, what: &str, is: impl Fn(&ObservedDecky) -> bool) {
        eventually(what, async || {
            self.see(decky).await.is_some_and(|seen| is(&seen))
        })
        .await;
    }

    /// Removes everything of this host.
    pub async fn clear(&self) {
        let inventory = self.inventory().await;
        for decky in &inventory.deckies {
            self.engine
                .remove_decky(&decky.handle)
                .await
                .expect("ours can be removed");
        }
        for lan in &inventory.lans {
            self.engine
                .remove_lan(&lan.handle)
                .await
                .expect("ours can be removed");
        }
        assert!(self.inventory().await.is_empty());
    }
}

/// Waits until `holds` does; panics with `what` when it never does.
pub async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "never happened: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The configuration file of a decky.
pub fn config(decky: &HydratedDecky) -> Vec<u8> {
    DeckyConfig {
        hostname: decky.hostname.clone(),
        persona: decky.persona,
        seed: decky.seed,
        services: decky.services.clone(),
    }
    .encode()
}

fn kind<T>(result: Result<T, EngineError>) -> Option<EngineErrorKind> {
    result.err().map(|error| error.kind)
}

fn at(network: &Handle, address: Ipv4Addr) -> Attachment {
    Attachment {
        network: network.clone(),
        address: Some(address),
    }
}

async fn an_empty_host_has_an_empty_inventory(world: &dyn World) {
    let bench = Bench::new(world);
    let inventory = bench.inventory().await;
    assert_eq!(inventory, Inventory::default());
    bench
        .engine
        .ensure_image()
        .await
        .expect("the binary is there");
    bench.engine.ensure_image().await.expect("twice is once");
}

async fn what_is_made_is_observed_as_it_was_meant(world: &dyn World) {
    let bench = Bench::new(world);
    let (dmz, inner) = (
        sample::lan("dmz", world.subnet()),
        sample::lan("inner", world.subnet()),
    );
    let gateway = sample::decky("gateway", &[&dmz, &inner], 10);
    let topology = sample::topology(
        &[dmz.clone(), inner.clone()],
        std::slice::from_ref(&gateway),
    );
    let a = bench.lan(&topology, &dmz).await;
    let b = bench
        .engine
        .create_lan(bench.origin(&topology), &inner, 1)
        .await
        .expect("nothing stands against this LAN");

    let inventory = bench.inventory().await;
    let lan = inventory.lan_of(&b).expect("it was made");
    assert_eq!(
        (lan.id, lan.topology, lan.depth),
        (inner.id, topology.id, 1)
    );
    assert_eq!(lan.spec, Some(inner.spec()));

    let handle = bench.made(&topology, &gateway, &[&a, &b]).await;
    let mut both = vec![
        at(&a, gateway.interfaces[0].address),
        at(&b, gateway.interfaces[1].address),
    ];
    both.sort();
    let created = bench.see(gateway.id).await.expect("it was made");
    assert_eq!((&created.handle, created.topology), (&handle, topology.id));
    assert_eq!(created.spec, Some(gateway.spec()));
    assert_eq!(created.state, RunState::Created);
    assert_eq!(
        sorted(&created),
        both,
        "a container that never ran knows its networks"
    );

    bench.start(&handle).await.expect("it can run");
    bench.start(&handle).await.expect("twice is once");
    let running = bench.see(gateway.id).await.expect("it was made");
    assert_eq!(running.state, RunState::Running);
    assert_eq!(sorted(&running), both);
    assert!(!running.outdated);

    world.kill(&handle).await;
    bench
        .await_decky(gateway.id, "it has ended", |seen| {
            seen.state == RunState::Exited
        })
        .await;
    let ended = bench.see(gateway.id).await.expect("it is there");
    assert_eq!(sorted(&ended), both);
    assert_eq!(ended.config, None);
    bench.clear().await;
    assert!(!world.exists(&handle).await && !world.exists(&a).await);
}

fn sorted(decky: &ObservedDecky) -> Vec<Attachment> {
    let mut attachments = decky.attachments.clone();
    attachments.sort();
    attachments
}

async fn what_others_do_to_it_is_observed(world: &dyn World) {
    let bench = Bench::new(world);
    let (dmz, inner) = (
        sample::lan("dmz", world.subnet()),
        sample::lan("inner", world.subnet()),
    );
    let gateway = sample::decky("gateway", &[&dmz, &inner], 10);
    let web = sample::decky("web", &[&dmz], 11);
    let topology = sample::topology(
        &[dmz.clone(), inner.clone()],
        &[gateway.clone(), web.clone()],
    );
    let (a, b) = (
        bench.lan(&topology, &dmz).await,
        bench.lan(&topology, &inner).await,
    );
    let first = bench.made(&topology, &gateway, &[&a, &b]).await;
    let second = bench.made(&topology, &web, &[&a]).await;
    for handle in [&first, &second] {
        bench.start(handle).await.expect("it can run");
    }

    world.cut(&first, &b).await;
    let only = [at(&a, gateway.interfaces[0].address)];
    bench
        .await_decky(gateway.id, "it is off the LAN", |seen| {
            seen.attachments == only
        })
        .await;
    world.remove(&second).await;
    eventually("it is gone", async || bench.see(web.id).await.is_none()).await;
    assert!(
        bench
            .see(gateway.id)
            .await
            .is_some_and(|seen| seen.state == RunState::Running)
    );
    bench.clear().await;
}

async fn removing_twice_is_removing_once(world: &dyn World) {
    let bench = Bench::new(world);
    let dmz = sample::lan("dmz", world.subnet());
    let web = sample::decky("web", &[&dmz], 10);
    let topology = sample::topology(std::slice::from_ref(&dmz), std::slice::from_ref(&web));
    let lan = bench.lan(&topology, &dmz).await;
    let handle = bench.made(&topology, &web, &[&lan]).await;
    bench.start(&handle).await.expect("it can run");

    bench
        .engine
        .disconnect(&handle, &lan)
        .await
        .expect("it is on it");
    bench
        .engine
        .disconnect(&handle, &lan)
        .await
        .expect("off is off");
    for _ in 0..2 {
        bench
            .engine
            .remove_decky(&handle)
            .await
            .expect("gone is gone");
    }
    for _ in 0..2 {
        bench.engine.remove_lan(&lan).await.expect("gone is gone");
    }
    bench
        .engine
        .disconnect(&handle, &lan)
        .await
        .expect("gone is off");
    assert_eq!(
        kind(bench.start(&handle).await),
        Some(EngineErrorKind::NotFound)
    );
    assert!(bench.inventory().await.is_empty());
}

async fn taken_subnets_are_told(world: &dyn World) {
    let (bench, other) = (Bench::new(world), Bench::new(world));
    let (subnet, strange) = (world.subnet(), world.subnet());
    let (dmz, same) = (sample::lan("dmz", subnet), sample::lan("same", subnet));
    let topology = sample::topology(std::slice::from_ref(&dmz), &[]);
    bench.lan(&topology, &dmz).await;
    let refused = other
        .engine
        .create_lan(other.origin(&topology), &same, 0)
        .await;
    assert_eq!(kind(refused), Some(EngineErrorKind::SubnetInUse));

    let stranger = world.foreign_network("conformance-stranger", strange).await;
    let taken = bench
        .engine
        .foreign_subnets()
        .await
        .expect("the daemon answers");
    let user = taken
        .iter()
        .find(|(_, taken)| *taken == strange)
        .map(|(user, _)| user.as_str());
    assert!(
        user.is_some_and(|user| user.contains("conformance-stranger")),
        "{taken:?}"
    );
    assert!(
        taken.iter().all(|(_, taken)| *taken != subnet),
        "our own is not foreign: {taken:?}"
    );
    let taken = other
        .engine
        .foreign_subnets()
        .await
        .expect("the daemon answers");
    assert!(
        taken.iter().any(|(_, taken)| *taken == subnet),
        "another host's is foreign"
    );
    bench
        .engine
        .remove_lan(&stranger)
        .await
        .expect("a network can be removed by its handle");
    bench.clear().await;
}

async fn taken_ports_are_told(world: &dyn World) {
    let bench = Bench::new(world);
    let dmz = sample::lan("dmz", world.subnet());
    let port = world.port();
    let (mut one, mut two) = (
        sample::decky("one", &[&dmz], 10),
        sample::decky("two", &[&dmz], 11),
    );
    sample::publish(&mut one, port);
    sample::publish(&mut two, port);
    let topology = sample::topology(std::slice::from_ref(&dmz), &[one.clone(), two.clone()]);
    let lan = bench.lan(&topology, &dmz).await;
    let first = bench.made(&topology, &one, &[&lan]).await;
    let second = bench.made(&topology, &two, &[&lan]).await;
    bench.start(&first).await.expect("the port is free");
    assert_eq!(
        kind(bench.start(&second).await),
        Some(EngineErrorKind::PortTaken)
    );
    bench
        .engine
        .remove_decky(&first)
        .await
        .expect("ours can be removed");
    bench.start(&second).await.expect("the port is free again");
    let seen = bench.see(two.id).await.expect("it is there");
    assert_eq!(seen.published, Some(two.publish.clone()));
    bench.clear().await;
}

async fn two_hosts_share_a_daemon_and_see_only_their_own(world: &dyn World) {
    let (left, right) = (Bench::new(world), Bench::new(world));
    let mut handles = Vec::new();
    for bench in [&left, &right] {
        let dmz = sample::lan("dmz", world.subnet());
        let web = sample::decky("web", &[&dmz], 10);
        let topology = sample::topology(std::slice::from_ref(&dmz), std::slice::from_ref(&web));
        let lan = bench.lan(&topology, &dmz).await;
        handles.push((bench.made(&topology, &web, &[&lan]).await, lan));
    }
    for (bench, (container, network)) in [&left, &right].into_iter().zip(&handles) {
        let inventory = bench.inventory().await;
        let deckies: Vec<_> = inventory
            .deckies
            .iter()
            .map(|decky| &decky.handle)
            .collect();
        let lans: Vec<_> = inventory.lans.iter().map(|lan| &lan.handle).collect();
        assert_eq!((deckies, lans), (vec![container], vec![network]));
        assert_eq!(inventory.foreign, []);
    }
    left.clear().await;
    assert!(world.exists(&handles[1].0).await && world.exists(&handles[1].1).await);
    right.clear().await;
}

async fn a_stranger_under_our_name_is_reported_and_left_alone(world: &dyn World) {
    let bench = Bench::new(world);
    let dmz = sample::lan("dmz", world.subnet());
    let web = sample::decky("web", &[&dmz], 10);
    let topology = sample::topology(std::slice::from_ref(&dmz), std::slice::from_ref(&web));
    let (container, network) = (
        name::decky(bench.host, web.id, 1),
        name::lan(bench.host, 0, dmz.id, 1),
    );
    let strangers = [
        world.foreign_container(&container).await,
        world.foreign_network(&network, world.subnet()).await,
    ];
    let lan = bench.lan(&topology, &dmz).await;
    let handle = bench.made(&topology, &web, &[&lan]).await;
    bench
        .start(&handle)
        .await
        .expect("the stranger is not in the way");

    let inventory = bench.inventory().await;
    let foreign = [
        Foreign {
            noun: "container",
            name: container,
        },
        Foreign {
            noun: "network",
            name: network,
        },
    ];
    assert_eq!(inventory.foreign, foreign);
    assert_eq!(inventory.deckies.len(), 1);
    bench.clear().await;
    for stranger in &strangers {
        assert!(world.exists(stranger).await, "it is not ours to remove");
    }
    world.remove(&strangers[0]).await;
    bench
        .engine
        .remove_lan(&strangers[1])
        .await
        .expect("a network can be removed by its handle");
}

async fn a_new_configuration_keeps_the_container(world: &dyn World) {
    let bench = Bench::new(world);
    let dmz = sample::lan("dmz", world.subnet());
    let mut web = sample::decky("web", &[&dmz], 10);
    let topology = sample::topology(std::slice::from_ref(&dmz), std::slice::from_ref(&web));
    let lan = bench.lan(&topology, &dmz).await;
    let handle = bench.made(&topology, &web, &[&lan]).await;
    bench.start(&handle).await.expect("it can run");
    // It takes the signal only once it listens for it.
    world.speak(&handle).await;
    let mut lines = bench
        .engine
        .follow(&handle, None)
        .await
        .expect("it is there");
    tokio::time::timeout(PATIENCE, lines.next())
        .await
        .expect("it speaks")
        .expect("it goes on")
        .expect("it is a line");

    sample::serve(&mut web, &[ServiceKind::Redis, ServiceKind::Telnet]);
    bench
        .engine
        .configure(&handle, &web, &config(&web))
        .await
        .expect("it is told");
    let seen = bench.see(web.id).await.expect("it is there");
    assert_eq!(
        (seen.handle, seen.state),
        (handle.clone(), RunState::Running)
    );

    world.kill(&handle).await;
    bench
        .await_decky(web.id, "it has ended", |seen| {
            seen.state == RunState::Exited
        })
        .await;
    bench
        .engine
        .configure(&handle, &web, &config(&web))
        .await
        .expect("it reads it later");
    bench.start(&handle).await.expect("it can run");
    bench.clear().await;
}

async fn a_connection_is_made_and_undone_while_it_runs(world: &dyn World) {
    let bench = Bench::new(world);
    let (dmz, inner) = (
        sample::lan("dmz", world.subnet()),
        sample::lan("inner", world.subnet()),
    );
    let web = sample::decky("web", &[&dmz, &inner], 10);
    let topology = sample::topology(&[dmz.clone(), inner.clone()], std::slice::from_ref(&web));
    let (a, b) = (
        bench.lan(&topology, &dmz).await,
        bench.lan(&topology, &inner).await,
    );
    let mut one = web.clone();
    one.interfaces.truncate(1);
    let handle = bench.made(&topology, &one, &[&a]).await;
    bench.start(&handle).await.expect("it can run");

    bench
        .engine
        .connect(&handle, &b, &web.interfaces[1])
        .await
        .expect("it is not on it");
    bench.keep(&handle, wiring::of(&topology, &web));
    let wiring = bench.wiring(&handle);
    let rewired = bench.engine.rewire(&handle, &wiring).await;
    rewired.expect("the new interface can be wired");
    assert_eq!(bench.difference(web.id).await, None);
    let seen = bench.see(web.id).await.expect("it is there");
    assert!(
        seen.attachments
            .contains(&at(&b, web.interfaces[1].address)),
        "{seen:?}"
    );
    assert_eq!(
        kind(bench.engine.remove_lan(&b).await),
        Some(EngineErrorKind::Refused)
    );
    bench
        .engine
        .disconnect(&handle, &b)
        .await
        .expect("it is on it");
    let seen = bench.see(web.id).await.expect("it is there");
    assert_eq!(seen.attachments, [at(&a, web.interfaces[0].address)]);
    assert_eq!(seen.handle, handle);
    bench.keep(&handle, wiring::of(&topology, &one));
    let wiring = bench.wiring(&handle);
    let rewired = bench.engine.rewire(&handle, &wiring).await;
    rewired.expect("what is left can be wired");
    assert_eq!(bench.difference(web.id).await, None);

    let nowhere = Handle::new(LanId::new(sample::unique()).to_string());
    let refused = bench
        .engine
        .connect(&handle, &nowhere, &web.interfaces[1])
        .await;
    assert_eq!(kind(refused), Some(EngineErrorKind::NotFound));
    bench.clear().await;
}

async fn what_others_do_to_a_namespace_is_observed_and_mended(world: &dyn World) {
    let bench = Bench::new(world);
    let (dmz, inner) = (
        sample::lan("dmz", world.subnet()),
        sample::lan("inner", world.subnet()),
    );
    let gateway = sample::decky("gateway", &[&dmz, &inner], 10);
    let topology = sample::topology(
        &[dmz.clone(), inner.clone()],
        std::slice::from_ref(&gateway),
    );
    let (a, b) = (
        bench.lan(&topology, &dmz).await,
        bench.lan(&topology, &inner).await,
    );
    let handle = bench.made(&topology, &gateway, &[&a, &b]).await;
    let seen = bench.see(gateway.id).await.expect("it was made");
    assert_eq!(
        (seen.wiring, seen.published),
        (None, None),
        "it does not run"
    );
    bench.start(&handle).await.expect("it can run");
    assert_eq!(bench.difference(gateway.id).await, None);
    let seen = bench.see(gateway.id).await.expect("it was made");
    assert_eq!(seen.published, Some(Vec::new()));

    for (what, kind) in Tamper::ALL {
        world.tamper(&handle, what).await;
        assert_eq!(bench.difference(gateway.id).await, Some(kind), "{what:?}");
        let wiring = bench.wiring(&handle);
        let rewired = bench.engine.rewire(&handle, &wiring).await;
        rewired.expect("what differs can be mended while it runs");
        assert_eq!(bench.difference(gateway.id).await, None, "{what:?}");
    }
    let seen = bench.see(gateway.id).await.expect("it is there");
    assert_eq!(
        (seen.handle, seen.state),
        (handle.clone(), RunState::Running)
    );

    // A namespace that is new is wired by whoever starts it.
    world.kill(&handle).await;
    bench
        .await_decky(gateway.id, "it has ended", |seen| {
            seen.state == RunState::Exited && seen.wiring.is_none()
        })
        .await;
    bench.start(&handle).await.expect("it can run");
    assert_eq!(bench.difference(gateway.id).await, None);
    bench.clear().await;
}

async fn output_is_followed_from_where_it_was_left(world: &dyn World) {
    let bench = Bench::new(world);
    let dmz = sample::lan("dmz", world.subnet());
    let web = sample::decky("web", &[&dmz], 10);
    let topology = sample::topology(std::slice::from_ref(&dmz), std::slice::from_ref(&web));
    let lan = bench.lan(&topology, &dmz).await;
    let handle = bench.made(&topology, &web, &[&lan]).await;
    bench.start(&handle).await.expect("it can run");
    world.speak(&handle).await;

    let mut lines = bench
        .engine
        .follow(&handle, None)
        .await
        .expect("it is there");
    let first = tokio::time::timeout(PATIENCE, lines.next())
        .await
        .expect("it speaks");
    let first = first.expect("it goes on").expect("it is a line");
    assert!(!first.line.is_empty() && !first.line.contains(&b'\n'));
    assert!(first.at.unix_timestamp() > 0);

    let mut again = bench
        .engine
        .follow(&handle, Some(first.at))
        .await
        .expect("it is there");
    let same = tokio::time::timeout(PATIENCE, again.next())
        .await
        .expect("it speaks");
    assert_eq!(same.expect("it goes on").expect("it is a line"), first);

    world.kill(&handle).await;
    let end = async { while again.next().await.is_some() {} };
    tokio::time::timeout(PATIENCE, end)
        .await
        .expect("it ends with the container");
    bench.clear().await;
}

async fn changes_are_hinted_at(world: &dyn World) {
    let bench = Bench::new(world);
    let (dmz, inner) = (
        sample::lan("dmz", world.subnet()),
        sample::lan("inner", world.subnet()),
    );
    let one = sample::decky("one", &[&dmz, &inner], 10);
    let two = sample::decky("two", &[&dmz], 11);
    let topology = sample::topology(&[dmz.clone(), inner.clone()], &[one.clone(), two.clone()]);
    let (a, b) = (
        bench.lan(&topology, &dmz).await,
        bench.lan(&topology, &inner).await,
    );
    let first = bench.made(&topology, &one, &[&a, &b]).await;
    let second = bench.made(&topology, &two, &[&a]).await;
    for handle in [&first, &second] {
        bench.start(handle).await.expect("it can run");
    }
    bench.inventory().await;

    for what in [
        "a connection is cut",
        "a container is killed",
        "a container is removed",
    ] {
        let mut changes = bench.engine.changes().await.expect("the daemon answers");
        match what {
            "a connection is cut" => world.cut(&first, &b).await,
            "a container is killed" => world.kill(&first).await,
            _ => world.remove(&second).await,
        }
        let hint = tokio::time::timeout(PATIENCE, changes.next()).await;
        assert!(matches!(hint, Ok(Some(_))), "no hint: {what}");
    }
    bench.clear().await;
}

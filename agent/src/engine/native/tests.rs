use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering as AtomicOrdering};

use domain::topology::hydrate::HydratedTopology;
use domain::wiring;
use tempfile::TempDir;

use super::fabric::port;
use super::record::LanRecord;
use super::*;
use crate::engine::conformance::{Tamper, World, config, conforms, eventually};
use crate::engine::docker::tests::decky_binary;
use crate::engine::{label, name, sample};

/// The real kernel; whatever a test leaves in it is removed at the end, even of a panic.
pub(crate) struct RealKernel {
    data: TempDir,
    run: PathBuf,
    engines: Mutex<Vec<Arc<NativeEngine>>>,
    next: AtomicU16,
    base: u8,
}

impl RealKernel {
    /// `base` keeps the subnets and ports of tests that run at once apart.
    pub(crate) fn new(base: u8) -> Self {
        let id = sample::unique();
        Self {
            data: tempfile::tempdir().expect("the temporary directory is writable"),
            // Not below the data: deckies that are nobody must get there.
            run: format!("/run/decnet-test-{}", id.simple()).into(),
            engines: Mutex::default(),
            next: AtomicU16::new(0),
            base,
        }
    }

    pub(crate) fn native_engine(&self, host: HostId, board: LivenessBoard) -> Arc<NativeEngine> {
        let config = NativeConfig {
            host,
            decky_binary: decky_binary(),
            data_dir: self.data.path().join(host.to_string()),
            run_dir: Some(self.run.clone()),
            call_timeout: Duration::from_secs(30),
        };
        std::fs::create_dir_all(&config.data_dir).expect("the temporary directory is writable");
        let engine = Arc::new(NativeEngine::new(config, board));
        self.engines
            .lock()
            .expect("no test panics here")
            .push(Arc::clone(&engine));
        engine
    }

    fn all(&self) -> Vec<Arc<NativeEngine>> {
        self.engines.lock().expect("no test panics here").clone()
    }

    /// Whose decky it is.
    fn holder(&self, container: &Handle) -> Arc<NativeEngine> {
        let of = |engine: &&Arc<NativeEngine>| {
            let place = container.as_str();
            let record = engine.shared.deckies.read::<DeckyRecord>(place);
            record.is_ok_and(|record| record.is_some())
        };
        self.all().iter().find(of).cloned().expect("it is there")
    }

    fn pid(&self, container: &Handle) -> u32 {
        let shared = &self.holder(container).shared;
        let said = || {
            let file = shared.outputs.file(container.as_str());
            std::fs::read_to_string(file).unwrap_or_default()
        };
        shared
            .pid_of(container.as_str())
            .unwrap_or_else(|| panic!("the decky does not run; it has said: {}", said()))
    }
}

#[allow(clippy::disallowed_methods, reason = "a test is no daemon")]
fn system(words: &[&str]) -> String {
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .expect("the tests need iproute2, nftables and util-linux");
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program of the host in the network namespace of a process.
fn inside(pid: u32, words: &[&str]) -> String {
    let namespace = format!("--net=/proc/{pid}/ns/net");
    let mut all = vec!["nsenter", &namespace];
    all.extend(words);
    system(&all)
}

impl Drop for RealKernel {
    fn drop(&mut self) {
        // The runtime may be gone with a panic: a new one ends what is left.
        let engines = self.all();
        let clear = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("the machine has room for one");
            runtime.block_on(async {
                for engine in &engines {
                    let Ok(inventory) = engine.inventory().await else {
                        continue;
                    };
                    for decky in inventory.deckies {
                        engine.remove_decky(&decky.handle).await.ok();
                    }
                    for lan in inventory.lans {
                        engine.remove_lan(&lan.handle).await.ok();
                    }
                }
            });
        });
        clear.join().ok();
        for engine in self.all() {
            root::unmount_all(engine.shared.places.run()).ok();
        }
        std::fs::remove_dir_all(&self.run).ok();
    }
}

#[async_trait]
impl World for RealKernel {
    fn engine(&self, host: HostId) -> (Arc<dyn Engine>, LivenessBoard) {
        let board = LivenessBoard::new();
        (self.native_engine(host, board.clone()), board)
    }

    fn subnet(&self) -> Ipv4Net {
        let number = u32::from(self.next.fetch_add(1, AtomicOrdering::Relaxed));
        let base = u32::from(std::net::Ipv4Addr::new(10, 230, self.base, 0));
        Ipv4Net::new((base + number * 16).into(), 28).expect("28 is a length")
    }

    fn port(&self) -> u16 {
        27_000 + u16::from(self.base) * 20 + self.next.fetch_add(1, AtomicOrdering::Relaxed)
    }

    async fn kill(&self, container: &Handle) {
        let process = process::open_process(self.pid(container)).expect("it runs");
        let kill = rustix::process::Signal::KILL;
        rustix::process::pidfd_send_signal(&process, kill).expect("it runs");
    }

    async fn remove(&self, container: &Handle) {
        let id = container.as_str();
        for engine in self.all() {
            let shared = &engine.shared;
            let ours = shared
                .deckies
                .directory()
                .join(format!("{id}.json"))
                .exists();
            if ours {
                self.kill(container).await;
                eventually("it is dead", async || shared.pid_of(id).is_none()).await;
                shared.end_process(id).await.expect("it has ended");
                shared.outputs.remove(id).expect("the disk is there");
                shared.deckies.remove(id).expect("the disk is there");
            }
            std::fs::remove_dir_all(shared.places.runtime().join(id)).ok();
        }
    }

    async fn cut(&self, container: &Handle, network: &Handle) {
        let engine = self.holder(container);
        let lan = engine.shared.lans.read::<LanRecord>(network.as_str());
        let lan = lan.expect("the disk is there").expect("it was made");
        let topology = lan.topology().expect("it is whole");
        let fabric = engine
            .shared
            .fabrics
            .of(topology)
            .expect("the kernel answers");
        let port = port(container.as_str(), network.as_str());
        fabric
            .expect("it was made")
            .rtnl
            .remove(&port)
            .expect("it is on it");
    }

    async fn foreign_container(&self, name: &str) -> Handle {
        let engines = self.all();
        let engine = engines
            .iter()
            .find(|engine| name.starts_with(&crate::engine::name::prefix(engine.shared.host)))
            .expect("it is under the name of one");
        let place = engine.shared.places.runtime().join(name);
        std::fs::create_dir_all(place).expect("the directory is writable");
        Handle::new(name)
    }

    async fn foreign_network(&self, name: &str, subnet: Ipv4Net) -> Handle {
        let engine = self.all().first().cloned().expect("there is one");
        engine
            .shared
            .places
            .prepare()
            .expect("the directory is writable");
        let claim = claim::SubnetClaim {
            host: String::new(),
            subnet: subnet.to_string(),
            record: None,
        };
        engine
            .shared
            .subnets
            .make(name, &claim)
            .expect("the directory is writable");
        Handle::new(name)
    }

    async fn exists(&self, object: &Handle) -> bool {
        let name = object.as_str();
        self.all().iter().any(|engine| {
            let shared = &engine.shared;
            let file = format!("{name}.json");
            shared.deckies.directory().join(&file).exists()
                || shared.lans.directory().join(&file).exists()
                || shared.subnets.is_there(name)
                || shared.places.runtime().join(name).exists()
        })
    }

    async fn tamper(&self, container: &Handle, what: Tamper) {
        let pid = self.pid(container);
        match what {
            Tamper::Rules => inside(pid, &["nft", "flush", "table", "inet", "decnet"]),
            Tamper::Hole => inside(
                pid,
                &[
                    "nft", "insert", "rule", "inet", "decnet", "output", "accept",
                ],
            ),
            Tamper::Mac => inside(
                pid,
                &["ip", "link", "set", "eth0", "address", "02:00:00:00:00:01"],
            ),
            Tamper::Address => inside(pid, &["ip", "address", "flush", "dev", "eth0"]),
            Tamper::Route => inside(
                pid,
                &[
                    "ip",
                    "route",
                    "flush",
                    "root",
                    "0.0.0.0/0",
                    "proto",
                    "static",
                ],
            ),
            Tamper::Sysctl => inside(pid, &["sysctl", "-w", "net.ipv4.ip_default_ttl=77"]),
        };
    }

    async fn speak(&self, _container: &Handle) {}
}

#[tokio::test]
async fn native_conforms() {
    let world = RealKernel::new(10);
    conforms(&world).await;
    for engine in world.all() {
        // The shared root stays while it may be wanted at once.
        engine.shared.clear_if_empty().expect("the kernel answers");
        nothing_is_left_of(&engine);
    }
}

/// No process, namespace, mount, link, group, rule or file.
fn nothing_is_left_of(engine: &NativeEngine) {
    let shared = &engine.shared;
    let files = |directory: &Path| {
        std::fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    for directory in [
        shared.places.lans(),
        shared.places.deckies(),
        shared.places.outputs(),
        shared.places.run_dir(),
        shared.places.fabrics(),
    ] {
        assert_eq!(files(&directory), [] as [PathBuf; 0]);
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("the kernel answers");
    let run = shared.places.run().to_string_lossy().into_owned();
    assert!(!mounts.contains(&run), "{mounts}");
    let links = system(&["ip", "-o", "link"]);
    assert!(
        !links.contains(&fabric::uplink_prefix(shared.host)),
        "{links}"
    );
    let tables = system(&["nft", "list", "tables"]);
    assert!(
        !tables.contains(&publish::table_name(shared.host)),
        "{tables}"
    );
    let groups = system(&[
        "find",
        "/sys/fs/cgroup",
        "-type",
        "d",
        "-name",
        &shared.host.to_string(),
    ]);
    assert_eq!(groups, "");
}

/// A host with a gateway that runs, published, on a DMZ and an inner LAN.
struct Stage {
    world: RealKernel,
    engine: Arc<NativeEngine>,
    topology: HydratedTopology,
    decky: HydratedDecky,
    handle: Handle,
    lans: Vec<Handle>,
    port: u16,
}

impl Stage {
    async fn set(base: u8) -> Self {
        let world = RealKernel::new(base);
        let host = HostId::new(sample::unique());
        let engine = world.native_engine(host, LivenessBoard::new());
        engine.ensure_image().await.expect("the binary is there");
        let (dmz, inner) = (
            sample::lan("dmz", world.subnet()),
            sample::lan("inner", world.subnet()),
        );
        let mut decky = sample::decky("gateway", &[&dmz, &inner], 3);
        let port = world.port();
        sample::publish(&mut decky, port);
        let topology =
            sample::topology(&[dmz.clone(), inner.clone()], std::slice::from_ref(&decky));
        let origin = Origin {
            topology: topology.id,
            generation: domain::revision::Generation::new(1),
        };
        let mut lans = Vec::new();
        for (depth, lan) in [&dmz, &inner].into_iter().enumerate() {
            let depth = u32::try_from(depth).expect("two");
            let made = engine.create_lan(origin, lan, depth).await;
            lans.push(made.expect("nothing stands against it"));
        }
        let wiring = wiring::of(&topology, &decky);
        let networks = lans.iter().cloned().zip(decky.interfaces.clone()).collect();
        let new = NewDecky {
            origin,
            decky: &decky,
            networks,
            config: &config(&decky),
            wiring: &wiring,
        };
        let handle = engine
            .create_decky(new)
            .await
            .expect("nothing stands against it");
        engine
            .start_decky(&handle, &wiring)
            .await
            .expect("it can run");
        Self {
            world,
            engine,
            topology,
            decky,
            handle,
            lans,
            port,
        }
    }

    async fn clear(&self) {
        self.engine
            .remove_decky(&self.handle)
            .await
            .expect("it is ours");
        for lan in &self.lans {
            self.engine.remove_lan(lan).await.expect("it is ours");
        }
        nothing_is_left_of(&self.engine);
    }
}

async fn answers(address: &str, port: u16) -> bool {
    let connect = tokio::net::TcpStream::connect((address, port));
    tokio::time::timeout(Duration::from_secs(1), connect)
        .await
        .is_ok_and(|connected| connected.is_ok())
}

#[tokio::test]
async fn a_native_decky_is_hardened_and_reads_its_configuration() {
    let stage = Stage::set(11).await;
    let pid = stage.world.pid(&stage.handle);
    let read =
        |path: &str| std::fs::read_to_string(format!("/proc/{pid}/{path}")).expect("it runs");
    let status = read("status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.unwrap_or_default()
            .split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(
        (field("NoNewPrivs:"), field("Seccomp:")),
        ("1".into(), "2".into())
    );
    // Not the host's user of that number: a user namespace stands between.
    let user: u32 = field("Uid:").parse().expect("it is a number");
    let mapped = read("uid_map");
    let first: u32 = mapped
        .split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .parse()
        .expect("a map");
    assert_eq!(user, first + 65534, "{mapped}");
    for kind in ["net", "pid", "ipc", "uts", "mnt", "cgroup", "user"] {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("it runs");
        assert_ne!(of(&pid.to_string()), of("self"), "{kind}");
    }
    assert!(read("root/etc/decnet/decky.json").contains("gateway"));
    let limits = read("limits");
    let size = limits
        .lines()
        .find(|line| line.starts_with("Max file size"))
        .unwrap_or_default();
    assert!(size.contains("33554432"), "{limits}");
    let mounts = read("mountinfo");
    let root = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some("/"))
        .unwrap_or_default();
    assert!(
        root.split(' ')
            .nth(5)
            .is_some_and(|flags| flags.contains("ro")),
        "{mounts}"
    );
    assert!(
        mounts
            .lines()
            .all(|line| line.split(' ').nth(4) != Some("/sys")),
        "{mounts}"
    );
    stage.clear().await;
}

#[tokio::test]
async fn the_output_of_a_native_decky_is_never_its_own_file() {
    let stage = Stage::set(15).await;
    let file = stage.engine.shared.outputs.file(stage.handle.as_str());
    let owner = || {
        let file = std::fs::metadata(&file).expect("it is there");
        (file.uid(), file.permissions().mode() & 0o777)
    };
    let own = rustix::process::geteuid().as_raw();
    assert_eq!(owner(), (own, 0o600));

    // Also where a decky is a user of the machine itself.
    for prepared in stage.engine.shared.ready.lock().await.values_mut() {
        prepared.users = Users::Hosts;
    }
    let ended = stage.engine.shared.end_process(stage.handle.as_str()).await;
    ended.expect("it is ours");
    let wiring = wiring::of(&stage.topology, &stage.decky);
    let started = stage.engine.start_decky(&stage.handle, &wiring).await;
    started.expect("it can run");
    let decky = std::fs::metadata(format!("/proc/{}", stage.world.pid(&stage.handle)));
    assert_eq!(decky.expect("it runs").uid(), 65_534);
    assert_eq!(owner(), (own, 0o600));

    // As if the agent had been killed before it could take the file back.
    std::os::unix::fs::chown(&file, Some(65_534), None).expect("the tests run as root");
    let lines = stage.engine.follow(&stage.handle, None).await;
    drop(lines.expect("it is there"));
    assert_eq!(owner(), (own, 0o600));
    stage.clear().await;
}

#[tokio::test]
async fn a_native_port_is_published_from_everywhere_and_the_host_is_on_no_inner_lan() {
    let stage = Stage::set(12).await;
    let outer = stage.decky.interfaces[0].address.to_string();
    eventually("the service answers", async || answers(&outer, 80).await).await;
    eventually("the port is published", async || {
        answers("127.0.0.1", stage.port).await
    })
    .await;
    let inner = stage
        .topology
        .lans
        .iter()
        .find(|lan| lan.name.as_str() == "inner");
    let inner = inner.expect("it was made").subnet.to_string();
    let routes = system(&["ip", "route"]);
    assert!(!routes.contains(&inner), "{routes}");
    // Whoever takes the rules away is found out, and they come back.
    let published = async || {
        let inventory = stage.engine.inventory().await.expect("the kernel answers");
        inventory.deckies[0].published.clone().unwrap_or_default()
    };
    assert_eq!(published().await, stage.decky.publish);
    let table = publish::table_name(stage.engine.shared.host);
    system(&["nft", "delete", "table", "inet", &table]);
    assert_eq!(published().await, []);
    let wiring = wiring::of(&stage.topology, &stage.decky);
    stage
        .engine
        .rewire(&stage.handle, &wiring)
        .await
        .expect("it runs");
    assert_eq!(published().await, stage.decky.publish);
    assert!(answers("127.0.0.1", stage.port).await);
    stage.clear().await;
}

#[tokio::test]
async fn a_native_decky_outlives_its_engine_and_is_found_again() {
    let stage = Stage::set(13).await;
    let pid = stage.world.pid(&stage.handle);
    // As an agent that starts anew: it knows nothing.
    let host = stage.engine.shared.host;
    let other = stage.world.native_engine(host, LivenessBoard::new());
    let inventory = other.inventory().await.expect("the kernel answers");
    let seen = &inventory.deckies[0];
    assert_eq!((&seen.handle, inventory.deckies.len()), (&stage.handle, 1));
    let wiring = wiring::of(&stage.topology, &stage.decky);
    let seen = seen.wiring.as_ref().expect("it runs");
    assert_eq!(
        wiring.difference(seen, &crate::netns::rules::digest(&wiring)),
        None
    );
    assert_eq!(stage.world.pid(&stage.handle), pid);
    use futures_util::StreamExt as _;
    let mut lines = other
        .follow(&stage.handle, None)
        .await
        .expect("it is there");
    let line = lines
        .next()
        .await
        .expect("it has spoken")
        .expect("it is a line");
    assert!(line.line.starts_with(b"{"), "{line:?}");
    stage.clear().await;
}

#[tokio::test]
async fn a_native_lan_or_decky_that_is_half_made_is_seen_and_can_be_removed() {
    let stage = Stage::set(14).await;
    let shared = &stage.engine.shared;
    // As if a kill had come after the first write of each.
    let lans = shared.own_lans().expect("the disk is there");
    let mut lan = lans[0].1.clone();
    let id = domain::id::LanId::new(sample::unique());
    lan.labels.insert(label::LAN.to_owned(), id.to_string());
    let half_lan = Handle::new(name::lan(shared.host, 1, id, 1));
    shared
        .lans
        .write(half_lan.as_str(), &lan)
        .expect("the disk is there");
    let record = shared.deckies.read::<DeckyRecord>(stage.handle.as_str());
    let mut record = record.expect("the disk is there").expect("it was made");
    let id = domain::id::DeckyId::new(sample::unique());
    record
        .labels
        .insert(label::DECKY.to_owned(), id.to_string());
    let half_decky = Handle::new(format!("{}-00000000", name::decky(shared.host, id, 1)));
    shared
        .deckies
        .write(half_decky.as_str(), &record)
        .expect("the disk is there");

    let inventory = stage.engine.inventory().await.expect("the kernel answers");
    let decky = inventory
        .deckies
        .iter()
        .find(|decky| decky.handle == half_decky);
    // Its file is written when it is started.
    let decky = decky.map(|decky| (decky.state, decky.spec));
    assert_eq!(
        decky,
        Some((domain::observe::RunState::Created, Some(stage.decky.spec())))
    );
    let lan = inventory.lan_of(&half_lan).map(|lan| lan.spec);
    assert_eq!(lan, Some(None));
    stage
        .engine
        .remove_decky(&half_decky)
        .await
        .expect("it is ours");
    stage
        .engine
        .remove_lan(&half_lan)
        .await
        .expect("it is ours");
    stage.clear().await;
}

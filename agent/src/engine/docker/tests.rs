use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use bollard::Docker;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::engine::conformance::{Tamper, World, conforms, eventually};
use crate::engine::{label, sample};

/// A real daemon; whatever a test leaves on it is removed at the end, even of a panic.
pub(crate) struct RealDaemon {
    data: TempDir,
    docker: Docker,
    engines: Mutex<Vec<Arc<DockerEngine>>>,
    hosts: Mutex<Vec<HostId>>,
    strangers: Mutex<Vec<Handle>>,
    next: AtomicU16,
    base: u8,
}

impl RealDaemon {
    /// `base` keeps the subnets and ports of tests that run at once apart.
    pub(crate) fn new(base: u8) -> Self {
        Self {
            data: tempfile::tempdir().expect("the temporary directory is writable"),
            docker: Docker::connect_with_unix_defaults().expect("the tests need a Docker daemon"),
            engines: Mutex::default(),
            hosts: Mutex::default(),
            strangers: Mutex::default(),
            next: AtomicU16::new(0),
            base,
        }
    }

    pub(crate) fn docker_engine(&self, host: HostId, board: LivenessBoard) -> Arc<DockerEngine> {
        let config = DockerConfig {
            host,
            decky_binary: decky_binary(),
            data_dir: self.data.path().join(host.to_string()),
            socket: None,
            call_timeout: Duration::from_secs(30),
        };
        std::fs::create_dir_all(&config.data_dir).expect("the temporary directory is writable");
        self.hosts.lock().expect("no test panics here").push(host);
        Arc::new(DockerEngine::connect(config, board))
    }
}

/// The static binary that `make build-decky` makes.
pub(crate) fn decky_binary() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/x86_64-unknown-linux-gnu/release/decnet-decky");
    assert!(
        path.exists(),
        "{} is missing: run `make build-decky`",
        path.display()
    );
    path
}

impl Drop for RealDaemon {
    fn drop(&mut self) {
        // The runtime may be gone with a panic: the command line needs none.
        #[allow(clippy::disallowed_methods, reason = "a test is no daemon")]
        let docker = |args: &[&str]| {
            let output = Command::new("docker").args(args).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let remove = |list: &[&str], remove: &[&str]| {
            let ids = docker(list).unwrap_or_default();
            let ids: Vec<_> = ids.split_whitespace().collect();
            if !ids.is_empty() {
                docker(&[remove, &ids[..]].concat()).ok();
            }
        };
        for host in self.hosts.lock().expect("no test panics here").iter() {
            let filter = format!("label={}={host}", label::HOST);
            remove(&["ps", "-aq", "--filter", &filter], &["rm", "-f"]);
            remove(
                &["network", "ls", "-q", "--filter", &filter],
                &["network", "rm"],
            );
        }
        for stranger in self.strangers.lock().expect("no test panics here").iter() {
            docker(&["rm", "-f", stranger.as_str()]).ok();
            docker(&["network", "rm", stranger.as_str()]).ok();
        }
    }
}

#[async_trait]
impl World for RealDaemon {
    fn engine(&self, host: HostId) -> (Arc<dyn Engine>, LivenessBoard) {
        let board = LivenessBoard::new();
        let engine = self.docker_engine(host, board.clone());
        self.engines
            .lock()
            .expect("no test panics here")
            .push(engine.clone());
        (engine, board)
    }

    fn subnet(&self) -> Ipv4Net {
        // /28 networks: many tests fit into one byte's worth of 10.231.0.0/16.
        let number = u32::from(self.next.fetch_add(1, Ordering::Relaxed));
        let base = u32::from(std::net::Ipv4Addr::new(10, 231, self.base, 0));
        Ipv4Net::new((base + number * 16).into(), 28).expect("28 is a length")
    }

    fn port(&self) -> u16 {
        20_000 + u16::from(self.base) * 20 + self.next.fetch_add(1, Ordering::Relaxed)
    }

    async fn kill(&self, container: &Handle) {
        self.docker
            .kill_container(container.as_str(), None::<query::KillContainerOptions>)
            .await
            .expect("it runs");
    }

    async fn remove(&self, container: &Handle) {
        let options = query::RemoveContainerOptionsBuilder::default()
            .force(true)
            .build();
        self.docker
            .remove_container(container.as_str(), Some(options))
            .await
            .expect("it is there");
    }

    async fn cut(&self, container: &Handle, network: &Handle) {
        let request = bollard::models::NetworkDisconnectRequest {
            container: container.as_str().to_owned(),
            force: Some(true),
        };
        self.docker
            .disconnect_network(network.as_str(), request)
            .await
            .expect("it is on it");
    }

    async fn foreign_container(&self, name: &str) -> Handle {
        let engine = self.engines.lock().expect("no test panics here")[0].clone();
        engine.ensure_image().await.expect("the binary is there");
        let body = json!({ "Image": engine.image().await.expect("the binary is there"), "Entrypoint": ["/decnet-decky"] });
        let path = format!("/containers/create?name={name}");
        let id = engine
            .client
            .create("stranger", &path, &body)
            .await
            .expect("the daemon answers");
        let handle = Handle::new(id.expect("the name is free"));
        self.strangers
            .lock()
            .expect("no test panics here")
            .push(handle.clone());
        handle
    }

    async fn foreign_network(&self, name: &str, subnet: Ipv4Net) -> Handle {
        let engine = self.engines.lock().expect("no test panics here")[0].clone();
        let ipam = json!({ "Config": [{ "Subnet": subnet.to_string() }] });
        let body = json!({ "Name": name, "CheckDuplicate": true, "IPAM": ipam });
        let id = engine
            .client
            .create("stranger", "/networks/create", &body)
            .await;
        let handle = Handle::new(id.expect("the daemon answers").expect("the name is free"));
        self.strangers
            .lock()
            .expect("no test panics here")
            .push(handle.clone());
        handle
    }

    async fn exists(&self, object: &Handle) -> bool {
        let network = None::<query::InspectNetworkOptions>;
        let container = None::<query::InspectContainerOptions>;
        self.docker
            .inspect_network(object.as_str(), network)
            .await
            .is_ok()
            || self
                .docker
                .inspect_container(object.as_str(), container)
                .await
                .is_ok()
    }

    async fn tamper(&self, _container: &Handle, _what: Tamper) {}

    async fn speak(&self, _container: &Handle) {}
}

#[tokio::test]
async fn docker_conforms() {
    conforms(&RealDaemon::new(10)).await;
}

#[tokio::test]
async fn construction_asks_nothing_and_a_missing_daemon_is_unreachable() {
    let config = DockerConfig {
        host: HostId::new(sample::unique()),
        decky_binary: "/nowhere".into(),
        data_dir: "/nowhere".into(),
        socket: Some("/nowhere/docker.sock".into()),
        call_timeout: Duration::from_secs(1),
    };
    let engine = DockerEngine::connect(config, LivenessBoard::new());
    let error = engine.inventory().await.expect_err("there is no daemon");
    assert_eq!(error.kind, EngineErrorKind::Unreachable);
    let error = engine.ensure_image().await.expect_err("there is no binary");
    assert_eq!(error.kind, EngineErrorKind::ImageMissing);
}

#[tokio::test]
async fn a_daemon_that_hangs_is_a_timeout() {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let socket = directory.path().join("docker.sock");
    let listener = tokio::net::UnixListener::bind(&socket).expect("the path is free");
    let config = DockerConfig {
        host: HostId::new(sample::unique()),
        decky_binary: "/nowhere".into(),
        data_dir: directory.path().into(),
        socket: Some(socket),
        call_timeout: Duration::from_millis(100),
    };
    let engine = DockerEngine::connect(config, LivenessBoard::new());
    let error = engine.inventory().await.expect_err("nobody answers");
    assert_eq!(error.kind, EngineErrorKind::Timeout);
    drop(listener);
    let error = engine.inventory().await.expect_err("nobody listens");
    assert_eq!(error.kind, EngineErrorKind::Unreachable);
}

#[tokio::test]
async fn a_container_is_hardened_and_reads_its_configuration() {
    let world = RealDaemon::new(11);
    let host = HostId::new(sample::unique());
    let engine = world.docker_engine(host, LivenessBoard::new());
    engine.ensure_image().await.expect("the binary is there");
    let (dmz, inner) = (
        sample::lan("dmz", world.subnet()),
        sample::lan("inner", world.subnet()),
    );
    let mut gateway = sample::decky("gateway", &[&dmz, &inner], 3);
    sample::publish(&mut gateway, world.port());
    let topology = sample::topology(
        &[dmz.clone(), inner.clone()],
        std::slice::from_ref(&gateway),
    );
    let origin = Origin {
        topology: topology.id,
        generation: domain::revision::Generation::new(1),
    };
    let make = async |lan: &HydratedLan, depth| {
        engine
            .create_lan(origin, lan, depth)
            .await
            .expect("nothing stands against it")
    };
    // The one that sorts last is made first: the default route must not depend on that.
    let (b, a) = (make(&inner, 1).await, make(&dmz, 0).await);
    let networks = vec![(a, gateway.interfaces[0]), (b, gateway.interfaces[1])];
    let config = crate::engine::conformance::config(&gateway);
    let wiring = domain::wiring::of(&topology, &gateway);
    let new = NewDecky {
        origin,
        decky: &gateway,
        networks,
        config: &config,
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

    let options = None::<query::InspectContainerOptions>;
    let shown = world
        .docker
        .inspect_container(handle.as_str(), options)
        .await
        .expect("it is there");
    let host_config = shown.host_config.expect("the daemon shows it");
    assert_eq!(
        host_config.cap_drop.as_deref(),
        Some(&["ALL".to_owned()][..])
    );
    assert_eq!(host_config.readonly_rootfs, Some(true));
    assert_eq!(host_config.memory, Some(64 * 1024 * 1024));
    assert_eq!(host_config.memory_swap, host_config.memory);
    assert_eq!(host_config.pids_limit, Some(64));
    let pid = shown.state.and_then(|state| state.pid).expect("it runs");
    let read =
        |path: &str| std::fs::read_to_string(format!("/proc/{pid}/{path}")).expect("it runs");
    let status = read("status");
    let field = |name: &str| {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(field("CapEff:"), "0000000000000000");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Uid:"), "65534");
    // The namespaces of another process are read through its root, without entering them.
    assert!(read("root/etc/decnet/decky.json").contains("gateway"));
    let route = read("net/route");
    let default = route
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some("00000000"));
    let gateway_bits = format!("{:08X}", u32::from(dmz.gateway).swap_bytes());
    assert!(
        default.is_some_and(|line| line.contains(&gateway_bits)),
        "{route}"
    );
    let settings = shown
        .network_settings
        .and_then(|settings| settings.networks);
    let cards: Vec<_> = settings
        .into_iter()
        .flatten()
        .filter_map(|(_, endpoint)| endpoint.mac_address)
        .collect();
    assert!(
        cards.contains(&gateway.interfaces[0].mac.to_string()),
        "{cards:?}"
    );
}

#[tokio::test]
async fn a_decky_keeps_its_file_while_a_second_container_of_it_is_removed() {
    let world = RealDaemon::new(12);
    let host = HostId::new(sample::unique());
    let engine = world.docker_engine(host, LivenessBoard::new());
    engine.ensure_image().await.expect("the binary is there");
    let dmz = sample::lan("dmz", world.subnet());
    let web = sample::decky("web", &[&dmz], 3);
    let topology = sample::topology(std::slice::from_ref(&dmz), std::slice::from_ref(&web));
    let origin = Origin {
        topology: topology.id,
        generation: domain::revision::Generation::new(1),
    };
    let lan = engine
        .create_lan(origin, &dmz, 0)
        .await
        .expect("nothing stands against it");
    let wiring = domain::wiring::of(&topology, &web);
    let mut made = Vec::new();
    for _ in 0..2 {
        let networks = vec![(lan.clone(), web.interfaces[0])];
        let new = NewDecky {
            origin,
            decky: &web,
            networks,
            config: b"{}",
            wiring: &wiring,
        };
        made.push(
            engine
                .create_decky(new)
                .await
                .expect("the second gets another name"),
        );
    }
    let file = engine
        .files
        .directory(web.id)
        .join(proto::decky_config::FILE_NAME);
    engine
        .remove_decky(&made[0])
        .await
        .expect("ours can be removed");
    assert!(file.exists());
    engine
        .remove_decky(&made[1])
        .await
        .expect("ours can be removed");
    assert!(!file.exists());
    eventually("both are gone", async || !world.exists(&made[0]).await).await;
}

use std::path::Path;
use std::process::Command;

use bollard::Docker;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::chain::Chain;
use crate::engine::conformance::{Tamper, World, conforms, eventually};
use crate::engine::slot::Slot;
use crate::engine::{label, sample};
use crate::netns;

/// A real daemon; whatever a test leaves on it is removed at the end, even of a panic.
pub(crate) struct RealDaemon {
    data: TempDir,
    docker: Docker,
    engines: Mutex<Vec<Arc<DockerEngine>>>,
    hosts: Mutex<Vec<HostId>>,
    strangers: Mutex<Vec<Handle>>,
    slot: Slot,
}

impl RealDaemon {
    /// Takes the slot of that number, and removes what a test that was killed has left there.
    pub(crate) fn new(slot: u8) -> Self {
        let slot = Slot::docker(slot);
        sweep(slot.subnets());
        Self {
            data: tempfile::tempdir().expect("the temporary directory is writable"),
            docker: Docker::connect_with_unix_defaults().expect("the tests need a Docker daemon"),
            engines: Mutex::default(),
            hosts: Mutex::default(),
            strangers: Mutex::default(),
            slot,
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

    async fn pid(&self, container: &Handle) -> i64 {
        let options = None::<query::InspectContainerOptions>;
        let shown = self
            .docker
            .inspect_container(container.as_str(), options)
            .await
            .expect("it is there");
        shown.state.and_then(|state| state.pid).expect("it runs")
    }
}

/// Runs a command in the network namespace of a process, as an operator with root would.
pub(crate) fn inside(pid: i64, command: &str) -> String {
    #[allow(clippy::disallowed_methods, reason = "a test is no daemon")]
    let output = Command::new("nsenter")
        .args(["--net", "--target", &pid.to_string()])
        .args(command.split_whitespace())
        .output()
        .expect("util-linux is installed");
    let refusal = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {refusal}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The static binary of the deckies, where the end-to-end tests have it too.
pub(crate) fn decky_binary() -> PathBuf {
    #[allow(clippy::disallowed_methods, reason = "a test is no daemon")]
    let folder = std::env::var_os("DECNET_BIN_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/e2e"),
        PathBuf::from,
    );
    let path = folder.join("decnet-decky");
    assert!(
        path.exists(),
        "{} is missing: run `scripts/build.sh test`",
        path.display()
    );
    path
}

/// Runs `docker` and gives what it prints; what is not there cannot be removed, and that is well.
fn docker(arguments: &[&str]) -> String {
    #[allow(clippy::disallowed_methods, reason = "a test is no daemon")]
    let output = Command::new("docker").args(arguments).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

/// Does something with everything that is listed.
fn with_each(list: &[&str], command: &[&str]) {
    let ids = docker(list);
    let ids: Vec<_> = ids.split_whitespace().collect();
    if !ids.is_empty() {
        docker(&[command, &ids[..]].concat());
    }
}

/// Removes every network in these subnets, and its containers.
fn sweep(subnets: Ipv4Net) {
    let format = "{{range .IPAM.Config}}{{.Subnet}} {{end}}";
    for id in docker(&["network", "ls", "-q"]).split_whitespace() {
        let has = docker(&["network", "inspect", "--format", format, id]);
        let mut has = has.split_whitespace().filter_map(|net| net.parse().ok());
        if has.any(|net: Ipv4Net| subnets.contains(&net)) {
            let filter = format!("network={id}");
            with_each(&["ps", "-aq", "--filter", &filter], &["rm", "-f"]);
            docker(&["network", "rm", id]);
        }
    }
}

impl Drop for RealDaemon {
    fn drop(&mut self) {
        // The runtime may be gone with a panic: the command line needs none.
        for host in self.hosts.lock().expect("no test panics here").iter() {
            let filter = format!("label={}={host}", label::HOST);
            with_each(&["ps", "-aq", "--filter", &filter], &["rm", "-f"]);
            with_each(
                &["network", "ls", "-q", "--filter", &filter],
                &["network", "rm"],
            );
        }
        for stranger in self.strangers.lock().expect("no test panics here").iter() {
            docker(&["rm", "-f", stranger.as_str()]);
            docker(&["network", "rm", stranger.as_str()]);
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
        self.slot.subnet()
    }

    fn port(&self) -> u16 {
        self.slot.port()
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

    async fn tamper(&self, container: &Handle, what: Tamper) {
        let pid = self.pid(container).await;
        inside(
            pid,
            match what {
                Tamper::Rules => "nft flush table inet decnet",
                Tamper::Hole => "nft insert rule inet decnet output accept",
                Tamper::Mac => "ip link set eth0 address 02:00:00:00:00:02",
                Tamper::Address => "ip addr flush dev eth1",
                Tamper::Route => "ip route del default",
                Tamper::Sysctl => "sysctl -q -w net.ipv4.ip_default_ttl=17",
            },
        );
    }

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
        call_timeout: Duration::from_secs(10),
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
    let patient_for = |call_timeout| {
        let config = DockerConfig {
            host: HostId::new(sample::unique()),
            decky_binary: "/nowhere".into(),
            data_dir: directory.path().into(),
            socket: Some(socket.clone()),
            call_timeout,
        };
        DockerEngine::connect(config, LivenessBoard::new())
    };
    let engine = patient_for(Duration::from_millis(100));
    let error = engine.inventory().await.expect_err("nobody answers");
    assert_eq!(error.kind, EngineErrorKind::Timeout);
    drop(listener);
    let engine = patient_for(Duration::from_secs(10));
    let error = engine.inventory().await.expect_err("nobody listens");
    assert_eq!(error.kind, EngineErrorKind::Unreachable);
}

/// Answers every request with one status and `{}`, one request a connection.
fn daemon_that_says(status: &'static str) -> (tempfile::TempDir, DockerEngine) {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    let socket = directory.path().join("docker.sock");
    let listener = tokio::net::UnixListener::bind(&socket).expect("the path is free");
    let answers = async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
                 Connection: close\r\n\r\n{{}}"
            );
            drop(stream.write_all(answer.as_bytes()).await);
        }
    };
    crate::task::spawn("daemon", tracing::Span::none(), answers);
    let config = DockerConfig {
        host: HostId::new(sample::unique()),
        decky_binary: "/nowhere".into(),
        data_dir: directory.path().into(),
        socket: Some(socket),
        call_timeout: Duration::from_secs(5),
    };
    let engine = DockerEngine::connect(config, LivenessBoard::new());
    (directory, engine)
}

#[tokio::test]
async fn a_network_that_cannot_be_looked_at_is_not_taken_for_right() {
    let running = [(
        Handle::new("a-container".to_owned()),
        DeckyId::new(sample::unique()),
    )];
    let (_directory, failing) = daemon_that_says("500 Internal Server Error");
    let seen = failing.look_at(&running).await;
    assert_eq!(
        seen.get(&running[0].0),
        Some(&domain::wiring::ObservedWiring::default())
    );

    let (_directory, unknowing) = daemon_that_says("404 Not Found");
    let seen = unknowing.look_at(&running).await;
    assert!(seen.is_empty(), "it is gone: {seen:?}");
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

/// One topology on one host, each decky started.
struct Deployed {
    topology: domain::topology::hydrate::HydratedTopology,
    lans: Vec<Handle>,
    deckies: Vec<Handle>,
}

impl Deployed {
    async fn on(engine: &DockerEngine, lans: &[HydratedLan], deckies: &[HydratedDecky]) -> Self {
        engine.ensure_image().await.expect("the binary is there");
        let topology = sample::topology(lans, deckies);
        let origin = Origin {
            topology: topology.id,
            generation: domain::revision::Generation::new(1),
        };
        let mut made = Self {
            topology,
            lans: Vec::new(),
            deckies: Vec::new(),
        };
        for (depth, lan) in (0..).zip(lans) {
            let handle = engine.create_lan(origin, lan, depth).await;
            made.lans
                .push(handle.unwrap_or_else(|error| panic!("{}", Chain(&error))));
        }
        for decky in deckies {
            let networks = decky.interfaces.iter().map(|interface| {
                let index = lans.iter().position(|lan| lan.id == interface.lan);
                (
                    made.lans[index.expect("it is one of these")].clone(),
                    *interface,
                )
            });
            let wiring = made.wiring(decky);
            let new = NewDecky {
                origin,
                decky,
                networks: networks.collect(),
                config: &crate::engine::conformance::config(decky),
                wiring: &wiring,
            };
            let handle = engine
                .create_decky(new)
                .await
                .expect("nothing stands against it");
            let started = engine.start_decky(&handle, &wiring).await;
            started.unwrap_or_else(|error| panic!("{}", Chain(&error)));
            made.deckies.push(handle);
        }
        made
    }

    fn wiring(&self, decky: &HydratedDecky) -> Wiring {
        domain::wiring::of(&self.topology, decky)
    }

    async fn difference(
        &self,
        engine: &DockerEngine,
        decky: &HydratedDecky,
    ) -> Option<domain::observe::DriftKind> {
        let inventory = engine.inventory().await.expect("the daemon answers");
        let seen = inventory
            .deckies
            .into_iter()
            .find(|seen| seen.id == decky.id);
        let wiring = self.wiring(decky);
        let rules = crate::netns::rules::digest(&wiring);
        let seen = seen.and_then(|seen| seen.wiring).expect("it runs");
        wiring.difference(&seen, &rules)
    }
}

#[tokio::test]
async fn a_container_is_closed_until_it_is_wired_and_a_new_agent_knows_its_seal() {
    use domain::observe::DriftKind;

    let world = RealDaemon::new(14);
    let host = HostId::new(sample::unique());
    let engine = world.docker_engine(host, LivenessBoard::new());
    let lans = [
        sample::lan("dmz", world.subnet()),
        sample::lan("inner", world.subnet()),
    ];
    let gateway = sample::decky("gateway", &[&lans[0], &lans[1]], 3);
    let made = Deployed::on(&engine, &lans, std::slice::from_ref(&gateway)).await;
    assert_eq!(made.difference(&engine, &gateway).await, None);
    let pid = world.pid(&made.deckies[0]).await;
    let links = inside(pid, "ip -o link");
    for interface in &gateway.interfaces {
        assert!(links.contains(&interface.mac.to_string()), "{links}");
    }
    assert_eq!(
        inside(pid, "sysctl -n net.ipv4.ping_group_range").trim(),
        "1\t0"
    );

    // Another process of the agent: what it knows it has read.
    let second = world.docker_engine(host, LivenessBoard::new());
    assert_eq!(made.difference(&second, &gateway).await, None);
    inside(pid, "nft flush table inet decnet");
    let third = world.docker_engine(host, LivenessBoard::new());
    assert_eq!(
        made.difference(&third, &gateway).await,
        Some(DriftKind::Unsealed)
    );

    // Somebody starts it anew: its namespace is new too, and closed.
    let restart = None::<query::RestartContainerOptions>;
    let restarted = world
        .docker
        .restart_container(made.deckies[0].as_str(), restart);
    restarted.await.expect("it is there");
    let pid = world.pid(&made.deckies[0]).await;
    assert_eq!(
        inside(pid, "sysctl -n net.ipv4.ip_unprivileged_port_start").trim(),
        "1024"
    );
    assert_eq!(
        made.difference(&second, &gateway).await,
        Some(DriftKind::Unsealed)
    );
    let wiring = made.wiring(&gateway);
    second
        .rewire(&made.deckies[0], &wiring)
        .await
        .expect("it runs");
    assert_eq!(made.difference(&second, &gateway).await, None);
    let seal = engine.files.read_seal(gateway.id).await;
    assert!(seal.is_some());
    second
        .remove_decky(&made.deckies[0])
        .await
        .expect("ours can be removed");
    assert_eq!(engine.files.read_seal(gateway.id).await, None);
}

#[tokio::test]
async fn a_docker_lan_speaks_ipv6_where_it_is_to() {
    let world = RealDaemon::new(15);
    let engine = world.docker_engine(HostId::new(sample::unique()), LivenessBoard::new());
    let mut dmz = sample::lan("dmz", world.subnet());
    let subnet: ipnet::Ipv6Net = "fd0d:ec14::/64".parse().expect("it is one");
    dmz.subnet6 = Some(subnet);
    let mut web = sample::decky("web", &[&dmz], 3);
    let mac = web.interfaces[0].mac;
    let address = domain::topology::hydrate::interface_address6(subnet, mac);
    web.interfaces[0].address6 = Some(address);
    let made = Deployed::on(&engine, &[dmz], std::slice::from_ref(&web)).await;
    assert_eq!(made.difference(&engine, &web).await, None);
    let shown = inside(
        world.pid(&made.deckies[0]).await,
        "ip -6 -o addr show scope global",
    );
    assert!(shown.contains(&format!("{address}/64")), "{shown}");
    assert_eq!(shown.lines().count(), 1, "{shown}");
}

#[tokio::test]
async fn a_docker_lan_on_a_real_network_takes_its_interface_and_names_what_is_missing() {
    let world = RealDaemon::new(16);
    let engine = world.docker_engine(HostId::new(sample::unique()), LivenessBoard::new());
    let parent = format!("dnp{}", std::process::id());
    let _card = Card::new(&parent);
    let mut dmz = sample::lan("dmz", world.subnet());
    dmz.driver = format!("macvlan:{parent}").parse().expect("it is a name");
    let deckies = [
        sample::decky("one", &[&dmz], 3),
        sample::decky("two", &[&dmz], 4),
    ];
    let made = Deployed::on(&engine, std::slice::from_ref(&dmz), &deckies).await;
    for decky in &deckies {
        assert_eq!(made.difference(&engine, decky).await, None);
    }
    // Only ours are inside: the network's real machines are not to be attacked from here.
    let inside_of_it = made.wiring(&deckies[0]).inside;
    assert!(
        inside_of_it.iter().all(|net| net.prefix_len() == 32),
        "{inside_of_it:?}"
    );

    let origin = Origin {
        topology: made.topology.id,
        generation: domain::revision::Generation::new(1),
    };
    for (driver, named) in [
        (
            "macvlan:decnet-gone",
            "this host has no interface decnet-gone".to_owned(),
        ),
        (
            &format!("ipvlan:{parent}"),
            "this host's kernel has no ipvlan driver".to_owned(),
        ),
    ] {
        if driver.starts_with("ipvlan") && netns::has_driver("ipvlan").expect("root may ask") {
            continue;
        }
        let mut lan = sample::lan("dmz", world.subnet());
        lan.driver = driver.parse().expect("it is a name");
        let refusal = engine
            .create_lan(origin, &lan, 0)
            .await
            .expect_err("it is missing");
        assert_eq!(refusal.kind, EngineErrorKind::Refused);
        let told = Chain(&refusal).to_string();
        assert!(told.contains(&named), "{told}");
    }
}

/// A card of the host with a wire that leads nowhere.
struct Card(String);

impl Card {
    fn new(name: &str) -> Self {
        let this = Self(name.to_owned());
        // A process of that number may have been killed with it.
        ip(&["link", "del", name]);
        let far = format!("{name}x");
        assert!(ip(&[
            "link", "add", name, "type", "veth", "peer", "name", &far
        ]));
        assert!(ip(&["link", "set", name, "up"]) && ip(&["link", "set", &far, "up"]));
        this
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        ip(&["link", "del", &self.0]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    #[allow(clippy::disallowed_methods, reason = "a test is no daemon")]
    let status = Command::new("ip").args(arguments).status();
    status.is_ok_and(|status| status.success())
}

//! Bad input: a clear error with cause and next step where the operator looks, and nothing
//! half-done.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use pki::identity::files::IdentityFiles;
use proto::v1::fleet_client::FleetClient;
use proto::v1::{EventBatch, RenewRequest, SpooledEvent};
use serde_json::{Value, json};
use tests::cli::{self, system};
use tests::docker;
use tests::patience::{Look, eventually, until};
use tests::process::binary;
use tests::shapes;
use tests::wiretap::Wiretap;
use tests::world::{LONG, SOON, World};

const HOST: &str = "edge-1";

#[test]
fn malformed_topology_files_are_refused_with_their_place() -> Result<()> {
    let world = World::with_master()?;
    let lan = "lans: [{name: dmz, subnet: 10.9.0.0/24, kind: dmz}]";
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("empty", Vec::new(), ""),
        ("not yaml", b"name: [\n  lans: {".to_vec(), ""),
        (
            "wrong utf-8",
            b"name: \xff\xfe\nlans: []\n".to_vec(),
            "UTF-8",
        ),
        ("a list", b"- name\n- lans\n".to_vec(), ""),
        (
            "unknown key",
            format!("name: a\nlan: []\n{lan}\n").into_bytes(),
            "lan",
        ),
        (
            "unknown key of a decky",
            format!(
                "name: a\n{lan}\ndeckies: [{{name: d, service: [ssh], edges: [{{lan: dmz}}]}}]\n"
            )
            .into_bytes(),
            "services",
        ),
        (
            "a number for a list",
            format!("name: a\n{lan}\ndeckies: 7\n").into_bytes(),
            "deckies",
        ),
        ("a bomb", bomb(), ""),
        (
            "too large",
            format!("name: a\n# {}\n{lan}\n", "x".repeat(5 << 20)).into_bytes(),
            "large",
        ),
    ];
    for (case, bytes, word) in cases {
        let path = world.root().join("bad.yaml");
        std::fs::write(&path, bytes)?;
        for verb in ["validate", "create"] {
            let outcome = world.decnet(&["topology", verb, &path.to_string_lossy()])?;
            ensure!(
                matches!(outcome.code, Some(1 | 2)) && !outcome.stderr.trim().is_empty(),
                "{case}: {verb} gave {outcome:?}"
            );
            ensure!(
                !outcome.stderr.contains("panicked"),
                "{case}: {}",
                outcome.stderr
            );
            ensure!(
                outcome.stderr.to_lowercase().contains(&word.to_lowercase()),
                "{case}: {verb} does not say {word:?}: {}",
                outcome.stderr
            );
        }
    }
    let all: Value = world.decnet_json(&["topology", "ls"])?;
    ensure!(
        all.as_array().is_some_and(Vec::is_empty),
        "something was stored: {all}"
    );
    world.done()
}

/// References that would unfold to gigabytes.
fn bomb() -> Vec<u8> {
    let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..10 {
        let inner = vec![format!("*a{}", level - 1); 10].join(",");
        text.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    text.push_str("name: *a9\n");
    text.into_bytes()
}

#[test]
fn malformed_tokens_are_refused_before_anything_is_dialled() -> Result<()> {
    let world = World::with_master()?;
    let wire = Wiretap::before(world.fleet_address()?)?;
    let token = world.enroll(HOST, &[])?.token;
    let mut altered = token.clone().into_bytes();
    if let Some(last) = altered.last_mut() {
        *last = if *last == b'A' { b'B' } else { b'A' };
    }
    let short = token.get(..token.len() - 4).unwrap_or_default();
    let cases = [
        "",
        "hello",
        short,
        std::str::from_utf8(&altered)?,
        "dcn9_aaaaaaaa",
        "dcn1_\u{0}\u{7}",
        &"dcn1_".repeat(10_000),
    ];
    for case in cases {
        let said = world.join_with(HOST, &wire.url(), case, &[])?.refused(1)?;
        ensure!(said.contains("token"), "{case:?}: {said}");
        ensure!(
            !said.contains(&token) && !said.contains("panicked"),
            "{case:?}: {said}"
        );
    }
    ensure!(
        wire.connections() == 0,
        "the master was dialled with a broken token"
    );
    world.done()
}

#[test]
fn each_way_of_not_reaching_the_master_has_its_own_words() -> Result<()> {
    let mut world = World::with_master()?;
    let token = world.enroll(HOST, &[])?.token;
    // A port that is closed, a name that is none, a port where somebody else answers.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let api = world.api()?.base().replace("http://", "https://");
    let mut told = std::collections::BTreeSet::new();
    for url in [
        format!("https://{closed}"),
        "https://no-such-host.invalid:7443".to_owned(),
        api,
    ] {
        let said = world.join_with(HOST, &url, &token, &[])?.refused(1)?;
        ensure!(
            said.lines().count() >= 1 && said.len() > 40,
            "{url}: {said}"
        );
        told.insert(said.replace(&url, ""));
    }
    ensure!(
        told.len() == 3,
        "different causes are told alike: {told:#?}"
    );
    for url in ["http://127.0.0.1:1", "ftp://x", "", "https://"] {
        let outcome = world.join_with(HOST, url, &token, &[])?;
        ensure!(
            matches!(outcome.code, Some(1 | 2)),
            "{url:?} gave {outcome:?}"
        );
    }
    world.stop_master()?;
    world.done()
}

#[test]
fn unknown_keys_of_a_configuration_are_refused_with_the_nearest_one() -> Result<()> {
    let world = World::empty()?;
    let path = world.root().join("bad.toml");
    let cases = [
        (
            "decnet-master",
            &["config", "check"][..],
            "hartbeat = \"5s\"\n",
            "heartbeat",
        ),
        (
            "decnet-master",
            &["config", "check"],
            "heartbeat = \"5 parsecs\"\n",
            "heartbeat",
        ),
        ("decnet-master", &["config", "check"], "heartbeat = [", ""),
        (
            "decnet-agent",
            &["run"],
            "[engine]\ndecky_binry = \"/x\"\n",
            "decky_binary",
        ),
        ("decnet-agent", &["run"], "[spol]\nmax_mib = 1\n", "spool"),
    ];
    for (program, verb, text, nearest) in cases {
        std::fs::write(&path, text)?;
        let data = world.root().join("data");
        let mut arguments = verb.to_vec();
        let (path, data) = (path.to_string_lossy(), data.to_string_lossy());
        arguments.extend(["--config", &path, "--data-dir", &data]);
        let said = cli::run(&binary(program)?, &arguments, &[], "")?.refused(1)?;
        ensure!(
            said.contains(nearest),
            "{program} with {text:?} says {said}"
        );
        ensure!(
            said.contains("bad.toml") || said.contains("heartbeat"),
            "the file is not named: {said}"
        );
    }
    world.done()
}

#[test]
fn the_api_answers_bad_requests_with_problems() -> Result<()> {
    let world = World::with_master()?;
    let api = world.api()?;
    let token = Some(api.token());
    let cases = [
        ("GET", "/api/v1/nothing", None, 404),
        ("GET", "/api/v1/topologies/none", None, 404),
        (
            "GET",
            "/api/v1/topologies/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
            None,
            404,
        ),
        ("PUT", "/api/v1/topologies", Some(json!({})), 405),
        ("POST", "/api/v1/topologies", Some(json!([1, 2])), 422),
        (
            "POST",
            "/api/v1/topologies",
            Some(json!({"topology": {"name": "a", "lans": []}, "hosst": "x"})),
            422,
        ),
        (
            "POST",
            "/api/v1/tokens",
            Some(json!({"name": "../../etc"})),
            422,
        ),
        (
            "POST",
            "/api/v1/tokens",
            Some(json!({"name": "a", "ttl_seconds": 1_000_000})),
            422,
        ),
        ("GET", "/api/v1/events?limit=0", None, 422),
        ("GET", "/api/v1/events?limit=x", None, 422),
        ("GET", "/api/v1/events?since=yesterday", None, 422),
        ("GET", "/api/v1/events?hots=x", None, 422),
    ];
    for (method, path, body, status) in cases {
        let answer = api.request(method, path, token, body.as_ref())?;
        ensure!(
            answer.status == status,
            "{method} {path} gave {answer:?}, not {status}"
        );
        ensure!(
            answer.content_type.starts_with("application/problem+json"),
            "{method} {path}: {answer:?}"
        );
        let problem: Value = answer.json()?;
        ensure!(
            problem["status"] == status
                && problem["title"].is_string()
                && problem["type"].is_string(),
            "{problem}"
        );
    }
    // No token, and a token that is none, are told apart from nothing.
    for token in [None, Some("x"), Some("")] {
        ensure!(
            api.request("GET", "/api/v1/hosts", token, None)?.status == 401,
            "{token:?} is let in"
        );
    }
    // What is no HTTP at all.
    let address = api.base().trim_start_matches("http://").to_owned();
    for bytes in [
        &b"\0\0\0\0"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        &[b'A'; 100_000],
    ] {
        let mut stream = TcpStream::connect(&address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        drop(stream.write_all(bytes));
        drop(stream.read(&mut [0; 512]));
    }
    ensure!(
        api.request("GET", "/healthz", None, None)?.status == 200,
        "the master does not answer any more"
    );
    // A host that is not ours in the Host header is somebody's rebinding.
    let curl = system(
        "curl",
        &[
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            "Host: evil.example",
            &format!("http://{address}/api/v1/hosts"),
        ],
        "",
    )?;
    ensure!(
        !curl.stdout.starts_with('2'),
        "a foreign Host is answered with {}",
        curl.stdout
    );
    world.done()
}

#[test]
fn malformed_frames_break_nothing() -> Result<()> {
    let mut world = World::with_master()?;
    world.add_host(HOST)?;
    world.stop_agent(HOST)?;
    let fleet = world.fleet_address()?.to_owned();
    // Before TLS.
    for bytes in [
        &b"\x16\x03\x01\xff\xff"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xFF; 70_000],
        b"\x16\x03\x01\x00\x05hello",
    ] {
        let mut stream = TcpStream::connect(&fleet)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        drop(stream.write_all(bytes));
        drop(stream.read(&mut [0; 512]));
    }
    // With a host's own certificate.
    let identity = IdentityFiles::new(world.host_dir(HOST))
        .load()?
        .context("an identity")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let event = |sequence, topology: usize, line: Vec<u8>| SpooledEvent {
        sequence,
        topology_id: vec![1; topology],
        decky_id: vec![2; 16],
        collected_at: i64::MAX,
        line: line.into(),
    };
    let batches = [
        EventBatch {
            spool_id: vec![1; 3],
            events: vec![event(1, 16, b"{}".to_vec())],
        },
        EventBatch {
            spool_id: vec![1; 16],
            events: vec![event(1, 5, b"{}".to_vec())],
        },
        EventBatch {
            spool_id: vec![1; 16],
            events: vec![event(u64::MAX, 16, vec![0xFF; 100_000])],
        },
        EventBatch {
            spool_id: vec![1; 16],
            events: vec![event(0, 16, vec![b'['; 16_000])],
        },
    ];
    runtime.block_on(async {
        for batch in batches {
            let channel = tests::wire::channel(&identity, &fleet).await?;
            let mut client = FleetClient::new(channel);
            // A receipt that refuses or a status that says why: both are answers.
            if let Ok(stream) = client.events(tokio_stream::iter([batch])).await {
                drop(stream.into_inner().message().await);
            }
        }
        let channel = tests::wire::channel(&identity, &fleet).await?;
        let status = FleetClient::new(channel)
            .renew(RenewRequest {
                csr: vec![0x30; 99],
            })
            .await;
        let code = status.err().context("a broken request was granted")?.code();
        ensure!(code == tonic::Code::InvalidArgument, "{code:?}");
        anyhow::Ok(())
    })?;
    ensure!(
        world.api()?.request("GET", "/healthz", None, None)?.status == 200,
        "the master does not answer any more"
    );
    ensure!(
        world.events(&[])?.is_empty(),
        "a malformed event is in the table"
    );
    world.start_agent(HOST, &[])?;
    world.await_host(HOST, "ready", SOON)?;
    world.done()
}

/// What stands in for a Docker daemon that is sick.
enum Sickness {
    Hangs,
    Answers500,
}

/// A UNIX socket on which nothing good happens.
struct SickDocker {
    path: PathBuf,
    over: Arc<AtomicBool>,
}

impl SickDocker {
    fn start(path: &Path, sickness: Sickness) -> Result<Self> {
        let listener = UnixListener::bind(path)?;
        let over = Arc::new(AtomicBool::new(false));
        let inner = Arc::clone(&over);
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for mut stream in listener.incoming().flatten() {
                if inner.load(Ordering::SeqCst) {
                    return;
                }
                match sickness {
                    Sickness::Hangs => kept.push(stream),
                    Sickness::Answers500 => {
                        drop(stream.set_read_timeout(Some(Duration::from_millis(300))));
                        drop(stream.read(&mut [0; 4096]));
                        let body = r#"{"message":"the disk of the daemon is on fire"}"#;
                        drop(write!(
                            stream,
                            "HTTP/1.1 500 Internal Server Error\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                            body.len()
                        ));
                    }
                }
            }
        });
        Ok(Self {
            path: path.to_path_buf(),
            over,
        })
    }
}

impl Drop for SickDocker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(std::os::unix::net::UnixStream::connect(&self.path));
    }
}

#[test]
fn a_docker_that_is_absent_hangs_or_fails_is_named_and_a_retry_works() -> Result<()> {
    let mut world = World::empty()?;
    world.set_master_flags(&["--heartbeat", "500ms", "--deploy-deadline", "90s"]);
    world.start_master(&[])?;
    world.add_host(HOST)?;
    world.create(&shapes::single(&world.slot, "lone"), HOST)?;
    let socket = world.root().join("docker.sock");
    let config = world.root().join("agent.toml");
    std::fs::write(
        &config,
        format!("[engine]\nsocket = {:?}\ncall_timeout = \"5s\"\n", socket),
    )?;
    let config = config.to_string_lossy().into_owned();
    let cases: [(&str, Option<Sickness>, &[&str]); 3] = [
        (
            "absent",
            None,
            &["engine_unreachable", "start the Docker daemon"],
        ),
        ("failing", Some(Sickness::Answers500), &["on fire"]),
        ("hanging", Some(Sickness::Hangs), &["engine_timeout"]),
    ];
    let mut verb = "deploy";
    for (case, sickness, words) in cases {
        let _sick = sickness
            .map(|sickness| SickDocker::start(&socket, sickness))
            .transpose()?;
        world.stop_agent(HOST)?;
        world.start_agent(HOST, &["--config", &config])?;
        world
            .await_host(HOST, "ready", SOON)
            .context("a host without an engine is still a host")?;
        let outcome = world.decnet(&["topology", verb, "lone", "--wait", "--timeout", "110s"])?;
        let said = outcome.refused(1).with_context(|| case.to_owned())?;
        for word in words {
            ensure!(said.contains(word), "{case}: {word:?} is not in {said}");
        }
        let state = world.inspect("lone")?;
        ensure!(state.topology.status == "failed", "{case}: {state:?}");
        until("the host's health", SOON, || {
            Ok(world
                .host(HOST)?
                .health
                .is_some_and(|health| !health.engine_ok))
        })
        .with_context(|| case.to_owned())?;
        drop(std::fs::remove_file(&socket));
        verb = "retry";
    }
    world.stop_agent(HOST)?;
    world.start_agent(HOST, &[])?;
    world.await_host(HOST, "ready", SOON)?;
    world
        .decnet(&["topology", "retry", "lone", "--wait", "--timeout", "120s"])?
        .ok()?;
    world.assert_holds(HOST, 1, 1)?;
    world.done()
}

/// A small disk, full until it is made roomy.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: &Path, size: &str) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        let text = path.to_string_lossy();
        system(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size},mode=0700"),
                "tmpfs",
                &text,
            ],
            "",
        )?
        .ok()?;
        Ok(Self {
            path: path.to_path_buf(),
        })
    }

    fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.path.join("ballast"))?;
        let block = [0_u8; 4096];
        while file.write_all(&block).is_ok() {}
        // To the last byte.
        while file.write_all(&[0]).is_ok() {}
        Ok(())
    }

    fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.path.join("ballast"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(system("umount", &["-l", &self.path.to_string_lossy()], ""));
    }
}

#[test]
fn a_full_disk_of_the_master_refuses_and_loses_nothing() -> Result<()> {
    let mut world = World::empty()?;
    let disk = SmallDisk::mount(&world.master_dir(), "24m")?;
    world.start_master(&[])?;
    world.add_host(HOST)?;
    world.deploy(&shapes::single(&world.slot, "lone"), HOST)?;
    disk.fill()?;

    // Something must be written soon: a topology of many deckies does not fit what SQLite holds ready.
    let mut file = shapes::single(&world.slot, "second");
    file.lans[0].subnet = world.slot.subnet(9);
    file.deckies = (10..250)
        .map(|host| {
            let mut decky = shapes::decky(
                &world.slot,
                &format!("d{host}"),
                host,
                &[0],
                &["http", "ssh"],
            );
            decky.edges[0].address = None;
            decky
        })
        .collect();
    let path = world.write_file(&file)?;
    let path = path.to_string_lossy();
    let mut refused = None;
    for attempt in 0..20 {
        file.name = format!("second-{attempt}");
        world.write_file(&file)?;
        let text = world.root().join(format!("{}.yaml", file.name));
        let outcome = world.decnet(&[
            "topology",
            "create",
            &text.to_string_lossy(),
            "--host",
            HOST,
        ])?;
        if outcome.code != Some(0) {
            refused = Some(outcome);
            break;
        }
    }
    let said = refused
        .context("a full disk takes everything")?
        .refused(1)?;
    ensure!(
        said.to_lowercase().contains("disk") && said.contains("full"),
        "the cause is not named: {said}"
    );
    ensure!(
        world.inspect("lone")?.topology.status == "active",
        "what is stored can no longer be read"
    );

    disk.free()?;
    world
        .decnet(&["topology", "create", &path, "--host", HOST])?
        .ok()?;
    world.stop_master()?;
    world.start_master(&[])?;
    world.await_host(HOST, "ready", SOON)?;
    ensure!(
        world.inspect("lone")?.topology.status == "active",
        "the database did not survive"
    );
    world.kill_master()?;
    world.done()
}

#[test]
fn a_full_disk_of_the_agent_refuses_and_a_retry_works() -> Result<()> {
    let mut world = World::with_master()?;
    let disk = SmallDisk::mount(&world.host_dir(HOST), "12m")?;
    world.add_host(HOST)?;
    // The guard would refuse for so small a disk at any time: here it is the disk itself that does.
    let config = world.host_dir(HOST).with_extension("toml");
    std::fs::write(
        &config,
        "[guard]\ndisk_free_mib = 0\ndisk_free_percent = 0\n",
    )?;
    world.kill_agent(HOST)?;
    world.start_agent(HOST, &["--config", &config.to_string_lossy()])?;
    world.create(&shapes::small(&world.slot, "maze"), HOST)?;
    disk.fill()?;
    let outcome = world.decnet(&["topology", "deploy", "maze", "--wait", "--timeout", "60s"])?;
    ensure!(
        outcome.code != Some(0),
        "a deploy with a full disk is a success: {outcome:?}"
    );
    let text = format!(
        "{}{}",
        outcome.stderr,
        serde_json::to_string(&world.inspect("maze")?)?
    );
    ensure!(
        text.contains("store") || text.contains("space") || text.contains("disk"),
        "the cause is not named: {text}"
    );

    disk.free()?;
    eventually("active once there is room", LONG, || {
        let state = world.inspect("maze")?;
        Ok(match state.topology.status.as_str() {
            "active" => Look::Seen(()),
            "failed" => {
                drop(world.decnet(&["topology", "retry", "maze", "--no-wait"])?);
                Look::NotYet(state.topology.reason)
            }
            other => Look::NotYet(format!("{other}: {:?}", state.condition)),
        })
    })?;
    world.assert_holds(HOST, 3, 2)?;
    world.teardown("maze")?;
    world.assert_empty(HOST)?;
    world.kill_agent(HOST)?;
    world.done()
}

#[test]
fn strangers_in_docker_are_never_touched() -> Result<()> {
    let world = World::with_host(HOST)?;
    world.deploy(&shapes::single(&world.slot, "lone"), HOST)?;
    let image = docker::containers(&world.seat(HOST)?.id)?[0].inspect["Config"]["Image"]
        .as_str()
        .context("an image")?
        .to_owned();
    let name = format!("stranger-{}", world.slot.number());
    drop(docker::docker(&["rm", "-f", &name]));
    let stranger = docker::docker(&[
        "create",
        "--name",
        &name,
        "--label",
        "decnet.generation=1",
        &image,
        "nothing",
    ])?;
    world.teardown("lone")?;
    world.assert_empty(HOST)?;
    let alive = docker::docker(&["inspect", "--format", "{{.Name}}", &stranger]);
    docker::docker(&["rm", "-f", &stranger])?;
    ensure!(
        alive.is_ok(),
        "a container without our host label was removed"
    );
    world.done()
}

//! Real clients, from a network namespace of their own: what they do is evidence, with their
//! address.

use agent::netns::{Namespace, within};
use anyhow::{Context as _, Result, ensure};
use proto::rest::EventShape;
use tests::cli::system;
use tests::converse::Conversation;
use tests::docker;
use tests::netns::Attacker;
use tests::patience::until;
use tests::shapes;
use tests::world::{SOON, World};

const HOST: &str = "edge-1";

struct Scene {
    world: World,
    attacker: Attacker,
    target: String,
}

/// A decky with every service, and an attacker plugged into its LAN.
fn scene(ports: &[u16]) -> Result<Scene> {
    let world = World::with_host(HOST)?;
    world.deploy(&shapes::bazaar(&world.slot, "bazaar"), HOST)?;
    let network = docker::networks(&world.seat(HOST)?.id)?
        .into_iter()
        .next()
        .context("the LAN")?;
    let attacker = Attacker::on_lan(&world.slot, &network, &world.slot.address(0, 200))?;
    let target = world.slot.address(0, 10);
    for port in ports {
        until(&format!("port {port}"), SOON, || {
            attacker.reaches(&target, *port)
        })?;
    }
    Ok(Scene {
        world,
        attacker,
        target,
    })
}

impl Scene {
    /// Waits for an event of a service whose data has these texts, and checks who and where.
    fn seen(&self, service: &str, kind: &str, texts: &[&str]) -> Result<EventShape> {
        let event = self.world.await_event(
            &format!("{kind} of {service} with {texts:?}"),
            &["--service", service, "--kind", kind],
            |event| {
                let data = event.data.to_string();
                texts.iter().all(|text| data.contains(text))
            },
        )?;
        let source = event
            .source
            .as_deref()
            .context("an event of a client has a source")?;
        ensure!(
            source.rsplit_once(':').map(|(address, _)| address) == Some(self.attacker.address()),
            "{event:?}"
        );
        let destination = event.destination.as_deref().context("a destination")?;
        ensure!(
            destination.starts_with(&format!("{}:", self.target)),
            "{event:?}"
        );
        ensure!(
            event.decky_name.as_deref() == Some("bazaar") && event.session.is_some(),
            "{event:?}"
        );
        Ok(event)
    }
}

#[test]
fn ssh() -> Result<()> {
    let scene = scene(&[22])?;
    let Scene {
        world,
        attacker,
        target,
    } = &scene;

    let out = attacker
        .ssh(
            target,
            "root",
            "hunter2",
            "uname -s; echo pwned-$((6*7)) > /tmp/x; id",
        )?
        .ok()?;
    ensure!(
        out.stdout.contains("uid="),
        "the shell is no shell: {}",
        out.stdout
    );
    let login = scene.seen("ssh", "auth", &["root", "hunter2", "password"])?;
    ensure!(login.data["outcome"] == "accepted", "{login:?}");
    let command = scene.seen("ssh", "command", &["pwned-$((6*7))"])?;
    ensure!(
        command.session == login.session,
        "login and command are told apart"
    );

    // A key is evidence too.
    let key = world.root().join("key");
    system(
        "ssh-keygen",
        &[
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-f",
            &key.to_string_lossy(),
        ],
        "",
    )?
    .ok()?;
    let public = std::fs::read_to_string(key.with_extension("pub"))?;
    let body = public.split(' ').nth(1).context("a public key")?;
    let command = attacker.run(
        &[
            "ssh",
            "-i",
            &key.to_string_lossy(),
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "BatchMode=yes",
            &format!("git@{target}"),
            "true",
        ],
        "",
    )?;
    ensure!(command.code != Some(0), "any key opens the door");
    let offered = scene.seen("ssh", "auth", &["public_key", "git", body])?;
    ensure!(offered.data["outcome"] == "rejected", "{offered:?}");

    // A session with a terminal.
    let namespace = attacker.namespace();
    let mut shell = Conversation::start(
        "ip",
        &[
            "netns",
            "exec",
            namespace,
            "sshpass",
            "-p",
            "letmein",
            "ssh",
            "-tt",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            &format!("admin@{target}"),
        ],
    )?;
    shell.expect("$ ").or_else(|_| shell.expect("# "))?;
    shell.say("id; uname -n")?;
    shell.expect("uid=")?;
    shell.say("exit")?;
    shell.end()?;
    scene.seen("ssh", "command", &["id; uname -n"])?;

    // The server's own banner is not the real one's, and the same key is shown each time.
    let one = attacker
        .inside(&["ssh-keyscan", "-t", "ed25519", target])?
        .stdout;
    let other = attacker
        .inside(&["ssh-keyscan", "-t", "ed25519", target])?
        .stdout;
    ensure!(one.contains("ssh-ed25519") && one == other, "{one} {other}");
    scene.world.done()
}

#[test]
fn telnet() -> Result<()> {
    let scene = scene(&[23])?;
    let Scene {
        attacker, target, ..
    } = &scene;
    let mut telnet = Conversation::start(
        "ip",
        &["netns", "exec", attacker.namespace(), "telnet", target],
    )?;
    telnet.expect("ogin:")?;
    telnet.say("support")?;
    telnet.expect("assword:")?;
    telnet.say("s3cret-telnet")?;
    telnet.expect("$").or_else(|_| telnet.expect("#"))?;
    telnet.say("cat /etc/passwd")?;
    telnet.expect("root:")?;
    telnet.say("exit")?;
    telnet.end()?;
    let login = scene.seen("telnet", "auth", &["support", "s3cret-telnet"])?;
    ensure!(login.data["outcome"] == "accepted", "{login:?}");
    scene.seen("telnet", "command", &["cat /etc/passwd"])?;
    scene.world.done()
}

#[test]
fn http() -> Result<()> {
    let scene = scene(&[80])?;
    let Scene {
        attacker, target, ..
    } = &scene;
    let url = format!("http://{target}");
    let curl = |more: &[&str]| -> Result<String> {
        let mut command = vec![
            "curl",
            "-sS",
            "--max-time",
            "10",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
        ];
        command.extend(more);
        Ok(attacker.inside(&command)?.stdout)
    };
    ensure!(
        curl(&[&format!("{url}/")])? == "200",
        "the start page is not there"
    );
    curl(&[
        &format!("{url}/cgi-bin/luci/;stok=/?x=%00%0a<script>"),
        "-A",
        "Mozilla/5.0 zgrab/0.x",
    ])?;
    let request = scene.seen("http", "request", &["/cgi-bin/luci", "zgrab", "User-Agent"])?;
    ensure!(request.data["method"] == "GET", "{request:?}");
    curl(&["-u", "tomcat:s3cr3t", &format!("{url}/manager/html")])?;
    scene.seen("http", "auth", &["tomcat", "s3cr3t", "basic"])?;
    curl(&[
        "-d",
        "username=wp-admin&password=P%40ss",
        &format!("{url}/login"),
    ])?;
    let post = scene.seen("http", "request", &["wp-admin"])?;
    ensure!(post.data["method"] == "POST", "{post:?}");
    scene.world.done()
}

#[test]
fn redis() -> Result<()> {
    let scene = scene(&[6379])?;
    let Scene {
        attacker, target, ..
    } = &scene;
    ensure!(
        attacker
            .inside(&["redis-cli", "-h", target, "PING"])?
            .stdout
            .contains("PONG"),
        "no pong"
    );
    ensure!(
        attacker
            .inside(&["redis-cli", "-h", target, "INFO"])?
            .stdout
            .contains("redis_version"),
        "no INFO"
    );
    attacker.run(
        &[
            "redis-cli",
            "-h",
            target,
            "CONFIG",
            "SET",
            "dir",
            "/root/.ssh",
        ],
        "",
    )?;
    attacker.run(
        &["redis-cli", "-h", target, "-a", "foobared", "GET", "secret"],
        "",
    )?;
    scene.seen("redis", "command", &["CONFIG", "/root/.ssh"])?;
    scene.seen("redis", "auth", &["foobared"])?;
    scene.world.done()
}

#[test]
fn ftp() -> Result<()> {
    let scene = scene(&[21])?;
    let Scene {
        attacker, target, ..
    } = &scene;
    attacker.run(
        &[
            "curl",
            "-sS",
            "--max-time",
            "10",
            "-u",
            "backup:b4ckup",
            &format!("ftp://{target}/"),
        ],
        "",
    )?;
    scene.seen("ftp", "auth", &["backup", "b4ckup"])?;
    let out = attacker.run(
        &[
            "lftp",
            "-e",
            "set net:timeout 5; set net:max-retries 1; ls; bye",
            "-u",
            "anonymous,me@example.org",
            target,
        ],
        "",
    )?;
    let login = scene.seen("ftp", "auth", &["anonymous", "me@example.org"])?;
    ensure!(
        login.data["outcome"] == "accepted",
        "{login:?}; lftp: {out:?}"
    );
    let out = attacker.run(&["ftp", "-n", target], "user oracle 0racle\npwd\nquit\n")?;
    scene
        .seen("ftp", "auth", &["oracle", "0racle"])
        .with_context(|| format!("ftp: {out:?}"))?;
    scene.world.done()
}

#[test]
fn a_published_port_shows_the_attackers_own_address() -> Result<()> {
    let world = World::with_host(HOST)?;
    let port = world.slot.port(1);
    let mut file = shapes::single(&world.slot, "lone");
    let web = file.deckies.remove(0);
    file.deckies.push(shapes::publishing(web, port, 80));
    world.deploy(&file, HOST)?;
    let attacker = Attacker::outside(&world.slot)?;
    let host = world.slot.address(255, 1);
    until("the published port", SOON, || attacker.reaches(&host, port))?;
    attacker.inside(&[
        "curl",
        "-sS",
        "--max-time",
        "10",
        "-o",
        "/dev/null",
        &format!("http://{host}:{port}/from-outside"),
    ])?;
    let event = world.await_event("the request", &["--kind", "request"], |event| {
        event.data["target"] == "/from-outside"
    })?;
    let source = event.source.clone().unwrap_or_default();
    ensure!(
        source.starts_with(&format!("{}:", attacker.address())),
        "{event:?}"
    );
    world.done()
}

#[test]
fn a_gateway_routes_inwards_and_nothing_else_does() -> Result<()> {
    let world = World::with_host(HOST)?;
    world.deploy(&shapes::small(&world.slot, "maze"), HOST)?;
    let dmz = docker::networks(&world.seat(HOST)?.id)?
        .into_iter()
        .find(|network| network.subnet == world.slot.subnet(0))
        .context("the DMZ")?;
    let attacker = Attacker::on_lan(&world.slot, &dmz, &world.slot.address(0, 200))?;
    let cache = world.container(HOST, &world.slot.address(1, 30))?;
    let forwards = |container: &docker::Container| -> Result<bool> {
        let namespace = Namespace::of_process(container.pid)?;
        Ok(within(&namespace, |inside| inside.sysctl("net.ipv4.ip_forward"))? == "1")
    };
    ensure!(!forwards(&cache)?, "a decky that is no gateway forwards");
    let gate = world.container(HOST, &world.slot.address(0, 10))?;
    ensure!(forwards(&gate)?, "the gateway does not forward");
    until("ssh of the gateway", SOON, || {
        attacker.reaches(&world.slot.address(0, 10), 22)
    })?;
    // A machine that is plugged into the DMZ and takes the gateway for its router.
    let (inner, router) = (world.slot.subnet(1), world.slot.address(0, 10));
    attacker.inside(&["ip", "route", "add", &inner, "via", &router])?;
    ensure!(attacker.reaches(&world.slot.address(1, 30), 6379)?);
    world.done()
}

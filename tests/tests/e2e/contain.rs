//! Containment: a decky that an attacker owns cannot leave its topology, harm the host, or harm the
//! other deckies; and it is told how much it tried.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;

use agent::netns::{self, Namespace};
use anyhow::{Context as _, Result, ensure};
use proto::rest::UsageShape;
use proto::topology_file::TopologyFile;
use tests::docker::Container;
use tests::engine::Engine;
use tests::netns::Attacker;
use tests::patience::{Look, eventually};
use tests::prober::{Attempt, Implant};
use tests::shapes;
use tests::world::{SOON, World};

/// What one decky may have at once, and what a refusal must stay below with room to spare.
const MIB: u64 = 1024 * 1024;

tests::on_each_engine! {
    an_owned_decky_reaches_its_topology_and_nothing_else,
    an_owned_decky_has_no_rights_and_finds_no_door,
    the_bombs_of_an_owned_decky_harm_nobody_else,
}

/// Two topologies on two hosts of one machine, each decky of them an attacker.
struct Prison {
    world: World,
    outside: Attacker,
}

impl Prison {
    fn new(engine: Engine) -> Result<Self> {
        let mut world = World::with_master()?;
        world.set_engine(engine);
        for host in ["edge-1", "edge-2"] {
            Implant::occupy(&mut world, host)?;
        }
        let slot = &world.slot;
        let mut maze = shapes::small(slot, "maze");
        for decky in &mut maze.deckies {
            if decky.name == "web" {
                *decky = shapes::publishing(decky.clone(), slot.port(1), 80);
            }
        }
        let mut other = TopologyFile {
            name: "other".to_owned(),
            lans: vec![shapes::lan(slot, 2)],
            deckies: vec![shapes::decky(slot, "lone", 40, &[2], &["http"])],
        };
        other.lans[0].kind = Some("dmz".to_owned());
        world.deploy(&maze, "edge-1")?;
        world.deploy(&other, "edge-2")?;
        let outside = Attacker::outside(&world.slot)?;
        Ok(Self { world, outside })
    }

    fn address(&self, lan: u8, host: u8) -> String {
        self.world.slot.address(lan, host)
    }

    /// The decky that is owned: on the DMZ, no gateway.
    fn owned(&self) -> Result<Container> {
        self.world.container("edge-1", &self.address(0, 20))
    }

    /// Everybody else: their containers, when they were started, and that they answer.
    fn others(&self) -> Result<Vec<(String, String)>> {
        let mut others = Vec::new();
        for (host, lan, last) in [("edge-1", 0, 10), ("edge-1", 1, 30), ("edge-2", 2, 40)] {
            let container = self.world.container(host, &self.address(lan, last))?;
            let mut implant = Implant::at(&container, &self.address(lan, last))?;
            let answer = implant.attempt("read /proc/self/status")?;
            ensure!(answer.passed, "{answer:?}");
            others.push((container.id, container.started_at));
        }
        Ok(others)
    }
}

/// Waits until the operator is shown what was counted of the owned decky.
fn reported(prison: &Prison, what: &str, rule: impl Fn(&UsageShape) -> bool) -> Result<()> {
    let owned = prison.owned()?;
    // The agent looks at its deckies when the engine reports something, or every minute.
    let seat = prison.world.seat("edge-1")?;
    seat.engine.nudge(seat, &owned)?;
    eventually(what, SOON, || {
        let state = prison.world.inspect("maze")?;
        let usage = state.observed.map(|observed| observed.usage);
        let usage = usage.unwrap_or_default();
        let shown = usage
            .iter()
            .find(|usage| usage.name.as_deref() == Some("web"));
        Ok(if shown.is_some_and(&rule) {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{shown:?}"))
        })
    })
}

fn held_back(pid: u32) -> Result<netns::Refused> {
    Ok(netns::refused(&Namespace::of_process(pid)?)?)
}

fn refused(attempt: &Attempt) -> Result<()> {
    ensure!(!attempt.passed, "it got through: {attempt:?}");
    Ok(())
}

fn an_owned_decky_reaches_its_topology_and_nothing_else(engine: Engine) -> Result<()> {
    let prison = Prison::new(engine)?;
    let owned = prison.owned()?;
    let mut implant = Implant::at(&prison.owned()?, &prison.address(0, 20))?;

    // Who would be reached, if the rules let it: listeners on the host, outside, and next door.
    let tcp = TcpListener::bind("0.0.0.0:0")?;
    let tcp6 = TcpListener::bind("[::]:0")?;
    let udp = UdpSocket::bind("0.0.0.0:0")?;
    let (port, port6, datagrams) = (
        tcp.local_addr()?.port(),
        tcp6.local_addr()?.port(),
        udp.local_addr()?.port(),
    );
    let outside = Namespace::at(Path::new("/run/netns").join(prison.outside.namespace()))?;
    let far = prison.outside.address().to_owned();
    let beyond = netns::within(&outside, |_| TcpListener::bind((far.as_str(), 7777)))?;
    let of_host = [
        prison.address(0, 1),
        prison.address(1, 1),
        prison.address(255, 1),
    ];
    for listener in [&tcp, &tcp6, &beyond] {
        listener.set_nonblocking(true)?;
    }
    udp.set_nonblocking(true)?;

    // It is a machine of its topology: its neighbours answer, also those behind the gateway.
    for neighbour in [
        prison.address(0, 10),
        prison.address(1, 10),
        prison.address(1, 30),
    ] {
        let answer = implant.attempt(&format!("tcp {neighbour}:80"))?;
        ensure!(answer.passed, "{answer:?}");
    }
    // And whoever comes in from outside is answered.
    let published = prison.world.slot.port(1);
    ensure!(prison.outside.reaches(&prison.address(255, 1), published)?);

    let before = held_back(owned.pid)?;
    let mut attempts = vec![
        format!("tcp {far}:7777"),
        format!("tcp {}:80", prison.address(2, 40)),
        format!("tcp {}:80", prison.address(2, 1)),
        "tcp 169.254.169.254:80".to_owned(),
        "tcp 8.8.8.8:53".to_owned(),
        "tcp 127.0.0.11:53".to_owned(),
        "tcp [2001:4860:4860::8888]:53".to_owned(),
        "dns 127.0.0.11:53".to_owned(),
        "dns 8.8.8.8:53".to_owned(),
        "udp 169.254.169.254:80".to_owned(),
        "udp 255.255.255.255:67".to_owned(),
        "udp 224.0.0.251:5353".to_owned(),
        "udp 239.255.255.250:1900".to_owned(),
        "udp [ff02::1]:5353".to_owned(),
        format!("udp {}:137", prison.address(0, 255)),
        format!("udp {far}:7777"),
        format!("udp {}:161", prison.address(2, 40)),
    ];
    for address in &of_host {
        attempts.push(format!("tcp {address}:{port}"));
        attempts.push(format!("tcp {address}:22"));
        attempts.push(format!("udp {address}:{datagrams}"));
    }
    for attempt in &attempts {
        refused(&implant.attempt(attempt)?)?;
    }
    let counted = held_back(owned.pid)?.refused - before.refused;
    ensure!(
        counted >= u64::try_from(attempts.len())? - 4,
        "{} attempts were made, and {counted} packets are counted",
        attempts.len()
    );
    for listener in [&tcp, &tcp6, &beyond] {
        let came = listener.accept();
        ensure!(came.is_err(), "somebody came through: {came:?}");
    }
    ensure!(
        udp.recv_from(&mut [0; 16]).is_err(),
        "a datagram came through"
    );
    ensure!(port6 > 0);

    reported(&prison, "the refusals shown", |usage| {
        usage.refused_packets >= Some(counted)
    })?;

    // The means to do it otherwise.
    for attempt in [
        "ping-socket",
        "raw-socket",
        "arp-spoof",
        "flush-rules",
        "add-route",
        "write /proc/sys/net/ipv4/ip_forward 1",
        "write /proc/sys/net/ipv4/ip_unprivileged_port_start 0",
    ] {
        refused(&implant.attempt(attempt)?)?;
    }
    let flood = implant.attempt(&format!("flood {}", prison.address(0, 10) + ":1"))?;
    let sent: u32 = flood.detail.parse().context("it counts")?;
    let flooded = held_back(owned.pid)?.flooded;
    ensure!(
        sent < 2500 && flooded > 500,
        "{sent} of 3000 passed, {flooded} are counted"
    );

    // Neither is a gateway a way out: it forwards inside only, and is held itself.
    let gate = prison.world.container("edge-1", &prison.address(0, 10))?;
    let mut at_gate = Implant::at(&gate, &prison.address(0, 10))?;
    for attempt in [
        format!("tcp {far}:7777"),
        format!("tcp {}:{port}", prison.address(1, 1)),
        format!("tcp {}:80", prison.address(2, 40)),
    ] {
        refused(&at_gate.attempt(&attempt)?)?;
    }
    ensure!(held_back(gate.pid)?.refused >= 3);
    let desk = prison.world.container("edge-1", &prison.address(1, 30))?;
    let mut inner = Implant::at(&desk, &prison.address(1, 30))?;
    for attempt in [
        format!("tcp {far}:7777"),
        format!("tcp {}:{port}", prison.address(0, 1)),
    ] {
        refused(&inner.attempt(&attempt)?)?;
    }
    prison.world.done()
}

fn an_owned_decky_has_no_rights_and_finds_no_door(engine: Engine) -> Result<()> {
    let prison = Prison::new(engine)?;
    let mut implant = Implant::at(&prison.owned()?, &prison.address(0, 20))?;
    let status = implant.attempt("read /proc/self/status")?.detail;
    for (field, value) in [
        ("CapInh:", "0000000000000000"),
        ("CapPrm:", "0000000000000000"),
        ("CapEff:", "0000000000000000"),
        ("CapBnd:", "0000000000000000"),
        ("CapAmb:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
        ("Uid:", "65534"),
        ("Gid:", "65534"),
    ] {
        let line = status.lines().find(|line| line.starts_with(field));
        let found = line.and_then(|line| line.split_whitespace().nth(1));
        ensure!(found == Some(value), "{field} is {line:?}");
    }
    for attempt in [
        "unix /var/run/docker.sock",
        "unix /run/docker.sock",
        "unix /run/containerd/containerd.sock",
        "mount tmpfs",
        "mount proc",
        "mount cgroup",
        "mount bind",
        "mount writable-root",
        "unshare user",
        "unshare network",
        "unshare mount",
        "unshare pid",
        "enter /proc/1/ns/net",
        "become-root",
        "device /dev/mem",
        "device /dev/kmsg",
        "device /dev/vda",
        "device /dev/sda",
        "device /dev/fuse",
        "device /dev/net/tun",
        "make-device /dev/shm",
        "make-device /tmp",
        // What would be written is harmless, should it pass.
        "write /proc/sys/kernel/core_pattern core",
        "write /proc/sys/kernel/randomize_va_space 2",
        "write /proc/sysrq-trigger h",
        "write /proc/self/oom_score_adj -1000",
        "write /sys/kernel/uevent_helper  ",
        "write /sys/fs/cgroup/pids/pids.max max",
        "write /sys/fs/cgroup/cgroup.procs 1",
        "write /etc/decnet/decky.json {}",
        "write /etc/passwd root",
        "read /proc/kcore",
        "processes",
    ] {
        refused(&implant.attempt(attempt)?)?;
    }
    // A daemon has what was said on the other side of a pipe; here it is in the file itself.
    if engine == Engine::Native {
        for way in ["append", "cut", "reopen", "empty"] {
            refused(&implant.attempt(&format!("forget {way}"))?)?;
        }
    }
    prison.world.done()
}

fn the_bombs_of_an_owned_decky_harm_nobody_else(engine: Engine) -> Result<()> {
    let prison = Prison::new(engine)?;
    let owned = prison.owned()?;
    let before = prison.others()?;
    let mut implant = Implant::at(&prison.owned()?, &prison.address(0, 20))?;

    // Killed in its own group, with the rest of it alive.
    let memory = implant.attempt("memory-bomb")?;
    refused(&memory)?;
    // Where a decky may not even wait for a child, it cannot say how it ended: the kernel does.
    let told = memory.detail.contains("signal 9");
    ensure!(told || engine == Engine::Native, "{memory:?}");

    for place in ["/", "/etc", "/etc/decnet", "/tmp", "/dev", "/proc", "/sys"] {
        refused(&implant.attempt(&format!("fill-disk {place}"))?)?;
    }
    refused(&implant.attempt("fill-disk /dev/shm")?)?;
    refused(&implant.attempt("fill-disk /dev/mqueue")?)?;

    // A file of its own has an end that only a decky outlives, which this one is not.
    let much = match engine {
        Engine::Docker => "fill-log 48",
        Engine::Native => "fill-log 24",
    };
    let spoken = implant.attempt(much)?;
    ensure!(spoken.passed, "{spoken:?}");
    let seat = prison.world.seat("edge-1")?;
    let (kept, most) = seat.engine.kept_output(seat, &owned)?;
    ensure!(kept <= most + MIB, "{kept} bytes of its output are kept");

    // The kill is counted where its usage is reported from.
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", owned.pid))?;
    ensure!(groups.contains(&owned.id), "{groups}");
    let kills = eventually("a kill that is counted", SOON, || {
        Ok(match kills(&groups)? {
            0 => Look::NotYet("none".to_owned()),
            kills => Look::Seen(kills),
        })
    })?;
    reported(&prison, "the kills shown", |usage| {
        usage.oom_kills >= Some(kills)
    })?;

    // Last: it may be left without a process to spare.
    let forks = implant.attempt("fork-bomb")?;
    refused(&forks)?;
    let begun: u64 = forks.detail.split(' ').next().unwrap_or_default().parse()?;
    ensure!(begun < 64, "{forks:?}");

    let again = prison.owned()?;
    ensure!(
        again.id == owned.id && again.started_at == owned.started_at,
        "the owned decky did not outlive its own bombs"
    );
    ensure!(prison.others()? == before, "another decky was harmed");
    prison.world.await_converged("maze", SOON)?;
    prison.world.await_converged("other", SOON)?;
    // The host itself answers as quickly as ever.
    let asked = std::time::Instant::now();
    prison.world.inspect("maze")?;
    ensure!(asked.elapsed() < Duration::from_secs(10));
    prison.world.done()
}

/// How many processes of the group were killed because it was out of memory.
fn kills(groups: &str) -> Result<u64> {
    let path = |controller: &str| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (name, path) = (fields.next()?, fields.next()?);
            (name == controller).then(|| path.to_owned())
        })
    };
    let file = match path("memory") {
        Some(path) => format!("/sys/fs/cgroup/memory{path}/memory.oom_control"),
        None => format!(
            "/sys/fs/cgroup{}/memory.events",
            path("").context("it is in a group")?
        ),
    };
    let text = std::fs::read_to_string(&file).with_context(|| file.clone())?;
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Ok(count.context("kills are counted")?.trim().parse()?)
}

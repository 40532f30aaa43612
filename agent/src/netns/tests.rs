//! On real namespaces: a bridge in one that stands for the host, and machines in others.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use domain::id::LanId;
use domain::observe::DriftKind;
use domain::wiring::{Route, WiredInterface, Wiring};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;

/// What a connection may take on a busy machine, and how long one that must fail is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(300);

/// Namespaces under names of their own; they end with it.
struct Lab {
    directory: TempDir,
    made: Vec<PathBuf>,
}

impl Lab {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("the temporary directory is writable"),
            made: Vec::new(),
        }
    }

    fn namespace(&mut self, name: &str) -> Machine {
        let path = self.directory.path().join(name);
        let namespace = Namespace::create_at(&path).expect("the tests run as root");
        self.made.push(path.clone());
        let machine = Machine { path, namespace };
        machine.run("ip link set lo up");
        machine
    }

    /// A host with one bridge a LAN, whose first address is the host's.
    fn host(&mut self, lans: &[&str]) -> Machine {
        let host = self.namespace("host");
        for (number, lan) in lans.iter().enumerate() {
            host.run(&format!("ip link add br{number} type bridge"));
            host.run(&format!("ip addr add {lan}.1/24 dev br{number}"));
            host.run(&format!("ip link set br{number} up"));
        }
        host
    }

    /// A machine on some bridges of the host, addressed as an engine would do it.
    fn machine(&mut self, host: &Machine, name: &str, on: &[(usize, &str)]) -> Machine {
        let machine = self.namespace(name);
        for (index, (bridge, address)) in on.iter().enumerate() {
            let path = machine.path.display();
            host.run(&format!(
                "ip link add {name}{index} type veth peer name eth{index} netns {path}"
            ));
            host.run(&format!("ip link set {name}{index} master br{bridge} up"));
            machine.run(&format!("ip addr add {address}/24 brd + dev eth{index}"));
            machine.run(&format!("ip link set eth{index} up"));
        }
        machine
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for path in &self.made {
            // It may be half made; the rest goes with its directory.
            drop(Namespace::remove_at(path));
        }
    }
}

struct Machine {
    path: PathBuf,
    namespace: Namespace,
}

impl Machine {
    fn run(&self, command: &str) {
        if let Err(told) = self.attempt(command) {
            panic!("{command}: {told}");
        }
    }

    /// What a command that must fail says.
    fn refuses(&self, command: &str) -> String {
        self.attempt(command).expect_err(command)
    }

    fn attempt(&self, command: &str) -> Result<(), String> {
        let words: Vec<_> = command.split_whitespace().collect();
        #[allow(clippy::disallowed_methods, reason = "a test is no daemon")]
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.path.display()))
            .args(words)
            .output()
            .expect("util-linux is installed");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or(told)
    }

    /// A socket born there stays there.
    fn listen(&self, address: &str) -> TcpListener {
        within(&self.namespace, |_| TcpListener::bind(address)).expect("the address is there")
    }

    fn connect(&self, address: &str, patience: Duration) -> io::Result<TcpStream> {
        let address: SocketAddr = address.parse().expect("it is one");
        within(&self.namespace, |_| {
            TcpStream::connect_timeout(&address, patience)
        })
    }

    fn reaches(&self, address: &str) -> bool {
        self.connect(address, PATIENCE).is_ok()
    }

    fn is_kept_from(&self, address: &str) -> bool {
        self.connect(address, SHORT).is_err()
    }

    fn datagrams(&self, address: &str) -> UdpSocket {
        within(&self.namespace, |_| UdpSocket::bind(address)).expect("the address is there")
    }

    fn refused(&self) -> Refused {
        refused(&self.namespace).expect("it is there")
    }

    /// Our table as the program nft shows it.
    fn table(&self) -> String {
        self.output(&["nft", "list", "table", "inet", rules::TABLE], "")
    }

    fn output(&self, words: &[&str], input: &str) -> String {
        use std::process::Stdio;
        #[allow(clippy::disallowed_methods, reason = "a test is no daemon")]
        let mut child = Command::new("nsenter")
            .arg(format!("--net={}", self.path.display()))
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux is installed");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{words:?}");
        String::from_utf8(output.stdout).expect("it is text")
    }

    fn load(&self, wiring: &Wiring) {
        within(&self.namespace, |inside| inside.load_rules(wiring)).expect("the kernel takes it");
    }

    fn wire(&self, wiring: &Wiring) -> Seal {
        wire(&self.namespace, wiring).unwrap_or_else(|error| panic!("{:#}", chain(&error)))
    }
}

fn chain(error: &WireError) -> String {
    crate::chain::Chain(error).to_string()
}

/// No two machines of a test have the same one.
fn mac(address: IpNet) -> Mac {
    let IpAddr::V4(ip) = address.addr() else {
        panic!("the first address is IPv4");
    };
    let [_, net, lan, host] = ip.octets();
    Mac::new([0, 0x25, 0x90, net, lan, host])
}

fn wiring(addresses: &[&[&str]], inside: &[&str], host: &[&str], forwards: bool) -> Wiring {
    let parse = |text: &&str| text.parse::<IpNet>().expect("it is one");
    let interfaces = addresses
        .iter()
        .enumerate()
        .map(|(index, addresses)| WiredInterface {
            lan: LanId::new(Uuid::from_u128(index as u128)),
            mac: mac(parse(&addresses[0])),
            own_mac: true,
            addresses: addresses.iter().map(parse).collect(),
        });
    let sysctls = [
        ("net.ipv4.ip_default_ttl", "128"),
        ("net.ipv4.ip_forward", if forwards { "1" } else { "0" }),
    ];
    Wiring {
        interfaces: interfaces.collect(),
        routes: BTreeSet::new(),
        sysctls: sysctls
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        inside: inside.iter().map(parse).collect(),
        host: host
            .iter()
            .map(|ip| ip.parse().expect("it is one"))
            .collect(),
        forwards,
    }
}

fn by(to: &str, via: &str) -> Route {
    Route {
        to: to.parse().expect("it is one"),
        via: via.parse().expect("it is one"),
    }
}

fn difference(machine: &Machine, wiring: &Wiring, seal: &Seal) -> Option<DriftKind> {
    let seen = observe(&machine.namespace, Some(seal)).expect("it is there");
    wiring.difference(&seen, &rules::digest(wiring))
}

/// The two forms of the rules are held against each other by the program whose language the text is.
#[test]
fn the_kernel_is_given_what_the_text_says() {
    let mut lab = Lab::new();
    let (by_text, by_us) = (lab.namespace("text"), lab.namespace("us"));
    let many: Vec<String> = (0..=255)
        .flat_map(|high| (0..8).map(move |low| format!("10.{high}.{}.0/28", 2 * low)))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let hosts = ["10.1.0.1", "10.2.0.1", "fd00:1::1"];
    for (inside, host, forwards) in [
        (&[][..], &[][..], false),
        (&["10.1.0.0/24"], &["10.1.0.1"], false),
        (
            &["192.168.7.20/32", "192.168.7.21/32"],
            &["192.168.7.1"],
            false,
        ),
        (&["10.1.0.0/24", "10.2.0.0/16", "fd00:1::/64"], &hosts, true),
        (&["0.0.0.0/1", "240.0.0.0/4", "ff00::/8"], &[], true),
        (&many, &[], true),
    ] {
        let wiring = wiring(&[], inside, host, forwards);
        by_text.output(&["nft", "flush", "ruleset"], "");
        by_text.output(&["nft", "-f", "-"], &rules::render(&wiring));
        // The second time in place of what stands.
        for _ in 0..2 {
            by_us.load(&wiring);
            assert_eq!(by_us.table(), by_text.table());
        }
    }
}

#[test]
fn counters_go_on_when_rules_are_replaced_and_nothing_changes_when_they_are_refused() {
    let mut lab = Lab::new();
    let host = lab.host(&["10.9.0"]);
    let decky = lab.machine(&host, "decky", &[(0, "10.9.0.10")]);
    // The kernel itself speaks IPv6 whenever it likes, and is counted too.
    decky.run("sysctl -q -w net.ipv6.conf.all.disable_ipv6=1");
    let own = wiring(&[&["10.9.0.10/24"]], &["10.9.0.0/24"], &["10.9.0.1"], false);
    decky.load(&own);
    assert_eq!(decky.refused(), Refused::default());
    assert!(decky.is_kept_from("10.9.0.1:80"));
    let held = decky.refused();
    assert!(held.refused > 0, "{held:?}");
    decky.load(&own);
    assert_eq!(decky.refused(), held);
    let before = decky.table();
    let mistaken = within(&decky.namespace, |_| {
        let mut netlink = netlink::Netlink::open(netlink_sys::protocols::NETLINK_NETFILTER)?;
        rules::load(&mut netlink, &own, Refused::default(), false)
    });
    let error = mistaken.expect_err("a table stands");
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{error}");
    assert_eq!(decky.table(), before);
}

#[test]
fn what_is_wired_is_observed_and_what_is_broken_is_seen_and_mended() {
    let mut lab = Lab::new();
    let host = lab.host(&["10.9.0", "10.9.1"]);
    let gate = lab.machine(&host, "gate", &[(0, "10.9.0.10"), (1, "10.9.1.10")]);
    // As Docker leaves it: its own default route, no IPv6.
    gate.run("ip route add default via 10.9.0.1");
    gate.run("sysctl -q -w net.ipv6.conf.all.disable_ipv6=1");
    let addresses: [&[&str]; 2] = [&["10.9.0.10/24", "fd09::10/64"], &["10.9.1.10/24"]];
    let inside = ["10.9.0.0/24", "10.9.1.0/24", "10.9.2.0/24", "fd09::/64"];
    let mut wiring = wiring(
        &addresses,
        &inside,
        &["10.9.0.1", "10.9.1.1", "fd09::1"],
        true,
    );
    wiring.routes = [by("10.9.2.0/24", "10.9.1.20"), by("0.0.0.0/0", "10.9.0.1")].into();
    let closed = observe(&gate.namespace, None).expect("it is there");
    assert!(!closed.open && closed.rules.is_none(), "{closed:?}");

    let seal = gate.wire(&wiring);
    assert_eq!(difference(&gate, &wiring, &seal), None);
    let again = Seal::decode(&seal.encode()).expect("it is its own form");
    assert_eq!(again, seal);

    for (command, kind) in [
        ("nft flush table inet decnet", DriftKind::Unsealed),
        ("nft delete table inet decnet", DriftKind::Unsealed),
        ("nft flush ruleset", DriftKind::Unsealed),
        (
            "nft insert rule inet decnet output accept",
            DriftKind::Unsealed,
        ),
        (
            "nft add element inet decnet inside4 { 10.77.0.0/24 }",
            DriftKind::Unsealed,
        ),
        ("nft flush set inet decnet never4", DriftKind::Unsealed),
        ("nft flush chain inet decnet refuse", DriftKind::Unsealed),
        (
            "nft add chain inet decnet output { policy accept; }",
            DriftKind::Unsealed,
        ),
        (
            "ip link set eth1 address 02:00:00:00:00:09",
            DriftKind::Readdressed,
        ),
        ("ip addr del 10.9.1.10/24 dev eth1", DriftKind::Readdressed),
        ("ip addr del fd09::10/64 dev eth0", DriftKind::Readdressed),
        ("ip addr add 10.9.1.99/24 dev eth1", DriftKind::Readdressed),
        ("ip route del 10.9.2.0/24", DriftKind::Rerouted),
        ("ip route replace default via 10.9.1.1", DriftKind::Rerouted),
        (
            "ip route add 10.77.0.0/24 via 10.9.0.1",
            DriftKind::Rerouted,
        ),
        (
            "sysctl -q -w net.ipv4.ip_default_ttl=64",
            DriftKind::Retuned,
        ),
        ("sysctl -q -w net.ipv4.ip_forward=0", DriftKind::Retuned),
        (
            "sysctl -q -w net.ipv4.ip_unprivileged_port_start=1024",
            DriftKind::Retuned,
        ),
        ("ip link set eth1 down", DriftKind::Rerouted),
    ] {
        let seal = gate.wire(&wiring);
        assert_eq!(difference(&gate, &wiring, &seal), None, "before {command}");
        gate.run(command);
        assert_eq!(difference(&gate, &wiring, &seal), Some(kind), "{command}");
    }
    let seal = gate.wire(&wiring);
    assert_eq!(difference(&gate, &wiring, &seal), None);

    // Rules that are not ours are nobody's drift, and a seal of another namespace says nothing.
    gate.run("nft add table ip docker");
    assert_eq!(difference(&gate, &wiring, &seal), None);
    let other = lab.namespace("other");
    let seen = observe(&other.namespace, Some(&seal)).expect("it is there");
    assert_eq!((seen.rules, seen.open), (None, false));
}

/// A set that may grow is put in another order by the kernel when it has time to.
#[test]
fn rules_that_nobody_touches_keep_their_fingerprint() {
    let mut lab = Lab::new();
    let machine = lab.namespace("still");
    for many in [1, 3, 8, 40, 700] {
        let host: Vec<String> = (0..many)
            .flat_map(|n: u16| {
                [
                    format!("10.9.{}.{}", n / 250, n % 250),
                    format!("fd09::{n:x}"),
                ]
            })
            .collect();
        let host: Vec<&str> = host.iter().map(String::as_str).collect();
        let wiring = wiring(&[], &["10.9.0.0/16", "fd09::/64"], &host, true);
        let looks = |inside: &mut Inside| {
            inside.load_rules(&wiring)?;
            let seen: io::Result<BTreeSet<_>> = (0..20).map(|_| inside.fingerprint()).collect();
            seen
        };
        let seen = within(&machine.namespace, looks).expect("they are loaded");
        assert_eq!(seen.len(), 1, "{many}");
        for element in ["never4 { 10.200.0.1 }", "never6 { fd77::1 }"] {
            let told = machine.refuses(&format!("nft add element inet decnet {element}"));
            assert!(told.contains("Too many open files"), "{told}");
        }
    }
}

#[test]
fn an_interface_that_lost_both_its_names_is_the_one_that_is_left() {
    let mut lab = Lab::new();
    let host = lab.host(&["10.9.0", "10.9.1"]);
    let gate = lab.machine(&host, "gate", &[(0, "10.9.0.10"), (1, "10.9.1.10")]);
    let wiring = wiring(&[&["10.9.0.10/24"], &["10.9.1.10/24"]], &[], &[], true);
    gate.wire(&wiring);
    gate.run("ip addr flush dev eth1");
    gate.run("ip link set eth1 address 02:00:00:00:00:09");
    let seal = gate.wire(&wiring);
    assert_eq!(difference(&gate, &wiring, &seal), None);

    gate.run("ip link del eth1");
    let error = wire(&gate.namespace, &wiring).expect_err("there is one interface for two");
    assert!(matches!(error, WireError::NoInterface { .. }), "{error:?}");
}

#[test]
fn the_kernel_is_asked_for_its_drivers() {
    assert!(has_driver("veth").expect("the tests run as root"));
    assert!(!has_driver("decnet-nonesuch").expect("the tests run as root"));
}

#[test]
fn the_agents_own_namespace_is_never_wired() {
    let own = Namespace::own().expect("a process has one");
    let error = wire(&own, &wiring(&[], &[], &[], false)).expect_err("it is ours");
    assert!(matches!(error, WireError::OwnNamespace), "{error:?}");
}

#[test]
fn a_decky_reaches_its_topology_and_nothing_else() {
    let mut lab = Lab::new();
    let host = lab.host(&["10.9.0", "10.8.0"]);
    let web = lab.machine(&host, "web", &[(0, "10.9.0.20")]);
    let cache = lab.machine(&host, "cache", &[(0, "10.9.0.30")]);
    let outside = lab.machine(&host, "outside", &[(1, "10.8.0.20")]);
    outside.run("ip route add default via 10.8.0.1");
    host.run("sysctl -q -w net.ipv4.ip_forward=1");
    let mut wiring = wiring(&[&["10.9.0.20/24"]], &["10.9.0.0/24"], &["10.9.0.1"], false);
    wiring.routes = [by("0.0.0.0/0", "10.9.0.1")].into();

    let listeners = [
        cache.listen("10.9.0.30:80"),
        outside.listen("10.8.0.20:80"),
        host.listen("10.9.0.1:80"),
    ];
    web.run("ip route add default via 10.9.0.1");
    for there in ["10.9.0.30:80", "10.8.0.20:80", "10.9.0.1:80"] {
        assert!(
            web.reaches(there),
            "nothing but the rules stands between it and {there}"
        );
    }
    // Opened before the rules stood: they are judged all the same.
    let mut old = web
        .connect("10.8.0.20:80", PATIENCE)
        .expect("nothing forbids it yet");
    web.wire(&wiring);

    assert!(web.reaches("10.9.0.30:80"));
    let before = web.refused();
    assert!(web.is_kept_from("10.8.0.20:80"), "another network");
    assert!(web.is_kept_from("10.9.0.1:80"), "the host on its own LAN");
    assert!(web.is_kept_from("10.8.0.1:80"), "the host on another LAN");
    assert!(
        web.is_kept_from("169.254.169.254:80"),
        "the metadata of a cloud"
    );
    let socket = web.datagrams("0.0.0.0:0");
    socket.set_broadcast(true).expect("it may ask for it");
    for there in [
        "10.9.0.255:137",
        "10.9.0.0:137",
        "255.255.255.255:67",
        "224.0.0.251:5353",
        "239.255.255.250:1900",
        "127.0.0.11:53",
        "8.8.8.8:53",
        "10.9.0.1:53",
    ] {
        let sent = socket.send_to(b"out", there);
        assert!(sent.is_err(), "{there}: {sent:?}");
    }
    old.write_all(b"out").expect("the kernel keeps it");
    let counted = web.refused().refused - before.refused;
    assert!(counted >= 12, "only {counted} packets were counted");

    // Whoever comes in is answered, wherever from.
    let served = web.listen("10.9.0.20:80");
    for guest in [&host, &outside, &cache] {
        let mut stream = guest
            .connect("10.9.0.20:80", PATIENCE)
            .expect("it is answered");
        let (mut accepted, _) = served.accept().expect("it came");
        accepted.write_all(b"hello").expect("it is open");
        let mut word = [0; 5];
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("it is a time");
        stream.read_exact(&mut word).expect("answers pass");
        assert_eq!(&word, b"hello");
    }
    let asked = outside.datagrams("10.8.0.20:5000");
    let answering = web.datagrams("10.9.0.20:161");
    asked.send_to(b"?", "10.9.0.20:161").expect("it may");
    answering
        .set_read_timeout(Some(PATIENCE))
        .expect("it is a time");
    let (_, guest) = answering.recv_from(&mut [0; 8]).expect("it came");
    answering.send_to(b"!", guest).expect("answers pass");
    assert!(
        answering.send_to(b"!", "10.8.0.20:5001").is_err(),
        "that is no answer"
    );
    drop(listeners);
}

#[test]
fn a_decky_without_ipv6_sends_none_and_one_with_it_stays_inside() {
    let mut lab = Lab::new();
    let host = lab.host(&["10.9.0"]);
    host.run("ip addr add fd09::1/64 dev br0 nodad");
    host.run("ip addr add fd08::1/64 dev br0 nodad");
    let web = lab.machine(&host, "web", &[(0, "10.9.0.20")]);
    let cache = lab.machine(&host, "cache", &[(0, "10.9.0.30")]);
    cache.run("ip addr add fd09::30/64 dev eth0 nodad");
    let listeners = [cache.listen("[fd09::30]:80"), host.listen("[fd09::1]:80")];

    web.run("ip addr add fd09::20/64 dev eth0 nodad");
    let without = wiring(&[&["10.9.0.20/24"]], &["10.9.0.0/24"], &["10.9.0.1"], false);
    web.wire(&without);
    assert!(web.is_kept_from("[fd09::30]:80"), "it has no IPv6 any more");

    let addresses: [&[&str]; 1] = [&["10.9.0.20/24", "fd09::20/64"]];
    let inside = ["10.9.0.0/24", "fd09::/64"];
    let mut with = wiring(&addresses, &inside, &["10.9.0.1", "fd09::1"], false);
    with.routes = [by("::/0", "fd09::1")].into();
    let seal = web.wire(&with);
    assert_eq!(difference(&web, &with, &seal), None);
    assert!(web.reaches("[fd09::30]:80"));
    assert!(web.is_kept_from("[fd09::1]:80"), "the host on its own LAN");
    assert!(web.is_kept_from("[fd08::1]:80"), "the host on another one");
    assert!(web.is_kept_from("[2001:db8::1]:80"), "the internet");
    let socket = web.datagrams("[::]:0");
    assert!(socket.send_to(b"out", "[ff02::fb%2]:5353").is_err() || web.refused().refused > 0);
    drop(listeners);
}

#[test]
fn a_gateway_forwards_inside_and_leaves_source_addresses_as_they_are() {
    let mut lab = Lab::new();
    let host = lab.host(&["10.9.0", "10.9.1", "10.8.0"]);
    let gate = lab.machine(&host, "gate", &[(0, "10.9.0.10"), (1, "10.9.1.10")]);
    let web = lab.machine(&host, "web", &[(0, "10.9.0.20")]);
    let cache = lab.machine(&host, "cache", &[(1, "10.9.1.30")]);
    let inside = ["10.9.0.0/24", "10.9.1.0/24"];
    let owned = ["10.9.0.1", "10.9.1.1"];
    let both = wiring(
        &[&["10.9.0.10/24"], &["10.9.1.10/24"]],
        &inside,
        &owned,
        true,
    );
    gate.wire(&both);
    let mut of_web = wiring(&[&["10.9.0.20/24"]], &inside, &owned, false);
    of_web.routes = [by("10.9.1.0/24", "10.9.0.10")].into();
    let mut of_cache = wiring(&[&["10.9.1.30/24"]], &inside, &owned, false);
    of_cache.routes = [by("10.9.0.0/24", "10.9.1.10")].into();
    web.wire(&of_web);
    cache.wire(&of_cache);

    let listener = cache.listen("10.9.1.30:80");
    assert!(web.reaches("10.9.1.30:80"));
    let (_, guest) = listener.accept().expect("it came");
    assert_eq!(guest.ip(), IpAddr::from([10, 9, 0, 20]));

    // The host, and who comes through it, get no further than the decky that they came to.
    host.run("ip route add 10.9.1.30/32 via 10.9.0.10");
    assert!(host.is_kept_from("10.9.1.30:80"));
    assert!(gate.refused().refused > 0);

    // The same machine as no gateway.
    let no_gateway = Wiring {
        forwards: false,
        ..both.clone()
    };
    let seal = gate.wire(&no_gateway);
    assert_eq!(difference(&gate, &no_gateway, &seal), None);
    assert!(web.is_kept_from("10.9.1.30:80"));
}

#[test]
fn a_flood_is_cut_and_counted_and_the_count_outlives_a_rewiring() {
    let mut lab = Lab::new();
    let host = lab.host(&["10.9.0"]);
    let web = lab.machine(&host, "web", &[(0, "10.9.0.20")]);
    let cache = lab.machine(&host, "cache", &[(0, "10.9.0.30")]);
    let wiring = wiring(&[&["10.9.0.20/24"]], &["10.9.0.0/24"], &["10.9.0.1"], false);
    web.wire(&wiring);
    let target = cache.datagrams("10.9.0.30:9");
    // All of it from one visit: what is cut is what comes at once.
    let flood = within(&web.namespace, |_| {
        (1..=2000_u16).try_fold(0_u32, |passed, port| {
            // A new conversation each.
            let socket = UdpSocket::bind("10.9.0.20:0")?;
            let sent = socket.send_to(b"x", ("10.9.0.30", 10_000 + port));
            io::Result::Ok(passed + u32::from(sent.is_ok()))
        })
    });
    let passed = flood.expect("the address is there");
    let held = web.refused();
    assert!(held.flooded > 500, "{held:?} of 2000, {passed} passed");
    assert!(passed >= 400, "{passed} passed");
    web.wire(&wiring);
    assert!(web.refused().flooded >= held.flooded);
    drop(target);
}

#[test]
fn settings_and_routes_that_a_document_may_not_name_are_refused() {
    let mut lab = Lab::new();
    let host = lab.host(&["10.9.0"]);
    let web = lab.machine(&host, "web", &[(0, "10.9.0.20")]);
    let mut bad = wiring(&[&["10.9.0.20/24"]], &[], &[], false);
    bad.sysctls = BTreeMap::from([("kernel.hostname".to_owned(), "mine".to_owned())]);
    let error = wire(&web.namespace, &bad).expect_err("it is not of the network");
    assert!(matches!(error, WireError::Sysctl { .. }), "{error:?}");
    let mut bad = wiring(&[&["10.9.0.20/24"]], &[], &[], false);
    bad.routes = [by("10.7.0.0/24", "10.6.0.1")].into();
    let error = wire(&web.namespace, &bad).expect_err("nobody is there");
    assert!(matches!(error, WireError::Route { .. }), "{error:?}");
    let seen = observe(&web.namespace, None).expect("it is there");
    assert!(!seen.open, "one that could not be wired stays closed");
}

#[test]
fn a_setting_that_the_kernel_rounds_is_as_it_was_asked_for() {
    let mut lab = Lab::new();
    let host = lab.host(&["10.9.0"]);
    let machine = lab.machine(&host, "web", &[(0, "10.9.0.10")]);
    let mut wiring = wiring(&[&["10.9.0.10/24"]], &[], &[], false);
    // 251 ms are no whole number of ticks of most kernels.
    let key = "net.ipv4.icmp_ratelimit";
    wiring.sysctls.insert(key.to_owned(), "251".to_owned());
    let seal = machine.wire(&wiring);
    assert_eq!(difference(&machine, &wiring, &seal), None);
    machine.run(&format!("sysctl -q -w {key}=500"));
    let altered = difference(&machine, &wiring, &seal);
    assert_eq!(altered, Some(DriftKind::Retuned));
}

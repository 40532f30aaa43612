use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use domain::id::HostId;
use ipnet::{IpNet, Ipv4Net};

use super::super::rtnl::Peer;
use super::super::tests::apart::apart;
use super::super::tests::{RealKernel, Stage, system};
use super::*;
use crate::engine::conformance::{World as _, eventually};
use crate::engine::liveness::LivenessBoard;
use crate::engine::{Engine as _, Origin, sample};
use crate::netns::{Namespace, within};

const RIGHT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const RIGHT_PORT: u16 = 7;
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// A machine between two networks, with a neighbour on each.
struct Machine {
    left: Namespace,
    /// Listens on the right.
    _right: TcpListener,
}

impl Machine {
    /// Joins the calling thread's namespace to both networks.
    fn here(forwards: &str) -> Self {
        fs::write(FORWARD, forwards).expect("the tests run as root");
        system(&["ip", "link", "set", "lo", "up"]);
        let right = neighbour("eth1", "198.51.100.0/24");
        let listener = within(&right, |_| TcpListener::bind((RIGHT, RIGHT_PORT)));
        Self {
            left: neighbour("eth0", "192.0.2.0/24"),
            _right: listener.expect("it has the address"),
        }
    }

    /// Whether somebody on the left reaches a port of this address.
    fn left_reaches(&self, address: Ipv4Addr, port: u16) -> bool {
        let place = SocketAddr::from((address, port));
        within(&self.left, |_| {
            TcpStream::connect_timeout(&place, Duration::from_millis(500))
        })
        .is_ok()
    }
}

/// A namespace behind a link of this one. This one has the first address, the other the second.
fn neighbour(link: &str, network: &str) -> Namespace {
    let network: Ipv4Net = network.parse().expect("it is one");
    let mut hosts = network.hosts();
    let (own, theirs) = (hosts.next(), hosts.next());
    let give = |link: &str, address: Option<Ipv4Addr>| {
        let address = Ipv4Net::new(address.expect("it has two"), network.prefix_len());
        let here = Rtnl::here()?;
        let index = here.index_of(link)?.expect("it was made");
        here.add_address(index, IpNet::V4(address.expect("it is a length")))?;
        here.set_up(index)
    };
    let other = Namespace::fresh().expect("the tests run as root");
    let peer = Peer {
        namespace: &other,
        name: "eth0",
        mac: None,
    };
    let pair = Rtnl::here().and_then(|here| here.add_pair(link, None, &peer));
    pair.expect("the tests run as root");
    give(link, own).expect("it was made");
    let joined = within(&other, |_| {
        give("eth0", theirs)?;
        let own = own.expect("it has two").to_string();
        system(&["ip", "route", "add", "default", "via", &own]);
        Ok::<_, io::Error>(())
    });
    joined.expect("it was made");
    other
}

fn tables() -> String {
    system(&["nft", "list", "tables"])
}

#[test]
fn a_host_that_did_not_forward_does_it_for_deckies_alone_and_not_for_longer() {
    apart(async || {
        let machine = Machine::here("0");
        // The kernel changes it with the other.
        fs::write(REDIRECTS, "0").expect("the tests run as root");
        let stage = Stage::set_behind(15, None).await;
        eventually("the neighbour reaches the decky", async || {
            machine.left_reaches(OWN, stage.port)
        })
        .await;
        assert!(!machine.left_reaches(RIGHT, RIGHT_PORT));
        // Somebody loads rules of his own in place of all others.
        system(&["nft", "flush", "ruleset"]);
        stage.engine.inventory().await.expect("the kernel answers");
        assert!(!machine.left_reaches(RIGHT, RIGHT_PORT));
        stage.clear().await;
        assert_eq!(
            (setting(FORWARD).ok(), setting(REDIRECTS).ok()),
            (Some("0".to_owned()), Some("0".to_owned()))
        );
        assert_eq!(tables(), "");
        assert!(!stage.engine.shared.places.forwarding().exists());
    });
}

#[test]
fn a_port_of_the_loopback_address_needs_no_host_that_forwards() {
    apart(async || {
        let _machine = Machine::here("0");
        let stage = Stage::set_behind(20, Some(Ipv4Addr::LOCALHOST)).await;
        eventually("the host reaches the decky", async || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, stage.port)).is_ok()
        })
        .await;
        assert!(!is_on());
        stage.clear().await;
    });
}

#[test]
fn a_host_that_did_forward_goes_on() {
    apart(async || {
        let machine = Machine::here("1");
        let stage = Stage::set_behind(16, None).await;
        assert!(machine.left_reaches(RIGHT, RIGHT_PORT));
        stage.clear().await;
        assert!(machine.left_reaches(RIGHT, RIGHT_PORT));
    });
}

#[test]
fn the_last_agent_that_has_a_link_to_a_lan_puts_the_host_back() {
    apart(async || {
        let machine = Machine::here("0");
        let stage = Stage::set_behind(17, None).await;
        let host = HostId::new(sample::unique());
        let other = stage.world.native_engine(host, LivenessBoard::new());
        let lan = sample::lan("dmz", stage.world.subnet());
        let origin = Origin {
            topology: stage.topology.id,
            generation: domain::revision::Generation::new(1),
        };
        let lan = other.create_lan(origin, &lan, 0).await;
        let lan = lan.expect("nothing stands against it");
        stage.clear().await;
        assert!(is_on());
        assert!(!machine.left_reaches(RIGHT, RIGHT_PORT));
        other.remove_lan(&lan).await.expect("it is ours");
        assert!(!is_on());
        assert_eq!(tables(), "");
    });
}

#[test]
fn a_docker_that_comes_later_finds_the_host_as_if_it_had_come_first() {
    apart(async || {
        let machine = Machine::here("0");
        let stage = Stage::set_behind(18, None).await;
        for rule in [["-N", DOCKER].as_slice(), &["-A", "FORWARD", "-j", DOCKER]] {
            system(&[["iptables"].as_slice(), rule].concat());
        }
        stage.engine.inventory().await.expect("the kernel answers");
        assert!(!tables().contains(GUARD), "{}", tables());
        let forward = system(&["iptables", "-S", "FORWARD"]);
        assert!(forward.contains("-P FORWARD DROP"), "{forward}");
        eventually("the neighbour reaches the decky", async || {
            machine.left_reaches(OWN, stage.port)
        })
        .await;
        assert!(!machine.left_reaches(RIGHT, RIGHT_PORT));
        stage.clear().await;
        assert!(is_on(), "Docker needs it");
        assert_eq!(
            system(&["iptables", "-S", DOCKER]),
            format!("-N {DOCKER}\n")
        );
    });
}

#[test]
fn a_note_of_an_earlier_boot_is_void() {
    let world = RealKernel::new(19);
    let engine = world.native_engine(HostId::new(sample::unique()), LivenessBoard::new());
    let shared = &engine.shared;
    shared.places.prepare().expect("the directory is writable");
    shared.note().expect("the directory is writable");
    assert!(shared.before().is_some());
    let note = fs::read_to_string(shared.places.forwarding()).expect("it was written");
    let boot = setting(BOOT).expect("the kernel answers");
    let earlier = note.replace(&boot, "an earlier one");
    fs::write(shared.places.forwarding(), earlier).expect("the directory is writable");
    assert_eq!(shared.before(), None);
}

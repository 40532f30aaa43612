use uuid::Uuid;

use super::super::tests::apart::apart;
use super::super::tests::{RealKernel, system};
use super::*;
use crate::engine::conformance::World as _;
use crate::engine::liveness::LivenessBoard;
use crate::engine::{Engine as _, Origin, sample};

fn door(host_ip: Option<Ipv4Addr>) -> Door {
    Door {
        handle: "decnet-a-b".to_owned(),
        publish: Publish {
            host_ip,
            host_port: 8080,
            decky_port: 80,
            protocol: Protocol::Tcp,
        },
        address: Ipv4Addr::new(10, 1, 0, 10),
    }
}

#[test]
fn a_port_of_every_address_is_caught_from_inside_and_outside() {
    let text = render(HostId::new(Uuid::max()), &[door(None)]);
    let rule = "meta nfproto ipv4 fib daddr type local tcp dport 8080 dnat ip to 10.1.0.10:80 \
                comment \"decnet-a-b 0.0.0.0:8080->80/tcp\"";
    assert_eq!(text.matches(rule).count(), 2, "{text}");
    let (mark, rules) = mark("decnet-a-b", &door(None).publish);
    assert_eq!(text.matches(&format!("comment \"{mark}\"")).count(), rules);
}

#[test]
fn a_port_of_the_loopback_address_is_the_hosts_own_affair() {
    let text = render(HostId::new(Uuid::max()), &[door(Some(Ipv4Addr::LOCALHOST))]);
    assert_eq!(text.matches("ip daddr 127.0.0.1 tcp dport 8080").count(), 1);
}

#[test]
fn nothing_new_comes_out_of_a_topology() {
    let text = render(HostId::new(Uuid::max()), &[]);
    let prefix = uplink_prefix(HostId::new(Uuid::max()));
    assert_eq!(
        text.matches(&format!("iifname \"{prefix}*\" drop comment"))
            .count(),
        2
    );
}

#[test]
fn of_many_doors_each_is_seen() {
    apart(async || {
        let world = RealKernel::new(21);
        let host = HostId::new(sample::unique());
        let engine = world.native_engine(host, LivenessBoard::new());
        // More than any list of them in words should have to hold.
        let doors: Vec<_> = (1..=1500)
            .map(|port| {
                let mut door = door(None);
                door.publish.host_port = port;
                door
            })
            .collect();
        let shared = &engine.shared;
        shared
            .load(&render(host, &doors))
            .await
            .expect("they are sound");
        let standing = shared.standing_doors().await.expect("the kernel answers");
        for door in &doors {
            let (mark, rules) = mark(&door.handle, &door.publish);
            assert_eq!(standing.get(&mark), Some(&rules), "{mark}");
        }
    });
}

#[test]
fn a_host_that_is_open_to_its_deckies_is_closed_by_the_next_look_though_none_publishes() {
    apart(async || {
        let world = RealKernel::new(22);
        let host = HostId::new(sample::unique());
        let engine = world.native_engine(host, LivenessBoard::new());
        let lan = sample::lan("dmz", world.subnet());
        let topology = sample::topology(std::slice::from_ref(&lan), &[]);
        let origin = Origin {
            topology: topology.id,
            generation: domain::revision::Generation::new(1),
        };
        let made = engine.create_lan(origin, &lan, 0).await;
        made.expect("nothing stands against it");
        let (list, table) = (["nft", "list", "ruleset"], table_name(host));
        let right = system(&list);
        assert!(right.contains("drop"), "{right}");
        for harm in [
            // As after a kill between the link and its rules, too.
            "nft flush ruleset".to_owned(),
            format!("nft flush chain inet {table} input"),
            format!("nft insert rule inet {table} forward accept"),
        ] {
            system(&harm.split(' ').collect::<Vec<_>>());
            assert_ne!(system(&list), right, "{harm}");
            // An agent that has begun anew knows nothing of what the one before was at.
            let again = world.native_engine(host, LivenessBoard::new());
            again.inventory().await.expect("the kernel answers");
            assert_eq!(system(&list), right, "{harm}");
        }
    });
}

use uuid::Uuid;

use super::super::tests::RealKernel;
use super::super::tests::apart::apart;
use super::*;
use crate::engine::liveness::LivenessBoard;
use crate::engine::sample;

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
        text.matches(&format!("iifname \"{prefix}*\" drop")).count(),
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

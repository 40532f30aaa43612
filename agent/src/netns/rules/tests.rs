use std::collections::{BTreeMap, BTreeSet};

use domain::id::LanId;
use domain::wiring::WiredInterface;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn wiring(inside: &[&str], host: &[&str], forwards: bool) -> Wiring {
    Wiring {
        interfaces: vec![WiredInterface {
            lan: LanId::new(Uuid::nil()),
            mac: "00:25:90:00:00:01".parse().expect("it is one"),
            own_mac: true,
            addresses: vec!["10.1.0.10/24".parse().expect("it is one")],
        }],
        routes: BTreeSet::new(),
        sysctls: BTreeMap::new(),
        inside: inside
            .iter()
            .map(|net| net.parse().expect("it is one"))
            .collect(),
        host: host
            .iter()
            .map(|ip| ip.parse().expect("it is one"))
            .collect(),
        forwards,
    }
}

#[test]
fn the_rules_of_a_decky_on_one_lan() {
    insta::assert_snapshot!(render(&wiring(&["10.1.0.0/24"], &["10.1.0.1"], false)));
}

#[test]
fn the_rules_of_a_gateway_that_speaks_ipv6() {
    let inside = ["10.1.0.0/24", "10.2.0.0/24", "fd00:1::/64", "fd00:2::/64"];
    let host = ["10.1.0.1", "10.2.0.1", "fd00:1::1", "fd00:2::1"];
    insta::assert_snapshot!(render(&wiring(&inside, &host, true)));
}

#[test]
fn the_rules_of_a_decky_among_real_machines() {
    let inside = ["192.168.7.20/32", "192.168.7.21/32"];
    insta::assert_snapshot!(render(&wiring(&inside, &["192.168.7.1"], false)));
}

#[test]
fn the_rules_of_a_decky_that_is_nowhere() {
    let text = render(&wiring(&[], &[], false));
    assert!(!text.contains("elements"), "{text}");
    assert_ne!(
        digest(&wiring(&[], &[], false)),
        digest(&wiring(&[], &[], true))
    );
}

proptest! {
    #[test]
    fn ranges_never_overlap(nets: Vec<(u32, u8)>) {
        let nets: Vec<String> = nets
            .iter()
            .map(|(bits, length)| format!("{}/{}", std::net::Ipv4Addr::from(*bits), length % 33))
            .collect();
        let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
        let text = render(&wiring(&nets, &[], false));
        let line = text.lines().skip_while(|line| !line.contains("set inside4")).find(|line| line.contains("elements"));
        let ranges: Vec<Ipv4Net> = line
            .into_iter()
            .flat_map(|line| line.trim().trim_start_matches("elements = {").trim_end_matches('}').split(','))
            .map(|net| net.trim().parse().expect("it is one"))
            .collect();
        for (index, one) in ranges.iter().enumerate() {
            for other in &ranges[index + 1..] {
                prop_assert!(!one.contains(other) && !other.contains(one), "{text}");
            }
        }
    }
}

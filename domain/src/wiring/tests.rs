//! What routes and limits a chain of LANs gives to each of its machines.

use super::*;
use crate::testkit;
use crate::topology::draft::{Draft, DraftDecky, DraftEdge, DraftLan};
use crate::topology::hydrate::hydrate;

fn lan(name: &str, subnet: &str, kind: &str) -> DraftLan {
    DraftLan {
        name: name.to_owned(),
        subnet: subnet.to_owned(),
        kind: Some(kind.to_owned()),
        ..DraftLan::default()
    }
}

fn decky(name: &str, forwards: bool, lans: &[&str]) -> DraftDecky {
    DraftDecky {
        name: name.to_owned(),
        forwards_l3: forwards,
        edges: lans
            .iter()
            .map(|lan| DraftEdge {
                lan: (*lan).to_owned(),
                ..DraftEdge::default()
            })
            .collect(),
        ..DraftDecky::default()
    }
}

/// DMZ, then `gate` to the office, then `core` to the vault; `bridge` is on both and forwards
/// nothing.
fn chain() -> Draft {
    Draft {
        name: "chain".to_owned(),
        lans: vec![
            lan("dmz", "10.1.0.0/24", "dmz"),
            lan("office", "10.1.1.0/24", "internal"),
            lan("vault", "10.1.2.0/24", "internal"),
        ],
        deckies: vec![
            decky("gate", true, &["dmz", "office"]),
            decky("core", true, &["office", "vault"]),
            decky("web", false, &["dmz"]),
            decky("desk", false, &["office"]),
            decky("safe", false, &["vault"]),
        ],
    }
}

fn wiring_of(draft: &Draft, name: &str) -> Wiring {
    let hydrated = hydrate(&testkit::topology(draft));
    let decky = hydrated
        .deckies
        .iter()
        .find(|decky| decky.name.as_str() == name)
        .expect("the draft has it");
    of(&hydrated, decky)
}

fn routes(wiring: &Wiring) -> Vec<String> {
    wiring
        .routes
        .iter()
        .map(|route| format!("{} via {}", route.to, route.via))
        .collect()
}

#[test]
fn inner_machines_know_the_way_back_and_outer_ones_the_way_in() {
    let draft = chain();
    assert_eq!(
        routes(&wiring_of(&draft, "web")),
        [
            "0.0.0.0/0 via 10.1.0.1",
            "10.1.1.0/24 via 10.1.0.2",
            "10.1.2.0/24 via 10.1.0.2",
        ]
    );
    assert_eq!(
        routes(&wiring_of(&draft, "desk")),
        ["0.0.0.0/0 via 10.1.1.2", "10.1.2.0/24 via 10.1.1.3"]
    );
    assert_eq!(
        routes(&wiring_of(&draft, "gate")),
        ["0.0.0.0/0 via 10.1.0.1", "10.1.2.0/24 via 10.1.1.3"]
    );
    assert_eq!(
        routes(&wiring_of(&draft, "safe")),
        ["0.0.0.0/0 via 10.1.2.2"]
    );
}

#[test]
fn nothing_leads_through_a_machine_that_does_not_forward() {
    let mut draft = chain();
    draft.deckies[1].forwards_l3 = false;
    let web = wiring_of(&draft, "web");
    assert_eq!(
        routes(&web),
        ["0.0.0.0/0 via 10.1.0.1", "10.1.1.0/24 via 10.1.0.2"]
    );
    let vault: IpNet = "10.1.2.0/24".parse().expect("a subnet");
    assert!(!web.inside.contains(&vault));
    assert_eq!(routes(&wiring_of(&draft, "safe")), Vec::<String>::new());
    // It stands on both sides all the same.
    assert!(wiring_of(&draft, "core").inside.contains(&vault));
}

#[test]
fn the_hosts_own_addresses_are_inside_no_limit() {
    let web = wiring_of(&chain(), "web");
    let host: Vec<_> = web.host.iter().map(ToString::to_string).collect();
    assert_eq!(host, ["10.1.0.1", "10.1.1.1", "10.1.2.1"]);
}

#[test]
fn on_a_real_network_only_our_own_machines_are_inside() {
    let mut draft = chain();
    draft.lans[0].driver = Some("macvlan:eth0".to_owned());
    let inside: Vec<_> = wiring_of(&draft, "web")
        .inside
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        inside,
        ["10.1.0.2/32", "10.1.0.3/32", "10.1.1.0/24", "10.1.2.0/24"]
    );
}

#[test]
fn a_lan_with_ipv6_gives_addresses_and_routes_of_both_families() {
    let mut draft = chain();
    draft.lans[0].subnet6 = Some("fd00:1::/64".to_owned());
    draft.lans[1].subnet6 = Some("fd00:2::/64".to_owned());
    let gate = wiring_of(&draft, "gate");
    let sixes: Vec<_> = gate
        .interfaces
        .iter()
        .flat_map(|interface| &interface.addresses)
        .filter(|address| matches!(address, IpNet::V6(_)))
        .collect();
    assert_eq!(sixes.len(), 2);
    let web = wiring_of(&draft, "web");
    assert!(
        web.routes
            .iter()
            .any(|route| route.to.to_string() == "fd00:2::/64"
                && sixes.iter().any(|it| it.addr() == route.via))
    );
    let mac = "00:25:90:0a:0b:0c".parse().expect("a MAC");
    let address =
        crate::topology::hydrate::interface_address6("fd00:1::/64".parse().expect("a range"), mac);
    assert_eq!(address.to_string(), "fd00:1::225:90ff:fe0a:b0c");
}

#[test]
fn what_differs_is_told_by_its_gravest_kind() {
    let wiring = wiring_of(&chain(), "gate");
    let right = ObservedWiring {
        interfaces: wiring
            .interfaces
            .iter()
            .rev()
            .map(|interface| (interface.mac, interface.addresses.clone()))
            .collect(),
        routes: wiring.routes.clone(),
        sysctls: wiring.sysctls.clone(),
        rules: Some([7; 32]),
        open: true,
    };
    let differs = |change: fn(&mut ObservedWiring)| {
        let mut seen = right.clone();
        change(&mut seen);
        wiring.difference(&seen, &[7; 32])
    };
    assert_eq!(differs(|_| {}), None);
    assert_eq!(differs(|seen| seen.rules = None), Some(DriftKind::Unsealed));
    assert_eq!(
        differs(|seen| seen.rules = Some([8; 32])),
        Some(DriftKind::Unsealed)
    );
    assert_eq!(
        differs(|seen| seen.interfaces[0].0 = Mac::new([2; 6])),
        Some(DriftKind::Readdressed)
    );
    assert_eq!(
        differs(|seen| drop(seen.interfaces.pop())),
        Some(DriftKind::Readdressed)
    );
    assert_eq!(
        differs(|seen| seen.routes.clear()),
        Some(DriftKind::Rerouted)
    );
    assert_eq!(
        differs(|seen| drop(seen.sysctls.pop_first())),
        Some(DriftKind::Retuned)
    );
    assert_eq!(differs(|seen| seen.open = false), Some(DriftKind::Retuned));
}

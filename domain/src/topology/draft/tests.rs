//! What reading a draft finds, and what it chooses.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::service::OptionValue;
use crate::testkit::{Counting, draft, plain, topology};
use crate::topology::allocate::{AddressAllocator, AddressRefused};
use crate::topology::validate::{check, validate};

fn codes(draft: &Draft) -> Vec<&'static str> {
    let resolved = resolve(draft, None, &Limits::default(), &mut Counting::default());
    check(&resolved)
        .iter()
        .map(|finding| finding.code.as_str())
        .collect()
}

fn edited(edit: impl FnOnce(&mut Draft)) -> Draft {
    let services = vec![ServiceKind::Ssh, ServiceKind::Http];
    let mut draft = draft(
        1,
        &[
            (0, false, services.clone()),
            (1, true, services.clone()),
            (1, false, services),
        ],
    );
    edit(&mut draft);
    draft
}

#[test]
fn each_fault_is_found_under_its_own_code() {
    type Edit = fn(&mut Draft);
    let table: [(&str, Edit); 37] = [
        ("NAME_INVALID", |draft| draft.name = String::new()),
        ("NAME_INVALID", |draft| {
            draft.lans[0].name = "a b".to_owned()
        }),
        ("NAME_INVALID", |draft| {
            draft.deckies[0].name = "-x".to_owned()
        }),
        ("NAME_INVALID", |draft| {
            draft.deckies[0].hostname = Some("a.b".to_owned())
        }),
        ("LAN_NAME_DUP", |draft| {
            draft.lans[1].name = "LAN-0".to_owned()
        }),
        ("DECKY_NAME_DUP", |draft| {
            draft.deckies[1].name = "Decky-0".to_owned()
        }),
        ("SUBNET_MALFORMED", |draft| {
            draft.lans[0].subnet = "10.9.0.1/24".to_owned()
        }),
        ("SUBNET_MALFORMED", |draft| {
            draft.lans[0].subnet = "ten".to_owned()
        }),
        ("SUBNET_MALFORMED", |draft| {
            draft.lans[0].subnet = "10.09.0.0/24".to_owned()
        }),
        ("SUBNET_MALFORMED", |draft| {
            draft.lans[0].subnet = "10.9.0.0/024".to_owned()
        }),
        ("SUBNET_OVERLAP", |draft| {
            draft.lans[1].subnet = "10.9.0.128/25".to_owned()
        }),
        ("SUBNET_RESERVED", |draft| {
            draft.lans[1].subnet = "127.0.0.0/24".to_owned()
        }),
        ("SUBNET_RESERVED", |draft| {
            draft.lans[1].subnet = "10.8.0.0/31".to_owned()
        }),
        ("SUBNET_MALFORMED", |draft| {
            draft.lans[0].subnet6 = Some("fd00::1/64".to_owned())
        }),
        ("SUBNET_RESERVED", |draft| {
            draft.lans[0].subnet6 = Some("fd00::/48".to_owned())
        }),
        ("SUBNET_RESERVED", |draft| {
            draft.lans[0].subnet6 = Some("fe80::/64".to_owned())
        }),
        ("SUBNET_OVERLAP", |draft| {
            draft.lans[0].subnet6 = Some("fd00::/64".to_owned());
            draft.lans[1].subnet6 = Some("fd00::/64".to_owned());
        }),
        ("PUBLISH_UNBRIDGED", |draft| {
            draft.lans[0].driver = Some("macvlan:eth0".to_owned())
        }),
        ("VALUE_INVALID", |draft| {
            draft.lans[0].driver = Some("macvlan:a name of more than 15".to_owned())
        }),
        ("VALUE_INVALID", |draft| {
            draft.lans[0].kind = Some("wan".to_owned())
        }),
        ("VALUE_INVALID", |draft| {
            draft.lans[0].driver = Some("smoke".to_owned())
        }),
        ("VALUE_INVALID", |draft| {
            draft.deckies[0].persona = Some("amiga".to_owned())
        }),
        ("VALUE_INVALID", |draft| {
            draft.deckies[0].seed = Some("00".to_owned())
        }),
        ("VALUE_INVALID", |draft| {
            draft.deckies[0].publish[0].host_port = 70_000
        }),
        ("DMZ_MISSING", |draft| draft.lans[0].kind = None),
        ("DMZ_MULTIPLE", |draft| {
            draft.lans[1].kind = Some("dmz".to_owned())
        }),
        ("DMZ_ORPHAN", |draft| drop(draft.deckies[1].edges.pop())),
        ("DECKY_ORPHAN", |draft| draft.deckies[2].edges.clear()),
        ("EDGE_UNKNOWN", |draft| {
            draft.deckies[2].edges[0].lan = "nowhere".to_owned()
        }),
        ("EDGE_DUP", |draft| {
            let twin = draft.deckies[2].edges[0].clone();
            draft.deckies[2].edges.push(twin);
        }),
        ("IP_MALFORMED", |draft| {
            draft.deckies[0].edges[0].address = Some("1.2.3".to_owned())
        }),
        ("IP_OUT_OF_SUBNET", |draft| {
            draft.deckies[0].edges[0].address = Some("10.8.0.9".to_owned())
        }),
        ("IP_RESERVED", |draft| {
            draft.deckies[0].edges[0].address = Some("10.9.0.1".to_owned())
        }),
        ("UNKNOWN_SERVICE", |draft| {
            draft.deckies[0].services.push("gopher".to_owned())
        }),
        ("SERVICE_CFG_UNDECLARED", |draft| {
            draft.deckies[0]
                .service_config
                .insert("ftp".to_owned(), BTreeMap::new());
        }),
        ("SERVICE_CFG_INVALID", |draft| {
            let options = BTreeMap::from([("accept_after".to_owned(), OptionValue::Integer(-1))]);
            draft.deckies[0]
                .service_config
                .insert("ssh".to_owned(), options);
        }),
        ("GATEWAY_NOT_IN_DMZ", |draft| {
            let publish = DraftPublish {
                host_port: 9,
                decky_port: 22,
                ..DraftPublish::default()
            };
            draft.deckies[2].publish.push(publish);
        }),
    ];
    assert_eq!(codes(&edited(|_| {})), [""; 0]);
    for (code, edit) in table {
        let found = codes(&edited(edit));
        assert!(found.contains(&code), "{code} is not among {found:?}");
    }
}

#[test]
fn one_fault_hides_no_other_and_each_has_its_place_in_the_draft() {
    let draft = edited(|draft| {
        draft.deckies[0].name = "-".to_owned();
        draft.deckies[1].services.push("gopher".to_owned());
        draft.deckies[2].edges.clear();
    });
    let resolved = resolve(&draft, None, &Limits::default(), &mut Counting::default());
    let places: Vec<_> = check(&resolved)
        .iter()
        .map(|finding| format!("{} {}", finding.code.as_str(), finding.path))
        .collect();
    assert_eq!(
        places,
        [
            "DECKY_ORPHAN deckies[2].edges",
            "NAME_INVALID deckies[0].name",
            "UNKNOWN_SERVICE deckies[1].services[2]",
        ]
    );
}

#[test]
fn two_deckies_of_one_address_or_one_port_of_the_host_collide() {
    let collided = edited(|draft| {
        draft.deckies[1].edges[0].address = Some("10.9.1.7".to_owned());
        draft.deckies[2].edges[0].address = Some("10.9.1.7".to_owned());
    });
    assert_eq!(codes(&collided), ["IP_COLLISION"]);
    let published = edited(|draft| {
        let port = draft.deckies[0].publish[0].clone();
        draft.deckies[0].publish.push(port);
    });
    assert_eq!(codes(&published), ["PUBLISH_COLLISION"]);
}

#[test]
fn an_address_that_was_asked_for_is_never_handed_to_another() {
    let draft = edited(|draft| draft.deckies[2].edges[0].address = Some("10.9.1.2".to_owned()));
    let topology = topology(&draft);
    assert_eq!(validate(&topology), []);
    let addresses: Vec<String> = topology
        .edges
        .iter()
        .map(|edge| edge.address.to_string())
        .collect();
    assert_eq!(addresses, ["10.9.0.2", "10.9.1.3", "10.9.0.3", "10.9.1.2"]);
}

#[test]
fn a_full_lan_is_a_finding() {
    let mut full = edited(|draft| draft.lans[1].subnet = "10.9.1.0/29".to_owned());
    let extra = full.deckies[2].clone();
    for number in 0..5 {
        let mut decky = extra.clone();
        decky.name = format!("extra-{number}");
        full.deckies.push(decky);
    }
    assert!(codes(&full).contains(&"IP_EXHAUSTED"));
}

#[test]
fn a_draft_beyond_the_limits_is_refused_without_being_read_whole() {
    let limits = Limits {
        lans: 1,
        deckies: 2,
        edges_per_decky: 1,
        publish_per_decky: 1,
    };
    let draft = edited(|_| {});
    let resolved = resolve(&draft, None, &limits, &mut Counting::default());
    assert_eq!(resolved.topology.lans.len(), 1);
    assert_eq!(resolved.topology.deckies.len(), 2);
    assert!(
        resolved
            .findings
            .iter()
            .any(|finding| finding.code == Code::TooLarge)
    );
}

#[test]
fn the_allocator_answers_as_the_original_did_where_the_original_was_right() {
    let mut allocator = AddressAllocator::new("10.0.0.0/24".parse().expect("a subnet"));
    let address = |last: u8| Ipv4Addr::new(10, 0, 0, last);
    assert_eq!(allocator.next_free(), Some(address(2)));
    assert_eq!(allocator.next_free(), Some(address(3)));
    assert_eq!(allocator.reserve(address(4)), Ok(()));
    assert_eq!(allocator.next_free(), Some(address(5)));
    allocator.release(address(2));
    assert_eq!(allocator.next_free(), Some(address(6)));
    assert!(allocator.is_free(address(2)));
    assert!(!allocator.is_free(address(1)));
    assert_eq!(allocator.reserve(address(1)), Err(AddressRefused::Reserved));
    assert_eq!(
        allocator.reserve(Ipv4Addr::new(10, 0, 1, 5)),
        Err(AddressRefused::OutOfSubnet)
    );

    let mut tiny = AddressAllocator::new("10.0.0.0/30".parse().expect("a subnet"));
    assert_eq!(tiny.next_free(), Some(address(2)));
    assert_eq!(tiny.next_free(), None);
    tiny.release(address(2));
    assert_eq!(tiny.next_free(), Some(address(2)));
}

/// Texts that are names, addresses and numbers, and texts that are nothing of the kind.
fn any_text() -> impl Strategy<Value = String> {
    let known = [
        "",
        "lan-0",
        "LAN-0",
        "10.9.0.2",
        "10.9.0.0/24",
        "0.0.0.0/0",
        "255.255.255.255/32",
        "::/0",
        "fd00::/64",
        "dmz",
        "bridge",
        "macvlan:eth0",
        "ssh",
        "linux",
        "6h",
        "00:25:90:0a:0b:0c",
    ];
    prop_oneof![
        2 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => ".{0,80}",
    ]
}

fn any_maybe() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(any_text())
}

prop_compose! {
    fn any_draft_edge()(
        (lan, address, mac) in (any_text(), any_maybe(), any_maybe()),
        home in proptest::option::of(any::<bool>()),
    ) -> DraftEdge {
        DraftEdge { lan, address, mac, home }
    }
}

prop_compose! {
    fn any_draft_decky()(
        (name, hostname, archetype, persona) in (any_text(), any_maybe(), any_maybe(), any_maybe()),
        (seed, mutate_every, forwards_l3) in (any_maybe(), any_maybe(), any::<bool>()),
        services in proptest::collection::vec(any_text(), 0..4),
        option in (any_text(), any_text(), any::<i64>()),
        publish in proptest::collection::vec((any_maybe(), any::<i64>(), any_maybe()), 0..3),
        edges in proptest::collection::vec(any_draft_edge(), 0..4),
    ) -> DraftDecky {
        let options = BTreeMap::from([(option.1, OptionValue::Integer(option.2))]);
        let publish = publish.into_iter().map(|(host_ip, port, protocol)| DraftPublish {
            host_ip, host_port: port, decky_port: port, protocol,
        });
        DraftDecky {
            name, hostname, archetype, services, persona, forwards_l3, mutate_every, seed, edges,
            service_config: BTreeMap::from([(option.0, options)]),
            publish: publish.collect(),
        }
    }
}

proptest! {
    #[test]
    fn any_draft_whatever_gives_findings_with_places_and_never_a_panic(
        name in any_text(),
        lans in proptest::collection::vec(
            (any_text(), any_text(), any_maybe(), any_maybe(), any_maybe()), 0..4
        ),
        deckies in proptest::collection::vec(any_draft_decky(), 0..4),
    ) {
        let lans = lans.into_iter().map(|(name, subnet, subnet6, kind, driver)| DraftLan {
            name, subnet, subnet6, kind, driver,
        });
        let draft = Draft { name, lans: lans.collect(), deckies };
        let resolved = resolve(&draft, None, &Limits::default(), &mut Counting::default());
        let findings = check(&resolved);
        for finding in &findings {
            prop_assert!(!finding.path.is_empty() && !finding.message.is_empty());
            // Attackers write no drafts, but what is printed is bounded all the same.
            prop_assert!(finding.message.chars().count() < 1200, "{}", finding.message);
        }
        // What is read without a fault is read again from its own form.
        if resolved.findings.is_empty() {
            let again = Draft::from(&resolved.topology);
            let again = again.resolve_onto(
                &resolved.topology, &Limits::default(), &mut Counting(900)
            );
            prop_assert_eq!(again.findings, []);
            prop_assert_eq!(plain(&again.topology), plain(&resolved.topology));
        }
        let current = topology(&edited(|_| {}));
        let onto = draft.resolve_onto(&current, &Limits::default(), &mut Counting(900));
        prop_assert_eq!(onto.topology.id, current.id);
    }
}

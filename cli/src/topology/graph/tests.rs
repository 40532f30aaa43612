use domain::topology::draft::{DraftEdge, DraftLan};
use proptest::prelude::*;

use super::*;
use crate::document::parse_text;

/// A DMZ with a gateway, an inner LAN reached twice, a LAN nobody leads to, and faults.
const MIXED: &str = "\
name: office
lans:
  - { name: dmz, subnet: 10.9.0.0/24, kind: dmz }
  - { name: inner, subnet: 10.9.1.0/24 }
  - { name: vault, subnet: 10.9.2.0/24 }
  - { name: island, subnet: 10.9.3.0/24 }
deckies:
  - name: web
    persona: linux
    services: [http, ssh]
    publish: [{ host_port: 8080, decky_port: 80 }, { host_ip: 192.0.2.1, host_port: 2222, decky_port: 22 }]
    edges: [{ lan: dmz, address: 10.9.0.10 }]
  - name: gate
    services: [ssh]
    forwards_l3: true
    edges: [{ lan: inner, address: 10.9.1.2 }, { lan: DMZ, address: 10.9.0.11 }]
  - { name: db, services: [redis], edges: [{ lan: inner }, { lan: vault, address: 10.9.2.4 }] }
  - { name: spy, edges: [{ lan: inner, address: 10.9.1.9 }, { lan: vault }] }
  - { name: crusoe, services: [telnet], edges: [{ lan: island, address: 10.9.3.5 }] }
  - { name: ghost, services: [ftp], edges: [{ lan: nowhere }] }
";

fn graph(text: &str) -> Graph {
    let file = parse_text(text, "t").expect("readable").file;
    Graph::of(&Draft::from(file), &Limits::default()).expect("small")
}

#[test]
fn a_graph_in_each_notation_is_what_an_operator_reads() {
    let graph = graph(MIXED);
    for notation in Notation::ALL {
        insta::assert_snapshot!(notation.as_str(), graph.draw(notation));
    }
}

#[test]
fn the_example_is_a_tree_from_its_dmz() {
    let example = include_str!("../../../../examples/office.yaml");
    insta::assert_snapshot!("example", graph(example).draw(Notation::Tree));
}

#[test]
fn a_way_is_the_shortest_one_over_gateways() {
    let graph = graph(MIXED);
    let ways: Vec<_> = graph
        .order
        .iter()
        .map(|lan| &graph.lans[*lan])
        .map(|lan| (lan.name.as_str(), lan.level, lan.reached))
        .collect();
    assert_eq!(
        ways,
        [
            ("dmz", 0, true),
            ("inner", 1, true),
            ("vault", 2, true),
            ("island", 0, false)
        ]
    );
}

#[test]
fn a_page_needs_nothing_else_and_obeys_nobody() {
    let hostile =
        "</title></pre><script>alert(1)</script><img src=x onerror='y'>\"&\u{1b}[2J\u{202e}";
    let draft = Draft {
        name: hostile.to_owned(),
        lans: vec![DraftLan {
            name: hostile.to_owned(),
            subnet: hostile.to_owned(),
            kind: Some("dmz".to_owned()),
            ..DraftLan::default()
        }],
        deckies: vec![DraftDecky {
            name: hostile.to_owned(),
            persona: Some(hostile.to_owned()),
            services: vec![hostile.to_owned()],
            edges: vec![DraftEdge {
                lan: hostile.to_owned(),
                address: Some(hostile.to_owned()),
                ..DraftEdge::default()
            }],
            ..DraftDecky::default()
        }],
    };
    let page = Graph::of(&draft, &Limits::default())
        .expect("small")
        .draw(Notation::Html);
    for banned in [
        "<script",
        "<img",
        "onerror='",
        "href",
        "url(",
        "@import",
        "\u{1b}",
        "\u{202e}",
    ] {
        assert!(!page.contains(banned), "{banned}: {page}");
    }
    // The name of SVG is the only address in it, and nobody goes there.
    let space = "xmlns=\"http://www.w3.org/2000/svg\"";
    assert_eq!(page.matches("://").count(), page.matches(space).count());
}

#[test]
fn what_a_notation_obeys_is_escaped_in_it() {
    let text = "name: 'a\"] --> b; #quot; \\n & `'\nlans: [{ name: 'x\"y\\', subnet: '|' }]\n";
    let graph = graph(text);
    let dot = graph.draw(Notation::Dot);
    assert!(
        dot.contains(r##"graph "a\"] --> b; #quot; \\n &amp; `" {"##),
        "{dot}"
    );
    assert!(dot.contains(r#"label="x\"y\\\n|""#), "{dot}");
    let mermaid = graph.draw(Notation::Mermaid);
    assert!(
        mermaid.contains("lan0[[\"x#34;y#92;<br/>#124;\"]]"),
        "{mermaid}"
    );
}

#[test]
fn a_draft_that_is_too_large_is_refused_with_the_limit() {
    let draft = Draft {
        lans: vec![DraftLan::default(); 257],
        ..Draft::default()
    };
    let said = Graph::of(&draft, &Limits::default())
        .expect_err("large")
        .lines();
    assert_eq!(said[0], "error: 257 LANs exceed the limit of 256");
}

#[test]
fn a_chain_of_as_many_lans_as_there_may_be_is_drawn() {
    let lan = |index: usize| DraftLan {
        name: format!("l{index}"),
        kind: (index == 0).then(|| "dmz".to_owned()),
        ..DraftLan::default()
    };
    let edge = |index: usize| DraftEdge {
        lan: format!("l{index}"),
        ..DraftEdge::default()
    };
    let draft = Draft {
        lans: (0..256).map(lan).collect(),
        deckies: (1..256)
            .map(|index| DraftDecky {
                name: format!("d{index}"),
                edges: vec![edge(index), edge(index - 1)],
                ..DraftDecky::default()
            })
            .collect(),
        ..Draft::default()
    };
    let graph = Graph::of(&draft, &Limits::default()).expect("within the limits");
    assert_eq!(graph.lans[255].level, 255);
    for notation in Notation::ALL {
        assert!(graph.draw(notation).contains("d255"));
    }
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["a", "A", "b", "c", "d"]).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

prop_compose! {
    fn lan()(name in word(), subnet in word(), dmz in any::<bool>()) -> DraftLan {
        let kind = dmz.then(|| "dmz".to_owned());
        DraftLan { name, subnet, kind, ..DraftLan::default() }
    }
}

prop_compose! {
    fn edge()(
        lan in word(), address in proptest::option::of(word()), home in proptest::option::of(any::<bool>()),
    ) -> DraftEdge {
        DraftEdge { lan, address, home, mac: None }
    }
}

prop_compose! {
    fn decky()(
        name in word(),
        persona in proptest::option::of(word()),
        services in prop::collection::vec(word(), 0..3),
        ports in prop::collection::vec((any::<i64>(), any::<i64>(), proptest::option::of(word())), 0..2),
        forwards_l3 in any::<bool>(),
        edges in prop::collection::vec(edge(), 0..20),
    ) -> DraftDecky {
        let publish = |(host_port, decky_port, protocol)| {
            DraftPublish { host_ip: None, host_port, decky_port, protocol }
        };
        DraftDecky {
            name, persona, services, forwards_l3, edges,
            publish: ports.into_iter().map(publish).collect(),
            ..DraftDecky::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_draft_makes_it_panic_and_every_part_is_drawn(
        name in word(),
        lans in prop::collection::vec(lan(), 0..6),
        deckies in prop::collection::vec(decky(), 0..6),
    ) {
        let draft = Draft { name, lans, deckies };
        let graph = Graph::of(&draft, &Limits::default()).map_err(|failure| failure.lines());
        let graph = graph.expect("small");
        prop_assert_eq!(graph.order.len(), draft.lans.len());
        for notation in Notation::ALL {
            let text = graph.draw(notation);
            prop_assert!(!text.chars().any(|each| each.is_control() && each != '\n'));
        }
        let page = graph.draw(Notation::Html);
        prop_assert_eq!(page.matches("class=\"card\"").count(), draft.deckies.len());
        let dot = graph.draw(Notation::Dot);
        prop_assert_eq!(dot.matches("style=rounded").count(), draft.deckies.len());
    }
}

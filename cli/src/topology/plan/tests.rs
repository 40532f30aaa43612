use proptest::prelude::*;

use super::*;
use crate::document::parse_text;

const LOOK: Look = Look {
    width: None,
    colour: false,
};

/// As a master exports it: with everything that was chosen.
const STORED: &str = "\
name: office
lans:
  - { name: dmz, subnet: 10.9.0.0/24, kind: dmz, driver: bridge }
  - { name: inner, subnet: 10.9.1.0/24, kind: internal, driver: bridge }
deckies:
  - name: gate
    hostname: web01
    persona: linux
    services: [ssh]
    service_config: { ssh: { accept_after: 1 } }
    forwards_l3: true
    publish: [{ host_port: 2222, decky_port: 22, protocol: tcp }]
    seed: '1111111111111111111111111111111111111111111111111111111111111111'
    edges:
      - { lan: dmz, address: 10.9.0.10, mac: '00:1b:21:00:00:01', home: true }
      - { lan: inner, address: 10.9.1.10, mac: '00:1b:21:00:00:02', home: false }
  - name: db
    hostname: db01
    persona: linux
    services: [redis]
    seed: '2222222222222222222222222222222222222222222222222222222222222222'
    edges:
      - { lan: inner, address: 10.9.1.20, mac: '00:1b:21:00:00:03', home: true }
";

/// The same as a person wrote it.
const WRITTEN: &str = "\
name: Office
lans:
  - { name: inner, subnet: 10.9.1.0/24 }
  - { name: dmz, subnet: 10.9.0.0/24, kind: dmz }
deckies:
  - { name: db, services: [redis], edges: [{ lan: inner }] }
  - name: gate
    services: [ssh]
    service_config: { ssh: { accept_after: 1 } }
    forwards_l3: true
    publish: [{ host_port: 2222, decky_port: 22 }]
    edges: [{ lan: dmz, address: 10.9.0.10 }, { lan: inner }]
";

const EDITED: &str = "\
name: office
lans:
  - { name: dmz, subnet: 10.9.0.0/24, kind: dmz }
  - { name: inner, subnet: 10.9.1.0/24 }
  - { name: vault, subnet: 10.9.2.0/24 }
deckies:
  - name: gate
    services: [ssh, http]
    service_config: { ssh: { accept_after: 3 } }
    publish: [{ host_port: 2222, decky_port: 22 }, { host_port: 8080, decky_port: 80 }]
    forwards_l3: true
    edges: [{ lan: dmz, address: 10.9.0.11 }, { lan: vault, address: 10.9.2.10 }, { lan: inner }]
  - { name: safe, services: [ftp], edges: [{ lan: vault }] }
  - { name: files, services: [ftp, ssh], persona: bsd, edges: [{ lan: inner, address: 10.9.1.30 }] }
";

fn loaded(text: &str) -> Loaded {
    parse_text(text, "t").expect("readable")
}

fn planned(written: &str, stored: Option<&str>) -> Plan {
    plan(loaded(written), stored.map(|text| loaded(text).file)).expect("readable")
}

#[test]
fn a_difference_is_what_an_operator_reads() {
    let plan = planned(EDITED, Some(STORED));
    insta::assert_snapshot!("edited", text(LOOK, &plan));
    let json = serde_json::to_string_pretty(&plan).expect("plain");
    insta::assert_snapshot!("edited_json", json);
}

#[test]
fn everything_is_new_where_nothing_is_stored() {
    let plan = planned(WRITTEN, None);
    assert!(!plan.stored);
    insta::assert_snapshot!("new", text(LOOK, &plan));
    assert_eq!(exit(&plan, true), Exit::Difference);
    assert_eq!(exit(&plan, false), Exit::Done);
}

#[test]
fn what_is_left_out_and_the_order_differ_in_nothing() {
    for written in [STORED, &WRITTEN.replace("name: Office", "name: office")] {
        let plan = planned(written, Some(STORED));
        assert_eq!(plan.changes, []);
        assert_eq!(
            text(LOOK, &plan).lines().next(),
            Some("topology office is as the document says")
        );
        assert_eq!(exit(&plan, true), Exit::Done);
    }
}

#[test]
fn everything_is_removed_by_a_document_that_holds_nothing() {
    let plan = planned("name: office\nlans: []\n", Some(STORED));
    let removed: Vec<_> = plan
        .changes
        .iter()
        .map(|change| (change.action.as_str(), change.name.as_str()))
        .collect();
    assert_eq!(
        removed,
        [
            ("remove", "gate"),
            ("remove", "db"),
            ("remove", "dmz"),
            ("remove", "inner")
        ]
    );
    // A topology without a DMZ breaks a rule, and that is said beside the difference.
    assert_eq!(plan.findings[0].code, "DMZ_MISSING");
    assert_eq!(exit(&plan, true), Exit::Failed);
}

#[test]
fn a_document_that_cannot_be_read_has_findings_and_no_plan() {
    let text = EDITED.replace("[ssh, http]", "[sssh]");
    let findings = plan(loaded(&text), None).expect_err("unknown");
    assert_eq!(findings[0].code, "UNKNOWN_SERVICE");
}

#[test]
fn neither_seeds_nor_what_is_drawn_from_them_is_shown() {
    let other = STORED.replace(&"1".repeat(64), &"3".repeat(64));
    for plan in [planned(&other, Some(STORED)), planned(STORED, None)] {
        assert!(!plan.difference.is_empty());
        let json = serde_json::to_string(&plan).expect("plain");
        for shown in [json, text(LOOK, &plan)] {
            assert!(
                !shown.contains("3333") && !shown.contains("2222222"),
                "{shown}"
            );
        }
    }
}

#[test]
fn the_original_system_and_its_faults_are_told() {
    let text = r#"{"topology": {"name": "t"}, "lans": [], "deckies": [],
        "edges": [{"decky_uuid": "d9", "lan_id": "l1"}]}"#;
    let findings = plan(loaded(text), None).expect_err("an edge of nobody");
    assert_eq!(findings[0].code, "EDGE_UNKNOWN");
}

proptest! {
    #[test]
    fn no_mutilation_makes_it_panic(cut in 0..EDITED.len(), insert in "[-:{}\\[\\]a-z0-9 \n]{0,4}") {
        let text = format!("{}{insert}{}", &EDITED[..cut], &EDITED[cut..]);
        if let Ok(loaded) = parse_text(&text, "t")
            && let Ok(plan) = plan(loaded, Some(parse_text(STORED, "s").expect("readable").file))
        {
            super::text(LOOK, &plan);
        }
    }
}

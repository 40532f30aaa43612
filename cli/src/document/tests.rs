use std::collections::BTreeMap;

use domain::topology::draft::Draft;
use proptest::prelude::*;
use proto::decky_config::WireOption;
use proto::topology_file::{FileDecky, FileEdge, FileLan, FilePublish};

use super::*;
use crate::output::yaml as to_yaml;

const SMALL: &str = "\
name: small
lans:
  - { name: dmz, subnet: 10.9.0.0/24, kind: dmz }
  - { name: inner, subnet: 10.9.1.0/24 }
deckies:
  - name: gate
    services: [ssh]
    service_config: { ssh: { accept_after: 1, banner: \"OpenSSH_9.9\" } }
    forwards_l3: true
    edges: [{ lan: dmz, address: 10.9.0.10 }, { lan: inner }]
";

fn refusal(text: &str) -> String {
    parse_text(text, "t.yaml")
        .expect_err("malformed")
        .lines()
        .join("\n")
}

fn file(text: &str) -> TopologyFile {
    parse_text(text, "t.yaml").expect("a topology").file
}

#[test]
fn yaml_and_json_say_the_same() {
    let from_yaml = file(SMALL);
    assert_eq!(
        from_yaml.deckies[0].service_config["ssh"]["accept_after"],
        WireOption::Integer(1)
    );
    let json = serde_json::to_string_pretty(&from_yaml).expect("plain");
    assert_eq!(file(&json), from_yaml);
    // A flow mapping begins like JSON and is none.
    assert_eq!(file("{name: a, lans: []}").name, "a");
}

#[test]
fn an_unknown_key_is_answered_with_line_path_and_nearest_key() {
    let text = SMALL.replace("services: [ssh]", "servces: [ssh]");
    let said = refusal(&text);
    assert!(said.starts_with("error: t.yaml:7:"), "{said}");
    assert!(said.contains("deckies[0]"), "{said}");
    assert!(said.contains("unknown field `servces`"), "{said}");
    assert!(said.contains("did you mean `services`?"), "{said}");

    for (text, wanted) in [
        ("{\n", "error: t.yaml:2:0: EOF while parsing an object\n"),
        ("name: x\n", "error: t.yaml:1:1: missing field `lans`\n"),
    ] {
        let said = refusal(text);
        assert!(said.starts_with(wanted), "{said}");
    }

    let said = refusal("{\n  \"name\": \"a\",\n  \"lan\": []\n}");
    assert!(said.starts_with("error: t.yaml:3:"), "{said}");
    assert!(said.contains("did you mean `lans`?"), "{said}");
}

#[test]
fn malformed_documents_say_where() {
    for (text, wanted) in [
        ("", "the document is empty"),
        ("  \n", "the document is empty"),
        ("name: [", "t.yaml:1:"),
        ("name: a\nlans: 7\n", "t.yaml:2:"),
        ("name: a\nlans:\n  - { name: b }\n", "subnet"),
        ("lans: []\n", "missing field `name`"),
        ("name: a\nname: b\nlans: []\n", "t.yaml:2:"),
        ("name: a\nlans: []\n---\nname: b\nlans: []\n", "t.yaml:"),
        ("{\"name\": \"a\", \"lans\": [}", "t.yaml:1:"),
        ("{\"name\": \"a\", \"lans\": []} x", "t.yaml:1:"),
        ("[1, 2]", "t.yaml:1:"),
        ("just words", "t.yaml:1:"),
        (
            "name: a\nlans: []\ndeckies:\n- {name: d, edges: [], publish: [{host_port: many, decky_port: 1}]}",
            "deckies[0].publish[0]",
        ),
    ] {
        let said = refusal(text);
        assert!(said.contains(wanted), "{text:?}: {said}");
    }
}

#[test]
fn a_page_of_aliases_does_not_unfold() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = level - 1;
        let list = vec![format!("*a{before}"); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    let started = std::time::Instant::now();
    refusal(&text);
    let deep = format!("name: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    refusal(&deep);
    refusal(&"{\"a\":".repeat(100_000));
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn a_large_file_and_one_that_is_no_text_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("t.yaml");
    std::fs::write(&path, vec![b'#'; MAX_FILE + 1]).expect("writable");
    let said = load(&Source::File(path.clone()))
        .expect_err("large")
        .lines()
        .join("\n");
    assert!(said.contains("larger than 4 MiB"), "{said}");
    std::fs::write(&path, b"name: a\nlans: \xff\n").expect("writable");
    let said = load(&Source::File(path))
        .expect_err("no text")
        .lines()
        .join("\n");
    assert!(said.contains("t.yaml:2: not UTF-8"), "{said}");
    let said = load(&Source::new("/nonexistent/t.yaml"))
        .expect_err("none")
        .lines()
        .join("\n");
    assert!(
        said.contains("could not read /nonexistent/t.yaml"),
        "{said}"
    );
}

#[test]
fn a_hash_follows_from_meaning_and_not_from_order() {
    let hash = |text: &str| {
        judge(parse_text(text, "t").expect("a topology"))
            .hash
            .expect("sound")
    };
    let first = hash(SMALL);
    assert_eq!(hash(SMALL), first);
    let swapped = SMALL.replace(
        "  - { name: dmz, subnet: 10.9.0.0/24, kind: dmz }\n  - { name: inner, subnet: 10.9.1.0/24 }\n",
        "  - { name: inner, subnet: 10.9.1.0/24 }\n  - { name: dmz, subnet: 10.9.0.0/24, kind: dmz }\n",
    );
    assert_ne!(swapped, SMALL);
    assert_eq!(hash(&swapped), first);
    assert_ne!(hash(&SMALL.replace("10.9.0.10", "10.9.0.11")), first);
    assert_ne!(hash(&SMALL.replace("name: small", "name: smaller")), first);
}

#[test]
fn a_document_with_errors_has_findings_and_no_hash() {
    let text = SMALL
        .replace("10.9.1.0/24", "10.9.0.0/25")
        .replace("[ssh]", "[sssh]");
    let judged = judge(parse_text(&text, "t").expect("readable"));
    let codes: Vec<_> = judged
        .findings
        .iter()
        .map(|finding| finding.code.as_str())
        .collect();
    assert!(
        codes.contains(&"SUBNET_OVERLAP") && codes.contains(&"UNKNOWN_SERVICE"),
        "{codes:?}"
    );
    assert!(judged.hash.is_none());
}

#[test]
fn documents_of_the_original_are_taken() {
    let text = r#"{
        "topology": {"id": "t", "name": "t11", "status": "pending"},
        "lans": [
            {"id": "l0", "name": "LAN-00", "subnet": "172.20.0.0/24", "is_dmz": true, "x": null},
            {"id": "l1", "name": "LAN-01", "subnet": "172.20.1.0/24", "is_dmz": false}
        ],
        "deckies": [
            {"uuid": "d1", "name": "decky-001", "services": ["ssh"], "ip": "172.20.1.2", "decky_config": {
                "ips_by_lan": {"LAN-00": "172.20.0.2", "LAN-01": "172.20.1.2"}, "forwards_l3": true,
                "service_config": {"nosuch": {"a": 1.5}}}}
        ],
        "edges": [
            {"decky_uuid": "d1", "lan_id": "l0", "is_bridge": true, "forwards_l3": false},
            {"decky_uuid": "d1", "lan_id": "l1", "is_bridge": false, "forwards_l3": true},
            {"decky_uuid": "d9", "lan_id": "l1"}
        ]
    }"#;
    let loaded = parse_text(text, "t.json").expect("a document");
    let decky = &loaded.file.deckies[0];
    assert!(decky.forwards_l3);
    assert_eq!(decky.edges[0].address.as_deref(), Some("172.20.0.2"));
    assert_eq!(
        (decky.edges[0].home, decky.edges[1].home),
        (None, Some(true))
    );
    let codes: Vec<_> = judge(loaded)
        .findings
        .iter()
        .map(|finding| finding.code.as_str())
        .collect();
    assert_eq!(codes, ["SERVICE_CFG_UNDECLARED", "EDGE_UNKNOWN"]);

    let said = refusal(&text.replace("\"is_dmz\": true", "\"is_dmz\": 7"));
    assert!(said.contains("lans[0].is_dmz"), "{said}");
}

#[test]
fn a_document_of_the_original_becomes_this_one() {
    let text = include_str!("vectors/original.json");
    let loaded = parse_text(text, "t.json").expect("a document");
    let document = to_yaml(&loaded.file).expect("it can be written");
    let findings = judge(loaded).findings;
    let lines = findings
        .iter()
        .map(|finding| format!("{} {finding}\n", finding.severity.as_str()));
    insta::assert_snapshot!(format!("{document}---\n{}", lines.collect::<String>()));

    // What is pushed to an agent is the same document with its hash beside it.
    let pushed = format!("{{\"version_hash\": \"00\", \"hydrated\": {text}}}");
    let again = parse_text(&pushed, "t.json").expect("a document");
    let first = parse_text(text, "t.json").expect("a document");
    assert_eq!(again.file, first.file);
    let said = refusal(&pushed.replace("\"is_dmz\": true", "\"is_dmz\": 7"));
    assert!(said.contains("hydrated.lans[0].is_dmz"), "{said}");
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        // Words that YAML takes for something else when they stand bare.
        prop::sample::select(vec![
            "on",
            "no",
            "null",
            "~",
            "0123",
            "1e3",
            "12:30:00",
            "0x1f",
            "true",
            "- a",
            "a: b",
            "# a",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "'",
            "\"",
            "",
            " ",
            "a\nb",
            "a\tb",
            "\u{85}",
            "<<",
            "=",
            ".inf",
            "2026-01-01",
            "02:42:ac:11:00:02",
            "[",
            "{",
            "|",
            ">",
            "\\",
            "\0",
            "\u{feff}",
            "a ",
            " a",
            "...",
            "---",
            "\u{2028}",
            "\r\n",
            "0o7",
            "+1",
            "1_000",
            ".5",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
        "[0-9]{64}",
    ]
}

fn option() -> impl Strategy<Value = WireOption> {
    prop_oneof![
        any::<bool>().prop_map(WireOption::Boolean),
        any::<i64>().prop_map(WireOption::Integer),
        word().prop_map(WireOption::Text),
    ]
}

fn maybe<S: Strategy<Value = String>>(inner: S) -> impl Strategy<Value = Option<String>> {
    proptest::option::of(inner)
}

prop_compose! {
    fn lan()(name in word(), subnet in word(), subnet6 in maybe(word()), kind in maybe(word()), driver in maybe(word())) -> FileLan {
        FileLan { name, subnet, subnet6, kind, driver }
    }
}

prop_compose! {
    fn edge()(
        lan in word(), address in maybe(word()), mac in maybe(word()), home in proptest::option::of(any::<bool>()),
    ) -> FileEdge {
        FileEdge { lan, address, mac, home }
    }
}

prop_compose! {
    fn decky()(
        name in word(),
        hostname in maybe(word()),
        persona in maybe(word()),
        seed in maybe(word()),
        services in prop::collection::vec(word(), 0..3),
        options in prop::collection::btree_map(word(), prop::collection::btree_map(word(), option(), 1..3), 0..3),
        forwards_l3 in any::<bool>(),
        ports in prop::collection::vec((maybe(word()), any::<i64>(), any::<i64>()), 0..2),
        edges in prop::collection::vec(edge(), 0..3),
    ) -> FileDecky {
        let publish = |(host_ip, host_port, decky_port)| {
            FilePublish { host_ip, host_port, decky_port, protocol: None }
        };
        FileDecky {
            name, hostname, archetype: None, persona, services, service_config: options, forwards_l3,
            mutate_every: None, publish: ports.into_iter().map(publish).collect(), seed, edges,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_exported_is_imported_again(
        name in word(),
        lans in prop::collection::vec(lan(), 0..3),
        deckies in prop::collection::vec(decky(), 0..3),
    ) {
        let file = TopologyFile { name, lans, deckies };
        prop_assert_eq!(&TopologyFile::from(Draft::from(file.clone())), &file);
        let text = to_yaml(&file).expect("it can be written");
        let again = parse_text(&text, "export").map(|loaded| loaded.file);
        prop_assert_eq!(again.map_err(|failure| failure.lines()), Ok(file), "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC*") {
        drop(parse_text(&text, "t").map(judge));
    }

    #[test]
    fn no_mutilation_makes_it_panic(cut in 0..SMALL.len(), insert in "[-:{}\\[\\]&*!|>'\"%@` \n\t]{0,4}") {
        let text = format!("{}{insert}{}", &SMALL[..cut], &SMALL[cut..]);
        drop(parse_text(&text, "t").map(judge));
    }
}

#[test]
fn an_empty_map_of_options_is_left_out() {
    let mut file = file(SMALL);
    file.deckies[0].service_config = BTreeMap::new();
    assert!(!to_yaml(&file).expect("plain").contains("service_config"));
}

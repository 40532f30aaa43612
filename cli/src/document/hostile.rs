//! Hostile documents: whatever stands in one, reading and judging it ends soon, says where the
//! fault is, and never panics.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use domain::topology::draft::{Draft, resolve};
use domain::topology::finding::{Finding, FindingCode};
use domain::topology::validate::Limits;
use proptest::prelude::*;
use serde_json::Value;

use super::local::Judged;
use super::{Counting, judge, parse_text};
use crate::failure::Failure;
use crate::output::yaml;

/// In an unoptimised build beside others; the tenth of it in a release.
const SOON: Duration = Duration::from_secs(20);

const DOCUMENTS: [&str; 6] = [
    include_str!("../../../examples/office.yaml"),
    include_str!("../../../examples/branch.yaml"),
    include_str!("vectors/original.json"),
    include_str!("vectors/office.xml"),
    include_str!("vectors/scan.xml"),
    "name: tiny\nlans: [&a {name: dmz, subnet: 10.1.0.0/24, kind: dmz}]\ndeckies: []\n",
];

/// Texts that are taken for something else, or look like something else.
const WORDS: &[&str] = &[
    "",
    " ",
    "~",
    "null",
    "yes",
    "-",
    "-1",
    "0",
    "1e400",
    "0x10",
    "1_000",
    ".inf",
    ".nan",
    "9223372036854775808",
    "-9223372036854775809",
    "99999999999999999999999999",
    "65536",
    // Names that fold into one another, or hide what they are.
    "DMZ",
    "Dmz",
    "ＤＭＺ",
    "dmz\u{200d}",
    "d\u{43c}z",
    "\u{212a}",
    "\u{130}",
    "ß",
    "\u{202e}zmd",
    "\u{0}",
    "\u{feff}dmz",
    "dmz\n",
    "../dmz",
    "a/b",
    "%2e",
    "{{dmz}}",
    "$(id)",
    "'; DROP TABLE",
    "<script>",
    "\u{1b}[2J",
    "\u{e0041}",
    // Ranges that overlap everything, or are none.
    "0.0.0.0/0",
    "0.0.0.0/32",
    "10.0.0.0/8",
    "10.9.0.0/33",
    "10.9.0.0/-1",
    "10.9.0.1/24",
    "010.009.0.0/24",
    "10.9/16",
    "255.255.255.255/32",
    "224.0.0.0/4",
    "127.0.0.0/8",
    "::/0",
    "fe80::/64",
    "::ffff:10.9.0.0/120",
    "fd00::/64",
    "10.9.0.0",
    "10.9.0.256",
    "10.9.0.0/24 ",
    "macvlan:",
    "macvlan:eth0;id",
    "ssh",
    "smtp",
    "smtp_relay",
    "conpot",
    "linux",
    "1ns",
    "0s",
    "99999999h",
    "&a",
    "*a",
    "*a *a",
    "<<: *a",
    "!!binary aGk=",
    "!!float 1",
    "? ",
    "|",
    ">",
    "[",
    "{",
    "]",
    "}",
    "\"",
    "'",
    "#",
    "---",
    "...",
    "\t",
    "&boom;",
    "<!DOCTYPE a [<!ENTITY a 'b'>]>",
    "<host>",
    "</host>",
    "<!--",
    "]]>",
    "<?xml?>",
];

/// How a document is damaged.
#[derive(Debug, Clone)]
enum Damage {
    /// A character becomes another.
    Flip(usize, char),
    /// Everything after a place is gone.
    Cut(usize),
    /// A part is gone.
    Delete(usize, usize),
    /// A part is there twice.
    Repeat(usize, usize),
    /// A word stands in place of a part.
    Write(usize, usize, String),
}

fn damage() -> impl Strategy<Value = Damage> {
    let word = prop_oneof![
        3 => prop::sample::select(WORDS.to_vec()).prop_map(str::to_owned),
        1 => "\\PC{0,40}",
        1 => (prop::sample::select(vec!["[", "{a: ", "a", "9", "- ", "\u{fe0f}"]), 1..3000_usize)
            .prop_map(|(text, times)| text.repeat(times)),
    ];
    prop_oneof![
        4 => (any::<usize>(), any::<char>()).prop_map(|(at, to)| Damage::Flip(at, to)),
        1 => any::<usize>().prop_map(Damage::Cut),
        2 => (any::<usize>(), 0..200_usize).prop_map(|(at, many)| Damage::Delete(at, many)),
        2 => (any::<usize>(), 0..400_usize).prop_map(|(at, many)| Damage::Repeat(at, many)),
        5 => (any::<usize>(), 0..30_usize, word).prop_map(|(at, many, word)| Damage::Write(at, many, word)),
    ]
}

impl Damage {
    fn apply(&self, text: &mut Vec<char>) {
        let length = text.len();
        let part = |at: usize, many: usize| {
            let at = at % (length + 1);
            at..(at + many).min(length)
        };
        match self {
            Self::Flip(at, to) if length > 0 => text[at % length] = *to,
            Self::Flip(..) => {}
            Self::Cut(at) => text.truncate(at % (length + 1)),
            Self::Delete(at, many) => drop(text.drain(part(*at, *many))),
            Self::Repeat(at, many) => {
                let range = part(*at, *many);
                let twice = text[range.clone()].to_vec();
                drop(text.splice(range.start..range.start, twice));
            }
            Self::Write(at, many, word) => drop(text.splice(part(*at, *many), word.chars())),
        }
    }
}

/// A value that a field may be given.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(WORDS.to_vec()).prop_map(Value::from),
        "[0-9a-f:./-]{0,20}".prop_map(Value::from),
        (1..20_000_usize).prop_map(|many| Value::from("x".repeat(many))),
    ];
    leaf.prop_recursive(6, 40, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,12}", inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The `number`-th node of a document, counted over and over.
fn node(document: &mut Value, number: usize) -> &mut Value {
    fn count(value: &Value) -> usize {
        1 + match value {
            Value::Array(items) => items.iter().map(count).sum(),
            Value::Object(map) => map.values().map(count).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0_usize,
        }
    }
    fn find(value: &mut Value, number: usize) -> Result<&mut Value, usize> {
        if number == 0 {
            return Ok(value);
        }
        let mut left = number - 1;
        let children: Vec<&mut Value> = match value {
            Value::Array(items) => items.iter_mut().collect(),
            Value::Object(map) => map.values_mut().collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        };
        for child in children {
            match find(child, left) {
                Ok(found) => return Ok(found),
                Err(rest) => left = rest,
            }
        }
        Err(left)
    }
    let number = number % count(document);
    find(document, number).expect("the number is below the count")
}

/// Reads and judges a text, and holds what comes of it to the rules for answers.
fn answer(text: &str) -> Result<Judged, TestCaseError> {
    let started = Instant::now();
    let outcome = parse_text(text, "t").map(judge);
    prop_assert!(started.elapsed() < SOON, "took {:?}", started.elapsed());
    match outcome {
        Err(failure) => {
            placed(&failure)?;
            Ok(Judged {
                findings: Vec::new(),
                hash: None,
            })
        }
        Ok(judged) => {
            for finding in &judged.findings {
                prop_assert!(!finding.path.is_empty(), "{finding:?}");
                prop_assert!(!finding.message.is_empty(), "{finding:?}");
                prop_assert!(finding.to_string().chars().count() < 2000, "{finding:?}");
            }
            let errors = judged.findings.iter().any(Finding::is_error);
            prop_assert_eq!(judged.hash.is_none(), errors);
            Ok(judged)
        }
    }
}

/// A document that cannot be read says where: by a line, or by the document's name when it has
/// none.
fn placed(failure: &Failure) -> Result<(), TestCaseError> {
    let lines = failure.lines();
    let place = lines[0].strip_prefix("error: t:");
    prop_assert!(
        place.is_some_and(|rest| !rest.trim().is_empty()),
        "{:?}",
        lines
    );
    prop_assert!(
        lines.iter().all(|line| line.chars().count() < 4000),
        "{:?}",
        lines
    );
    prop_assert!(lines.len() > 1, "{:?}", lines);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(768))]

    #[test]
    fn a_damaged_document_is_answered_in_order(
        which in 0..DOCUMENTS.len(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let mut text: Vec<char> = DOCUMENTS[which].chars().collect();
        for damage in &damages {
            damage.apply(&mut text);
        }
        answer(&text.into_iter().collect::<String>())?;
    }

    #[test]
    fn a_field_of_another_type_is_answered_in_order(
        which in 0..3_usize,
        changes in prop::collection::vec((any::<usize>(), value()), 1..4),
        as_yaml in any::<bool>(),
    ) {
        let mut document = match which {
            2 => serde_json::from_str(DOCUMENTS[2]).expect("JSON"),
            _ => {
                let loaded = parse_text(DOCUMENTS[which], "t").expect("an example");
                serde_json::to_value(loaded.file).expect("plain")
            }
        };
        for (number, value) in changes {
            *node(&mut document, number) = value;
        }
        let text = if as_yaml {
            yaml(&document).expect("it can be written")
        } else {
            serde_json::to_string(&document).expect("it can be written")
        };
        answer(&text)?;
    }
}

/// The paths of findings with a code.
fn paths(judged: &Judged, code: FindingCode) -> Vec<&str> {
    let of_code = judged.findings.iter().filter(|each| each.code == code);
    of_code.map(|finding| finding.path.as_str()).collect()
}

fn whole(text: &str) -> Judged {
    answer(text).expect("an answer in order")
}

#[test]
fn ten_thousand_lans_are_too_many_and_said_at_once() {
    let mut ours = String::from("name: many\nlans:\n");
    let mut lans = Vec::new();
    let mut edges = Vec::new();
    for number in 0..10_000_u32 {
        let subnet = format!("10.{}.{}.0/24", number / 256, number % 256);
        writeln!(ours, "- {{name: l{number}, subnet: {subnet}}}").expect("a string");
        lans.push(serde_json::json!({"id": format!("i{number}"), "name": format!("l{number}"), "subnet": subnet}));
        edges.push(serde_json::json!({"decky_uuid": "d", "lan_id": format!("i{number}")}));
    }
    ours.push_str("deckies: []\n");
    assert_eq!(paths(&whole(&ours), FindingCode::TooLarge), ["lans"]);
    let original = serde_json::json!({
        "topology": {"name": "many"}, "lans": lans, "edges": edges,
        "deckies": [{"uuid": "d", "name": "d", "services": []}],
    });
    let judged = whole(&original.to_string());
    assert_eq!(
        paths(&judged, FindingCode::TooLarge),
        ["deckies[0].edges", "lans"]
    );
}

#[test]
fn as_much_as_a_file_holds_is_answered_soon() {
    // Everything of everything, each as many times as four MiB allow.
    let lan = "{\"name\":\"a\",\"subnet\":\"10.0.0.0/24\"},";
    let edge = "{\"lan\":\"nowhere\"},";
    let of = |list: &str, many: usize| list.repeat(many).trim_end_matches(',').to_owned();
    let edges = of(edge, 16);
    let decky = |number: usize| format!("{{\"name\":\"d{number}\",\"edges\":[{edges}]}},");
    let deckies: String = (0..2048).map(decky).collect();
    let texts = [
        format!("{{\"name\":\"a\",\"lans\":[{}]}}", of(lan, 100_000)),
        format!(
            "{{\"name\":\"a\",\"lans\":[{}],\"deckies\":[{}]}}",
            of(lan, 80_000),
            deckies.trim_end_matches(',')
        ),
        format!(
            "{{\"name\":\"a\",\"lans\":[],\"deckies\":[{{\"name\":\"d\",\"edges\":[{}]}}]}}",
            of(edge, 200_000)
        ),
        format!(
            "{{\"name\":\"a\",\"lans\":[],\"deckies\":[{{\"name\":\"d\",\"edges\":[],\"services\":[{}]}}]}}",
            of("\"ssh\",", 500_000)
        ),
        format!(
            "name: a\nlans:\n{}",
            "- {name: a, subnet: 10.0.0.0/24}\n".repeat(20_000)
        ),
        format!("name: {}\nlans: []", "a".repeat(4_000_000)),
    ];
    for text in texts {
        let started = Instant::now();
        let judged = whole(&text);
        assert!(judged.hash.is_none());
        assert!(
            started.elapsed() < SOON,
            "{:.60} took {:?}",
            text,
            started.elapsed()
        );
    }
}

#[test]
fn hostile_originals_are_answered_soon() {
    let ips: String = (0..150_000)
        .map(|number| format!("\"{number}\":\"\","))
        .collect();
    let edges = "{\"decky_uuid\":\"d\",\"lan_id\":\"l\"},".repeat(30_000);
    let strangers = "{\"decky_uuid\":\"x\",\"lan_id\":\"l\"},".repeat(30_000);
    for edges in [edges, strangers] {
        let text = format!(
            "{{\"topology\":{{\"name\":\"a\"}},\"lans\":[],\"edges\":[{}],\"deckies\":[{{\"uuid\":\"d\",\"name\":\"d\",\
             \"decky_config\":{{\"ips_by_lan\":{{{}}}}}}}]}}",
            edges.trim_end_matches(','),
            ips.trim_end_matches(',')
        );
        assert!(whole(&text).hash.is_none());
    }
}

#[test]
fn anchors_that_unfold_are_stopped_wherever_they_stand() {
    // A list of deckies whose one decky is there a billion times.
    let mut levels = String::from("a0: &a0 {name: d, edges: [{lan: dmz}]}\n");
    for level in 1..10 {
        let list = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(levels, "a{level}: &a{level} [{list}]").expect("a string");
    }
    let texts = [
        format!("{levels}name: a\nlans: []\ndeckies: *a9\n"),
        "name: &n [*n]\nlans: []\n".to_owned(),
        "name: a\nlans: &l [*l, *l]\n".to_owned(),
        format!("name: a\nlans: [{}]\n", "&a ".repeat(100_000)),
        format!(
            "name: a\nlans: [&l {{name: dmz, subnet: 10.1.0.0/24}}, {}]\n",
            vec!["*l"; 200_000].join(", ")
        ),
        format!("name: a\nlans: []\n? {}\n: b\n", "? ".repeat(100_000)),
    ];
    for text in texts {
        assert!(whole(&text).hash.is_none());
    }
}

#[test]
fn names_that_fold_into_one_are_one() {
    let text = |second: &str| {
        format!(
            "name: a\nlans:\n- {{name: dmz, subnet: 10.1.0.0/24, kind: dmz}}\n- {{name: \"{second}\", \
             subnet: 10.2.0.0/24}}\ndeckies:\n- {{name: d, edges: [{{lan: dmz}}, {{lan: \"{second}\"}}]}}\n"
        )
    };
    assert!(whole(&text("inner")).hash.is_some());
    assert_eq!(
        paths(&whole(&text("DmZ")), FindingCode::LanNameDup),
        ["lans[1].name"]
    );
    // What only looks alike is no name at all.
    for name in [
        "ＤＭＺ",
        "dmz\\u200d",
        "d\\u043cz",
        "\\u212aelvin",
        "dmz ",
        "\\0",
    ] {
        assert_eq!(
            paths(&whole(&text(name)), FindingCode::NameInvalid),
            ["lans[1].name"],
            "{name}"
        );
    }
}

#[test]
fn a_large_edit_of_a_stored_topology_is_compared_soon() {
    let limits = Limits::default();
    let stored = include_str!("../../../examples/maze.yaml");
    let stored = Draft::from(parse_text(stored, "t").expect("an example").file);
    let stored = resolve(&stored, None, &limits, &mut Counting(0)).topology;
    let mut draft = Draft::from(&stored);
    let lan = draft.lans[0].clone();
    draft.lans.resize(100_000, lan);
    let edge = draft.deckies[0].edges[0].clone();
    for decky in &mut draft.deckies {
        decky.edges.resize(16, edge.clone());
    }
    draft.deckies[0].edges.resize(50_000, edge);
    let decky = draft.deckies[1].clone();
    draft.deckies.resize(2_100, decky);
    let started = Instant::now();
    let resolved = draft.resolve_onto(&stored, &limits, &mut Counting(0));
    assert!(
        resolved
            .findings
            .iter()
            .any(|each| each.code == FindingCode::TooLarge)
    );
    assert!(started.elapsed() < SOON, "took {:?}", started.elapsed());
}

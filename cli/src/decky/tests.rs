use std::time::Duration;

use proto::rest::{DriftShape, ObservedShape};
use serde_json::json;

use super::*;
use crate::document::parse_text;
use crate::stub::{LOOK, Stub, page, queued, state, value};

const ID: &str = "0190a000-0000-7000-8000-000000000001";

fn document() -> TopologyFile {
    let text = "\
name: office
lans:
  - { name: dmz, subnet: 10.9.0.0/24, kind: dmz }
  - { name: inner, subnet: 10.9.1.0/24 }
deckies:
  - name: gate
    hostname: web01
    persona: linux
    archetype: deaddeck
    services: [ssh]
    service_config: { ssh: { accept_after: 1 } }
    forwards_l3: true
    mutate_every: 6h
    publish: [{ host_port: 2222, decky_port: 22 }]
    edges: [{ lan: dmz, address: 10.9.0.10, mac: '00:1b:21:00:00:01', home: true }, { lan: inner, address: 10.9.1.10 }]
  - { name: db, services: [redis], edges: [{ lan: inner, address: 10.9.1.20 }] }
";
    parse_text(text, "t").expect("a topology").file
}

fn watched() -> TopologyState {
    let mut state = state("degraded");
    state.observed = Some(ObservedShape {
        deckies: 1,
        lans: 2,
        usage: vec![UsageShape {
            decky: "d".to_owned(),
            name: Some("gate".to_owned()),
            memory_bytes: 5 << 20,
            cpu_micros: 1,
            pids: 3,
            refused_packets: None,
            oom_kills: None,
        }],
    });
    state.drift.push(DriftShape {
        kind: "missing".to_owned(),
        object: "decky db".to_owned(),
    });
    state
}

#[test]
fn deckies_are_what_an_operator_reads() {
    let deckies = of_topology(&watched(), document());
    insta::assert_snapshot!(format!(
        "{}\n{}",
        show::many(LOOK, &deckies),
        show::one(LOOK, &deckies[0])
    ));
}

#[test]
fn a_decky_is_no_better_than_what_is_known_of_it() {
    let standing = |state: &TopologyState| {
        let deckies = of_topology(state, document());
        deckies
            .into_iter()
            .map(|each| each.state)
            .collect::<Vec<_>>()
    };
    assert_eq!(standing(&watched()), ["running", "absent"]);
    assert_eq!(standing(&state("active")), ["unknown", "unknown"]);
    assert_eq!(standing(&state("pending")), ["pending", "pending"]);
    let mut altered = watched();
    altered.drift[0].kind = "changed".to_owned();
    assert_eq!(standing(&altered), ["running", "drifted"]);
}

#[test]
fn a_name_that_several_have_needs_its_topology() {
    let here = of_topology(&state("active"), document());
    let mut other = state("active");
    other.topology.name = "branch".to_owned();
    let mut both = here.clone();
    both.extend(of_topology(&other, document()));
    assert_eq!(choose(here, "GATE").expect("one").name, "gate");
    let failure = choose(both.clone(), "gate").expect_err("two");
    assert_eq!(
        failure.lines(),
        [
            "error: several topologies have a decky gate: office, branch",
            "  next: say which with --topology"
        ]
    );
    assert_eq!(
        choose(both, "nobody").expect_err("none").lines(),
        ["error: there is no decky nobody", "  next: decnet decky ls"]
    );
}

#[tokio::test]
async fn a_decky_is_found_and_mutated_by_its_name_alone() {
    let torn = {
        let mut torn = state("torn_down").topology;
        torn.id = "gone".to_owned();
        torn
    };
    let mutate = format!("POST /topologies/{ID}/deckies/gate/mutate");
    let stub = Stub::new(vec![
        (
            "GET /topologies",
            vec![(200, page(&[state("active").topology, torn]))],
        ),
        (
            &format!("GET /topologies/{ID}"),
            vec![(200, value(&state("active")))],
        ),
        (
            &format!("GET /topologies/{ID}/document"),
            vec![(200, value(&document()))],
        ),
        (&mutate, vec![(202, value(&queued("pending")))]),
    ]);
    let context = stub.context(Duration::from_secs(5));
    let args = MutateArgs {
        decky: Some("Gate".to_owned()),
        all: false,
        topology: None,
        expected_revision: Some(3),
        wait: WaitArgs::none(),
    };
    let exit = run(DeckyCommand::Mutate(args), &context).await;
    assert_eq!(exit.expect("it is queued"), Exit::Done);
    assert_eq!(stub.bodies(&mutate), [json!({ "expected_revision": 3 })]);
}

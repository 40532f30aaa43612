use domain::topology::draft::{Draft, resolve};
use domain::topology::hydrate::hydrate;
use domain::topology::validate::Limits;

use super::*;
use crate::document::{Counting, parse_text};
use crate::stub::state;

#[test]
fn the_steps_are_those_of_a_host_that_holds_nothing() {
    let file = parse_text(
        include_str!("../../../../examples/office.yaml"),
        "office.yaml",
    );
    let draft = Draft::from(file.expect("an example").file);
    let topology = resolve(&draft, None, &Limits::default(), &mut Counting(0)).topology;
    let steps = steps(&hydrate(&topology));
    assert_eq!(steps.len(), topology.lans.len() + topology.deckies.len());
    let dry = DryRun {
        topology: "office".to_owned(),
        host: "local".to_owned(),
        version_hash: String::new(),
        steps,
    };
    insta::assert_snapshot!(text(&dry));
}

#[test]
fn what_a_deploy_would_refuse_is_refused() {
    for (status, may) in [
        ("pending", true),
        ("failed", true),
        ("active", false),
        ("deploying", false),
        ("torn_down", false),
        ("of a later release", false),
    ] {
        assert_eq!(refuse(&state(status)).is_ok(), may, "{status}");
    }
    let mut wrong = state("pending");
    wrong.findings.push(proto::rest::FindingShape {
        severity: "error".to_owned(),
        code: "DMZ_MISSING".to_owned(),
        message: "no LAN is the DMZ".to_owned(),
        target: "topology".to_owned(),
        path: "lans".to_owned(),
    });
    let failure = refuse(&wrong).expect_err("it has errors");
    assert_eq!(
        failure.lines(),
        [
            "error: topology office has errors",
            "  error [DMZ_MISSING] lans: no LAN is the DMZ",
            "  next: decnet topology validate office",
        ]
    );
}

//! The difference in words, and its laws.

use proptest::prelude::*;

use super::*;
use crate::service::{ServiceKind, ServiceOptions};
use crate::testkit::{self, Counting, any_topology, plain};
use crate::topology::draft::{Draft, DraftDecky, DraftEdge, DraftLan};
use crate::topology::finding::FindingCode as Code;
use crate::topology::mutation::Regime;
use crate::topology::validate::{Limits, validate};

fn sample() -> Topology {
    let services = vec![ServiceKind::Ssh, ServiceKind::Http];
    testkit::topology(&testkit::draft(
        1,
        &[(0, false, services.clone()), (1, true, services)],
    ))
}

/// The next form of `current` that a draft says.
fn planned(draft: &Draft, current: &Topology) -> Topology {
    let resolved = draft.resolve_onto(current, &Limits::default(), &mut Counting(1000));
    assert_eq!(resolved.findings, []);
    resolved.topology
}

#[test]
fn a_difference_is_read_line_by_line() {
    let before = sample();
    let mut draft = Draft::from(&before);
    draft.lans.push(DraftLan {
        name: "lab".to_owned(),
        subnet: "10.9.7.0/24".to_owned(),
        ..DraftLan::default()
    });
    draft.deckies.remove(0);
    let gateway = &mut draft.deckies[0];
    gateway.services = vec!["ssh".to_owned(), "ftp".to_owned()];
    gateway.mutate_every = Some("6h".to_owned());
    gateway.edges[0].address = Some("10.9.1.40".to_owned());
    gateway.edges.push(DraftEdge {
        lan: "lab".to_owned(),
        ..DraftEdge::default()
    });
    draft.deckies.push(DraftDecky {
        name: "bench".to_owned(),
        services: vec!["telnet".to_owned()],
        edges: vec![DraftEdge {
            lan: "lab".to_owned(),
            ..DraftEdge::default()
        }],
        ..DraftDecky::default()
    });
    let difference = Difference::between(&before, &planned(&draft, &before));
    assert_eq!(
        difference.to_string(),
        "\
- decky decky-0
+ lan lab (internal, 10.9.7.0/24)
+ decky bench (linux; telnet) on lab as 10.9.7.3
+ edge decky-1 on lab as 10.9.7.2
~ decky decky-1
    services: http, ssh -> ftp, ssh
    mutate_every: never -> 6h
    address: 10.9.1.2 on lan-1 -> 10.9.1.40
"
    );
    let ops: Vec<_> = difference.ops().iter().map(Op::as_str).collect();
    assert_eq!(
        ops,
        [
            "remove_decky",
            "add_lan",
            "add_decky",
            "attach_decky",
            "update_decky"
        ]
    );
    let undone = Difference::between(&planned(&draft, &before), &before);
    let ops: Vec<_> = undone.ops().iter().map(Op::as_str).collect();
    assert_eq!(
        ops,
        [
            "remove_decky",
            "add_decky",
            "update_decky",
            "detach_decky",
            "remove_lan"
        ]
    );
}

#[test]
fn a_seed_is_never_shown() {
    let before = sample();
    let mut after = before.clone();
    after.deckies[0].seed = crate::seed::Seed::new([9; 32]);
    let difference = Difference::between(&before, &after);
    assert_eq!(
        difference.to_string(),
        "~ decky decky-0\n    seed: one -> another\n"
    );
}

#[test]
fn a_home_moves_by_joining_naming_and_leaving() {
    let before = sample();
    let mut draft = Draft::from(&before);
    draft.deckies[1].edges = vec![DraftEdge {
        lan: "lan-0".to_owned(),
        ..DraftEdge::default()
    }];
    let after = planned(&draft, &before);
    let difference = Difference::between(&before, &after);
    assert_eq!(
        difference.to_string(),
        "~ decky decky-1\n    home: lan-1 -> lan-0\n- edge decky-1 on lan-1\n"
    );
    let mutation = difference.mutation().expect("they differ");
    let applied = mutation.apply(&before, Regime::Pending, &Limits::default());
    assert_eq!(plain(&applied.expect("it applies").topology), plain(&after));
}

#[test]
fn another_subnet_of_a_live_lan_is_refused_with_the_way_to_it() {
    let before = sample();
    let mut draft = Draft::from(&before);
    draft.lans[1].subnet = "10.9.8.0/24".to_owned();
    for decky in &mut draft.deckies {
        decky.edges.iter_mut().for_each(|edge| edge.address = None);
    }
    let after = planned(&draft, &before);
    let mutation = Difference::between(&before, &after)
        .mutation()
        .expect("they differ");
    let refused = mutation.apply(&before, Regime::Live, &Limits::default());
    let refused = refused.expect_err("a live LAN keeps its subnet");
    assert_eq!(refused[0].code, Code::ChangeRefused);
    assert_eq!(refused[0].path, "ops[0].patch.subnet");
    assert!(refused[0].message.contains("add a LAN with the new subnet"));
    let applied = mutation.apply(&before, Regime::Pending, &Limits::default());
    assert_eq!(
        plain(&applied.expect("nobody holds it").topology),
        plain(&after)
    );
}

#[test]
fn what_a_draft_leaves_out_stays_as_it_is() {
    let current = sample();
    let mut draft = Draft::from(&current);
    for decky in &mut draft.deckies {
        (decky.seed, decky.hostname, decky.persona) = (None, None, None);
        decky.name = decky.name.to_uppercase();
        for edge in &mut decky.edges {
            (edge.address, edge.mac, edge.home) = (None, None, None);
        }
    }
    let mut after = planned(&draft, &current);
    for (decky, known) in after.deckies.iter_mut().zip(&current.deckies) {
        decky.name = known.name.clone();
    }
    assert_eq!(Difference::between(&current, &after), Difference::default());
}

#[test]
fn a_new_decky_shifts_nobodys_address() {
    let current = sample();
    let mut draft = Draft::from(&current);
    for decky in &mut draft.deckies {
        decky.edges.iter_mut().for_each(|edge| edge.address = None);
    }
    let services = vec!["ssh".to_owned()];
    let edges = vec![DraftEdge {
        lan: "lan-1".to_owned(),
        ..DraftEdge::default()
    }];
    draft.deckies.insert(
        0,
        DraftDecky {
            name: "a-first-by-name".to_owned(),
            services,
            edges,
            ..DraftDecky::default()
        },
    );
    let difference = Difference::between(&current, &planned(&draft, &current));
    assert_eq!(
        difference.to_string(),
        "+ decky a-first-by-name (linux; ssh) on lan-1 as 10.9.1.3\n"
    );
}

/// A few edits of fields that random topologies do not vary.
fn vary(topology: &mut Topology, bits: u8) {
    for (index, decky) in topology.deckies.iter_mut().enumerate() {
        if bits & 1 == 1 && index == 0 {
            decky.archetype = Some("web-server".to_owned());
            decky.mutate_every = "2d".parse().ok();
        }
        if bits & 2 == 2 {
            decky.name = format!("other-{index}").parse().expect("a name");
        }
        if bits & 4 == 4 {
            decky.hostname = format!("srv-{index}").parse().expect("a name");
            decky
                .services
                .insert(ServiceKind::Ftp, ServiceOptions::default());
        }
    }
    if bits & 8 == 8 {
        for lan in &mut topology.lans {
            lan.name = format!("{}-x", lan.name).parse().expect("a name");
        }
        for (edge, host) in topology.edges.iter_mut().zip(100_u8..) {
            let [a, b, c, _] = edge.address.octets();
            edge.address = [a, b, c, host].into();
        }
    }
}

proptest! {
    #[test]
    fn exporting_and_planning_changes_nothing(topology in any_topology(), bits in any::<u8>()) {
        let mut topology = topology;
        vary(&mut topology, bits);
        let planned = planned(&Draft::from(&topology), &topology);
        prop_assert_eq!(plain(&planned), plain(&topology));
        prop_assert!(Difference::between(&topology, &planned).is_empty());
        prop_assert!(Difference::between(&topology, &planned).mutation().is_none());
    }

    #[test]
    fn applying_the_difference_gives_the_target(
        before in any_topology(),
        after in any_topology(),
        (one, other) in (any::<u8>(), any::<u8>()),
    ) {
        let (mut before, mut after) = (before, after);
        vary(&mut before, one);
        vary(&mut after, other);
        let difference = Difference::between(&before, &after);
        prop_assert_eq!(difference.is_empty(), plain(&before) == plain(&after));
        let Some(mutation) = difference.mutation() else { return Ok(()) };
        let applied = mutation.apply(&before, Regime::Pending, &Limits::default());
        prop_assert_eq!(plain(&applied.expect("names differ").topology), plain(&after));
        // On a live topology it is taken exactly when the target may be deployed.
        let live = mutation.apply(&before, Regime::Live, &Limits::default());
        let deployable = !validate(&after).iter().any(|finding| finding.is_error());
        prop_assert_eq!(live.is_ok(), deployable);
        if let Ok(live) = live {
            prop_assert_eq!(plain(&live.topology), plain(&after));
        }
        // Every change is said in words.
        prop_assert_eq!(
            difference.to_string().lines().filter(|line| !line.starts_with(' ')).count(),
            difference.changes.len()
        );
    }
}

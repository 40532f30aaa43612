//! What each operation does, what is refused, and the laws of any sequence.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::draft::{Context, DeckyPatchDraft, LanPatchDraft, MutationDraft, OpDraft, resolve};
use super::*;
use crate::service::{OptionValue, ServiceKind};
use crate::testkit::{self, Counting, plain};
use crate::topology::allocate::{SubnetAllocator, SubnetBase};
use crate::topology::draft::{DraftDecky, DraftEdge, DraftLan, DraftPublish};
use crate::topology::hydrate::hydrate;
use crate::topology::validate::validate;

/// A DMZ, two LANs in a row, a web server in the DMZ and a gateway for each inner LAN.
fn sample() -> Topology {
    let services = vec![ServiceKind::Ssh, ServiceKind::Http];
    let topology = testkit::topology(&testkit::draft(
        2,
        &[
            (0, false, services.clone()),
            (1, true, services.clone()),
            (2, true, services.clone()),
            (2, false, services),
        ],
    ));
    assert_eq!(validate(&topology), []);
    topology
}

fn read(
    draft: &MutationDraft,
    topology: &Topology,
    regime: Regime,
    entropy: &mut Counting,
) -> Result<Mutation, Vec<Finding>> {
    let base: SubnetBase = "10.9.0.0/16".parse().expect("a base");
    let taken = topology.lans.iter().map(|lan| lan.subnet);
    resolve(
        draft,
        &mut Context {
            topology,
            regime,
            limits: &Limits::default(),
            subnets: &mut SubnetAllocator::new(base, taken),
            entropy,
        },
    )
}

fn run(
    topology: &Topology,
    draft: &MutationDraft,
    regime: Regime,
) -> Result<Applied, Vec<Finding>> {
    // Each revision draws ids of its own.
    let mut entropy = Counting(5000 + 100 * u128::from(topology.revision.get()));
    read(draft, topology, regime, &mut entropy)?.apply(topology, regime, &Limits::default())
}

fn live(topology: &Topology, op: OpDraft) -> Result<Applied, Vec<Finding>> {
    run(topology, &MutationDraft::One(op), Regime::Live)
}

fn done(topology: &Topology, op: OpDraft) -> Topology {
    let applied = live(topology, op).expect("it applies");
    assert_eq!(applied.topology.revision, topology.revision.next());
    applied.topology
}

/// Codes and places of a refusal.
fn refused(topology: &Topology, op: OpDraft) -> Vec<(&'static str, String)> {
    let findings = live(topology, op).expect_err("it is refused");
    assert!(findings.iter().all(Finding::is_error));
    let place = |finding: Finding| (finding.code.as_str(), finding.path);
    findings.into_iter().map(place).collect()
}

fn lan(name: &str) -> DraftLan {
    DraftLan {
        name: name.to_owned(),
        ..DraftLan::default()
    }
}

fn on(lan: &str) -> DraftEdge {
    DraftEdge {
        lan: lan.to_owned(),
        ..DraftEdge::default()
    }
}

fn decky(name: &str, lans: &[&str], services: &[&str]) -> Box<DraftDecky> {
    Box::new(DraftDecky {
        name: name.to_owned(),
        services: services.iter().map(|name| (*name).to_owned()).collect(),
        edges: lans.iter().map(|lan| on(lan)).collect(),
        ..DraftDecky::default()
    })
}

fn update(decky: &str, patch: DeckyPatchDraft) -> OpDraft {
    OpDraft::UpdateDecky {
        decky: decky.to_owned(),
        patch: Box::new(patch),
    }
}

fn attach(decky: &str, edge: DraftEdge) -> OpDraft {
    OpDraft::AttachDecky {
        decky: decky.to_owned(),
        edge,
        forwards_l3: None,
    }
}

fn detach(decky: &str, lan: &str) -> OpDraft {
    OpDraft::DetachDecky {
        decky: decky.to_owned(),
        lan: lan.to_owned(),
    }
}

fn remove_lan(lan: &str) -> OpDraft {
    OpDraft::RemoveLan {
        lan: lan.to_owned(),
    }
}

fn remove_decky(decky: &str) -> OpDraft {
    OpDraft::RemoveDecky {
        decky: decky.to_owned(),
    }
}

fn rename_lan(lan: &str, name: &str) -> OpDraft {
    let name = Some(name.to_owned());
    OpDraft::UpdateLan {
        lan: lan.to_owned(),
        patch: LanPatchDraft {
            name,
            ..LanPatchDraft::default()
        },
    }
}

#[test]
fn a_lan_gets_the_next_free_subnet_and_waits_for_its_gateway_with_a_warning() {
    let before = sample();
    let applied = live(&before, OpDraft::AddLan(lan("lab"))).expect("it applies");
    let added = applied.topology.lans.last().expect("it is there");
    assert_eq!(
        (added.name.as_str(), added.subnet.to_string().as_str()),
        ("lab", "10.9.3.0/24")
    );
    assert_eq!(added.kind, LanKind::Internal);
    assert_eq!(applied.findings.len(), 1);
    assert_eq!(applied.findings[0].code, Code::DmzOrphan);
    assert!(!applied.findings[0].is_error());

    let whole = done(&applied.topology, attach("decky-3", on("LAB")));
    assert_eq!(validate(&whole), []);
}

#[test]
fn a_batch_is_checked_whole_at_its_end() {
    let before = sample();
    let alone = MutationDraft::Batch(vec![OpDraft::AddLan(lan("lab"))]);
    let refused = run(&before, &alone, Regime::Live).expect_err("nothing leads to it");
    assert_eq!(refused[0].code, Code::DmzOrphan);

    let both = MutationDraft::Batch(vec![
        OpDraft::AddLan(lan("lab")),
        OpDraft::AddDecky(decky("door", &["lab", "lan-1"], &["ssh"])),
    ]);
    let after = run(&before, &both, Regime::Live)
        .expect("a LAN with its gateway")
        .topology;
    assert_eq!(validate(&after), []);
    assert_eq!(after.revision, before.revision.next());

    let typo = MutationDraft::Batch(vec![
        OpDraft::AddLan(lan("lab")),
        attach("decky-9", on("lab")),
    ]);
    let refused = run(&before, &typo, Regime::Live).expect_err("there is no decky-9");
    assert_eq!(
        (refused[0].code, refused[0].path.as_str()),
        (Code::ReferenceUnknown, "ops[1].decky")
    );
}

#[test]
fn a_decky_comes_with_its_memberships_and_goes_with_them() {
    let before = sample();
    let after = done(
        &before,
        OpDraft::AddDecky(decky("files", &["lan-2", "lan-1"], &["ftp"])),
    );
    let added = after.deckies.last().expect("it is there");
    let edges: Vec<_> = after.edges_of(added.id).collect();
    let places: Vec<_> = edges
        .iter()
        .map(|it| (it.address.to_string(), it.home))
        .collect();
    assert_eq!(
        places,
        [
            ("10.9.2.4".to_owned(), true),
            ("10.9.1.4".to_owned(), false)
        ]
    );
    assert_eq!(validate(&after), []);
    let gone = done(&after, remove_decky(&added.id.to_string()));
    assert_eq!(plain(&gone), plain(&before));
}

#[test]
fn a_lan_that_is_visited_is_removed_with_the_visits() {
    let before = sample();
    // Nobody is at home in `lab`; two deckies visit it.
    let with = done(&before, OpDraft::AddLan(lan("lab")));
    let with = done(&with, attach("decky-3", on("lab")));
    let with = done(&with, attach("decky-1", on("lab")));
    let without = done(&with, remove_lan("lab"));
    assert_eq!(plain(&without), plain(&before));
}

#[test]
fn a_decky_changes_only_what_the_patch_names() {
    let before = sample();
    let config = BTreeMap::from([("title".to_owned(), OptionValue::Text("Staff".to_owned()))]);
    let with = done(
        &before,
        update(
            "decky-0",
            DeckyPatchDraft {
                service_config: BTreeMap::from([("http".to_owned(), config)]),
                ..DeckyPatchDraft::default()
            },
        ),
    );
    assert_eq!(
        with.deckies[0].services[&ServiceKind::Http].text("title"),
        Some("Staff")
    );
    let mut after = done(
        &with,
        update(
            "DECKY-0",
            DeckyPatchDraft {
                name: Some("web".to_owned()),
                services: Some(vec!["http".to_owned(), "ftp".to_owned()]),
                publish: Some(vec![DraftPublish {
                    host_port: 8080,
                    decky_port: 80,
                    ..DraftPublish::default()
                }]),
                mutate_every: Some(Some("6h".to_owned())),
                ..DeckyPatchDraft::default()
            },
        ),
    );
    let web = &mut after.deckies[0];
    // What stays keeps its options; what is new begins with none.
    assert_eq!(
        web.services[&ServiceKind::Http].text("title"),
        Some("Staff")
    );
    assert_eq!(web.services.len(), 2);
    assert_eq!((web.name.as_str(), web.publish.len()), ("web", 1));
    let known = &with.deckies[0];
    (web.name, web.services) = (known.name.clone(), known.services.clone());
    (web.publish, web.mutate_every) = (known.publish.clone(), None);
    assert_eq!(plain(&after), plain(&with));
}

#[test]
fn a_membership_gets_another_address_and_a_home_moves() {
    let before = sample();
    let edges = vec![DraftEdge {
        address: Some("10.9.0.77".to_owned()),
        home: Some(true),
        ..on("lan-0")
    }];
    let patch = DeckyPatchDraft {
        edges,
        ..DeckyPatchDraft::default()
    };
    let moved = done(&before, update("decky-1", patch));
    let decky = moved.deckies[1].id;
    let edges: Vec<_> = moved
        .edges_of(decky)
        .map(|it| (it.address.to_string(), it.home))
        .collect();
    assert_eq!(
        edges,
        [
            ("10.9.1.2".to_owned(), false),
            ("10.9.0.77".to_owned(), true)
        ]
    );
    // Its former home is a LAN like any other, as long as somebody else leads there.
    assert_eq!(
        hydrate(&moved).deckies[1].interfaces[0].address.to_string(),
        "10.9.0.77"
    );
}

#[test]
fn what_cannot_be_done_is_refused_by_name_and_leaves_nothing_behind() {
    let before = sample();
    let patch = |patch| OpDraft::UpdateLan {
        lan: "lan-1".to_owned(),
        patch,
    };
    let service = |name: &str| DeckyPatchDraft {
        services: Some(vec![name.to_owned()]),
        ..DeckyPatchDraft::default()
    };
    let undeclared = DeckyPatchDraft {
        service_config: BTreeMap::from([("ftp".to_owned(), BTreeMap::new())]),
        ..DeckyPatchDraft::default()
    };
    let elsewhere = |address: &str| DraftEdge {
        address: Some(address.to_owned()),
        ..on("lan-0")
    };
    let table = [
        (remove_lan("lan-7"), "REFERENCE_UNKNOWN", "lan"),
        (remove_decky("nobody"), "REFERENCE_UNKNOWN", "decky"),
        (detach("decky-0", "lan-7"), "REFERENCE_UNKNOWN", "lan"),
        (remove_lan("lan-1"), "HOME_LAN", "lan"),
        (detach("decky-1", "lan-1"), "HOME_LAN", "lan"),
        (detach("decky-0", "lan-0"), "HOME_LAN", "lan"),
        (detach("decky-0", "lan-1"), "EDGE_UNKNOWN", "lan"),
        (attach("decky-1", on("lan-0")), "EDGE_DUP", "lan"),
        (
            attach("decky-3", elsewhere("10.9.0.2")),
            "IP_COLLISION",
            "deckies[3].edges[1].address",
        ),
        (
            attach("decky-3", elsewhere("10.9.0.1")),
            "IP_RESERVED",
            "edge.address",
        ),
        (
            attach("decky-3", elsewhere("10.9.9.1")),
            "IP_OUT_OF_SUBNET",
            "edge.address",
        ),
        (
            attach("decky-3", elsewhere("ten")),
            "IP_MALFORMED",
            "edge.address",
        ),
        (
            OpDraft::AddLan(lan("LAN-1")),
            "LAN_NAME_DUP",
            "lans[3].name",
        ),
        (OpDraft::AddLan(lan("a b")), "NAME_INVALID", "lan.name"),
        (rename_lan("lan-2", "Lan-1"), "LAN_NAME_DUP", "lans[2].name"),
        (
            OpDraft::AddDecky(decky("Decky-0", &["lan-1"], &[])),
            "DECKY_NAME_DUP",
            "deckies[4].name",
        ),
        (
            OpDraft::AddDecky(decky("x", &["lan-7"], &[])),
            "EDGE_UNKNOWN",
            "decky.edges[0].lan",
        ),
        (
            update("decky-0", service("gopher")),
            "UNKNOWN_SERVICE",
            "patch.services[0]",
        ),
        (
            update("decky-0", undeclared),
            "SERVICE_CFG_UNDECLARED",
            "patch.service_config.ftp",
        ),
        (
            patch(LanPatchDraft {
                subnet: Some("10.9.8.0/24".to_owned()),
                ..LanPatchDraft::default()
            }),
            "CHANGE_REFUSED",
            "patch.subnet",
        ),
        (
            patch(LanPatchDraft {
                kind: Some("dmz".to_owned()),
                ..LanPatchDraft::default()
            }),
            "CHANGE_REFUSED",
            "patch.kind",
        ),
        (
            patch(LanPatchDraft {
                subnet: Some("10.9.8.1/24".to_owned()),
                ..LanPatchDraft::default()
            }),
            "SUBNET_MALFORMED",
            "patch.subnet",
        ),
    ];
    let untouched = before.clone();
    for (op, code, path) in table {
        assert_eq!(
            refused(&before, op.clone()),
            [(code, path.to_owned())],
            "{op:?}"
        );
    }
    assert_eq!(before, untouched);
}

#[test]
fn there_are_eight_operations_and_a_batch_of_them() {
    let before = sample();
    let ops = vec![
        OpDraft::AddLan(lan("lab")),
        rename_lan("lab", "den"),
        OpDraft::AddDecky(decky("door", &["den", "lan-1"], &["ssh"])),
        update("door", DeckyPatchDraft::default()),
        attach("door", on("lan-0")),
        detach("door", "lan-0"),
        remove_decky("door"),
        remove_lan("den"),
    ];
    let batch = read(
        &MutationDraft::Batch(ops),
        &before,
        Regime::Live,
        &mut Counting(5000),
    );
    let batch = batch.expect("each refers to what those before it made");
    let words: Vec<_> = batch.ops().iter().map(Op::as_str).collect();
    assert_eq!(
        words,
        [
            "add_lan",
            "update_lan",
            "add_decky",
            "update_decky",
            "attach_decky",
            "detach_decky",
            "remove_decky",
            "remove_lan"
        ]
    );
    let applied = batch.apply(&before, Regime::Live, &Limits::default());
    assert_eq!(
        plain(&applied.expect("it undoes itself").topology),
        plain(&before)
    );
    assert_eq!(batch.as_str(), "batch");
}

#[test]
fn a_rename_moves_nothing_that_a_host_holds_but_the_name() {
    let before = sample();
    let renamed = done(&before, rename_lan("lan-1", "office"));
    let name = Some("core".to_owned());
    let patch = DeckyPatchDraft {
        name,
        ..DeckyPatchDraft::default()
    };
    let renamed = done(&renamed, update("decky-1", patch));
    assert_eq!(renamed.edges, before.edges);
    let (was, is) = (hydrate(&before), hydrate(&renamed));
    let specs = |it: &crate::topology::hydrate::HydratedTopology| {
        it.deckies
            .iter()
            .map(|decky| decky.spec())
            .collect::<Vec<_>>()
    };
    assert_eq!(specs(&is), specs(&was));
    assert_eq!(is.lans[1].name.as_str(), "office");
}

#[test]
fn an_exhausted_lan_and_an_exhausted_range_are_findings() {
    let mut before = sample();
    before.lans[2].subnet = "10.9.2.0/29".parse().expect("a subnet");
    for number in 0..3 {
        before = done(
            &before,
            OpDraft::AddDecky(decky(&format!("x{number}"), &["lan-2"], &[])),
        );
    }
    let one_more = OpDraft::AddDecky(decky("x3", &["lan-2"], &[]));
    assert_eq!(
        refused(&before, one_more),
        [("IP_EXHAUSTED", "address".to_owned())]
    );
    let base: SubnetBase = "10.9.0.0/24".parse().expect("a base");
    let mut context = Context {
        topology: &before,
        regime: Regime::Live,
        limits: &Limits::default(),
        subnets: &mut SubnetAllocator::new(base, [before.lans[0].subnet]),
        entropy: &mut Counting(5000),
    };
    let full = resolve(
        &MutationDraft::One(OpDraft::AddLan(lan("lab"))),
        &mut context,
    );
    assert_eq!(
        full.expect_err("no /24 is left")[0].code,
        Code::SubnetExhausted
    );
    let many = MutationDraft::Batch(vec![remove_lan("lan-9"); draft::MAX_OPS + 1]);
    let many = resolve(&many, &mut context).expect_err("too many");
    assert_eq!(
        (many[0].code, many[0].path.as_str()),
        (Code::TooLarge, "ops")
    );
}

#[test]
fn a_topology_that_is_going_or_gone_takes_no_edit() {
    let takes = TopologyStatus::ALL.map(|status| Regime::of(status).is_some());
    assert_eq!(takes, [true, true, true, true, true, false, false]);
    assert_eq!(Regime::of(TopologyStatus::Failed), Some(Regime::Pending));
    assert_eq!(Regime::of(TopologyStatus::Degraded), Some(Regime::Live));
}

#[test]
fn references_are_ids_or_names_without_regard_to_case() {
    let before = sample();
    let (decky, lan) = (before.deckies[3].id, before.lans[0].id);
    let by_name = done(&before, attach("DECKY-3", on("Lan-0")));
    let by_id = done(&before, attach(&decky.to_string(), on(&lan.to_string())));
    assert_eq!(plain(&by_name), plain(&by_id));
}

#[test]
fn an_id_of_another_topology_is_unknown() {
    let before = sample();
    let foreign = uuid::Uuid::from_u128(u128::MAX - 1).to_string();
    let unknown = |op| {
        let codes: Vec<_> = refused(&before, op)
            .into_iter()
            .map(|(code, _)| code)
            .collect();
        assert_eq!(codes, ["REFERENCE_UNKNOWN"]);
    };
    unknown(update(&foreign, DeckyPatchDraft::default()));
    unknown(detach(&foreign, "lan-0"));
    unknown(attach("decky-3", on(&foreign)));
    unknown(OpDraft::RemoveDecky {
        decky: foreign.clone(),
    });
    unknown(OpDraft::RemoveLan {
        lan: foreign.clone(),
    });
    unknown(OpDraft::UpdateLan {
        lan: foreign,
        patch: LanPatchDraft::default(),
    });
}

#[test]
fn a_mutation_is_checked_after_what_is_queued_before_it() {
    let before = sample();
    let limits = Limits::default();
    let mut entropy = Counting(5000);
    let mut queue = Vec::new();
    let add = MutationDraft::One(OpDraft::AddLan(lan("lab")));
    queue.push(read(&add, &before, Regime::Live, &mut entropy).expect("it is read"));
    // What would fail is left out, and what depends on nothing of it still counts.
    queue.push(Mutation::One(Op::DetachDecky {
        decky: before.deckies[0].id,
        lan: before.lans[0].id,
    }));
    let then = after(&before, &queue, Regime::Live, &limits);
    let join = MutationDraft::One(attach("decky-3", on("lab")));
    let join = read(&join, &then, Regime::Live, &mut entropy).expect("`lab` is queued");
    assert!(join.apply(&before, Regime::Live, &limits).is_err());
    let applied = join.check_after(&before, &queue, Regime::Live, &limits);
    assert_eq!(
        applied.expect("`lab` comes first").topology.edges.len(),
        before.edges.len() + 1
    );
    queue.push(join.clone());
    let twice = join.check_after(&before, &queue, Regime::Live, &limits);
    assert_eq!(twice.expect_err("it is there")[0].code, Code::EdgeDup);
}

#[test]
fn a_pending_topology_may_be_unfinished_but_not_ambiguous() {
    let before = sample();
    let pending = |op| run(&before, &MutationDraft::One(op), Regime::Pending);
    // Another subnet takes its addresses along.
    let renumbered = pending(OpDraft::UpdateLan {
        lan: "lan-2".to_owned(),
        patch: LanPatchDraft {
            subnet: Some("10.20.0.0/28".to_owned()),
            ..LanPatchDraft::default()
        },
    });
    let renumbered = renumbered.expect("nobody holds it").topology;
    let there: Vec<_> = renumbered
        .edges
        .iter()
        .filter(|edge| edge.lan == renumbered.lans[2].id)
        .map(|edge| edge.address.to_string())
        .collect();
    assert_eq!(there, ["10.20.0.2", "10.20.0.3"]);
    assert_eq!(validate(&renumbered), []);
    // Shape and addresses may be wrong for a while, and are found.
    let gone = pending(remove_decky("decky-1")).expect("a draft may be unfinished");
    assert!(
        gone.findings
            .iter()
            .any(|it| it.code == Code::DmzOrphan && it.is_error())
    );
    for (op, code) in [
        (OpDraft::AddLan(lan("LAN-0")), Code::LanNameDup),
        (
            OpDraft::AddDecky(decky("decky-1", &["lan-0"], &[])),
            Code::DeckyNameDup,
        ),
        (remove_lan("lan-1"), Code::HomeLan),
        (remove_lan("lan-9"), Code::ReferenceUnknown),
    ] {
        assert_eq!(pending(op).expect_err("it is ambiguous")[0].code, code);
    }
}

#[test]
fn a_revert_undoes_exactly_its_own_change() {
    let before = sample();
    let limits = Limits::default();
    let removed = done(&before, remove_decky("decky-3"));
    let revert = Mutation::revert(&before, &removed).expect("they differ");
    assert_eq!(revert.as_str(), "add_decky");
    // Something else happens in between, and stays.
    let meanwhile = done(&removed, rename_lan("lan-2", "vault"));
    let back = revert
        .apply(&meanwhile, Regime::Live, &limits)
        .expect("it applies")
        .topology;
    let mut expected = plain(&before);
    expected.lans[2].name = "vault".parse().expect("a name");
    assert_eq!(plain(&back), expected);
    assert_eq!(hydrate(&back).deckies, hydrate(&before).deckies);
    assert_eq!(Mutation::revert(&before, &before), None);
    // Undone twice, it is refused like any other mutation that no longer applies.
    let twice = revert
        .apply(&back, Regime::Live, &limits)
        .expect_err("it is there");
    assert_eq!(twice[0].code, Code::ChangeRefused);
}

fn any_lan() -> impl Strategy<Value = String> {
    (0_u8..5).prop_map(|number| format!("lan-{number}"))
}

fn any_decky() -> impl Strategy<Value = String> {
    (0_u8..7).prop_map(|number| format!("decky-{number}"))
}

fn any_services() -> impl Strategy<Value = Vec<String>> {
    let kinds = proptest::sample::subsequence(ServiceKind::ALL.to_vec(), 0..=4);
    kinds.prop_map(|kinds| kinds.iter().map(|kind| kind.as_str().to_owned()).collect())
}

fn any_edge() -> impl Strategy<Value = DraftEdge> {
    let address = proptest::option::of((0_u8..4, 0_u8..8));
    (any_lan(), address, proptest::option::of(any::<bool>())).prop_map(|(lan, address, home)| {
        DraftEdge {
            lan,
            address: address.map(|(net, host)| format!("10.9.{net}.{host}")),
            home,
            ..DraftEdge::default()
        }
    })
}

fn any_op() -> impl Strategy<Value = OpDraft> {
    let subnet = prop_oneof![
        3 => Just(String::new()),
        1 => (0_u8..5).prop_map(|number| format!("10.9.{number}.0/24")),
    ];
    let kind = proptest::option::weighted(0.2, Just("dmz".to_owned()));
    let edges = proptest::collection::vec(any_edge(), 0..3);
    let publish = proptest::collection::vec((20_i64..24, 79_i64..81), 0..2);
    let patch = (
        proptest::option::of(any_decky()),
        proptest::option::of(any_services()),
        proptest::option::of(any::<bool>()),
        proptest::option::of(publish),
        proptest::collection::vec(any_edge(), 0..2),
    );
    prop_oneof![
        (any_lan(), subnet, kind.clone()).prop_map(|(name, subnet, kind)| {
            OpDraft::AddLan(DraftLan {
                name,
                subnet,
                kind,
                ..DraftLan::default()
            })
        }),
        any_lan().prop_map(|lan| OpDraft::RemoveLan { lan }),
        (any_lan(), proptest::option::of(any_lan()), kind).prop_map(|(lan, name, kind)| {
            let patch = LanPatchDraft {
                name,
                kind,
                ..LanPatchDraft::default()
            };
            OpDraft::UpdateLan { lan, patch }
        }),
        (any_decky(), edges, any_services()).prop_map(|(name, edges, services)| {
            let decky = DraftDecky {
                name,
                edges,
                services,
                ..DraftDecky::default()
            };
            OpDraft::AddDecky(Box::new(decky))
        }),
        any_decky().prop_map(|decky| OpDraft::RemoveDecky { decky }),
        (any_decky(), patch).prop_map(|(decky, (name, services, forwards_l3, publish, edges))| {
            let publish = publish.map(|ports| {
                let ports = ports
                    .into_iter()
                    .map(|(host_port, decky_port)| DraftPublish {
                        host_port,
                        decky_port,
                        ..DraftPublish::default()
                    });
                ports.collect()
            });
            let patch = DeckyPatchDraft {
                name,
                services,
                forwards_l3,
                publish,
                edges,
                ..DeckyPatchDraft::default()
            };
            OpDraft::UpdateDecky {
                decky,
                patch: Box::new(patch),
            }
        }),
        (any_decky(), any_edge(), proptest::option::of(any::<bool>())).prop_map(
            |(decky, edge, forwards_l3)| OpDraft::AttachDecky {
                decky,
                edge,
                forwards_l3
            }
        ),
        (any_decky(), any_lan()).prop_map(|(decky, lan)| OpDraft::DetachDecky { decky, lan }),
    ]
}

fn any_draft() -> impl Strategy<Value = MutationDraft> {
    prop_oneof![
        3 => any_op().prop_map(MutationDraft::One),
        1 => proptest::collection::vec(any_op(), 0..4).prop_map(MutationDraft::Batch),
    ]
}

proptest! {
    #[test]
    fn any_sequence_of_accepted_mutations_leaves_a_valid_topology(
        drafts in proptest::collection::vec(any_draft(), 1..30),
    ) {
        let limits = Limits::default();
        let mut entropy = Counting(5000);
        let mut topology = sample();
        for draft in drafts {
            let before = topology.clone();
            let outcome = read(&draft, &topology, Regime::Live, &mut entropy)
                .and_then(|mutation| mutation.apply(&topology, Regime::Live, &limits));
            prop_assert_eq!(&before, &topology);
            let applied = match outcome {
                Ok(applied) => applied,
                Err(findings) => {
                    prop_assert!(findings.iter().any(Finding::is_error), "{findings:?}");
                    continue;
                }
            };
            let errors: Vec<_> =
                validate(&applied.topology).into_iter().filter(Finding::is_error).collect();
            prop_assert!(errors.iter().all(Finding::is_of_shape), "{errors:?}");
            if matches!(draft, MutationDraft::Batch(_)) {
                prop_assert!(errors.is_empty(), "{errors:?}");
            }
            prop_assert!(!applied.findings.iter().any(Finding::is_error));
            prop_assert_eq!(applied.topology.revision, before.revision.next());
            // And each can be undone.
            if let Some(revert) = Mutation::revert(&before, &applied.topology) {
                let back = revert.apply(&applied.topology, Regime::Pending, &limits);
                let back = back.expect("the topology before had no two of one name");
                prop_assert_eq!(plain(&back.topology), plain(&before));
            }
            topology = applied.topology;
        }
    }
}

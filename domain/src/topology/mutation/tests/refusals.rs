//! What is refused, and under which name.

use super::*;

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

//! The laws of any sequence of mutations.

use proptest::prelude::*;

use super::*;

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

//! What each operation does, alone and in a batch.

use super::*;

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
fn references_are_ids_or_names_without_regard_to_case() {
    let before = sample();
    let (decky, lan) = (before.deckies[3].id, before.lans[0].id);
    let by_name = done(&before, attach("DECKY-3", on("Lan-0")));
    let by_id = done(&before, attach(&decky.to_string(), on(&lan.to_string())));
    assert_eq!(plain(&by_name), plain(&by_id));
}

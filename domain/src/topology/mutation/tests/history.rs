//! Mutations that wait for others, and those that undo others.

use super::*;

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

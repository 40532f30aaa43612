//! The chain of transitions, its fold, and the choice of the next set.

use proptest::prelude::*;

use super::*;
use crate::service::{OptionValue, ServiceOptions};
use crate::testkit;
use crate::topology::mutation::Regime;
use crate::topology::validate::Limits;

fn at(second: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(second).expect("it is a time")
}

fn by(trigger: Trigger) -> Cause {
    Cause {
        trigger,
        actor: Some("alice".to_owned()),
    }
}

fn topology(services: &[ServiceKind]) -> Topology {
    testkit::topology(&testkit::draft(0, &[(0, false, services.to_vec())]))
}

fn serving(topology: &Topology, services: &[ServiceKind]) -> Topology {
    let mut after = topology.clone();
    after.deckies[0].services = services
        .iter()
        .map(|kind| (*kind, ServiceOptions::default()))
        .collect();
    after
}

#[test]
fn creation_begins_with_nothing_and_retirement_ends_with_nothing() {
    let topology = topology(&[ServiceKind::Ssh]);
    let cause = by(Trigger::Operator);
    let born = transitions(None, Some(&topology), &cause);
    let dead = transitions(Some(&topology), None, &cause);
    assert_eq!((born.len(), dead.len()), (1, 1));
    let set = BTreeSet::from([ServiceKind::Ssh]);
    assert_eq!(
        (born[0].trigger, dead[0].trigger),
        (Trigger::Creation, Trigger::Retirement)
    );
    assert_eq!((&born[0].old, &born[0].new), (&BTreeSet::new(), &set));
    assert_eq!((&dead[0].old, &dead[0].new), (&set, &BTreeSet::new()));
    assert_eq!(born[0].actor.as_deref(), Some("alice"));
}

#[test]
fn an_equal_set_tells_nothing_whatever_else_changed() {
    let before = topology(&[ServiceKind::Ssh]);
    let mut after = before.clone();
    after.deckies[0].name = "renamed".parse().expect("a name");
    after.deckies[0].forwards_l3 = true;
    let options = after.deckies[0].services.get_mut(&ServiceKind::Ssh);
    options
        .expect("it serves ssh")
        .set(ServiceKind::Ssh, "accept_after", OptionValue::Integer(3))
        .expect("ssh has it");
    assert_eq!(
        transitions(Some(&before), Some(&after), &by(Trigger::Healer)),
        []
    );
    assert_eq!(
        transitions(None, Some(&topology(&[])), &by(Trigger::Operator)),
        []
    );
}

#[test]
fn triggers_are_words_and_are_read_back() {
    for trigger in Trigger::ALL {
        assert_eq!(trigger.as_str().parse(), Ok(trigger));
    }
    assert!("operators".parse::<Trigger>().is_err());
}

#[test]
fn the_state_at_a_time_is_what_was_told_up_to_then() {
    let first = topology(&[ServiceKind::Ssh]);
    let second = serving(&first, &[ServiceKind::Http]);
    let decky = first.deckies[0].id;
    let mut history = Vec::new();
    for (time, before, after, trigger) in [
        (10, None, Some(&first), Trigger::Operator),
        (20, Some(&first), Some(&second), Trigger::Scheduled),
        (30, Some(&second), None, Trigger::Operator),
    ] {
        for mutated in transitions(before, after, &by(trigger)) {
            history.push((at(time), mutated));
        }
    }
    let state = |time| substrate_state(history.iter().map(|(at, it)| (*at, it)), at(time));
    assert_eq!(state(9), Substrate::default());
    assert_eq!(
        state(10).services[&decky],
        BTreeSet::from([ServiceKind::Ssh])
    );
    assert_eq!(
        state(29).services[&decky],
        BTreeSet::from([ServiceKind::Http])
    );
    assert_eq!(state(30), Substrate::default());

    // A transition that was lost is noticed, and what comes after it is still believed.
    let torn = [&history[0], &history[2]];
    let state = substrate_state(torn.into_iter().map(|(at, it)| (*at, it)), at(99));
    assert_eq!(state.broken, BTreeSet::from([decky]));
    assert!(state.services.is_empty());
}

#[test]
fn an_archetype_with_one_service_has_no_other_set() {
    let mut topology = topology(&[ServiceKind::Ssh]);
    topology.deckies[0].publish.clear();
    topology.deckies[0].archetype = Some("deaddeck".to_owned());
    assert_eq!(next_services(&topology.deckies[0], [7; 32]), None);
    // Nobody has written SIP: the machine keeps what it shows.
    topology.deckies[0].archetype = Some("voip-server".to_owned());
    assert_eq!(next_services(&topology.deckies[0], [7; 32]), None);
}

#[test]
fn a_published_service_stays_and_keeps_its_options() {
    let mut topology = topology(&[ServiceKind::Ssh, ServiceKind::Http]);
    let decky = &mut topology.deckies[0];
    let ssh = decky
        .services
        .get_mut(&ServiceKind::Ssh)
        .expect("it serves ssh");
    ssh.set(ServiceKind::Ssh, "accept_after", OptionValue::Integer(3))
        .expect("ssh has it");
    for byte in 0..=255 {
        let next = next_services(decky, [byte; 32]).expect("there are other sets");
        assert_eq!(
            next.get(&ServiceKind::Ssh),
            decky.services.get(&ServiceKind::Ssh)
        );
        assert_ne!(kinds(&next), kinds(&decky.services));
    }
}

#[test]
fn a_mutation_of_a_decky_is_one_of_its_topology_and_tells_one_transition() {
    let before = topology(&[ServiceKind::Ssh, ServiceKind::Http]);
    let mutation = next_mutation(&before.deckies[0], [1; 32]).expect("there are other sets");
    let applied = mutation.apply(&before, Regime::Live, &Limits::default());
    let after = applied.expect("a choice is always valid").topology;
    let told = transitions(Some(&before), Some(&after), &by(Trigger::Scheduled));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].trigger, Trigger::Scheduled);
    assert_eq!(
        told[0].old,
        BTreeSet::from([ServiceKind::Ssh, ServiceKind::Http])
    );
    assert_eq!(told[0].new, kinds(&after.deckies[0].services));
}

#[test]
fn the_next_mutation_is_due_an_interval_after_the_last() {
    let every: Interval = "6h".parse().expect("an interval");
    assert_eq!(due(every, at(1000)), at(1000 + 6 * 3600));
}

proptest! {
    #[test]
    fn the_next_set_is_another_one_of_the_pool_and_shares_no_port(
        archetype in proptest::option::of(proptest::sample::select(Archetype::ALL.to_vec())),
        start in proptest::sample::subsequence(ServiceKind::IMPLEMENTED.to_vec(), 0..=3),
        rounds in proptest::collection::vec(any::<[u8; 32]>(), 1..20),
    ) {
        let mut topology = topology(&start);
        let decky = &mut topology.deckies[0];
        decky.publish.clear();
        decky.archetype = archetype.map(|each| each.as_str().to_owned());
        for bits in rounds {
            let again = next_services(decky, bits);
            let Some(next) = next_services(decky, bits) else { continue };
            prop_assert_eq!(again.as_ref(), Some(&next));
            let set = kinds(&next);
            prop_assert_ne!(&set, &kinds(&decky.services));
            prop_assert!((1..=3).contains(&set.len()) && shares_no_port(&set));
            prop_assert!(set.is_subset(&pool(decky.archetype.as_deref(), decky.persona)));
            decky.services = next;
        }
    }

    #[test]
    fn each_old_set_is_the_new_one_before_it_and_the_fold_is_the_topology(
        steps in proptest::collection::vec(
            proptest::option::of(
                proptest::sample::subsequence(ServiceKind::IMPLEMENTED.to_vec(), 0..=5)
            ),
            1..12
        ),
    ) {
        let empty = topology(&[]);
        let decky = empty.deckies[0].id;
        let mut before: Option<Topology> = None;
        let mut history: Vec<(OffsetDateTime, DeckyMutated)> = Vec::new();
        let mut known = Told::default();
        for (second, step) in (0_i64..).zip(steps) {
            let after = step.map(|services| serving(&empty, &services));
            let told = transitions(before.as_ref(), after.as_ref(), &by(Trigger::Scheduled));
            prop_assert!(told.len() <= 1);
            // Who knows only what was told finds the same to be told.
            let lacks = known.lacks(after.as_ref(), |_| by(Trigger::Scheduled));
            let sets = |all: &[DeckyMutated]| -> Vec<_> {
                all.iter().map(|it| (it.old.clone(), it.new.clone())).collect()
            };
            prop_assert_eq!(sets(&lacks), sets(&told));
            for mutated in lacks {
                prop_assert!(mutated.trigger != Trigger::Creation || mutated.old.is_empty());
                prop_assert_eq!(mutated.trigger == Trigger::Retirement, after.is_none());
                known.take(mutated);
            }
            prop_assert_eq!(known.lacks(after.as_ref(), |_| by(Trigger::Operator)), []);
            for mutated in told {
                let last = history.last().map(|(_, last)| last.new.clone());
                prop_assert_eq!(&mutated.old, &last.unwrap_or_default());
                prop_assert_eq!(mutated.trigger == Trigger::Creation, before.is_none());
                prop_assert_eq!(mutated.trigger == Trigger::Retirement, after.is_none());
                history.push((at(second), mutated));
            }
            let state = substrate_state(history.iter().map(|(at, it)| (*at, it)), at(second));
            let shown = after.as_ref().map(|it| kinds(&it.deckies[0].services));
            prop_assert_eq!(
                state.services.get(&decky).cloned().unwrap_or_default(),
                shown.unwrap_or_default()
            );
            prop_assert!(state.broken.is_empty());
            before = after;
        }
    }
}

#[test]
fn a_decky_without_an_interval_mutates_when_it_is_asked() {
    let topology = topology(&[ServiceKind::Ssh]);
    assert_eq!(topology.deckies[0].mutate_every, None);
    let mutation = next_mutation(&topology.deckies[0], [7; 32]).expect("there are other sets");
    let after = mutation
        .apply(&topology, Regime::Live, &Limits::default())
        .expect("it applies")
        .topology;
    assert_ne!(after.deckies[0].services, topology.deckies[0].services);
}

use domain::service::{ServiceKind, ServiceOptions};
use domain::topology::Topology;
use domain::topology::diff::Difference;
use domain::topology::generate::{Parameters, generate};
use proptest::prelude::*;

use super::*;

/// Numbers that look like chance and are the same every time.
struct Counting(u128);

impl Entropy for Counting {
    fn uuid(&mut self) -> uuid::Uuid {
        self.0 += 1;
        uuid::Uuid::from_u128(self.0)
    }

    fn bytes(&mut self) -> [u8; 32] {
        self.0 += 1;
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.0.to_le_bytes());
        bytes
    }
}

fn generated(seed: u64) -> Draft {
    let parameters = Parameters::new("maze", 2, 2, seed);
    generate(&parameters, &[], &Limits::default()).expect("the parameters are sound")
}

/// Edits of the fields that generated topologies do not vary.
fn vary(topology: &mut Topology) {
    for (index, decky) in topology.deckies.iter_mut().enumerate() {
        match index % 4 {
            0 => {
                decky.archetype = Some("web-server".to_owned());
                decky.mutate_every = "2d".parse().ok();
            }
            1 => {
                decky.archetype = None;
                decky
                    .services
                    .insert(ServiceKind::Ftp, ServiceOptions::default());
            }
            2 => {
                decky.name = format!("other-{index}").parse().expect("a name");
                decky.publish.clear();
                decky.mutate_every = None;
            }
            _ => decky.services.clear(),
        }
    }
    for lan in topology.lans.iter_mut().skip(1) {
        lan.name = format!("{}-x", lan.name).parse().expect("a name");
        lan.subnet6 = "fd00:9::/64".parse().ok();
    }
    for edge in topology.edges.iter_mut().step_by(3) {
        let [a, b, c, d] = edge.address.octets();
        edge.address = [a, b, c, d.wrapping_add(100)].into();
    }
}

fn kept(mutation: &Mutation, undo: Option<Mutation>) {
    let queued = Queued {
        mutation: mutation.clone(),
        undo,
        changes: Vec::new(),
        words: "~ decky web\n".to_owned(),
    };
    let read = Queued::from_json(&queued.to_json()).expect("it was just written");
    assert_eq!(read, queued);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_turns_one_topology_into_another_is_read_as_it_was_written(
        one in any::<u64>(), other in any::<u64>(), varied in any::<bool>(),
    ) {
        let limits = Limits::default();
        let mut entropy = Counting(1 << 64);
        let before = resolve(&generated(one), None, &limits, &mut entropy);
        prop_assert!(before.findings.is_empty());
        let mut before = before.topology;
        let after = generated(other).resolve_onto(&before, &limits, &mut entropy);
        prop_assert!(after.findings.is_empty());
        let mut after = after.topology;
        if varied {
            vary(&mut after);
        } else {
            vary(&mut before);
        }
        let there = Difference::between(&before, &after).mutation();
        let back = Mutation::revert(&before, &after);
        if let Some(there) = there {
            for op in there.ops() {
                kept(&Mutation::One(op.clone()), None);
            }
            kept(&there, back);
        }
    }

    #[test]
    fn no_text_is_taken_for_a_mutation_by_a_panic(text in ".{0,200}") {
        let _ignored: Option<Queued> = Queued::from_json(&text).ok();
    }
}

#[test]
fn an_empty_patch_and_a_patch_that_takes_away_differ() {
    let patch = DeckyPatch {
        archetype: Some(None),
        mutate_every: Some(None),
        ..DeckyPatch::default()
    };
    for patch in [patch, DeckyPatch::default()] {
        let op = Op::UpdateDecky {
            decky: DeckyId::new(uuid::Uuid::from_u128(7)),
            patch: Box::new(patch),
        };
        kept(&Mutation::One(op), None);
    }
}

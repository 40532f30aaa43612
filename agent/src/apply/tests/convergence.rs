//! Laws: whatever was there and wherever it broke, the next attempt gets there.

use domain::plan;
use domain::topology::hydrate::HydratedInterface;
use proptest::prelude::*;
use uuid::Uuid;

use super::super::wanted::{Wanted, desired};
use super::*;
use crate::store::Held;

/// A topology drawn from a small stock of ids, so that two of them share objects.
#[derive(Debug, Clone)]
struct Draw {
    topology: u8,
    lans: Vec<(bool, u8)>,
    deckies: Vec<Option<(u8, u8, bool)>>,
}

fn draws() -> impl Strategy<Value = Option<Draw>> {
    let lans = proptest::collection::vec((any::<bool>(), 0_u8..2), 4);
    let decky = (1_u8..16, 0_u8..3, any::<bool>());
    let deckies = proptest::collection::vec(proptest::option::of(decky), 5);
    let draw = (0_u8..2, lans, deckies).prop_map(|(topology, lans, deckies)| Draw {
        topology,
        lans,
        deckies,
    });
    proptest::option::weighted(0.9, draw)
}

fn build(draw: &Draw) -> HydratedTopology {
    let id = |kind: u8, number: u128| {
        Uuid::from_u128(u128::from(kind) << 64 | u128::from(draw.topology) << 32 | number)
    };
    let mut topology = sample::topology(&[], &[]);
    topology.id = TopologyId::new(id(1, 0));
    for (number, (_, variant)) in (0_u8..).zip(&draw.lans).filter(|(_, (there, _))| *there) {
        let name = if number == 0 {
            "dmz".to_owned()
        } else {
            format!("lan{number}")
        };
        // Another variant is another subnet: the LAN is made anew.
        let mut lan = sample::lan(&name, subnet(number * 8 + variant * 4 + draw.topology));
        lan.id = domain::id::LanId::new(id(2, number.into()));
        topology.lans.push(lan);
    }
    for (number, spec) in (0_u8..).zip(&draw.deckies) {
        let Some((mask, variant, published)) = spec else {
            continue;
        };
        let on: Vec<_> = topology
            .lans
            .iter()
            .enumerate()
            .filter(|(index, _)| mask & (1 << index) != 0)
            .map(|(_, lan)| lan)
            .collect();
        if on.is_empty() {
            continue;
        }
        let mut decky = sample::decky(&format!("decky{number}"), &on, 10 + u32::from(number));
        decky.id = domain::id::DeckyId::new(id(3, number.into()));
        decky.seed = domain::seed::Seed::new([7; 32]);
        match variant {
            0 => {}
            1 => sample::serve(&mut decky, &[ServiceKind::Ssh]),
            _ => {
                for HydratedInterface { address, .. } in &mut decky.interfaces {
                    *address = Ipv4Addr::from_bits(address.to_bits() + 100);
                }
            }
        }
        if *published {
            sample::publish(&mut decky, 8000 + u16::from(number));
        }
        topology.deckies.push(decky);
    }
    topology
}

fn held(topology: &HydratedTopology) -> Held {
    Held {
        topology: topology.id,
        hash: topology.version_hash(),
        hydrated: proto::hydrated::encode(topology).into(),
    }
}

async fn differences(world: &World, topology: Option<&HydratedTopology>) -> Vec<plan::Step> {
    let wanted =
        topology.map(|topology| Wanted::read(&held(topology)).expect("tests draw valid ones"));
    let observed = world.engine.inventory().await.expect("the fake answers");
    plan::plan(desired(wanted.as_ref()), &observed)
}

fn run<F: Future<Output = Result<(), TestCaseError>>>(future: F) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime can be made").block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn planning_running_and_observing_leaves_nothing_to_plan(first in draws(), second in draws()) {
        run(async {
            let world = World::new().await;
            for (number, draw) in (1..).zip([&first, &second]) {
                let topology = draw.as_ref().map(build);
                let report = world.apply(fence(number), topology.as_ref()).await;
                prop_assert_eq!(&report.failure, &None);
                prop_assert_eq!(differences(&world, topology.as_ref()).await, []);
            }
            Ok(())
        })?;
    }

    #[test]
    fn a_step_that_fails_anywhere_leaves_what_the_next_attempt_mends(
        first in draws(), second in draws(), nth in 1_u32..20, hard: bool,
    ) {
        run(async {
            let world = World::new().await;
            let first = first.as_ref().map(build);
            world.apply(fence(1), first.as_ref()).await;
            let kind = if hard { EngineErrorKind::Unreachable } else { EngineErrorKind::Refused };
            world.daemon.fail_on_change(nth, Fault::Refuse(kind));
            let second = second.as_ref().map(build);
            let report = world.apply(fence(2), second.as_ref()).await;
            if report.phase == Phase::Failed {
                world.offer(fence(2), second.as_ref()).await;
                world.report(|report| report.phase != Phase::Failed && !report.in_flight).await;
            }
            prop_assert_eq!(differences(&world, second.as_ref()).await, []);
            Ok(())
        })?;
    }

    #[test]
    fn dying_anywhere_leaves_what_the_next_life_mends(
        first in draws(), second in draws(), nth in 1_u32..20, after: bool,
    ) {
        run(async {
            let mut world = World::new().await;
            let first = first.as_ref().map(build);
            world.apply(fence(1), first.as_ref()).await;
            let fault = if after { Fault::HangAfter } else { Fault::HangBefore };
            world.daemon.fail_on_change(nth, fault);
            let second = second.as_ref().map(build);
            world.offer(fence(2), second.as_ref()).await;
            // Either it gets there, or the fault is reached and everything beside it has ended.
            let daemon = world.daemon.clone();
            let applier = world.applier.clone();
            crate::engine::conformance::eventually("done or stuck", async || {
                let report = applier.reports().borrow().clone();
                report.fence == fence(2) && !report.in_flight || daemon.is_stuck()
            })
            .await;
            world.restart().await;
            world.apply(fence(2), second.as_ref()).await;
            prop_assert_eq!(differences(&world, second.as_ref()).await, []);
            Ok(())
        })?;
    }
}

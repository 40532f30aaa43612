//! The laws of the plan, on an engine that is nothing but an inventory.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test panics on what it does not expect"
)]

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::id::TopologyId;
use crate::observe::{Attachment, Foreign};
use crate::testkit::any_topology;
use crate::topology::hydrate::hydrate;
use crate::wiring::{self, ObservedWiring};

/// What each decky of a topology is to have in force: its services, as text.
fn configs(topology: &HydratedTopology) -> ConfigDigests {
    topology
        .deckies
        .iter()
        .map(|decky| (decky.id, format!("{:?}", decky.services)))
        .collect()
}

/// What each decky is to be wired like, under rules that are named by a byte.
fn wirings(topology: &HydratedTopology) -> Wirings {
    topology
        .deckies
        .iter()
        .map(|decky| (decky.id, (wiring::of(topology, decky), [7; 32])))
        .collect()
}

/// What is seen of a decky that is wired as it should be.
fn wired(topology: &HydratedTopology, decky: DeckyId) -> ObservedWiring {
    let (wiring, rules) = &wirings(topology)[&decky];
    ObservedWiring {
        interfaces: wiring
            .interfaces
            .iter()
            .map(|interface| (interface.mac, interface.addresses.clone()))
            .collect(),
        routes: wiring.routes.clone(),
        sysctls: wiring.sysctls.clone(),
        rules: Some(*rules),
        open: true,
    }
}

struct World {
    inventory: Inventory,
    next: u32,
}

impl World {
    fn handle(&mut self) -> Handle {
        self.next += 1;
        Handle::new(format!("object-{}", self.next))
    }

    fn decky(&mut self, handle: &Handle) -> &mut ObservedDecky {
        self.inventory
            .deckies
            .iter_mut()
            .find(|decky| &decky.handle == handle)
            .expect("the plan names containers that are there")
    }

    /// Carries out one step as an engine would; panics where an engine would refuse.
    fn run(&mut self, topology: Option<&HydratedTopology>, configs: &ConfigDigests, step: &Step) {
        let wanted = |id: DeckyId| {
            topology
                .and_then(|topology| topology.deckies.iter().find(|decky| decky.id == id))
                .expect("only deckies that are desired are made")
        };
        match &step.action {
            Action::RemoveDecky { handle, .. } => {
                self.decky(handle);
                self.inventory
                    .deckies
                    .retain(|decky| &decky.handle != handle);
            }
            Action::RemoveLan { handle, .. } => {
                let busy = self.inventory.deckies.iter().any(|decky| {
                    decky.state == RunState::Running
                        && decky.attachments.iter().any(|it| &it.network == handle)
                });
                assert!(!busy, "a network with running containers cannot be removed");
                self.inventory.lans.retain(|lan| &lan.handle != handle);
            }
            Action::CreateLan { lan, depth } => {
                let topology = topology.expect("only LANs that are desired are made");
                let wanted = topology
                    .lans
                    .iter()
                    .find(|wanted| wanted.id == *lan)
                    .expect("it is desired");
                let handle = self.handle();
                self.inventory.lans.push(ObservedLan {
                    handle,
                    id: *lan,
                    topology: topology.id,
                    spec: Some(wanted.spec()),
                    depth: *depth,
                });
            }
            Action::CreateDecky { decky } => {
                let wanted = wanted(*decky);
                let attachments = wanted
                    .interfaces
                    .iter()
                    .map(|interface| self.attachment(interface))
                    .collect();
                let handle = self.handle();
                self.inventory.deckies.push(ObservedDecky {
                    handle,
                    id: *decky,
                    topology: topology.expect("it is desired").id,
                    spec: Some(wanted.spec()),
                    state: RunState::Running,
                    attachments,
                    config: configs.get(decky).cloned(),
                    wiring: topology.map(|topology| wired(topology, *decky)),
                    published: Some(published(wanted)),
                    outdated: false,
                });
            }
            Action::StartDecky { handle, decky } => {
                let config = configs.get(decky).cloned();
                let published = published(wanted(*decky));
                let observed = self.decky(handle);
                observed.state = RunState::Running;
                observed.config = config;
                observed.wiring = topology.map(|topology| wired(topology, *decky));
                observed.published = Some(published);
            }
            Action::Connect {
                handle, interface, ..
            } => {
                let attachment = self.attachment(interface);
                let observed = self.decky(handle);
                assert!(
                    !observed
                        .attachments
                        .iter()
                        .any(|it| it.network == attachment.network)
                );
                observed.attachments.push(attachment);
            }
            Action::Disconnect {
                handle, network, ..
            } => {
                self.decky(handle)
                    .attachments
                    .retain(|it| &it.network != network);
            }
            Action::Rewire { handle, decky } => {
                let observed = self.decky(handle);
                assert_eq!(observed.state, RunState::Running);
                observed.wiring = topology.map(|topology| wired(topology, *decky));
            }
            Action::Configure { handle, decky } => {
                let config = configs.get(decky).cloned();
                self.decky(handle).config = config;
            }
        }
    }

    fn attachment(&self, interface: &HydratedInterface) -> Attachment {
        let lan = self
            .inventory
            .lans
            .iter()
            .find(|lan| lan.id == interface.lan)
            .expect("a LAN is made before a decky is put on it");
        Attachment {
            network: lan.handle.clone(),
            address: Some(interface.address),
        }
    }
}

fn published(decky: &HydratedDecky) -> Vec<Publish> {
    decky.publish.clone()
}

/// Harm that people and crashes do to what was applied.
#[derive(Debug, Clone)]
enum Harm {
    Remove(usize),
    Stop(usize),
    Pause(usize),
    Detach(usize),
    Readdress(usize),
    DropNetwork(usize),
    Reconfigure(usize),
    Rewire(usize, usize),
    Unpublish(usize),
    LoseSpec(usize),
    Duplicate(usize),
    Stray,
    Foreign,
}

fn any_harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        any::<usize>().prop_map(Harm::Remove),
        any::<usize>().prop_map(Harm::Stop),
        any::<usize>().prop_map(Harm::Pause),
        any::<usize>().prop_map(Harm::Detach),
        any::<usize>().prop_map(Harm::Readdress),
        any::<usize>().prop_map(Harm::DropNetwork),
        any::<usize>().prop_map(Harm::Reconfigure),
        (any::<usize>(), any::<usize>()).prop_map(|(decky, what)| Harm::Rewire(decky, what)),
        any::<usize>().prop_map(Harm::Unpublish),
        any::<usize>().prop_map(Harm::LoseSpec),
        any::<usize>().prop_map(Harm::Duplicate),
        Just(Harm::Stray),
        Just(Harm::Foreign),
    ]
}

fn inflict(world: &mut World, harm: &Harm) {
    let copy = world.handle();
    let inventory = &mut world.inventory;
    let deckies = inventory.deckies.len();
    let lans = inventory.lans.len();
    match harm {
        Harm::Stray => inventory.lans.push(ObservedLan {
            handle: copy,
            id: LanId::new(uuid::Uuid::from_u128(u128::MAX)),
            topology: TopologyId::new(uuid::Uuid::from_u128(u128::MAX)),
            spec: None,
            depth: 0,
        }),
        Harm::Foreign => inventory.foreign.push(Foreign {
            noun: "container",
            name: "decnet-not-ours".to_owned(),
        }),
        Harm::DropNetwork(index) if lans > 0 => {
            let gone = inventory.lans.remove(index % lans);
            for decky in &mut inventory.deckies {
                // A running container is off a network that is gone; a stopped one names it still.
                if decky.state == RunState::Running {
                    decky.attachments.retain(|it| it.network != gone.handle);
                }
            }
        }
        Harm::Remove(index) if deckies > 0 => {
            inventory.deckies.remove(index % deckies);
        }
        Harm::Duplicate(index) if deckies > 0 => {
            let mut twin = inventory.deckies[index % deckies].clone();
            twin.handle = copy;
            twin.attachments.clear();
            twin.state = RunState::Created;
            inventory.deckies.push(twin);
        }
        Harm::Stop(index)
        | Harm::Pause(index)
        | Harm::Detach(index)
        | Harm::Readdress(index)
        | Harm::Reconfigure(index)
        | Harm::Rewire(index, _)
        | Harm::Unpublish(index)
        | Harm::LoseSpec(index)
            if deckies > 0 =>
        {
            let decky = &mut inventory.deckies[index % deckies];
            match harm {
                Harm::Stop(_) => {
                    decky.state = RunState::Exited;
                    (decky.wiring, decky.published) = (None, None);
                }
                Harm::Rewire(_, what) => {
                    if let Some(wiring) = &mut decky.wiring {
                        match what % 5 {
                            0 => wiring.rules = None,
                            1 => drop(wiring.interfaces.pop()),
                            2 => wiring.routes.clear(),
                            3 => drop(wiring.sysctls.pop_first()),
                            _ => wiring.open = false,
                        }
                    }
                }
                Harm::Unpublish(_) => decky.published = decky.published.take().map(|_| Vec::new()),
                Harm::Pause(_) => decky.state = RunState::Paused,
                Harm::Detach(_) => drop(decky.attachments.pop()),
                Harm::Readdress(_) => {
                    if let Some(attachment) = decky.attachments.first_mut() {
                        attachment.address = Some(Ipv4Addr::new(10, 9, 0, 250));
                    }
                }
                Harm::Reconfigure(_) => decky.config = Some("another".to_owned()),
                Harm::LoseSpec(_) => decky.spec = None,
                other => unreachable!("{other:?} is handled outside"),
            }
        }
        Harm::Remove(_)
        | Harm::Stop(_)
        | Harm::Pause(_)
        | Harm::Detach(_)
        | Harm::Readdress(_)
        | Harm::DropNetwork(_)
        | Harm::Reconfigure(_)
        | Harm::Rewire(..)
        | Harm::Unpublish(_)
        | Harm::LoseSpec(_)
        | Harm::Duplicate(_) => {} // nothing is there to be harmed
    }
}

fn apply(world: &mut World, topology: Option<&HydratedTopology>, configs: &ConfigDigests) {
    let wirings = topology.map(wirings).unwrap_or_default();
    let desired = Desired {
        topology,
        configs,
        wirings: &wirings,
    };
    for step in plan(desired, &world.inventory.clone()) {
        world.run(topology, configs, &step);
    }
}

proptest! {
    #[test]
    fn running_the_plan_leaves_nothing_to_plan_whatever_was_there(
        first in any_topology(),
        second in any_topology(),
        harms in proptest::collection::vec(any_harm(), 0..8),
    ) {
        let mut world = World { inventory: Inventory::default(), next: 0 };
        for topology in [first, second] {
            let hydrated = hydrate(&topology);
            let configs = configs(&hydrated);
            apply(&mut world, Some(&hydrated), &configs);
            for harm in &harms {
                inflict(&mut world, harm);
            }
            apply(&mut world, Some(&hydrated), &configs);
            let wirings = wirings(&hydrated);
            let desired =
                Desired { topology: Some(&hydrated), configs: &configs, wirings: &wirings };
            prop_assert_eq!(plan(desired, &world.inventory), []);
            let unrepaired =
                drift(desired, &world.inventory).into_iter().any(|drift| drift.kind.needs_repair());
            prop_assert!(!unrepaired);
        }
        let nothing = ConfigDigests::new();
        apply(&mut world, None, &nothing);
        prop_assert!(world.inventory.is_empty());
    }

    #[test]
    fn a_plan_that_stops_anywhere_is_finished_by_the_next(
        topology in any_topology(),
        harms in proptest::collection::vec(any_harm(), 0..4),
        stop in any::<proptest::sample::Index>(),
    ) {
        let hydrated = hydrate(&topology);
        let configs = configs(&hydrated);
        let wirings = wirings(&hydrated);
        let desired = Desired { topology: Some(&hydrated), configs: &configs, wirings: &wirings };
        let mut world = World { inventory: Inventory::default(), next: 0 };
        apply(&mut world, Some(&hydrated), &configs);
        for harm in &harms {
            inflict(&mut world, harm);
        }
        let steps = plan(desired, &world.inventory);
        let done = stop.index(steps.len() + 1);
        for step in &steps[..done] {
            world.run(Some(&hydrated), &configs, step);
        }
        apply(&mut world, Some(&hydrated), &configs);
        prop_assert_eq!(plan(desired, &world.inventory), []);
    }

    #[test]
    fn a_decky_that_fits_is_in_no_step_and_foreign_objects_are_never_named(
        topology in any_topology(),
        victim in any::<usize>(),
    ) {
        let hydrated = hydrate(&topology);
        let configs = configs(&hydrated);
        let mut world = World { inventory: Inventory::default(), next: 0 };
        apply(&mut world, Some(&hydrated), &configs);
        let before = world.inventory.clone();
        inflict(&mut world, &Harm::Foreign);
        inflict(&mut world, &Harm::Remove(victim));
        let steps = plan(
            Desired { topology: Some(&hydrated), configs: &configs, wirings: &wirings(&hydrated) },
            &world.inventory,
        );
        // Only the one that was removed is made again.
        let expected = usize::from(!before.deckies.is_empty());
        prop_assert_eq!(steps.len(), expected);
        for step in steps {
            let only_creation = matches!(step.action, Action::CreateDecky { .. });
            prop_assert!(only_creation);
        }
    }
}

#[test]
fn removal_goes_farthest_from_the_dmz_first() {
    let services = vec![crate::service::ServiceKind::Ssh];
    let draft = crate::testkit::draft(
        2,
        &[
            (0, false, services.clone()),
            (1, true, services.clone()),
            (2, true, services),
        ],
    );
    let hydrated = hydrate(&crate::testkit::topology(&draft));
    let configs = configs(&hydrated);
    let mut world = World {
        inventory: Inventory::default(),
        next: 0,
    };
    apply(&mut world, Some(&hydrated), &configs);
    let nothing = ConfigDigests::new();
    let steps = plan(
        Desired {
            topology: None,
            configs: &nothing,
            wirings: &Wirings::new(),
        },
        &world.inventory,
    );
    let depths: Vec<u32> = steps
        .iter()
        .map(|step| match &step.action {
            Action::RemoveDecky { handle, .. } => world.inventory.depth_of(
                world
                    .inventory
                    .deckies
                    .iter()
                    .find(|it| &it.handle == handle)
                    .expect("it is there"),
            ),
            Action::RemoveLan { handle, .. } => {
                world.inventory.lan_of(handle).expect("it is there").depth
            }
            other => panic!("{other:?} in a teardown"),
        })
        .collect();
    assert_eq!(depths, [1, 0, 0, 2, 1, 0]);
}

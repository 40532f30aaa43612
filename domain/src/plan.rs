//! The plan: the steps that turn what is observed into what is desired, and no others.
//!
//! Pure and deterministic. Drift is read off the plan, so the two cannot disagree: there is
//! drift to repair exactly when there is a step.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::id::{DeckyId, LanId};
use crate::observe::{
    ConfigDigests, Drift, DriftKind, Handle, Inventory, ObservedDecky, ObservedLan, RunState,
};
use crate::topology::hydrate::{HydratedDecky, HydratedInterface, HydratedTopology};
use crate::topology::{LanKind, Publish};
use crate::wiring::Wirings;

/// What a host is to hold; nothing when no topology is assigned.
#[derive(Debug, Clone, Copy)]
pub struct Desired<'a> {
    /// The topology, if any.
    pub topology: Option<&'a HydratedTopology>,
    /// The configuration that each of its deckies is to have in force.
    pub configs: &'a ConfigDigests,
    /// What the network namespace of each of its deckies is to look like.
    pub wirings: &'a Wirings,
}

/// One step, and why it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// What is wrong.
    pub reason: Drift,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Remove a container.
    RemoveDecky {
        /// The container.
        handle: Handle,
        /// The decky that it is or was.
        decky: DeckyId,
    },
    /// Take a running container off a network.
    Disconnect {
        /// The container.
        handle: Handle,
        /// Its decky.
        decky: DeckyId,
        /// The network.
        network: Handle,
    },
    /// Remove a network.
    RemoveLan {
        /// The network.
        handle: Handle,
        /// The LAN that it is or was.
        lan: LanId,
    },
    /// Make a network.
    CreateLan {
        /// The LAN.
        lan: LanId,
        /// Hops from the DMZ, for its label.
        depth: u32,
    },
    /// Put a container on a network.
    Connect {
        /// The container.
        handle: Handle,
        /// Its decky.
        decky: DeckyId,
        /// Where and as what.
        interface: HydratedInterface,
    },
    /// Start a container that has ended or never ran.
    StartDecky {
        /// The container.
        handle: Handle,
        /// Its decky.
        decky: DeckyId,
    },
    /// Make a container, connect and start it.
    CreateDecky {
        /// The decky.
        decky: DeckyId,
    },
    /// Make the network namespace of a running decky look as it should.
    Rewire {
        /// The container.
        handle: Handle,
        /// Its decky.
        decky: DeckyId,
    },
    /// Have a running decky read its configuration again.
    Configure {
        /// The container.
        handle: Handle,
        /// Its decky.
        decky: DeckyId,
    },
}

impl Action {
    /// The word for it in spans and plans.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::RemoveDecky { .. } => "remove_decky",
            Self::Disconnect { .. } => "disconnect",
            Self::RemoveLan { .. } => "remove_lan",
            Self::CreateLan { .. } => "create_lan",
            Self::Connect { .. } => "connect",
            Self::StartDecky { .. } => "start_decky",
            Self::CreateDecky { .. } => "create_decky",
            Self::Rewire { .. } => "rewire",
            Self::Configure { .. } => "configure",
        }
    }
}

/// The steps from `observed` to `desired`, in an order that can be carried out: removals of
/// deckies (farthest from the DMZ first), disconnections, removals of LANs, new LANs, and then
/// each decky on its own.
pub fn plan(desired: Desired<'_>, observed: &Inventory) -> Vec<Step> {
    let mut planner = Planner::new(observed);
    let (lans, deckies): (&[_], &[_]) = desired
        .topology
        .map_or((&[], &[]), |topology| (&topology.lans, &topology.deckies));
    let owner = desired.topology.map(|topology| topology.id);
    let depths = desired.topology.map(depths).unwrap_or_default();

    // LANs: keep the first object that fits, remove every other one.
    let mut kept_lans: BTreeMap<LanId, &ObservedLan> = BTreeMap::new();
    for lan in &observed.lans {
        let wanted = lans
            .iter()
            .find(|wanted| wanted.id == lan.id && Some(lan.topology) == owner);
        match wanted {
            Some(wanted) if lan.spec == Some(wanted.spec()) => match kept_lans.entry(lan.id) {
                Entry::Vacant(place) => drop(place.insert(lan)),
                Entry::Occupied(_) => {
                    planner.remove_lan(lan, DriftKind::Stray, wanted.name.as_str());
                }
            },
            Some(wanted) => planner.remove_lan(lan, DriftKind::Changed, wanted.name.as_str()),
            None => planner.remove_lan(lan, DriftKind::Stray, &lan.id.to_string()),
        }
    }
    let mut missing: Vec<_> = lans
        .iter()
        .filter(|lan| !kept_lans.contains_key(&lan.id))
        .map(|lan| (depths.get(&lan.id).copied().unwrap_or(u32::MAX), lan))
        .collect();
    missing.sort_by_key(|(depth, lan)| (*depth, lan.id));
    planner
        .create_lans
        .extend(missing.into_iter().map(|(depth, lan)| Step {
            action: Action::CreateLan { lan: lan.id, depth },
            reason: Drift {
                kind: DriftKind::Missing,
                object: format!("lan {}", lan.name),
            },
        }));

    // Deckies: keep the one container that fits best, remove every other one.
    let mut seen: BTreeMap<DeckyId, Vec<&ObservedDecky>> = BTreeMap::new();
    for decky in &observed.deckies {
        if Some(decky.topology) == owner && deckies.iter().any(|wanted| wanted.id == decky.id) {
            seen.entry(decky.id).or_default().push(decky);
        } else {
            planner.remove_decky(decky, DriftKind::Stray, &decky.id.to_string());
        }
    }
    for wanted in deckies {
        let mut candidates = seen.remove(&wanted.id).unwrap_or_default();
        // A running one before a stopped one, then the one that was seen first.
        candidates.sort_by_key(|decky| {
            (
                decky.spec != Some(wanted.spec()),
                decky.state != RunState::Running,
            )
        });
        let mut candidates = candidates.into_iter();
        match candidates.next() {
            None => planner.create_decky(wanted, DriftKind::Missing),
            Some(decky) => planner.keep_or_replace(wanted, decky, &kept_lans, desired),
        }
        for surplus in candidates {
            planner.remove_decky(surplus, DriftKind::Stray, wanted.name.as_str());
        }
    }
    planner.steps()
}

/// What differs, one entry an object and kind, foreign objects included.
pub fn drift(desired: Desired<'_>, observed: &Inventory) -> Vec<Drift> {
    let mut found: BTreeSet<Drift> = plan(desired, observed)
        .into_iter()
        .map(|step| step.reason)
        .collect();
    found.extend(observed.foreign.iter().map(|foreign| Drift {
        kind: DriftKind::Foreign,
        object: format!("{} {}", foreign.noun, foreign.name),
    }));
    found.into_iter().collect()
}

/// Hops of each LAN from the DMZ.
pub fn depths(topology: &HydratedTopology) -> BTreeMap<LanId, u32> {
    let mut depths: BTreeMap<LanId, u32> = topology
        .lans
        .iter()
        .filter(|lan| lan.kind == LanKind::Dmz)
        .map(|lan| (lan.id, 0))
        .collect();
    let mut depth = 0;
    loop {
        let next: BTreeSet<LanId> = topology
            .deckies
            .iter()
            .filter(|decky| {
                decky
                    .interfaces
                    .iter()
                    .any(|interface| depths.get(&interface.lan) == Some(&depth))
            })
            .flat_map(|decky| decky.interfaces.iter().map(|interface| interface.lan))
            .filter(|lan| !depths.contains_key(lan))
            .collect();
        if next.is_empty() {
            return depths;
        }
        depth += 1;
        depths.extend(next.into_iter().map(|lan| (lan, depth)));
    }
}

struct Planner<'a> {
    observed: &'a Inventory,
    remove_deckies: Vec<(u32, Step)>,
    disconnect: Vec<Step>,
    remove_lans: Vec<(u32, Step)>,
    create_lans: Vec<Step>,
    deckies: Vec<Step>,
}

impl<'a> Planner<'a> {
    fn new(observed: &'a Inventory) -> Self {
        Self {
            observed,
            remove_deckies: Vec::new(),
            disconnect: Vec::new(),
            remove_lans: Vec::new(),
            create_lans: Vec::new(),
            deckies: Vec::new(),
        }
    }

    fn remove_lan(&mut self, lan: &ObservedLan, kind: DriftKind, name: &str) {
        self.remove_lans.push((
            lan.depth,
            Step {
                action: Action::RemoveLan {
                    handle: lan.handle.clone(),
                    lan: lan.id,
                },
                reason: Drift {
                    kind,
                    object: format!("lan {name}"),
                },
            },
        ));
    }

    fn remove_decky(&mut self, decky: &ObservedDecky, kind: DriftKind, name: &str) {
        self.remove_deckies.push((
            self.observed.depth_of(decky),
            Step {
                action: Action::RemoveDecky {
                    handle: decky.handle.clone(),
                    decky: decky.id,
                },
                reason: Drift {
                    kind,
                    object: format!("decky {name}"),
                },
            },
        ));
    }

    fn create_decky(&mut self, wanted: &HydratedDecky, kind: DriftKind) {
        self.deckies.push(Step {
            action: Action::CreateDecky { decky: wanted.id },
            reason: Drift {
                kind,
                object: format!("decky {}", wanted.name),
            },
        });
    }

    fn keep_or_replace(
        &mut self,
        wanted: &HydratedDecky,
        decky: &ObservedDecky,
        kept_lans: &BTreeMap<LanId, &ObservedLan>,
        desired: Desired<'_>,
    ) {
        let unfit = if decky.spec != Some(wanted.spec()) {
            Some(DriftKind::Changed)
        } else if decky.state == RunState::Paused {
            Some(DriftKind::Stopped)
        } else if !publishes(wanted, decky.published.as_deref()) {
            Some(DriftKind::Unpublished)
        } else {
            None
        };
        if let Some(kind) = unfit {
            self.remove_decky(decky, kind, wanted.name.as_str());
            self.create_decky(wanted, kind);
            return;
        }
        let config = desired.configs.get(&wanted.id).map(String::as_str);
        let running = decky.state == RunState::Running;
        let on_right_network = |interface: &HydratedInterface| {
            decky.attachments.iter().any(|attachment| {
                kept_lans.get(&interface.lan).is_some_and(|lan| lan.handle == attachment.network)
                    // A stopped container may not tell its address; it was made with the right one.
                    && (attachment.address == Some(interface.address)
                        || (!running && attachment.address.is_none()))
            })
        };
        let missing: Vec<_> = wanted
            .interfaces
            .iter()
            .filter(|interface| !on_right_network(interface))
            .collect();
        let surplus: Vec<_> = decky
            .attachments
            .iter()
            .filter(|attachment| {
                !wanted.interfaces.iter().any(|interface| {
                    kept_lans
                        .get(&interface.lan)
                        .is_some_and(|lan| lan.handle == attachment.network)
                        && (attachment.address.is_none()
                            || attachment.address == Some(interface.address))
                })
            })
            .collect();
        let object = format!("decky {}", wanted.name);
        let misplaced = !missing.is_empty() || !surplus.is_empty();
        if !running && misplaced {
            // A stopped container that still names a network that is gone cannot be started.
            self.remove_decky(decky, DriftKind::Detached, wanted.name.as_str());
            self.create_decky(wanted, DriftKind::Detached);
            return;
        }
        for attachment in surplus {
            self.disconnect.push(Step {
                action: Action::Disconnect {
                    handle: decky.handle.clone(),
                    decky: wanted.id,
                    network: attachment.network.clone(),
                },
                reason: Drift {
                    kind: DriftKind::Attached,
                    object: object.clone(),
                },
            });
        }
        for interface in missing {
            self.deckies.push(Step {
                action: Action::Connect {
                    handle: decky.handle.clone(),
                    decky: wanted.id,
                    interface: *interface,
                },
                reason: Drift {
                    kind: DriftKind::Detached,
                    object: object.clone(),
                },
            });
        }
        // An interface that comes or goes takes the engine's own routes with it.
        let rewired = match (&decky.wiring, desired.wirings.get(&wanted.id)) {
            _ if running && misplaced => Some(DriftKind::Detached),
            (Some(seen), Some((wiring, rules))) if running => wiring.difference(seen, rules),
            _ => None,
        };
        if let Some(kind) = rewired {
            self.deckies.push(Step {
                action: Action::Rewire {
                    handle: decky.handle.clone(),
                    decky: wanted.id,
                },
                reason: Drift {
                    kind,
                    object: object.clone(),
                },
            });
        }
        if !running {
            self.deckies.push(Step {
                action: Action::StartDecky {
                    handle: decky.handle.clone(),
                    decky: wanted.id,
                },
                reason: Drift {
                    kind: DriftKind::Stopped,
                    object,
                },
            });
        } else if decky.config.is_some() && decky.config.as_deref() != config {
            self.deckies.push(Step {
                action: Action::Configure {
                    handle: decky.handle.clone(),
                    decky: wanted.id,
                },
                reason: Drift {
                    kind: DriftKind::Reconfigured,
                    object,
                },
            });
        }
    }

    fn steps(mut self) -> Vec<Step> {
        // Stable sorts: equals stay in the order in which they were found.
        self.remove_deckies
            .sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        self.remove_lans
            .sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
        let mut steps: Vec<Step> = Vec::new();
        steps.extend(self.remove_deckies.into_iter().map(|(_, step)| step));
        steps.extend(self.disconnect);
        steps.extend(self.remove_lans.into_iter().map(|(_, step)| step));
        steps.extend(self.create_lans);
        steps.extend(self.deckies);
        steps
    }
}

/// Whether the host answers for the ports that it should; what is not known is not wrong.
fn publishes(wanted: &HydratedDecky, seen: Option<&[Publish]>) -> bool {
    let Some(seen) = seen else { return true };
    let mut wanted: Vec<_> = wanted
        .publish
        .iter()
        .map(|publish| Publish {
            host_ip: publish.host_ip.filter(|ip| !ip.is_unspecified()),
            ..*publish
        })
        .collect();
    wanted.sort();
    wanted == seen
}

#[cfg(test)]
mod tests;

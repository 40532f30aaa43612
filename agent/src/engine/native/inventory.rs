//! Everything of a host as it is: records, and beside each what the kernel shows of it.
//!
//! No program is started for an object: processes, groups, links, namespaces and the rules of the
//! host are read. What is amiss with those rules is mended at once, because no object is at fault.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::sync::Arc;
use std::thread;

use domain::id::TopologyId;
use domain::observe::{
    Attachment, Foreign, Handle, Inventory, ObservedDecky, ObservedLan, RunState,
};
use domain::topology::LanDriver;
use domain::wiring::ObservedWiring;

use super::fabric::port;
use super::probe::PROBE;
use super::publish::{Door, Rules, Uplinks, mark};
use super::record::{DeckyRecord, InterfaceRecord, LanRecord, is_of, read};
use super::rtnl::{Link, Rtnl};
use super::wreck::Wrecks;
use super::{Shared, disk, refused};
use crate::chain::Chain;
use crate::engine::{EngineError, label, name};
use crate::netns::{Namespace, observe};
use crate::task;

/// How many threads look at namespaces.
const LOOKERS: usize = 4;

/// What the kernel shows of networks.
struct Cables {
    lans: BTreeMap<String, LanRecord>,
    /// None of a topology that has no fabric.
    fabrics: BTreeMap<TopologyId, Option<Vec<Link>>>,
    host: Vec<Link>,
}

/// What a look shows.
struct Looked {
    inventory: Inventory,
    seen: Vec<Seen>,
    /// The doors that there should be.
    doors: Vec<Door>,
    uplinks: Uplinks,
    wrecks: Wrecks,
}

/// A decky that is looked at.
struct Seen {
    decky: ObservedDecky,
    record: DeckyRecord,
    pid: Option<u32>,
}

impl Shared {
    pub(super) async fn take_inventory(self: &Arc<Self>) -> Result<Inventory, EngineError> {
        let this = Arc::clone(self);
        let Looked {
            mut inventory,
            seen,
            doors,
            uplinks,
            wrecks,
        } = task::blocking(move || this.look()).await?;
        self.clear_wrecks(wrecks).await;
        // Without the binary nothing can be said of its age, and the deckies run on untouched.
        let tag = self.binary.tag().await.ok();
        let untold = self.files.untold().await;
        self.keep_guard().await;
        let standing = if uplinks == Uplinks::Some || !doors.is_empty() {
            self.standing_doors().await?
        } else {
            Rules::new()
        };
        for Seen {
            mut decky,
            record,
            pid,
        } in seen
        {
            decky.outdated = tag.as_ref().is_some_and(|tag| *tag != record.root);
            if pid.is_some() {
                decky.config = self
                    .board
                    .digest(decky.id)
                    .or_else(|| untold.get(&decky.id).cloned());
                let mut published = record.publish();
                published.retain(|publish| {
                    let (mark, rules) = mark(decky.handle.as_str(), publish);
                    standing.get(&mark) == Some(&rules)
                });
                published.sort();
                decky.published = Some(published);
            }
            inventory.deckies.push(decky);
        }
        // Equal states must give equal inventories.
        inventory
            .lans
            .sort_by(|a, b| (a.id, &a.handle).cmp(&(b.id, &b.handle)));
        inventory
            .deckies
            .sort_by(|a, b| (a.id, &a.handle).cmp(&(b.id, &b.handle)));
        inventory.foreign.sort();
        if uplinks == Uplinks::Some {
            // What was missing is told nevertheless: it was not answered meanwhile.
            self.mend_doors(&doors, &standing).await;
        }
        Ok(inventory)
    }

    fn look(&self) -> Result<Looked, EngineError> {
        let on_disk = disk("could not read what this host has made");
        let unread = |source| refused("could not read the links of this host", source);
        let mut inventory = Inventory::default();
        let mut cables = Cables {
            lans: BTreeMap::new(),
            fabrics: BTreeMap::new(),
            host: Rtnl::here().and_then(|host| host.links()).map_err(unread)?,
        };
        let mut wrecks = Wrecks::default();
        for (handle, record) in self.lans.all::<LanRecord>().map_err(&on_disk)? {
            if record.is_none() && self.is_wrecked_lan(&handle) {
                wrecks.lans.push(handle);
                continue;
            }
            let ours = record
                .as_ref()
                .is_some_and(|record| is_of(&record.labels, self.host) && record.lan().is_some());
            let topology = record.as_ref().and_then(LanRecord::topology);
            let (true, Some(record), Some(topology)) = (ours, record, topology) else {
                inventory.foreign.push(foreign("network", handle));
                continue;
            };
            if let Entry::Vacant(place) = cables.fabrics.entry(topology) {
                let fabric = self.fabrics.of(topology).map_err(unread)?;
                let links = fabric.map(|fabric| fabric.rtnl.links()).transpose();
                place.insert(links.map_err(unread)?);
            }
            inventory
                .lans
                .extend(self.observed_lan(&handle, &record, topology, &cables));
            cables.lans.insert(handle, record);
        }
        let mut seen = Vec::new();
        let deckies = self.deckies.all::<DeckyRecord>().map_err(&on_disk)?;
        for (handle, record) in &deckies {
            if record.is_none() && self.is_wrecked_decky(handle) {
                wrecks.deckies.push(handle.clone());
                continue;
            }
            let observed = record
                .as_ref()
                .filter(|record| is_of(&record.labels, self.host))
                .and_then(|record| self.observed_decky(handle, record, &cables));
            match observed {
                Some(observed) => seen.push(observed),
                None => inventory.foreign.push(foreign("container", handle.clone())),
            }
        }
        for container in self.containers() {
            if !deckies.contains_key(&container) {
                inventory.foreign.push(foreign("container", container));
            }
        }
        for network in self.foreign_networks().map_err(&on_disk)? {
            if !cables.lans.contains_key(&network) {
                inventory.foreign.push(foreign("network", network));
            }
        }
        self.look_inside(&mut seen);
        for seen in &mut seen {
            attach_shared(seen, &cables);
        }
        let running = seen.iter().filter(|seen| seen.pid.is_some());
        let doors = running.flat_map(|Seen { decky, record, .. }| {
            Door::all_of(decky.handle.as_str(), record, &cables.lans)
        });
        Ok(Looked {
            doors: doors.collect(),
            uplinks: self.uplinks(&cables.host),
            wrecks,
            inventory,
            seen,
        })
    }

    fn observed_lan(
        &self,
        handle: &str,
        record: &LanRecord,
        topology: TopologyId,
        cables: &Cables,
    ) -> Option<ObservedLan> {
        let fabric = cables.fabrics.get(&topology)?;
        let stands = self.stands(record, fabric.as_deref(), &cables.host);
        Some(ObservedLan {
            handle: Handle::new(handle),
            id: record.lan()?,
            topology,
            // One that is half made, or lost its bridge, is made anew.
            spec: stands.then(|| read(&record.labels, label::SPEC)).flatten(),
            depth: read(&record.labels, label::DEPTH).unwrap_or(u32::MAX),
        })
    }

    fn observed_decky(&self, handle: &str, record: &DeckyRecord, cables: &Cables) -> Option<Seen> {
        let id = record.decky()?;
        let pid = self.pid_of(handle);
        let state = match pid {
            Some(_) if self.groups.is_frozen(handle) => RunState::Paused,
            Some(_) => RunState::Running,
            None if self.outputs.exists(handle) => RunState::Exited,
            None => RunState::Created,
        };
        // One that does not run is given its file when it is started.
        let whole = pid.is_none()
            || self
                .files
                .directory(id)
                .join(proto::decky_config::FILE_NAME)
                .exists();
        let mut attachments: Vec<Attachment> = record
            .interfaces
            .iter()
            .filter(|interface| pid.is_none() || is_plugged(handle, interface, cables))
            .map(attachment)
            .collect();
        attachments.sort();
        Some(Seen {
            decky: ObservedDecky {
                handle: Handle::new(handle),
                id,
                topology: record.topology()?,
                spec: whole.then(|| read(&record.labels, label::SPEC)).flatten(),
                state,
                attachments,
                config: None,
                wiring: None,
                published: None,
                outdated: false,
            },
            record: record.clone(),
            pid,
        })
    }

    /// Looks into the namespaces of those that run.
    fn look_inside(&self, seen: &mut [Seen]) {
        let share = seen.len().div_ceil(LOOKERS).max(1);
        thread::scope(|scope| {
            for part in seen.chunks_mut(share) {
                scope.spawn(move || {
                    for seen in part {
                        if let Some(pid) = seen.pid {
                            seen.decky.wiring = self.wiring_of(&seen.decky.handle, pid);
                        }
                    }
                });
            }
        });
    }

    /// None of one that has ended meanwhile.
    fn wiring_of(&self, handle: &Handle, pid: u32) -> Option<ObservedWiring> {
        let namespace = Namespace::of_process(pid).ok()?;
        let seal = self.seal_of(handle.as_str());
        match observe(&namespace, seal.as_ref()) {
            Ok(wiring) => Some(wiring),
            Err(error) => {
                tracing::warn!(object = %handle, error = %Chain(&error), "a decky's network cannot be read");
                // As if nothing in it were right.
                Some(ObservedWiring::default())
            }
        }
    }

    /// Every container that the runtime knows here, ours or not.
    fn containers(&self) -> Vec<String> {
        fs::read_dir(self.places.runtime())
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name != PROBE)
            .collect()
    }
}

fn foreign(noun: &'static str, name: String) -> Foreign {
    Foreign { noun, name }
}

fn attachment(interface: &InterfaceRecord) -> Attachment {
    Attachment {
        network: Handle::new(interface.network.as_str()),
        address: Some(interface.address),
    }
}

/// Whether the decky's end in the fabric is there, on the bridge where it belongs. What shares a
/// link of the host has no such end: it is looked for inside.
fn is_plugged(handle: &str, interface: &InterfaceRecord, cables: &Cables) -> bool {
    let Some(lan) = cables.lans.get(&interface.network) else {
        return false;
    };
    if lan.driver() != Some(LanDriver::Bridge) {
        return false;
    }
    let links = lan
        .topology()
        .and_then(|id| cables.fabrics.get(&id)?.as_ref());
    let (Some(links), Some(id)) = (links, lan.lan()) else {
        return false;
    };
    let (port, bridge) = (port(handle, &interface.network), name::bridge(id));
    let bridge = links.iter().find(|link| link.name == bridge);
    links.iter().any(|link| {
        link.name == port && bridge.is_some_and(|bridge| link.controller == Some(bridge.index))
    })
}

/// Adds the memberships that only the namespace shows.
fn attach_shared(seen: &mut Seen, cables: &Cables) {
    let Some(wiring) = &seen.decky.wiring else {
        return;
    };
    for interface in &seen.record.interfaces {
        let Some(lan) = cables.lans.get(&interface.network) else {
            continue;
        };
        let shown = match lan.driver() {
            None | Some(LanDriver::Bridge) => false,
            Some(LanDriver::Macvlan(_)) => wiring
                .interfaces
                .iter()
                .any(|(mac, _)| interface.mac() == Some(*mac)),
            Some(LanDriver::Ipvlan(_)) => wiring.interfaces.iter().any(|(_, addresses)| {
                addresses
                    .iter()
                    .any(|address| address.addr() == interface.address)
            }),
        };
        if shown {
            seen.decky.attachments.push(attachment(interface));
        }
    }
    seen.decky.attachments.sort();
}

//! Networks: a bridge in the fabric of the topology, or the real network behind an interface.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use domain::id::TopologyId;
use domain::observe::Handle;
use domain::topology::LanDriver;
use domain::topology::hydrate::HydratedLan;
use ipnet::{IpNet, Ipv4Net};

use super::claim::SubnetClaim;
use super::fabric::{Fabric, port, uplink, uplink_port};
use super::publish::Uplinks;
use super::record::{DeckyRecord, Labels, LanRecord, is_of};
use super::rtnl::{Link, Peer, Rtnl};
use super::{Shared, disk, refused};
use crate::engine::{
    EngineError, EngineErrorKind, Origin, label, name, parent, route_user, subnet,
};
use crate::netns::Namespace;
use crate::task;

impl Shared {
    pub(super) async fn make_lan(
        self: &Arc<Self>,
        origin: Origin,
        lan: &HydratedLan,
        depth: u32,
    ) -> Result<Handle, EngineError> {
        let labels = Labels::from([
            (label::HOST.to_owned(), self.host.to_string()),
            (label::TOPOLOGY.to_owned(), origin.topology.to_string()),
            (label::LAN.to_owned(), lan.id.to_string()),
            (label::GENERATION.to_owned(), origin.generation.to_string()),
            (label::SPEC.to_owned(), lan.spec().to_string()),
            (label::DEPTH.to_owned(), depth.to_string()),
        ]);
        let record = LanRecord::new(labels, lan);
        let (this, lan) = (Arc::clone(self), lan.clone());
        let handle = task::blocking(move || {
            this.places
                .prepare()
                .map_err(disk("could not make the directories of the engine"))?;
            if let Some(parent) = lan.driver.parent() {
                parent::possible(lan.driver.as_str(), parent.as_str()).map_err(|source| {
                    EngineError {
                        kind: EngineErrorKind::Refused,
                        attempt: attempt(&lan),
                        source: Some(Box::new(source)),
                    }
                })?;
            }
            let handle = this.claim_subnet(&lan, depth, &record)?;
            this.build(origin.topology, &lan, &record)?;
            Ok::<_, EngineError>(handle)
        })
        .await?;
        if self.doors_due.swap(false, Ordering::Relaxed) {
            // The host's side is closed before anything is on the other one.
            self.renew_doors().await?;
        }
        self.touched();
        Ok(Handle::new(handle))
    }

    /// Takes the subnet and writes the record, under a name that nobody has.
    fn claim_subnet(
        &self,
        lan: &HydratedLan,
        depth: u32,
        record: &LanRecord,
    ) -> Result<String, EngineError> {
        let attempt = attempt(lan);
        let on_disk = disk(&attempt);
        let _locked = self.subnets.lock().map_err(&on_disk)?;
        let claims = self.subnets.all::<SubnetClaim>().map_err(&on_disk)?;
        let is_ours = |name: &str, claim: &Option<SubnetClaim>| {
            claim
                .as_ref()
                .is_some_and(|claim| claim.host == self.host.to_string())
                && self
                    .lans
                    .read::<LanRecord>(name)
                    .ok()
                    .flatten()
                    .is_none_or(|found| found.lan() == Some(lan.id))
        };
        let clash = claims.iter().find(|(name, claim)| {
            !is_ours(name, claim)
                && claim.as_ref().is_some_and(|claim| {
                    claim.stands()
                        && claim
                            .range()
                            .is_some_and(|theirs| overlap(theirs, lan.subnet))
                })
        });
        if let Some((user, _)) = clash {
            return Err(EngineError {
                kind: EngineErrorKind::SubnetInUse,
                attempt,
                source: Some(format!("network {user} has it").into()),
            });
        }
        let handle = (1..=name::ATTEMPTS)
            .map(|number| name::lan(self.host, depth, lan.id, number))
            .find(|name| {
                claims
                    .iter()
                    .find(|(taken, _)| taken == name)
                    .is_none_or(|(taken, claim)| is_ours(taken, claim))
            })
            .ok_or_else(|| EngineError {
                kind: EngineErrorKind::Refused,
                attempt: attempt.clone(),
                source: Some("every name for it is taken".into()),
            })?;
        let claim = SubnetClaim {
            host: self.host.to_string(),
            subnet: lan.subnet.to_string(),
            record: Some(self.lans.directory().join(format!("{handle}.json"))),
        };
        self.subnets.make(&handle, &claim).map_err(&on_disk)?;
        self.lans.write(&handle, record).map_err(&on_disk)?;
        Ok(handle)
    }

    fn build(
        &self,
        topology: TopologyId,
        lan: &HydratedLan,
        record: &LanRecord,
    ) -> Result<(), EngineError> {
        if lan.driver.parent().is_some() {
            // Its links are made with the deckies.
            return Ok(());
        }
        let attempt = attempt(lan);
        // One at a time: whoever starts a decky may be at the same.
        let _raising = self.raising.lock().unwrap_or_else(PoisonError::into_inner);
        let made = self.build_bridge(topology, record);
        made.map_err(|source| refused(&attempt, source))
    }

    /// Makes a topology's LANs again that a reboot has taken, unless the fabric is there: then
    /// somebody has taken one, and it is made anew. Their deckies need them to be started.
    pub(super) fn raise(&self, topology: TopologyId) -> io::Result<Arc<Fabric>> {
        let _raising = self.raising.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fabric) = self.fabrics.of(topology)? {
            return Ok(fabric);
        }
        for record in self.own_lans()?.into_values() {
            let bridged = record.driver() == Some(LanDriver::Bridge);
            if bridged && record.topology() == Some(topology) {
                self.build_bridge(topology, &record)?;
            }
        }
        self.fabrics.make(topology)
    }

    fn build_bridge(&self, topology: TopologyId, record: &LanRecord) -> io::Result<()> {
        let broken = || io::Error::other("the record of the network is broken");
        let lan = record.lan().ok_or_else(broken)?;
        let fabric = self.fabrics.make(topology)?;
        let bridge = name::bridge(lan);
        // What a predecessor has left is of another spec, or half of one.
        fabric.rtnl.remove(&bridge)?;
        fabric.rtnl.add_bridge(&bridge)?;
        if !record.dmz {
            return Ok(());
        }
        let (subnet, gateway) = record.subnet().zip(record.gateway()).ok_or_else(broken)?;
        let index = fabric.rtnl.index_of(&bridge)?;
        let uplink = uplink(self.host, lan);
        let host = Rtnl::here()?;
        host.remove(&uplink)?;
        let own = Namespace::own()?;
        let peer = Peer {
            namespace: &own,
            name: &uplink,
            mac: None,
        };
        fabric.rtnl.add_pair(&uplink_port(lan), index, &peer)?;
        configure_uplink(&uplink)?;
        let index = host
            .index_of(&uplink)?
            .ok_or_else(|| io::Error::other("the link to the LAN has vanished"))?;
        let address = Ipv4Net::new(gateway, subnet.prefix_len()).map_err(io::Error::other)?;
        host.add_address(index, IpNet::V4(address))?;
        self.doors_due.store(true, Ordering::Relaxed);
        host.set_up(index)
    }

    pub(super) async fn unmake_lan(self: &Arc<Self>, handle: &Handle) -> Result<(), EngineError> {
        let attempt = format!("could not remove network {handle}");
        let (this, name) = (Arc::clone(self), handle.as_str().to_owned());
        let told = attempt.clone();
        let record = task::blocking(move || this.dismantle(&name, &told)).await?;
        let Some(record) = record else {
            return Ok(());
        };
        if record.dmz {
            self.renew_doors().await?;
        }
        let (this, name) = (Arc::clone(self), handle.as_str().to_owned());
        task::blocking(move || {
            let on_disk = disk(&attempt);
            this.subnets.give_up(&name).map_err(&on_disk)?;
            // Last: whoever dies before finds it, and does all of this again.
            this.lans.remove(&name).map_err(&on_disk)?;
            this.clear_if_empty().map_err(&on_disk)
        })
        .await?;
        self.touched();
        Ok(())
    }

    /// Removes everything of a network but its record, which it gives.
    fn dismantle(&self, handle: &str, attempt: &str) -> Result<Option<LanRecord>, EngineError> {
        let on_disk = disk(attempt);
        let Some(record) = self.lans.read::<LanRecord>(handle).map_err(&on_disk)? else {
            return Ok(None);
        };
        let failed = |source| refused(attempt, source);
        let fabric = record.topology().map(|topology| self.fabrics.of(topology));
        let fabric = fabric.transpose().map_err(failed)?.flatten();
        let links = fabric
            .as_ref()
            .map(|fabric| fabric.rtnl.links())
            .transpose();
        let links = links.map_err(failed)?.unwrap_or_default();
        let deckies = self.deckies.all::<DeckyRecord>().map_err(&on_disk)?;
        let user = deckies.iter().find(|(decky, decky_record)| {
            decky_record
                .as_ref()
                .is_some_and(|decky_record| decky_record.is_on(handle))
                && self.pid_of(decky).is_some()
                && is_held(&record, &links, &port(decky, handle))
        });
        if let Some((user, _)) = user {
            return Err(EngineError {
                kind: EngineErrorKind::Refused,
                attempt: attempt.to_owned(),
                source: Some(format!("decky {user} is on it").into()),
            });
        }
        let (Some(lan), Some(topology)) = (record.lan(), record.topology()) else {
            return Ok(Some(record));
        };
        if record.dmz {
            let host = Rtnl::here().map_err(failed)?;
            host.remove(&uplink(self.host, lan)).map_err(failed)?;
        }
        if let Some(fabric) = fabric {
            fabric.rtnl.remove(&name::bridge(lan)).map_err(failed)?;
        }
        let others = self.lans.all::<LanRecord>().map_err(&on_disk)?;
        let last = others.iter().all(|(other, record)| {
            other == handle
                || record
                    .as_ref()
                    .is_some_and(|record| record.topology() != Some(topology))
        });
        if last {
            self.fabrics.remove(topology).map_err(failed)?;
        }
        Ok(Some(record))
    }

    /// Whether a network is there as its record says.
    ///
    /// One whose whole fabric is gone, by a reboot, comes again with the first decky that needs it.
    pub(super) fn stands(
        &self,
        record: &LanRecord,
        fabric: Option<&[Link]>,
        host: &[Link],
    ) -> bool {
        match (record.driver(), fabric) {
            (Some(LanDriver::Bridge), None) => true,
            (Some(LanDriver::Bridge), Some(fabric)) => record.lan().is_some_and(|lan| {
                let bridge = name::bridge(lan);
                let uplink = uplink(self.host, lan);
                fabric.iter().any(|link| link.name == bridge)
                    && (!record.dmz || host.iter().any(|link| link.name == uplink))
            }),
            (Some(driver), _) => driver
                .parent()
                .is_some_and(|parent| host.iter().any(|link| link.name == parent.as_str())),
            (None, _) => false,
        }
    }

    /// Whether any of these links of the host is one to a LAN.
    pub(super) fn uplinks(&self, links: &[Link]) -> Uplinks {
        let prefix = super::fabric::uplink_prefix(self.host);
        if links.iter().any(|link| link.name.starts_with(&prefix)) {
            Uplinks::Some
        } else {
            Uplinks::None
        }
    }

    pub(super) fn other_subnets(&self) -> io::Result<Vec<(String, Ipv4Net)>> {
        let mut subnets: Vec<(String, Ipv4Net)> = self
            .subnets
            .all::<SubnetClaim>()?
            .into_iter()
            .filter_map(|(name, claim)| {
                let claim = claim?;
                let foreign = claim.host != self.host.to_string() && claim.stands();
                foreign.then(|| Some((format!("network {name}"), claim.range()?)))?
            })
            .collect();
        let ours = super::fabric::uplink_prefix(self.host);
        for (device, subnet) in subnet::of_routes() {
            let known = subnets.iter().any(|(_, other)| *other == subnet);
            if !known && !device.starts_with(&ours) {
                subnets.push((route_user(device), subnet));
            }
        }
        Ok(subnets)
    }

    /// Networks under names of this host that are not this host's.
    pub(super) fn foreign_networks(&self) -> io::Result<Vec<String>> {
        let prefix = name::prefix(self.host);
        let claims = self.subnets.all::<SubnetClaim>()?;
        let strange = claims.into_iter().filter(|(name, claim)| {
            name.starts_with(&prefix)
                && claim
                    .as_ref()
                    .is_none_or(|claim| claim.host != self.host.to_string())
        });
        Ok(strange.map(|(name, _)| name).collect())
    }

    /// The networks of this host by their handles, whole records only.
    pub(super) fn own_lans(&self) -> io::Result<BTreeMap<String, LanRecord>> {
        let all = self.lans.all::<LanRecord>()?;
        Ok(all
            .into_iter()
            .filter_map(|(handle, record)| Some((handle, record?)))
            .filter(|(_, record)| is_of(&record.labels, self.host))
            .collect())
    }
}

/// Whether a decky that runs keeps a network from being removed: its end must be on the bridge. Of
/// what shares a link of the host no end is seen from outside.
fn is_held(record: &LanRecord, links: &[Link], port: &str) -> bool {
    if record.driver() != Some(LanDriver::Bridge) {
        return true;
    }
    let bridge = record.lan().map(name::bridge);
    let bridge = links
        .iter()
        .find(|link| Some(&link.name) == bridge.as_ref());
    links.iter().any(|link| {
        link.name == port && bridge.is_some_and(|bridge| link.controller == Some(bridge.index))
    })
}

fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
}

/// The host's end of a link to a LAN: it speaks IPv4, and takes packets for 127.0.0.1 that are the
/// host's own, on their way through a published port.
fn configure_uplink(link: &str) -> io::Result<()> {
    for (key, value) in [
        (format!("ipv6/conf/{link}/disable_ipv6"), "1"),
        (format!("ipv4/conf/{link}/route_localnet"), "1"),
    ] {
        let path = Path::new("/proc/sys/net").join(key);
        if path.exists() {
            fs::write(path, value)?;
        }
    }
    Ok(())
}

/// Where a decky answers from outside: its address on a LAN that the host has a link to.
pub(super) fn outer_address(
    decky: &DeckyRecord,
    lans: &BTreeMap<String, LanRecord>,
) -> Option<Ipv4Addr> {
    decky.interfaces.iter().find_map(|interface| {
        let lan = lans.get(&interface.network)?;
        (lan.dmz && lan.driver() == Some(LanDriver::Bridge)).then_some(interface.address)
    })
}

fn attempt(lan: &HydratedLan) -> String {
    format!("could not make a network with subnet {}", lan.subnet)
}

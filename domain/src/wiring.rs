//! Wiring: what the network namespace of one decky is to look like, and what an engine sees there.
//!
//! Addresses, hardware addresses, routes, kernel settings and the rules that keep a decky inside
//! its topology are all part of it. Everything here can be changed while the decky runs, and is:
//! a difference is drift, and mending it restarts nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::id::{DeckyId, LanId};
use crate::observe::DriftKind;
use crate::persona::Mac;
use crate::topology::LanDriver;
use crate::topology::hydrate::{HydratedDecky, HydratedLan, HydratedTopology, gateway6};

/// The kernel setting that is a decky's gate: it opens no port before this reads `0`. It belongs to
/// the namespace, so that one that is new, and has no rules yet, is closed by itself.
pub const GATE: &str = "net.ipv4.ip_unprivileged_port_start";

/// SHA-256 of the rules of one decky as they are loaded: equality.
pub type RulesDigest = [u8; 32];

/// The wiring of each desired decky, with the digest of the rules that an engine makes of it.
pub type Wirings = BTreeMap<DeckyId, (Wiring, RulesDigest)>;

/// What a decky's network namespace is to look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// Its interfaces, in the order of the hydrated decky.
    pub interfaces: Vec<WiredInterface>,
    /// Its routes, besides those that the kernel makes of its addresses.
    pub routes: BTreeSet<Route>,
    /// Its kernel settings, without the gate.
    pub sysctls: BTreeMap<String, String>,
    /// Where it may open connections to: the LANs that it is on and those that gateways join to them.
    pub inside: BTreeSet<IpNet>,
    /// The host's own addresses inside of these: never reachable.
    pub host: BTreeSet<IpAddr>,
    /// Whether it forwards what others send through it.
    pub forwards: bool,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WiredInterface {
    /// The LAN that it is on.
    pub lan: LanId,
    /// Its hardware address.
    pub mac: Mac,
    /// Whether the hardware address can be set: an ipvlan has that of its parent.
    pub own_mac: bool,
    /// Its addresses with their prefix lengths, IPv4 first.
    pub addresses: Vec<IpNet>,
}

/// One route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Where to; a prefix length of 0 is the default route.
    pub to: IpNet,
    /// The next hop, on a LAN of the decky.
    pub via: IpAddr,
}

/// What an engine sees in the namespace of a running decky.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedWiring {
    /// Interfaces besides the loopback one, each with its addresses besides link-local ones.
    pub interfaces: Vec<(Mac, Vec<IpNet>)>,
    /// Routes that the kernel did not make of the addresses.
    pub routes: BTreeSet<Route>,
    /// The kernel settings that were asked for; what cannot be read is left out.
    pub sysctls: BTreeMap<String, String>,
    /// The digest of the rules that stand there as they were loaded; none when there are none or
    /// somebody altered them.
    pub rules: Option<RulesDigest>,
    /// Whether the gate is open.
    pub open: bool,
}

/// The wiring of each decky of a topology.
pub fn all(topology: &HydratedTopology) -> BTreeMap<DeckyId, Wiring> {
    let reach = Reach::of(topology);
    topology
        .deckies
        .iter()
        .map(|decky| (decky.id, reach.wiring(decky)))
        .collect()
}

/// The wiring of one decky of a topology.
pub fn of(topology: &HydratedTopology, decky: &HydratedDecky) -> Wiring {
    Reach::of(topology).wiring(decky)
}

/// Which LANs gateways join.
struct Reach<'a> {
    lans: BTreeMap<LanId, &'a HydratedLan>,
    /// The group of LANs that each is joined with.
    group_of: BTreeMap<LanId, usize>,
    groups: Vec<Group>,
}

/// LANs that packets get between.
#[derive(Default)]
struct Group {
    inside: BTreeSet<IpNet>,
    host: BTreeSet<IpAddr>,
}

impl<'a> Reach<'a> {
    fn of(topology: &'a HydratedTopology) -> Self {
        let mut group_of: BTreeMap<LanId, usize> = topology
            .lans
            .iter()
            .enumerate()
            .map(|(number, lan)| (lan.id, number))
            .collect();
        for decky in topology.deckies.iter().filter(|decky| decky.forwards_l3) {
            let joined: BTreeSet<usize> = decky
                .interfaces
                .iter()
                .filter_map(|interface| group_of.get(&interface.lan).copied())
                .collect();
            if let Some(first) = joined.first() {
                for group in group_of.values_mut().filter(|group| joined.contains(group)) {
                    *group = *first;
                }
            }
        }
        let mut machines_of: BTreeMap<LanId, Vec<IpNet>> = BTreeMap::new();
        let interfaces = topology.deckies.iter().flat_map(|decky| &decky.interfaces);
        for interface in interfaces {
            let address6 = interface.address6.map(|address| net(address.into(), 128));
            machines_of.entry(interface.lan).or_default().extend(
                [Some(net(interface.address.into(), 32)), address6]
                    .into_iter()
                    .flatten(),
            );
        }
        let mut groups: Vec<Group> = topology.lans.iter().map(|_| Group::default()).collect();
        for lan in &topology.lans {
            let group = &mut groups[group_of[&lan.id]];
            group.host.extend(host_addresses(lan));
            if lan.driver.parent().is_none() {
                let subnet6 = lan.subnet6.map(IpNet::from);
                group
                    .inside
                    .extend([Some(lan.subnet.into()), subnet6].into_iter().flatten());
            } else {
                // A real network has machines that are not ours.
                group
                    .inside
                    .extend(machines_of.remove(&lan.id).unwrap_or_default());
            }
        }
        Self {
            lans: topology.lans.iter().map(|lan| (lan.id, lan)).collect(),
            group_of,
            groups,
        }
    }

    fn wiring(&self, decky: &HydratedDecky) -> Wiring {
        let mut wiring = Wiring {
            interfaces: Vec::with_capacity(decky.interfaces.len()),
            routes: decky.routes.iter().copied().collect(),
            sysctls: BTreeMap::clone(&decky.sysctls),
            inside: BTreeSet::new(),
            host: BTreeSet::new(),
            forwards: decky.forwards_l3,
        };
        let mut joined: BTreeSet<usize> = BTreeSet::new();
        for interface in &decky.interfaces {
            // The agent refuses a document with an interface on no LAN before it comes here.
            let Some(lan) = self.lans.get(&interface.lan) else {
                continue;
            };
            let mut addresses = vec![net(interface.address.into(), lan.subnet.prefix_len())];
            if let (Some(address), Some(subnet)) = (interface.address6, lan.subnet6) {
                addresses.push(net(address.into(), subnet.prefix_len()));
            }
            wiring.interfaces.push(WiredInterface {
                lan: lan.id,
                mac: interface.mac,
                own_mac: !matches!(lan.driver, LanDriver::Ipvlan(_)),
                addresses,
            });
            joined.extend(self.group_of.get(&lan.id).copied());
        }
        for group in joined.iter().map(|number| &self.groups[*number]) {
            wiring.inside.extend(&group.inside);
            wiring.host.extend(&group.host);
        }
        wiring
    }
}

/// The addresses of a LAN that are the host's own, or, on a real network, its router's.
fn host_addresses(lan: &HydratedLan) -> impl Iterator<Item = IpAddr> {
    let gateway6 = lan.subnet6.map(|subnet| IpAddr::from(gateway6(subnet)));
    std::iter::once(IpAddr::from(lan.gateway)).chain(gateway6)
}

/// An address with a prefix length that its family has.
fn net(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).expect("the length comes from a range of the same family")
}

impl Wiring {
    /// How what is seen differs, the gravest kind first; none when it does not. `rules` is the
    /// digest of the rules that this wiring is to have.
    pub fn difference(&self, seen: &ObservedWiring, rules: &RulesDigest) -> Option<DriftKind> {
        if seen.rules.as_ref() != Some(rules) {
            return Some(DriftKind::Unsealed);
        }
        let mut wanted: Vec<_> = self
            .interfaces
            .iter()
            .map(|interface| {
                let mut addresses = interface.addresses.clone();
                addresses.sort();
                (interface.own_mac.then_some(interface.mac), addresses)
            })
            .collect();
        for (mac, addresses) in &seen.interfaces {
            let mut addresses = addresses.clone();
            addresses.sort();
            let found = wanted.iter().position(|(own, wanted)| {
                *wanted == addresses && own.is_none_or(|own| own == *mac)
            });
            match found {
                Some(index) => drop(wanted.swap_remove(index)),
                None => return Some(DriftKind::Readdressed),
            }
        }
        if !wanted.is_empty() {
            return Some(DriftKind::Readdressed);
        }
        if self.routes != seen.routes {
            return Some(DriftKind::Rerouted);
        }
        // The gate is the last thing that is set: one that is closed has not been wired.
        if self.sysctls != seen.sysctls || !seen.open {
            return Some(DriftKind::Retuned);
        }
        None
    }
}

#[cfg(test)]
mod tests;

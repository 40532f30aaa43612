//! Routes: how each decky reaches the LANs that it is not on, through those that forward.
//!
//! Every choice is by fewest hops and then by the lowest id, so that equal topologies route
//! equally.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{HydratedDecky, HydratedInterface, HydratedLan, gateway6};
use crate::id::{DeckyId, LanId};
use crate::topology::LanKind;
use crate::wiring::Route;

/// Gives each decky its routes. A gateway's are by its own LANs, anybody else's by the gateways
/// on theirs.
pub(super) fn fill(lans: &[HydratedLan], deckies: &mut [HydratedDecky]) {
    let forwarders: Vec<(DeckyId, Vec<HydratedInterface>)> = deckies
        .iter()
        .filter(|decky| decky.forwards_l3 && decky.interfaces.len() > 1)
        .map(|decky| (decky.id, decky.interfaces.clone()))
        .collect();
    // One search a LAN: which gateways of it come nearer to the LAN that is sought.
    let distances: BTreeMap<LanId, BTreeMap<LanId, u32>> = lans
        .iter()
        .map(|lan| (lan.id, distances(lan.id, &forwarders)))
        .collect();
    let dmz = lans.iter().find(|lan| lan.kind == LanKind::Dmz);
    for decky in deckies {
        let mut routes = Vec::new();
        for lan in lans {
            if decky.interfaces.iter().any(|it| it.lan == lan.id) {
                continue;
            }
            let Some(hop) = next_hop(decky, &distances[&lan.id], &forwarders) else {
                continue;
            };
            routes.extend(by(hop, lan.subnet.into(), lan.subnet6.map(IpNet::from)));
        }
        if let Some(dmz) = dmz {
            if decky.interfaces.iter().any(|it| it.lan == dmz.id) {
                let via6 = dmz.subnet6.map(gateway6);
                routes.extend(default_routes(dmz.gateway, via6));
            } else if let Some(hop) = next_hop(decky, &distances[&dmz.id], &forwarders) {
                let via6 = dmz.subnet6.and(hop.address6);
                routes.extend(default_routes(hop.address, via6));
            }
        }
        routes.sort();
        decky.routes = routes;
    }
}

/// Hops from each LAN to `to`, over gateways; LANs without a way are left out.
fn distances(to: LanId, forwarders: &[(DeckyId, Vec<HydratedInterface>)]) -> BTreeMap<LanId, u32> {
    let mut distances = BTreeMap::from([(to, 0)]);
    let mut edge = BTreeSet::from([to]);
    for hops in 1.. {
        edge = forwarders
            .iter()
            .filter(|(_, interfaces)| interfaces.iter().any(|it| edge.contains(&it.lan)))
            .flat_map(|(_, interfaces)| interfaces.iter().map(|it| it.lan))
            .filter(|lan| !distances.contains_key(lan))
            .collect();
        if edge.is_empty() {
            break;
        }
        distances.extend(edge.iter().map(|lan| (*lan, hops)));
    }
    distances
}

/// The interface of the gateway that `decky` sends through: on a LAN of the decky, with the
/// fewest hops left behind it.
fn next_hop<'a>(
    decky: &HydratedDecky,
    distances: &BTreeMap<LanId, u32>,
    forwarders: &'a [(DeckyId, Vec<HydratedInterface>)],
) -> Option<&'a HydratedInterface> {
    let mut best: Option<(u32, &HydratedInterface)> = None;
    for own in &decky.interfaces {
        for (forwarder, interfaces) in forwarders {
            let Some(near) = interfaces.iter().find(|it| it.lan == own.lan) else {
                continue;
            };
            if *forwarder == decky.id {
                continue;
            }
            let left = interfaces
                .iter()
                .filter(|it| it.lan != own.lan)
                .filter_map(|it| distances.get(&it.lan))
                .min();
            // Forwarders and interfaces come in a fixed order: the first of equals stays.
            if let Some(left) = left
                && best.is_none_or(|(least, _)| *left < least)
            {
                best = Some((*left, near));
            }
        }
    }
    best.map(|(_, near)| near)
}

fn by(hop: &HydratedInterface, to: IpNet, to6: Option<IpNet>) -> impl Iterator<Item = Route> {
    let via = IpAddr::from(hop.address);
    let route6 = to6.zip(hop.address6).map(|(to, via)| Route {
        to,
        via: via.into(),
    });
    std::iter::once(Route { to, via }).chain(route6)
}

fn default_routes(via: Ipv4Addr, via6: Option<Ipv6Addr>) -> impl Iterator<Item = Route> {
    let route6 = via6.map(|via| Route {
        to: Ipv6Net::default().into(),
        via: via.into(),
    });
    std::iter::once(Route {
        to: Ipv4Net::default().into(),
        via: via.into(),
    })
    .chain(route6)
}

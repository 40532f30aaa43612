//! Routes: how each decky reaches the LANs that it is not on, through those that forward.
//!
//! A decky sends everything by its default route but what has another next hop, as a machine on such
//! a network does. Every choice is by fewest hops and then by the lowest id, so that equal topologies
//! route equally.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{HydratedDecky, HydratedInterface, HydratedLan, gateway6};
use crate::id::{DeckyId, LanId};
use crate::topology::LanKind;
use crate::wiring::Route;

/// No way leads there.
const NOWHERE: u32 = u32::MAX;

/// Where something is sent to get to a LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Hop {
    address: Ipv4Addr,
    address6: Option<Ipv6Addr>,
}

/// Gives each decky its routes. A gateway's are by other gateways of its LANs, anybody else's by the
/// gateways on theirs.
pub(super) fn fill(lans: &[HydratedLan], deckies: &mut [HydratedDecky]) {
    let map = Map::of(lans, deckies);
    // Deckies that are nowhere but on one LAN, and forward nothing, route alike.
    let mut alike: BTreeMap<LanId, Vec<Route>> = BTreeMap::new();
    for decky in deckies {
        decky.routes = match &decky.interfaces[..] {
            [only] => alike
                .entry(only.lan)
                .or_insert_with(|| map.routes(decky))
                .clone(),
            _ => map.routes(decky),
        };
    }
}

/// The gateways between the LANs.
struct Map<'a> {
    lans: &'a [HydratedLan],
    /// The place of each LAN in all lists.
    places: BTreeMap<LanId, usize>,
    gateways: Vec<Gateway>,
    /// The gateways of each LAN.
    on: Vec<Vec<usize>>,
    /// Hops between each two LANs: gateways carry both ways.
    distances: Vec<Vec<u32>>,
    dmz: Option<usize>,
}

struct Gateway {
    id: DeckyId,
    /// The place of the LAN of each of its interfaces.
    interfaces: Vec<(usize, HydratedInterface)>,
}

impl<'a> Map<'a> {
    fn of(lans: &'a [HydratedLan], deckies: &[HydratedDecky]) -> Self {
        let places: BTreeMap<_, _> = lans
            .iter()
            .enumerate()
            .map(|(place, lan)| (lan.id, place))
            .collect();
        let gateways: Vec<_> = deckies
            .iter()
            .filter(|decky| decky.forwards_l3 && decky.interfaces.len() > 1)
            .map(|decky| Gateway {
                id: decky.id,
                interfaces: located(&places, decky).collect(),
            })
            .collect();
        let mut on = vec![Vec::new(); lans.len()];
        for (number, gateway) in gateways.iter().enumerate() {
            for (place, _) in &gateway.interfaces {
                on[*place].push(number);
            }
        }
        let mut this = Self {
            lans,
            places,
            gateways,
            on,
            distances: Vec::new(),
            dmz: lans.iter().position(|lan| lan.kind == LanKind::Dmz),
        };
        this.distances = (0..lans.len()).map(|to| this.distances_to(to)).collect();
        this
    }

    /// Hops from each LAN to the one at `to`, over gateways.
    fn distances_to(&self, to: usize) -> Vec<u32> {
        let mut distances = vec![NOWHERE; self.lans.len()];
        distances[to] = 0;
        let mut reached = Vec::with_capacity(self.lans.len());
        reached.push(to);
        let mut next = 0;
        while let Some(place) = reached.get(next).copied() {
            next += 1;
            for gateway in &self.on[place] {
                for (beyond, _) in &self.gateways[*gateway].interfaces {
                    if distances[*beyond] == NOWHERE {
                        distances[*beyond] = distances[place] + 1;
                        reached.push(*beyond);
                    }
                }
            }
        }
        distances
    }

    fn routes(&self, decky: &HydratedDecky) -> Vec<Route> {
        let own: Vec<_> = located(&self.places, decky).collect();
        let is_on = |place: usize| own.iter().any(|(own, _)| *own == place);
        let hops = self.next_hops(decky.id, &own);
        let mut routes = Vec::new();
        let mut by_default = None;
        if let Some(place) = self.dmz {
            let dmz = &self.lans[place];
            if is_on(place) {
                let outside = Hop {
                    address: dmz.gateway,
                    address6: dmz.subnet6.map(gateway6),
                };
                routes.extend(default_routes(outside));
            } else if let Some(hop) = hops[place] {
                routes.extend(default_routes(hop));
                by_default = Some(hop);
            }
        }
        let mut others: BTreeMap<Hop, Vec<&HydratedLan>> = BTreeMap::new();
        for (place, (lan, hop)) in self.lans.iter().zip(hops).enumerate() {
            if let Some(hop) = hop.filter(|hop| Some(*hop) != by_default)
                && !is_on(place)
            {
                others.entry(hop).or_default().push(lan);
            }
        }
        for (hop, lans) in others {
            routes.extend(routes_to(hop, &lans));
        }
        routes.sort();
        routes
    }

    /// For each LAN the gateway, on a LAN of the decky, that leaves the fewest hops behind it.
    fn next_hops(&self, decky: DeckyId, own: &[(usize, HydratedInterface)]) -> Vec<Option<Hop>> {
        let mut best = vec![(NOWHERE, None); self.lans.len()];
        for (place, _) in own {
            for gateway in self.on[*place].iter().map(|number| &self.gateways[*number]) {
                if gateway.id == decky {
                    continue;
                }
                let near = gateway.interfaces.iter().rfind(|(at, _)| at == place);
                let hop = near.map(|(_, interface)| Hop {
                    address: interface.address,
                    address6: interface.address6,
                });
                for (beyond, _) in gateway.interfaces.iter().filter(|(at, _)| at != place) {
                    // Gateways and interfaces come in a fixed order: the first of equals stays.
                    for (best, left) in best.iter_mut().zip(&self.distances[*beyond]) {
                        if *left < best.0 {
                            *best = (*left, hop);
                        }
                    }
                }
            }
        }
        best.into_iter().map(|(_, hop)| hop).collect()
    }
}

fn located<'a>(
    places: &'a BTreeMap<LanId, usize>,
    decky: &'a HydratedDecky,
) -> impl Iterator<Item = (usize, HydratedInterface)> + 'a {
    decky
        .interfaces
        .iter()
        .filter_map(|interface| Some((*places.get(&interface.lan)?, *interface)))
}

/// The fewest routes to exactly these LANs.
fn routes_to(hop: Hop, lans: &[&HydratedLan]) -> impl Iterator<Item = Route> {
    let nets: Vec<_> = lans.iter().map(|lan| lan.subnet).collect();
    let nets6: Vec<_> = lans.iter().filter_map(|lan| lan.subnet6).collect();
    let route = |to: IpNet, via: IpAddr| Route { to, via };
    let routes = Ipv4Net::aggregate(&nets)
        .into_iter()
        .map(move |net| route(net.into(), hop.address.into()));
    let routes6 = hop.address6.into_iter().flat_map(move |via| {
        Ipv6Net::aggregate(&nets6)
            .into_iter()
            .map(move |net| route(net.into(), via.into()))
    });
    routes.chain(routes6)
}

fn default_routes(hop: Hop) -> impl Iterator<Item = Route> {
    let route6 = hop.address6.map(|via| Route {
        to: Ipv6Net::default().into(),
        via: via.into(),
    });
    std::iter::once(Route {
        to: Ipv4Net::default().into(),
        via: hop.address.into(),
    })
    .chain(route6)
}

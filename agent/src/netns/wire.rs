//! Makes a namespace look as it should, and tells how it looks.

use std::collections::BTreeMap;
use std::io;

use domain::wiring::{GATE, ObservedWiring, Route, WiredInterface, Wiring};
use ipnet::IpNet;

use super::inside::{Address, Inside, Link};
use super::{Namespace, Refused, Seal, WireError, within};

/// What the gate reads when ports may be opened.
const OPEN: &str = "0";

/// Makes a decky's namespace look as it should. What is as it should be is left alone.
///
/// The rules come first, so that nothing else is ever done without them; the gate opens last.
pub fn wire(namespace: &Namespace, wiring: &Wiring) -> Result<Seal, WireError> {
    if namespace.inode() == Namespace::own()?.inode() {
        return Err(WireError::OwnNamespace);
    }
    within(namespace, |inside| {
        let mut seal = load(inside, namespace, wiring)?;
        let links = assigned(inside, wiring)?;
        // The greater one of this and an interface's own holds.
        set(inside, "net.ipv4.conf.all.rp_filter", "0")?;
        for (link, interface) in &links {
            dress(inside, link, interface)?;
        }
        for (key, value) in &wiring.sysctls {
            set(inside, key, value)?;
        }
        // After all of them: some settings alter others.
        for (key, value) in &wiring.sysctls {
            let kept = inside.sysctl(key).map_err(reading("kernel settings"))?;
            seal.note(key, value, kept);
        }
        route(inside, wiring)?;
        set(inside, GATE, OPEN)?;
        Ok(seal)
    })
}

/// How a namespace looks. `seal` is what [`wire`] gave for it, if that is known.
pub fn observe(namespace: &Namespace, seal: Option<&Seal>) -> Result<ObservedWiring, WireError> {
    let seal = seal.filter(|seal| seal.inode == namespace.inode());
    within(namespace, |inside| {
        let links = inside.links().map_err(reading("interfaces"))?;
        let addresses = inside.addresses().map_err(reading("addresses"))?;
        let interfaces = links
            .iter()
            .filter(|link| !link.loopback)
            .filter_map(|link| Some((link.mac?, nets_of(link, &addresses))))
            .collect();
        let routes = inside.routes().map_err(reading("routes"))?;
        let routes = routes
            .into_iter()
            .filter(|route| !route.of_address)
            .filter_map(|route| {
                Some(Route {
                    to: route.to,
                    via: route.via?,
                })
            })
            .collect();
        let settings = seal.into_iter().flat_map(|seal| &seal.sysctls);
        let sysctls: BTreeMap<_, _> = settings
            .filter_map(|(key, setting)| {
                let value = inside.sysctl(key).ok()?;
                let untouched = value == setting.kept;
                Some((
                    key.clone(),
                    if untouched {
                        setting.asked.clone()
                    } else {
                        value
                    },
                ))
            })
            .collect();
        Ok(ObservedWiring {
            interfaces,
            routes,
            sysctls,
            rules: match seal {
                Some(seal) if untouched(inside, seal)? => seal.rules(),
                Some(_) | None => None,
            },
            open: inside.sysctl(GATE).is_ok_and(|value| value == OPEN),
        })
    })
}

/// What a decky's rules have held back so far.
pub fn refused(namespace: &Namespace) -> Result<Refused, WireError> {
    within(namespace, |inside| {
        inside.refused().map_err(reading("counters"))
    })
}

fn reading(what: &'static str) -> impl Fn(io::Error) -> WireError {
    move |source| WireError::Read { what, source }
}

/// Whether the rules stand as they were loaded.
fn untouched(inside: &mut Inside, seal: &Seal) -> Result<bool, WireError> {
    // The number of a namespace that is gone may be given to another one.
    if !inside.has_rules().map_err(reading("rules"))? {
        return Ok(false);
    }
    let generation = inside.ruleset_generation().map_err(reading("rules"))?;
    // Somebody changed some rule, maybe another table's: Docker has rules there too.
    if generation == seal.generation {
        return Ok(true);
    }
    let fingerprint = inside.fingerprint().map_err(reading("rules"))?;
    Ok(seal.is_of(fingerprint))
}

fn load(inside: &mut Inside, namespace: &Namespace, wiring: &Wiring) -> Result<Seal, WireError> {
    inside.load_rules(wiring).map_err(WireError::Rules)?;
    let generation = inside.ruleset_generation().map_err(reading("rules"))?;
    let made = inside.fingerprint().map_err(reading("rules"))?;
    Ok(Seal::new(namespace.inode(), generation, wiring, made))
}

/// Which link is which interface: by an address, which is the engine's to give, else by the
/// hardware address, else because nothing else is left.
fn assigned<'a>(
    inside: &mut Inside,
    wiring: &'a Wiring,
) -> Result<Vec<(Link, &'a WiredInterface)>, WireError> {
    let mut links = inside.links().map_err(reading("interfaces"))?;
    let addresses = inside.addresses().map_err(reading("addresses"))?;
    if let Some(loopback) = links.iter().find(|link| link.loopback && !link.up) {
        inside
            .set_up(loopback.index)
            .map_err(changing("take into use", loopback))?;
    }
    links.retain(|link| !link.loopback && link.mac.is_some());

    let by_address = |link: &Link, interface: &WiredInterface| {
        let nets = nets_of(link, &addresses);
        interface
            .addresses
            .iter()
            .any(|wanted| nets.iter().any(|net| net.addr() == wanted.addr()))
    };
    let by_mac = |link: &Link, interface: &WiredInterface| {
        interface.own_mac && link.mac == Some(interface.mac)
    };
    let mut found = Vec::new();
    let mut open: Vec<&WiredInterface> = wiring.interfaces.iter().collect();
    let mut assign = |links: &mut Vec<Link>, is_it: &dyn Fn(&Link, &WiredInterface) -> bool| {
        open.retain(|interface| {
            let index = links.iter().position(|link| is_it(link, interface));
            found.extend(index.map(|index| (links.swap_remove(index), *interface)));
            index.is_none()
        });
    };
    assign(&mut links, &by_address);
    assign(&mut links, &by_mac);
    if let ([_], [_]) = (&open[..], &links[..]) {
        found.extend(links.pop().zip(open.pop()));
    }
    match open.first() {
        None => Ok(found),
        Some(missing) => Err(WireError::NoInterface {
            mac: missing.mac,
            addresses: missing.addresses.clone(),
        }),
    }
}

/// Gives a link its hardware address and its addresses, and takes others.
fn dress(inside: &mut Inside, link: &Link, interface: &WiredInterface) -> Result<(), WireError> {
    if interface.own_mac && link.mac != Some(interface.mac) {
        // Neighbours learn of it at once instead of asking the old one until they give up.
        let notify = format!("net.ipv4.conf.{}.arp_notify", link.name);
        set(inside, &notify, "1")?;
        inside
            .set_mac(link.index, interface.mac)
            .map_err(changing("set the hardware address", link))?;
        set(inside, &notify, "0")?;
    }
    speak6(
        inside,
        link,
        interface.addresses.iter().any(|net| net.addr().is_ipv6()),
    )?;
    if !link.up {
        inside
            .set_up(link.index)
            .map_err(changing("take into use", link))?;
    }
    let addresses = inside.addresses().map_err(reading("addresses"))?;
    let there = nets_of(link, &addresses);
    // Taken first: the kernel would make one more of the same subnet a secondary one, and remove it
    // with the first.
    for net in there
        .iter()
        .filter(|net| !interface.addresses.contains(net))
    {
        inside
            .remove_address(link.index, *net)
            .map_err(changing(&format!("take the address {net}"), link))?;
    }
    let addresses = inside.addresses().map_err(reading("addresses"))?;
    let there = nets_of(link, &addresses);
    for net in interface
        .addresses
        .iter()
        .filter(|net| !there.contains(net))
    {
        inside
            .add_address(link.index, *net)
            .map_err(changing(&format!("add the address {net}"), link))?;
    }
    Ok(())
}

fn changing(what: &str, link: &Link) -> impl Fn(io::Error) -> WireError + use<> {
    let (what, link) = (what.to_owned(), link.name.clone());
    move |source| WireError::Interface {
        what: what.clone(),
        link: link.clone(),
        source,
    }
}

/// Lets an interface speak IPv6 or not, and never listen to routers: the wiring decides.
fn speak6(inside: &mut Inside, link: &Link, speaks: bool) -> Result<(), WireError> {
    let key = |name: &str| format!("net.ipv6.conf.{}.{name}", link.name);
    // A kernel without IPv6 has none of these.
    if !speaks && inside.sysctl(&key("disable_ipv6")).is_err() {
        return Ok(());
    }
    for (name, value) in [
        ("accept_ra", "0"),
        ("autoconf", "0"),
        ("router_solicitations", "0"),
    ] {
        set(inside, &key(name), value)?;
    }
    set(inside, &key("disable_ipv6"), if speaks { "0" } else { "1" })
}

fn set(inside: &mut Inside, key: &str, value: &str) -> Result<(), WireError> {
    inside
        .ensure_sysctl(key, value)
        .map_err(|source| WireError::Sysctl {
            key: key.to_owned(),
            value: value.to_owned(),
            source,
        })
}

/// Makes the routes those of the wiring; an engine's own, such as Docker's default route, go.
fn route(inside: &mut Inside, wiring: &Wiring) -> Result<(), WireError> {
    let there = inside.routes().map_err(reading("routes"))?;
    let is = |to: IpNet, via| {
        there
            .iter()
            .any(|route| !route.of_address && route.to == to && route.via == Some(via))
    };
    for Route { to, via } in &wiring.routes {
        if !is(*to, *via) {
            inside
                .replace_route(*to, *via)
                .map_err(|source| WireError::Route {
                    what: format!("add the route to {to} by {via}"),
                    source,
                })?;
        }
    }
    for route in inside.routes().map_err(reading("routes"))? {
        let wanted = route
            .via
            .is_some_and(|via| wiring.routes.contains(&Route { to: route.to, via }));
        if !route.of_address && !wanted {
            inside
                .remove_route(&route)
                .map_err(|source| WireError::Route {
                    what: format!("remove the route to {}", route.to),
                    source,
                })?;
        }
    }
    Ok(())
}

/// The addresses of a link besides link-local ones, IPv4 first.
fn nets_of(link: &Link, addresses: &[Address]) -> Vec<IpNet> {
    let local = |net: &IpNet| match net {
        IpNet::V4(net) => net.addr().is_link_local(),
        IpNet::V6(net) => net.addr().is_unicast_link_local(),
    };
    let mut nets: Vec<_> = addresses
        .iter()
        .filter(|address| address.index == link.index)
        .map(|address| address.net)
        .filter(|net| !local(net))
        .collect();
    nets.sort();
    nets
}

//! Hydrated topologies for tests: small, valid, and told apart by numbers.

use std::net::Ipv4Addr;
use std::sync::Arc;

use domain::id::{DeckyId, LanId, TopologyId};
use domain::name::{DeckyName, Hostname, LanName};
use domain::persona::Persona;
use domain::seed::Seed;
use domain::service::{ServiceKind, ServiceOptions, ServiceSet};
use domain::topology::hydrate::{
    DeckyLimits, HydratedDecky, HydratedInterface, HydratedLan, HydratedTopology,
};
use domain::topology::{LanDriver, LanKind, Protocol, Publish, allocate};
use domain::wiring::Route;
use ipnet::Ipv4Net;
use uuid::Uuid;

/// An id that no other test has: two of them may share a daemon.
pub fn unique() -> Uuid {
    #[allow(
        clippy::disallowed_methods,
        reason = "nothing is asserted of the value"
    )]
    Uuid::new_v4()
}

/// A topology of its own.
pub fn topology(lans: &[HydratedLan], deckies: &[HydratedDecky]) -> HydratedTopology {
    let (mut lans, mut deckies) = (lans.to_vec(), deckies.to_vec());
    lans.sort_by_key(|lan| lan.id);
    deckies.sort_by_key(|decky| decky.id);
    HydratedTopology {
        id: TopologyId::new(unique()),
        lans,
        deckies,
    }
}

/// A LAN; the outside reaches it when it is named `dmz`.
pub fn lan(name: &str, subnet: Ipv4Net) -> HydratedLan {
    HydratedLan {
        id: LanId::new(unique()),
        name: LanName::parse(name).expect("tests use valid names"),
        subnet,
        subnet6: None,
        gateway: allocate::gateway(subnet),
        kind: if name == "dmz" {
            LanKind::Dmz
        } else {
            LanKind::Internal
        },
        driver: LanDriver::Bridge,
    }
}

/// A decky on `lans`, at the `host`-th address of each; one on two or more forwards.
pub fn decky(name: &str, lans: &[&HydratedLan], host: u32) -> HydratedDecky {
    let id = DeckyId::new(unique());
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(id.uuid().as_bytes());
    let (seed, persona) = (Seed::new(seed), Persona::Linux);
    let forwards = lans.len() > 1;
    let interfaces = lans
        .iter()
        .enumerate()
        .map(|(index, lan)| HydratedInterface {
            lan: lan.id,
            address: address(lan, host),
            address6: None,
            mac: persona.mac(&seed, index),
        });
    let mut decky = HydratedDecky {
        id,
        name: DeckyName::parse(name).expect("tests use valid names"),
        hostname: Hostname::parse(name).expect("tests use valid names"),
        persona,
        seed,
        forwards_l3: forwards,
        services: ServiceSet::new(),
        interfaces: interfaces.collect(),
        routes: lans
            .first()
            .map(|lan| Route {
                to: Ipv4Net::default().into(),
                via: lan.gateway.into(),
            })
            .into_iter()
            .collect(),
        publish: Vec::new(),
        sysctls: Arc::new(
            persona
                .sysctls()
                .into_iter()
                .chain([("net.ipv4.ip_forward", if forwards { "1" } else { "0" })])
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        ),
        limits: DeckyLimits::default(),
    };
    serve(&mut decky, &[ServiceKind::Http]);
    decky
}

/// The `host`-th address of a LAN.
pub fn address(lan: &HydratedLan, host: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(lan.subnet.network().to_bits() + host)
}

/// Replaces the services of a decky.
pub fn serve(decky: &mut HydratedDecky, services: &[ServiceKind]) {
    decky.services = services
        .iter()
        .map(|kind| (*kind, ServiceOptions::default()))
        .collect();
}

/// Publishes port 80 of a decky on a port of the host's loopback address.
pub fn publish(decky: &mut HydratedDecky, host_port: u16) {
    decky.publish.push(Publish {
        host_ip: Some(Ipv4Addr::LOCALHOST),
        host_port,
        decky_port: 80,
        protocol: Protocol::Tcp,
    });
}

//! Topologies that tests deploy, in the subnets of their slot.

use std::collections::BTreeMap;

use proto::decky_config::WireOption;
use proto::topology_file::{FileDecky, FileEdge, FileLan, FilePublish, TopologyFile};

use crate::slot::Slot;

/// A LAN of a slot: number 0 is the DMZ.
pub fn lan(slot: &Slot, number: u8) -> FileLan {
    FileLan {
        name: if number == 0 {
            "dmz".to_owned()
        } else {
            format!("lan-{number}")
        },
        subnet: slot.subnet(number),
        subnet6: None,
        kind: (number == 0).then(|| "dmz".to_owned()),
        driver: None,
    }
}

/// A decky on some LANs; its last byte in each is `host`.
pub fn decky(slot: &Slot, name: &str, host: u8, lans: &[u8], services: &[&str]) -> FileDecky {
    FileDecky {
        name: name.to_owned(),
        hostname: None,
        archetype: None,
        persona: None,
        services: services
            .iter()
            .map(|service| (*service).to_owned())
            .collect(),
        service_config: BTreeMap::new(),
        forwards_l3: lans.len() > 1,
        publish: Vec::new(),
        mutate_every: None,
        seed: None,
        edges: lans
            .iter()
            .map(|number| FileEdge {
                lan: lan(slot, *number).name,
                address: Some(slot.address(*number, host)),
                mac: None,
                home: None,
            })
            .collect(),
    }
}

/// The same decky with an option of a service.
#[must_use]
pub fn with_option(
    mut decky: FileDecky,
    service: &str,
    name: &str,
    value: WireOption,
) -> FileDecky {
    decky
        .service_config
        .entry(service.to_owned())
        .or_default()
        .insert(name.to_owned(), value);
    decky
}

/// The same decky behind a port of the host.
#[must_use]
pub fn publishing(mut decky: FileDecky, host_port: u16, decky_port: u16) -> FileDecky {
    decky.publish.push(FilePublish {
        host_ip: None,
        host_port: i64::from(host_port),
        decky_port: i64::from(decky_port),
        protocol: None,
    });
    decky
}

/// One LAN, one decky with HTTP at `.10`.
pub fn single(slot: &Slot, name: &str) -> TopologyFile {
    TopologyFile {
        name: name.to_owned(),
        lans: vec![lan(slot, 0)],
        deckies: vec![decky(slot, "web", 10, &[0], &["http"])],
    }
}

/// A DMZ and an inner LAN: `gate` (ssh, `.10`, routes), `web` (http, `.20`), `cache` (redis, `.30`, inside).
pub fn small(slot: &Slot, name: &str) -> TopologyFile {
    let gate = decky(slot, "gate", 10, &[0, 1], &["ssh"]);
    TopologyFile {
        name: name.to_owned(),
        lans: vec![lan(slot, 0), lan(slot, 1)],
        deckies: vec![
            with_option(gate, "ssh", "accept_after", WireOption::Integer(1)),
            decky(slot, "web", 20, &[0], &["http"]),
            decky(slot, "cache", 30, &[1], &["redis"]),
        ],
    }
}

/// One decky with every service, at `.10`; logins succeed at once.
pub fn bazaar(slot: &Slot, name: &str) -> TopologyFile {
    let all = decky(
        slot,
        "bazaar",
        10,
        &[0],
        &["ftp", "http", "redis", "ssh", "telnet"],
    );
    let all = with_option(all, "ssh", "accept_after", WireOption::Integer(1));
    let all = with_option(all, "telnet", "accept_after", WireOption::Integer(1));
    let all = with_option(all, "ftp", "anonymous", WireOption::Boolean(true));
    TopologyFile {
        name: name.to_owned(),
        lans: vec![lan(slot, 0)],
        deckies: vec![all],
    }
}

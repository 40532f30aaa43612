//! Which ports of the host lead to a container: what the daemon says, as far as the host listens.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;

use bollard::models::{ContainerSummary, PortSummary, PortSummaryTypeEnum};
use domain::observe::Inventory;
use domain::topology::{Protocol, Publish};

use crate::task;

/// The kernel's tables of sockets, for both families.
const TABLES: [(Protocol, &str); 4] = [
    (Protocol::Tcp, "/proc/net/tcp"),
    (Protocol::Tcp, "/proc/net/tcp6"),
    (Protocol::Udp, "/proc/net/udp"),
    (Protocol::Udp, "/proc/net/udp6"),
];
/// The state of a socket that waits for connections, or for datagrams of anybody.
const LISTENS: [(Protocol, &str); 2] = [(Protocol::Tcp, "0A"), (Protocol::Udp, "07")];

/// What the daemon says of a running container, sorted.
pub(super) fn of(container: &ContainerSummary) -> Vec<Publish> {
    let ports = container.ports.iter().flatten();
    let published: BTreeSet<_> = ports.filter_map(read).collect();
    published.into_iter().collect()
}

fn read(port: &PortSummary) -> Option<Publish> {
    let protocol = match port.typ? {
        PortSummaryTypeEnum::TCP => Protocol::Tcp,
        PortSummaryTypeEnum::UDP => Protocol::Udp,
        PortSummaryTypeEnum::EMPTY | PortSummaryTypeEnum::SCTP => return None,
    };
    // A port on every address is told once more, for IPv6.
    let host_ip: Ipv4Addr = port.ip.as_deref().unwrap_or("0.0.0.0").parse().ok()?;
    Some(Publish {
        host_ip: Some(host_ip).filter(|ip| !ip.is_unspecified()),
        host_port: port.public_port?,
        decky_port: port.private_port,
        protocol,
    })
}

/// The ports on which the host listens. The daemon holds each published port by a socket of its own,
/// or of a program that it has started; without it nobody is answered, whatever the daemon says.
#[derive(Debug, Default)]
pub(super) struct Listening(BTreeSet<(Protocol, u16)>);

impl Listening {
    /// Reads the kernel's tables, when something in the inventory is published.
    pub(super) async fn read_for(inventory: &Inventory) -> Self {
        let published = |decky: &domain::observe::ObservedDecky| {
            decky.published.iter().flatten().next().is_some()
        };
        if !inventory.deckies.iter().any(published) {
            return Self::default();
        }
        task::blocking(|| {
            let tables = TABLES.iter().flat_map(|(protocol, path)| {
                // A kernel without IPv6 has fewer tables.
                ports(*protocol, &fs::read_to_string(path).unwrap_or_default())
            });
            Self(tables.collect())
        })
        .await
    }

    pub(super) fn holds(&self, publish: &Publish) -> bool {
        self.0.contains(&(publish.protocol, publish.host_port))
    }
}

/// The ports of the sockets that wait for somebody.
fn ports(protocol: Protocol, table: &str) -> Vec<(Protocol, u16)> {
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let (local, state) = (fields.nth(1)?, fields.nth(1)?);
        let (_, port) = local.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        LISTENS
            .contains(&(protocol, state))
            .then_some((protocol, port))
    };
    table.lines().skip(1).filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_on_every_address_is_told_once() {
        let port = |ip: &str| PortSummary {
            ip: Some(ip.to_owned()),
            private_port: 80,
            public_port: Some(8080),
            typ: Some(PortSummaryTypeEnum::TCP),
        };
        let container = ContainerSummary {
            ports: Some(vec![port("::"), port("0.0.0.0"), port("127.0.0.1")]),
            ..ContainerSummary::default()
        };
        let publish = |host_ip| Publish {
            host_ip,
            host_port: 8080,
            decky_port: 80,
            protocol: Protocol::Tcp,
        };
        assert_eq!(
            of(&container),
            [publish(None), publish(Some(Ipv4Addr::LOCALHOST))]
        );
    }

    #[test]
    fn reads_who_waits_from_the_kernels_tables() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue\n\
                   0: 00000000:98C7 00000000:0000 0A 00000000:00000000\n\
                   1: 0100007F:1F90 0100007F:98C7 01 00000000:00000000\n\
                   broken\n";
        assert_eq!(ports(Protocol::Tcp, tcp), [(Protocol::Tcp, 39111)]);
        let udp = "  sl  local_address rem_address   st\n\
                   9: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 07\n";
        assert_eq!(ports(Protocol::Udp, udp), [(Protocol::Udp, 53)]);
    }
}

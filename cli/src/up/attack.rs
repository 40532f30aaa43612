//! What a topology shows to the outside, and commands by which it can be tried.

use domain::service::ServiceKind;
use proto::topology_file::{FileDecky, FilePublish, TopologyFile};

/// How many commands are enough to begin with.
const COMMANDS: usize = 3;
/// The order in which services make the best show.
const ORDER: [ServiceKind; 5] = [
    ServiceKind::Ssh,
    ServiceKind::Http,
    ServiceKind::Redis,
    ServiceKind::Telnet,
    ServiceKind::Ftp,
];

/// A line for each published port: `127.0.0.1:2222 -> gate:22 (ssh)`.
pub(super) fn published(file: &TopologyFile) -> Vec<String> {
    let line = |decky: &FileDecky, publish: &FilePublish| {
        let service = service_at(decky, publish.decky_port).map_or("nothing", ServiceKind::as_str);
        let address = publish.host_ip.as_deref().unwrap_or("0.0.0.0");
        let FilePublish {
            host_port,
            decky_port,
            ..
        } = publish;
        format!(
            "{address}:{host_port} -> {}:{decky_port} ({service})",
            decky.name
        )
    };
    file.deckies
        .iter()
        .flat_map(|decky| {
            decky
                .publish
                .iter()
                .map(move |publish| line(decky, publish))
        })
        .collect()
}

/// Commands to attack the topology with, one for each service, through published ports where
/// there are any and at the addresses of the DMZ where there are none.
pub(super) fn commands(file: &TopologyFile) -> Vec<String> {
    let dmz: Vec<&str> = file
        .lans
        .iter()
        .filter(|lan| lan.kind.as_deref() == Some("dmz"))
        .map(|lan| lan.name.as_str())
        .collect();
    let through = |kind| {
        file.deckies.iter().find_map(|decky| {
            let publish = decky
                .publish
                .iter()
                .find(|publish| service_at(decky, publish.decky_port) == Some(kind))?;
            let host = publish.host_ip.as_deref().unwrap_or("127.0.0.1");
            Some(command(kind, host, publish.host_port))
        })
    };
    let direct = |kind: ServiceKind| {
        file.deckies
            .iter()
            .filter(|decky| serves(decky, kind))
            .find_map(|decky| {
                let edge = decky
                    .edges
                    .iter()
                    .find(|edge| dmz.contains(&edge.lan.as_str()))?;
                let port = kind.ports().first()?;
                Some(command(kind, edge.address.as_deref()?, i64::from(*port)))
            })
    };
    let mut found: Vec<String> = ORDER
        .into_iter()
        .filter_map(through)
        .take(COMMANDS)
        .collect();
    for attack in ORDER
        .into_iter()
        .filter(|kind| through(*kind).is_none())
        .filter_map(direct)
    {
        if found.len() < COMMANDS {
            found.push(attack);
        }
    }
    found
}

fn serves(decky: &FileDecky, kind: ServiceKind) -> bool {
    decky
        .services
        .iter()
        .any(|service| service == kind.as_str())
}

fn service_at(decky: &FileDecky, port: i64) -> Option<ServiceKind> {
    ORDER.into_iter().find(|kind| {
        serves(decky, *kind) && kind.ports().iter().any(|known| i64::from(*known) == port)
    })
}

fn command(kind: ServiceKind, host: &str, port: i64) -> String {
    let usual = kind
        .ports()
        .first()
        .is_some_and(|known| i64::from(*known) == port);
    let colon = if usual {
        String::new()
    } else {
        format!(":{port}")
    };
    let flag = if usual {
        String::new()
    } else {
        format!("-p {port} ")
    };
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "only the services of `ORDER` are shown, and any other takes a connection"
    )]
    match kind {
        ServiceKind::Ssh => format!("ssh {flag}root@{host}"),
        ServiceKind::Http => format!("curl http://{host}{colon}/"),
        ServiceKind::Redis => format!("redis-cli -h {host} {flag}info"),
        ServiceKind::Telnet => format!("telnet {host} {port}"),
        ServiceKind::Ftp => format!("curl ftp://{host}{colon}/"),
        _ => format!("nc {host} {port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> TopologyFile {
        crate::document::parse_text(text, "test")
            .expect("a topology")
            .file
    }

    #[test]
    fn published_ports_come_first_and_the_dmz_fills_up() {
        let file = file(
            "name: t\n\
             lans: [{name: dmz, subnet: 10.0.0.0/24, kind: dmz}]\n\
             deckies:\n\
             - {name: web, services: [http], publish: [{host_port: 8081, decky_port: 80}], edges: [{lan: dmz}]}\n\
             - {name: gate, services: [ssh, redis], edges: [{lan: dmz, address: 10.0.0.10}]}\n",
        );
        assert_eq!(
            commands(&file),
            [
                "curl http://127.0.0.1:8081/",
                "ssh root@10.0.0.10",
                "redis-cli -h 10.0.0.10 info"
            ]
        );
        assert_eq!(published(&file), ["0.0.0.0:8081 -> web:80 (http)"]);
    }

    #[test]
    fn a_topology_that_shows_nothing_has_no_attacks() {
        let file = file("name: t\nlans: [{name: a, subnet: 10.0.0.0/24}]\n");
        assert!(commands(&file).is_empty() && published(&file).is_empty());
    }
}

//! The door between the host and a topology: the rules of the host's own namespace.
//!
//! One table for each host id, replaced as a whole. It hands published ports on to deckies with
//! their sources as they are, and lets nothing come out of a topology but answers.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use domain::id::HostId;
use domain::topology::{Protocol, Publish};

use super::fabric::uplink_prefix;
use super::program::{self, Failed};
use super::{Shared, refused};
use crate::engine::{EngineError, EngineErrorKind};

/// The chain in which Docker lets others speak first; without a rule there, its own drop what is
/// forwarded.
const DOCKER: &str = "DOCKER-USER";
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// A published port and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Door {
    pub(super) handle: String,
    pub(super) publish: Publish,
    pub(super) address: Ipv4Addr,
}

/// Whether the host has a link to any LAN: without one there is nothing to guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Uplinks {
    Some,
    None,
}

impl Shared {
    /// Loads the rules for exactly these doors.
    pub(super) async fn load_doors(
        &self,
        doors: &[Door],
        uplinks: Uplinks,
    ) -> Result<(), EngineError> {
        let mut doors = doors.to_vec();
        doors.sort();
        let table = table_name(self.host);
        let text = match uplinks {
            Uplinks::None => format!("add table inet {table}\ndelete table inet {table}\n"),
            Uplinks::Some => render(self.host, &doors),
        };
        let attempt = "could not load the rules for published ports";
        let ended = program::run("nft", &["-f", "-"], &text, self.limit).await?;
        if !ended.status.success() {
            let failed = Failed::new("nft", ended.status, &ended.complaint);
            return Err(refused(attempt, failed));
        }
        if !doors.is_empty() {
            self.let_forward().await?;
        } else if uplinks == Uplinks::None {
            self.leave_docker().await?;
        }
        Ok(())
    }

    /// The doors that stand, with how many rules each has.
    pub(super) async fn standing_doors(&self) -> Result<BTreeMap<String, usize>, EngineError> {
        let table = table_name(self.host);
        let arguments = ["list", "table", "inet", &table];
        let ended = program::run("nft", &arguments, "", self.limit).await?;
        let mut standing = BTreeMap::new();
        // A table that is not there has no rule.
        for comment in comments(&ended.output) {
            *standing.entry(comment.to_owned()).or_insert(0) += 1;
        }
        Ok(standing)
    }

    /// Has the host hand on packets at all, and Docker let them pass.
    async fn let_forward(&self) -> Result<(), EngineError> {
        let on = fs::read_to_string(FORWARD).is_ok_and(|text| text.trim() == "1");
        if !on {
            fs::write(FORWARD, "1")
                .map_err(|source| refused("could not have the host forward packets", source))?;
        }
        for rule in self.docker_rules() {
            let found = self.iptables("-C", &rule).await?;
            if !found && self.has_docker().await? && !self.iptables("-I", &rule).await? {
                let attempt = format!("could not add a rule to the chain {DOCKER}");
                return Err(EngineError {
                    kind: EngineErrorKind::Refused,
                    attempt,
                    source: None,
                });
            }
        }
        Ok(())
    }

    async fn leave_docker(&self) -> Result<(), EngineError> {
        for rule in self.docker_rules() {
            // As often as it is there: two agents with one id were never at work, but a person may
            // have been.
            while self.iptables("-D", &rule).await? {}
        }
        Ok(())
    }

    async fn has_docker(&self) -> Result<bool, EngineError> {
        self.iptables("-S", &[DOCKER.to_owned()]).await
    }

    fn docker_rules(&self) -> [Vec<String>; 2] {
        let links = format!("{}+", uplink_prefix(self.host));
        let rule = |words: &[&str]| {
            [DOCKER]
                .iter()
                .chain(words)
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        [
            rule(&["-o", &links, "-j", "ACCEPT"]),
            rule(&[
                "-i",
                &links,
                "-m",
                "conntrack",
                "--ctstate",
                "RELATED,ESTABLISHED",
                "-j",
                "ACCEPT",
            ]),
        ]
    }

    /// Whether iptables did it. A host without it has no Docker that could be in the way.
    async fn iptables(&self, verb: &str, rule: &[String]) -> Result<bool, EngineError> {
        let mut arguments = vec!["-w", "5", verb];
        arguments.extend(rule.iter().map(String::as_str));
        match program::run("iptables", &arguments, "", self.limit).await {
            Ok(ended) => Ok(ended.status.success()),
            Err(error) if error.kind == EngineErrorKind::Unreachable => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The name of a host's table.
pub(super) fn table_name(host: HostId) -> String {
    format!("decnet-{}", host.short())
}

/// What stands beside the rules of a door, and how many rules it has.
pub(super) fn mark(handle: &str, publish: &Publish) -> (String, usize) {
    let rules = if publish.host_ip.is_some_and(|ip| ip.is_loopback()) {
        1
    } else {
        2
    };
    (format!("{handle} {publish}"), rules)
}

/// Fails when the host itself has the port.
pub(super) fn is_free(publish: &Publish) -> Result<(), EngineError> {
    let place = (
        publish.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED),
        publish.host_port,
    );
    let bound = match publish.protocol {
        Protocol::Tcp => TcpListener::bind(place).map(drop),
        Protocol::Udp => UdpSocket::bind(place).map(drop),
    };
    bound.map_err(|source| EngineError {
        kind: if source.kind() == io::ErrorKind::AddrInUse {
            EngineErrorKind::PortTaken
        } else {
            EngineErrorKind::Refused
        },
        attempt: format!("could not publish {publish}"),
        source: Some(Box::new(source)),
    })
}

/// The whole table. It replaces the one before it in one step.
fn render(host: HostId, doors: &[Door]) -> String {
    let table = table_name(host);
    let links = format!("\"{}*\"", uplink_prefix(host));
    let mut text = format!(
        "add table inet {table}\n\
         delete table inet {table}\n\
         table inet {table} {{\n"
    );
    for hook in ["input", "forward"] {
        text.push_str(&format!(
            "\tchain {hook} {{\n\
             \t\ttype filter hook {hook} priority filter - 10; policy accept;\n\
             \t\tiifname {links} ct state established,related accept\n\
             \t\tiifname {links} drop\n\
             \t}}\n"
        ));
    }
    for (chain, priority) in [("prerouting", "dstnat"), ("output", "-100")] {
        text.push_str(&format!(
            "\tchain {chain} {{\n\
             \t\ttype nat hook {chain} priority {priority}; policy accept;\n"
        ));
        for door in doors {
            let loopback = door.publish.host_ip.is_some_and(|ip| ip.is_loopback());
            // Nothing comes from outside for the loopback address.
            if !(loopback && chain == "prerouting") {
                text.push_str(&format!("\t\t{}\n", rule(door)));
            }
        }
        text.push_str("\t}\n");
    }
    // Only what comes from 127.0.0.1 is given another source: the host is its own source then.
    text.push_str(&format!(
        "\tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\toifname {links} ip saddr 127.0.0.0/8 masquerade\n\
         \t}}\n}}\n"
    ));
    text
}

fn rule(door: &Door) -> String {
    let Door {
        handle,
        publish,
        address,
    } = door;
    let to = match publish.host_ip {
        Some(ip) => format!("ip daddr {ip}"),
        None => "meta nfproto ipv4 fib daddr type local".to_owned(),
    };
    let (mark, _) = mark(handle, publish);
    format!(
        "{to} {protocol} dport {port} dnat ip to {address}:{inner} comment \"{mark}\"",
        protocol = publish.protocol.as_str(),
        port = publish.host_port,
        inner = publish.decky_port,
    )
}

fn comments(listing: &str) -> impl Iterator<Item = &str> {
    listing.lines().filter_map(|line| {
        let (_, rest) = line.split_once("comment \"")?;
        let (comment, _) = rest.split_once('"')?;
        Some(comment)
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn door(host_ip: Option<Ipv4Addr>) -> Door {
        Door {
            handle: "decnet-a-b".to_owned(),
            publish: Publish {
                host_ip,
                host_port: 8080,
                decky_port: 80,
                protocol: Protocol::Tcp,
            },
            address: Ipv4Addr::new(10, 1, 0, 10),
        }
    }

    #[test]
    fn a_port_of_every_address_is_caught_from_inside_and_outside() {
        let text = render(HostId::new(Uuid::max()), &[door(None)]);
        let rule = "meta nfproto ipv4 fib daddr type local tcp dport 8080 dnat ip to 10.1.0.10:80 \
                    comment \"decnet-a-b 0.0.0.0:8080->80/tcp\"";
        assert_eq!(text.matches(rule).count(), 2, "{text}");
        let (mark, rules) = mark("decnet-a-b", &door(None).publish);
        assert_eq!(
            comments(&text).filter(|found| *found == mark).count(),
            rules
        );
    }

    #[test]
    fn a_port_of_the_loopback_address_is_the_hosts_own_affair() {
        let text = render(HostId::new(Uuid::max()), &[door(Some(Ipv4Addr::LOCALHOST))]);
        assert_eq!(text.matches("ip daddr 127.0.0.1 tcp dport 8080").count(), 1);
    }

    #[test]
    fn nothing_new_comes_out_of_a_topology() {
        let text = render(HostId::new(Uuid::max()), &[]);
        let prefix = uplink_prefix(HostId::new(Uuid::max()));
        assert_eq!(
            text.matches(&format!("iifname \"{prefix}*\" drop")).count(),
            2
        );
    }
}

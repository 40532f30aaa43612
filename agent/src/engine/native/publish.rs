//! The door between the host and a topology: the rules of the host's own namespace.
//!
//! One table for each host id, replaced as a whole. It hands published ports on to deckies with
//! their sources as they are, and lets nothing come out of a topology but answers.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Arc;

use domain::id::HostId;
use domain::topology::{Protocol, Publish};

use super::fabric::uplink_prefix;
use super::lan::outer_address;
use super::program::{self, Failed};
use super::record::{DeckyRecord, LanRecord};
use super::{Shared, refused};
use crate::chain::Chain;
use crate::engine::{EngineError, EngineErrorKind};
use crate::netns::{Family, comments};
use crate::task;

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

/// The rules of a table by what is written beside them, with how many say the same.
pub(super) type Rules = BTreeMap<String, usize>;

impl Door {
    /// Those of a decky that runs.
    pub(super) fn all_of(
        handle: &str,
        record: &DeckyRecord,
        lans: &BTreeMap<String, LanRecord>,
    ) -> Vec<Self> {
        let Some(address) = outer_address(record, lans) else {
            return Vec::new();
        };
        let door = |publish| Self {
            handle: handle.to_owned(),
            publish,
            address,
        };
        record.publish().into_iter().map(door).collect()
    }
}

impl Shared {
    /// Loads the rules for exactly these doors.
    pub(super) async fn load_doors(
        self: &Arc<Self>,
        doors: &[Door],
        uplinks: Uplinks,
    ) -> Result<(), EngineError> {
        let mut doors = doors.to_vec();
        doors.sort();
        let table = table_name(self.host);
        match uplinks {
            Uplinks::Some => {
                self.load(&render(self.host, &doors)).await?;
                if doors.iter().all(|door| is_the_hosts_own(&door.publish)) {
                    // The host's own packets are not handed on.
                    return Ok(());
                }
                self.let_forward().await
            }
            Uplinks::None => {
                let none = format!("add table inet {table}\ndelete table inet {table}\n");
                self.load(&none).await?;
                self.leave_forwarding().await
            }
        }
    }

    /// The rules that stand.
    pub(super) async fn standing_doors(&self) -> Result<Rules, EngineError> {
        let table = table_name(self.host);
        let found = task::blocking(move || comments(Family::Inet, &table)).await;
        let found =
            found.map_err(|source| refused("could not read the rules of the host", source))?;
        // A table that is not there has no rule.
        Ok(counted(found.unwrap_or_default()))
    }

    /// Loads the rules anew when they are not what these doors need: a kill, or whoever flushes all
    /// rules of the host, leaves it open to its deckies, and no step of a plan would close it.
    ///
    /// A failure is told and left to the next look, which must not be lost by it.
    pub(super) async fn mend_doors(self: &Arc<Self>, doors: &[Door], standing: &Rules) {
        let due = counted(written(&render(self.host, doors)));
        let whole = due
            .iter()
            .all(|(rule, count)| standing.get(rule) == Some(count));
        // One of a decky that has just ended is no harm.
        if whole && !standing.contains_key("") {
            return;
        }
        tracing::warn!("rules of the host are missing or altered, and are loaded anew");
        if let Err(error) = self.renew_doors().await {
            tracing::warn!(error = %Chain(&error), "the host is not closed to its deckies");
        }
    }

    /// Has the packet filter take these rules, all or none.
    pub(super) async fn load(&self, rules: &str) -> Result<(), EngineError> {
        let ended = program::run("nft", &["-f", "-"], rules, self.limit).await?;
        if ended.status.success() {
            return Ok(());
        }
        let failed = Failed::new("nft", ended.status, &ended.complaint);
        Err(refused("could not load the rules of the host", failed))
    }
}

/// The name of a host's table.
pub(super) fn table_name(host: HostId) -> String {
    format!("decnet-{}", host.short())
}

/// What stands beside the rules of a door, and how many rules it has.
pub(super) fn mark(handle: &str, publish: &Publish) -> (String, usize) {
    let rules = if is_the_hosts_own(publish) { 1 } else { 2 };
    (format!("{handle} {publish}"), rules)
}

/// Nothing comes from outside for the loopback address.
fn is_the_hosts_own(publish: &Publish) -> bool {
    publish.host_ip.is_some_and(|ip| ip.is_loopback())
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

/// The whole table. It replaces the one before it in one step. Each of its rules has something
/// written beside it, by which it is found again.
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
             \t\tiifname {links} ct state established,related accept comment \"answers of deckies\"\n\
             \t\tiifname {links} drop comment \"nothing else of deckies\"\n\
             \t}}\n"
        ));
    }
    for (chain, priority) in [("prerouting", "dstnat"), ("output", "-100")] {
        text.push_str(&format!(
            "\tchain {chain} {{\n\
             \t\ttype nat hook {chain} priority {priority}; policy accept;\n"
        ));
        for door in doors {
            if !(is_the_hosts_own(&door.publish) && chain == "prerouting") {
                text.push_str(&format!("\t\t{}\n", rule(door)));
            }
        }
        text.push_str("\t}\n");
    }
    // Only what comes from 127.0.0.1 is given another source: the host is its own source then.
    text.push_str(&format!(
        "\tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\toifname {links} ip saddr 127.0.0.0/8 masquerade comment \"of the host itself\"\n\
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

/// What is written beside the rules of a text, one of which stands on a line.
fn written(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| {
        let (_, rest) = line.split_once("comment \"")?;
        let (comment, _) = rest.split_once('"')?;
        Some(comment.to_owned())
    })
}

fn counted(rules: impl IntoIterator<Item = String>) -> Rules {
    let mut counted = Rules::new();
    for rule in rules {
        *counted.entry(rule).or_insert(0) += 1;
    }
    counted
}

#[cfg(test)]
mod tests;

//! The rules that keep a decky inside of its topology, as a text that the program nft loads.
//!
//! They stand in the decky's own namespace, where they see every packet whatever the LAN is made of,
//! and where the decky has no right to change them. An attacker who owns the decky is assumed: what
//! it sends by itself goes to its own topology or nowhere. Answers go to whoever asked.

use std::fmt::Write as _;
use std::net::IpAddr;

use domain::wiring::{RulesDigest, Wiring};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest as _, Sha256};

use super::Refused;

/// The name of the table.
pub const TABLE: &str = "decnet";
/// The sets of the table.
pub(super) const SETS: [&str; 4] = ["inside4", "inside6", "never4", "never6"];
/// The counter of packets to where a decky may not go.
pub(super) const REFUSED: &str = "refused";
/// The counter of packets beyond what a decky may send.
pub(super) const FLOODED: &str = "flooded";

/// Where Docker's resolver listens in every namespace: it would carry questions out of the host.
const RESOLVER: &str = "127.0.0.11";
/// New connections inside of the topology: a scan of a /16 takes minutes, and a gateway or a service
/// that is scanned goes on working.
const CONNECTIONS: &str = "200/second burst 400 packets";
/// Packets inside of the topology, whose links all share the processors of one host.
const PACKETS: &str = "10000/second burst 20000 packets";
/// Datagrams and errors in answer to others. Their sources may be forged: a decky must not be what
/// floods a third party. Connections are paced by their other end.
const ANSWERS: &str = "1000/second burst 2000 packets";

/// The rules of a decky. Equal wirings give equal texts.
pub fn render(wiring: &Wiring) -> String {
    let (mut inside4, mut inside6) = (Vec::new(), Vec::new());
    for net in &wiring.inside {
        match net {
            IpNet::V4(net) => inside4.push(net.trunc()),
            IpNet::V6(net) => inside6.push(net.trunc()),
        }
    }
    // Ranges in a set must not overlap.
    let inside4 = Ipv4Net::aggregate(&inside4);
    let inside6 = Ipv6Net::aggregate(&inside6);
    let (mut never4, mut never6) = (Vec::new(), Vec::new());
    for address in &wiring.host {
        match address {
            IpAddr::V4(address) => never4.push(*address),
            IpAddr::V6(address) => never6.push(*address),
        }
    }
    // Nobody's own address: what is sent there goes to all.
    for net in wiring
        .inside
        .iter()
        .filter(|net| net.prefix_len() < net.max_prefix_len() - 1)
    {
        match net {
            IpNet::V4(net) => never4.extend([net.network(), net.broadcast()]),
            IpNet::V6(net) => never6.push(net.network()),
        }
    }
    never4.sort();
    never4.dedup();
    never6.sort();
    never6.dedup();

    let mut text = format!("table inet {TABLE} {{\n");
    for counter in [REFUSED, FLOODED] {
        text.push_str(&declaration(counter, 0));
    }
    let [name_inside4, name_inside6, name_never4, name_never6] = SETS;
    set(&mut text, name_inside4, "ipv4_addr", true, &inside4);
    set(&mut text, name_inside6, "ipv6_addr", true, &inside6);
    set(&mut text, name_never4, "ipv4_addr", false, &never4);
    set(&mut text, name_never6, "ipv6_addr", false, &never6);
    chain(
        &mut text,
        "refuse",
        &[format!("counter name {REFUSED} drop")],
    );
    chain(
        &mut text,
        "flood",
        &[format!("counter name {FLOODED} drop")],
    );
    chain(
        &mut text,
        "onward",
        &[
            format!("ct state new limit rate over {CONNECTIONS} goto flood"),
            format!("limit rate over {PACKETS} goto flood"),
            "accept".to_owned(),
        ],
    );
    chain(
        &mut text,
        "answer",
        &[
            "meta l4proto tcp ct state established accept".to_owned(),
            format!("limit rate over {ANSWERS} goto flood"),
            "accept".to_owned(),
        ],
    );

    let mut output = vec![
        "type filter hook output priority filter; policy drop;".to_owned(),
        format!("ip daddr {RESOLVER} goto refuse"),
        "oif \"lo\" accept".to_owned(),
        // Only in this direction: a connection that the decky has opened is judged at every packet,
        // so that none outlives the LAN that it led to.
        "ct direction reply ct state established goto answer".to_owned(),
        "ct state related meta l4proto { icmp, ipv6-icmp } goto answer".to_owned(),
        // How the kernel answers a segment that belongs to no connection. No program can send one.
        "ct state invalid tcp flags & (syn | rst) == rst goto answer".to_owned(),
    ];
    if !inside6.is_empty() {
        output.extend([
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept"
                .to_owned(),
            // The kernel's own, of which there is no end: no attempt to get out.
            "icmpv6 type mld2-listener-report drop".to_owned(),
        ]);
    }
    output.extend(
        [
            "ip daddr @never4 goto refuse",
            "ip6 daddr @never6 goto refuse",
            "ip daddr @inside4 goto onward",
            "ip6 daddr @inside6 goto onward",
            "goto refuse",
        ]
        .map(str::to_owned),
    );
    chain(&mut text, "output", &output);

    let mut forward = vec!["type filter hook forward priority filter; policy drop;"];
    if wiring.forwards {
        forward.extend([
            "ip saddr @never4 goto refuse",
            "ip daddr @never4 goto refuse",
            "ip6 saddr @never6 goto refuse",
            "ip6 daddr @never6 goto refuse",
            "ip saddr @inside4 ip daddr @inside4 goto onward",
            "ip6 saddr @inside6 ip6 daddr @inside6 goto onward",
        ]);
    }
    forward.push("goto refuse");
    chain(&mut text, "forward", &forward);
    text.push_str("}\n");
    text
}

/// The digest of the rules of a decky.
pub fn digest(wiring: &Wiring) -> RulesDigest {
    Sha256::digest(render(wiring)).into()
}

/// The same rules, with counters that go on from where they were.
pub(super) fn counting_from(rendered: &str, held: Refused) -> String {
    rendered
        .replace(
            &declaration(REFUSED, 0),
            &declaration(REFUSED, held.refused),
        )
        .replace(
            &declaration(FLOODED, 0),
            &declaration(FLOODED, held.flooded),
        )
}

fn declaration(counter: &str, packets: u64) -> String {
    format!("\tcounter {counter} {{\n\t\tpackets {packets} bytes 0\n\t}}\n")
}

fn set<T: ToString>(text: &mut String, name: &str, of: &str, ranges: bool, elements: &[T]) {
    let flags = if ranges { "\t\tflags interval\n" } else { "" };
    let mut add = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("memory takes it");
    };
    add(format_args!("\tset {name} {{\n\t\ttype {of}\n{flags}"));
    // An empty list is no list in that language.
    if !elements.is_empty() {
        let elements: Vec<_> = elements.iter().map(T::to_string).collect();
        add(format_args!(
            "\t\telements = {{ {} }}\n",
            elements.join(", ")
        ));
    }
    add(format_args!("\t}}\n"));
}

fn chain<T: AsRef<str>>(text: &mut String, name: &str, rules: &[T]) {
    text.push_str(&format!("\tchain {name} {{\n"));
    for rule in rules {
        text.push_str(&format!("\t\t{}\n", rule.as_ref()));
    }
    text.push_str("\t}\n");
}

#[cfg(test)]
mod tests;

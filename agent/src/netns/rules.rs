//! The rules that keep a decky inside of its topology: a table of the kernel's packet filter.
//!
//! They stand in the decky's own namespace, where they see every packet whatever the LAN is made of,
//! and where the decky has no right to change them. An attacker who owns the decky is assumed: what
//! it sends by itself goes to its own topology or nowhere. Answers go to whoever asked.
//!
//! The rules are a value with two forms: the text that people read and the program nft takes
//! ([`render`]), and the kernel's own (`rules/load.rs`), in which they are loaded.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use domain::wiring::{RulesDigest, Wiring};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest as _, Sha256};

pub(super) use self::load::load;

mod load;

/// The name of the table.
pub const TABLE: &str = "decnet";
/// The sets of the table.
pub(super) const SETS: [&str; 4] = [INSIDE4, INSIDE6, NEVER4, NEVER6];
const INSIDE4: &str = "inside4";
const INSIDE6: &str = "inside6";
const NEVER4: &str = "never4";
const NEVER6: &str = "never6";
/// The counter of packets to where a decky may not go.
pub(super) const REFUSED: &str = "refused";
/// The counter of packets beyond what a decky may send.
pub(super) const FLOODED: &str = "flooded";
const REFUSE: &str = "refuse";
const FLOOD: &str = "flood";
const ONWARD: &str = "onward";
const ANSWER: &str = "answer";

/// Where Docker's resolver listens in every namespace: it would carry questions out of the host.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// New connections inside of the topology: a scan of a /16 takes minutes, and a gateway or a service
/// that is scanned goes on working.
const CONNECTIONS: Limit = Limit::double(200);
/// Packets inside of the topology, whose links all share the processors of one host.
const PACKETS: Limit = Limit::double(10_000);
/// Datagrams and errors in answer to others. Their sources may be forged: a decky must not be what
/// floods a third party. Connections are paced by their other end.
const ANSWERS: Limit = Limit::double(1_000);

/// Everything in the table but its counters.
struct Ruleset {
    sets: [Set; 4],
    chains: Vec<Chain>,
}

/// A set of addresses.
struct Set {
    name: &'static str,
    family: Family,
    /// Whether its elements are ranges; else each is one address.
    ranges: bool,
    elements: Vec<IpNet>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

struct Chain {
    name: &'static str,
    /// Where the kernel calls it; it lets nothing through by itself then.
    hook: Option<Hook>,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy)]
enum Hook {
    Forward,
    Output,
}

struct Rule {
    when: Vec<Match>,
    then: Then,
}

/// What must be so of a packet for a rule to be of it.
#[derive(Debug, Clone, Copy)]
enum Match {
    /// It goes to the resolver.
    ToResolver,
    /// It goes to an address of a set.
    To(Family, &'static str),
    /// It comes from an address of a set.
    From(Family, &'static str),
    /// It stays in the namespace.
    Loopback,
    /// It is of the direction opposite to the first packet of its connection.
    Reply,
    /// Its connection is so.
    State(State),
    /// It is of this protocol.
    Protocol(Protocol),
    /// It is a segment that ends a connection without having begun one.
    Reset,
    /// It is such a message of the neighbour discovery of IPv6 (RFC 4861), or of its groups (RFC
    /// 3810).
    Icmp6(Icmp6),
    /// It was sent by a neighbour: nobody has forwarded it.
    FromLink,
    /// There are more of these than that.
    Over(Limit),
}

/// What the kernel knows of a packet's connection, by its bit.
#[derive(Debug, Clone, Copy)]
enum State {
    Invalid = 1,
    Established = 2,
    Related = 4,
    New = 8,
}

/// A protocol above IP, by its number.
#[derive(Debug, Clone, Copy)]
enum Protocol {
    Icmp = 1,
    Tcp = 6,
    Icmp6 = 58,
}

/// A message of ICMPv6, by its type.
#[derive(Debug, Clone, Copy)]
enum Icmp6 {
    Solicitation = 135,
    Advertisement = 136,
    GroupReport = 143,
}

/// So many packets a second, after so many at once.
#[derive(Debug, Clone, Copy)]
struct Limit {
    rate: u32,
    burst: u32,
}

impl Limit {
    const fn double(rate: u32) -> Self {
        Self {
            rate,
            burst: 2 * rate,
        }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy)]
enum Then {
    Accept,
    Drop,
    /// It is counted and goes nowhere.
    CountAndDrop(&'static str),
    /// Another chain decides.
    Goto(&'static str),
}

/// The rules of a decky, as a text. Equal wirings give equal texts.
pub fn render(wiring: &Wiring) -> String {
    Ruleset::of(wiring).to_string()
}

/// The digest of the rules of a decky.
pub fn digest(wiring: &Wiring) -> RulesDigest {
    Sha256::digest(render(wiring)).into()
}

impl Ruleset {
    fn of(wiring: &Wiring) -> Self {
        let sets = Set::all_of(wiring);
        let speaks6 = !sets[1].elements.is_empty();
        let goto = |when: &[Match], chain| Rule {
            when: when.to_vec(),
            then: Then::Goto(chain),
        };
        let accept = |when: &[Match]| Rule {
            when: when.to_vec(),
            then: Then::Accept,
        };
        let drop = |counter| Rule {
            when: Vec::new(),
            then: Then::CountAndDrop(counter),
        };
        let mut output = vec![
            goto(&[Match::ToResolver], REFUSE),
            accept(&[Match::Loopback]),
            // Only in this direction: a connection that the decky has opened is judged at every
            // packet, so that none outlives the LAN that it led to.
            goto(&[Match::Reply, Match::State(State::Established)], ANSWER),
        ];
        let related = Match::State(State::Related);
        for protocol in [Protocol::Icmp, Protocol::Icmp6] {
            output.push(goto(&[related, Match::Protocol(protocol)], ANSWER));
        }
        // How the kernel answers a segment that belongs to no connection. No program can send one.
        output.push(goto(&[Match::State(State::Invalid), Match::Reset], ANSWER));
        if speaks6 {
            for kind in [Icmp6::Solicitation, Icmp6::Advertisement] {
                output.push(accept(&[Match::Icmp6(kind), Match::FromLink]));
            }
            // The kernel's own, of which there is no end: no attempt to get out.
            output.push(Rule {
                when: vec![Match::Icmp6(Icmp6::GroupReport)],
                then: Then::Drop,
            });
        }
        output.extend([
            goto(&[Match::To(Family::V4, NEVER4)], REFUSE),
            goto(&[Match::To(Family::V6, NEVER6)], REFUSE),
            goto(&[Match::To(Family::V4, INSIDE4)], ONWARD),
            goto(&[Match::To(Family::V6, INSIDE6)], ONWARD),
            goto(&[], REFUSE),
        ]);
        let mut forward = Vec::new();
        if wiring.forwards {
            for (family, never) in [(Family::V4, NEVER4), (Family::V6, NEVER6)] {
                forward.push(goto(&[Match::From(family, never)], REFUSE));
                forward.push(goto(&[Match::To(family, never)], REFUSE));
            }
            for (family, inside) in [(Family::V4, INSIDE4), (Family::V6, INSIDE6)] {
                let within = [Match::From(family, inside), Match::To(family, inside)];
                forward.push(goto(&within, ONWARD));
            }
        }
        forward.push(goto(&[], REFUSE));
        let chain = |name, hook, rules| Chain { name, hook, rules };
        let chains = vec![
            chain(REFUSE, None, vec![drop(REFUSED)]),
            chain(FLOOD, None, vec![drop(FLOODED)]),
            chain(
                ONWARD,
                None,
                vec![
                    goto(&[Match::State(State::New), Match::Over(CONNECTIONS)], FLOOD),
                    goto(&[Match::Over(PACKETS)], FLOOD),
                    accept(&[]),
                ],
            ),
            chain(
                ANSWER,
                None,
                vec![
                    accept(&[
                        Match::Protocol(Protocol::Tcp),
                        Match::State(State::Established),
                    ]),
                    goto(&[Match::Over(ANSWERS)], FLOOD),
                    accept(&[]),
                ],
            ),
            chain("output", Some(Hook::Output), output),
            chain("forward", Some(Hook::Forward), forward),
        ];
        Self { sets, chains }
    }
}

impl Set {
    fn all_of(wiring: &Wiring) -> [Self; 4] {
        let (mut inside4, mut inside6) = (Vec::new(), Vec::new());
        for net in &wiring.inside {
            match net {
                IpNet::V4(net) => inside4.push(net.trunc()),
                IpNet::V6(net) => inside6.push(net.trunc()),
            }
        }
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
        let set = |name, family, ranges, elements| Self {
            name,
            family,
            ranges,
            elements,
        };
        // Ranges in a set must not overlap.
        let ranges4 = Ipv4Net::aggregate(&inside4).into_iter().map(IpNet::V4);
        let ranges6 = Ipv6Net::aggregate(&inside6).into_iter().map(IpNet::V6);
        let single4 = never4.into_iter().map(|ip| IpNet::from(IpAddr::V4(ip)));
        let single6 = never6.into_iter().map(|ip| IpNet::from(IpAddr::V6(ip)));
        [
            set(INSIDE4, Family::V4, true, ranges4.collect()),
            set(INSIDE6, Family::V6, true, ranges6.collect()),
            set(NEVER4, Family::V4, false, single4.collect()),
            set(NEVER6, Family::V6, false, single6.collect()),
        ]
    }

    /// How many elements there will ever be. Of a set that may grow, the kernel changes the order when it
    /// has time to, and with that what the table looks like. Ranges are in order by themselves.
    fn size(&self) -> Option<usize> {
        (!self.ranges && !self.elements.is_empty()).then_some(self.elements.len())
    }
}

// The form that people read: what the program nft takes, and gives back for what is loaded.

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {TABLE} {{")?;
        for counter in [REFUSED, FLOODED] {
            writeln!(f, "\tcounter {counter} {{\n\t\tpackets 0 bytes 0\n\t}}")?;
        }
        for set in &self.sets {
            write!(f, "{set}")?;
        }
        for chain in &self.chains {
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        writeln!(f, "\tset {} {{\n\t\ttype {kind}", self.name)?;
        if let Some(size) = self.size() {
            writeln!(f, "\t\tsize {size}")?;
        }
        if self.ranges {
            writeln!(f, "\t\tflags interval")?;
        }
        // An empty list is no list in that language.
        if !self.elements.is_empty() {
            let shown = |element: &IpNet| match self.ranges {
                true => element.to_string(),
                false => element.addr().to_string(),
            };
            let elements: Vec<_> = self.elements.iter().map(shown).collect();
            writeln!(f, "\t\telements = {{ {} }}", elements.join(", "))?;
        }
        writeln!(f, "\t}}")
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some(hook) = self.hook {
            let hook = match hook {
                Hook::Forward => "forward",
                Hook::Output => "output",
            };
            writeln!(
                f,
                "\t\ttype filter hook {hook} priority filter; policy drop;"
            )?;
        }
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for what in &self.when {
            write!(f, "{what} ")?;
        }
        match self.then {
            Then::Accept => write!(f, "accept"),
            Then::Drop => write!(f, "drop"),
            Then::CountAndDrop(counter) => write!(f, "counter name {counter} drop"),
            Then::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = |family: &Family| match family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        match self {
            Self::ToResolver => write!(f, "ip daddr {RESOLVER}"),
            Self::To(family, set) => write!(f, "{} daddr @{set}", ip(family)),
            Self::From(family, set) => write!(f, "{} saddr @{set}", ip(family)),
            Self::Loopback => write!(f, "oif \"lo\""),
            Self::Reply => write!(f, "ct direction reply"),
            Self::State(State::Invalid) => write!(f, "ct state invalid"),
            Self::State(State::Established) => write!(f, "ct state established"),
            Self::State(State::Related) => write!(f, "ct state related"),
            Self::State(State::New) => write!(f, "ct state new"),
            Self::Protocol(Protocol::Icmp) => write!(f, "meta l4proto icmp"),
            Self::Protocol(Protocol::Tcp) => write!(f, "meta l4proto tcp"),
            Self::Protocol(Protocol::Icmp6) => write!(f, "meta l4proto ipv6-icmp"),
            Self::Reset => write!(f, "tcp flags & (syn | rst) == rst"),
            Self::Icmp6(Icmp6::Solicitation) => write!(f, "icmpv6 type nd-neighbor-solicit"),
            Self::Icmp6(Icmp6::Advertisement) => write!(f, "icmpv6 type nd-neighbor-advert"),
            Self::Icmp6(Icmp6::GroupReport) => write!(f, "icmpv6 type mld2-listener-report"),
            Self::FromLink => write!(f, "ip6 hoplimit 255"),
            Self::Over(Limit { rate, burst }) => {
                write!(f, "limit rate over {rate}/second burst {burst} packets")
            }
        }
    }
}

#[cfg(test)]
mod tests;

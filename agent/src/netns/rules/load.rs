//! The rules in the kernel's own form (linux/netfilter/nf_tables.h), as one transaction: a table is
//! replaced whole, or stays as it was.
//!
//! Numbers are in the order of the network, but what a register is compared with stands as the
//! kernel holds it: connection states and links in the machine's order.

use std::io;
use std::net::IpAddr;

use domain::wiring::Wiring;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};

use super::{
    Chain, FLOODED, Family, Hook, Icmp6, Limit, Match, Protocol, REFUSED, RESOLVER, Rule, Ruleset,
    Set, TABLE, Then,
};
use crate::netns::Refused;
use crate::netns::netlink::{Message, Netlink, attribute};
use crate::netns::tables::{INET, SUBSYSTEM, header, terminated};

const NEW_TABLE: u16 = SUBSYSTEM;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const NEW_SET: u16 = SUBSYSTEM | 9;
const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
const NEW_OBJECT: u16 = SUBSYSTEM | 18;
/// Brackets of a transaction; the resource is the subsystem.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;

/// The register that everything goes through.
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;
const COUNTER: u32 = 1;
const ACCEPT: i32 = 1;
const DROP: i32 = 0;
const GOTO: i32 = -4;
/// Bases of what is read of a packet.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
/// Elements of one message: its attribute is bounded by 64 KiB.
const AT_ONCE: usize = 500;

/// Makes our table be what `wiring` asks for, with counters that go on from `held`. `stands` says whether
/// there is one: when that is not so, it is refused and nothing is changed.
pub(in crate::netns) fn load(
    netlink: &mut Netlink,
    wiring: &Wiring,
    held: Refused,
    stands: bool,
) -> io::Result<()> {
    let rules = Ruleset::of(wiring);
    let mut batch = Vec::new();
    let mut say = |kind, flags, body| batch.push(Message { kind, flags, body });
    say(BEGIN, 0, bracket());
    if stands {
        say(DELETE_TABLE, 0, named(&[])?);
    }
    let exclusive = if stands { 0 } else { NLM_F_EXCL };
    say(NEW_TABLE, NLM_F_CREATE | exclusive, named(&[])?);
    for (counter, packets) in [(REFUSED, held.refused), (FLOODED, held.flooded)] {
        say(NEW_OBJECT, NLM_F_CREATE, object(counter, packets)?);
    }
    for (number, set) in (1..).zip(&rules.sets) {
        say(NEW_SET, NLM_F_CREATE, set.declaration(number)?);
        let keys = set.keys();
        for keys in keys.chunks(AT_ONCE) {
            say(NEW_ELEMENTS, NLM_F_CREATE, set.elements(number, keys)?);
        }
    }
    for chain in &rules.chains {
        say(NEW_CHAIN, NLM_F_CREATE, chain.declaration()?);
    }
    for chain in &rules.chains {
        for rule in &chain.rules {
            let body = rule.body(chain.name)?;
            say(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, body);
        }
    }
    say(END, 0, bracket());
    netlink.transact(&batch)
}

/// A header of no family, with the subsystem that the transaction is of.
fn bracket() -> Vec<u8> {
    let [high, low] = (SUBSYSTEM >> 8).to_be_bytes();
    vec![0, 0, high, low]
}

/// The body of a message about our table: its name, then further names, each as the next attribute.
fn named(more: &[&str]) -> io::Result<Vec<u8>> {
    let mut body = header(INET).to_vec();
    for (kind, name) in (1..).zip([TABLE].iter().chain(more)) {
        attribute(&mut body, kind, &terminated(name))?;
    }
    Ok(body)
}

/// Attributes that stand inside of another one.
#[derive(Default)]
struct Nest(Vec<u8>);

impl Nest {
    fn bytes(mut self, kind: u16, value: &[u8]) -> io::Result<Self> {
        attribute(&mut self.0, kind, value)?;
        Ok(self)
    }

    fn number(self, kind: u16, value: u32) -> io::Result<Self> {
        self.bytes(kind, &value.to_be_bytes())
    }

    fn long(self, kind: u16, value: u64) -> io::Result<Self> {
        self.bytes(kind, &value.to_be_bytes())
    }

    fn nest(self, kind: u16, inner: Self) -> io::Result<Self> {
        /// Says that the value is attributes again (linux/netlink.h).
        const NESTED: u16 = 1 << 15;
        self.bytes(kind | NESTED, &inner.0)
    }

    /// A value of a register.
    fn value(self, kind: u16, value: &[u8]) -> io::Result<Self> {
        self.nest(kind, Self::default().bytes(1, value)?)
    }

    fn after(self, mut body: Vec<u8>) -> Vec<u8> {
        body.extend(self.0);
        body
    }
}

fn object(counter: &str, packets: u64) -> io::Result<Vec<u8>> {
    let counts = Nest::default().long(1, 0)?.long(2, packets)?;
    let rest = Nest::default().number(3, COUNTER)?.nest(4, counts)?;
    Ok(rest.after(named(&[counter])?))
}

impl Set {
    fn declaration(&self, number: u32) -> io::Result<Vec<u8>> {
        const INTERVAL: u32 = 4;
        // The numbers of the types are nft's own, which it shows a set by.
        let (kind, length) = match self.family {
            Family::V4 => (7, 4),
            Family::V6 => (8, 16),
        };
        let mut rest = Nest::default()
            .number(3, if self.ranges { INTERVAL } else { 0 })?
            .number(4, kind)?
            .number(5, length)?
            .number(10, number)?;
        if let Some(size) = self.size() {
            let size = u32::try_from(size).map_err(io::Error::other)?;
            rest = rest.nest(9, Nest::default().number(1, size)?)?;
        }
        Ok(rest.after(named(&[self.name])?))
    }

    /// Every key, and whether a range ends before it. Ranges are a line of keys at which it is
    /// decided anew.
    fn keys(&self) -> Vec<(Vec<u8>, bool)> {
        if !self.ranges {
            let keys = self.elements.iter().map(|net| (octets(net.addr()), false));
            return keys.collect();
        }
        let mut keys = Vec::new();
        for net in &self.elements {
            let first = octets(net.network());
            if keys.is_empty() && first.iter().any(|byte| *byte != 0) {
                keys.push((vec![0; first.len()], true));
            }
            keys.push((first, false));
            // Behind the last address of all there is none.
            keys.extend(next(net).map(|end| (end, true)));
        }
        keys
    }

    fn elements(&self, number: u32, keys: &[(Vec<u8>, bool)]) -> io::Result<Vec<u8>> {
        const ENDS: u32 = 1;
        let mut list = Nest::default();
        for (key, ends) in keys {
            let mut element = Nest::default().value(1, key)?;
            if *ends {
                element = element.number(3, ENDS)?;
            }
            list = list.nest(1, element)?;
        }
        let rest = Nest::default().nest(3, list)?.number(4, number)?;
        Ok(rest.after(named(&[self.name])?))
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The address behind a range.
fn next(net: &IpNet) -> Option<Vec<u8>> {
    Some(match net {
        IpNet::V4(net) => {
            let last = net.broadcast().to_bits();
            last.checked_add(1)?.to_be_bytes().to_vec()
        }
        IpNet::V6(net) => {
            let last = net.broadcast().to_bits();
            last.checked_add(1)?.to_be_bytes().to_vec()
        }
    })
}

impl Chain {
    fn declaration(&self) -> io::Result<Vec<u8>> {
        let Some(hook) = self.hook else {
            return named_chain(self.name, Nest::default());
        };
        let number = match hook {
            Hook::Forward => 2,
            Hook::Output => 3,
        };
        // The priority `filter` is 0.
        let place = Nest::default().number(1, number)?.number(2, 0)?;
        let policy = DROP.cast_unsigned();
        let rest = Nest::default()
            .nest(4, place)?
            .number(5, policy)?
            .bytes(7, &terminated("filter"))?;
        named_chain(self.name, rest)
    }
}

/// The body of a message about a chain, whose name is the third attribute.
fn named_chain(name: &str, rest: Nest) -> io::Result<Vec<u8>> {
    let mut body = named(&[])?;
    attribute(&mut body, 3, &terminated(name))?;
    Ok(rest.after(body))
}

impl Rule {
    fn body(&self, chain: &str) -> io::Result<Vec<u8>> {
        let mut program = Program::default();
        for what in &self.when {
            what.compile(&mut program)?;
        }
        match self.then {
            Then::Accept => program.end(ACCEPT, None)?,
            Then::Drop => program.end(DROP, None)?,
            Then::CountAndDrop(counter) => {
                let counted = Nest::default().number(1, COUNTER)?;
                program.step("objref", counted.bytes(2, &terminated(counter))?)?;
                program.end(DROP, None)?;
            }
            Then::Goto(other) => program.end(GOTO, Some(other))?,
        }
        Ok(Nest::default().nest(4, program.0)?.after(named(&[chain])?))
    }
}

/// What a rule does with a packet, step by step.
#[derive(Default)]
struct Program(Nest);

impl Program {
    fn step(&mut self, name: &str, data: Nest) -> io::Result<()> {
        let step = Nest::default().bytes(1, &terminated(name))?.nest(2, data)?;
        self.0 = std::mem::take(&mut self.0).nest(1, step)?;
        Ok(())
    }

    /// Something about the packet, by its key, into the register.
    fn read(&mut self, of: &str, key: u32) -> io::Result<()> {
        // Both kinds have the register and the key in one order.
        self.step(of, Nest::default().number(1, REGISTER)?.number(2, key)?)
    }

    fn read_bytes(&mut self, base: u32, offset: u32, length: u32) -> io::Result<()> {
        let place = Nest::default().number(1, REGISTER)?.number(2, base)?;
        self.step("payload", place.number(3, offset)?.number(4, length)?)
    }

    fn compare(&mut self, operator: u32, value: &[u8]) -> io::Result<()> {
        let left = Nest::default().number(1, REGISTER)?.number(2, operator)?;
        self.step("cmp", left.value(3, value)?)
    }

    fn is(&mut self, value: &[u8]) -> io::Result<()> {
        self.compare(0, value)
    }

    fn is_not(&mut self, value: &[u8]) -> io::Result<()> {
        self.compare(1, value)
    }

    fn mask(&mut self, mask: &[u8]) -> io::Result<()> {
        let length = u32::try_from(mask.len()).map_err(io::Error::other)?;
        let registers = Nest::default().number(1, REGISTER)?.number(2, REGISTER)?;
        let masked = registers.number(3, length)?.value(4, mask)?;
        self.step("bitwise", masked.value(5, &vec![0; mask.len()])?)
    }

    fn is_in(&mut self, set: &str) -> io::Result<()> {
        let looked_up = Nest::default().bytes(1, &terminated(set))?;
        self.step("lookup", looked_up.number(2, REGISTER)?)
    }

    /// That the packet is of a family, and an address of it in the register.
    fn address(&mut self, family: Family, destination: bool) -> io::Result<()> {
        const PROTOCOL: u32 = 15;
        let (number, offset, length) = match (family, destination) {
            (Family::V4, false) => (2, 12, 4),
            (Family::V4, true) => (2, 16, 4),
            (Family::V6, false) => (10, 8, 16),
            (Family::V6, true) => (10, 24, 16),
        };
        self.read("meta", PROTOCOL)?;
        self.is(&[number])?;
        self.read_bytes(NETWORK, offset, length)
    }

    fn is_of(&mut self, protocol: Protocol) -> io::Result<()> {
        const ABOVE: u32 = 16;
        self.read("meta", ABOVE)?;
        self.is(&[protocol as u8])
    }

    fn end(&mut self, code: i32, chain: Option<&str>) -> io::Result<()> {
        let mut verdict = Nest::default().number(1, code.cast_unsigned())?;
        if let Some(chain) = chain {
            verdict = verdict.bytes(2, &terminated(chain))?;
        }
        let data = Nest::default().nest(2, verdict)?;
        let set = Nest::default().number(1, VERDICT)?.nest(2, data)?;
        self.step("immediate", set)
    }
}

impl Match {
    fn compile(self, program: &mut Program) -> io::Result<()> {
        const LINK: u32 = 5;
        const STATE: u32 = 0;
        const DIRECTION: u32 = 1;
        match self {
            Self::ToResolver => {
                program.address(Family::V4, true)?;
                program.is(&RESOLVER.octets())
            }
            Self::To(family, set) => {
                program.address(family, true)?;
                program.is_in(set)
            }
            Self::From(family, set) => {
                program.address(family, false)?;
                program.is_in(set)
            }
            Self::Loopback => {
                // It is the first link of every namespace.
                program.read("meta", LINK)?;
                program.is(&1_u32.to_ne_bytes())
            }
            Self::Reply => {
                program.read("ct", DIRECTION)?;
                program.is(&[1])
            }
            Self::State(state) => {
                program.read("ct", STATE)?;
                program.mask(&(state as u32).to_ne_bytes())?;
                program.is_not(&[0; 4])
            }
            Self::Protocol(protocol) => program.is_of(protocol),
            Self::Reset => {
                const FLAGS: u32 = 13;
                const RST: u8 = 4;
                const SYN: u8 = 2;
                program.is_of(Protocol::Tcp)?;
                program.read_bytes(TRANSPORT, FLAGS, 1)?;
                program.mask(&[SYN | RST])?;
                program.is(&[RST])
            }
            Self::Icmp6(kind) => {
                program.is_of(Protocol::Icmp6)?;
                program.read_bytes(TRANSPORT, 0, 1)?;
                program.is(&[kind.number()])
            }
            Self::FromLink => {
                const PROTOCOL: u32 = 15;
                const HOPS: u32 = 7;
                program.read("meta", PROTOCOL)?;
                program.is(&[10])?;
                program.read_bytes(NETWORK, HOPS, 1)?;
                program.is(&[255])
            }
            Self::Over(Limit { rate, burst }) => {
                const INVERTED: u32 = 1;
                let paced = Nest::default().long(1, rate.into())?.long(2, 1)?;
                let paced = paced.number(3, burst)?.number(4, 0)?;
                program.step("limit", paced.number(5, INVERTED)?)
            }
        }
    }
}

impl Icmp6 {
    const fn number(self) -> u8 {
        self as u8
    }
}

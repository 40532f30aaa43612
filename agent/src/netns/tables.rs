//! What the kernel's packet filter tells of our table: whether it is there, whether it is as it was,
//! how often the namespace's rules were changed, what was refused; and has it replace our table.

use std::io;

use domain::wiring::Wiring;
use netlink_sys::protocols::NETLINK_NETFILTER;
use sha2::{Digest as _, Sha256};

use super::netlink::{Netlink, attribute, find};
use super::rules::{self, FLOODED, REFUSED, SETS, TABLE};

/// The subsystem of the packet filter's tables, in the upper byte of a message's type.
pub(super) const SUBSYSTEM: u16 = 10 << 8;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const GET_RULE: u16 = SUBSYSTEM | 7;
const GET_SET: u16 = SUBSYSTEM | 10;
const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
const GET_GENERATION: u16 = SUBSYSTEM | 16;
const GET_OBJECT: u16 = SUBSYSTEM | 19;
/// Tables of this family hold rules for IPv4 and IPv6.
pub(super) const INET: u8 = 1;
const UNSPECIFIED: u8 = 0;
const COUNTER: u32 = 1;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// Those of IPv4 and IPv6.
    Inet = INET,
    /// Those of IPv4.
    Ipv4 = 2,
}

/// How many packets of a decky were held back since its rules stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refused {
    /// Packets to where it may not go.
    pub refused: u64,
    /// Packets beyond what it may send.
    pub flooded: u64,
}

/// A socket to the packet filter of a namespace.
pub(super) struct Tables(Netlink);

impl Tables {
    pub(super) fn open() -> io::Result<Self> {
        Netlink::open(NETLINK_NETFILTER).map(Self)
    }

    /// Makes our table be what `wiring` asks for, with counters that go on.
    pub(super) fn replace(&mut self, wiring: &Wiring) -> io::Result<()> {
        let (held, stands) = (self.refused()?, self.stands()?);
        rules::load(&mut self.0, wiring, held, stands)
    }

    /// Counts the changes of all rules in the namespace, by whomever.
    pub(super) fn generation(&mut self) -> io::Result<u32> {
        let mut generation = None;
        self.0
            .ask(GET_GENERATION, 0, &header(UNSPECIFIED), |_, body| {
                let value = body.get(4..).and_then(|attributes| find(attributes, 1));
                generation = value
                    .and_then(|value| value.first_chunk())
                    .map(|bytes| u32::from_be_bytes(*bytes));
                Ok(())
            })?;
        generation.ok_or_else(|| io::Error::other("the kernel told no generation"))
    }

    /// Whether our table is there.
    pub(super) fn stands(&mut self) -> io::Result<bool> {
        self.has(Family::Inet, TABLE)
    }

    fn has(&mut self, family: Family, table: &str) -> io::Result<bool> {
        let mut body = header(family as u8).to_vec();
        attribute(&mut body, 1, &terminated(table))?;
        match self.0.ask(GET_TABLE, 0, &body, |_, _| Ok(())) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// SHA-256 of all that our table is made of, in the kernel's own words: chains, rules, sets and
    /// their elements, with the numbers by which it tells them apart. Counters are no part of it.
    pub(super) fn fingerprint(&mut self) -> io::Result<[u8; 32]> {
        let mut digest = Sha256::new();
        for kind in [GET_CHAIN, GET_RULE, GET_SET] {
            for part in self.parts(kind, Family::Inet, TABLE)? {
                digest.update(part);
            }
        }
        for set in SETS {
            let mut body = header(INET).to_vec();
            attribute(&mut body, 1, &terminated(TABLE))?;
            attribute(&mut body, 2, &terminated(set))?;
            let elements = self
                .0
                .dump(GET_ELEMENTS, &body, |_, body| Ok(behind_header(body)));
            match elements {
                Ok(elements) => elements.iter().for_each(|part| digest.update(part)),
                // Somebody has taken the set away: that is a fingerprint too.
                Err(error) if error.kind() == io::ErrorKind::NotFound => digest.update(b"gone"),
                Err(error) => return Err(error),
            }
        }
        Ok(digest.finalize().into())
    }

    /// What a table has of one kind. Not every kernel looks at which table was asked for.
    fn parts(&mut self, kind: u16, family: Family, table: &str) -> io::Result<Vec<Vec<u8>>> {
        let name = terminated(table);
        let mut body = header(family as u8).to_vec();
        attribute(&mut body, 1, &name)?;
        self.0.dump(kind, &body, |_, body| {
            let ours = |part: &Vec<u8>| find(part, 1) == Some(&name[..]);
            Ok(behind_header(body).filter(ours))
        })
    }

    /// What our table has held back; nothing when it is not there.
    pub(super) fn refused(&mut self) -> io::Result<Refused> {
        Ok(Refused {
            refused: self.counter(REFUSED)?,
            flooded: self.counter(FLOODED)?,
        })
    }

    fn counter(&mut self, name: &str) -> io::Result<u64> {
        let mut body = header(INET).to_vec();
        attribute(&mut body, 1, &terminated(TABLE))?;
        attribute(&mut body, 2, &terminated(name))?;
        attribute(&mut body, 3, &COUNTER.to_be_bytes())?;
        let mut packets = 0;
        let asked = self.0.ask(GET_OBJECT, 0, &body, |_, body| {
            let data = body.get(4..).and_then(|attributes| find(attributes, 4));
            let value = data.and_then(|data| find(data, 2)?.first_chunk());
            packets = value.map_or(0, |bytes| u64::from_be_bytes(*bytes));
            Ok(())
        });
        match asked {
            Ok(()) => Ok(packets),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// What is written beside each rule of a table in the namespace of the calling thread, empty where
/// nothing is; none when there is no such table.
pub fn comments(family: Family, table: &str) -> io::Result<Option<Vec<String>>> {
    let mut tables = Tables::open()?;
    if !tables.has(family, table)? {
        return Ok(None);
    }
    let rules = tables.parts(GET_RULE, family, table)?;
    Ok(Some(rules.iter().map(|rule| comment(rule)).collect()))
}

/// The comment of a rule, among what programs keep with it: kind, length and value, one after the
/// other.
fn comment(rule: &[u8]) -> String {
    const KEPT: u16 = 7;
    const COMMENT: u8 = 0;
    let mut rest = find(rule, KEPT).unwrap_or_default();
    while let Some((&[kind, length], behind)) = rest.split_first_chunk() {
        let Some((value, next)) = behind.split_at_checked(usize::from(length)) else {
            break;
        };
        if kind == COMMENT {
            let text = value.strip_suffix(b"\0").unwrap_or(value);
            return String::from_utf8_lossy(text).into_owned();
        }
        rest = next;
    }
    String::new()
}

/// What every message to the packet filter begins with: family, version, resource.
pub(super) const fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// The attributes of an answer. The header before them tells the generation.
fn behind_header(body: &[u8]) -> Option<Vec<u8>> {
    body.get(4..).map(<[u8]>::to_vec)
}

pub(super) fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_question_that_the_kernel_refuses_is_no_table_that_is_not_there() {
        let nowhere = comments(Family::Inet, "nobody-has-made-it").expect("the tests run as root");
        assert_eq!(nowhere, None);
        let refused = comments(Family::Inet, &"x".repeat(300)).expect_err("no name is so long");
        let long = rustix::io::Errno::RANGE.raw_os_error();
        assert_eq!(refused.raw_os_error(), Some(long));
    }

    #[test]
    fn a_comment_is_found_behind_something_else() {
        let mut rule = Vec::new();
        attribute(&mut rule, 7, b"\x01\x02ab\x00\x03hi\0").expect("it is short");
        assert_eq!(comment(&rule), "hi");
        assert_eq!(comment(&[]), "");
    }

    proptest! {
        #[test]
        fn no_rule_makes_it_panic(kept: Vec<u8>) {
            let mut rule = Vec::new();
            attribute(&mut rule, 7, &kept).expect("it is short");
            comment(&rule);
        }
    }
}

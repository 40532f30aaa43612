//! What the kernel's packet filter tells at once: whether our table is there, how often the
//! namespace's rules were changed, what was refused. Rules themselves are the program nft's.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::netlink::{Netlink, attribute, find};
use super::rules::{FLOODED, REFUSED, TABLE};

/// The subsystem of the packet filter's tables, in the upper byte of a message's type.
const SUBSYSTEM: u16 = 10 << 8;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const GET_GENERATION: u16 = SUBSYSTEM | 16;
const GET_OBJECT: u16 = SUBSYSTEM | 19;
/// Tables of this family hold rules for IPv4 and IPv6.
const INET: u8 = 1;
const UNSPECIFIED: u8 = 0;
const COUNTER: u32 = 1;

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
        let mut body = header(INET).to_vec();
        attribute(&mut body, 1, &terminated(TABLE))?;
        match self.0.ask(GET_TABLE, 0, &body, |_, _| Ok(())) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
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

/// What every message to the packet filter begins with: family, version, resource.
const fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

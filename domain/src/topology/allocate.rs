//! The allocators: addresses of one LAN, and subnets for LANs.
//!
//! They remember nothing: whoever allocates says what is taken, and stores what was handed out in
//! one transaction.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;

use super::Topology;
use crate::id::LanId;

/// The address that the engine itself takes in a LAN: the first host address.
pub fn gateway(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(subnet.network().to_bits().saturating_add(1))
}

/// Whether `address` may be a decky's in `subnet`.
pub fn check(subnet: Ipv4Net, address: Ipv4Addr) -> Result<(), AddressRefused> {
    if !subnet.contains(&address) {
        return Err(AddressRefused::OutOfSubnet);
    }
    if address == subnet.network() || address == subnet.broadcast() || address == gateway(subnet) {
        return Err(AddressRefused::Reserved);
    }
    Ok(())
}

/// Why an address cannot be a decky's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefused {
    /// It lies elsewhere.
    #[error("address lies outside the subnet")]
    OutOfSubnet,
    /// It is the network's, the broadcast's or the engine's.
    #[error("address is the subnet's network, broadcast or gateway address")]
    Reserved,
    /// Another decky has it.
    #[error("address is taken")]
    Taken,
}

/// Hands out the addresses of one LAN, lowest first; never the network's, the broadcast's or
/// the gateway's.
#[derive(Debug, Clone)]
pub struct AddressAllocator {
    subnet: Ipv4Net,
    taken: BTreeSet<Ipv4Addr>,
    cursor: Option<Ipv4Addr>,
}

impl AddressAllocator {
    /// An allocator of an empty LAN.
    pub fn new(subnet: Ipv4Net) -> Self {
        Self {
            subnet,
            taken: BTreeSet::new(),
            cursor: None,
        }
    }

    /// The allocator of what is free in one LAN of a topology; none when it has no such LAN.
    pub fn of(topology: &Topology, lan: LanId) -> Option<Self> {
        let mut allocator = Self::new(topology.lan(lan)?.subnet);
        // What lies outside the range takes nothing of it.
        let there = topology.edges.iter().filter(|edge| edge.lan == lan);
        allocator.taken.extend(there.map(|edge| edge.address));
        Some(allocator)
    }

    /// Marks an address as taken.
    pub fn reserve(&mut self, address: Ipv4Addr) -> Result<(), AddressRefused> {
        check(self.subnet, address)?;
        if self.taken.insert(address) {
            Ok(())
        } else {
            Err(AddressRefused::Taken)
        }
    }

    /// Gives an address back.
    pub fn release(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address);
    }

    /// Whether `address` could be reserved.
    pub fn is_free(&self, address: Ipv4Addr) -> bool {
        check(self.subnet, address).is_ok() && !self.taken.contains(&address)
    }

    /// Takes the next free address: onward from the last one handed out, then once from the
    /// start for what was released. None when the LAN is full.
    pub fn next_free(&mut self) -> Option<Ipv4Addr> {
        let first = gateway(self.subnet).to_bits().checked_add(1)?;
        let end = self.subnet.broadcast().to_bits();
        let from = self
            .cursor
            .map_or(first, |last| last.to_bits().saturating_add(1));
        let found = (from..end)
            .chain(first..from.min(end))
            .map(Ipv4Addr::from_bits)
            .find(|address| !self.taken.contains(address))?;
        self.taken.insert(found);
        self.cursor = Some(found);
        Some(found)
    }
}

/// The range out of which subnets are handed out: a /24 at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubnetBase(Ipv4Net);

/// A text that is no range for subnets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no IPv4 range from /12 to /24 with zero host bits, such as 172.20.0.0/16")]
pub struct InvalidSubnetBase {
    text: String,
}

impl SubnetBase {
    const SLOT: u8 = 24;

    /// A range of 1 (/24) to 4096 (/12) subnets.
    pub fn new(range: Ipv4Net) -> Result<Self, InvalidSubnetBase> {
        if (12..=Self::SLOT).contains(&range.prefix_len()) && range.network() == range.addr() {
            Ok(Self(range))
        } else {
            Err(InvalidSubnetBase {
                text: range.to_string(),
            })
        }
    }

    /// The range.
    pub const fn range(self) -> Ipv4Net {
        self.0
    }

    /// How many subnets it has.
    pub fn slots(self) -> u32 {
        1 << (Self::SLOT - self.0.prefix_len())
    }

    /// Its `index`-th subnet.
    fn slot(self, index: u32) -> Option<Ipv4Net> {
        let first = self.0.network().to_bits().checked_add(index << 8)?;
        Ipv4Net::new(Ipv4Addr::from_bits(first), Self::SLOT).ok()
    }
}

impl Default for SubnetBase {
    fn default() -> Self {
        Self(Ipv4Net::new_assert(Ipv4Addr::new(172, 20, 0, 0), 16))
    }
}

impl fmt::Display for SubnetBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for SubnetBase {
    type Err = InvalidSubnetBase;

    /// Reads CIDR, and the short forms `172.20` (a /16) and `172.20.4.0` (a /24).
    fn from_str(text: &str) -> Result<Self, InvalidSubnetBase> {
        let short = text.strip_suffix('.').unwrap_or(text);
        let cidr = match (short.contains('/'), short.split('.').count()) {
            (true, _) => text.to_owned(),
            (false, 2) => format!("{short}.0.0/16"),
            (false, _) => format!("{text}/24"),
        };
        cidr.parse()
            .ok()
            .and_then(|range| Self::new(range).ok())
            .ok_or_else(|| InvalidSubnetBase {
                text: text.chars().take(64).collect(),
            })
    }
}

/// Hands out the /24 subnets of a range, lowest first. What is reserved counts by range: no
/// subnet that it hands out overlaps one that is taken, whatever their sizes.
#[derive(Debug, Clone)]
pub struct SubnetAllocator {
    base: SubnetBase,
    taken: Vec<Ipv4Net>,
    next: u32,
}

impl SubnetAllocator {
    /// An allocator of what `reserved` leaves of `base`.
    pub fn new(base: SubnetBase, reserved: impl IntoIterator<Item = Ipv4Net>) -> Self {
        Self {
            base,
            taken: reserved.into_iter().map(|net| net.trunc()).collect(),
            next: 0,
        }
    }

    /// Marks a range as taken. Taking it again changes nothing.
    pub fn reserve(&mut self, net: Ipv4Net) {
        self.taken.push(net.trunc());
    }

    /// Whether nothing that is taken overlaps `net`.
    pub fn is_free(&self, net: Ipv4Net) -> bool {
        let overlaps = |taken: &Ipv4Net| taken.contains(&net.trunc()) || net.contains(taken);
        !self.taken.iter().any(overlaps)
    }

    /// Takes the next free subnet. None when the range is full.
    pub fn next_free(&mut self) -> Option<Ipv4Net> {
        while self.next < self.base.slots() {
            let slot = self.base.slot(self.next)?;
            self.next += 1;
            if self.is_free(slot) {
                self.taken.push(slot);
                return Some(slot);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;

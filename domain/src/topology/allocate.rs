//! The address allocator of one LAN.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

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

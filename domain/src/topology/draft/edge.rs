//! The edges of a draft: which LAN each leads to, and the address and the hardware address that it
//! gets there.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Draft, DraftDecky, DraftEdge, DraftLan, Resolver, clip};
use crate::id::{DeckyId, EdgeId, LanId};
use crate::persona::Mac;
use crate::topology::allocate::{AddressAllocator, AddressRefused, check};
use crate::topology::finding::{Finding, FindingCode as Code};
use crate::topology::{Decky, Edge, Lan};

/// An edge that was read, before an address is chosen where none was asked for.
pub(super) struct PendingEdge {
    decky_index: usize,
    index: usize,
    decky: DeckyId,
    lan: LanId,
    address: Option<Ipv4Addr>,
    mac: Mac,
    home: bool,
}

/// Where edges may lead to, by the names of the LANs.
pub(super) struct Targets<'a> {
    read: BTreeMap<String, (LanId, Ipv4Net)>,
    /// Also those that could not be read. By a look-up: a document may hold a hundred thousand LANs
    /// and as many edges that lead to none of them.
    written: BTreeMap<String, &'a DraftLan>,
}

impl<'a> Targets<'a> {
    pub(super) fn of(lans: &[Lan], draft: &'a Draft) -> Self {
        let read = lans
            .iter()
            .map(|lan| (lan.name.folded(), (lan.id, lan.subnet)))
            .collect();
        let mut written = BTreeMap::new();
        for lan in &draft.lans {
            written.entry(lan.name.to_ascii_lowercase()).or_insert(lan);
        }
        Self { read, written }
    }
}

impl Resolver<'_> {
    /// The edges of the decky that stands at `index`, as far as they can be read.
    pub(super) fn read_edges(
        &mut self,
        index: usize,
        written: &DraftDecky,
        decky: &Decky,
        targets: &Targets<'_>,
    ) -> Vec<PendingEdge> {
        let has_home = written.edges.iter().any(|edge| edge.home == Some(true));
        let most = self.limits.edges_per_decky;
        let mut pending = Vec::new();
        for (number, edge) in written.edges.iter().take(most).enumerate() {
            // Written only for a finding: a large draft has thousands of edges and hardly one.
            let target = || format!("decky {}", decky.name);
            let path = |field: &str| format!("deckies[{index}].edges[{number}].{field}");
            let lan = edge.lan.to_ascii_lowercase();
            let Some((lan, subnet)) = targets.read.get(&lan).copied() else {
                let lan = targets.written.get(&lan).copied();
                self.findings.extend(nowhere(lan, edge, path, target()));
                self.incomplete.insert(decky.id);
                continue;
            };
            let address = match address(edge, subnet) {
                Ok(address) => address,
                Err((code, message)) => {
                    let finding = Finding::error(code, target(), path("address"), message);
                    self.findings.push(finding);
                    self.incomplete.insert(decky.id);
                    continue;
                }
            };
            let mac = match edge.mac.as_deref().map(str::parse::<Mac>) {
                None => decky.persona.mac(&decky.seed, number),
                Some(Ok(mac)) => mac,
                Some(Err(error)) => {
                    self.value_finding(&target(), path("mac"), &error.to_string());
                    decky.persona.mac(&decky.seed, number)
                }
            };
            pending.push(PendingEdge {
                decky_index: index,
                index: number,
                decky: decky.id,
                lan,
                address,
                mac,
                home: edge.home.unwrap_or(!has_home && number == 0),
            });
        }
        pending
    }

    /// Gives an address to those that asked for none.
    pub(super) fn settle(
        &mut self,
        pending: Vec<PendingEdge>,
        lans: &[Lan],
        draft: &Draft,
    ) -> Vec<Edge> {
        let mut allocators: BTreeMap<LanId, AddressAllocator> = lans
            .iter()
            .map(|lan| (lan.id, AddressAllocator::new(lan.subnet)))
            .collect();
        // Addresses that were asked for are taken before any is chosen, whatever the order. A clash
        // is the validator's to report, so both edges are kept.
        for edge in &pending {
            if let (Some(address), Some(allocator)) = (edge.address, allocators.get_mut(&edge.lan))
            {
                match allocator.reserve(address) {
                    Ok(())
                    | Err(
                        AddressRefused::Taken
                        | AddressRefused::OutOfSubnet
                        | AddressRefused::Reserved,
                    ) => {}
                }
            }
        }
        let mut edges = Vec::with_capacity(pending.len());
        for edge in pending {
            let PendingEdge {
                decky_index,
                index,
                decky,
                lan,
                address,
                mac,
                home,
            } = edge;
            let address = address.or_else(|| {
                allocators
                    .get_mut(&lan)
                    .and_then(AddressAllocator::next_free)
            });
            let Some(address) = address else {
                self.findings.push(Finding::error(
                    Code::IpExhausted,
                    format!("decky {}", clip(&draft.deckies[decky_index].name)),
                    format!("deckies[{decky_index}].edges[{index}]"),
                    "no address is left in the LAN; give it a larger subnet",
                ));
                self.incomplete.insert(decky);
                continue;
            };
            edges.push(Edge {
                id: EdgeId::new(self.entropy.uuid()),
                decky,
                lan,
                address,
                mac,
                home,
            });
        }
        edges
    }
}

/// The address that an edge asks for, if it asks for one, or what is wrong with it.
fn address(edge: &DraftEdge, subnet: Ipv4Net) -> Result<Option<Ipv4Addr>, (Code, String)> {
    // An empty text says what leaving it out says.
    let Some(text) = edge.address.as_deref().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let Ok(address) = text.parse::<Ipv4Addr>() else {
        let message = format!("{:?} is no IPv4 address", clip(text));
        return Err((Code::IpMalformed, message));
    };
    match check(subnet, address) {
        Ok(()) | Err(AddressRefused::Taken) => Ok(Some(address)),
        Err(error @ AddressRefused::OutOfSubnet) => {
            let message = format!("{error} {subnet} of LAN {}", clip(&edge.lan));
            Err((Code::IpOutOfSubnet, message))
        }
        Err(error @ AddressRefused::Reserved) => Err((Code::IpReserved, error.to_string())),
    }
}

/// What is wrong with an edge whose LAN was not read, be it written or not.
fn nowhere(
    lan: Option<&DraftLan>,
    edge: &DraftEdge,
    path: impl Fn(&str) -> String,
    target: String,
) -> Option<Finding> {
    let Some(lan) = lan else {
        return Some(Finding::error(
            Code::EdgeUnknown,
            target,
            path("lan"),
            format!("there is no LAN named {:?}", clip(&edge.lan)),
        ));
    };
    // The LAN's own fault is found at the LAN. An address has no meaning without its subnet.
    let address = edge.address.as_ref().filter(|text| !text.is_empty())?;
    Some(Finding::error(
        Code::IpMalformed,
        target,
        path("address"),
        format!(
            "{:?} is no address of LAN {}, whose subnet {:?} cannot be read",
            clip(address),
            clip(&edge.lan),
            clip(&lan.subnet)
        ),
    ))
}

//! Drafts: a topology as a person wrote it, before anything in it is believed.
//!
//! [`resolve`] turns a draft into a [`Topology`]: references by name become ids, what was left
//! out is chosen (addresses, hardware addresses, seeds), and everything malformed is a finding.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::allocate::{AddressAllocator, AddressRefused};
use super::finding::{Finding, FindingCode as Code, sort};
use super::validate::Limits;
use super::{Decky, Edge, Lan, LanDriver, LanKind, Protocol, Publish, Topology};
use crate::id::{DeckyId, EdgeId, HostId, LanId, TopologyId};
use crate::name::{DeckyName, Hostname, LanName, TopologyName};
use crate::persona::{Mac, Persona};
use crate::revision::Revision;
use crate::seed::Seed;
use crate::service::{ServiceKind, ServiceOptions, ServiceSet};

mod export;
mod guess;
mod rebase;
mod written;

use guess::{seeded_hostname, usual_persona};
pub use written::{Draft, DraftDecky, DraftEdge, DraftLan, DraftPublish};

/// Where [`resolve`] gets what it cannot derive: random bits for ids and seeds.
pub trait Entropy {
    /// A fresh UUID.
    fn uuid(&mut self) -> uuid::Uuid;
    /// 32 fresh random bytes.
    fn bytes(&mut self) -> [u8; 32];
}

/// What [`resolve`] makes of a draft.
#[derive(Debug)]
pub struct Resolved {
    /// What could be read. Only whole when there are no findings.
    pub topology: Topology,
    /// Everything that could not, sorted.
    pub findings: Vec<Finding>,
    /// Deckies of which an edge could not be read: rules about edges have nothing to say on them.
    pub incomplete: BTreeSet<DeckyId>,
    /// Where each LAN of the topology stands in the draft: those that could not be read are left
    /// out.
    pub lan_places: Vec<usize>,
    /// Where each decky of the topology stands in the draft.
    pub decky_places: Vec<usize>,
    /// Whether a LAN of the draft could not be read.
    pub lacks_lan: bool,
    /// Whether one that was written as the DMZ could not be read.
    pub lacks_dmz: bool,
    /// Whether a decky of the draft could not be read.
    pub lacks_decky: bool,
}

/// An edge that was read, before an address is chosen where none was asked for.
struct PendingEdge {
    decky_index: usize,
    index: usize,
    decky: DeckyId,
    lan: LanId,
    address: Option<Ipv4Addr>,
    mac: Mac,
    home: bool,
}

struct Resolver<'a> {
    entropy: &'a mut dyn Entropy,
    findings: Vec<Finding>,
    incomplete: BTreeSet<DeckyId>,
}

/// Reads a draft as a topology for `host`. The findings are those of reading only; the rules of
/// a whole topology are [`super::validate::validate`]'s.
pub fn resolve(
    draft: &Draft,
    host: Option<HostId>,
    limits: &Limits,
    entropy: &mut dyn Entropy,
) -> Resolved {
    let mut this = Resolver {
        entropy,
        findings: Vec::new(),
        incomplete: BTreeSet::new(),
    };
    this.check_size(draft, limits);
    let name = TopologyName::parse(&draft.name).unwrap_or_else(|error| {
        this.name_finding("topology", "name", &error.to_string());
        TopologyName::parse("unnamed").expect("`unnamed` is seven letters")
    });
    let id = TopologyId::new(this.entropy.uuid());
    let (lans, lan_places) = this.lans(draft, limits);
    let mut allocators: BTreeMap<LanId, AddressAllocator> = lans
        .iter()
        .map(|lan| (lan.id, AddressAllocator::new(lan.subnet)))
        .collect();
    let by_name: BTreeMap<String, (LanId, Ipv4Net)> = lans
        .iter()
        .map(|lan| (lan.name.folded(), (lan.id, lan.subnet)))
        .collect();

    // Also those that could not be read. By a look-up: a document may hold a hundred thousand LANs
    // and as many edges that lead to none of them.
    let mut written_lans: BTreeMap<String, &DraftLan> = BTreeMap::new();
    for lan in &draft.lans {
        written_lans
            .entry(lan.name.to_ascii_lowercase())
            .or_insert(lan);
    }

    let mut deckies = Vec::new();
    let mut decky_places = Vec::new();
    let mut pending: Vec<PendingEdge> = Vec::new();
    let mut names = BTreeSet::new();
    for (index, written) in draft.deckies.iter().take(limits.deckies).enumerate() {
        let Some(decky) = this.decky(index, written, &mut names) else {
            continue;
        };
        let has_home = written.edges.iter().any(|edge| edge.home == Some(true));
        for (number, edge) in written
            .edges
            .iter()
            .take(limits.edges_per_decky)
            .enumerate()
        {
            let path = format!("deckies[{index}].edges[{number}]");
            let target = format!("decky {}", decky.name);
            let Some((lan, subnet)) = by_name.get(&edge.lan.to_ascii_lowercase()).copied() else {
                let lan = written_lans.get(&edge.lan.to_ascii_lowercase()).copied();
                this.findings.extend(nowhere(lan, edge, &path, target));
                this.incomplete.insert(decky.id);
                continue;
            };
            let address = this.address(edge, subnet, &path, &target, decky.id);
            let Ok(address) = address else { continue };
            let mac = match edge.mac.as_deref().map(str::parse::<Mac>) {
                None => decky.persona.mac(&decky.seed, number),
                Some(Ok(mac)) => mac,
                Some(Err(error)) => {
                    this.value_finding(&target, format!("{path}.mac"), &error.to_string());
                    decky.persona.mac(&decky.seed, number)
                }
            };
            let home = edge.home.unwrap_or(!has_home && number == 0);
            pending.push(PendingEdge {
                decky_index: index,
                index: number,
                decky: decky.id,
                lan,
                address,
                mac,
                home,
            });
        }
        deckies.push(decky);
        decky_places.push(index);
    }

    // Addresses that were asked for are taken before any is chosen, whatever the order. A clash
    // is the validator's to report, so both edges are kept.
    for edge in &pending {
        if let (Some(address), Some(allocator)) = (edge.address, allocators.get_mut(&edge.lan)) {
            match allocator.reserve(address) {
                Ok(())
                | Err(
                    AddressRefused::Taken | AddressRefused::OutOfSubnet | AddressRefused::Reserved,
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
            this.findings.push(Finding::error(
                Code::IpExhausted,
                format!("decky {}", clip(&draft.deckies[decky_index].name)),
                format!("deckies[{decky_index}].edges[{index}]"),
                "no address is left in the LAN; give it a larger subnet",
            ));
            this.incomplete.insert(decky);
            continue;
        };
        let id = EdgeId::new(this.entropy.uuid());
        edges.push(Edge {
            id,
            decky,
            lan,
            address,
            mac,
            home,
        });
    }

    sort(&mut this.findings);
    let decky_count = deckies.len();
    let unread: Vec<_> = (0..draft.lans.len())
        .filter(|index| !lan_places.contains(index))
        .collect();
    let is_dmz = |index: &usize| draft.lans[*index].kind.as_deref() == Some(LanKind::Dmz.as_str());
    Resolved {
        topology: Topology {
            id,
            name,
            host,
            revision: Revision::new(1),
            lans,
            deckies,
            edges,
        },
        findings: this.findings,
        incomplete: this.incomplete,
        lan_places,
        decky_places,
        lacks_lan: !unread.is_empty(),
        lacks_dmz: unread.iter().any(is_dmz),
        lacks_decky: decky_count < draft.deckies.len(),
    }
}

/// What is wrong with an edge whose LAN was not read, be it written or not.
fn nowhere(
    lan: Option<&DraftLan>,
    edge: &DraftEdge,
    path: &str,
    target: String,
) -> Option<Finding> {
    let Some(lan) = lan else {
        return Some(Finding::error(
            Code::EdgeUnknown,
            target,
            format!("{path}.lan"),
            format!("there is no LAN named {:?}", clip(&edge.lan)),
        ));
    };
    // The LAN's own fault is found at the LAN. An address has no meaning without its subnet.
    let address = edge.address.as_ref().filter(|text| !text.is_empty())?;
    Some(Finding::error(
        Code::IpMalformed,
        target,
        format!("{path}.address"),
        format!(
            "{:?} is no address of LAN {}, whose subnet {:?} cannot be read",
            clip(address),
            clip(&edge.lan),
            clip(&lan.subnet)
        ),
    ))
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

impl Resolver<'_> {
    fn name_finding(&mut self, target: &str, path: impl Into<String>, message: &str) {
        self.findings
            .push(Finding::error(Code::NameInvalid, target, path, message));
    }

    fn value_finding(&mut self, target: &str, path: impl Into<String>, message: &str) {
        self.findings
            .push(Finding::error(Code::ValueInvalid, target, path, message));
    }

    fn check_size(&mut self, draft: &Draft, limits: &Limits) {
        let mut over = |what: &str, path: &str, got: usize, limit: usize| {
            if got > limit {
                self.findings.push(Finding::error(
                    Code::TooLarge,
                    "topology",
                    path,
                    format!("{got} {what} exceed the limit of {limit}"),
                ));
            }
        };
        over("LANs", "lans", draft.lans.len(), limits.lans);
        over("deckies", "deckies", draft.deckies.len(), limits.deckies);
        for (index, decky) in draft.deckies.iter().take(limits.deckies).enumerate() {
            let path = format!("deckies[{index}]");
            over(
                "edges",
                &format!("{path}.edges"),
                decky.edges.len(),
                limits.edges_per_decky,
            );
            over(
                "published ports",
                &format!("{path}.publish"),
                decky.publish.len(),
                limits.publish_per_decky,
            );
        }
    }

    /// The LANs that could be read, and where each stands in the draft.
    fn lans(&mut self, draft: &Draft, limits: &Limits) -> (Vec<Lan>, Vec<usize>) {
        let mut lans: Vec<Lan> = Vec::new();
        let mut places = Vec::new();
        for (index, written) in draft.lans.iter().take(limits.lans).enumerate() {
            let path = format!("lans[{index}]");
            let target = format!("lan {}", clip(&written.name));
            let name = match LanName::parse(&written.name) {
                Ok(name) => name,
                Err(error) => {
                    self.name_finding(&target, format!("{path}.name"), &error.to_string());
                    continue;
                }
            };
            if lans.iter().any(|lan| lan.name.folded() == name.folded()) {
                self.findings.push(Finding::error(
                    Code::LanNameDup,
                    target,
                    format!("{path}.name"),
                    format!("another LAN is named {name}; names differ by more than case"),
                ));
                continue;
            }
            let Some(subnet) = self.subnet(&written.subnet, &path, &target) else {
                continue;
            };
            let subnet6 = written
                .subnet6
                .as_deref()
                .and_then(|text| self.subnet6(text, &path, &target));
            let kind = match written.kind.as_deref().map(str::parse) {
                None => LanKind::Internal,
                Some(Ok(kind)) => kind,
                Some(Err(error)) => {
                    self.value_finding(&target, format!("{path}.kind"), &format!("{error}"));
                    LanKind::Internal
                }
            };
            let driver = match written.driver.as_deref().map(str::parse) {
                None => LanDriver::Bridge,
                Some(Ok(driver)) => driver,
                Some(Err(error)) => {
                    self.value_finding(&target, format!("{path}.driver"), &format!("{error}"));
                    LanDriver::Bridge
                }
            };
            let id = LanId::new(self.entropy.uuid());
            lans.push(Lan {
                id,
                name,
                subnet,
                subnet6,
                kind,
                driver,
            });
            places.push(index);
        }
        (lans, places)
    }

    fn subnet(&mut self, text: &str, path: &str, target: &str) -> Option<Ipv4Net> {
        let parsed = text
            .parse::<Ipv4Net>()
            .ok()
            .filter(|net| net.network() == net.addr());
        if parsed.is_none() {
            self.findings.push(Finding::error(
                Code::SubnetMalformed,
                target,
                format!("{path}.subnet"),
                format!(
                    "{:?} is no IPv4 subnet with zero host bits, such as 10.0.1.0/24",
                    clip(text)
                ),
            ));
        }
        parsed
    }

    fn subnet6(&mut self, text: &str, path: &str, target: &str) -> Option<Ipv6Net> {
        let parsed = text
            .parse::<Ipv6Net>()
            .ok()
            .filter(|net| net.network() == net.addr());
        if parsed.is_none() {
            self.findings.push(Finding::error(
                Code::SubnetMalformed,
                target,
                format!("{path}.subnet6"),
                format!(
                    "{:?} is no IPv6 subnet with zero host bits, such as fd00:9::/64",
                    clip(text)
                ),
            ));
        }
        parsed
    }

    fn address(
        &mut self,
        edge: &DraftEdge,
        subnet: Ipv4Net,
        path: &str,
        target: &str,
        decky: DeckyId,
    ) -> Result<Option<Ipv4Addr>, ()> {
        // An empty text says what leaving it out says.
        let Some(text) = edge.address.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let path = format!("{path}.address");
        let (code, message) = match text.parse::<Ipv4Addr>() {
            Ok(address) => match super::allocate::check(subnet, address) {
                Ok(()) | Err(AddressRefused::Taken) => return Ok(Some(address)),
                Err(error @ AddressRefused::OutOfSubnet) => (
                    Code::IpOutOfSubnet,
                    format!("{error} {subnet} of LAN {}", clip(&edge.lan)),
                ),
                Err(error @ AddressRefused::Reserved) => (Code::IpReserved, error.to_string()),
            },
            Err(_) => (
                Code::IpMalformed,
                format!("{:?} is no IPv4 address", clip(text)),
            ),
        };
        self.findings
            .push(Finding::error(code, target, path, message));
        self.incomplete.insert(decky);
        Err(())
    }

    fn decky(
        &mut self,
        index: usize,
        written: &DraftDecky,
        names: &mut BTreeSet<String>,
    ) -> Option<Decky> {
        let path = format!("deckies[{index}]");
        let target = format!("decky {}", clip(&written.name));
        let name = match DeckyName::parse(&written.name) {
            Ok(name) => name,
            Err(error) => {
                self.name_finding(&target, format!("{path}.name"), &error.to_string());
                return None;
            }
        };
        if !names.insert(name.folded()) {
            self.findings.push(Finding::error(
                Code::DeckyNameDup,
                target,
                format!("{path}.name"),
                format!("another decky is named {name}; names differ by more than case"),
            ));
            return None;
        }
        let persona = match written.persona.as_deref().map(str::parse) {
            None => usual_persona(written),
            Some(Ok(persona)) => persona,
            Some(Err(error)) => {
                self.value_finding(&target, format!("{path}.persona"), &format!("{error}"));
                Persona::Linux
            }
        };
        let seed = match written.seed.as_deref().map(str::parse) {
            None => Seed::new(self.entropy.bytes()),
            Some(Ok(seed)) => seed,
            Some(Err(error)) => {
                self.value_finding(&target, format!("{path}.seed"), &format!("{error}"));
                Seed::new(self.entropy.bytes())
            }
        };
        let hostname = match written.hostname.as_deref().map(Hostname::parse) {
            None => seeded_hostname(&seed, persona),
            Some(Ok(hostname)) => hostname,
            Some(Err(error)) => {
                self.name_finding(&target, format!("{path}.hostname"), &error.to_string());
                seeded_hostname(&seed, persona)
            }
        };
        let mutate_every = match written.mutate_every.as_deref().map(str::parse) {
            None => None,
            Some(Ok(interval)) => Some(interval),
            Some(Err(error)) => {
                self.value_finding(&target, format!("{path}.mutate_every"), &format!("{error}"));
                None
            }
        };
        let services = self.services(written, &path, &target);
        let publish = self.publish(written, &path, &target);
        Some(Decky {
            id: DeckyId::new(self.entropy.uuid()),
            name,
            hostname,
            archetype: written.archetype.clone().map(|text| clip(&text)),
            services,
            persona,
            forwards_l3: written.forwards_l3,
            publish,
            mutate_every,
            seed,
        })
    }

    fn services(&mut self, written: &DraftDecky, path: &str, target: &str) -> ServiceSet {
        let mut services = ServiceSet::new();
        for (number, text) in written.services.iter().enumerate().take(64) {
            match text.parse::<ServiceKind>() {
                Ok(kind) => {
                    services.insert(kind, ServiceOptions::default());
                }
                Err(error) => self.findings.push(Finding::error(
                    Code::UnknownService,
                    target,
                    format!("{path}.services[{number}]"),
                    format!("{error}; known are {}", known_services()),
                )),
            }
        }
        for (service, options) in written.service_config.iter().take(64) {
            let place = format!("{path}.service_config.{}", clip(service));
            let declared = service.parse::<ServiceKind>().ok();
            let Some((kind, set)) =
                declared.and_then(|kind| services.get_mut(&kind).map(|set| (kind, set)))
            else {
                self.findings.push(Finding::error(
                    Code::ServiceCfgUndeclared,
                    target,
                    place,
                    format!("the decky does not have the service {:?}", clip(service)),
                ));
                continue;
            };
            for (option, value) in options.iter().take(64) {
                if let Err(error) = set.set(kind, option, value.clone()) {
                    self.findings.push(Finding::error(
                        Code::ServiceCfgInvalid,
                        target,
                        format!("{place}.{}", clip(option)),
                        error.to_string(),
                    ));
                }
            }
        }
        services
    }

    fn publish(&mut self, written: &DraftDecky, path: &str, target: &str) -> Vec<Publish> {
        let mut published = Vec::new();
        for (number, publish) in written.publish.iter().take(256).enumerate() {
            let place = format!("{path}.publish[{number}]");
            let mut port = |field: &str, value: i64| {
                let port = u16::try_from(value).ok().filter(|port| *port > 0);
                if port.is_none() {
                    let message = format!("{value} is no port (1 to 65535)");
                    self.value_finding(target, format!("{place}.{field}"), &message);
                }
                port
            };
            let host_port = port("host_port", publish.host_port);
            let decky_port = port("decky_port", publish.decky_port);
            let protocol = match publish.protocol.as_deref().map(str::parse) {
                None => Protocol::Tcp,
                Some(Ok(protocol)) => protocol,
                Some(Err(error)) => {
                    self.value_finding(target, format!("{place}.protocol"), &format!("{error}"));
                    continue;
                }
            };
            let host_ip = match publish.host_ip.as_deref().map(str::parse::<Ipv4Addr>) {
                None => None,
                Some(Ok(ip)) => Some(ip).filter(|ip| !ip.is_unspecified()),
                Some(Err(_)) => {
                    let message = "not an IPv4 address";
                    self.value_finding(target, format!("{place}.host_ip"), message);
                    continue;
                }
            };
            if let (Some(host_port), Some(decky_port)) = (host_port, decky_port) {
                published.push(Publish {
                    host_ip,
                    host_port,
                    decky_port,
                    protocol,
                });
            }
        }
        published
    }
}

fn known_services() -> String {
    let names: Vec<_> = ServiceKind::ALL.iter().map(|kind| kind.as_str()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;

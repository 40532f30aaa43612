//! Drafts: a topology as a person wrote it, before anything in it is believed.
//!
//! [`resolve`] turns a draft into a [`Topology`]: references by name become ids, what was left
//! out is chosen (addresses, hardware addresses, seeds), and everything malformed is a finding.

use std::collections::BTreeSet;

use ipnet::{Ipv4Net, Ipv6Net};

use super::finding::{Finding, FindingCode as Code, sort};
use super::validate::Limits;
use super::{Decky, Lan, LanDriver, LanKind, Topology};
use crate::id::{DeckyId, HostId, LanId, TopologyId};
use crate::name::{DeckyName, Hostname, LanName, TopologyName};
use crate::persona::Persona;
use crate::revision::Revision;
use crate::seed::Seed;
use crate::service::{ServiceKind, ServiceOptions, ServiceSet};

mod edge;
mod export;
mod guess;
mod publish;
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

struct Resolver<'a> {
    limits: &'a Limits,
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
        limits,
        entropy,
        findings: Vec::new(),
        incomplete: BTreeSet::new(),
    };
    this.check_size(draft);
    let name = TopologyName::parse(&draft.name).unwrap_or_else(|error| {
        this.name_finding("topology", "name", &error.to_string());
        TopologyName::parse("unnamed").expect("`unnamed` is seven letters")
    });
    let id = TopologyId::new(this.entropy.uuid());
    let (lans, lan_places) = this.lans(draft);
    let targets = edge::Targets::of(&lans, draft);

    let mut deckies = Vec::new();
    let mut decky_places = Vec::new();
    let mut pending = Vec::new();
    let mut names = BTreeSet::new();
    for (index, written) in draft.deckies.iter().take(limits.deckies).enumerate() {
        let Some(decky) = this.decky(index, written, &mut names) else {
            continue;
        };
        pending.extend(this.read_edges(index, written, &decky, &targets));
        deckies.push(decky);
        decky_places.push(index);
    }
    let edges = this.settle(pending, &lans, draft);

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

    fn check_size(&mut self, draft: &Draft) {
        let limits = self.limits;
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
    fn lans(&mut self, draft: &Draft) -> (Vec<Lan>, Vec<usize>) {
        let mut lans: Vec<Lan> = Vec::new();
        let mut places = Vec::new();
        let mut names = BTreeSet::new();
        for (index, written) in draft.lans.iter().take(self.limits.lans).enumerate() {
            let path = format!("lans[{index}]");
            let target = format!("lan {}", clip(&written.name));
            let name = match LanName::parse(&written.name) {
                Ok(name) => name,
                Err(error) => {
                    self.name_finding(&target, format!("{path}.name"), &error.to_string());
                    continue;
                }
            };
            let folded = name.folded();
            if names.contains(&folded) {
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
            names.insert(folded);
        }
        (lans, places)
    }

    fn subnet(&mut self, text: &str, path: &str, target: &str) -> Option<Ipv4Net> {
        let parsed = text
            .parse::<Ipv4Net>()
            .ok()
            .filter(|net| net.network() == net.addr())
            // A leading zero makes a number octal for some and decimal for others.
            .filter(|net| net.to_string() == text);
        if parsed.is_none() {
            self.findings.push(Finding::error(
                Code::SubnetMalformed,
                target,
                format!("{path}.subnet"),
                format!(
                    "{:?} is no IPv4 subnet with zero host bits and no leading zeros, such as \
                     10.0.1.0/24",
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
        let publish = self.read_publish(written, &path, &target);
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
}

fn known_services() -> String {
    let names: Vec<_> = ServiceKind::ALL.iter().map(|kind| kind.as_str()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;

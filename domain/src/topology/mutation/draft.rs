//! Mutations as a person writes them: by id or by name, with what can be chosen left out.
//!
//! [`resolve`] reads one against the topology that it is for. The fields are those of the
//! topology file, so that whatever a draft of a topology takes, a mutation takes too.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::{DeckyPatch, EdgePatch, Mutation, NewDecky, NewEdge, Op, Regime, step};
use crate::id::{DeckyId, EdgeId, LanId};
use crate::name::DeckyName;
use crate::persona::Mac;
use crate::service::OptionValue;
use crate::topology::allocate::{AddressRefused, SubnetAllocator, check};
use crate::topology::diff::decky_patch;
use crate::topology::draft::{self, Draft, DraftDecky, DraftEdge, DraftLan, DraftPublish, Entropy};
use crate::topology::finding::{Finding, FindingCode as Code};
use crate::topology::validate::Limits;
use crate::topology::{Decky, Lan, Topology};

/// Most operations of one batch: whoever has more applies a whole topology file.
pub const MAX_OPS: usize = 1024;

/// One edit as it was written. References are ids, or names without regard to case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpDraft {
    /// Adds a LAN; the next free subnet when it says none.
    AddLan(DraftLan),
    /// Removes a LAN.
    RemoveLan {
        /// The LAN.
        lan: String,
    },
    /// Changes a LAN.
    UpdateLan {
        /// The LAN.
        lan: String,
        /// What changes.
        patch: LanPatchDraft,
    },
    /// Adds a decky with its memberships.
    AddDecky(Box<DraftDecky>),
    /// Removes a decky.
    RemoveDecky {
        /// The decky.
        decky: String,
    },
    /// Changes a decky.
    UpdateDecky {
        /// The decky.
        decky: String,
        /// What changes.
        patch: Box<DeckyPatchDraft>,
    },
    /// Puts a decky on a further LAN.
    AttachDecky {
        /// The decky.
        decky: String,
        /// Its new membership.
        edge: DraftEdge,
        /// Whether it routes from then on.
        forwards_l3: Option<bool>,
    },
    /// Takes a decky off a LAN.
    DetachDecky {
        /// The decky.
        decky: String,
        /// The LAN.
        lan: String,
    },
}

/// What changes of a LAN, as it was written; what is none stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LanPatchDraft {
    /// Its name.
    pub name: Option<String>,
    /// Its range.
    pub subnet: Option<String>,
    /// Its IPv6 range; the inner none takes it away.
    pub subnet6: Option<Option<String>>,
    /// `dmz` or `internal`.
    pub kind: Option<String>,
    /// The driver.
    pub driver: Option<String>,
}

/// What changes of a decky, as it was written; what is none stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeckyPatchDraft {
    /// The operator's name for it.
    pub name: Option<String>,
    /// The name that attackers see.
    pub hostname: Option<String>,
    /// The archetype; the inner none takes it away.
    pub archetype: Option<Option<String>>,
    /// What it serves, whole. Options of services that stay are kept.
    pub services: Option<Vec<String>>,
    /// Options by service: those of a service that is named here are replaced.
    pub service_config: BTreeMap<String, BTreeMap<String, OptionValue>>,
    /// The operating system that it shows.
    pub persona: Option<String>,
    /// Whether it routes between its LANs.
    pub forwards_l3: Option<bool>,
    /// Its published ports, whole.
    pub publish: Option<Vec<DraftPublish>>,
    /// How often it mutates by itself; the inner none means never.
    pub mutate_every: Option<Option<String>>,
    /// Its seed.
    pub seed: Option<String>,
    /// Memberships that it has, with what changes of them.
    pub edges: Vec<DraftEdge>,
}

/// What is queued as one, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MutationDraft {
    /// One edit.
    One(OpDraft),
    /// Several, checked whole at their end.
    Batch(Vec<OpDraft>),
}

/// Against what a mutation is read.
pub struct Context<'a> {
    /// The topology, with everything done that is queued before the mutation.
    pub topology: &'a Topology,
    /// What it can take.
    pub regime: Regime,
    /// How large it may be.
    pub limits: &'a Limits,
    /// Where subnets that are left out come from.
    pub subnets: &'a mut SubnetAllocator,
    /// Where ids and seeds come from.
    pub entropy: &'a mut dyn Entropy,
}

/// Reads a mutation. The findings are those of reading only: what its effect would break is
/// found by [`Mutation::apply`].
pub fn resolve(draft: &MutationDraft, context: &mut Context<'_>) -> Result<Mutation, Vec<Finding>> {
    match draft {
        MutationDraft::One(op) => {
            let topology = context.topology;
            one(op, topology, context).map(Mutation::One)
        }
        MutationDraft::Batch(drafts) if drafts.len() > MAX_OPS => Err(vec![Finding::error(
            Code::TooLarge,
            "mutation",
            "ops",
            format!("{} operations exceed the limit of {MAX_OPS}", drafts.len()),
        )]),
        MutationDraft::Batch(drafts) => {
            // Each operation may refer to what those before it make.
            let mut so_far = context.topology.clone();
            let mut ops = Vec::with_capacity(drafts.len());
            for (number, draft) in drafts.iter().enumerate() {
                let read = one(draft, &so_far, context).and_then(|op| {
                    step::apply(&op, &mut so_far, context.regime)
                        .map_err(|finding| vec![finding])?;
                    Ok(op)
                });
                ops.push(read.map_err(|mut findings| {
                    for finding in &mut findings {
                        finding.path = format!("ops[{number}].{}", finding.path);
                    }
                    findings
                })?);
            }
            Ok(Mutation::Batch(ops))
        }
    }
}

fn one(
    draft: &OpDraft,
    topology: &Topology,
    context: &mut Context<'_>,
) -> Result<Op, Vec<Finding>> {
    let at = |finding| vec![finding];
    Ok(match draft {
        OpDraft::AddLan(written) => Op::AddLan(read_lan(written, context)?),
        OpDraft::RemoveLan { lan } => Op::RemoveLan {
            lan: find_lan(topology, lan).map_err(at)?.id,
        },
        OpDraft::UpdateLan { lan, patch } => {
            update_lan(find_lan(topology, lan).map_err(at)?, patch, context)?
        }
        OpDraft::AddDecky(written) => {
            Op::AddDecky(Box::new(read_decky(written, topology, context)?))
        }
        OpDraft::RemoveDecky { decky } => Op::RemoveDecky {
            decky: find_decky(topology, decky).map_err(at)?.id,
        },
        OpDraft::UpdateDecky { decky, patch } => {
            let decky = find_decky(topology, decky).map_err(at)?;
            update_decky(decky, patch, topology, context)?
        }
        OpDraft::AttachDecky {
            decky,
            edge,
            forwards_l3,
        } => {
            let decky = find_decky(topology, decky).map_err(at)?;
            attach(decky, edge, *forwards_l3, topology, context)?
        }
        OpDraft::DetachDecky { decky, lan } => {
            let decky = find_decky(topology, decky).map_err(at)?;
            let lan = find_lan(topology, lan).map_err(at)?.id;
            if topology.edge(decky.id, lan).is_some_and(|edge| edge.home) {
                return Err(at(step::at_home(&decky.name)));
            }
            Op::DetachDecky {
                decky: decky.id,
                lan,
            }
        }
    })
}

fn unknown(noun: &str, reference: &str) -> Finding {
    let reference: String = reference.chars().take(64).collect();
    Finding::error(
        Code::ReferenceUnknown,
        format!("{noun} {reference}"),
        noun,
        format!("the topology has no {noun} {reference:?}"),
    )
}

/// A UUID is an id before it is a name: a thing may be named like another's id.
fn find_lan<'a>(topology: &'a Topology, reference: &str) -> Result<&'a Lan, Finding> {
    let id: Option<LanId> = reference.parse().ok();
    id.and_then(|id| topology.lan(id))
        .or_else(|| {
            let mut lans = topology.lans.iter();
            lans.find(|lan| lan.name.as_str().eq_ignore_ascii_case(reference))
        })
        .ok_or_else(|| unknown("lan", reference))
}

fn find_decky<'a>(topology: &'a Topology, reference: &str) -> Result<&'a Decky, Finding> {
    let id: Option<DeckyId> = reference.parse().ok();
    id.and_then(|id| topology.decky(id))
        .or_else(|| {
            let mut deckies = topology.deckies.iter();
            deckies.find(|decky| decky.name.as_str().eq_ignore_ascii_case(reference))
        })
        .ok_or_else(|| unknown("decky", reference))
}

/// Those findings that are about one element of the draft, with its place as `noun`.
fn about(findings: Vec<Finding>, element: &str, noun: &str) -> Vec<Finding> {
    findings
        .into_iter()
        .filter_map(|mut finding| {
            let rest = finding.path.strip_prefix(element)?;
            finding.path = format!("{noun}{rest}");
            Some(finding)
        })
        .collect()
}

fn read_lan(written: &DraftLan, context: &mut Context<'_>) -> Result<Lan, Vec<Finding>> {
    let mut written = written.clone();
    if written.subnet.is_empty() {
        let Some(subnet) = context.subnets.next_free() else {
            return Err(vec![Finding::error(
                Code::SubnetExhausted,
                format!("lan {}", written.name.chars().take(64).collect::<String>()),
                "lan.subnet",
                "no free subnet is left; give one",
            )]);
        };
        written.subnet = subnet.to_string();
    }
    let draft = Draft {
        name: context.topology.name.to_string(),
        lans: vec![written],
        deckies: Vec::new(),
    };
    let resolved = draft::resolve(&draft, None, context.limits, context.entropy);
    let findings = about(resolved.findings, "lans[0]", "lan");
    match resolved.topology.lans.into_iter().next() {
        Some(lan) if findings.is_empty() => Ok(lan),
        Some(_) | None => Err(findings),
    }
}

fn update_lan(
    lan: &Lan,
    patch: &LanPatchDraft,
    context: &mut Context<'_>,
) -> Result<Op, Vec<Finding>> {
    let mut written = DraftLan::from(lan);
    let LanPatchDraft {
        name,
        subnet,
        subnet6,
        kind,
        driver,
    } = patch.clone();
    written.name = name.unwrap_or(written.name);
    written.subnet = subnet.unwrap_or(written.subnet);
    written.subnet6 = subnet6.unwrap_or(written.subnet6);
    written.kind = kind.or(written.kind);
    written.driver = driver.or(written.driver);
    let read = read_lan(&written, context).map_err(|findings| about(findings, "lan", "patch"))?;
    Ok(Op::UpdateLan {
        lan: lan.id,
        patch: super::LanPatch {
            name: (read.name != lan.name).then_some(read.name),
            subnet: (read.subnet != lan.subnet).then_some(read.subnet),
            subnet6: (read.subnet6 != lan.subnet6).then_some(read.subnet6),
            kind: (read.kind != lan.kind).then_some(read.kind),
            driver: (read.driver != lan.driver).then_some(read.driver),
        },
    })
}

/// Reads a decky and its memberships on the LANs of `topology`. An address that is left out is
/// chosen when the decky is added: only then is it known which are free.
fn read_decky(
    written: &DraftDecky,
    topology: &Topology,
    context: &mut Context<'_>,
) -> Result<NewDecky, Vec<Finding>> {
    let draft = Draft {
        name: topology.name.to_string(),
        lans: topology.lans.iter().map(DraftLan::from).collect(),
        deckies: vec![written.clone()],
    };
    // Whether there are too many LANs is judged of the whole, when it is applied.
    let limits = Limits {
        lans: usize::MAX,
        ..*context.limits
    };
    let resolved = draft::resolve(&draft, None, &limits, context.entropy);
    let findings = about(resolved.findings, "deckies[0]", "decky");
    let read = resolved.topology;
    let lans: BTreeMap<LanId, LanId> = read
        .lans
        .iter()
        .zip(&resolved.lan_places)
        .filter_map(|(lan, place)| Some((lan.id, topology.lans.get(*place)?.id)))
        .collect();
    let edges = read.edges.iter().zip(&written.edges);
    let edges = edges.filter_map(|(edge, written)| {
        let says = written
            .address
            .as_ref()
            .is_some_and(|text| !text.is_empty());
        Some(NewEdge {
            id: edge.id,
            lan: *lans.get(&edge.lan)?,
            address: says.then_some(edge.address),
            mac: Some(edge.mac),
            home: edge.home,
        })
    });
    let edges = edges.collect();
    match read.deckies.into_iter().next() {
        Some(decky) if findings.is_empty() => Ok(NewDecky { decky, edges }),
        Some(_) | None => Err(findings),
    }
}

fn update_decky(
    decky: &Decky,
    patch: &DeckyPatchDraft,
    topology: &Topology,
    context: &mut Context<'_>,
) -> Result<Op, Vec<Finding>> {
    let name = match patch.name.as_deref().map(DeckyName::parse) {
        None => None,
        Some(Ok(name)) => Some(name).filter(|name| *name != decky.name),
        Some(Err(error)) => {
            return Err(vec![Finding::error(
                Code::NameInvalid,
                format!("decky {}", decky.name),
                "patch.name",
                error.to_string(),
            )]);
        }
    };
    let mut edges = Vec::new();
    for (number, edge) in patch.edges.iter().enumerate() {
        edges.push(edge_patch(decky, edge, topology).map_err(|mut finding| {
            finding.path = format!("patch.edges[{number}].{}", finding.path);
            vec![finding]
        })?);
    }
    let written = overlay(decky, patch);
    let read = read_decky(&written, topology, context)
        .map_err(|findings| about(findings, "decky", "patch"))?;
    Ok(Op::UpdateDecky {
        decky: decky.id,
        patch: Box::new(DeckyPatch {
            name,
            edges,
            ..decky_patch(decky, &read.decky)
        }),
    })
}

/// The decky as a draft, with what the patch says in place of what it had. Where it is, is read
/// apart.
fn overlay(decky: &Decky, patch: &DeckyPatchDraft) -> DraftDecky {
    let mut written = DraftDecky::from(decky);
    let DeckyPatchDraft {
        name: _,
        hostname,
        archetype,
        services,
        service_config,
        persona,
        forwards_l3,
        publish,
        mutate_every,
        seed,
        edges: _,
    } = patch.clone();
    written.hostname = hostname.or(written.hostname);
    written.archetype = archetype.unwrap_or(written.archetype);
    if let Some(services) = services {
        written
            .service_config
            .retain(|service, _| services.contains(service));
        written.services = services;
    }
    written.service_config.extend(service_config);
    written.persona = persona.or(written.persona);
    written.forwards_l3 = forwards_l3.unwrap_or(written.forwards_l3);
    written.publish = publish.unwrap_or(written.publish);
    written.mutate_every = mutate_every.unwrap_or(written.mutate_every);
    written.seed = seed.or(written.seed);
    written
}

fn malformed(decky: &Decky, code: Code, path: &str, message: String) -> Finding {
    Finding::error(code, format!("decky {}", decky.name), path, message)
}

/// A membership as it was written, apart from its home.
struct ReadEdge {
    lan: LanId,
    address: Option<Ipv4Addr>,
    mac: Option<Mac>,
}

fn read_edge(decky: &Decky, edge: &DraftEdge, topology: &Topology) -> Result<ReadEdge, Finding> {
    let lan = find_lan(topology, &edge.lan)?;
    let address = match edge.address.as_deref().filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => {
            let address: Ipv4Addr = text.parse().map_err(|_| {
                let message = "not an IPv4 address".to_owned();
                malformed(decky, Code::IpMalformed, "address", message)
            })?;
            let code = match check(lan.subnet, address) {
                Ok(()) | Err(AddressRefused::Taken) => None,
                Err(error @ AddressRefused::OutOfSubnet) => Some((Code::IpOutOfSubnet, error)),
                Err(error @ AddressRefused::Reserved) => Some((Code::IpReserved, error)),
            };
            if let Some((code, error)) = code {
                let message = format!("{error} ({} of LAN {})", lan.subnet, lan.name);
                return Err(malformed(decky, code, "address", message));
            }
            Some(address)
        }
    };
    let mac = match edge.mac.as_deref().map(str::parse) {
        None => None,
        Some(Ok(mac)) => Some(mac),
        Some(Err(error)) => {
            let message = format!("{error}");
            return Err(malformed(decky, Code::ValueInvalid, "mac", message));
        }
    };
    Ok(ReadEdge {
        lan: lan.id,
        address,
        mac,
    })
}

fn edge_patch(decky: &Decky, edge: &DraftEdge, topology: &Topology) -> Result<EdgePatch, Finding> {
    let ReadEdge { lan, address, mac } = read_edge(decky, edge, topology)?;
    Ok(EdgePatch {
        lan,
        address,
        mac,
        becomes_home: edge.home.unwrap_or(false),
    })
}

fn attach(
    decky: &Decky,
    edge: &DraftEdge,
    forwards_l3: Option<bool>,
    topology: &Topology,
    context: &mut Context<'_>,
) -> Result<Op, Vec<Finding>> {
    let ReadEdge { lan, address, mac } =
        read_edge(decky, edge, topology).map_err(|mut finding| {
            finding.path = format!("edge.{}", finding.path);
            vec![finding]
        })?;
    Ok(Op::AttachDecky {
        decky: decky.id,
        edge: NewEdge {
            id: EdgeId::new(context.entropy.uuid()),
            lan,
            address,
            mac,
            home: edge.home.unwrap_or(false),
        },
        forwards_l3,
    })
}

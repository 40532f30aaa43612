//! Wire to domain and back, for what agents and master say: parsed once, at the edge.

use std::net::Ipv4Addr;
use std::time::Duration;

use domain::assign::{ApplyFailure, Content, HostReport, Phase, Refusal};
use domain::id::{DeckyId, LanId, TopologyId};
use domain::observe::{
    Attachment, Drift, DriftKind, Foreign, Handle, Inventory, ObservedDecky, ObservedLan, RunState,
};
use domain::revision::Fence;
use domain::topology::hydrate::{SpecDigest, VersionHash};
use domain::usage::{Usage, Usages};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::v1;

/// Most objects of one kind in an inventory.
const MAX_OBJECTS: usize = 16_384;

/// A message with a part that does not hold what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field} of the message is malformed")]
pub struct InvalidMessage {
    /// Which part.
    pub field: &'static str,
}

/// The error for one field.
pub const fn invalid(field: &'static str) -> InvalidMessage {
    InvalidMessage { field }
}

/// Reads 16 bytes as a UUID.
pub fn uuid(bytes: &[u8], field: &'static str) -> Result<Uuid, InvalidMessage> {
    Uuid::from_slice(bytes).map_err(|_| invalid(field))
}

/// Reads 32 bytes.
pub fn bytes32(bytes: &[u8], field: &'static str) -> Result<[u8; 32], InvalidMessage> {
    bytes.try_into().map_err(|_| invalid(field))
}

/// Milliseconds since the epoch; 0 for never.
pub fn millis(at: Option<OffsetDateTime>) -> i64 {
    at.and_then(|at| i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok())
        .unwrap_or(0)
}

/// Reads milliseconds since the epoch; none for 0 and for what no calendar has.
pub fn from_millis(millis: i64) -> Option<OffsetDateTime> {
    if millis == 0 {
        return None;
    }
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()
}

impl From<Fence> for v1::Fence {
    fn from(fence: Fence) -> Self {
        Self {
            epoch: fence.epoch.get(),
            generation: fence.generation.get(),
        }
    }
}

/// Reads a fence; an absent one is no fence.
pub fn fence(wire: Option<v1::Fence>, field: &'static str) -> Result<Fence, InvalidMessage> {
    wire.map(|wire| Fence::new(wire.epoch, wire.generation))
        .ok_or(invalid(field))
}

impl From<Phase> for v1::Phase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Idle => Self::Idle,
            Phase::Applying => Self::Applying,
            Phase::Applied => Self::Applied,
            Phase::Failed => Self::Failed,
            Phase::Clearing => Self::Clearing,
        }
    }
}

/// Reads a phase.
pub fn phase(wire: i32) -> Result<Phase, InvalidMessage> {
    match v1::Phase::try_from(wire) {
        Ok(v1::Phase::Idle) => Ok(Phase::Idle),
        Ok(v1::Phase::Applying) => Ok(Phase::Applying),
        Ok(v1::Phase::Applied) => Ok(Phase::Applied),
        Ok(v1::Phase::Failed) => Ok(Phase::Failed),
        Ok(v1::Phase::Clearing) => Ok(Phase::Clearing),
        Ok(v1::Phase::Unspecified) | Err(_) => Err(invalid("phase")),
    }
}

/// The digest of what a report shows of the engine: its observed objects and their drift. The
/// first eight bytes of SHA-256 over their protobuf encoding.
pub fn observed_digest(report: &v1::Report) -> u64 {
    use prost::Message as _;
    use sha2::Digest as _;
    let shown = v1::Report {
        observed: report.observed.clone(),
        drift: report.drift.clone(),
        ..v1::Report::default()
    };
    let hash = sha2::Sha256::digest(shown.encode_to_vec());
    let mut first = [0_u8; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(first)
}

fn content_to_wire(content: Content) -> Option<v1::Content> {
    content.map(|(topology, hash)| v1::Content {
        topology_id: topology.uuid().as_bytes().to_vec(),
        version_hash: hash.bytes().to_vec(),
    })
}

fn content_from_wire(wire: Option<v1::Content>) -> Result<Content, InvalidMessage> {
    wire.map(|wire| {
        Ok((
            TopologyId::new(uuid(&wire.topology_id, "content.topology_id")?),
            VersionHash::new(bytes32(&wire.version_hash, "content.version_hash")?),
        ))
    })
    .transpose()
}

fn failure_to_wire(failure: &ApplyFailure) -> v1::Failure {
    v1::Failure {
        code: failure.code.as_str().to_owned(),
        message: failure.message.clone(),
    }
}

fn failure_from_wire(wire: v1::Failure) -> Result<ApplyFailure, InvalidMessage> {
    Ok(ApplyFailure {
        code: wire.code.parse().map_err(|_| invalid("failure.code"))?,
        message: wire.message.chars().take(2048).collect(),
    })
}

impl From<&HostReport> for v1::Report {
    fn from(report: &HostReport) -> Self {
        let HostReport {
            fence,
            phase,
            in_flight,
            content,
            applied_at,
            failure,
            refusal,
            observed,
            drift,
            timings,
        } = report;
        Self {
            fence: Some((*fence).into()),
            phase: v1::Phase::from(*phase).into(),
            in_flight: *in_flight,
            content: content_to_wire(*content),
            applied_at: millis(*applied_at),
            failure: failure.as_ref().map(failure_to_wire),
            refusal: refusal.as_ref().map(|refusal| v1::Refusal {
                fence: Some(refusal.fence.into()),
                failure: Some(failure_to_wire(&refusal.failure)),
            }),
            observed: observed.as_ref().map(v1::Inventory::from),
            drift: drift
                .iter()
                .map(|drift| v1::Drift {
                    kind: drift.kind.as_str().to_owned(),
                    object: drift.object.clone(),
                })
                .collect(),
            timings: timings
                .iter()
                .map(|(stage, took)| v1::Timing {
                    stage: stage.as_str().to_owned(),
                    micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                })
                .collect(),
        }
    }
}

impl TryFrom<v1::Report> for HostReport {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Report) -> Result<Self, InvalidMessage> {
        if wire.drift.len() > MAX_OBJECTS {
            return Err(invalid("drift"));
        }
        Ok(Self {
            fence: fence(wire.fence, "fence")?,
            phase: phase(wire.phase)?,
            in_flight: wire.in_flight,
            content: content_from_wire(wire.content)?,
            applied_at: from_millis(wire.applied_at),
            failure: wire.failure.map(failure_from_wire).transpose()?,
            refusal: wire
                .refusal
                .map(|wire| {
                    Ok::<_, InvalidMessage>(Refusal {
                        fence: fence(wire.fence, "refusal.fence")?,
                        failure: failure_from_wire(
                            wire.failure.ok_or(invalid("refusal.failure"))?,
                        )?,
                    })
                })
                .transpose()?,
            observed: wire.observed.map(Inventory::try_from).transpose()?,
            drift: wire
                .drift
                .into_iter()
                .map(|wire| {
                    let kind = DriftKind::ALL
                        .into_iter()
                        .find(|kind| kind.as_str() == wire.kind)
                        .ok_or(invalid("drift.kind"))?;
                    Ok(Drift {
                        kind,
                        object: wire.object.chars().take(256).collect(),
                    })
                })
                .collect::<Result<_, _>>()?,
            timings: wire
                .timings
                .iter()
                .filter_map(|wire| {
                    Some((wire.stage.parse().ok()?, Duration::from_micros(wire.micros)))
                })
                .collect(),
        })
    }
}

impl From<&Usages> for v1::Usage {
    fn from(usages: &Usages) -> Self {
        let deckies = usages.iter().map(|(decky, usage)| {
            let Usage {
                memory_bytes,
                cpu_micros,
                pids,
                refused_packets,
                oom_kills,
            } = *usage;
            v1::DeckyUsage {
                decky_id: decky.uuid().as_bytes().to_vec(),
                memory_bytes,
                cpu_micros,
                pids,
                refused_packets,
                oom_kills,
            }
        });
        Self {
            deckies: deckies.collect(),
        }
    }
}

/// Reads what deckies use.
pub fn usages(wire: v1::Usage) -> Result<Usages, InvalidMessage> {
    if wire.deckies.len() > MAX_OBJECTS {
        return Err(invalid("usage"));
    }
    wire.deckies
        .into_iter()
        .map(|wire| {
            let decky = DeckyId::new(uuid(&wire.decky_id, "usage.decky_id")?);
            let v1::DeckyUsage {
                decky_id: _,
                memory_bytes,
                cpu_micros,
                pids,
                refused_packets,
                oom_kills,
            } = wire;
            let usage = Usage {
                memory_bytes,
                cpu_micros,
                pids,
                refused_packets,
                oom_kills,
            };
            Ok((decky, usage))
        })
        .collect()
}

fn spec_bytes(spec: Option<SpecDigest>) -> Vec<u8> {
    spec.map(|spec| spec.bytes().to_vec()).unwrap_or_default()
}

fn spec_from(bytes: &[u8]) -> Result<Option<SpecDigest>, InvalidMessage> {
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some(SpecDigest::new(bytes32(bytes, "spec")?)))
}

impl From<&Inventory> for v1::Inventory {
    fn from(inventory: &Inventory) -> Self {
        let Inventory {
            lans,
            deckies,
            foreign,
        } = inventory;
        Self {
            lans: lans
                .iter()
                .map(|lan| v1::ObservedLan {
                    handle: lan.handle.as_str().to_owned(),
                    lan_id: lan.id.uuid().as_bytes().to_vec(),
                    topology_id: lan.topology.uuid().as_bytes().to_vec(),
                    spec: spec_bytes(lan.spec),
                    depth: lan.depth,
                })
                .collect(),
            deckies: deckies
                .iter()
                .map(|decky| v1::ObservedDecky {
                    handle: decky.handle.as_str().to_owned(),
                    decky_id: decky.id.uuid().as_bytes().to_vec(),
                    topology_id: decky.topology.uuid().as_bytes().to_vec(),
                    spec: spec_bytes(decky.spec),
                    state: decky.state.as_str().to_owned(),
                    attachments: decky
                        .attachments
                        .iter()
                        .map(|attachment| v1::Attachment {
                            network: attachment.network.as_str().to_owned(),
                            address: attachment.address.map_or(0, Ipv4Addr::to_bits),
                        })
                        .collect(),
                    config: decky.config.clone().unwrap_or_default(),
                    outdated: decky.outdated,
                })
                .collect(),
            foreign: foreign
                .iter()
                .map(|foreign| v1::Foreign {
                    noun: foreign.noun.to_owned(),
                    name: foreign.name.clone(),
                })
                .collect(),
        }
    }
}

impl TryFrom<v1::Inventory> for Inventory {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Inventory) -> Result<Self, InvalidMessage> {
        if wire
            .lans
            .len()
            .max(wire.deckies.len())
            .max(wire.foreign.len())
            > MAX_OBJECTS
        {
            return Err(invalid("observed"));
        }
        Ok(Self {
            lans: wire
                .lans
                .into_iter()
                .map(observed_lan)
                .collect::<Result<_, _>>()?,
            deckies: wire
                .deckies
                .into_iter()
                .map(observed_decky)
                .collect::<Result<_, _>>()?,
            foreign: wire
                .foreign
                .into_iter()
                .map(|wire| {
                    let noun = ["container", "network"]
                        .into_iter()
                        .find(|noun| *noun == wire.noun)
                        .ok_or(invalid("foreign.noun"))?;
                    Ok(Foreign {
                        noun,
                        name: wire.name.chars().take(256).collect(),
                    })
                })
                .collect::<Result<_, _>>()?,
        })
    }
}

fn handle(text: &str) -> Result<Handle, InvalidMessage> {
    if text.is_empty() || text.len() > 256 {
        return Err(invalid("handle"));
    }
    Ok(Handle::new(text))
}

fn observed_lan(wire: v1::ObservedLan) -> Result<ObservedLan, InvalidMessage> {
    Ok(ObservedLan {
        handle: handle(&wire.handle)?,
        id: LanId::new(uuid(&wire.lan_id, "lan_id")?),
        topology: TopologyId::new(uuid(&wire.topology_id, "topology_id")?),
        spec: spec_from(&wire.spec)?,
        depth: wire.depth,
    })
}

fn observed_decky(wire: v1::ObservedDecky) -> Result<ObservedDecky, InvalidMessage> {
    let state = match wire.state.as_str() {
        "created" => RunState::Created,
        "running" => RunState::Running,
        "paused" => RunState::Paused,
        "exited" => RunState::Exited,
        _ => return Err(invalid("state")),
    };
    if wire.attachments.len() > 256 || wire.config.len() > 64 {
        return Err(invalid("attachments"));
    }
    Ok(ObservedDecky {
        handle: handle(&wire.handle)?,
        id: DeckyId::new(uuid(&wire.decky_id, "decky_id")?),
        topology: TopologyId::new(uuid(&wire.topology_id, "topology_id")?),
        spec: spec_from(&wire.spec)?,
        state,
        attachments: wire
            .attachments
            .into_iter()
            .map(|wire| {
                Ok(Attachment {
                    network: handle(&wire.network)?,
                    address: Some(wire.address)
                        .filter(|bits| *bits != 0)
                        .map(Ipv4Addr::from_bits),
                })
            })
            .collect::<Result<_, InvalidMessage>>()?,
        config: Some(wire.config).filter(|config| !config.is_empty()),
        // The agent compares these by itself and reports what differs.
        wiring: None,
        published: None,
        outdated: wire.outdated,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_deckies_survive_the_wire_and_say_what_is_not_known() {
        let known = Usage {
            memory_bytes: u64::MAX,
            cpu_micros: 7,
            pids: 3,
            refused_packets: Some(0),
            oom_kills: None,
        };
        let all = Usages::from([
            (DeckyId::new(Uuid::from_u128(1)), known),
            (DeckyId::new(Uuid::from_u128(2)), Usage::default()),
        ]);
        assert_eq!(usages(v1::Usage::from(&all)), Ok(all));
    }

    #[test]
    fn figures_of_nobody_and_too_many_figures_are_refused() {
        let short = v1::DeckyUsage {
            decky_id: vec![1; 15],
            ..v1::DeckyUsage::default()
        };
        let deckies = vec![short];
        assert_eq!(
            usages(v1::Usage { deckies }),
            Err(invalid("usage.decky_id"))
        );
        let deckies = vec![v1::DeckyUsage::default(); MAX_OBJECTS + 1];
        assert_eq!(usages(v1::Usage { deckies }), Err(invalid("usage")));
    }
}

//! What goes over the control stream, to and from the agent's own types.

use std::time::Duration;

use domain::assign::HostReport;
use domain::id::TopologyId;
use domain::revision::Fence;
use domain::topology::hydrate::VersionHash;
use domain::usage::Usages;
use proto::convert::{self, InvalidMessage, bytes32, fence, invalid, millis, uuid};
use proto::v1::{self, agent_message, master_message};
use time::OffsetDateTime;

use crate::apply::{Offer, Progress};
use crate::health::Health;

/// What the master says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Welcome {
    pub(super) floor: Fence,
    pub(super) heartbeat: Duration,
    pub(super) spread: Duration,
    pub(super) master_time: i64,
}

/// What the master says then.
#[derive(Debug)]
pub(super) enum Order {
    Assign(Offer),
    ReportWanted,
    RenewNow,
}

/// A period outside of this is a mistake of the master's, and not to be obeyed.
const PERIODS: (u32, u32) = (10, 600_000);

pub(super) fn welcome(message: v1::MasterMessage) -> Result<Welcome, InvalidMessage> {
    let Some(master_message::Body::Welcome(wire)) = message.body else {
        return Err(invalid("welcome"));
    };
    let period = wire.heartbeat_ms.clamp(PERIODS.0, PERIODS.1);
    Ok(Welcome {
        floor: fence(wire.floor, "welcome.floor")?,
        heartbeat: Duration::from_millis(u64::from(period)),
        spread: Duration::from_millis(u64::from(wire.reconnect_spread_ms)),
        master_time: wire.master_time,
    })
}

pub(super) fn order(message: v1::MasterMessage) -> Result<Order, InvalidMessage> {
    match message.body {
        Some(master_message::Body::Assign(wire)) => Ok(Order::Assign(offer(wire)?)),
        Some(master_message::Body::ReportWanted(v1::ReportWanted {})) => Ok(Order::ReportWanted),
        Some(master_message::Body::RenewNow(v1::RenewNow {})) => Ok(Order::RenewNow),
        Some(master_message::Body::Welcome(_)) => Err(invalid("second welcome")),
        // Of a newer master, which knows that this agent may be older.
        None => Err(invalid("body")),
    }
}

fn offer(wire: v1::Assign) -> Result<Offer, InvalidMessage> {
    let v1::Assign {
        fence: order,
        topology_id,
        version_hash,
        hydrated,
    } = wire;
    let topology = if topology_id.is_empty() {
        None
    } else {
        let id = TopologyId::new(uuid(&topology_id, "assign.topology_id")?);
        let hash = VersionHash::new(bytes32(&version_hash, "assign.version_hash")?);
        Some((id, hash, hydrated))
    };
    Ok(Offer {
        fence: fence(order, "assign.fence")?,
        topology,
    })
}

pub(super) fn hello(report: &HostReport, now: OffsetDateTime) -> v1::AgentMessage {
    // The row alone: what was observed before this stream began may no longer be so.
    let row = v1::Report {
        observed: None,
        drift: Vec::new(),
        ..v1::Report::from(report)
    };
    agent(agent_message::Body::Hello(v1::Hello {
        agent_version: super::VERSION.to_owned(),
        report: Some(row),
        agent_time: millis(Some(now)),
    }))
}

pub(super) fn report(report: &HostReport) -> v1::AgentMessage {
    agent(agent_message::Body::Report(report.into()))
}

pub(super) fn heartbeat(report: &HostReport, digest: u64, health: Health) -> v1::AgentMessage {
    let hash = report
        .content
        .map(|(_, hash)| hash.bytes().to_vec())
        .unwrap_or_default();
    let Health {
        engine_ok,
        collect_ok,
        spool_ok,
        disk_free_mib,
        memory_free_mib,
        spool_events,
    } = health;
    agent(agent_message::Body::Heartbeat(v1::Heartbeat {
        fence: Some(report.fence.into()),
        version_hash: hash,
        observed_digest: digest,
        phase: v1::Phase::from(report.phase).into(),
        in_flight: report.in_flight,
        health: Some(v1::Health {
            engine_ok,
            collect_ok,
            spool_ok,
            disk_free_mib,
            memory_free_mib,
            spool_events,
        }),
    }))
}

pub(super) fn progress(progress: Progress) -> v1::AgentMessage {
    let Progress { fence, done, total } = progress;
    agent(agent_message::Body::Progress(v1::Progress {
        fence: Some(fence.into()),
        done,
        total,
    }))
}

pub(super) fn usage(usages: &Usages) -> v1::AgentMessage {
    agent(agent_message::Body::Usage(usages.into()))
}

/// The digest that a heartbeat carries of the last report.
pub(super) fn observed_digest(report: &HostReport) -> u64 {
    convert::observed_digest(&report.into())
}

fn agent(body: agent_message::Body) -> v1::AgentMessage {
    v1::AgentMessage { body: Some(body) }
}

#[cfg(test)]
mod tests {
    use domain::assign::Phase;
    use prost::Message as _;
    use uuid::Uuid;

    use super::*;

    fn full_report() -> HostReport {
        HostReport {
            fence: Fence::new(u64::MAX, u64::MAX),
            phase: Phase::Applied,
            in_flight: true,
            content: Some((
                TopologyId::new(Uuid::from_u128(7)),
                VersionHash::new([7; 32]),
            )),
            applied_at: None,
            failure: None,
            refusal: None,
            observed: None,
            drift: Vec::new(),
            timings: domain::assign::Timings::new(),
        }
    }

    #[test]
    fn a_heartbeat_is_at_most_200_bytes() {
        let health = Health {
            engine_ok: true,
            collect_ok: true,
            spool_ok: true,
            disk_free_mib: u32::MAX,
            memory_free_mib: u32::MAX,
            spool_events: u32::MAX,
        };
        let message = heartbeat(&full_report(), u64::MAX, health);
        assert!(message.encoded_len() <= 200, "{}", message.encoded_len());
    }

    #[test]
    fn the_digest_depends_on_what_is_observed_and_on_nothing_else() {
        let report = full_report();
        let moved = HostReport {
            fence: Fence::new(1, 2),
            phase: Phase::Failed,
            ..report.clone()
        };
        assert_eq!(observed_digest(&report), observed_digest(&moved));
        let seen = HostReport {
            observed: Some(domain::observe::Inventory::default()),
            ..report.clone()
        };
        assert_ne!(observed_digest(&report), observed_digest(&seen));
    }

    #[test]
    fn a_malformed_order_names_the_part_that_is_wrong() {
        let short = v1::Assign {
            fence: Some(Fence::new(1, 1).into()),
            topology_id: vec![1; 15],
            ..v1::Assign::default()
        };
        let message = v1::MasterMessage {
            body: Some(master_message::Body::Assign(short)),
        };
        assert_eq!(order(message).err(), Some(invalid("assign.topology_id")));
        assert_eq!(
            order(v1::MasterMessage { body: None }).err(),
            Some(invalid("body"))
        );
    }
}

//! Writes what the master knows in the shapes of the REST API.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::assign::{HostReport, Phase, Timings};
use domain::host::HostState;
use domain::id::TopologyId;
use domain::observe::{Drift, Inventory, RunState};
use domain::revision::Fence;
use domain::topology::Topology;
use domain::topology::hydrate::VersionHash;
use domain::usage::{Usage, Usages};
use proto::line::{format_time, payload_json};
use proto::rest::{
    AppliedShape, AuditShape, DesiredShape, DriftShape, EventShape, FindingShape, HealthShape,
    HostShape, ObservedShape, Page, ProgressShape, StatusChangeShape, TokenShape, TopologyShape,
    TopologyState, UsageShape,
};
use time::OffsetDateTime;

use crate::db::{
    Actor, AuditEntry, EventRow, HostRow, StatusChange, TokenRow, TopologyRow, TopologySummary,
};
use crate::fleet::LiveHost;
use crate::topology::Inspection;

/// A list that is given whole.
pub(super) fn whole<T>(items: Vec<T>) -> Page<T> {
    Page {
        total: count(items.len()),
        items,
        next: None,
    }
}

/// A length as the shapes count.
pub(super) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn small(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

pub(super) fn actor(actor: &Actor) -> String {
    match actor {
        Actor::Operator(name) => format!("operator:{}", place(name).0),
        Actor::Host(id) => format!("host:{id}"),
        Actor::Reconciler => "reconciler".to_owned(),
    }
}

/// An operator's name and address, which the audit keeps as one.
fn place(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once('@') {
        Some((name, origin)) => (name, Some(origin)),
        None => (name, None),
    }
}

fn origin(actor: &Actor) -> Option<String> {
    match actor {
        Actor::Operator(name) => place(name).1.map(str::to_owned),
        Actor::Host(_) | Actor::Reconciler => None,
    }
}

pub(super) fn audit(entry: &AuditEntry) -> AuditShape {
    AuditShape {
        at: format_time(entry.at),
        actor: actor(&entry.actor),
        action: entry.action.clone(),
        origin: origin(&entry.actor),
        subject: entry.subject.clone(),
        detail: entry.detail.clone(),
    }
}

pub(super) fn token(row: &TokenRow) -> TokenShape {
    TokenShape {
        id: row.id.to_string(),
        name: row.name.to_string(),
        created_at: format_time(row.created_at),
        expires_at: format_time(row.expires_at),
        creator: row.creator.clone(),
    }
}

pub(super) fn host(
    row: &HostRow,
    state: HostState,
    last_seen: Option<OffsetDateTime>,
    live: Option<&LiveHost>,
) -> HostShape {
    let live = live.filter(|live| live.connected);
    let report = live.and_then(|live| live.report.as_deref());
    HostShape {
        id: row.id.to_string(),
        name: row.name.to_string(),
        state: state.as_str().to_owned(),
        standing: row.standing.as_str().to_owned(),
        last_seen: last_seen.map(format_time),
        agent_version: live
            .map(|live| live.agent_version.as_str())
            .filter(|version| !version.is_empty())
            .unwrap_or(&row.agent_version)
            .to_owned(),
        enrolled_at: format_time(row.enrolled_at),
        desired: Some(desired(row.assignment.fence, row.assignment.content)),
        settled: report.is_some_and(|report| {
            report.fence == row.assignment.fence && !report.in_flight && report.observed.is_some()
        }),
        applied: report.and_then(applied_by),
        observed: report
            .and_then(|report| report.observed.as_ref())
            .map(|observed| observed_of(observed, None)),
        drift: report
            .map(|report| drifts(&report.drift))
            .unwrap_or_default(),
        health: live.and_then(health),
    }
}

fn health(live: &LiveHost) -> Option<HealthShape> {
    live.health.map(|health| HealthShape {
        engine_ok: health.engine_ok,
        collect_ok: health.collect_ok,
        spool_ok: health.spool_ok,
        disk_free_mib: health.disk_free_mib,
        memory_free_mib: health.memory_free_mib,
        spool_events: health.spool_events,
        clock_skew_ms: live.clock_skew_ms,
    })
}

fn desired(fence: Fence, content: Option<(TopologyId, VersionHash)>) -> DesiredShape {
    DesiredShape {
        epoch: fence.epoch.get(),
        generation: fence.generation.get(),
        topology: content.map(|(topology, _)| topology.to_string()),
        version_hash: content.map(|(_, hash)| hash.to_string()),
    }
}

fn applied_by(report: &HostReport) -> Option<AppliedShape> {
    let (topology, hash) = report.content.filter(|_| report.phase == Phase::Applied)?;
    Some(AppliedShape {
        generation: report.fence.generation.get(),
        topology: Some(topology.to_string()),
        version_hash: hash.to_string(),
        at: format_time(report.applied_at?),
    })
}

fn timings(timings: &Timings) -> BTreeMap<String, u64> {
    timings
        .iter()
        .map(|(stage, took)| {
            (
                stage.as_str().to_owned(),
                u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            )
        })
        .collect()
}

fn observed_of(observed: &Inventory, only: Option<TopologyId>) -> ObservedShape {
    let wanted = |topology: TopologyId| only.is_none_or(|only| only == topology);
    let running = observed
        .deckies
        .iter()
        .filter(|decky| wanted(decky.topology) && decky.state == RunState::Running);
    ObservedShape {
        deckies: count(running.count()),
        lans: count(
            observed
                .lans
                .iter()
                .filter(|lan| wanted(lan.topology))
                .count(),
        ),
        usage: Vec::new(),
    }
}

/// What the running deckies of a topology use, by name.
fn usages(topology: &Topology, observed: &Inventory, usages: &Usages) -> Vec<UsageShape> {
    let running = observed
        .deckies
        .iter()
        .filter(|decky| decky.topology == topology.id && decky.state == RunState::Running);
    let mut shapes: Vec<UsageShape> = running
        .filter_map(|decky| {
            let Usage {
                memory_bytes,
                cpu_micros,
                pids,
                refused_packets,
                oom_kills,
            } = *usages.get(&decky.id)?;
            let name = topology.deckies.iter().find(|known| known.id == decky.id);
            Some(UsageShape {
                decky: decky.id.to_string(),
                name: name.map(|known| known.name.to_string()),
                memory_bytes,
                cpu_micros,
                pids,
                refused_packets,
                oom_kills,
            })
        })
        .collect();
    shapes.sort_by(|one, other| (&one.name, &one.decky).cmp(&(&other.name, &other.decky)));
    shapes
}

fn drifts(drift: &[Drift]) -> Vec<DriftShape> {
    drift
        .iter()
        .map(|drift| DriftShape {
            kind: drift.kind.as_str().to_owned(),
            object: drift.object.clone(),
        })
        .collect()
}

pub(super) fn summary(summary: &TopologySummary, host: Option<&HostRow>) -> TopologyShape {
    TopologyShape {
        id: summary.id.to_string(),
        name: summary.name.to_string(),
        status: summary.status.as_str().to_owned(),
        status_at: format_time(summary.status_at),
        reason: summary.reason.clone(),
        revision: summary.revision.get(),
        host: host.map(|host| host.name.to_string()),
        lans: summary.lans,
        deckies: summary.deckies,
    }
}

fn topology(row: &TopologyRow, host: Option<&HostRow>) -> TopologyShape {
    TopologyShape {
        id: row.topology.id.to_string(),
        name: row.topology.name.to_string(),
        status: row.status.as_str().to_owned(),
        status_at: format_time(row.status_at),
        reason: row.reason.clone(),
        revision: row.topology.revision.get(),
        host: host.map(|host| host.name.to_string()),
        lans: small(row.topology.lans.len()),
        deckies: small(row.topology.deckies.len()),
    }
}

pub(super) fn state(inspection: &Inspection) -> TopologyState {
    let Inspection {
        row,
        host,
        live,
        condition,
        findings,
    } = inspection;
    let id = row.topology.id;
    let live = live.as_ref().filter(|live| live.connected);
    let report = live.and_then(|live| live.report.as_deref());
    let desired_fence = row.desired.map(|(fence, _)| fence);
    TopologyState {
        topology: topology(row, host.as_ref()),
        desired: row
            .desired
            .map(|(fence, hash)| desired(fence, Some((id, hash)))),
        applied: row.applied.map(|(fence, hash, at)| AppliedShape {
            generation: fence.generation.get(),
            topology: Some(id.to_string()),
            version_hash: hash.to_string(),
            at: format_time(at),
        }),
        observed: report
            .and_then(|report| report.observed.as_ref())
            .map(|observed| ObservedShape {
                usage: live
                    .map(|live| usages(&row.topology, observed, &live.usage))
                    .unwrap_or_default(),
                ..observed_of(observed, Some(id))
            }),
        // Drift is measured against what the host was told to hold; of another it says nothing.
        drift: report
            .filter(|report| report.content.is_some_and(|(held, _)| held == id))
            .map(|report| drifts(&report.drift))
            .unwrap_or_default(),
        timings_us: report
            .filter(|report| report.content.is_some_and(|(held, _)| held == id))
            .map(|report| timings(&report.timings))
            .unwrap_or_default(),
        condition: condition.clone(),
        progress: live
            .and_then(|live| live.progress)
            .filter(|(fence, ..)| Some(*fence) == desired_fence)
            .map(|(_, done, total)| ProgressShape { done, total }),
        findings: findings.iter().map(FindingShape::from).collect(),
    }
}

pub(super) fn status_change(change: &StatusChange) -> StatusChangeShape {
    StatusChangeShape {
        at: format_time(change.at),
        from: change.from.as_str().to_owned(),
        to: change.to.as_str().to_owned(),
        event: change.event.as_str().to_owned(),
        reason: change.reason.clone(),
        actor: actor(&change.actor),
    }
}

pub(super) fn event(row: &EventRow) -> EventShape {
    let event = &row.event;
    EventShape {
        id: event.id.to_string(),
        row: row.row,
        host: row.host.to_string(),
        topology: event.topology.to_string(),
        decky: event.decky.to_string(),
        decky_name: row.decky_name.as_ref().map(ToString::to_string),
        service: event.service.map(|service| service.as_str().to_owned()),
        kind: event.payload.kind().as_str().to_owned(),
        severity: event.severity.as_str().to_owned(),
        at: format_time(event.at),
        received_at: format_time(event.received_at),
        session: event.session.map(|session| session.to_string()),
        source: event.source.map(|source| source.to_string()),
        destination: event.destination.map(|destination| destination.to_string()),
        data: payload_json(&event.payload),
        raw: event.raw.as_ref().map(|raw| STANDARD.encode(raw.bytes())),
        spool: row.spool.to_string(),
        sequence: event.sequence,
    }
}

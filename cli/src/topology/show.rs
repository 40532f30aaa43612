//! How topologies look to people.

use std::collections::BTreeMap;

use domain::assign::Stage;
use proto::rest::{
    AppliedShape, DesiredShape, FindingShape, ObservedShape, StatusChangeShape, TopologyShape,
    TopologyState, UsageShape,
};

use crate::clock;
use crate::safe::safe;
use crate::table::{Field, Look, table};

/// Enough of a hash to tell two apart.
const HASH: usize = 12;

fn short(hash: &str) -> &str {
    hash.get(..HASH).unwrap_or(hash)
}

pub(crate) fn desired_text(desired: &DesiredShape) -> String {
    let DesiredShape {
        epoch,
        generation,
        topology,
        version_hash,
    } = desired;
    let what = match (topology, version_hash) {
        (None, _) => "nothing".to_owned(),
        (Some(topology), None) => topology.clone(),
        (Some(topology), Some(hash)) => format!("{topology} {}", short(hash)),
    };
    format!("generation {generation} of epoch {epoch}: {what}")
}

pub(crate) fn applied_text(applied: &AppliedShape) -> String {
    let AppliedShape {
        generation,
        topology,
        version_hash,
        at,
    } = applied;
    let what = match topology {
        None => "nothing".to_owned(),
        Some(topology) => format!("{topology} {}", short(version_hash)),
    };
    format!(
        "generation {generation}: {what}, {}",
        clock::ago(at, clock::now())
    )
}

pub(crate) fn observed_text(observed: &ObservedShape) -> String {
    format!("{} deckies, {} LANs", observed.deckies, observed.lans)
}

pub(crate) fn topologies_table(look: Look, topologies: &[TopologyShape]) -> String {
    let now = clock::now();
    table(
        look,
        &[
            "name", "status", "since", "host", "lans", "deckies", "revision", "reason", "id",
        ],
        topologies.iter().map(|topology| {
            [
                Field::text(&topology.name),
                Field::State(topology.status.clone()),
                Field::text(clock::ago(&topology.status_at, now)),
                Field::maybe(topology.host.as_deref()),
                Field::text(topology.lans),
                Field::text(topology.deckies),
                Field::text(topology.revision),
                Field::text(&topology.reason),
                Field::text(&topology.id),
            ]
        }),
    )
}

pub(crate) fn findings_table(look: Look, findings: &[FindingShape]) -> String {
    table(
        look,
        &["severity", "code", "path", "message"],
        findings.iter().map(|finding| {
            [
                Field::State(finding.severity.clone()),
                Field::text(&finding.code),
                Field::text(&finding.path),
                Field::text(&finding.message),
            ]
        }),
    )
}

/// What deckies use, the figures for people.
fn usage_table(look: Look, usage: &[UsageShape]) -> String {
    table(
        look,
        &["decky", "memory", "cpu", "pids", "refused", "oom kills"],
        usage.iter().map(|usage| {
            let UsageShape {
                decky,
                name,
                memory_bytes,
                cpu_micros,
                pids,
                refused_packets,
                oom_kills,
            } = usage;
            [
                Field::text(name.as_deref().unwrap_or(decky)),
                Field::text(mebibytes(*memory_bytes)),
                Field::text(seconds(*cpu_micros)),
                Field::text(pids),
                Field::maybe(*refused_packets),
                Field::maybe(*oom_kills),
            ]
        }),
    )
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

fn seconds(micros: u64) -> String {
    let hundredths = micros / 10_000;
    format!("{}.{:02} s", hundredths / 100, hundredths % 100)
}

pub(super) fn changes_table(look: Look, changes: &[StatusChangeShape]) -> String {
    table(
        look,
        &["at", "from", "to", "event", "actor", "reason"],
        changes.iter().map(|change| {
            [
                Field::text(clock::date_and_time(&change.at)),
                Field::State(change.from.clone()),
                Field::State(change.to.clone()),
                Field::text(&change.event),
                Field::text(&change.actor),
                Field::text(&change.reason),
            ]
        }),
    )
}

/// One line on where a topology stands.
/// What is awaited. Of what is as it was wanted, that is nothing: the master tells it a moment
/// longer than it is so.
pub(super) fn awaited(state: &TopologyState) -> Option<&str> {
    let generation = |desired: &DesiredShape| desired.generation;
    let wanted = state.desired.as_ref().map(generation);
    let has = state.applied.as_ref().map(|applied| applied.generation);
    let settled = state.topology.status == "active"
        && wanted.is_some()
        && wanted == has
        && state.drift.is_empty();
    state.condition.as_deref().filter(|_| !settled)
}

pub(super) fn standing_text(state: &TopologyState) -> String {
    let TopologyShape {
        name, status, host, ..
    } = &state.topology;
    let host = host
        .as_deref()
        .map(|host| format!(" on {host}"))
        .unwrap_or_default();
    let deckies = state
        .observed
        .as_ref()
        .filter(|_| status == "active")
        .map(|observed| format!(": {}", observed_text(observed)))
        .unwrap_or_default();
    safe(&format!("topology {name} is {status}{host}{deckies}")).into_owned()
}

pub(super) fn created_text(look: Look, state: &TopologyState) -> String {
    let TopologyShape { id, name, .. } = &state.topology;
    let mut text = safe(&format!("topology {name} is stored ({id})")).into_owned();
    text.push('\n');
    if !state.findings.is_empty() {
        text.push_str(&findings_table(look, &state.findings));
    }
    text.push_str(&safe(&format!(
        "deploy it with: decnet topology deploy {name}"
    )));
    text.push('\n');
    text
}

/// Stages in the order in which they are gone through; one that is not known comes last.
fn timings_text(timings: &BTreeMap<String, u64>) -> String {
    let place = |name: &str| {
        name.parse::<Stage>()
            .map_or(Stage::ALL.len(), |stage| stage as usize)
    };
    let mut stages: Vec<_> = timings.iter().collect();
    stages.sort_by_key(|(name, _)| place(name));
    let stages: Vec<_> = stages
        .iter()
        .map(|(name, micros)| format!("{name} {} ms", **micros / 1000))
        .collect();
    stages.join(", ")
}

pub(super) fn state_text(look: Look, state: &TopologyState) -> String {
    let topology = &state.topology;
    let mut rows: Vec<[Field; 2]> = Vec::new();
    let mut row = |name: &str, value: Field| rows.push([Field::text(name), value]);
    row("name", Field::text(&topology.name));
    row("id", Field::text(&topology.id));
    row("status", Field::State(topology.status.clone()));
    row(
        "since",
        Field::text(clock::ago(&topology.status_at, clock::now())),
    );
    row("reason", Field::text(&topology.reason));
    row("host", Field::maybe(topology.host.as_deref()));
    row("revision", Field::text(topology.revision));
    row(
        "wanted",
        Field::text(format!(
            "{} deckies, {} LANs",
            topology.deckies, topology.lans
        )),
    );
    row(
        "desired",
        Field::maybe(state.desired.as_ref().map(desired_text)),
    );
    row(
        "applied",
        Field::maybe(state.applied.as_ref().map(applied_text)),
    );
    row(
        "observed",
        Field::maybe(state.observed.as_ref().map(observed_text)),
    );
    if !state.timings_us.is_empty() {
        row("last attempt", Field::text(timings_text(&state.timings_us)));
    }
    if let Some(condition) = awaited(state) {
        row("awaited", Field::text(condition));
    }
    if let Some(progress) = &state.progress {
        row(
            "progress",
            Field::text(format!("{}/{} steps", progress.done, progress.total)),
        );
    }
    for drift in &state.drift {
        row(
            "drift",
            Field::text(format!("{} {}", drift.kind, drift.object)),
        );
    }
    let mut text = table(look, &[], rows);
    if let Some(observed) = &state.observed
        && !observed.usage.is_empty()
    {
        text.push('\n');
        text.push_str(&usage_table(look, &observed.usage));
    }
    if !state.findings.is_empty() {
        text.push('\n');
        text.push_str(&findings_table(look, &state.findings));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_awaited_of_what_is_as_it_was_wanted() {
        let mut state = crate::stub::state("active");
        state.condition = Some("the host is at work".to_owned());
        assert_eq!(awaited(&state), Some("the host is at work"));
        state.desired = Some(DesiredShape {
            epoch: 1,
            generation: 4,
            topology: None,
            version_hash: None,
        });
        state.applied = Some(AppliedShape {
            generation: 3,
            topology: None,
            version_hash: String::new(),
            at: "2026-01-01T00:00:00Z".to_owned(),
        });
        assert_eq!(awaited(&state), Some("the host is at work"));
        if let Some(applied) = &mut state.applied {
            applied.generation = 4;
        }
        assert_eq!(awaited(&state), None);
        state.topology.status = "degraded".to_owned();
        assert_eq!(awaited(&state), Some("the host is at work"));
    }

    #[test]
    fn the_usage_of_deckies_is_what_an_operator_reads() {
        let look = Look {
            width: None,
            colour: false,
        };
        let usage = [
            UsageShape {
                decky: "00000000-0000-0000-0000-000000000007".to_owned(),
                name: Some("web-1".to_owned()),
                memory_bytes: 4_823_449,
                cpu_micros: 1_239_999,
                pids: 3,
                refused_packets: Some(12),
                oom_kills: Some(0),
            },
            UsageShape {
                decky: "00000000-0000-0000-0000-000000000008".to_owned(),
                name: None,
                memory_bytes: 0,
                cpu_micros: 0,
                pids: 0,
                refused_packets: None,
                oom_kills: None,
            },
        ];
        let text = usage_table(look, &usage);
        let words: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            words,
            [
                vec!["DECKY", "MEMORY", "CPU", "PIDS", "REFUSED", "OOM", "KILLS"],
                vec!["web-1", "4.5", "MiB", "1.23", "s", "3", "12", "0"],
                vec![
                    "00000000-0000-0000-0000-000000000008",
                    "0.0",
                    "MiB",
                    "0.00",
                    "s",
                    "0",
                    "-",
                    "-"
                ],
            ]
        );
    }
}

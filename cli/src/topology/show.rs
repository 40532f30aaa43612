//! How topologies look to people.

use proto::rest::{
    AppliedShape, DesiredShape, FindingShape, ObservedShape, StatusChangeShape, TopologyShape,
    TopologyState,
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
    if let Some(condition) = &state.condition {
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
    if !state.findings.is_empty() {
        text.push('\n');
        text.push_str(&findings_table(look, &state.findings));
    }
    text
}

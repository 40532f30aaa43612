//! `decnet topology explain`: why a topology stands as it does, and what to do about it. Everything
//! that is said was asked of the master; nothing is guessed.

use proto::client::ClientError;
use proto::rest::mutation::MutationShape;
use proto::rest::{HostShape, TopologyState};
use serde::Serialize;

use super::args::TopologyArg;
use super::show::awaited;
use super::{applied_text, desired_text, observed_text};
use crate::clock;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::mutation::newest;
use crate::safe::safe;
use crate::topology::edit;

/// How many of the newest mutations are looked at.
const MUTATIONS: u32 = 50;

/// Why a topology stands as it does.
#[derive(Debug, Serialize)]
struct Explanation {
    /// Its name.
    topology: String,
    /// Its status.
    status: String,
    /// What is known of it, one sentence each.
    because: Vec<String>,
    /// What to do; nothing when all is well.
    next: Vec<String>,
}

pub(super) async fn run(args: &TopologyArg, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let state = client.topology(&args.topology).await?;
    let host = match &state.topology.host {
        Some(name) => Some(client.host(name).await?),
        None => None,
    };
    let mutations = match newest(&client, &state.topology.id, None, MUTATIONS).await {
        Ok(mutations) => mutations,
        // A topology that was removed meanwhile has none.
        Err(ClientError::Problem(problem)) if problem.status == 404 => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let explanation = explain(&state, host.as_ref(), &mutations);
    context.output.show(&explanation, text)?;
    Ok(Exit::Done)
}

fn explain(
    state: &TopologyState,
    host: Option<&HostShape>,
    mutations: &[MutationShape],
) -> Explanation {
    let topology = &state.topology;
    let mut because = vec![standing(state)];
    if let Some(host) = host {
        because.extend(of_host(host, state));
    }
    because.extend(held(state));
    if let Some(condition) = awaited(state) {
        because.push(format!("awaited: {condition}"));
    }
    for drift in &state.drift {
        because.push(format!("{} is {}", drift.object, drift.kind));
    }
    for finding in &state.findings {
        because.push(format!(
            "{} [{}] {}: {}",
            finding.severity, finding.code, finding.path, finding.message
        ));
    }
    let open = |each: &&MutationShape| ["pending", "applying"].contains(&each.state.as_str());
    because.extend(mutations.iter().rev().filter(open).map(edit::standing));
    let newest = mutations.first().filter(|each| each.state == "failed");
    because.extend(newest.map(edit::standing));
    Explanation {
        topology: topology.name.clone(),
        status: topology.status.clone(),
        because,
        next: next(state, host, newest),
    }
}

fn standing(state: &TopologyState) -> String {
    let topology = &state.topology;
    let since = clock::ago(&topology.status_at, clock::now());
    let reason = if topology.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", topology.reason)
    };
    format!("it became {} {since}{reason}", topology.status)
}

fn of_host(host: &HostShape, state: &TopologyState) -> Vec<String> {
    let mut lines = vec![format!(
        "host {} is {} ({})",
        host.name, host.state, host.standing
    )];
    let health = host.health.iter().flat_map(|health| {
        [
            (health.engine_ok, "its engine does not answer"),
            (health.collect_ok, "evidence is not collected there"),
            (health.spool_ok, "its spool takes no evidence"),
        ]
    });
    lines.extend(
        health
            .filter(|(well, _)| !well)
            .map(|(_, text)| text.to_owned()),
    );
    let other = host
        .desired
        .as_ref()
        .and_then(|desired| desired.topology.as_ref());
    if other.is_some_and(|other| *other != state.topology.id) {
        lines.push("it is to hold another topology".to_owned());
    }
    lines
}

/// Desired, applied, observed: the three that are kept apart.
fn held(state: &TopologyState) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(desired) = &state.desired {
        lines.push(format!("desired: {}", desired_text(desired)));
    }
    if let Some(applied) = &state.applied {
        lines.push(format!("applied: {}", applied_text(applied)));
    }
    if let Some(observed) = &state.observed {
        lines.push(format!("observed: {}", observed_text(observed)));
    }
    lines
}

fn next(
    state: &TopologyState,
    host: Option<&HostShape>,
    failed: Option<&MutationShape>,
) -> Vec<String> {
    let name = &state.topology.name;
    let mut next = Vec::new();
    let has_errors = state
        .findings
        .iter()
        .any(|finding| finding.severity == "error");
    let away = host.is_some_and(|host| ["late", "lost", "unknown"].contains(&host.state.as_str()));
    match state.topology.status.as_str() {
        "pending" if has_errors => {
            next.push("mend the errors, then: decnet topology apply FILE".to_owned())
        }
        "pending" => next.push(format!("decnet topology deploy {name}")),
        "failed" => next.push(format!(
            "mend the cause, then: decnet topology retry {name}"
        )),
        "degraded" if !away => next.push("it is repaired by itself as far as it can be".to_owned()),
        "torn_down" => next.push(format!("decnet topology rm {name}")),
        _ => {}
    }
    if away {
        let host = host.map_or("its host", |host| host.name.as_str());
        next.push(format!("see to host {host}: decnet host inspect {host}"));
        if state.topology.status == "tearing_down" {
            next.push(format!(
                "or settle it without: decnet topology teardown {name} --force"
            ));
        }
    }
    if let Some(failed) = failed {
        next.push(format!("decnet mutation inspect {}", failed.id));
    }
    next
}

fn text(explanation: &Explanation) -> String {
    let Explanation {
        topology,
        status,
        because,
        next,
    } = explanation;
    let mut text = format!("topology {} is {}\n", safe(topology), safe(status));
    for line in because {
        text.push_str(&format!("  {}\n", safe(line)));
    }
    for line in next {
        text.push_str(&format!("next: {}\n", safe(line)));
    }
    text
}

#[cfg(test)]
mod tests;

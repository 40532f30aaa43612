//! `decnet topology deploy --dry-run`: the steps that a host that holds nothing would take. The
//! same code plans them as the agent's; no status changes, and no host is asked.

use std::collections::BTreeMap;

use domain::observe::Inventory;
use domain::plan::{Action, Desired, plan};
use domain::topology::hydrate::HydratedTopology;
use domain::topology::status::{StatusEvent, TopologyStatus};
use proto::client::Client;
use proto::rest::TopologyState;
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::safe::safe;

/// What a deploy would do.
#[derive(Debug, Serialize)]
struct DryRun {
    /// The topology's name.
    topology: String,
    /// The host that would carry it.
    host: String,
    /// The hash of what would be assigned.
    version_hash: String,
    /// What the host would do, in its order.
    steps: Vec<StepShape>,
}

/// One step.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct StepShape {
    /// What is done: `create_lan`, `create_decky`.
    action: &'static str,
    /// To what.
    object: String,
    /// More for a person.
    detail: String,
}

pub(super) async fn run(
    name: &str,
    host: Option<&str>,
    client: &Client,
    context: &Context,
) -> Result<Exit, Failure> {
    let state = client.topology(name).await?;
    refuse(&state)?;
    let bytes = client.hydrated(&state.topology.id).await?;
    let hydrated = proto::hydrated::decode(&bytes).map_err(Failure::new)?;
    let carrier = host.or(state.topology.host.as_deref()).unwrap_or("local");
    let carrier = client.host(carrier).await?;
    let held = carrier.desired.and_then(|desired| desired.topology);
    if let Some(other) = held.filter(|other| *other != state.topology.id) {
        context.output.note(&format!(
            "host {} is to hold topology {other}: a deploy needs --replace, and removes that first",
            carrier.name
        ));
    }
    let dry = DryRun {
        topology: state.topology.name,
        host: carrier.name,
        version_hash: hydrated.version_hash().to_string(),
        steps: steps(&hydrated),
    };
    context.output.show(&dry, text)?;
    Ok(Exit::Done)
}

/// What a real deploy would refuse too.
fn refuse(state: &TopologyState) -> Result<(), Failure> {
    let name = &state.topology.name;
    if state
        .findings
        .iter()
        .any(|finding| finding.severity == "error")
    {
        return Err(Failure::say(format!("topology {name} has errors"))
            .findings(state.findings.clone())
            .next(format!("decnet topology validate {name}")));
    }
    let status: Option<TopologyStatus> = state.topology.status.parse().ok();
    let may = status.is_some_and(|status| status.next(StatusEvent::DeployRequested).is_ok());
    if may {
        return Ok(());
    }
    Err(Failure::say(format!(
        "topology {name} is {} and cannot be deployed",
        state.topology.status
    ))
    .next(format!("decnet topology explain {name}")))
}

fn steps(topology: &HydratedTopology) -> Vec<StepShape> {
    let (configs, wirings) = (BTreeMap::new(), BTreeMap::new());
    let desired = Desired {
        topology: Some(topology),
        configs: &configs,
        wirings: &wirings,
    };
    let lans: BTreeMap<_, _> = topology.lans.iter().map(|lan| (lan.id, lan)).collect();
    let deckies: BTreeMap<_, _> = topology
        .deckies
        .iter()
        .map(|each| (each.id, each))
        .collect();
    let mut planned = plan(desired, &Inventory::default());
    // Those of one kind are made at the same time, so a person reads them by name.
    planned.sort_by_key(|step| {
        let depth = match step.action {
            Action::CreateLan { depth, .. } => depth,
            Action::RemoveDecky { .. }
            | Action::Disconnect { .. }
            | Action::RemoveLan { .. }
            | Action::Connect { .. }
            | Action::StartDecky { .. }
            | Action::CreateDecky { .. }
            | Action::Rewire { .. }
            | Action::Configure { .. } => u32::MAX,
        };
        (depth, step.reason.object.clone())
    });
    planned
        .iter()
        .map(|step| {
            let detail = match &step.action {
                Action::CreateLan { lan, .. } => lans
                    .get(lan)
                    .map(|lan| format!("{} {} {}", lan.kind.as_str(), lan.subnet, lan.driver)),
                Action::CreateDecky { decky } => deckies.get(decky).map(|decky| {
                    let services: Vec<_> =
                        decky.services.keys().map(|kind| kind.as_str()).collect();
                    let addresses: Vec<_> = decky
                        .interfaces
                        .iter()
                        .map(|interface| interface.address.to_string())
                        .collect();
                    format!("{} {}", addresses.join(" "), services.join(" "))
                }),
                Action::RemoveDecky { .. }
                | Action::Disconnect { .. }
                | Action::RemoveLan { .. }
                | Action::Connect { .. }
                | Action::StartDecky { .. }
                | Action::Rewire { .. }
                | Action::Configure { .. } => None,
            };
            StepShape {
                action: step.action.as_str(),
                object: step.reason.object.clone(),
                detail: detail.unwrap_or_default(),
            }
        })
        .collect()
}

fn text(dry: &DryRun) -> String {
    let mut text = String::new();
    for step in &dry.steps {
        let StepShape {
            action,
            object,
            detail,
        } = step;
        let line = format!("{action:<12} {object}: {detail}");
        text.push_str(&format!("{}\n", safe(line.trim_end())));
    }
    let DryRun { topology, host, .. } = dry;
    let count = dry.steps.len();
    text.push_str(&safe(&format!(
        "topology {topology} on host {host}: {count} steps; nothing was changed"
    )));
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;

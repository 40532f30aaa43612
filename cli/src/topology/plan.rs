//! `decnet topology plan`: what a document would change of the stored topology of its name.
//! Nothing is changed by asking.

use domain::topology::Topology;
use domain::topology::diff::{Change, Difference};
use domain::topology::draft::{Draft, resolve};
use domain::topology::finding::{Finding, sort};
use domain::topology::status::TopologyStatus;
use domain::topology::validate::{Limits, check};
use proto::client::{Client, ClientError};
use proto::difference::{ChangeShape, changes};
use proto::rest::FindingShape;
use proto::topology_file::TopologyFile;
use serde::Serialize;

use super::args::PlanArgs;
use super::{findings_table, shapes};
use crate::args::reference;
use crate::context::Context;
use crate::document::{self, Counting, Loaded, Source};
use crate::failure::{Exit, Failure};
use crate::safe::safe;
use crate::table::Look;

/// What a document would change.
#[derive(Debug, Serialize)]
struct Plan {
    /// The topology's name.
    topology: String,
    /// Whether there is one of that name; everything is new when there is none.
    stored: bool,
    /// What differs, in the order in which it can be carried out.
    changes: Vec<ChangeShape>,
    /// What is wrong with the topology that the document asks for.
    findings: Vec<FindingShape>,
    #[serde(skip)]
    difference: Difference,
}

pub(super) async fn run(args: &PlanArgs, context: &Context) -> Result<Exit, Failure> {
    let loaded = document::load(&Source::new(&args.file))?;
    let stored = match reference(&loaded.file.name) {
        Ok(name) => stored(&context.client()?, &name).await?,
        // Nothing can be stored under it; the findings say so.
        Err(_) => None,
    };
    let plan = plan(loaded, stored).map_err(|findings| {
        Failure::say("the document cannot be read as a topology")
            .findings(findings)
            .next(format!("decnet topology validate {}", args.file))
    })?;
    let look = context.output.look;
    context.output.show(&plan, |plan| text(look, plan))?;
    Ok(exit(&plan, args.detailed_exitcode))
}

/// The stored topology of that name.
async fn stored(client: &Client, name: &str) -> Result<Option<TopologyFile>, Failure> {
    match stored_id(client, name).await? {
        // By id: the name may be another's by now.
        Some(id) => Ok(Some(client.document(&id).await?)),
        None => Ok(None),
    }
}

/// The id of the stored topology of that name; one that was torn down leaves the name to the next.
pub(super) async fn stored_id(client: &Client, name: &str) -> Result<Option<String>, Failure> {
    let state = match client.topology(name).await {
        Ok(state) => state.topology,
        Err(error) if is_unknown(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if state.status == TopologyStatus::TornDown.as_str() {
        return Ok(None);
    }
    Ok(Some(state.id))
}

/// Whether a master says so: any other server says 404 to whatever it is asked.
fn is_unknown(error: &ClientError) -> bool {
    error.problem().is_some_and(|problem| problem.status == 404)
}

/// Compares a document with what is stored, by the rules by which the master would read it.
fn plan(loaded: Loaded, stored: Option<TopologyFile>) -> Result<Plan, Vec<FindingShape>> {
    let limits = Limits::default();
    // One source for both: what is new must not take the identity of what is there.
    let mut entropy = Counting(0);
    let is_stored = stored.is_some();
    let wanted = Draft::from(loaded.file);
    let written = stored.map_or_else(
        || Draft {
            name: wanted.name.clone(),
            ..Draft::default()
        },
        Draft::from,
    );
    let before: Topology = resolve(&written, None, &limits, &mut entropy).topology;
    let after = wanted.resolve_onto(&before, &limits, &mut entropy);
    let mut findings = loaded.findings;
    findings.extend(after.findings.iter().cloned());
    if findings.iter().any(Finding::is_error) {
        sort(&mut findings);
        return Err(shapes(&findings));
    }
    findings = check(&after);
    let difference = Difference::between(&before, &after.topology);
    Ok(Plan {
        topology: after.topology.name.to_string(),
        stored: is_stored,
        changes: changes(&difference),
        findings: shapes(&findings),
        difference,
    })
}

fn exit(plan: &Plan, detailed: bool) -> Exit {
    let wrong = |finding: &FindingShape| finding.severity == "error";
    if plan.findings.iter().any(wrong) {
        Exit::Failed
    } else if detailed && !plan.difference.is_empty() {
        Exit::Difference
    } else {
        Exit::Done
    }
}

fn text(look: Look, plan: &Plan) -> String {
    let mut text = String::new();
    for line in plan.difference.to_string().lines() {
        text.push_str(&safe(line));
        text.push('\n');
    }
    let name = &plan.topology;
    if plan.difference.is_empty() {
        text.push_str(&format!("topology {name} is as the document says\n"));
    } else {
        let Counts {
            add,
            change,
            remove,
        } = Counts::of(&plan.difference);
        let new = if plan.stored {
            ""
        } else {
            ", which is not stored"
        };
        text.push_str(&format!(
            "topology {name}{new}: {add} to add, {change} to change, {remove} to remove\n"
        ));
    }
    if !plan.findings.is_empty() {
        text.push('\n');
        text.push_str(&findings_table(look, &plan.findings));
    }
    text
}

#[derive(Default)]
struct Counts {
    add: usize,
    change: usize,
    remove: usize,
}

impl Counts {
    fn of(difference: &Difference) -> Self {
        let mut counts = Self::default();
        for change in &difference.changes {
            match change {
                Change::LanAdded(_) | Change::DeckyAdded { .. } | Change::Attached { .. } => {
                    counts.add += 1;
                }
                Change::LanChanged { .. } | Change::DeckyChanged { .. } => counts.change += 1,
                Change::LanRemoved(_) | Change::DeckyRemoved { .. } | Change::Detached { .. } => {
                    counts.remove += 1;
                }
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests;

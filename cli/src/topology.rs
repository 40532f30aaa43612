//! `decnet topology`: networks of deckies, stored, deployed and taken down.

mod apply;
mod args;
mod compose;
mod dry;
pub(crate) mod edit;
mod explain;
mod generate;
mod graph;
mod mutate;
mod plan;
mod show;

use domain::topology::finding::Finding;
use proto::client::Client;
use proto::rest::{
    CreateTopology, DeployRequest, FindingShape, Findings, TeardownRequest, TopologyState,
};
use serde_json::json;

pub(crate) use self::args::TopologyCommand;
use self::args::{
    CreateArgs, DeployArgs, ExportArgs, ExportFormat, InspectArgs, SubjectArg, TeardownArgs,
};
pub(crate) use self::show::{
    applied_text, desired_text, findings_table, observed_text, topologies_table,
};
use crate::args::{Format, WaitArgs};
use crate::context::Context;
use crate::document::{self, Loaded, Source, Subject};
use crate::failure::{Exit, Failure};
use crate::host::removed;
use crate::mutation;
use crate::output::yaml;
use crate::safe::safe;
use crate::wait::{Goal, follow_topology};

/// Which of the two verbs that make a host carry a topology.
#[derive(Clone, Copy)]
enum Verb {
    Deploy,
    Retry,
}

pub(crate) async fn run(command: TopologyCommand, context: &Context) -> Result<Exit, Failure> {
    let output = &context.output;
    let look = output.look;
    match command {
        TopologyCommand::Generate(args) => return generate::run(&args, context),
        TopologyCommand::Create(args) => create(args, context).await?,
        TopologyCommand::Ls => {
            let topologies = context.client()?.topologies().await?;
            output.list(&topologies, |topologies| topologies_table(look, topologies))?;
        }
        TopologyCommand::Inspect(args) => return inspect(&args, context).await,
        TopologyCommand::Export(args) => export(&args, context).await?,
        TopologyCommand::Deploy(args) => return start(Verb::Deploy, args, context).await,
        TopologyCommand::Retry(args) => return start(Verb::Retry, args, context).await,
        TopologyCommand::Teardown(args) => return teardown(&args, context).await,
        TopologyCommand::Rm(args) => {
            context.client()?.remove_topology(&args.topology).await?;
            removed(context, "topology", &args.topology)?;
        }
        TopologyCommand::Validate(args) => return validate(&args, context).await,
        TopologyCommand::Hash(args) => return hash(&args, context).await,
        TopologyCommand::Graph(args) => return graph::run(&args, context).await,
        TopologyCommand::Plan(args) => return plan::run(&args, context).await,
        TopologyCommand::Apply(args) => return apply::run(args, context).await,
        TopologyCommand::Mutate(args) => return mutate::run(*args, context).await,
        TopologyCommand::Mutations(args) => return mutation::list(args, context).await,
        TopologyCommand::Explain(args) => return explain::run(&args, context).await,
        TopologyCommand::StatusEvents(args) => {
            let changes = context.client()?.status_events(&args.topology).await?;
            output.list(&changes, |changes| show::changes_table(look, changes))?;
        }
    }
    Ok(Exit::Done)
}

async fn create(args: CreateArgs, context: &Context) -> Result<(), Failure> {
    let mut loaded = document::load(&Source::new(&args.file))?;
    if let Some(name) = args.name {
        loaded.file.name = name;
    }
    imported(&loaded, &args.file, context)?;
    let client = context.client()?;
    let request = CreateTopology {
        topology: loaded.file,
        host: args.host,
    };
    created(&client.create_topology(&request).await?, context)
}

/// Shows what was stored; where only results are wanted, that is its id.
fn created(state: &TopologyState, context: &Context) -> Result<(), Failure> {
    let output = &context.output;
    if output.is_table() && output.quiet {
        return output.say(&state.topology.id);
    }
    output.show(state, |state| show::created_text(output.look, state))
}

/// Says what an import has changed; a document that was not read whole is not gone on with.
fn imported(loaded: &Loaded, file: &str, context: &Context) -> Result<(), Failure> {
    if loaded.findings.iter().any(Finding::is_error) {
        return Err(Failure::say(format!("{file} cannot be taken whole"))
            .findings(shapes(&loaded.findings))
            .next("mend the document, or the system that wrote it"));
    }
    for finding in &loaded.findings {
        context
            .output
            .note(&format!("warning: {}", safe(&finding.to_string())));
    }
    Ok(())
}

async fn inspect(args: &InspectArgs, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let state = client.topology(&args.topology.topology).await?;
    let (state, exit) = if args.wait {
        follow_topology(context, &client, state, Goal::Settled).await?
    } else {
        (Some(state), Exit::Done)
    };
    if let Some(state) = state {
        let look = context.output.look;
        context
            .output
            .show(&state, |state| show::state_text(look, state))?;
    }
    Ok(exit)
}

async fn export(args: &ExportArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let name = &args.topology.topology;
    if args.hydrated {
        return context.output.raw(&client.hydrated(name).await?);
    }
    if args.format == Some(ExportFormat::Compose) {
        let state = client.topology(name).await?;
        let file = client.document(&state.topology.id).await?;
        let text = yaml(&compose::compose(&state.topology.id, &file))?;
        return context
            .output
            .raw(format!("{}{text}", compose::HEADING).as_bytes());
    }
    let file = client.document(name).await?;
    match (args.format, context.output.format()) {
        (Some(ExportFormat::Json), Format::Table) => {
            let text = serde_json::to_string_pretty(&file).map_err(Failure::new)?;
            context.output.say(&text)
        }
        (Some(ExportFormat::Yaml), _) | (_, Format::Table | Format::Yaml) => {
            context.output.raw(yaml(&file)?.as_bytes())
        }
        (_, Format::Json | Format::Ndjson) => context.output.show(&file, |_| String::new()),
    }
}

async fn start(verb: Verb, args: DeployArgs, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let name = &args.topology.topology;
    if args.dry_run {
        return dry::run(name, args.host.as_deref(), &client, context).await;
    }
    let request = DeployRequest {
        replace: args.replace,
        host: args.host,
    };
    let state = match verb {
        Verb::Deploy => client.deploy(name, &request).await?,
        Verb::Retry => client.retry(name, &request).await?,
    };
    finish(state, &args.wait, Goal::Active, &client, context).await
}

async fn teardown(args: &TeardownArgs, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let request = TeardownRequest { force: args.force };
    let state = client.teardown(&args.topology.topology, &request).await?;
    finish(state, &args.wait, Goal::TornDown, &client, context).await
}

/// Follows what was started, when that is wanted, and shows where it stands.
async fn finish(
    state: TopologyState,
    wait: &WaitArgs,
    goal: Goal,
    client: &Client,
    context: &Context,
) -> Result<Exit, Failure> {
    let (state, exit) = if wait.waits() {
        follow_topology(context, client, state, goal).await?
    } else {
        (Some(state), Exit::Done)
    };
    let Some(state) = state else { return Ok(exit) };
    if context.output.is_table() {
        context.output.note(&show::standing_text(&state));
    } else {
        context.output.show(&state, |_| String::new())?;
    }
    Ok(exit)
}

async fn validate(args: &SubjectArg, context: &Context) -> Result<Exit, Failure> {
    let findings = match Subject::new(&args.subject) {
        Subject::Document(source) => shapes(&document::judge(document::load(&source)?).findings),
        Subject::Stored(name) => context.client()?.topology(&name).await?.findings,
    };
    let look = context.output.look;
    let failed = findings.iter().any(|finding| finding.severity == "error");
    context.output.show(&Findings { findings }, |all| {
        if all.findings.is_empty() {
            "no findings\n".to_owned()
        } else {
            findings_table(look, &all.findings)
        }
    })?;
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn shapes(findings: &[Finding]) -> Vec<FindingShape> {
    findings.iter().map(FindingShape::from).collect()
}

async fn hash(args: &SubjectArg, context: &Context) -> Result<Exit, Failure> {
    let hash = match Subject::new(&args.subject) {
        Subject::Document(source) => {
            let judged = document::judge(document::load(&source)?);
            let Some(hash) = judged.hash else {
                return Err(Failure::say("a topology with errors has no hash")
                    .findings(shapes(&judged.findings))
                    .next(format!("decnet topology validate {}", args.subject)));
            };
            hash
        }
        Subject::Stored(name) => {
            let bytes = context.client()?.hydrated(&name).await?;
            proto::hydrated::decode(&bytes)
                .map_err(Failure::new)?
                .version_hash()
        }
    };
    let hash = hash.to_string();
    context
        .output
        .show(&json!({ "version_hash": hash }), |_| format!("{hash}\n"))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_topology_and_a_file_are_told_apart() {
        assert_eq!(Subject::new("office"), Subject::Stored("office".to_owned()));
        assert_eq!(Subject::new("-"), Subject::Document(Source::Stdin));
        for file in ["office.yaml", "./office", "/tmp/office"] {
            assert_eq!(
                Subject::new(file),
                Subject::Document(Source::File(file.into())),
                "{file}"
            );
        }
    }
}

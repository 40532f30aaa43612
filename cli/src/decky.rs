//! `decnet decky`: the machines of all topologies, one by one.

mod show;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use domain::topology::status::TopologyStatus;
use proto::client::{Client, ClientError};
use proto::rest::mutation::NowRequest;
use proto::rest::{TopologyState, UsageShape};
use proto::topology_file::{FileDecky, TopologyFile};
use serde::Serialize;

use crate::args::{WaitArgs, reference};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::topology::edit;

/// `decnet decky VERB`.
#[derive(Debug, Subcommand)]
pub(crate) enum DeckyCommand {
    /// List deckies: what they are, where, and how they are.
    Ls(ListArgs),
    /// Show one decky.
    Inspect(DeckyArg),
    /// Give deckies other services now, out of their archetypes.
    #[command(after_help = "\
What a decky shows next is drawn from its archetype, or from what is plausible on its persona, and
is never what it shows. Services behind published ports stay.")]
    Mutate(MutateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those of this topology, by name or id.
    #[arg(long, value_parser = reference)]
    #[arg(add = crate::completion::topologies())]
    topology: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DeckyArg {
    /// The decky, by name or id.
    #[arg(value_name = "DECKY", value_parser = reference)]
    #[arg(add = crate::completion::deckies())]
    decky: String,
    /// Of which topology, where several have a decky of this name.
    #[arg(long, value_parser = reference)]
    #[arg(add = crate::completion::topologies())]
    topology: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct MutateArgs {
    /// The decky, by name.
    #[arg(value_name = "DECKY", value_parser = reference)]
    #[arg(required_unless_present = "all", add = crate::completion::deckies())]
    decky: Option<String>,
    /// Every decky of the topology, as one mutation.
    #[arg(long, conflicts_with = "decky", requires = "topology")]
    all: bool,
    /// Of which topology, by name or id.
    #[arg(long, value_parser = reference)]
    #[arg(add = crate::completion::topologies())]
    topology: Option<String>,
    /// Do nothing when the topology is no longer at this revision.
    #[arg(long, value_name = "N")]
    expected_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// A decky with where it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct DeckyShape {
    /// Its name.
    pub(crate) name: String,
    /// Its topology's name.
    pub(crate) topology: String,
    /// Its topology's id.
    #[serde(skip)]
    topology_id: String,
    /// Its topology's host.
    host: Option<String>,
    /// `running`, `drifted`, `absent`, or the status of a topology that no host holds.
    state: String,
    /// What differs from what is wanted of it.
    drift: Vec<String>,
    /// What it is, as the topology file has it.
    decky: FileDecky,
    /// What it uses of its host.
    usage: Option<UsageShape>,
}

pub(crate) async fn run(command: DeckyCommand, context: &Context) -> Result<Exit, Failure> {
    let output = &context.output;
    let client = context.client()?;
    match command {
        DeckyCommand::Ls(args) => {
            let deckies = all(&client, args.topology.as_deref()).await?;
            output.list(&deckies, |deckies| show::many(output.look, deckies))?;
            Ok(Exit::Done)
        }
        DeckyCommand::Inspect(args) => {
            let decky = find(&client, &args.decky, args.topology.as_deref()).await?;
            output.show(&decky, |decky| show::one(output.look, decky))?;
            Ok(Exit::Done)
        }
        DeckyCommand::Mutate(args) => mutate(args, &client, context).await,
    }
}

async fn mutate(args: MutateArgs, client: &Client, context: &Context) -> Result<Exit, Failure> {
    let request = NowRequest {
        expected_revision: args.expected_revision,
    };
    let answer = match (&args.decky, &args.topology) {
        (Some(decky), Some(topology)) => client.mutate_decky(topology, decky, &request).await?,
        (Some(decky), None) => {
            let decky = find(client, decky, None).await?;
            client
                .mutate_decky(&decky.topology_id, &decky.name, &request)
                .await?
        }
        (None, Some(topology)) => client.mutate_all(topology, &request).await?,
        (None, None) => {
            return Err(Failure::say("which decky?")
                .exits(Exit::Usage)
                .next("decnet decky mutate DECKY, or --all --topology T"));
        }
    };
    edit::finish(answer, &args.wait, client, context).await
}

/// The deckies of one topology, or of all that are not torn down.
pub(crate) async fn all(
    client: &Client,
    topology: Option<&str>,
) -> Result<Vec<DeckyShape>, ClientError> {
    let mut deckies = Vec::new();
    let ids = match topology {
        Some(topology) => vec![topology.to_owned()],
        None => client
            .topologies()
            .await?
            .into_iter()
            .filter(|topology| topology.status != TopologyStatus::TornDown.as_str())
            .map(|topology| topology.id)
            .collect(),
    };
    for id in ids {
        let state = client.topology(&id).await?;
        let document = client.document(&state.topology.id).await?;
        deckies.extend(of_topology(&state, document));
    }
    Ok(deckies)
}

fn of_topology(state: &TopologyState, document: TopologyFile) -> Vec<DeckyShape> {
    let usage: BTreeMap<&str, &UsageShape> = state
        .observed
        .iter()
        .flat_map(|observed| &observed.usage)
        .filter_map(|usage| Some((usage.name.as_deref()?, usage)))
        .collect();
    let held = ["active", "degraded", "deploying"].contains(&state.topology.status.as_str());
    let shape = |decky: FileDecky| {
        let object = format!("decky {}", decky.name);
        let drift: Vec<String> = state
            .drift
            .iter()
            .filter(|drift| drift.object == object)
            .map(|drift| drift.kind.clone())
            .collect();
        let usage = usage.get(decky.name.as_str()).map(|usage| (*usage).clone());
        let is_absent = drift
            .iter()
            .any(|kind| kind == "missing" || kind == "stopped");
        let standing = match (held, state.observed.is_some(), is_absent, drift.is_empty()) {
            (false, ..) => state.topology.status.as_str(),
            (true, false, ..) => "unknown",
            (true, true, true, _) => "absent",
            (true, true, false, false) => "drifted",
            (true, true, false, true) if state.topology.status == "deploying" => "deploying",
            (true, true, false, true) => "running",
        };
        DeckyShape {
            name: decky.name.clone(),
            topology: state.topology.name.clone(),
            topology_id: state.topology.id.clone(),
            host: state.topology.host.clone(),
            state: standing.to_owned(),
            drift,
            decky,
            usage,
        }
    };
    document.deckies.into_iter().map(shape).collect()
}

/// The one decky of that name.
async fn find(client: &Client, name: &str, topology: Option<&str>) -> Result<DeckyShape, Failure> {
    let deckies = all(client, topology).await?;
    choose(deckies, name)
}

fn choose(deckies: Vec<DeckyShape>, name: &str) -> Result<DeckyShape, Failure> {
    let mut found: Vec<DeckyShape> = deckies
        .into_iter()
        .filter(|decky| decky.name.eq_ignore_ascii_case(name))
        .collect();
    match found.len() {
        0 => Err(Failure::say(format!("there is no decky {name}")).next("decnet decky ls")),
        1 => Ok(found.remove(0)),
        _ => {
            let of: Vec<&str> = found.iter().map(|decky| decky.topology.as_str()).collect();
            Err(Failure::say(format!(
                "several topologies have a decky {name}: {}",
                of.join(", ")
            ))
            .next("say which with --topology"))
        }
    }
}

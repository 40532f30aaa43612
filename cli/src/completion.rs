//! `decnet completion`: the completion script of a shell. The shell asks `decnet` itself for
//! words, so that names of topologies, hosts, deckies and mutations are those of the master.
//!
//! Completing never waits long, never says what went wrong and never changes anything: who has no
//! master gets the words of the command line alone.

use std::ffi::OsStr;
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser};
use clap_complete::CompleteEnv;
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _,
};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use domain::role::Role;
use proto::client::{Client, ClientError};
use proto::rest::UserShape;

use crate::args::{Cli, Global};
use crate::context::{Context, Environment};
use crate::decky;
use crate::failure::{Exit, Failure};
use crate::mutation;

/// What the shell sets when it asks for words.
const VARIABLE: &str = "DECNET_COMPLETE";
/// Whoever presses the tab key waits no longer.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Most names that are offered.
const MOST: usize = 500;

/// Reads the environment; unset in tests, where no master is asked.
static ENVIRONMENT: OnceLock<fn() -> Environment> = OnceLock::new();

/// `decnet completion SHELL`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(decnet completion bash)
  decnet completion zsh > ~/.zfunc/_decnet
  decnet completion fish > ~/.config/fish/completions/decnet.fish

The script asks `decnet` each time: write it anew after an upgrade. Names come from the master that
DECNET_URL or DECNET_DATA_DIR names, within a second and a half.")]
pub(crate) struct CompletionCommand {
    /// Which shell.
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

pub(crate) fn run(command: &CompletionCommand, context: &Context) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    let shell: &dyn EnvCompleter = match command.shell.as_str() {
        "zsh" => &Zsh,
        "fish" => &Fish,
        _ => &Bash,
    };
    shell.write_registration(VARIABLE, "decnet", "decnet", "decnet", &mut script)?;
    context.output.raw(&script)?;
    Ok(Exit::Done)
}

/// Answers a shell that asks for words, and ends the process; returns when none asks.
pub(crate) fn answer(environment: fn() -> Environment) {
    ENVIRONMENT.get_or_init(|| environment);
    CompleteEnv::with_factory(Cli::command)
        .var(VARIABLE)
        .complete();
}

/// Names of topologies.
pub(crate) fn topologies() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        ask(async |client: Client| {
            let topologies = client.topologies().await?;
            let names = topologies
                .into_iter()
                .map(|each| (each.name, each.status))
                .collect();
            Ok(names)
        })
    })
}

/// Files, and names of topologies.
pub(crate) fn subjects() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let mut candidates = PathCompleter::file().stdio().complete(current);
        let begins = |candidate: &CompletionCandidate| {
            let name = candidate.get_value().to_string_lossy();
            name.starts_with(&*current.to_string_lossy())
        };
        candidates.extend(topologies().candidates().into_iter().filter(begins));
        candidates
    })
}

/// Names of hosts.
pub(crate) fn hosts() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        ask(async |client: Client| {
            let hosts = client.hosts().await?;
            Ok(hosts
                .into_iter()
                .map(|each| (each.name, each.state))
                .collect())
        })
    })
}

/// Names of deckies of topologies that are not torn down.
pub(crate) fn deckies() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        ask(async |client: Client| {
            let deckies = decky::all(&client, None).await?;
            let about = |each: decky::DeckyShape| (each.name, format!("of {}", each.topology));
            Ok(deckies.into_iter().map(about).collect())
        })
    })
}

/// Ids of mutations, the newest first.
pub(crate) fn mutations() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        ask(async |client: Client| {
            let mut ids = Vec::new();
            for topology in client.topologies().await? {
                if topology.status == "torn_down" {
                    continue;
                }
                for each in mutation::newest(&client, &topology.id, None, 20).await? {
                    let about = format!("{} of {}: {}", each.op, topology.name, each.state);
                    ids.push((each.id, about));
                }
            }
            Ok(ids)
        })
    })
}

/// Names of users.
pub(crate) fn users() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        ask(async |client: Client| {
            let users = client.users().await?;
            let about = |each: UserShape| (each.name, Role::from(each.role).as_str().to_owned());
            Ok(users.into_iter().map(about).collect())
        })
    })
}

/// Ids of API tokens that are of use.
pub(crate) fn tokens() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        ask(async |client: Client| {
            let tokens = client.api_tokens(false).await?;
            Ok(tokens
                .into_iter()
                .map(|each| (each.id, each.name))
                .collect())
        })
    })
}

/// Ids of join tokens.
pub(crate) fn join_tokens() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        ask(async |client: Client| {
            let tokens = client.tokens().await?;
            Ok(tokens
                .into_iter()
                .map(|each| (each.id, each.name))
                .collect())
        })
    })
}

/// What every command takes, alone: its values come from the environment.
#[derive(Debug, Parser)]
struct Everywhere {
    #[command(flatten)]
    global: Global,
}

/// Names with a word on each, from the master; none when it does not answer.
fn ask<F>(question: impl FnOnce(Client) -> F) -> Vec<CompletionCandidate>
where
    F: Future<Output = Result<Vec<(String, String)>, ClientError>>,
{
    let names = names(question).unwrap_or_default();
    let plain = |text: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        !text.is_empty() && text.bytes().all(fits)
    };
    names
        .into_iter()
        // A shell runs what it is given: nothing but names may reach it.
        .filter(|(name, _)| plain(name))
        .take(MOST)
        .map(|(name, about)| {
            CompletionCandidate::new(name).help(Some(crate::safe::clipped(&about, 60).into()))
        })
        .collect()
}

fn names<F>(question: impl FnOnce(Client) -> F) -> Option<Vec<(String, String)>>
where
    F: Future<Output = Result<Vec<(String, String)>, ClientError>>,
{
    let environment = ENVIRONMENT.get()?;
    let matches = Everywhere::command()
        .try_get_matches_from(["decnet"])
        .ok()?;
    let global = Everywhere::from_arg_matches(&matches).ok()?.global;
    let endpoint = Context::new(&global, &matches, environment())
        .place
        .resolve()
        .ok()?;
    let client = Client::new(endpoint.url, &endpoint.token.0).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, question(client)).await })
        .ok()?
        .ok()
}

#[cfg(test)]
mod tests;

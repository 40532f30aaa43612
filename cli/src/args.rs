//! The command line: what every command takes, and the commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::access::{LoginCommand, TokenCommand, UserCommand};
use crate::bus::BusCommand;
use crate::catalogue::{ArchetypeCommand, PersonaCommand, ServiceCommand};
use crate::completion::CompletionCommand;
use crate::decky::DeckyCommand;
use crate::down::DownCommand;
use crate::event::EventCommand;
use crate::host::HostCommand;
use crate::mutation::MutationCommand;
use crate::topology::TopologyCommand;
use crate::up::UpCommand;

/// Ask and command a DECNET master.
#[derive(Debug, Parser)]
#[command(
    name = "decnet",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(after_help = "\
The token is never an argument: it is read from DECNET_TOKEN, from --token-file, from the session
that `decnet login` has opened, or from admin.token in the data directory.

Exit codes: 0 done, 1 failed, 2 usage, 3 timeout and still running, 4 difference found.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The command line, with every option taking what looks like a negative number as its value, so
/// that whoever writes one is told what is wrong with it.
pub(crate) fn command() -> clap::Command {
    fn with_numbers(command: clap::Command) -> clap::Command {
        let option = |arg: clap::Arg| {
            let takes = arg.get_action().takes_values() && !arg.is_positional();
            arg.allow_negative_numbers(takes)
        };
        command.mut_args(option).mut_subcommands(with_numbers)
    }
    with_numbers(Cli::command())
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// In which form to print [default: table].
    #[arg(
        long,
        global = true,
        value_name = "FORM",
        env = "DECNET_OUTPUT",
        hide_env_values = true
    )]
    pub(crate) output: Option<Format>,
    /// Print results and errors only.
    #[arg(
        long,
        short,
        global = true,
        env = "DECNET_QUIET",
        hide_env_values = true
    )]
    #[arg(value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) quiet: bool,
    /// The master's API, such as http://127.0.0.1:8080.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "DECNET_URL",
        hide_env_values = true
    )]
    pub(crate) url: Option<String>,
    /// The file that holds the API token.
    #[arg(long, global = true, value_name = "FILE", env = "DECNET_TOKEN_FILE")]
    #[arg(hide_env_values = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// The master's data directory, which holds endpoints.json and admin.token.
    #[arg(long, global = true, value_name = "DIR", env = "DECNET_DATA_DIR")]
    #[arg(hide_env_values = true)]
    pub(crate) data_dir: Option<PathBuf>,
    /// How long to wait for what takes time, such as 90s or 5m [default: 120s].
    #[arg(long, global = true, value_name = "DURATION", env = "DECNET_TIMEOUT")]
    #[arg(hide_env_values = true, value_parser = proto::settings::duration)]
    pub(crate) timeout: Option<Duration>,
}

/// In which form results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One document, exactly as the API gives it.
    Json,
    /// The same as YAML.
    Yaml,
    /// One document a line.
    Ndjson,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a master and an agent on this machine, with a topology, until Ctrl-C.
    Up(UpCommand),
    /// Take down what a killed `up` left on this machine.
    Down(DownCommand),
    /// Show the master, its hosts and its topologies.
    Status,
    /// Check this machine and its master, and say how to mend what is wrong.
    Doctor,
    /// Open a session with a password, and keep it for the commands to come.
    Login(LoginCommand),
    /// End the session.
    Logout,
    /// Who may log in.
    #[command(subcommand)]
    User(UserCommand),
    /// API tokens: what programs show to be let in.
    #[command(subcommand)]
    Token(TokenCommand),
    /// The fleet.
    #[command(subcommand)]
    Host(HostCommand),
    /// Networks of deckies.
    #[command(subcommand)]
    Topology(TopologyCommand),
    /// Edits of topologies that a host holds.
    #[command(subcommand)]
    Mutation(MutationCommand),
    /// The machines of all topologies.
    #[command(subcommand)]
    Decky(DeckyCommand),
    /// Evidence.
    #[command(subcommand)]
    Event(EventCommand),
    /// What happens on a master of this machine, as it happens.
    #[command(subcommand)]
    Bus(BusCommand),
    /// What deckies can serve.
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Machines that are often met: sets of services with the personas that fit.
    #[command(subcommand)]
    Archetype(ArchetypeCommand),
    /// The operating systems that deckies can show.
    #[command(subcommand)]
    Persona(PersonaCommand),
    /// Print the completion script of a shell.
    Completion(CompletionCommand),
}

/// Whether to follow what was started.
#[derive(Debug, Default, Args)]
pub(crate) struct WaitArgs {
    /// Follow until it is done (the default).
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return as soon as the master has taken it.
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
}

impl WaitArgs {
    /// `--no-wait`.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self {
            wait: false,
            no_wait: true,
        }
    }

    pub(crate) fn waits(&self) -> bool {
        self.wait || !self.no_wait
    }
}

/// A name or an id, as it stands in a URL.
pub(crate) fn reference(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("a name or id has 1 to 64 letters, digits and hyphens".to_owned())
    }
}

#[cfg(test)]
mod tests;

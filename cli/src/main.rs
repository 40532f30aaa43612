//! `decnet`, the operator's command: reads arguments and environment, runs one command, and turns
//! what came of it into an exit code. Nothing is set up before the arguments are understood.

mod access;
mod args;
mod bus;
mod catalogue;
mod clock;
mod completion;
mod connect;
mod context;
mod decky;
mod doctor;
mod document;
mod down;
mod duration;
mod entropy;
mod event;
mod failure;
mod host;
mod machine;
mod mutation;
mod output;
mod progress;
mod safe;
mod status;
#[cfg(test)]
mod stub;
mod table;
mod topology;
mod up;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::FromArgMatches as _;

use crate::args::{Cli, Command};
use crate::context::{Context, Environment, Token};
use crate::failure::{Exit, Failure};

fn main() -> ExitCode {
    // A shell that asks for words gets them, and nothing else happens.
    completion::answer(environment);
    let matches = args::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let context = Context::new(&cli.global, &matches, environment());
    let outcome = run(cli.command, &context);
    let exit = outcome.unwrap_or_else(|failure| {
        let failure = context.explain(failure);
        context.output.failure(&failure);
        failure.exit()
    });
    exit.into()
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place where the environment is read"
)]
fn environment() -> Environment {
    let path = |name: &str| {
        std::env::var_os(name)
            .filter(|text| !text.is_empty())
            .map(PathBuf::from)
    };
    let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    Environment {
        token: text("DECNET_TOKEN").map(Token),
        bin_dir: path("DECNET_BIN_DIR"),
        docker_host: text("DOCKER_HOST"),
        data_home: path("XDG_DATA_HOME")
            .or_else(|| path("HOME").map(|home| home.join(".local/share"))),
        config_home: path("XDG_CONFIG_HOME")
            .or_else(|| path("HOME").map(|home| home.join(".config"))),
        no_colour: text("NO_COLOR").is_some(),
        columns: text("COLUMNS").and_then(|text| text.parse().ok()),
    }
}

fn run(command: Command, context: &Context) -> Result<Exit, Failure> {
    if let Command::Completion(command) = &command {
        return completion::run(command, context);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(error).context("could not start the runtime"))?;
    let exit = runtime.block_on(async {
        match command {
            Command::Up(command) => up::run(command, context).await,
            Command::Down(command) => down::run(command, context).await,
            Command::Status => status::run(context).await,
            Command::Doctor => doctor::run(context).await,
            Command::Login(command) => access::login(command, context).await,
            Command::Logout => access::logout(context).await,
            Command::User(command) => access::user(command, context).await,
            Command::Token(command) => access::token(command, context).await,
            Command::Host(command) => host::run(command, context).await,
            Command::Topology(command) => topology::run(command, context).await,
            Command::Mutation(command) => mutation::run(command, context).await,
            Command::Decky(command) => decky::run(command, context).await,
            Command::Event(command) => event::run(command, context).await,
            Command::Bus(command) => bus::run(command, context).await,
            Command::Service(command) => catalogue::service(&command, context),
            Command::Archetype(command) => catalogue::archetype(&command, context),
            Command::Persona(command) => catalogue::persona(&command, context),
            Command::Completion(command) => completion::run(&command, context),
        }
    });
    // A look-up that hangs must not hold up the end.
    runtime.shutdown_background();
    exit
}

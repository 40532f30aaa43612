//! `decnet completion`: the completion script of a shell.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;
use crate::context::Context;
use crate::failure::{Exit, Failure};

/// `decnet completion SHELL`.
#[derive(Debug, Args)]
pub(crate) struct CompletionCommand {
    /// Which shell.
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

pub(crate) fn run(command: &CompletionCommand, context: &Context) -> Result<Exit, Failure> {
    let shell = match command.shell.as_str() {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "decnet", &mut script);
    context.output.raw(&script)?;
    Ok(Exit::Done)
}

//! `decnet token`: what programs show to be let in.

use std::time::Duration;

use clap::{Args, Subcommand};
use proto::rest::{ApiTokenShape, CreateApiToken, RoleShape};

use super::{name, role_word, roles};
use crate::args::reference;
use crate::clock;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::host::removed;
use crate::table::{Field, Look, table};

/// Longest life of a token that ends.
const LONGEST: Duration = Duration::from_secs(315_360_000);

/// `decnet token VERB`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make an API token. It is shown once.
    Create(CreateArgs),
    /// List API tokens: never the tokens themselves.
    Ls(LsArgs),
    /// Revoke one.
    Rm(RmArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// What it is for.
    #[arg(value_parser = name)]
    name: String,
    /// What it may do.
    #[arg(long, default_value = "viewer", value_parser = roles())]
    role: RoleShape,
    /// How long it is of use, such as 90d; for ever when left out.
    #[arg(long, value_name = "DURATION", value_parser = life)]
    ttl: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// List those too that have expired or are revoked.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// The token's id, as `ls` shows it.
    #[arg(value_parser = reference, add = crate::completion::tokens())]
    id: String,
}

fn life(text: &str) -> Result<Duration, String> {
    let life = proto::settings::duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_secs(1)..=LONGEST).contains(&life) {
        Ok(life)
    } else {
        Err("an API token lives 1s to 3650d, or for ever".to_owned())
    }
}

pub(crate) async fn run(command: TokenCommand, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    match command {
        TokenCommand::Create(args) => {
            let request = CreateApiToken {
                name: args.name,
                role: args.role,
                ttl_seconds: args.ttl.and_then(|life| u32::try_from(life.as_secs()).ok()),
            };
            let made = client.mint_api_token(&request).await?;
            if !context.output.is_table() {
                context.output.show(&made, |_| String::new())?;
                return Ok(Exit::Done);
            }
            context.output.note(&format!(
                "API token {} ({}) is made; it is not shown again",
                made.token.name,
                role_word(made.token.role)
            ));
            // Alone on standard output: it can go into a file or a variable.
            context.output.say(&made.secret)?;
        }
        TokenCommand::Ls(args) => {
            let look = context.output.look;
            let tokens = client.api_tokens(args.all).await?;
            context
                .output
                .list(&tokens, |tokens| tokens_table(look, tokens))?;
        }
        TokenCommand::Rm(args) => {
            client.revoke_api_token(&args.id).await?;
            removed(context, "API token", &args.id)?;
        }
    }
    Ok(Exit::Done)
}

fn tokens_table(look: Look, tokens: &[ApiTokenShape]) -> String {
    table(
        look,
        &["id", "name", "role", "state", "expires", "by"],
        tokens.iter().map(|token| {
            [
                Field::text(&token.id),
                Field::text(&token.name),
                Field::text(role_word(token.role)),
                Field::State(token.state.clone()),
                Field::maybe(token.expires_at.as_deref().map(clock::date_and_time)),
                Field::text(&token.creator),
            ]
        }),
    )
}

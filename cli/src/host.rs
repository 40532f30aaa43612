//! `decnet host`: the fleet.

mod show;

use std::time::Duration;

use clap::{Args, Subcommand};
use proto::client::Client;
use proto::rest::{EnrollRequest, HostShape};
use serde_json::json;

pub(crate) use self::show::hosts_table;
use crate::args::{WaitArgs, reference};
use crate::clock;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::table::{Field, table};
use crate::wait::{Emptying, Followed};

/// Longest life of a join token.
const LONGEST_TTL: Duration = Duration::from_secs(86_400);

/// `decnet host VERB`.
#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// Make a join token for a new host, and say what to run there.
    Enroll(EnrollArgs),
    /// List the hosts.
    Ls,
    /// Show one host.
    Inspect(HostArg),
    /// Let no new topology onto a host.
    Cordon(HostArg),
    /// Undo cordon and drain.
    Uncordon(HostArg),
    /// Cordon a host and tear down what it holds.
    Drain(DrainArgs),
    /// Refuse a host from now on, and cut its connections.
    Revoke(HostArg),
    /// Drain a host, revoke it and forget it; its name is free again.
    Rm(RemoveArgs),
    /// Join tokens that are not redeemed.
    #[command(subcommand)]
    Token(TokenCommand),
}

/// `decnet host token VERB`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// List them: never their secrets.
    Ls,
    /// Take one back.
    Rm(TokenArg),
}

#[derive(Debug, Args)]
pub(crate) struct TokenArg {
    /// The token's public part, as `ls` shows it.
    #[arg(value_parser = reference, add = crate::completion::join_tokens())]
    id: String,
}

#[derive(Debug, Args)]
pub(crate) struct EnrollArgs {
    /// The name that the host will have.
    #[arg(value_parser = reference)]
    name: String,
    /// For how long the token can be redeemed, at most 24h.
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = ttl)]
    ttl: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct HostArg {
    /// The host, by name or id.
    #[arg(value_name = "HOST", value_parser = reference, add = crate::completion::hosts())]
    host: String,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    host: HostArg,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    host: HostArg,
    /// Do not wait for a host that will not answer: if it returns, it is cleaned and turned away.
    #[arg(long)]
    force: bool,
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = proto::settings::duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_secs(1)..=LONGEST_TTL).contains(&ttl) {
        Ok(ttl)
    } else {
        Err("a join token lives 1s to 24h".to_owned())
    }
}

pub(crate) async fn run(command: HostCommand, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    match command {
        HostCommand::Enroll(args) => return enroll(&args, &client, context).await,
        HostCommand::Ls => {
            let look = context.output.look;
            context
                .output
                .list(&client.hosts().await?, |hosts| hosts_table(look, hosts))?;
        }
        HostCommand::Inspect(args) => {
            let look = context.output.look;
            context
                .output
                .show(&client.host(&args.host).await?, |host| {
                    show::host_text(look, host)
                })?;
        }
        HostCommand::Cordon(args) => {
            acted(
                context,
                &client.cordon(&args.host).await?,
                "takes no new topology",
            )?;
        }
        HostCommand::Uncordon(args) => {
            acted(
                context,
                &client.uncordon(&args.host).await?,
                "takes topologies",
            )?;
        }
        HostCommand::Drain(args) => {
            let host = client.drain(&args.host.host).await?;
            if args.wait.waits() {
                return drained(&client, context, host).await;
            }
            acted(context, &host, "is draining")?;
        }
        HostCommand::Revoke(args) => {
            acted(context, &client.revoke(&args.host).await?, "is revoked")?;
        }
        HostCommand::Rm(args) => return remove(&args, &client, context).await,
        HostCommand::Token(TokenCommand::Ls) => {
            let look = context.output.look;
            context.output.list(&client.tokens().await?, |tokens| {
                table(
                    look,
                    &["id", "host", "expires", "by"],
                    tokens.iter().map(|token| {
                        [
                            Field::text(&token.id),
                            Field::text(&token.name),
                            Field::text(clock::date_and_time(&token.expires_at)),
                            Field::text(&token.creator),
                        ]
                    }),
                )
            })?;
        }
        HostCommand::Token(TokenCommand::Rm(args)) => {
            client.remove_token(&args.id).await?;
            removed(context, "join token", &args.id)?;
        }
    }
    Ok(Exit::Done)
}

async fn enroll(args: &EnrollArgs, client: &Client, context: &Context) -> Result<Exit, Failure> {
    let ttl_seconds = u32::try_from(args.ttl.as_secs()).ok();
    let request = EnrollRequest {
        name: args.name.clone(),
        ttl_seconds,
    };
    let enrollment = client.enroll(&request).await?;
    context.output.show(&enrollment, show::enrollment_text)?;
    Ok(Exit::Done)
}

/// Says what an action came to: the host as it is to programs, one line to people.
fn acted(context: &Context, host: &HostShape, now: &str) -> Result<(), Failure> {
    if context.output.is_table() {
        context.output.note(&format!("host {} {now}", host.name));
        return Ok(());
    }
    context.output.show(host, |_| String::new())
}

async fn drained(client: &Client, context: &Context, host: HostShape) -> Result<Exit, Failure> {
    let name = host.name.clone();
    let again = format!("look again with: decnet host inspect {name}");
    let mut emptying = Emptying(host);
    match emptying.follow(context, client).await? {
        Followed::Done => {
            acted(context, &emptying.0, "is empty")?;
            Ok(Exit::Done)
        }
        Followed::Failed(why) => Err(Failure::say(format!("host {name} was not drained: {why}"))),
        Followed::TimedOut(awaited) => {
            context
                .output
                .note(&format!("still draining: {awaited}; {again}"));
            Ok(Exit::StillRunning)
        }
        Followed::Detached => {
            context.output.note(&format!("detached; {again}"));
            Ok(Exit::StillRunning)
        }
    }
}

async fn remove(args: &RemoveArgs, client: &Client, context: &Context) -> Result<Exit, Failure> {
    let host = &args.host.host;
    if args.force {
        client.abandon_host(host).await?;
    } else {
        if !matches!(
            client.host(host).await?.standing.as_str(),
            "revoked" | "removed"
        ) {
            let mut emptying = Emptying(client.drain(host).await?);
            match emptying.follow(context, client).await? {
                Followed::Done => {}
                Followed::Failed(why) => {
                    return Err(Failure::say(format!("host {host} was not drained: {why}")));
                }
                Followed::TimedOut(awaited) => {
                    context
                        .output
                        .note(&format!("host {host} is not empty: {awaited}"));
                    context
                        .output
                        .note("run it again, or add --force if the host is dead");
                    return Ok(Exit::StillRunning);
                }
                Followed::Detached => return Ok(Exit::StillRunning),
            }
        }
        client.remove_host(host).await?;
    }
    removed(context, "host", host)?;
    Ok(Exit::Done)
}

/// Says that something is gone.
pub(crate) fn removed(context: &Context, noun: &str, id: &str) -> Result<(), Failure> {
    if context.output.is_table() {
        context.output.note(&format!("{noun} {id} is removed"));
        return Ok(());
    }
    context
        .output
        .show(&json!({ "removed": id }), |_| String::new())
}

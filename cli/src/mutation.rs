//! `decnet mutation` and `decnet topology mutations`: the queue of edits.

use clap::{Args, Subcommand};
use proto::client::{Client, ClientError};
use proto::rest::mutation::{MutationQuery, MutationShape, NowRequest};

use crate::args::{WaitArgs, reference};
use crate::clock;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::table::{Field, Look, table};
use crate::topology::{edit, findings_table};

/// How many a page of the list has.
const PAGE: u32 = 200;

/// `decnet mutation VERB`.
#[derive(Debug, Subcommand)]
pub(crate) enum MutationCommand {
    /// Show one mutation: what it changes, and how far it is.
    Inspect(InspectArgs),
    /// Take a mutation back that nobody has begun.
    Cancel(MutationArg),
    /// Undo what a mutation has changed, by another one.
    Revert(RevertArgs),
}

#[derive(Debug, Args)]
pub(crate) struct MutationArg {
    /// The mutation's id.
    #[arg(value_name = "MUTATION", value_parser = reference)]
    #[arg(add = crate::completion::mutations())]
    mutation: String,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    mutation: MutationArg,
    /// Follow it first, until it is applied, failed or cancelled.
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RevertArgs {
    #[command(flatten)]
    mutation: MutationArg,
    /// Do nothing when the topology is no longer at this revision.
    #[arg(long, value_name = "N")]
    expected_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// `decnet topology mutations T`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The topology, by name or id.
    #[arg(value_name = "TOPOLOGY", value_parser = reference)]
    #[arg(add = crate::completion::topologies())]
    topology: String,
    /// Only those in this state.
    #[arg(long, value_parser = ["pending", "applying", "applied", "failed", "cancelled"])]
    state: Option<String>,
    /// At most this many, the newest first.
    #[arg(long, value_name = "N", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

pub(crate) async fn run(command: MutationCommand, context: &Context) -> Result<Exit, Failure> {
    let output = &context.output;
    let client = context.client()?;
    match command {
        MutationCommand::Inspect(args) => {
            let mutation = client.mutation(&args.mutation.mutation).await?;
            let (mutation, exit) = if args.wait {
                edit::follow_mutation(context, &client, mutation).await?
            } else {
                (mutation, Exit::Done)
            };
            output.show(&mutation, |mutation| one_text(output.look, mutation))?;
            Ok(exit)
        }
        MutationCommand::Cancel(args) => {
            let mutation = client.cancel_mutation(&args.mutation).await?;
            if output.is_table() {
                output.note(&edit::standing(&mutation));
            } else {
                output.show(&mutation, |_| String::new())?;
            }
            Ok(Exit::Done)
        }
        MutationCommand::Revert(args) => {
            let request = NowRequest {
                expected_revision: args.expected_revision,
            };
            let id = &args.mutation.mutation;
            let answer = client.revert_mutation(id, &request).await?;
            edit::finish(answer, &args.wait, &client, context).await
        }
    }
}

/// `decnet topology mutations T`.
pub(crate) async fn list(args: ListArgs, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let state = args.state.as_deref();
    let mutations = newest(&client, &args.topology, state, args.limit).await?;
    let output = &context.output;
    output.list(&mutations, |mutations| many_text(output.look, mutations))?;
    Ok(Exit::Done)
}

/// The newest mutations of a topology, newest first.
pub(crate) async fn newest(
    client: &Client,
    topology: &str,
    state: Option<&str>,
    limit: u32,
) -> Result<Vec<MutationShape>, ClientError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut query = MutationQuery {
        state: state.map(str::to_owned),
        limit: Some(PAGE.min(u32::try_from(limit).unwrap_or(PAGE))),
        cursor: None,
    };
    let mut mutations: Vec<MutationShape> = Vec::new();
    loop {
        let page = client.mutations(topology, &query).await?;
        // A master that gives a cursor with nothing would be asked for ever.
        let empty = page.items.is_empty();
        mutations.extend(page.items);
        query.cursor = page.next.filter(|_| !empty);
        if query.cursor.is_none() || mutations.len() >= limit {
            mutations.truncate(limit);
            return Ok(mutations);
        }
    }
}

fn many_text(look: Look, mutations: &[MutationShape]) -> String {
    let now = clock::now();
    table(
        look,
        &[
            "no", "op", "state", "since", "cause", "actor", "reason", "id",
        ],
        mutations.iter().map(|mutation| {
            [
                Field::text(mutation.sequence),
                Field::text(&mutation.op),
                Field::State(mutation.state.clone()),
                Field::text(clock::ago(&mutation.changed_at, now)),
                Field::text(&mutation.cause),
                Field::text(&mutation.actor),
                Field::text(&mutation.reason),
                Field::text(&mutation.id),
            ]
        }),
    )
}

fn one_text(look: Look, mutation: &MutationShape) -> String {
    let mut rows = vec![
        [Field::text("mutation"), Field::text(mutation.sequence)],
        [Field::text("id"), Field::text(&mutation.id)],
        [Field::text("topology"), Field::text(&mutation.topology)],
        [Field::text("op"), Field::text(&mutation.op)],
        [Field::text("state"), Field::State(mutation.state.clone())],
        [
            Field::text("queued"),
            Field::text(clock::ago(&mutation.enqueued_at, clock::now())),
        ],
        [
            Field::text("by"),
            Field::text(format!("{} ({})", mutation.actor, mutation.cause)),
        ],
        [Field::text("revision"), Field::maybe(mutation.revision)],
        [Field::text("generation"), Field::maybe(mutation.generation)],
    ];
    if !mutation.reason.is_empty() {
        rows.push([Field::text("reason"), Field::text(&mutation.reason)]);
    }
    let mut text = table(look, &[], rows);
    if !mutation.words.is_empty() {
        text.push('\n');
        text.push_str(&edit::lines(&mutation.words));
    }
    if !mutation.findings.is_empty() {
        text.push('\n');
        text.push_str(&findings_table(look, &mutation.findings));
    }
    text
}

#[cfg(test)]
mod tests;

//! `decnet topology apply`: makes a topology be what a document says. One that is not stored is
//! created; of one that is, what differs becomes one mutation, done whole or not at all.

use clap::Args;
use proto::rest::CreateTopology;
use proto::rest::mutation::ApplyRequest;

use super::{created, edit, imported, plan};
use crate::args::{WaitArgs, reference};
use crate::context::Context;
use crate::document::{self, Source};
use crate::failure::{Exit, Failure};

/// `decnet topology apply FILE`.
#[derive(Debug, Args)]
#[command(after_help = "\
What keeps its name keeps its identity, and what the document leaves out of a thing stays as it is;
a LAN or a decky that the document does not name is removed. See what it would do first:
decnet topology plan FILE")]
pub(crate) struct ApplyArgs {
    /// The document: YAML, JSON, or what `generate --from` takes; - for standard input.
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: String,
    /// The host that is to carry a topology that is new, by name or id [default: local].
    #[arg(long, value_parser = reference)]
    #[arg(add = crate::completion::hosts())]
    host: Option<String>,
    /// Do nothing when the topology is no longer at this revision.
    #[arg(long, value_name = "N")]
    expected_revision: Option<u64>,
    /// Only say what the master would do.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(args: ApplyArgs, context: &Context) -> Result<Exit, Failure> {
    let loaded = document::load(&Source::new(&args.file))?;
    imported(&loaded, &args.file, context)?;
    let client = context.client()?;
    let stored = match reference(&loaded.file.name) {
        Ok(name) => plan::stored_id(&client, &name).await?,
        // The master refuses it with every finding.
        Err(_) => None,
    };
    let Some(id) = stored else {
        if args.dry_run || args.expected_revision.is_some() {
            return Err(
                Failure::say(format!("topology {} is not stored", loaded.file.name))
                    .next(format!("decnet topology plan {}", args.file)),
            );
        }
        let request = CreateTopology {
            topology: loaded.file,
            host: args.host,
        };
        created(&client.create_topology(&request).await?, context)?;
        return Ok(Exit::Done);
    };
    if args.host.is_some() {
        return Err(Failure::say("a topology that is stored has its host")
            .exits(Exit::Usage)
            .next(
                "leave --host out; another host is chosen by decnet topology deploy T --host H",
            ));
    }
    let request = ApplyRequest {
        topology: loaded.file,
        dry_run: args.dry_run,
        expected_revision: args.expected_revision,
    };
    // By id: the name may be another's by now.
    let answer = client.apply(&id, &request).await?;
    edit::finish(answer, &args.wait, &client, context).await
}

#[cfg(test)]
mod tests;

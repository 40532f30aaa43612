//! What became of an edit, followed and shown: the end of `mutate`, `apply`, `revert` and
//! `decky mutate`.

use proto::client::Client;
use proto::rest::TopologyState;
use proto::rest::mutation::{EditAnswer, EditOutcome, MutationShape, TopologyNews};

use super::findings_table;
use crate::args::WaitArgs;
use crate::context::Context;
use crate::duration::rough;
use crate::failure::{Exit, Failure};
use crate::safe::safe;
use crate::table::Look as Style;
use crate::wait::{Awaited, Followed, Look, Source, Subject, Told, describe, follow, tell};

/// Follows an edit that was queued, when that is wanted, and shows what became of it.
pub(crate) async fn finish(
    mut answer: EditAnswer,
    wait: &WaitArgs,
    client: &Client,
    context: &Context,
) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    if context.output.is_table() {
        context
            .output
            .raw(text(context.output.look, &answer).as_bytes())?;
    }
    if let Some(queued) = answer.mutation.take() {
        let followed = if wait.waits() {
            follow_mutation(context, client, queued).await?
        } else {
            (queued, Exit::Done)
        };
        exit = followed.1;
        if context.output.is_table() {
            context.output.note(&standing(&followed.0));
        }
        answer.mutation = Some(followed.0);
    }
    if !context.output.is_table() {
        context.output.show(&answer, |_| String::new())?;
    }
    Ok(exit)
}

/// What an edit changes, in words, and what became of it.
pub(super) fn text(look: Style, answer: &EditAnswer) -> String {
    let mut text = lines(&answer.words);
    match answer.outcome {
        EditOutcome::Applied => {
            text.push_str(&format!("stored as revision {}\n", answer.revision));
        }
        EditOutcome::Unchanged => text.push_str("nothing to change\n"),
        EditOutcome::Planned => text.push_str("nothing was changed\n"),
        EditOutcome::Queued => {
            if let Some(MutationShape { sequence, id, .. }) = &answer.mutation {
                text.push_str(&format!("queued as mutation {sequence} ({})\n", safe(id)));
            }
        }
    }
    if !answer.findings.is_empty() {
        text.push('\n');
        text.push_str(&findings_table(look, &answer.findings));
    }
    text
}

pub(crate) fn lines(words: &str) -> String {
    words
        .lines()
        .map(|line| format!("{}\n", safe(line)))
        .collect()
}

/// Where a mutation stands, in one line.
pub(crate) fn standing(mutation: &MutationShape) -> String {
    let MutationShape {
        sequence,
        op,
        state,
        revision,
        generation,
        reason,
        ..
    } = mutation;
    let mut text = format!("mutation {sequence} ({}): {}", safe(op), safe(state));
    if let Some(revision) = revision {
        text.push_str(&format!(", revision {revision}"));
    }
    if let Some(generation) = generation {
        text.push_str(&format!(", generation {generation}"));
    }
    if !reason.is_empty() {
        text.push_str(&format!(": {}", safe(reason)));
    }
    text
}

/// A mutation on its way to its end.
struct Way {
    mutation: MutationShape,
    /// Its topology, once something was told of it.
    topology: Option<TopologyState>,
}

impl Subject for Way {
    type News = Told;

    fn hear(&mut self, news: Told) {
        match (news, &mut self.topology) {
            (Told::News(TopologyNews::Mutation(mutation)), _) => self.take(*mutation),
            (Told::News(TopologyNews::Snapshot(snapshot)), topology) => {
                *topology = Some(snapshot.state);
                snapshot
                    .mutations
                    .into_iter()
                    .for_each(|mutation| self.take(mutation));
            }
            (news, Some(topology)) => tell(topology, news),
            (_, None) => {}
        }
    }

    fn judge(&self) -> Look {
        match judge(&self.mutation) {
            Look::Pending(awaited) => Look::Pending(Awaited {
                detail: self.host_work(),
                ..awaited
            }),
            ended @ (Look::Done | Look::Failed(_)) => ended,
        }
    }
}

impl Way {
    /// How far its host is, while that is at work.
    fn host_work(&self) -> String {
        let applying = self.mutation.state == "applying";
        let Some(topology) = self.topology.as_ref().filter(|_| applying) else {
            return String::new();
        };
        let awaited = describe(topology);
        let text = if topology.topology.status == "active" {
            // That goes without saying.
            awaited.detail.trim_start_matches([',', ' ']).to_owned()
        } else {
            awaited.to_string()
        };
        if text.is_empty() {
            text
        } else {
            format!("; {text}")
        }
    }

    fn take(&mut self, mutation: MutationShape) {
        if mutation.id == self.mutation.id {
            self.mutation = mutation;
        }
    }
}

/// Whether a mutation has ended.
fn judge(mutation: &MutationShape) -> Look {
    match mutation.state.as_str() {
        "applied" => Look::Done,
        "failed" => Look::Failed(format!("failed: {}", mutation.reason)),
        "cancelled" => Look::Failed(format!("was cancelled: {}", mutation.reason)),
        _ => Look::Pending(standing(mutation).into()),
    }
}

/// Follows a mutation until it has ended, step by step.
pub(crate) async fn follow_mutation(
    context: &Context,
    client: &Client,
    queued: MutationShape,
) -> Result<(MutationShape, Exit), Failure> {
    let MutationShape { id, topology, .. } = queued.clone();
    let again = format!("follow it with: decnet mutation inspect {id} --wait");
    let mut way = Way {
        mutation: queued,
        topology: None,
    };
    let listen = || Source::topology(client, &topology, Some(&id));
    let followed = follow(context, context.patience, listen, &mut way).await?;
    let mutation = way.mutation;
    match followed {
        Followed::Done => Ok((mutation, Exit::Done)),
        Followed::Failed(why) => Err(
            Failure::say(format!("mutation {} {why}", mutation.sequence))
                .findings(mutation.findings)
                .next(format!("decnet topology explain {topology}")),
        ),
        Followed::TimedOut(awaited) => {
            let waited = rough(context.patience);
            let text = format!("still running after {waited}: {awaited}");
            context.output.note(&text);
            context.output.note(&again);
            Ok((mutation, Exit::StillRunning))
        }
        Followed::Detached => {
            context.output.note(&format!("detached; {again}"));
            Ok((mutation, Exit::StillRunning))
        }
    }
}

#[cfg(test)]
mod tests;

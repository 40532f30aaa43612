//! Follows what was started until it is done, failed or out of time.

use std::future::Future;
use std::time::{Duration, Instant};

use proto::client::{Client, ClientError};
use proto::rest::{HostShape, TopologyState};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::progress::Progress;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// For how long a master that does not answer is asked again.
const AWAY: Duration = Duration::from_secs(30);

/// How one look came out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is as it was wanted.
    Done,
    /// It will not become so; why.
    Failed(String),
    /// Not yet; what is awaited.
    Pending(String),
}

/// How following ended.
#[derive(Debug)]
pub(crate) enum Followed<T> {
    /// It is as it was wanted.
    Done(T),
    /// It will not become so.
    Failed(T, String),
    /// Time ran out.
    TimedOut(T, String),
    /// The operator has let go of it.
    Detached,
}

/// Looks again and again, with growing pauses, until `judge` is content, time is out, or Ctrl-C.
pub(crate) async fn follow<T, F>(
    context: &Context,
    patience: Duration,
    mut look: impl FnMut() -> F,
    mut judge: impl FnMut(&T) -> Look,
) -> Result<Followed<T>, Failure>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let mut progress = Progress::new(&context.output);
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut away_since: Option<Instant> = None;
    loop {
        match look().await {
            Ok(seen) => {
                away_since = None;
                let awaited = match judge(&seen) {
                    Look::Done => return Ok(Followed::Done(seen)),
                    Look::Failed(why) => return Ok(Followed::Failed(seen, why)),
                    Look::Pending(awaited) => awaited,
                };
                progress.set(&awaited);
                if started.elapsed() >= patience {
                    return Ok(Followed::TimedOut(seen, awaited));
                }
            }
            Err(error) if error.is_transient() => {
                if away_since.get_or_insert_with(Instant::now).elapsed() > AWAY.min(patience) {
                    return Err(error.into());
                }
                progress.set("the master does not answer");
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Followed::Detached),
        }
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

/// What a topology is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Running as it is stored.
    Active,
    /// Gone from its host.
    TornDown,
    /// Whatever it ends in.
    Settled,
}

/// Whether a topology has reached `goal`.
pub(crate) fn judge_topology(goal: Goal, state: &TopologyState) -> Look {
    let topology = &state.topology;
    let failed = || Look::Failed(topology.reason.clone());
    match (goal, topology.status.as_str()) {
        (Goal::Active | Goal::Settled, "active") => Look::Done,
        (Goal::TornDown | Goal::Settled, "torn_down") => Look::Done,
        (Goal::Settled, "failed" | "pending") => Look::Done,
        (Goal::Active, "failed") => failed(),
        (Goal::Active, "tearing_down" | "torn_down") => {
            Look::Failed("it is being torn down".to_owned())
        }
        (Goal::TornDown, "failed" | "degraded" | "active") => failed(),
        _ => Look::Pending(describe(state)),
    }
}

/// One line on where a topology stands: `office: deploying 4/13, waiting for host edge-07`.
pub(crate) fn describe(state: &TopologyState) -> String {
    let mut text = format!("{}: {}", state.topology.name, state.topology.status);
    if let Some(progress) = &state.progress {
        text.push_str(&format!(" {}/{}", progress.done, progress.total));
    }
    if let Some(condition) = &state.condition {
        text.push_str(&format!(", {condition}"));
    }
    text
}

/// Follows a topology, which is `name` to people, to `goal` and says how that ended.
pub(crate) async fn follow_topology(
    context: &Context,
    client: &Client,
    id: &str,
    name: &str,
    goal: Goal,
) -> Result<(Option<TopologyState>, Exit), Failure> {
    let again = format!("follow it with: decnet topology inspect {name} --wait");
    let followed = follow(
        context,
        context.patience,
        || client.topology(id),
        |state| judge_topology(goal, state),
    );
    match followed.await? {
        Followed::Done(state) => Ok((Some(state), Exit::Done)),
        Followed::Failed(_, why) => {
            let verb = if goal == Goal::TornDown {
                "was not torn down"
            } else {
                "failed"
            };
            let next = match goal {
                Goal::TornDown => format!(
                    "try again, or settle it without its host: decnet topology teardown {name} --force"
                ),
                Goal::Active | Goal::Settled => {
                    format!("mend that, then: decnet topology retry {name}")
                }
            };
            Err(Failure::say(format!("topology {name} {verb}: {why}")).next(next))
        }
        Followed::TimedOut(state, awaited) => {
            let seconds = context.patience.as_secs();
            context
                .output
                .note(&format!("still running after {seconds} s: {awaited}"));
            context.output.note(&again);
            Ok((Some(state), Exit::StillRunning))
        }
        Followed::Detached => {
            context.output.note(&format!("detached; {again}"));
            Ok((None, Exit::StillRunning))
        }
    }
}

/// Whether a host holds nothing.
pub(crate) fn judge_empty(host: &HostShape) -> Look {
    let desired = host
        .desired
        .as_ref()
        .is_some_and(|desired| desired.topology.is_some());
    let counted = host
        .observed
        .as_ref()
        .map(|observed| observed.deckies + observed.lans);
    match (desired, counted) {
        (false, Some(0)) => Look::Done,
        (_, Some(left)) => Look::Pending(format!("{}: {left} objects left", host.name)),
        (_, None) => Look::Pending(format!(
            "{}: waiting for the host ({})",
            host.name, host.state
        )),
    }
}

#[cfg(test)]
mod tests;

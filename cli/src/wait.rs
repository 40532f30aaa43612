//! Follows what was started until it is done, failed or out of time: one loop for every command
//! that waits.

mod source;

use std::fmt;
use std::pin::pin;
use std::time::{Duration, Instant};

use proto::client::{Client, ClientError};
use proto::rest::mutation::TopologyNews;
use proto::rest::{HostShape, TopologyState};

use self::source::Heard;
pub(crate) use self::source::{Source, Told};
use crate::context::Context;
use crate::duration::rough;
use crate::failure::{Exit, Failure};
use crate::progress::Progress;

/// How something stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is as it was wanted.
    Done,
    /// It will not become so; why.
    Failed(String),
    /// Not yet.
    Pending(Awaited),
}

/// What is awaited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Awaited {
    /// The step that it is in, such as `office: deploying`.
    pub(crate) phase: String,
    /// How far that is, and what holds it up; goes on where `phase` ends.
    pub(crate) detail: String,
}

impl From<String> for Awaited {
    fn from(phase: String) -> Self {
        let detail = String::new();
        Self { phase, detail }
    }
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.phase, self.detail)
    }
}

/// How following ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// It is as it was wanted.
    Done,
    /// It will not become so.
    Failed(String),
    /// Time ran out.
    TimedOut(Awaited),
    /// The operator has let go of it.
    Detached,
}

/// What is followed: takes what is told of it, and knows by that where it stands.
pub(crate) trait Subject {
    /// How it is told of.
    type News;

    /// Takes word of it.
    fn hear(&mut self, news: Self::News);

    /// Where it stands.
    fn judge(&self) -> Look;
}

/// Follows `subject` by what `listen` begins to tell of it, until it is done or failed, `patience`
/// has run out, or Ctrl-C. A master that goes away is waited for as long.
pub(crate) async fn follow<S: Subject>(
    context: &Context,
    patience: Duration,
    listen: impl FnOnce() -> Source<S::News>,
    subject: &mut S,
) -> Result<Followed, Failure> {
    let awaited = match subject.judge() {
        Look::Done => return Ok(Followed::Done),
        Look::Failed(why) => return Ok(Followed::Failed(why)),
        Look::Pending(awaited) => awaited,
    };
    let mut standing = Standing {
        subject,
        awaited,
        away: false,
    };
    let mut progress = Progress::new(&context.output);
    progress.set(&standing.awaited);
    let started = Instant::now();
    let mut source = listen();
    // Asked for once: whatever is at work when it comes, it is not lost.
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    loop {
        let heard = tokio::select! {
            heard = source.next() => heard,
            () = tokio::time::sleep(patience.saturating_sub(started.elapsed())) => {
                return Ok(Followed::TimedOut(standing.awaited));
            }
            () = progress.turn() => continue,
            _ = &mut interrupt => return Ok(Followed::Detached),
        };
        let Some(heard) = heard else {
            return Err(Failure::say("nothing tells of it any more"));
        };
        if let Some(ended) = standing.take(heard)? {
            return Ok(ended);
        }
        progress.set(&standing.awaited);
    }
}

/// Where following stands: the subject, and what is awaited of it.
struct Standing<'a, S> {
    subject: &'a mut S,
    awaited: Awaited,
    /// Whether it was told that the master is away, and not yet that it is back.
    away: bool,
}

impl<S: Subject> Standing<'_, S> {
    /// Takes what was heard; how following ends, when it does so by that.
    fn take(&mut self, heard: Heard<S::News>) -> Result<Option<Followed>, Failure> {
        let gauge = matches!(heard, Heard::Gauge(_));
        match heard {
            Heard::Told(news) | Heard::Gauge(news) => {
                self.subject.hear(news);
                match self.subject.judge() {
                    Look::Done => return Ok(Some(Followed::Done)),
                    Look::Failed(why) => return Ok(Some(Followed::Failed(why))),
                    // What decides is away, whatever is answered beside it: that is the news.
                    Look::Pending(_) if gauge && self.away => {}
                    Look::Pending(awaited) => self.awaited = awaited,
                }
            }
            Heard::Away(error) => {
                self.away = true;
                self.awaited = away(&error).into();
            }
            Heard::Back => {
                self.away = false;
                self.awaited = "the master answers again".to_owned().into();
            }
            Heard::Lost(error) => return Err(error.into()),
        }
        Ok(None)
    }
}

fn away(error: &ClientError) -> String {
    if matches!(error, ClientError::Unreachable { .. }) {
        "the master does not answer".to_owned()
    } else {
        format!("the master cannot tell: {error}")
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

/// Where a topology stands: `office: deploying`, and ` 4/13, waiting for host edge-07`.
pub(crate) fn describe(state: &TopologyState) -> Awaited {
    let mut detail = String::new();
    if let Some(progress) = &state.progress {
        detail.push_str(&format!(" {}/{}", progress.done, progress.total));
    }
    if let Some(condition) = &state.condition {
        detail.push_str(&format!(", {condition}"));
    }
    Awaited {
        phase: format!("{}: {}", state.topology.name, state.topology.status),
        detail,
    }
}

/// A topology on its way to a goal.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) goal: Goal,
    pub(crate) state: TopologyState,
}

impl Subject for Way {
    type News = Told;

    fn hear(&mut self, news: Told) {
        tell(&mut self.state, news);
    }

    fn judge(&self) -> Look {
        judge_topology(self.goal, &self.state)
    }
}

/// Makes `state` be what was told of it.
pub(crate) fn tell(state: &mut TopologyState, news: Told) {
    match news {
        Told::News(TopologyNews::Snapshot(snapshot)) => *state = snapshot.state,
        Told::News(TopologyNews::Status(change)) => {
            state.topology.status = change.to;
            state.topology.status_at = change.at;
            state.topology.reason = change.reason;
            // Both were of the step before.
            state.progress = None;
            state.condition = None;
        }
        // What is asked beside the stream can be ahead of it, or behind.
        Told::Gauge(gauge) if gauge.topology.status == state.topology.status => *state = *gauge,
        Told::Gauge(_) | Told::News(_) => {}
    }
}

impl Way {
    /// Follows it to its goal, or for `patience`.
    pub(crate) async fn follow(
        &mut self,
        context: &Context,
        patience: Duration,
        client: &Client,
    ) -> Result<Followed, Failure> {
        let id = self.state.topology.id.clone();
        let listen = || Source::topology(client, &id, None);
        follow(context, patience, listen, self).await
    }
}

/// Follows a topology to `goal` and says how that ended.
pub(crate) async fn follow_topology(
    context: &Context,
    client: &Client,
    state: TopologyState,
    goal: Goal,
) -> Result<(Option<TopologyState>, Exit), Failure> {
    let name = state.topology.name.clone();
    let again = format!("follow it with: decnet topology inspect {name} --wait");
    let mut way = Way { goal, state };
    match way.follow(context, context.patience, client).await? {
        Followed::Done => {
            // The stream has told the status; what the host shows is asked for.
            let state = match client.topology(&way.state.topology.id).await {
                Ok(state) => state,
                Err(error) if error.is_transient() => way.state,
                Err(error) => return Err(error.into()),
            };
            Ok((Some(state), Exit::Done))
        }
        Followed::Failed(why) => {
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
        Followed::TimedOut(awaited) => {
            let waited = rough(context.patience);
            context
                .output
                .note(&format!("still running after {waited}: {awaited}"));
            context.output.note(&again);
            Ok((Some(way.state), Exit::StillRunning))
        }
        Followed::Detached => {
            context.output.note(&format!("detached; {again}"));
            Ok((None, Exit::StillRunning))
        }
    }
}

/// A host that is to hold nothing.
#[derive(Debug)]
pub(crate) struct Emptying(pub(crate) HostShape);

impl Subject for Emptying {
    type News = HostShape;

    fn hear(&mut self, host: HostShape) {
        self.0 = host;
    }

    fn judge(&self) -> Look {
        judge_empty(&self.0)
    }
}

impl Emptying {
    /// Follows it until it holds nothing.
    pub(crate) async fn follow(
        &mut self,
        context: &Context,
        client: &Client,
    ) -> Result<Followed, Failure> {
        let (client, id) = (client.clone(), self.0.id.clone());
        let listen = || {
            Source::looking(move || {
                let (client, id) = (client.clone(), id.clone());
                async move { client.host(&id).await }
            })
        };
        follow(context, context.patience, listen, self).await
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
        (_, Some(left)) => Look::Pending(format!("{}: {left} objects left", host.name).into()),
        (_, None) => {
            Look::Pending(format!("{}: waiting for the host ({})", host.name, host.state).into())
        }
    }
}

#[cfg(test)]
mod tests;

//! What a machine is to hold: a topology that is live when `up` is done, and nothing when it ends.

use std::time::Instant;

use proto::client::Client;
use proto::rest::{CreateTopology, DeployRequest, TeardownRequest, TopologyFile, TopologyShape};

use crate::context::Context;
use crate::duration::rough;
use crate::failure::{Exit, Failure};
use crate::machine::LOCAL;
use crate::wait::{Followed, Goal, Way};

/// How something that is followed ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended<T> {
    Done(T),
    /// The operator has let go.
    Detached,
}

/// What is next to do so that a topology is live here.
#[derive(Debug, PartialEq, Eq)]
enum Next<'a> {
    /// One is on its way out.
    AwaitEnd(&'a TopologyShape),
    /// One is live, or becoming so.
    Await(&'a TopologyShape),
    /// One has failed.
    Retry(&'a TopologyShape),
    /// One was stored and not deployed before we were killed; the file may have changed since.
    Replace(&'a TopologyShape),
    /// There is none.
    Create,
}

/// Only what concerns this machine.
fn here(topology: &TopologyShape) -> bool {
    topology.host.as_deref().is_none_or(|host| host == LOCAL)
}

fn next<'a>(topologies: &'a [TopologyShape], wanted: &str) -> Next<'a> {
    let with = |statuses: &[&str]| {
        topologies
            .iter()
            .find(|each| here(each) && statuses.contains(&each.status.as_str()))
    };
    if let Some(ending) = with(&["tearing_down"]) {
        return Next::AwaitEnd(ending);
    }
    if let Some(live) = with(&["active", "degraded", "deploying"]) {
        return Next::Await(live);
    }
    if let Some(failed) = with(&["failed"]) {
        return Next::Retry(failed);
    }
    let pending = topologies
        .iter()
        .find(|each| each.status == "pending" && each.name.eq_ignore_ascii_case(wanted));
    pending.map_or(Next::Create, Next::Replace)
}

/// Makes sure that a topology is live here; gives the id of the one that is.
pub(super) async fn settle(
    client: &Client,
    file: TopologyFile,
    context: &Context,
) -> Result<Ended<String>, Failure> {
    let output = &context.output;
    let request = DeployRequest {
        replace: false,
        host: Some(LOCAL.to_owned()),
    };
    let topologies = client.topologies().await?;
    let found = match next(&topologies, &file.name) {
        Next::AwaitEnd(ending) => {
            output.note(&format!("waiting until topology {} is gone", ending.name));
            match await_goal(client, ending, Goal::TornDown, context).await? {
                Ended::Done(_) => {}
                Ended::Detached => return Ok(Ended::Detached),
            }
            None
        }
        Next::Await(live) => {
            output.note(&format!("topology {} is here already", live.name));
            Some(live.clone())
        }
        Next::Retry(failed) => {
            output.note(&format!("deploying topology {} again", failed.name));
            client.retry(&failed.id, &request).await?;
            Some(failed.clone())
        }
        Next::Replace(pending) => {
            client.remove_topology(&pending.id).await?;
            None
        }
        Next::Create => None,
    };
    let topology = match found {
        Some(topology) => topology,
        None => {
            output.note(&format!("deploying topology {}", file.name));
            let create = CreateTopology {
                topology: file,
                host: Some(LOCAL.to_owned()),
            };
            let created = client.create_topology(&create).await?;
            client.deploy(&created.topology.id, &request).await?;
            created.topology
        }
    };
    await_goal(client, &topology, Goal::Active, context).await
}

async fn await_goal(
    client: &Client,
    topology: &TopologyShape,
    goal: Goal,
    context: &Context,
) -> Result<Ended<String>, Failure> {
    let TopologyShape { id, name, .. } = topology;
    let state = client.topology(id).await?;
    let mut way = Way { goal, state };
    match way.follow(context, context.patience, client).await? {
        Followed::Done => Ok(Ended::Done(id.clone())),
        Followed::Failed(why) => Err(Failure::say(format!("topology {name} failed: {why}"))
            .next("mend that and run it again; `decnet doctor` knows the usual causes")),
        Followed::TimedOut(awaited) => {
            let waited = rough(context.patience);
            Err(Failure::say(format!(
                "topology {name} is not there after {waited}: {awaited}"
            ))
            .next("give it more time with --timeout")
            .exits(Exit::StillRunning))
        }
        Followed::Detached => Ok(Ended::Detached),
    }
}

/// Tears down everything that this machine holds and waits until it holds nothing.
pub(crate) async fn clear(client: &Client, context: &Context) -> Result<Exit, Failure> {
    let started = Instant::now();
    let topologies = client.topologies().await?;
    let held = || topologies.iter().filter(|each| here(each) && holds(each));
    for topology in held() {
        context
            .output
            .note(&format!("tearing down topology {}", topology.name));
        match client
            .teardown(&topology.id, &TeardownRequest::default())
            .await
        {
            // It is on its way out, or gone since we looked.
            Err(error) if error.status() == Some(409) => {}
            told => drop(told?),
        }
    }
    for topology in held() {
        let patience = context.patience.saturating_sub(started.elapsed());
        let mut way = Way {
            goal: Goal::TornDown,
            state: client.topology(&topology.id).await?,
        };
        match way.follow(context, patience, client).await? {
            Followed::Done => {}
            Followed::Failed(why) => {
                let name = &topology.name;
                return Err(Failure::say(format!(
                    "topology {name} was not torn down: {why}"
                )));
            }
            Followed::TimedOut(awaited) => {
                context.output.note(&format!("still there: {awaited}"));
                return Ok(Exit::StillRunning);
            }
            Followed::Detached => return Ok(Exit::StillRunning),
        }
    }
    Ok(Exit::Done)
}

fn holds(topology: &TopologyShape) -> bool {
    !matches!(topology.status.as_str(), "pending" | "torn_down")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(name: &str, status: &str, host: Option<&str>) -> TopologyShape {
        TopologyShape {
            id: format!("id of {name}"),
            name: name.to_owned(),
            status: status.to_owned(),
            status_at: String::new(),
            reason: "because".to_owned(),
            revision: 1,
            host: host.map(str::to_owned),
            lans: 1,
            deckies: 1,
        }
    }

    #[test]
    fn what_is_next_follows_from_what_is_there() {
        let local = |name, status| topology(name, status, Some(LOCAL));
        assert_eq!(next(&[], "office"), Next::Create);
        let gone = [local("office", "torn_down"), local("draft", "pending")];
        assert_eq!(next(&gone, "office"), Next::Create);
        let live = [local("office", "torn_down"), local("other", "active")];
        assert_eq!(next(&live, "office"), Next::Await(&live[1]));
        let ending = [local("office", "tearing_down"), local("other", "failed")];
        assert_eq!(next(&ending, "office"), Next::AwaitEnd(&ending[0]));
        let failed = [local("office", "failed")];
        assert_eq!(next(&failed, "office"), Next::Retry(&failed[0]));
        let pending = [topology("Office", "pending", None)];
        assert_eq!(next(&pending, "office"), Next::Replace(&pending[0]));
    }

    #[test]
    fn what_another_host_holds_is_not_ours() {
        let elsewhere = [topology("office", "active", Some("edge-07"))];
        assert_eq!(next(&elsewhere, "lab"), Next::Create);
    }

    #[test]
    fn what_a_machine_holds_is_neither_a_draft_nor_gone() {
        for (status, held) in [
            ("pending", false),
            ("torn_down", false),
            ("deploying", true),
            ("active", true),
            ("degraded", true),
            ("failed", true),
            ("tearing_down", true),
        ] {
            assert_eq!(
                holds(&topology("office", status, Some(LOCAL))),
                held,
                "{status}"
            );
        }
    }
}

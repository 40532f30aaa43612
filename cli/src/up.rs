//! `decnet up`: a whole DECNET on one machine, from nothing to live events, until Ctrl-C takes it
//! down again.

mod attack;
mod ready;
mod settle;

use std::net::SocketAddr;

use clap::Args;
use proto::client::Client;
use proto::rest::{EventQuery, TopologyFile};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::context::Context;
use crate::document::{self, Source};
use crate::event::line::Names;
use crate::event::{line, tail};
use crate::failure::{Exit, Failure};
use crate::machine::binaries::Binaries;
use crate::machine::{self, Listen, Lock, Machine, Record};

pub(crate) use self::settle::{Ended, clear};

/// What is deployed when nothing else is said.
const EXAMPLE: &str = include_str!("../../examples/office.yaml");

/// `decnet up`.
#[derive(Debug, Args)]
#[command(after_help = "\
Runs decnet-master on the data directory and decnet-agent in its `agent` folder, joins the machine
to its own fleet as host `local`, deploys a topology unless one is live, and prints events until
Ctrl-C, which tears the topology down. What a killed `up` left running is found and taken over.")]
pub(crate) struct UpCommand {
    /// The topology to deploy instead of the example; - for standard input.
    #[arg(
        long,
        value_name = "FILE",
        env = "DECNET_TOPOLOGY",
        hide_env_values = true
    )]
    topology: Option<String>,
    /// Deploy none.
    #[arg(long, conflicts_with = "topology")]
    no_topology: bool,
    #[command(flatten)]
    listen: ListenArgs,
}

/// Where the daemons listen.
#[derive(Debug, Args)]
pub(crate) struct ListenArgs {
    /// Where operators are served; port 0 picks one [default: 127.0.0.1:8080].
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "DECNET_API_LISTEN",
        hide_env_values = true
    )]
    api_listen: Option<SocketAddr>,
    /// Where agents are served; port 0 picks one and keeps it [default: 127.0.0.1:7443].
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "DECNET_FLEET_LISTEN",
        hide_env_values = true
    )]
    fleet_listen: Option<SocketAddr>,
    /// What other hosts dial, when they are to join.
    #[arg(
        long,
        value_name = "NAME[:PORT]",
        env = "DECNET_ADVERTISE",
        hide_env_values = true
    )]
    advertise: Option<String>,
}

impl ListenArgs {
    pub(crate) fn listen(&self) -> Listen {
        Listen {
            api: self.api_listen,
            fleet: self.fleet_listen,
            advertise: self.advertise.clone(),
        }
    }
}

/// Ctrl-C, SIGTERM, and the end of the terminal.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    pub(crate) fn new() -> Result<Self, Failure> {
        let of = |kind| {
            signal(kind).map_err(|error| Failure::new(error).context("could not take signals"))
        };
        Ok(Self {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
            hangup: of(SignalKind::hangup())?,
        })
    }

    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

pub(crate) async fn run(command: UpCommand, context: &Context) -> Result<Exit, Failure> {
    let topology = wanted(&command)?;
    let binaries = Binaries::new(context.environment.bin_dir.as_deref()).require()?;
    let directory = machine::data_dir(
        context.place.data_dir.as_deref(),
        context.environment.data_home.as_deref(),
    )?;
    let mut stop = Stop::new()?;
    let Some(lock) = Lock::take(&directory)? else {
        return Err(taken(&directory));
    };
    let mut machine = Machine::open(&directory, binaries, lock, &context.output).await?;

    let listen = command.listen.listen();
    let mut client = None;
    // Asked first: what is waited for inside also ends with a signal, and the same signal must not
    // then count as the second one, which cuts taking down short.
    let outcome = tokio::select! {
        biased;
        () = stop.asked() => Ok(()),
        outcome = hold(&mut machine, &mut client, topology, &listen, context) => outcome,
    };
    if let Err(failure) = &outcome {
        // Said at once: taking things down can take a while.
        context.output.failure(failure);
    }
    let taken_down = take_down(machine, client.as_ref(), &mut stop, context).await;
    match (outcome, taken_down) {
        (Err(failure), _) => Ok(failure.exit()),
        (Ok(()), ended) => ended,
    }
}

fn wanted(command: &UpCommand) -> Result<Option<TopologyFile>, Failure> {
    if command.no_topology {
        return Ok(None);
    }
    match &command.topology {
        Some(path) => Ok(Some(document::load(&Source::new(path))?.file)),
        None => Ok(Some(
            document::parse_text(EXAMPLE, "the example topology")?.file,
        )),
    }
}

fn taken(directory: &std::path::Path) -> Failure {
    let who = Record::read(directory).ok().and_then(|record| record.up);
    let who = who
        .map(|process| format!(" (process {})", process.pid))
        .unwrap_or_default();
    let directory = directory.display();
    Failure::say(format!("another decnet runs on {directory}{who}")).next(format!(
        "stop it with Ctrl-C where it runs, or with: decnet down --data-dir {directory}"
    ))
}

/// Brings everything up and prints events for as long as it stands. Returns only by failing, or
/// when the operator lets go.
async fn hold(
    machine: &mut Machine,
    known: &mut Option<Client>,
    topology: Option<TopologyFile>,
    listen: &Listen,
    context: &Context,
) -> Result<(), Failure> {
    let output = &context.output;
    output.note("starting the master");
    let client = machine.start_master(listen).await?;
    *known = Some(client.clone());
    machine.join(&client, output).await?;
    output.note("starting the agent");
    machine.start_agent(&client).await?;

    let newest = EventQuery {
        limit: Some(1),
        ..EventQuery::default()
    };
    let after = client
        .events(&newest)
        .await?
        .items
        .first()
        .map_or(0, |event| event.row);
    let live = match topology {
        None => None,
        Some(topology) => {
            let settled = tokio::select! {
                settled = settle::settle(&client, topology, context) => settled?,
                failure = machine.died() => return Err(failure),
            };
            match settled {
                Ended::Done(id) => Some(id),
                Ended::Detached => return Ok(()),
            }
        }
    };
    ready::announce(machine, &client, live, context).await?;
    let query = EventQuery {
        after: Some(after),
        ..EventQuery::default()
    };
    let names = Names::ask(&client).await;
    let print = |event: &_| {
        if !output.is_table() {
            let text = serde_json::to_string(event).map_err(Failure::new)?;
            return output.say(&text);
        }
        if line::is_noise(event) {
            Ok(())
        } else {
            output.say(&line::live(&names, event))
        }
    };
    tokio::select! {
        ended = tail::follow(&client, query, output, print) => ended,
        failure = machine.died() => Err(failure),
    }
}

/// Tears down what the machine holds, then stops its daemons. A second signal leaves out the rest.
async fn take_down(
    mut machine: Machine,
    client: Option<&Client>,
    stop: &mut Stop,
    context: &Context,
) -> Result<Exit, Failure> {
    let directory = machine.directory().display().to_string();
    let cleared = match client {
        Some(client) if machine.runs() => {
            context
                .output
                .note("taking everything down; Ctrl-C again to leave it as it is");
            tokio::select! {
                cleared = clear(client, context) => cleared,
                failure = machine.died() => Err(failure),
                () = stop.asked() => Ok(Exit::StillRunning),
            }
        }
        // Without an agent nobody can say that nothing is left.
        Some(_) => Ok(Exit::StillRunning),
        None => Ok(Exit::Done),
    };
    machine.stop().await?;
    let exit = match cleared {
        Ok(exit) => exit,
        Err(failure) => {
            context.output.failure(&failure);
            failure.exit()
        }
    };
    if exit != Exit::Done {
        let next =
            format!("something may be left; finish with: decnet down --data-dir {directory}");
        context.output.note(&next);
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_sound() {
        let loaded = document::parse_text(EXAMPLE, "example").expect("it is YAML");
        assert_eq!(loaded.file.name, "office");
        let judged = document::judge(loaded);
        assert_eq!(judged.findings, []);
    }
}

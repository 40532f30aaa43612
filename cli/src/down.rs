//! `decnet down`: takes down what a running or killed `up` holds on this machine.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::Signal;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::machine::binaries::Binaries;
use crate::machine::{self, Lock, Machine, Record};
use crate::up::{ListenArgs, Stop, clear};

/// The master's database: without it there never was an `up`.
const DATABASE: &str = "master.db";
const PAUSE: Duration = Duration::from_millis(100);

/// `decnet down`.
#[derive(Debug, Args)]
#[command(after_help = "\
Starts master and agent when they do not run, because only an agent can say that nothing is left,
tears down everything that this machine holds, waits until it is gone, and stops them.")]
pub(crate) struct DownCommand {
    #[command(flatten)]
    listen: ListenArgs,
}

pub(crate) async fn run(command: DownCommand, context: &Context) -> Result<Exit, Failure> {
    let directory = machine::data_dir(
        context.place.data_dir.as_deref(),
        context.environment.data_home.as_deref(),
    )?;
    if !directory.join(DATABASE).is_file() {
        context
            .output
            .note(&format!("nothing has ever run on {}", directory.display()));
        return Ok(Exit::Done);
    }
    let binaries = Binaries::new(context.environment.bin_dir.as_deref()).require()?;
    let mut stop = Stop::new()?;
    let lock = take(&directory, context).await?;
    let mut machine = Machine::open(&directory, binaries, lock, &context.output).await?;
    if !machine.has_joined() {
        // Nothing was ever carried out here.
        machine.stop().await?;
        context.output.note("nothing is left");
        return Ok(Exit::Done);
    }
    let cleared = tokio::select! {
        cleared = take_down(&mut machine, &command, context) => cleared,
        () = stop.asked() => Ok(Exit::StillRunning),
    };
    machine.stop().await?;
    if matches!(cleared, Ok(Exit::Done)) {
        context.output.note("nothing is left");
    }
    cleared
}

/// Takes the directory, from an `up` that runs on it if need be.
async fn take(directory: &Path, context: &Context) -> Result<Lock, Failure> {
    let started = Instant::now();
    let mut asked = false;
    loop {
        if let Some(lock) = Lock::take(directory)? {
            return Ok(lock);
        }
        let up = Record::read(directory)?.up;
        if let Some(up) = up.filter(|up| !asked && up.pid != std::process::id() && up.lives()) {
            context
                .output
                .note(&format!("asking the running decnet up to end ({})", up.pid));
            up.signal(Signal::TERM)
                .map_err(|error| Failure::new(error).context("could not stop the running up"))?;
            asked = true;
        }
        if started.elapsed() > context.patience {
            return Err(
                Failure::say(format!("another decnet runs on {}", directory.display()))
                    .exits(Exit::StillRunning)
                    .next("give it more time with --timeout"),
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn take_down(
    machine: &mut Machine,
    command: &DownCommand,
    context: &Context,
) -> Result<Exit, Failure> {
    let mut listen = command.listen.listen();
    // Nobody needs the API but us: any port will do.
    listen
        .api
        .get_or_insert(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
    let client = machine.start_master(&listen).await?;
    machine.start_agent(&client).await?;
    tokio::select! {
        cleared = clear(&client, context) => cleared,
        failure = machine.died() => Err(failure),
    }
}

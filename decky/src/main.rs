//! The process inside a decky: reads its configuration, serves, and writes what it sees.

mod budget;
mod clock;
mod config;
mod emit;
mod net;
mod pattern;
mod persona;
mod ports;
mod serve;
mod services;
mod shell;
mod supervise;
mod task;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use domain::id::BootId;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use crate::config::chain;
use crate::emit::{Bounds, Emitter, Standard};
use crate::ports::PortGate;
use crate::serve::Caps;
use crate::supervise::{Place, Supervisor};

/// How often the decky says that it lives, and with which configuration.
const ALIVE: Duration = Duration::from_secs(10);
/// How long the last lines may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the command line says.
enum Args {
    Run { config: PathBuf },
    Version,
}

/// Reads the command line: by hand, since a parser of options would be a tenth of the binary.
fn parse(mut words: impl Iterator<Item = OsString>) -> anyhow::Result<Args> {
    let mut config =
        PathBuf::from(proto::decky_config::MOUNT_POINT).join(proto::decky_config::FILE_NAME);
    while let Some(word) = words.next() {
        if word == "--version" {
            return Ok(Args::Version);
        }
        if word != "--config" {
            anyhow::bail!("unknown argument; usage: decnet-decky [--config FILE] [--version]");
        }
        config = words.next().context("--config needs a file")?.into();
    }
    Ok(Args::Run { config })
}

#[allow(
    clippy::disallowed_methods,
    reason = "main is where the environment is read"
)]
fn main() -> ExitCode {
    // A level only: filters by span would pull in an engine for regular expressions.
    let level = std::env::var("RUST_LOG")
        .ok()
        .and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(tracing::Level::WARN))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let start = || {
        let config = match parse(std::env::args_os().skip(1))? {
            Args::Run { config } => config,
            Args::Version => {
                let line = concat!("decnet-decky ", env!("CARGO_PKG_VERSION"), "\n");
                std::io::stdout()
                    .write_all(line.as_bytes())
                    .context("could not write")?;
                return Ok(ExitCode::SUCCESS);
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("could not start the runtime")?;
        let code = runtime.block_on(run(&config))?;
        // Sessions hold nothing that must be saved: they end with the process.
        runtime.shutdown_background();
        anyhow::Ok(code)
    };
    start().unwrap_or_else(|error| {
        tracing::error!(error = %chain(error.as_ref()), "cannot go on");
        ExitCode::FAILURE
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "the id of this life of the process is made here"
)]
async fn run(config: &Path) -> anyhow::Result<ExitCode> {
    let boot = BootId::new(Uuid::new_v4());
    let output = Standard::open().context("could not look at standard output")?;
    // Taken, and that is all: a file that has reached its greatest size must not be the end of the
    // process.
    let _oversize = output
        .is_file()
        .then(|| signal(SignalKind::from_raw(libc::SIGXFSZ)))
        .transpose()
        .context("could not take SIGXFSZ")?;
    let emitter = Emitter::start(output, boot, Bounds::default(), clock::system)
        .context("could not start the writer")?;
    let mut terminate = signal(SignalKind::terminate()).context("could not take SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("could not take SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("could not take SIGHUP")?;

    let gate = PortGate::of_this_namespace();
    let mut supervisor = Supervisor::new(emitter.clone(), gate, Place::real(), Caps::default());
    // A configuration that comes while it waits for its network is read behind this: the signal
    // is kept.
    let started = tokio::select! {
        started = supervisor.start(config) => started.map(|()| true),
        _ = terminate.recv() => Ok(false),
        _ = interrupt.recv() => Ok(false),
        () = emitter.gone() => return Ok(ExitCode::FAILURE),
    };
    match started {
        Ok(true) => {}
        Ok(false) => {
            last_words(&emitter).await;
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => {
            emitter.lifecycle("stopping", &chain(&error)).await;
            tokio::time::timeout(LAST_WORDS, emitter.flush()).await.ok();
            return Err(error).context("could not start");
        }
    }
    let mut alive = tokio::time::interval_at(tokio::time::Instant::now() + ALIVE, ALIVE);
    alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = emitter.gone() => return Ok(ExitCode::FAILURE),
            _ = hangup.recv() => tokio::select! {
                // A blocked output holds a reload up, and must not hold up the end.
                () = supervisor.reload(config) => {}
                _ = terminate.recv() => break,
            },
            _ = alive.tick() => supervisor.alive(),
        }
    }
    last_words(&emitter).await;
    Ok(ExitCode::SUCCESS)
}

/// Says that the decky ends. A blocked output must not delay that: the engine would kill us, and
/// say so.
async fn last_words(emitter: &Emitter) {
    tokio::time::timeout(LAST_WORDS, async {
        emitter.lifecycle("stopping", "").await;
        emitter.flush().await;
    })
    .await
    .ok();
}

//! The process inside a decky: reads its configuration, serves, and writes what it sees.

mod clock;
mod config;
mod emit;
mod net;
mod persona;
mod serve;
mod services;
mod shell;
mod supervise;
mod task;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use domain::id::BootId;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use uuid::Uuid;

use crate::emit::Emitter;
use crate::serve::Caps;
use crate::supervise::{Place, Supervisor};

/// How often the decky says that it lives, and with which configuration.
const ALIVE: Duration = Duration::from_secs(10);
/// How long the last lines may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[derive(Parser)]
#[command(
    version,
    about = "A fake machine: serves what its configuration says and reports each touch"
)]
struct Args {
    /// The configuration file.
    #[arg(long, default_value_os_t = default_config())]
    config: PathBuf,
}

fn default_config() -> PathBuf {
    PathBuf::from(proto::decky_config::MOUNT_POINT).join(proto::decky_config::FILE_NAME)
}

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("could not start the runtime")?;
        let code = runtime.block_on(run(&args))?;
        // Sessions hold nothing that must be saved: they end with the process.
        runtime.shutdown_background();
        anyhow::Ok(code)
    };
    run().unwrap_or_else(|error| {
        tracing::error!(error = %config::chain(error.as_ref()), "cannot go on");
        ExitCode::FAILURE
    })
}

async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let boot = BootId::new(Uuid::new_v4());
    let emitter = Emitter::start(std::io::stdout(), boot, emit::QUEUE_LINES, clock::system)
        .context("could not start the writer")?;
    let mut terminate = signal(SignalKind::terminate()).context("could not take SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("could not take SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("could not take SIGHUP")?;

    let mut supervisor = Supervisor::new(emitter.clone(), Place::real(), Caps::default());
    if let Err(error) = supervisor.start(&args.config).await {
        emitter.lifecycle("stopping", &config::chain(&error)).await;
        tokio::time::timeout(LAST_WORDS, emitter.flush()).await.ok();
        return Err(error).context("could not start");
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
                () = supervisor.reload(&args.config) => {}
                _ = terminate.recv() => break,
            },
            _ = alive.tick() => supervisor.alive(),
        }
    }
    // A blocked output must not delay the end: the engine would kill us, and say so.
    tokio::time::timeout(LAST_WORDS, async {
        emitter.lifecycle("stopping", "").await;
        emitter.flush().await;
    })
    .await
    .ok();
    Ok(ExitCode::SUCCESS)
}

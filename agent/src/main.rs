//! The command line of decnet-agent: reads arguments, environment and configuration, and speaks
//! with the operator. What it does is in the library.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agent::chain::Chain;
use agent::config::{Config, EngineKind, LogFormat};
use agent::datadir::{self, DataDir};
use agent::join::{Join, JoinError, join, token_next_step};
use agent::leave::{Resolve, leave};
use agent::run::{Run, run};
use agent::status::Status;
use agent::{crash, run as running};
use clap::{Args, Parser, Subcommand, ValueEnum};
use domain::name::HostName;
use pki::clock::Clock;
use pki::connector::MasterAddress;
use pki::token::JoinToken;
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

/// Keeps the deckies of one host as the master assigns them, and sends what they saw.
#[derive(Debug, Parser)]
#[command(name = "decnet-agent", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Join a master with a token that `decnet host enroll` has shown.
    Join(JoinArgs),
    /// Run until SIGTERM. Containers are left alone when the agent ends.
    Run(RunArgs),
    /// Forget the master: remove this host's identity and what came with it.
    Leave(LeaveArgs),
    /// Show the row, the spool and, with --live, the engine's objects. Writes nothing.
    Status(StatusArgs),
    /// Work with the configuration file.
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Check a configuration file and say what is wrong with it.
    Check(Place),
}

#[derive(Debug, Args)]
struct Place {
    /// Where the agent keeps everything [default: /var/lib/decnet-agent].
    #[arg(long, value_name = "DIR", env = "DECNET_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "DECNET_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct JoinArgs {
    /// Where the master is: https://HOST:7443.
    url: MasterAddress,
    /// Read the token from standard input.
    #[arg(long, conflicts_with = "token_file")]
    token_stdin: bool,
    /// Read the token from a file. Without either, it is taken from DECNET_JOIN_TOKEN.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The name that this host is to have; the master refuses a token for another one.
    #[arg(long, value_name = "NAME")]
    name: Option<HostName>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct EngineArgs {
    /// What makes containers [default: docker].
    #[arg(long, value_enum, env = "DECNET_ENGINE")]
    engine: Option<EngineKind>,
    /// The binary that runs inside the deckies [default: decnet-decky beside decnet-agent].
    #[arg(long, value_name = "FILE", env = "DECNET_DECKY_BINARY")]
    decky_binary: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    place: Place,
    /// Where the master is, instead of where this host joined. May be given more than once.
    #[arg(long, value_name = "URL", env = "DECNET_MASTER", value_delimiter = ',')]
    master: Vec<MasterAddress>,
    #[command(flatten)]
    engine: EngineArgs,
    /// Kill this process at a named point. Only in builds with crash points.
    #[arg(long, value_name = "NAME", hide = true)]
    crash_at: Option<String>,
}

#[derive(Debug, Args)]
struct LeaveArgs {
    #[command(flatten)]
    place: Place,
    /// Leave although this host holds a topology or has evidence that was not sent.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    place: Place,
    /// Ask the engine what is there.
    #[arg(long)]
    live: bool,
    /// In which form.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// How long an agent that starts waits for the end of the one before it.
const PREDECESSOR: Duration = Duration::from_secs(3);

/// Why the command failed, and what the operator does about it.
struct Failure {
    error: anyhow::Error,
    next_step: &'static str,
}

impl Failure {
    fn new(error: impl Into<anyhow::Error>, next_step: &'static str) -> Self {
        Self {
            error: error.into(),
            next_step,
        }
    }
}

type Outcome = Result<(), Failure>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    pki::install_crypto_provider();
    raise_file_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return report(&Failure::new(
                error,
                "Check the limits of this process (ulimit).",
            ));
        }
    };
    let outcome = runtime.block_on(perform(cli.verb));
    // A blocked disk must not keep a process from ending that has been told to.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

/// Each decky that is followed takes a file or a connection, and what most shells allow would be
/// used up by a few hundred. What this process may not have, the guard tells when it matters.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).ok();
}

async fn perform(verb: Verb) -> Outcome {
    match verb {
        Verb::Join(args) => {
            log_for_people("warn");
            join_host(args).await
        }
        Verb::Run(args) => run_agent(args).await,
        Verb::Leave(args) => {
            log_for_people("warn");
            leave_master(args).await
        }
        Verb::Status(args) => {
            log_for_people("warn");
            show_status(args).await
        }
        Verb::Config {
            verb: ConfigVerb::Check(place),
        } => {
            let Some(path) = &place.config else {
                let missing = anyhow::anyhow!("no configuration file was named");
                return Err(Failure::new(missing, "Name it with --config FILE."));
            };
            load(&place)?;
            say(&format!("{}: ok", path.display()));
            Ok(())
        }
    }
}

async fn join_host(args: JoinArgs) -> Outcome {
    let config = load(&args.place)?;
    let token = token(&args)?;
    let request = Join {
        master: args.url,
        token,
        name: args.name,
        data: data_dir(&args.place, &config),
        clock: clock(),
    };
    let mut told = |step| say(&format!("  {step}"));
    join(request, &mut told).await.map_err(|error: JoinError| {
        let next_step = error.next_step();
        Failure::new(error, next_step)
    })
}

/// The token's text is wiped once it is read; it is never an argument, where `ps` would show it.
fn token(args: &JoinArgs) -> Result<JoinToken, Failure> {
    const NEXT: &str =
        "Give it with --token-stdin, --token-file FILE or in the environment as DECNET_JOIN_TOKEN.";
    let mut text = Zeroizing::new(String::new());
    if args.token_stdin {
        let mut input = io::stdin().lock().take(4096);
        input.read_to_string(&mut text).map_err(|error| {
            let error = anyhow::Error::new(error).context("could not read standard input");
            Failure::new(error, NEXT)
        })?;
    } else if let Some(path) = &args.token_file {
        *text = std::fs::read_to_string(path).map_err(|error| {
            let said = format!("could not read {}", path.display());
            Failure::new(anyhow::Error::new(error).context(said), NEXT)
        })?;
    } else {
        #[allow(
            clippy::disallowed_methods,
            reason = "the one file that reads the environment"
        )]
        let from_environment = std::env::var("DECNET_JOIN_TOKEN");
        *text = from_environment
            .map_err(|_| Failure::new(anyhow::anyhow!("no join token was given"), NEXT))?;
    }
    JoinToken::parse(&text).map_err(|error| Failure::new(error, token_next_step(error)))
}

async fn run_agent(args: RunArgs) -> Outcome {
    let config = load(&args.place)?;
    log_for_daemon(&config);
    if let Some(name) = &args.crash_at {
        crash::arm(name).map_err(|error| {
            Failure::new(
                error,
                "Name a point of this build, or build with crash-points.",
            )
        })?;
    }
    let data = DataDir::lock_within(&data_dir(&args.place, &config), PREDECESSOR).await;
    let data = data.map_err(|error| {
        let next_step = error.next_step();
        Failure::new(error, next_step)
    })?;
    let masters = if args.master.is_empty() {
        config.masters.clone()
    } else {
        args.master
    };
    let engine = args.engine.over(&config);
    let options = Run {
        data,
        masters,
        engine,
        bounds: config.spool.bounds(),
        guard: config.guard,
        collect: config.collect,
        clock: clock(),
        jitter: Arc::new(rand::random::<f64>),
    };
    let shutdown = CancellationToken::new();
    let ending = shutdown.clone();
    let signals = wait_for_end()
        .map_err(|error| Failure::new(error, "Check the limits of this process (ulimit)."))?;
    let span = tracing::info_span!("agent.signals");
    agent::task::spawn("signals", span, async move {
        signals.await;
        tracing::info!("told to end");
        ending.cancel();
    });
    run(options, shutdown).await.map_err(|error| {
        let next_step = error.next_step();
        Failure::new(error, next_step)
    })
}

fn wait_for_end() -> io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn leave_master(args: LeaveArgs) -> Outcome {
    let config = load(&args.place)?;
    let data = data_dir(&args.place, &config);
    let resolve = if args.force {
        Resolve::Forced
    } else {
        Resolve::Careful
    };
    let left = leave(&data, resolve).await.map_err(|error| {
        let next_step = error.next_step();
        Failure::new(error, next_step)
    })?;
    say(if left {
        "  ✓ this host has left; remove it on the master too: decnet host rm NAME"
    } else {
        "  ✓ this host had not joined: nothing to do"
    });
    Ok(())
}

async fn show_status(args: StatusArgs) -> Outcome {
    let config = load(&args.place)?;
    let data = data_dir(&args.place, &config);
    let failed = |error: agent::status::StatusError| {
        let next_step = error.next_step();
        Failure::new(error, next_step)
    };
    let mut status = Status::read(&data).await.map_err(failed)?;
    if args.live {
        let credentials = agent::identity::Credentials::load(&data, clock()).map_err(|error| {
            let next_step = error.next_step();
            Failure::new(error, next_step)
        })?;
        let board = agent::engine::liveness::LivenessBoard::new();
        let host = credentials.identity().host();
        let engine = running::engine(&args.engine.over(&config), host, &data, board);
        status.look(engine.as_ref()).await.map_err(failed)?;
    }
    match args.output {
        Output::Table => say(status.table().trim_end()),
        Output::Json => say(&format!("{:#}", status.json())),
    }
    Ok(())
}

impl EngineArgs {
    fn over(self, config: &Config) -> agent::config::EngineConfig {
        let mut engine = config.engine.clone();
        if let Some(kind) = self.engine {
            engine.kind = kind;
        }
        if self.decky_binary.is_some() {
            engine.decky_binary = self.decky_binary;
        }
        engine
    }
}

fn load(place: &Place) -> Result<Config, Failure> {
    let Some(path) = &place.config else {
        return Ok(Config::default());
    };
    Config::load(path).map_err(|error| {
        Failure::new(
            error,
            "Correct the file; decnet-agent.example.toml shows every key.",
        )
    })
}

fn data_dir(place: &Place, config: &Config) -> PathBuf {
    place
        .data_dir
        .clone()
        .or_else(|| config.data_dir.clone())
        .unwrap_or_else(|| datadir::DEFAULT.into())
}

fn clock() -> Clock {
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place from where the clock is passed on"
    )]
    Arc::new(OffsetDateTime::now_utc)
}

fn log_for_people(filter: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
}

fn log_for_daemon(config: &Config) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(&config.log.filter));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false);
    match config.log.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Says something to the operator. A reader that has gone away is no failure.
fn say(text: &str) {
    writeln!(io::stdout().lock(), "{text}").ok();
}

fn report(failure: &Failure) -> ExitCode {
    let mut out = io::stderr().lock();
    let said = Chain(failure.error.as_ref());
    writeln!(out, "error: {said}\n  {}", failure.next_step).ok();
    ExitCode::FAILURE
}

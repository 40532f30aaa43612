//! The command line of the master.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use master::chain::Chain;
use master::config::{Config, ConfigError, ConfigFile, LogFormat};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// A thousand agents leave many small blocks between the short-lived ones of their handshakes. This
/// allocator keeps the sizes apart and gives back what is not used (`.cargo/config.toml`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Owns the database, the status machine and the reconciler of DECNET.
#[derive(Parser)]
#[command(name = "decnet-master", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve operators and agents until told to stop.
    Serve(ServeArgs),
    /// Give the user `admin` a new one-time password, while the master does not run.
    AdminReset(Settings),
    /// Look at the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check a configuration file and print what would be in force.
    Check(Settings),
}

#[derive(Args)]
struct ServeArgs {
    #[command(flatten)]
    settings: Settings,
    /// Kill the process at a named point.
    #[cfg(feature = "crash-points")]
    #[arg(long, hide = true)]
    crash_at: Option<String>,
}

#[derive(Args)]
struct Settings {
    /// Configuration file; flags win over it.
    #[arg(long, env = "DECNET_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything is kept.
    #[arg(long, env = "DECNET_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where operators are served (loopback; port 0 picks one).
    #[arg(long, env = "DECNET_API_LISTEN", value_name = "ADDR:PORT")]
    api_listen: Option<SocketAddr>,
    /// Where agents are served (port 0 picks one).
    #[arg(long, env = "DECNET_FLEET_LISTEN", value_name = "ADDR:PORT")]
    fleet_listen: Option<SocketAddr>,
    /// What hosts dial; it is in the certificate and in the text of an enrollment.
    #[arg(long, env = "DECNET_ADVERTISE", value_name = "NAME[:PORT]")]
    advertise: Option<String>,
    /// How often agents send heartbeats.
    #[arg(long, env = "DECNET_HEARTBEAT", value_name = "DURATION")]
    heartbeat: Option<String>,
    /// How long certificates of hosts live.
    #[arg(long, env = "DECNET_CERTIFICATE_LIFE", value_name = "DURATION")]
    certificate_life: Option<String>,
    /// How long a deploy may take.
    #[arg(long, env = "DECNET_DEPLOY_DEADLINE", value_name = "DURATION")]
    deploy_deadline: Option<String>,
}

impl Settings {
    fn resolve(self) -> Result<Config, ConfigError> {
        let mut file = self
            .config
            .as_deref()
            .map(ConfigFile::read)
            .transpose()?
            .unwrap_or_default();
        fn over<T>(flag: Option<T>, value: &mut Option<T>) {
            if flag.is_some() {
                *value = flag;
            }
        }
        over(self.data_dir, &mut file.data_dir);
        over(self.api_listen, &mut file.api_listen);
        over(self.fleet_listen, &mut file.fleet_listen);
        over(self.advertise, &mut file.advertise);
        over(self.heartbeat, &mut file.heartbeat);
        over(self.certificate_life, &mut file.certificate_life);
        over(self.deploy_deadline, &mut file.deploy_deadline);
        file.resolve()
    }
}

#[allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "the command line speaks to a person"
)]
fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve(args),
        Command::AdminReset(settings) => reset_admin(settings).map(|path| {
            println!("log in as admin with the password in {}", path.display());
        }),
        Command::Config {
            command: ConfigCommand::Check(settings),
        } => settings
            .resolve()
            .map(|config| println!("{config:#?}"))
            .map_err(anyhow::Error::from),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("decnet-master: {}", Chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn reset_admin(settings: Settings) -> anyhow::Result<PathBuf> {
    let config = settings.resolve()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let reset = master::serve::reset_admin(config, master::clock::system());
    Ok(runtime.block_on(reset)?)
}

fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let config = args.settings.resolve()?;
    #[cfg(feature = "crash-points")]
    if let Some(point) = args.crash_at {
        master::crash::arm(point);
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
    pki::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let token = shutdown.clone();
        master::task::spawn("signals", tracing::Span::none(), async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        });
        master::serve::serve(config, master::clock::system(), shutdown).await?;
        Ok(())
    })
}

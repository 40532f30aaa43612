//! `decnet-agent run`: starts the tasks, wires them to each other, and takes them down.
//!
//! Nothing is done to the engine here, and nothing at all to a container when the agent ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pki::clock::Clock;
use pki::connector::MasterAddress;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::apply::{Applier, Settings};
use crate::chain::Chain;
use crate::collect::{CollectError, Collector};
use crate::config::{CollectConfig, EngineConfig, EngineKind, GuardConfig};
use crate::datadir::DataDir;
use crate::engine::Engine;
use crate::engine::docker::{DockerConfig, DockerEngine};
#[cfg(feature = "fake")]
use crate::engine::fake::FakeDaemon;
use crate::engine::liveness::LivenessBoard;
use crate::engine::native::{NativeConfig, NativeEngine};
use crate::engine::usage::Meter;
use crate::guard::{Guard, HostGauges};
use crate::health::Vitals;
use crate::identity::{Credentials, LoadCredentialsError};
use crate::leave::STORE_FILE;
use crate::link::bulk::Bulk;
use crate::link::session::{Dialling, Session};
use crate::link::{Jitter, Pace};
use crate::measure::{self, Measurer};
use crate::notice::Notices;
use crate::report::Obey;
use crate::spool::{Bounds, OpenError, Spool};
use crate::store::{Store, StoreError};
use crate::task;

/// How long storing what was read may take when the agent ends; what it misses is read again.
const FLUSH: Duration = Duration::from_secs(5);

/// What to run with.
pub struct Run {
    /// The locked data directory.
    pub data: DataDir,
    /// Where the master is; empty for where the host joined.
    pub masters: Vec<MasterAddress>,
    /// What makes containers.
    pub engine: EngineConfig,
    /// Where the spool ends.
    pub bounds: Bounds,
    /// How evidence is read.
    pub collect: CollectConfig,
    /// What is to be left of the host.
    pub guard: GuardConfig,
    /// The agent's clock.
    pub clock: Clock,
    /// Keeps a fleet from doing everything at once.
    pub jitter: Jitter,
}

/// Why the agent did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No identity.
    #[error("could not start")]
    Credentials {
        /// Why.
        #[source]
        source: LoadCredentialsError,
    },
    /// No spool.
    #[error("could not start")]
    Spool {
        /// Why.
        #[source]
        source: OpenError,
    },
    /// No row.
    #[error("could not start")]
    Store {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// Evidence cannot be stored any more.
    #[error("collection has ended")]
    Collect {
        /// Why.
        #[source]
        source: CollectError,
    },
    /// A bug.
    #[error("the task {name} has failed")]
    Task {
        /// Which.
        name: &'static str,
        /// How.
        #[source]
        source: JoinError,
    },
    /// A bug.
    #[error("the task {name} has ended")]
    Ended {
        /// Which.
        name: &'static str,
    },
}

impl RunError {
    /// What to do about it: one sentence for the operator.
    pub const fn next_step(&self) -> &'static str {
        match self {
            Self::Credentials { source } => source.next_step(),
            Self::Spool { .. } | Self::Store { .. } => {
                "Check that this user may write to the data directory and that space is left."
            }
            Self::Collect { .. } => {
                "Start the agent again: the damaged spool is moved aside, and what the containers \
                 still have is collected again."
            }
            Self::Task { .. } | Self::Ended { .. } => {
                "Start the agent again, and report the log above."
            }
        }
    }
}

/// The engine of this host. Nothing is asked of it yet.
pub fn engine(
    config: &EngineConfig,
    host: domain::id::HostId,
    data: &std::path::Path,
    board: LivenessBoard,
) -> Arc<dyn Engine> {
    let decky_binary = config.decky_binary.clone();
    let decky_binary = decky_binary.unwrap_or_else(beside_this_binary);
    match config.kind {
        EngineKind::Native => Arc::new(NativeEngine::new(
            NativeConfig {
                host,
                decky_binary,
                data_dir: data.to_owned(),
                run_dir: config.run_dir.clone(),
                call_timeout: config.call_timeout,
            },
            board,
        )),
        EngineKind::Docker => Arc::new(DockerEngine::connect(
            DockerConfig {
                host,
                decky_binary,
                data_dir: data.to_owned(),
                socket: config.socket.clone(),
                call_timeout: config.call_timeout,
            },
            board,
        )),
        #[cfg(feature = "fake")]
        EngineKind::Fake => Arc::new(FakeDaemon::new().engine(host, board)),
    }
}

fn beside_this_binary() -> PathBuf {
    const NAME: &str = "decnet-decky";
    std::env::current_exe()
        .ok()
        .and_then(|path| Some(path.parent()?.join(NAME)))
        .unwrap_or_else(|| NAME.into())
}

/// Runs until `shutdown`, or until something without which the agent is of no use has ended.
pub async fn run(options: Run, shutdown: CancellationToken) -> Result<(), RunError> {
    let Run {
        data,
        masters,
        engine: engine_config,
        bounds,
        collect,
        guard,
        clock,
        jitter,
    } = options;
    let credentials = Credentials::load(data.path(), Arc::clone(&clock))
        .map_err(|source| RunError::Credentials { source })?;
    let credentials = Arc::new(credentials);
    let host = credentials.identity().host();
    let membership = credentials.membership();
    let masters = if masters.is_empty() {
        membership.masters
    } else {
        masters
    };
    tracing::info!(
        host.id = %host, host.name = %membership.host, agent.version = crate::link::VERSION,
        "agent started"
    );

    let notices = Arc::new(Notices::new(Arc::clone(&clock)));
    let spool = Spool::open(data.path(), bounds, Arc::clone(&notices), clock())
        .await
        .map_err(|source| RunError::Spool { source })?;
    let spool = Arc::new(spool);
    let store = Store::open(&data.path().join(STORE_FILE))
        .await
        .map_err(|source| RunError::Store { source })?;

    let board = LivenessBoard::new();
    let engine = engine(&engine_config, host, data.path(), board.clone());
    let vitals = Arc::new(Vitals::default());
    let mut disks = vec![data.path().to_owned()];
    disks.extend(guard.disks.iter().cloned());
    let guard = Guard::new(guard, Arc::new(HostGauges::new(disks)));
    let applier = Applier {
        engine: Arc::clone(&engine),
        store,
        board: board.clone(),
        clock: Arc::clone(&clock),
        settings: Settings::default(),
        guard: guard.clone(),
    };
    let (applier, actor) = applier
        .start()
        .await
        .map_err(|source| RunError::Store { source })?;
    let counting = Arc::clone(&engine);
    let collector = Collector {
        engine,
        spool: Arc::clone(&spool),
        saw: Arc::new(move |decky, digest| board.saw(decky, digest)),
        vitals: Arc::clone(&vitals),
        notices,
        clock: Arc::clone(&clock),
        flush: collect.flush,
    };
    let (usages, measured) = watch::channel(Arc::default());
    let measurer = Measurer {
        following: applier.following(),
        meter: Meter::default(),
        refused: Arc::new(move |handle| counting.refused(handle)),
        every: measure::EVERY,
        usages,
    };
    let dialling = Dialling {
        credentials,
        masters,
        pace: Pace::default(),
        jitter,
    };
    let session = Session {
        dialling: dialling.clone(),
        obey: Arc::new(applier.clone()) as Arc<dyn Obey>,
        vitals,
        data: data.path().to_owned(),
        spool: spool.figures(),
        usages: measured,
        without_master: collect.without_master,
    };
    let bulk = Bulk {
        dialling,
        spool: Arc::clone(&spool),
    };

    // Every task ends with this one, also when it is not `shutdown` that ends it.
    let ending = shutdown.child_token();
    let following = applier.following();
    let mut tasks = Tasks {
        apply: task::spawn(
            "apply",
            tracing::info_span!("host.apply", host.id = %host),
            actor,
        ),
        collect: task::spawn(
            "collect",
            tracing::info_span!("evidence.collect", host.id = %host),
            collector.run(following, ending.clone()),
        ),
        session: task::spawn(
            "session",
            tracing::info_span!("host.session", host.id = %host),
            session.run(ending.clone()),
        ),
        bulk: task::spawn(
            "bulk",
            tracing::info_span!("evidence.send", host.id = %host),
            bulk.run(ending.clone()),
        ),
        guard: task::spawn(
            "guard",
            tracing::info_span!("host.guard", host.id = %host),
            guard.watch(Arc::clone(&spool), clock, ending.clone()),
        ),
        measure: task::spawn(
            "measure",
            tracing::info_span!("host.measure", host.id = %host),
            measurer.run(ending.clone()),
        ),
    };
    let result = tasks.watch(&shutdown).await;
    ending.cancel();
    tasks.finish().await;
    drop(applier);
    close(spool).await;
    tracing::info!("agent ended");
    result
}

struct Tasks {
    apply: JoinHandle<()>,
    collect: JoinHandle<Result<(), CollectError>>,
    session: JoinHandle<()>,
    bulk: JoinHandle<()>,
    guard: JoinHandle<()>,
    measure: JoinHandle<()>,
}

impl Tasks {
    /// Waits for the end of the agent, or of a task, which is the same.
    async fn watch(&mut self, shutdown: &CancellationToken) -> Result<(), RunError> {
        let ended = |name, ended: Result<(), JoinError>| match ended {
            Ok(()) => Err(RunError::Ended { name }),
            Err(source) => Err(RunError::Task { name, source }),
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Ok(()),
            collected = &mut self.collect => match collected {
                Ok(Err(source)) => Err(RunError::Collect { source }),
                Ok(Ok(())) => Err(RunError::Ended { name: "collect" }),
                Err(source) => Err(RunError::Task { name: "collect", source }),
            },
            end = &mut self.apply => ended("apply", end),
            end = &mut self.session => ended("session", end),
            end = &mut self.bulk => ended("bulk", end),
            end = &mut self.guard => ended("guard", end),
            end = &mut self.measure => ended("measure", end),
        }
    }

    async fn finish(self) {
        let Self {
            apply,
            collect,
            session,
            bulk,
            guard,
            measure,
        } = self;
        // As if it had been killed: the row says what was under way, and the master goes on there.
        apply.abort();
        let rest = async {
            // A task that has been waited for is not polled again.
            if !collect.is_finished() {
                drop(collect.await);
            }
            for task in [session, bulk, guard, measure, apply] {
                if !task.is_finished() {
                    drop(task.await);
                }
            }
        };
        if timeout(FLUSH, rest).await.is_err() {
            tracing::warn!("not everything that was read could be stored; it will be read again");
        }
    }
}

async fn close(spool: Arc<Spool>) {
    let Some(spool) = Arc::into_inner(spool) else {
        return;
    };
    if let Err(error) = spool.close().await {
        tracing::debug!(error = %Chain(&error), "the spool was not closed; the next start does it");
    }
}

//! Puts the master together and runs it until it is told to stop.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pki::acceptor::{AcceptLimits, Connections, ServerTls, ServerTlsError, accept_loop};
use pki::ca::{CaError, CertificateAuthority, IssueError, MasterName};
use pki::file::{WriteFileError, write_public};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::allow::AllowTable;
use crate::bus::Bus;
use crate::bus::socket::{self, BindError, BusSocket};
use crate::chain::Chain;
use crate::clock::Clock;
use crate::config::{BusPlace, Config};
use crate::db::{SqlStore, Store, StoreError, postgres, sqlite};
use crate::enroll::Enroll;
use crate::fleet::{Fleet, FleetParts};
use crate::forget;
use crate::http::{self, Api, ApiParts};
use crate::metrics::Metrics;
use crate::mutate::{Asked, Mutator};
use crate::operators::{FirstAdminError, Operators, PASSWORD_FILE};
use crate::pipeline::Ingest;
use crate::reconcile::{ReconcileCounts, Reconciler, ReconcilerParts};
use crate::rpc::Rpc;
use crate::signal::{Conditions, MutationWaker, Waker};
use crate::task;
use crate::topology::Editor;

/// How often it is stored when hosts were last heard.
const FLUSH: Duration = Duration::from_secs(60);
/// How long open streams and requests may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// Why the master does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The bus cannot be served where it is configured to be.
    #[error(transparent)]
    Bus(BindError),
    /// The data directory cannot be made or is open to others.
    #[error("could not prepare data directory {path}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another master runs there.
    #[error("another decnet-master runs in {path}; stop it or choose another --data-dir")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The API would be served in clear beyond this machine.
    #[error(
        "--api-listen {address} is not a loopback address; bind 127.0.0.1 and reach it through a tunnel"
    )]
    OpenApi {
        /// The address.
        address: SocketAddr,
    },
    /// `--advertise` is no name.
    #[error("--advertise {text:?} is neither a host name nor an address, with or without a port")]
    Advertise {
        /// What was given.
        text: String,
    },
    /// A port is taken.
    #[error("could not listen on {address} for {noun}; stop what listens there or choose another")]
    Listen {
        /// For whom.
        noun: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database cannot be opened.
    #[error("could not open the database")]
    Open(#[source] sqlite::OpenError),
    /// The database on its server cannot be opened.
    #[error("could not open the database")]
    OpenPostgres(#[source] postgres::OpenError),
    /// The database cannot be read.
    #[error("could not read the database")]
    Store(#[source] StoreError),
    /// The CA cannot be read or made.
    #[error("could not load or make the certificate authority")]
    Authority(#[source] CaError),
    /// The master's own certificate cannot be made.
    #[error("could not issue the master's certificate")]
    Leaf(#[source] IssueError),
    /// TLS cannot be set up.
    #[error("could not set up TLS")]
    Tls(#[source] ServerTlsError),
    /// The admin token cannot be read or made.
    #[error("could not load or make the admin token")]
    AdminToken(#[source] http::auth::AdminTokenError),
    /// Nobody could log in.
    #[error("could not make the first admin")]
    FirstAdmin(#[source] FirstAdminError),
    /// The endpoints cannot be written.
    #[error("could not write the endpoints")]
    Endpoints(#[source] WriteFileError),
    /// The server of the fleet port ended by itself.
    #[error("the fleet port ended")]
    Fleet(#[source] tonic::transport::Error),
}

/// Gives the first admin a new one-time password, while no master runs; where it is.
pub async fn reset_admin(config: Config, clock: Clock) -> Result<PathBuf, ServeError> {
    let _lock = prepare(&config.data_dir)?;
    let store = open(&config).await?;
    let path = config.data_dir.join(PASSWORD_FILE);
    Operators::new(Arc::new(store), clock, path.clone())
        .reset_admin()
        .await
        .map_err(ServeError::FirstAdmin)?;
    Ok(path)
}

async fn open(config: &Config) -> Result<SqlStore, ServeError> {
    match &config.database {
        Some(server) => postgres::open(server)
            .await
            .map_err(ServeError::OpenPostgres),
        None => sqlite::open(&config.data_dir.join("master.db"))
            .await
            .map_err(ServeError::Open),
    }
}

/// Runs the master until `shutdown`.
pub async fn serve(
    config: Config,
    clock: Clock,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    if !config.api_listen.ip().is_loopback() {
        return Err(ServeError::OpenApi {
            address: config.api_listen,
        });
    }
    let _lock = prepare(&config.data_dir)?;
    let data = config.data_dir.as_path();
    let started_at = clock();
    let metrics = Arc::new(Metrics::default());
    let store = open(&config).await?;
    let store: Arc<dyn Store> = Arc::new(store.counted_in(Arc::clone(&metrics)));
    let authority = Arc::new(
        CertificateAuthority::load_or_create(data, started_at).map_err(ServeError::Authority)?,
    );
    let admin = http::auth::load_or_create_admin_token(&data.join("admin.token"))
        .map_err(ServeError::AdminToken)?;
    let operators = Operators::new(
        Arc::clone(&store),
        Arc::clone(&clock),
        data.join(PASSWORD_FILE),
    );
    operators
        .ensure_first()
        .await
        .map_err(ServeError::FirstAdmin)?;

    let api_listener = listen("operators", config.api_listen).await?;
    let fleet_listener = listen("agents", config.fleet_listen).await?;
    let api_address = local(&api_listener, config.api_listen);
    let fleet_address = local(&fleet_listener, config.fleet_listen);
    let advertised = Advertised::new(config.advertise.as_deref(), fleet_address)?;

    let allow = Arc::new(AllowTable::default());
    let connections = Connections::new();
    let bus = Arc::new(Bus::default());
    let bus_socket = bind_bus(&config)?;
    let waker = Waker::default();
    let mutations = MutationWaker::default();
    let conditions = Arc::new(Conditions::default());
    let counts = Arc::new(ReconcileCounts::default());
    let fleet = Fleet::open(FleetParts {
        store: Arc::clone(&store),
        allow: Arc::clone(&allow),
        connections: Arc::clone(&connections),
        bus: Arc::clone(&bus),
        waker: waker.clone(),
        clock: Arc::clone(&clock),
        period: config.heartbeat,
    })
    .await
    .map_err(ServeError::Store)?;
    let enroll = Arc::new(Enroll::new(
        Arc::clone(&store),
        Arc::clone(&authority),
        Arc::clone(&fleet),
        Arc::clone(&clock),
        config.certificate_life,
        advertised.url.clone(),
    ));
    let ingest = Arc::new(Ingest::new(Arc::clone(&store), Arc::clone(&clock)));
    let tracker = TaskTracker::new();

    let leaf = authority
        .issue_master(&advertised.names, MASTER_LIFE, started_at)
        .map_err(ServeError::Leaf)?;
    let tls = ServerTls::new(
        leaf,
        &authority.bundle(),
        Arc::clone(&allow) as _,
        Arc::clone(&clock),
    )
    .map_err(ServeError::Tls)?;
    let tls = Arc::new(tls);

    spawn(&tracker, "reconcile", {
        let reconciler = Reconciler::new(ReconcilerParts {
            store: Arc::clone(&store),
            fleet: Arc::clone(&fleet),
            bus: Arc::clone(&bus),
            waker: waker.clone(),
            conditions: Arc::clone(&conditions),
            counts: Arc::clone(&counts),
            ingest: Arc::clone(&ingest),
            mutations: mutations.clone(),
            clock: Arc::clone(&clock),
        });
        reconciler.run(shutdown.clone())
    });
    let editor = Editor::new(
        Arc::clone(&store),
        Arc::clone(&bus),
        mutations,
        Arc::clone(&clock),
    );
    spawn(&tracker, "mutate.asked", {
        Asked::new(editor.clone()).run(shutdown.clone())
    });
    spawn(&tracker, "mutate", {
        Mutator::new(editor.clone(), waker.clone()).run(shutdown.clone())
    });
    if let Some(socket) = bus_socket {
        let serve = socket.serve(Arc::clone(&bus), Arc::clone(&clock), shutdown.clone());
        spawn(&tracker, "bus", serve);
    }
    spawn(
        &tracker,
        "fleet.flush",
        flush(Arc::clone(&fleet), shutdown.clone()),
    );
    spawn(
        &tracker,
        "host.states",
        watch_states(Arc::clone(&fleet), Arc::clone(&store), shutdown.clone()),
    );
    spawn(
        &tracker,
        "store.forget",
        forget::run(
            Arc::clone(&store),
            config.keep,
            Arc::clone(&clock),
            shutdown.clone(),
        ),
    );
    spawn(
        &tracker,
        "tls.renew",
        renew_leaf(
            Arc::clone(&tls),
            Arc::clone(&authority),
            advertised.names,
            Arc::clone(&clock),
            shutdown.clone(),
        ),
    );

    let rpc = Rpc {
        fleet: Arc::clone(&fleet),
        enroll: Arc::clone(&enroll),
        allow: Arc::clone(&allow),
        ingest: Arc::clone(&ingest),
        metrics: Arc::clone(&metrics),
        clock: Arc::clone(&clock),
        shutdown: shutdown.clone(),
    };
    let limits = AcceptLimits {
        handshake: Duration::from_secs(10),
        connections: 40_000,
        unauthenticated: 2_000,
    };
    let incoming = accept_loop(fleet_listener, tls, connections, limits, shutdown.clone());
    let grpc = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .max_concurrent_streams(Some(16))
        .add_service(rpc.clone().enrollment())
        .add_service(rpc.fleet())
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());

    let api = Api::new(ApiParts {
        store: Arc::clone(&store),
        fleet: Arc::clone(&fleet),
        enroll,
        ingest: Arc::clone(&ingest),
        bus: Arc::clone(&bus),
        waker,
        editor,
        conditions,
        counts,
        metrics,
        clock: Arc::clone(&clock),
        admin,
        operators,
        api_address,
        started_at,
        deploy_deadline: config.deploy_deadline,
    });
    let rest = http::serve(api_listener, api, shutdown.clone());

    write_endpoints(data, api_address, &advertised.url)?;
    tracing::info!(api = %api_address, fleet = %fleet_address, advertised = advertised.url, "master is up");

    let rest = task::spawn("http", tracing::Span::none(), rest);
    let mut grpc = task::spawn("rpc", tracing::Span::none(), grpc);
    let early = tokio::select! {
        () = shutdown.cancelled() => None,
        ended = &mut grpc => Some(ended),
    };
    shutdown.cancel();
    tracker.close();
    let finish = async {
        if early.is_none() {
            drop(grpc.await);
        }
        drop(rest.await);
        tracker.wait().await;
    };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        tracing::warn!("streams and requests that are still open are cut");
    }
    ingest.stop().await;
    if let Err(error) = fleet.flush().await {
        tracing::warn!(error = %Chain(&error), "when hosts were last heard could not be stored");
    }
    tracing::info!("master has stopped");
    match early {
        Some(Ok(Err(error))) => Err(ServeError::Fleet(error)),
        Some(Ok(Ok(())) | Err(_)) | None => Ok(()),
    }
}

/// The socket of the bus, unless there is to be none.
fn bind_bus(config: &Config) -> Result<Option<BusSocket>, ServeError> {
    let path = match &config.bus {
        BusPlace::Nowhere => return Ok(None),
        BusPlace::At(path) => return BusSocket::bind(path).map(Some).map_err(ServeError::Bus),
        BusPlace::InData => config.data_dir.join(socket::FILE),
    };
    match BusSocket::bind(&path) {
        Ok(socket) => Ok(Some(socket)),
        // Nobody has asked for it: everything else works without.
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "the bus is served to nobody");
            Ok(None)
        }
    }
}

/// Certificates of the master live this long, and are renewed at half of it.
const MASTER_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

fn spawn(
    tracker: &TaskTracker,
    name: &'static str,
    future: impl Future<Output = ()> + Send + 'static,
) {
    task::spawn(name, tracing::Span::none(), tracker.track_future(future));
}

/// Makes the data directory, closes it to others, and takes its lock.
fn prepare(path: &Path) -> Result<std::fs::File, ServeError> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
    let failed = |source| ServeError::DataDir {
        path: path.to_owned(),
        source,
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    let lock = std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join("master.lock"))
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(ServeError::Locked {
            path: path.to_owned(),
        }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

async fn listen(noun: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Listen {
            noun,
            address,
            source,
        })
}

fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    // getsockname of a listening socket has no way to fail; what was asked is right but for port 0.
    listener.local_addr().unwrap_or(asked)
}

/// What hosts dial, and the names for the certificate.
struct Advertised {
    url: String,
    names: Vec<MasterName>,
}

impl Advertised {
    fn new(text: Option<&str>, listening: SocketAddr) -> Result<Self, ServeError> {
        let (name, port) = match text {
            None => (outward(listening.ip()).to_string(), listening.port()),
            Some(text) => {
                let bad = || ServeError::Advertise {
                    text: text.to_owned(),
                };
                if let Ok(address) = text.parse::<SocketAddr>() {
                    (address.ip().to_string(), address.port())
                } else if text.parse::<IpAddr>().is_ok() {
                    (text.to_owned(), listening.port())
                } else if let Some((name, port)) = text.rsplit_once(':') {
                    (name.to_owned(), port.parse().map_err(|_| bad())?)
                } else {
                    (text.to_owned(), listening.port())
                }
            }
        };
        let bad = || ServeError::Advertise { text: name.clone() };
        let mut names: Vec<MasterName> = vec![name.parse().map_err(|_| bad())?];
        for also in ["localhost", "127.0.0.1"] {
            if also != name {
                names.push(also.parse().map_err(|_| bad())?);
            }
        }
        let host = if name.parse::<std::net::Ipv6Addr>().is_ok() {
            format!("[{name}]")
        } else {
            name
        };
        Ok(Self {
            url: format!("https://{host}:{port}"),
            names,
        })
    }
}

/// The address of this machine by which others reach it.
fn outward(listening: IpAddr) -> IpAddr {
    if !listening.is_unspecified() {
        return listening;
    }
    // Nothing is sent: connecting a datagram socket only picks the route (TEST-NET-1, RFC 5737).
    UdpSocket::bind("0.0.0.0:0")
        .and_then(|socket| {
            socket
                .connect("192.0.2.1:9")
                .and_then(|()| socket.local_addr())
        })
        .map_or(IpAddr::from([127, 0, 0, 1]), |address| address.ip())
}

fn write_endpoints(data: &Path, api: SocketAddr, fleet_url: &str) -> Result<(), ServeError> {
    let text = serde_json::json!({ "api": format!("http://{api}"), "fleet": fleet_url });
    let text = format!("{text}\n");
    write_public(&data.join("endpoints.json"), text.as_bytes()).map_err(ServeError::Endpoints)
}

async fn flush(fleet: Arc<Fleet>, shutdown: CancellationToken) {
    let mut every = tokio::time::interval(FLUSH);
    every.tick().await;
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = shutdown.cancelled() => return,
        }
        if let Err(error) = fleet.flush().await {
            tracing::warn!(error = %Chain(&error), "when hosts were last heard could not be stored");
        }
        if let Err(error) = fleet.reload_allow_list().await {
            tracing::warn!(error = %Chain(&error), "who may connect could not be read");
        }
    }
}

/// Tells changes of host states that nothing but the passing of time brings about.
async fn watch_states(fleet: Arc<Fleet>, store: Arc<dyn Store>, shutdown: CancellationToken) {
    let mut every = tokio::time::interval(fleet.period().max(Duration::from_millis(500)));
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = shutdown.cancelled() => return,
        }
        match store.hosts(false).await {
            Ok(rows) => fleet.announce(&rows),
            Err(error) => tracing::debug!(error = %Chain(&error), "hosts could not be read"),
        }
    }
}

async fn renew_leaf(
    tls: Arc<ServerTls>,
    authority: Arc<CertificateAuthority>,
    names: Vec<MasterName>,
    clock: Clock,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(MASTER_LIFE / 2) => {}
            () = shutdown.cancelled() => return,
        }
        let renewed = authority
            .issue_master(&names, MASTER_LIFE, clock())
            .map_err(ServeError::Leaf)
            .and_then(|leaf| tls.swap(leaf, &authority.bundle()).map_err(ServeError::Tls));
        match renewed {
            Ok(()) => tracing::info!("master certificate renewed"),
            Err(error) => {
                tracing::error!(error = %Chain(&error), "master certificate could not be renewed");
            }
        }
    }
}

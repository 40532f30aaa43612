//! A master that says exactly what a test tells it to, with the fleet's own CA and on the fleet's
//! own address: for messages that a sound master never sends, or sent long ago.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use domain::id::HostId;
use futures_util::stream::BoxStream;
use pki::acceptor::{AcceptLimits, AllowList, Connections, ServerTls, Standing, accept_loop};
use pki::ca::{CertificateAuthority, MasterName};
use pki::fingerprint::KeyFingerprint;
use proto::v1;
use proto::v1::fleet_server::{Fleet, FleetServer};
use time::OffsetDateTime;
use tokio::sync::broadcast;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

struct Everybody;

impl AllowList for Everybody {
    fn standing(&self, _: HostId, _: &KeyFingerprint) -> Standing {
        Standing::Allowed
    }
}

/// A running scripted master.
pub struct ScriptedMaster {
    reports: mpsc::Receiver<v1::Report>,
    orders: broadcast::Sender<v1::MasterMessage>,
    shutdown: CancellationToken,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

#[derive(Clone)]
struct Script {
    reports: mpsc::Sender<v1::Report>,
    orders: broadcast::Sender<v1::MasterMessage>,
}

#[tonic::async_trait]
impl Fleet for Script {
    type ControlStream = BoxStream<'static, Result<v1::MasterMessage, Status>>;
    type EventsStream = BoxStream<'static, Result<v1::EventReceipt, Status>>;

    async fn renew(
        &self,
        _: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewReply>, Status> {
        Err(Status::unavailable("not in this play"))
    }

    async fn control(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let reports = self.reports.clone();
        // Listens for as long as the host speaks; says nothing itself.
        let heard = request.into_inner().filter_map(move |message| {
            let report = match message.ok()?.body? {
                v1::agent_message::Body::Report(report) => Some(report),
                v1::agent_message::Body::Hello(hello) => hello.report,
                v1::agent_message::Body::Heartbeat(_)
                | v1::agent_message::Body::Progress(_)
                | v1::agent_message::Body::Usage(_) => None,
            };
            // The test may have ended.
            reports.send(report?).ok();
            None
        });
        let welcome = v1::MasterMessage {
            body: Some(v1::master_message::Body::Welcome(v1::Welcome {
                floor: Some(v1::Fence {
                    epoch: 0,
                    generation: 0,
                }),
                heartbeat_ms: 500,
                reconnect_spread_ms: 0,
                master_time: OffsetDateTime::now_utc().unix_timestamp(),
            })),
        };
        let orders =
            BroadcastStream::new(self.orders.subscribe()).filter_map(|order| order.ok().map(Ok));
        let script = tokio_stream::once(Ok(welcome)).chain(orders);
        Ok(Response::new(Box::pin(futures_util::stream::select(
            script, heard,
        ))))
    }

    async fn events(
        &self,
        request: Request<Streaming<v1::EventBatch>>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        // Takes nothing: evidence waits for the real master.
        let silence = request.into_inner().filter_map(|_| None);
        Ok(Response::new(Box::pin(silence)))
    }
}

impl ScriptedMaster {
    /// Serves hosts on `address` with the CA of a master's data directory.
    pub fn start(data: &Path, address: &str) -> Result<Self> {
        let now = OffsetDateTime::now_utc();
        let authority = CertificateAuthority::load_or_create(data, now)?;
        let name: MasterName = "localhost".parse()?;
        let leaf = authority.issue_master(&[name], Duration::from_secs(3600), now)?;
        let clock: pki::clock::Clock = Arc::new(OffsetDateTime::now_utc);
        let tls = ServerTls::new(leaf, &authority.bundle(), Arc::new(Everybody), clock)?;
        let (reports, received) = mpsc::channel();
        let (orders, _) = broadcast::channel(16);
        let script = Script {
            reports,
            orders: orders.clone(),
        };
        let shutdown = CancellationToken::new();
        let (until, address) = (shutdown.clone(), address.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind(&address)
                    .await
                    .context(address)?;
                let limits = AcceptLimits {
                    handshake: Duration::from_secs(5),
                    connections: 64,
                    unauthenticated: 64,
                };
                let incoming = accept_loop(
                    listener,
                    Arc::new(tls),
                    Connections::new(),
                    limits,
                    until.clone(),
                );
                let serving = tonic::transport::Server::builder()
                    .add_service(FleetServer::new(script))
                    .serve_with_incoming(incoming);
                // Not gracefully: a host keeps its streams open for ever.
                tokio::select! {
                    served = serving => served?,
                    () = until.cancelled() => {}
                }
                Ok(())
            })
        });
        Ok(Self {
            reports: received,
            orders,
            shutdown,
            thread: Some(thread),
        })
    }

    /// Says something to every host that is connected; at least one must be.
    pub fn say(&self, body: v1::master_message::Body) -> Result<()> {
        if self
            .orders
            .send(v1::MasterMessage { body: Some(body) })
            .is_err()
        {
            bail!("no host is connected");
        }
        Ok(())
    }

    /// The next report for which a rule holds.
    pub fn await_report(
        &self,
        what: &str,
        rule: impl Fn(&v1::Report) -> bool,
    ) -> Result<v1::Report> {
        let end = std::time::Instant::now() + Duration::from_secs(90);
        let mut last = None;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(report) if rule(&report) => return Ok(report),
                Ok(report) => last = Some(report),
                Err(_) => bail!("{what}: no such report; the last was {last:?}"),
            }
        }
    }

    /// Leaves the stage.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.shutdown.cancel();
        match self.thread.take().map(std::thread::JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => bail!("the scripted master panicked"),
            None => Ok(()),
        }
    }
}

impl Drop for ScriptedMaster {
    fn drop(&mut self) {
        self.end().ok();
    }
}

//! What agents call: enrollment, the control stream, the event stream, renewal.
//!
//! Who calls is read from the verified TLS session; an id in a message is never believed. The
//! allow-list is asked again at every stream and every message.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::assign::HostReport;
use domain::id::{DeckyId, SpoolId, TokenId, TopologyId};
use futures_util::{Stream, StreamExt as _};
use pki::acceptor::{AllowList as _, HostPeer, PeerInfo, Standing as Verdict};
use pki::token::Secret;
use proto::convert::{self, InvalidMessage};
use proto::v1;
use proto::v1::enrollment_server::{Enrollment, EnrollmentServer};
use proto::v1::fleet_server::{Fleet as FleetRpc, FleetServer};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::Span;

use crate::allow::AllowTable;
use crate::chain::Chain;
use crate::clock::Clock;
use crate::enroll::{Enroll, Join, JoinError};
use crate::fleet::{Fleet, Health, Order, Session};
use crate::metrics::Metrics;
use crate::pipeline::{Ingest, IngestError, Spooled};
use crate::task;

/// Largest message that an agent may send.
const MAX_MESSAGE: usize = 8 * 1024 * 1024;
/// Largest message that a stranger may send.
const MAX_STRANGER_MESSAGE: usize = 64 * 1024;
/// How long an agent may take to say hello.
const HELLO: Duration = Duration::from_secs(10);

/// The services of the fleet port.
#[derive(Clone)]
pub struct Rpc {
    /// Who is connected.
    pub fleet: Arc<Fleet>,
    /// Who may join.
    pub enroll: Arc<Enroll>,
    /// Who may connect.
    pub allow: Arc<AllowTable>,
    /// Where evidence goes.
    pub ingest: Arc<Ingest>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
    /// Ends every stream.
    pub shutdown: CancellationToken,
}

fn malformed(error: &InvalidMessage) -> Status {
    Status::invalid_argument(error.to_string())
}

fn join_status(error: &JoinError) -> Status {
    match error {
        JoinError::Refused => Status::permission_denied(error.to_string()),
        JoinError::NotAllowed => Status::permission_denied("host is not allowed"),
        JoinError::TooMany => Status::resource_exhausted(error.to_string()),
        JoinError::Request(_) => Status::invalid_argument(Chain(error).to_string()),
        JoinError::Store(_) => {
            tracing::error!(error = %Chain(error), "enrollment failed");
            Status::unavailable("the master cannot store it; try again")
        }
    }
}

impl Rpc {
    /// What strangers may call.
    pub fn enrollment(self) -> EnrollmentServer<Self> {
        EnrollmentServer::new(self).max_decoding_message_size(MAX_STRANGER_MESSAGE)
    }

    /// What hosts may call.
    pub fn fleet(self) -> FleetServer<Self> {
        FleetServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }

    /// The host that calls, with a certificate that is good for more than renewal.
    fn peer<T>(&self, request: &Request<T>) -> Result<HostPeer, Status> {
        let peer = Self::any_peer(request)?;
        if peer.expired {
            return Err(Status::unauthenticated("certificate expired: renew it"));
        }
        self.admit(&peer)?;
        Ok(peer)
    }

    /// The host that calls, even with an expired certificate.
    fn any_peer<T>(request: &Request<T>) -> Result<HostPeer, Status> {
        request
            .extensions()
            .get::<PeerInfo>()
            .and_then(|peer| peer.host.clone())
            .ok_or_else(|| Status::unauthenticated("a host certificate is required"))
    }

    fn admit(&self, peer: &HostPeer) -> Result<(), Status> {
        match self.allow.standing(peer.id, &peer.key) {
            Verdict::Allowed | Verdict::Removed => Ok(()),
            Verdict::Refused => Err(Status::permission_denied("host is not allowed")),
        }
    }
}

#[tonic::async_trait]
impl Enrollment for Rpc {
    #[tracing::instrument(name = "host.enroll", skip_all)]
    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinReply>, Status> {
        let from = request
            .extensions()
            .get::<PeerInfo>()
            .map(|peer| peer.address.ip())
            .ok_or_else(|| Status::internal("connection without a peer"))?;
        let wire = request.into_inner();
        let token = convert::uuid(&wire.token_id, "token_id").map_err(|it| malformed(&it))?;
        let secret = Secret::from_slice(&wire.token_secret)
            .ok_or_else(|| malformed(&convert::invalid("token_secret")))?;
        let join = Join {
            token: TokenId::new(token),
            secret: &secret,
            csr: &wire.csr,
            expected_name: &wire.name,
            agent_version: &wire.agent_version,
        };
        let issued = self
            .enroll
            .join(from, join)
            .await
            .map_err(|error| join_status(&error))?;
        Ok(Response::new(v1::JoinReply {
            certificate: issued.certificate,
            ca: issued.ca,
            host_name: issued.name,
            master_time: issued.now.unix_timestamp(),
        }))
    }
}

type ReplyStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl FleetRpc for Rpc {
    #[tracing::instrument(name = "host.renew", skip_all, fields(host.id = tracing::field::Empty))]
    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewReply>, Status> {
        let peer = Self::any_peer(&request)?;
        self.admit(&peer)?;
        Span::current().record("host.id", tracing::field::display(peer.id));
        let csr = request.into_inner().csr;
        let issued = self
            .enroll
            .renew(&peer, &csr)
            .await
            .map_err(|error| join_status(&error))?;
        Ok(Response::new(v1::RenewReply {
            certificate: issued.certificate,
            ca: issued.ca,
            master_time: issued.now.unix_timestamp(),
        }))
    }

    type ControlStream = ReplyStream<v1::MasterMessage>;

    async fn control(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let peer = self.peer(&request)?;
        let inbound = request.into_inner();
        let (replies, outbound) = mpsc::channel(16);
        let rpc = self.clone();
        let span = tracing::info_span!("host.control", host.id = %peer.id);
        task::spawn("host.control", span, async move {
            let ended = rpc.converse(&peer, inbound, &replies).await;
            if let Err(status) = ended {
                tracing::debug!(code = ?status.code(), cause = status.message(), "control stream ended");
                drop(replies.send(Box::new(Err(status))).await);
            }
        });
        Ok(Response::new(Box::pin(
            ReceiverStream::new(outbound).map(|reply| *reply),
        )))
    }

    type EventsStream = ReplyStream<v1::EventReceipt>;

    async fn events(
        &self,
        request: Request<Streaming<v1::EventBatch>>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let peer = self.peer(&request)?;
        let inbound = request.into_inner();
        let (receipts, outbound) = mpsc::channel(16);
        let rpc = self.clone();
        // A span for each batch instead of one for the stream: most streams are quiet for days.
        task::spawn("host.events", tracing::Span::none(), async move {
            if let Err(status) = rpc.listen(&peer, inbound, &receipts).await {
                tracing::debug!(host.id = %peer.id, code = ?status.code(), cause = status.message(), "event stream ended");
                drop(receipts.send(Box::new(Err(status))).await);
            }
        });
        Ok(Response::new(Box::pin(
            ReceiverStream::new(outbound).map(|reply| *reply),
        )))
    }
}

/// Boxed, because a channel sets aside room for 32 of them, and every host has one.
type Replies = mpsc::Sender<Box<Result<v1::MasterMessage, Status>>>;
type Receipts = mpsc::Sender<Box<Result<v1::EventReceipt, Status>>>;

impl Rpc {
    async fn converse(
        &self,
        peer: &HostPeer,
        mut inbound: Streaming<v1::AgentMessage>,
        replies: &Replies,
    ) -> Result<(), Status> {
        // Boxed: what the first message takes room for is given back, instead of being held by a
        // thousand connections for as long as they last.
        let mut session = Box::pin(self.greet(peer, &mut inbound, replies)).await?;
        tracing::info!("host connected");
        let ended = self.serve(peer, &mut inbound, replies, &mut session).await;
        tracing::info!("host disconnected");
        ended
    }

    async fn greet(
        &self,
        peer: &HostPeer,
        inbound: &mut Streaming<v1::AgentMessage>,
        replies: &Replies,
    ) -> Result<Session, Status> {
        let first = tokio::time::timeout(HELLO, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello in ten seconds"))??;
        let Some(v1::agent_message::Body::Hello(hello)) = first.and_then(|it| it.body) else {
            return Err(Status::invalid_argument(
                "the first message must be a hello",
            ));
        };
        let row = hello
            .report
            .ok_or_else(|| malformed(&convert::invalid("hello.report")))?;
        let row = HostReport::try_from(row).map_err(|it| malformed(&it))?;
        let now = (self.clock)();
        let skew = hello.agent_time.saturating_sub(convert::millis(Some(now)));
        let floor = self.fleet.floor(peer.id).await.map_err(|error| {
            tracing::error!(error = %Chain(&error), "fence of the host could not be read");
            Status::unavailable("the master cannot read its store; try again")
        })?;
        let period = u32::try_from(self.fleet.period().as_millis()).unwrap_or(u32::MAX);
        let welcome = v1::Welcome {
            floor: Some(floor.into()),
            heartbeat_ms: period,
            reconnect_spread_ms: self.fleet.reconnect_spread_ms(),
            master_time: now.unix_timestamp(),
        };
        send(replies, v1::master_message::Body::Welcome(welcome)).await?;
        Ok(self
            .fleet
            .register(peer.id, &hello.agent_version, skew, row))
    }

    async fn serve(
        &self,
        peer: &HostPeer,
        inbound: &mut Streaming<v1::AgentMessage>,
        replies: &Replies,
        session: &mut Session,
    ) -> Result<(), Status> {
        // An agent that misses this many heartbeats has a dead connection, whatever TCP says.
        let patience = self.fleet.period() * 6;
        loop {
            tokio::select! {
                message = tokio::time::timeout(patience, inbound.message()) => {
                    let message = message
                        .map_err(|_| Status::deadline_exceeded("no heartbeat"))??;
                    let Some(message) = message else { return Ok(()) };
                    self.admit(peer)?;
                    self.take(peer, message)?;
                }
                order = session.orders.recv() => {
                    let Some(order) = order else { return Ok(()) };
                    Box::pin(send(replies, order_to_wire(*order))).await?;
                }
                () = session.superseded.cancelled() => {
                    return Err(Status::aborted("a newer connection of this host took over"));
                }
                () = self.shutdown.cancelled() => {
                    return Err(Status::unavailable("the master is stopping"));
                }
            }
        }
    }

    fn take(&self, peer: &HostPeer, message: v1::AgentMessage) -> Result<(), Status> {
        match message.body {
            Some(v1::agent_message::Body::Heartbeat(beat)) => {
                let fence =
                    convert::fence(beat.fence, "heartbeat.fence").map_err(|it| malformed(&it))?;
                let health = beat.health.unwrap_or_default();
                let health = Health {
                    engine_ok: health.engine_ok,
                    collect_ok: health.collect_ok,
                    spool_ok: health.spool_ok,
                    disk_free_mib: health.disk_free_mib,
                    memory_free_mib: health.memory_free_mib,
                    spool_events: health.spool_events,
                };
                self.fleet
                    .heartbeat(peer.id, fence, beat.observed_digest, beat.in_flight, health);
            }
            Some(v1::agent_message::Body::Report(wire)) => {
                let digest = convert::observed_digest(&wire);
                let report = HostReport::try_from(wire).map_err(|it| malformed(&it))?;
                self.fleet.reported(peer.id, report, digest);
            }
            Some(v1::agent_message::Body::Progress(progress)) => {
                let fence = convert::fence(progress.fence, "progress.fence")
                    .map_err(|it| malformed(&it))?;
                self.fleet
                    .progressed(peer.id, fence, progress.done, progress.total);
            }
            Some(v1::agent_message::Body::Usage(wire)) => {
                let usage = convert::usages(wire).map_err(|it| malformed(&it))?;
                self.fleet.measured(peer.id, usage);
            }
            Some(v1::agent_message::Body::Hello(_)) => {
                return Err(Status::invalid_argument("hello was said before"));
            }
            // A newer agent may say more than this master knows.
            None => {}
        }
        Ok(())
    }

    async fn listen(
        &self,
        peer: &HostPeer,
        mut inbound: Streaming<v1::EventBatch>,
        receipts: &Receipts,
    ) -> Result<(), Status> {
        loop {
            let batch = tokio::select! {
                batch = inbound.message() => batch?,
                () = self.shutdown.cancelled() => {
                    return Err(Status::unavailable("the master is stopping"));
                }
            };
            let Some(batch) = batch else { return Ok(()) };
            // Boxed, as in `converse`: a quiet host holds no room for a batch.
            let receipt = Box::pin(self.store_batch(peer, batch)).await?;
            if receipts.send(Box::new(Ok(receipt))).await.is_err() {
                return Ok(());
            }
        }
    }

    #[tracing::instrument(name = "host.events", skip_all, fields(host.id = %peer.id))]
    async fn store_batch(
        &self,
        peer: &HostPeer,
        batch: v1::EventBatch,
    ) -> Result<v1::EventReceipt, Status> {
        if !self.allow.is_heard(peer.id, &peer.key) {
            return Err(Status::permission_denied(
                "events of this host are not taken",
            ));
        }
        let spool =
            SpoolId::new(convert::uuid(&batch.spool_id, "spool_id").map_err(|it| malformed(&it))?);
        let events = batch
            .events
            .into_iter()
            .map(spooled)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|it| malformed(&it))?;
        let receipt = self
            .ingest
            .ingest(peer.id, spool, events)
            .await
            .map_err(|error| {
                let text = Chain(&error).to_string();
                match error {
                    IngestError::TooLarge { .. }
                    | IngestError::Order { .. }
                    | IngestError::Foreign => Status::invalid_argument(text),
                    IngestError::Store { .. } | IngestError::Stopped => Status::unavailable(text),
                }
            })?;
        crate::crash::point("events.committed");
        self.metrics.events_stored_total.add(receipt.stored);
        self.metrics.events_refused_total.add(receipt.refused);
        Ok(v1::EventReceipt {
            spool_id: spool.uuid().as_bytes().to_vec(),
            through: receipt.through,
            refused: u32::try_from(receipt.refused).unwrap_or(u32::MAX),
        })
    }
}

fn spooled(wire: v1::SpooledEvent) -> Result<Spooled, InvalidMessage> {
    let collected_at =
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(wire.collected_at) * 1000)
            .map_err(|_| convert::invalid("collected_at"))?;
    Ok(Spooled {
        sequence: wire.sequence,
        topology: TopologyId::new(convert::uuid(&wire.topology_id, "topology_id")?),
        decky: DeckyId::new(convert::uuid(&wire.decky_id, "decky_id")?),
        collected_at,
        line: wire.line,
    })
}

fn order_to_wire(order: Order) -> v1::master_message::Body {
    match order {
        Order::Report => v1::master_message::Body::ReportWanted(v1::ReportWanted {}),
        Order::Assign { fence, content } => {
            let (topology_id, version_hash, hydrated) = match content {
                None => (Vec::new(), Vec::new(), Bytes::new()),
                Some(content) => (
                    content.topology.uuid().as_bytes().to_vec(),
                    content.hash.bytes().to_vec(),
                    content.document,
                ),
            };
            v1::master_message::Body::Assign(v1::Assign {
                fence: Some(fence.into()),
                topology_id,
                version_hash,
                hydrated,
            })
        }
    }
}

async fn send(replies: &Replies, body: v1::master_message::Body) -> Result<(), Status> {
    replies
        .send(Box::new(Ok(v1::MasterMessage { body: Some(body) })))
        .await
        .map_err(|_| Status::cancelled("the agent has gone"))
}

//! A master for tests: real TLS, real gRPC, and streams that the test itself speaks on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::id::{HostId, TokenId};
use domain::name::HostName;
use futures_util::Stream;
use pki::acceptor::{
    AcceptLimits, AllowList, Connections, HostPeer, PeerInfo, ServerTls, Standing, accept_loop,
};
use pki::ca::CertificateAuthority;
use pki::clock::Clock;
use pki::connector::MasterAddress;
use pki::csr::HostKey;
use pki::fingerprint::KeyFingerprint;
use pki::identity::files::{HostIdentity, IdentityFiles};
use pki::token::JoinToken;
use proto::v1;
use proto::v1::enrollment_server::{Enrollment, EnrollmentServer};
use proto::v1::fleet_server::{Fleet, FleetServer};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use crate::identity::{Credentials, Membership};
use crate::task;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn host() -> HostId {
    HostId::new(Uuid::from_u128(42))
}

pub(crate) fn now() -> OffsetDateTime {
    #[allow(
        clippy::disallowed_methods,
        reason = "certificates are checked against the real clock"
    )]
    OffsetDateTime::now_utc()
}

pub(crate) fn clock() -> Clock {
    Arc::new(now)
}

/// What the master does with a join request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Certificate,
    /// The request did its work, and the reply is lost.
    Lost,
    Refused,
}

/// A stream that an agent has opened.
pub(crate) struct Opened<In, Out> {
    pub(crate) peer: PeerInfo,
    inbound: Streaming<In>,
    outbound: mpsc::Sender<Result<Out, Status>>,
}

impl<In, Out> Opened<In, Out> {
    /// What the agent says next; none when it has ended the stream.
    pub(crate) async fn hear(&mut self) -> Option<In> {
        within("a message", self.inbound.message())
            .await
            .unwrap_or(None)
    }

    pub(crate) async fn say(&self, message: Out) {
        self.outbound
            .send(Ok(message))
            .await
            .expect("the agent listens");
    }

    pub(crate) async fn end(&self, status: Status) {
        self.outbound
            .send(Err(status))
            .await
            .expect("the agent listens");
    }

    pub(crate) fn host(&self) -> &HostPeer {
        self.peer.host.as_ref().expect("with a certificate")
    }

    /// Waits for the end of the stream, whatever comes before it.
    pub(crate) async fn ended(&mut self) {
        while self.hear().await.is_some() {}
    }
}

pub(crate) type Control = Opened<v1::AgentMessage, v1::MasterMessage>;
pub(crate) type Bulk = Opened<v1::EventBatch, v1::EventReceipt>;

#[derive(Default)]
struct Book {
    answers: VecDeque<Answer>,
    joins: Vec<v1::JoinRequest>,
    renewals: usize,
    standing: Option<Standing>,
}

struct Inner {
    ca: CertificateAuthority,
    book: Mutex<Book>,
    controls: mpsc::UnboundedSender<Control>,
    bulks: mpsc::UnboundedSender<Bulk>,
}

impl Inner {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issue(&self, csr: &[u8]) -> Vec<u8> {
        self.ca
            .issue_host(csr, host(), DAY, now())
            .expect("a sound request")
            .certificate_der
    }
}

impl AllowList for Inner {
    fn standing(&self, _: HostId, _: &KeyFingerprint) -> Standing {
        self.book().standing.unwrap_or(Standing::Allowed)
    }
}

struct Service(Arc<Inner>);

#[tonic::async_trait]
impl Enrollment for Service {
    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinReply>, Status> {
        let request = request.into_inner();
        let answer = {
            let mut book = self.0.book();
            book.joins.push(request.clone());
            book.answers.pop_front().unwrap_or(Answer::Certificate)
        };
        match answer {
            Answer::Certificate => Ok(Response::new(v1::JoinReply {
                certificate: self.0.issue(&request.csr),
                ca: self.0.ca.bundle().der_list(),
                host_name: "edge-07".to_owned(),
                master_time: now().unix_timestamp(),
            })),
            Answer::Lost => Err(Status::unavailable("the reply is lost")),
            Answer::Refused => Err(Status::unauthenticated("token not accepted")),
        }
    }
}

fn peer<T>(request: &Request<T>) -> PeerInfo {
    request
        .extensions()
        .get::<PeerInfo>()
        .cloned()
        .expect("our acceptor")
}

#[tonic::async_trait]
impl Fleet for Service {
    type ControlStream =
        Pin<Box<dyn Stream<Item = Result<v1::MasterMessage, Status>> + Send + 'static>>;
    type EventsStream =
        Pin<Box<dyn Stream<Item = Result<v1::EventReceipt, Status>> + Send + 'static>>;

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewReply>, Status> {
        self.0.book().renewals += 1;
        Ok(Response::new(v1::RenewReply {
            certificate: self.0.issue(&request.into_inner().csr),
            ca: self.0.ca.bundle().der_list(),
            master_time: now().unix_timestamp(),
        }))
    }

    async fn control(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let peer = peer(&request);
        if peer.host.as_ref().is_none_or(|host| host.expired) {
            return Err(Status::permission_denied("renew first"));
        }
        let (outbound, messages) = mpsc::channel(16);
        let inbound = request.into_inner();
        // A test that has ended hears nothing more.
        drop(self.0.controls.send(Opened {
            peer,
            inbound,
            outbound,
        }));
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn events(
        &self,
        request: Request<Streaming<v1::EventBatch>>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let peer = peer(&request);
        let (outbound, messages) = mpsc::channel(16);
        let inbound = request.into_inner();
        drop(self.0.bulks.send(Opened {
            peer,
            inbound,
            outbound,
        }));
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

/// The master. Everything of it ends with this value.
pub(crate) struct Master {
    pub(crate) address: MasterAddress,
    inner: Arc<Inner>,
    connections: Arc<Connections>,
    controls: mpsc::UnboundedReceiver<Control>,
    bulks: mpsc::UnboundedReceiver<Bulk>,
    shutdown: CancellationToken,
}

impl Drop for Master {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Master {
    pub(crate) async fn start() -> Self {
        let (controls_in, controls) = mpsc::unbounded_channel();
        let (bulks_in, bulks) = mpsc::unbounded_channel();
        let ca = CertificateAuthority::create(now()).expect("randomness");
        let leaf = ca.issue_master(&[], DAY, now()).expect("no names");
        let bundle = ca.bundle();
        let inner = Arc::new(Inner {
            ca,
            book: Mutex::default(),
            controls: controls_in,
            bulks: bulks_in,
        });
        let allow = Arc::clone(&inner) as Arc<dyn AllowList>;
        let tls = Arc::new(ServerTls::new(leaf, &bundle, allow, clock()).expect("own CA"));
        let connections = Connections::new();
        let shutdown = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        let limits = AcceptLimits {
            handshake: Duration::from_secs(10),
            connections: 64,
            unauthenticated: 32,
        };
        let incoming = accept_loop(
            listener,
            tls,
            Arc::clone(&connections),
            limits,
            shutdown.clone(),
        );
        let serve = tonic::transport::Server::builder()
            .add_service(EnrollmentServer::new(Service(Arc::clone(&inner))))
            .add_service(FleetServer::new(Service(Arc::clone(&inner))))
            .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
        task::spawn("master", tracing::Span::none(), async move {
            serve.await.expect("a listening master");
        });
        Self {
            address: address.parse().expect("a socket address"),
            inner,
            connections,
            controls,
            bulks,
            shutdown,
        }
    }

    /// A token of this master.
    pub(crate) fn token(&self, number: u128) -> JoinToken {
        let id = TokenId::new(Uuid::from_u128(number));
        JoinToken::mint(id, rand::random(), self.inner.ca.pin())
    }

    /// What it answers to the joins to come, in turn; afterwards with certificates.
    pub(crate) fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.inner.book().answers.extend(answers);
    }

    pub(crate) fn joins(&self) -> Vec<v1::JoinRequest> {
        self.inner.book().joins.clone()
    }

    pub(crate) fn renewals(&self) -> usize {
        self.inner.book().renewals
    }

    /// Lets no host in any more, and cuts off those that are.
    pub(crate) fn revoke(&self) {
        self.inner.book().standing = Some(Standing::Refused);
        self.connections.cut(host());
    }

    /// The next control stream.
    pub(crate) async fn control(&mut self) -> Control {
        within("a control stream", self.controls.recv())
            .await
            .expect("the master runs")
    }

    /// The next control stream, welcomed after its hello.
    pub(crate) async fn welcomed(&mut self, heartbeat_ms: u32) -> Control {
        let mut control = self.control().await;
        let hello = control.hear().await.expect("a hello").body;
        assert!(
            matches!(hello, Some(v1::agent_message::Body::Hello(_))),
            "{hello:?}"
        );
        control.say(welcome(heartbeat_ms)).await;
        control
    }

    /// The next evidence stream.
    pub(crate) async fn bulk(&mut self) -> Bulk {
        within("an evidence stream", self.bulks.recv())
            .await
            .expect("the master runs")
    }

    pub(crate) fn has_no_stream(&mut self) -> bool {
        self.controls.try_recv().is_err() && self.bulks.try_recv().is_err()
    }

    /// The credentials of a host that joined at `joined`, for `life`.
    pub(crate) fn credentials(
        &self,
        directory: &std::path::Path,
        joined: OffsetDateTime,
        life: Duration,
    ) -> Arc<Credentials> {
        let key = HostKey::generate().expect("randomness");
        let csr = key.csr_der().expect("own key");
        let leaf = self
            .inner
            .ca
            .issue_host(&csr, host(), life, joined)
            .expect("own request");
        let bundle = self.inner.ca.bundle();
        let identity = HostIdentity::new(key, leaf.certificate_der, bundle).expect("own key");
        let membership = Membership {
            masters: vec![self.address.clone()],
            host: HostName::parse("edge-07").expect("a name"),
            skew: time::Duration::ZERO,
            token: TokenId::new(Uuid::from_u128(1)),
        };
        IdentityFiles::new(directory)
            .save(&identity)
            .expect("writable");
        membership.save(directory).expect("writable");
        Arc::new(Credentials::new(directory, clock(), identity, membership))
    }
}

pub(crate) fn welcome(heartbeat_ms: u32) -> v1::MasterMessage {
    v1::MasterMessage {
        body: Some(v1::master_message::Body::Welcome(v1::Welcome {
            floor: Some(v1::Fence {
                epoch: 3,
                generation: 4,
            }),
            heartbeat_ms,
            reconnect_spread_ms: 0,
            master_time: now().unix_timestamp(),
        })),
    }
}

/// Waits, but not for ever.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(10), future).await {
        Ok(output) => output,
        Err(_) => panic!("never came: {what}"),
    }
}

//! The accept loop: from a listening socket to connections whose peers are known.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{Stream, unfold};
use socket2::{SockRef, TcpKeepalive};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::connection::Permits;
use super::{Connection, Connections, HostPeer, PeerInfo, ServerTls, Standing, UNPROVEN_LIFE};
use crate::identity::{InvalidPeer, PeerCertificate, Role};

/// How much the port takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptLimits {
    /// How long a handshake may take.
    pub handshake: Duration,
    /// How many connections may be live, handshakes included. Above it, new ones are closed.
    pub connections: usize,
    /// How many of those may be without a valid certificate, handshakes included: so many and no
    /// more places can strangers take from hosts.
    pub unauthenticated: usize,
}

/// Accepts connections until `shutdown`. The stream drives everything, the handshakes included:
/// dropping it closes the port and abandons them. It never yields an error: what is wrong with one
/// peer is no one else's business, and a port without file descriptors backs off and goes on.
pub fn accept_loop(
    listener: TcpListener,
    tls: Arc<ServerTls>,
    connections: Arc<Connections>,
    limits: AcceptLimits,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> + Send + 'static {
    let acceptor = Acceptor::new(listener, tls, connections, limits, shutdown);
    unfold(acceptor, |mut acceptor| async move {
        let connection = acceptor.next().await?;
        Some((Ok(connection), acceptor))
    })
}

struct Acceptor {
    listener: TcpListener,
    tls: Arc<ServerTls>,
    connections: Arc<Connections>,
    handshake: Duration,
    places: Arc<Semaphore>,
    unproven: Arc<Semaphore>,
    handshakes: JoinSet<Option<Connection>>,
    backoff: Option<Backoff>,
    full: Seldom,
    failing: Seldom,
    shutdown: CancellationToken,
}

/// Lets one warning through a minute: strangers must not be able to write our log for us.
#[derive(Default)]
struct Seldom {
    last: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Backoff {
    pause: Duration,
    until: Instant,
}

/// Why a peer did not become a connection. Only ever a debug line: on an open port it is weather.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("no TLS hello")]
    Hello(#[source] io::Error),
    #[error("TLS failed")]
    Tls(#[source] io::Error),
    #[error("the certificate is unusable")]
    Certificate(#[source] InvalidPeer),
    #[error("the certificate is not for a host")]
    NotHost,
    #[error("the host is refused")]
    Refused,
}

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long a refused peer is given to read why.
const LINGER: Duration = Duration::from_secs(1);

impl Acceptor {
    fn new(
        listener: TcpListener,
        tls: Arc<ServerTls>,
        connections: Arc<Connections>,
        limits: AcceptLimits,
        shutdown: CancellationToken,
    ) -> Self {
        let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self {
            listener,
            tls,
            connections,
            handshake: limits.handshake,
            places: places(limits.connections),
            unproven: places(limits.unauthenticated),
            handshakes: JoinSet::new(),
            backoff: None,
            full: Seldom::default(),
            failing: Seldom::default(),
            shutdown,
        }
    }

    async fn next(&mut self) -> Option<Connection> {
        loop {
            let paused = self.backoff.map(|backoff| backoff.until);
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                Some(done) = self.handshakes.join_next() => {
                    // Err is a panic or an abort of one handshake: that peer is gone, no other.
                    if let Ok(Some(connection)) = done {
                        return Some(connection);
                    }
                }
                () = sleep_until(paused.unwrap_or_else(Instant::now)), if paused.is_some() => {
                    // The pause is kept, so that the next failure doubles it.
                    if let Some(backoff) = &mut self.backoff {
                        backoff.until = Instant::now();
                    }
                    self.accept_one_ready().await;
                }
                accepted = self.listener.accept(), if paused.is_none() => self.accepted(accepted),
            }
        }
    }

    /// After a pause: one attempt, which ends the back-off or doubles it.
    async fn accept_one_ready(&mut self) {
        // A pending accept would hold up the handshakes; without a peer waiting, the port is well.
        match timeout(Duration::ZERO, self.listener.accept()).await {
            Ok(accepted) => self.accepted(accepted),
            Err(_) => self.backoff = None,
        }
    }

    fn accepted(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((tcp, address)) => {
                self.backoff = None;
                self.start_handshake(tcp, address);
            }
            // The peer gave up while it waited: says nothing about the port.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                let pause = self.backoff.map_or(FIRST_PAUSE, |backoff| {
                    (backoff.pause * 2).min(LONGEST_PAUSE)
                });
                if self.failing.now() {
                    tracing::warn!(%error, "could not accept a connection, backing off");
                }
                self.backoff = Some(Backoff {
                    pause,
                    until: Instant::now() + pause,
                });
            }
        }
    }

    fn start_handshake(&mut self, tcp: TcpStream, address: SocketAddr) {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let unproven = Arc::clone(&self.unproven).try_acquire_owned();
        let (Ok(place), Ok(unproven)) = (place, unproven) else {
            if self.full.now() {
                tracing::warn!("connection limit reached, closing new connections");
            }
            return;
        };
        set_options(&tcp);
        let permits = Permits {
            _connection: place,
            unproven: Some(unproven),
        };
        let (tls, connections) = (Arc::clone(&self.tls), Arc::clone(&self.connections));
        let deadline = Instant::now() + self.handshake;
        let span = tracing::debug_span!("connection.handshake", peer.addr = %address);
        let work = async move {
            let work = handshake(tcp, address, tls, connections, permits);
            match timeout_at(deadline, work).await {
                Ok(Ok(connection)) => Some(connection),
                Ok(Err(error)) => {
                    tracing::debug!(%error, cause = cause(&error), "connection dropped");
                    None
                }
                Err(_) => {
                    tracing::debug!("connection dropped: handshake took too long");
                    None
                }
            }
        };
        self.handshakes.spawn(work.instrument(span));
    }
}

impl Seldom {
    fn now(&mut self) -> bool {
        let now = Instant::now();
        let due = self
            .last
            .is_none_or(|last| now - last >= Duration::from_secs(60));
        if due {
            self.last = Some(now);
        }
        due
    }
}

async fn handshake(
    tcp: TcpStream,
    address: SocketAddr,
    tls: Arc<ServerTls>,
    connections: Arc<Connections>,
    mut permits: Permits,
) -> Result<Connection, HandshakeError> {
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp)
        .await
        .map_err(HandshakeError::Hello)?;
    // Only here, so that a peer which waited before its hello still meets the newest roots.
    let stream = match hello.into_stream(tls.config()).into_fallible().await {
        Ok(stream) => stream,
        Err((error, tcp)) => {
            linger(tcp).await;
            return Err(HandshakeError::Tls(error));
        }
    };
    let certificate = peer_certificate(&stream)?;
    let now = (tls.clock)();

    let registration = connections.register(
        certificate
            .as_ref()
            .map(|(host, certificate)| (*host, certificate.key())),
    );
    // After registering, never before: see the registry's first lines.
    let host = certificate
        .map(|(id, certificate)| host_peer(id, &certificate, &tls, now))
        .transpose()?;
    let lasts = match &host {
        Some(host) if !host.expired => {
            permits.unproven = None;
            Duration::try_from(host.not_after - now).unwrap_or_default()
        }
        Some(_) | None => UNPROVEN_LIFE,
    };
    let peer = PeerInfo { address, host };
    Ok(Connection::new(
        stream,
        peer,
        Instant::now() + lasts,
        registration,
        permits,
    ))
}

fn peer_certificate(
    stream: &TlsStream<TcpStream>,
) -> Result<Option<(domain::id::HostId, PeerCertificate)>, HandshakeError> {
    let Some(leaf) = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
    else {
        return Ok(None);
    };
    let certificate = PeerCertificate::parse(leaf).map_err(HandshakeError::Certificate)?;
    match certificate.role() {
        Role::Host(host) => Ok(Some((host, certificate))),
        Role::Master => Err(HandshakeError::NotHost),
    }
}

fn host_peer(
    id: domain::id::HostId,
    certificate: &PeerCertificate,
    tls: &ServerTls,
    now: OffsetDateTime,
) -> Result<HostPeer, HandshakeError> {
    let standing = tls.allow.standing(id, &certificate.key());
    match standing {
        Standing::Allowed | Standing::Removed => Ok(HostPeer {
            id,
            key: certificate.key(),
            serial: certificate.serial(),
            not_after: certificate.not_after(),
            expired: now > certificate.not_after(),
            standing,
        }),
        Standing::Refused => Err(HandshakeError::Refused),
    }
}

/// Closing a socket that still has unread bytes resets it, and the reset destroys the alert that
/// tells the peer why. So: say that nothing more comes, and read what is left, within limits.
async fn linger(mut tcp: TcpStream) {
    let drain = async {
        tcp.shutdown().await?;
        let mut left = [0; 4096];
        // 64 KiB: more than a client sends before it has heard from us.
        for _ in 0..16 {
            if tcp.read(&mut left).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    // Whatever comes of it, the peer is dropped.
    drop(timeout(LINGER, drain).await);
}

fn set_options(tcp: &TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15));
    let set = tcp
        .set_nodelay(true)
        .and_then(|()| SockRef::from(tcp).set_tcp_keepalive(&keepalive));
    if let Err(error) = set {
        tracing::debug!(%error, "could not set socket options");
    }
}

fn cause(error: &dyn std::error::Error) -> Option<tracing::field::DisplayValue<String>> {
    error
        .source()
        .map(|source| tracing::field::display(source.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{LIMITS, Master, within};

    /// What `accept` says when the process has no file descriptor left (EMFILE).
    fn no_descriptors() -> io::Error {
        io::Error::from_raw_os_error(24)
    }

    /// An acceptor on a port of its own; of the master, it uses the TLS configuration.
    async fn acceptor() -> (Master, Acceptor) {
        let master = Master::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let (tls, connections) = (Arc::clone(&master.tls), Arc::clone(&master.connections));
        let shutdown = CancellationToken::new();
        (
            master,
            Acceptor::new(listener, tls, connections, LIMITS, shutdown),
        )
    }

    #[tokio::test]
    async fn accept_errors_back_off_up_to_a_second_and_the_next_peer_ends_it() {
        let (master, mut acceptor) = acceptor().await;
        let address = acceptor.listener.local_addr().expect("bound");
        let mut pauses = Vec::new();
        for _ in 0..10 {
            acceptor.accepted(Err(no_descriptors()));
            pauses.push(acceptor.backoff.expect("backing off").pause.as_millis());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);

        let connector = master.connector(None);
        let to = address.to_string().parse().expect("a socket address");
        let (stream, connection) =
            within(async { tokio::join!(connector.connect(&to), acceptor.next()) }).await;
        stream.expect("accepted after the pause");
        connection.expect("not shut down");
        assert!(acceptor.backoff.is_none());
    }

    #[tokio::test]
    async fn a_peer_that_gave_up_is_no_reason_to_back_off() {
        let (_master, mut acceptor) = acceptor().await;
        acceptor.accepted(Err(io::ErrorKind::ConnectionAborted.into()));
        assert!(acceptor.backoff.is_none());
    }
}

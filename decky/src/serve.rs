//! Serves connections: accepts, admits within caps, watches deadlines, reports both ends of each.
//!
//! What is said on a connection is the service's business.

mod gate;
mod known;
mod lines;
mod saved_syn;
mod session;
mod signature;
mod wire;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::event::{Evidence, Payload, Severity, Sighting};
use domain::service::ServiceKind;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument;

pub(crate) use self::gate::Gate;
use self::gate::{Flood, Permit};
use self::known::Known;
pub(crate) use self::lines::{Buffered, Read};
pub(crate) use self::session::Session;
pub(crate) use self::wire::{Meter, Wire};
use crate::emit::Emitter;

/// An emulated protocol on one connection.
#[async_trait]
pub(crate) trait Service: Send + Sync + 'static {
    /// Talks until the connection is done. An error is the peer going away, or our caps.
    async fn serve(&self, session: &Session, wire: Wire) -> io::Result<()>;
}

/// What one service grants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caps {
    /// Connections from one source at a time.
    pub(crate) per_source: usize,
    /// Connections in all at a time.
    pub(crate) total: usize,
    /// How long nothing may be said.
    pub(crate) idle: Duration,
    /// How long a connection may last.
    pub(crate) lifetime: Duration,
    /// How much a connection may send.
    pub(crate) bytes: u64,
    /// How often refused connections are reported.
    pub(crate) window: Duration,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            per_source: 32,
            total: 256,
            idle: Duration::from_secs(120),
            lifetime: Duration::from_secs(30 * 60),
            bytes: 4 * 1024 * 1024,
            window: Duration::from_secs(1),
        }
    }
}

/// One service on one port, as long as it is not stopped.
pub(crate) struct Listening {
    address: SocketAddr,
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl Listening {
    /// The address on which it listens.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "only tests let the kernel choose ports")
    )]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener and its connections, and waits for that.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        self.task.await.ok();
    }
}

/// What the connections of one port have in common.
struct Port {
    kind: ServiceKind,
    service: Arc<dyn Service>,
    emitter: Emitter,
    gate: Arc<Gate>,
    /// What each source has shown of itself.
    known: Known,
    caps: Caps,
}

/// Starts to serve `service` on `address`.
pub(crate) fn listen(
    kind: ServiceKind,
    address: SocketAddr,
    service: Arc<dyn Service>,
    emitter: Emitter,
    caps: Caps,
) -> io::Result<Listening> {
    let listener = bind(address)?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let gate = Arc::new(Gate::new(caps));
    let port = Arc::new(Port {
        kind,
        service,
        emitter,
        gate,
        known: Known::default(),
        caps,
    });
    let task = crate::task::spawn("accept", accept(port, listener, stop.clone()));
    Ok(Listening {
        address,
        stop: stop.drop_guard(),
        task,
    })
}

/// Binds `address`; for `0.0.0.0` also every IPv6 address, where the kernel has IPv6.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if address.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()));
        if let Ok(listener) = open(both) {
            return Ok(listener);
        }
    }
    open(address)
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        // Said here: the call that says it of a socket that is there is one that a decky may not make.
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    // A kernel without it costs a fingerprint, and must not cost the service.
    if let Err(error) = saved_syn::keep(&socket) {
        tracing::debug!(%error, "the first segments of connections are not kept");
    }
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

async fn accept(port: Arc<Port>, listener: TcpListener, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    let mut window = tokio::time::interval(port.caps.window);
    window.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = window.tick(), if port.gate.is_flooded() => port.report_floods().await,
            _ = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => {
                    let source = canonical(peer);
                    if let Some(permit) = Gate::admit(&port.gate, source.ip()) {
                        let connection = connection(Arc::clone(&port), tcp, source, permit);
                        connections.spawn(connection);
                    }
                }
                Err(error) => {
                    // Out of file descriptors, mostly: they come back when connections end.
                    tracing::warn!(%error, service = %port.kind, "could not accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
    port.report_floods().await;
}

impl Port {
    async fn report_floods(&self) {
        for Flood { source, refused } in self.gate.take_floods() {
            let sighting = Sighting {
                at: self.emitter.now(),
                service: Some(self.kind),
                session: None,
                source: source.map(|ip| SocketAddr::new(ip, 0)),
                destination: None,
                severity: Severity::Warning,
                payload: Payload::Lifecycle {
                    state: "dropped".to_owned(),
                    config: self.emitter.config(),
                    detail: Evidence::from("connections over the cap"),
                    count: refused,
                },
                raw: None,
            };
            self.emitter.emit(sighting).await;
        }
    }
}

/// An IPv4 peer of a socket for both families shows as an IPv4 peer.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

async fn connection(port: Arc<Port>, tcp: TcpStream, source: SocketAddr, permit: Permit) {
    let destination = tcp
        .local_addr()
        .map_or(SocketAddr::from(([0, 0, 0, 0], 0)), canonical);
    tcp.set_nodelay(true).ok();
    let tcp = Arc::new(tcp);
    let meter = Arc::new(Meter::new());
    let session = Session::new(port.kind, source, destination, port.emitter.clone());
    let span = tracing::info_span!(
        "decky.session",
        service = %port.kind,
        peer.addr = %source,
        session.id = %session.id(),
    );
    let wire = Wire::new(Arc::clone(&tcp), Arc::clone(&meter), port.caps.bytes);
    let open = Open::new(session.clone(), tcp, Arc::clone(&meter), permit);
    open.fingerprint(source.ip(), &port.known);
    async {
        tokio::select! {
            ended = port.service.serve(&session, wire) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection broke");
                }
            }
            () = deadline(&meter, port.caps) => tracing::debug!("connection timed out"),
        }
        if meter.over(port.caps.bytes) {
            session
                .raw("more bytes than a connection may send", &[])
                .await;
        }
    }
    .instrument(span)
    .await;
    drop(open);
}

/// Returns when a connection has said nothing for too long or lasts too long.
async fn deadline(meter: &Meter, caps: Caps) {
    let end = meter.opened() + caps.lifetime;
    loop {
        let idle = meter.touched() + caps.idle;
        let next = idle.min(end);
        if Instant::now() >= next {
            return;
        }
        tokio::time::sleep_until(next).await;
    }
}

/// A connection from its accept to its end, reported at both: also when its task is aborted.
struct Open {
    session: Session,
    tcp: Arc<TcpStream>,
    meter: Arc<Meter>,
    _permit: Permit,
}

impl Open {
    fn new(session: Session, tcp: Arc<TcpStream>, meter: Arc<Meter>, permit: Permit) -> Self {
        session.offer(Severity::Info, Payload::Connect);
        Self {
            session,
            tcp,
            meter,
            _permit: permit,
        }
    }

    /// Tells how the first segment of the connection looked, unless the source is known by it.
    fn fingerprint(&self, source: IpAddr, known: &Known) {
        let headers = saved_syn::take(&self.tcp);
        let Some(signature) = headers.as_deref().and_then(signature::signature) else {
            return;
        };
        if known.is_new(source, &signature) {
            self.session.offer(
                Severity::Info,
                Payload::Fingerprint {
                    of: "tcp_syn".to_owned(),
                    value: Evidence::new(signature),
                },
            );
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // A library's task may still hold the stream: it must see the end, too.
        SockRef::from(&*self.tcp)
            .shutdown(std::net::Shutdown::Both)
            .ok();
        self.session.offer(Severity::Info, self.meter.disconnect());
    }
}

#[cfg(test)]
pub(crate) mod tests;

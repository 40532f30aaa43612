use std::convert::Infallible;
use std::sync::Arc;

use futures_util::StreamExt;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::*;
use crate::acceptor::{PeerInfo, Standing, accept_loop};
use crate::ca::CertificateAuthority;
use crate::identity::Role;
use crate::testkit::{
    DAY, LIMITS, Master, NOW, TestClock, authority, eventually, host_id, host_identity, within,
};

const UNIX_EPOCH: OffsetDateTime = datetime!(1970-01-01 00:00 UTC);

fn bundle_trust(ca: &CertificateAuthority, local: OffsetDateTime, skew: time::Duration) -> Trust {
    Trust::Bundle {
        bundle: ca.bundle(),
        clock: TestClock::at(local).clock(),
        skew,
    }
}

fn connector(trust: Trust) -> Connector {
    Connector::new(trust, None).expect("no identity to be wrong")
}

/// A TLS server with any chain at all, that takes one connection and counts what it is told.
struct Impostor {
    address: MasterAddress,
    told: JoinSet<usize>,
}

impl Impostor {
    async fn start(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        alpn: &[u8],
    ) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("default versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("key and certificate fit");
        config.alpn_protocols = vec![alpn.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::serve(move |mut tcp| async move {
            let mut told = Vec::new();
            if let Ok(mut stream) = acceptor.accept(&mut tcp).await {
                drop(stream.read_to_end(&mut told).await);
            }
            told.len()
        })
        .await
    }

    async fn serve<F>(answer: impl FnOnce(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = usize> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        let mut told = JoinSet::new();
        told.spawn(async move { answer(listener.accept().await.expect("loopback").0).await });
        Self {
            address: address.parse().expect("a socket address"),
            told,
        }
    }

    async fn refused(&self, trust: Trust) -> ConnectError {
        within(connector(trust).connect(&self.address))
            .await
            .expect_err("an impostor")
    }

    /// How many bytes of application data came, in all.
    async fn told(mut self) -> usize {
        within(self.told.join_next())
            .await
            .expect("one task")
            .expect("no panic")
    }
}

/// An enrolled host that listens with its own certificate, the CA's behind it.
async fn host_as_master(ca: &CertificateAuthority) -> Impostor {
    let identity = host_identity(ca, host_id(7), NOW);
    let chain = [
        vec![identity.certificate_der().to_vec()],
        ca.bundle().der_list(),
    ]
    .concat();
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    Impostor::start(chain, identity.key().to_rustls(), b"h2").await
}

// Joining by pin.

#[tokio::test]
async fn a_host_in_1970_joins_by_pin() {
    // There is no clock in this trust: whatever the host's says, it is not asked.
    let mut master = Master::start().await;
    let join = connector(Trust::Pin(master.ca.pin()));
    let mut stream = join
        .connect(&master.address)
        .await
        .expect("the pinned master");
    stream.write_all(b"token").await.expect("connected");
    stream.flush().await.expect("connected");
    let mut heard = [0; 5];
    within(master.accepted().await.read_exact(&mut heard))
        .await
        .expect("connected");
    assert_eq!(&heard, b"token");
}

#[tokio::test]
async fn a_wrong_pin_is_told_nothing() {
    let (ca, other) = (authority(), authority());
    let leaf = other.issue_master(&[], DAY, NOW).expect("no names");
    let impostor = Impostor::start(vec![leaf.certificate, leaf.issuer], leaf.key, b"h2").await;

    let refused = impostor.refused(Trust::Pin(ca.pin())).await;

    assert!(
        matches!(
            &refused,
            ConnectError::WrongPin { source: RefusedMaster::WrongPin { expected }, .. }
                if *expected == ca.pin()
        ),
        "{refused:?}"
    );
    assert_eq!(impostor.told().await, 0);
}

#[tokio::test]
async fn showing_the_pinned_ca_without_its_key_is_not_enough() {
    let (ca, thief) = (authority(), authority());
    let leaf = thief.issue_master(&[], DAY, NOW).expect("no names");
    let stolen = CertificateDer::from(ca.bundle().der_list().concat());
    let impostor = Impostor::start(vec![leaf.certificate, stolen], leaf.key, b"h2").await;

    let refused = impostor.refused(Trust::Pin(ca.pin())).await;

    assert!(
        matches!(refused, ConnectError::WrongPin { .. }),
        "{refused:?}"
    );
    assert_eq!(impostor.told().await, 0);
}

#[tokio::test]
async fn a_chain_without_the_ca_does_not_match_a_pin() {
    let ca = authority();
    let leaf = ca.issue_master(&[], DAY, NOW).expect("no names");
    let impostor = Impostor::start(vec![leaf.certificate], leaf.key, b"h2").await;
    let refused = impostor.refused(Trust::Pin(ca.pin())).await;
    assert!(
        matches!(refused, ConnectError::WrongPin { .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_host_certificate_cannot_serve_as_the_master() {
    let ca = authority();
    for trust in [
        Trust::Pin(ca.pin()),
        bundle_trust(&ca, NOW, time::Duration::ZERO),
    ] {
        let impostor = host_as_master(&ca).await;
        let refused = impostor.refused(trust).await;
        let role = Role::Host(host_id(7));
        assert!(
            matches!(
                &refused,
                ConnectError::Untrusted { source: RefusedMaster::NotMaster { role: found }, .. }
                    if *found == role
            ),
            "{refused:?}"
        );
        assert_eq!(impostor.told().await, 0);
    }
}

// Trusting a bundle.

#[tokio::test]
async fn a_master_of_another_ca_is_not_trusted() {
    let master = Master::start().await;
    let trust = bundle_trust(&authority(), NOW, time::Duration::ZERO);
    let refused = connector(trust)
        .connect(&master.address)
        .await
        .expect_err("another CA");
    assert!(
        matches!(
            &refused,
            ConnectError::Untrusted {
                source: RefusedMaster::Untrusted,
                ..
            }
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_clock_that_is_behind_by_hours_does_not_matter() {
    let master = Master::start().await;
    let local = NOW - time::Duration::hours(20);
    let trust = bundle_trust(&master.ca, local, time::Duration::ZERO);
    connector(trust)
        .connect(&master.address)
        .await
        .expect("the leaf is as old as its CA");
}

#[tokio::test]
async fn a_wrong_clock_is_named_and_the_masters_clock_heals_it() {
    let master = Master::start().await;
    let trust = bundle_trust(&master.ca, UNIX_EPOCH, time::Duration::ZERO);
    let refused = connector(trust)
        .connect(&master.address)
        .await
        .expect_err("1970");
    assert!(
        matches!(
            &refused,
            ConnectError::Clock { source: RefusedMaster::Clock { now, not_before, .. }, .. }
                if *now == UNIX_EPOCH && *not_before == NOW - time::Duration::DAY
        ),
        "{refused:?}"
    );

    let trust = bundle_trust(&master.ca, UNIX_EPOCH, NOW - UNIX_EPOCH);
    connector(trust)
        .connect(&master.address)
        .await
        .expect("valid by the master's clock");
}

#[tokio::test]
async fn an_expired_master_is_a_matter_of_clocks() {
    let ca = authority();
    let leaf = ca.issue_master(&[], DAY, NOW).expect("no names");
    let chain = vec![leaf.certificate, leaf.issuer];
    let impostor = Impostor::start(chain, leaf.key, b"h2").await;
    let late = NOW + time::Duration::days(2);
    let refused = impostor
        .refused(bundle_trust(&ca, late, time::Duration::ZERO))
        .await;
    assert!(matches!(refused, ConnectError::Clock { .. }), "{refused:?}");
}

// What else listens on ports.

#[tokio::test]
async fn a_closed_port_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let socket = listener.local_addr().expect("bound");
    drop(listener);
    let master = socket.to_string().parse().expect("a socket address");
    let trust = Trust::Pin(authority().pin());
    let refused = connector(trust).connect(&master).await.expect_err("closed");
    assert!(
        matches!(&refused, ConnectError::PortClosed { address } if *address == socket),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_server_without_tls_is_named() {
    let impostor = Impostor::serve(|mut tcp| async move {
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .expect("connected");
        // Reads to the end, so that closing does not reset what was said.
        drop(tcp.read_to_end(&mut Vec::new()).await);
        0
    })
    .await;
    let refused = impostor.refused(Trust::Pin(authority().pin())).await;
    assert!(
        matches!(refused, ConnectError::NotTls { .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_server_that_hangs_up_is_named() {
    let impostor = Impostor::serve(|tcp| async move {
        drop(tcp);
        0
    })
    .await;
    let refused = impostor.refused(Trust::Pin(authority().pin())).await;
    assert!(
        matches!(refused, ConnectError::Closed { .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_tls_server_of_something_else_is_named() {
    let ca = authority();
    let leaf = ca.issue_master(&[], DAY, NOW).expect("no names");
    let chain = vec![leaf.certificate, leaf.issuer];
    let impostor = Impostor::start(chain, leaf.key, b"http/1.1").await;
    let refused = impostor.refused(Trust::Pin(ca.pin())).await;
    assert!(
        matches!(refused, ConnectError::NotMaster { .. }),
        "{refused:?}"
    );
}

// Refusals, and channels.

/// Answers any call with the name of the host that makes it.
#[derive(Clone)]
struct WhoAmI;

impl tonic::server::NamedService for WhoAmI {
    const NAME: &'static str = "test.Who";
}

impl tower::Service<http::Request<tonic::body::Body>> for WhoAmI {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let peer = request
            .extensions()
            .get::<PeerInfo>()
            .and_then(|peer| peer.host.clone());
        let name = peer.map_or_else(|| "nobody".to_owned(), |host| host.id.to_string());
        let response = http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "0")
            .header("you-are", name)
            .body(tonic::body::Body::empty())
            .expect("valid headers");
        std::future::ready(Ok(response))
    }
}

async fn who_am_i(channel: tonic::transport::Channel) -> Result<String, tonic::transport::Error> {
    let request = http::Request::post("/test.Who/AmI")
        .body(tonic::body::Body::empty())
        .expect("valid request");
    let response = within(channel.oneshot(request)).await?;
    Ok(response.headers()["you-are"]
        .to_str()
        .expect("ASCII")
        .to_owned())
}

/// The fixture's own accept loop hands connections to the test; here they go to tonic.
async fn serve_calls(master: &mut Master) -> JoinSet<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound").to_string();
    master.address = address.parse().expect("a socket address");
    let incoming = accept_loop(
        listener,
        Arc::clone(&master.tls),
        Arc::clone(&master.connections),
        LIMITS,
        CancellationToken::new(),
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        tonic::transport::Server::builder()
            .add_service(WhoAmI)
            .serve_with_incoming(incoming.boxed())
            .await
            .expect("serves until it is dropped");
    });
    tasks
}

#[tokio::test]
async fn a_call_arrives_with_the_identity_of_its_host() {
    let mut master = Master::start().await;
    let _tasks = serve_calls(&mut master).await;
    let identity = master.host(7);

    let channel = channel_over(master.connect(Some(&identity)).await)
        .await
        .expect("HTTP/2");
    assert_eq!(
        who_am_i(channel).await.expect("answered"),
        host_id(7).to_string()
    );

    let channel = channel_over(master.connect(None).await)
        .await
        .expect("HTTP/2");
    assert_eq!(who_am_i(channel).await.expect("answered"), "nobody");
}

#[tokio::test]
async fn a_channel_that_lost_its_connection_does_not_reconnect() {
    let mut master = Master::start().await;
    let _tasks = serve_calls(&mut master).await;
    let identity = master.host(7);
    let channel = channel_over(master.connect(Some(&identity)).await)
        .await
        .expect("HTTP/2");
    who_am_i(channel.clone()).await.expect("connected");

    // Still allowed: a reconnect would succeed.
    master.connections.cut(host_id(7));
    let connections = Arc::clone(&master.connections);
    eventually("the connection is gone", || connections.live() == 0).await;

    for _ in 0..3 {
        who_am_i(channel.clone())
            .await
            .expect_err("nothing to reconnect with");
    }
    assert_eq!(master.connections.live(), 0);
}

#[tokio::test]
async fn the_watch_knows_the_refusal_that_tonic_hides() {
    let mut master = Master::start().await;
    let _tasks = serve_calls(&mut master).await;
    let identity = master.host(7);
    master.gate.set(host_id(7), Standing::Refused);

    let stream = master.connect(Some(&identity)).await;
    let refusal = stream.refusal();
    if let Ok(channel) = channel_over(stream).await {
        who_am_i(channel).await.expect_err("refused");
    }

    eventually("the refusal is read", || refusal.get().is_some()).await;
    assert_eq!(refusal.get(), Some(RefusedByMaster::Revoked));
}

#[test]
fn a_refusal_is_found_under_layers_of_errors() {
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRevoked);
    let inner = std::io::Error::other(alert);
    let outer = std::io::Error::other(inner);
    assert_eq!(refusal_of(&outer), Some(RefusedByMaster::Revoked));
    assert_eq!(refusal_of(&std::io::Error::other("something else")), None);
    assert_eq!(
        refusal_of(&std::io::Error::from(std::io::ErrorKind::TimedOut)),
        None
    );
}

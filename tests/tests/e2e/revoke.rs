//! Revocation takes effect within a second, and renewal loses nothing.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use pki::identity::files::{HostIdentity, IdentityFiles};
use proto::v1::fleet_client::FleetClient;
use proto::v1::{EventBatch, SpooledEvent};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme,
    StreamOwned,
};
use tests::load::Flood;
use tests::patience::{Look, eventually, throughout};
use tests::shapes;
use tests::world::{SOON, World};

const HOST: &str = "edge-1";

fn identity(world: &World) -> Result<HostIdentity> {
    IdentityFiles::new(world.host_dir(HOST))
        .load()?
        .context("the host has an identity")
}

#[test]
fn nothing_of_a_revoked_host_has_effect_a_second_later() -> Result<()> {
    let mut world = World::with_host(HOST)?;
    world.deploy(&shapes::single(&world.slot, "lone"), HOST)?;
    let flood = Flood::start(&world.slot.address(0, 10), "revoke", 2, u64::MAX, 200)?;
    let stored = |world: &World| world.api()?.metric("decnet_events_stored_total");
    eventually("evidence", SOON, || {
        let count = stored(&world)?;
        Ok(if count > 200.0 {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{count}"))
        })
    })?;

    world.decnet(&["host", "revoke", HOST])?.ok()?;
    let committed = Instant::now();

    ensure!(
        world.host(HOST)?.state == "revoked",
        "{:?}",
        world.host(HOST)?
    );
    eventually("a second", SOON, || {
        let passed = committed.elapsed() >= Duration::from_secs(1);
        Ok(if passed {
            Look::Seen(())
        } else {
            Look::NotYet("less".to_owned())
        })
    })?;
    let then = stored(&world)?;
    let more = flood.answered();
    throughout("no event of a revoked host", Duration::from_secs(4), || {
        Ok(stored(&world)? <= then)
    })?;
    ensure!(
        flood.answered() > more,
        "the attackers went away, so nothing was tested"
    );
    drop(flood.stop()?);
    // What the host holds now is nobody's to command; it is cleaned by hand or with the machine.
    world.kill_agent(HOST)?;
    world.start_agent(HOST, &[])?;
    throughout(
        "a restarted agent of a revoked host stays outside",
        Duration::from_secs(3),
        || Ok(world.host(HOST)?.state == "revoked" && stored(&world)? <= then),
    )?;
    world.done()
}

#[test]
fn a_live_stream_ends_within_a_second_of_the_commit() -> Result<()> {
    let mut world = World::with_host(HOST)?;
    let state = world.deploy(&shapes::single(&world.slot, "lone"), HOST)?;
    let decky = world
        .container(HOST, &world.slot.address(0, 10))?
        .decky()
        .to_owned();
    world.stop_agent(HOST)?;
    let identity = identity(&world)?;
    let fleet = world.fleet_address()?.to_owned();
    let topology: uuid::Uuid = state.topology.id.parse()?;
    let decky: uuid::Uuid = decky.parse()?;
    let (receipts, received) = mpsc::channel();

    // The host as it would be after a theft: it sends for as long as anybody listens.
    let thief = std::thread::spawn(move || -> Result<Instant> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let channel = tests::wire::channel(&identity, &fleet).await?;
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            let batches = async_stream(move |sequence| {
                let line = format!(
                    r#"{{"v":1,"boot":"01890000-0000-7000-8000-000000000001","n":{sequence},"at":"2026-01-01T00:00:00Z","service":"http","sev":"notice","data":{{"kind":"command","line":"stolen"}}}}"#
                );
                EventBatch {
                    spool_id: vec![6; 16],
                    events: vec![SpooledEvent {
                        sequence,
                        topology_id: topology.as_bytes().to_vec(),
                        decky_id: decky.as_bytes().to_vec(),
                        collected_at: 1,
                        line: line.into_bytes().into(),
                    }],
                }
            });
            ticks.tick().await;
            let mut stream = FleetClient::new(channel).events(batches).await?.into_inner();
            while let Ok(Some(receipt)) = stream.message().await {
                // The test may have ended.
                if receipts.send((Instant::now(), receipt.through)).is_err() {
                    break;
                }
            }
            Ok(Instant::now())
        })
    });

    received
        .recv_timeout(SOON)
        .context("the stream is not served")?;
    world.decnet(&["host", "revoke", HOST])?.ok()?;
    let committed = Instant::now();
    let ended = thief
        .join()
        .map_err(|_| anyhow::anyhow!("the thief panicked"))??;
    let late = ended.saturating_duration_since(committed);
    ensure!(
        late <= Duration::from_secs(1),
        "the stream ended {late:?} after the commit"
    );
    let last = received
        .try_iter()
        .last()
        .map(|(at, _)| at.saturating_duration_since(committed));
    ensure!(
        last.is_none_or(|late| late <= Duration::from_secs(1)),
        "an event was taken {last:?} after the commit"
    );
    world.done()
}

/// A stream of batches, one every 20 ms.
fn async_stream(
    mut batch: impl FnMut(u64) -> EventBatch + Send + 'static,
) -> impl futures_util::Stream<Item = EventBatch> + Send + 'static {
    futures_util::stream::unfold(1_u64, move |sequence| {
        let batch = batch(sequence);
        async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((batch, sequence + 1))
        }
    })
}

/// Trusts anybody: it is the server's caution that is tested.
#[derive(Debug)]
struct Careless;

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ED25519,
        ]
    }
}

/// One connection with a client that keeps and offers session tickets: whether the server spoke
/// HTTP/2 with it, and how the handshake went.
fn speak(config: &Arc<ClientConfig>, fleet: &str) -> Result<(bool, Option<HandshakeKind>)> {
    let tcp = TcpStream::connect(fleet)?;
    tcp.set_read_timeout(Some(Duration::from_secs(3)))?;
    let name = ServerName::try_from("localhost")?;
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(config), name)?, tcp);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut first = [0_u8; 9];
    let spoke = stream.write_all(preface).is_ok() && stream.read_exact(&mut first).is_ok();
    // Tickets, if there are any, follow; a pause in reading is how we learn that there are none.
    let mut rest = [0_u8; 1024];
    if spoke {
        stream
            .sock
            .set_read_timeout(Some(Duration::from_millis(300)))?;
        drop(stream.read(&mut rest));
    }
    Ok((spoke, stream.conn.handshake_kind()))
}

#[test]
fn a_client_that_holds_a_session_ticket_does_not_get_back_in() -> Result<()> {
    let mut world = World::with_host(HOST)?;
    world.stop_agent(HOST)?;
    let identity = identity(&world)?;
    let fleet = world.fleet_address()?.to_owned();
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Careless))
            .with_client_auth_cert(
                vec![CertificateDer::from(identity.certificate_der().to_vec())],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key().to_pkcs8().to_vec())),
            )?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::in_memory_sessions(8);
    let config = Arc::new(config);

    let (spoke, kind) = speak(&config, &fleet)?;
    ensure!(
        spoke && kind == Some(HandshakeKind::Full),
        "the first connection: {spoke} {kind:?}"
    );
    let (spoke, kind) = speak(&config, &fleet)?;
    ensure!(
        spoke && kind == Some(HandshakeKind::Full),
        "resumption is on: {spoke} {kind:?}"
    );

    world.decnet(&["host", "revoke", HOST])?.ok()?;

    for _ in 0..3 {
        let (spoke, kind) = speak(&config, &fleet)?;
        ensure!(
            !spoke,
            "a revoked host was served after a {kind:?} handshake"
        );
    }
    world.done()
}

#[test]
fn renewal_at_half_life_under_load_loses_no_message() -> Result<()> {
    let mut world = World::empty()?;
    world.set_master_flags(&["--heartbeat", "2s", "--certificate-life", "8s"]);
    world.start_master(&[])?;
    world.add_host(HOST)?;
    world.deploy(&shapes::single(&world.slot, "lone"), HOST)?;
    let flood = Flood::start(&world.slot.address(0, 10), "renew", 4, u64::MAX, 400)?;
    let mut serials = vec![identity(&world)?.serial().to_string()];
    let mut states = Vec::new();
    eventually("three renewals", Duration::from_secs(60), || {
        let serial = identity(&world)?.serial().to_string();
        if serials.last() != Some(&serial) {
            serials.push(serial);
        }
        states.push(world.host(HOST)?.state);
        Ok(if serials.len() >= 4 {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{serials:?}"))
        })
    })?;
    // A beat of it may be late on a busy machine. A host that a renewal has cost its connection is
    // lost, or refused.
    ensure!(
        states
            .iter()
            .all(|state| state == "ready" || state == "late"),
        "the host was not there throughout: {states:?}"
    );
    // A command crosses a renewal as well as evidence does.
    world.teardown("lone").and_then(|state| {
        ensure!(state.topology.status == "torn_down", "{:?}", state.topology);
        Ok(())
    })?;
    let answered = flood.stop()?;
    super::evidence::every_number_once(&world, "renew", &answered)?;
    world.done()
}

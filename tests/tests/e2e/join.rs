//! Joining: one command, a pin before a word, tokens that work once, keys that never travel.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use domain::id::TokenId;
use pki::fingerprint::SpkiPin;
use pki::identity::files::IdentityFiles;
use pki::token::JoinToken;
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tests::cli::system;
use tests::patience::{Look, eventually, throughout};
use tests::shapes;
use tests::wiretap::{Wiretap, tls_records};
use tests::world::{SOON, World};

fn token_of(text: &str) -> Result<JoinToken> {
    JoinToken::parse(text).context("the master's own token")
}

/// The serial of a host's certificate and the second in which it ends.
fn certificate(directory: &Path) -> Result<(String, i64)> {
    let identity = IdentityFiles::new(directory)
        .load()?
        .context("the host has an identity")?;
    Ok((
        identity.serial().to_string(),
        identity.not_after().unix_timestamp(),
    ))
}

fn unix_now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

#[test]
fn one_command_makes_a_host_ready() -> Result<()> {
    let mut world = World::with_master()?;
    let enrollment = world.enroll("edge-1", &[])?;
    ensure!(
        !enrollment.command.contains(&enrollment.token),
        "the token is an argument"
    );
    let outcome = world
        .join_with("edge-1", &enrollment.master_url, &enrollment.token, &[])?
        .ok()?;
    ensure!(
        !outcome.stdout.contains(&enrollment.token) && !outcome.stderr.contains(&enrollment.token),
        "the token is printed again"
    );
    let host = world.host("edge-1")?;
    world.adopt("edge-1", &host.id)?;
    world.start_agent("edge-1", &[])?;
    let host = world.await_host("edge-1", "ready", SOON)?;
    ensure!(
        host.last_seen.is_some() && !host.agent_version.is_empty(),
        "{host:?}"
    );
    ensure!(host.applied.is_none() && host.drift.is_empty(), "{host:?}");
    world.done()
}

#[test]
fn a_wrong_pin_sends_nothing() -> Result<()> {
    let mut world = World::with_master()?;
    let enrollment = world.enroll("edge-1", &[])?;
    let token = token_of(&enrollment.token)?;
    let pin = SpkiPin::from_bytes([7; 32]);
    let wrong = JoinToken::mint(token.id(), *token.secret().expose(), pin);
    let wire = Wiretap::before(world.fleet_address()?)?;

    let said = world
        .join_with("edge-1", &wire.url(), wrong.encode().expose(), &[])?
        .refused(1)?;

    ensure!(
        said.to_lowercase().contains("pin"),
        "the cause is not named: {said}"
    );
    let sent = wire.recording().up;
    ensure!(!sent.is_empty(), "the master was not even dialled");
    // After the hello there is room for an alert and for nothing else: a request has hundreds of bytes.
    let secret: usize = tls_records(&sent)
        .into_iter()
        .filter(|(kind, _)| *kind == 23)
        .map(|(_, length)| length)
        .sum();
    ensure!(
        secret <= 64,
        "{secret} encrypted bytes were sent to a master that does not match the pin"
    );
    // And the master has not seen the token: it still works, once.
    world
        .join_with("edge-1", &enrollment.master_url, &enrollment.token, &[])?
        .ok()?;
    let id = world.host("edge-1")?.id;
    world.adopt("edge-1", &id)?;
    world.done()
}

#[test]
fn used_expired_misnamed_and_unknown_tokens_are_refused_alike() -> Result<()> {
    let mut world = World::with_master()?;

    let used = world.enroll("edge-1", &[])?;
    world
        .join_with("edge-1", &used.master_url, &used.token, &[])?
        .ok()?;
    let id = world.host("edge-1")?.id;
    world.adopt("edge-1", &id)?;

    let expired = world.enroll("edge-2", &["--ttl", "1s"])?;
    let misnamed = world.enroll("edge-3", &[])?;
    let known = token_of(&misnamed.token)?;
    let unknown = JoinToken::mint(TokenId::new(uuid_of(9)), [9; 16], known.pin());
    let wrong_secret = JoinToken::mint(known.id(), [9; 16], known.pin());
    eventually("the end of the token's life", SOON, || {
        let left: serde_json::Value = world.api()?.get("/api/v1/tokens")?;
        Ok(if left.to_string().contains(&expired.id) {
            Look::NotYet(left.to_string())
        } else {
            Look::Seen(())
        })
    })?;

    let answers = [
        (
            "used",
            world.join_with("other-1", &used.master_url, &used.token, &[])?,
        ),
        (
            "expired",
            world.join_with("edge-2", &used.master_url, &expired.token, &[])?,
        ),
        (
            "misnamed",
            world.join_with(
                "edge-3",
                &used.master_url,
                &misnamed.token,
                &["--name", "edge-4"],
            )?,
        ),
        (
            "unknown",
            world.join_with("other-2", &used.master_url, unknown.encode().expose(), &[])?,
        ),
        (
            "wrong",
            world.join_with(
                "other-3",
                &used.master_url,
                wrong_secret.encode().expose(),
                &[],
            )?,
        ),
    ];
    let mut texts = Vec::new();
    for (case, outcome) in answers {
        let said = outcome.refused(1)?;
        ensure!(said.contains("token not accepted"), "{case}: {said}");
        texts.push((case, said));
    }
    let (_, first) = &texts[0];
    for (case, text) in &texts {
        ensure!(text == first, "{case} is told apart:\n{text}\n{first}");
    }
    // The cause is for the operator.
    let audit: serde_json::Value = world.api()?.get("/api/v1/audit")?;
    let audit = audit.to_string();
    for cause in [
        "redeemed before",
        "expired",
        "another name",
        "no such token",
    ] {
        ensure!(
            audit.to_lowercase().contains(cause),
            "the audit log does not say {cause}: {audit}"
        );
    }
    world.done()
}

fn uuid_of(byte: u8) -> uuid::Uuid {
    uuid::Uuid::from_bytes([byte; 16])
}

#[test]
fn a_lost_reply_is_repeatable() -> Result<()> {
    let mut world = World::with_master()?;
    for (name, point) in [("edge-1", "enroll.redeemed"), ("edge-2", "enroll.kept")] {
        world.stop_master()?;
        world.start_master(&["--crash-at", point])?;
        let enrollment = world.enroll(name, &[])?;
        let said = world
            .join_with(name, &enrollment.master_url, &enrollment.token, &[])?
            .refused(1)?;
        ensure!(!said.contains("token not accepted"), "{point}: {said}");
        world.await_master_crash(SOON)?;
        world.start_master(&[])?;

        world
            .join_with(name, &enrollment.master_url, &enrollment.token, &[])?
            .ok()?;

        let named: Vec<_> = world
            .hosts()?
            .into_iter()
            .filter(|host| host.name == name)
            .collect();
        ensure!(named.len() == 1, "{point}: {named:?}");
        world.adopt(name, &named[0].id)?;
        world.start_agent(name, &[])?;
        world.await_host(name, "ready", SOON)?;
        // Repeatable for the host that has redeemed it, and for nobody else.
        let said = world
            .join_with("thief", &enrollment.master_url, &enrollment.token, &[])?
            .refused(1)?;
        ensure!(said.contains("token not accepted"), "{said}");
    }
    world.done()
}

/// The 32 bytes of a P-256 private key in its PKCS #8 form.
fn scalar(pkcs8: &[u8]) -> Result<Vec<u8>> {
    let mark = [0x02, 0x01, 0x01, 0x04, 0x20];
    let at = pkcs8.windows(mark.len()).position(|window| window == mark);
    let at = at.context("PKCS #8 with an EC private key")? + mark.len();
    Ok(pkcs8.get(at..at + 32).context("32 bytes")?.to_vec())
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

fn files(under: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(under)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

#[test]
fn the_private_key_is_in_no_message_log_or_row() -> Result<()> {
    let mut world = World::empty()?;
    world.set_master_flags(&["--heartbeat", "500ms", "--certificate-life", "12s"]);
    world.start_master(&[])?;
    let wire = Wiretap::before(world.fleet_address()?)?;
    let enrollment = world.enroll("edge-1", &[])?;
    world
        .join_with("edge-1", &wire.url(), &enrollment.token, &[])?
        .ok()?;
    let id = world.host("edge-1")?.id;
    world.adopt("edge-1", &id)?;
    let directory = world.host_dir("edge-1");
    let mut keys = Vec::new();
    let mut keep = |directory: &Path| -> Result<String> {
        let identity = IdentityFiles::new(directory)
            .load()?
            .context("an identity")?;
        keys.push(identity.key().to_pkcs8().to_vec());
        Ok(identity.serial().to_string())
    };
    let first = keep(&directory)?;
    world.start_agent("edge-1", &[])?;
    world.await_host("edge-1", "ready", SOON)?;
    world.deploy(&shapes::single(&world.slot, "lone"), "edge-1")?;
    eventually("a renewal", SOON, || {
        let (serial, _) = certificate(&directory)?;
        Ok(if serial == first {
            Look::NotYet(serial)
        } else {
            Look::Seen(())
        })
    })?;
    keep(&directory)?;
    world.teardown("lone")?;
    world.stop_agent("edge-1")?;
    world.stop_master()?;

    let recording = wire.recording();
    ensure!(recording.up.len() > 1000, "the wire has recorded nothing");
    let mut places = vec![
        ("the wire up".to_owned(), recording.up),
        ("the wire down".to_owned(), recording.down),
        (
            "the enrollment".to_owned(),
            serde_json::to_vec(&enrollment)?,
        ),
    ];
    for path in files(world.root())? {
        places.push((path.display().to_string(), std::fs::read(&path)?));
    }
    for key in &keys {
        let scalar = scalar(key)?;
        let pem = pem_body(key);
        let needles = [
            scalar.clone(),
            hex(&scalar).into_bytes(),
            base64(&scalar).into_bytes(),
            pem.clone(),
        ];
        let mut holders = Vec::new();
        for (place, bytes) in &places {
            if needles.iter().any(|needle| contains(bytes, needle)) {
                holders.push(place.clone());
            }
        }
        for holder in &holders {
            ensure!(
                holder.starts_with(&*directory.to_string_lossy()) && holder.contains("identity"),
                "{holder} holds a private key"
            );
        }
    }
    for path in files(&directory)?
        .into_iter()
        .chain(files(&world.master_dir())?)
    {
        let text = std::fs::read(&path)?;
        if contains(&text, b"PRIVATE KEY") {
            let mode =
                std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path)?.permissions());
            ensure!(mode & 0o077 == 0, "{} has mode {mode:o}", path.display());
        }
    }
    world.done()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks(3)
        .flat_map(|chunk| {
            let word = chunk
                .iter()
                .fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
                << (8 * (3 - chunk.len()));
            (0..=chunk.len())
                .map(move |place| char::from(LETTERS[(word >> (18 - 6 * place) & 63) as usize]))
        })
        .collect()
}

/// The middle of a PEM body: a line that is in the file and nowhere else.
fn pem_body(der: &[u8]) -> Vec<u8> {
    base64(der)
        .into_bytes()
        .into_iter()
        .skip(64)
        .take(64)
        .collect()
}

#[test]
fn a_host_whose_clock_is_wrong_by_years_joins() -> Result<()> {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    ensure!(
        Path::new(library).exists(),
        "libfaketime is missing; `make test` installs it"
    );
    let mut world = World::with_master()?;
    for (name, shift) in [("past", "-50y"), ("future", "+12y")] {
        let environment = [
            ("LD_PRELOAD", library),
            ("FAKETIME", shift),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        let enrollment = world.enroll(name, &[])?;
        let directory = world.host_dir(name);
        tests::cli::run(
            &tests::process::binary("decnet-agent")?,
            &[
                "join",
                &enrollment.master_url,
                "--token-stdin",
                "--data-dir",
                &directory.to_string_lossy(),
            ],
            &environment,
            &enrollment.token,
        )?
        .ok()?;
        let id = world.host(name)?.id;
        world.adopt(name, &id)?;
        world.start_agent_with(name, &[], &environment)?;
        let host = world.await_host(name, "ready", SOON)?;
        let skew = eventually("the clock skew", SOON, || {
            Ok(match world.host(name)?.health {
                Some(health) => Look::Seen(health.clock_skew_ms),
                None => Look::NotYet(format!("{host:?}")),
            })
        })?;
        let year = 365 * 24 * 3600 * 1000;
        ensure!(
            skew.abs() > 10 * year,
            "{name}: the skew of {skew} ms is not shown"
        );
        world.stop_agent(name)?;
    }
    world.done()
}

#[test]
fn a_host_that_slept_past_its_certificates_end_comes_back_by_itself() -> Result<()> {
    let mut world = World::empty()?;
    world.set_master_flags(&["--heartbeat", "500ms", "--certificate-life", "6s"]);
    world.start_master(&[])?;
    world.add_host("edge-1")?;
    let directory = world.host_dir("edge-1");

    // Suspended, as a laptop is.
    world.agent("edge-1")?.signal(Signal::STOP)?;
    let (before, end) = certificate(&directory)?;
    eventually("the certificate's end", SOON, || {
        Ok(if unix_now() > end + 1 {
            Look::Seen(())
        } else {
            Look::NotYet("it is valid".to_owned())
        })
    })?;
    world.agent("edge-1")?.signal(Signal::CONT)?;
    eventually("a certificate after the sleep", SOON, || {
        let (serial, end) = certificate(&directory)?;
        let host = world.host("edge-1")?;
        Ok(
            if serial != before && end > unix_now() && host.state == "ready" {
                Look::Seen(())
            } else {
                Look::NotYet(format!("{serial} until {end}, {}", host.state))
            },
        )
    })?;

    // Switched off, as a server is.
    world.kill_agent("edge-1")?;
    let (before, end) = certificate(&directory)?;
    eventually("the certificate's end", SOON, || {
        Ok(if unix_now() > end + 1 {
            Look::Seen(())
        } else {
            Look::NotYet("it is valid".to_owned())
        })
    })?;
    world.start_agent("edge-1", &[])?;
    world.await_host("edge-1", "ready", SOON)?;
    let (after, _) = certificate(&directory)?;
    ensure!(
        after != before,
        "the host is ready with an expired certificate"
    );
    world.done()
}

/// A server that shows a host's certificate as if it were the master's.
fn impostor(directory: &Path) -> Result<(String, std::thread::JoinHandle<usize>)> {
    let identity = IdentityFiles::new(directory)
        .load()?
        .context("an identity")?;
    let mut chain = vec![CertificateDer::from(identity.certificate_der().to_vec())];
    chain.extend(
        identity
            .bundle()
            .der_list()
            .into_iter()
            .map(CertificateDer::from),
    );
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key().to_pkcs8().to_vec()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = std::thread::spawn(move || {
        // How many bytes of a request the impostor came to read in clear.
        let Ok((tcp, _)) = listener.accept() else {
            return 0;
        };
        let Ok(connection) = rustls::ServerConnection::new(Arc::new(config)) else {
            return 0;
        };
        let mut stream = rustls::StreamOwned::new(connection, tcp);
        let mut bytes = [0_u8; 4096];
        std::io::Read::read(&mut stream, &mut bytes).unwrap_or(0)
    });
    Ok((format!("https://{address}"), server))
}

#[test]
fn a_hosts_certificate_gives_no_other_right() -> Result<()> {
    let mut world = World::with_master()?;
    world.add_host("edge-1")?;
    world.stop_agent("edge-1")?;

    // It is no master, to a host that joins nor to one that has joined.
    let (url, server) = impostor(&world.host_dir("edge-1"))?;
    let enrollment = world.enroll("edge-2", &[])?;
    world
        .join_with("edge-2", &url, &enrollment.token, &[])?
        .refused(1)?;
    let read = server
        .join()
        .map_err(|_| anyhow::anyhow!("the impostor panicked"))?;
    ensure!(read == 0, "the impostor was sent {read} bytes");
    let said = world.join_with("edge-2", &enrollment.master_url, &enrollment.token, &[])?;
    said.ok()?;
    let id = world.host("edge-2")?.id;
    world.adopt("edge-2", &id)?;

    // It is no operator: the API takes tokens, and none of what a host holds is one.
    let api = world.api()?;
    let identity = IdentityFiles::new(world.host_dir("edge-1"))
        .load()?
        .context("an identity")?;
    let guesses = [
        None,
        Some(identity.host().to_string()),
        Some(identity.serial().to_string()),
        Some(enrollment.token.clone()),
    ];
    for (method, path) in [
        ("GET", "/api/v1/hosts"),
        ("POST", "/api/v1/tokens"),
        ("GET", "/api/v1/events"),
        ("GET", "/metrics"),
        ("POST", "/api/v1/hosts/edge-2/revoke"),
    ] {
        for guess in &guesses {
            let answer = api.request(method, path, guess.as_deref(), None)?;
            ensure!(
                answer.status == 401,
                "{method} {path} gave {} to a stranger",
                answer.status
            );
        }
    }
    // Nor does the port of the hosts serve the operators' API.
    // (gRPC answers 200 to anything and says in its trailer that there is no such method.)
    let url = format!("https://{}/api/v1/hosts", world.fleet_address()?);
    let curl = system("curl", &["-sk", "--max-time", "5", "-D", "-", &url], "")?;
    ensure!(
        !curl.stdout.contains("edge-1") && !curl.stdout.contains("application/json"),
        "the fleet port answers an operator's request: {}",
        curl.stdout
    );
    world.done()
}

#[test]
fn a_host_cannot_act_for_another() -> Result<()> {
    use proto::v1::fleet_client::FleetClient;
    use proto::v1::{EventBatch, SpooledEvent};

    let mut world = World::with_master()?;
    world.add_host("edge-1")?;
    let thief = world.add_host("edge-2")?;
    let state = world.deploy(&shapes::single(&world.slot, "lone"), "edge-1")?;
    let decky = world
        .container("edge-1", &world.slot.address(0, 10))?
        .decky()
        .to_owned();
    world.stop_agent("edge-2")?;

    // With its own certificate, the other host sends an event of a decky that is not its own.
    let identity = IdentityFiles::new(world.host_dir("edge-2"))
        .load()?
        .context("an identity")?;
    let refused_before = world.api()?.metric("decnet_events_refused_total")?;
    let line = br#"{"v":1,"boot":"01890000-0000-7000-8000-000000000001","n":1,"at":"2026-01-01T00:00:00Z","service":"http","sev":"notice","data":{"kind":"command","line":"forged"}}"#;
    let batch = EventBatch {
        spool_id: vec![5; 16],
        events: vec![SpooledEvent {
            sequence: 1,
            topology_id: uuid_bytes(&state.topology.id)?,
            decky_id: uuid_bytes(&decky)?,
            collected_at: 0,
            line: line.to_vec().into(),
        }],
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let receipt = runtime.block_on(async {
        let channel = tests::wire::channel(&identity, world.fleet_address()?).await?;
        let batches = tokio_stream::iter([batch]);
        let receipts = FleetClient::new(channel).events(batches).await?;
        receipts.into_inner().message().await?.context("a receipt")
    })?;
    ensure!(receipt.refused == 1 && receipt.through == 1, "{receipt:?}");
    ensure!(
        world.api()?.metric("decnet_events_refused_total")? > refused_before,
        "the refusal is not counted"
    );
    throughout(
        "no forged event in the table",
        Duration::from_secs(1),
        || {
            Ok(!world
                .events(&[])?
                .iter()
                .any(|event| event.data.to_string().contains("forged")))
        },
    )?;
    let audit: serde_json::Value = world.api()?.get("/api/v1/audit")?;
    ensure!(
        audit.to_string().contains(&thief),
        "the refusal is not audited: {audit}"
    );
    world.done()
}

fn uuid_bytes(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    if digits.len() != 32 {
        bail!("{text} is no UUID");
    }
    digits
        .chunks(2)
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}

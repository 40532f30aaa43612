//! Secure shell: identifies the client, takes its credentials, gives it the shell.
//!
//! The cryptography is russh's. The identification strings are exchanged here, because what is no
//! client of SSH must be answered as OpenSSH does, and recorded.

mod handler;
mod hassh;
mod keys;
mod splice;

use std::borrow::Cow;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use domain::service::ServiceOptions;
use russh::keys::{Algorithm, EcdsaCurve};
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

use self::handler::Handler;
use self::splice::{Splice, Tap};
use super::accept_after;
use crate::persona::Facts;
use crate::serve::{Buffered, Read, Service, Session, Wire};

/// Longest identification string (RFC 4253, section 4.2).
const MAX_IDENT: usize = 255;
/// How many bytes of the client are kept to read its first key exchange message.
const TAP_BYTES: usize = 4096;

const KEX: &[kex::Name] = &[
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_GEX_SHA256,
    kex::DH_G16_SHA512,
    kex::DH_G18_SHA512,
    kex::DH_G14_SHA256,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

const CIPHERS: &[cipher::Name] = &[
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
];

const MACS: &[mac::Name] = &[
    mac::HMAC_SHA256_ETM,
    mac::HMAC_SHA512_ETM,
    mac::HMAC_SHA1_ETM,
    mac::HMAC_SHA256,
    mac::HMAC_SHA512,
    mac::HMAC_SHA1,
];

const HOST_KEYS: &[Algorithm] = &[
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP256,
    },
    Algorithm::Ed25519,
];

const COMPRESSION: &[compression::Name] = &[compression::NONE, compression::ZLIB_LEGACY];

/// The service.
pub(crate) struct Ssh {
    ident: String,
    accept_after: u64,
    facts: Arc<Facts>,
    config: Arc<Config>,
}

impl Ssh {
    pub(crate) fn new(
        options: &ServiceOptions,
        facts: Arc<Facts>,
    ) -> Result<Self, russh::keys::ssh_key::Error> {
        let banner = match options.text("banner") {
            Some(banner) => banner,
            None => facts
                .seed
                .choose("ssh", facts.release.ssh)
                .copied()
                .unwrap_or("OpenSSH_9.2p1"),
        };
        let ident = format!("SSH-2.0-{banner}");
        let config = Config {
            server_id: SshId::Standard(Cow::Owned(ident.clone())),
            methods: methods(),
            auth_rejection_time: facts.fail_delay,
            auth_rejection_time_initial: Some(Duration::ZERO),
            keys: keys::host_keys(&facts.seed)?,
            window_size: 256 * 1024,
            channel_buffer_size: 4,
            event_buffer_size: 4,
            preferred: Preferred {
                kex: Cow::Borrowed(KEX),
                key: Cow::Borrowed(HOST_KEYS),
                host_key_certificates: Cow::Borrowed(&[]),
                cipher: Cow::Borrowed(CIPHERS),
                mac: Cow::Borrowed(MACS),
                compression: Cow::Borrowed(COMPRESSION),
            },
            // One more than the attempts that the handler grants: the first is mostly `none`.
            max_auth_attempts: handler::MAX_ATTEMPTS + 1,
            // The framework watches the time of every connection.
            inactivity_timeout: None,
            ..Config::default()
        };
        Ok(Self {
            ident,
            accept_after: accept_after(options, &facts),
            facts,
            config: Arc::new(config),
        })
    }
}

/// What OpenSSH of Debian offers.
fn methods() -> MethodSet {
    let mut methods = MethodSet::empty();
    methods.push(MethodKind::PublicKey);
    methods.push(MethodKind::Password);
    methods
}

#[async_trait]
impl Service for Ssh {
    async fn serve(&self, session: &Session, wire: Wire) -> io::Result<()> {
        let mut stream = Buffered::new(wire);
        stream
            .write(format!("{}\r\n", self.ident).as_bytes())
            .await?;
        let ident = match stream.line(MAX_IDENT).await? {
            Read::Whole(line)
                if line.starts_with(b"SSH-2.0-") || line.starts_with(b"SSH-1.99-") =>
            {
                line
            }
            Read::Whole(line) => {
                session.raw("no SSH identification", &line).await;
                let answer: &[u8] = if line.starts_with(b"SSH-") {
                    b"Protocol major versions differ.\r\n"
                } else {
                    b"Invalid SSH identification string.\r\n"
                };
                return stream.write(answer).await;
            }
            Read::TooLong(start) => {
                session.raw("no SSH identification", &start).await;
                return stream
                    .write(b"Invalid SSH identification string.\r\n")
                    .await;
            }
            Read::End(start) => {
                if !start.is_empty() {
                    session.raw("no SSH identification", &start).await;
                }
                return Ok(());
            }
        };
        session.fingerprint("ssh_client", &ident).await;
        let (wire, held) = stream.into_parts();
        let mut replay = ident;
        replay.extend_from_slice(b"\r\n");
        replay.extend_from_slice(&held);
        let tap: Tap = Arc::new(Mutex::new(Some(held)));
        let splice = Splice::new(wire, replay, self.ident.len() + 2, Arc::clone(&tap));
        let handler = Handler::new(
            session.clone(),
            Arc::clone(&self.facts),
            self.accept_after,
            Arc::clone(&tap),
        );
        let ended = match russh::server::run_stream(Arc::clone(&self.config), splice, handler).await
        {
            Ok(running) => running.await,
            Err(error) => Err(error),
        };
        handler::report_hassh(session, &tap).await;
        let ordinary = matches!(
            ended,
            Ok(()) | Err(russh::Error::IO(_) | russh::Error::Disconnect | russh::Error::HUP)
        );
        if !ordinary {
            // The bytes are encrypted by then, or were no key exchange.
            session.raw("a broken SSH message", &[]).await;
        }
        ended.map_err(io::Error::other)
    }
}

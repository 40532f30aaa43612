//! The master's end of the line: TLS with identities, and connections that can be cut.
//!
//! What a peer may do is decided elsewhere: this hands on who it is ([`PeerInfo`]) and makes sure
//! that a host which the allow-list refuses has neither a new connection nor a live one. tonic's
//! own TLS is not used because it has no verifier and no reload.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use domain::id::HostId;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use time::OffsetDateTime;

use crate::bundle::CaBundle;
use crate::ca::MasterLeaf;
use crate::clock::Clock;
use crate::fingerprint::{KeyFingerprint, Serial};

mod connection;
mod listen;
mod registry;
mod verifier;

#[cfg(test)]
mod tests;

pub use connection::Connection;
pub use listen::{AcceptLimits, accept_loop};
pub use registry::Connections;

use verifier::HostVerifier;

/// How long past its end a certificate still opens a connection, which may be used to renew it and
/// for nothing else ([`HostPeer::expired`]).
pub const RENEWABLE_AFTER_EXPIRY: time::Duration = time::Duration::days(30);

/// How long a connection without a valid certificate may last: one enrollment or one renewal.
pub const UNPROVEN_LIFE: Duration = Duration::from_secs(60);

/// What the allow-list says about a host with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may work.
    Allowed,
    /// It was removed and left a tombstone: it may connect only to be told that nothing is wanted
    /// of it and to report that it is empty.
    Removed,
    /// It may not connect: unknown, revoked, or with a key that is not its own.
    Refused,
}

/// Who may connect. Consulted during handshakes, so it must answer from memory.
pub trait AllowList: Send + Sync {
    /// What this host with this key may do at this moment.
    fn standing(&self, host: HostId, key: &KeyFingerprint) -> Standing;
}

/// Who is at the other end of a connection: a tonic request extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Where it comes from.
    pub address: SocketAddr,
    /// The host, if it showed a certificate.
    pub host: Option<HostPeer>,
}

/// A host that proved its key when it connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPeer {
    /// Which host.
    pub id: HostId,
    /// The key that it proved.
    pub key: KeyFingerprint,
    /// The certificate that it showed.
    pub serial: Serial,
    /// The last second in which that certificate is valid.
    pub not_after: OffsetDateTime,
    /// Whether that second had passed: it may renew, and do nothing else.
    pub expired: bool,
    /// What the allow-list said when it connected; for anything that matters, ask again.
    pub standing: Standing,
}

/// The master's TLS configuration: swapped while connections are live.
pub struct ServerTls {
    current: RwLock<Arc<ServerConfig>>,
    allow: Arc<dyn AllowList>,
    clock: Clock,
}

/// Why a configuration was not taken. The previous one, if any, stands.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// The roots cannot be used.
    #[error("could not trust the CA bundle")]
    Bundle {
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// No verifier can be made of the roots.
    #[error("could not make a verifier of host certificates")]
    Verifier {
        /// What rustls says.
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
    /// The provider does not speak TLS 1.3.
    #[error("could not require TLS 1.3")]
    Version {
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// The leaf and its key cannot be used.
    #[error("could not use the master certificate")]
    Leaf {
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
}

impl ServerTls {
    /// Makes the configuration for a leaf and the roots of the hosts.
    pub fn new(
        leaf: MasterLeaf,
        bundle: &CaBundle,
        allow: Arc<dyn AllowList>,
        clock: Clock,
    ) -> Result<Self, ServerTlsError> {
        let current = configure(leaf, bundle, &allow, &clock)?;
        Ok(Self {
            current: RwLock::new(Arc::new(current)),
            allow,
            clock,
        })
    }

    /// Puts another leaf and other roots in place for the handshakes from here on. Live connections
    /// are untouched.
    pub fn swap(&self, leaf: MasterLeaf, bundle: &CaBundle) -> Result<(), ServerTlsError> {
        let next = Arc::new(configure(leaf, bundle, &self.allow, &self.clock)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

fn configure(
    leaf: MasterLeaf,
    bundle: &CaBundle,
    allow: &Arc<dyn AllowList>,
    clock: &Clock,
) -> Result<ServerConfig, ServerTlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = HostVerifier::new(bundle, &provider, Arc::clone(allow), Arc::clone(clock))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| ServerTlsError::Version { source })?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(vec![leaf.certificate, leaf.issuer], leaf.key)
        .map_err(|source| ServerTlsError::Leaf { source })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session is not shown to the verifier: a revoked host would come back on a ticket.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

//! The agent's end of the line: dials the master, and says why when that fails.
//!
//! When to try again is the agent's business; nothing here retries or reconnects.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::bundle::CaBundle;
use crate::clock::Clock;
use crate::fingerprint::SpkiPin;
use crate::identity::files::HostIdentity;

mod address;
mod channel;
mod error;
mod stream;
mod verifier;

#[cfg(test)]
mod tests;

pub use address::{DEFAULT_PORT, InvalidMasterAddress, MasterAddress};
pub use channel::{ChannelError, channel_over};
pub use error::{ConnectError, RefusedByMaster, refusal_of};
pub use stream::{MasterStream, RefusalWatch};
pub use verifier::RefusedMaster;

use verifier::MasterVerifier;

/// How long one address may take to accept a TCP connection.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long looking up a name, and after it the TLS handshake, may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// By what the master is known.
///
/// In both cases the master must show a certificate of the role `decnet://master`, and the name
/// that was dialled is **not** compared with the names in it: only the fleet's own CA gives that
/// role, and it gives it to the master alone, so the name would add nothing, while it would cut off
/// every host on the day the master's advertised address changes.
#[derive(Clone)]
pub enum Trust {
    /// To join: by the key of its CA. The master sends its CA's certificate with its own, and that
    /// one must have this key and have signed the leaf. Time is not checked, because a fresh host's
    /// clock may stand at 1970.
    Pin(SpkiPin),
    /// Afterwards: by the roots that the host was given.
    Bundle {
        /// The roots.
        bundle: CaBundle,
        /// The host's own clock.
        clock: Clock,
        /// How far the master's clock was ahead of it when they last spoke. The certificate must be
        /// valid by one clock or by the other: neither alone may lock a host out.
        skew: time::Duration,
    },
}

/// Dials with one trust and one identity. Make a new one when either changes.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
}

/// Why a trust and an identity make no connector.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// The provider does not speak TLS 1.3.
    #[error("could not require TLS 1.3")]
    Version {
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// The roots cannot be used.
    #[error("could not trust the CA bundle")]
    Bundle {
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// The host's certificate and key cannot be used.
    #[error("could not use the host's certificate")]
    Identity {
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
}

impl Connector {
    /// Prepares to dial: without an identity to join, with one for everything else.
    pub fn new(trust: Trust, identity: Option<&HostIdentity>) -> Result<Self, ConnectorError> {
        let client = identity.map(|identity| {
            let leaf = CertificateDer::from(identity.certificate_der().to_vec());
            (leaf, identity.key().to_rustls())
        });
        Self::with_client(trust, client)
    }

    /// With any certificate at all: a test must be able to be the wrong client.
    pub(crate) fn with_client(
        trust: Trust,
        client: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> Result<Self, ConnectorError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = MasterVerifier::new(trust, provider.signature_verification_algorithms)
            .map_err(|source| ConnectorError::Bundle { source })?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|source| ConnectorError::Version { source })?
            .dangerous() // The name for "own verifier"; it checks more than the usual one.
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some((leaf, key)) => builder
                .with_client_auth_cert(vec![leaf], key)
                .map_err(|source| ConnectorError::Identity { source })?,
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        // The name is not checked, so it need not travel in clear text either.
        config.enable_sni = false;
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// The client that this one is not: it keeps sessions and would resume them.
    #[cfg(test)]
    pub(crate) fn that_resumes(&self) -> Self {
        let mut config = ClientConfig::clone(self.tls.config());
        config.resumption = Resumption::in_memory_sessions(8);
        Self {
            tls: TlsConnector::from(Arc::new(config)),
        }
    }

    /// Connects once. Every address that the name resolves to is tried, in turn.
    ///
    /// A master that refuses the host's certificate is mostly **not** an error here: in TLS 1.3
    /// the client is done before the server has looked at it. The refusal comes with the first
    /// read; see [`MasterStream::refusal`] and [`refusal_of`].
    pub async fn connect(&self, master: &MasterAddress) -> Result<MasterStream, ConnectError> {
        let (tcp, socket) = dial(master).await?;
        let name = ServerName::IpAddress(socket.ip().into());
        match timeout(STEP_TIMEOUT, self.tls.connect(name, tcp)).await {
            Err(_) => Err(ConnectError::Timeout {
                master: master.clone(),
                during: "TLS",
            }),
            Ok(Err(error)) => Err(ConnectError::from_handshake(master, error)),
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() != Some(b"h2") => {
                Err(ConnectError::NotMaster {
                    master: master.clone(),
                    source: None,
                })
            }
            Ok(Ok(stream)) => Ok(MasterStream::new(stream)),
        }
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

async fn dial(master: &MasterAddress) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let resolve = tokio::net::lookup_host((master.host(), master.port()));
    let addresses = timeout(STEP_TIMEOUT, resolve)
        .await
        .map_err(|_| ConnectError::Timeout {
            master: master.clone(),
            during: "name lookup",
        })?
        .map_err(|source| ConnectError::Resolve {
            master: master.clone(),
            source: Some(source),
        })?;
    let mut last = ConnectError::Resolve {
        master: master.clone(),
        source: None,
    };
    for address in addresses {
        match timeout(TCP_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Heartbeats are small and must not wait for company.
                if let Err(error) = tcp.set_nodelay(true) {
                    tracing::debug!(%error, "could not set TCP_NODELAY");
                }
                return Ok((tcp, address));
            }
            Ok(Err(source)) => last = ConnectError::from_dial(master, address, source),
            Err(_) => {
                last = ConnectError::Timeout {
                    master: master.clone(),
                    during: "TCP connect",
                };
            }
        }
    }
    Err(last)
}

//! Decides in the handshake whether a client certificate may connect.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;

use super::{AllowList, RENEWABLE_AFTER_EXPIRY, ServerTlsError, Standing};
use crate::bundle::CaBundle;
use crate::clock::{Clock, unix_time};
use crate::identity::{PeerCertificate, Role};

/// webpki checks the chain; this adds the role, the renewal window and the allow-list.
pub(super) struct HostVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    allow: Arc<dyn AllowList>,
    clock: Clock,
}

impl HostVerifier {
    pub(super) fn new(
        bundle: &CaBundle,
        provider: &Arc<CryptoProvider>,
        allow: Arc<dyn AllowList>,
        clock: Clock,
    ) -> Result<Self, ServerTlsError> {
        let roots = bundle
            .root_store()
            .map_err(|source| ServerTlsError::Bundle { source })?;
        let chain =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .allow_unauthenticated()
                .build()
                .map_err(|source| ServerTlsError::Verifier { source })?;
        Ok(Self {
            chain,
            allow,
            clock,
        })
    }

    fn verify(&self, leaf: &CertificateDer<'_>) -> Result<(), CertificateError> {
        let peer = PeerCertificate::parse(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let Role::Host(host) = peer.role() else {
            return Err(CertificateError::InvalidPurpose);
        };
        let at = unix_time(instant_to_verify_at(&peer, (self.clock)()));
        // Without the intermediates that the peer sent: our CA signs leaves only.
        self.chain
            .verify_client_cert(leaf, &[], at)
            .map_err(|error| {
                if let rustls::Error::InvalidCertificate(error) = error {
                    error
                } else {
                    CertificateError::BadEncoding
                }
            })?;
        match self.allow.standing(host, &peer.key()) {
            Standing::Allowed | Standing::Removed => Ok(()),
            Standing::Refused => Err(CertificateError::Revoked),
        }
    }
}

/// Within the renewal window an expired certificate is looked at as of its last second.
fn instant_to_verify_at(peer: &PeerCertificate, now: OffsetDateTime) -> OffsetDateTime {
    let late = now - peer.not_after();
    if late.is_positive() && late <= RENEWABLE_AFTER_EXPIRY {
        peer.not_after()
    } else {
        now
    }
}

impl ClientCertVerifier for HostVerifier {
    /// A host that has not joined has none.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: a host has one certificate, and a stranger need not learn our names.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity).map_err(|error| {
            tracing::debug!(?error, "client certificate refused");
            rustls::Error::InvalidCertificate(error)
        })?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

impl fmt::Debug for HostVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostVerifier").finish_non_exhaustive()
    }
}

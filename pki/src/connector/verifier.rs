//! Decides in the handshake whether the other end is our master.

use std::fmt;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use time::OffsetDateTime;

use super::Trust;
use crate::bundle::pin_of;
use crate::clock::{Clock, unix_time};
use crate::fingerprint::SpkiPin;
use crate::identity::{InvalidPeer, PeerCertificate, Role};

/// Why a server is not our master.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedMaster {
    /// Its CA is not the pinned one, or did not sign its certificate.
    #[error("its CA does not have the pinned key {expected}")]
    WrongPin {
        /// The pin of the token.
        expected: SpkiPin,
    },
    /// None of our roots signed its certificate.
    #[error("its certificate is not signed by this fleet's CA")]
    Untrusted,
    /// Its certificate is right, but not now: neither by the local clock nor by the master's as
    /// last heard.
    #[error("its certificate is valid from {not_before} to {not_after}, and here it is {now}")]
    Clock {
        /// The local time.
        now: OffsetDateTime,
        /// The first second of its certificate.
        not_before: OffsetDateTime,
        /// The last second of its certificate.
        not_after: OffsetDateTime,
    },
    /// Its certificate is a host's: an enrolled machine that plays the master.
    #[error("its certificate is that of {role}")]
    NotMaster {
        /// The role that it does have.
        role: Role,
    },
    /// Its certificate names no role of ours.
    #[error("its certificate is none of ours")]
    Invalid {
        /// Why.
        #[source]
        source: InvalidPeer,
    },
}

/// Looks at the master's chain as its trust says.
pub(super) struct MasterVerifier {
    known: Known,
    algorithms: WebPkiSupportedAlgorithms,
}

enum Known {
    Pin(SpkiPin),
    Roots {
        roots: RootCertStore,
        clock: Clock,
        skew: time::Duration,
    },
}

impl MasterVerifier {
    pub(super) fn new(
        trust: Trust,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Self, rustls::Error> {
        let known = match trust {
            Trust::Pin(pin) => Known::Pin(pin),
            Trust::Bundle {
                bundle,
                clock,
                skew,
            } => Known::Roots {
                roots: bundle.root_store()?,
                clock,
                skew,
            },
        };
        Ok(Self { known, algorithms })
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<(), RefusedMaster> {
        match &self.known {
            Known::Pin(pin) => self.verify_pinned(*pin, leaf, others),
            Known::Roots { roots, clock, skew } => self.verify_rooted(roots, clock(), *skew, leaf),
        }
    }

    /// The pin is looked at first: with another CA, nothing else about the peer is of interest.
    fn verify_pinned(
        &self,
        pin: SpkiPin,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<(), RefusedMaster> {
        let wrong = || RefusedMaster::WrongPin { expected: pin };
        let root = others
            .iter()
            .find(|other| pin_of(other) == Some(pin))
            .ok_or_else(wrong)?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned()).map_err(|_| wrong())?;
        let peer = master(leaf)?;
        // Anyone can show the CA's certificate; only the master can show a leaf that it signed. The
        // instant is one at which the leaf is valid: time is not what is checked here.
        self.check_chain(leaf, &roots, unix_time(peer.not_before()))
            .map_err(|_| wrong())
    }

    fn verify_rooted(
        &self,
        roots: &RootCertStore,
        now: OffsetDateTime,
        skew: time::Duration,
        leaf: &CertificateDer<'_>,
    ) -> Result<(), RefusedMaster> {
        let peer = master(leaf)?;
        let theirs = now.saturating_add(skew);
        let valid = |at| peer.not_before() <= at && at <= peer.not_after();
        // The signature first: whether a stranger's certificate is valid in time does not matter.
        self.check_chain(leaf, roots, unix_time(peer.not_before()))
            .map_err(|_| RefusedMaster::Untrusted)?;
        if valid(now) || valid(theirs) {
            return Ok(());
        }
        Err(RefusedMaster::Clock {
            now,
            not_before: peer.not_before(),
            not_after: peer.not_after(),
        })
    }

    /// Signature and purpose, as of an instant. Without the other certificates that the peer sent:
    /// our CA signs leaves only, and its own certificate is already the anchor.
    fn check_chain(
        &self,
        leaf: &CertificateDer<'_>,
        roots: &RootCertStore,
        at: UnixTime,
    ) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, &[], at, self.algorithms.all)
    }
}

fn master(leaf: &CertificateDer<'_>) -> Result<PeerCertificate, RefusedMaster> {
    let peer = PeerCertificate::parse(leaf).map_err(|source| RefusedMaster::Invalid { source })?;
    match peer.role() {
        Role::Master => Ok(peer),
        role @ Role::Host(_) => Err(RefusedMaster::NotMaster { role }),
    }
}

impl ServerCertVerifier for MasterVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates).map_err(|refused| {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(
                std::sync::Arc::new(refused),
            )))
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for MasterVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterVerifier").finish_non_exhaustive()
    }
}

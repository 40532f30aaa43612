//! A host's key: made on the host, never sent; and the request that asks for its certificate.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize, Zeroizing};

use crate::fingerprint::KeyFingerprint;

/// The private key (P-256) of a host. Its bytes are wiped when it is dropped; the copies that
/// ring keeps inside a TLS configuration are not in our hands.
pub struct HostKey {
    pair: KeyPair,
}

/// Why no key was made: the system's source of randomness failed.
#[derive(Debug, thiserror::Error)]
#[error("could not make a key")]
pub struct GenerateKeyError {
    #[source]
    source: rcgen::Error,
}

/// Why no request was made.
#[derive(Debug, thiserror::Error)]
#[error("could not sign the certificate request")]
pub struct RequestError {
    #[source]
    source: rcgen::Error,
}

/// Bytes that are not a P-256 private key in PKCS#8.
#[derive(Debug, thiserror::Error)]
#[error("not a P-256 private key in PKCS#8")]
pub struct InvalidKey {
    #[source]
    source: rcgen::Error,
}

impl HostKey {
    /// Makes a fresh key.
    pub fn generate() -> Result<Self, GenerateKeyError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|source| GenerateKeyError { source })?;
        Ok(Self { pair })
    }

    /// The request for a certificate. It names nothing: the master takes the public key from it
    /// and decides the rest.
    pub fn csr_der(&self) -> Result<Vec<u8>, RequestError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params
            .serialize_request(&self.pair)
            .map_err(|source| RequestError { source })?;
        Ok(request.der().to_vec())
    }

    /// What the master will know this key by.
    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint::of_spki(&self.pair.subject_public_key_info())
    }

    /// The key for its file, and for nothing else.
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.pair.serialize_der())
    }

    /// Reads a key from its file's content.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, InvalidKey> {
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(der),
            &PKCS_ECDSA_P256_SHA256,
        )
        .map_err(|source| InvalidKey { source })?;
        Ok(Self { pair })
    }

    pub(crate) fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pair.serialize_der()).into()
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey({})", self.fingerprint())
    }
}

impl Drop for HostKey {
    fn drop(&mut self) {
        self.pair.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_its_file_form() {
        let key = HostKey::generate().expect("randomness");
        let again = HostKey::from_pkcs8(&key.to_pkcs8()).expect("written by us");
        assert_eq!(again.fingerprint(), key.fingerprint());
    }

    #[test]
    fn the_debug_form_tells_nothing_private() {
        let key = HostKey::generate().expect("randomness");
        assert_eq!(
            format!("{key:?}"),
            format!("HostKey({})", key.fingerprint())
        );
    }

    #[test]
    fn refuses_a_key_that_is_not_p256() {
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("randomness");
        let refused = HostKey::from_pkcs8(&other.serialize_der()).expect_err("not P-256");
        assert_eq!(refused.to_string(), "not a P-256 private key in PKCS#8");
    }
}

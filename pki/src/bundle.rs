//! The roots that a peer trusts: one CA, or two while the CA is being rotated.

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;

use crate::fingerprint::SpkiPin;
use crate::pem;

/// Root certificates, at least one, no two alike, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaBundle {
    roots: Vec<CertificateDer<'static>>,
}

/// Why certificates are no bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBundle {
    /// No certificate at all: trusting nobody is never meant.
    #[error("the CA bundle is empty")]
    Empty,
    /// More than [`CaBundle::MAX_ROOTS`].
    #[error("the CA bundle has more than {} roots", CaBundle::MAX_ROOTS)]
    TooMany,
    /// The text is not PEM.
    #[error("the CA bundle is not PEM")]
    NotPem,
    /// This one (counted from 0) is not a certificate.
    #[error("entry {index} of the CA bundle is not a certificate")]
    Malformed {
        /// Its place, from 0.
        index: usize,
    },
    /// This one (counted from 0) may not sign certificates.
    #[error("entry {index} of the CA bundle is not a certificate authority")]
    NotAuthority {
        /// Its place, from 0.
        index: usize,
    },
}

impl CaBundle {
    /// A rotation needs two; the cap keeps a hostile answer small.
    pub const MAX_ROOTS: usize = 8;

    /// Reads roots as they travel on the wire.
    pub fn from_der_list(
        list: impl IntoIterator<Item = impl Into<Vec<u8>>>,
    ) -> Result<Self, InvalidBundle> {
        let mut roots: Vec<CertificateDer<'static>> = Vec::new();
        for (index, der) in list.into_iter().enumerate() {
            let der = CertificateDer::from(der.into());
            check_authority(&der, index)?;
            if roots.contains(&der) {
                continue;
            }
            if roots.len() == Self::MAX_ROOTS {
                return Err(InvalidBundle::TooMany);
            }
            roots.push(der);
        }
        if roots.is_empty() {
            return Err(InvalidBundle::Empty);
        }
        Ok(Self { roots })
    }

    /// Reads roots as they stand in a file.
    pub fn from_pem(text: &str) -> Result<Self, InvalidBundle> {
        let list = pem::certificates(text).ok_or(InvalidBundle::NotPem)?;
        Self::from_der_list(list.iter().map(|root| root.to_vec()))
    }

    /// The roots for a file.
    pub fn to_pem(&self) -> String {
        self.roots
            .iter()
            .map(|root| pem::certificate(root))
            .collect()
    }

    /// The roots for the wire, in DER.
    pub fn der_list(&self) -> Vec<Vec<u8>> {
        self.roots.iter().map(|root| root.to_vec()).collect()
    }

    /// This bundle's roots and the other's: what everyone trusts while a CA is being rotated.
    pub fn merged(&self, other: &Self) -> Result<Self, InvalidBundle> {
        Self::from_der_list(self.der_list().into_iter().chain(other.der_list()))
    }

    /// Whether a root has the pinned key. An agent asks this of the bundle that enrollment gave it.
    pub fn contains(&self, pin: &SpkiPin) -> bool {
        self.roots
            .iter()
            .any(|root| pin_of(root).as_ref() == Some(pin))
    }

    pub(crate) fn root_store(&self) -> Result<RootCertStore, rustls::Error> {
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            store.add(root.clone())?;
        }
        Ok(store)
    }
}

/// The pin of a certificate's key; `None` if it is not a certificate.
pub(crate) fn pin_of(certificate_der: &[u8]) -> Option<SpkiPin> {
    let (_, certificate) = parse_x509_certificate(certificate_der).ok()?;
    Some(SpkiPin::of_spki(certificate.public_key().raw))
}

fn check_authority(der: &[u8], index: usize) -> Result<(), InvalidBundle> {
    let (rest, certificate) =
        parse_x509_certificate(der).map_err(|_| InvalidBundle::Malformed { index })?;
    if !rest.is_empty() {
        return Err(InvalidBundle::Malformed { index });
    }
    if !certificate.is_ca() {
        return Err(InvalidBundle::NotAuthority { index });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{NOW, authority, host_id, host_identity};

    #[test]
    fn a_bundle_reads_back_from_pem_and_from_der() {
        let both = authority()
            .bundle()
            .merged(&authority().bundle())
            .expect("two roots");
        assert_eq!(CaBundle::from_pem(&both.to_pem()), Ok(both.clone()));
        assert_eq!(CaBundle::from_der_list(both.der_list()), Ok(both));
    }

    #[test]
    fn the_same_root_twice_is_one_root() {
        let bundle = authority().bundle();
        assert_eq!(bundle.merged(&bundle), Ok(bundle));
    }

    #[test]
    fn refuses_nothing_garbage_and_leaves() {
        let ca = authority();
        let leaf = host_identity(&ca, host_id(1), NOW)
            .certificate_der()
            .to_vec();
        assert_eq!(CaBundle::from_pem(""), Err(InvalidBundle::Empty));
        assert_eq!(
            CaBundle::from_der_list([b"garbage".to_vec()]),
            Err(InvalidBundle::Malformed { index: 0 })
        );
        let list = [ca.bundle().der_list().concat(), leaf];
        assert_eq!(
            CaBundle::from_der_list(list),
            Err(InvalidBundle::NotAuthority { index: 1 })
        );
    }

    #[test]
    fn knows_its_own_pin_only() {
        let (ca, other) = (authority(), authority());
        assert!(ca.bundle().contains(&ca.pin()));
        assert!(!ca.bundle().contains(&other.pin()));
    }
}

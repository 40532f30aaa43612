//! Reading who a certificate speaks for.
//!
//! Whether it is signed by anyone we trust is for the TLS verifiers to check, and whether that
//! host may do anything is for the allow-list.

use std::fmt;

use domain::id::HostId;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::fingerprint::{KeyFingerprint, Serial};

pub mod files;

#[cfg(test)]
mod tests;

const HOST_URI: &str = "decnet://host/";
const MASTER_URI: &str = "decnet://master";

/// What a certificate is for. Its text is the URI in the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A client: this host.
    Host(HostId),
    /// The server.
    Master,
}

/// A certificate that names exactly one role and may be used for exactly that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    role: Role,
    key: KeyFingerprint,
    serial: Serial,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

/// Why a certificate speaks for nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPeer {
    /// Not a certificate, or one with broken extensions.
    #[error("the certificate is malformed")]
    Malformed,
    /// It may sign others.
    #[error("the certificate is a certificate authority")]
    Authority,
    /// Its serial is not one that our CA gives.
    #[error("the certificate has a foreign serial number")]
    Serial,
    /// No URI.
    #[error("the certificate names no role")]
    NoRole,
    /// More than one URI.
    #[error("the certificate names more than one role")]
    ManyRoles,
    /// A URI that we do not write.
    #[error("the certificate names an unknown role")]
    UnknownRole,
    /// Its extended key usage is not exactly that of its role.
    #[error("the certificate's usage does not fit its role {role}")]
    Usage {
        /// The role that it names.
        role: Role,
    },
}

impl PeerCertificate {
    /// Reads a certificate in DER.
    pub fn parse(der: &[u8]) -> Result<Self, InvalidPeer> {
        let (rest, certificate) =
            parse_x509_certificate(der).map_err(|_| InvalidPeer::Malformed)?;
        if !rest.is_empty() {
            return Err(InvalidPeer::Malformed);
        }
        let constraints = certificate
            .basic_constraints()
            .map_err(|_| InvalidPeer::Malformed)?;
        if constraints.is_some_and(|constraints| constraints.value.ca) {
            return Err(InvalidPeer::Authority);
        }
        let serial =
            <[u8; 16]>::try_from(certificate.raw_serial()).map_err(|_| InvalidPeer::Serial)?;
        let role = role(&certificate)?;
        check_usage(&certificate, role)?;
        Ok(Self {
            role,
            key: KeyFingerprint::of_spki(certificate.public_key().raw),
            serial: Serial::from_bytes(serial),
            not_before: certificate.validity().not_before.to_datetime(),
            not_after: certificate.validity().not_after.to_datetime(),
        })
    }

    /// Whom it speaks for.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The key that it certifies.
    pub const fn key(&self) -> KeyFingerprint {
        self.key
    }

    /// Its number.
    pub const fn serial(&self) -> Serial {
        self.serial
    }

    /// The first second in which it is valid.
    pub const fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// The last second in which it is valid.
    pub const fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "{HOST_URI}{host}"),
            Self::Master => f.write_str(MASTER_URI),
        }
    }
}

/// Any URI at all counts, ours or not: a certificate of ours has exactly one.
fn role(certificate: &X509Certificate<'_>) -> Result<Role, InvalidPeer> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| InvalidPeer::Malformed)?;
    let mut uris = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| {
            if let GeneralName::URI(uri) = name {
                Some(*uri)
            } else {
                None
            }
        });
    let uri = uris.next().ok_or(InvalidPeer::NoRole)?;
    if uris.next().is_some() {
        return Err(InvalidPeer::ManyRoles);
    }
    if uri == MASTER_URI {
        return Ok(Role::Master);
    }
    let host = uri.strip_prefix(HOST_URI).ok_or(InvalidPeer::UnknownRole)?;
    let role = Role::Host(host.parse().map_err(|_| InvalidPeer::UnknownRole)?);
    // One spelling only: otherwise two texts would be one host.
    if role.to_string() == uri {
        Ok(role)
    } else {
        Err(InvalidPeer::UnknownRole)
    }
}

fn check_usage(certificate: &X509Certificate<'_>, role: Role) -> Result<(), InvalidPeer> {
    let refused = InvalidPeer::Usage { role };
    let usage = certificate
        .extended_key_usage()
        .map_err(|_| InvalidPeer::Malformed)?
        .ok_or(refused)?
        .value;
    let other = usage.any
        || usage.code_signing
        || usage.email_protection
        || usage.time_stamping
        || usage.ocsp_signing
        || !usage.other.is_empty();
    let fits = match role {
        Role::Host(_) => usage.client_auth && !usage.server_auth,
        Role::Master => usage.server_auth && !usage.client_auth,
    };
    if fits && !other { Ok(()) } else { Err(refused) }
}

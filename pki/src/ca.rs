//! The certificate authority: its key, its files, and the two kinds of leaf that it issues.
//!
//! Whether a host may have a certificate is decided by who calls; nothing here knows tokens.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use std::{fs, io};

use domain::id::HostId;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, DnsName, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::bundle::CaBundle;
use crate::file::{WriteFileError, write_private, write_public};
use crate::fingerprint::{KeyFingerprint, Serial, SpkiPin};
use crate::identity::{InvalidPeer, PeerCertificate, Role};
use crate::pem;

#[cfg(test)]
mod tests;

/// A request of ours is under 300 bytes; whatever is longer is not ours.
pub const MAX_CSR: usize = 4 * 1024;

const KEY_FILE: &str = "ca.key";
const CERTIFICATE_FILE: &str = "ca.pem";
const CA_LIFE: time::Duration = time::Duration::days(10 * 365);
/// The CA is valid from a day before it was made, and with it every master leaf: a host whose
/// clock is behind by hours still accepts the master.
const CA_BACKDATED: time::Duration = time::Duration::days(1);
const HOST_BACKDATED: time::Duration = time::Duration::minutes(5);

/// The one CA of a fleet (ECDSA P-256). Its key stays in the master.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    not_before: OffsetDateTime,
    pin: SpkiPin,
    bundle: CaBundle,
}

/// A certificate for a host; the host has the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedLeaf {
    /// What to send to the host.
    pub certificate_der: Vec<u8>,
    /// What the audit log names.
    pub serial: Serial,
    /// What the allow-list holds.
    pub key: KeyFingerprint,
    /// The last second in which it is valid.
    pub not_after: OffsetDateTime,
}

/// A certificate for the master, with its key, made for one [`crate::acceptor::ServerTls`].
pub struct MasterLeaf {
    pub(crate) certificate: CertificateDer<'static>,
    /// Sent behind the leaf: a joining host has only the pin and must see the key it pins.
    pub(crate) issuer: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    serial: Serial,
    not_after: OffsetDateTime,
}

/// A name under which the master is reached. Agents do not check it (see
/// [`crate::connector::Trust`]); it is there for other tools and for people.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MasterName {
    /// A DNS name.
    Dns(DnsName<'static>),
    /// An address.
    Ip(IpAddr),
}

/// A text that is neither an address nor a DNS name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is neither an IP address nor a DNS name")]
pub struct InvalidMasterName {
    text: String,
}

/// Why the CA was neither made nor loaded. Nothing on disk was overwritten.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The system gave no randomness, or a certificate could not be encoded.
    #[error("could not make a certificate authority")]
    Create {
        /// What rcgen says.
        #[source]
        source: rcgen::Error,
    },
    /// The time is so far off that a validity cannot be computed.
    #[error("could not make a certificate authority at the time {now}")]
    Time {
        /// The time that was given.
        now: OffsetDateTime,
    },
    /// One of the two files cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One of the two files cannot be written.
    #[error("could not store the certificate authority")]
    Write {
        /// Which, and why.
        #[source]
        source: WriteFileError,
    },
    /// The key is there, the certificate is not: restore it, or remove the key if no host has
    /// joined yet.
    #[error("{} has {KEY_FILE} but no {CERTIFICATE_FILE}", directory.display())]
    KeyWithoutCertificate {
        /// Where.
        directory: PathBuf,
    },
    /// The certificate is there, the key is not: restore it. A new CA would orphan every host.
    #[error("{} has {CERTIFICATE_FILE} but no {KEY_FILE}", directory.display())]
    CertificateWithoutKey {
        /// Where.
        directory: PathBuf,
    },
    /// The key file has something else in it.
    #[error("{} is not a P-256 private key", path.display())]
    MalformedKey {
        /// Which file.
        path: PathBuf,
        /// What rcgen says.
        #[source]
        source: rcgen::Error,
    },
    /// The certificate file has something else in it.
    #[error("{} is not one CA certificate", path.display())]
    MalformedCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// The two files belong to two authorities.
    #[error("{KEY_FILE} and {CERTIFICATE_FILE} in {} do not belong together", directory.display())]
    Mismatch {
        /// Where.
        directory: PathBuf,
    },
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Longer than [`MAX_CSR`].
    #[error("the certificate request has {size} bytes, at most {MAX_CSR} are taken")]
    TooLong {
        /// How long it is.
        size: usize,
    },
    /// Not a request.
    #[error("the certificate request is malformed")]
    MalformedRequest,
    /// The sender does not have the key it asks a certificate for.
    #[error("the certificate request is not signed by its own key")]
    BadSignature,
    /// A key that is not P-256.
    #[error("the certificate request has a key that is not P-256")]
    UnsupportedKey,
    /// The time plus the life is beyond the calendar.
    #[error("a life of {life:?} from {now} cannot be expressed")]
    Life {
        /// The time that was given.
        now: OffsetDateTime,
        /// The life that was given.
        life: Duration,
    },
    /// The system gave no randomness, or a certificate could not be encoded.
    #[error("could not sign a certificate for {role}")]
    Sign {
        /// For whom.
        role: Role,
        /// What rcgen says.
        #[source]
        source: rcgen::Error,
    },
    /// A bug: what was issued would not be accepted.
    #[error("issued a certificate that would not be accepted")]
    Unusable {
        /// Why not.
        #[source]
        source: InvalidPeer,
    },
}

// === impl CertificateAuthority ===

impl CertificateAuthority {
    /// Makes a new CA in memory: valid for ten years, from a day ago, for leaves only.
    pub fn create(now: OffsetDateTime) -> Result<Self, CaError> {
        let failed = |source| CaError::Create { source };
        let serial = random_serial();
        let name = hex::encode(&serial.as_bytes()[..4]);
        let (not_before, not_after) = whole_seconds(now)
            .checked_sub(CA_BACKDATED)
            .and_then(|from| Some((from, from.checked_add(CA_LIFE)?)))
            .ok_or(CaError::Time { now })?;
        let mut params = CertificateParams::default();
        // Part of the serial, so that two roots of one bundle can be told apart.
        params.distinguished_name = common_name(&format!("DECNET CA {name}"));
        params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
        params.not_before = not_before;
        params.not_after = not_after;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        Self::assemble(certificate.der().clone(), key)
            .ok_or_else(|| failed(rcgen::Error::CouldNotParseCertificate))
    }

    /// Loads the CA of this directory, or makes one there if it has neither of the two files.
    pub fn load_or_create(directory: &Path, now: OffsetDateTime) -> Result<Self, CaError> {
        let (key_path, path) = (directory.join(KEY_FILE), directory.join(CERTIFICATE_FILE));
        match (read(&key_path)?, read(&path)?) {
            (Some(key), Some(certificate)) => Self::load(directory, &key, &certificate),
            (Some(key), None) => {
                // Killed between the two files at the first start: the key file has both.
                let copy = std::str::from_utf8(&key)
                    .ok()
                    .and_then(pem::certificates)
                    .and_then(|list| list.into_iter().next())
                    .ok_or_else(|| CaError::KeyWithoutCertificate {
                        directory: directory.to_owned(),
                    })?;
                let copy = pem::certificate(&copy);
                let loaded = Self::load(directory, &key, copy.as_bytes())?;
                write_public(&path, copy.as_bytes()).map_err(|source| CaError::Write { source })?;
                Ok(loaded)
            }
            (None, Some(_)) => Err(CaError::CertificateWithoutKey {
                directory: directory.to_owned(),
            }),
            (None, None) => {
                let made = Self::create(now)?;
                let failed = |source| CaError::Write { source };
                let certificate = pem::certificate(&made.certificate);
                // The key file holds the certificate too, so that one rename makes the whole CA.
                let key = Zeroizing::new(made.issuer.key().serialize_pem() + &certificate);
                write_private(&key_path, key.as_bytes()).map_err(failed)?;
                write_public(&path, certificate.as_bytes()).map_err(failed)?;
                Ok(made)
            }
        }
    }

    /// The roots that hosts of this CA trust.
    pub fn bundle(&self) -> CaBundle {
        self.bundle.clone()
    }

    /// What join tokens pin.
    pub fn pin(&self) -> SpkiPin {
        self.pin
    }

    /// Issues a host's certificate. Of the request only the public key is used: every name, usage
    /// and extension in it is the requester's wish and is dropped unread.
    pub fn issue_host(
        &self,
        csr_der: &[u8],
        host: HostId,
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<IssuedLeaf, IssueError> {
        let key = requested_key(csr_der)?;
        let role = Role::Host(host);
        let now = whole_seconds(now);
        let from = now
            .checked_sub(HOST_BACKDATED)
            .ok_or(IssueError::Life { now, life })?;
        let params = leaf_params(role, &[], from, not_after(now, life)?)?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(|source| IssueError::Sign { role, source })?;
        let issued = PeerCertificate::parse(certificate.der())
            .map_err(|source| IssueError::Unusable { source })?;
        Ok(IssuedLeaf {
            certificate_der: certificate.der().to_vec(),
            serial: issued.serial(),
            key: issued.key(),
            not_after: issued.not_after(),
        })
    }

    /// Makes a key and issues the master's certificate for it.
    pub fn issue_master(
        &self,
        names: &[MasterName],
        life: Duration,
        now: OffsetDateTime,
    ) -> Result<MasterLeaf, IssueError> {
        let failed = |source| IssueError::Sign {
            role: Role::Master,
            source,
        };
        let not_after = not_after(whole_seconds(now), life)?;
        let params = leaf_params(Role::Master, names, self.not_before, not_after)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let issued = PeerCertificate::parse(certificate.der())
            .map_err(|source| IssueError::Unusable { source })?;
        Ok(MasterLeaf {
            certificate: certificate.der().clone(),
            issuer: self.certificate.clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            serial: issued.serial(),
            not_after: issued.not_after(),
        })
    }

    /// Signs whatever it is given: the certificates that this module would never make.
    #[cfg(test)]
    pub(crate) fn sign_anything(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> CertificateDer<'static> {
        params
            .signed_by(key, &self.issuer)
            .expect("valid parameters")
            .der()
            .clone()
    }

    fn load(directory: &Path, key: &[u8], certificate: &[u8]) -> Result<Self, CaError> {
        let malformed = || CaError::MalformedCertificate {
            path: directory.join(CERTIFICATE_FILE),
        };
        let key = std::str::from_utf8(key)
            .map_err(|_| rcgen::Error::CouldNotParseKeyPair)
            .and_then(|pem| KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256))
            .map_err(|source| CaError::MalformedKey {
                path: directory.join(KEY_FILE),
                source,
            })?;
        let text = std::str::from_utf8(certificate).map_err(|_| malformed())?;
        let list = pem::certificates(text).ok_or_else(malformed)?;
        let [certificate] = <[_; 1]>::try_from(list).map_err(|_| malformed())?;
        let pin = SpkiPin::of_spki(&key.subject_public_key_info());
        let loaded = Self::assemble(certificate, key).ok_or_else(malformed)?;
        if loaded.pin != pin {
            return Err(CaError::Mismatch {
                directory: directory.to_owned(),
            });
        }
        Ok(loaded)
    }

    /// `None` if it is not a CA certificate. Does not check that the key is the certificate's.
    fn assemble(certificate: CertificateDer<'static>, key: KeyPair) -> Option<Self> {
        let bundle = CaBundle::from_der_list([certificate.to_vec()]).ok()?;
        let (_, parsed) = parse_x509_certificate(&certificate).ok()?;
        let not_before = parsed.validity().not_before.to_datetime();
        let pin = SpkiPin::of_spki(parsed.public_key().raw);
        let issuer = Issuer::from_ca_cert_der(&certificate, key).ok()?;
        Some(Self {
            issuer,
            certificate,
            not_before,
            pin,
            bundle,
        })
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateAuthority({})", self.pin)
    }
}

// === impl MasterLeaf ===

impl MasterLeaf {
    /// What the audit log names.
    pub const fn serial(&self) -> Serial {
        self.serial
    }

    /// The last second in which it is valid.
    pub const fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }
}

impl fmt::Debug for MasterLeaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterLeaf({}, until {})", self.serial, self.not_after)
    }
}

// === impl MasterName ===

impl FromStr for MasterName {
    type Err = InvalidMasterName;

    fn from_str(text: &str) -> Result<Self, InvalidMasterName> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        DnsName::try_from(text.to_owned())
            .map(Self::Dns)
            .map_err(|_| InvalidMasterName {
                text: text.chars().take(64).collect(),
            })
    }
}

impl fmt::Display for MasterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name.as_ref()),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

/// The public key of a request whose sender has shown that it has the private one.
fn requested_key(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, IssueError> {
    if csr_der.len() > MAX_CSR {
        return Err(IssueError::TooLong {
            size: csr_der.len(),
        });
    }
    // Not rcgen's own reader: that one reads the requested extensions too, and fails on those
    // that it does not know. None of them matters here.
    let (rest, request) =
        X509CertificationRequest::from_der(csr_der).map_err(|_| IssueError::MalformedRequest)?;
    if !rest.is_empty() {
        return Err(IssueError::MalformedRequest);
    }
    let key = &request.certification_request_info.subject_pki;
    let curve = key
        .algorithm
        .parameters
        .as_ref()
        .and_then(|any| any.as_oid().ok());
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return Err(IssueError::UnsupportedKey);
    }
    request
        .verify_signature()
        .map_err(|_| IssueError::BadSignature)?;
    SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| IssueError::UnsupportedKey)
}

fn leaf_params(
    role: Role,
    names: &[MasterName],
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
) -> Result<CertificateParams, IssueError> {
    let text =
        |text: &str| Ia5String::try_from(text).map_err(|source| IssueError::Sign { role, source });
    let mut params = CertificateParams::default();
    params
        .subject_alt_names
        .push(SanType::URI(text(&role.to_string())?));
    for name in names {
        params.subject_alt_names.push(match name {
            MasterName::Dns(name) => SanType::DnsName(text(name.as_ref())?),
            MasterName::Ip(address) => SanType::IpAddress(*address),
        });
    }
    let (subject, usage) = match role {
        Role::Host(host) => (host.to_string(), ExtendedKeyUsagePurpose::ClientAuth),
        Role::Master => (
            "DECNET master".to_owned(),
            ExtendedKeyUsagePurpose::ServerAuth,
        ),
    };
    params.distinguished_name = common_name(&subject);
    params.serial_number = Some(SerialNumber::from_slice(random_serial().as_bytes()));
    params.not_before = not_before;
    params.not_after = not_after;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// A serial is the one thing here that is not reproducible from the parameters: it must never
/// repeat, so no caller is trusted to supply it.
fn random_serial() -> Serial {
    Serial::from_random(rand::random())
}

fn not_after(now: OffsetDateTime, life: Duration) -> Result<OffsetDateTime, IssueError> {
    time::Duration::try_from(life)
        .ok()
        .and_then(|life| now.checked_add(life))
        .map(whole_seconds)
        .ok_or(IssueError::Life { now, life })
}

/// Certificates count in seconds.
fn whole_seconds(at: OffsetDateTime) -> OffsetDateTime {
    at - time::Duration::nanoseconds(i64::from(at.nanosecond()))
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, CaError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CaError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

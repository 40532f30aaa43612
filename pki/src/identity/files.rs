//! A host's identity on its disk: replaced as a whole, or not at all.
//!
//! Key, certificate and roots of one identity stand in two files named by the certificate's
//! serial, and one small pointer says which serial counts. A crash at any point leaves the pointer
//! on a complete old identity or on a complete new one. The roots stand behind the leaf in the same
//! file and not in a third one: after a host has joined another master, its old certificate with
//! the new roots would be as dead as a key without a certificate.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use domain::id::HostId;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::bundle::{CaBundle, InvalidBundle};
use crate::csr::{HostKey, InvalidKey};
use crate::file::{TEMPORARY_SUFFIX, WriteFileError, write_private, write_public};
use crate::fingerprint::{KeyFingerprint, Serial};
use crate::identity::{InvalidPeer, PeerCertificate, Role};
use crate::pem;

const POINTER: &str = "identity.current";
const STEM: &str = "identity-";

/// The directory of an agent's identity.
#[derive(Debug, Clone)]
pub struct IdentityFiles {
    directory: PathBuf,
}

/// Who a host is: its key, the certificate for it, and whom it trusts in return.
#[derive(Debug)]
pub struct HostIdentity {
    host: HostId,
    key: HostKey,
    certificate_der: Vec<u8>,
    leaf: PeerCertificate,
    bundle: CaBundle,
}

/// Why a key and a certificate are no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// The certificate speaks for nobody.
    #[error("the certificate is unusable")]
    Certificate {
        /// Why.
        #[source]
        source: InvalidPeer,
    },
    /// The certificate is the master's.
    #[error("the certificate is not for a host")]
    NotHost,
    /// The certificate is for another key.
    #[error("the certificate is for the key {certified} and not for {key}")]
    OtherKey {
        /// The key in the certificate.
        certified: KeyFingerprint,
        /// The key at hand.
        key: KeyFingerprint,
    },
}

/// Why an identity was not stored. The previous one, if any, still counts.
#[derive(Debug, thiserror::Error)]
#[error("could not store the identity {serial}")]
pub struct SaveIdentityError {
    serial: Serial,
    #[source]
    source: WriteFileError,
}

/// Why a stored identity could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadIdentityError {
    /// A file cannot be read, or the pointer names one that is not there.
    #[error("could not read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The pointer names nothing.
    #[error("{} does not hold a serial number", path.display())]
    Pointer {
        /// Which file.
        path: PathBuf,
    },
    /// The key file has something else in it.
    #[error("{} is damaged", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: InvalidKey,
    },
    /// The certificate file has no PEM certificate in it.
    #[error("{} is not a PEM certificate", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
    },
    /// The certificate file has no usable roots behind the leaf.
    #[error("{} has no usable roots", path.display())]
    Bundle {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: InvalidBundle,
    },
    /// The parts do not fit each other.
    #[error("the stored identity {serial} does not fit together")]
    Parts {
        /// Which.
        serial: Serial,
        /// What is wrong.
        #[source]
        source: InvalidIdentity,
    },
}

// === impl HostIdentity ===

impl HostIdentity {
    /// Puts the parts together, if they belong together. Whether the master's word on the roots is
    /// to be taken is for the caller to know (see [`CaBundle::contains`]).
    pub fn new(
        key: HostKey,
        certificate_der: Vec<u8>,
        bundle: CaBundle,
    ) -> Result<Self, InvalidIdentity> {
        let leaf = PeerCertificate::parse(&certificate_der)
            .map_err(|source| InvalidIdentity::Certificate { source })?;
        let Role::Host(host) = leaf.role() else {
            return Err(InvalidIdentity::NotHost);
        };
        if leaf.key() != key.fingerprint() {
            return Err(InvalidIdentity::OtherKey {
                certified: leaf.key(),
                key: key.fingerprint(),
            });
        }
        Ok(Self {
            host,
            key,
            certificate_der,
            leaf,
            bundle,
        })
    }

    /// The host that the certificate names.
    pub const fn host(&self) -> HostId {
        self.host
    }

    /// The private key.
    pub const fn key(&self) -> &HostKey {
        &self.key
    }

    /// The certificate, in DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// The certificate's number.
    pub const fn serial(&self) -> Serial {
        self.leaf.serial()
    }

    /// The roots by which this host knows the master.
    pub const fn bundle(&self) -> &CaBundle {
        &self.bundle
    }

    /// The first second in which the certificate is valid.
    pub const fn not_before(&self) -> OffsetDateTime {
        self.leaf.not_before()
    }

    /// The last second in which the certificate is valid.
    pub const fn not_after(&self) -> OffsetDateTime {
        self.leaf.not_after()
    }

    /// When to ask for the next certificate: at half life, and up to a tenth of the life later.
    /// `jitter` is from 0 to 1 and is drawn once per certificate: a fleet that joined together must
    /// not renew together.
    pub fn renew_at(&self, jitter: f64) -> OffsetDateTime {
        let jitter = if jitter.is_finite() {
            jitter.clamp(0.0, 1.0)
        } else {
            0.0
        };
        let life = self.not_after() - self.not_before();
        self.not_before() + life / 2 + life * (jitter * 0.1)
    }

    /// The same identity with other roots (a CA is being rotated).
    #[must_use]
    pub fn with_bundle(self, bundle: CaBundle) -> Self {
        Self { bundle, ..self }
    }
}

// === impl IdentityFiles ===

impl IdentityFiles {
    /// Names the directory, which must exist. Nothing is read or written yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// Stores an identity and makes it the one that counts; the files of older ones are removed.
    pub fn save(&self, identity: &HostIdentity) -> Result<(), SaveIdentityError> {
        let serial = identity.serial();
        let failed = |source| SaveIdentityError { serial, source };
        let mut chain = pem::certificate(&identity.certificate_der);
        chain.push_str(&identity.bundle.to_pem());

        write_private(&self.key_path(serial), &identity.key.to_pkcs8()).map_err(failed)?;
        write_public(&self.chain_path(serial), chain.as_bytes()).map_err(failed)?;
        // Only from here on does the new identity count.
        write_public(&self.pointer_path(), format!("{serial}\n").as_bytes()).map_err(failed)?;
        self.prune(serial);
        Ok(())
    }

    /// Loads the identity that counts; `None` on a host that has not joined.
    pub fn load(&self) -> Result<Option<HostIdentity>, LoadIdentityError> {
        let path = self.pointer_path();
        let pointer = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LoadIdentityError::Read { path, source }),
        };
        let serial: Serial = pointer
            .trim()
            .parse()
            .map_err(|_| LoadIdentityError::Pointer { path })?;

        let path = self.key_path(serial);
        let key = Zeroizing::new(fs::read(&path).map_err(|source| LoadIdentityError::Read {
            path: path.clone(),
            source,
        })?);
        let key =
            HostKey::from_pkcs8(&key).map_err(|source| LoadIdentityError::Key { path, source })?;

        let path = self.chain_path(serial);
        let chain = fs::read_to_string(&path).map_err(|source| LoadIdentityError::Read {
            path: path.clone(),
            source,
        })?;
        let chain = pem::certificates(&chain).unwrap_or_default();
        let Some((leaf, roots)) = chain.split_first() else {
            return Err(LoadIdentityError::Certificate { path });
        };
        let bundle = CaBundle::from_der_list(roots.iter().map(|root| root.to_vec()))
            .map_err(|source| LoadIdentityError::Bundle { path, source })?;

        HostIdentity::new(key, leaf.to_vec(), bundle)
            .map(Some)
            .map_err(|source| LoadIdentityError::Parts { serial, source })
    }

    fn pointer_path(&self) -> PathBuf {
        self.directory.join(POINTER)
    }

    fn key_path(&self, serial: Serial) -> PathBuf {
        self.directory.join(format!("{STEM}{serial}.key"))
    }

    fn chain_path(&self, serial: Serial) -> PathBuf {
        self.directory.join(format!("{STEM}{serial}.pem"))
    }

    /// Best effort: a file that stays is swept next time, and harms nobody until then.
    fn prune(&self, keep: Serial) {
        let kept = [self.key_path(keep), self.chain_path(keep)];
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return;
        };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if is_identity_file(&path)
                && !kept.contains(&path)
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::debug!(path = %path.display(), %error, "old identity file stays");
            }
        }
    }
}

/// A file of some identity, or what a crash left while one was written.
fn is_identity_file(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    name.strip_prefix(STEM)
        .is_some_and(|rest| rest.ends_with(".key") || rest.ends_with(".pem"))
        || name
            .strip_prefix(".identity")
            .is_some_and(|rest| rest.ends_with(TEMPORARY_SUFFIX))
}

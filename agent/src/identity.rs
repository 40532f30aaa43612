//! Who this host is and where its master is: on disk, and in force.
//!
//! The key and the certificate are `pki`'s files; beside them stands `link.json` with what is not
//! secret. Both are replaced as a whole or not at all.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use domain::id::TokenId;
use domain::name::HostName;
use pki::clock::Clock;
use pki::connector::{Connector, ConnectorError, MasterAddress, Trust};
use pki::file::{WriteFileError, write_public};
use pki::identity::files::{HostIdentity, IdentityFiles, LoadIdentityError, SaveIdentityError};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::watch;

const LINK_FILE: &str = "link.json";
/// A change of the skew below this is the network's doing, and not worth a write.
const NEWS: time::Duration = time::Duration::seconds(5);

/// Where a host belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Where the master is.
    pub masters: Vec<MasterAddress>,
    /// What the master calls this host.
    pub host: HostName,
    /// How far the master's clock was ahead of this host's.
    pub skew: time::Duration,
    /// The token that it joined with.
    pub token: TokenId,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkFile {
    masters: Vec<String>,
    host: String,
    skew_seconds: i64,
    token: String,
}

/// Why the membership could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadMembershipError {
    /// The file cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file has something else in it.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Membership {
    /// Reads it; `None` on a host that has not joined.
    pub fn load(directory: &Path) -> Result<Option<Self>, LoadMembershipError> {
        let path = directory.join(LINK_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LoadMembershipError::Read { path, source }),
        };
        match Self::from_json(&bytes) {
            Ok(membership) => Ok(Some(membership)),
            Err(source) => Err(LoadMembershipError::Damaged { path, source }),
        }
    }

    /// Replaces it.
    pub fn save(&self, directory: &Path) -> Result<(), WriteFileError> {
        let Self {
            masters,
            host,
            skew,
            token,
        } = self;
        let file = LinkFile {
            masters: masters.iter().map(ToString::to_string).collect(),
            host: host.to_string(),
            skew_seconds: skew.whole_seconds(),
            token: token.to_string(),
        };
        let mut bytes =
            serde_json::to_vec_pretty(&file).expect("strings and numbers have a JSON form");
        bytes.push(b'\n');
        write_public(&directory.join(LINK_FILE), &bytes)
    }

    fn from_json(bytes: &[u8]) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let file: LinkFile = serde_json::from_slice(bytes)?;
        let masters: Vec<MasterAddress> = file
            .masters
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()?;
        if masters.is_empty() {
            return Err("it names no master".into());
        }
        Ok(Self {
            masters,
            host: HostName::parse(&file.host)?,
            skew: time::Duration::seconds(file.skew_seconds),
            token: TokenId::from_str(&file.token)?,
        })
    }
}

/// Why a host's credentials could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadCredentialsError {
    /// It has not joined.
    #[error("this host has not joined a master")]
    NotJoined,
    /// The key or certificate cannot be used.
    #[error("could not load this host's identity")]
    Identity {
        /// Why.
        #[source]
        source: LoadIdentityError,
    },
    /// Where it belongs cannot be read.
    #[error("could not load this host's membership")]
    Membership {
        /// Why.
        #[source]
        source: LoadMembershipError,
    },
}

impl LoadCredentialsError {
    /// What to do about it: one sentence for the operator.
    pub const fn next_step(&self) -> &'static str {
        match self {
            Self::NotJoined => {
                "Run decnet host enroll NAME on the master and decnet-agent join here."
            }
            Self::Identity { .. } | Self::Membership { .. } => {
                "Restore the data directory from a backup, or run decnet-agent leave --force here \
                 and join again with a new token."
            }
        }
    }
}

/// The identity in force. Shared by both connections; renewal replaces it while they live.
pub struct Credentials {
    directory: PathBuf,
    clock: Clock,
    identity: watch::Sender<Arc<HostIdentity>>,
    membership: Mutex<Membership>,
}

impl Credentials {
    /// Loads what joining has left in the directory.
    pub fn load(directory: &Path, clock: Clock) -> Result<Self, LoadCredentialsError> {
        let identity = IdentityFiles::new(directory)
            .load()
            .map_err(|source| LoadCredentialsError::Identity { source })?
            .ok_or(LoadCredentialsError::NotJoined)?;
        let membership = Membership::load(directory)
            .map_err(|source| LoadCredentialsError::Membership { source })?
            .ok_or(LoadCredentialsError::NotJoined)?;
        Ok(Self::new(directory, clock, identity, membership))
    }

    /// Puts an identity in force that is stored already.
    pub fn new(
        directory: &Path,
        clock: Clock,
        identity: HostIdentity,
        membership: Membership,
    ) -> Self {
        Self {
            directory: directory.to_owned(),
            clock,
            identity: watch::Sender::new(Arc::new(identity)),
            membership: Mutex::new(membership),
        }
    }

    /// The identity in force.
    pub fn identity(&self) -> Arc<HostIdentity> {
        Arc::clone(&self.identity.borrow())
    }

    /// The identity in force, and its replacements.
    pub fn identities(&self) -> watch::Receiver<Arc<HostIdentity>> {
        self.identity.subscribe()
    }

    /// Where the host belongs.
    pub fn membership(&self) -> Membership {
        self.membership
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The agent's clock.
    pub fn now(&self) -> OffsetDateTime {
        (self.clock)()
    }

    /// The master's clock, as far as it is known.
    pub fn master_now(&self) -> OffsetDateTime {
        let skew = self
            .membership
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .skew;
        self.now().saturating_add(skew)
    }

    /// Whether the certificate has run out, by the master's clock.
    pub fn is_expired(&self) -> bool {
        self.identity.borrow().not_after() < self.master_now()
    }

    /// What dials with the identity in force.
    pub fn connector(&self) -> Result<Connector, ConnectorError> {
        let identity = self.identity();
        let trust = Trust::Bundle {
            bundle: identity.bundle().clone(),
            clock: Arc::clone(&self.clock),
            skew: self.membership().skew,
        };
        Connector::new(trust, Some(&identity))
    }

    /// Stores an identity and puts it in force: in this order, so that a crash never leaves the
    /// master with a key that this host has lost. Blocks for a few fsyncs.
    pub fn adopt(&self, identity: HostIdentity) -> Result<(), SaveIdentityError> {
        IdentityFiles::new(&self.directory).save(&identity)?;
        self.identity.send_replace(Arc::new(identity));
        Ok(())
    }

    /// Takes the master's clock, in seconds since the epoch, for the certificates to come.
    pub fn note_master_time(&self, seconds: i64) {
        let Ok(master) = OffsetDateTime::from_unix_timestamp(seconds) else {
            return;
        };
        let skew = master - self.now();
        let mut membership = self
            .membership
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if (skew - membership.skew).abs() < NEWS {
            return;
        }
        tracing::info!(
            skew.seconds = skew.whole_seconds(),
            "this host's clock differs otherwise"
        );
        membership.skew = skew;
        // Lost, it is measured again at the next connection.
        if let Err(error) = membership.save(&self.directory) {
            tracing::warn!(error = %crate::chain::Chain(&error), "could not store the clock skew");
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("membership", &self.membership())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_reads_back_and_a_missing_one_is_none() {
        let directory = tempfile::tempdir().expect("temporary directory");
        assert_eq!(
            Membership::load(directory.path()).expect("no file is no error"),
            None
        );
        let membership = Membership {
            masters: vec!["10.0.0.5:7443".parse().expect("an address")],
            host: HostName::parse("edge-07").expect("a name"),
            skew: time::Duration::seconds(-90),
            token: TokenId::new(uuid::Uuid::from_u128(7)),
        };
        membership.save(directory.path()).expect("writable");
        let again = Membership::load(directory.path()).expect("written above");
        assert_eq!(again, Some(membership));
    }

    #[test]
    fn a_damaged_membership_names_its_file() {
        let directory = tempfile::tempdir().expect("temporary directory");
        fs::write(directory.path().join(LINK_FILE), b"{}").expect("writable");
        let refused = Membership::load(directory.path()).expect_err("no fields");
        assert!(
            refused.to_string().ends_with("link.json is damaged"),
            "{refused}"
        );
    }
}

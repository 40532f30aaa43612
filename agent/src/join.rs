//! Joining: a token becomes an identity. The master is pinned before anything is sent.
//!
//! Repeatable: the key is kept on disk until the identity is stored, so that when the master's
//! reply is lost the same command with the same token ends in the same certificate. Nothing here
//! prints; what was achieved is told step by step.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs, io};

use domain::assign::HostReport;
use domain::id::TokenId;
use domain::name::HostName;
use pki::clock::Clock;
use pki::connector::{ConnectError, Connector, ConnectorError, MasterAddress, Trust};
use pki::csr::{GenerateKeyError, HostKey};
use pki::file::{WriteFileError, write_private};
use pki::identity::files::{HostIdentity, IdentityFiles, LoadIdentityError, SaveIdentityError};
use pki::token::{InvalidToken, JoinToken};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::chain::Chain;
use crate::datadir::{DataDir, LockError};
use crate::identity::{Credentials, LoadMembershipError, Membership};
use crate::leave::{STORE_FILE, remove_assignment};
use crate::link::enroll::{RedeemError, Redeemed, redeem};
use crate::link::{LinkError, prove};
use crate::store::{AppliedState, Row, Store};
use crate::task;

#[cfg(test)]
mod tests;

/// The key of a join that is not done: the token's id, then the key in PKCS#8.
pub(crate) const PENDING_FILE: &str = "join.pending";
const TOKEN_ID: usize = 16;

/// What to join with.
pub struct Join {
    /// Where the master is.
    pub master: MasterAddress,
    /// The token.
    pub token: JoinToken,
    /// The name that this host is to have; none for whatever the token says.
    pub name: Option<HostName>,
    /// The agent's data directory.
    pub data: PathBuf,
    /// The agent's clock.
    pub clock: Clock,
}

/// A step that is done, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The master has shown the pinned key.
    Pinned,
    /// The key stands on this host's disk.
    KeyMade,
    /// The certificate is stored.
    Certified {
        /// How long it is valid from now on, in hours.
        hours: i64,
    },
    /// The master has let this host in.
    Connected {
        /// What the master calls it.
        host: HostName,
    },
    /// There was nothing to do.
    AlreadyJoined {
        /// What the master calls this host.
        host: HostName,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned => f.write_str("✓ master matches the pin"),
            Self::KeyMade => f.write_str("✓ key made here"),
            Self::Certified { hours } => write!(f, "✓ certificate valid {hours} h"),
            Self::Connected { host } => write!(f, "✓ connected: {host} is ready"),
            Self::AlreadyJoined { host } => {
                write!(
                    f,
                    "✓ already joined to this master as {host}: nothing to do"
                )
            }
        }
    }
}

/// Why a host did not join. Up to [`JoinError::Prove`] it has no identity.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The data directory cannot be worked in.
    #[error("could not use the data directory")]
    Directory {
        /// Why.
        #[source]
        source: LockError,
    },
    /// This host has an identity that cannot be read.
    #[error("could not read the identity that this host already has")]
    Identity {
        /// Why.
        #[source]
        source: LoadIdentityError,
    },
    /// This host has a membership that cannot be read.
    #[error("could not read where this host belongs")]
    Membership {
        /// Why.
        #[source]
        source: LoadMembershipError,
    },
    /// It belongs to another master.
    #[error("this host has joined another master{}", at(master.as_ref()))]
    OtherMaster {
        /// Where that one is.
        master: Option<MasterAddress>,
    },
    /// Nothing can be dialled with.
    #[error("could not prepare TLS")]
    Tls {
        /// Why.
        #[source]
        source: ConnectorError,
    },
    /// No connection, or not the pinned master.
    #[error("could not connect to the master")]
    Connect {
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// No key.
    #[error("could not make a key")]
    Key {
        /// Why.
        #[source]
        source: GenerateKeyError,
    },
    /// The key of the join that was begun cannot be read.
    #[error("could not read {}", path.display())]
    ReadPending {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("could not write to the data directory")]
    Write {
        /// Which, and why.
        #[source]
        source: WriteFileError,
    },
    /// The master did not give a certificate.
    #[error("could not redeem the token")]
    Redeem {
        /// Why.
        #[source]
        source: RedeemError,
    },
    /// The identity cannot be stored.
    #[error("could not store the identity")]
    Save {
        /// Why.
        #[source]
        source: SaveIdentityError,
    },
    /// What an earlier identity left cannot be removed.
    #[error("could not remove what an earlier identity of this host has left")]
    Clean {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The identity is stored, but the master did not let this host in.
    #[error("this host has joined as {host}, but could not open its control stream")]
    Prove {
        /// What the master calls this host.
        host: HostName,
        /// Why.
        #[source]
        source: LinkError,
    },
}

fn at(master: Option<&MasterAddress>) -> String {
    master
        .map(|master| format!(" at {master}"))
        .unwrap_or_default()
}

impl JoinError {
    /// What to do about it: one sentence for the operator.
    pub const fn next_step(&self) -> &'static str {
        match self {
            Self::Directory { source } => source.next_step(),
            Self::Identity { .. } | Self::Membership { .. } => {
                "Restore the data directory, or run decnet-agent leave --force and join again."
            }
            Self::OtherMaster { .. } => "Run decnet-agent leave first, then join again.",
            Self::Tls { .. } | Self::Key { .. } => "Run the same command again.",
            Self::Connect { source } => source.next_step(),
            Self::ReadPending { .. }
            | Self::Write { .. }
            | Self::Save { .. }
            | Self::Clean { .. } => {
                "Check that this user may write to the data directory and that space is left, \
                 then run the same command again."
            }
            Self::Redeem { source } => source.next_step(),
            Self::Prove { source, .. } => source.next_step(),
        }
    }
}

/// What to do about a text that is no token.
pub const fn token_next_step(error: InvalidToken) -> &'static str {
    match error {
        InvalidToken::Prefix | InvalidToken::Characters | InvalidToken::Length { .. } => {
            "Copy the whole token as decnet host enroll has shown it, from dcn1_ on."
        }
        InvalidToken::Checksum => {
            "Copy the token again, or ask for a new one: decnet host enroll NAME on the master."
        }
        InvalidToken::Version => "Install the decnet-agent of the master's release.",
    }
}

/// Joins, telling each step as it is done.
pub async fn join(request: Join, told: &mut (dyn FnMut(Step) + Send)) -> Result<(), JoinError> {
    let locked = DataDir::lock(&request.data);
    let previous = match previous(&request, &locked).await? {
        Previous::None => None,
        Previous::Works(host) => {
            told(Step::AlreadyJoined { host });
            return Ok(());
        }
        Previous::Dead(identity) => Some(identity),
    };
    let data = locked.map_err(|source| JoinError::Directory { source })?;

    let connector = Connector::new(Trust::Pin(request.token.pin()), None)
        .map_err(|source| JoinError::Tls { source })?;
    let stream = connector
        .connect(&request.master)
        .await
        .map_err(|source| JoinError::Connect { source })?;
    told(Step::Pinned);

    let key = pending_key(data.path(), request.token.id()).await?;
    told(Step::KeyMade);

    let before = (request.clock)();
    let redeemed = redeem(stream, &request.token, request.name.as_ref(), key)
        .await
        .map_err(|source| JoinError::Redeem { source })?;
    let credentials = store(&request, data.path(), redeemed, previous.as_deref(), before).await?;
    let identity = credentials.identity();
    let left = identity.not_after() - credentials.master_now();
    // A fresh certificate of a day has a day left, less the seconds that this has taken.
    told(Step::Certified {
        hours: (left + time::Duration::minutes(30)).whole_hours(),
    });

    let host = credentials.membership().host;
    match prove(
        &credentials,
        &request.master,
        &stored_row(data.path()).await,
    )
    .await
    {
        Ok(()) => {
            told(Step::Connected { host });
            Ok(())
        }
        Err(source) => Err(JoinError::Prove { host, source }),
    }
}

/// Whether this host has joined before.
enum Previous {
    None,
    /// To this master, and it lets it in.
    Works(HostName),
    /// To this master, which refuses it now: it was revoked or removed there.
    Dead(Box<HostIdentity>),
}

async fn previous(
    request: &Join,
    locked: &Result<DataDir, LockError>,
) -> Result<Previous, JoinError> {
    let loaded = IdentityFiles::new(&request.data).load();
    let Some(identity) = loaded.map_err(|source| JoinError::Identity { source })? else {
        return Ok(Previous::None);
    };
    let membership =
        Membership::load(&request.data).map_err(|source| JoinError::Membership { source })?;
    let Some(membership) = membership.filter(|_| identity.bundle().contains(&request.token.pin()))
    else {
        let master = Membership::load(&request.data).ok().flatten();
        let master = master.and_then(|membership| membership.masters.into_iter().next());
        return Err(JoinError::OtherMaster { master });
    };
    let host = membership.host.clone();
    let is_running = matches!(locked, Err(LockError::Busy { .. }));
    if membership.token == request.token.id() || is_running {
        // The same command again: it did its work the first time. Or an agent runs here, and what
        // it and the master have to say to each other is in its log.
        return Ok(Previous::Works(host));
    }
    // Another token of the same master: either a superfluous one, or the way back of a host that
    // was revoked. Only the master knows; the identity that it refuses is worth nothing.
    let clock = Arc::clone(&request.clock);
    let credentials = Credentials::new(&request.data, clock, identity, membership);
    match prove(
        &credentials,
        &request.master,
        &stored_row(&request.data).await,
    )
    .await
    {
        Err(LinkError::Refused { .. } | LinkError::Denied { .. }) => {
            let identity = IdentityFiles::new(&request.data).load();
            let identity = identity.map_err(|source| JoinError::Identity { source })?;
            Ok(identity.map_or(Previous::None, |identity| {
                Previous::Dead(Box::new(identity))
            }))
        }
        Ok(()) => Ok(Previous::Works(host)),
        Err(source) => Err(JoinError::Prove { host, source }),
    }
}

/// The key for this token: the one that an earlier attempt has left, or a new one, stored before it
/// is used.
async fn pending_key(data: &Path, token: TokenId) -> Result<HostKey, JoinError> {
    let path = data.join(PENDING_FILE);
    match fs::read(&path).map(Zeroizing::new) {
        Ok(bytes) => {
            if let Some((id, key)) = bytes.split_first_chunk::<TOKEN_ID>()
                && id == token.uuid().as_bytes()
                && let Ok(key) = HostKey::from_pkcs8(key)
            {
                return Ok(key);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(JoinError::ReadPending { path, source }),
    }
    let key = task::blocking(HostKey::generate)
        .await
        .map_err(|source| JoinError::Key { source })?;
    let mut bytes = Zeroizing::new(token.uuid().as_bytes().to_vec());
    bytes.extend_from_slice(&key.to_pkcs8());
    write_private(&path, &bytes).map_err(|source| JoinError::Write { source })?;
    Ok(key)
}

/// Stores the identity. The pointer to it is written last: until then the host has not joined and
/// the same command repeats everything; afterwards nothing is missing.
async fn store(
    request: &Join,
    data: &Path,
    redeemed: Redeemed,
    previous: Option<&HostIdentity>,
    before: OffsetDateTime,
) -> Result<Credentials, JoinError> {
    let Redeemed {
        identity,
        host,
        master_time,
    } = redeemed;
    if previous.is_some_and(|previous| previous.host() != identity.host()) {
        // What the old identity was assigned is not the new one's, and its fence even less.
        remove_assignment(data).map_err(|source| JoinError::Clean { source })?;
    }
    // The reply is younger than the request: the larger of the two differences is the wrong one.
    let skew = OffsetDateTime::from_unix_timestamp(master_time)
        .map_or(time::Duration::ZERO, |master| master - before);
    let membership = Membership {
        masters: vec![request.master.clone()],
        host,
        skew,
        token: request.token.id(),
    };
    membership
        .save(data)
        .map_err(|source| JoinError::Write { source })?;
    IdentityFiles::new(data)
        .save(&identity)
        .map_err(|source| JoinError::Save { source })?;
    if let Err(error) = fs::remove_file(data.join(PENDING_FILE)) {
        // The key in it is the identity's own by now: no worse than the file beside it.
        tracing::debug!(%error, "the pending key stays");
    }
    Ok(Credentials::new(
        data,
        Arc::clone(&request.clock),
        identity,
        membership,
    ))
}

/// The row as it stands on the disk; that of a host that was never told anything where none can be
/// read, because the master then assigns again.
async fn stored_row(data: &Path) -> HostReport {
    let row = Store::peek(&data.join(STORE_FILE))
        .await
        .unwrap_or_else(|error| {
            tracing::warn!(error = %Chain(&error), "could not read the row");
            None
        });
    let row = row.unwrap_or(Row::EMPTY);
    let (failure, applied_at) = match &row.state {
        AppliedState::Applied { at, .. } => (None, Some(*at)),
        AppliedState::Failed { reason, .. } => (Some(reason.clone()), None),
        AppliedState::Idle | AppliedState::Applying(_) | AppliedState::Clearing => (None, None),
    };
    HostReport {
        fence: row.fence,
        phase: row.phase(),
        in_flight: false,
        content: row.content(),
        applied_at,
        failure,
        refusal: None,
        observed: None,
        drift: Vec::new(),
        timings: domain::assign::Timings::new(),
    }
}

/// The row of a host that was never told anything.
#[cfg(test)]
pub(crate) const fn blank() -> HostReport {
    HostReport {
        fence: domain::revision::Fence::new(0, 0),
        phase: domain::assign::Phase::Idle,
        in_flight: false,
        content: None,
        applied_at: None,
        failure: None,
        refusal: None,
        observed: None,
        drift: Vec::new(),
        timings: domain::assign::Timings::new(),
    }
}

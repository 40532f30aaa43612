//! The two calls that end in a certificate: redeeming a join token, and renewing.

use domain::name::{HostName, InvalidName};
use pki::bundle::{CaBundle, InvalidBundle};
use pki::connector::{ChannelError, MasterStream, channel_over};
use pki::csr::{GenerateKeyError, HostKey, RequestError};
use pki::identity::files::{HostIdentity, InvalidIdentity};
use pki::token::JoinToken;
use proto::v1;
use proto::v1::enrollment_client::EnrollmentClient;
use proto::v1::fleet_client::FleetClient;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{ANSWER, Answer};
use crate::task;

/// What a token was redeemed for.
#[derive(Debug)]
pub struct Redeemed {
    /// The identity, not yet stored.
    pub identity: HostIdentity,
    /// What the master calls this host.
    pub host: HostName,
    /// The master's clock, in seconds since the epoch.
    pub master_time: i64,
}

/// Why a token was not redeemed.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// HTTP/2 did not come up.
    #[error("could not speak with the master")]
    Http {
        /// Why.
        #[source]
        source: ChannelError,
    },
    /// No request could be made of the key.
    #[error("could not ask for a certificate")]
    Request {
        /// Why.
        #[source]
        source: RequestError,
    },
    /// Unknown, used, expired or for another name: the master does not say which.
    #[error("token not accepted")]
    NotAccepted,
    /// Too many attempts.
    #[error("the master takes no more attempts for the moment")]
    TooMany,
    /// The master had no time or no answer.
    #[error("the master could not redeem the token")]
    Failed {
        /// What it said.
        #[source]
        source: Answer,
    },
    /// It did not answer.
    #[error("the master did not answer in time")]
    Silent,
    /// It answered with roots that are not usable.
    #[error("the master answered with unusable roots")]
    Bundle {
        /// Why.
        #[source]
        source: InvalidBundle,
    },
    /// It answered with roots that do not have the pinned key.
    #[error("the master answered with roots that the token does not pin")]
    OtherRoots,
    /// It answered with a certificate that is not for this key.
    #[error("the master answered with an unusable certificate")]
    Certificate {
        /// Why.
        #[source]
        source: InvalidIdentity,
    },
    /// It answered with a name that is none.
    #[error("the master answered with an unusable host name")]
    Name {
        /// Why.
        #[source]
        source: InvalidName,
    },
}

impl RedeemError {
    /// What to do about it: one sentence for the operator.
    pub const fn next_step(&self) -> &'static str {
        match self {
            Self::NotAccepted => "Ask for a new one: decnet host enroll NAME on the master.",
            Self::TooMany => "Wait a minute and run the same command again.",
            Self::Http { .. } | Self::Silent | Self::Failed { .. } => {
                "Run the same command again: the token is still good if it was not redeemed, and \
                 for this host also if it was."
            }
            Self::Request { .. } => "Run the same command again.",
            Self::Bundle { .. }
            | Self::OtherRoots
            | Self::Certificate { .. }
            | Self::Name { .. } => {
                "Check that master and agent are of the same or neighbouring releases."
            }
        }
    }
}

/// Redeems a token over a connection whose other end has shown the pinned key.
pub async fn redeem(
    stream: MasterStream,
    token: &JoinToken,
    name: Option<&HostName>,
    key: HostKey,
) -> Result<Redeemed, RedeemError> {
    let csr = key
        .csr_der()
        .map_err(|source| RedeemError::Request { source })?;
    let answered = async {
        let channel = channel_over(stream)
            .await
            .map_err(|source| RedeemError::Http { source })?;
        let request = v1::JoinRequest {
            token_id: token.id().uuid().as_bytes().to_vec(),
            token_secret: token.secret().expose().to_vec(),
            csr,
            name: name.map(ToString::to_string).unwrap_or_default(),
            agent_version: super::VERSION.to_owned(),
        };
        EnrollmentClient::new(channel)
            .join(request)
            .await
            .map_err(refused)
    };
    let reply = timeout(ANSWER, answered)
        .await
        .map_err(|_| RedeemError::Silent)??
        .into_inner();
    let bundle =
        CaBundle::from_der_list(reply.ca).map_err(|source| RedeemError::Bundle { source })?;
    if !bundle.contains(&token.pin()) {
        return Err(RedeemError::OtherRoots);
    }
    let identity = HostIdentity::new(key, reply.certificate, bundle)
        .map_err(|source| RedeemError::Certificate { source })?;
    let host = HostName::parse(&reply.host_name).map_err(|source| RedeemError::Name { source })?;
    Ok(Redeemed {
        identity,
        host,
        master_time: reply.master_time,
    })
}

fn refused(status: Status) -> RedeemError {
    match status.code() {
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::NotFound
        | Code::FailedPrecondition => RedeemError::NotAccepted,
        Code::ResourceExhausted => RedeemError::TooMany,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => RedeemError::Failed {
            source: Answer::of(&status),
        },
    }
}

/// A new certificate for a new key, not yet stored.
#[derive(Debug)]
pub struct Renewed {
    /// The identity.
    pub identity: HostIdentity,
    /// The master's clock, in seconds since the epoch.
    pub master_time: i64,
}

/// Why there is no new certificate. The old one stands.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// No key.
    #[error("could not make a key")]
    Key {
        /// Why.
        #[source]
        source: GenerateKeyError,
    },
    /// No request could be made of the key.
    #[error("could not ask for a certificate")]
    Request {
        /// Why.
        #[source]
        source: RequestError,
    },
    /// The master did not give one.
    #[error("the master did not renew the certificate")]
    Call {
        /// What it said.
        #[source]
        source: Box<Status>,
    },
    /// It did not answer.
    #[error("the master did not answer in time")]
    Silent,
    /// It answered with roots that are not usable.
    #[error("the master answered with unusable roots")]
    Bundle {
        /// Why.
        #[source]
        source: InvalidBundle,
    },
    /// It answered with a certificate that is not for this key.
    #[error("the master answered with an unusable certificate")]
    Certificate {
        /// Why.
        #[source]
        source: InvalidIdentity,
    },
    /// It could not be stored.
    #[error("could not store the new identity")]
    Store {
        /// Why.
        #[source]
        source: pki::identity::files::SaveIdentityError,
    },
}

/// Asks for a certificate for a new key, over a connection made with the old one.
pub async fn renew(channel: Channel) -> Result<Renewed, RenewError> {
    let key = task::blocking(HostKey::generate)
        .await
        .map_err(|source| RenewError::Key { source })?;
    let csr = key
        .csr_der()
        .map_err(|source| RenewError::Request { source })?;
    let mut client = FleetClient::new(channel);
    let reply = timeout(ANSWER, client.renew(v1::RenewRequest { csr }))
        .await
        .map_err(|_| RenewError::Silent)?
        .map_err(|source| RenewError::Call {
            source: Box::new(source),
        })?
        .into_inner();
    let bundle =
        CaBundle::from_der_list(reply.ca).map_err(|source| RenewError::Bundle { source })?;
    let identity = HostIdentity::new(key, reply.certificate, bundle)
        .map_err(|source| RenewError::Certificate { source })?;
    Ok(Renewed {
        identity,
        master_time: reply.master_time,
    })
}

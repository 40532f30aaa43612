//! Why the master was not reached, and what the operator does next.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the enums of std and rustls grow; what is not named falls to the general case"
)]

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use rustls::AlertDescription;

use super::MasterAddress;
use super::verifier::RefusedMaster;

/// Why there is no connection to the master.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("could not find an address for {}", master.host())]
    Resolve {
        /// What was dialled.
        master: MasterAddress,
        /// What the system says; nothing if it answered with no address.
        #[source]
        source: Option<io::Error>,
    },
    /// Nothing listens there.
    #[error("nothing listens on {address}")]
    PortClosed {
        /// The address behind the name.
        address: SocketAddr,
    },
    /// No way there.
    #[error("could not reach {address}")]
    Unreachable {
        /// The address behind the name.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("{master} did not answer in time ({during})")]
    Timeout {
        /// What was dialled.
        master: MasterAddress,
        /// The step that took too long.
        during: &'static str,
    },
    /// The connection ended in the middle of the handshake.
    #[error("{master} closed the connection before the TLS handshake was done")]
    Closed {
        /// What was dialled.
        master: MasterAddress,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It does not speak TLS.
    #[error("{master} does not speak TLS")]
    NotTls {
        /// What was dialled.
        master: MasterAddress,
        /// What rustls says.
        #[source]
        source: rustls::Error,
    },
    /// It speaks TLS, but not as a DECNET master does.
    #[error("{master} speaks TLS but is not a DECNET master")]
    NotMaster {
        /// What was dialled.
        master: MasterAddress,
        /// What rustls says; nothing if all that was missing is HTTP/2.
        #[source]
        source: Option<rustls::Error>,
    },
    /// Another CA than the token says.
    #[error("{master} is not the master that this token was made by")]
    WrongPin {
        /// What was dialled.
        master: MasterAddress,
        /// What is wrong.
        #[source]
        source: RefusedMaster,
    },
    /// Its certificate is not valid at this time, by either clock.
    #[error("the clock of this host does not fit the certificate of {master}")]
    Clock {
        /// What was dialled.
        master: MasterAddress,
        /// The three times.
        #[source]
        source: RefusedMaster,
    },
    /// It is not our master.
    #[error("{master} is not the master of this host")]
    Untrusted {
        /// What was dialled.
        master: MasterAddress,
        /// What is wrong.
        #[source]
        source: RefusedMaster,
    },
    /// The master does not take this host's certificate.
    #[error("{master} refused this host's certificate")]
    Refused {
        /// What was dialled.
        master: MasterAddress,
        /// How it said so.
        #[source]
        source: RefusedByMaster,
    },
    /// Something else in the handshake.
    #[error("TLS with {master} failed")]
    Tls {
        /// What was dialled.
        master: MasterAddress,
        /// What it was.
        #[source]
        source: io::Error,
    },
}

/// How the master refused this host's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedByMaster {
    /// The host was revoked or removed, or its key is not one that the master knows.
    #[error("the certificate is revoked")]
    Revoked,
    /// It expired too long ago to be renewed.
    #[error("the certificate expired too long ago")]
    Expired,
    /// Another CA issued it.
    #[error("the certificate is from another CA")]
    UnknownAuthority,
    /// The master cannot use it.
    #[error("the certificate is not accepted")]
    NotAccepted,
}

// === impl ConnectError ===

impl ConnectError {
    /// What to do about it: one sentence for the operator.
    pub const fn next_step(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => {
                "Check the spelling of the master's name and this host's DNS, or use its address."
            }
            Self::PortClosed { .. } => {
                "Check that decnet-master runs there and that the port is the one that it shows."
            }
            Self::Unreachable { .. } => {
                "Check this host's network, its route to the master and the firewalls between."
            }
            Self::Timeout { .. } => {
                "Check that a firewall does not drop packets to the master's port, and try again."
            }
            Self::Closed { .. } => {
                "Check that the port is the master's agent port; if it is, the master may be at \
                 its connection limit: try again."
            }
            Self::NotTls { .. } | Self::NotMaster { .. } => {
                "Check the port: agents use the one that the master listens on for gRPC (7443), \
                 and no proxy may stand between."
            }
            Self::WrongPin { .. } => {
                "Check that the address is that of the master which made the token; if it is, \
                 someone may be intercepting the connection. Nothing was sent."
            }
            Self::Clock { .. } => "Set this host's clock (for example start NTP) and try again.",
            Self::Untrusted { .. } => {
                "Check the master's address; if the master was reinstalled, join again with a new \
                 token."
            }
            Self::Refused { source, .. } => source.next_step(),
            Self::Tls { .. } => "Try again; if it stays, look at the master's log.",
        }
    }

    pub(super) fn from_dial(
        master: &MasterAddress,
        address: SocketAddr,
        source: io::Error,
    ) -> Self {
        match source.kind() {
            io::ErrorKind::ConnectionRefused => Self::PortClosed { address },
            io::ErrorKind::TimedOut => Self::Timeout {
                master: master.clone(),
                during: "TCP connect",
            },
            _ => Self::Unreachable { address, source },
        }
    }

    pub(super) fn from_handshake(master: &MasterAddress, error: io::Error) -> Self {
        let master = master.clone();
        let Some(tls) = rustls_error(&error) else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe => Self::Closed {
                    master,
                    source: error,
                },
                _ => Self::Tls {
                    master,
                    source: error,
                },
            };
        };
        if let Some(source) = refused_master(tls) {
            return match source {
                RefusedMaster::WrongPin { .. } => Self::WrongPin { master, source },
                RefusedMaster::Clock { .. } => Self::Clock { master, source },
                RefusedMaster::Untrusted
                | RefusedMaster::NotMaster { .. }
                | RefusedMaster::Invalid { .. } => Self::Untrusted { master, source },
            };
        }
        if let Some(source) = refusal(tls) {
            return Self::Refused { master, source };
        }
        match tls {
            rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. } => {
                Self::NotTls {
                    master,
                    source: tls.clone(),
                }
            }
            rustls::Error::PeerIncompatible(_)
            | rustls::Error::NoApplicationProtocol
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::AlertReceived(_) => Self::NotMaster {
                master,
                source: Some(tls.clone()),
            },
            _ => Self::Tls {
                master,
                source: error,
            },
        }
    }
}

// === impl RefusedByMaster ===

impl RefusedByMaster {
    /// What to do about it: one sentence for the operator.
    pub const fn next_step(self) -> &'static str {
        match self {
            Self::Revoked => {
                "This host was revoked or removed on the master; to bring it back, enroll it \
                 there and join with the new token."
            }
            Self::Expired => {
                "This host was away for too long; enroll it again on the master and join with the \
                 new token."
            }
            Self::UnknownAuthority => {
                "The master has another CA than when this host joined; enroll it again there and \
                 join with the new token."
            }
            Self::NotAccepted => {
                "Look at the master's log for the reason, and at both clocks; if it stays, join \
                 again with a new token."
            }
        }
    }
}

/// Finds in an error, or in what caused it, that the master refused this host's certificate.
///
/// tonic does not always keep the cause (h2 turns I/O errors into text), so for a channel ask
/// [`super::RefusalWatch`] too: that one sits on the stream itself.
pub fn refusal_of(error: &(dyn Error + 'static)) -> Option<RefusedByMaster> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return refusal(tls);
        }
        if let Some(refused) = error.downcast_ref::<RefusedByMaster>() {
            return Some(*refused);
        }
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            // What an I/O error wraps is not its source: its source is its content's source.
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn refused_master(error: &rustls::Error) -> Option<RefusedMaster> {
    if let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = error {
        return other.0.downcast_ref().cloned();
    }
    None
}

fn refusal(error: &rustls::Error) -> Option<RefusedByMaster> {
    let rustls::Error::AlertReceived(alert) = error else {
        return None;
    };
    match alert {
        AlertDescription::CertificateRevoked => Some(RefusedByMaster::Revoked),
        AlertDescription::CertificateExpired => Some(RefusedByMaster::Expired),
        AlertDescription::UnknownCA => Some(RefusedByMaster::UnknownAuthority),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRequired
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => Some(RefusedByMaster::NotAccepted),
        _ => None,
    }
}

//! The line to the master: two connections that the agent dials, keeps and replaces itself.
//!
//! [`session`] owns the control connection, [`bulk`] the one for evidence, so that a flood of
//! evidence cannot delay a command. What is assigned is handed on and never judged here.

use std::sync::Arc;
use std::time::Duration;

use pki::connector::{ChannelError, ConnectError, ConnectorError, RefusalWatch, RefusedByMaster};
use proto::convert::InvalidMessage;
use tonic::{Code, Status};

pub mod bulk;
pub mod enroll;
pub mod session;

mod open;
mod retry;
mod wire;

#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;

pub use open::prove;
pub use retry::Pace;

/// A number from 0 to 1, drawn anew with each call: so that a fleet does nothing at once.
pub type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;

/// What this agent calls itself.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long the master may take to answer a call.
const ANSWER: Duration = Duration::from_secs(20);

/// A status in words for a person: what tonic prints of one is for programmers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", code_word(*code))]
pub struct Answer {
    code: Code,
    message: String,
}

impl Answer {
    fn of(status: &Status) -> Self {
        Self {
            code: status.code(),
            message: status.message().chars().take(1024).collect(),
        }
    }
}

/// Codes that say less than the message are left out.
fn code_word(code: Code) -> String {
    if matches!(code, Code::Unknown | Code::Internal) {
        String::new()
    } else {
        format!("{code:?}: ")
    }
}

/// Why a connection with the master is not, or no longer, there.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No connection.
    #[error("could not connect")]
    Connect {
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// The identity in force makes no connection.
    #[error("could not use this host's identity")]
    Identity {
        /// Why.
        #[source]
        source: ConnectorError,
    },
    /// The master does not take this host's certificate.
    #[error("refused by the master")]
    Refused {
        /// Why.
        #[source]
        source: RefusedByMaster,
    },
    /// The master does not take this call from this host.
    #[error("the master did not permit {call}")]
    Denied {
        /// Which call.
        call: &'static str,
        /// What it said.
        #[source]
        source: Answer,
    },
    /// HTTP/2 did not come up.
    #[error("could not speak with the master")]
    Http {
        /// Why.
        #[source]
        source: ChannelError,
    },
    /// The master ended it.
    #[error("closed by the master")]
    Closed,
    /// The master was silent for too long.
    #[error("the master did not answer in time ({waiting_for})")]
    Silent {
        /// What was waited for.
        waiting_for: &'static str,
    },
    /// The master ended it with a word why.
    #[error("the master ended {call}")]
    Ended {
        /// Which call.
        call: &'static str,
        /// What it said.
        #[source]
        source: Answer,
    },
    /// It broke.
    #[error("lost the connection during {call}")]
    Lost {
        /// In which call.
        call: &'static str,
        /// What tonic says.
        #[source]
        source: Answer,
    },
    /// The master said something that is not in the protocol.
    #[error("the master sent something else than expected")]
    Protocol {
        /// What.
        #[source]
        source: InvalidMessage,
    },
    /// A new certificate could not be had.
    #[error("could not renew the certificate")]
    Renew {
        /// Why.
        #[source]
        source: enroll::RenewError,
    },
}

impl LinkError {
    /// The reason in one or two words, for the log and for people.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Connect {
                source: ConnectError::Refused { .. },
            }
            | Self::Refused { .. }
            | Self::Denied { .. } => "refused by master",
            Self::Connect {
                source: ConnectError::WrongPin { .. },
            }
            | Self::Connect {
                source: ConnectError::Untrusted { .. },
            } => "not our master",
            Self::Connect {
                source: ConnectError::Clock { .. },
            } => "clock",
            Self::Connect { .. } => "unreachable",
            Self::Identity { .. } => "own identity",
            Self::Closed | Self::Ended { .. } => "closed by master",
            Self::Silent { .. } => "ping timeout",
            Self::Http { .. } | Self::Lost { .. } => "connection lost",
            Self::Protocol { .. } => "protocol",
            Self::Renew { .. } => "renewal",
        }
    }

    /// What to do about it: one sentence for the operator.
    pub const fn next_step(&self) -> &'static str {
        match self {
            Self::Connect { source } => source.next_step(),
            Self::Refused { source } => source.next_step(),
            Self::Denied { .. } => {
                "Look at the host on the master (decnet host ls); if it was removed there, \
                 enroll it again and join with the new token."
            }
            Self::Identity { .. } => {
                "Run decnet-agent leave --force and join again with a new token."
            }
            Self::Protocol { .. } => {
                "Check that master and agent are of the same or neighbouring releases."
            }
            Self::Http { .. }
            | Self::Closed
            | Self::Ended { .. }
            | Self::Silent { .. }
            | Self::Lost { .. } => {
                "Nothing: the agent tries again. If it stays, look at the master's log."
            }
            Self::Renew { .. } => "Nothing: the agent tries again before the certificate expires.",
        }
    }

    /// Whether trying soon again is pointless: a person has to act first.
    const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::Denied { .. }
                | Self::Identity { .. }
                | Self::Connect {
                    source: ConnectError::Refused { .. }
                        | ConnectError::WrongPin { .. }
                        | ConnectError::Untrusted { .. }
                }
        )
    }

    /// Finds the reason behind a status: tonic reports a refused certificate as something else.
    fn from_status(call: &'static str, status: Status, refusal: &RefusalWatch) -> Self {
        if let Some(source) = refusal
            .get()
            .or_else(|| pki::connector::refusal_of(&status))
        {
            return Self::Refused { source };
        }
        if timed_out(&status) {
            return Self::Silent {
                waiting_for: "ping",
            };
        }
        // What the transport made up has a cause; what the master itself said has none.
        let said = std::error::Error::source(&status).is_none();
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => Self::Denied {
                call,
                source: Answer::of(&status),
            },
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::InvalidArgument
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => {
                let source = Answer::of(&status);
                if said {
                    Self::Ended { call, source }
                } else {
                    Self::Lost { call, source }
                }
            }
        }
    }
}

/// hyper does not say by type that a keep-alive ping was not answered, only by text.
fn timed_out(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        if error.to_string().contains("timed out") {
            return true;
        }
        next = error.source();
    }
    false
}

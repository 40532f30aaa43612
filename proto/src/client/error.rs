//! Why a master could not be asked, or what it answered instead.

use reqwest::Url;

use crate::rest::Problem;

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Not a URL of the web.
    #[error("{url} is neither an http nor an https URL")]
    Scheme {
        /// The URL.
        url: Url,
    },
    /// The token would be readable on its way.
    #[error("{url} is plain HTTP to another machine, which would show the token to the network")]
    Plain {
        /// The URL.
        url: Url,
    },
    /// A token with characters that no token has.
    #[error("the API token holds characters that no token has")]
    Token,
    /// The library refused.
    #[error("could not set the HTTP client up")]
    Setup(#[source] reqwest::Error),
}

/// What came of a request, when it was not an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("no master answers at {base}")]
    Unreachable {
        /// Where.
        base: Box<Url>,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// The answer did not come in time.
    #[error("{route} was not answered in time")]
    Timeout {
        /// What was asked.
        route: String,
    },
    /// The connection ended in the middle of an answer.
    #[error("the answer to {route} broke off")]
    Cut {
        /// What was asked.
        route: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The master says what is wrong.
    #[error("{}", .0.title)]
    Problem(Box<Problem>),
    /// A refusal that is not a problem document: hardly a master.
    #[error("{route} was answered with status {status}")]
    Status {
        /// What was asked.
        route: String,
        /// The HTTP status.
        status: u16,
    },
    /// An answer that is not of the shape that was agreed.
    #[error("the answer to {route} is malformed")]
    Malformed {
        /// What was asked.
        route: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An answer larger than any that a master gives.
    #[error("the answer to {route} exceeds {limit} bytes")]
    TooLong {
        /// What was asked.
        route: String,
        /// How many are read.
        limit: usize,
    },
}

impl ClientError {
    pub(super) fn of(error: reqwest::Error, route: &str, base: &Url) -> Self {
        if error.is_connect() {
            let mut base = base.clone();
            base.set_path("");
            base.set_query(None);
            return Self::Unreachable {
                base: Box::new(base),
                source: error,
            };
        }
        let route = route.to_owned();
        if error.is_timeout() {
            Self::Timeout { route }
        } else {
            Self::Cut {
                route,
                source: error,
            }
        }
    }

    /// The problem document, when the master gave one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Cut { .. }
            | Self::Status { .. }
            | Self::Malformed { .. }
            | Self::TooLong { .. } => None,
        }
    }

    /// The HTTP status, when there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Problem(problem) => Some(problem.status),
            Self::Status { status, .. } => Some(*status),
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Cut { .. }
            | Self::Malformed { .. }
            | Self::TooLong { .. } => None,
        }
    }

    /// Whether the same request may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Cut { .. } => true,
            Self::Problem(_) | Self::Status { .. } => matches!(self.status(), Some(429 | 503)),
            Self::Malformed { .. } | Self::TooLong { .. } => false,
        }
    }
}

//! Why an assignment was not carried out, and the one place where that becomes a code.

use domain::assign::{ApplyFailure, FailureCode};
use domain::name::LanName;
use domain::observe::Drift;
use ipnet::Ipv4Net;

use crate::chain::Chain;
use crate::engine::{EngineError, EngineErrorKind};
use crate::guard::Shortage;
use crate::store::StoreError;

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The engine did not show what is there.
    #[error("could not take an inventory")]
    Observe(#[source] EngineError),
    /// The host has too little left.
    #[error("the host is short")]
    HostShort(#[source] Shortage),
    /// The image of the deckies cannot be made.
    #[error("could not provide the image of the deckies")]
    Image(#[source] EngineError),
    /// The host's subnets cannot be read.
    #[error("could not read which subnets are in use")]
    Subnets(#[source] EngineError),
    /// A LAN overlaps what the host uses for something else.
    #[error("subnet {subnet} of lan {lan} overlaps {theirs}, which is in use by {user}")]
    SubnetInUse {
        /// The LAN.
        lan: LanName,
        /// Its subnet.
        subnet: Ipv4Net,
        /// The other subnet.
        theirs: Ipv4Net,
        /// What uses it.
        user: Box<str>,
    },
    /// A step failed.
    #[error("could not {verb} {object}")]
    Step {
        /// What was attempted.
        verb: &'static str,
        /// On what.
        object: Box<str>,
        /// Why it failed.
        #[source]
        source: EngineError,
    },
    /// Every step succeeded, and still something differs.
    #[error("after {rounds} rounds there still differs: {}", list(left))]
    Unsettled {
        /// How often it was tried.
        rounds: u32,
        /// What differs.
        left: Vec<Drift>,
    },
    /// The agent's own row cannot be written.
    #[error("could not record the assignment")]
    Store(#[source] StoreError),
}

fn list(left: &[Drift]) -> String {
    left.iter()
        .map(Drift::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

impl ApplyError {
    /// The code for the master.
    pub const fn code(&self) -> FailureCode {
        match self {
            Self::Observe(source)
            | Self::Image(source)
            | Self::Subnets(source)
            | Self::Step { source, .. } => match source.kind {
                EngineErrorKind::Unreachable => FailureCode::EngineUnreachable,
                EngineErrorKind::Timeout => FailureCode::EngineTimeout,
                EngineErrorKind::SubnetInUse => FailureCode::SubnetInUse,
                EngineErrorKind::PortTaken => FailureCode::PortTaken,
                EngineErrorKind::ImageMissing => FailureCode::ImageMissing,
                EngineErrorKind::Disk => FailureCode::Store,
                EngineErrorKind::NotFound | EngineErrorKind::Refused => FailureCode::EngineRefused,
            },
            Self::HostShort(_) => FailureCode::HostShort,
            Self::SubnetInUse { .. } => FailureCode::SubnetInUse,
            Self::Unsettled { .. } => FailureCode::EngineRefused,
            Self::Store(_) => FailureCode::Store,
        }
    }

    /// The failure, in words for a person.
    pub fn failure(&self) -> ApplyFailure {
        ApplyFailure {
            code: self.code(),
            message: Chain(self).to_string(),
        }
    }

    /// Whether the engine has moved on between being seen and being used: worth another look. An
    /// object may have vanished; or one has appeared, because the engine still carried out what an
    /// agent had asked of it that was killed meanwhile.
    pub(super) const fn is_outrun(&self) -> bool {
        matches!(
            self,
            Self::Step { source, .. }
                if matches!(source.kind, EngineErrorKind::NotFound | EngineErrorKind::SubnetInUse)
        )
    }
}

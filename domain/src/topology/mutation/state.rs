//! The state machine of a queued mutation: a total function, and nothing else moves a state.

use std::fmt;
use std::str::FromStr;

/// Where a mutation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MutationState {
    /// Queued. A worker's lease on it is no state: when the lease ends, it is merely queued.
    Pending,
    /// Committed, and on its way to the host.
    Applying,
    /// The host has reported it.
    Applied,
    /// Refused with findings, or not carried out by the engine.
    Failed,
    /// Taken back before it was committed, or overtaken by a teardown.
    Cancelled,
}

/// What can happen to a mutation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MutationEvent {
    /// Its effect was stored as the next revision.
    Committed,
    /// It no longer applies: the topology is left as it was.
    Refused,
    /// The host has reported a generation that holds it.
    Reported,
    /// The engine could not carry it out: the rows stay and repair goes on.
    EngineFailed,
    /// An operator took it back.
    CancelRequested,
    /// The topology is torn down.
    TornDown,
}

/// A pair of state and event that the machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a mutation that is {from} cannot take {event}")]
pub struct IllegalMutation {
    /// The state.
    pub from: MutationState,
    /// The event.
    pub event: MutationEvent,
}

/// A text that names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no mutation state")]
pub struct UnknownMutationState {
    text: String,
}

impl MutationState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Applying,
        Self::Applied,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word for it in rows, URLs and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Applying => "applying",
            Self::Applied => "applied",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state after `event`, or why there is none.
    pub fn next(self, event: MutationEvent) -> Result<Self, IllegalMutation> {
        use MutationEvent as On;
        use MutationState as Is;
        Ok(match (self, event) {
            (Is::Pending, On::Committed) => Is::Applying,
            (Is::Pending, On::Refused) | (Is::Applying, On::EngineFailed) => Is::Failed,
            (Is::Applying, On::Reported) => Is::Applied,
            (Is::Pending, On::CancelRequested) | (Is::Pending | Is::Applying, On::TornDown) => {
                Is::Cancelled
            }
            (from, event) => return Err(IllegalMutation { from, event }),
        })
    }

    /// Whether nothing more can happen to it.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Applying => false,
            Self::Applied | Self::Failed | Self::Cancelled => true,
        }
    }
}

impl MutationEvent {
    /// Every event.
    pub const ALL: [Self; 6] = [
        Self::Committed,
        Self::Refused,
        Self::Reported,
        Self::EngineFailed,
        Self::CancelRequested,
        Self::TornDown,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Refused => "refused",
            Self::Reported => "reported",
            Self::EngineFailed => "engine_failed",
            Self::CancelRequested => "cancel_requested",
            Self::TornDown => "torn_down",
        }
    }
}

impl fmt::Display for MutationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for MutationEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for MutationState {
    type Err = UnknownMutationState;

    fn from_str(text: &str) -> Result<Self, UnknownMutationState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownMutationState {
                text: text.chars().take(64).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_exactly_these_arrows_and_final_states_have_none() {
        let mut arrows = Vec::new();
        for from in MutationState::ALL {
            assert_eq!(from.as_str().parse(), Ok(from));
            for event in MutationEvent::ALL {
                match from.next(event) {
                    Ok(to) => {
                        assert!(!from.is_final());
                        arrows.push((from.as_str(), event.as_str(), to.as_str()));
                    }
                    Err(refused) => assert_eq!(refused, IllegalMutation { from, event }),
                }
            }
        }
        assert_eq!(
            arrows,
            [
                ("pending", "committed", "applying"),
                ("pending", "refused", "failed"),
                ("pending", "cancel_requested", "cancelled"),
                ("pending", "torn_down", "cancelled"),
                ("applying", "reported", "applied"),
                ("applying", "engine_failed", "failed"),
                ("applying", "torn_down", "cancelled"),
            ]
        );
    }
}

//! The status machine of a topology: a total function, and nothing else moves a status.

use std::fmt;
use std::str::FromStr;

/// Where a topology stands between intent and host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopologyStatus {
    /// Drafted, never deployed.
    Pending,
    /// Assigned to a host that has not yet reported it whole.
    Deploying,
    /// The host reports exactly what is intended.
    Active,
    /// The host reports something else; repair goes on.
    Degraded,
    /// The deploy failed and was rolled back.
    Failed,
    /// Being removed from the host.
    TearingDown,
    /// The host has reported its absence.
    TornDown,
}

/// What can happen to a topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatusEvent {
    /// An operator asked for it (also as a retry).
    DeployRequested,
    /// The host reports exactly what is intended.
    Converged,
    /// The host reports something else.
    Drifted,
    /// The host could not carry it out, or never answered.
    ApplyFailed,
    /// An operator asked for its end, or a successor took its host.
    TeardownRequested,
    /// The host has reported that nothing of it is left, or an operator settled it by force.
    HostIsEmpty,
}

/// A pair of status and event that the machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a topology that is {from} cannot take {event}")]
pub struct IllegalTransition {
    /// The status.
    pub from: TopologyStatus,
    /// The event.
    pub event: StatusEvent,
}

impl TopologyStatus {
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Deploying,
        Self::Active,
        Self::Degraded,
        Self::Failed,
        Self::TearingDown,
        Self::TornDown,
    ];

    /// The word for it in rows, URLs and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Deploying => "deploying",
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::TearingDown => "tearing_down",
            Self::TornDown => "torn_down",
        }
    }

    /// The status after `event`, or why there is none.
    pub fn next(self, event: StatusEvent) -> Result<Self, IllegalTransition> {
        use StatusEvent as On;
        use TopologyStatus as Is;
        Ok(match (self, event) {
            (Is::Pending | Is::Failed, On::DeployRequested) => Is::Deploying,
            (Is::Deploying | Is::Degraded, On::Converged) => Is::Active,
            (Is::Deploying | Is::Active, On::Drifted) => Is::Degraded,
            (Is::Deploying, On::ApplyFailed) => Is::Failed,
            (Is::Deploying | Is::Active | Is::Degraded | Is::Failed, On::TeardownRequested) => {
                Is::TearingDown
            }
            (Is::Pending | Is::TearingDown, On::HostIsEmpty) => Is::TornDown,
            (from, event) => return Err(IllegalTransition { from, event }),
        })
    }

    /// Whether a host is to hold it, or still may: such a topology occupies its host.
    pub const fn is_live(self) -> bool {
        match self {
            Self::Deploying | Self::Active | Self::Degraded | Self::TearingDown => true,
            Self::Pending | Self::Failed | Self::TornDown => false,
        }
    }

    /// Whether it may be removed from the database without asking its host.
    pub const fn is_removable(self) -> bool {
        match self {
            Self::Pending | Self::TornDown => true,
            Self::Deploying | Self::Active | Self::Degraded | Self::Failed | Self::TearingDown => {
                false
            }
        }
    }
}

impl StatusEvent {
    /// Every event.
    pub const ALL: [Self; 6] = [
        Self::DeployRequested,
        Self::Converged,
        Self::Drifted,
        Self::ApplyFailed,
        Self::TeardownRequested,
        Self::HostIsEmpty,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeployRequested => "deploy_requested",
            Self::Converged => "converged",
            Self::Drifted => "drifted",
            Self::ApplyFailed => "apply_failed",
            Self::TeardownRequested => "teardown_requested",
            Self::HostIsEmpty => "host_is_empty",
        }
    }
}

impl fmt::Display for TopologyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for StatusEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no topology status")]
pub struct UnknownStatus {
    text: String,
}

impl FromStr for TopologyStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownStatus {
                text: text.chars().take(64).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_machine_has_exactly_these_arrows() {
        use TopologyStatus as Is;
        let mut arrows = Vec::new();
        for from in Is::ALL {
            for event in StatusEvent::ALL {
                if let Ok(to) = from.next(event) {
                    arrows.push((from.as_str(), event.as_str(), to.as_str()));
                }
            }
        }
        assert_eq!(
            arrows,
            [
                ("pending", "deploy_requested", "deploying"),
                ("pending", "host_is_empty", "torn_down"),
                ("deploying", "converged", "active"),
                ("deploying", "drifted", "degraded"),
                ("deploying", "apply_failed", "failed"),
                ("deploying", "teardown_requested", "tearing_down"),
                ("active", "drifted", "degraded"),
                ("active", "teardown_requested", "tearing_down"),
                ("degraded", "converged", "active"),
                ("degraded", "teardown_requested", "tearing_down"),
                ("failed", "deploy_requested", "deploying"),
                ("failed", "teardown_requested", "tearing_down"),
                ("tearing_down", "host_is_empty", "torn_down"),
            ]
        );
    }

    #[test]
    fn a_word_that_is_no_status_is_refused() {
        for status in TopologyStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        for word in ["", "Active", "running", "pending ", "torn-down"] {
            let error = word.parse::<TopologyStatus>().expect_err("no status");
            assert_eq!(error.to_string(), format!("{word:?} is no topology status"));
        }
    }

    proptest! {
        #[test]
        fn nothing_is_active_without_a_report_and_nothing_leaves_torn_down(
            events in proptest::collection::vec(0..StatusEvent::ALL.len(), 0..40)
        ) {
            let mut status = TopologyStatus::Pending;
            for event in events.into_iter().map(|index| StatusEvent::ALL[index]) {
                let before = status;
                if let Ok(after) = before.next(event) {
                    prop_assert_ne!(before, TopologyStatus::TornDown);
                    if after == TopologyStatus::Active {
                        prop_assert_eq!(event, StatusEvent::Converged);
                    }
                    if after == TopologyStatus::TornDown {
                        prop_assert_eq!(event, StatusEvent::HostIsEmpty);
                    }
                    status = after;
                }
            }
        }
    }
}

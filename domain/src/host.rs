//! Hosts: how a heartbeat, or its absence, becomes a state.

use std::fmt;
use std::str::FromStr;

use time::{Duration, OffsetDateTime};

/// What the master believes of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostState {
    /// Heartbeats come.
    Ready,
    /// One is overdue.
    Late,
    /// So many are overdue that nobody should count on it.
    Lost,
    /// The master has not run for long enough to say.
    Unknown,
    /// It may not connect any more.
    Revoked,
}

impl HostState {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Late => "late",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
            Self::Revoked => "revoked",
        }
    }
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What an operator has decided about a host; stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It takes topologies.
    Open,
    /// It keeps what it has and takes nothing new.
    Cordoned,
    /// What it has is being taken down; it takes nothing new.
    Draining,
    /// It may not connect any more.
    Revoked,
    /// It is gone: it may connect only to be told to hold nothing.
    Removed,
}

/// A word that names no standing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no standing of a host")]
pub struct UnknownStanding {
    text: String,
}

impl Standing {
    /// Every standing.
    pub const ALL: [Self; 5] = [
        Self::Open,
        Self::Cordoned,
        Self::Draining,
        Self::Revoked,
        Self::Removed,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Revoked => "revoked",
            Self::Removed => "removed",
        }
    }

    /// Whether an operator may move a host from this standing to another. What is revoked stays
    /// shut out, and what is removed stays removed.
    pub const fn may_become(self, to: Self) -> bool {
        use Standing::{Cordoned, Draining, Open, Removed, Revoked};
        matches!(
            (self, to),
            (Open, Cordoned | Draining)
                | (Cordoned, Open | Draining)
                | (Draining, Open)
                | (Open | Cordoned | Draining, Revoked)
                | (Open | Cordoned | Draining | Revoked, Removed)
        )
    }

    /// Whether a new topology may be assigned to it.
    pub const fn takes_new(self) -> bool {
        matches!(self, Self::Open)
    }

    /// Whether events of its deckies are taken.
    pub const fn is_heard(self) -> bool {
        matches!(self, Self::Open | Self::Cordoned | Self::Draining)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Standing {
    type Err = UnknownStanding;

    fn from_str(text: &str) -> Result<Self, UnknownStanding> {
        Self::ALL
            .into_iter()
            .find(|standing| standing.as_str() == text)
            .ok_or_else(|| UnknownStanding {
                text: text.chars().take(64).collect(),
            })
    }
}

/// The state of a host that a master has last heard itself at `last_seen`, if it has, and which listens
/// since `listening_since`, with heartbeats every `period`.
pub fn state(
    standing: Standing,
    last_seen: Option<OffsetDateTime>,
    listening_since: OffsetDateTime,
    period: Duration,
    now: OffsetDateTime,
) -> HostState {
    if standing == Standing::Revoked {
        return HostState::Revoked;
    }
    // What was never heard is at most as silent as this master is old. Not that what was heard came
    // later than that: a clock may have been set back since.
    let silence = now - last_seen.unwrap_or(listening_since);
    if silence <= period * 1.5 {
        if last_seen.is_some() {
            HostState::Ready
        } else {
            HostState::Unknown
        }
    } else if silence <= period * 2.5 {
        if last_seen.is_some() {
            HostState::Late
        } else {
            HostState::Unknown
        }
    } else {
        HostState::Lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_was_shut_out_never_takes_part_again() {
        for from in [Standing::Revoked, Standing::Removed] {
            for to in Standing::ALL {
                let only_way = from == Standing::Revoked && to == Standing::Removed;
                assert_eq!(from.may_become(to), only_way, "{from} to {to}");
            }
        }
        assert!(
            Standing::ALL
                .iter()
                .all(|standing| !standing.may_become(*standing))
        );
    }

    #[test]
    fn silence_makes_a_host_late_then_lost_and_a_young_master_says_unknown() {
        let start = OffsetDateTime::UNIX_EPOCH;
        let after = |seconds: i64| start + Duration::seconds(seconds);
        let period = Duration::seconds(10);
        let seen = |last: Option<i64>, now: i64| {
            state(Standing::Open, last.map(after), start, period, after(now))
        };
        assert_eq!(seen(Some(100), 110), HostState::Ready);
        assert_eq!(seen(Some(100), 116), HostState::Late);
        assert_eq!(seen(Some(100), 126), HostState::Lost);
        assert_eq!(seen(None, 20), HostState::Unknown);
        assert_eq!(
            seen(Some(-5), 5),
            HostState::Ready,
            "the clock was set back"
        );
        assert_eq!(seen(None, 26), HostState::Lost);
        let revoked = state(Standing::Revoked, Some(after(0)), start, period, after(1));
        assert_eq!(revoked, HostState::Revoked);
    }
}

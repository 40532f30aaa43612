//! Intervals: how often something is to happen, as operators write it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A span of whole seconds from a minute to a year, shown in its largest whole unit: `30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u64);

/// A text or a number that is no interval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no interval from 1m to 365d, such as 90s, 30m, 6h or 2d")]
pub struct InvalidInterval {
    text: String,
}

const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

impl Interval {
    const MIN: u64 = 60;
    const MAX: u64 = 365 * 86_400;

    /// An interval of so many seconds.
    pub fn from_seconds(seconds: u64) -> Result<Self, InvalidInterval> {
        if (Self::MIN..=Self::MAX).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(InvalidInterval {
                text: format!("{seconds}s"),
            })
        }
    }

    /// Its seconds.
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// The interval as a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) = UNITS
            .into_iter()
            .find(|(_, size)| self.0.is_multiple_of(*size))
            .unwrap_or(("s", 1));
        write!(f, "{}{unit}", self.0 / size)
    }
}

impl FromStr for Interval {
    type Err = InvalidInterval;

    fn from_str(text: &str) -> Result<Self, InvalidInterval> {
        UNITS
            .into_iter()
            .find_map(|(unit, size)| {
                let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
                Self::from_seconds(number.checked_mul(size)?).ok()
            })
            .ok_or_else(|| InvalidInterval {
                text: text.chars().take(64).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_shown_as_it_is_written() {
        for text in ["90s", "1m", "30m", "6h", "2d", "365d"] {
            assert_eq!(
                text.parse::<Interval>().map(|span| span.to_string()),
                Ok(text.to_owned())
            );
        }
        for text in [
            "",
            "m",
            "59s",
            "366d",
            "-1m",
            "1",
            "1y",
            "99999999999999999999d",
        ] {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
    }
}

//! The clock, and times as people read them.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The time.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where this program looks at a clock"
)]
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// How long ago `at` (RFC 3339) was, at `now`: `12 s ago`.
pub(crate) fn ago(at: &str, now: OffsetDateTime) -> String {
    let Ok(at) = OffsetDateTime::parse(at, &Rfc3339) else {
        return at.to_owned();
    };
    match Duration::try_from(now - at) {
        Ok(past) => format!("{} ago", crate::duration::rough(past)),
        // Clocks differ a little; a time to come is not worth a word of its own.
        Err(_) => "now".to_owned(),
    }
}

/// The time of day of `at` (RFC 3339), to the millisecond.
pub(crate) fn time_of_day(at: &str) -> String {
    let Ok(at) = OffsetDateTime::parse(at, &Rfc3339) else {
        return at.to_owned();
    };
    let (hour, minute, second, millis) = at.to_hms_milli();
    format!("{hour:02}:{minute:02}:{second:02}.{millis:03}")
}

/// The date and time of day of `at` (RFC 3339), to the second.
pub(crate) fn date_and_time(at: &str) -> String {
    let Ok(at) = OffsetDateTime::parse(at, &Rfc3339) else {
        return at.to_owned();
    };
    let (hour, minute, second) = at.to_hms();
    format!("{} {hour:02}:{minute:02}:{second:02}", at.date())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn times_are_read_and_written() {
        let now = datetime!(2026-03-01 12:00:30 UTC);
        assert_eq!(ago("2026-03-01T12:00:00Z", now), "30 s ago");
        assert_eq!(ago("2026-03-01T12:00:31Z", now), "now");
        assert_eq!(ago("soon", now), "soon");
        assert_eq!(time_of_day("2026-03-01T12:00:00.0129Z"), "12:00:00.012");
        assert_eq!(date_and_time("2026-03-01T12:00:00Z"), "2026-03-01 12:00:00");
    }
}

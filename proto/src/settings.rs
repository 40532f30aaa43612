//! How people write settings: durations as `30s`, and words that are almost right.

use std::time::Duration;

/// A text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no duration such as 500ms, 30s, 15m, 24h or 7d")]
pub struct InvalidDuration {
    text: String,
}

/// Reads a duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
pub fn duration(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration {
        text: text.chars().take(64).collect(),
    };
    let digits = text
        .find(|character: char| !character.is_ascii_digit())
        .ok_or_else(invalid)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| invalid())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(invalid()),
    };
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(invalid)
}

/// The known word that is nearest to `word`, when one is near enough to have been meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|each| (strsim::damerau_levenshtein(word, each), each))
        .min()
        .filter(|(distance, each)| *distance <= each.len().max(word.len()) / 2)
        .map(|(_, each)| each)
}

/// What to say of serde's complaint about an unknown field or variant: the nearest known one.
/// None when the message is another complaint.
pub fn hint(message: &str) -> Option<String> {
    let (_, rest) = message
        .split_once("unknown field `")
        .or_else(|| message.split_once("unknown variant `"))?;
    let (word, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2);
    nearest(word, known).map(|known| format!("did you mean `{known}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        for bad in [
            "",
            "30",
            "s",
            "1.5s",
            "-1s",
            "1 s",
            "99999999999999999999d",
            "1w",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_field_is_answered_with_the_nearest_known_one() {
        let message = "unknown field `heartbeet`, expected one of `heartbeat`, `api_listen`";
        assert_eq!(hint(message).as_deref(), Some("did you mean `heartbeat`?"));
        assert_eq!(hint("unknown field `zzzzzzzzz`, expected `ab`"), None);
        assert_eq!(hint("expected a string"), None);
    }
}

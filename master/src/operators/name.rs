//! What users and API tokens may be called. Nothing that an audit entry or a log uses to part its
//! fields is in a name.

/// Longest name.
const LONGEST: usize = 64;

/// A name that breaks the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has 1 to {LONGEST} letters, digits, dots, hyphens and underscores, and begins with a \
     letter or digit"
)]
pub struct InvalidOperatorName;

/// Whether that is a name.
pub fn check(text: &str) -> Result<(), InvalidOperatorName> {
    let fits = (1..=LONGEST).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if fits {
        Ok(())
    } else {
        Err(InvalidOperatorName)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_word_without_surprises() {
        for good in ["a", "alice", "Alice.B-2_c", "9", &"x".repeat(64)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ".a",
            "a b",
            "a@b",
            "a/b",
            "é",
            "a\n",
            "-",
            &"x".repeat(65),
        ] {
            assert_eq!(check(bad), Err(InvalidOperatorName), "{bad:?}");
        }
    }
}

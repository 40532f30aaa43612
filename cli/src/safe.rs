//! Text from elsewhere, made safe for a terminal.
//!
//! Everything that a master sends may hold what an attacker typed. A terminal obeys control
//! characters (move, recolour, rename the window, answer back) and readers obey characters that
//! reorder text; both come out as escapes, and everything else as it is.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` with everything that is not plainly visible escaped, line breaks included.
pub(crate) fn safe(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_hidden(character) {
            write!(out, "{}", character.escape_default()).expect("a string takes everything");
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// [`safe`], and cut after `limit` characters.
pub(crate) fn clipped(text: &str, limit: usize) -> String {
    let mut out = safe(text).into_owned();
    if let Some((at, _)) = out.char_indices().nth(limit) {
        out.truncate(at);
        out.push('…');
    }
    out
}

fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            // Soft hyphen, Arabic letter mark, Mongolian vowel separator.
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            // Zero widths, line separators, and everything that reorders.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            // Tags: a whole invisible alphabet.
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_text_stays_as_it_is() {
        for text in ["", "root / hunter2", "Grüße, 世界 🦀", "a\\b"] {
            assert!(matches!(safe(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn what_a_terminal_obeys_comes_out_escaped() {
        assert_eq!(safe("\x1b[2J\x07"), "\\u{1b}[2J\\u{7}");
        assert_eq!(safe("a\r\nb\tc"), "a\\r\\nb\\tc");
        assert_eq!(safe("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(safe("\u{202e}gpj.exe"), "\\u{202e}gpj.exe");
        assert_eq!(safe("x\u{e0041}"), "x\\u{e0041}");
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(clipped("ääääb", 4), "ääää…");
        assert_eq!(clipped("ääää", 4), "ääää");
    }

    proptest! {
        #[test]
        fn nothing_hidden_survives(text in any::<String>()) {
            prop_assert!(!safe(&text).chars().any(is_hidden));
        }
    }
}

//! Canonical JSON (RFC 8785) of strings, whole numbers, flags, lists and objects.
//!
//! Floats have no place in anything that is hashed, so the hard part of the RFC (section
//! 3.2.2.3) does not arise; whole numbers stay below 2^53, where every JSON reader agrees.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// A JSON value of which there is exactly one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Canonical {
    /// `null`.
    Null,
    /// A flag.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
    /// A list: its order has meaning.
    List(Vec<Canonical>),
    /// An object: its order has none.
    Object(BTreeMap<Cow<'static, str>, Canonical>),
}

/// The largest whole number that every JSON reader takes exactly.
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

impl From<&str> for Canonical {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Canonical {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Canonical {
    fn from(flag: bool) -> Self {
        Self::Boolean(flag)
    }
}

impl From<u16> for Canonical {
    fn from(number: u16) -> Self {
        Self::Integer(i64::from(number))
    }
}

impl From<u32> for Canonical {
    fn from(number: u32) -> Self {
        Self::Integer(i64::from(number))
    }
}

impl FromIterator<Canonical> for Canonical {
    fn from_iter<I: IntoIterator<Item = Canonical>>(items: I) -> Self {
        Self::List(items.into_iter().collect())
    }
}

impl Canonical {
    /// An object of the given members.
    pub fn object<const N: usize>(members: [(&'static str, Canonical); N]) -> Self {
        let members = members.into_iter();
        Self::Object(
            members
                .map(|(key, value)| (Cow::Borrowed(key), value))
                .collect(),
        )
    }

    /// The one text of the value.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    /// SHA-256 of the one text of the value.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.text().as_bytes()).into()
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Boolean(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Self::Integer(number) => {
                let Ok(()) = write!(out, "{number}") else {
                    unreachable!("a string takes everything");
                };
            }
            Self::Text(text) => write_text(text, out),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                let mut sorted: Vec<_> = members.iter().collect();
                // Keys sort by UTF-16 code units (section 3.2.3), which is not the order of
                // their bytes beyond the basic plane. Most are of ASCII, where it is.
                if !members.keys().all(|key| key.is_ascii()) {
                    sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
                }
                out.push('{');
                for (index, (key, value)) in sorted.into_iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_text(key, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// Escapes as section 3.2.2.2 demands: the shortest form, lower-case hexadecimal.
fn write_text(text: &str, out: &mut String) {
    out.push('"');
    // Most texts have nothing to escape, and go as they are.
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.push_str(text);
        out.push('"');
        return;
    }
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            control if u32::from(control) < 0x20 => {
                out.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_utf16_and_texts_escape_as_rfc_8785_shows() {
        // The key order of RFC 8785, section 3.2.3, without its numbers.
        let keys = [
            "\u{20ac}",
            "\r",
            "\u{fb33}",
            "1",
            "\u{1f600}",
            "\u{80}",
            "\u{f6}",
        ];
        let object = Canonical::Object(
            keys.iter()
                .map(|key| (Cow::Borrowed(*key), Canonical::Null))
                .collect(),
        );
        assert_eq!(
            object.text(),
            "{\"\\r\":null,\"1\":null,\"\u{80}\":null,\"\u{f6}\":null,\"\u{20ac}\":null,\
             \"\u{1f600}\":null,\"\u{fb33}\":null}"
        );
        assert_eq!(
            Canonical::from("\u{20ac}$\u{f}\nA'B\"\\\\\"/").text(),
            "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\""
        );
    }
}

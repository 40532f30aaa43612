//! Names that people give: checked once, carried as types. Names are keys nowhere; ids are.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Longest name in bytes: a DNS label (RFC 1035, section 2.3.4).
pub const MAX_NAME: usize = 63;

/// A text that breaks the rule for names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{noun} name {text:?} must be 1 to 63 letters, digits or hyphens and start with a letter or digit"
)]
pub struct InvalidName {
    noun: &'static str,
    text: String,
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= MAX_NAME
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $noun:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks `text` against `[A-Za-z0-9][A-Za-z0-9-]{0,62}`.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                if is_name(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidName { noun: $noun, text: text.chars().take(80).collect() })
                }
            }

            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The form in which two names are the same name: names differ by more than case.
            pub fn folded(&self) -> String {
                self.0.to_ascii_lowercase()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }
    };
}

name!(/** The name of a host. */ HostName, "host");
name!(/** The name of a topology. */ TopologyName, "topology");
name!(/** The name of a LAN, unique in its topology without regard to case. */ LanName, "LAN");
name!(/** The name of a decky, unique in its topology without regard to case. Never on the wire to an attacker. */ DeckyName, "decky");
name!(/** The host name that a decky shows to attackers. */ Hostname, "host");

/// The name of a network interface of a host, as the kernel takes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

/// A text that names no network interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "interface name {text:?} must be 1 to 15 letters, digits, dots, hyphens or underscores and \
     start with a letter or digit"
)]
pub struct InvalidInterfaceName {
    text: String,
}

impl InterfaceName {
    /// Checks `text` against `[A-Za-z0-9][A-Za-z0-9._-]{0,14}`: what Linux takes (`IFNAMSIZ`),
    /// without the characters that other programs read as something else.
    pub fn parse(text: &str) -> Result<Self, InvalidInterfaceName> {
        let mut bytes = text.bytes();
        let good = text.len() <= 15
            && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
            && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if good {
            Ok(Self(text.to_owned()))
        } else {
            let text = text.chars().take(80).collect();
            Err(InvalidInterfaceName { text })
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Orders names as a person expects: without regard to case, then by bytes.
pub fn by_fold(left: &str, right: &str) -> Ordering {
    left.to_ascii_lowercase()
        .cmp(&right.to_ascii_lowercase())
        .then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label_that_starts_with_a_letter_or_digit() {
        for good in ["a", "0", "LAN-00", "web-1", &"x".repeat(63)] {
            assert!(LanName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a_b", "a b", "ä", "a\n", "a.b", &"x".repeat(64)] {
            assert!(LanName::parse(bad).is_err(), "{bad}");
        }
    }
}

//! Identifiers: one type per thing that has one, so that two of them cannot be swapped.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// A text that is no identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {noun} id (a UUID)")]
pub struct InvalidId {
    noun: &'static str,
    text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $noun:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that the caller made: version 7 where the order of creation helps an
            /// index, any version where it came from outside.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID itself.
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// The last 12 hexadecimal digits: the random part of a version 7 UUID, for names
            /// of engine objects that a person reads. Never a key.
            pub fn short(self) -> String {
                let text = self.0.simple().to_string();
                text[20..].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.hyphenated(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($noun, ":{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(text).map(Self).map_err(|_| InvalidId {
                    noun: $noun,
                    text: text.chars().take(64).collect(),
                })
            }
        }
    };
}

id!(/** An enrolled machine. Never reused, not even after `decnet host rm`. */ HostId, "host");
id!(/** A topology. */ TopologyId, "topology");
id!(/** A LAN of a topology. */ LanId, "lan");
id!(/** A decky of a topology. */ DeckyId, "decky");
id!(/** A decky's membership of a LAN. */ EdgeId, "edge");
id!(/** An event that a decky saw. */ EventId, "event");
id!(/** A join token (its public part). */ TokenId, "token");
id!(/** One life of an agent's spool; a lost spool starts a new one. */ SpoolId, "spool");
id!(/** One life of a decky process: counters of its lines start anew with each. */ BootId, "boot");
id!(/** One connection or login that a decky served. */ SessionId, "session");

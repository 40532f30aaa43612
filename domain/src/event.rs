//! Events: what a decky saw, as a closed set of typed kinds.
//!
//! Identity (host, topology, decky) is stamped by the agent from the container and by the master
//! from the certificate; nothing in a payload can set it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use time::OffsetDateTime;

use crate::decky_mutation::DeckyMutated;
use crate::id::{BootId, SessionId};
use crate::service::ServiceKind;

/// Longest line that a decky writes, in bytes, its newline included. Docker splits longer ones.
pub const MAX_LINE: usize = 16 * 1024;

/// Bytes that came from outside, kept exactly: data everywhere, never trusted to be text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Evidence(Vec<u8>);

impl Evidence {
    /// Most bytes that one piece of evidence keeps; a decoded line never holds more.
    pub const MAX: usize = 8 * 1024;

    /// Keeps at most [`Evidence::MAX`] bytes of `bytes`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let mut bytes = bytes.into();
        bytes.truncate(Self::MAX);
        Self(bytes)
    }

    /// The bytes as they came.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, when they are UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// A form that is safe to print on a terminal: control characters and bytes that are not
    /// UTF-8 come out escaped.
    pub fn printable(&self) -> String {
        let mut out = String::with_capacity(self.0.len());
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                // Format characters (category Cf) can reorder what a reader sees.
                if character.is_control()
                    || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
                {
                    out.extend(character.escape_default());
                } else {
                    out.push(character);
                }
            }
            for byte in chunk.invalid() {
                out.push_str(&format!("\\x{byte:02x}"));
            }
        }
        out
    }
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.printable(), f)
    }
}

impl From<&str> for Evidence {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for it in lines, rows and URLs.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|each| each.as_str() == text).ok_or_else(|| {
                    UnknownWord { noun: stringify!($name), text: text.chars().take(64).collect() }
                })
            }
        }
    };
}

/// A word that is not of the closed set where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {noun}")]
pub struct UnknownWord {
    noun: &'static str,
    text: String,
}

words! {
    /// The kind of an event.
    EventKind {
        /// A connection was accepted.
        Connect = "connect",
        /// A connection ended.
        Disconnect = "disconnect",
        /// Credentials were offered.
        Auth = "auth",
        /// A command was given.
        Command = "command",
        /// A request was made (HTTP and its like).
        Request = "request",
        /// A database or directory was asked.
        Query = "query",
        /// A file was offered or fetched.
        File = "file",
        /// A message was handed in.
        Message = "message",
        /// A connection was forwarded to another decky.
        Forward = "forward",
        /// Something by which a client can be known again.
        Fingerprint = "fingerprint",
        /// A scan was seen.
        Scan = "scan",
        /// The service set of a decky changed.
        Mutation = "mutation",
        /// A decky or its collection started, reloaded, lost lines or stopped.
        Lifecycle = "lifecycle",
        /// Bytes that no parser took.
        Raw = "raw",
    }
}

words! {
    /// How much an event matters.
    Severity {
        /// Ordinary noise.
        Info = "info",
        /// Worth a look.
        Notice = "notice",
        /// An attacker got something.
        Warning = "warning",
        /// Evidence may be missing or containment is in question.
        Critical = "critical",
    }
}

words! {
    /// How credentials were offered.
    AuthMethod {
        /// A password in clear.
        Password = "password",
        /// A public key; the secret is its OpenSSH text form.
        PublicKey = "public_key",
        /// HTTP Basic (RFC 7617).
        Basic = "basic",
        /// A form of a web page.
        Form = "form",
    }
}

words! {
    /// What the decky answered to credentials.
    AuthOutcome {
        /// Let in.
        Accepted = "accepted",
        /// Turned away.
        Rejected = "rejected",
    }
}

/// What happened, with the data of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A connection was accepted.
    Connect,
    /// A connection ended.
    Disconnect {
        /// Bytes that the client sent.
        received: u64,
        /// Bytes that the decky sent.
        sent: u64,
        /// How long it lasted, in milliseconds.
        millis: u64,
    },
    /// Credentials were offered.
    Auth {
        /// How.
        method: AuthMethod,
        /// For whom.
        username: Evidence,
        /// The secret in clear or in a form that can be cracked.
        secret: Evidence,
        /// The answer.
        outcome: AuthOutcome,
    },
    /// A command line was given.
    Command {
        /// The line as it was typed.
        line: Evidence,
    },
    /// A request was made.
    Request {
        /// The method.
        method: Evidence,
        /// The target as it stood in the request line.
        target: Evidence,
        /// Header fields in the order and case in which they came.
        headers: Vec<(Evidence, Evidence)>,
        /// The start of the body.
        body: Evidence,
        /// The status that was answered.
        status: u16,
    },
    /// Something by which a client can be known again.
    Fingerprint {
        /// What was measured: `ssh_client`, `hassh`, `tcp_syn`, `user_agent`.
        of: String,
        /// Its value.
        value: Evidence,
    },
    /// The service set of a decky changed. The master's own: no decky and no host can say it.
    Mutation(Box<DeckyMutated>),
    /// A decky or its collection changed state.
    Lifecycle {
        /// `waiting` (for its network), `started`, `alive`, `reloaded`, `refused` (a
        /// configuration), `stopping`, `gap`, `dropped`.
        state: String,
        /// The digest of the configuration in force, as 64 hexadecimal digits; empty when none is.
        config: String,
        /// More for a person.
        detail: Evidence,
        /// How many things the state is about: lines missing in a gap, events dropped.
        count: u64,
    },
    /// Bytes that no parser took.
    Raw {
        /// Why not.
        reason: String,
    },
}

impl Payload {
    /// The kind that this payload is of.
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::Connect => EventKind::Connect,
            Self::Disconnect { .. } => EventKind::Disconnect,
            Self::Auth { .. } => EventKind::Auth,
            Self::Command { .. } => EventKind::Command,
            Self::Request { .. } => EventKind::Request,
            Self::Fingerprint { .. } => EventKind::Fingerprint,
            Self::Mutation(_) => EventKind::Mutation,
            Self::Lifecycle { .. } => EventKind::Lifecycle,
            Self::Raw { .. } => EventKind::Raw,
        }
    }
}

/// Where a line stands in the output of one decky: a gap in the counter is a lost line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which life of the decky's process wrote it.
    pub boot: BootId,
    /// The line's number in that life, from 1.
    pub counter: u64,
}

/// What one decky saw at one moment, before anybody has said which decky it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The decky's clock.
    pub at: OffsetDateTime,
    /// The service that saw it; none for the decky as a whole.
    pub service: Option<ServiceKind>,
    /// The connection or login that it belongs to.
    pub session: Option<SessionId>,
    /// Who.
    pub source: Option<SocketAddr>,
    /// On which of the decky's addresses.
    pub destination: Option<SocketAddr>,
    /// How much it matters.
    pub severity: Severity,
    /// What.
    pub payload: Payload,
    /// The bytes on the wire, where the payload does not say everything.
    pub raw: Option<Evidence>,
}

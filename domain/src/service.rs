//! The services that a decky can show, their ports, and the typed options of each.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// An emulated protocol. The next one goes at the end of `ALL`, with its ports and schema below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceKind {
    /// File transfer (RFC 959).
    Ftp,
    /// Web server (RFC 9112).
    Http,
    /// Redis (RESP2).
    Redis,
    /// Secure shell (RFC 4251 to 4254).
    Ssh,
    /// Telnet (RFC 854).
    Telnet,
}

/// A text that names no service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no known service")]
pub struct UnknownService {
    text: String,
}

impl ServiceKind {
    /// Every service, in the order of their names.
    pub const ALL: [Self; 5] = [Self::Ftp, Self::Http, Self::Redis, Self::Ssh, Self::Telnet];

    /// The word for it in files, events and URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ftp => "ftp",
            Self::Http => "http",
            Self::Redis => "redis",
            Self::Ssh => "ssh",
            Self::Telnet => "telnet",
        }
    }

    /// The TCP ports on which it listens.
    pub const fn ports(self) -> &'static [u16] {
        match self {
            Self::Ftp => &[21],
            Self::Http => &[80],
            Self::Redis => &[6379],
            Self::Ssh => &[22],
            Self::Telnet => &[23],
        }
    }

    /// The options that it takes.
    pub const fn schema(self) -> &'static [OptionSchema] {
        const ACCEPT_AFTER: OptionSchema = OptionSchema {
            name: "accept_after",
            rule: OptionRule::Integer { min: 0, max: 100 },
            help: "password attempts of one connection after which a login succeeds; 0 never lets anybody in",
        };
        const fn text(name: &'static str, max: usize, help: &'static str) -> OptionSchema {
            OptionSchema {
                name,
                rule: OptionRule::Text { max },
                help,
            }
        }
        const FTP: &[OptionSchema] = &[
            text(
                "banner",
                200,
                "text of the 220 greeting; from the seed when left out",
            ),
            OptionSchema {
                name: "anonymous",
                rule: OptionRule::Boolean,
                help: "whether an anonymous login succeeds",
            },
        ];
        const HTTP: &[OptionSchema] = &[
            text(
                "server",
                100,
                "value of the Server header; from the seed when left out",
            ),
            text(
                "title",
                100,
                "title of the start page; from the seed when left out",
            ),
        ];
        const REDIS: &[OptionSchema] = &[text(
            "requirepass",
            100,
            "password that AUTH must give; none when left out",
        )];
        const SSH: &[OptionSchema] = &[
            text(
                "banner",
                200,
                "what follows `SSH-2.0-`; from the seed when left out",
            ),
            ACCEPT_AFTER,
        ];
        const TELNET: &[OptionSchema] = &[
            text(
                "banner",
                200,
                "text before the login prompt; from the seed when left out",
            ),
            ACCEPT_AFTER,
        ];
        match self {
            Self::Ftp => FTP,
            Self::Http => HTTP,
            Self::Redis => REDIS,
            Self::Ssh => SSH,
            Self::Telnet => TELNET,
        }
    }
}

impl fmt::Display for ServiceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ServiceKind {
    type Err = UnknownService;

    fn from_str(text: &str) -> Result<Self, UnknownService> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownService {
                text: text.chars().take(64).collect(),
            })
    }
}

/// One option of a service: what it is called, what it may hold, what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionSchema {
    /// Key in the topology file.
    pub name: &'static str,
    /// Type and bounds.
    pub rule: OptionRule,
    /// One clause for a person who fills in a form.
    pub help: &'static str,
}

/// Type and bounds of an option's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionRule {
    /// Printable text on one line.
    Text {
        /// Most bytes.
        max: usize,
    },
    /// A whole number.
    Integer {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
    },
    /// Yes or no.
    Boolean,
}

impl fmt::Display for OptionRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { max } => write!(f, "printable text of at most {max} bytes on one line"),
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Boolean => f.write_str("true or false"),
        }
    }
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum OptionValue {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Yes or no.
    Boolean(bool),
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(number) => fmt::Display::fmt(number, f),
            Self::Boolean(flag) => fmt::Display::fmt(flag, f),
        }
    }
}

impl OptionRule {
    /// Whether `value` keeps the rule.
    pub fn admits(&self, value: &OptionValue) -> bool {
        match (self, value) {
            (Self::Text { max }, OptionValue::Text(text)) => {
                text.len() <= *max && !text.is_empty() && !text.chars().any(char::is_control)
            }
            (Self::Integer { min, max }, OptionValue::Integer(number)) => {
                (min..=max).contains(&number)
            }
            (Self::Boolean, OptionValue::Boolean(_)) => true,
            (Self::Text { .. } | Self::Integer { .. } | Self::Boolean, _) => false,
        }
    }
}

/// The options that are set for one service of one decky; each keeps its schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ServiceOptions(BTreeMap<&'static str, OptionValue>);

/// Why an option cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOption {
    /// The service has no option of that name.
    #[error("{service} has no option {name:?}; it has {}", known(*.service))]
    Unknown {
        /// The service.
        service: ServiceKind,
        /// What was asked for.
        name: String,
    },
    /// The value breaks the option's rule.
    #[error("option {name} of {service} must be {expected}, got {got}")]
    Value {
        /// The service.
        service: ServiceKind,
        /// The option.
        name: &'static str,
        /// What it may hold.
        expected: OptionRule,
        /// What was given.
        got: OptionValue,
    },
}

fn known(service: ServiceKind) -> String {
    let names: Vec<_> = service.schema().iter().map(|option| option.name).collect();
    names.join(", ")
}

impl ServiceOptions {
    /// Sets one option of `service` after checking it against the schema.
    pub fn set(
        &mut self,
        service: ServiceKind,
        name: &str,
        value: OptionValue,
    ) -> Result<(), InvalidOption> {
        let Some(schema) = service.schema().iter().find(|option| option.name == name) else {
            return Err(InvalidOption::Unknown {
                service,
                name: name.chars().take(64).collect(),
            });
        };
        if !schema.rule.admits(&value) {
            return Err(InvalidOption::Value {
                service,
                name: schema.name,
                expected: schema.rule,
                got: value,
            });
        }
        self.0.insert(schema.name, value);
        Ok(())
    }

    /// The options in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &OptionValue)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// The text of option `name`, when it is set and a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(OptionValue::Text(text)) => Some(text),
            Some(OptionValue::Integer(_) | OptionValue::Boolean(_)) | None => None,
        }
    }

    /// The number of option `name`, when it is set and a number.
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.0.get(name) {
            Some(OptionValue::Integer(number)) => Some(*number),
            Some(OptionValue::Text(_) | OptionValue::Boolean(_)) | None => None,
        }
    }

    /// The flag of option `name`, when it is set and a flag.
    pub fn boolean(&self, name: &str) -> Option<bool> {
        match self.0.get(name) {
            Some(OptionValue::Boolean(flag)) => Some(*flag),
            Some(OptionValue::Text(_) | OptionValue::Integer(_)) | None => None,
        }
    }
}

/// The services of a decky, each with its options, in the order of their names.
pub type ServiceSet = BTreeMap<ServiceKind, ServiceOptions>;

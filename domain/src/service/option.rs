//! Options of services: their schemas, their values, and the check of one against the other.

use std::collections::BTreeMap;
use std::fmt;

use super::ServiceKind;

/// One option of a service: what it is called, what it may hold, what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionSchema {
    /// Key in the topology file.
    pub name: &'static str,
    /// Type and bounds.
    pub rule: OptionRule,
    /// What holds when it is left out.
    pub default: OptionDefault,
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
    /// One word of a closed set.
    Choice {
        /// The words.
        of: &'static [&'static str],
    },
}

/// What holds when an option is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionDefault {
    /// Chosen from the decky's seed, so that no two deckies agree.
    Seeded,
    /// The option has no effect.
    Unset,
    /// This text.
    Text(&'static str),
    /// This number.
    Integer(i64),
    /// This flag.
    Boolean(bool),
}

impl fmt::Display for OptionDefault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seeded => f.write_str("from the seed"),
            Self::Unset => f.write_str("none"),
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => fmt::Display::fmt(number, f),
            Self::Boolean(flag) => fmt::Display::fmt(flag, f),
        }
    }
}

impl fmt::Display for OptionRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { max } => write!(f, "printable text of at most {max} bytes on one line"),
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Boolean => f.write_str("true or false"),
            Self::Choice { of } => write!(f, "one of {}", of.join(", ")),
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

impl OptionValue {
    /// As much of it as a message quotes: a document may hold a text of megabytes.
    fn clipped(self) -> Self {
        match self {
            Self::Text(text) => Self::Text(text.chars().take(64).collect()),
            Self::Integer(_) | Self::Boolean(_) => self,
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
            (Self::Choice { of }, OptionValue::Text(text)) => of.contains(&text.as_str()),
            (Self::Text { .. } | Self::Integer { .. } | Self::Boolean | Self::Choice { .. }, _) => {
                false
            }
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
                got: value.clipped(),
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

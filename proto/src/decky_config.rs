//! The decky configuration file: what an agent tells the decky inside a container to be.
//!
//! One JSON file, read at start and again on SIGHUP. Its digest is carried by the liveness line,
//! so that the agent sees which configuration is in force.

use std::collections::BTreeMap;

use domain::name::{Hostname, InvalidName};
use domain::persona::{Persona, UnknownPersona};
use domain::seed::{InvalidSeed, Seed};
use domain::service::{
    InvalidOption, OptionValue, ServiceKind, ServiceOptions, ServiceSet, UnknownService,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Where the agent mounts the directory of the file inside a decky.
pub const MOUNT_POINT: &str = "/etc/decnet";
/// The file's name in that directory.
pub const FILE_NAME: &str = "decky.json";
/// Largest file, in bytes.
pub const MAX_CONFIG: usize = 256 * 1024;

/// What a decky is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeckyConfig {
    /// The host name that it shows.
    pub hostname: Hostname,
    /// The operating system that it shows.
    pub persona: Persona,
    /// What everything comparable is derived from.
    pub seed: Seed,
    /// What it serves.
    pub services: ServiceSet,
}

/// Why bytes are no decky configuration.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// Larger than any agent writes.
    #[error("decky configuration of {got} bytes exceeds {MAX_CONFIG}")]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// Not the JSON of a configuration.
    #[error("decky configuration is malformed")]
    Json(#[source] serde_json::Error),
    /// The host name breaks the rule for names.
    #[error("decky configuration has a bad host name")]
    Hostname(#[source] InvalidName),
    /// No such persona.
    #[error("decky configuration has an unknown persona")]
    Persona(#[source] UnknownPersona),
    /// Not a seed.
    #[error("decky configuration has a bad seed")]
    Seed(#[source] InvalidSeed),
    /// No such service.
    #[error("decky configuration names an unknown service")]
    Service(#[source] UnknownService),
    /// An option that the service does not take.
    #[error("decky configuration has a bad service option")]
    Option(#[source] InvalidOption),
}

/// The value of a service option in JSON and YAML.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum WireOption {
    /// Yes or no.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Text.
    Text(String),
}

impl From<WireOption> for OptionValue {
    fn from(wire: WireOption) -> Self {
        match wire {
            WireOption::Boolean(flag) => Self::Boolean(flag),
            WireOption::Integer(number) => Self::Integer(number),
            WireOption::Text(text) => Self::Text(text),
        }
    }
}

impl From<&OptionValue> for WireOption {
    fn from(value: &OptionValue) -> Self {
        match value {
            OptionValue::Boolean(flag) => Self::Boolean(*flag),
            OptionValue::Integer(number) => Self::Integer(*number),
            OptionValue::Text(text) => Self::Text(text.clone()),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireConfig {
    hostname: String,
    persona: String,
    seed: String,
    services: BTreeMap<String, BTreeMap<String, WireOption>>,
}

impl DeckyConfig {
    /// The bytes of the file. Equal configurations give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let wire = WireConfig {
            hostname: self.hostname.as_str().to_owned(),
            persona: self.persona.as_str().to_owned(),
            seed: self.seed.hex(),
            services: self
                .services
                .iter()
                .map(|(kind, options)| {
                    let options = options
                        .iter()
                        .map(|(name, value)| (name.to_owned(), value.into()));
                    (kind.as_str().to_owned(), options.collect())
                })
                .collect(),
        };
        serde_json::to_vec(&wire).expect("a configuration has string keys and no custom serializer")
    }

    /// Reads the file's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidConfig> {
        if bytes.len() > MAX_CONFIG {
            return Err(InvalidConfig::TooLong { got: bytes.len() });
        }
        let wire: WireConfig = serde_json::from_slice(bytes).map_err(InvalidConfig::Json)?;
        let mut services = ServiceSet::new();
        for (name, options) in wire.services {
            let kind: ServiceKind = name.parse().map_err(InvalidConfig::Service)?;
            let mut set = ServiceOptions::default();
            for (option, value) in options {
                set.set(kind, &option, value.into())
                    .map_err(InvalidConfig::Option)?;
            }
            services.insert(kind, set);
        }
        Ok(Self {
            hostname: Hostname::parse(&wire.hostname).map_err(InvalidConfig::Hostname)?,
            persona: wire.persona.parse().map_err(InvalidConfig::Persona)?,
            seed: wire.seed.parse().map_err(InvalidConfig::Seed)?,
            services,
        })
    }

    /// SHA-256 of the file's bytes, as 64 hexadecimal digits.
    pub fn digest(&self) -> String {
        digest(&self.encode())
    }
}

/// SHA-256 of a configuration file's bytes, as 64 hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

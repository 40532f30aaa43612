//! The master's configuration: one TOML file, every key optional, unknown keys refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::settings;
use serde::Deserialize;

/// What the file holds. Flags of the command line win over it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Where everything is kept.
    pub data_dir: Option<PathBuf>,
    /// Where operators are served.
    pub api_listen: Option<SocketAddr>,
    /// Where agents are served.
    pub fleet_listen: Option<SocketAddr>,
    /// What hosts dial: a name or address, with a port when it is not the one listened on.
    pub advertise: Option<String>,
    /// How often agents send heartbeats.
    pub heartbeat: Option<String>,
    /// How long certificates of hosts live.
    pub certificate_life: Option<String>,
    /// How long a deploy may take.
    pub deploy_deadline: Option<String>,
    /// `text` or `json`.
    pub log_format: Option<String>,
}

/// The configuration in force.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where operators are served.
    pub api_listen: SocketAddr,
    /// Where agents are served.
    pub fleet_listen: SocketAddr,
    /// What hosts dial.
    pub advertise: Option<String>,
    /// How often agents send heartbeats.
    pub heartbeat: Duration,
    /// How long certificates of hosts live.
    pub certificate_life: Duration,
    /// How long a deploy may take.
    pub deploy_deadline: Duration,
    /// Whether the log is JSON.
    pub log_format: LogFormat,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no configuration.
    #[error("configuration {path} is malformed: {message}{hint}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What and where.
        message: String,
        /// What was probably meant.
        hint: String,
    },
    /// A value is out of its bounds.
    #[error("configuration key {key}: {message}")]
    Value {
        /// The key.
        key: &'static str,
        /// What it may be.
        message: String,
    },
}

impl ConfigFile {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Reads the text of a file.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let message = error.to_string();
            let hint = settings::hint(&message)
                .map(|hint| format!("; {hint}"))
                .unwrap_or_default();
            ConfigError::Malformed {
                path: path.to_owned(),
                message: message.trim_end().to_owned(),
                hint,
            }
        })
    }

    /// What is in force, with defaults for what was left out.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let span = |key: &'static str, text: Option<String>, default: &str, bounds: [u64; 2]| {
            let text = text.unwrap_or_else(|| default.to_owned());
            let value = settings::duration(&text).map_err(|error| ConfigError::Value {
                key,
                message: error.to_string(),
            })?;
            let [least, most] = bounds.map(Duration::from_millis);
            if value < least || value > most {
                let message = format!("{text} is not between {least:?} and {most:?}");
                return Err(ConfigError::Value { key, message });
            }
            Ok(value)
        };
        let day = 86_400_000;
        let log_format = match self.log_format.as_deref() {
            None | Some("text") => LogFormat::Text,
            Some("json") => LogFormat::Json,
            Some(other) => {
                let message = format!("{other:?} is neither text nor json");
                return Err(ConfigError::Value {
                    key: "log_format",
                    message,
                });
            }
        };
        Ok(Config {
            data_dir: self
                .data_dir
                .unwrap_or_else(|| PathBuf::from("/var/lib/decnet")),
            api_listen: self
                .api_listen
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
            fleet_listen: self
                .fleet_listen
                .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 7443))),
            advertise: self.advertise,
            heartbeat: span("heartbeat", self.heartbeat, "10s", [100, 600_000])?,
            certificate_life: span(
                "certificate_life",
                self.certificate_life,
                "24h",
                [2_000, 30 * day],
            )?,
            deploy_deadline: span("deploy_deadline", self.deploy_deadline, "10m", [1_000, day])?,
            log_format,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commented_example_is_a_configuration_with_the_defaults() {
        let text = include_str!("../decnet-master.example.toml");
        let uncommented: String = text
            .lines()
            .map(|line| line.strip_prefix("#= ").unwrap_or(line))
            .map(|line| format!("{line}\n"))
            .collect();
        let path = Path::new("decnet-master.example.toml");
        let config = ConfigFile::parse(&uncommented, path).expect("every key is known");
        let config = config.resolve().expect("every value is in its bounds");
        let default = ConfigFile::default()
            .resolve()
            .expect("defaults are in their bounds");
        assert_eq!(config.heartbeat, default.heartbeat);
        assert_eq!(config.api_listen, default.api_listen);
        assert_eq!(config.fleet_listen, default.fleet_listen);
        assert_eq!(config.certificate_life, default.certificate_life);
        assert_eq!(config.deploy_deadline, default.deploy_deadline);
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let error = ConfigFile::parse("heart_beat = \"5s\"\n", Path::new("x.toml"))
            .expect_err("the key is unknown");
        assert!(
            error.to_string().contains("did you mean `heartbeat`?"),
            "{error}"
        );
    }
}

//! The master's configuration: one TOML file, every key optional, unknown keys refused.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::settings;
use serde::Deserialize;

use crate::db::postgres::{Server, UrlError};
use crate::forget::Keep;

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
    /// The database, when it is not a file in the data directory.
    pub database: Option<DatabaseFile>,
    /// For how long evidence and history are kept.
    pub retention: Option<RetentionFile>,
    /// Where programs of this machine hear what happens.
    pub bus: Option<BusFile>,
}

/// The bus for programs of this machine.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusFile {
    /// Whether there is a socket; there is one when nothing is said.
    pub enabled: Option<bool>,
    /// Where it is, when it is not `bus.sock` in the data directory.
    pub socket: Option<PathBuf>,
}

/// For how long evidence is kept (for ever, where nothing is said) and the history of topologies.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionFile {
    /// Events that were received longer ago are forgotten.
    pub events_for: Option<String>,
    /// Of more events than that the oldest are forgotten.
    pub events_most: Option<u64>,
    /// Changes of the status of a topology that are older are forgotten.
    pub status_events_for: Option<String>,
    /// Mutations that have ended longer ago are forgotten.
    pub mutations_for: Option<String>,
}

/// How long the history of topologies is kept, unless it is said otherwise: a year can be told from
/// its beginning at its end.
const HISTORY: &str = "400d";

/// Which database the file names.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseFile {
    /// Where it is: `postgres://USER@HOST:PORT/DATABASE`.
    pub url: Option<String>,
    /// A file that holds the password and nothing else.
    pub password_file: Option<PathBuf>,
}

// The URL may hold a password.
impl fmt::Debug for DatabaseFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseFile")
            .field("password_file", &self.password_file)
            .finish_non_exhaustive()
    }
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
    /// The database on a server; none is a SQLite file in the data directory.
    pub database: Option<Server>,
    /// For how long evidence and history are kept.
    pub keep: Keep,
    /// Where the socket of the bus is.
    pub bus: BusPlace,
}

/// Where the socket of the bus is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusPlace {
    /// In the data directory.
    InData,
    /// There.
    At(PathBuf),
    /// There is none.
    Nowhere,
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
    /// A file that holds a password can be read by others.
    #[error("{path} holds a password and others can read it; set its mode to 0600")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The URL of the database names none.
    #[error("configuration key database.url: {0}")]
    Database(UrlError),
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
        let file = Self::parse(&text, path)?;
        let database = file.database.as_ref();
        if database
            .and_then(|database| database.url.as_deref())
            .is_some_and(Server::holds_password)
        {
            keep_to_owner(path)?;
        }
        Ok(file)
    }

    /// Reads the text of a file.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            // It quotes the line, and the line may be the one with the password.
            let message = without_passwords(&error.to_string());
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
        let retention = self.retention.unwrap_or_default();
        let kept = |key, text, default| span(key, text, default, [60_000, 36_500 * day]);
        let keep = Keep {
            events_for: match retention.events_for {
                None => None,
                text => Some(kept("retention.events_for", text, "")?),
            },
            events_most: retention.events_most,
            status_for: Some(kept(
                "retention.status_events_for",
                retention.status_events_for,
                HISTORY,
            )?),
            mutations_for: Some(kept(
                "retention.mutations_for",
                retention.mutations_for,
                HISTORY,
            )?),
        };
        let BusFile { enabled, socket } = self.bus.unwrap_or_default();
        let bus = match socket {
            _ if enabled == Some(false) => BusPlace::Nowhere,
            Some(path) => BusPlace::At(path),
            None => BusPlace::InData,
        };
        Ok(Config {
            keep,
            bus,
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
            database: self.database.map(DatabaseFile::resolve).transpose()?,
        })
    }
}

impl DatabaseFile {
    fn resolve(self) -> Result<Server, ConfigError> {
        let Some(url) = self.url else {
            return Err(ConfigError::Value {
                key: "database.url",
                message: "it is missing; leave [database] out for SQLite".to_owned(),
            });
        };
        let password = self.password_file.as_deref().map(password).transpose()?;
        Server::new(&url, password.as_deref()).map_err(ConfigError::Database)
    }
}

/// The first line of a file that only its owner may read.
fn password(path: &Path) -> Result<String, ConfigError> {
    keep_to_owner(path)?;
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

fn keep_to_owner(path: &Path) -> Result<(), ConfigError> {
    let metadata = std::fs::metadata(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    if metadata.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(ConfigError::Exposed {
        path: path.to_owned(),
    })
}

/// Blots out what stands between `://` and `@` on a line, and behind `password=`.
fn without_passwords(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| {
            let line = match (line.find("://"), line.rfind('@')) {
                (Some(start), Some(end)) if start + 3 < end => {
                    format!("{}://***{}", &line[..start], &line[end..])
                }
                _ => line.to_owned(),
            };
            match line.find("password=") {
                Some(start) => format!("{}password=***\n", &line[..start]),
                None => line,
            }
        })
        .collect()
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
    fn evidence_is_kept_for_ever_unless_it_is_said_otherwise() {
        let read = |text: &str| {
            let file = ConfigFile::parse(text, Path::new("x.toml"));
            file.and_then(ConfigFile::resolve)
        };
        let keep = |text: &str| read(text).expect("a configuration").keep;
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        let usual = Keep {
            status_for: days(400),
            mutations_for: days(400),
            ..Keep::default()
        };
        assert_eq!(keep(""), usual);
        assert_eq!(keep("[retention]\n"), usual);
        let text = "[retention]\nstatus_events_for = \"30d\"\nmutations_for = \"36500d\"\n";
        let said = Keep {
            status_for: days(30),
            mutations_for: days(36_500),
            ..Keep::default()
        };
        assert_eq!(keep(text), said);
        let bounded = keep("[retention]\nevents_for = \"90d\"\nevents_most = 1_000\n");
        assert_eq!(bounded.events_for, Some(Duration::from_secs(90 * 86_400)));
        assert_eq!(bounded.events_most, Some(1000));
        for (text, told) in [
            ("[retention]\nevents_for = \"1s\"\n", "retention.events_for"),
            ("[retention]\nevents_form = \"1d\"\n", "events_for"),
            (
                "[retention]\nmutations_for = \"36501d\"\n",
                "retention.mutations_for",
            ),
        ] {
            let error = read(text).expect_err("it is none").to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn the_bus_is_in_the_data_directory_unless_it_is_said_otherwise() {
        let bus = |text: &str| {
            let file = ConfigFile::parse(text, Path::new("x.toml"));
            file.and_then(ConfigFile::resolve)
                .expect("a configuration")
                .bus
        };
        assert_eq!(bus(""), BusPlace::InData);
        assert_eq!(bus("[bus]\nenabled = true\n"), BusPlace::InData);
        assert_eq!(
            bus("[bus]\nsocket = \"/run/decnet/bus.sock\"\n"),
            BusPlace::At("/run/decnet/bus.sock".into())
        );
        assert_eq!(
            bus("[bus]\nenabled = false\nsocket = \"/x\"\n"),
            BusPlace::Nowhere
        );
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

    fn written(folder: &tempfile::TempDir, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("the folder is ours");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        path
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("the system has a directory for temporary files")
    }

    #[test]
    fn a_database_is_named_by_its_url_and_shown_without_its_password() {
        let folder = folder();
        let password = written(&folder, "password", "s3cret\n", 0o600);
        let text = format!(
            "[database]\nurl = \"postgres://decnet@db.example/decnet\"\npassword_file = {password:?}\n"
        );
        let file = written(&folder, "master.toml", &text, 0o644);
        let config = ConfigFile::read(&file).expect("it is a configuration");
        let config = config.resolve().expect("it is in its bounds");
        let shown = format!("{config:?}");
        assert!(shown.contains("db.example:5432/decnet"), "{shown}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn a_password_that_others_can_read_is_refused() {
        let folder = folder();
        let text = "[database]\nurl = \"postgres://decnet:s3cret@db.example/decnet\"\n";
        let open = written(&folder, "open.toml", text, 0o640);
        match ConfigFile::read(&open) {
            Err(ConfigError::Exposed { path }) => assert_eq!(path, open),
            other => panic!("{other:?}"),
        }
        let closed = written(&folder, "closed.toml", text, 0o600);
        let file = ConfigFile::read(&closed).expect("nobody else can read it");
        assert!(!format!("{file:?}").contains("s3cret"));

        let password = written(&folder, "password", "s3cret", 0o644);
        let database = DatabaseFile {
            url: Some("postgres://decnet@db.example/decnet".to_owned()),
            password_file: Some(password.clone()),
        };
        match database.resolve() {
            Err(ConfigError::Exposed { path }) => assert_eq!(path, password),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_malformed_line_is_quoted_without_its_password() {
        for text in [
            "[database]\nurl = postgres://decnet:s3cret@db/decnet\n",
            "[database]\nurl = \"postgres://decnet:s3cret@db/decnet\" x\n",
            "[database]\nurll = \"postgres://db/decnet?password=s3cret\"\n",
        ] {
            let error = ConfigFile::parse(text, Path::new("x.toml")).expect_err("it is malformed");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_database_without_a_url_or_of_another_kind_is_refused() {
        let none = DatabaseFile::default().resolve();
        assert!(
            matches!(
                none,
                Err(ConfigError::Value {
                    key: "database.url",
                    ..
                })
            ),
            "{none:?}"
        );
        let other = DatabaseFile {
            url: Some("mysql://a@b/c".to_owned()),
            password_file: None,
        };
        let other = other.resolve();
        assert!(
            matches!(other, Err(ConfigError::Database(UrlError::Scheme))),
            "{other:?}"
        );
    }
}

//! The agent's configuration file. Every key is optional; flags on the command line win.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use pki::connector::MasterAddress;
use proto::settings;
use serde::{Deserialize, Deserializer, de};

use crate::spool::Bounds;

#[cfg(test)]
mod tests;

/// What can stand in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the agent keeps everything.
    pub data_dir: Option<PathBuf>,
    /// Where the master is; empty for where the host joined.
    #[serde(deserialize_with = "addresses")]
    pub masters: Vec<MasterAddress>,
    /// What makes containers.
    pub engine: EngineConfig,
    /// What is written to standard error.
    pub log: LogConfig,
    /// Where evidence waits.
    pub spool: SpoolConfig,
    /// How evidence is read.
    pub collect: CollectConfig,
    /// What is to be left of the host.
    pub guard: GuardConfig,
}

/// What makes containers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Which.
    pub kind: EngineKind,
    /// The binary that runs inside the deckies; without it, `decnet-decky` beside the agent's own.
    pub decky_binary: Option<PathBuf>,
    /// The Docker daemon's socket; without it, the usual one.
    pub socket: Option<PathBuf>,
    /// Where the native engine keeps what a reboot takes away; without it, `/run/decnet`.
    pub run_dir: Option<PathBuf>,
    /// How long a call to the daemon may take.
    #[serde(deserialize_with = "duration")]
    pub call_timeout: Duration,
}

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// The Docker daemon of this host.
    #[default]
    Docker,
    /// The kernel of this host, by an OCI runtime and without a daemon.
    Native,
    /// An engine of memory, for tests.
    #[cfg(feature = "fake")]
    Fake,
}

/// What is written to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// In which form.
    pub format: LogFormat,
    /// Which lines, in the words of `RUST_LOG`, which wins over it.
    pub filter: String,
}

/// In which form the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Where evidence waits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolConfig {
    /// Most MiB that wait.
    pub max_mib: u64,
    /// Most events that wait.
    pub max_events: u64,
}

/// How evidence is read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectConfig {
    /// How long a line may wait for company on its way to the disk.
    #[serde(deserialize_with = "duration")]
    pub flush: Duration,
    /// After how long without a master collection begins by itself.
    #[serde(deserialize_with = "duration")]
    pub without_master: Duration,
}

/// What is to be left of the host: below it nothing new is made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardConfig {
    /// Directories whose disks are watched beside that of the agent's data.
    pub disks: Vec<PathBuf>,
    /// MiB that stay free on each disk.
    pub disk_free_mib: u64,
    /// How many of a hundred stay free on each disk.
    pub disk_free_percent: u8,
    /// MiB of memory that stay available.
    pub memory_free_mib: u64,
    /// MiB of memory that are reckoned for each decky to be made.
    pub memory_per_decky_mib: u64,
    /// How many of a hundred process ids stay free.
    pub pids_free_percent: u8,
    /// How many of a hundred file handles stay free.
    pub files_free_percent: u8,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            kind: EngineKind::default(),
            decky_binary: None,
            socket: None,
            run_dir: None,
            call_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".to_owned(),
        }
    }
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            max_mib: 256,
            max_events: 2_000_000,
        }
    }
}

impl Default for CollectConfig {
    fn default() -> Self {
        Self {
            flush: Duration::from_millis(20),
            without_master: Duration::from_secs(30),
        }
    }
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            disks: vec!["/var/lib/docker".into()],
            disk_free_mib: 512,
            disk_free_percent: 3,
            memory_free_mib: 256,
            memory_per_decky_mib: 24,
            pids_free_percent: 10,
            files_free_percent: 10,
        }
    }
}

impl SpoolConfig {
    /// Where the spool ends.
    pub const fn bounds(&self) -> Bounds {
        Bounds {
            bytes: self.max_mib.saturating_mul(1 << 20),
            events: self.max_events,
        }
    }
}

/// Why a configuration was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not TOML, or a value is not what it must be.
    #[error("{} is not a configuration", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A key that means nothing.
    #[error("{}: unknown key {key}{}", path.display(), did_you_mean(nearest.as_deref()))]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// The key, with its section.
        key: String,
        /// The known key that it is most like.
        nearest: Option<String>,
    },
    /// A value that cannot work.
    #[error("{}: {key} must be at least {least}", path.display())]
    TooSmall {
        /// Which file.
        path: PathBuf,
        /// The key, with its section.
        key: &'static str,
        /// The least that works.
        least: &'static str,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest
        .map(|nearest| format!(", did you mean {nearest}?"))
        .unwrap_or_default()
}

/// Every section with its keys. A new key goes into its struct above and here.
const KEYS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "data_dir", "masters", "engine", "log", "spool", "collect", "guard",
        ],
    ),
    (
        "engine",
        &["kind", "decky_binary", "socket", "run_dir", "call_timeout"],
    ),
    ("log", &["format", "filter"]),
    ("spool", &["max_mib", "max_events"]),
    ("collect", &["flush", "without_master"]),
    (
        "guard",
        &[
            "disks",
            "disk_free_mib",
            "disk_free_percent",
            "memory_free_mib",
            "memory_per_decky_mib",
            "pids_free_percent",
            "files_free_percent",
        ],
    ),
];

impl Config {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// Reads the text of the file `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let not_config = |source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        };
        let table: toml::Table = text.parse().map_err(not_config)?;
        check_keys(path, &table)?;
        let config: Self = toml::from_str(text).map_err(not_config)?;
        let too_small = |key, least| ConfigError::TooSmall {
            path: path.to_owned(),
            key,
            least,
        };
        if config.spool.max_mib < 1 {
            return Err(too_small("spool.max_mib", "1"));
        }
        if config.spool.max_events < 1000 {
            return Err(too_small("spool.max_events", "1000"));
        }
        Ok(config)
    }
}

fn check_keys(path: &Path, table: &toml::Table) -> Result<(), ConfigError> {
    let unknown = |section: &str, key: &str| ConfigError::UnknownKey {
        path: path.to_owned(),
        key: dotted(section, key),
        nearest: nearest(section, key),
    };
    for (key, value) in table {
        if !known_keys("").contains(&key.as_str()) {
            return Err(unknown("", key));
        }
        // A value where a section belongs is refused by its type later on.
        let Some(section) = value.as_table() else {
            continue;
        };
        if let Some(stray) = section
            .keys()
            .find(|it| !known_keys(key).contains(&it.as_str()))
        {
            return Err(unknown(key, stray));
        }
    }
    Ok(())
}

fn known_keys(section: &str) -> &'static [&'static str] {
    KEYS.iter()
        .find(|(name, _)| *name == section)
        .map_or(&[], |(_, keys)| *keys)
}

/// The known key that `key` is most like: in its own section if one there is alike, else anywhere,
/// because a key in the wrong section is the other usual mistake.
fn nearest(section: &str, key: &str) -> Option<String> {
    let best = |sections: &mut dyn Iterator<Item = &(&str, &[&str])>| {
        let known: Vec<_> = sections
            .flat_map(|(name, keys)| keys.iter().map(move |known| (*name, *known)))
            .collect();
        let nearest = settings::nearest(key, known.iter().map(|(_, known)| *known))?;
        let (name, _) = known.iter().find(|(_, known)| *known == nearest)?;
        Some(dotted(name, nearest))
    };
    best(&mut KEYS.iter().filter(|(name, _)| *name == section)).or_else(|| best(&mut KEYS.iter()))
}

fn dotted(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<MasterAddress>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts
        .iter()
        .map(|text| text.parse().map_err(de::Error::custom))
        .collect()
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    settings::duration(&text).map_err(de::Error::custom)
}

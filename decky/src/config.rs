//! Loads the decky's configuration file.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use proto::decky_config::{DeckyConfig, InvalidConfig, MAX_CONFIG, digest};

/// A configuration and the digest of the bytes that it came from.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) config: DeckyConfig,
    pub(crate) digest: String,
}

/// Why a configuration cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The file cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file is no configuration.
    #[error("{} is refused", path.display())]
    Invalid {
        path: PathBuf,
        #[source]
        source: InvalidConfig,
    },
}

/// Reads and checks the file at `path`.
pub(crate) fn load(path: &Path) -> Result<Loaded, LoadError> {
    let bytes = read(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })?;
    let config = DeckyConfig::decode(&bytes).map_err(|source| LoadError::Invalid {
        path: path.to_owned(),
        source,
    })?;
    Ok(Loaded {
        config,
        digest: digest(&bytes),
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte over the limit is enough for the decoder to refuse it.
    std::fs::File::open(path)?
        .take(MAX_CONFIG as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// An error and its sources on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

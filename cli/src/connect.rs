//! Finds the master that is meant, and the token for it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use proto::client::Url;
use serde::{Deserialize, Serialize};

use crate::access::sessions::Sessions;
use crate::context::Token;
use crate::failure::{Exit, Failure};

/// What a master leaves in its data directory for local programs.
pub(crate) const ENDPOINTS: &str = "endpoints.json";
/// The file of the operator's token, beside it.
pub(crate) const ADMIN_TOKEN: &str = "admin.token";
/// The file of the first admin's one-time password, beside it.
pub(crate) const ADMIN_PASSWORD: &str = "admin.password";
/// Where a master of the system keeps its data.
pub(crate) const SYSTEM_DIR: &str = "/var/lib/decnet";

const THREE_WAYS: &str = "give --url (DECNET_URL) with DECNET_TOKEN or --token-file; or --data-dir \
                          (DECNET_DATA_DIR) of a master on this machine; or start one: `decnet up`";

/// Where a master's API and its fleet port are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    /// The API, such as `http://127.0.0.1:8080`.
    pub(crate) api: String,
    /// What hosts dial, such as `https://10.0.0.5:7443`.
    pub(crate) fleet: String,
}

/// What was said about where the master is.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) url: Option<String>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) prefer_data_dir: bool,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) token: Option<Token>,
    pub(crate) fallbacks: Vec<PathBuf>,
    /// The directory of the sessions that `decnet login` has opened.
    pub(crate) sessions: Option<PathBuf>,
}

/// A master and the right to ask it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) url: Url,
    pub(crate) token: Token,
}

/// The directories that are tried when nothing was said.
pub(crate) fn fallbacks(data_home: Option<&Path>) -> Vec<PathBuf> {
    let mut dirs = vec![PathBuf::from(SYSTEM_DIR)];
    dirs.extend(data_home.map(|home| home.join("decnet")));
    dirs
}

impl Endpoints {
    /// Reads them; none while there is no such file.
    pub(crate) fn read(data_dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = data_dir.join(ENDPOINTS);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("could not read {}", path.display()));
            }
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .with_context(|| format!("{} is malformed", path.display()))
    }
}

impl Place {
    pub(crate) fn resolve(&self) -> Result<Endpoint, Failure> {
        match (&self.url, &self.data_dir) {
            (Some(url), _) if !self.prefer_data_dir => self.by_url(url),
            (_, Some(dir)) => self.by_dir(dir)?.ok_or_else(|| no_master(dir)),
            _ => {
                if let Some(url) = self.newest_login()? {
                    return self.by_url(&url);
                }
                for dir in &self.fallbacks {
                    // A directory that we may not read is somebody else's master.
                    if let Ok(Some(endpoint)) = self.by_dir(dir) {
                        return Ok(endpoint);
                    }
                }
                Err(Failure::say("which master? nothing says").next(THREE_WAYS))
            }
        }
    }

    /// Which master is meant, whoever asks: for those who are about to log in or out.
    pub(crate) fn locate(&self) -> Result<Url, Failure> {
        let in_dir = |dir: &Path| {
            Endpoints::read(dir)
                .ok()
                .flatten()
                .map(|endpoints| parse_url(&endpoints.api))
        };
        match (&self.url, &self.data_dir) {
            (Some(url), _) if !self.prefer_data_dir => {
                parse_url(url).map_err(|failure| failure.exits(Exit::Usage))
            }
            (_, Some(dir)) => in_dir(dir).unwrap_or_else(|| Err(no_master(dir))),
            _ => {
                if let Some(url) = self.newest_login()? {
                    return parse_url(&url);
                }
                self.fallbacks
                    .iter()
                    .find_map(|dir| in_dir(dir))
                    .unwrap_or_else(|| {
                        Err(Failure::say("which master? nothing says").next(THREE_WAYS))
                    })
            }
        }
    }

    fn newest_login(&self) -> Result<Option<String>, Failure> {
        match &self.sessions {
            Some(directory) => Sessions::new(Some(directory))?.newest(),
            None => Ok(None),
        }
    }

    /// The session of a master, if somebody has logged in there.
    fn session(&self, url: &Url) -> Result<Option<Token>, Failure> {
        let Some(directory) = &self.sessions else {
            return Ok(None);
        };
        let kept = Sessions::new(Some(directory))?.of(url.as_str())?;
        Ok(kept.map(|kept| Token(kept.token)))
    }

    fn by_url(&self, text: &str) -> Result<Endpoint, Failure> {
        let url = parse_url(text).map_err(|failure| failure.exits(Exit::Usage))?;
        let token = match self.stated_token()? {
            Some(token) => token,
            None => match self.session(&url)? {
                Some(token) => token,
                None => self.token_beside(&url)?,
            },
        };
        Ok(Endpoint { url, token })
    }

    fn by_dir(&self, dir: &Path) -> Result<Option<Endpoint>, Failure> {
        let Some(endpoints) = Endpoints::read(dir)? else {
            return Ok(None);
        };
        let url = parse_url(&endpoints.api)?;
        let token = match self.stated_token()? {
            Some(token) => token,
            // Whoever has logged in wants to be known by that name.
            None => match self.session(&url)? {
                Some(token) => token,
                None => read_token(&dir.join(ADMIN_TOKEN))?,
            },
        };
        Ok(Some(Endpoint { url, token }))
    }

    fn stated_token(&self) -> Result<Option<Token>, Failure> {
        match (&self.token_file, &self.token) {
            (Some(path), _) => read_token(path).map(Some),
            (None, token) => Ok(token.clone()),
        }
    }

    /// A token from a data directory goes only to the master that wrote it there, unless the
    /// directory was named together with the URL.
    fn token_beside(&self, url: &Url) -> Result<Token, Failure> {
        if let Some(dir) = &self.data_dir {
            return read_token(&dir.join(ADMIN_TOKEN));
        }
        let owner = self.fallbacks.iter().find(|dir| {
            let endpoints = Endpoints::read(dir).ok().flatten();
            endpoints
                .and_then(|found| parse_url(&found.api).ok())
                .as_ref()
                == Some(url)
        });
        match owner {
            Some(dir) => read_token(&dir.join(ADMIN_TOKEN)),
            None => Err(Failure::say(format!("there is no token for {url}")).next(
                "log in (decnet login), set DECNET_TOKEN, or name its file with --token-file",
            )),
        }
    }
}

fn no_master(dir: &Path) -> Failure {
    let path = dir.join(ENDPOINTS);
    Failure::say(format!(
        "there is no {}: no master serves there",
        path.display()
    ))
    .next(format!("start one: decnet up --data-dir {}", dir.display()))
}

fn parse_url(text: &str) -> Result<Url, Failure> {
    Url::parse(text).map_err(|error| {
        Failure::new(error)
            .context(format!("{text:?} is no URL"))
            .next("give one such as http://127.0.0.1:8080")
    })
}

fn read_token(path: &Path) -> Result<Token, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => Ok(Token(text.trim().to_owned())),
        Ok(_) => Err(Failure::say(format!("{} is empty", path.display()))
            .next("restart the master: it writes its token there")),
        Err(error) => {
            let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
            let next = if denied {
                "only the master's own user may read it: use sudo, or DECNET_TOKEN"
            } else {
                "set DECNET_TOKEN, or name the token's file with --token-file"
            };
            Err(Failure::new(error)
                .context(format!("could not read the token in {}", path.display()))
                .next(next))
        }
    }
}

#[cfg(test)]
mod tests;

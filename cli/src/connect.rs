//! Finds the master that is meant, and the token for it.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use proto::client::Url;
use serde::{Deserialize, Serialize};

use crate::access::sessions::{Kept, Sessions};
use crate::clock;
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
    /// Where the token was found.
    pub(crate) origin: Origin,
    /// Whose session there has ended, when the token stands in for it.
    pub(crate) lapsed: Option<String>,
}

/// Where a token was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `DECNET_TOKEN`.
    Variable,
    /// A file.
    File(PathBuf),
    /// The login of a user.
    Session(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable => f.write_str("the token in DECNET_TOKEN"),
            Self::File(path) => write!(f, "the token in {}", path.display()),
            Self::Session(name) => write!(f, "the session of {name}"),
        }
    }
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

    fn by_url(&self, text: &str) -> Result<Endpoint, Failure> {
        let url = parse_url(text).map_err(|failure| failure.exits(Exit::Usage))?;
        self.endpoint(url, |url| self.token_beside(url))
    }

    /// A master, with the token that was stated, or of whoever has logged in there and wants to be
    /// known by that name, or else the one that `beside` finds.
    fn endpoint(
        &self,
        url: Url,
        beside: impl FnOnce(&Url) -> Result<PathBuf, Failure>,
    ) -> Result<Endpoint, Failure> {
        let of = |(token, origin), lapsed| Endpoint {
            url: url.clone(),
            token,
            origin,
            lapsed,
        };
        if let Some(stated) = self.stated_token()? {
            return Ok(of(stated, None));
        }
        let lapsed = match &self.sessions {
            None => None,
            Some(directory) => {
                let sessions = Sessions::new(Some(directory))?;
                if let Some(Kept { name, token, .. }) = sessions.of(url.as_str())? {
                    return Ok(of((Token(token), Origin::Session(name)), None));
                }
                sessions.lapsed(url.as_str())?
            }
        };
        let found = beside(&url).and_then(|path| Ok((read_token(&path)?, Origin::File(path))));
        match (found, lapsed) {
            (Ok(found), lapsed) => Ok(of(found, lapsed.map(|kept| kept.name))),
            (Err(_), Some(kept)) => Err(Failure::say(format!(
                "the session of {} at {url} ended {}",
                kept.name,
                clock::date_and_time(&kept.expires_at)
            ))
            .next(format!(
                "log in again: decnet login {} --url {url}",
                kept.name
            ))),
            (Err(failure), None) => Err(failure),
        }
    }

    fn by_dir(&self, dir: &Path) -> Result<Option<Endpoint>, Failure> {
        let Some(endpoints) = Endpoints::read(dir)? else {
            return Ok(None);
        };
        let url = parse_url(&endpoints.api)?;
        self.endpoint(url, |_| Ok(dir.join(ADMIN_TOKEN))).map(Some)
    }

    fn stated_token(&self) -> Result<Option<(Token, Origin)>, Failure> {
        match (&self.token_file, &self.token) {
            (Some(path), _) => Ok(Some((read_token(path)?, Origin::File(path.clone())))),
            (None, Some(token)) => Ok(Some((token.clone(), Origin::Variable))),
            (None, None) => Ok(None),
        }
    }

    /// A token from a data directory goes only to the master that wrote it there, unless the
    /// directory was named together with the URL.
    fn token_beside(&self, url: &Url) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.data_dir {
            return Ok(dir.join(ADMIN_TOKEN));
        }
        let owner = self.fallbacks.iter().find(|dir| {
            let endpoints = Endpoints::read(dir).ok().flatten();
            endpoints
                .and_then(|found| parse_url(&found.api).ok())
                .as_ref()
                == Some(url)
        });
        match owner {
            Some(dir) => Ok(dir.join(ADMIN_TOKEN)),
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
        Ok(_) => {
            let next = if path.ends_with(ADMIN_TOKEN) {
                "restart the master: it writes its token there"
            } else {
                "put a token into it, such as one of decnet token create NAME --quiet"
            };
            Err(Failure::say(format!("{} holds no token", path.display())).next(next))
        }
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

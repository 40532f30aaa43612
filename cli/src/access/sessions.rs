//! The sessions that are kept between commands: a file of this user's alone, one session a master.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::clock;
use crate::failure::Failure;

/// The file, in the directory of the configuration.
const FILE: &str = "sessions.json";

/// A session that is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The user's name.
    pub(crate) name: String,
    /// The token: a secret.
    pub(crate) token: String,
    /// Until when it is of use.
    pub(crate) expires_at: String,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({}, …)", self.name)
    }
}

/// What the file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    /// The master of the newest login: the one that is meant when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest: Option<String>,
    sessions: BTreeMap<String, Kept>,
}

/// The sessions that are kept.
#[derive(Debug)]
pub(crate) struct Sessions {
    path: PathBuf,
}

impl Sessions {
    /// Those in a directory.
    pub(crate) fn new(directory: Option<&Path>) -> Result<Self, Failure> {
        let directory = directory.ok_or_else(|| {
            Failure::say("there is no place to keep a session").next("set HOME or XDG_CONFIG_HOME")
        })?;
        Ok(Self {
            path: directory.join(FILE),
        })
    }

    /// The session of a master, while it is of use.
    pub(crate) fn of(&self, url: &str) -> Result<Option<Kept>, Failure> {
        let kept = self.read()?.sessions.remove(url);
        Ok(kept.filter(|kept| is_of_use(kept, clock::now())))
    }

    /// The session of a master that has ended, until somebody logs in or out there.
    pub(crate) fn lapsed(&self, url: &str) -> Result<Option<Kept>, Failure> {
        let kept = self.read()?.sessions.remove(url);
        Ok(kept.filter(|kept| !is_of_use(kept, clock::now())))
    }

    /// The master of the newest login. Also when its session has ended: what was meant for one
    /// master must not go to another one because time has passed.
    pub(crate) fn newest(&self) -> Result<Option<String>, Failure> {
        Ok(self.read()?.newest)
    }

    /// Keeps a session in the place of the one before.
    pub(crate) fn keep(&self, url: &str, kept: Kept) -> Result<(), Failure> {
        let mut content = self.read()?;
        content
            .sessions
            .retain(|_, kept| is_of_use(kept, clock::now()));
        content.sessions.insert(url.to_owned(), kept);
        content.newest = Some(url.to_owned());
        self.write(&content)
    }

    /// Forgets the session of a master.
    pub(crate) fn forget(&self, url: &str) -> Result<(), Failure> {
        let mut content = self.read()?;
        content.sessions.remove(url);
        if content.newest.as_deref() == Some(url) {
            content.newest = None;
        }
        self.write(&content)
    }

    fn read(&self) -> Result<Content, Failure> {
        match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                Failure::new(error)
                    .context(format!("{} is malformed", self.path.display()))
                    .next("remove it, and log in again")
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Content::default()),
            Err(error) => Err(self.failed(error, "read")),
        }
    }

    /// Beside the file and then over it: no moment shows half of it, nor a moment of it to others.
    fn write(&self, content: &Content) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(content).map_err(Failure::new)?;
        let written = (|| {
            if let Some(directory) = self.path.parent() {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(directory)?;
            }
            let fresh = self
                .path
                .with_extension(format!("{}.tmp", std::process::id()));
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&fresh, &self.path)
        })();
        written.map_err(|error| self.failed(error, "write"))
    }

    fn failed(&self, error: std::io::Error, verb: &str) -> Failure {
        Failure::new(error).context(format!("could not {verb} {}", self.path.display()))
    }
}

fn is_of_use(kept: &Kept, now: OffsetDateTime) -> bool {
    OffsetDateTime::parse(&kept.expires_at, &Rfc3339).is_ok_and(|expires| expires > now)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn kept(name: &str, expires_at: &str) -> Kept {
        Kept {
            name: name.to_owned(),
            token: format!("dcs_{name}"),
            expires_at: expires_at.to_owned(),
        }
    }

    const LATER: &str = "2999-01-01T00:00:00Z";

    #[test]
    fn sessions_are_kept_for_this_user_alone_until_they_end() {
        let home = tempfile::tempdir().expect("a directory");
        let directory = home.path().join("decnet");
        let sessions = Sessions::new(Some(&directory)).expect("a place");
        let url = "http://127.0.0.1:8080/";
        assert_eq!(sessions.of(url).expect("no file is no session"), None);
        sessions.keep(url, kept("alice", LATER)).expect("kept");
        let mode =
            |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join(FILE)), 0o600);
        assert_eq!(sessions.of(url).expect("read"), Some(kept("alice", LATER)));
        assert_eq!(sessions.newest().expect("read").as_deref(), Some(url));
        assert_eq!(sessions.of("http://127.0.0.1:1/").expect("read"), None);

        let past = kept("bob", "2001-01-01T00:00:00Z");
        sessions.keep("http://127.0.0.1:1/", past).expect("kept");
        assert_eq!(sessions.of("http://127.0.0.1:1/").expect("read"), None);
        let lapsed = sessions.lapsed("http://127.0.0.1:1/").expect("read");
        assert_eq!(lapsed.map(|kept| kept.name).as_deref(), Some("bob"));
        assert_eq!(sessions.lapsed(url).expect("read"), None);
        let newest = sessions.newest().expect("read");
        assert_eq!(newest.as_deref(), Some("http://127.0.0.1:1/"));
        sessions.forget("http://127.0.0.1:1/").expect("forgotten");
        assert_eq!(sessions.newest().expect("read"), None);
        assert!(sessions.of(url).expect("read").is_some());
        sessions.forget(url).expect("forgotten");
        assert_eq!(sessions.of(url).expect("read"), None);
        assert!(!format!("{:?}", kept("alice", LATER)).contains("dcs_"));
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_named_and_left_alone() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join(FILE);
        std::fs::write(&path, "{").expect("writable");
        let sessions = Sessions::new(Some(home.path())).expect("a place");
        let failure = sessions.of("x").expect_err("malformed");
        assert!(failure.lines()[0].contains("sessions.json is malformed"));
        let failure = sessions.keep("x", kept("alice", LATER));
        assert!(failure.is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "{");
        assert!(Sessions::new(None).is_err());
    }
}

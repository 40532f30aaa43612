//! The connection to the daemon: made at first use, every call under a time limit, every refusal
//! translated once into the words of [`EngineErrorKind`].
//!
//! What was agreed on with a daemon holds as long as it is that daemon: it may be replaced by
//! another version while the agent runs.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, Docker};

use crate::engine::{EngineError, EngineErrorKind};

/// A lazily made connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: PathBuf,
    pub(super) limit: Duration,
    agreed: Mutex<Option<Docker>>,
}

impl Client {
    pub(super) fn new(socket: PathBuf, limit: Duration) -> Self {
        Self {
            socket,
            limit,
            agreed: Mutex::default(),
        }
    }

    /// The client, connected and agreed on a version.
    pub(super) async fn docker(&self, attempt: &str) -> Result<Docker, EngineError> {
        if let Some(docker) = self.agreed(|agreed| agreed.clone()) {
            return Ok(docker);
        }
        let connect = async {
            let path = self.socket.to_string_lossy();
            Docker::connect_with_unix(&path, self.limit.as_secs().max(1), API_DEFAULT_VERSION)?
                .negotiate_version()
                .await
        };
        let docker = self.within(attempt, self.limit, connect).await?;
        self.agreed(|agreed| *agreed = Some(docker.clone()));
        Ok(docker)
    }

    /// Awaits an answer of the daemon for at most `limit`.
    pub(super) async fn within<T>(
        &self,
        attempt: &str,
        limit: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, EngineError> {
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer.map_err(|source| {
                self.reconsider(&source);
                refused(attempt, source)
            }),
            Err(elapsed) => Err(EngineError {
                kind: EngineErrorKind::Timeout,
                attempt: attempt.to_owned(),
                source: Some(Box::new(elapsed)),
            }),
        }
    }

    /// Forgets what was agreed on when this refusal may be of another daemon: the next call agrees
    /// with it anew.
    pub(super) fn reconsider(&self, refusal: &Error) {
        let other = kind(refusal) == EngineErrorKind::Unreachable || is_of_another_version(refusal);
        if other {
            self.agreed(|agreed| *agreed = None);
        }
    }

    fn agreed<T>(&self, act: impl FnOnce(&mut Option<Docker>) -> T) -> T {
        act(&mut self.agreed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether the daemon does not speak the version that it was spoken to in.
fn is_of_another_version(error: &Error) -> bool {
    let says = |text: &str| message(error).contains(text);
    status(error) == Some(400)
        && says("client version")
        && (says("is too old") || says("is too new"))
}

/// A refusal of the daemon, or of the way to it.
pub(super) fn refused(attempt: &str, source: Error) -> EngineError {
    EngineError {
        kind: kind(&source),
        attempt: attempt.to_owned(),
        source: Some(Box::new(source)),
    }
}

/// The status code of the daemon's answer, when it gave one.
pub(super) const fn status(error: &Error) -> Option<u16> {
    if let Error::DockerResponseServerError { status_code, .. } = error {
        Some(*status_code)
    } else {
        None
    }
}

/// What the daemon says, when it says something.
pub(super) fn message(error: &Error) -> &str {
    if let Error::DockerResponseServerError { message, .. } = error {
        message
    } else {
        ""
    }
}

fn kind(error: &Error) -> EngineErrorKind {
    if let Error::DockerResponseServerError {
        status_code,
        message,
    } = error
    {
        return kind_of_answer(*status_code, message);
    }
    if let Error::DockerStreamError { error } = error {
        return kind_of_answer(500, error);
    }
    if matches!(error, Error::RequestTimeoutError) {
        return EngineErrorKind::Timeout;
    }
    let answered = matches!(
        error,
        Error::JsonDataError { .. } | Error::JsonSerdeError { .. } | Error::APIVersionParseError {}
    );
    // Everything else is a socket that is missing, closed or cut.
    if answered {
        EngineErrorKind::Refused
    } else {
        EngineErrorKind::Unreachable
    }
}

/// Tells refusals apart by what dockerd 20.10 to 28 write; an unknown one is `Refused`.
pub(super) fn kind_of_answer(status: u16, message: &str) -> EngineErrorKind {
    let says = |text: &str| message.contains(text);
    if says("Pool overlaps") || says("overlapping IPv4") {
        EngineErrorKind::SubnetInUse
    } else if says("port is already allocated")
        || says("bind: address already in use")
        || says("address already in use") && says("programming external connectivity")
    {
        EngineErrorKind::PortTaken
    } else if says("No such image") {
        EngineErrorKind::ImageMissing
    } else if status == 404
        // Somebody is removing it at this moment: it is as good as gone.
        || says("marked for removal")
        || says("removal of container") && says("in progress")
    {
        EngineErrorKind::NotFound
    } else {
        EngineErrorKind::Refused
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripted::Daemon;
    use super::*;

    /// A daemon that speaks the API from one version to another, both of 1.
    fn speaking(least: u32, most: u32) -> impl Fn(&str) -> (u16, String) {
        move |path| {
            let version = path
                .strip_prefix("/v1.")
                .and_then(|rest| rest.split_once('/'));
            match version.map(|(minor, path)| (minor.parse().unwrap_or(0), path)) {
                Some((_, "version")) | None => (200, format!("{{\"ApiVersion\":\"1.{most}\"}}")),
                Some((minor, _)) if minor < least => (
                    400,
                    format!(
                        "{{\"message\":\"client version 1.{minor} is too old. Minimum supported API version is 1.{least}, please upgrade your client to a newer version\"}}"
                    ),
                ),
                Some((minor, _)) if minor > most => (
                    400,
                    format!(
                        "{{\"message\":\"client version 1.{minor} is too new. Maximum supported API version is 1.{most}\"}}"
                    ),
                ),
                Some(_) => (201, "{\"Id\":\"made\"}".to_owned()),
            }
        }
    }

    /// Asks for something in the version that was agreed on, and says which that was.
    async fn ask(client: &Client) -> Result<usize, EngineErrorKind> {
        let attempt = "could not ask";
        let body = serde_json::json!({});
        let asked = async {
            let made = client.create(attempt, "/networks/create", &body).await?;
            made.map_err(|source| refused(attempt, source))?;
            let docker = client.docker(attempt).await?;
            Ok(docker.client_version().minor_version)
        };
        asked.await.map_err(|error: EngineError| error.kind)
    }

    #[tokio::test]
    async fn a_daemon_of_another_version_is_agreed_with_anew() {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let socket = directory.path().join("docker.sock");
        let client = Client::new(socket.clone(), Duration::from_secs(30));
        let old = Daemon::at(&socket, speaking(24, 41));
        assert_eq!(ask(&client).await, Ok(41));
        assert_eq!(ask(&client).await, Ok(41));
        assert_eq!(old.asked("/version"), 1, "agreed on once");
        drop(old);

        // Nobody has called while there was none: the first call tells.
        let new = Daemon::at(&socket, speaking(44, 48));
        assert_eq!(ask(&client).await, Err(EngineErrorKind::Refused));
        assert_eq!(ask(&client).await, Ok(48));
        drop(new);

        assert_eq!(ask(&client).await, Err(EngineErrorKind::Unreachable));
        let older = Daemon::at(&socket, speaking(24, 43));
        assert_eq!(ask(&client).await, Ok(43));
        drop(older);
    }

    #[test]
    fn what_dockerd_writes_is_told_apart() {
        let cases = [
            (
                409,
                "container is marked for removal and cannot be started",
                EngineErrorKind::NotFound,
            ),
            (
                403,
                "Pool overlaps with other one on this address space",
                EngineErrorKind::SubnetInUse,
            ),
            (
                500,
                "driver failed programming external connectivity on endpoint x (91fa): Error starting \
                 userland proxy: listen tcp4 0.0.0.0:8899: bind: address already in use",
                EngineErrorKind::PortTaken,
            ),
            (
                500,
                "driver failed programming external connectivity on endpoint x (91fa): Bind for \
                 0.0.0.0:8899 failed: port is already allocated",
                EngineErrorKind::PortTaken,
            ),
            (
                403,
                "cannot create network 07c2 (dn-1): conflicts with network 3d1a (dn-2): networks \
                 have overlapping IPv4",
                EngineErrorKind::SubnetInUse,
            ),
            (
                403,
                "cannot create network 07c2 (dn-1): conflicts with network 3d1a (dn-1): networks \
                 have same bridge name",
                EngineErrorKind::Refused,
            ),
            // An address inside a LAN, not a port of the host.
            (403, "Address already in use", EngineErrorKind::Refused),
            (
                404,
                "No such image: decnet/decky:0",
                EngineErrorKind::ImageMissing,
            ),
            (404, "network decnet-x not found", EngineErrorKind::NotFound),
            (
                409,
                "Conflict. The container name is already in use",
                EngineErrorKind::Refused,
            ),
        ];
        for (status, message, kind) in cases {
            assert_eq!(kind_of_answer(status, message), kind, "{message}");
        }
    }
}

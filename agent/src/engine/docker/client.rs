//! The connection to the daemon: made at first use, every call under a time limit, every refusal
//! translated once into the words of [`EngineErrorKind`].

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::sync::OnceCell;

use crate::engine::{EngineError, EngineErrorKind};

/// A lazily made connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: PathBuf,
    pub(super) limit: Duration,
    docker: OnceCell<Docker>,
}

impl Client {
    pub(super) fn new(socket: PathBuf, limit: Duration) -> Self {
        Self {
            socket,
            limit,
            docker: OnceCell::new(),
        }
    }

    /// The client, connected and agreed on a version.
    pub(super) async fn docker(&self, attempt: &str) -> Result<&Docker, EngineError> {
        let connect = async {
            let path = self.socket.to_string_lossy();
            Docker::connect_with_unix(&path, self.limit.as_secs().max(1), API_DEFAULT_VERSION)?
                .negotiate_version()
                .await
        };
        self.docker
            .get_or_try_init(|| within(attempt, self.limit, connect))
            .await
    }
}

/// Awaits an answer of the daemon for at most `limit`.
pub(super) async fn within<T>(
    attempt: &str,
    limit: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(|source| refused(attempt, source)),
        Err(elapsed) => Err(EngineError {
            kind: EngineErrorKind::Timeout,
            attempt: attempt.to_owned(),
            source: Some(Box::new(elapsed)),
        }),
    }
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
    use super::*;

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

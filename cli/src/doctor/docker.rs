//! Whether a Docker daemon answers.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::Check;

const NAME: &str = "docker";
const SOCKET: &str = "/var/run/docker.sock";
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks for a sign of life, at `DOCKER_HOST` or at the usual socket.
pub(super) async fn check(host: Option<&str>) -> Check {
    let place = host.map_or_else(|| format!("unix://{SOCKET}"), str::to_owned);
    match tokio::time::timeout(PATIENCE, ask(&place)).await {
        Ok(Ok(version)) => Check::ok(NAME, format!("answers at {place}, API {version}")),
        Ok(Err(error)) => {
            let kind = error.kind();
            let next = if kind == std::io::ErrorKind::NotFound {
                "install and start it: apt-get install docker.io; systemctl start docker"
            } else if kind == std::io::ErrorKind::PermissionDenied {
                "run as root, or join its group: usermod -aG docker $USER, then log in anew"
            } else {
                "start it: systemctl start docker"
            };
            Check::fail(NAME, format!("no answer at {place}: {error}"), next)
        }
        Err(_) => Check::fail(
            NAME,
            format!("no answer at {place} in {} s", PATIENCE.as_secs()),
            "restart it: systemctl restart docker",
        ),
    }
}

async fn ask(place: &str) -> std::io::Result<String> {
    if let Some(path) = place.strip_prefix("unix://") {
        return ping(UnixStream::connect(PathBuf::from(path)).await?).await;
    }
    let address = place
        .strip_prefix("tcp://")
        .or_else(|| place.strip_prefix("http://"));
    let address = address.ok_or_else(|| {
        std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "only unix:// and tcp:// are known",
        )
    })?;
    ping(TcpStream::connect(address.trim_end_matches('/')).await?).await
}

async fn ping(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<String> {
    stream
        .write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
        .await?;
    let mut bytes = Vec::new();
    stream.take(8192).read_to_end(&mut bytes).await?;
    version(&String::from_utf8_lossy(&bytes)).ok_or_else(|| {
        std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "that is not a Docker daemon",
        )
    })
}

/// The version of the API, from the head of an answer that says yes.
fn version(answer: &str) -> Option<String> {
    let mut lines = answer.lines();
    lines
        .next()
        .filter(|line| line.split(' ').nth(1) == Some("200"))?;
    lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("api-version")
            .then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_known_by_its_answer() {
        let answer = "HTTP/1.0 200 OK\r\nApi-Version: 1.52\r\nContent-Length: 2\r\n\r\nOK";
        assert_eq!(version(answer).as_deref(), Some("1.52"));
        assert_eq!(
            version("HTTP/1.0 500 Oh\r\nApi-Version: 1.52\r\n\r\n"),
            None
        );
        assert_eq!(version("SSH-2.0-OpenSSH_9.9\r\n"), None);
    }

    #[tokio::test]
    async fn a_missing_socket_says_how_to_get_one() {
        let check = check(Some("unix:///nonexistent/docker.sock")).await;
        assert_eq!(check.verdict, super::super::Verdict::Fail);
        assert!(
            check
                .next_step
                .is_some_and(|next| next.contains("docker.io"))
        );
    }
}

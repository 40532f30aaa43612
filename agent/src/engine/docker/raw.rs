//! Two requests that bollard cannot make: its models lack `CheckDuplicate` of networks and
//! `MacAddress` of containers, which daemons before API 1.44 need and no other field replaces.

use bollard::errors::Error;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::client::Client;
use crate::engine::EngineError;

/// Largest answer that is read.
const MAX_ANSWER: usize = 1024 * 1024;

impl Client {
    /// Whether the daemon is older than API 1.44.
    pub(super) async fn is_old(&self, attempt: &str) -> Result<bool, EngineError> {
        let version = self.docker(attempt).await?.client_version();
        Ok((version.major_version, version.minor_version) < (1, 44))
    }

    /// Posts `body` to `path` of the agreed API version; the answer's `Id`, or what was refused.
    /// The outer error is of the way there, the inner one is the daemon's answer.
    pub(super) async fn create(
        &self,
        attempt: &str,
        path: &str,
        body: &Value,
    ) -> Result<Result<String, Error>, EngineError> {
        let version = self.docker(attempt).await?.client_version();
        let (major, minor) = (version.major_version, version.minor_version);
        let request = http::Request::post(format!("/v{major}.{minor}{path}"))
            .header(http::header::HOST, "docker")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(Error::from);
        let exchange = async {
            let stream = UnixStream::connect(&self.socket)
                .await
                .map_err(Error::from)?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let answer = async {
                let response = sender.send_request(request?).await?;
                let status = response.status().as_u16();
                let body = Limited::new(response.into_body(), MAX_ANSWER)
                    .collect()
                    .await;
                let body = body.map_err(|error| std::io::Error::other(error.to_string()))?;
                Ok::<_, Error>((status, body.to_bytes()))
            };
            // The connection is driven here and dropped with the answer: no task outlives the call.
            tokio::pin!(answer);
            tokio::select! {
                answer = &mut answer => answer,
                ended = connection => match ended {
                    Ok(()) => answer.await,
                    Err(error) => Err(error.into()),
                },
            }
        };
        let (status, body) = self.within(attempt, self.limit, exchange).await?;
        let document: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |key: &str| document.get(key).and_then(Value::as_str);
        Ok(match text("Id") {
            Some(id) if (200..300).contains(&status) => Ok(id.to_owned()),
            Some(_) | None => {
                let refusal = Error::DockerResponseServerError {
                    status_code: status,
                    message: text("message")
                        .unwrap_or("an answer without an id")
                        .to_owned(),
                };
                self.reconsider(&refusal);
                Err(refusal)
            }
        })
    }
}

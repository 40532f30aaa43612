//! A tonic channel over one connection: when that ends, the channel ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};

use super::MasterStream;

const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no channel: HTTP/2 did not come up on the stream.
#[derive(Debug, thiserror::Error)]
#[error("could not start HTTP/2 with the master")]
pub struct ChannelError {
    #[source]
    source: tonic::transport::Error,
}

/// What a call meets once the connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection to the master has ended")]
struct ConnectionEnded;

/// Speaks HTTP/2 over this stream, with a ping every 20 s and 10 s for its answer.
///
/// tonic reconnects by itself, silently; this channel has nothing to reconnect with, so that every
/// call after a drop fails as unavailable and the agent decides what happens. Keep
/// [`MasterStream::refusal`] before the stream goes in: tonic reports a refused certificate as
/// `Cancelled` or `Unknown`.
pub async fn channel_over(stream: MasterStream) -> Result<Channel, ChannelError> {
    let once = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { stream.ok_or(ConnectionEnded) }
    });
    // Only the text of the :authority header: the stream is connected already, and encrypted.
    Endpoint::from_static("http://master.decnet")
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|source| ChannelError { source })
}

//! Accepts connections of operators: capped, timed, and ended in good order.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Api, router};
use crate::task;

/// How long the head of a request may take to arrive; also how long a connection may rest.
const HEAD: Duration = Duration::from_secs(30);
/// How long requests may go on once the server ends.
const GRACE: Duration = Duration::from_secs(5);
/// How long to rest when a connection cannot be accepted (no descriptors are left).
const BACK_OFF: Duration = Duration::from_millis(200);
/// Header fields of one request.
const FIELDS: usize = 64;
/// Bytes of the head of one request.
const HEAD_BYTES: usize = 32 * 1024;

/// Serves until `shutdown` is cancelled, then ends streams and lets requests end for a few
/// seconds.
pub async fn serve(listener: TcpListener, api: Arc<Api>, shutdown: CancellationToken) {
    let service = TowerToHyperService::new(router(Arc::clone(&api)));
    let places = Arc::new(Semaphore::new(api.limits.connections));
    let connections = TaskTracker::new();
    loop {
        // A place first, so that connections beyond the cap wait in the kernel's queue.
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = shutdown.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "connection could not be accepted");
                tokio::time::sleep(BACK_OFF).await;
                continue;
            }
        };
        let (service, api) = (service.clone(), Arc::clone(&api));
        let connection = async move {
            converse(stream, service, &api).await;
            drop(place);
        };
        task::spawn(
            "http.connection",
            tracing::Span::none(),
            connections.track_future(connection),
        );
    }
    api.ending.cancel();
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(open = connections.len(), "connections cut off at the end");
    }
}

async fn converse(stream: TcpStream, service: TowerToHyperService<axum::Router>, api: &Api) {
    // Without effect on what is sent, only on when: worth no more than trying.
    drop(stream.set_nodelay(true));
    // A client that asks for a stream and never reads would hold its place for ever: nothing above
    // the kernel can tell it from one to which nothing happens.
    let unread = SockRef::from(&stream).set_tcp_user_timeout(Some(api.limits.unread));
    if let Err(error) = unread {
        tracing::debug!(%error, "clients that do not read are not cut off");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(FIELDS)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = api.ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(GRACE, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

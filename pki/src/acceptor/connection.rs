//! One accepted connection: the TLS stream, who is at its other end, and its kill switch.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::PeerInfo;
use super::registry::Registration;

/// A connection for tonic's `serve_with_incoming`. Once cut, or past its time, every read and
/// write fails and nothing more goes either way.
pub struct Connection {
    // Boxed: whoever serves a connection has room for it in more than one state.
    stream: Box<TlsStream<TcpStream>>,
    peer: PeerInfo,
    // One each for reading and writing: they may be polled by different tasks, and such a future
    // wakes only the task that polled it last.
    killed_reading: Pin<Box<WaitForCancellationFutureOwned>>,
    killed_writing: Pin<Box<WaitForCancellationFutureOwned>>,
    deadline: Pin<Box<Sleep>>,
    registration: Registration,
    _permits: Permits,
}

/// The places that a connection takes among those that may be live.
pub(super) struct Permits {
    pub(super) _connection: OwnedSemaphorePermit,
    /// Given back as soon as a valid certificate is shown.
    pub(super) unproven: Option<OwnedSemaphorePermit>,
}

impl Connection {
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        peer: PeerInfo,
        deadline: Instant,
        registration: Registration,
        permits: Permits,
    ) -> Self {
        Self {
            stream: Box::new(stream),
            peer,
            killed_reading: Box::pin(registration.kill().clone().cancelled_owned()),
            killed_writing: Box::pin(registration.kill().clone().cancelled_owned()),
            deadline: Box::pin(sleep_until(deadline)),
            registration,
            _permits: permits,
        }
    }

    /// Who is at the other end.
    pub const fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    #[cfg(test)]
    pub(super) fn ends_at(&self) -> Instant {
        self.deadline.deadline()
    }

    fn check_reading(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.deadline.as_mut().poll(cx).is_ready() {
            // Through the kill switch, so that a writer in another task wakes too.
            self.registration.kill().cancel();
        }
        ended_if(self.killed_reading.as_mut().poll(cx).is_ready())
    }

    fn check_writing(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.deadline.is_elapsed() {
            self.registration.kill().cancel();
        }
        ended_if(self.killed_writing.as_mut().poll(cx).is_ready())
    }
}

fn ended_if(ended: bool) -> io::Result<()> {
    if ended {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "this connection was cut",
        ));
    }
    Ok(())
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_reading(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_writing(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_writing(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_writing(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_writing(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

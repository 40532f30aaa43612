//! The byte stream of one connection: counted in both directions, capped in what it takes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use domain::event::Payload;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What has passed over a connection.
pub(crate) struct Meter {
    opened: Instant,
    received: AtomicU64,
    sent: AtomicU64,
    /// Milliseconds after `opened`.
    touched: AtomicU64,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            opened: Instant::now(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            touched: AtomicU64::new(0),
        }
    }

    /// When the connection was accepted.
    pub(crate) fn opened(&self) -> Instant {
        self.opened
    }

    /// When a byte last passed.
    pub(crate) fn touched(&self) -> Instant {
        self.opened + Duration::from_millis(self.touched.load(Ordering::Relaxed))
    }

    /// Whether more than `cap` bytes came.
    pub(crate) fn over(&self, cap: u64) -> bool {
        self.received.load(Ordering::Relaxed) > cap
    }

    /// The end of the connection.
    pub(crate) fn disconnect(&self) -> Payload {
        Payload::Disconnect {
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            millis: self.millis(),
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn count(&self, counter: &AtomicU64, bytes: usize) -> u64 {
        self.touched.store(self.millis(), Ordering::Relaxed);
        counter.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64
    }
}

/// The stream that a service talks on.
pub(crate) struct Wire {
    /// Shared with the framework, which shuts the socket down whoever still holds the stream.
    tcp: Arc<TcpStream>,
    meter: Arc<Meter>,
    cap: u64,
}

impl Wire {
    pub(crate) fn new(tcp: Arc<TcpStream>, meter: Arc<Meter>, cap: u64) -> Self {
        Self { tcp, meter, cap }
    }

    /// The meter of the connection, for bytes that pass beside it (a data connection).
    pub(crate) fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }
}

impl Meter {
    /// Counts bytes received beside the connection.
    pub(crate) fn count_received(&self, bytes: usize) {
        self.count(&self.received, bytes);
    }

    /// Counts bytes sent beside the connection.
    pub(crate) fn count_sent(&self, bytes: usize) {
        self.count(&self.sent, bytes);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            match self.tcp.try_read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    if self.meter.count(&self.meter.received, read) > self.cap {
                        return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_write_ready(cx))?;
            match self.tcp.try_write(bytes) {
                Ok(sent) => {
                    self.meter.count(&self.meter.sent, sent);
                    return Poll::Ready(Ok(sent));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&*self.tcp).shutdown(std::net::Shutdown::Write))
    }
}

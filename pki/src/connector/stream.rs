//! A connection to the master that remembers if the master refused the host's certificate.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{RefusedByMaster, refusal_of};

/// A connection whose other end is the master.
pub struct MasterStream {
    stream: TlsStream<TcpStream>,
    refusal: RefusalWatch,
}

/// Tells whether the master refused the host's certificate, also after the stream was given away.
#[derive(Debug, Clone, Default)]
pub struct RefusalWatch(Arc<OnceLock<RefusedByMaster>>);

impl RefusalWatch {
    /// The refusal, once a read has met it.
    pub fn get(&self) -> Option<RefusedByMaster> {
        self.0.get().copied()
    }
}

impl MasterStream {
    pub(super) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self {
            stream,
            refusal: RefusalWatch::default(),
        }
    }

    /// Where a refusal of this connection will be found.
    pub fn refusal(&self) -> RefusalWatch {
        self.refusal.clone()
    }

    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled
            && let Some(refused) = refusal_of(error)
        {
            self.refusal.0.get_or_init(|| refused);
        }
        polled
    }
}

impl AsyncRead for MasterStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.note(polled)
    }
}

impl AsyncWrite for MasterStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl std::fmt::Debug for MasterStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterStream")
            .field("refusal", &self.refusal)
            .finish_non_exhaustive()
    }
}

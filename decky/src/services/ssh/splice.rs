//! The stream under russh after the identification strings were exchanged here: replays what the
//! client said, swallows what russh would say again, keeps a copy of the client's first bytes.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::TAP_BYTES;
use crate::serve::Wire;

/// The first bytes of the client; none when they were taken.
pub(super) type Tap = Arc<Mutex<Option<Vec<u8>>>>;

pub(super) struct Splice {
    wire: Wire,
    replay: Vec<u8>,
    replayed: usize,
    swallow: usize,
    tap: Tap,
}

impl Splice {
    pub(super) fn new(wire: Wire, replay: Vec<u8>, swallow: usize, tap: Tap) -> Self {
        Self {
            wire,
            replay,
            replayed: 0,
            swallow,
            tap,
        }
    }
}

impl AsyncRead for Splice {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.replayed < this.replay.len() {
            let rest = &this.replay[this.replayed..];
            let count = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..count]);
            this.replayed += count;
            if this.replayed == this.replay.len() {
                this.replay = Vec::new();
                this.replayed = 0;
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.wire).poll_read(cx, buffer))?;
        if let Some(tap) = &mut *this.tap.lock().unwrap_or_else(PoisonError::into_inner) {
            let room = TAP_BYTES.saturating_sub(tap.len());
            let fresh = &buffer.filled()[before..];
            tap.extend_from_slice(&fresh[..fresh.len().min(room)]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Splice {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.swallow > 0 {
            let count = self.swallow.min(bytes.len());
            self.swallow -= count;
            return Poll::Ready(Ok(count));
        }
        Pin::new(&mut self.wire).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

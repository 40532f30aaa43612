//! Reads lines and blocks from a stream with a bound on what is held.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How much is read at once.
const CHUNK: usize = 2048;

/// What a bounded read gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// What was asked for; a line comes without its end.
    Whole(Vec<u8>),
    /// More than the bound came first; this is its start.
    TooLong(Vec<u8>),
    /// The stream ended; this came before its end.
    End(Vec<u8>),
}

/// A stream with what was read of it and not yet taken.
pub(crate) struct Buffered<S> {
    stream: S,
    held: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Buffered<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            held: Vec::new(),
        }
    }

    /// What was read and not yet taken.
    pub(crate) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Reads more; false at the end of the stream.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        self.held.reserve(CHUNK);
        Ok(self.stream.read_buf(&mut self.held).await? > 0)
    }

    /// Takes the first `count` bytes of what is held.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.held.split_off(count.min(self.held.len()));
        std::mem::replace(&mut self.held, rest)
    }

    /// Reads up to a line feed, of at most `max` bytes.
    pub(crate) async fn line(&mut self, max: usize) -> io::Result<Read> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.held[searched..].iter().position(|byte| *byte == b'\n') {
                let end = searched + at;
                let mut line = self.take(end + 1);
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(if end > max {
                    Read::TooLong(line)
                } else {
                    Read::Whole(line)
                });
            }
            searched = self.held.len();
            if searched > max {
                return Ok(Read::TooLong(std::mem::take(&mut self.held)));
            }
            if !self.fill().await? {
                return Ok(Read::End(std::mem::take(&mut self.held)));
            }
        }
    }

    /// Writes all of `bytes`.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Gives the stream back, with what was read and not taken.
    pub(crate) fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_over_the_bound_is_given_up_and_not_held() {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let mut client = client;
        let mut lines = Buffered::new(server);
        client
            .write_all(b"one\r\ntwo\n")
            .await
            .expect("the other end lives");
        assert_eq!(
            lines.line(8).await.expect("open"),
            Read::Whole(b"one".to_vec())
        );
        assert_eq!(
            lines.line(8).await.expect("open"),
            Read::Whole(b"two".to_vec())
        );
        client
            .write_all(&[b'x'; 4096])
            .await
            .expect("the other end lives");
        let Read::TooLong(start) = lines.line(8).await.expect("open") else {
            panic!("not refused")
        };
        assert!(start.len() <= 8 + CHUNK);
        drop(client);
        while let Read::TooLong(_) = lines.line(8).await.expect("ended") {}
    }
}

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
    read: Vec<u8>,
    /// How much of it was taken: what is left is moved when more is read, and not with each of
    /// the many short commands that may have come at once.
    taken: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Buffered<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            read: Vec::new(),
            taken: 0,
        }
    }

    /// What was read and not yet taken.
    pub(crate) fn held(&self) -> &[u8] {
        &self.read[self.taken..]
    }

    /// Reads more; false at the end of the stream.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        if self.taken > 0 {
            // Into memory of its own size: a long request must not be paid for ever after.
            self.read = self.read.split_off(self.taken);
            self.taken = 0;
        }
        self.read.reserve(CHUNK);
        Ok(self.stream.read_buf(&mut self.read).await? > 0)
    }

    /// Takes the first `count` bytes of what is held.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        if self.taken == 0 && count >= self.read.len() {
            return std::mem::take(&mut self.read);
        }
        let held = self.held();
        let taken = held[..count.min(held.len())].to_vec();
        self.taken += taken.len();
        taken
    }

    fn take_all(&mut self) -> Vec<u8> {
        self.take(self.read.len())
    }

    /// Reads up to a line feed, of at most `max` bytes.
    pub(crate) async fn line(&mut self, max: usize) -> io::Result<Read> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.held()[searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
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
            searched = self.held().len();
            if searched > max {
                return Ok(Read::TooLong(self.take_all()));
            }
            if !self.fill().await? {
                return Ok(Read::End(self.take_all()));
            }
        }
    }

    /// Writes all of `bytes`, and lets everybody else have their turn: whoever sends one command
    /// behind the other is otherwise served without a pause.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Gives the stream back, with what was read and not taken.
    pub(crate) fn into_parts(mut self) -> (S, Vec<u8>) {
        let held = self.take_all();
        (self.stream, held)
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

    #[tokio::test]
    async fn taking_a_little_does_not_move_the_rest() {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let mut lines = Buffered::new(server);
        client
            .write_all(&b"PING\n".repeat(400))
            .await
            .expect("the other end lives");
        assert!(lines.fill().await.expect("open"));
        let first = lines.held().as_ptr();
        for number in 1..=100 {
            assert_eq!(lines.take(5), b"PING\n");
            assert_eq!(lines.held().as_ptr(), first.wrapping_add(number * 5));
        }
        client
            .write_all(b"QUIT\n")
            .await
            .expect("the other end lives");
        assert!(lines.fill().await.expect("open"));
        let (_, rest) = lines.into_parts();
        assert_eq!(rest, [b"PING\n".repeat(300), b"QUIT\n".to_vec()].concat());
    }

    #[tokio::test]
    async fn others_have_their_turn_after_each_answer() {
        let (_client, server) = tokio::io::duplex(64 * 1024);
        let mut lines = Buffered::new(server);
        let other = crate::task::spawn("other", async {});
        lines.write(b"+OK\r\n").await.expect("there is room");
        assert!(other.is_finished());
    }
}

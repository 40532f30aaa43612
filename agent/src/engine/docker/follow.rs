//! A container's standard output as whole lines, each with the daemon's time.
//!
//! The daemon cuts long lines into pieces and puts a time before each piece.

use std::collections::VecDeque;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::query_parameters as query;
use bytes::{Bytes, BytesMut};
use domain::event::MAX_LINE;
use domain::observe::Handle;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::client::refused;
use crate::engine::{EngineError, OutputLine};

/// Where a line is cut that no decky of ours can have written.
const LIMIT: usize = 2 * MAX_LINE;
/// What stands at the end of a line that was cut.
const CUT: &[u8] = b" [cut]";

pub(super) fn lines(
    docker: &Docker,
    handle: &Handle,
    since: Option<OffsetDateTime>,
    attempt: String,
) -> BoxStream<'static, Result<OutputLine, EngineError>> {
    let since = since.map_or(0, |at| {
        i32::try_from(at.unix_timestamp()).unwrap_or(i32::MAX)
    });
    let options = query::LogsOptionsBuilder::default()
        .follow(true)
        .stdout(true)
        .stderr(false)
        .timestamps(true)
        .since(since)
        .build();
    let frames = docker.logs(handle.as_str(), Some(options)).boxed();
    let state = (frames, Lines::default(), VecDeque::new(), false);
    stream::unfold(
        state,
        move |(mut frames, mut lines, mut ready, mut ended)| {
            let attempt = attempt.clone();
            async move {
                loop {
                    if let Some(item) = ready.pop_front() {
                        return Some((item, (frames, lines, ready, ended)));
                    }
                    if ended {
                        return None;
                    }
                    match frames.next().await {
                        Some(Ok(
                            LogOutput::StdOut { message } | LogOutput::Console { message },
                        )) => {
                            ready.extend(lines.push(&message).map(Ok));
                        }
                        Some(Ok(LogOutput::StdErr { .. } | LogOutput::StdIn { .. })) => {}
                        Some(Err(error)) => {
                            ready.extend(lines.end().map(Ok));
                            ready.push_back(Err(refused(&attempt, error)));
                            ended = true;
                        }
                        None => {
                            ready.extend(lines.end().map(Ok));
                            ended = true;
                        }
                    }
                }
            }
        },
    )
    .boxed()
}

/// Puts pieces together.
#[derive(Debug, Default)]
struct Lines {
    partial: BytesMut,
    at: Option<OffsetDateTime>,
    cut: bool,
}

impl Lines {
    fn push(&mut self, frame: &[u8]) -> Option<OutputLine> {
        let (at, text) = split(frame);
        // A line is as old as its first piece.
        self.at = self.at.or(at);
        let (text, whole) = match text.split_last() {
            Some((b'\n', text)) => (text, true),
            Some(_) | None => (text, false),
        };
        let room = LIMIT.saturating_sub(self.partial.len());
        self.cut |= text.len() > room;
        self.partial
            .extend_from_slice(text.get(..room).unwrap_or(text));
        if whole { Some(self.take()) } else { None }
    }

    /// The rest of a line whose writer has died in the middle of it.
    fn end(&mut self) -> Option<OutputLine> {
        if self.partial.is_empty() {
            None
        } else {
            Some(self.take())
        }
    }

    fn take(&mut self) -> OutputLine {
        if std::mem::take(&mut self.cut) {
            self.partial.extend_from_slice(CUT);
        }
        let line: Bytes = self.partial.split().freeze();
        OutputLine {
            at: self.at.take().unwrap_or(OffsetDateTime::UNIX_EPOCH),
            line,
        }
    }
}

/// A piece without the time that stands before it.
fn split(frame: &[u8]) -> (Option<OffsetDateTime>, &[u8]) {
    let stamp = frame.iter().position(|byte| *byte == b' ').and_then(|end| {
        let text = std::str::from_utf8(frame.get(..end)?).ok()?;
        Some((
            OffsetDateTime::parse(text, &Rfc3339).ok()?,
            frame.get(end + 1..)?,
        ))
    });
    stamp.map_or((None, frame), |(at, text)| (Some(at), text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAMP: &[u8] = b"2026-11-23T08:43:20.059317109Z ";

    fn frame(text: &[u8]) -> Vec<u8> {
        [STAMP, text].concat()
    }

    #[test]
    fn a_line_in_pieces_is_one_line() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(&frame(b"{\"a\":")), None);
        let line = lines.push(&frame(b"1}\n")).expect("it ends here");
        assert_eq!(&line.line[..], b"{\"a\":1}");
        assert_eq!(line.at.unix_timestamp_nanos() % 1_000_000_000, 59_317_109);
        assert_eq!(lines.end(), None);
    }

    #[test]
    fn a_line_without_end_is_cut_and_marked() {
        let mut lines = Lines::default();
        for _ in 0..5 {
            assert_eq!(lines.push(&frame(&vec![b'x'; MAX_LINE])), None);
        }
        let line = lines.push(&frame(b"\n")).expect("it ends here");
        assert_eq!(line.line.len(), LIMIT + CUT.len());
        assert!(line.line.ends_with(CUT));
        assert_eq!(
            &lines.push(&frame(b"next\n")).expect("it is whole").line[..],
            b"next"
        );
    }

    #[test]
    fn a_dying_decky_leaves_its_last_words() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(&frame(b"half")), None);
        assert_eq!(&lines.end().expect("there is a rest").line[..], b"half");
    }

    proptest! {
        #[test]
        fn no_output_makes_it_panic(frames: Vec<Vec<u8>>) {
            let mut lines = Lines::default();
            for frame in frames {
                lines.push(&frame);
            }
            lines.end();
        }
    }
}

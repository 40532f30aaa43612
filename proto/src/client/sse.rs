//! Reads a stream of server-sent events out of chunks of bytes, in bounded memory.

/// Longest event, in bytes: how the largest topology stands, with everything that is queued for it.
pub(super) const MAX_EVENT: usize = 16 * 1024 * 1024;

/// One event of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Frame {
    /// Its id; empty when it has none.
    pub(super) id: String,
    /// Its name; empty when it has none.
    pub(super) name: String,
    /// Its data.
    pub(super) data: String,
}

/// A stream that sends more without an end than any master does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Takes chunks, gives events.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    line: Vec<u8>,
    frame: Frame,
    has_data: bool,
    after_cr: bool,
}

impl Decoder {
    /// Takes one chunk, wherever it was cut, and appends what it completes to `out`.
    pub(super) fn push(&mut self, chunk: &[u8], out: &mut Vec<Frame>) -> Result<(), TooLong> {
        for &byte in chunk {
            let was_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if was_cr => {}
                b'\n' | b'\r' => self.end_of_line(out),
                _ => {
                    if self.line.len() + self.frame.data.len() >= MAX_EVENT {
                        return Err(TooLong);
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(())
    }

    fn end_of_line(&mut self, out: &mut Vec<Frame>) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            if std::mem::take(&mut self.has_data) {
                out.push(frame);
            }
            return;
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.has_data {
                    self.frame.data.push('\n');
                }
                self.has_data = true;
                self.frame.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.frame.name),
            "id" => value.clone_into(&mut self.frame.id),
            // An empty field is a comment, which keeps the connection alive.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(chunks: &[&[u8]]) -> Vec<Frame> {
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        for chunk in chunks {
            decoder.push(chunk, &mut out).expect("short enough");
        }
        out
    }

    fn frame(name: &str, data: &str) -> Frame {
        Frame {
            id: String::new(),
            name: name.to_owned(),
            data: data.to_owned(),
        }
    }

    #[test]
    fn an_event_ends_at_the_empty_line() {
        let whole = Frame {
            id: "7".to_owned(),
            ..frame("", "{}")
        };
        assert_eq!(decode(&[b"id: 7\ndata: {}\n\ndata: un"]), [whole]);
    }

    #[test]
    fn a_stream_reads_the_same_wherever_it_is_cut() {
        let text = ": hello\r\nevent: gap\r\ndata: a\r\ndata: b\r\n\r\ndata:c\n\n\n".as_bytes();
        let whole = decode(&[text]);
        assert_eq!(whole, [frame("gap", "a\nb"), frame("", "c")]);
        for cut in 0..text.len() {
            assert_eq!(decode(&[&text[..cut], &text[cut..]]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_comment_alone_is_no_event() {
        assert_eq!(decode(&[b": keep-alive\n\n: keep-alive\n\n"]), []);
    }

    #[test]
    fn refuses_an_event_without_an_end() {
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        let chunk = [b'x'; 64 * 1024];
        let outcome =
            (0..=MAX_EVENT / chunk.len()).try_for_each(|_| decoder.push(&chunk, &mut out));
        assert_eq!(outcome, Err(TooLong));
    }

    #[test]
    fn refuses_an_event_of_endless_lines() {
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        let line = format!("data: {}\n", "x".repeat(1000));
        let outcome =
            (0..=MAX_EVENT / 1000 + 1).try_for_each(|_| decoder.push(line.as_bytes(), &mut out));
        assert_eq!(outcome, Err(TooLong));
    }
}

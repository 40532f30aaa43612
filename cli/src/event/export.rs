//! Writes an export to a file or to standard output, without holding it in memory.

use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use proto::client::Client;
use proto::rest::EventQuery;

use crate::args::Format;
use crate::context::Context;
use crate::failure::Failure;

pub(super) async fn run(
    client: &Client,
    query: &EventQuery,
    file: &Path,
    context: &Context,
) -> Result<(), Failure> {
    let mut stream = client.event_export(query).await?;
    let mut sink: Box<dyn Write> = if file == Path::new("-") {
        Box::new(std::io::stdout().lock())
    } else {
        // Evidence holds passwords: it is nobody else's to read.
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(file)
            .with_context(|| format!("could not write {}", file.display()))?;
        Box::new(BufWriter::new(file))
    };
    let mut writer = Writer::new(context.output.asked);
    while let Some(chunk) = stream.next().await? {
        writer.push(&chunk, &mut sink)?;
    }
    writer.finish(&mut sink)?;
    if file != Path::new("-") {
        context
            .output
            .note(&format!("{} events in {}", writer.lines, file.display()));
    }
    Ok(())
}

/// Turns lines of JSON into the form that was asked for, on the way.
struct Writer {
    array: bool,
    at_start: bool,
    lines: u64,
}

impl Writer {
    fn new(asked: Option<Format>) -> Self {
        // Lines are what an export is; an array only when somebody insists.
        Self {
            array: asked == Some(Format::Json),
            at_start: true,
            lines: 0,
        }
    }

    fn push(&mut self, chunk: &[u8], sink: &mut impl Write) -> std::io::Result<()> {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            if self.at_start && self.array {
                sink.write_all(if self.lines == 0 { b"[\n" } else { b",\n" })?;
            }
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            sink.write_all(if self.array { text } else { piece })?;
            self.at_start = ended;
            self.lines += u64::from(ended);
        }
        Ok(())
    }

    fn finish(&mut self, sink: &mut impl Write) -> std::io::Result<()> {
        if self.array {
            sink.write_all(if self.lines == 0 { b"[]\n" } else { b"\n]\n" })?;
        }
        sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(asked: Option<Format>, chunks: &[&str]) -> String {
        let mut writer = Writer::new(asked);
        let mut sink = Vec::new();
        for chunk in chunks {
            writer.push(chunk.as_bytes(), &mut sink).expect("memory");
        }
        writer.finish(&mut sink).expect("memory");
        String::from_utf8(sink).expect("text")
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(
            written(None, &["{\"a\":1}\n{\"a\"", ":2}\n"]),
            "{\"a\":1}\n{\"a\":2}\n"
        );
    }

    #[test]
    fn an_array_is_an_array_wherever_it_was_cut() {
        for chunks in [
            &["{\"a\":1}\n{\"a\"", ":2}\n"][..],
            &["{\"a\":1}", "\n", "{\"a\":2}\n"],
            &[],
        ] {
            let text = written(Some(Format::Json), chunks);
            let array: Vec<serde_json::Value> = serde_json::from_str(&text).expect("an array");
            assert_eq!(array.len(), if chunks.is_empty() { 0 } else { 2 }, "{text}");
        }
    }
}

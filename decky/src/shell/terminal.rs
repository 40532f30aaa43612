//! Edits a line as a terminal does: echo, backspace, ^C, ^D, ^U, ^W, history.

/// Longest line.
const MAX_LINE: usize = 4096;
/// How much is drawn before it is sent.
pub(crate) const MAX_SCREEN: usize = 16 * 1024;

/// What came of a keystroke.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// The line is done.
    Line(Vec<u8>),
    /// ^C.
    Interrupt,
    /// ^D on an empty line.
    End,
}

/// The editor of one terminal.
#[derive(Default)]
pub(crate) struct Editor {
    line: Vec<u8>,
    escape: Escape,
    after_return: bool,
    echo: Echo,
    history: Vec<Vec<u8>>,
    back: usize,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    Started,
    Sequence,
}

/// Whether the terminal shows what is typed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    #[default]
    On,
    Off,
}

impl Editor {
    /// Shows, or hides, what is typed from here on.
    pub(crate) fn set_echo(&mut self, echo: Echo) {
        self.echo = echo;
    }

    /// Takes one byte; what the terminal shows for it goes to `screen`.
    pub(crate) fn feed(&mut self, byte: u8, screen: &mut Vec<u8>) -> Option<Key> {
        let after_return = std::mem::take(&mut self.after_return);
        match self.escape {
            Escape::None => {}
            Escape::Started => {
                self.escape = if matches!(byte, b'[' | b'O') {
                    Escape::Sequence
                } else {
                    Escape::None
                };
                return None;
            }
            Escape::Sequence => {
                if byte.is_ascii_alphabetic() || byte == b'~' {
                    self.escape = Escape::None;
                    self.arrow(byte, screen);
                }
                return None;
            }
        }
        match byte {
            // A terminal sends one of CR, CR LF, CR NUL, LF for the same key.
            b'\n' | 0 if after_return => {}
            b'\r' | b'\n' => {
                self.after_return = byte == b'\r';
                screen.extend_from_slice(b"\r\n");
                let line = std::mem::take(&mut self.line);
                self.remember(&line);
                return Some(Key::Line(line));
            }
            0x03 => {
                screen.extend_from_slice(b"^C\r\n");
                self.line.clear();
                return Some(Key::Interrupt);
            }
            0x04 if self.line.is_empty() => return Some(Key::End),
            0x08 | 0x7f => self.rub_out(screen),
            0x15 => self.clear(screen),
            0x17 => {
                while self.line.last() == Some(&b' ') {
                    self.rub_out(screen)
                }
                while self.line.last().is_some_and(|byte| *byte != b' ') {
                    self.rub_out(screen)
                }
            }
            0x1b => self.escape = Escape::Started,
            b'\t' => screen.push(0x07),
            byte if byte < 0x20 => {}
            byte if self.line.len() < MAX_LINE => {
                self.line.push(byte);
                if self.echo == Echo::On {
                    screen.push(byte);
                }
            }
            _ => screen.push(0x07),
        }
        None
    }

    fn rub_out(&mut self, screen: &mut Vec<u8>) {
        // A character of UTF-8 may be of several bytes and is one on the screen.
        while let Some(byte) = self.line.pop() {
            if byte & 0xc0 != 0x80 {
                if self.echo == Echo::On {
                    screen.extend_from_slice(b"\x08 \x08");
                }
                break;
            }
        }
    }

    /// Rubs the whole line out.
    fn clear(&mut self, screen: &mut Vec<u8>) {
        if self.echo == Echo::On {
            let characters = self.line.iter().filter(|byte| **byte & 0xc0 != 0x80);
            screen.extend(b"\x08 \x08".repeat(characters.count()));
        }
        self.line.clear();
    }

    fn arrow(&mut self, byte: u8, screen: &mut Vec<u8>) {
        let back = match byte {
            b'A' => (self.back + 1).min(self.history.len()),
            b'B' => self.back.saturating_sub(1),
            _ => return,
        };
        self.back = back;
        self.clear(screen);
        if back > 0
            && let Some(line) = self.history.get(self.history.len() - back)
        {
            self.line.clone_from(line);
            if self.echo == Echo::On {
                screen.extend_from_slice(&self.line);
            }
        }
    }

    fn remember(&mut self, line: &[u8]) {
        self.back = 0;
        if self.echo == Echo::On && !line.is_empty() {
            if self.history.len() >= 32 {
                self.history.remove(0);
            }
            self.history.push(line.to_vec());
        }
    }
}

/// What a program prints, as a terminal shows it: lines end with CR LF.
pub(crate) fn cooked(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    for byte in bytes {
        if *byte == b'\n' {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> (Vec<Key>, String) {
        let mut editor = Editor::default();
        let mut screen = Vec::new();
        let keys = bytes
            .iter()
            .filter_map(|byte| editor.feed(*byte, &mut screen))
            .collect();
        (keys, String::from_utf8_lossy(&screen).into_owned())
    }

    #[test]
    fn a_line_is_edited_as_on_a_terminal() {
        let line = |text: &str| Key::Line(text.into());
        for (bytes, keys) in [
            (&b"ls\r\n"[..], vec![line("ls")]),
            (b"lx\x7fs\r", vec![line("ls")]),
            (b"garbage\x15id\n", vec![line("id")]),
            (b"echo one\x17two\r\0", vec![line("echo two")]),
            (b"abc\x03", vec![Key::Interrupt]),
            (b"\x04", vec![Key::End]),
            (b"a\x04\r", vec![line("a")]),
            (b"id\r\x1b[A\r", vec![line("id"), line("id")]),
            (b"\xc3\xa4\x7fx\r", vec![line("x")]),
        ] {
            assert_eq!(typed(bytes).0, keys, "{bytes:?}");
        }
        assert_eq!(typed(b"a\x7f\r").1, "a\x08 \x08\r\n");
    }
}

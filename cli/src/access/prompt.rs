//! Passwords: asked for at the terminal without showing them, or read from standard input. Never an
//! argument, which every program of the machine can read.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, IsTerminal as _, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::failure::{Exit, Failure};

/// Longest password that is read, in bytes.
const LONGEST: usize = 1024;

/// Where passwords come from.
pub(super) enum Passwords {
    /// Whoever sits at the terminal.
    Terminal(Terminal),
    /// The lines of standard input that are left.
    Lines(std::vec::IntoIter<String>),
}

/// The terminal that controls us, which is there even when standard input is not.
pub(super) struct Terminal(File);

impl Passwords {
    /// The terminal, or standard input when that was said.
    pub(super) fn of(stdin: bool) -> Result<Self, Failure> {
        if stdin {
            let mut text = String::new();
            let most = u64::try_from(4 * LONGEST).unwrap_or(u64::MAX);
            std::io::stdin()
                .lock()
                .take(most)
                .read_to_string(&mut text)
                .map_err(|error| {
                    Failure::new(error).context("could not read a password from standard input")
                })?;
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            return Ok(Self::Lines(lines.into_iter()));
        }
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty");
        match terminal {
            Ok(file) if file.is_terminal() => Ok(Self::Terminal(Terminal(file))),
            Ok(_) | Err(_) => Err(Failure::say("there is no terminal to ask for a password")
                .next("give it on standard input, with --password-stdin")
                .exits(Exit::Usage)),
        }
    }

    /// The next password.
    pub(super) fn next(&mut self, prompt: &str) -> Result<String, Failure> {
        let password = match self {
            Self::Terminal(terminal) => terminal.ask(prompt)?,
            Self::Lines(lines) => lines.next().unwrap_or_default(),
        };
        if password.is_empty() {
            let failure = Failure::say("no password was given");
            return Err(match self {
                Self::Terminal(_) => failure,
                Self::Lines(_) => failure.next("give it in the next line of standard input"),
            });
        }
        Ok(password)
    }

    /// A password that is new: from a terminal twice, since nobody sees what is typed.
    pub(super) fn new_one(&mut self) -> Result<String, Failure> {
        let new = self.next("New password (12 characters or more): ")?;
        if matches!(self, Self::Terminal(_)) && self.next("The same again: ")? != new {
            return Err(Failure::say("the two are not the same"));
        }
        Ok(new)
    }
}

impl Terminal {
    fn ask(&mut self, prompt: &str) -> Result<String, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(error).context("could not ask for a password at the terminal")
        };
        // Quiet before it asks: whoever answers at once, a paste or a program, is not shown either.
        let quiet = Quiet::new(&self.0).map_err(|error| failed(error.into()))?;
        (&self.0).write_all(prompt.as_bytes()).map_err(failed)?;
        let typed = line(&mut &self.0);
        drop(quiet);
        self.0.write_all(b"\n").map_err(failed)?;
        typed
            .map_err(failed)?
            .ok_or_else(|| Failure::say("it was broken off"))
    }
}

/// A terminal that shows nothing of what is typed, and sends no signals: one would leave it so.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(terminal: &'a File) -> rustix::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // Nobody can be told, and nothing else can be tried.
        tcsetattr(self.terminal, OptionalActions::Flush, &self.before).ok();
    }
}

/// One line as it is typed, with what was taken back; none when it was broken off.
fn line(input: &mut impl Read) -> std::io::Result<Option<String>> {
    let mut typed = Vec::new();
    let mut input = std::io::BufReader::with_capacity(1, input);
    loop {
        let Some(byte) = input.fill_buf()?.first().copied() else {
            return Ok(None);
        };
        input.consume(1);
        match byte {
            b'\r' | b'\n' => {
                return String::from_utf8(typed).map(Some).map_err(|_| {
                    std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not UTF-8")
                });
            }
            // Ctrl-C, Ctrl-D, Ctrl-\.
            0x03 | 0x04 | 0x1c => return Ok(None),
            // Backspace takes back a character, which may be several bytes.
            0x08 | 0x7f => while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl-U takes back all.
            0x15 => typed.clear(),
            byte if typed.len() < LONGEST => typed.push(byte),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_typed_and_taken_back() {
        let cases: [(&[u8], Option<&str>); 8] = [
            (b"secret\n", Some("secret")),
            (b"secret\rmore\r", Some("secret")),
            (b"secrex\x7ft\n", Some("secret")),
            ("caf\u{e9}\u{7f}e\n".as_bytes(), Some("cafe")),
            (b"wrong\x15right\n", Some("right")),
            (b"\x7f\x7f\n", Some("")),
            (b"half\x03", None),
            (b"cut off", None),
        ];
        for (bytes, expected) in cases {
            let read = line(&mut &*bytes).expect("bytes can be read");
            assert_eq!(read.as_deref(), expected, "{bytes:?}");
        }
        assert!(line(&mut &b"\xff\n"[..]).is_err());
        let long = [vec![b'x'; 5000], vec![b'\n']].concat();
        let read = line(&mut &long[..]).expect("bytes can be read");
        assert_eq!(read.map(|text| text.len()), Some(LONGEST));
    }
}

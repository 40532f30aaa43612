//! Progress while something is followed: one moving line on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use crate::output::{Output, to_stderr};
use crate::safe::clipped;

/// How often a plain line repeats that things move.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// Shows what is awaited.
pub(crate) struct Progress<'a> {
    output: &'a Output,
    started: Instant,
    last: String,
    last_at: Instant,
    turn: usize,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(output: &'a Output) -> Self {
        let now = Instant::now();
        Self {
            output,
            started: now,
            last: String::new(),
            last_at: now,
            turn: 0,
        }
    }

    /// Says how things are.
    pub(crate) fn set(&mut self, text: &str) {
        if self.output.quiet {
            return;
        }
        if self.output.live {
            const TURNS: [char; 4] = ['|', '/', '-', '\\'];
            self.turn = (self.turn + 1) % TURNS.len();
            let seconds = self.started.elapsed().as_secs();
            // A line that wraps cannot be taken back.
            let width = usize::from(self.output.look.width.unwrap_or(80)).saturating_sub(10);
            let text = clipped(text, width);
            to_stderr(&format!("\r\x1b[K{} {text} {seconds} s", TURNS[self.turn]));
            self.last = text;
        } else if text != self.last || self.last_at.elapsed() >= PLAIN_EVERY {
            to_stderr(&format!("{}\n", clipped(text, 400)));
            text.clone_into(&mut self.last);
            self.last_at = Instant::now();
        }
    }

    fn wipe(&self) {
        if self.output.live && !self.output.quiet && !self.last.is_empty() {
            to_stderr("\r\x1b[K");
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.wipe();
    }
}

//! Progress while something is followed: each step as a line, and on a terminal one line below them
//! that moves.

use std::time::{Duration, Instant};

use crate::output::{Output, to_stderr};
use crate::safe::clipped;
use crate::wait::Awaited;

/// How often a plain line repeats that things move.
const PLAIN_EVERY: Duration = Duration::from_secs(10);
/// How often the moving line does so.
const TURN_EVERY: Duration = Duration::from_millis(200);
const TURNS: [char; 4] = ['|', '/', '-', '\\'];
/// The longest line, in characters.
const LONGEST: usize = 400;

/// Shows what is awaited.
pub(crate) struct Progress<'a> {
    output: &'a Output,
    started: Instant,
    phase: String,
    text: String,
    said_at: Instant,
    turn: usize,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(output: &'a Output) -> Self {
        let now = Instant::now();
        Self {
            output,
            started: now,
            phase: String::new(),
            text: String::new(),
            said_at: now,
            turn: 0,
        }
    }

    /// Says how things are.
    pub(crate) fn set(&mut self, awaited: &Awaited) {
        let text = awaited.to_string();
        if self.output.quiet || text == self.text {
            return;
        }
        self.text = text;
        if !self.output.live {
            self.say();
            return;
        }
        self.wipe();
        if awaited.phase != self.phase {
            self.phase.clone_from(&awaited.phase);
            to_stderr(&format!("{}\n", clipped(&self.phase, LONGEST)));
        }
        self.draw();
    }

    /// Lets time be seen to pass: waits until it is due, and says again what is awaited.
    pub(crate) async fn turn(&mut self) {
        if self.output.quiet {
            std::future::pending::<()>().await;
        }
        let every = if self.output.live {
            TURN_EVERY
        } else {
            PLAIN_EVERY
        };
        tokio::time::sleep(every.saturating_sub(self.said_at.elapsed())).await;
        if self.output.live {
            self.turn = (self.turn + 1) % TURNS.len();
            self.draw();
        } else {
            self.say();
        }
    }

    fn say(&mut self) {
        to_stderr(&format!("{}\n", clipped(&self.text, LONGEST)));
        self.said_at = Instant::now();
    }

    fn draw(&mut self) {
        let seconds = self.started.elapsed().as_secs();
        // A line that wraps cannot be taken back.
        let width = usize::from(self.output.look.width.unwrap_or(80)).saturating_sub(10);
        let text = clipped(&self.text, width);
        to_stderr(&format!("\r\x1b[K{} {text} {seconds} s", TURNS[self.turn]));
        self.said_at = Instant::now();
    }

    fn wipe(&self) {
        if self.output.live && !self.output.quiet && !self.text.is_empty() {
            to_stderr("\r\x1b[K");
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.wipe();
    }
}

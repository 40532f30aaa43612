//! Interactive programs: says a line when it has seen what comes before it, as a person does.

use std::io::Write as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::patience::{Look, eventually};

/// A running program and what it has printed.
pub struct Conversation {
    child: Child,
    stdin: Option<ChildStdin>,
    heard: Arc<Mutex<Vec<u8>>>,
    taken: usize,
}

impl Conversation {
    /// Starts a program.
    pub fn start(program: &str, arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start {program}"))?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut out = child.stdout.take().context("stdout is piped")?;
        let mut err = child.stderr.take().context("stderr is piped")?;
        let (one, other) = (Arc::clone(&heard), Arc::clone(&heard));
        std::thread::spawn(move || listen(&mut out, &one));
        std::thread::spawn(move || listen(&mut err, &other));
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            heard,
            taken: 0,
        })
    }

    /// What it has printed so far.
    pub fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap_or_else(PoisonError::into_inner))
            .into_owned()
    }

    /// Waits until it has printed something after what was waited for last.
    pub fn expect(&mut self, text: &str) -> Result<()> {
        let taken = self.taken;
        let end = eventually(
            &format!("{text:?} from the program"),
            Duration::from_secs(20),
            || {
                let heard = self.heard();
                let rest = heard.get(taken..).unwrap_or_default();
                Ok(match rest.find(text) {
                    Some(at) => Look::Seen(taken + at + text.len()),
                    None => Look::NotYet(format!("{rest:?}")),
                })
            },
        )?;
        self.taken = end;
        Ok(())
    }

    /// Types a line.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is closed")?;
        stdin.write_all(format!("{line}\n").as_bytes())?;
        stdin.flush()?;
        Ok(())
    }

    /// Closes standard input and waits for the end.
    pub fn end(mut self) -> Result<String> {
        self.stdin = None;
        eventually("the end of the program", Duration::from_secs(20), || {
            Ok(match self.child.try_wait()? {
                Some(_) => Look::Seen(()),
                None => Look::NotYet(self.heard()),
            })
        })?;
        Ok(self.heard())
    }
}

fn listen(from: &mut impl std::io::Read, heard: &Mutex<Vec<u8>>) {
    let mut buffer = [0_u8; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(&buffer[..count]);
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

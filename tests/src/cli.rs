//! The operator's command, run as an operator runs it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;

use crate::process::binary;

/// What a command has done.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was run, for messages.
    pub command: String,
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Fails unless the command has succeeded.
    pub fn ok(self) -> Result<Self> {
        if self.code == Some(0) {
            return Ok(self);
        }
        bail!(
            "`{}` gave {:?}\nstdout: {}\nstderr: {}",
            self.command,
            self.code,
            self.stdout.trim(),
            self.stderr.trim()
        )
    }

    /// Fails unless the command has failed, with this exit code; gives what it said.
    pub fn refused(self, code: i32) -> Result<String> {
        if self.code != Some(code) {
            bail!(
                "`{}` gave {:?}, not {code}\nstdout: {}\nstderr: {}",
                self.command,
                self.code,
                self.stdout.trim(),
                self.stderr.trim()
            );
        }
        Ok(self.stderr)
    }

    /// Its output as JSON.
    pub fn json<T: DeserializeOwned>(self) -> Result<T> {
        let outcome = self.ok()?;
        serde_json::from_str(&outcome.stdout).with_context(|| {
            format!(
                "`{}` printed no such JSON: {}",
                outcome.command, outcome.stdout
            )
        })
    }
}

/// Runs any program with what it is given on standard input.
pub fn run(
    program: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
    input: &str,
) -> Result<Outcome> {
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not run {}", program.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program may end without reading.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output()?;
    let name = program
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    Ok(Outcome {
        command: format!("{} {}", name.unwrap_or_default(), arguments.join(" ")),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a program of the system, found by its name.
pub fn system(program: &str, arguments: &[&str], input: &str) -> Result<Outcome> {
    run(Path::new(program), arguments, &[], input)
}

/// Runs `decnet` against the master of a data directory.
pub fn decnet(data_dir: &Path, arguments: &[&str]) -> Result<Outcome> {
    let directory = data_dir.to_string_lossy();
    run(
        &binary("decnet")?,
        arguments,
        &[("DECNET_DATA_DIR", &directory), ("NO_COLOR", "1")],
        "",
    )
}

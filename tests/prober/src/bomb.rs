//! Attempts to take from the host what is not one's own: processes, memory, disk.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

use crate::Outcome;

/// There is no other program in the image.
const SELF: &str = "/proc/self/exe";
/// More than a host should give to one decky, and no more than it survives should it do so.
const PROCESSES: usize = 600;
const MEMORY: usize = 512 * 1024 * 1024;
const DISK: u64 = 512 * 1024 * 1024;
const PIECE: usize = 1024 * 1024;

fn child(arguments: &[&str]) -> io::Result<Child> {
    Command::new(SELF)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

/// Starts processes until it may not; tells how many there were.
pub(crate) fn forks() -> Outcome {
    let mut children = Vec::new();
    let mut refusal = None;
    while children.len() < PROCESSES && refusal.is_none() {
        match child(&["sleep"]) {
            Ok(child) => children.push(child),
            Err(error) => refusal = Some(error),
        }
    }
    for child in &mut children {
        // One that is gone need not be ended.
        child.kill().ok();
        child.wait().ok();
    }
    match refusal {
        Some(error) => Err(io::Error::other(format!(
            "{} processes, then {error}",
            children.len()
        ))),
        None => Ok(format!("{} processes", children.len())),
    }
}

/// Has a child take memory; tells how that ended.
pub(crate) fn memory() -> Outcome {
    let output = child(&["eat"])?.wait_with_output()?;
    match output.status.signal() {
        Some(signal) => Err(io::Error::other(format!("ended by signal {signal}"))),
        None => Ok(format!(
            "{} bytes",
            String::from_utf8_lossy(&output.stdout).trim()
        )),
    }
}

pub(crate) fn eat() -> io::Result<()> {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    while eaten.len() * PIECE < MEMORY {
        // Written to, or the kernel would only promise it.
        eaten.push(vec![1; PIECE]);
    }
    writeln!(io::stdout(), "{}", eaten.len() * PIECE)
}

/// Has a child fill a directory; tells how far it came.
pub(crate) fn disk(directory: &str) -> Outcome {
    let output = child(&["fill", directory])?.wait_with_output()?;
    fs::remove_file(format!("{directory}/filled")).ok();
    let told = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.signal() {
        Some(signal) => Err(io::Error::other(format!(
            "ended by signal {signal} after {told}"
        ))),
        None if output.status.success() => Ok(told),
        None => Err(io::Error::other(told)),
    }
}

pub(crate) fn fill(directory: &str) -> io::Result<()> {
    let mut written = 0_u64;
    let filled = File::create(format!("{directory}/filled")).and_then(|mut file| {
        let piece = vec![1; PIECE];
        while written < DISK {
            file.write_all(&piece)?;
            file.flush()?;
            written += 1024 * 1024;
        }
        file.sync_all()
    });
    match filled {
        Ok(()) => writeln!(io::stdout(), "{written} bytes"),
        Err(error) => {
            writeln!(io::stdout(), "{written} bytes, then {error}")?;
            Err(error)
        }
    }
}

/// Writes to standard output, which the engine keeps on the host's disk.
pub(crate) fn log(mebibytes: &str) -> Outcome {
    let count: usize = mebibytes.parse().map_err(io::Error::other)?;
    let mut line = vec![b'x'; 16 * 1024 - 1];
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    for _ in 0..count * 64 {
        stdout.write_all(&line)?;
    }
    stdout.flush()?;
    Ok(format!("{count} MiB"))
}

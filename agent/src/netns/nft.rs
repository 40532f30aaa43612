//! The program nft of the package nftables, run inside of a namespace.
//!
//! Here and where the native engine starts its runtime are the only places of the agent that start
//! programs. The rules of a decky are a text that people can read and
//! load by hand; writing the kernel's own form of them would be a second compiler of that language.

use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};
use std::thread;

use super::WireError;
use super::rules::TABLE;

/// Where Debian and others put it, then wherever the agent's own path says.
const PLACES: [&str; 4] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "nft"];
/// How much of a refusal is kept.
const MAX_ANSWER: usize = 600;

/// Makes our table the one in `text`, in one step. `stands` says whether there is one already: the
/// kernel waits for all its processors before it lets go of a table, so none is deleted for nothing.
pub(super) fn load(text: &str, stands: bool) -> Result<(), WireError> {
    // Either is refused, and nothing changed, when it is not so.
    let verb = if stands { "delete" } else { "create" };
    run(&["-f", "-"], &format!("{verb} table inet {TABLE}\n{text}"))
}

fn run(arguments: &[&str], input: &str) -> Result<(), WireError> {
    for place in PLACES {
        match output(place, arguments, input) {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let mut answer = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                answer.truncate(answer.floor_char_boundary(MAX_ANSWER));
                return Err(WireError::Nft { answer });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(WireError::NftRun(error)),
        }
    }
    Err(WireError::NftMissing)
}

fn output(program: &str, arguments: &[&str], input: &str) -> io::Result<Output> {
    #[allow(
        clippy::disallowed_methods,
        reason = "rules are loaded by a program: see the head of this file"
    )]
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdin = child.stdin.take();
    // Written beside the reading: a pipe holds less than the rules of a large topology.
    thread::scope(|scope| {
        scope.spawn(move || {
            // One that does not read to the end says why on its standard error.
            stdin.map(|mut stdin| stdin.write_all(input.as_bytes()))
        });
        child.wait_with_output()
    })
}

//! Waiting for what is awaited, never for a length of time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(40);

/// What a look has shown.
pub enum Look<T> {
    /// What was awaited.
    Seen(T),
    /// Something else, in words.
    NotYet(String),
}

/// Looks until it sees what is awaited. An error of the probe counts as not yet: things start and
/// stop in these tests. At the end the last look is told.
pub fn eventually<T>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> Result<Look<T>>,
) -> Result<T> {
    let end = Instant::now() + within;
    loop {
        let last = match probe() {
            Ok(Look::Seen(value)) => return Ok(value),
            Ok(Look::NotYet(last)) => last,
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= end {
            bail!("{what}: not within {within:?}; the last look showed {last}");
        }
        std::thread::sleep(PAUSE);
    }
}

/// [`eventually`] of a condition.
pub fn until(what: &str, within: Duration, mut probe: impl FnMut() -> Result<bool>) -> Result<()> {
    eventually(what, within, || {
        Ok(if probe()? {
            Look::Seen(())
        } else {
            Look::NotYet("that it does not hold".to_owned())
        })
    })
}

/// Looks for a while and wants to see the same thing throughout: for what must *not* happen.
pub fn throughout(
    what: &str,
    span: Duration,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if !holds()? {
            bail!("{what}: it did not stay so for {span:?}");
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

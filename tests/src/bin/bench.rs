//! `make bench`: reads what is wished and prints what was measured. The measurements are in
//! `tests::bench`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

const USAGE: &str = "usage: bench [--only 1,5] [--out FILE]";

struct Wish {
    only: Vec<u32>,
    out: PathBuf,
}

fn wish(mut arguments: impl Iterator<Item = String>) -> Result<Wish> {
    let mut wish = Wish {
        only: Vec::new(),
        out: PathBuf::from("target/bench/latest.json"),
    };
    while let Some(argument) = arguments.next() {
        let value = arguments
            .next()
            .with_context(|| format!("{argument} needs a value; {USAGE}"))?;
        match argument.as_str() {
            "--only" => {
                for number in value.split([',', ' ']).filter(|number| !number.is_empty()) {
                    let number = number
                        .parse()
                        .with_context(|| format!("{number:?} is no figure"))?;
                    wish.only.push(number);
                }
            }
            "--out" => wish.out = value.into(),
            _ => bail!("unknown argument {argument}; {USAGE}"),
        }
    }
    Ok(wish)
}

#[allow(clippy::print_stdout, reason = "a measurement is printed")]
fn say(line: &str) {
    println!("{line}");
}

/// Measures in a thread of its own, until it is done or somebody interrupts it.
fn measure(wish: Wish) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (tell, told) = oneshot::channel();
    let work = move || {
        tell.send(tests::bench::run(&wish.only, &wish.out, say))
            .ok()
    };
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let _worker = std::thread::spawn(work);
        tokio::select! {
            done = told => done.context("the measurement panicked")?,
            _ = interrupt.recv() => interrupted(),
            _ = terminate.recv() => interrupted(),
        }
    })
}

fn interrupted() -> Result<()> {
    tests::bench::clear();
    bail!("interrupted; everything that was made is removed")
}

#[allow(
    clippy::print_stderr,
    reason = "a measurement that was not made says why"
)]
fn main() -> ExitCode {
    match wish(std::env::args().skip(1)).and_then(measure) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

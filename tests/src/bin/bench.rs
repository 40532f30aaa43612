//! `make bench`: reads what is wished and prints what was measured. The measurements are in
//! `tests::bench`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

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

#[allow(
    clippy::print_stderr,
    reason = "a measurement that was not made says why"
)]
fn main() -> ExitCode {
    let done = wish(std::env::args().skip(1))
        .and_then(|wish| tests::bench::run(&wish.only, &wish.out, say));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! `make bench`: measures and prints; what is measured is in `tests::bench`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement is printed"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tests::bench::{FIGURES, Row, json, table};

struct Wish {
    only: Vec<u32>,
    out: Option<PathBuf>,
}

fn wish() -> Result<Wish> {
    let mut wish = Wish {
        only: Vec::new(),
        out: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments
            .next()
            .with_context(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            "--only" => {
                for number in value.split(',') {
                    wish.only.push(
                        number
                            .trim()
                            .parse()
                            .with_context(|| format!("{number:?} is no figure"))?,
                    );
                }
            }
            "--out" => wish.out = Some(value.into()),
            _ => anyhow::bail!("unknown argument {argument}: --only 1,5 --out FILE"),
        }
    }
    Ok(wish)
}

fn main() -> ExitCode {
    let wish = match wish() {
        Ok(wish) => wish,
        Err(error) => {
            eprintln!("bench: {error:#}");
            return ExitCode::from(2);
        }
    };
    let mut rows: Vec<Row> = Vec::new();
    let mut failed = false;
    for (numbers, what, measure) in FIGURES {
        if !wish.only.is_empty() && !numbers.iter().any(|number| wish.only.contains(number)) {
            continue;
        }
        eprintln!("==> {numbers:?} {what}");
        match measure() {
            Ok(more) => {
                eprint!("{}", table(&more));
                rows.extend(more);
            }
            Err(error) => {
                failed = true;
                eprintln!("bench: {what}: {error:#}");
            }
        }
    }
    print!("{}", table(&rows));
    if let Some(out) = wish.out {
        let written = out
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&out, json(&rows)));
        if let Err(error) = written {
            eprintln!("bench: could not write {}: {error}", out.display());
            failed = true;
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

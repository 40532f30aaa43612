//! `make bench`: every figure with its baseline measured in the same run, one table, one JSON file.
//!
//! A measurement owns all that it makes and takes it away, also when it fails. No figure is a test:
//! only a measurement that could not be made is a failure.

mod bare;
mod evidence;
mod fleet;
mod flock;
mod joining;
mod lines;
mod litter;
mod live;
mod maze;
mod memory;
mod mend;
mod probe;
mod raw;
mod report;
mod scale;
mod screen;
mod streams;

use std::path::Path;

use anyhow::{Result, bail};

use self::litter::Litter;
pub use self::litter::clear;
pub use self::report::{Entry, Report};
use crate::world::World;

/// A figure: its number, and what measures it.
type Figure = (u32, &'static str, fn(&mut Report) -> Result<()>);

/// Every figure, in the order in which they are measured. The next one goes where its number says.
#[rustfmt::skip]
const FIGURES: &[Figure] = &[
    (1, "deploy and teardown of 20 LANs and 100 deckies", maze::measure),
    (2, "the same without a daemon", bare::measure),
    (3, "other services of a live decky", live::services),
    (4, "a live decky joins and leaves a LAN", live::lans),
    (5, "one more decky on a live topology", mend::one_more),
    (6, "a removed decky comes back", mend::drift),
    (7, "join", joining::join),
    (8, "revocation", joining::revoke),
    (9, "heartbeats", fleet::heartbeats),
    (10, "1,000 agents", fleet::thousand),
    (12, "events", evidence::measure),
    (15, "200 LANs and 996 deckies", scale::large),
    (16, "the API under readers", scale::asked),
    (17, "idle memory of the daemons", memory::daemons),
    (18, "a decky with five services", memory::decky),
    (19, "decnet --help", screen::help),
    (20, "start to the first attacker on screen", screen::first_event),
];

/// Measures the figures with these numbers, or all of them, and writes what there is after each.
pub fn run(only: &[u32], out: &Path, say: fn(&str)) -> Result<()> {
    if let Some(unknown) = only
        .iter()
        .find(|number| !FIGURES.iter().any(|(id, ..)| id == *number))
    {
        let known: Vec<String> = FIGURES.iter().map(|(id, ..)| id.to_string()).collect();
        bail!(
            "there is no figure {unknown}; there are {}",
            known.join(", ")
        );
    }
    pki::install_crypto_provider();
    let mut report = Report::default();
    let mut failed = Vec::new();
    for (id, what, measure) in FIGURES {
        if !only.is_empty() && !only.contains(id) {
            continue;
        }
        say(&format!("figure {id}: {what}"));
        report.begin(*id);
        if let Err(error) = measure(&mut report) {
            say(&format!("figure {id} could not be measured: {error:#}"));
            failed.push(id.to_string());
        }
        report.write(out)?;
    }
    say(&report.table());
    say(&format!("written to {}", out.display()));
    if !failed.is_empty() {
        bail!("could not be measured: {}", failed.join(", "));
    }
    Ok(())
}

/// A world as an operator would have it: no flag of the master but where it listens.
fn plain_world() -> Result<World> {
    let mut world = World::empty()?;
    world.set_master_flags(&[]);
    litter::note(Litter::Slot(world.slot.number()));
    litter::note(Litter::Directory(world.root().to_owned()));
    Ok(world)
}

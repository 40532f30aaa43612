//! The bus: what a program of the master's machine hears and asks for, through the command line.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::patience::{Look, eventually};
use tests::process::binary;
use tests::shapes;
use tests::world::{SOON, World};

const HOST: &str = "edge-1";

/// A program that prints what it hears on the bus, until this is dropped.
struct Listener {
    child: Child,
    heard: PathBuf,
}

impl Listener {
    fn start(world: &World, patterns: &[&str]) -> Result<Self> {
        let heard = world.root().join("heard.ndjson");
        let child = Command::new(binary("decnet")?)
            .args(["bus", "sub", "ext.ready"])
            .args(patterns)
            .args(["--output", "ndjson", "--data-dir"])
            .arg(world.master_dir())
            .stdin(Stdio::null())
            .stdout(fs::File::create(&heard)?)
            .spawn()?;
        let this = Self { child, heard };
        eventually("somebody listens", SOON, || {
            world.decnet(&["bus", "pub", "ext.ready"])?.ok()?;
            Ok(match this.heard("ext.ready")?.first() {
                Some(_) => Look::Seen(()),
                None => Look::NotYet("nothing was heard".to_owned()),
            })
        })?;
        Ok(this)
    }

    /// What was heard so far on a subject.
    fn heard(&self, subject: &str) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.heard)?;
        // The last line may still be in the making.
        let whole = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        let mut messages = Vec::new();
        for line in whole {
            let message: Value = serde_json::from_str(line)?;
            if message["topic"] == subject {
                messages.push(message["payload"].clone());
            }
        }
        Ok(messages)
    }

    fn await_one(&self, subject: &str) -> Result<Value> {
        eventually(subject, SOON, || {
            Ok(match self.heard(subject)?.into_iter().next() {
                Some(payload) => Look::Seen(payload),
                None => Look::NotYet("nothing was heard".to_owned()),
            })
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // One that has ended is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_program_of_the_master_s_machine_hears_what_happens_and_asks_for_a_mutation() -> Result<()> {
    let mut world = World::with_host(HOST)?;
    let file = shapes::small(&world.slot, "maze");
    let state = world.deploy(&file, HOST)?;
    let id = &state.topology.id;
    let decky = file.deckies[0].name.clone();
    let listener = Listener::start(&world, &["decky.>", "topology.*.mutation.*"])?;

    let request = format!("decky.{decky}.mutate_request");
    world.decnet(&["bus", "pub", &request])?.ok()?;
    let told = listener.await_one(&format!("decky.{decky}.mutation"))?;
    ensure!(
        told["decky"] == *decky && told["trigger"] == "operator",
        "{told}"
    );
    ensure!(told["topology_id"] == *id, "{told}");
    ensure!(told["old_services"] != told["new_services"], "{told}");
    let actor = told["actor"].as_str().unwrap_or_default();
    ensure!(actor.starts_with("operator:uid:"), "{told}");
    for state in ["enqueued", "applying", "applied"] {
        listener.await_one(&format!("topology.{id}.mutation.{state}"))?;
    }

    let request = "decky.nobody.mutate_request";
    world.decnet(&["bus", "pub", request])?.ok()?;
    let refused = listener.await_one("decky.nobody.mutate_refused")?;
    ensure!(
        refused["reason"] == "no live topology has a decky nobody",
        "{refused}"
    );
    let refused = world
        .decnet(&["bus", "pub", "host.x.state", "{}"])?
        .refused(1)?;
    ensure!(refused.contains("does not take host.x.state"), "{refused}");
    world.decnet(&["bus", "pub", "ext.x", "[]"])?.refused(2)?;

    // One that was killed has left its socket; the next master takes its place.
    world.kill_master()?;
    world.decnet(&["bus", "sub", "-n", "1"])?.refused(1)?;
    world.start_master(&[])?;
    drop(listener);
    drop(Listener::start(&world, &[])?);
    world.teardown("maze")?;
    world.done()
}

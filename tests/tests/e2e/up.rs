//! `decnet up`: one machine, one command, and Ctrl-C takes all of it away.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proto::rest::{HostShape, TopologyState};
use rustix::process::Signal;
use tests::cli::decnet;
use tests::docker;
use tests::patience::{Look, eventually};
use tests::process::Daemon;
use tests::shapes;
use tests::world::{LONG, World};

fn start(data: &Path, file: &Path, log: &Path) -> Result<Daemon> {
    let arguments = [
        "up",
        "--data-dir",
        &data.to_string_lossy(),
        "--topology",
        &file.to_string_lossy(),
    ];
    let arguments: Vec<String> = arguments
        .iter()
        .map(|argument| (*argument).to_owned())
        .collect();
    let free = |name: &str| (name.to_owned(), "127.0.0.1:0".to_owned());
    Daemon::start(
        "decnet",
        &arguments,
        &[free("DECNET_API_LISTEN"), free("DECNET_FLEET_LISTEN")],
        log,
    )
}

/// Waits until the topology is active and gives the id of the local host.
fn active(data: &Path, up: &mut Daemon) -> Result<String> {
    eventually("the topology active", LONG, || {
        ensure!(up.is_running(), "`decnet up` has ended: {}", up.log());
        let state: TopologyState =
            decnet(data, &["topology", "inspect", "lone", "--output", "json"])?.json()?;
        Ok(if state.topology.status == "active" {
            Look::Seen(())
        } else {
            Look::NotYet(state.topology.status)
        })
    })
    .with_context(|| up.log())?;
    let hosts: Vec<HostShape> = decnet(data, &["host", "ls", "--output", "json"])?.json()?;
    let local = hosts
        .into_iter()
        .find(|host| host.name == "local")
        .context("the host named local")?;
    Ok(local.id)
}

fn emptied(id: &str) -> Result<()> {
    eventually("an empty Docker", LONG, || {
        let left = docker::object_ids(id)?;
        Ok(if left.is_empty() {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{left:?}"))
        })
    })
}

#[test]
fn up_runs_a_topology_until_it_is_interrupted() -> Result<()> {
    let mut world = World::empty()?;
    let file = world.write_file(&shapes::single(&world.slot, "lone"))?;
    let data = world.root().join("up");
    for round in 1..=2 {
        let mut up = start(&data, &file, &world.root().join("up.log"))?;
        let id = active(&data, &mut up)?;
        world.slot.note(&id)?;
        ensure!(
            docker::containers(&id)?.len() == 1,
            "round {round}: not one decky"
        );
        let mode = std::fs::metadata(data.join("admin.token"))?
            .permissions()
            .mode();
        ensure!(mode & 0o777 == 0o600, "admin.token has mode {mode:o}");
        ensure!(
            data.join("agent").is_dir(),
            "the agent does not live in D/agent"
        );
        ensure!(
            data.join("endpoints.json").is_file(),
            "there is no endpoints.json"
        );
        up.signal(Signal::INT)?;
        let status = up.wait(LONG)?;
        ensure!(
            status.success(),
            "round {round}: `decnet up` ended with {status}: {}",
            up.log()
        );
        emptied(&id)?;
    }
    world.done()
}

#[test]
fn down_takes_away_what_a_killed_up_left() -> Result<()> {
    let mut world = World::empty()?;
    let file = world.write_file(&shapes::single(&world.slot, "lone"))?;
    let data = world.root().join("up");
    let mut up = start(&data, &file, &world.root().join("up.log"))?;
    let id = active(&data, &mut up)?;
    world.slot.note(&id)?;
    up.kill()?;
    let text = data.to_string_lossy().into_owned();
    eventually("down", Duration::from_secs(60), || {
        let outcome = decnet(&data, &["down", "--data-dir", &text])?;
        Ok(if outcome.code == Some(0) {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{outcome:?}"))
        })
    })?;
    emptied(&id)?;
    // And again, with nothing to do.
    decnet(&data, &["down", "--data-dir", &text])?.ok()?;
    world.done()
}

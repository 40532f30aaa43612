//! The main job with the master's store on a PostgreSQL server.

use anyhow::{Context as _, Result, ensure};
use tests::docker;
use tests::load::Flood;
use tests::patience::{Look, eventually};
use tests::shapes;
use tests::world::{LONG, SOON, World};

use crate::evidence::every_number_once;

const HOST: &str = "edge-1";

#[test]
fn on_postgresql_a_killed_master_repairs_and_loses_no_evidence() -> Result<()> {
    let mut world = World::on_postgres()?;
    world.start_master(&[])?;
    world.add_host(HOST)?;
    world.deploy(&shapes::small(&world.slot, "maze"), HOST)?;
    world.assert_holds(HOST, 3, 2)?;
    let web = world.slot.address(0, 20);

    // Killed in the middle of evidence, and things go wrong while it is away.
    let flood = Flood::start(&web, "n", 4, 6_000, 600)?;
    eventually("the middle of the evidence", LONG, || {
        let answered = flood.answered();
        Ok(if answered >= 2_000 {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{answered} of 2000"))
        })
    })?;
    world.kill_master()?;
    let cache = world.slot.address(1, 30);
    let broken = world.container(HOST, &cache)?.id;
    docker::docker(&["rm", "-f", &broken])?;
    world.start_master(&[])?;

    world.await_host(HOST, "ready", SOON)?;
    world.await_converged("maze", LONG)?;
    world.assert_holds(HOST, 3, 2)?;
    ensure!(
        world.container(HOST, &cache)?.id != broken,
        "the decky was not made anew"
    );
    every_number_once(&world, "n", &flood.finish()?)?;
    let path = world.status_path("maze")?;
    ensure!(
        path.starts_with(&[
            "pending>deploying".to_owned(),
            "deploying>active".to_owned()
        ]),
        "{path:?}"
    );

    // Damage under a living master is told by its status, as on SQLite.
    let before = path.len();
    docker::docker(&["stop", "-t", "1", &world.container(HOST, &cache)?.id])?;
    eventually("degraded and active again", LONG, || {
        let path = world.status_path("maze")?;
        Ok(
            if path[before..] == ["active>degraded", "degraded>active"] {
                Look::Seen(())
            } else {
                Look::NotYet(format!("{path:?}"))
            },
        )
    })?;
    world.teardown("maze")?;
    world.assert_empty(HOST)?;

    ensure!(
        !world.master_dir().join("master.db").exists(),
        "there is a SQLite file"
    );
    let password = world.database_password()?.to_owned();
    let arguments = std::fs::read(format!("/proc/{}/cmdline", world.master()?.id()))?;
    for (place, text) in [
        ("the log", world.master_log()),
        (
            "the arguments",
            String::from_utf8(arguments).context("arguments are text")?,
        ),
    ] {
        ensure!(!text.contains(&password), "{place} holds the password");
    }
    world.done()
}

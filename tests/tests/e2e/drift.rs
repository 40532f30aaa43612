//! Drift: whatever happens to a topology in its engine is found, repaired where it is ours, and then
//! left in peace.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::cli;
use tests::docker as daemon;
use tests::engine::Engine;
use tests::patience::{Look, eventually, throughout, until};
use tests::shapes;
use tests::world::{LONG, SOON, World};

tests::on_each_engine! {
    a_removed_container_is_made_anew_and_the_others_keep_their_ids,
    a_stopped_container_runs_again,
    a_removed_network_is_made_anew,
    a_disconnected_container_is_connected_again_and_not_restarted,
    what_is_altered_in_a_namespace_is_mended_and_nothing_is_restarted,
    a_published_port_that_vanished_is_published_again,
}

/// Ids by address, of the containers that run.
fn ids(world: &World) -> Result<BTreeMap<String, String>> {
    Ok(world
        .containers("edge-1")?
        .into_iter()
        .filter(|container| container.running)
        .flat_map(|container| {
            let id = container.id.clone();
            container
                .addresses
                .into_values()
                .map(move |address| (address, id.clone()))
        })
        .collect())
}

/// Less than the period of the inventory: it is the engine's own events that must have told.
const NOTICED: Duration = Duration::from_secs(40);

/// Waits until the damage was seen, repaired, and the status says both.
fn repaired(world: &World, deckies: usize, lans: usize) -> Result<()> {
    eventually("degraded and active again", NOTICED, || {
        let path = world.status_path("maze")?;
        let tail: Vec<&str> = path
            .iter()
            .rev()
            .take(2)
            .rev()
            .map(String::as_str)
            .collect();
        Ok(if tail == ["active>degraded", "degraded>active"] {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{path:?}"))
        })
    })?;
    world.await_converged("maze", SOON)?;
    world.assert_holds("edge-1", deckies, lans)
}

/// Several heartbeats and an idle while: nothing may be sent to the host any more.
fn nothing_is_pushed_again(world: &World) -> Result<()> {
    let pushed = world.api()?.metric("decnet_assignments_pushed_total")?;
    let changes = world.status_path("maze")?.len();
    let objects = world.object_ids("edge-1")?;
    let beats = world.api()?.metric("decnet_heartbeats_total")?;
    eventually("eight heartbeats", SOON, || {
        let now = world.api()?.metric("decnet_heartbeats_total")?;
        Ok(if now >= beats + 8.0 {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{}", now - beats))
        })
    })?;
    ensure!(
        world.api()?.metric("decnet_assignments_pushed_total")? == pushed,
        "an assignment was pushed again"
    );
    ensure!(
        world.status_path("maze")?.len() == changes,
        "the status moved again"
    );
    ensure!(
        world.object_ids("edge-1")? == objects,
        "objects changed again"
    );
    Ok(())
}

fn world(engine: Engine) -> Result<World> {
    let world = World::with_host_on(engine, "edge-1")?;
    world.deploy(&shapes::small(&world.slot, "maze"), "edge-1")?;
    Ok(world)
}

fn a_removed_container_is_made_anew_and_the_others_keep_their_ids(engine: Engine) -> Result<()> {
    let world = world(engine)?;
    let before = ids(&world)?;
    let web = world.slot.address(0, 20);
    world.remove_container("edge-1", &world.container("edge-1", &web)?)?;
    repaired(&world, 3, 2)?;
    let after = ids(&world)?;
    for (address, id) in &before {
        ensure!(
            (after.get(address) == Some(id)) == (*address != web),
            "{address}: {id} became {:?}",
            after.get(address)
        );
    }
    nothing_is_pushed_again(&world)?;
    world.done()
}

fn a_stopped_container_runs_again(engine: Engine) -> Result<()> {
    let world = world(engine)?;
    let before = ids(&world)?;
    let cache = world.slot.address(1, 30);
    world.kill_container("edge-1", &world.container("edge-1", &cache)?)?;
    repaired(&world, 3, 2)?;
    let after = ids(&world)?;
    for (address, id) in &before {
        ensure!(
            *address == cache || after.get(address) == Some(id),
            "{address} was touched"
        );
    }
    nothing_is_pushed_again(&world)?;
    world.done()
}

fn a_removed_network_is_made_anew(engine: Engine) -> Result<()> {
    let world = world(engine)?;
    let before = ids(&world)?;
    let inner = world.network("edge-1", &world.slot.subnet(1))?;
    for container in world.containers("edge-1")? {
        if container.addresses.contains_key(&inner.id) {
            world.cut("edge-1", &container, &inner)?;
        }
    }
    // The repair may have been quicker than we are.
    drop(world.remove_network("edge-1", &inner));
    // Each piece of the damage may be seen and repaired by itself: the last one counts.
    until("both deckies on the network again", NOTICED, || {
        let now = ids(&world)?;
        Ok([10, 30].map(|host| now.contains_key(&world.slot.address(1, host))) == [true; 2])
    })?;
    repaired(&world, 3, 2)?;
    let after = ids(&world)?;
    let web = world.slot.address(0, 20);
    ensure!(
        after[&web] == before[&web],
        "a decky on another LAN was touched"
    );
    for address in [world.slot.address(1, 10), world.slot.address(1, 30)] {
        ensure!(after.contains_key(&address), "{address} is not back");
    }
    nothing_is_pushed_again(&world)?;
    world.done()
}

fn a_disconnected_container_is_connected_again_and_not_restarted(engine: Engine) -> Result<()> {
    let world = world(engine)?;
    let gate = world.container("edge-1", &world.slot.address(1, 10))?;
    let inner = world.network("edge-1", &world.slot.subnet(1))?;
    world.cut("edge-1", &gate, &inner)?;
    repaired(&world, 3, 2)?;
    let again = world.container("edge-1", &world.slot.address(1, 10))?;
    ensure!(
        again.id == gate.id && again.started_at == gate.started_at,
        "the gateway was restarted"
    );
    nothing_is_pushed_again(&world)?;
    world.done()
}

/// The kernel tells nobody of what is done inside of a namespace: the inventory of every minute
/// finds it.
const LOOKED_AT: Duration = Duration::from_secs(100);

/// Does something in a decky's network namespace, as a person with root would.
fn tamper(container: &daemon::Container, command: &str) -> Result<String> {
    let pid = container.pid.to_string();
    let mut arguments = vec!["--net", "--target", &pid];
    arguments.extend(command.split_whitespace());
    Ok(cli::system("nsenter", &arguments, "")?.ok()?.stdout)
}

fn what_is_altered_in_a_namespace_is_mended_and_nothing_is_restarted(engine: Engine) -> Result<()> {
    let world = world(engine)?;
    let before = world.containers("edge-1")?;
    let at = |lan, last| world.container("edge-1", &world.slot.address(lan, last));
    let (gate, web, cache) = (at(0, 10)?, at(0, 20)?, at(1, 30)?);
    let inner = world.slot.address(1, 10);
    let link = tamper(&gate, "ip -o -4 addr show")?;
    let link = link
        .lines()
        .find(|line| line.contains(&inner))
        .and_then(|line| line.split_whitespace().nth(1))
        .context("the gateway is on the inner LAN")?
        .to_owned();
    let looks = |container: &daemon::Container| -> Result<String> {
        let mut all = String::new();
        for command in [
            "ip -o link show",
            "ip -o -4 addr show",
            "ip route show",
            "nft --stateless list table inet decnet",
            "sysctl net.ipv4.ip_default_ttl net.ipv4.ip_forward net.ipv4.ip_unprivileged_port_start",
        ] {
            // A table that is gone is a difference too.
            all.push_str(&tamper(container, command).unwrap_or_default());
        }
        // Who made a route is no matter of where it leads.
        Ok(all.replace(" proto static", ""))
    };
    let right = [looks(&gate)?, looks(&web)?, looks(&cache)?];

    // One kind after the other would take a minute each: all at once, on three machines.
    tamper(&web, "nft flush table inet decnet")?;
    tamper(&web, "ip route del default")?;
    tamper(&gate, &format!("ip addr del {inner}/24 dev {link}"))?;
    tamper(&gate, "sysctl -q -w net.ipv4.ip_forward=0")?;
    tamper(&cache, "ip link set eth0 address 02:00:00:00:00:09")?;
    tamper(&cache, "nft insert rule inet decnet output accept")?;
    eventually("everything as it was", LOOKED_AT, || {
        let now = [looks(&gate)?, looks(&web)?, looks(&cache)?];
        Ok(if now == right {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{now:?} instead of {right:?}"))
        })
    })?;
    repaired(&world, 3, 2)?;
    for container in before {
        let again = world
            .containers("edge-1")?
            .into_iter()
            .find(|other| other.id == container.id);
        ensure!(
            again.is_some_and(|again| again.started_at == container.started_at),
            "{} was restarted",
            container.name
        );
    }
    nothing_is_pushed_again(&world)?;
    world.done()
}

fn a_published_port_that_vanished_is_published_again(engine: Engine) -> Result<()> {
    let world = World::with_host_on(engine, "edge-1")?;
    let port = world.slot.port(1);
    let mut file = shapes::small(&world.slot, "maze");
    for decky in &mut file.deckies {
        if decky.name == "web" {
            *decky = shapes::publishing(decky.clone(), port, 80);
        }
    }
    world.deploy(&file, "edge-1")?;
    let before = ids(&world)?;
    let answers = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    until("the port is published", SOON, || Ok(answers()))?;

    let changes = world.status_path("maze")?.len();
    engine.unpublish(world.seat("edge-1")?, port)?;
    // A process that is killed keeps its socket for a moment; a host that has just been looking has
    // mended it before we look.
    until("nobody holds it", SOON, || {
        Ok(!answers() || world.status_path("maze")?.len() > changes)
    })?;
    until("the port answers again", LOOKED_AT, || Ok(answers()))?;
    repaired(&world, 3, 2)?;
    let after = ids(&world)?;
    // What Docker holds by a process of its own comes back with the container alone.
    let anew = (engine == Engine::Docker).then(|| world.slot.address(0, 20));
    for (address, id) in &before {
        ensure!(
            anew.as_ref() == Some(address) || after.get(address) == Some(id),
            "{address} was touched"
        );
    }
    nothing_is_pushed_again(&world)?;
    world.done()
}

#[test]
fn a_foreign_container_under_our_name_is_reported_and_left_alone() -> Result<()> {
    let mut world = world(Engine::Docker)?;
    let before = ids(&world)?;
    let web = world.container("edge-1", &world.slot.address(0, 20))?;
    let image = web.inspect["Config"]["Image"]
        .as_str()
        .context("an image")?
        .to_owned();
    world.stop_agent("edge-1")?;
    daemon::docker(&["rm", "-f", &web.id])?;
    let foreign = daemon::docker(&["create", "--name", &web.name, &image, "nothing"])?;
    let guard = Foreign(foreign.clone());
    world.start_agent("edge-1", &[])?;

    eventually("the foreign container reported", LONG, || {
        let state = world.inspect("maze")?;
        let found = state
            .drift
            .iter()
            .any(|drift| drift.kind == "foreign" && drift.object.contains(&web.name));
        Ok(if found {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{:?} {:?}", state.topology, state.drift))
        })
    })?;
    throughout(
        "the foreign container left alone",
        Duration::from_secs(3),
        || {
            Ok(
                daemon::docker(&["inspect", "--format", "{{.State.Status}}", &foreign])?
                    == "created",
            )
        },
    )?;
    // Ours is repaired beside it, under another name.
    eventually("all of ours running", LONG, || {
        world.assert_holds("edge-1", 3, 2)?;
        let state = world.inspect("maze")?;
        Ok(if state.topology.status == "active" {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{state:?}"))
        })
    })?;
    nothing_is_pushed_again(&world)?;
    let after = ids(&world)?;
    for (address, id) in &before {
        ensure!(
            *address == world.slot.address(0, 20) || after.get(address) == Some(id),
            "{address} was touched"
        );
    }

    drop(guard);
    eventually("no trace of it when it is gone", LONG, || {
        let state = world.inspect("maze")?;
        let fine = state.topology.status == "active" && state.drift.is_empty();
        Ok(if fine {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{:?} {:?}", state.topology, state.drift))
        })
    })?;
    world.assert_holds("edge-1", 3, 2)?;
    nothing_is_pushed_again(&world)?;
    world.done()
}

/// A container of ours that carries no label of theirs.
struct Foreign(String);

impl Drop for Foreign {
    fn drop(&mut self) {
        // It may be gone.
        drop(daemon::docker(&["rm", "-f", &self.0]));
    }
}

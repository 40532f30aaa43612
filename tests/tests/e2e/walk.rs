//! Walking: a gateway leads into a second network, and nothing else does; whoever comes is seen under
//! the address that it has.

use anyhow::{Context as _, Result, ensure};
use proto::topology_file::TopologyFile;
use tests::cli::{self, Outcome};
use tests::docker::Container;
use tests::engine::Engine;
use tests::netns::Attacker;
use tests::shapes;
use tests::slot::Slot;
use tests::world::World;

/// Three LANs in a row from `first` on: `gate` between the first two, `inner` between the last two,
/// a redis in each of them.
fn row(slot: &Slot, name: &str, first: u8, inner_routes: Routing) -> TopologyFile {
    let [a, b, c] = [first, first + 1, first + 2];
    let mut dmz = shapes::lan(slot, a);
    dmz.kind = Some("dmz".to_owned());
    let mut inner = shapes::decky(slot, "inner", 11, &[b, c], &["http"]);
    inner.forwards_l3 = inner_routes == Routing::Yes;
    TopologyFile {
        name: name.to_owned(),
        lans: vec![dmz, shapes::lan(slot, b), shapes::lan(slot, c)],
        deckies: vec![
            shapes::decky(slot, "gate", 10, &[a, b], &["http"]),
            shapes::publishing(
                shapes::decky(slot, "web", 20, &[a], &["http"]),
                slot.port(u16::from(first)),
                80,
            ),
            shapes::decky(slot, "cache", 30, &[b], &["redis"]),
            inner,
            shapes::decky(slot, "vault", 40, &[c], &["redis"]),
        ],
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Routing {
    Yes,
    No,
}

/// Runs a client with the network of a decky, as somebody would who owns it.
fn as_decky(container: &Container, command: &[&str]) -> Result<Outcome> {
    let pid = container.pid.to_string();
    let mut arguments = vec!["--net", "--target", &pid];
    arguments.extend(command);
    cli::system("nsenter", &arguments, "")
}

fn reaches(from: &Container, address: &str) -> Result<bool> {
    let outcome = as_decky(from, &["nc", "-z", "-w", "2", address, "6379"])?;
    Ok(outcome.code == Some(0))
}

tests::on_each_engine! {
    a_gateway_leads_to_a_second_network_and_not_to_a_third,
}

fn a_gateway_leads_to_a_second_network_and_not_to_a_third(engine: Engine) -> Result<()> {
    let mut world = World::with_host_on(engine, "edge-1")?;
    world.add_host("edge-2")?;
    let slot = &world.slot;
    world.deploy(&row(slot, "short", 0, Routing::No), "edge-1")?;
    world.deploy(&row(slot, "long", 3, Routing::Yes), "edge-2")?;
    let at = |host: &str, lan, last| world.container(host, &slot.address(lan, last));

    // From outside to the DMZ, under one's own address.
    let outside = Attacker::outside(slot)?;
    let host = slot.address(255, 1);
    let target = format!("http://{host}:{}/from-outside", slot.port(0));
    outside.inside(&[
        "curl",
        "-sS",
        "--max-time",
        "10",
        "-o",
        "/dev/null",
        &target,
    ])?;
    let source = format!("{}:", outside.address());
    world.await_event(
        "the request from outside",
        &["--topology", "short"],
        |event| {
            event.kind == "request"
                && event.data["target"] == "/from-outside"
                && event
                    .source
                    .as_deref()
                    .is_some_and(|from| from.starts_with(&source))
        },
    )?;
    // And no further, whatever routes are tried.
    for inner in [slot.address(1, 30), slot.address(2, 40)] {
        ensure!(
            !outside.reaches(&inner, 6379)?,
            "{inner} answers the outside"
        );
    }

    // From the gateway into the LAN behind it, and from the DMZ through the gateway.
    let cache = slot.address(1, 30);
    for (walker, address) in [
        (at("edge-1", 0, 10)?, slot.address(1, 10)),
        (at("edge-1", 0, 20)?, slot.address(0, 20)),
    ] {
        as_decky(&walker, &["redis-cli", "-h", &cache, "PING"])?.ok()?;
        let source = format!("{address}:");
        world.await_event(
            &format!("the visit of {address}"),
            &["--topology", "short"],
            |event| {
                event.decky_name.as_deref() == Some("cache")
                    && event.kind == "connect"
                    && event
                        .source
                        .as_deref()
                        .is_some_and(|from| from.starts_with(&source))
            },
        )?;
    }
    // The LAN behind that is behind a machine that does not route.
    let vault = slot.address(2, 40);
    for (lan, last) in [(0, 10), (0, 20), (1, 30)] {
        ensure!(
            !reaches(&at("edge-1", lan, last)?, &vault)?,
            "{lan}.{last} reaches the vault"
        );
    }
    ensure!(
        reaches(&at("edge-1", 2, 11)?, &vault)?,
        "its neighbour does"
    );

    // With a second gateway, the way in and the way back are there.
    let vault = slot.address(5, 40);
    for (lan, last) in [(3, 10), (3, 20), (4, 30)] {
        ensure!(
            reaches(&at("edge-2", lan, last)?, &vault)?,
            "{lan}.{last} is kept from the vault"
        );
    }
    let web = at("edge-2", 3, 20)?;
    let first = as_decky(&web, &["ip", "route", "get", &vault])?.ok()?;
    ensure!(
        first.stdout.contains(&slot.address(3, 10)),
        "{}",
        first.stdout
    );
    world.await_event("the visit of the DMZ", &["--topology", "long"], |event| {
        event.decky_name.as_deref() == Some("vault")
            && event
                .source
                .as_deref()
                .is_some_and(|from| from.starts_with(&format!("{}:", slot.address(3, 20))))
    })?;

    // Nobody reaches the other topology on the same machine.
    for (host, lan, last) in [("edge-1", 0, 10), ("edge-1", 2, 40)] {
        ensure!(!reaches(&at(host, lan, last)?, &slot.address(4, 30))?);
    }
    let forwarding = as_decky(
        &at("edge-1", 2, 11)?,
        &["sysctl", "-n", "net.ipv4.ip_forward"],
    )?;
    ensure!(forwarding.ok()?.stdout.trim() == "0");
    drop(outside);
    world.done().context("the end")
}

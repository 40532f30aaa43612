//! A deploy that fails half-way leaves what was there before, says why, and works once the cause
//! is gone.

use std::net::TcpListener;

use anyhow::{Context as _, Result, ensure};
use tests::cli;
use tests::engine::Engine;
use tests::patience::{Look, eventually};
use tests::shapes;
use tests::world::{LONG, SOON, World};

const HOST: &str = "edge-1";

tests::on_each_engine! {
    a_subnet_in_use_rolls_back_and_a_retry_works,
    a_taken_port_rolls_back_and_a_retry_works,
    a_missing_image_rolls_back_and_a_retry_works,
    a_failed_repair_leaves_what_runs_and_goes_on_until_the_cause_is_gone,
    a_lan_on_an_interface_or_a_driver_that_the_host_lacks_is_named,
}

/// Deploys, which must fail with this word, and gives what the operator is told.
fn fails(world: &World, name: &str, word: &str) -> Result<String> {
    let outcome = world.decnet(&["topology", "deploy", name, "--wait", "--timeout", "120s"])?;
    let said = outcome.refused(1)?;
    let state = world.inspect(name)?;
    ensure!(state.topology.status == "failed", "{:?}", state.topology);
    ensure!(
        state.topology.reason.contains(word),
        "the reason is {:?}, without {word}",
        state.topology.reason
    );
    ensure!(
        said.contains(word),
        "the command line says {said:?}, without {word}"
    );
    let events = world.decnet_json(&["topology", "status-events", name])?;
    ensure!(
        events.to_string().contains(word),
        "the status events do not say {word}: {events}"
    );
    Ok(said)
}

fn a_lan_on_an_interface_or_a_driver_that_the_host_lacks_is_named(engine: Engine) -> Result<()> {
    let world = World::with_host_on(engine, HOST)?;
    let card = format!("dnc{}", world.slot.number());
    let gone = format!("{card}gone");
    let mut cases = vec![("no-card", format!("macvlan:{gone}"), gone)];
    let _card = Card::plug(&card)?;
    if !agent::netns::has_driver("ipvlan")? {
        cases.push((
            "no-driver",
            format!("ipvlan:{card}"),
            "ipvlan driver".to_owned(),
        ));
    }
    for (name, driver, named) in cases {
        let mut file = shapes::single(&world.slot, name);
        file.lans[0].driver = Some(driver);
        world.create(&file, HOST)?;
        let said = fails(&world, name, "engine_refused")?;
        ensure!(said.contains(&named), "{named} is not named: {said}");
        world.assert_empty(HOST)?;
    }

    // With both there, the DMZ is on the network behind the card, which the host knows too.
    cli::system(
        "ip",
        &[
            "addr",
            "add",
            &format!("{}/24", world.slot.address(0, 1)),
            "dev",
            &card,
        ],
        "",
    )?
    .ok()?;
    let mut file = shapes::single(&world.slot, "flat");
    file.lans[0].driver = Some(format!("macvlan:{card}"));
    world.deploy(&file, HOST)?;
    world.assert_holds(HOST, 1, 1)?;
    world.teardown("flat")?;
    world.assert_empty(HOST)?;
    world.done()
}

/// A card of the host, with a wire that leads nowhere.
struct Card(String);

impl Card {
    fn plug(name: &str) -> Result<Self> {
        // A killed test may have left it.
        drop(cli::system("ip", &["link", "del", name], ""));
        let far = format!("{name}x");
        cli::system(
            "ip",
            &["link", "add", name, "type", "veth", "peer", "name", &far],
            "",
        )?
        .ok()?;
        let card = Self(name.to_owned());
        for end in [name, &far] {
            cli::system("ip", &["link", "set", end, "up"], "")?.ok()?;
        }
        Ok(card)
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        drop(cli::system("ip", &["link", "del", &self.0], ""));
    }
}

fn a_subnet_in_use_rolls_back_and_a_retry_works(engine: Engine) -> Result<()> {
    let world = World::with_host_on(engine, HOST)?;
    let name = format!("foreign-{}", world.slot.number());
    // Overlaps by range, not by text.
    let half = world.slot.subnet(1).replace(".0/24", ".128/25");
    let foreign = engine.occupy(&name, &half)?;
    world.create(&shapes::small(&world.slot, "maze"), HOST)?;

    let said = fails(&world, "maze", "subnet_in_use")?;

    ensure!(
        said.contains(&world.slot.subnet(1)),
        "the subnet is not named: {said}"
    );
    ensure!(said.contains(&name), "what uses it is not named: {said}");
    world.assert_empty(HOST)?;
    foreign.stands()?;

    drop(foreign);
    world
        .decnet(&["topology", "retry", "maze", "--wait", "--timeout", "120s"])?
        .ok()?;
    world.await_converged("maze", LONG)?;
    world.assert_holds(HOST, 3, 2)?;
    world.done()
}

fn a_taken_port_rolls_back_and_a_retry_works(engine: Engine) -> Result<()> {
    let world = World::with_host_on(engine, HOST)?;
    let port = world.slot.port(1);
    let taken = TcpListener::bind(("0.0.0.0", port)).context("the port of the slot is free")?;
    let mut file = shapes::small(&world.slot, "maze");
    let web = file.deckies.remove(1);
    file.deckies.push(shapes::publishing(web, port, 80));
    world.create(&file, HOST)?;

    let said = fails(&world, "maze", "port_taken")?;

    ensure!(
        said.contains(&port.to_string()),
        "the port is not named: {said}"
    );
    world.assert_empty(HOST)?;

    drop(taken);
    world
        .decnet(&["topology", "retry", "maze", "--wait", "--timeout", "120s"])?
        .ok()?;
    world.assert_holds(HOST, 3, 2)?;
    world.done()
}

fn a_missing_image_rolls_back_and_a_retry_works(engine: Engine) -> Result<()> {
    let mut world = World::with_host_on(engine, HOST)?;
    world.stop_agent(HOST)?;
    world.start_agent(HOST, &["--decky-binary", "/nonexistent/decnet-decky"])?;
    world.await_host(HOST, "ready", SOON)?;
    world.create(&shapes::single(&world.slot, "lone"), HOST)?;

    let said = fails(&world, "lone", "image_missing")?;

    ensure!(
        said.contains("decnet-decky"),
        "what is missing is not named: {said}"
    );
    world.assert_empty(HOST)?;

    world.stop_agent(HOST)?;
    world.start_agent(HOST, &[])?;
    world.await_host(HOST, "ready", SOON)?;
    world
        .decnet(&["topology", "retry", "lone", "--wait", "--timeout", "120s"])?
        .ok()?;
    world.assert_holds(HOST, 1, 1)?;
    world.done()
}

fn a_failed_repair_leaves_what_runs_and_goes_on_until_the_cause_is_gone(
    engine: Engine,
) -> Result<()> {
    let world = World::with_host_on(engine, HOST)?;
    let port = world.slot.port(2);
    let mut file = shapes::small(&world.slot, "maze");
    let web = file.deckies.remove(1);
    file.deckies.push(shapes::publishing(web, port, 80));
    world.deploy(&file, HOST)?;
    let gate = world.container(HOST, &world.slot.address(0, 10))?.id;
    let cache = world.container(HOST, &world.slot.address(1, 30))?.id;
    let web = world.container(HOST, &world.slot.address(0, 20))?;
    // Stopped first: the port is free then, and we take it before the repair can.
    world.kill_container(HOST, &web)?;
    let taken = eventually("the port", SOON, || {
        Ok(match TcpListener::bind(("0.0.0.0", port)) {
            Ok(listener) => Look::Seen(listener),
            Err(error) => {
                let again = world.container(HOST, &world.slot.address(0, 20))?;
                drop(world.kill_container(HOST, &again));
                Look::NotYet(error.to_string())
            }
        })
    })?;
    drop(world.remove_container(HOST, &web));

    eventually("degraded, with the reason", LONG, || {
        let state = world.inspect("maze")?;
        let text = format!("{state:?}");
        Ok(
            if state.topology.status == "degraded" && text.contains("port") {
                Look::Seen(())
            } else {
                Look::NotYet(text)
            },
        )
    })?;
    ensure!(
        world.container(HOST, &world.slot.address(0, 10))?.id == gate,
        "a healthy decky was touched"
    );
    ensure!(
        world.container(HOST, &world.slot.address(1, 30))?.id == cache,
        "a healthy decky was touched"
    );

    drop(taken);
    world.await_converged("maze", LONG)?;
    world.assert_holds(HOST, 3, 2)?;
    ensure!(
        world.container(HOST, &world.slot.address(0, 10))?.id == gate,
        "a healthy decky was touched"
    );
    world.done()
}

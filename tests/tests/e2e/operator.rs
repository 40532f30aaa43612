//! What an operator types over a live master: every verb of edits and imports, its exit codes and
//! its forms.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::cli::{self, Outcome};
use tests::patience::{Look, eventually};
use tests::process::{append, binary, repository};
use tests::shapes;
use tests::world::{SOON, World};

const HOST: &str = "edge-1";

fn write(world: &World, name: &str, text: &str) -> Result<String> {
    let path = world.root().join(name);
    std::fs::write(&path, text)?;
    Ok(path.to_string_lossy().into_owned())
}

/// What a shell is offered after these words.
fn offered(world: &World, words: &[&str]) -> Result<Vec<String>> {
    let directory = world.master_dir();
    let index = words.len().to_string();
    let mut arguments = vec!["--", "decnet"];
    arguments.extend(words);
    let outcome = cli::run(
        &binary("decnet")?,
        &arguments,
        &[
            ("DECNET_COMPLETE", "bash"),
            ("_CLAP_COMPLETE_INDEX", &index),
            ("_CLAP_IFS", "\n"),
            ("DECNET_DATA_DIR", &directory.to_string_lossy()),
        ],
        "",
    )?
    .ok()?;
    Ok(outcome.stdout.lines().map(str::to_owned).collect())
}

/// Runs a command in every form in which a result can be had, and checks that it is one.
fn in_every_form(world: &World, arguments: &[&str]) -> Result<()> {
    let run = |form: &str| -> Result<Outcome> {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--output", form]);
        world.decnet(&arguments)?.ok()
    };
    let table = run("table")?.stdout;
    ensure!(!table.trim().is_empty(), "{arguments:?} shows nothing");
    let json: Value = serde_json::from_str(&run("json")?.stdout)
        .with_context(|| format!("{arguments:?} as JSON"))?;
    let yaml: Value = serde_saphyr::from_str(&run("yaml")?.stdout)
        .with_context(|| format!("{arguments:?} as YAML"))?;
    let lines: Vec<Value> = run("ndjson")?
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{arguments:?} as lines"))?;
    let whole = match json.as_array() {
        Some(items) => items.clone(),
        None => vec![json.clone()],
    };
    ensure!(lines.len() == whole.len(), "{arguments:?}: {lines:?}");
    ensure!(
        yaml.is_array() == json.is_array(),
        "{arguments:?}: {yaml:?}"
    );
    Ok(())
}

#[test]
fn a_topology_is_edited_by_its_file_and_by_hand() -> Result<()> {
    let mut world = World::with_host(HOST)?;
    let mut file = shapes::small(&world.slot, "maze");
    let path = write(&world, "maze.yaml", &serde_json::to_string(&file)?)?;

    // Nothing is stored: a plan is all new, and applying stores it on the host.
    world
        .decnet(&["topology", "plan", &path, "--detailed-exitcode"])?
        .refused(4)?;
    world
        .decnet(&["topology", "apply", &path, "--host", HOST])?
        .ok()?;
    let steps = world.decnet_json(&["topology", "deploy", "maze", "--dry-run"])?;
    ensure!(
        steps["steps"].as_array().map(Vec::len) == Some(5),
        "{steps}"
    );
    ensure!(
        world.inspect("maze")?.topology.status == "pending",
        "it was deployed"
    );
    world.assert_empty(HOST)?;
    world
        .decnet(&["topology", "deploy", "maze", "--timeout", "120s"])?
        .ok()?;
    world
        .decnet(&["topology", "deploy", "maze", "--dry-run"])?
        .refused(1)?;

    // The file again changes nothing; edited, it is one mutation that is followed to its end.
    world
        .decnet(&["topology", "plan", &path, "--detailed-exitcode"])?
        .ok()?;
    let again = world.decnet_json(&["topology", "apply", &path])?;
    ensure!(again["outcome"] == "unchanged", "{again}");
    let name = file.deckies[0].name.clone();
    file.deckies[0].services.push("redis".to_owned());
    let path = write(&world, "maze.yaml", &serde_json::to_string(&file)?)?;
    world
        .decnet(&["topology", "plan", &path, "--detailed-exitcode"])?
        .refused(4)?;
    let told = world.decnet_json(&["topology", "apply", &path, "--dry-run"])?;
    ensure!(
        told["outcome"] == "planned" && told["mutation"].is_null(),
        "{told}"
    );
    let applied = world.decnet_json(&["topology", "apply", &path])?;
    ensure!(applied["mutation"]["state"] == "applied", "{applied}");

    // By hand: what is wrong with the words, with the topology, with the revision.
    let decky = format!("decky={name}");
    let mutate = |words: &[&str]| {
        let mut arguments = vec!["topology", "mutate", "maze"];
        arguments.extend(words);
        world.decnet(&arguments)
    };
    let said = mutate(&["update_decky", &decky, "servces=ssh"])?.refused(2)?;
    ensure!(said.contains("did you mean services?"), "{said}");
    let said = mutate(&["update_decky", &decky, "services=gopher"])?.refused(1)?;
    ensure!(said.contains("[UNKNOWN_SERVICE]"), "{said}");
    let said = mutate(&["remove_decky", "decky=nobody"])?.refused(1)?;
    ensure!(said.contains("[REFERENCE_UNKNOWN]"), "{said}");
    let said = mutate(&["remove_decky", &decky, "--expected-revision", "1"])?.refused(1)?;
    ensure!(said.contains("current: 2"), "{said}");
    ensure!(
        world.inspect("maze")?.topology.status == "active",
        "a refusal did something"
    );

    // Queued and left alone, then followed by its id, then undone.
    let queued = world.decnet_json(&[
        "topology",
        "mutate",
        "maze",
        "update_decky",
        &decky,
        "services=http",
        "--no-wait",
    ])?;
    let id = queued["mutation"]["id"]
        .as_str()
        .context("an id")?
        .to_owned();
    let ended = world.decnet_json(&["mutation", "inspect", &id, "--wait"])?;
    ensure!(ended["state"] == "applied", "{ended}");
    world.decnet(&["mutation", "cancel", &id])?.refused(1)?;
    let undone = world.decnet_json(&["mutation", "revert", &id])?;
    ensure!(undone["mutation"]["state"] == "applied", "{undone}");

    // Other services for one and for all, found by name alone.
    let one = world.decnet_json(&["decky", "mutate", &name])?;
    ensure!(one["mutation"]["state"] == "applied", "{one}");
    let all = world.decnet_json(&["decky", "mutate", "--all", "--topology", "maze"])?;
    ensure!(all["mutation"]["state"] == "applied", "{all}");

    for arguments in [
        &["topology", "mutations", "maze"][..],
        &["mutation", "inspect", &id],
        &["decky", "ls"],
        &["decky", "inspect", &name],
        &["topology", "explain", "maze"],
        &["topology", "plan", &path],
        &["topology", "graph", "maze"],
        &["topology", "apply", &path, "--dry-run"],
    ] {
        in_every_form(&world, arguments)?;
    }
    let page = world
        .decnet(&["topology", "graph", "maze", "--format", "html"])?
        .ok()?
        .stdout;
    ensure!(
        page.starts_with("<!doctype html>") && !page.contains("<script"),
        "{page:.200}"
    );
    let compose = world
        .decnet(&["topology", "export", "maze", "--format", "compose"])?
        .ok()?
        .stdout;
    ensure!(compose.contains("network_mode: service:"), "{compose}");

    // The shell is offered the names of this master.
    let topologies = offered(&world, &["topology", "teardown", ""])?;
    ensure!(
        topologies.iter().any(|name| name == "maze"),
        "{topologies:?}"
    );
    let hosts = offered(&world, &["host", "inspect", ""])?;
    ensure!(hosts.iter().any(|name| name == HOST), "{hosts:?}");
    let deckies = offered(&world, &["decky", "inspect", ""])?;
    ensure!(deckies.contains(&name), "{deckies:?}");
    let mutations = offered(&world, &["mutation", "revert", ""])?;
    ensure!(mutations.contains(&id), "{mutations:?}");

    // A host that is away: the edit is on its way, and that is no failure.
    world.stop_agent(HOST)?;
    let gone = world.decnet(&[
        "topology",
        "mutate",
        "maze",
        "update_decky",
        &decky,
        // What it was given at random may be the same services, never the same option.
        "services=ssh",
        "ssh.accept_after=9",
        "--timeout",
        "1s",
    ])?;
    let said = gone.refused(3)?;
    ensure!(said.contains("decnet mutation inspect"), "{said}");
    world.start_agent(HOST, &[])?;
    world.await_converged("maze", SOON)?;
    world.teardown("maze")?;
    world.assert_empty(HOST)?;
    world.done()
}

#[test]
fn scans_and_documents_of_the_original_are_stored_and_hostile_ones_refused() -> Result<()> {
    let world = World::with_master()?;
    let vectors = repository().join("cli/src/document/vectors");
    let scan = vectors.join("office.xml");
    let scan = scan.to_string_lossy();
    let outcome = world
        .decnet(&["topology", "create", &scan, "--name", "copy"])?
        .ok()?;
    ensure!(
        outcome
            .stderr
            .contains("[UNKNOWN_SERVICE] hosts[1].ports[4]"),
        "{}",
        outcome.stderr
    );
    let stored = world.decnet_json(&["topology", "export", "copy"])?;
    ensure!(
        stored["lans"].as_array().map(Vec::len) == Some(3),
        "{stored}"
    );
    ensure!(
        stored["deckies"].as_array().map(Vec::len) == Some(6),
        "{stored}"
    );

    let original = vectors.join("original.json");
    let said = world
        .decnet(&["topology", "create", &original.to_string_lossy()])?
        .refused(1)?;
    ensure!(
        said.contains("[EDGE_UNKNOWN] edges[5].decky_uuid"),
        "{said}"
    );

    let deep = "<a>".repeat(100_000);
    let lans: String = (0..10_000)
        .map(|number| {
            format!(
                "- {{name: l{number}, subnet: 10.{}.{}.0/24}}\n",
                number / 256,
                number % 256
            )
        })
        .collect();
    for (name, text, wanted) in [
        (
            "bomb.xml",
            "<!DOCTYPE nmaprun [<!ENTITY a \"aaaa\">]><nmaprun>&a;</nmaprun>".to_owned(),
            "document types with declarations are refused",
        ),
        ("deep.xml", format!("<nmaprun>{deep}"), "nested deeper than"),
        (
            "cut.xml",
            "<nmaprun><host>".to_owned(),
            "was nmap interrupted?",
        ),
        (
            "large.yaml",
            "#".repeat(5 * 1024 * 1024),
            "larger than 4 MiB",
        ),
        (
            "large.xml",
            format!("<nmaprun>{}", " ".repeat(33 * 1024 * 1024)),
            "larger than 32 MiB",
        ),
        (
            "aliases.yaml",
            "name: &n [*n]\nlans: []\n".to_owned(),
            "aliases.yaml:1:",
        ),
        (
            "many.yaml",
            format!("name: many\nlans:\n{lans}"),
            "[TOO_LARGE] lans",
        ),
    ] {
        let path = write(&world, name, &text)?;
        let said = world.decnet(&["topology", "create", &path])?.refused(1)?;
        ensure!(said.contains(wanted), "{name}: {said:.2000}");
        ensure!(said.len() < 4000, "{name}: {} bytes are said", said.len());
    }
    let list = world.decnet_json(&["topology", "ls"])?;
    ensure!(list.as_array().map(Vec::len) == Some(1), "{list}");
    world.done()
}

#[test]
fn a_host_that_is_away_holds_up_nobody_elses_edits() -> Result<()> {
    let mut world = World::with_host("edge-1")?;
    world.add_host("edge-2")?;
    world.deploy(&shapes::single(&world.slot, "first"), "edge-1")?;
    let mut second = shapes::single(&world.slot, "second");
    second.lans[0].subnet = world.slot.subnet(5);
    second.deckies[0].edges[0].address = Some(world.slot.address(5, 10));
    world.deploy(&second, "edge-2")?;
    world.stop_agent("edge-1")?;

    let edit = |topology: &str, services: &str, wait: &str| {
        world.decnet_json(&[
            "topology",
            "mutate",
            topology,
            "update_decky",
            "decky=web",
            services,
            wait,
        ])
    };
    let waiting = edit("first", "services=ssh", "--no-wait")?;
    // Both have decky `web`: each is meant within its own topology.
    let done = edit("second", "services=redis", "--wait")?;
    ensure!(done["mutation"]["state"] == "applied", "{done}");
    let id = waiting["mutation"]["id"].as_str().context("an id")?;
    let waiting = world.decnet_json(&["mutation", "inspect", id])?;
    ensure!(waiting["state"] == "applying", "{waiting}");

    world.start_agent("edge-1", &[])?;
    let followed = world.decnet_json(&["mutation", "inspect", id, "--wait"])?;
    ensure!(followed["state"] == "applied", "{followed}");
    let said = world.decnet(&["decky", "inspect", "web"])?.refused(1)?;
    ensure!(
        said.contains("several topologies have a decky web"),
        "{said}"
    );
    world.teardown("first")?;
    world.teardown("second")?;
    world.done()
}

/// A command that follows something while the test goes on; what it says is in `log`.
fn follower(world: &World, arguments: &[&str], log: &str) -> Result<std::process::Child> {
    let output = append(&world.root().join(log))?;
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(binary("decnet")?)
        .args(arguments)
        .env("DECNET_DATA_DIR", world.master_dir())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?;
    Ok(child)
}

fn await_words(world: &World, log: &str, words: &str, times: usize) -> Result<()> {
    eventually(&format!("{words:?} in {log}"), SOON, || {
        let said = std::fs::read_to_string(world.root().join(log))?;
        Ok(if said.matches(words).count() >= times {
            Look::Seen(())
        } else {
            Look::NotYet(said)
        })
    })
}

#[test]
fn what_is_followed_is_followed_over_the_end_of_its_master() -> Result<()> {
    let mut world = World::with_host(HOST)?;
    world.deploy(&shapes::single(&world.slot, "office"), HOST)?;
    world.stop_agent(HOST)?;
    let edit = [
        "topology",
        "mutate",
        "office",
        "update_decky",
        "decky=web",
        "services=http,redis",
        "--timeout",
        "300s",
    ];
    let mut mutate = follower(&world, &edit, "mutate.log")?;
    await_words(&world, "mutate.log", "applying", 1)?;
    // In both ways in which a master goes.
    world.kill_master()?;
    await_words(&world, "mutate.log", "the master does not answer", 1)?;
    world.start_master(&[])?;
    await_words(&world, "mutate.log", "the master answers again", 1)?;
    world.stop_master()?;
    await_words(&world, "mutate.log", "the master does not answer", 2)?;
    world.start_master(&[])?;
    await_words(&world, "mutate.log", "the master answers again", 2)?;
    ensure!(mutate.try_wait()?.is_none(), "it has let go");
    world.start_agent(HOST, &[])?;
    let status = mutate.wait()?;
    let said = std::fs::read_to_string(world.root().join("mutate.log"))?;
    ensure!(status.success(), "{status}: {said}");
    ensure!(said.contains("applied, revision 2, generation 2"), "{said}");

    // Nothing but results is nothing at all here.
    let quiet = world
        .decnet(&["topology", "teardown", "office", "--quiet"])?
        .ok()?;
    ensure!(
        (quiet.stdout.as_str(), quiet.stderr.as_str()) == ("", ""),
        "{quiet:?}"
    );
    world.assert_empty(HOST)?;
    world.done()
}

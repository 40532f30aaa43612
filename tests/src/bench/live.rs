//! Figures 3 and 4: a live topology is edited: one decky serves something else, and one joins and
//! leaves a LAN. Sessions are kept open meanwhile, and no container may be started anew.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use proto::rest::mutation::{EditAnswer, MutationShape};
use proto::topology_file::TopologyFile;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use super::{Report, plain_world, probe};
use crate::docker;
use crate::shapes;
use crate::world::{LONG, World};

const HOST: &str = "bench";
const NAME: &str = "row";
const DECKIES: u8 = 6;
const RUNS: usize = 9;
/// Between two questions to the master.
const LOOK: Duration = Duration::from_millis(2);
const REDIS: u16 = 6379;
const FTP: u16 = 21;

/// Two LANs; on the first some deckies with redis, from `.10` on.
fn row(world: &World) -> TopologyFile {
    let slot = &world.slot;
    let mut deckies: Vec<_> = (0..DECKIES)
        .map(|number| {
            shapes::decky(
                slot,
                &format!("node-{number}"),
                10 + number,
                &[0],
                &["redis"],
            )
        })
        .collect();
    deckies.push(shapes::decky(slot, "gate", 100, &[0, 1], &["ssh"]));
    TopologyFile {
        name: NAME.to_owned(),
        lans: vec![shapes::lan(slot, 0), shapes::lan(slot, 1)],
        deckies,
    }
}

fn live() -> Result<World> {
    let mut world = plain_world()?;
    world.start_master(&[])?;
    world.add_host(HOST)?;
    let file = row(&world);
    world.deploy(&file, HOST)?;
    Ok(world)
}

fn door(world: &World, decky: u8, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(
        world.slot.address(0, 10 + decky).parse()?,
        port,
    ))
}

/// A session with the redis of each decky.
struct Sessions(Vec<BufReader<TcpStream>>);

impl Sessions {
    fn open(world: &World) -> Result<Self> {
        let mut sessions = Vec::new();
        for decky in 0..DECKIES {
            let stream = TcpStream::connect(door(world, decky, REDIS)?)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            sessions.push(BufReader::new(stream));
        }
        let mut sessions = Self(sessions);
        ensure!(
            sessions.lost() == 0,
            "a session ended before the first edit"
        );
        Ok(sessions)
    }

    /// How many do not answer any more.
    fn lost(&mut self) -> usize {
        let answers = |session: &mut BufReader<TcpStream>| -> Result<bool> {
            session.get_mut().write_all(b"PING\r\n")?;
            let mut line = String::new();
            session.read_line(&mut line)?;
            Ok(line.contains("PONG"))
        };
        let lives = self
            .0
            .iter_mut()
            .map(|session| answers(session).unwrap_or(false));
        lives.filter(|lives| !lives).count()
    }
}

/// When each container was started.
fn lives(world: &World) -> Result<BTreeMap<String, String>> {
    let containers = docker::containers(&world.seat(HOST)?.id)?;
    Ok(containers
        .into_iter()
        .map(|one| (one.id, one.started_at))
        .collect())
}

fn queue(world: &World, op: &Value) -> Result<String> {
    let path = format!("/api/v1/topologies/{NAME}/mutations");
    let answer: EditAnswer = world.api()?.post(&path, &json!({ "ops": [op] }))?;
    Ok(answer.mutation.context("the topology is live")?.id)
}

fn await_applied(world: &World, id: &str) -> Result<()> {
    let path = format!("/api/v1/mutations/{id}");
    let end = Instant::now() + LONG;
    loop {
        let now: MutationShape = world.api()?.get(&path)?;
        match now.state.as_str() {
            "applied" => return Ok(()),
            "failed" | "cancelled" => bail!("{now:?}"),
            _ => ensure!(Instant::now() < end, "{now:?}"),
        }
        std::thread::sleep(LOOK);
    }
}

fn serves(decky: &str, services: &[&str]) -> Value {
    json!({ "op": "update_decky", "decky": decky, "patch": { "services": services } })
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

fn all_as_before(before: &BTreeMap<String, String>, world: &World) -> Result<()> {
    let after = lives(world)?;
    ensure!(
        *before == after,
        "a container was started anew: {before:?}, {after:?}"
    );
    Ok(())
}

/// Figure 3.
pub(super) fn services(report: &mut Report) -> Result<()> {
    let world = live()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut sessions = Sessions::open(&world)?;
    let before = lives(&world)?;
    let (mut serving, mut applied, mut lost) = (Vec::new(), Vec::new(), 0);
    for (run, number) in (0..RUNS).zip((0..DECKIES).cycle()) {
        let decky = format!("node-{number}");
        let ftp = door(&world, number, FTP)?;
        let start = Instant::now();
        let id = queue(&world, &serves(&decky, &["redis", "ftp"]))?;
        runtime.block_on(probe::answers(ftp))?;
        serving.push(millis(start));
        await_applied(&world, &id)?;
        applied.push(millis(start));
        let back = queue(&world, &serves(&decky, &["redis"]))?;
        await_applied(&world, &back)?;
        lost += sessions.lost();
        all_as_before(&before, &world).with_context(|| format!("run {run}"))?;
    }
    report.add(
        "services of a live decky: enqueue to serving",
        "ms",
        &serving,
        "≤ 250",
    );
    report.add(
        "services of a live decky: enqueue to applied",
        "ms",
        &applied,
        "≤ 400",
    );
    let lost = f64::from(u32::try_from(lost)?);
    report.add(
        "sessions that it cost on other services",
        "sessions",
        &[lost],
        "0",
    );
    world.teardown(NAME)?;
    world.done()
}

/// Figure 4.
pub(super) fn lans(report: &mut Report) -> Result<()> {
    let world = live()?;
    let mut sessions = Sessions::open(&world)?;
    let before = lives(&world)?;
    let (mut attached, mut detached, mut lost) = (Vec::new(), Vec::new(), 0);
    for (run, number) in (0..RUNS).zip((0..DECKIES).cycle()) {
        let decky = format!("node-{number}");
        let address = world.slot.address(1, 10 + number);
        for (op, times) in [
            (
                json!({ "op": "attach_decky", "decky": decky, "lan": "lan-1", "address": address }),
                &mut attached,
            ),
            (
                json!({ "op": "detach_decky", "decky": decky, "lan": "lan-1" }),
                &mut detached,
            ),
        ] {
            let start = Instant::now();
            let id = queue(&world, &op)?;
            await_applied(&world, &id)?;
            times.push(millis(start));
        }
        lost += sessions.lost();
        all_as_before(&before, &world).with_context(|| format!("run {run}"))?;
    }
    report.add(
        "a live decky joins a LAN: enqueue to applied",
        "ms",
        &attached,
        "≤ 150",
    );
    report.add(
        "a live decky leaves a LAN: enqueue to applied",
        "ms",
        &detached,
        "≤ 150",
    );
    let lost = f64::from(u32::try_from(lost)?);
    report.add("sessions that it cost", "sessions", &[lost], "0");
    world.teardown(NAME)?;
    world.done()
}

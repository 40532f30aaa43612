//! Figures 15 and 16: a topology of 200 LANs and 996 deckies, made, judged, hashed, stored, loaded,
//! and asked for.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use domain::topology::Topology;
use domain::topology::draft::{Draft, resolve};
use domain::topology::generate::{Parameters, generate};
use domain::topology::hydrate::hydrate;
use domain::topology::validate::{Limits, validate};
use master::db::{Actor, Store as _, sqlite};
use master::entropy::OsEntropy;
use proto::rest::TopologyState;
use proto::topology_file::TopologyFile;
use serde_json::json;
use time::OffsetDateTime;

use super::{Report, plain_world};
use crate::shapes;

const LANS: usize = 200;
const DECKIES: usize = 996;
/// Seeds that are tried until one gives as many LANs.
const MOST_SEEDS: u64 = 100_000;
const RUNS: usize = 15;
/// Connections that ask at once.
const CLIENTS: usize = 16;
const ASKING: Duration = Duration::from_secs(6);

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn parameters(name: &str) -> Result<Parameters> {
    for seed in 0..MOST_SEEDS {
        let mut parameters = Parameters::new(name, 4, 6, seed);
        (parameters.deckies_min, parameters.deckies_max) = (5, 5);
        let draft = generate(&parameters, &[], &Limits::default());
        if draft.is_ok_and(|draft| draft.lans.len() == LANS && draft.deckies.len() == DECKIES) {
            return Ok(parameters);
        }
    }
    bail!("no seed gives {LANS} LANs");
}

fn made(parameters: &Parameters) -> Result<(Draft, Topology)> {
    let limits = Limits::default();
    let draft = generate(parameters, &[], &limits)
        .map_err(|findings| anyhow::anyhow!("it cannot be generated: {findings:?}"))?;
    let mut entropy = OsEntropy::at(OffsetDateTime::now_utc());
    let resolved = resolve(&draft, None, &limits, &mut entropy);
    ensure!(resolved.findings.is_empty(), "{:?}", resolved.findings);
    Ok((draft, resolved.topology))
}

/// Figure 15.
pub(super) fn large(report: &mut Report) -> Result<()> {
    let parameters = parameters("large")?;
    let directory = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let store = runtime.block_on(sqlite::open(&directory.path().join("master.db")))?;
    let [mut make, mut judge, mut hash, mut keep, mut load] =
        [const { Vec::new() }; 5] as [Vec<f64>; 5];
    for number in 0..RUNS {
        let start = Instant::now();
        let (_, mut topology) = made(&parameters)?;
        make.push(millis(start));

        let start = Instant::now();
        let findings = validate(&topology);
        judge.push(millis(start));
        ensure!(
            findings.iter().all(|finding| !finding.is_error()),
            "{findings:?}"
        );

        let start = Instant::now();
        std::hint::black_box(hydrate(&topology).version_hash());
        hash.push(millis(start));

        topology.name = format!("large-{number}").parse()?;
        let start = Instant::now();
        let actor = Actor::Operator("bench".to_owned());
        runtime.block_on(store.insert_topology(&topology, actor, OffsetDateTime::now_utc()))?;
        keep.push(millis(start));

        let start = Instant::now();
        let row = runtime.block_on(store.topology(topology.id))?;
        load.push(millis(start));
        ensure!(
            row.is_some_and(|row| row.topology == topology),
            "what is loaded is not what was stored"
        );
    }
    report.add("200 LANs, 996 deckies: generate", "ms", &make, "≤ 3");
    report.add("the same: validate", "ms", &judge, "≤ 3");
    report.add("the same: hydrate and hash", "ms", &hash, "≤ 6");
    report.add("the same: store on SQLite", "ms", &keep, "≤ 150");
    report.add("the same: load", "ms", &load, "≤ 30");
    Ok(())
}

/// Figure 16.
pub(super) fn asked(report: &mut Report) -> Result<()> {
    let mut world = plain_world()?;
    world.start_master(&[])?;
    let api = world.api()?;
    let (draft, _) = made(&parameters("large")?)?;
    let body = json!({ "topology": TopologyFile::from(draft) });
    let large: TopologyState = api.post("/api/v1/topologies", &body)?;
    for number in 1..50 {
        let file = shapes::small(&world.slot, &format!("small-{number}"));
        let _: TopologyState = api.post("/api/v1/topologies", &json!({ "topology": file }))?;
    }
    let at = api.base().trim_start_matches("http://").to_owned();
    let token = api.token().to_owned();
    let document = format!("/api/v1/topologies/{}/document", large.topology.id);
    let state = format!("/api/v1/topologies/{}", large.topology.id);
    for (path, name, reach) in [
        (
            document.as_str(),
            "GET the document of a topology of 996 deckies",
            "≥ 300",
        ),
        (state.as_str(), "GET where it stands", ""),
        (
            "/api/v1/topologies?limit=50",
            "GET the list of 50 topologies",
            "≥ 8000",
        ),
    ] {
        let asked = Asked::by_many(&at, &token, path)?;
        report.add(name, "1/s", &[asked.rate], reach);
        let reach = if path.ends_with("50") { "≤ 10" } else { "" };
        report.add(
            "the same: p99 at 16 connections",
            "ms",
            &[asked.slowest],
            reach,
        );
    }
    world.done()
}

struct Asked {
    /// Answers a second, of all clients.
    rate: f64,
    /// What 99 of 100 answers took at most, in milliseconds.
    slowest: f64,
}

impl Asked {
    fn by_many(at: &str, token: &str, path: &str) -> Result<Self> {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer {token}\r\n\r\n");
        let start = Instant::now();
        let times: Vec<Result<Vec<f64>>> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| scope.spawn(|| ask(at, request.as_bytes(), start + ASKING)))
                .collect();
            let joined = clients.into_iter().map(|client| {
                let times = client.join();
                times.unwrap_or_else(|_| bail!("a client panicked"))
            });
            joined.collect()
        });
        let taken = start.elapsed().as_secs_f64();
        let mut all = Vec::new();
        for times in times {
            all.extend(times?);
        }
        all.sort_by(f64::total_cmp);
        let slowest = all.len() * 99 / 100;
        let slowest = *all.get(slowest).context("nothing was answered")?;
        #[allow(clippy::cast_precision_loss, reason = "answers of some seconds")]
        let rate = all.len() as f64 / taken;
        Ok(Self { rate, slowest })
    }
}

/// Asks the same on one connection again and again; how long each answer took.
fn ask(at: &str, request: &[u8], until: Instant) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut buffer = vec![0; 256 * 1024];
    let mut times = Vec::new();
    while Instant::now() < until {
        let start = Instant::now();
        stream.write_all(request)?;
        answer(&mut stream, &mut buffer)?;
        times.push(millis(start));
    }
    Ok(times)
}

/// Reads one answer, which must be a good one, and keeps none of it.
fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<()> {
    let mut have = 0;
    let (head, length) = loop {
        let more = stream.read(&mut buffer[have..])?;
        ensure!(more > 0, "the master closed the connection");
        have += more;
        if let Some(end) = buffer[..have]
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
        {
            let head = std::str::from_utf8(&buffer[..end])?;
            ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let (_, length) = length.context("an answer has a length")?;
            break (end + 4, length.trim().parse::<usize>()?);
        }
    };
    let mut left = (head + length).saturating_sub(have);
    while left > 0 {
        let most = left.min(buffer.len());
        let more = stream.read(&mut buffer[..most])?;
        ensure!(more > 0, "the master closed the connection");
        left -= more;
    }
    Ok(())
}

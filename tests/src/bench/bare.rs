//! Figure 2: the maze on the native engine, and the same deckies by a bare loop over runc whose
//! network namespaces stand before the clock runs; then a maze five times as large.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use proto::topology_file::TopologyFile;
use serde_json::{Value, json};

use super::maze::{await_status, example, in_slot};
use super::{Report, litter, plain_world};
use crate::bench::litter::Litter;
use crate::cli::system;
use crate::engine::Engine;
use crate::process::binary;
use crate::shapes;
use crate::slot::Slot;
use crate::world::World;

const HOST: &str = "bench";
/// How many calls of runc are under way at once: more do not make two processors faster.
const AT_ONCE: usize = 4;
/// Who goes in which order: neither side always meets the fresher machine.
const TURNS: [Side; 6] = {
    use Side::{Bare, Ours};
    [Ours, Bare, Bare, Ours, Ours, Bare]
};
/// LANs of the large maze, five deckies on each.
const LARGE: u8 = 100;
/// How often the inventory of the large maze is taken.
const LOOKS: usize = 5;
/// What follows a deploy or a teardown has died down by then.
const CALM: Duration = Duration::from_secs(8);
const MOST: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Bare,
}

pub(super) fn measure(report: &mut Report) -> Result<()> {
    let mut world = plain_world()?;
    world.start_master(&[])?;
    world.set_engine(Engine::Native);
    world.add_host(HOST)?;
    world.deploy(&shapes::single(&world.slot, "warm"), HOST)?;
    world.teardown("warm")?;
    let maze = in_slot(example("maze")?, &world.slot)?;
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let (mut bare_up, mut bare_down) = (Vec::new(), Vec::new());
    let mut memory = Vec::new();
    let mut bare = None;
    for (turn, side) in TURNS.into_iter().enumerate() {
        // What the kernel still does for the turn before (dead namespaces, groups, files) is of
        // nobody's deploy.
        std::thread::sleep(CALM);
        match side {
            Side::Ours => {
                let mut file = maze.clone();
                file.name = format!("maze-{turn}");
                world.create(&file, HOST)?;
                let before = held()?;
                up.push(deploy(&world, &file)?);
                if bare.is_none() {
                    std::thread::sleep(CALM);
                    memory.push((held()? - before) / count(file.deckies.len()));
                    bare = Some(Bare::like(&world)?);
                }
                down.push(teardown(&world, &file.name)?);
                world.assert_empty(HOST)?;
            }
            Side::Bare => {
                let bare = bare.as_ref().context("our side goes first")?;
                bare.prepare()?;
                bare_up.push(bare.up()?);
                bare_down.push(bare.down()?);
            }
        }
    }
    let name = "native: 20 LANs, 100 deckies: request to every decky answering";
    report.compare(name, "s", (&up, &bare_up), "≤ 1.5 × bare runc");
    let name = "native: 20 LANs, 100 deckies: teardown";
    report.compare(name, "s", (&down, &bare_down), "≤ 1.5 × bare runc");
    report.faster_than(
        "Docker's deploy, in native ones",
        "20 LANs, 100 deckies: request to every decky answering",
        &up,
        "≥ 5",
    );
    report.add(
        "native: memory of an idle decky, all told",
        "MB",
        &memory,
        "≤ 5",
    );
    drop(bare);
    large(report, &world)?;
    world.done()
}

/// 100 LANs and 500 deckies.
fn large(report: &mut Report, world: &World) -> Result<()> {
    let file = tree(&world.slot, "large", LARGE);
    world.create(&file, HOST)?;
    let up = deploy(world, &file)?;
    let mut looks = Vec::new();
    for _ in 0..LOOKS {
        looks.push(look(world, file.deckies.len())?);
    }
    let down = teardown(world, &file.name)?;
    world.assert_empty(HOST)?;
    report.add("native: 100 LANs, 500 deckies: deploy", "s", &[up], "");
    report.add(
        "native: 100 LANs, 500 deckies: inventory",
        "s",
        &looks,
        "≤ 1",
    );
    report.add("native: 100 LANs, 500 deckies: teardown", "s", &[down], "");
    Ok(())
}

/// How long the agent's command takes to ask the engine what is there, its own start included.
fn look(world: &World, deckies: usize) -> Result<f64> {
    let data = world.seat(HOST)?.data_dir.to_string_lossy().into_owned();
    let decky = binary("decnet-decky")?.to_string_lossy().into_owned();
    let arguments = [
        "status",
        "--live",
        "--output",
        "json",
        "--data-dir",
        &data,
        "--engine",
        "native",
        "--decky-binary",
        &decky,
    ];
    let start = Instant::now();
    let said = crate::cli::run(&binary("decnet-agent")?, &arguments, &[], "")?.ok()?;
    let taken = start.elapsed().as_secs_f64();
    ensure!(
        said.stdout.matches("\"running\"").count() >= deckies
            || said.stdout.contains(&deckies.to_string()),
        "not all deckies are there: {}",
        said.stdout.chars().take(500).collect::<String>()
    );
    Ok(taken)
}

/// A tree of LANs with five deckies on each; the first of each inner one routes to the one above.
fn tree(slot: &Slot, name: &str, lans: u8) -> TopologyFile {
    let mut deckies = Vec::new();
    for lan in 0..lans {
        for number in 0..5 {
            let name = format!("node-{lan:03}-{number}");
            let host = 10 + number;
            let mut decky = shapes::decky(slot, &name, host, &[lan], &["http"]);
            if number == 0 && lan > 0 {
                // Its second address is one that no decky of that LAN has.
                let above = (lan - 1) / 3;
                let place = 100 + lan % 100;
                let edge = shapes::decky(slot, &name, place, &[above], &[]).edges;
                decky.edges.extend(edge);
                decky.forwards_l3 = true;
            }
            deckies.push(decky);
        }
    }
    TopologyFile {
        name: name.to_owned(),
        lans: (0..lans).map(|number| shapes::lan(slot, number)).collect(),
        deckies,
    }
}

fn deploy(world: &World, file: &TopologyFile) -> Result<f64> {
    let start = Instant::now();
    let path = format!("/api/v1/topologies/{}/deploy", file.name);
    world.api()?.answer("POST", &path, Some(&json!({})))?;
    await_status(world, &file.name, "active")?;
    let run = Path::new("/run/decnet")
        .join(&world.seat(HOST)?.id)
        .join("deckies");
    all_listen(file.deckies.len(), || {
        let entries = fs::read_dir(&run).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().join("pid")).collect()
    })?;
    Ok(start.elapsed().as_secs_f64())
}

fn teardown(world: &World, name: &str) -> Result<f64> {
    let start = Instant::now();
    let path = format!("/api/v1/topologies/{name}/teardown");
    world.api()?.answer("POST", &path, Some(&json!({})))?;
    await_status(world, name, "torn_down")?;
    Ok(start.elapsed().as_secs_f64())
}

/// Waits until so many processes have an open port, each in its own namespace.
fn all_listen(deckies: usize, pid_files: impl Fn() -> Vec<PathBuf>) -> Result<()> {
    let end = Instant::now() + MOST;
    loop {
        let listening = pid_files().iter().filter(|file| listens(file)).count();
        if listening >= deckies {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("{listening} of {deckies} deckies answer");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// By the count of sockets in use: the tables of sockets take the kernel milliseconds for each
/// namespace, which would be a third of what is measured.
fn listens(pid_file: &Path) -> bool {
    let pid = fs::read_to_string(pid_file).unwrap_or_default();
    [("sockstat", "TCP:"), ("sockstat6", "TCP6:")]
        .iter()
        .any(|(file, line)| {
            let path = format!("/proc/{}/net/{file}", pid.trim());
            let counts = fs::read_to_string(path).unwrap_or_default();
            let used = counts
                .lines()
                .find_map(|text| text.strip_prefix(line)?.trim().strip_prefix("inuse "));
            used.is_some_and(|used| !used.starts_with('0'))
        })
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a machine's memory, a topology's deckies"
)]
const fn count(number: usize) -> f64 {
    number as f64
}

/// Memory of this machine that is in use and could not be had otherwise, in MB.
fn held() -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let field = |name: &str| -> Result<f64> {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .with_context(|| format!("/proc/meminfo has {name}"))
    };
    Ok((field("MemTotal:")? - field("MemAvailable:")?) * 1024.0 / 1e6)
}

/// The other side: the agent's own bundles, on namespaces of this one's.
struct Bare {
    directory: PathBuf,
    slot: u16,
    bundles: Vec<Value>,
}

impl Bare {
    /// Keeps what the deckies of a world are made of.
    fn like(world: &World) -> Result<Self> {
        let seat = world.seat(HOST)?;
        let slot = world.slot.number();
        // Where deckies in user namespaces get to, as on our side.
        let directory = PathBuf::from(format!("/run/decnet-bench-{slot}"));
        if directory.exists() {
            let devices = directory.join("dev");
            drop(system("umount", &["-l", &devices.to_string_lossy()], "")?);
            fs::remove_dir_all(&directory)?;
        }
        litter::note(Litter::Directory(directory.clone()));
        let roots = fs::read_dir(seat.data_dir.join("native/roots"))?;
        let root = roots
            .flatten()
            .next()
            .context("deckies have a root")?
            .path();
        fs::create_dir_all(&directory)?;
        let (from, to) = (root.to_string_lossy(), directory.join("root"));
        system("cp", &["-a", &from, &to.to_string_lossy()], "")?.ok()?;
        let mut this = Self {
            directory,
            slot,
            bundles: Vec::new(),
        };
        this.make_devices()?;
        let run = Path::new("/run/decnet").join(&seat.id).join("deckies");
        for (number, entry) in fs::read_dir(run)?.flatten().enumerate() {
            let bytes = fs::read(entry.path().join("config.json"))?;
            let mut bundle: Value = serde_json::from_slice(&bytes)?;
            let mounts = bundle["mounts"]
                .as_array_mut()
                .context("a bundle has mounts")?;
            for mount in mounts {
                if mount["destination"] == "/dev" {
                    mount["source"] = json!(this.devices());
                } else if mount["destination"] != "/proc" {
                    let source = mount["source"].as_str().context("a mount has a source")?;
                    let copy = this.place(number).join("config");
                    fs::create_dir_all(this.place(number))?;
                    system("cp", &["-a", source, &copy.to_string_lossy()], "")?.ok()?;
                    mount["source"] = json!(copy);
                }
            }
            bundle["root"]["path"] = json!(to);
            let linux = &mut bundle["linux"];
            linux["cgroupsPath"] = json!(format!("/decnet-bench/{}", this.name(number)));
            for space in linux["namespaces"].as_array_mut().context("namespaces")? {
                if space["type"] == "network" {
                    space["path"] = json!(format!("/run/netns/{}", this.name(number)));
                }
            }
            fs::write(this.place(number).join("config.json"), bundle.to_string())?;
            this.bundles.push(bundle);
        }
        Ok(this)
    }

    fn devices(&self) -> PathBuf {
        self.directory.join("dev")
    }

    fn make_devices(&self) -> Result<()> {
        let devices = self.devices();
        fs::create_dir_all(&devices)?;
        let place = devices.to_string_lossy();
        let options = "mode=755,nosuid,noexec";
        system(
            "mount",
            &["-t", "tmpfs", "-o", options, "tmpfs", &place],
            "",
        )?
        .ok()?;
        for (name, minor) in [
            ("null", "3"),
            ("zero", "5"),
            ("random", "8"),
            ("urandom", "9"),
        ] {
            let path = devices.join(name);
            let arguments = ["-m", "666", &path.to_string_lossy(), "c", "1", minor];
            system("mknod", &arguments, "")?.ok()?;
        }
        Ok(())
    }

    fn name(&self, number: usize) -> String {
        format!("dnb{}-{number}", self.slot)
    }

    fn place(&self, number: usize) -> PathBuf {
        self.directory.join(number.to_string())
    }

    /// A namespace for each decky, with an open gate.
    fn prepare(&self) -> Result<()> {
        for number in 0..self.bundles.len() {
            let name = self.name(number);
            drop(system("ip", &["netns", "del", &name], "")?);
            system("ip", &["netns", "add", &name], "")?.ok()?;
            system("ip", &["-n", &name, "link", "set", "lo", "up"], "")?.ok()?;
            let open = "net.ipv4.ip_unprivileged_port_start=0";
            system(
                "ip",
                &["netns", "exec", &name, "sysctl", "-q", "-w", open],
                "",
            )?
            .ok()?;
        }
        Ok(())
    }

    fn up(&self) -> Result<f64> {
        let start = Instant::now();
        self.each(|number| {
            let place = self.place(number);
            let output = File::create(place.join("out"))?;
            let status = Command::new("runc")
                .arg("--root")
                .arg(self.directory.join("runc"))
                .args(["run", "--detach", "--bundle"])
                .arg(&place)
                .arg("--pid-file")
                .arg(place.join("pid"))
                .arg(self.name(number))
                .stdin(Stdio::null())
                .stdout(output)
                .stderr(Stdio::null())
                .status()?;
            ensure!(status.success(), "runc run {number}: {status}");
            Ok(())
        })?;
        let all = self.bundles.len();
        all_listen(all, || {
            (0..all)
                .map(|number| self.place(number).join("pid"))
                .collect()
        })?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn down(&self) -> Result<f64> {
        let start = Instant::now();
        self.each(|number| {
            let status = Command::new("runc")
                .arg("--root")
                .arg(self.directory.join("runc"))
                .args(["delete", "--force", &self.name(number)])
                .status()?;
            ensure!(status.success(), "runc delete {number}: {status}");
            Ok(())
        })?;
        let taken = start.elapsed().as_secs_f64();
        for number in 0..self.bundles.len() {
            system("ip", &["netns", "del", &self.name(number)], "")?.ok()?;
        }
        Ok(taken)
    }

    fn each(&self, act: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
        let next = AtomicUsize::new(0);
        let first = Mutex::new(Ok(()));
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.bundles.len() {
                            break;
                        }
                        if let Err(error) = act(number)
                            && let Ok(mut first) = first.lock()
                            && first.is_ok()
                        {
                            *first = Err(error);
                        }
                    }
                });
            }
        });
        first.into_inner().unwrap_or(Ok(()))
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        for number in 0..self.bundles.len() {
            // What is gone is gone.
            let runtime = self.directory.join("runc");
            let name = self.name(number);
            if runtime.join(&name).exists() {
                let arguments = ["--root", &runtime.to_string_lossy(), "delete", "-f", &name];
                drop(system("runc", &arguments, ""));
            }
            if Path::new("/run/netns").join(&name).exists() {
                drop(system("ip", &["netns", "del", &name], ""));
            }
        }
        for hierarchy in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            fs::remove_dir(hierarchy.path().join("decnet-bench")).ok();
        }
        drop(system(
            "umount",
            &["-l", &self.devices().to_string_lossy()],
            "",
        ));
        fs::remove_dir_all(&self.directory).ok();
    }
}

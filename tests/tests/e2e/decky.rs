//! The decky's own binary in a network namespace of its own, without an engine: when it opens its
//! ports, and what becomes of its lines when they go into a file of a greatest size.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use domain::event::Payload;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;
use tests::cli::system;
use tests::patience::{Look, eventually, throughout, until};
use tests::process::binary;

const SOON: Duration = Duration::from_secs(20);
const REDIS: u16 = 6379;

/// A decky that serves redis and writes into a file.
struct Decky {
    directory: TempDir,
    child: Child,
}

impl Decky {
    /// Starts it in a new network namespace, which is as the kernel makes it: closed.
    fn start(greatest: u64) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("decky.json");
        let seed = "07".repeat(32);
        std::fs::write(
            &config,
            format!(
                r#"{{"hostname":"web-7","persona":"linux","seed":"{seed}","services":{{"redis":{{}}}}}}"#
            ),
        )?;
        let lines = File::create(directory.path().join("lines"))?;
        let limit = format!("--fsize={greatest}");
        let child = Command::new("unshare")
            .args(["--net", "--", "setpriv", "--pdeathsig", "KILL", "--"])
            .args(["prlimit", &limit])
            .arg(binary("decnet-decky")?)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(lines)
            .stderr(Stdio::inherit())
            .spawn()
            .context("could not start a decky")?;
        let this = Self { directory, child };
        until("the decky with its signal handlers", SOON, || {
            let of = |name: &str| std::fs::read_to_string(this.proc(name));
            let caught = of("status")?
                .lines()
                .find_map(|line| line.strip_prefix("SigCgt:"))
                .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
                .unwrap_or_default();
            // Signal n is bit n - 1 (proc(5)); SIGTERM is 15. The shells before it catch it, too.
            Ok(of("comm")?.trim() == "decnet-decky" && caught & (1 << 14) != 0)
        })?;
        this.inside(&["ip", "link", "set", "lo", "up"])?;
        Ok(this)
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.child.id()))
    }

    fn lines(&self) -> PathBuf {
        self.directory.path().join("lines")
    }

    fn text(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(self.lines())?).into_owned())
    }

    fn inside(&self, command: &[&str]) -> Result<()> {
        let id = self.child.id().to_string();
        let mut arguments = vec!["--target", &id, "--net", "--"];
        arguments.extend(command);
        system("nsenter", &arguments, "")?.ok()?;
        Ok(())
    }

    fn set_gate(&self, value: &str) -> Result<()> {
        let setting = format!("net.ipv4.ip_unprivileged_port_start={value}");
        self.inside(&["sysctl", "-qw", &setting])
    }

    /// Whether something listens, in its namespace, on the port of redis.
    fn listens(&self) -> Result<bool> {
        let mut listens = false;
        for table in ["net/tcp", "net/tcp6"] {
            let text = std::fs::read_to_string(self.proc(table)).unwrap_or_default();
            // Local address with the port in hexadecimal; state 0A is listening (proc(5)).
            let port = format!(":{REDIS:04X}");
            listens |= text.lines().skip(1).any(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                fields.get(3) == Some(&"0A") && fields[1].ends_with(&port)
            });
        }
        Ok(listens)
    }

    /// So many connections that say one thing each.
    fn visit(&self, times: usize) -> Result<()> {
        let namespace = File::open(self.proc("ns/net"))?;
        // A thread of its own: it does not come back from there.
        let visits = std::thread::spawn(move || -> Result<()> {
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&namespace),
                Some(LinkNameSpaceType::Network),
            )?;
            for _ in 0..times {
                let mut stream = TcpStream::connect(("127.0.0.1", REDIS))?;
                stream.set_read_timeout(Some(SOON))?;
                stream.write_all(b"PING\r\n")?;
                let mut reply = [0; 7];
                stream.read_exact(&mut reply)?;
                ensure!(&reply == b"+PONG\r\n", "{reply:?}");
            }
            Ok(())
        });
        visits.join().expect("it returns its errors")
    }

    fn stop(&mut self) -> Result<ExitStatus> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("above 0")?;
        kill_process(pid, Signal::TERM)?;
        eventually("the end of the decky", SOON, || {
            Ok(match self.child.try_wait()? {
                Some(status) => Look::Seen(status),
                None => Look::NotYet("that it runs".to_owned()),
            })
        })
    }
}

impl Drop for Decky {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn no_port_is_open_before_the_gate_and_the_end_does_not_wait_for_it() -> Result<()> {
    let mut closed = Decky::start(1 << 20)?;
    throughout("no port", Duration::from_millis(400), || {
        Ok(!closed.listens()?)
    })?;
    let status = closed.stop()?;
    ensure!(status.success(), "{status}");
    let said = closed.text()?;
    ensure!(!said.contains("started"), "{said}");
    ensure!(said.contains("stopping"), "{said}");

    let mut opened = Decky::start(1 << 20)?;
    ensure!(!opened.listens()?, "it waits");
    opened.set_gate("0")?;
    until("the port", SOON, || opened.listens())?;
    opened.visit(1)?;
    let status = opened.stop()?;
    ensure!(status.success(), "{status}");
    ensure!(opened.text()?.contains("started"), "it says so");
    Ok(())
}

/// Reads what is there and cuts it away, as a collector does it.
fn collect(decky: &Decky, all: &mut Vec<u8>) -> Result<usize> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(decky.lines())?;
    flock(&file, FlockOperation::LockExclusive)?;
    let read = file.read_to_end(all)?;
    file.set_len(0)?;
    flock(&file, FlockOperation::Unlock)?;
    Ok(read)
}

#[test]
fn lines_that_a_full_file_does_not_take_are_counted_and_none_is_torn_in_two() -> Result<()> {
    const GREATEST: u64 = 10_000;
    let mut decky = Decky::start(GREATEST)?;
    decky.set_gate("0")?;
    until("the port", SOON, || decky.listens())?;
    // Much more than the file takes.
    let mut visits = 60;
    decky.visit(visits)?;
    until("the file is full", SOON, || {
        Ok(std::fs::metadata(decky.lines())?.len() == GREATEST)
    })?;
    ensure!(decky.listens()?, "it lives, and serves");
    // Longer than lines are held.
    throughout("it stays full", Duration::from_secs(3), || {
        Ok(std::fs::metadata(decky.lines())?.len() == GREATEST)
    })?;
    decky.visit(10)?;
    visits += 10;

    let mut all = Vec::new();
    let read = collect(&decky, &mut all)?;
    ensure!(u64::try_from(read)? == GREATEST, "{read}");
    // The next lines find room, and the account comes before them.
    until("the account", SOON, || {
        decky.visit(1)?;
        visits += 1;
        collect(&decky, &mut all)?;
        Ok(String::from_utf8_lossy(&all).contains("while the output was full"))
    })?;
    let status = decky.stop()?;
    ensure!(status.success() && status.signal().is_none(), "{status}");
    collect(&decky, &mut all)?;

    let mut torn = 0;
    let mut sessions = 0;
    let mut lost = 0;
    let mut last = 0;
    for line in all.split(|byte| *byte == b'\n') {
        if line.is_empty() {
            continue;
        }
        let Ok(line) = proto::line::decode(line) else {
            torn += 1;
            continue;
        };
        ensure!(
            line.position.counter == last + 1,
            "line {} behind {last}",
            line.position.counter
        );
        last = line.position.counter;
        sessions += usize::from(line.sighting.payload == Payload::Connect);
        if let Payload::Lifecycle { state, count, .. } = line.sighting.payload
            && state == "dropped"
        {
            lost += count;
        }
    }
    ensure!(torn <= 1, "{torn} lines are torn");
    ensure!(
        sessions < visits && lost > 0,
        "{sessions} of {visits}, {lost} lost"
    );
    // Three lines to a visit, besides the fingerprint of the first: each is there or counted.
    let there = last + lost;
    let least = u64::try_from(visits * 3)?;
    ensure!(there >= least, "{there} of {least} lines are accounted for");
    Ok(())
}

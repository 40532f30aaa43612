//! A taken-over decky, for tests: it runs in a decky's place, made and confined by the agent like any
//! other, and tries what an attacker would try to get out. It is never part of a release.
//!
//! Whoever connects to port 80 sends one attempt a line, such as `tcp 10.0.0.1:80`, and reads one JSON
//! line for each: `{"attempt": …, "passed": true|false, "detail": …}`. `passed` says that the attempt
//! itself succeeded, as far as it can be seen from inside.
#![allow(
    clippy::disallowed_methods,
    reason = "an attacker starts programs, waits, and asks no clock"
)]

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::json;

mod bomb;
mod kernel;
mod network;

/// What an attempt has come to: in words, whether it passed or not.
type Outcome = Result<String, io::Error>;

/// Between two looks at the gate.
const PAUSE: Duration = Duration::from_millis(20);
const GATE: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        // What an engine asks of a decky to see whether it can run one.
        Some("--version") => Ok(()),
        Some("sleep") => loop {
            thread::sleep(Duration::from_secs(3600));
        },
        Some("eat") => bomb::eat(),
        Some("fill") => bomb::fill(arguments.get(2).map_or("/", String::as_str)),
        // The engine gives a decky its configuration's path, or nothing.
        Some(_) | None => serve(),
    }
}

fn serve() -> io::Result<()> {
    while fs::read_to_string(GATE)?.trim() != "0" {
        thread::sleep(PAUSE);
    }
    // As a decky does it: whoever looks at its namespace finds a port open, and no more.
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80))?;
    for stream in listener.incoming() {
        let stream = stream?;
        thread::Builder::new().spawn(move || {
            // Whoever goes away is done.
            drop(obey(&stream));
        })?;
    }
    Ok(())
}

fn obey(stream: &TcpStream) -> io::Result<()> {
    let mut answers = stream;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let (passed, detail) = match attempt(&line) {
            Ok(detail) => (true, detail),
            Err(error) => (false, error.to_string()),
        };
        let answer = json!({ "attempt": line, "passed": passed, "detail": detail });
        writeln!(answers, "{answer}")?;
    }
    Ok(())
}

fn attempt(line: &str) -> Outcome {
    let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
    match what {
        "tcp" => network::tcp(rest),
        "udp" => network::udp(rest),
        "dns" => network::dns(rest),
        "flood" => network::flood(rest),
        "ping-socket" => network::ping_socket(),
        "raw-socket" => network::raw_socket(),
        "arp-spoof" => network::arp_spoof(),
        "flush-rules" => network::flush_rules(),
        "add-route" => network::add_route(),
        "peer" => network::peer(rest),
        "unix" => kernel::unix(rest),
        "mount" => kernel::mount(rest),
        "unshare" => kernel::unshare(rest),
        "enter" => kernel::enter(rest),
        "device" => kernel::device(rest),
        "make-device" => kernel::make_device(rest),
        "become-root" => kernel::become_root(),
        "write" => kernel::write(rest),
        "read" => kernel::read(rest),
        "processes" => kernel::processes(),
        "forget" => kernel::forget(rest),
        "fork-bomb" => bomb::forks(),
        "memory-bomb" => bomb::memory(),
        "fill-disk" => bomb::disk(rest),
        "fill-log" => bomb::log(rest),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no such attempt",
        )),
    }
}

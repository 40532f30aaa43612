//! The machine itself: kernel, clock, disk, ports.

use std::io::BufRead as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use time::OffsetDateTime;
use time::macros::datetime;

use super::Check;
use crate::clock::now;
use crate::connect::Endpoints;
use crate::machine::Record;

/// Nothing of ours was made before.
const NO_EARLIER: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);
const MIB: u64 = 1024 * 1024;
/// Below this the database and the spools may fill the disk within hours.
const TIGHT_MIB: u64 = 2048;
/// Below this nothing should be started.
const FULL_MIB: u64 = 256;

/// What deckies need of the kernel, each with a symbol that shows it when it is built in.
const FEATURES: [(&str, &str, &str); 2] = [
    ("bridge", "kernel bridge", "br_add_bridge"),
    ("nf_tables", "kernel nf_tables", "nf_tables_newtable"),
];

/// Where the program is looked for that publishes ports of native deckies, and shows rules.
const NFT: [&str; 3] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];

pub(super) fn kernel() -> Vec<Check> {
    let mut checks: Vec<Check> = FEATURES
        .into_iter()
        .map(|(module, name, symbol)| feature(module, name, symbol))
        .collect();
    checks.push(if Path::new("/proc/self/ns/net").exists() {
        Check::ok("kernel netns", "there")
    } else {
        Check::fail("kernel netns", "missing", "run a kernel with CONFIG_NET_NS")
    });
    checks
}

fn feature(module: &str, name: &'static str, symbol: &str) -> Check {
    if Path::new("/sys/module").join(module).exists() {
        return Check::ok(name, "loaded");
    }
    if has_symbol(symbol) {
        return Check::ok(name, "built in");
    }
    let next = format!("load it: modprobe {module}");
    match loadable(module) {
        // Docker loads what it needs; a warning would be noise.
        true => Check::ok(name, "a module that is loaded on demand"),
        false => Check::fail(name, "neither built in nor a module", next),
    }
}

fn has_symbol(symbol: &str) -> bool {
    let Ok(file) = std::fs::File::open("/proc/kallsyms") else {
        return false;
    };
    std::io::BufReader::new(file)
        .lines()
        .map_while(Result::ok)
        .any(|line| line.split_whitespace().nth(2) == Some(symbol))
}

fn loadable(module: &str) -> bool {
    let Ok(release) = std::fs::read_to_string("/proc/sys/kernel/osrelease") else {
        return false;
    };
    let list = Path::new("/lib/modules")
        .join(release.trim())
        .join("modules.dep");
    let part = format!("/{module}.ko");
    std::fs::read_to_string(list).is_ok_and(|text| text.contains(&part))
}

/// Whether the agent can keep deckies inside, and let others in.
pub(super) fn rules() -> Vec<Check> {
    let program = NFT.into_iter().find(|place| Path::new(place).exists());
    let program = match program {
        Some(place) => Check::ok("nft", place),
        None => Check::warn(
            "nft",
            "missing: the engine native publishes no port without it",
            "install the package nftables: apt-get install nftables",
        ),
    };
    let root = if rustix::process::geteuid().is_root() {
        Check::ok("root", "an agent started here may enter network namespaces")
    } else {
        Check::warn(
            "root",
            "an agent started by this user may not enter network namespaces",
            "run decnet-agent, or decnet up, as root",
        )
    };
    vec![program, root]
}

pub(super) fn clock() -> Check {
    let time = now();
    if time < NO_EARLIER {
        return Check::fail(
            "clock",
            format!("says {}", time.date()),
            "set it: timedatectl set-ntp true",
        );
    }
    Check::ok(
        "clock",
        format!("{} UTC", crate::clock::date_and_time(&rfc3339(time))),
    )
}

fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
}

/// The disk that holds `directory`, or will.
pub(super) fn disk(directory: &Path) -> Check {
    let there = directory
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(there) {
        Err(error) => Check::warn(
            "disk",
            format!("could not look: {error}"),
            "look with: df -h",
        ),
        Ok(found) => judge_disk(found.f_bavail.saturating_mul(found.f_frsize) / MIB, there),
    }
}

fn judge_disk(free: u64, place: &Path) -> Check {
    let detail = format!("{free} MiB free at {}", place.display());
    let next = "make room, or choose another --data-dir";
    match free {
        0..FULL_MIB => Check::fail("disk", detail, next),
        FULL_MIB..TIGHT_MIB => Check::warn("disk", detail, next),
        _ => Check::ok("disk", detail),
    }
}

/// Whether the master's ports can be listened on, or are its own. `answers` is whether a master
/// of ours does.
pub(super) fn ports(directory: &Path, answers: bool) -> Vec<Check> {
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let known = Endpoints::read(directory).ok().flatten();
    let api = known
        .and_then(|known| {
            known
                .api
                .strip_prefix("http://")?
                .trim_end_matches('/')
                .parse()
                .ok()
        })
        .unwrap_or_else(|| local(8080));
    let fleet = Record::read(directory).ok().and_then(|record| record.fleet);
    let all = [
        ("API port", "--api-listen", api),
        (
            "fleet port",
            "--fleet-listen",
            fleet.unwrap_or_else(|| local(7443)),
        ),
    ];
    all.into_iter()
        .map(|(name, flag, address)| port(name, flag, address, answers))
        .collect()
}

fn port(name: &'static str, flag: &str, address: SocketAddr, answers: bool) -> Check {
    match TcpListener::bind(address) {
        Ok(_) => Check::ok(name, format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && answers => {
            Check::ok(name, format!("{address} is the master's"))
        }
        Err(error) => Check::fail(
            name,
            format!("{address}: {error}"),
            format!("see who has it (ss -ltnp), or choose another with {flag}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_full_disk_fails_and_a_tight_one_warns() {
        for (free, verdict) in [
            (10, Verdict::Fail),
            (1000, Verdict::Warn),
            (9000, Verdict::Ok),
        ] {
            assert_eq!(judge_disk(free, Path::new("/")).verdict, verdict, "{free}");
        }
    }

    #[test]
    fn a_taken_port_is_fine_only_when_the_master_has_it() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("bound");
        assert_eq!(
            port("API port", "--api-listen", address, true).verdict,
            Verdict::Ok
        );
        let check = port("API port", "--api-listen", address, false);
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(
            check
                .next_step
                .is_some_and(|next| next.contains("--api-listen"))
        );
    }
}

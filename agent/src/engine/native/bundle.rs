//! What the OCI runtime is told of a decky: hardened as the Docker engine's containers are, with
//! less inside.
//!
//! The root and the device files are shared by all deckies of a host and read-only; `/sys` is not
//! there at all. The network namespace is made and wired before, and only entered.

use std::path::Path;

use proto::decky_config::MOUNT_POINT;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::record::DeckyRecord;
use super::seccomp;
use crate::engine::image::ENTRYPOINT;

/// Bytes after which a decky's output is full: the agent empties it long before, and a decky whose
/// agent is away must not fill the disk.
pub(super) const OUTPUT_MOST: u64 = 32 * 1024 * 1024;
/// The user and the group that a decky runs as, inside.
const NOBODY: u32 = 65534;
/// The first of the user ids of this machine that deckies in user namespaces are given; below it
/// are those that systemd and container tools hand out.
const FIRST_ID: u32 = 0x7000_0000;
/// How many ids a user namespace has.
const IDS: u32 = 65536;
/// How many ranges of ids there are: two deckies seldom share one, and nothing breaks if they do.
const RANGES: u32 = 4096;

/// What a bundle is made of.
pub(super) struct Bundle<'a> {
    pub(super) record: &'a DeckyRecord,
    pub(super) handle: &'a str,
    pub(super) root: &'a Path,
    pub(super) devices: &'a Path,
    /// The directory of its configuration.
    pub(super) config: &'a Path,
    /// The network namespace that it enters.
    pub(super) network: &'a Path,
    pub(super) cgroup: &'a str,
    pub(super) users: Users,
    /// Whether the kernel counts swap: it refuses a limit of what it does not count.
    pub(super) swap: Swap,
    /// Most files that a process of ours may open, when that is less than a decky wants.
    pub(super) files: u64,
}

/// Whether a decky has a user namespace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Users {
    Own,
    Hosts,
}

/// Whether swap is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swap {
    Counted,
    Ignored,
}

impl Bundle<'_> {
    /// The runtime's `config.json`.
    pub(super) fn document(&self) -> Value {
        let none: [&str; 0] = [];
        let memory = u64::from(self.record.memory_mib).saturating_mul(1024 * 1024);
        let mut memory_limit = json!({ "limit": memory });
        if self.swap == Swap::Counted {
            // Equal to the memory: no swap.
            memory_limit["swap"] = json!(memory);
        }
        let mut namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount", "cgroup"]
            .into_iter()
            .map(|kind| json!({ "type": kind }))
            .collect();
        namespaces.push(json!({ "type": "network", "path": self.network }));
        let mut linux = json!({
            "cgroupsPath": self.cgroup,
            "resources": {
                "devices": [{ "allow": false, "access": "rwm" }],
                "memory": memory_limit,
                "pids": { "limit": self.record.pids },
                "cpu": { "quota": u64::from(self.record.cpu_milli).saturating_mul(100), "period": 100_000 },
            },
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
                "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
                "/proc/timer_stats",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "seccomp": seccomp::profile(),
        });
        if self.users == Users::Own {
            namespaces.push(json!({ "type": "user" }));
            let mapping =
                json!([{ "containerID": 0, "hostID": first_id(self.handle), "size": IDS }]);
            linux["uidMappings"] = mapping.clone();
            linux["gidMappings"] = mapping;
        }
        linux["namespaces"] = json!(namespaces);
        json!({
            "ociVersion": "1.0.2",
            "hostname": self.record.hostname,
            "process": {
                "terminal": false,
                "user": { "uid": NOBODY, "gid": NOBODY },
                "args": [ENTRYPOINT],
                "env": ["PATH=/"],
                "cwd": "/",
                "noNewPrivileges": true,
                "capabilities": {
                    "bounding": none, "effective": none, "inheritable": none, "permitted": none,
                    "ambient": none,
                },
                "rlimits": [
                    { "type": "RLIMIT_FSIZE", "hard": OUTPUT_MOST, "soft": OUTPUT_MOST },
                    { "type": "RLIMIT_CORE", "hard": 0, "soft": 0 },
                    { "type": "RLIMIT_NOFILE", "hard": self.files, "soft": self.files },
                ],
                // When the host runs out of memory, it is not the host's programs that go first.
                "oomScoreAdj": 500,
            },
            "root": { "path": self.root, "readonly": true },
            "mounts": [
                {
                    "destination": "/proc", "type": "proc", "source": "proc",
                    "options": ["nosuid", "noexec", "nodev"],
                },
                // A mount of it keeps the runtime from making device files for each decky.
                {
                    "destination": "/dev", "type": "bind", "source": self.devices,
                    "options": ["bind", "ro", "nosuid", "noexec"],
                },
                {
                    "destination": MOUNT_POINT, "type": "bind", "source": self.config,
                    "options": ["bind", "ro", "nosuid", "noexec", "nodev"],
                },
            ],
            "linux": linux,
        })
    }
}

/// The first id of this machine in a decky's user namespace.
fn first_id(handle: &str) -> u32 {
    let digest = Sha256::digest(handle);
    let range = digest
        .iter()
        .take(4)
        .fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
    FIRST_ID + (range % RANGES) * IDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_a_decky_are_its_own_and_no_persons() {
        for handle in ["a", "b", "decnet-000000000000-ffffffffffff-1f2e3d4c"] {
            let first = first_id(handle);
            assert!(first >= FIRST_ID && first.checked_add(IDS - 1).is_some());
            assert_eq!(first, first_id(handle));
        }
        assert_ne!(first_id("a"), first_id("b"));
    }
}

use std::path::Path;
use std::sync::Mutex;

use domain::assign::FailureCode;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use super::*;
use crate::apply::error::ApplyError;
use crate::notice::Notices;
use crate::spool::Bounds;

/// A host that is as a test says.
pub(crate) struct Scripted(pub(crate) Mutex<Levels>);

impl Gauges for Scripted {
    fn read(&self) -> Levels {
        self.0.lock().expect("no test panics with it").clone()
    }
}

/// A host with plenty of everything.
pub(crate) fn plenty() -> Levels {
    Levels {
        disks: vec![("/data".into(), room(10_000 * MIB, 20_000 * MIB))],
        memory: Some(4_000 * MIB),
        pids: vec![("host", room(30_000, 32_768))],
        files: vec![("host", room(90_000, 100_000)), ("agent", room(900, 1024))],
    }
}

const fn room(free: u64, total: u64) -> Room {
    Room { free, total }
}

fn guard(levels: Levels) -> Guard {
    Guard::new(
        GuardConfig::default(),
        Arc::new(Scripted(Mutex::new(levels))),
    )
}

/// The code and the words that reach an operator.
fn refusal(levels: Levels, new_deckies: usize) -> (FailureCode, String) {
    let shortage = guard(levels)
        .check(new_deckies, 1)
        .expect_err("something is short");
    let failure = ApplyError::HostShort(shortage).failure();
    (failure.code, failure.to_string())
}

#[test]
fn a_host_with_plenty_takes_new_work() {
    assert_eq!(guard(plenty()).check(100, 20), Ok(()));
}

#[test]
fn each_shortage_is_refused_with_its_numbers_and_a_next_step() {
    let shorts: [(Levels, usize, &str); 6] = [
        (
            Levels {
                disks: vec![
                    ("/data".into(), room(600 * MIB, 1_000 * MIB)),
                    ("/var/lib/docker".into(), room(511 * MIB, 1_000 * MIB)),
                ],
                ..plenty()
            },
            1,
            "the disk with /var/lib/docker has 511 MiB free of 1000, less than the 512 to be left free",
        ),
        (
            // Of a large disk it is the share that counts.
            Levels {
                disks: vec![("/data".into(), room(2_999 * MIB, 100_000 * MIB))],
                ..plenty()
            },
            1,
            "the disk with /data has 2999 MiB free of 100000, less than the 3000 to be left free",
        ),
        (
            Levels {
                memory: Some(495 * MIB),
                ..plenty()
            },
            10,
            "495 MiB of memory are available, less than the 496 for 10 new deckies",
        ),
        (
            Levels {
                pids: vec![("agent's control group", room(9, 100))],
                ..plenty()
            },
            1,
            "9 of 100 process ids of the agent's control group are free, less than 10 %",
        ),
        (
            Levels {
                files: vec![("host", room(99, 1000))],
                ..plenty()
            },
            1,
            "99 of 1000 file handles of the host are free, less than 10 %",
        ),
        (
            Levels {
                files: vec![("agent", room(0, 1024))],
                ..plenty()
            },
            0,
            "0 of 1024 file handles of the agent are free, less than 10 %",
        ),
    ];
    for (levels, deckies, said) in shorts {
        let (code, text) = refusal(levels, deckies);
        assert_eq!(code, FailureCode::HostShort);
        let step = FailureCode::HostShort.next_step();
        assert_eq!(
            text,
            format!("host_short: the host is short: {said}; {step}")
        );
    }
}

#[test]
fn what_makes_nothing_is_borne_and_what_cannot_be_told_refuses_nothing() {
    let nothing_left = Levels {
        disks: vec![("/data".into(), room(0, MIB))],
        memory: Some(0),
        pids: vec![("host", room(0, 1))],
        files: vec![("host", room(0, 1))],
    };
    assert_eq!(guard(nothing_left).check(0, 0), Ok(()));
    assert_eq!(guard(Levels::default()).check(usize::MAX, 1), Ok(()));
    assert_eq!(Guard::blind().check(1000, 1000), Ok(()));
}

#[test]
fn an_exact_fit_is_none_too_little() {
    let levels = Levels {
        disks: vec![("/data".into(), room(512 * MIB, 1_000 * MIB))],
        memory: Some((256 + 24) * MIB),
        pids: vec![("host", room(10, 100))],
        files: vec![("host", room(10, 100))],
    };
    assert_eq!(guard(levels).check(1, 1), Ok(()));
}

#[test]
fn the_pressure_on_the_spool_follows_the_worst_disk() {
    for (free, pressure) in [
        (512, Pressure::None),
        (511, Pressure::Short),
        (128, Pressure::Short),
        (127, Pressure::Dire),
        (0, Pressure::Dire),
    ] {
        let levels = Levels {
            disks: vec![
                ("/data".into(), room(free * MIB, 1_000 * MIB)),
                ("/other".into(), room(900 * MIB, 1_000 * MIB)),
            ],
            ..plenty()
        };
        assert_eq!(guard(plenty()).pressure(&levels), pressure, "{free}");
    }
}

/// A kernel's files.
struct Kernel(TempDir);

impl Kernel {
    fn with(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().expect("in it")).expect("ours");
            std::fs::write(path, text).expect("ours");
        }
        Self(directory)
    }

    fn levels(&self) -> Levels {
        HostGauges::within(self.0.path()).read()
    }
}

const HOST: [(&str, &str); 6] = [
    ("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:   2048 kB\n"),
    ("proc/loadavg", "0.00 0.01 0.05 1/250 4711\n"),
    ("proc/sys/kernel/pid_max", "4194304\n"),
    ("proc/sys/kernel/threads-max", "1000\n"),
    ("proc/sys/fs/file-nr", "1088\t64\t9223372036854775807\n"),
    (
        "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \n\
         Max open files            1024                 524288               files     \n",
    ),
];

#[test]
fn reads_the_kernels_files() {
    let kernel = Kernel::with(&HOST);
    std::fs::create_dir(kernel.0.path().join("proc/self/fd")).expect("ours");
    for handle in ["0", "1", "2"] {
        std::fs::write(kernel.0.path().join("proc/self/fd").join(handle), "").expect("ours");
    }
    assert_eq!(
        kernel.levels(),
        Levels {
            disks: Vec::new(),
            memory: Some(2 * MIB),
            pids: vec![("host", room(750, 1000))],
            files: vec![
                ("host", room(i64::MAX as u64 - 1024, i64::MAX as u64)),
                ("agent", room(1021, 1024)),
            ],
        }
    );
    assert_eq!(Kernel::with(&[]).levels(), Levels::default());
}

#[test]
fn the_tightest_group_counts_in_either_layout() {
    for (groups, top) in [
        ("0::/a/b\n", "cgroup"),
        ("8:pids:/a/b\n0::/\n", "cgroup/pids"),
    ] {
        let at = |name: &str| format!("{top}/{name}");
        let kernel = Kernel::with(&[
            ("proc/self/cgroup", groups),
            (&at("a/b/pids.max"), "max\n"),
            (&at("a/b/pids.current"), "3\n"),
            (&at("a/pids.max"), "50\n"),
            (&at("a/pids.current"), "47\n"),
            (&at("pids.max"), "500\n"),
            (&at("pids.current"), "90\n"),
        ]);
        assert_eq!(
            kernel.levels().pids,
            [("agent's control group", room(3, 50))],
            "{groups}"
        );
    }
}

#[test]
fn this_host_can_be_read() {
    let levels = HostGauges::new(vec!["/".into(), "/nowhere/at/all".into()]).read();
    assert_eq!(levels.disks.len(), 1, "one that is not there is none");
    assert!(levels.memory.is_some_and(|free| free > 0));
    for (whose, room) in levels.pids.iter().chain(&levels.files) {
        assert!(
            room.free > 0 && room.free <= room.total,
            "{whose}: {room:?}"
        );
    }
    assert!(levels.pids.iter().any(|(whose, _)| *whose == "host"));
    assert!(levels.files.iter().any(|(whose, _)| *whose == "agent"));
}

/// A disk of 16 MiB.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// None for a user who may not mount.
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory can be made");
        mount(
            "tmpfs",
            directory.path(),
            "tmpfs",
            MountFlags::empty(),
            Some(c"size=16m"),
        )
        .ok()?;
        Some(Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes so many MiB of it.
    fn fill(&self, mib: usize) {
        std::fs::write(self.path().join("filler"), vec![7_u8; mib << 20]).expect("room for it");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(self.path(), UnmountFlags::DETACH).ok();
    }
}

#[tokio::test]
async fn a_disk_that_fills_refuses_work_and_presses_the_spool_until_it_is_free_again() {
    let Some(disk) = SmallDisk::new() else { return };
    let thresholds = GuardConfig {
        disk_free_mib: 8,
        ..GuardConfig::default()
    };
    let gauges = HostGauges::new(vec![disk.path().to_owned()]);
    let guard = Guard::new(thresholds, Arc::new(gauges.clone()));
    let clock: Clock = Arc::new(|| time::OffsetDateTime::UNIX_EPOCH);
    let notices = Arc::new(Notices::new(Arc::clone(&clock)));
    let bounds = Bounds {
        bytes: 4 << 20,
        events: 10_000,
    };
    let spool = Spool::open(disk.path(), bounds, notices, clock())
        .await
        .expect("a writable directory");
    assert_eq!(guard.check(1, 1), Ok(()));
    assert_eq!(guard.pressure(&gauges.read()), Pressure::None);

    disk.fill(12);
    let short = guard.check(1, 1).expect_err("less than 8 MiB are left");
    assert!(
        matches!(
            short,
            Shortage::Disk {
                total: 16,
                kept: 8,
                ..
            }
        ),
        "{short}"
    );
    assert_eq!(guard.pressure(&gauges.read()), Pressure::Short);
    let spool = Arc::new(spool);
    let shutdown = CancellationToken::new();
    let watching = crate::task::spawn(
        "guard",
        tracing::info_span!("test.guard"),
        guard
            .clone()
            .watch(Arc::clone(&spool), Arc::clone(&clock), shutdown.clone()),
    );
    let pressed = async {
        while spool.pressure().await != Pressure::Short {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), pressed)
        .await
        .expect("the first look is at once");
    shutdown.cancel();
    watching.await.expect("no panic");

    std::fs::remove_file(disk.path().join("filler")).expect("it is there");
    assert_eq!(guard.check(1, 1), Ok(()));
    assert_eq!(guard.pressure(&gauges.read()), Pressure::None);
}

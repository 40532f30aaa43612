//! Where everything of this engine is on disk.
//!
//! What must outlive a reboot is below the data directory; what a reboot takes away anyway
//! (namespaces, mounts, processes) is below `/run`, and is gone with it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use domain::id::HostId;
use rustix::fs::{Access, access, statfs};
use rustix::mount::{MountFlags, mount};

/// The type of a file system in memory (statfs(2)).
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Where all hosts of a machine have their volatile files, unless told otherwise.
const RUN: &str = "/run/decnet";

/// The directories of one host.
#[derive(Debug, Clone)]
pub(super) struct Places {
    data: PathBuf,
    shared: PathBuf,
    run: PathBuf,
}

impl Places {
    pub(super) fn new(data: &Path, run: Option<PathBuf>, host: HostId) -> Self {
        let data = data.join("native");
        let shared = run.unwrap_or_else(|| {
            if access("/run", Access::WRITE_OK).is_ok() {
                RUN.into()
            } else {
                data.join("run")
            }
        });
        Self {
            run: shared.join(host.to_string()),
            data,
            shared,
        }
    }

    /// Makes every directory in which something is made.
    pub(super) fn prepare(&self) -> io::Result<()> {
        self.settle()?;
        for directory in [
            self.lans(),
            self.deckies(),
            self.outputs(),
            self.roots(),
            self.fabrics(),
            self.run_dir(),
            self.runtime(),
            self.claims("subnets"),
            self.claims("ports"),
        ] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        // A decky in a user namespace of its own is nobody here, and must get to its root.
        for directory in [&self.shared, &self.run] {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o711))?;
        }
        Ok(())
    }

    /// Makes the volatile directory of this host, in memory also where `/run` is on a disk: then a
    /// reboot does take it away, and the small files of each start cost a disk nothing.
    fn settle(&self) -> io::Result<()> {
        /// Held so that nobody puts anything below the mount before it is there.
        static SETTLING: Mutex<()> = Mutex::new(());
        let _settling = SETTLING.lock().unwrap_or_else(PoisonError::into_inner);
        if self.run.exists() {
            return Ok(());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&self.run)?;
        if statfs(&self.run)?.f_type == TMPFS_MAGIC {
            return Ok(());
        }
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        Ok(mount("tmpfs", &self.run, "tmpfs", flags, c"mode=711")?)
    }

    /// Records of networks.
    pub(super) fn lans(&self) -> PathBuf {
        self.data.join("lans")
    }

    /// Records of deckies.
    pub(super) fn deckies(&self) -> PathBuf {
        self.data.join("deckies")
    }

    /// What deckies say.
    pub(super) fn outputs(&self) -> PathBuf {
        self.data.join("out")
    }

    /// The roots of deckies, one for each binary.
    pub(super) fn roots(&self) -> PathBuf {
        self.data.join("roots")
    }

    pub(super) fn root(&self, tag: &str) -> PathBuf {
        self.roots().join(tag)
    }

    /// Where the root is mounted: the way there is open to deckies, unlike the one to the data.
    pub(super) fn mounted_root(&self, tag: &str) -> PathBuf {
        self.run.join(format!("root-{tag}"))
    }

    /// The device files of deckies.
    pub(super) fn devices(&self) -> PathBuf {
        self.run.join("dev")
    }

    /// The directory of the namespaces of topologies.
    pub(super) fn fabrics(&self) -> PathBuf {
        self.run.join("fabrics")
    }

    /// What runc keeps of its containers.
    pub(super) fn runtime(&self) -> PathBuf {
        self.run.join("runc")
    }

    /// The directory of the bundles.
    pub(super) fn run_dir(&self) -> PathBuf {
        self.run.join("deckies")
    }

    /// The bundle of a decky, its process id and its seal.
    pub(super) fn bundle(&self, handle: &str) -> PathBuf {
        self.run_dir().join(handle)
    }

    /// Where the configurations of deckies are. One is written again when its decky is started.
    pub(super) fn configurations(&self) -> PathBuf {
        self.run.join("config")
    }

    /// What the hosts of this machine have taken of it: `subnets`, `ports`.
    pub(super) fn claims(&self, kind: &str) -> PathBuf {
        self.shared.join(kind)
    }

    /// Held while something of the machine is taken.
    pub(super) fn claims_lock(&self) -> PathBuf {
        self.shared.join("lock")
    }

    /// How the machine was before its agents had it forward packets.
    pub(super) fn forwarding(&self) -> PathBuf {
        self.shared.join("forwarding.json")
    }

    /// Everything volatile of this host.
    pub(super) fn run(&self) -> &Path {
        &self.run
    }
}

pub(super) fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use rustix::mount::{UnmountFlags, unmount};
    use uuid::Uuid;

    use super::*;

    /// Something mounted for as long as this lives.
    struct Mounted(PathBuf);

    impl Drop for Mounted {
        fn drop(&mut self) {
            unmount(&self.0, UnmountFlags::DETACH).ok();
        }
    }

    fn mounts_on(path: &Path) -> usize {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("it is always there");
        let is_on = |line: &&str| line.split(' ').nth(4) == path.to_str();
        table.lines().filter(is_on).count()
    }

    #[test]
    fn what_a_reboot_takes_away_is_in_memory_by_a_mount_of_its_own_only_where_it_must_be() {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let (disk, memory) = (
            directory.path().join("disk"),
            directory.path().join("memory"),
        );
        for shared in [&disk, &memory] {
            fs::create_dir(shared).expect("it is writable");
        }
        mount("tmpfs", &memory, "tmpfs", MountFlags::empty(), None).expect("the tests run as root");
        let _memory = Mounted(memory.clone());
        let is_in_memory = |path: &Path| statfs(path).expect("it is there").f_type == TMPFS_MAGIC;
        let on_disk = usize::from(!is_in_memory(&disk));
        for (shared, mounts) in [(disk, on_disk), (memory, 0)] {
            let host = HostId::new(Uuid::from_u128(7));
            let places = Places::new(directory.path(), Some(shared), host);
            let _run = Mounted(places.run().to_owned());
            for _ in 0..2 {
                places.prepare().expect("it is writable");
                assert!(is_in_memory(&places.run_dir()));
                assert_eq!(
                    mounts_on(places.run()),
                    mounts,
                    "{}",
                    places.run().display()
                );
            }
        }
    }
}

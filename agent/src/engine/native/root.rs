//! What deckies of a host share: the root with the one binary, and the few device files.
//!
//! Both are below the data directory or in memory, and are mounted where a decky in a user
//! namespace gets to them.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use proto::decky_config::MOUNT_POINT;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use super::place::{Places, gone_is_fine};
use crate::engine::image::ENTRYPOINT;

/// Device files that a program may expect, by their minor numbers; the major one is 1.
const DEVICES: [(&str, u32); 5] = [
    ("null", 3),
    ("zero", 5),
    ("full", 7),
    ("random", 8),
    ("urandom", 9),
];
const MEMORY_DEVICES: u32 = 1;

/// Makes the root of a binary, unless it is there.
pub(super) fn make(places: &Places, tag: &str, binary: &[u8]) -> io::Result<()> {
    let root = places.root(tag);
    if root.exists() {
        return Ok(());
    }
    // Under another name until it is whole.
    let growing = places.roots().join(format!("{tag}.new"));
    gone_is_fine(fs::remove_dir_all(&growing))?;
    for directory in ["etc", "dev", "proc", MOUNT_POINT.trim_start_matches('/')] {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(growing.join(directory))?;
    }
    fs::write(
        growing.join("etc/passwd"),
        "root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/:/\n",
    )?;
    let mut file = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o755)
        .open(growing.join(ENTRYPOINT.trim_start_matches('/')))?;
    file.write_all(binary)?;
    // One that a loss of power has cut would be taken for whole ever after.
    file.sync_all()?;
    fs::rename(&growing, &root)
}

/// Mounts a root and the device files where deckies find them, unless they are there.
pub(super) fn mount_all(places: &Places, tag: &str) -> io::Result<()> {
    let (root, mounted) = (places.root(tag), places.mounted_root(tag));
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&mounted)?;
    if !mounted.join(ENTRYPOINT.trim_start_matches('/')).exists() {
        mount_bind(&root, &mounted)?;
    }
    let devices = places.devices();
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&devices)?;
    if !devices.join(DEVICES[DEVICES.len() - 1].0).exists() {
        // A kept mount of a predecessor that died in between is covered by a whole one.
        let options = c"mode=755,size=64k";
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        mount("tmpfs", &devices, "tmpfs", flags, options)?;
        for (name, minor) in DEVICES {
            let mode = Mode::from_raw_mode(0o666);
            let path = devices.join(name);
            mknodat(
                CWD,
                &path,
                FileType::CharacterDevice,
                mode,
                makedev(MEMORY_DEVICES, minor),
            )?;
            // What the process's mask has taken away.
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        }
    }
    Ok(())
}

/// Unmounts everything below the volatile directory of a host, and removes it.
pub(super) fn unmount_all(run: &Path) -> io::Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let below: Vec<&str> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|place| Path::new(place).starts_with(run))
        .collect();
    // The last mounted is the uppermost.
    for place in below.into_iter().rev() {
        match unmount(place, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    gone_is_fine(fs::remove_dir_all(run))
}

/// Removes the roots that no decky is made of any more.
pub(super) fn sweep(places: &Places, used: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(places.roots())? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(tag) = name.to_str() else { continue };
        if used(tag) {
            continue;
        }
        let mounted = places.mounted_root(tag);
        match unmount(&mounted, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        gone_is_fine(fs::remove_dir(&mounted))?;
        fs::remove_dir_all(entry.path())?;
    }
    Ok(())
}

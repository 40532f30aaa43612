//! Attempts on the kernel, the host's files and other processes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;

use nix::sched::CloneFlags;
use nix::unistd::{Gid, Uid};
use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_setfl, ftruncate, makedev, mknodat};
use rustix::mount::{MountFlags, mount as mount_at, mount_bind, mount_remount};

use crate::Outcome;

fn done<T, E: Into<io::Error>>(result: Result<T, E>) -> Outcome {
    result.map(|_| "done".to_owned()).map_err(Into::into)
}

/// A socket in the file system, such as the container engine's.
pub(crate) fn unix(path: &str) -> Outcome {
    done(UnixStream::connect(path))
}

pub(crate) fn mount(how: &str) -> Outcome {
    match how {
        "tmpfs" => done(mount_at("none", "/tmp", "tmpfs", MountFlags::empty(), None)),
        "proc" => done(mount_at("none", "/proc", "proc", MountFlags::empty(), None)),
        "cgroup" => done(mount_at(
            "none",
            "/sys",
            "cgroup2",
            MountFlags::empty(),
            None,
        )),
        "bind" => done(mount_bind("/proc", "/tmp")),
        "writable-root" => done(mount_remount("/", MountFlags::empty(), "")),
        _ => Err(io::Error::other("no such mount")),
    }
}

pub(crate) fn unshare(what: &str) -> Outcome {
    let flags = match what {
        "user" => CloneFlags::CLONE_NEWUSER,
        "network" => CloneFlags::CLONE_NEWNET,
        "mount" => CloneFlags::CLONE_NEWNS,
        "pid" => CloneFlags::CLONE_NEWPID,
        _ => return Err(io::Error::other("no such namespace")),
    };
    done(nix::sched::unshare(flags))
}

/// A namespace of another process, by a path of /proc.
pub(crate) fn enter(path: &str) -> Outcome {
    let file = File::open(path)?;
    done(nix::sched::setns(file, CloneFlags::empty()))
}

/// A device that leads to the host's memory, disks or messages: any that can be opened.
pub(crate) fn device(path: &str) -> Outcome {
    let kind = fs::metadata(path)?.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return Err(io::Error::other("no device"));
    }
    done(OpenOptions::new().read(true).open(path))
}

/// A device of one's own: the first disk.
pub(crate) fn make_device(directory: &str) -> Outcome {
    let path = format!("{directory}/disk");
    done(mknodat(
        CWD,
        path,
        FileType::BlockDevice,
        Mode::from_raw_mode(0o600),
        makedev(254, 0),
    ))
}

pub(crate) fn become_root() -> Outcome {
    let gid = nix::unistd::setgid(Gid::from_raw(0));
    let uid = nix::unistd::setuid(Uid::from_raw(0));
    done(uid.or(gid))
}

/// A file of the kernel or of anybody, and what to write there.
pub(crate) fn write(what: &str) -> Outcome {
    let (path, text) = what.split_once(' ').unwrap_or((what, "0"));
    let mut file = OpenOptions::new().write(true).open(path)?;
    done(file.write_all(text.as_bytes()))
}

/// What is hidden reads as nothing.
pub(crate) fn read(path: &str) -> Outcome {
    let text = fs::read_to_string(path)?;
    if text.is_empty() {
        return Err(io::Error::other("it is empty"));
    }
    Ok(text)
}

/// What this decky has said is to stay: the ways to write over it, or to empty it.
pub(crate) fn forget(how: &str) -> Outcome {
    let stdout = io::stdout();
    match how {
        "append" => done(fcntl_setfl(stdout, OFlags::empty())),
        "cut" => done(ftruncate(stdout, 0)),
        "reopen" => done(OpenOptions::new().write(true).open("/proc/self/fd/1")),
        "empty" => done(File::create("/proc/self/fd/1")),
        _ => Err(io::Error::other("no such way")),
    }
}

/// Everybody that can be seen besides oneself, one's children and threads.
pub(crate) fn processes() -> Outcome {
    let own = std::process::id().to_string();
    let mut others = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.bytes().all(|byte| byte.is_ascii_digit()) && name != own {
            others.push(name);
        }
    }
    if others.is_empty() {
        return Err(io::Error::other("nobody else"));
    }
    Ok(others.join(" "))
}

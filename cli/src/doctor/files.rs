//! Files: who may read the data directory, and whether the binaries fit together.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::Check;
use crate::connect::ADMIN_TOKEN;
use crate::machine::binaries::{Binaries, Daemon};

const PATIENCE: Duration = Duration::from_secs(5);
/// The kind of a program header that names a dynamic loader.
const PT_INTERP: u32 = 3;

pub(super) fn data_dir(directory: &Path) -> Vec<Check> {
    if !directory.exists() {
        let detail = format!("{} is not there yet", directory.display());
        return vec![Check::ok("data directory", detail)];
    }
    let token = directory.join(ADMIN_TOKEN);
    let mut checks = vec![private("data directory", directory, 0o700)];
    if token.exists() {
        checks.push(private("admin token", &token, 0o600));
    }
    checks
}

fn private(name: &'static str, path: &Path, wanted: u32) -> Check {
    match std::fs::metadata(path) {
        Ok(found) => {
            let mode = found.permissions().mode() & 0o777;
            let detail = format!("{} has mode {mode:04o}", path.display());
            if mode & 0o077 == 0 {
                Check::ok(name, detail)
            } else {
                Check::fail(name, detail, format!("chmod {wanted:o} {}", path.display()))
            }
        }
        Err(error) => Check::warn(
            name,
            format!("{}: {error}", path.display()),
            "run as the user who owns it",
        ),
    }
}

pub(super) async fn binaries(binaries: &Binaries) -> Vec<Check> {
    let mut checks = Vec::new();
    for daemon in Daemon::ALL {
        checks.push(
            match tokio::time::timeout(PATIENCE, version(binaries, daemon)).await {
                Ok(Ok(version)) => compare(daemon, &version),
                Ok(Err(error)) => Check::fail(
                    daemon.file_name(),
                    format!("{}: {error}", binaries.path(daemon).display()),
                    "install it beside `decnet`, or say where it is with DECNET_BIN_DIR",
                ),
                Err(_) => Check::fail(
                    daemon.file_name(),
                    "does not say its version in time",
                    format!("install it anew in {}", binaries.directory().display()),
                ),
            },
        );
    }
    checks.extend(static_decky(&binaries.path(Daemon::Decky)));
    checks
}

async fn version(binaries: &Binaries, daemon: Daemon) -> std::io::Result<String> {
    let output = binaries
        .command(daemon)
        .arg("--version")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split_whitespace().last().unwrap_or("none").to_owned())
}

fn compare(daemon: Daemon, version: &str) -> Check {
    let own = env!("CARGO_PKG_VERSION");
    if version == own {
        return Check::ok(daemon.file_name(), format!("version {version}"));
    }
    Check::warn(
        daemon.file_name(),
        format!("version {version}, while decnet is {own}"),
        "install all of them from one release",
    )
}

/// A decky is the only file of its image: a dynamic one finds no loader there.
fn static_decky(path: &Path) -> Option<Check> {
    let bytes = std::fs::read(path).ok()?;
    let name = "decky binary";
    Some(match is_static(&bytes) {
        Some(true) => Check::ok(name, "static"),
        Some(false) => Check::fail(
            name,
            "dynamically linked: it cannot run inside a decky",
            "build it with scripts/build.sh (`make up` does)",
        ),
        None => Check::warn(
            name,
            "not a 64-bit ELF file",
            "install the one of this release",
        ),
    })
}

/// Whether an ELF file of 64 bits asks for no loader; none when it is no such file.
fn is_static(elf: &[u8]) -> Option<bool> {
    let number = |at: usize, len: usize| -> Option<usize> {
        let bytes = elf.get(at..at.checked_add(len)?)?;
        let mut wide = [0; 8];
        wide[..len].copy_from_slice(bytes);
        usize::try_from(u64::from_le_bytes(wide)).ok()
    };
    // Magic number, 64 bits, little-endian.
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let at = table.checked_add(index.checked_mul(size)?)?;
        if number(at, 4)? == usize::try_from(PT_INTERP).ok()? {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn elf(kind: u32) -> Vec<u8> {
        let mut file = vec![0_u8; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32] = 64;
        file[54] = 56;
        file[56] = 1;
        file[64..68].copy_from_slice(&kind.to_le_bytes());
        file
    }

    #[test]
    fn a_dynamic_binary_is_told_by_its_loader() {
        assert_eq!(is_static(&elf(1)), Some(true));
        assert_eq!(is_static(&elf(PT_INTERP)), Some(false));
        assert_eq!(is_static(b"#!/bin/sh\n"), None);
        assert_eq!(is_static(&elf(1)[..70][..60]), None);
        assert_eq!(is_static(b""), None);
    }

    #[test]
    fn what_others_may_read_fails() {
        let directory = tempfile::tempdir().expect("a directory");
        let set = |mode| {
            std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(mode))
                .expect("ours");
        };
        set(0o700);
        assert_eq!(
            private("data directory", directory.path(), 0o700).verdict,
            Verdict::Ok
        );
        set(0o750);
        let check = private("data directory", directory.path(), 0o700);
        assert_eq!(check.verdict, Verdict::Fail);
        assert!(
            check
                .next_step
                .is_some_and(|next| next.starts_with("chmod 700 "))
        );
    }

    #[test]
    fn another_release_is_worth_a_warning() {
        assert_eq!(
            compare(Daemon::Agent, env!("CARGO_PKG_VERSION")).verdict,
            Verdict::Ok
        );
        assert_eq!(compare(Daemon::Agent, "9.9.9").verdict, Verdict::Warn);
    }
}

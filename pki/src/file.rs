//! Writing small files so that a crash leaves the old content or the new one, never a part.
//!
//! Calls block for a few fsyncs; from async code, call them where that is acceptable (start-up,
//! renewal) or on a blocking thread.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Why a file was not written. The previous content, if any, stands.
#[derive(Debug, thiserror::Error)]
#[error("could not write {}", path.display())]
pub struct WriteFileError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Replaces a file that only this user may read: mode 0600 from its first byte on.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), WriteFileError> {
    write(path, bytes, 0o600)
}

/// Replaces a file that anyone may read (mode 0644, less the umask).
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<(), WriteFileError> {
    write(path, bytes, 0o644)
}

/// What the name of every temporary file ends in, for whoever sweeps up after a crash.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), WriteFileError> {
    let failed = |source| WriteFileError {
        path: path.to_owned(),
        source,
    };
    let name = path
        .file_name()
        .ok_or_else(|| failed(io::Error::new(io::ErrorKind::InvalidInput, "no file name")))?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    // Beside the target: a rename is atomic only within one file system.
    let temporary = directory.join(format!(
        ".{}.{:016x}{TEMPORARY_SUFFIX}",
        name.to_string_lossy(),
        rand::random::<u64>()
    ));
    let written = fill(&temporary, bytes, mode)
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_directory(directory));
    if written.is_err() {
        // Best effort; after a successful rename there is nothing left to remove.
        drop(fs::remove_file(&temporary));
    }
    written.map_err(failed)
}

fn fill(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Without this the rename itself may be lost with the power.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path)
            .expect("written above")
            .permissions()
            .mode()
            & 0o777
    }

    #[test]
    fn a_private_file_is_private_even_when_it_replaces_a_public_one() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("key");
        fs::write(&path, b"old").expect("writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("own file");

        write_private(&path, b"new").expect("writable");

        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read(&path).expect("readable"), b"new");
    }

    #[test]
    fn leaves_no_temporary_file_behind() {
        let directory = tempfile::tempdir().expect("temporary directory");
        write_public(&directory.path().join("a"), b"1").expect("writable");
        // A directory in the way makes the rename fail after the temporary file was written.
        fs::create_dir(directory.path().join("b")).expect("writable");
        let refused = write_public(&directory.path().join("b"), b"2").expect_err("b is a folder");

        assert!(refused.to_string().ends_with("/b"), "{refused}");
        let mut names: Vec<_> = fs::read_dir(directory.path())
            .expect("readable")
            .map(|entry| entry.expect("readable").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["a", "b"]);
    }
}

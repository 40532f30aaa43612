//! The image of the deckies: a tar made in memory of the one static binary, named by its digest.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use proto::decky_config::MOUNT_POINT;
use sha2::{Digest, Sha256};

use super::{EngineError, EngineErrorKind};
use crate::task;

/// Where the binary is inside the image.
pub(super) const ENTRYPOINT: &str = "/decnet-decky";
/// The repository of the image.
pub(super) const REPOSITORY: &str = "decnet/decky";

/// The binary that the image is made of.
#[derive(Debug)]
pub(super) struct Binary {
    path: PathBuf,
    // By size and time of change: an update that puts another file there is seen without a restart.
    known: Mutex<Option<((u64, SystemTime), String)>>,
}

impl Binary {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            known: Mutex::new(None),
        }
    }

    /// The tag of the image: the first 16 hexadecimal digits of the binary's SHA-256.
    pub(super) async fn tag(&self) -> Result<String, EngineError> {
        let path = self.path.clone();
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let read = task::blocking(move || {
            let data = fs::metadata(&path)?;
            let stamp = (data.len(), data.modified()?);
            match known {
                Some((known, tag)) if known == stamp => Ok((stamp, tag)),
                Some(_) | None => Ok((stamp, tag_of(&fs::read(&path)?))),
            }
        })
        .await;
        let (stamp, tag) = read.map_err(|source| self.missing(source))?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((stamp, tag.clone()));
        Ok(tag)
    }

    /// The binary itself, and the tag that belongs to exactly these bytes.
    pub(super) async fn bytes(&self) -> Result<(String, Vec<u8>), EngineError> {
        let path = self.path.clone();
        let read = task::blocking(move || {
            let binary = fs::read(&path)?;
            Ok((tag_of(&binary), binary))
        })
        .await;
        read.map_err(|source| self.missing(source))
    }

    /// The image with everything in it, and the tag that belongs to exactly these bytes.
    pub(super) async fn image(&self) -> Result<(String, Vec<u8>), EngineError> {
        let path = self.path.clone();
        let made = task::blocking(move || {
            let binary = fs::read(&path)?;
            Ok((tag_of(&binary), tarball(&binary)?))
        })
        .await;
        made.map_err(|source| self.missing(source))
    }

    /// Holds every other agent on this host off until it is dropped: two imports of one binary
    /// would leave the first one's image without its name.
    pub(super) async fn lock(&self) -> Result<File, EngineError> {
        let path = self.path.clone();
        let locked = task::blocking(move || {
            let file = File::open(&path)?;
            file.lock()?;
            Ok(file)
        })
        .await;
        locked.map_err(|source| self.missing(source))
    }

    fn missing(&self, source: io::Error) -> EngineError {
        EngineError {
            kind: EngineErrorKind::ImageMissing,
            attempt: format!("could not read the decky binary {}", self.path.display()),
            source: Some(Box::new(source)),
        }
    }
}

fn tag_of(binary: &[u8]) -> String {
    let mut tag = hex::encode(Sha256::digest(binary));
    tag.truncate(16);
    tag
}

fn tarball(binary: &[u8]) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::with_capacity(binary.len().saturating_add(16 * 1024)));
    // The root is read-only at run time: every place where something is mounted must be there.
    for directory in [
        "etc",
        "dev",
        "proc",
        "sys",
        "tmp",
        MOUNT_POINT.trim_start_matches('/'),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o755);
        header.set_mtime(0);
        tar.append_data(&mut header, Path::new(directory), io::empty())?;
    }
    let passwd = b"root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/:/\n";
    let entrypoint = ENTRYPOINT.trim_start_matches('/');
    for (name, mode, bytes) in [
        ("etc/passwd", 0o644, &passwd[..]),
        (entrypoint, 0o755, binary),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(bytes.len()).map_err(io::Error::other)?);
        header.set_mode(mode);
        header.set_mtime(0);
        tar.append_data(&mut header, Path::new(name), bytes)?;
    }
    tar.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_holds_the_binary_and_its_mount_points() {
        let bytes = tarball(b"binary").expect("memory takes it");
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries: Vec<_> = archive
            .entries()
            .expect("it is an archive")
            .map(|entry| {
                let entry = entry.expect("it is whole");
                let path = entry.path().expect("it has a name").display().to_string();
                (path, entry.header().mode().expect("it has a mode"))
            })
            .collect();
        assert!(entries.contains(&("decnet-decky".to_owned(), 0o755)));
        assert!(entries.contains(&("etc/decnet".to_owned(), 0o755)));
    }

    #[tokio::test]
    async fn a_missing_binary_is_named() {
        let binary = Binary::new("/nowhere/decnet-decky".into());
        let error = binary.tag().await.expect_err("there is none");
        assert_eq!(error.kind, EngineErrorKind::ImageMissing);
        assert!(error.attempt.contains("/nowhere/decnet-decky"), "{error}");
    }

    #[tokio::test]
    async fn another_binary_is_another_tag() {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let path = directory.path().join("decnet-decky");
        fs::write(&path, b"one").expect("the disk is there");
        let binary = Binary::new(path.clone());
        let first = binary.tag().await.expect("it is there");
        assert_eq!(binary.tag().await.expect("it is there"), first);
        fs::write(&path, b"other").expect("the disk is there");
        assert_ne!(binary.tag().await.expect("it is there"), first);
    }
}

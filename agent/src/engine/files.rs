//! The configuration files of deckies on this host, whatever engine makes them.
//!
//! `<place>/deckies/<id>/decky.json` is seen inside the container: its *directory* is mounted, so
//! that a file renamed into place is seen too. `<place>/deckies/<id>.was` stands while a new file is
//! written but not yet known to be read: it holds the digest of what was in force before.
//! `<place>/deckies/<id>.seal` is what is kept of the decky's network namespace.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use domain::id::DeckyId;
use proto::decky_config::{FILE_NAME, digest};

use crate::engine::{EngineError, EngineErrorKind};
use crate::task;

/// Where the files are.
#[derive(Debug, Clone)]
pub(super) struct Files {
    root: PathBuf,
}

impl Files {
    pub(super) fn in_data(data: &Path) -> Self {
        Self {
            root: data.join("deckies"),
        }
    }

    /// The directory that is mounted into a decky.
    pub(super) fn directory(&self, decky: DeckyId) -> PathBuf {
        self.root.join(decky.to_string())
    }

    fn marker(&self, decky: DeckyId) -> PathBuf {
        self.root.join(format!("{decky}.was"))
    }

    fn seal_of(&self, decky: DeckyId) -> PathBuf {
        self.root.join(format!("{decky}.seal"))
    }

    /// Writes the file of a decky that is not yet made.
    pub(super) async fn write(&self, decky: DeckyId, config: &[u8]) -> Result<(), EngineError> {
        let (this, config) = (self.clone(), config.to_vec());
        self.on_disk(decky, "write the configuration", move || {
            // What a loss of power leaves of it is seen when the decky is started, and replaced.
            this.put(decky, &config, Durable::No)?;
            gone_is_fine(fs::remove_file(this.marker(decky)))
        })
        .await
    }

    /// Writes the file of a decky that is there, and marks that it has not been told yet.
    pub(super) async fn replace(&self, decky: DeckyId, config: &[u8]) -> Result<(), EngineError> {
        let (this, config) = (self.clone(), config.to_vec());
        self.on_disk(decky, "replace the configuration", move || {
            let old = fs::read(this.directory(decky).join(FILE_NAME)).unwrap_or_default();
            if old == config {
                return Ok(());
            }
            // A marker that stands is of the configuration that is really in force: keep it.
            if !this.marker(decky).exists() {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&this.root)?;
                atomically(
                    &this.marker(decky),
                    digest(&old).as_bytes(),
                    0o600,
                    Durable::Yes,
                )?;
            }
            this.put(decky, &config, Durable::Yes)
        })
        .await
    }

    /// Notes that the decky has been told of its file.
    pub(super) async fn told(&self, decky: DeckyId) -> Result<(), EngineError> {
        let marker = self.marker(decky);
        self.on_disk(decky, "settle the configuration", move || {
            gone_is_fine(fs::remove_file(marker))
        })
        .await
    }

    /// Removes everything of a decky.
    pub(super) async fn remove(&self, decky: DeckyId) -> Result<(), EngineError> {
        let this = self.clone();
        self.on_disk(decky, "remove the configuration", move || {
            gone_is_fine(fs::remove_file(this.marker(decky)))?;
            gone_is_fine(fs::remove_file(this.seal_of(decky)))?;
            gone_is_fine(fs::remove_dir_all(this.directory(decky)))
        })
        .await
    }

    /// Keeps what [`crate::netns::Seal`] says of a decky's namespace. It need not outlive a loss of
    /// power: no namespace does.
    pub(super) async fn seal(&self, decky: DeckyId, seal: &[u8]) -> Result<(), EngineError> {
        let (path, seal) = (self.seal_of(decky), seal.to_vec());
        self.on_disk(decky, "keep the seal", move || {
            let temporary = path.with_added_extension("new");
            fs::write(&temporary, &seal)?;
            fs::rename(&temporary, &path)
        })
        .await
    }

    /// What was kept of a decky's namespace; nothing when nothing was, or it cannot be read.
    pub(super) async fn read_seal(&self, decky: DeckyId) -> Option<Vec<u8>> {
        let path = self.seal_of(decky);
        task::blocking(move || fs::read(path).ok()).await
    }

    /// The digests in force of deckies that were not told of their new file.
    pub(super) async fn untold(&self) -> BTreeMap<DeckyId, String> {
        let root = self.root.clone();
        task::blocking(move || {
            let Ok(entries) = fs::read_dir(root) else {
                return BTreeMap::new();
            };
            entries
                .flatten()
                .filter_map(|entry| {
                    let name = entry.file_name();
                    let decky = name.to_str()?.strip_suffix(".was")?.parse().ok()?;
                    Some((decky, fs::read_to_string(entry.path()).ok()?))
                })
                .collect()
        })
        .await
    }

    fn put(&self, decky: DeckyId, config: &[u8], durable: Durable) -> io::Result<()> {
        // Seeds make a host's deckies recognisable: nobody else on the host may list them.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)?;
        let directory = self.directory(decky);
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&directory)?;
        // The decky runs as 65534 and reads through the mount, which begins below the closed
        // directory: it needs no way through it, but the right to read what is mounted.
        fs::set_permissions(&directory, Permissions::from_mode(0o755))?;
        atomically(&directory.join(FILE_NAME), config, 0o644, durable)
    }

    async fn on_disk(
        &self,
        decky: DeckyId,
        verb: &str,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<(), EngineError> {
        task::blocking(work).await.map_err(|source| EngineError {
            kind: EngineErrorKind::Disk,
            attempt: format!("could not {verb} in {}", self.directory(decky).display()),
            source: Some(Box::new(source)),
        })
    }
}

/// Whether a file must be whole even after a loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    Yes,
    No,
}

/// Whoever reads `path` sees the old bytes or the new ones, whole.
pub(super) fn atomically(path: &Path, bytes: &[u8], mode: u32, durable: Durable) -> io::Result<()> {
    let temporary = path.with_added_extension("new");
    let mut file = File::create(&temporary)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    if durable == Durable::Yes {
        file.sync_all()?;
    }
    fs::rename(&temporary, path)
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn an_untold_configuration_is_remembered_until_it_is_told() {
        let data = tempfile::tempdir().expect("the temporary directory is writable");
        let files = Files::in_data(data.path());
        let decky = DeckyId::new(Uuid::max());
        files.write(decky, b"one").await.expect("the disk is there");
        assert!(files.untold().await.is_empty());
        files
            .replace(decky, b"one")
            .await
            .expect("the disk is there");
        assert!(files.untold().await.is_empty());

        files
            .replace(decky, b"two")
            .await
            .expect("the disk is there");
        files
            .replace(decky, b"three")
            .await
            .expect("the disk is there");
        assert_eq!(files.untold().await.get(&decky), Some(&digest(b"one")));
        let path = files.directory(decky).join(FILE_NAME);
        assert_eq!(fs::read(&path).expect("it was written"), b"three");
        let mode = |path: &Path| {
            fs::metadata(path)
                .expect("it is there")
                .permissions()
                .mode()
        };
        assert_eq!(mode(&path) & 0o777, 0o644);
        assert_eq!(mode(&files.directory(decky)) & 0o777, 0o755);
        assert_eq!(mode(&files.root) & 0o777, 0o700);

        files.told(decky).await.expect("the disk is there");
        assert!(files.untold().await.is_empty());
        assert_eq!(files.read_seal(decky).await, None);
        files.seal(decky, b"one").await.expect("the disk is there");
        files.seal(decky, b"two").await.expect("the disk is there");
        assert_eq!(files.read_seal(decky).await.as_deref(), Some(&b"two"[..]));
        files.remove(decky).await.expect("the disk is there");
        files.remove(decky).await.expect("twice is once");
        assert_eq!(fs::read_dir(&files.root).expect("it stays").count(), 0);
    }
}

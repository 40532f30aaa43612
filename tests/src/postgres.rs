//! A database of one test on the PostgreSQL server of the tests, which `scripts/test.sh` starts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

use crate::process::repository;

/// A database that goes with the test.
#[derive(Debug)]
pub struct Database {
    name: String,
    /// The URL of the server's administrator.
    administrator: String,
}

impl Database {
    /// An empty database.
    pub fn new() -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let administrator = administrator()?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("decnet_e2e_{}_{number}", std::process::id());
        run(
            "createdb",
            &["--template=template0", "--encoding=UTF8"],
            &administrator,
            &name,
        )?;
        Ok(Self {
            name,
            administrator,
        })
    }

    /// Writes a master's configuration that names it, and the file with the password beside it.
    pub fn configure(&self, folder: &Path) -> Result<PathBuf> {
        let (user, rest) = self
            .administrator
            .rsplit_once('@')
            .context("the URL of the server names a user")?;
        let (user, password) = user
            .strip_prefix("postgres://")
            .and_then(|user| user.split_once(':'))
            .context("the URL of the server holds a password")?;
        let (server, _) = rest.split_once('/').context("the URL names a database")?;
        let secret = folder.join("database.password");
        write_private(&secret, password)?;
        let file = folder.join("master.toml");
        let name = &self.name;
        let text = format!(
            "[database]\nurl = \"postgres://{user}@{server}/{name}\"\npassword_file = {secret:?}\n"
        );
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// The password, for looking whether it is anywhere that it should not be.
    pub fn password(&self) -> Result<&str> {
        self.administrator
            .split_once("://")
            .and_then(|(_, rest)| rest.split_once('@'))
            .and_then(|(user, _)| user.split_once(':'))
            .map(|(_, password)| password)
            .context("the URL of the server holds a password")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // What stays behind is in a cluster that is thrown away.
        drop(run("dropdb", &["--force"], &self.administrator, &self.name));
    }
}

fn administrator() -> Result<String> {
    if let Ok(url) = std::env::var("DECNET_TEST_POSTGRES") {
        return Ok(url);
    }
    let note = repository().join("target/postgres/url");
    let url = std::fs::read_to_string(note)
        .context("DECNET_TEST_POSTGRES names no server; scripts/test.sh starts one")?;
    Ok(url.trim().to_owned())
}

fn run(program: &str, flags: &[&str], administrator: &str, name: &str) -> Result<()> {
    let output = Command::new(program)
        .args(flags)
        .arg(format!("--maintenance-db={administrator}"))
        .arg(name)
        .output()
        .with_context(|| format!("could not run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

//! A world: one master, some hosts, their data directories, and what an operator does with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::api::Api;
use crate::docker::{self};
use crate::engine::Engine;
use crate::native;
use crate::postgres::Database;
use crate::process::{Daemon, repository};
use crate::slot::Slot;

mod hosts;
mod master;
mod objects;
mod operator;

/// What starting, joining and the like may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);
/// What deploying may take on a busy machine.
pub const LONG: Duration = Duration::from_secs(120);

/// A host of a world: its seat on this machine.
#[derive(Debug)]
pub struct Seat {
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its id, once it has joined.
    pub id: String,
    /// What makes its containers.
    pub engine: Engine,
    agent: Option<Daemon>,
}

/// One master and its hosts.
pub struct World {
    /// Subnets and ports of its own.
    pub slot: Slot,
    directory: Option<TempDir>,
    master: Option<Daemon>,
    master_flags: Vec<String>,
    database: Option<Database>,
    engine: Engine,
    seats: BTreeMap<String, Seat>,
    addresses: Option<(String, String)>,
    api: Option<Api>,
    finished: bool,
}

fn strings(arguments: &[&str]) -> Vec<String> {
    arguments
        .iter()
        .map(|argument| (*argument).to_owned())
        .collect()
}

impl World {
    /// A world with nothing in it.
    pub fn empty() -> Result<Self> {
        docker::require()?;
        Ok(Self {
            slot: Slot::take()?,
            directory: Some(TempDir::with_prefix("decnet-e2e-")?),
            master: None,
            master_flags: strings(&["--heartbeat", "500ms"]),
            database: None,
            engine: Engine::Docker,
            seats: BTreeMap::new(),
            addresses: None,
            api: None,
            finished: false,
        })
    }

    /// A world with nothing in it, whose master will keep its store on PostgreSQL.
    pub fn on_postgres() -> Result<Self> {
        let mut world = Self::empty()?;
        world.database = Some(Database::new()?);
        Ok(world)
    }

    /// The password of the database of a world on PostgreSQL.
    pub fn database_password(&self) -> Result<&str> {
        self.database
            .as_ref()
            .context("the store is SQLite")?
            .password()
    }

    /// A running master and nothing else.
    pub fn with_master() -> Result<Self> {
        let mut world = Self::empty()?;
        world.start_master(&[])?;
        Ok(world)
    }

    /// A running master and one host, ready.
    pub fn with_host(name: &str) -> Result<Self> {
        Self::with_host_on(Engine::Docker, name)
    }

    /// A running master and one host, ready, with this engine.
    pub fn with_host_on(engine: Engine, name: &str) -> Result<Self> {
        let mut world = Self::with_master()?;
        world.set_engine(engine);
        world.add_host(name)?;
        Ok(world)
    }

    /// The end of a test that has seen what it wanted: a world that ends otherwise shows its logs.
    pub fn done(mut self) -> Result<()> {
        self.finished = true;
        Ok(())
    }

    /// The engine of every host that joins from now on.
    pub const fn set_engine(&mut self, engine: Engine) {
        self.engine = engine;
    }

    /// Flags that the master gets at every start from now on, besides a heartbeat of half a second.
    pub fn set_master_flags(&mut self, flags: &[&str]) {
        self.master_flags = strings(flags);
    }

    /// The folder that holds everything of this world.
    pub fn root(&self) -> &Path {
        self.directory
            .as_ref()
            .map_or_else(|| Path::new("/nonexistent"), TempDir::path)
    }
}

fn read_log(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

impl Drop for World {
    fn drop(&mut self) {
        self.master = None;
        for seat in self.seats.values_mut() {
            seat.agent = None;
        }
        for seat in self.seats.values() {
            let removed = match seat.engine {
                Engine::Docker => docker::remove_all_of(&seat.id),
                Engine::Native => native::remove_all_of(&seat.id),
            };
            if let Err(error) = removed {
                tell(&format!(
                    "could not remove the objects of {}: {error:#}",
                    seat.id
                ));
            }
        }
        if !self.finished {
            self.keep_logs();
        }
    }
}

impl World {
    /// Copies what may explain a failure to `target/e2e-failed/TEST`, and shows the ends of the logs.
    fn keep_logs(&mut self) {
        let name = std::thread::current()
            .name()
            .unwrap_or("unnamed")
            .replace("::", ".");
        let place = repository().join("target/e2e-failed").join(name);
        for log in std::fs::read_dir(self.root())
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = log.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let text = read_log(&path);
                let tail: Vec<&str> = text.lines().rev().take(30).collect();
                tell(&format!("--- the end of {}", path.display()));
                for line in tail.iter().rev() {
                    tell(line);
                }
                if std::fs::create_dir_all(&place).is_ok() {
                    drop(std::fs::copy(&path, place.join(log.file_name())));
                }
            }
        }
        tell(&format!("whole logs: {}", place.display()));
    }
}

#[allow(clippy::print_stderr, reason = "a failed test tells why")]
fn tell(line: &str) {
    eprintln!("{line}");
}

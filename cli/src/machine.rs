//! One machine: a master and an agent as child processes of ours, over one data directory.
//!
//! It starts, watches and stops them. What they are to hold is `up`'s and `down`'s.

pub(crate) mod binaries;
mod child;
mod membership;
mod process;
mod record;

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use proto::client::{Client, Url};
use proto::rest::HostShape;

use self::binaries::{Binaries, Daemon};
use self::child::Child;
use self::membership::joined_at;
pub(crate) use self::process::Process;
pub(crate) use self::record::{Lock, Record};
use crate::connect::{ADMIN_TOKEN, ENDPOINTS, Endpoints};
use crate::failure::Failure;
use crate::output::Output;

/// The name that this machine has in its own fleet.
pub(crate) const LOCAL: &str = "local";
/// The agent's own directory, in ours.
const AGENT: &str = "agent";
const START: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// Where the daemons listen, as far as it was said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listen {
    pub(crate) api: Option<SocketAddr>,
    pub(crate) fleet: Option<SocketAddr>,
    pub(crate) advertise: Option<String>,
}

/// A data directory that is ours alone, and the daemons that run on it.
#[derive(Debug)]
pub(crate) struct Machine {
    directory: PathBuf,
    binaries: Binaries,
    record: Record,
    master: Option<Child>,
    agent: Option<Child>,
    // Held, and given back with the process, however that ends.
    _lock: Lock,
}

impl Machine {
    /// Takes the directory, and stops what a killed predecessor has left running.
    pub(crate) async fn open(
        directory: &Path,
        binaries: Binaries,
        lock: Lock,
        output: &Output,
    ) -> Result<Self, Failure> {
        let directory = directory
            .canonicalize()
            .with_context(|| format!("could not find {}", directory.display()))?;
        let mut record = Record::read(&directory)?;
        for (daemon, process) in record.leftovers(&directory) {
            output.note(&format!(
                "stopping a {daemon} that was left running ({})",
                process.pid
            ));
            process.end().await?;
        }
        record.master = None;
        record.agent = None;
        record.fleet = record.fleet.or_else(|| joined_at(&directory.join(AGENT)));
        record.up = Process::of(std::process::id());
        record.write(&directory)?;
        Ok(Self {
            directory,
            binaries,
            record,
            master: None,
            agent: None,
            _lock: lock,
        })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn agent_directory(&self) -> PathBuf {
        self.directory.join(AGENT)
    }

    /// Starts the master and waits until it answers.
    pub(crate) async fn start_master(&mut self, listen: &Listen) -> Result<Client, Failure> {
        let endpoints = self.directory.join(ENDPOINTS);
        // What an earlier master left there would be taken for this one's.
        match std::fs::remove_file(&endpoints) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::new(error)
                    .context(format!("could not remove {}", endpoints.display())));
            }
            Ok(()) | Err(_) => {}
        }
        let api = listen
            .api
            .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080)));
        let fleet = self.record.fleet_address(listen.fleet);
        let advertise = listen
            .advertise
            .clone()
            .or_else(|| self.record.advertise.clone());
        let mut arguments = vec![
            "serve".to_owned(),
            "--data-dir".to_owned(),
            self.directory.display().to_string(),
            "--api-listen".to_owned(),
            api.to_string(),
            "--fleet-listen".to_owned(),
            fleet.to_string(),
        ];
        if let Some(name) = &advertise {
            arguments.extend(["--advertise".to_owned(), name.clone()]);
        }
        let child = Child::start(&self.binaries, Daemon::Master, &arguments, &self.directory)?;
        self.record.master = child.process();
        self.master = Some(child);
        self.record.advertise = advertise;
        self.record.write(&self.directory)?;

        let started = Instant::now();
        let endpoints = loop {
            self.check()?;
            if let Ok(Some(endpoints)) = Endpoints::read(&self.directory) {
                break endpoints;
            }
            in_time(started, "the master did not say where it serves")?;
            tokio::time::sleep(PAUSE).await;
        };
        let client = client(&self.directory, &endpoints)?;
        loop {
            self.check()?;
            match client.healthz().await {
                Ok(()) => break,
                Err(error) if error.is_transient() => {
                    in_time(started, "the master does not answer")?;
                }
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(PAUSE).await;
        }
        let url = Url::parse(&endpoints.fleet)
            .with_context(|| format!("{:?} is no URL", endpoints.fleet))?;
        let port = Some(fleet.port()).filter(|port| *port != 0).or(url.port());
        self.record.fleet = port.map(|port| SocketAddr::new(fleet.ip(), port));
        self.record.write(&self.directory)?;
        self.check_membership(&endpoints)?;
        Ok(client)
    }

    /// Starts the agent and waits until the master calls the host ready.
    pub(crate) async fn start_agent(&mut self, client: &Client) -> Result<HostShape, Failure> {
        let arguments = [
            "run".to_owned(),
            "--data-dir".to_owned(),
            self.agent_directory().display().to_string(),
            "--decky-binary".to_owned(),
            self.binaries.path(Daemon::Decky).display().to_string(),
        ];
        let child = Child::start(&self.binaries, Daemon::Agent, &arguments, &self.directory)?;
        self.record.agent = child.process();
        self.agent = Some(child);
        self.record.write(&self.directory)?;
        let started = Instant::now();
        loop {
            self.check()?;
            match client.host(LOCAL).await {
                Ok(host) if host.state == "ready" => return Ok(host),
                Ok(host) => {
                    in_time(
                        started,
                        &format!("host {LOCAL} is {} and not ready", host.state),
                    )?;
                }
                Err(error) if error.is_transient() => {
                    in_time(started, "the master does not answer")?
                }
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Fails when one of the daemons has ended, with what it said last.
    fn check(&mut self) -> Result<(), Failure> {
        for child in [&mut self.master, &mut self.agent].into_iter().flatten() {
            child.check()?;
        }
        Ok(())
    }

    /// Waits until one of the daemons has ended; says which, and what it said last.
    pub(crate) async fn died(&mut self) -> Failure {
        loop {
            if let Err(failure) = self.check() {
                return failure;
            }
            tokio::time::sleep(PAUSE * 4).await;
        }
    }

    /// Whether both daemons run, so that a teardown can be carried out.
    pub(crate) fn runs(&mut self) -> bool {
        self.master.is_some() && self.agent.is_some() && self.check().is_ok()
    }

    /// Stops the agent, then the master.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        for child in [self.agent.take(), self.master.take()]
            .into_iter()
            .flatten()
        {
            child.stop().await?;
        }
        self.record.up = None;
        self.record.master = None;
        self.record.agent = None;
        self.record.write(&self.directory)
    }
}

/// A client of the master of a data directory.
fn client(directory: &Path, endpoints: &Endpoints) -> Result<Client, Failure> {
    let url =
        Url::parse(&endpoints.api).with_context(|| format!("{:?} is no URL", endpoints.api))?;
    let path = directory.join(ADMIN_TOKEN);
    let token = std::fs::read_to_string(&path)
        .with_context(|| format!("could not read {}", path.display()))?;
    Ok(Client::new(url, &token)?)
}

fn in_time(started: Instant, what: &str) -> Result<(), Failure> {
    if started.elapsed() < START {
        return Ok(());
    }
    Err(Failure::say(format!("{what} after {} s", START.as_secs()))
        .next("look at the logs in the data directory, and at `decnet doctor`"))
}

/// Makes a directory that nobody else looks into.
pub(crate) fn make_private(directory: &Path) -> Result<(), Failure> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("could not make {}", directory.display()))
        .map_err(|error| Failure::from(error).next("choose another with --data-dir"))
}

/// The data directory of this machine's own master: as said, or root's, or the user's.
pub(crate) fn data_dir(said: Option<&Path>, data_home: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(directory) = said {
        return Ok(directory.to_owned());
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from(crate::connect::SYSTEM_DIR));
    }
    data_home.map(|home| home.join("decnet")).ok_or_else(|| {
        Failure::say("there is no home directory to keep data in").next("name one with --data-dir")
    })
}

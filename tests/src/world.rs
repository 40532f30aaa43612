//! A world: one master, some hosts, their data directories, and what an operator does with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use proto::rest::{Enrollment, EventShape, HostShape, TopologyState};
use proto::topology_file::TopologyFile;
use serde_json::Value;
use tempfile::TempDir;

use crate::api::Api;
use crate::cli::{self, Outcome};
use crate::docker::{self, Container, Network};
use crate::engine::Engine;
use crate::native;
use crate::patience::{Look, eventually};
use crate::postgres::Database;
use crate::process::{Daemon, binary, repository};
use crate::slot::Slot;

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

    // --- the master

    /// The master's data directory.
    pub fn master_dir(&self) -> PathBuf {
        self.root().join("master")
    }

    /// Starts the master; at a later start on the addresses of the first. Waits until it answers.
    pub fn start_master(&mut self, more: &[&str]) -> Result<()> {
        self.spawn_master(more)?;
        self.await_master()
    }

    /// Starts the master and does not wait.
    pub fn spawn_master(&mut self, more: &[&str]) -> Result<()> {
        let directory = self.master_dir();
        let (api, fleet) = self
            .addresses
            .clone()
            .unwrap_or_else(|| ("127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned()));
        let mut arguments = strings(&["serve", "--data-dir"]);
        arguments.push(directory.to_string_lossy().into_owned());
        arguments.extend([
            "--api-listen".to_owned(),
            api,
            "--fleet-listen".to_owned(),
            fleet,
        ]);
        if let Some(database) = &self.database {
            let file = database.configure(self.root())?;
            arguments.extend(["--config".to_owned(), file.to_string_lossy().into_owned()]);
        }
        arguments.extend(self.master_flags.clone());
        arguments.extend(strings(more));
        self.master = None;
        if self.addresses.is_none() && directory.join("endpoints.json").exists() {
            std::fs::remove_file(directory.join("endpoints.json"))?;
        }
        self.master = Some(Daemon::start(
            "decnet-master",
            &arguments,
            &[],
            &self.root().join("master.log"),
        )?);
        Ok(())
    }

    /// Waits until the master answers, and learns its addresses.
    pub fn await_master(&mut self) -> Result<()> {
        let directory = self.master_dir();
        let (api, fleet, token) = eventually("the master's endpoints", SOON, || {
            if let Some(master) = &mut self.master
                && !master.is_running()
            {
                return Ok(Look::NotYet(format!("that it has ended: {}", master.log())));
            }
            let text = std::fs::read_to_string(directory.join("endpoints.json"))?;
            let token = std::fs::read_to_string(directory.join("admin.token"))?;
            let endpoints: Value = serde_json::from_str(&text)?;
            let part = |key: &str| -> Result<String> {
                Ok(endpoints[key]
                    .as_str()
                    .with_context(|| format!("no {key}"))?
                    .to_owned())
            };
            Ok(Look::Seen((
                part("api")?,
                part("fleet")?,
                token.trim().to_owned(),
            )))
        })?;
        let bare = |url: &str| {
            url.trim_start_matches("https://")
                .trim_start_matches("http://")
                .trim_end_matches('/')
                .to_owned()
        };
        self.addresses = Some((bare(&api), bare(&fleet)));
        let api = Api::new(&format!("http://{}", bare(&api)), &token)?;
        eventually("the master's answer", SOON, || {
            let answer = api.request("GET", "/healthz", None, None)?;
            Ok(if answer.status == 200 {
                Look::Seen(())
            } else {
                Look::NotYet(format!("{} {}", answer.status, answer.body))
            })
        })?;
        self.api = Some(api);
        Ok(())
    }

    /// The running master.
    pub fn master(&mut self) -> Result<&mut Daemon> {
        self.master.as_mut().context("no master was started")
    }

    /// Ends the master as a power cut would.
    pub fn kill_master(&mut self) -> Result<()> {
        self.master.take().context("no master was started")?.kill()
    }

    /// Asks the master to end; it must do so cleanly.
    pub fn stop_master(&mut self) -> Result<()> {
        let status = self
            .master
            .take()
            .context("no master was started")?
            .stop(SOON)?;
        if !status.success() {
            bail!("the master ended with {status} on SIGTERM");
        }
        Ok(())
    }

    /// Waits until the master has killed itself at its crash point.
    pub fn await_master_crash(&mut self, within: Duration) -> Result<()> {
        let status = self.master()?.wait(within)?;
        self.master = None;
        if status.code().is_some() {
            bail!("the master ended with {status} instead of a crash");
        }
        Ok(())
    }

    /// Whether the master answers at this moment.
    pub fn master_answers(&self) -> bool {
        self.api()
            .is_ok_and(|api| api.request("GET", "/healthz", None, None).is_ok())
    }

    /// The address on which the master listens for hosts.
    pub fn fleet_address(&self) -> Result<&str> {
        Ok(self
            .addresses
            .as_ref()
            .context("no master was started")?
            .1
            .as_str())
    }

    /// The REST API.
    pub fn api(&self) -> Result<&Api> {
        self.api.as_ref().context("no master was started")
    }

    /// The log of the master, of all its lives.
    pub fn master_log(&self) -> String {
        read_log(&self.root().join("master.log"))
    }

    // --- the operator

    /// Runs `decnet` against this master.
    pub fn decnet(&self, arguments: &[&str]) -> Result<Outcome> {
        cli::decnet(&self.master_dir(), arguments)
    }

    /// Runs `decnet … --output json` and reads its answer.
    pub fn decnet_json(&self, arguments: &[&str]) -> Result<Value> {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--output", "json"]);
        self.decnet(&arguments)?.json()
    }

    /// Writes a topology as an operator would have it on disk.
    pub fn write_file(&self, file: &TopologyFile) -> Result<PathBuf> {
        let path = self.root().join(format!("{}.yaml", file.name));
        // JSON is YAML.
        std::fs::write(&path, serde_json::to_string_pretty(file)?)?;
        Ok(path)
    }

    /// Stores a topology for a host.
    pub fn create(&self, file: &TopologyFile, host: &str) -> Result<()> {
        let path = self.write_file(file)?;
        let path = path.to_string_lossy();
        self.decnet(&["topology", "create", &path, "--host", host])?
            .ok()?;
        Ok(())
    }

    /// Stores a topology for a host, deploys it and waits until it is active.
    pub fn deploy(&self, file: &TopologyFile, host: &str) -> Result<TopologyState> {
        self.create(file, host)?;
        self.decnet(&[
            "topology",
            "deploy",
            &file.name,
            "--wait",
            "--timeout",
            "120s",
        ])?
        .ok()?;
        let state = self.inspect(&file.name)?;
        if state.topology.status != "active" {
            bail!(
                "{} is {} after deploy --wait",
                file.name,
                state.topology.status
            );
        }
        Ok(state)
    }

    /// Tears a topology down and waits until it is torn down.
    pub fn teardown(&self, name: &str) -> Result<TopologyState> {
        self.decnet(&["topology", "teardown", name, "--wait", "--timeout", "120s"])?
            .ok()?;
        self.inspect(name)
    }

    /// Where a topology stands.
    pub fn inspect(&self, name: &str) -> Result<TopologyState> {
        self.decnet(&["topology", "inspect", name, "--output", "json"])?
            .json()
    }

    /// Waits until a topology has a status.
    pub fn await_status(
        &self,
        name: &str,
        status: &str,
        within: Duration,
    ) -> Result<TopologyState> {
        eventually(&format!("{name} {status}"), within, || {
            let state = self.inspect(name)?;
            Ok(if state.topology.status == status {
                Look::Seen(state)
            } else {
                Look::NotYet(format!(
                    "{} ({}), condition {:?}, drift {:?}",
                    state.topology.status, state.topology.reason, state.condition, state.drift
                ))
            })
        })
    }

    /// Waits until a topology is active and its host shows exactly what is desired.
    pub fn await_converged(&self, name: &str, within: Duration) -> Result<TopologyState> {
        eventually(&format!("{name} converged"), within, || {
            let state = self.inspect(name)?;
            let same = match (&state.desired, &state.applied) {
                (Some(desired), Some(applied)) => {
                    desired.generation == applied.generation
                        && desired.version_hash.as_deref() == Some(applied.version_hash.as_str())
                }
                _ => false,
            };
            Ok(
                if state.topology.status == "active"
                    && same
                    && state.drift.is_empty()
                    && state.observed.is_some()
                {
                    Look::Seen(state)
                } else {
                    Look::NotYet(format!("{state:?}"))
                },
            )
        })
    }

    /// The changes of a topology's status so far, as `from>to`.
    pub fn status_path(&self, name: &str) -> Result<Vec<String>> {
        let changes = self.decnet_json(&["topology", "status-events", name])?;
        let changes = changes
            .as_array()
            .context("status-events prints an array")?;
        Ok(changes
            .iter()
            .map(|change| {
                format!(
                    "{}>{}",
                    change["from"].as_str().unwrap_or("?"),
                    change["to"].as_str().unwrap_or("?")
                )
            })
            .collect())
    }

    /// Every host.
    pub fn hosts(&self) -> Result<Vec<HostShape>> {
        self.decnet(&["host", "ls", "--output", "json"])?.json()
    }

    /// One host.
    pub fn host(&self, name: &str) -> Result<HostShape> {
        self.hosts()?
            .into_iter()
            .find(|host| host.name == name)
            .with_context(|| format!("no host {name}"))
    }

    /// Waits until a host has a state.
    pub fn await_host(&self, name: &str, state: &str, within: Duration) -> Result<HostShape> {
        eventually(&format!("{name} {state}"), within, || {
            let host = self.host(name)?;
            Ok(if host.state == state {
                Look::Seen(host)
            } else {
                Look::NotYet(host.state)
            })
        })
    }

    /// Waits until a host is connected and done with what it was told, whatever that is.
    pub fn await_settled(&self, name: &str) -> Result<HostShape> {
        eventually(&format!("{name} settled"), SOON, || {
            let host = self.host(name)?;
            Ok(if host.settled {
                Look::Seen(host)
            } else {
                Look::NotYet(format!("{host:?}"))
            })
        })
    }

    /// Events that a filter of `event ls` lets through, newest first.
    pub fn events(&self, filter: &[&str]) -> Result<Vec<EventShape>> {
        let mut arguments = vec!["event", "ls", "--limit", "1000"];
        arguments.extend(filter);
        let answer = self.decnet_json(&arguments)?;
        let items = answer.get("items").cloned().unwrap_or(answer);
        Ok(serde_json::from_value(items)?)
    }

    /// Waits for an event.
    pub fn await_event(
        &self,
        what: &str,
        filter: &[&str],
        mut rule: impl FnMut(&EventShape) -> bool,
    ) -> Result<EventShape> {
        eventually(what, SOON, || {
            let events = self.events(filter)?;
            let seen: Vec<String> = events
                .iter()
                .filter(|event| event.kind != "lifecycle")
                .map(|event| format!("{} {:?} {}", event.kind, event.source, event.data))
                .collect();
            Ok(match events.into_iter().find(|event| rule(event)) {
                Some(event) => Look::Seen(event),
                None => Look::NotYet(format!("{seen:#?}")),
            })
        })
    }

    // --- hosts

    /// Where a host keeps its files, joined or not.
    pub fn host_dir(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Asks for a join token.
    pub fn enroll(&self, name: &str, more: &[&str]) -> Result<Enrollment> {
        let mut arguments = vec!["host", "enroll", name, "--output", "json"];
        arguments.extend(more);
        self.decnet(&arguments)?.json()
    }

    /// Runs `decnet-agent join` with a token.
    pub fn join_with(&self, name: &str, url: &str, token: &str, more: &[&str]) -> Result<Outcome> {
        let directory = self.host_dir(name);
        let directory = directory.to_string_lossy();
        let mut arguments = vec!["join", url, "--token-stdin", "--data-dir", &directory];
        arguments.extend(more);
        cli::run(&binary("decnet-agent")?, &arguments, &[], token)
    }

    /// Enrolls a host and joins it; its agent does not run yet.
    pub fn join(&mut self, name: &str) -> Result<String> {
        let enrollment = self.enroll(name, &[])?;
        self.join_with(
            name,
            &enrollment.master_url,
            &enrollment.token,
            &["--name", name],
        )?
        .ok()?;
        let id = self.host(name)?.id;
        self.adopt(name, &id)?;
        Ok(id)
    }

    /// Takes a host that has joined by other means into this world, so that it is cleaned up.
    pub fn adopt(&mut self, name: &str, id: &str) -> Result<()> {
        self.slot.note(id)?;
        let seat = Seat {
            data_dir: self.host_dir(name),
            id: id.to_owned(),
            engine: self.engine,
            agent: None,
        };
        self.seats.insert(name.to_owned(), seat);
        Ok(())
    }

    /// Enrolls, joins and starts a host, and waits until it is ready. Gives its id.
    pub fn add_host(&mut self, name: &str) -> Result<String> {
        let id = self.join(name)?;
        self.start_agent(name, &[])?;
        self.await_settled(name)?;
        Ok(id)
    }

    /// The seat of a host.
    pub fn seat(&self, name: &str) -> Result<&Seat> {
        self.seats
            .get(name)
            .with_context(|| format!("{name} has not joined"))
    }

    /// Starts the agent of a host.
    pub fn start_agent(&mut self, name: &str, more: &[&str]) -> Result<()> {
        self.start_agent_with(name, more, &[])
    }

    /// Starts the agent of a host with further flags and environment.
    pub fn start_agent_with(
        &mut self,
        name: &str,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<()> {
        let log = self.root().join(format!("{name}.log"));
        let decky = binary("decnet-decky")?;
        let seat = self
            .seats
            .get_mut(name)
            .with_context(|| format!("{name} has not joined"))?;
        let mut arguments = strings(&["run", "--data-dir"]);
        arguments.push(seat.data_dir.to_string_lossy().into_owned());
        if !more.contains(&"--decky-binary") {
            arguments.extend([
                "--decky-binary".to_owned(),
                decky.to_string_lossy().into_owned(),
            ]);
        }
        if seat.engine != Engine::Docker {
            arguments.extend(strings(&["--engine", seat.engine.as_str()]));
        }
        arguments.extend(strings(more));
        let environment: Vec<(String, String)> = environment
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        seat.agent = None;
        seat.agent = Some(Daemon::start(
            "decnet-agent",
            &arguments,
            &environment,
            &log,
        )?);
        Ok(())
    }

    /// The running agent of a host.
    pub fn agent(&mut self, name: &str) -> Result<&mut Daemon> {
        let seat = self
            .seats
            .get_mut(name)
            .with_context(|| format!("{name} has not joined"))?;
        seat.agent
            .as_mut()
            .with_context(|| format!("the agent of {name} does not run"))
    }

    /// Ends the agent of a host as a power cut would.
    pub fn kill_agent(&mut self, name: &str) -> Result<()> {
        let seat = self
            .seats
            .get_mut(name)
            .with_context(|| format!("{name} has not joined"))?;
        seat.agent
            .take()
            .with_context(|| format!("the agent of {name} does not run"))?
            .kill()
    }

    /// Asks the agent of a host to end; it must do so cleanly.
    pub fn stop_agent(&mut self, name: &str) -> Result<()> {
        let seat = self
            .seats
            .get_mut(name)
            .with_context(|| format!("{name} has not joined"))?;
        let agent = seat
            .agent
            .take()
            .with_context(|| format!("the agent of {name} does not run"))?;
        let status = agent.stop(SOON)?;
        if !status.success() {
            bail!("the agent of {name} ended with {status} on SIGTERM");
        }
        Ok(())
    }

    /// Waits until the agent of a host has killed itself at its crash point.
    pub fn await_agent_crash(&mut self, name: &str, within: Duration) -> Result<()> {
        let status = self.agent(name)?.wait(within)?;
        if let Some(seat) = self.seats.get_mut(name) {
            seat.agent = None;
        }
        if status.code().is_some() {
            bail!("the agent of {name} ended with {status} instead of a crash");
        }
        Ok(())
    }

    /// The log of a host's agent, of all its lives.
    pub fn agent_log(&self, name: &str) -> String {
        read_log(&self.root().join(format!("{name}.log")))
    }

    // --- what the engine of a host really holds

    /// Every container of a host, running or not.
    pub fn containers(&self, host: &str) -> Result<Vec<Container>> {
        let seat = self.seat(host)?;
        seat.engine.containers(seat)
    }

    /// Every network of a host.
    pub fn networks(&self, host: &str) -> Result<Vec<Network>> {
        let seat = self.seat(host)?;
        seat.engine.networks(seat)
    }

    /// Ids of every object of a host: what must stay or go.
    pub fn object_ids(&self, host: &str) -> Result<Vec<String>> {
        let seat = self.seat(host)?;
        seat.engine.object_ids(seat)
    }

    /// The container of a decky of a topology on a host.
    pub fn container(&self, host: &str, address: &str) -> Result<Container> {
        self.containers(host)?
            .into_iter()
            .find(|container| container.addresses.values().any(|own| own == address))
            .with_context(|| format!("no container of {host} has the address {address}"))
    }

    /// The network of a LAN of a topology on a host.
    pub fn network(&self, host: &str, subnet: &str) -> Result<Network> {
        self.networks(host)?
            .into_iter()
            .find(|network| network.subnet == subnet)
            .with_context(|| format!("no network of {host} has the subnet {subnet}"))
    }

    /// Removes a container, as somebody would who knows nothing of the agent.
    pub fn remove_container(&self, host: &str, container: &Container) -> Result<()> {
        let seat = self.seat(host)?;
        seat.engine.remove(seat, container)
    }

    /// Ends the process of a container.
    pub fn kill_container(&self, host: &str, container: &Container) -> Result<()> {
        self.seat(host)?.engine.kill(container)
    }

    /// Takes a container off a network.
    pub fn cut(&self, host: &str, container: &Container, network: &Network) -> Result<()> {
        self.seat(host)?.engine.cut(container, network)
    }

    /// Removes a network.
    pub fn remove_network(&self, host: &str, network: &Network) -> Result<()> {
        self.seat(host)?.engine.remove_network(network)
    }

    /// Fails unless the engine holds nothing of a host.
    pub fn assert_empty(&self, host: &str) -> Result<()> {
        let left = self.object_ids(host)?;
        if !left.is_empty() {
            bail!("the engine still holds {left:?} of {host}");
        }
        Ok(())
    }

    /// Fails unless the engine holds of a host exactly so many running containers and networks.
    pub fn assert_holds(&self, host: &str, deckies: usize, lans: usize) -> Result<()> {
        let containers = self.containers(host)?;
        let networks = self.networks(host)?;
        let running = containers
            .iter()
            .filter(|container| container.running)
            .count();
        if containers.len() != deckies || running != deckies || networks.len() != lans {
            bail!(
                "{host} holds {} containers ({running} running) and {} networks, not {deckies} and {lans}: {:?}",
                containers.len(),
                networks.len(),
                containers
                    .iter()
                    .map(|container| &container.name)
                    .collect::<Vec<_>>()
            );
        }
        Ok(())
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

//! The hosts of a world: how they join, and how their agents live and die.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use proto::rest::Enrollment;

use super::{SOON, Seat, World, read_log, strings};
use crate::cli::{self, Outcome};
use crate::engine::Engine;
use crate::process::{Daemon, binary};

impl World {
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
}

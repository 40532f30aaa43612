//! A world's master: started, killed and looked at.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{SOON, World, read_log, strings};
use crate::api::Api;
use crate::patience::{Look, eventually};
use crate::process::Daemon;

/// The ports of the slot that are the master's: tests use the first ones. They are the same at each
/// start, and nobody takes them while it is away.
const API_PORT: u16 = 98;
const FLEET_PORT: u16 = 99;

impl World {
    /// The master's data directory.
    pub fn master_dir(&self) -> PathBuf {
        self.root().join("master")
    }

    /// Starts the master, on the same addresses each time. Waits until it answers.
    pub fn start_master(&mut self, more: &[&str]) -> Result<()> {
        self.spawn_master(more)?;
        self.await_master()
    }

    /// Starts the master and does not wait.
    pub fn spawn_master(&mut self, more: &[&str]) -> Result<()> {
        let directory = self.master_dir();
        let [api, fleet] =
            [API_PORT, FLEET_PORT].map(|index| format!("127.0.0.1:{}", self.slot.port(index)));
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
}

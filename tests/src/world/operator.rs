//! What an operator of a world does and waits for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use proto::rest::{EventShape, HostShape, TopologyState};
use proto::topology_file::TopologyFile;
use serde_json::Value;

use super::{SOON, World};
use crate::cli::{self, Outcome};
use crate::patience::{Look, eventually};

impl World {
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
}

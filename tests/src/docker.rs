//! What Docker itself says, by its own command line: the tests' second witness.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::cli::system;

/// Label of every object of a host.
pub const HOST: &str = "decnet.host.id";
/// Label of the decky on a container.
pub const DECKY: &str = "decnet.topology.decky";
/// Label of the topology.
pub const TOPOLOGY: &str = "decnet.topology.id";
/// Label of the LAN on a network.
pub const LAN: &str = "decnet.topology.lan";

/// Runs `docker` and gives what it prints.
pub fn docker(arguments: &[&str]) -> Result<String> {
    let output = Command::new("docker")
        .args(arguments)
        .output()
        .context("could not run docker")?;
    if !output.status.success() {
        bail!(
            "docker {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Ends the programs that hold a published port, found by what they were started with.
pub fn unpublish(port: u16) -> Result<()> {
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains("docker-proxy") && line.contains(&format!("-host-port {port} ")) {
            let pid = entry.file_name().to_string_lossy().into_owned();
            system("kill", &["-KILL", &pid], "")?.ok()?;
        }
    }
    Ok(())
}

/// Fails unless a daemon answers: tests of the real thing are never skipped.
pub fn require() -> Result<()> {
    docker(&["version", "--format", "{{.Server.Version}}"])
        .map(drop)
        .context("no Docker daemon answers; `make test` starts one")
}

/// A container, as Docker sees it.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub running: bool,
    /// Its process on the host.
    pub pid: u32,
    /// When it started.
    pub started_at: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its address on each network, by the network's id.
    pub addresses: BTreeMap<String, String>,
    /// The whole of `docker inspect`.
    pub inspect: Value,
}

impl Container {
    /// Its only or first address.
    pub fn address(&self) -> Result<&str> {
        self.addresses
            .values()
            .next()
            .map(String::as_str)
            .with_context(|| format!("{} has no address", self.name))
    }

    /// The decky that it is.
    pub fn decky(&self) -> &str {
        self.labels.get(DECKY).map_or("", String::as_str)
    }
}

/// A network, as Docker sees it.
#[derive(Debug, Clone)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its subnet.
    pub subnet: String,
    /// The bridge on the host.
    pub bridge: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    value
        .as_object()
        .map(|map| {
            map.iter()
                .map(|(key, value)| (key.clone(), text(value)))
                .collect()
        })
        .unwrap_or_default()
}

fn ids(arguments: &[&str]) -> Result<Vec<String>> {
    Ok(docker(arguments)?.lines().map(str::to_owned).collect())
}

fn inspect(kind: &str, ids: &[String]) -> Result<Vec<Value>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut arguments = vec![kind, "inspect"];
    arguments.extend(ids.iter().map(String::as_str));
    // Something may vanish between the list and the question: docker then prints the rest and fails.
    let output = Command::new("docker").args(&arguments).output()?;
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok(all)
}

/// Every container with a host's label, running or not, in the order of their names.
pub fn containers(host: &str) -> Result<Vec<Container>> {
    containers_with(&format!("{HOST}={host}"))
}

/// Every container with a label.
pub fn containers_with(label: &str) -> Result<Vec<Container>> {
    let ids = ids(&[
        "ps",
        "-aq",
        "--no-trunc",
        "--filter",
        &format!("label={label}"),
    ])?;
    let mut all: Vec<Container> = inspect("container", &ids)?
        .into_iter()
        .map(|value| Container {
            id: text(&value["Id"]),
            name: text(&value["Name"]).trim_start_matches('/').to_owned(),
            running: value["State"]["Running"].as_bool().unwrap_or_default(),
            pid: value["State"]["Pid"]
                .as_u64()
                .and_then(|pid| pid.try_into().ok())
                .unwrap_or(0),
            started_at: text(&value["State"]["StartedAt"]),
            labels: texts(&value["Config"]["Labels"]),
            addresses: value["NetworkSettings"]["Networks"]
                .as_object()
                .map(|map| {
                    map.values()
                        .map(|network| (text(&network["NetworkID"]), text(&network["IPAddress"])))
                        .collect()
                })
                .unwrap_or_default(),
            inspect: value,
        })
        .collect();
    all.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(all)
}

/// Every network with a host's label, in the order of their names.
pub fn networks(host: &str) -> Result<Vec<Network>> {
    let ids = ids(&[
        "network",
        "ls",
        "-q",
        "--no-trunc",
        "--filter",
        &format!("label={HOST}={host}"),
    ])?;
    let mut all: Vec<Network> = inspect("network", &ids)?
        .into_iter()
        .map(|value| {
            let id = text(&value["Id"]);
            let bridge = match value["Options"]["com.docker.network.bridge.name"].as_str() {
                Some(name) => name.to_owned(),
                None => format!("br-{}", id.get(..12).unwrap_or_default()),
            };
            Network {
                name: text(&value["Name"]),
                subnet: text(&value["IPAM"]["Config"][0]["Subnet"]),
                labels: texts(&value["Labels"]),
                bridge,
                id,
            }
        })
        .collect();
    all.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(all)
}

/// Ids of every object of a host, containers and networks: what must stay or go.
pub fn object_ids(host: &str) -> Result<Vec<String>> {
    let mut all = ids(&[
        "ps",
        "-aq",
        "--no-trunc",
        "--filter",
        &format!("label={HOST}={host}"),
    ])?;
    all.extend(ids(&[
        "network",
        "ls",
        "-q",
        "--no-trunc",
        "--filter",
        &format!("label={HOST}={host}"),
    ])?);
    all.sort();
    Ok(all)
}

/// Removes everything of a host, whatever state it is in.
pub fn remove_all_of(host: &str) -> Result<()> {
    let filter = format!("label={HOST}={host}");
    let containers = ids(&["ps", "-aq", "--no-trunc", "--filter", &filter])?;
    if !containers.is_empty() {
        let mut arguments = vec!["rm", "-f", "-v"];
        arguments.extend(containers.iter().map(String::as_str));
        docker(&arguments)?;
    }
    for network in ids(&["network", "ls", "-q", "--no-trunc", "--filter", &filter])? {
        docker(&["network", "rm", &network])?;
    }
    Ok(())
}

/// The daemon's clock, as `docker events --since` takes it.
pub fn now() -> Result<String> {
    docker(&["info", "--format", "{{.SystemTime}}"])
}

/// What the daemon's own event log shows of some objects between two moments, one line each.
pub fn events_between(since: &str, until: &str, objects: &[String]) -> Result<Vec<String>> {
    let log = docker(&[
        "events",
        "--since",
        since,
        "--until",
        until,
        "--format",
        "{{json .}}",
    ])?;
    let mut found = Vec::new();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line)?;
        let about = [
            &event["Actor"]["ID"],
            &event["Actor"]["Attributes"]["container"],
        ];
        if about
            .iter()
            .any(|id| objects.iter().any(|object| id.as_str() == Some(object)))
        {
            found.push(line.to_owned());
        }
    }
    Ok(found)
}

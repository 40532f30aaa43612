//! What the native engine's hosts really hold, read from the kernel beside the engine's records.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::cli::system;
use crate::docker::{Container, LAN, Network, TOPOLOGY};

/// Where the engine keeps what a reboot takes away.
const RUN: &str = "/run/decnet";
const GROUPS: &str = "/sys/fs/cgroup";

fn run_dir(host: &str) -> PathBuf {
    Path::new(RUN).join(host)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn records(data: &Path, kind: &str) -> BTreeMap<String, Value> {
    let entries = fs::read_dir(data.join("native").join(kind))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let id = name.strip_suffix(".json")?.to_owned();
            Some((
                id,
                serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?,
            ))
        })
        .collect()
}

fn labels(record: &Value) -> BTreeMap<String, String> {
    record["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), text(value)))
        .collect()
}

/// Runs `ip` in a namespace and reads its JSON.
fn ip(namespace: &Path, arguments: &[&str]) -> Result<Vec<Value>> {
    let namespace = format!("--net={}", namespace.display());
    let mut all = vec![namespace.as_str(), "ip", "-j"];
    all.extend(arguments);
    let said = system("nsenter", &all, "")?.ok()?.stdout;
    if said.trim().is_empty() {
        return Ok(Vec::new());
    }
    Ok(serde_json::from_str(&said)?)
}

/// The process of a container and when it started, when it runs.
fn process(host: &str, id: &str) -> Option<(u32, String)> {
    let pid: u32 = fs::read_to_string(run_dir(host).join("deckies").join(id).join("pid"))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let alive = *fields.first()? != "Z" && groups.contains(id);
    alive.then(|| Some((pid, (*fields.get(19)?).to_owned())))?
}

/// Every decky of a host, running or not, in the order of their names.
pub fn containers(host: &str, data: &Path) -> Result<Vec<Container>> {
    let lans = networks(data)?;
    let mut all = Vec::new();
    for (id, record) in records(data, "deckies") {
        let process = process(host, &id);
        let mut addresses = BTreeMap::new();
        for interface in record["interfaces"].as_array().into_iter().flatten() {
            let (network, address) = (text(&interface["network"]), text(&interface["address"]));
            let plugged = match &process {
                None => true,
                Some((pid, _)) => {
                    let inside = PathBuf::from(format!("/proc/{pid}/ns/net"));
                    lans.iter().any(|lan| lan.id == network) && has_address(&inside, &address)
                }
            };
            if plugged {
                addresses.insert(network, address);
            }
        }
        let bundle = run_dir(host).join("deckies").join(&id).join("config.json");
        let bundle = fs::read(bundle).ok();
        all.push(Container {
            name: id.clone(),
            running: process.is_some(),
            pid: process.as_ref().map_or(0, |(pid, _)| *pid),
            started_at: process.map(|(_, started)| started).unwrap_or_default(),
            labels: labels(&record),
            addresses,
            inspect: bundle
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or_default(),
            id,
        });
    }
    Ok(all)
}

fn has_address(namespace: &Path, address: &str) -> bool {
    // It may end while it is looked at.
    let links = ip(namespace, &["address"]).unwrap_or_default();
    links.iter().any(|link| {
        let mut addresses = link["addr_info"].as_array().into_iter().flatten();
        addresses.any(|info| info["local"] == address)
    })
}

/// The namespace of a network's topology.
pub fn fabric(network: &Network) -> Result<PathBuf> {
    let host = network
        .labels
        .get(crate::docker::HOST)
        .context("the network has a host")?;
    let topology = network
        .labels
        .get(TOPOLOGY)
        .context("the network has a topology")?;
    Ok(run_dir(host).join("fabrics").join(topology))
}

/// Every network of a host that has its bridge, in the order of their names.
pub fn networks(data: &Path) -> Result<Vec<Network>> {
    let mut all = Vec::new();
    for (id, record) in records(data, "lans") {
        let labels = labels(&record);
        let lan = labels.get(LAN).cloned().unwrap_or_default();
        let bridge = format!("dn{}", lan.rsplit('-').next().unwrap_or_default());
        let network = Network {
            name: id.clone(),
            subnet: text(&record["subnet"]),
            bridge,
            labels,
            id,
        };
        // One on a real network is made with its deckies: it stands as long as it is on record.
        if record["driver"] != "bridge" {
            all.push(network);
            continue;
        }
        let links = ip(&fabric(&network)?, &["link"]).unwrap_or_default();
        if links.iter().any(|link| link["ifname"] == *network.bridge) {
            all.push(network);
        }
    }
    Ok(all)
}

/// Ids of every object of a host: records, and when there is none, whatever else is left.
pub fn object_ids(host: &str, data: &Path) -> Result<Vec<String>> {
    let mut all: Vec<String> = records(data, "deckies").into_keys().collect();
    all.extend(records(data, "lans").into_keys());
    if all.is_empty() {
        all = remains(host)?;
    }
    all.sort();
    Ok(all)
}

/// Processes, namespaces, mounts, groups, rules and links of a host that has no object.
fn remains(host: &str) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for kind in ["fabrics", "deckies", "runc"] {
        for entry in fs::read_dir(run_dir(host).join(kind))
            .into_iter()
            .flatten()
            .flatten()
        {
            left.push(entry.path().display().to_string());
        }
    }
    for group in groups(host) {
        for entry in fs::read_dir(&group).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                left.push(entry.path().display().to_string());
            }
        }
    }
    let table = table(host);
    let tables = system("nft", &["list", "tables"], "")?.ok()?.stdout;
    left.extend(
        tables
            .lines()
            .filter(|line| line.contains(&table))
            .map(str::to_owned),
    );
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let fabrics = run_dir(host).join("fabrics").display().to_string();
    left.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&fabrics))
            .map(str::to_owned),
    );
    Ok(left)
}

fn table(host: &str) -> String {
    format!("decnet-{}", host.rsplit('-').next().unwrap_or_default())
}

fn groups(host: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir(GROUPS).into_iter().flatten().flatten();
    hierarchies
        .map(|entry| entry.path().join("decnet").join(host))
        .chain([Path::new(GROUPS).join("decnet").join(host)])
        .filter(|path| path.is_dir())
        .collect()
}

/// Removes a decky's record, and then the rest with the runtime's own command: the other way round,
/// the agent may have started it again in between.
pub fn remove(host: &str, data: &Path, container: &Container) -> Result<()> {
    fs::remove_file(
        data.join("native/deckies")
            .join(format!("{}.json", container.id)),
    )?;
    let runtime = run_dir(host).join("runc");
    let runtime = runtime.to_string_lossy();
    system(
        "runc",
        &["--root", &runtime, "delete", "-f", &container.id],
        "",
    )?
    .ok()?;
    Ok(())
}

/// Kills the process of a decky.
pub fn kill(container: &Container) -> Result<()> {
    if !container.running {
        bail!("{} does not run", container.name);
    }
    system("kill", &["-KILL", &container.pid.to_string()], "")?.ok()?;
    Ok(())
}

/// Takes a decky off a network: the interface that has an address of it goes.
pub fn cut(container: &Container, network: &Network) -> Result<()> {
    let address = container
        .addresses
        .get(&network.id)
        .context("the decky is on the network")?;
    let inside = PathBuf::from(format!("/proc/{}/ns/net", container.pid));
    let links = ip(&inside, &["address"])?;
    let link = links
        .iter()
        .find(|link| {
            let mut addresses = link["addr_info"].as_array().into_iter().flatten();
            addresses.any(|info| info["local"] == **address)
        })
        .context("an interface has the address")?;
    let namespace = format!("--net={}", inside.display());
    let arguments = [&namespace, "ip", "link", "del", &text(&link["ifname"])];
    system("nsenter", &arguments, "")?.ok()?;
    Ok(())
}

/// Makes a link in the fabric and removes it: a change that is none.
pub fn nudge(network: &Network) -> Result<()> {
    let namespace = format!("--net={}", fabric(network)?.display());
    for verb in ["add", "del"] {
        let mut arguments = vec![namespace.as_str(), "ip", "link", verb, "nudge"];
        if verb == "add" {
            arguments.extend(["type", "bridge"]);
        }
        system("nsenter", &arguments, "")?.ok()?;
    }
    Ok(())
}

/// Takes away what hands the published ports of a host on to deckies.
pub fn unpublish(host: &str) -> Result<()> {
    system("nft", &["delete", "table", "inet", &table(host)], "")?.ok()?;
    Ok(())
}

/// Removes a network's bridge from its fabric.
pub fn remove_network(network: &Network) -> Result<()> {
    let namespace = format!("--net={}", fabric(network)?.display());
    system(
        "nsenter",
        &[&namespace, "ip", "link", "del", &network.bridge],
        "",
    )?
    .ok()?;
    Ok(())
}

/// Removes everything of a host, whatever state it is in: also what a killed test has left.
pub fn remove_all_of(host: &str) -> Result<()> {
    let deckies: Vec<PathBuf> = groups(host)
        .iter()
        .flat_map(|group| fs::read_dir(group).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    for decky in &deckies {
        for pid in fs::read_to_string(decky.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
        {
            // It may have ended with the one before.
            drop(system("kill", &["-KILL", pid], "")?);
        }
    }
    crate::patience::until("the deckies' end", crate::world::SOON, || {
        Ok(deckies
            .iter()
            .all(|decky| fs::remove_dir(decky).is_ok() || !decky.exists()))
    })?;
    for group in groups(host) {
        fs::remove_dir(group).ok();
    }
    let run = run_dir(host);
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines().rev() {
        let place = line.split(' ').nth(4).unwrap_or_default();
        if Path::new(place).starts_with(&run) {
            system("umount", &["-l", place], "")?.ok()?;
        }
    }
    if run.exists() {
        fs::remove_dir_all(run)?;
    }
    drop(system(
        "nft",
        &["delete", "table", "inet", &table(host)],
        "",
    )?);
    forget_links()
}

/// Removes every claim to a subnet that begins like this. A claim holds for as long as its network is
/// on record, and the data directory of a test that was killed is not removed.
pub fn forget_claims(prefix: &str) {
    let claims = fs::read_dir(Path::new(RUN).join("subnets"));
    for claim in claims.into_iter().flatten().flatten() {
        // An agent that finds it void removes it too.
        let bytes = fs::read(claim.path()).unwrap_or_default();
        let made: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if text(&made["subnet"]).starts_with(prefix) {
            fs::remove_file(claim.path()).ok();
        }
    }
}

/// Removes what lets packets through Docker's rules to links that are gone.
fn forget_links() -> Result<()> {
    // In this order: an agent of another test makes its link before its rules.
    let rules = system("iptables", &["-w", "5", "-S", "DOCKER-USER"], "")?.stdout;
    let links = system("ip", &["-o", "link"], "")?.ok()?.stdout;
    for rule in rules.lines() {
        let mut words: Vec<&str> = rule.split_whitespace().collect();
        let link = words
            .iter()
            .find_map(|word| word.strip_suffix('+').filter(|link| link.starts_with("du")));
        if words.first() == Some(&"-A") && link.is_some_and(|link| !links.contains(link)) {
            words.splice(..1, ["-w", "5", "-D"]);
            // Another test may have been quicker.
            drop(system("iptables", &words, "")?);
        }
    }
    Ok(())
}

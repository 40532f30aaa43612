//! What the hosts of one machine have taken of it: subnets and ports, one file each.
//!
//! The files are for all agents of the machine, and volatile: a claim whose holder is gone is void.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use domain::topology::Publish;
use ipnet::Ipv4Net;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cgroup;
use super::place::gone_is_fine;
use crate::engine::files::{Durable, atomically};

/// A subnet that is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SubnetClaim {
    /// Whose it is.
    #[serde(default)]
    pub(super) host: String,
    pub(super) subnet: String,
    /// The record of the network: without it, the claim is void.
    #[serde(default)]
    pub(super) record: Option<PathBuf>,
}

/// A port of the machine that is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PortClaim {
    pub(super) handle: String,
    pub(super) host_ip: Option<Ipv4Addr>,
    pub(super) host_port: u16,
    pub(super) protocol: String,
    /// The group of the decky: when nobody is in it, the claim is void.
    pub(super) cgroup: String,
}

/// Claims of one kind, and the lock under which one is made.
#[derive(Debug, Clone)]
pub(super) struct Claims {
    directory: PathBuf,
    lock: PathBuf,
}

impl Claims {
    pub(super) const fn new(directory: PathBuf, lock: PathBuf) -> Self {
        Self { directory, lock }
    }

    /// Holds off everybody else who would make a claim, until it is dropped.
    pub(super) fn lock(&self) -> io::Result<File> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.lock)?;
        file.lock()?;
        Ok(file)
    }

    /// Every claim by its name; none of what cannot be read.
    pub(super) fn all<T: DeserializeOwned>(&self) -> io::Result<Vec<(String, Option<T>)>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            if let Ok(bytes) = fs::read(entry.path()) {
                all.push((name.to_owned(), serde_json::from_slice(&bytes).ok()));
            }
        }
        all.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(all)
    }

    pub(super) fn make<T: Serialize>(&self, name: &str, claim: &T) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(claim).map_err(io::Error::other)?;
        atomically(&self.file(name), &bytes, 0o600, Durable::No)
    }

    #[cfg(test)]
    pub(super) fn is_there(&self, name: &str) -> bool {
        self.file(name).exists()
    }

    pub(super) fn give_up(&self, name: &str) -> io::Result<()> {
        gone_is_fine(fs::remove_file(self.file(name)))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }
}

impl SubnetClaim {
    pub(super) fn stands(&self) -> bool {
        self.record.as_deref().is_none_or(Path::exists)
    }

    pub(super) fn range(&self) -> Option<Ipv4Net> {
        self.subnet.parse().ok()
    }
}

impl PortClaim {
    pub(super) fn new(handle: &str, cgroup: String, publish: &Publish) -> Self {
        Self {
            handle: handle.to_owned(),
            host_ip: publish.host_ip,
            host_port: publish.host_port,
            protocol: publish.protocol.as_str().to_owned(),
            cgroup,
        }
    }

    pub(super) fn name(&self) -> String {
        let ip = self.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
        format!("{}-{}-{ip}", self.protocol, self.host_port)
    }

    /// Whether another decky cannot have what this one has.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        let apart = match (self.host_ip, other.host_ip) {
            (Some(one), Some(two)) => one != two,
            (None, _) | (_, None) => false,
        };
        self.handle != other.handle
            && self.protocol == other.protocol
            && self.host_port == other.host_port
            && !apart
    }

    pub(super) fn stands(&self) -> bool {
        cgroup::is_populated(&self.cgroup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(handle: &str, ip: Option<Ipv4Addr>, port: u16) -> PortClaim {
        PortClaim {
            handle: handle.to_owned(),
            host_ip: ip,
            host_port: port,
            protocol: "tcp".to_owned(),
            cgroup: "/decnet/nobody/is-here".to_owned(),
        }
    }

    #[test]
    fn every_address_excludes_each_one() {
        let (one, two) = (Some(Ipv4Addr::LOCALHOST), Some(Ipv4Addr::new(10, 0, 0, 1)));
        let all = port("a", None, 80);
        assert!(all.excludes(&port("b", one, 80)) && port("b", one, 80).excludes(&all));
        assert!(!port("a", one, 80).excludes(&port("b", two, 80)));
        assert!(!port("a", one, 80).excludes(&port("b", one, 81)));
        assert!(!all.excludes(&port("a", one, 80)), "one's own");
        assert!(!all.stands());
    }
}

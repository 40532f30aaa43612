//! What Docker keeps as labels: one file for each object, written before the object is made and
//! removed after it is gone.
//!
//! A file that names an object which is not there, or only by half, is how an inventory knows of
//! a step that a dying agent did not end. Nothing here touches the kernel.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use domain::id::{DeckyId, HostId, LanId, TopologyId};
use domain::observe::Handle;
use domain::persona::Mac;
use domain::topology::hydrate::{HydratedInterface, HydratedLan};
use domain::topology::{LanDriver, LanKind, Protocol, Publish};
use ipnet::Ipv4Net;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::place::gone_is_fine;
use crate::engine::files::{Durable, atomically};
use crate::engine::label;

/// Labels as an engine's objects carry them.
pub(super) type Labels = BTreeMap<String, String>;

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LanRecord {
    pub(super) labels: Labels,
    /// The operator's name for it.
    pub(super) name: String,
    pub(super) subnet: String,
    /// The host's address there, when the host is on it.
    pub(super) gateway: String,
    /// `bridge`, `macvlan:eth0`, …
    pub(super) driver: String,
    /// Whether the outside reaches it.
    pub(super) dmz: bool,
}

/// A decky.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DeckyRecord {
    pub(super) labels: Labels,
    /// Microseconds since the epoch: its output is placed by it.
    pub(super) made: u64,
    /// The binary that it was made of.
    pub(super) root: String,
    /// The name that it has inside.
    pub(super) hostname: String,
    pub(super) memory_mib: u32,
    pub(super) pids: u32,
    pub(super) cpu_milli: u32,
    pub(super) interfaces: Vec<InterfaceRecord>,
    /// Ports of the host, as `0.0.0.0:8080->80/tcp`.
    pub(super) publish: Vec<PublishRecord>,
}

/// A membership of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InterfaceRecord {
    pub(super) network: String,
    pub(super) address: Ipv4Addr,
    pub(super) mac: String,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PublishRecord {
    pub(super) host_ip: Option<Ipv4Addr>,
    pub(super) host_port: u16,
    pub(super) decky_port: u16,
    pub(super) protocol: String,
}

impl LanRecord {
    pub(super) fn new(labels: Labels, lan: &HydratedLan) -> Self {
        Self {
            labels,
            name: lan.name.to_string(),
            subnet: lan.subnet.to_string(),
            gateway: lan.gateway.to_string(),
            driver: lan.driver.to_string(),
            dmz: lan.kind == LanKind::Dmz,
        }
    }

    pub(super) fn lan(&self) -> Option<LanId> {
        read(&self.labels, label::LAN)
    }

    pub(super) fn topology(&self) -> Option<TopologyId> {
        read(&self.labels, label::TOPOLOGY)
    }

    pub(super) fn subnet(&self) -> Option<Ipv4Net> {
        self.subnet.parse().ok()
    }

    pub(super) fn gateway(&self) -> Option<Ipv4Addr> {
        self.gateway.parse().ok()
    }

    pub(super) fn driver(&self) -> Option<LanDriver> {
        self.driver.parse().ok()
    }
}

impl DeckyRecord {
    pub(super) fn decky(&self) -> Option<DeckyId> {
        read(&self.labels, label::DECKY)
    }

    pub(super) fn topology(&self) -> Option<TopologyId> {
        read(&self.labels, label::TOPOLOGY)
    }

    pub(super) fn publish(&self) -> Vec<Publish> {
        self.publish
            .iter()
            .filter_map(|record| {
                Some(Publish {
                    host_ip: record.host_ip,
                    host_port: record.host_port,
                    decky_port: record.decky_port,
                    protocol: Protocol::from_str(&record.protocol).ok()?,
                })
            })
            .collect()
    }

    pub(super) fn is_on(&self, network: &str) -> bool {
        self.interfaces
            .iter()
            .any(|interface| interface.network == network)
    }
}

impl InterfaceRecord {
    pub(super) fn new(network: &Handle, interface: &HydratedInterface) -> Self {
        Self {
            network: network.as_str().to_owned(),
            address: interface.address,
            mac: interface.mac.to_string(),
        }
    }

    pub(super) fn mac(&self) -> Option<Mac> {
        self.mac.parse().ok()
    }
}

impl PublishRecord {
    pub(super) fn new(publish: &Publish) -> Self {
        Self {
            host_ip: publish.host_ip,
            host_port: publish.host_port,
            decky_port: publish.decky_port,
            protocol: publish.protocol.as_str().to_owned(),
        }
    }
}

/// A label's value.
pub(super) fn read<T: FromStr>(labels: &Labels, key: &str) -> Option<T> {
    labels.get(key)?.parse().ok()
}

/// Whether an object is a host's own.
pub(super) fn is_of(labels: &Labels, host: HostId) -> bool {
    read::<HostId>(labels, label::HOST) == Some(host)
}

/// The files of one kind of object.
#[derive(Debug, Clone)]
pub(super) struct Records {
    directory: PathBuf,
}

impl Records {
    pub(super) const fn in_directory(directory: PathBuf) -> Self {
        Self { directory }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes the record of an object.
    pub(super) fn write<T: Serialize>(&self, handle: &str, record: &T) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        let bytes = serde_json::to_vec_pretty(record).map_err(io::Error::other)?;
        // What a loss of power takes away with it is a record of what it took away too. It may leave
        // an empty file, which the next look clears.
        atomically(&self.file(handle), &bytes, 0o600, Durable::No)
    }

    /// The record of an object; none when there is no such object.
    pub(super) fn read<T: DeserializeOwned>(&self, handle: &str) -> io::Result<Option<T>> {
        // Handles come from others: none of them is a path.
        if !is_plain(handle) {
            return Ok(None);
        }
        match fs::read(self.file(handle)) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets an object.
    pub(super) fn remove(&self, handle: &str) -> io::Result<()> {
        if !is_plain(handle) {
            return Ok(());
        }
        gone_is_fine(fs::remove_file(self.file(handle)))
    }

    /// The handle of every object, without a look at its record.
    pub(super) fn handles(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        let name = |entry: fs::DirEntry| entry.file_name().into_string().ok();
        entries
            .filter_map(name)
            .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
            .collect()
    }

    /// Every object by its handle; none of one whose record cannot be read.
    pub(super) fn all<T: DeserializeOwned>(&self) -> io::Result<BTreeMap<String, Option<T>>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            other => other?,
        };
        let mut all = BTreeMap::new();
        for entry in entries {
            let name = entry?.file_name();
            let Some(handle) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            // One that has just gone is gone.
            if let Ok(bytes) = fs::read(self.file(handle)) {
                all.insert(handle.to_owned(), serde_json::from_slice(&bytes).ok());
            }
        }
        Ok(all)
    }

    fn file(&self, handle: &str) -> PathBuf {
        self.directory.join(format!("{handle}.json"))
    }
}

fn is_plain(handle: &str) -> bool {
    !handle.is_empty()
        && handle
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_there_until_it_is_removed() {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let records = Records::in_directory(directory.path().join("lans"));
        assert_eq!(
            records.all::<Labels>().expect("none is none"),
            BTreeMap::new()
        );
        let labels = Labels::from([("a".to_owned(), "b".to_owned())]);
        records.write("one", &labels).expect("the disk is there");
        fs::write(records.file("broken"), b"{").expect("the disk is there");
        let all = records.all::<Labels>().expect("the disk is there");
        assert_eq!(all["one"], Some(labels.clone()));
        assert_eq!(all["broken"], None);
        assert_eq!(records.read("one").expect("it is whole"), Some(labels));
        records.remove("one").expect("it is there");
        records.remove("one").expect("gone is gone");
        assert_eq!(records.read::<Labels>("one").expect("none is none"), None);
    }

    #[test]
    fn no_handle_leads_out_of_the_directory() {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        fs::write(directory.path().join("secret.json"), b"{}").expect("the disk is there");
        let records = Records::in_directory(directory.path().join("deckies"));
        let read = records
            .read::<Labels>("../secret")
            .expect("it is not looked for");
        assert_eq!(read, None);
        records.remove("../secret").expect("it is not looked for");
        assert!(directory.path().join("secret.json").exists());
    }
}

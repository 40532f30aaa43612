//! The fabric: one network namespace for each topology, which holds the bridges of its LANs and
//! nothing that answers. The host is on none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use domain::id::{HostId, LanId, TopologyId};
use netlink_sys::Socket;
use rustix::fs::{FsWord, statfs};
use sha2::{Digest as _, Sha256};

use super::rtnl::Rtnl;
use crate::netns::{Namespace, within};

/// `NSFS_MAGIC` of linux/magic.h: what a file system of namespaces says that it is.
const NSFS: FsWord = 0x6e73_6673;

/// The fabrics of a host.
#[derive(Debug)]
pub(super) struct Fabrics {
    directory: PathBuf,
    known: Mutex<BTreeMap<TopologyId, Arc<Fabric>>>,
}

/// One fabric.
#[derive(Debug)]
pub(super) struct Fabric {
    pub(super) rtnl: Rtnl,
    namespace: Namespace,
}

impl Fabrics {
    pub(super) const fn in_directory(directory: PathBuf) -> Self {
        Self {
            directory,
            known: Mutex::new(BTreeMap::new()),
        }
    }

    /// The fabric of a topology, if there is one.
    pub(super) fn of(&self, topology: TopologyId) -> io::Result<Option<Arc<Fabric>>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(topology);
        if !is_namespace(&path) {
            known.remove(&topology);
            return Ok(None);
        }
        let namespace = Namespace::at(&path)?;
        if let Some(fabric) = known.get(&topology)
            && fabric.namespace.inode() == namespace.inode()
        {
            return Ok(Some(Arc::clone(fabric)));
        }
        let rtnl = within(&namespace, |_| Rtnl::here())?;
        let fabric = Arc::new(Fabric { rtnl, namespace });
        known.insert(topology, Arc::clone(&fabric));
        Ok(Some(fabric))
    }

    /// The fabric of a topology, made if it is not there.
    pub(super) fn make(&self, topology: TopologyId) -> io::Result<Arc<Fabric>> {
        if let Some(fabric) = self.of(topology)? {
            return Ok(fabric);
        }
        {
            // Two LANs of one topology may be made at once.
            let _making = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let path = self.path(topology);
            if !is_namespace(&path) {
                Namespace::remove_at(&path)?;
                let namespace = Namespace::create_at(&path)?;
                within(&namespace, |_| silence())?;
            }
        }
        self.of(topology)?
            .ok_or_else(|| io::Error::other("the namespace of the topology is not there"))
    }

    /// The topologies that have a fabric, or a file where it is to be.
    pub(super) fn all(&self) -> BTreeSet<TopologyId> {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }

    /// Removes the fabric of a topology, with everything in it. One that is gone is removed.
    pub(super) fn remove(&self, topology: TopologyId) -> io::Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&topology);
        Namespace::remove_at(self.path(topology))
    }

    /// A path to its namespace.
    pub(super) fn path(&self, topology: TopologyId) -> PathBuf {
        self.directory.join(topology.to_string())
    }
}

impl Fabric {
    /// A socket that hears of changes to its links.
    pub(super) fn listen(&self) -> io::Result<Socket> {
        within(&self.namespace, |_| Rtnl::listener())
    }
}

/// The fabric forwards frames and takes no part in what they carry.
fn silence() -> io::Result<()> {
    for (key, value) in [
        ("net/ipv6/conf/all/disable_ipv6", "1"),
        ("net/ipv6/conf/default/disable_ipv6", "1"),
        // Frames between deckies would otherwise pass the rules for packets, of which there are none.
        ("net/bridge/bridge-nf-call-iptables", "0"),
        ("net/bridge/bridge-nf-call-ip6tables", "0"),
        ("net/bridge/bridge-nf-call-arptables", "0"),
    ] {
        let path = Path::new("/proc/sys").join(key);
        // A kernel that has not the one or the other has not its setting either.
        if path.exists() {
            fs::write(path, value)?;
        }
    }
    Ok(())
}

fn is_namespace(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.f_type == NSFS)
}

/// The name of a decky's end in the fabric: one for each start of it on each network, as long as
/// Linux allows.
pub(super) fn port(handle: &str, network: &str) -> String {
    format!("v{}", digest(&[handle, network], 14))
}

/// What the names of the host's links to its LANs begin with.
pub(super) fn uplink_prefix(host: HostId) -> String {
    format!("du{}", digest(&[&host.to_string()], 5))
}

/// What the name of a link begins with, if it is one of any host of this machine to a LAN.
pub(super) fn uplink_prefix_of(link: &str) -> Option<&str> {
    let digits = link.strip_prefix("du")?;
    let is_ours = digits.len() == 13 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_ours.then(|| link.get(..7)).flatten()
}

/// The name of the host's link to a LAN that the outside reaches.
pub(super) fn uplink(host: HostId, lan: LanId) -> String {
    format!("{}{}", uplink_prefix(host), digest(&[&lan.to_string()], 8))
}

/// The other end of that link, in the fabric.
pub(super) fn uplink_port(lan: LanId) -> String {
    format!("u{}", digest(&[&lan.to_string()], 14))
}

fn digest(parts: &[&str], digits: usize) -> String {
    let mut text = hex::encode(Sha256::digest(parts.join("\n")));
    text.truncate(digits);
    text
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn every_name_fits_into_linux() {
        let (host, lan) = (HostId::new(Uuid::max()), LanId::new(Uuid::max()));
        for name in [port("a", "b"), uplink(host, lan), uplink_port(lan)] {
            assert_eq!(name.len(), 15, "{name}");
        }
        let prefix = uplink_prefix(host);
        assert_eq!(uplink_prefix_of(&uplink(host, lan)), Some(prefix.as_str()));
        for other in ["eth0", "dummy0", "du", "dummyaaaaaaaaaa"] {
            assert_eq!(uplink_prefix_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_file_is_no_namespace() {
        assert!(!is_namespace(Path::new("/proc/self/status")));
        assert!(is_namespace(Path::new("/proc/self/ns/net")));
    }
}

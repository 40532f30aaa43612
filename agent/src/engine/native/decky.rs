//! Deckies: recorded before anything is made of them, wired before their process begins, and gone
//! in every part when they are removed.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use domain::observe::Handle;
use domain::topology::LanDriver;
use domain::topology::hydrate::HydratedInterface;
use domain::wiring::Wiring;
use ipnet::{IpNet, Ipv4Net};
use rand::Rng as _;
use rustix::process::{Signal, pidfd_send_signal};
use time::OffsetDateTime;

use super::bundle::Bundle;
use super::claim::PortClaim;
use super::fabric::port;
use super::output::take_back;
use super::process::{PID_FILE, open_process};
use super::program::{self, Failed};
use super::publish;
use super::record::{DeckyRecord, InterfaceRecord, Labels, LanRecord, PublishRecord};
use super::rtnl::{Child, Peer, Rtnl};
use super::{Shared, disk, missing, refused};
use crate::chain::Chain;
use crate::engine::files::{Durable, atomically};
use crate::engine::{EngineError, EngineErrorKind, NewDecky, label, name};
use crate::netns::{Namespace, Seal, wire, within};
use crate::task;

/// The runtime that Docker's package brings along.
const RUNC: &str = "runc";
const SEAL_FILE: &str = "seal";
const LOG_FILE: &str = "log";

impl Shared {
    pub(super) async fn make_decky(
        self: &Arc<Self>,
        new: NewDecky<'_>,
    ) -> Result<Handle, EngineError> {
        let attempt = "could not make a decky".to_owned();
        let tag = self.prepare_root().await?;
        let random: u32 = rand::rng().random();
        let handle = format!("{}-{random:08x}", name::decky(self.host, new.decky.id, 1));
        let record = self.record(&new, tag);
        let networks: Vec<String> = new
            .networks
            .iter()
            .map(|(network, _)| network.as_str().to_owned())
            .collect();
        let (this, id) = (Arc::clone(self), handle.clone());
        task::blocking(move || {
            let on_disk = disk(&attempt);
            this.places.prepare().map_err(&on_disk)?;
            for network in &networks {
                if this
                    .lans
                    .read::<LanRecord>(network)
                    .map_err(&on_disk)?
                    .is_none()
                {
                    return Err(missing(&attempt, format!("network {network}")));
                }
            }
            this.deckies.write(&id, &record).map_err(&on_disk)
        })
        .await?;
        crate::crash::point("apply.decky_created");
        self.files.write(new.decky.id, new.config).await?;
        Ok(Handle::new(handle))
    }

    fn record(&self, new: &NewDecky<'_>, root: String) -> DeckyRecord {
        let decky = new.decky;
        let labels = Labels::from([
            (label::HOST.to_owned(), self.host.to_string()),
            (label::TOPOLOGY.to_owned(), new.origin.topology.to_string()),
            (label::DECKY.to_owned(), decky.id.to_string()),
            (label::ROLE.to_owned(), "base".to_owned()),
            (label::SERVICE.to_owned(), "true".to_owned()),
            (
                label::GENERATION.to_owned(),
                new.origin.generation.to_string(),
            ),
            (label::SPEC.to_owned(), decky.spec().to_string()),
        ]);
        #[allow(
            clippy::disallowed_methods,
            reason = "places in its output are told as times from here on; nothing is decided by it"
        )]
        let now = OffsetDateTime::now_utc();
        DeckyRecord {
            labels,
            made: u64::try_from(now.unix_timestamp_nanos() / 1000).unwrap_or(0),
            root,
            hostname: decky.hostname.to_string(),
            memory_mib: decky.limits.memory_mib,
            pids: decky.limits.pids,
            cpu_milli: decky.limits.cpu_milli,
            interfaces: new
                .networks
                .iter()
                .map(|(network, interface)| InterfaceRecord::new(network, interface))
                .collect(),
            publish: decky.publish.iter().map(PublishRecord::new).collect(),
        }
    }

    pub(super) async fn begin(
        self: &Arc<Self>,
        handle: &Handle,
        wiring: &Wiring,
    ) -> Result<(), EngineError> {
        let attempt = format!("could not start decky {handle}");
        let record = self.record_of(handle, &attempt).await?;
        if self.pid_of(handle.as_str()).is_some() {
            return self.wire_again(handle, wiring).await;
        }
        // What an earlier process said is void; what the new one says must not be lost.
        if let Some(decky) = record.decky() {
            self.board.forget(decky);
        }
        self.end_process(handle.as_str()).await?;
        let prepared = self.prepared(&record.root).await?;
        self.take_ports(handle, &record).await?;
        let started = self
            .start(handle, &record, wiring, &prepared, &attempt)
            .await;
        let due = self.doors_due.swap(false, Ordering::Relaxed) || !record.publish.is_empty();
        let published = match started {
            Ok(()) if due => self.renew_doors().await,
            other => other,
        };
        if let Err(error) = published {
            // The failure itself is what is reported.
            if let Err(left) = self.end_process(handle.as_str()).await {
                tracing::warn!(object = %handle, error = %Chain(&left), "a half-started decky is left");
            }
            return Err(error);
        }
        self.touched();
        Ok(())
    }

    async fn start(
        self: &Arc<Self>,
        handle: &Handle,
        record: &DeckyRecord,
        wiring: &Wiring,
        prepared: &super::Prepared,
        attempt: &str,
    ) -> Result<(), EngineError> {
        let id = handle.as_str().to_owned();
        let (this, told) = (Arc::clone(self), attempt.to_owned());
        let (record, wiring, prepared) = (record.clone(), wiring.clone(), *prepared);
        let (space, output) = task::blocking(move || {
            let namespace = this.furnish(&id, &record, &told)?;
            let seal = wire(&namespace, &wiring).map_err(|source| refused(&told, source))?;
            let write = || -> io::Result<_> {
                let bundle = this.places.bundle(&id);
                fs::create_dir_all(&bundle)?;
                atomically(&bundle.join(SEAL_FILE), &seal.encode(), 0o600, Durable::No)?;
                let decky = record
                    .decky()
                    .ok_or_else(|| io::Error::other("its record does not say which decky it is"))?;
                let document = Bundle {
                    record: &record,
                    handle: &id,
                    root: &this.places.mounted_root(&record.root),
                    devices: &this.places.devices(),
                    config: &this.files.directory(decky),
                    network: &namespace.path(),
                    cgroup: &this.groups.path(&id),
                    users: prepared.users,
                    swap: prepared.swap,
                    files: prepared.files,
                }
                .document();
                let bytes = serde_json::to_vec(&document).map_err(io::Error::other)?;
                atomically(&bundle.join("config.json"), &bytes, 0o600, Durable::No)?;
                this.outputs.open_for_process(&id)
            };
            let output = write().map_err(disk(&told))?;
            this.seals(|seals| seals.insert(id.clone(), seal));
            Ok::<_, EngineError>((namespace, output))
        })
        .await?;
        let launched = self.launch(handle, output, attempt).await;
        // Until here the namespace has lived by this alone; from now on by the process.
        drop(space);
        launched
    }

    async fn launch(
        &self,
        handle: &Handle,
        output: fs::File,
        attempt: &str,
    ) -> Result<(), EngineError> {
        let bundle = self.places.bundle(handle.as_str());
        let (log, pid) = (bundle.join(LOG_FILE), bundle.join(PID_FILE));
        let runtime = self.places.runtime();
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let (runtime, log_path, bundle, pid) =
            (text(&runtime), text(&log), text(&bundle), text(&pid));
        let arguments = [
            "--root",
            &runtime,
            "--log",
            &log_path,
            "--log-format",
            "text",
            "run",
            "--detach",
            "--bundle",
            &bundle,
            "--pid-file",
            &pid,
            handle.as_str(),
        ];
        let limit = self.limit.saturating_mul(2);
        let kept = output.try_clone().map_err(disk(attempt))?;
        let status = program::launch(RUNC, &arguments, output, limit).await?;
        if status.success() {
            let taken = task::blocking(move || take_back(&kept)).await;
            return taken.map_err(disk(attempt));
        }
        let said = task::blocking(move || fs::read_to_string(log).unwrap_or_default()).await;
        Err(refused(attempt, Failed::new(RUNC, status, &said)))
    }

    /// A new namespace with every interface of the decky in it.
    fn furnish(
        &self,
        handle: &str,
        record: &DeckyRecord,
        attempt: &str,
    ) -> Result<Namespace, EngineError> {
        let failed = |source: io::Error| refused(attempt, source);
        let namespace = Namespace::fresh().map_err(failed)?;
        let inside = within(&namespace, |_| Rtnl::here()).map_err(failed)?;
        for (number, interface) in record.interfaces.iter().enumerate() {
            self.plug(handle, interface, &namespace, &inside, number, attempt)?;
        }
        Ok(namespace)
    }

    /// Makes one interface in a decky's namespace, under its name and with its addresses.
    fn plug(
        &self,
        handle: &str,
        interface: &InterfaceRecord,
        namespace: &Namespace,
        inside: &Rtnl,
        number: usize,
        attempt: &str,
    ) -> Result<(), EngineError> {
        let failed = |source: io::Error| refused(attempt, source);
        let network = &interface.network;
        let lan = self
            .lans
            .read::<LanRecord>(network)
            .map_err(disk(attempt))?
            .ok_or_else(|| missing(attempt, format!("network {network}")))?;
        let name = format!("eth{number}");
        let peer = Peer {
            namespace,
            name: &name,
            mac: interface.mac(),
        };
        match lan.driver() {
            Some(LanDriver::Bridge) => {
                let (Some(topology), Some(id)) = (lan.topology(), lan.lan()) else {
                    return Err(missing(attempt, format!("the LAN of network {network}")));
                };
                let fabric = self.raise(topology).map_err(failed)?;
                let bridge = fabric.rtnl.index_of(&name::bridge(id)).map_err(failed)?;
                let Some(bridge) = bridge else {
                    return Err(missing(attempt, format!("the bridge of network {network}")));
                };
                let port = port(handle, network);
                // Of an earlier process whose namespace is still being taken down.
                fabric.rtnl.remove(&port).map_err(failed)?;
                fabric
                    .rtnl
                    .add_pair(&port, Some(bridge), &peer)
                    .map_err(failed)?;
            }
            Some(LanDriver::Macvlan(parent)) => {
                share(Child::Macvlan, parent.as_str(), &peer, attempt)?;
            }
            Some(LanDriver::Ipvlan(parent)) => {
                share(Child::Ipvlan, parent.as_str(), &peer, attempt)?;
            }
            None => return Err(missing(attempt, format!("the driver of network {network}"))),
        }
        let address = lan
            .subnet()
            .and_then(|subnet| Ipv4Net::new(interface.address, subnet.prefix_len()).ok());
        let index = inside.index_of(&name).map_err(failed)?;
        if let (Some(address), Some(index)) = (address, index) {
            inside
                .add_address(index, IpNet::V4(address))
                .map_err(failed)?;
        }
        Ok(())
    }

    pub(super) async fn wire_again(
        self: &Arc<Self>,
        handle: &Handle,
        wiring: &Wiring,
    ) -> Result<(), EngineError> {
        let attempt = format!("could not wire decky {handle}");
        let record = self.record_of(handle, &attempt).await?;
        let Some(pid) = self.pid_of(handle.as_str()) else {
            return Err(missing(&attempt, "its process".to_owned()));
        };
        let (this, id, wiring) = (Arc::clone(self), handle.as_str().to_owned(), wiring.clone());
        task::blocking(move || {
            let namespace =
                Namespace::of_process(pid).map_err(|source| refused(&attempt, source))?;
            let seal = wire(&namespace, &wiring).map_err(|source| refused(&attempt, source))?;
            let file = this.places.bundle(&id).join(SEAL_FILE);
            atomically(&file, &seal.encode(), 0o600, Durable::No).map_err(disk(&attempt))?;
            this.seals(|seals| seals.insert(id, seal));
            Ok::<_, EngineError>(())
        })
        .await?;
        if record.publish.is_empty() {
            return Ok(());
        }
        self.renew_doors().await
    }

    pub(super) async fn unmake_decky(self: &Arc<Self>, handle: &Handle) -> Result<(), EngineError> {
        let attempt = format!("could not remove decky {handle}");
        let id = handle.as_str().to_owned();
        let record = match self.record_of(handle, &attempt).await {
            Ok(record) => Some(record),
            Err(error) if error.kind == EngineErrorKind::NotFound => return Ok(()),
            // A record that cannot be read is of a decky that can be removed nevertheless.
            Err(_) => None,
        };
        self.end_process(&id).await?;
        if record
            .as_ref()
            .is_none_or(|record| !record.publish.is_empty())
        {
            self.renew_doors().await?;
        }
        if let Some(decky) = record.as_ref().and_then(DeckyRecord::decky) {
            self.board.forget(decky);
            if self.is_only(handle.as_str(), decky).await {
                self.files.remove(decky).await?;
            }
        }
        let this = Arc::clone(self);
        task::blocking(move || {
            this.outputs.remove(&id)?;
            // Last: whoever dies before finds it, and does all of this again.
            this.deckies.remove(&id)
        })
        .await
        .map_err(disk(&attempt))?;
        self.touched();
        Ok(())
    }

    /// Whether no other object is the same decky: both would read one file.
    async fn is_only(self: &Arc<Self>, handle: &str, decky: domain::id::DeckyId) -> bool {
        let (this, handle) = (Arc::clone(self), handle.to_owned());
        // Every handle begins with the decky's name.
        let name = name::decky(self.host, decky, 1);
        task::blocking(move || {
            let mut handles = this.deckies.handles().into_iter();
            handles.all(|other| other == handle || !other.starts_with(&name))
        })
        .await
    }

    async fn take_ports(
        self: &Arc<Self>,
        handle: &Handle,
        record: &DeckyRecord,
    ) -> Result<(), EngineError> {
        let wanted = record.publish();
        if wanted.is_empty() {
            return Ok(());
        }
        let (this, id) = (Arc::clone(self), handle.as_str().to_owned());
        task::blocking(move || {
            let on_disk = disk("could not claim a port of the host");
            // Where a bundle is, there is something to be ended.
            fs::create_dir_all(this.places.bundle(&id)).map_err(&on_disk)?;
            let _locked = this.ports.lock().map_err(&on_disk)?;
            let taken = this.ports.all::<PortClaim>().map_err(&on_disk)?;
            for publish in &wanted {
                let claim = PortClaim::new(&id, this.groups.path(&id), publish);
                let holder = taken.iter().find_map(|(_, other)| {
                    other
                        .as_ref()
                        .filter(|other| other.excludes(&claim) && other.stands())
                });
                if let Some(holder) = holder {
                    return Err(EngineError {
                        kind: EngineErrorKind::PortTaken,
                        attempt: format!("could not publish {publish}"),
                        source: Some(format!("decky {} has it", holder.handle).into()),
                    });
                }
                publish::is_free(publish)?;
                this.ports.make(&claim.name(), &claim).map_err(&on_disk)?;
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn join(
        self: &Arc<Self>,
        handle: &Handle,
        network: &Handle,
        interface: &HydratedInterface,
    ) -> Result<(), EngineError> {
        let attempt = format!(
            "could not connect decky {handle} under {}",
            interface.address
        );
        let (this, id) = (Arc::clone(self), handle.as_str().to_owned());
        let interface = InterfaceRecord::new(network, interface);
        task::blocking(move || {
            let on_disk = disk(&attempt);
            let failed = |source: io::Error| refused(&attempt, source);
            let network = interface.network.clone();
            if this
                .lans
                .read::<LanRecord>(&network)
                .map_err(&on_disk)?
                .is_none()
            {
                return Err(missing(&attempt, format!("network {network}")));
            }
            let Some(mut record) = this.deckies.read::<DeckyRecord>(&id).map_err(&on_disk)? else {
                return Err(missing(&attempt, format!("decky {id}")));
            };
            record.interfaces.retain(|other| other.network != network);
            record.interfaces.push(interface.clone());
            this.deckies.write(&id, &record).map_err(&on_disk)?;
            let Some(pid) = this.pid_of(&id) else {
                return Ok(());
            };
            let namespace = Namespace::of_process(pid).map_err(failed)?;
            let inside = within(&namespace, |_| Rtnl::here()).map_err(failed)?;
            let links = inside.links().map_err(failed)?;
            let stale = links
                .iter()
                .filter(|link| link.mac.is_some() && link.mac == interface.mac());
            for link in stale {
                // It was cut on the other side, or is on no bridge any more.
                inside.remove(&link.name).map_err(failed)?;
            }
            let links = inside.links().map_err(failed)?;
            let number = (0..)
                .find(|number| links.iter().all(|link| link.name != format!("eth{number}")))
                .unwrap_or_default();
            this.plug(&id, &interface, &namespace, &inside, number, &attempt)
        })
        .await?;
        self.touched();
        Ok(())
    }

    pub(super) async fn part(
        self: &Arc<Self>,
        handle: &Handle,
        network: &Handle,
    ) -> Result<(), EngineError> {
        let attempt = format!("could not disconnect decky {handle}");
        let (this, id) = (Arc::clone(self), handle.as_str().to_owned());
        let network = network.as_str().to_owned();
        task::blocking(move || {
            let on_disk = disk(&attempt);
            let failed = |source: io::Error| refused(&attempt, source);
            let Some(mut record) = this.deckies.read::<DeckyRecord>(&id).map_err(&on_disk)? else {
                return Ok(());
            };
            let lan = this.lans.read::<LanRecord>(&network).map_err(&on_disk)?;
            if let Some(topology) = lan.as_ref().and_then(LanRecord::topology)
                && let Some(fabric) = this.fabrics.of(topology).map_err(failed)?
            {
                fabric.rtnl.remove(&port(&id, &network)).map_err(failed)?;
            }
            let interface = record
                .interfaces
                .iter()
                .find(|other| other.network == network);
            // A link to a real network has no other end: it goes from the inside.
            if let Some(mac) = interface.and_then(InterfaceRecord::mac)
                && let Some(pid) = this.pid_of(&id)
            {
                let namespace = Namespace::of_process(pid).map_err(failed)?;
                let inside = within(&namespace, |_| Rtnl::here()).map_err(failed)?;
                for link in inside.links().map_err(failed)? {
                    if link.mac == Some(mac) {
                        inside.remove(&link.name).map_err(failed)?;
                    }
                }
            }
            record.interfaces.retain(|other| other.network != network);
            this.deckies.write(&id, &record).map_err(&on_disk)
        })
        .await?;
        self.touched();
        Ok(())
    }

    pub(super) async fn reconfigure(
        self: &Arc<Self>,
        handle: &Handle,
        decky: domain::id::DeckyId,
        config: &[u8],
    ) -> Result<(), EngineError> {
        let this = Arc::clone(self);
        // A reboot takes the directory away in which it is.
        let prepared = task::blocking(move || this.places.prepare()).await;
        prepared.map_err(disk("could not make the directories of the engine"))?;
        self.files.replace(decky, config).await?;
        let (this, id) = (Arc::clone(self), handle.as_str().to_owned());
        let told = task::blocking(move || match this.pid_of(&id).and_then(open_process) {
            Some(process) => pidfd_send_signal(&process, Signal::HUP),
            // It reads the file when it is started.
            None => Ok(()),
        })
        .await;
        match told {
            // It has ended meanwhile.
            Ok(()) | Err(rustix::io::Errno::SRCH) => self.files.told(decky).await,
            Err(source) => {
                let attempt = format!("could not tell decky {handle} to read its file");
                Err(refused(attempt, io::Error::from(source)))
            }
        }
    }

    pub(super) async fn record_of(
        self: &Arc<Self>,
        handle: &Handle,
        attempt: &str,
    ) -> Result<DeckyRecord, EngineError> {
        let (this, id) = (Arc::clone(self), handle.as_str().to_owned());
        let found = task::blocking(move || this.deckies.read::<DeckyRecord>(&id)).await;
        found
            .map_err(disk(attempt))?
            .ok_or_else(|| missing(attempt, format!("decky {handle}")))
    }

    /// What was kept of a decky's namespace when it was wired.
    pub(super) fn seal_of(&self, handle: &str) -> Option<Seal> {
        let known = self.seals(|seals| seals.get(handle).cloned());
        known.or_else(|| {
            let bytes = fs::read(self.places.bundle(handle).join(SEAL_FILE)).ok()?;
            let seal = Seal::decode(&bytes)?;
            self.seals(|seals| seals.insert(handle.to_owned(), seal.clone()));
            Some(seal)
        })
    }
}

fn share(
    kind: Child,
    parent: &str,
    peer: &Peer<'_, &Namespace>,
    attempt: &str,
) -> Result<(), EngineError> {
    let failed = |source: io::Error| refused(attempt, source);
    let host = Rtnl::here().map_err(failed)?;
    let Some(index) = host.index_of(parent).map_err(failed)? else {
        return Err(missing(attempt, format!("interface {parent} of this host")));
    };
    host.add_child(kind, index, peer).map_err(failed)
}

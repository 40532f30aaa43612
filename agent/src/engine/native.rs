//! The engine that needs no daemon: an OCI runtime for the processes, netlink and nftables for the
//! network, and files for what another engine keeps as labels.
//!
//! It answers every question from the kernel and its own records. A decky outlives the agent, and is
//! found again by its record and its control group. Images of the operator's own are not its
//! business.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::id::HostId;
use domain::observe::{Handle, Inventory};
use domain::topology::hydrate::{HydratedDecky, HydratedInterface, HydratedLan};
use domain::wiring::Wiring;
use futures_util::stream::BoxStream;
use ipnet::Ipv4Net;
use rustix::process::{Resource, getrlimit};
use time::OffsetDateTime;
use tokio::sync::{OnceCell, watch};

use self::bundle::{Swap, Users};
use self::cgroup::Groups;
use self::claim::Claims;
use self::fabric::Fabrics;
use self::hints::FileWatch;
use self::output::{Following, Outputs};
use self::place::Places;
use self::publish::Door;
use self::record::{DeckyRecord, LanRecord, Records};
use self::rtnl::Rtnl;
use super::files::Files;
use super::image::Binary;
use super::liveness::LivenessBoard;
use super::{Changed, Engine, EngineError, EngineErrorKind, NewDecky, Origin, OutputLine};
use crate::netns::{self, Namespace, Seal};
use crate::task;

mod bundle;
mod cgroup;
mod claim;
mod decky;
mod fabric;
mod forward;
mod hints;
mod inventory;
mod lan;
mod output;
mod place;
mod probe;
mod process;
mod program;
mod publish;
mod ready;
mod record;
mod root;
mod rtnl;
mod seccomp;
mod wreck;

/// Most files that a decky may open: its framework bounds connections far below.
const FILES: u64 = 65_536;

/// What a native engine needs to know.
#[derive(Debug, Clone)]
pub struct NativeConfig {
    /// Whose objects it makes.
    pub host: HostId,
    /// The static binary that runs in every decky.
    pub decky_binary: PathBuf,
    /// The agent's data directory: records, configurations and output are below it.
    pub data_dir: PathBuf,
    /// Where what a reboot takes away is kept, for all hosts of this machine; none for
    /// `/run/decnet`.
    pub run_dir: Option<PathBuf>,
    /// How long a program may take; starting a decky may take twice that.
    pub call_timeout: Duration,
}

/// The kernel of this machine, as one host's engine.
#[derive(Debug)]
pub struct NativeEngine {
    shared: Arc<Shared>,
}

struct Shared {
    host: HostId,
    binary: Binary,
    files: Files,
    board: LivenessBoard,
    limit: Duration,
    places: Places,
    lans: Records,
    deckies: Records,
    subnets: Claims,
    ports: Claims,
    groups: Groups,
    fabrics: Fabrics,
    outputs: Arc<Outputs>,
    seals: Mutex<BTreeMap<String, Seal>>,
    /// What is ready for deckies of each binary; emptied when everything is taken down.
    ready: tokio::sync::Mutex<BTreeMap<String, Prepared>>,
    /// Held while bridges are made.
    raising: Mutex<()>,
    /// Whether the host has a link that its rules may not know of.
    doors_due: AtomicBool,
    /// Held while the rules of the host are replaced: the last who reads must be the last who loads.
    doors: tokio::sync::Mutex<()>,
    watch: OnceCell<FileWatch>,
    users: OnceCell<Users>,
    touched: watch::Sender<u64>,
    busy: AtomicUsize,
}

/// What is known of this machine, and the same for all its deckies.
#[derive(Debug, Clone, Copy)]
struct Prepared {
    users: Users,
    swap: Swap,
    files: u64,
}

/// Counts what this engine is at.
struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("host", &self.host)
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

impl NativeEngine {
    /// An engine with these places. Nothing is asked of the machine.
    pub fn new(config: NativeConfig, board: LivenessBoard) -> Self {
        let NativeConfig {
            host,
            decky_binary,
            data_dir,
            run_dir,
            call_timeout,
        } = config;
        // Bundles name absolute paths; a relative one is of this process's directory.
        let data = std::path::absolute(&data_dir).unwrap_or(data_dir);
        let places = Places::new(&data, run_dir, host);
        let claims = |kind| Claims::new(places.claims(kind), places.claims_lock());
        let shared = Shared {
            host,
            binary: Binary::new(decky_binary),
            files: Files::in_data(&places.configurations()),
            board,
            limit: call_timeout,
            lans: Records::in_directory(places.lans()),
            deckies: Records::in_directory(places.deckies()),
            subnets: claims("subnets"),
            ports: claims("ports"),
            groups: Groups::new(host.to_string()),
            fabrics: Fabrics::in_directory(places.fabrics()),
            outputs: Arc::new(Outputs::in_directory(places.outputs())),
            places,
            seals: Mutex::default(),
            ready: tokio::sync::Mutex::default(),
            raising: Mutex::default(),
            doors_due: AtomicBool::new(false),
            doors: tokio::sync::Mutex::default(),
            watch: OnceCell::new(),
            users: OnceCell::new(),
            touched: watch_sender(),
            busy: AtomicUsize::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

fn watch_sender() -> watch::Sender<u64> {
    watch::Sender::new(0)
}

impl Shared {
    fn seals<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Seal>) -> T) -> T {
        // A panic elsewhere leaves a map that is whole: each change is one call.
        act(&mut self.seals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says that there is something else to be watched.
    fn touched(&self) {
        self.touched
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.touched.subscribe()
    }

    fn at_work(&self) -> Busy<'_> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(&self.busy)
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// What a decky has said is void when its process has ended.
    async fn has_ended(self: &Arc<Self>, handle: &str) {
        let (this, id) = (Arc::clone(self), handle.to_owned());
        let record = task::blocking(move || {
            // It may have been started again by now.
            if this.pid_of(&id).is_some() {
                return None;
            }
            this.deckies.read::<DeckyRecord>(&id).ok().flatten()
        })
        .await;
        if let Some(decky) = record.as_ref().and_then(DeckyRecord::decky) {
            self.board.forget(decky);
        }
    }

    /// Makes what all deckies of a binary share.
    async fn prepare_root(self: &Arc<Self>) -> Result<String, EngineError> {
        let mut tag = self.binary.tag().await?;
        {
            let mut ready = self.ready.lock().await;
            if !self.places.root(&tag).exists() {
                // The file may have been replaced since.
                let (read, bytes) = self.binary.bytes().await?;
                tag.clone_from(&read);
                let this = Arc::clone(self);
                let made = task::blocking(move || {
                    this.places.prepare()?;
                    root::make(&this.places, &read, &bytes)?;
                    this.sweep(&read)
                });
                made.await
                    .map_err(disk("could not make the root of the deckies"))?;
                ready.clear();
            }
        }
        self.prepared(&tag).await?;
        Ok(tag)
    }

    /// What deckies of that binary are started with; mounted and looked up when it is not.
    async fn prepared(self: &Arc<Self>, tag: &str) -> Result<Prepared, EngineError> {
        let mut ready = self.ready.lock().await;
        if let Some(prepared) = ready.get(tag) {
            return Ok(*prepared);
        }
        let (this, root) = (Arc::clone(self), tag.to_owned());
        if !self.places.root(tag).exists() {
            return Err(EngineError {
                kind: EngineErrorKind::ImageMissing,
                attempt: format!("the root of the binary {tag} is gone"),
                source: None,
            });
        }
        task::blocking(move || {
            this.places.prepare()?;
            root::mount_all(&this.places, &root)
        })
        .await
        .map_err(disk("could not mount the root of the deckies"))?;
        let this = Arc::clone(self);
        let swap = task::blocking(move || this.groups.counts_swap()).await;
        let mut prepared = Prepared {
            users: Users::Own,
            swap: if swap { Swap::Counted } else { Swap::Ignored },
            files: getrlimit(Resource::Nofile)
                .maximum
                .unwrap_or(FILES)
                .min(FILES),
        };
        // Once: a kernel does not change its mind.
        let users = self.users.get_or_try_init(|| self.probe(tag, &prepared));
        prepared.users = *users.await?;
        ready.insert(tag.to_owned(), prepared);
        Ok(prepared)
    }

    /// Loads the rules of the host for what stands and runs now.
    async fn renew_doors(self: &Arc<Self>) -> Result<(), EngineError> {
        let _loading = self.doors.lock().await;
        let this = Arc::clone(self);
        let (doors, uplinks) = task::blocking(move || {
            let lans = this.own_lans()?;
            let mut doors = Vec::new();
            for (handle, record) in this.deckies.all::<DeckyRecord>()? {
                let Some(record) = record.filter(|record| !record.publish.is_empty()) else {
                    continue;
                };
                if this.pid_of(&handle).is_some() {
                    doors.extend(Door::all_of(&handle, &record, &lans));
                }
            }
            Ok::<_, io::Error>((doors, this.uplinks(&Rtnl::here()?.links()?)))
        })
        .await
        .map_err(disk("could not read what this host has made"))?;
        self.load_doors(&doors, uplinks).await
    }

    /// Removes what belongs to no object: of kills between two steps, and of losses of power.
    fn sweep(&self, tag: &str) -> io::Result<()> {
        let deckies = self.deckies.all::<DeckyRecord>()?;
        self.outputs.sweep(|handle| deckies.contains_key(handle))?;
        root::sweep(&self.places, |root| {
            root == tag || deckies.values().flatten().any(|decky| decky.root == root)
        })
    }

    /// Takes down what serves all objects, when there is none any more.
    fn clear_if_empty(&self) -> io::Result<()> {
        let left = !self.lans.all::<LanRecord>()?.is_empty()
            || !self.deckies.all::<DeckyRecord>()?.is_empty();
        // Whoever makes something meanwhile finds it ready, or makes it so.
        let Ok(mut ready) = self.ready.try_lock() else {
            return Ok(());
        };
        if left || fs_is_used(&self.places.runtime()) {
            return Ok(());
        }
        ready.clear();
        self.groups.remove_host();
        root::unmount_all(self.places.run())?;
        self.outputs.sweep(|_| false)
    }
}

/// Whether anything, a stranger's container say, is in a directory.
fn fs_is_used(directory: &std::path::Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

#[async_trait]
impl Engine for NativeEngine {
    async fn inventory(&self) -> Result<Inventory, EngineError> {
        self.shared.take_inventory().await
    }

    async fn ensure_image(&self) -> Result<(), EngineError> {
        self.shared.prepare_root().await.map(drop)
    }

    async fn create_lan(
        &self,
        origin: Origin,
        lan: &HydratedLan,
        depth: u32,
    ) -> Result<Handle, EngineError> {
        let _busy = self.shared.at_work();
        self.shared.make_lan(origin, lan, depth).await
    }

    async fn remove_lan(&self, handle: &Handle) -> Result<(), EngineError> {
        let _busy = self.shared.at_work();
        self.shared.unmake_lan(handle).await
    }

    async fn create_decky(&self, new: NewDecky<'_>) -> Result<Handle, EngineError> {
        let _busy = self.shared.at_work();
        self.shared.make_decky(new).await
    }

    async fn start_decky(&self, handle: &Handle, wiring: &Wiring) -> Result<(), EngineError> {
        let _busy = self.shared.at_work();
        self.shared.begin(handle, wiring).await
    }

    async fn rewire(&self, handle: &Handle, wiring: &Wiring) -> Result<(), EngineError> {
        let _busy = self.shared.at_work();
        self.shared.wire_again(handle, wiring).await
    }

    async fn remove_decky(&self, handle: &Handle) -> Result<(), EngineError> {
        let _busy = self.shared.at_work();
        self.shared.unmake_decky(handle).await
    }

    async fn connect(
        &self,
        decky: &Handle,
        network: &Handle,
        interface: &HydratedInterface,
    ) -> Result<(), EngineError> {
        let _busy = self.shared.at_work();
        self.shared.join(decky, network, interface).await
    }

    async fn disconnect(&self, decky: &Handle, network: &Handle) -> Result<(), EngineError> {
        let _busy = self.shared.at_work();
        self.shared.part(decky, network).await
    }

    async fn configure(
        &self,
        handle: &Handle,
        decky: &HydratedDecky,
        config: &[u8],
    ) -> Result<(), EngineError> {
        self.shared.reconfigure(handle, decky.id, config).await
    }

    async fn changes(&self) -> Result<BoxStream<'static, Changed>, EngineError> {
        hints::changes(Arc::clone(&self.shared)).await
    }

    async fn follow(
        &self,
        handle: &Handle,
        since: Option<OffsetDateTime>,
    ) -> Result<BoxStream<'static, Result<OutputLine, EngineError>>, EngineError> {
        let attempt = format!("could not follow decky {handle}");
        let record = self.shared.record_of(handle, &attempt).await?;
        let watch = self
            .shared
            .watch
            .get_or_try_init(|| async { FileWatch::start() })
            .await
            .map_err(disk(&attempt))?;
        let id = handle.as_str().to_owned();
        let changed = if self.shared.outputs.exists(&id) {
            watch
                .of(&self.shared.outputs.file(&id))
                .map_err(disk(&attempt))?
        } else {
            watch_sender().subscribe()
        };
        let shared = Arc::clone(&self.shared);
        let process = {
            let id = id.clone();
            task::blocking(move || shared.pid_of(&id).and_then(process::open_process)).await
        };
        let following = Following {
            outputs: Arc::clone(&self.shared.outputs),
            handle: id,
            made: record.made,
            process,
            changed,
            attempt,
        };
        output::lines(following, since).await
    }

    fn refused(&self, handle: &Handle) -> Option<u64> {
        let pid = self.shared.pid_of(handle.as_str())?;
        let held = netns::refused(&Namespace::of_process(pid).ok()?).ok()?;
        Some(held.refused.saturating_add(held.flooded))
    }

    /// The work is of this machine's own processors: while one decky waits for the disk or for the
    /// kernel, another one goes on.
    fn at_once(&self) -> Option<usize> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Some(processors.saturating_mul(2))
    }

    async fn foreign_subnets(&self) -> Result<Vec<(String, Ipv4Net)>, EngineError> {
        let shared = Arc::clone(&self.shared);
        task::blocking(move || shared.other_subnets())
            .await
            .map_err(disk("could not read which subnets are in use"))
    }
}

/// A failure of the agent's own disk, or of what the kernel shows as files.
fn disk(attempt: &str) -> impl Fn(io::Error) -> EngineError + use<> {
    let attempt = attempt.to_owned();
    move |source| EngineError {
        kind: EngineErrorKind::Disk,
        attempt: attempt.clone(),
        source: Some(Box::new(source)),
    }
}

fn refused(
    attempt: impl Into<String>,
    source: impl std::error::Error + Send + Sync + 'static,
) -> EngineError {
    EngineError {
        kind: EngineErrorKind::Refused,
        attempt: attempt.into(),
        source: Some(Box::new(source)),
    }
}

fn missing(attempt: &str, what: String) -> EngineError {
    EngineError {
        kind: EngineErrorKind::NotFound,
        attempt: attempt.to_owned(),
        source: Some(format!("{what} is not there").into()),
    }
}

#[cfg(test)]
pub(crate) mod tests;

//! Hints: a process that ends, a link that changes, an output that grows.
//!
//! What somebody does to rules, routes or settings makes none; the inventory finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::id::TopologyId;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, FuturesUnordered};
use netlink_sys::Socket;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Shared;
use super::process::open_process;
use super::ready::awaited;
use crate::chain::Chain;
use crate::engine::{Changed, EngineError};
use crate::task;

/// How long this engine's own changes are gathered before what is watched follows them.
const GATHER: Duration = Duration::from_millis(100);

/// Who reads which file, by the kernel's number of the watch.
type Readers = Arc<Mutex<BTreeMap<i32, watch::Sender<u64>>>>;

/// Tells readers of files that these have changed. One for all files: a machine has few of these.
#[derive(Debug)]
pub(super) struct FileWatch {
    inotify: Arc<AsyncFd<OwnedFd>>,
    readers: Readers,
    _ends_with_this: DropGuard,
}

impl FileWatch {
    pub(super) fn start() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let inotify = Arc::new(awaited(inotify)?);
        let readers = Readers::default();
        let end = CancellationToken::new();
        let span = tracing::info_span!("native.watch");
        let (source, told, ended) = (Arc::clone(&inotify), Arc::clone(&readers), end.clone());
        task::spawn("native.watch", span, async move {
            tokio::select! {
                () = ended.cancelled() => {}
                failed = pass_on(&source, &told) => {
                    if let Err(error) = failed {
                        tracing::error!(error = %Chain(&error), "files are not watched any more");
                    }
                    // Readers are told by the end of their channel.
                    told.lock().unwrap_or_else(PoisonError::into_inner).clear();
                }
            }
        });
        Ok(Self {
            inotify,
            readers,
            _ends_with_this: end.drop_guard(),
        })
    }

    /// A number that moves whenever the file does.
    pub(super) fn of(&self, path: &Path) -> io::Result<watch::Receiver<u64>> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        // The same file has the same number, however often it is asked for.
        let number = inotify::add_watch(self.inotify.get_ref(), path, WatchFlags::MODIFY)?;
        let sender = readers
            .entry(number)
            .or_insert_with(|| watch::Sender::new(0));
        Ok(sender.subscribe())
    }
}

async fn pass_on(inotify: &AsyncFd<OwnedFd>, readers: &Readers) -> io::Result<()> {
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 16 * 1024];
    loop {
        let mut ready = inotify.readable().await?;
        let mut events = inotify::Reader::new(inotify.get_ref(), &mut buffer);
        loop {
            match events.next() {
                Ok(event) => {
                    let mut readers = readers.lock().unwrap_or_else(PoisonError::into_inner);
                    if event.events().contains(ReadFlags::IGNORED) {
                        readers.remove(&event.wd());
                    } else if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                        // Nobody knows whose changes were lost.
                        readers.values().for_each(bump);
                    } else if let Some(sender) = readers.get(&event.wd()) {
                        bump(sender);
                    }
                }
                Err(rustix::io::Errno::AGAIN) => {
                    ready.clear_ready();
                    break;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn bump(sender: &watch::Sender<u64>) {
    sender.send_modify(|count| *count = count.wrapping_add(1));
}

/// What is watched for a stream of hints.
struct Watched {
    shared: Arc<Shared>,
    touched: watch::Receiver<u64>,
    processes: FuturesUnordered<BoxFuture<'static, String>>,
    known: BTreeSet<String>,
    links: BTreeMap<TopologyId, AsyncFd<Socket>>,
    /// Something ended while it was being looked for.
    due: bool,
}

/// Hints of changes, as they happen.
pub(super) async fn changes(
    shared: Arc<Shared>,
) -> Result<BoxStream<'static, Changed>, EngineError> {
    let mut watched = Watched {
        touched: shared.subscribe(),
        shared,
        processes: FuturesUnordered::new(),
        known: BTreeSet::new(),
        links: BTreeMap::new(),
        due: false,
    };
    watched.renew().await;
    Ok(stream::unfold(watched, |mut watched| async move {
        watched.next().await;
        Some((Changed, watched))
    })
    .boxed())
}

impl Watched {
    async fn next(&mut self) {
        loop {
            if std::mem::take(&mut self.due) {
                return;
            }
            let waits_for_links = !self.links.is_empty();
            tokio::select! {
                Some(handle) = self.processes.next() => {
                    self.known.remove(&handle);
                    self.shared.has_ended(&handle).await;
                    return;
                }
                () = any_link(&mut self.links), if waits_for_links => {
                    // What this engine does itself is looked at by whoever has asked for it.
                    if !self.shared.is_busy() {
                        return;
                    }
                }
                touched = self.touched.changed() => {
                    if touched.is_err() {
                        std::future::pending::<()>().await;
                    }
                    // A deploy touches much: what came meanwhile is looked at once.
                    tokio::time::sleep(GATHER).await;
                    self.renew().await;
                }
            }
        }
    }

    /// Watches what has come since, and no more what is gone.
    async fn renew(&mut self) {
        self.touched.mark_unchanged();
        let (shared, known) = (Arc::clone(&self.shared), self.known.clone());
        let (running, fabrics) = task::blocking(move || {
            let running: Vec<_> = shared
                .deckies
                .handles()
                .into_iter()
                .filter(|handle| !known.contains(handle))
                .filter_map(|handle| Some((shared.pid_of(&handle)?, handle)))
                .map(|(pid, handle)| (handle, open_process(pid)))
                .collect();
            let topologies: BTreeSet<_> = shared.fabrics.all();
            (running, topologies)
        })
        .await;
        for (handle, process) in running {
            let Some(process) = process.and_then(|process| awaited(process).ok()) else {
                self.due = true;
                continue;
            };
            self.known.insert(handle.clone());
            self.processes.push(Box::pin(async move {
                // One that cannot be waited for is looked at, which is what a hint is for.
                drop(process.readable().await);
                handle
            }));
        }
        self.links.retain(|topology, _| fabrics.contains(topology));
        for topology in fabrics {
            if self.links.contains_key(&topology) {
                continue;
            }
            let shared = Arc::clone(&self.shared);
            let opened = task::blocking(move || {
                let fabric = shared.fabrics.of(topology)?;
                fabric.map(|fabric| fabric.listen()).transpose()
            })
            .await;
            match opened.map(|socket| socket.map(awaited)) {
                Ok(Some(Ok(socket))) => {
                    self.links.insert(topology, socket);
                }
                Ok(None) => {}
                Ok(Some(Err(error))) | Err(error) => {
                    tracing::warn!(topology.id = %topology, error = %Chain(&error), "links are not watched");
                }
            }
        }
    }
}

/// Waits for a change of any link, and takes all that have come.
async fn any_link(links: &mut BTreeMap<TopologyId, AsyncFd<Socket>>) {
    let waits = links.values().map(|socket| Box::pin(socket.readable()));
    let (ready, _, _) = futures_util::future::select_all(waits).await;
    if let Ok(mut ready) = ready {
        // An overrun is one more change.
        while ready
            .get_inner()
            .recv_from_full()
            .is_ok_and(|(message, _)| !message.is_empty())
        {}
        ready.clear_ready();
    }
}

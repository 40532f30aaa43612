//! Network namespaces: everything that the agent does inside of those of its deckies.
//!
//! All of it blocks, and runs on a thread of its own that enters the namespace and ends there: no
//! thread of the agent is ever left in another namespace than its own. Engines call it by
//! [`crate::task::blocking`]. Nothing here knows what a container is.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use domain::persona::Mac;
use ipnet::IpNet;
use nix::sched::{CloneFlags, setns, unshare};

pub use self::inside::{Address, Inside, Link, RouteEntry};
pub use self::seal::Seal;
pub use self::tables::{Family, Refused, comments};
pub use self::wire::{observe, refused, wire};

mod inside;
mod netlink;
pub mod rules;
mod seal;
mod tables;
mod wire;

/// The namespace of the calling thread.
const OF_THREAD: &str = "/proc/thread-self/ns/net";

/// A network namespace. It lives as long as this does.
#[derive(Debug, Clone)]
pub struct Namespace {
    file: Arc<OwnedFd>,
    inode: u64,
}

/// Why a namespace could not be made, or seen, as it should be.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// It is the agent's own: rules there would cut the host off.
    #[error("the network namespace is the agent's own")]
    OwnNamespace,
    /// It could not be entered.
    #[error("could not enter the network namespace, for which the agent must run as root")]
    Enter(#[from] io::Error),
    /// What is there could not be read.
    #[error("could not read the {what} of the network namespace")]
    Read {
        /// Of what.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No interface can be the one that is meant.
    #[error("no interface has the hardware address {mac} or one of the addresses {addresses:?}")]
    NoInterface {
        /// The hardware address that it is to have.
        mac: Mac,
        /// The addresses that it is to have.
        addresses: Vec<IpNet>,
    },
    /// An interface could not be changed.
    #[error("could not {what} of interface {link}")]
    Interface {
        /// What was attempted, with its subject.
        what: String,
        /// The interface's name.
        link: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A route could not be changed.
    #[error("could not {what}")]
    Route {
        /// What was attempted, with its subject.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A kernel setting could not be written.
    #[error("could not set {key} to {value:?}")]
    Sysctl {
        /// Its name.
        key: String,
        /// What it was to be.
        value: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the rules.
    #[error("could not load the rules of the packet filter")]
    Rules(#[source] io::Error),
}

impl Namespace {
    /// The namespace of a process.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::at(format!("/proc/{pid}/ns/net"))
    }

    /// The namespace that is mounted at `path`, or that such a link of `/proc` leads to.
    pub fn at(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = File::open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Self {
            file: Arc::new(file.into()),
            inode,
        })
    }

    /// The namespace of the calling thread: the agent's own.
    pub fn own() -> io::Result<Self> {
        Self::at(OF_THREAD)
    }

    /// What tells it from every other namespace that there is at this moment.
    pub const fn inode(&self) -> u64 {
        self.inode
    }

    /// Makes a new namespace, which lives as long as this value or a process in it.
    pub fn fresh() -> io::Result<Self> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::at(OF_THREAD)
        })
    }

    /// A path that leads every process of this machine to it, for as long as this value lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// Makes a new namespace and mounts it at `path`, where it stays until [`Namespace::remove_at`].
    pub fn create_at(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        File::create(path)?;
        let made = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            rustix::mount::mount_bind(OF_THREAD, path)?;
            Self::at(path)
        });
        if made.is_err() {
            // The failure itself is what is reported.
            drop(Self::remove_at(path));
        }
        made
    }

    /// Unmounts what [`Namespace::create_at`] has mounted. What is gone is removed.
    pub fn remove_at(path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        match rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH) {
            // Not there, or a file on which nothing was mounted yet.
            Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Does `work` inside of `namespace`, on a thread that ends with it.
pub fn within<T, E>(
    namespace: &Namespace,
    work: impl FnOnce(&mut Inside) -> Result<T, E> + Send,
) -> Result<T, E>
where
    T: Send,
    E: From<io::Error> + Send,
{
    on_thread(|| {
        setns(&*namespace.file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
        work(&mut Inside::open()?)
    })
}

/// Whether the kernel can make interfaces of a kind, such as `macvlan`. Loads its module if need be.
pub fn has_driver(kind: &str) -> io::Result<bool> {
    on_thread(|| {
        // What the question might make ends with this namespace.
        unshare(CloneFlags::CLONE_NEWNET)?;
        Inside::open()?.has_driver(kind)
    })
}

fn on_thread<T, E>(work: impl FnOnce() -> Result<T, E> + Send) -> Result<T, E>
where
    T: Send,
    E: From<io::Error> + Send,
{
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests;

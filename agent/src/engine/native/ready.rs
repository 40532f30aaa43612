//! Descriptors that tasks wait for.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::unix::AsyncFd;

/// Lets a task wait for a descriptor that belongs to `inner`.
pub(super) fn awaited<T: AsFd + AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    #[allow(
        deprecated,
        reason = "its successor is unsafe, which this crate forbids; whoever is AsFd cannot hand out \
                  a descriptor that is not its own, which is what the successor asks to be promised"
    )]
    AsyncFd::new(inner)
}

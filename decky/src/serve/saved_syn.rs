//! Asks the kernel for the first segment of a connection: the one place of this crate with unsafe
//! code, because no crate offers these two socket options.

#![allow(
    unsafe_code,
    reason = "two calls into the kernel that nothing safe wraps; each says why it is sound"
)]

use std::io;
use std::mem::{MaybeUninit, size_of_val};
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, socklen_t};

/// More than the kernel keeps: an IP header with its options or extensions, a TCP header with its.
const MAX: usize = 512;

/// Has the kernel keep the first segment of every connection that `listener` accepts.
pub(super) fn keep(listener: &impl AsFd) -> io::Result<()> {
    let on: c_int = 1;
    let length = socklen_t::try_from(size_of_val(&on)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is borrowed for the call; the pointer is to `length` bytes of a live
    // integer, which the kernel reads and does not keep.
    let done = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVE_SYN,
            std::ptr::from_ref(&on).cast(),
            length,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The headers of the first segment of a connection, once; none when the kernel has not kept them
/// (a flood, and cookies in their place).
pub(super) fn take(connection: &impl AsFd) -> Option<Vec<u8>> {
    let mut headers = [const { MaybeUninit::<u8>::uninit() }; MAX];
    let mut length = socklen_t::try_from(MAX).ok()?;
    // SAFETY: the descriptor is borrowed for the call; the kernel writes at most `length` bytes
    // into the buffer, which is as long, and how many into `length`; it keeps neither pointer.
    let done = unsafe {
        libc::getsockopt(
            connection.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVED_SYN,
            headers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let written = headers.get(..usize::try_from(length).ok()?)?;
    if done != 0 || written.is_empty() {
        return None;
    }
    // SAFETY: the call succeeded, so the kernel has written these bytes.
    Some(
        written
            .iter()
            .map(|byte| unsafe { byte.assume_init() })
            .collect(),
    )
}

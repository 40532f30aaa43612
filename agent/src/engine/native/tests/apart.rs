//! A machine's network for one test alone.

use std::io;

use crate::netns::{Namespace, within};

/// Runs a test in a network namespace of its own: whatever is set there, or loaded into the packet
/// filter, nothing is changed of the machine that builds.
pub(in crate::engine::native) fn apart(test: impl AsyncFnOnce() + Send) {
    let own = Namespace::fresh().expect("the tests run as root");
    let ran = within(&own, |_| {
        // Its threads begin where this one is.
        tokio::runtime::Runtime::new()?.block_on(test());
        Ok::<_, io::Error>(())
    });
    ran.expect("the machine has room for it");
}

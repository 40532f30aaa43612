//! Named points at which a test kills the process. Nothing of it is in a release.

/// Every point, for the test that kills at each in turn.
pub const POINTS: &[&str] = &[
    "enroll.redeemed",
    "enroll.kept",
    "deploy.stored",
    "teardown.stored",
    "reconcile.pushed",
    "reconcile.settled",
    "report.recorded",
    "events.committed",
    "mutation.enqueued",
    "mutation.claimed",
    "mutation.committed",
    "mutation.settled",
    "substrate.told",
];

#[cfg(feature = "crash-points")]
static ARMED: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Kills the process when `point` is reached.
#[cfg(feature = "crash-points")]
pub fn arm(point: String) {
    // A second call would be a second `--crash-at`, which the command line refuses.
    drop(ARMED.set(point));
}

/// A place where the process may end.
pub fn point(name: &'static str) {
    debug_assert!(POINTS.contains(&name), "{name} is not in POINTS");
    #[cfg(feature = "crash-points")]
    if ARMED.get().is_some_and(|armed| armed == name) {
        // As `kill -9` from outside: nothing is flushed, nothing is dropped.
        let killed =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        killed.expect("a process may signal itself");
    }
}

//! Named points at which a test kills this process, to prove that any moment is a good one to die.
//!
//! Compiled to nothing without the feature `crash-points`; a release never has it.

/// Every point, in the order in which an apply, a repair and a clearing reach them.
pub const POINTS: &[&str] = &[
    "apply.persisted",
    "apply.imaged",
    "apply.lan_created",
    "apply.decky_created",
    "apply.decky_connected",
    "apply.decky_started",
    "apply.verified",
    "apply.saved",
    "repair.persisted",
    "repair.imaged",
    "repair.lan_created",
    "repair.decky_connected",
    "repair.decky_started",
    "repair.decky_rewired",
    "repair.verified",
    "repair.saved",
    "clear.persisted",
    "clear.decky_removed",
    "clear.lan_removed",
    "clear.verified",
    "clear.saved",
];

/// A name that is no point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no crash point")]
pub struct UnknownPoint {
    name: String,
}

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::OnceLock;

    use super::{POINTS, UnknownPoint};

    static ARMED: OnceLock<&'static str> = OnceLock::new();

    /// Has the process kill itself at the point of that name. The first call wins.
    pub fn arm(name: &str) -> Result<(), UnknownPoint> {
        let point = POINTS
            .iter()
            .find(|point| **point == name)
            .ok_or_else(|| UnknownPoint {
                name: name.chars().take(64).collect(),
            })?;
        ARMED.get_or_init(|| point);
        Ok(())
    }

    /// Kills the process when this point is the armed one: no destructor runs, nothing is flushed.
    pub fn point(name: &str) {
        if ARMED.get().is_some_and(|armed| *armed == name) {
            let me = rustix::process::getpid();
            if rustix::process::kill_process(me, rustix::process::Signal::KILL).is_err() {
                std::process::abort();
            }
            // The signal may arrive on another thread: nothing may happen in between.
            loop {
                std::thread::park();
            }
        }
    }
}

#[cfg(feature = "crash-points")]
pub use armed::{arm, point};

/// The same as [`point`], by the two halves of the name.
pub fn point_of(what: &str, point_name: &str) {
    if cfg!(feature = "crash-points") {
        point(&format!("{what}.{point_name}"));
    }
}

/// Does nothing in a release.
#[cfg(not(feature = "crash-points"))]
pub const fn point(_name: &str) {}

/// Refuses: this build has no crash points.
#[cfg(not(feature = "crash-points"))]
pub fn arm(name: &str) -> Result<(), UnknownPoint> {
    Err(UnknownPoint {
        name: name.chars().take(64).collect(),
    })
}

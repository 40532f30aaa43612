//! The processes of a decky: which they are, and their end.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::timeout;

use super::claim::PortClaim;
use super::place::gone_is_fine;
use super::ready::awaited;
use super::{Shared, disk, refused};
use crate::engine::{EngineError, EngineErrorKind};
use crate::task;

/// How often, and after which pause, a group that should be empty is removed again.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);
/// The file of a bundle in which its runtime writes the number of the first process.
pub(super) const PID_FILE: &str = "pid";

impl Shared {
    /// The process of a decky, when it runs.
    pub(super) fn pid_of(&self, handle: &str) -> Option<u32> {
        let file = self.places.bundle(handle).join(PID_FILE);
        let pid = fs::read_to_string(file).ok()?.trim().parse().ok()?;
        // The number may have been given to another process since.
        self.groups.holds(handle, pid).then_some(pid)
    }

    /// Ends whatever runs of a decky, and removes what a process leaves: namespaces go with it.
    pub(super) async fn end_process(self: &Arc<Self>, handle: &str) -> Result<(), EngineError> {
        let attempt = format!("could not end decky {handle}");
        let (this, id) = (Arc::clone(self), handle.to_owned());
        let ends = task::blocking(move || this.kill_all(&id)).await;
        let Some(ends) = ends else {
            return Ok(());
        };
        for end in ends {
            let end = awaited(end).map_err(|source| refused(&attempt, source))?;
            let ended = timeout(self.limit, end.readable()).await;
            match ended {
                Ok(ready) => drop(ready.map_err(|source| refused(&attempt, source))?),
                Err(_) => {
                    return Err(EngineError {
                        kind: EngineErrorKind::Timeout,
                        attempt,
                        source: None,
                    });
                }
            }
        }
        let (this, id) = (Arc::clone(self), handle.to_owned());
        task::blocking(move || {
            this.seals(|seals| seals.remove(&id));
            for (name, claim) in this.ports.all::<PortClaim>()? {
                if claim.is_some_and(|claim| claim.handle == id) {
                    this.ports.give_up(&name)?;
                }
            }
            gone_is_fine(fs::remove_dir_all(this.places.runtime().join(&id)))?;
            gone_is_fine(fs::remove_dir_all(this.places.bundle(&id)))
        })
        .await
        .map_err(disk(&attempt))?;
        for tries in 0.. {
            let (this, id) = (Arc::clone(self), handle.to_owned());
            match task::blocking(move || this.groups.remove(&id)).await {
                // The kernel takes a dead process out of its group a moment later.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tries < TRIES => {
                    tokio::time::sleep(PAUSE).await;
                }
                removed => return removed.map_err(disk(&attempt)),
            }
        }
        Ok(())
    }

    /// Kills whatever runs of a decky; none when it was never begun, or is gone in every part.
    fn kill_all(&self, handle: &str) -> Option<Vec<OwnedFd>> {
        // Its bundle is made before anything else of a process, and its group goes last.
        if !self.places.bundle(handle).exists() && !self.groups.exists(handle) {
            return None;
        }
        self.groups.thaw(handle);
        // The first process of a namespace takes the others with it; a runtime that was killed may
        // have left some that are not in there yet.
        let ends = self.groups.members(handle).into_iter().filter_map(|pid| {
            let process = open_process(pid)?;
            pidfd_send_signal(&process, Signal::KILL).ok();
            Some(process)
        });
        Some(ends.collect())
    }
}

/// A process by a descriptor, which is never another one's.
pub(super) fn open_process(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

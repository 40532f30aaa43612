//! Records that nobody can read any more: a loss of power may keep the name of a file and lose what was
//! in it.
//!
//! Writing each one to the disk for good would cost every deploy a wait for it. What such a record
//! named has gone with the power, and what is left of it is cleared by the next look.

use std::io;
use std::sync::Arc;

use domain::observe::Handle;

use super::record::LanRecord;
use super::{Shared, disk};
use crate::chain::Chain;
use crate::engine::{EngineError, name};
use crate::task;

/// What is left of objects that are gone, by their handles.
#[derive(Debug, Default)]
pub(super) struct Wrecks {
    pub(super) lans: Vec<String>,
    pub(super) deckies: Vec<String>,
}

impl Shared {
    /// Whether a network whose record cannot be read is gone: its bridge is in no fabric when there
    /// is none.
    pub(super) fn is_wrecked_lan(&self, handle: &str) -> bool {
        self.is_named_here(handle) && self.fabrics.all().is_empty()
    }

    /// Whether a decky whose record cannot be read is gone.
    pub(super) fn is_wrecked_decky(&self, handle: &str) -> bool {
        self.is_named_here(handle)
            && self.pid_of(handle).is_none()
            && self.groups.members(handle).is_empty()
    }

    /// Removes what is left. A failure is told and left to the next look, which must not be lost by
    /// it.
    pub(super) async fn clear_wrecks(self: &Arc<Self>, wrecks: Wrecks) {
        for handle in wrecks.deckies {
            let cleared = self.unmake_decky(&Handle::new(handle.as_str())).await;
            told(&handle, cleared);
        }
        for handle in wrecks.lans {
            let (this, lan) = (Arc::clone(self), handle.clone());
            let cleared = task::blocking(move || {
                // An attempt that began meanwhile may have made it anew, under the same name.
                if this.lans.read::<LanRecord>(&lan).is_ok() {
                    return Ok(());
                }
                this.subnets.give_up(&lan)?;
                this.lans.remove(&lan)
            });
            told(&handle, cleared.await.map_err(left_behind));
        }
    }

    fn is_named_here(&self, handle: &str) -> bool {
        handle.starts_with(&name::prefix(self.host))
    }
}

fn left_behind(source: io::Error) -> EngineError {
    disk("could not remove what is left of a network")(source)
}

fn told(handle: &str, cleared: Result<(), EngineError>) {
    match cleared {
        Ok(()) => {
            tracing::info!(object = %handle, "its record was lost, and what was left is removed")
        }
        Err(error) => {
            tracing::warn!(object = %handle, error = %Chain(&error), "what a lost record names is left");
        }
    }
}

#[cfg(test)]
mod tests;

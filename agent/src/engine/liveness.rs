//! What deckies have said of themselves: the digest of the configuration that each has in force.
//!
//! The collector writes it from liveness lines; engines read it into their inventories and clear
//! it when a container starts or goes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::id::DeckyId;
use tokio::sync::watch;

/// The configurations in force, shared by the collector, the engine and the applier.
#[derive(Debug, Clone)]
pub struct LivenessBoard {
    digests: Arc<Mutex<BTreeMap<DeckyId, String>>>,
    changed: watch::Sender<u64>,
}

impl Default for LivenessBoard {
    fn default() -> Self {
        Self::new()
    }
}

impl LivenessBoard {
    /// A board on which no decky has written yet.
    pub fn new() -> Self {
        Self {
            digests: Arc::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// Notes that `decky` has said to run with the configuration of that digest.
    pub fn saw(&self, decky: DeckyId, digest: &str) {
        let news = self.with(|digests| {
            if digests.get(&decky).is_some_and(|known| known == digest) {
                return false;
            }
            digests.insert(decky, digest.to_owned());
            true
        });
        if news {
            self.changed
                .send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Forgets what `decky` has said: its process has ended or is made anew.
    pub fn forget(&self, decky: DeckyId) {
        self.with(|digests| digests.remove(&decky));
    }

    /// The configuration in force, when the decky has said so.
    pub fn digest(&self, decky: DeckyId) -> Option<String> {
        self.with(|digests| digests.get(&decky).cloned())
    }

    /// Counts what is news: a decky that said something else than before.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until `decky` has said to run with that configuration; false when it has not in time.
    pub async fn shows(&self, decky: DeckyId, digest: &str, within: Duration) -> bool {
        let mut changed = self.changed.subscribe();
        let shown = changed.wait_for(|_| self.digest(decky).is_some_and(|known| known == digest));
        tokio::time::timeout(within, shown)
            .await
            .is_ok_and(|seen| seen.is_ok())
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<DeckyId, String>) -> T) -> T {
        // A panic elsewhere leaves a map that is whole: each change is one call.
        act(&mut self.digests.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

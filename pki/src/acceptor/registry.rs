//! Every live connection, so that those of one host or one key can be cut.
//!
//! The order that makes revocation complete: the master swaps the allow-list and then cuts; a new
//! connection registers and then asks the allow-list. Whichever way the two interleave, either the
//! cut finds the connection or the connection sees the new list.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::id::HostId;
use tokio_util::sync::CancellationToken;

use crate::fingerprint::KeyFingerprint;

/// The connections that are live at this moment.
#[derive(Debug, Default)]
pub struct Connections {
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    next: u64,
    entries: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    host: Option<(HostId, KeyFingerprint)>,
    kill: CancellationToken,
}

/// One entry; dropping it removes it.
#[derive(Debug)]
pub(super) struct Registration {
    connections: Arc<Connections>,
    number: u64,
    kill: CancellationToken,
}

impl Connections {
    /// An empty registry.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Cuts every live connection of a host; tells how many there were. Swap the allow-list first.
    pub fn cut(&self, host: HostId) -> usize {
        self.cut_if(|entry| entry.host.is_some_and(|(live, _)| live == host))
    }

    /// Cuts every live connection that was opened with a key; tells how many there were.
    pub fn cut_key(&self, key: &KeyFingerprint) -> usize {
        self.cut_if(|entry| entry.host.is_some_and(|(_, live)| live == *key))
    }

    /// How many connections are live, those without a certificate included.
    pub fn live(&self) -> usize {
        self.lock().entries.len()
    }

    pub(super) fn register(
        self: &Arc<Self>,
        host: Option<(HostId, KeyFingerprint)>,
    ) -> Registration {
        let kill = CancellationToken::new();
        let mut live = self.lock();
        let number = live.next;
        live.next += 1;
        live.entries.insert(
            number,
            Entry {
                host,
                kill: kill.clone(),
            },
        );
        drop(live);
        Registration {
            connections: Arc::clone(self),
            number,
            kill,
        }
    }

    fn cut_if(&self, wanted: impl Fn(&Entry) -> bool) -> usize {
        // The entries stay until their connections are dropped. Cancelling wakes tasks and runs
        // none of their code, so the lock may be held.
        let live = self.lock();
        let hit = live.entries.values().filter(|entry| wanted(entry));
        hit.inspect(|entry| entry.kill.cancel()).count()
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    pub(super) fn kill(&self) -> &CancellationToken {
        &self.kill
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.connections.lock().entries.remove(&self.number);
    }
}

//! The allow-list: who may connect, in memory, swapped whole after each commit.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use domain::host::Standing;
use domain::id::HostId;
use pki::acceptor::{AllowList, Standing as Verdict};
use pki::fingerprint::KeyFingerprint;

use crate::db::AllowedKey;

/// Which key may speak for which host.
#[derive(Debug, Default)]
pub struct AllowTable {
    table: RwLock<Arc<HashMap<(HostId, KeyFingerprint), Standing>>>,
}

impl AllowTable {
    /// Replaces the list.
    pub fn swap(&self, keys: Vec<AllowedKey>) {
        let table = keys
            .into_iter()
            .map(|allowed| ((allowed.host, allowed.key), allowed.standing))
            .collect();
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    /// What the operator has decided about the host that owns this key.
    pub fn get(&self, host: HostId, key: &KeyFingerprint) -> Option<Standing> {
        let table = self
            .table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        table.get(&(host, *key)).copied()
    }

    /// Whether events of this host under this key are taken.
    pub fn is_heard(&self, host: HostId, key: &KeyFingerprint) -> bool {
        self.get(host, key).is_some_and(Standing::is_heard)
    }
}

impl AllowList for AllowTable {
    fn standing(&self, host: HostId, key: &KeyFingerprint) -> Verdict {
        match self.get(host, key) {
            Some(Standing::Open | Standing::Cordoned | Standing::Draining) => Verdict::Allowed,
            Some(Standing::Removed) => Verdict::Removed,
            Some(Standing::Revoked) | None => Verdict::Refused,
        }
    }
}

//! What a running decky uses of its host: figures for people, never a ground for a decision.
//!
//! They change all the time, so they belong to no inventory and to no digest: a report that
//! differed by them alone would make every steady host noisy.

use std::collections::BTreeMap;

use crate::id::DeckyId;

/// What one decky uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Memory, the pages of files that it read included.
    pub memory_bytes: u64,
    /// Time on a processor since it was started, in microseconds.
    pub cpu_micros: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Packets that its containment has refused; none when nothing counts them.
    pub refused_packets: Option<u64>,
    /// Processes that were killed because it was out of memory; none when it cannot be told.
    pub oom_kills: Option<u64>,
}

/// What each running decky of a host uses, as far as it could be read.
pub type Usages = BTreeMap<DeckyId, Usage>;

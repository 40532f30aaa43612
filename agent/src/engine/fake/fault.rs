//! Faults on request: the nth call of a kind fails, or never returns, or waits at a gate.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::FakeDaemon;
use crate::engine::EngineErrorKind;

/// A call to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the method of its name")]
pub enum Op {
    Inventory,
    EnsureImage,
    CreateLan,
    RemoveLan,
    CreateDecky,
    StartDecky,
    Rewire,
    RemoveDecky,
    Connect,
    Disconnect,
    Configure,
    Changes,
    Follow,
    ForeignSubnets,
}

impl Op {
    /// The method's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inventory => "inventory",
            Self::EnsureImage => "ensure_image",
            Self::CreateLan => "create_lan",
            Self::RemoveLan => "remove_lan",
            Self::CreateDecky => "create_decky",
            Self::StartDecky => "start_decky",
            Self::Rewire => "rewire",
            Self::RemoveDecky => "remove_decky",
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
            Self::Configure => "configure",
            Self::Changes => "changes",
            Self::Follow => "follow",
            Self::ForeignSubnets => "foreign_subnets",
        }
    }

    /// Whether it may change an object.
    pub const fn changes(self) -> bool {
        match self {
            Self::CreateLan
            | Self::RemoveLan
            | Self::CreateDecky
            | Self::StartDecky
            | Self::Rewire
            | Self::RemoveDecky
            | Self::Connect
            | Self::Disconnect
            | Self::Configure => true,
            Self::Inventory
            | Self::EnsureImage
            | Self::Changes
            | Self::Follow
            | Self::ForeignSubnets => false,
        }
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and does nothing.
    Refuse(EngineErrorKind),
    /// It never returns and does nothing: the process died before the daemon heard of it.
    HangBefore,
    /// It never returns and does its work: the process died before it heard of that.
    HangAfter,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    counts: BTreeMap<Op, u32>,
    changing: u32,
    on: BTreeMap<(Op, u32), Fault>,
    on_change: Option<(u32, Fault)>,
    down: Option<EngineErrorKind>,
    gates: BTreeMap<Op, Gate>,
    log: Vec<(Op, String)>,
    stuck: bool,
}

impl Faults {
    pub(super) fn next(&mut self, op: Op, subject: String) -> Option<Fault> {
        self.log.push((op, subject));
        let count = self.counts.entry(op).or_default();
        *count += 1;
        let count = *count;
        if op.changes() {
            self.changing += 1;
            if let Some((nth, fault)) = self.on_change
                && nth == self.changing
            {
                self.stuck = matches!(fault, Fault::HangBefore | Fault::HangAfter);
                return Some(fault);
            }
        }
        self.on
            .remove(&(op, count))
            .or(self.down.map(Fault::Refuse))
    }

    pub(super) fn gate(&self, op: Op) -> Option<Gate> {
        self.gates.get(&op).cloned()
    }
}

/// Holds calls up until they are let through.
#[derive(Debug, Clone)]
pub struct Gate {
    waiting: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    pub(super) async fn pass(&self) {
        self.waiting.add_permits(1);
        if let Ok(permit) = self.open.acquire().await {
            permit.forget();
        }
    }

    /// Returns when one more call stands at the gate.
    pub async fn reached(&self) {
        if let Ok(permit) = self.waiting.acquire().await {
            permit.forget();
        }
    }

    /// Lets one call through.
    pub fn let_one(&self) {
        self.open.add_permits(1);
    }

    /// Lets every call through from here on.
    pub fn open(&self) {
        self.open.close();
    }
}

impl FakeDaemon {
    /// The `nth` call of that kind, counted from the daemon's beginning and from 1, suffers `fault`.
    pub fn fail_on(&self, op: Op, nth: u32, fault: Fault) {
        self.with(|state| state.faults.on.insert((op, nth), fault));
    }

    /// The `nth` call from here that may change an object, of whatever kind, suffers `fault`.
    pub fn fail_on_change(&self, nth: u32, fault: Fault) {
        self.with(|state| {
            let nth = state.faults.changing + nth;
            state.faults.on_change = Some((nth, fault));
        });
    }

    /// Whether a call has come that never returns.
    pub fn is_stuck(&self) -> bool {
        self.with(|state| state.faults.stuck)
    }

    /// From here every call fails so, or none.
    pub fn down(&self, kind: Option<EngineErrorKind>) {
        self.with(|state| state.faults.down = kind);
        if kind.is_none() {
            self.changed();
        }
    }

    /// How often a call of that kind was made.
    pub fn count(&self, op: Op) -> u32 {
        self.with(|state| state.faults.counts.get(&op).copied().unwrap_or_default())
    }

    /// Every call of that kind waits from here on.
    pub fn gate(&self, op: Op) -> Gate {
        let gate = Gate {
            waiting: Arc::new(Semaphore::new(0)),
            open: Arc::new(Semaphore::new(0)),
        };
        self.with(|state| state.faults.gates.insert(op, gate.clone()));
        gate
    }

    /// Every call so far, with its subject; the log begins anew.
    pub fn take_log(&self) -> Vec<(Op, String)> {
        self.with(|state| std::mem::take(&mut state.faults.log))
    }
}

//! The order in which the steps of a plan run: what goes before what comes, LANs before deckies, and no
//! barrier between deckies.

use domain::plan::{Action, Step};

/// The steps of a plan by what may run at once.
pub(super) struct Phases<'a> {
    pub(super) removals: Vec<&'a Step>,
    pub(super) lan_removals: Vec<&'a Step>,
    pub(super) lan_creations: Vec<&'a Step>,
    pub(super) chains: Vec<Vec<&'a Step>>,
}

impl<'a> Phases<'a> {
    pub(super) fn of(steps: &'a [Step]) -> Self {
        let mut this = Self {
            removals: Vec::new(),
            lan_removals: Vec::new(),
            lan_creations: Vec::new(),
            chains: Vec::new(),
        };
        let mut last = None;
        for step in steps {
            match &step.action {
                Action::RemoveDecky { .. } | Action::Disconnect { .. } => this.removals.push(step),
                Action::RemoveLan { .. } => this.lan_removals.push(step),
                Action::CreateLan { .. } => this.lan_creations.push(step),
                Action::Connect { decky, .. }
                | Action::StartDecky { decky, .. }
                | Action::CreateDecky { decky }
                | Action::Rewire { decky, .. }
                | Action::Configure { decky, .. } => {
                    // The plan keeps the steps of one decky together.
                    match this.chains.last_mut() {
                        Some(chain) if last == Some(*decky) => chain.push(step),
                        Some(_) | None => this.chains.push(vec![step]),
                    }
                    last = Some(*decky);
                }
            }
        }
        this
    }
}

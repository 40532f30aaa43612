//! Deckies that were told to read their configuration and do not.

use std::collections::BTreeMap;

use domain::observe::{Handle, Inventory};
use domain::plan::{Action, Step};

/// How often each decky was told to read its configuration.
#[derive(Default)]
pub(super) struct Told(BTreeMap<Handle, u32>);

impl Told {
    /// After so many times in vain it is not told again.
    const IN_VAIN: u32 = 2;

    /// Counts what these steps tell; whether one of them was told in vain.
    pub(super) fn count(&mut self, steps: &[Step]) -> bool {
        let mut in_vain = false;
        for step in steps {
            if let Action::Configure { handle, .. } = &step.action {
                let times = self.0.entry(handle.clone()).or_default();
                *times += 1;
                in_vain |= *times > Self::IN_VAIN;
            }
        }
        in_vain
    }

    /// Makes those that were told in vain be seen as none of what is wanted, so that they are made anew:
    /// one that hangs, or is somebody else's by now, must not fail what is done for the others.
    pub(super) fn condemn(&self, observed: &mut Inventory) {
        for decky in &mut observed.deckies {
            if self
                .0
                .get(&decky.handle)
                .is_some_and(|times| *times > Self::IN_VAIN)
            {
                tracing::warn!(decky.id = %decky.id, "it does not take its configuration, and is made anew");
                decky.spec = None;
            }
        }
    }
}

//! How often refused events reach the audit log: a host that sends what is not its own must not
//! be able to fill it.

use std::collections::{BTreeSet, HashMap};

use domain::id::{DeckyId, HostId};
use time::{Duration, OffsetDateTime};

/// How long a decky is not named again.
const WINDOW: Duration = Duration::minutes(1);
/// Most deckies that are named for one host in a window.
const DECKIES: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// At most one window per enrolled host.
    windows: HashMap<HostId, Window>,
}

#[derive(Debug)]
struct Window {
    since: OffsetDateTime,
    named: BTreeSet<DeckyId>,
}

impl Refusals {
    /// Whether events of `decky` that were refused to `host` are to be audited.
    pub(super) fn is_due(&mut self, host: HostId, decky: DeckyId, now: OffsetDateTime) -> bool {
        let fresh = || Window {
            since: now,
            named: BTreeSet::new(),
        };
        let window = self.windows.entry(host).or_insert_with(fresh);
        // A clock that was set back starts a window too, or it would never end.
        if now < window.since || now - window.since >= WINDOW {
            *window = fresh();
        }
        window.named.len() < DECKIES && window.named.insert(decky)
    }
}

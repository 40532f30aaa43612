//! Mutations that programs of this machine ask for over the bus: `decky.<name>.mutate_request`.
//!
//! The payload may say which decky is meant, by its id (`decky_id`) or its topology (`topology_id`);
//! a name alone is enough when only one decky of what is live has it. Whoever asks is known by the
//! kernel's word, and is told on `decky.<name>.mutate_refused` what is in the way.

use domain::decky_mutation::Trigger;
use domain::id::{DeckyId, TopologyId};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::bus::{Delivery, Message, Subscription};
use crate::chain::Chain;
use crate::db::{Actor, StoreError};
use crate::topology::{Change, ChangeError, EditOrder, Editor, Mode};

const REQUESTS: &str = "decky.*.mutate_request";

/// Takes requests.
pub struct Asked {
    editor: Editor,
    requests: Subscription,
}

/// Why a request is not carried out.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{key} is no id")]
    Malformed { key: &'static str },
    #[error("no live topology has a decky {name}")]
    Unknown { name: String },
    #[error("{count} live topologies have a decky {name}; say topology_id or decky_id")]
    Ambiguous { name: String, count: usize },
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

// === impl Asked ===

impl Asked {
    /// Hears of requests from now on.
    pub fn new(editor: Editor) -> Self {
        let requests = editor.bus.subscribe(REQUESTS);
        Self { editor, requests }
    }

    /// Works for as long as the master runs.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = self.next() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Waits for a request and carries it out.
    pub(crate) async fn next(&mut self) {
        let request = match self.requests.next().await {
            Delivery::Message(request) => request,
            Delivery::Dropped(lost) => {
                tracing::warn!(
                    lost,
                    "requests for mutations came faster than they are carried out"
                );
                return;
            }
        };
        let name = request.subject.split('.').nth(1).unwrap_or_default();
        let uid = request.from.map(|peer| peer.uid);
        match self.carry_out(name, &request).await {
            Ok(()) => tracing::info!(name, uid, "a decky mutates by request"),
            Err(refusal) => {
                let reason = Chain(&refusal).to_string();
                tracing::warn!(name, uid, reason, "a request for a mutation is refused");
                self.editor.bus.publish(
                    format!("decky.{name}.mutate_refused"),
                    serde_json::json!({ "decky": name, "reason": reason }),
                );
            }
        }
    }

    async fn carry_out(&self, name: &str, request: &Message) -> Result<(), Refusal> {
        let (topology, decky) = self.meant(name, &request.body).await?;
        let actor = match request.from {
            // No user of ours has such a name.
            Some(peer) => Actor::Operator(format!("uid:{}", peer.uid)),
            None => Actor::Reconciler,
        };
        let order = EditOrder {
            topology: &topology.to_string(),
            change: Change::Decky(&decky.to_string()),
            expected: None,
            mode: Mode::Do,
            cause: Trigger::Operator,
            actor,
        };
        self.editor.edit(&order).await?;
        Ok(())
    }

    /// The decky that a request means: what it says narrows down which of that name it is.
    async fn meant(
        &self,
        name: &str,
        payload: &Map<String, Value>,
    ) -> Result<(TopologyId, DeckyId), Refusal> {
        let of: Option<TopologyId> = id(payload, "topology_id")?;
        let only: Option<DeckyId> = id(payload, "decky_id")?;
        let named = self.editor.store.deckies_named(name).await?;
        let found: Vec<_> = named
            .into_iter()
            .filter(|(_, status, _)| status.is_live())
            .map(|(topology, _, decky)| (topology, decky))
            .filter(|(topology, _)| of.is_none_or(|of| of == *topology))
            .filter(|(_, decky)| only.is_none_or(|only| only == *decky))
            .collect();
        let name = || name.to_owned();
        match found[..] {
            [one] => Ok(one),
            [] => Err(Refusal::Unknown { name: name() }),
            _ => Err(Refusal::Ambiguous {
                name: name(),
                count: found.len(),
            }),
        }
    }
}

/// An id that the payload may hold.
fn id<T: std::str::FromStr>(
    payload: &Map<String, Value>,
    key: &'static str,
) -> Result<Option<T>, Refusal> {
    match payload.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_str()
            .and_then(|text| text.parse().ok())
            .map(Some)
            .ok_or(Refusal::Malformed { key }),
    }
}

//! The daemon's events, reduced to hints: what happened is read from an inventory.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters as query;
use domain::observe::Handle;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use super::DockerEngine;
use crate::engine::{Changed, EngineError, label, name};

/// What happens to containers and networks that an inventory would show. Not `exec_*`: a person
/// with a shell in a container would wake us at every command.
const ACTIONS: [&str; 9] = [
    "create",
    "start",
    "die",
    "pause",
    "unpause",
    "rename",
    "destroy",
    "connect",
    "disconnect",
];

impl DockerEngine {
    pub(super) async fn watch(&self) -> Result<BoxStream<'static, Changed>, EngineError> {
        let docker = self.client.docker("could not subscribe to changes").await?;
        // The request leaves with the first poll; what happens until then is replayed.
        #[allow(
            clippy::disallowed_methods,
            reason = "compared by the daemon with this same clock"
        )]
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        // Networks' events have no labels: they are picked here, not by the daemon.
        let filters: HashMap<String, Vec<String>> = [
            (
                "type".to_owned(),
                vec!["container".to_owned(), "network".to_owned()],
            ),
            ("event".to_owned(), ACTIONS.map(str::to_owned).to_vec()),
        ]
        .into();
        let options = query::EventsOptionsBuilder::default()
            .since(&format!("{}.{:09}", now.as_secs(), now.subsec_nanos()))
            .filters(&filters)
            .build();
        let (host, prefix) = (self.host.to_string(), name::prefix(self.host));
        let (known, board) = (self.known.clone(), self.board.clone());
        let concerns = move |event: &EventMessage| {
            let action = event.action.as_deref().unwrap_or_default();
            if !ACTIONS.contains(&action) {
                return false;
            }
            let attributes = event
                .actor
                .as_ref()
                .and_then(|actor| actor.attributes.as_ref());
            let of = |key: &str| attributes.and_then(|map| map.get(key)).map(String::as_str);
            let ours = of(label::HOST) == Some(host.as_str());
            if ours
                && (action == "die" || action == "destroy")
                && let Some(decky) = of(label::DECKY).and_then(|text| text.parse().ok())
            {
                board.forget(decky);
            }
            // A stranger under a name of ours, a network of ours, a container of ours on any.
            ours || of("name").is_some_and(|name| name.starts_with(&prefix))
                || of("container").is_some_and(|container| {
                    let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                    event.typ == Some(EventMessageTypeEnum::NETWORK)
                        && known.deckies.contains_key(&Handle::new(container))
                })
        };
        Ok(docker
            .events(Some(options))
            .take_while(|event| std::future::ready(event.is_ok()))
            .filter_map(move |event| {
                std::future::ready(event.is_ok_and(|event| concerns(&event)).then_some(Changed))
            })
            .boxed())
    }
}

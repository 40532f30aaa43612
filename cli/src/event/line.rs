//! One event on one line, for people. Everything in it may come from an attacker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::event::{Evidence, Payload};
use domain::service::ServiceKind;
use proto::client::Client;
use proto::line::payload_from_json;
use proto::rest::EventShape;

use crate::clock;
use crate::duration::rough;
use crate::safe::{clipped, safe};
use crate::table::{Field, Look, table};

const SUMMARY: usize = 160;
/// Enough of an id to tell two apart at a glance.
const SHORT_ID: usize = 8;

/// Whether an event only says that a decky lives, as one does every ten seconds.
pub(crate) fn is_noise(event: &EventShape) -> bool {
    event.kind == "lifecycle"
        && event
            .data
            .get("state")
            .is_some_and(|state| state == "alive")
}

/// What hosts are called: events name them by id.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<String, String>);

impl Names {
    /// Asks for the names there are. Without them ids do.
    pub(crate) async fn ask(client: &Client) -> Self {
        let hosts = client.hosts().await.unwrap_or_default();
        Self(hosts.into_iter().map(|host| (host.id, host.name)).collect())
    }

    fn of<'a>(&'a self, id: &'a str) -> &'a str {
        self.0.get(id).map_or_else(|| short(id), String::as_str)
    }
}

/// `time host decky service kind source summary`.
pub(crate) fn live(names: &Names, event: &EventShape) -> String {
    format!(
        "{} {:8} {:12} {:6} {:11} {:21} {}",
        clock::time_of_day(&event.at),
        clipped(names.of(&event.host), 16),
        clipped(decky(event), 24),
        clipped(event.service.as_deref().unwrap_or("-"), 12),
        clipped(&event.kind, 12),
        clipped(event.source.as_deref().unwrap_or("-"), 48),
        summary(event),
    )
}

pub(super) fn events_table(look: Look, names: &Names, events: &[EventShape]) -> String {
    table(
        look,
        &[
            "at", "host", "decky", "service", "kind", "source", "summary",
        ],
        events.iter().map(|event| {
            [
                Field::text(clock::date_and_time(&event.at)),
                Field::text(names.of(&event.host)),
                Field::text(decky(event)),
                Field::maybe(event.service.as_deref()),
                Field::text(&event.kind),
                Field::maybe(event.source.as_deref()),
                Field::text(summary(event)),
            ]
        }),
    )
}

fn decky(event: &EventShape) -> &str {
    event
        .decky_name
        .as_deref()
        .unwrap_or_else(|| short(&event.decky))
}

/// Ids of hosts begin with their time of birth and end in chance: the end tells them apart.
fn short(id: &str) -> &str {
    let is_id = id.len() == 36 && id.is_ascii();
    if is_id {
        &id[id.len() - SHORT_ID..]
    } else {
        id
    }
}

/// What happened, in a few words.
fn summary(event: &EventShape) -> String {
    let Ok(payload) = payload_from_json(event.data.clone()) else {
        // A kind of a later release.
        return clipped(&event.data.to_string(), SUMMARY);
    };
    let text = |evidence: &Evidence| evidence.printable();
    let words = match &payload {
        Payload::Connect => "connected".to_owned(),
        Payload::Disconnect {
            received,
            sent,
            millis,
        } => {
            let time = rough(Duration::from_millis(*millis));
            format!("left after {time}, sent {received} B, got {sent} B")
        }
        Payload::Auth {
            method,
            username,
            secret,
            outcome,
        } => {
            format!("{method} {} / {} {outcome}", text(username), text(secret))
        }
        Payload::Command { line } => format!("$ {}", text(line)),
        Payload::Request {
            method,
            target,
            status,
            ..
        } => {
            format!("{} {} -> {status}", text(method), text(target))
        }
        Payload::Fingerprint { of, value } => format!("{of} {}", text(value)),
        Payload::Mutation(mutated) => {
            let words = |set: &BTreeSet<ServiceKind>| {
                let words: Vec<_> = set.iter().map(|kind| kind.as_str()).collect();
                match words.as_slice() {
                    [] => "nothing".to_owned(),
                    words => words.join(", "),
                }
            };
            let (old, new) = (words(&mutated.old), words(&mutated.new));
            format!("{old} -> {new} ({})", mutated.trigger)
        }
        Payload::Lifecycle {
            state,
            detail,
            count,
            ..
        } => match (detail.bytes(), count) {
            ([], 0) => state.clone(),
            ([], count) => format!("{state} ({count})"),
            (_, 0) => format!("{state}: {}", text(detail)),
            (_, count) => format!("{state}: {} ({count})", text(detail)),
        },
        Payload::Raw { reason } => reason.clone(),
    };
    clipped(&safe(&words), SUMMARY)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, data: serde_json::Value) -> EventShape {
        EventShape {
            id: String::new(),
            row: 7,
            host: "edge-07".to_owned(),
            topology: String::new(),
            decky: "0198c0de-0000-7000-8000-0000deadbeef".to_owned(),
            decky_name: Some("gate".to_owned()),
            service: Some("ssh".to_owned()),
            kind: kind.to_owned(),
            severity: "notice".to_owned(),
            at: "2026-03-01T12:00:00.25Z".to_owned(),
            received_at: String::new(),
            session: None,
            source: Some("10.79.0.2:40312".to_owned()),
            destination: None,
            data,
            raw: None,
            spool: String::new(),
            sequence: 1,
        }
    }

    #[test]
    fn a_login_is_one_line() {
        let data = json!({
            "kind": "auth", "method": "password", "username": "root", "secret": "hunter2",
            "outcome": "accepted"
        });
        assert_eq!(
            live(&Names::default(), &event("auth", data)),
            "12:00:00.250 edge-07  gate         ssh    auth        10.79.0.2:40312       \
             password root / hunter2 accepted"
        );
    }

    #[test]
    fn an_attacker_cannot_forge_a_line_or_command_the_terminal() {
        let data = json!({ "kind": "command", "line": "ls\n12:00:00 \x1b[31mowned\u{202e}" });
        let mut event = event("command", data);
        event.source = Some("1.2.3.4\x07".to_owned());
        let line = live(&Names::default(), &event);
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(!line.contains('\u{202e}'), "{line:?}");
    }

    #[test]
    fn a_kind_of_a_later_release_shows_its_data() {
        let line = live(
            &Names::default(),
            &event("dream", json!({ "kind": "dream", "of": "sheep" })),
        );
        assert!(line.ends_with(r#"{"kind":"dream","of":"sheep"}"#), "{line}");
    }

    #[test]
    fn a_decky_that_says_it_lives_is_noise() {
        let data = |state: &str| json!({ "kind": "lifecycle", "state": state, "config": "", "detail": "", "count": 0 });
        assert!(is_noise(&event("lifecycle", data("alive"))));
        assert!(!is_noise(&event("lifecycle", data("started"))));
    }

    #[test]
    fn ids_are_told_apart_by_their_end() {
        assert_eq!(short("0198c0de-0000-7000-8000-0000deadbeef"), "deadbeef");
        assert_eq!(short("edge-07"), "edge-07");
        let id = "0198c0de-0000-7000-8000-0000deadbeef";
        let names = Names([(id.to_owned(), "edge-07".to_owned())].into());
        assert_eq!(names.of(id), "edge-07");
    }
}

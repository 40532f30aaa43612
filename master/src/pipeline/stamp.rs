//! From a spooled line to an event: read when it can be read, kept as it is when it cannot.

use domain::event::{Evidence, Payload, Severity};
use domain::id::EventId;
use proto::line;
use time::OffsetDateTime;

use super::Spooled;
use crate::db::NewEvent;
use crate::entropy;

/// The state of a lifecycle line that only tells the agent that the decky lives.
const ALIVE: &str = "alive";

/// The event of a line; none for a sign of life, which is the agent's to look at and would be
/// most of the table.
pub(super) fn event(spooled: &Spooled, now: OffsetDateTime) -> Option<NewEvent> {
    let line = match line::decode(&spooled.line) {
        Ok(line) => line,
        Err(error) => return Some(raw(spooled, error.to_string(), now)),
    };
    let sighting = line.sighting;
    if matches!(&sighting.payload, Payload::Lifecycle { state, .. } if state == ALIVE) {
        return None;
    }
    Some(NewEvent {
        id: EventId::new(entropy::uuid_v7(now)),
        sequence: spooled.sequence,
        topology: spooled.topology,
        decky: spooled.decky,
        service: sighting.service,
        at: sighting.at,
        received_at: now,
        session: sighting.session,
        source: sighting.source,
        destination: sighting.destination,
        severity: sighting.severity,
        payload: sighting.payload,
        raw: sighting.raw,
    })
}

/// A line that no decky of ours wrote, or that was damaged on its way. The error's own text holds
/// nothing of the line.
fn raw(spooled: &Spooled, reason: String, now: OffsetDateTime) -> NewEvent {
    NewEvent {
        id: EventId::new(entropy::uuid_v7(now)),
        sequence: spooled.sequence,
        topology: spooled.topology,
        decky: spooled.decky,
        service: None,
        at: spooled.collected_at,
        received_at: now,
        session: None,
        source: None,
        destination: None,
        severity: Severity::Notice,
        payload: Payload::Raw { reason },
        raw: Some(Evidence::new(spooled.line.as_ref())),
    }
}

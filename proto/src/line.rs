//! The decky event line: one JSON object on one line of a decky's standard output.
//!
//! Bytes from outside are strings when they are UTF-8 and `{"b64": "…"}` when they are not, so
//! that nothing is lost and nothing can end a line early. A line never exceeds
//! [`domain::event::MAX_LINE`]; what would not fit is cut and marked.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::decky_mutation::DeckyMutated;
use domain::event::{Evidence, MAX_LINE, Payload, Position, Severity, Sighting};
use domain::id::{BootId, SessionId};
use domain::name::DeckyName;
use domain::service::ServiceKind;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Version of the line format.
const VERSION: u8 = 1;

/// One line: where it stands, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it stands in the decky's output.
    pub position: Position,
    /// What was seen.
    pub sighting: Sighting,
}

/// Why bytes are no decky line.
#[derive(Debug, thiserror::Error)]
pub enum InvalidLine {
    /// Longer than any decky writes.
    #[error("line of {got} bytes exceeds {MAX_LINE}")]
    TooLong {
        /// Its length.
        got: usize,
    },
    /// Not the JSON of a line.
    #[error("line is not a decky event")]
    Json(#[source] serde_json::Error),
    /// Of another version.
    #[error("line version {got} is not {VERSION}")]
    Version {
        /// The version that it says.
        got: u8,
    },
    /// A field that does not hold what it should.
    #[error("field {field} of a decky event is malformed")]
    Field {
        /// Which.
        field: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Base64 { b64: String },
}

impl From<&Evidence> for Bytes {
    fn from(evidence: &Evidence) -> Self {
        match evidence.text() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Base64 {
                b64: STANDARD.encode(evidence.bytes()),
            },
        }
    }
}

impl Bytes {
    fn evidence(self, field: &'static str) -> Result<Evidence, InvalidLine> {
        match self {
            Self::Text(text) => Ok(Evidence::new(text)),
            Self::Base64 { b64 } => STANDARD
                .decode(b64)
                .map(Evidence::new)
                .map_err(|_| InvalidLine::Field { field }),
        }
    }
}

/// The payload as it stands in a line, in a row of the master's table, and in the REST shapes.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum WirePayload {
    Connect {},
    Disconnect {
        received: u64,
        sent: u64,
        millis: u64,
    },
    Auth {
        method: String,
        username: Bytes,
        secret: Bytes,
        outcome: String,
    },
    Command {
        line: Bytes,
    },
    Request {
        method: Bytes,
        target: Bytes,
        headers: Vec<(Bytes, Bytes)>,
        body: Bytes,
        status: u16,
    },
    Fingerprint {
        of: String,
        value: Bytes,
    },
    Mutation {
        decky: String,
        name: String,
        old: Vec<String>,
        new: Vec<String>,
        trigger: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        actor: Option<String>,
    },
    Lifecycle {
        state: String,
        config: String,
        detail: Bytes,
        count: u64,
    },
    Raw {
        reason: String,
    },
}

impl From<&Payload> for WirePayload {
    fn from(payload: &Payload) -> Self {
        match payload {
            Payload::Connect => Self::Connect {},
            Payload::Disconnect {
                received,
                sent,
                millis,
            } => Self::Disconnect {
                received: *received,
                sent: *sent,
                millis: *millis,
            },
            Payload::Auth {
                method,
                username,
                secret,
                outcome,
            } => Self::Auth {
                method: method.as_str().to_owned(),
                username: username.into(),
                secret: secret.into(),
                outcome: outcome.as_str().to_owned(),
            },
            Payload::Command { line } => Self::Command { line: line.into() },
            Payload::Request {
                method,
                target,
                headers,
                body,
                status,
            } => Self::Request {
                method: method.into(),
                target: target.into(),
                headers: headers
                    .iter()
                    .map(|(name, value)| (name.into(), value.into()))
                    .collect(),
                body: body.into(),
                status: *status,
            },
            Payload::Fingerprint { of, value } => Self::Fingerprint {
                of: of.clone(),
                value: value.into(),
            },
            Payload::Mutation(mutated) => {
                let words = |set: &BTreeSet<ServiceKind>| {
                    set.iter().map(|kind| kind.as_str().to_owned()).collect()
                };
                Self::Mutation {
                    decky: mutated.decky.to_string(),
                    name: mutated.name.to_string(),
                    old: words(&mutated.old),
                    new: words(&mutated.new),
                    trigger: mutated.trigger.as_str().to_owned(),
                    actor: mutated.actor.clone(),
                }
            }
            Payload::Lifecycle {
                state,
                config,
                detail,
                count,
            } => Self::Lifecycle {
                state: state.clone(),
                config: config.clone(),
                detail: detail.into(),
                count: *count,
            },
            Payload::Raw { reason } => Self::Raw {
                reason: reason.clone(),
            },
        }
    }
}

impl TryFrom<WirePayload> for Payload {
    type Error = InvalidLine;

    fn try_from(wire: WirePayload) -> Result<Self, InvalidLine> {
        const fn field(field: &'static str) -> InvalidLine {
            InvalidLine::Field { field }
        }
        Ok(match wire {
            WirePayload::Connect {} => Self::Connect,
            WirePayload::Disconnect {
                received,
                sent,
                millis,
            } => Self::Disconnect {
                received,
                sent,
                millis,
            },
            WirePayload::Auth {
                method,
                username,
                secret,
                outcome,
            } => Self::Auth {
                method: method.parse().map_err(|_| field("method"))?,
                username: username.evidence("username")?,
                secret: secret.evidence("secret")?,
                outcome: outcome.parse().map_err(|_| field("outcome"))?,
            },
            WirePayload::Command { line } => Self::Command {
                line: line.evidence("line")?,
            },
            WirePayload::Request {
                method,
                target,
                headers,
                body,
                status,
            } => Self::Request {
                method: method.evidence("method")?,
                target: target.evidence("target")?,
                headers: headers
                    .into_iter()
                    .map(|(name, value)| {
                        Ok((name.evidence("headers")?, value.evidence("headers")?))
                    })
                    .collect::<Result<_, InvalidLine>>()?,
                body: body.evidence("body")?,
                status,
            },
            WirePayload::Fingerprint { of, value } => Self::Fingerprint {
                of,
                value: value.evidence("value")?,
            },
            WirePayload::Mutation {
                decky,
                name,
                old,
                new,
                trigger,
                actor,
            } => {
                fn parsed<T: FromStr>(text: &str, field: &'static str) -> Result<T, InvalidLine> {
                    text.parse().map_err(|_| InvalidLine::Field { field })
                }
                let set = |words: Vec<String>, field| {
                    let kinds = words.iter().map(|word| parsed(word, field));
                    kinds.collect::<Result<BTreeSet<ServiceKind>, _>>()
                };
                Self::Mutation(Box::new(DeckyMutated {
                    decky: parsed(&decky, "decky")?,
                    name: DeckyName::parse(&name)
                        .map_err(|_| InvalidLine::Field { field: "name" })?,
                    old: set(old, "old")?,
                    new: set(new, "new")?,
                    trigger: parsed(&trigger, "trigger")?,
                    actor,
                }))
            }
            WirePayload::Lifecycle {
                state,
                config,
                detail,
                count,
            } => Self::Lifecycle {
                state,
                config,
                detail: detail.evidence("detail")?,
                count,
            },
            WirePayload::Raw { reason } => Self::Raw { reason },
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireLine {
    v: u8,
    boot: String,
    n: u64,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    src: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    dst: Option<SocketAddr>,
    sev: String,
    data: WirePayload,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    raw: Option<String>,
}

/// Writes a line, its newline included: always valid, never longer than [`MAX_LINE`].
///
/// A sighting that would not fit loses its `raw` first, then the tail of each piece of evidence,
/// all to one length, and is then followed by ` [cut]` in that piece.
pub fn encode(line: &Line) -> Vec<u8> {
    let whole = write(line);
    if whole.len() <= MAX_LINE {
        return whole;
    }
    let mut cut = line.clone();
    cut.sighting.raw = None;
    // JSON escapes a byte to at most six; halving ends, since at 0 only bounded text is left.
    let mut keep = 4096;
    loop {
        let bytes = write(&cut);
        if bytes.len() <= MAX_LINE {
            return bytes;
        }
        cut.sighting.payload = shorten(&line.sighting.payload, keep);
        keep /= 2;
    }
}

fn shorten(payload: &Payload, keep: usize) -> Payload {
    let text = |text: &str| text.chars().take(keep.min(256)).collect::<String>();
    let cut = |evidence: &Evidence| {
        if evidence.bytes().len() <= keep {
            return evidence.clone();
        }
        let mut bytes = evidence.bytes()[..keep].to_vec();
        bytes.extend_from_slice(b" [cut]");
        Evidence::new(bytes)
    };
    match payload {
        Payload::Connect => Payload::Connect,
        Payload::Disconnect {
            received,
            sent,
            millis,
        } => Payload::Disconnect {
            received: *received,
            sent: *sent,
            millis: *millis,
        },
        Payload::Auth {
            method,
            username,
            secret,
            outcome,
        } => Payload::Auth {
            method: *method,
            username: cut(username),
            secret: cut(secret),
            outcome: *outcome,
        },
        Payload::Command { line } => Payload::Command { line: cut(line) },
        Payload::Request {
            method,
            target,
            headers,
            body,
            status,
        } => Payload::Request {
            method: cut(method),
            target: cut(target),
            headers: headers
                .iter()
                .take(keep / 16)
                .map(|(name, value)| (cut(name), cut(value)))
                .collect(),
            body: cut(body),
            status: *status,
        },
        Payload::Fingerprint { of, value } => Payload::Fingerprint {
            of: text(of),
            value: cut(value),
        },
        Payload::Mutation(mutated) => Payload::Mutation(mutated.clone()),
        Payload::Lifecycle {
            state,
            config,
            detail,
            count,
        } => Payload::Lifecycle {
            state: text(state),
            config: text(config),
            detail: cut(detail),
            count: *count,
        },
        Payload::Raw { reason } => Payload::Raw {
            reason: text(reason),
        },
    }
}

fn write(line: &Line) -> Vec<u8> {
    let Line { position, sighting } = line;
    let wire = WireLine {
        v: VERSION,
        boot: position.boot.to_string(),
        n: position.counter,
        at: format_time(sighting.at),
        service: sighting.service.map(|service| service.as_str().to_owned()),
        session: sighting.session.map(|session| session.to_string()),
        src: sighting.source,
        dst: sighting.destination,
        sev: sighting.severity.as_str().to_owned(),
        data: (&sighting.payload).into(),
        raw: sighting
            .raw
            .as_ref()
            .map(|raw| STANDARD.encode(raw.bytes())),
    };
    let mut bytes =
        serde_json::to_vec(&wire).expect("a line has string keys and no custom serializer");
    bytes.push(b'\n');
    bytes
}

/// RFC 3339 in UTC; the epoch for a time that RFC 3339 cannot write.
pub fn format_time(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC)
        .format(&Rfc3339)
        .unwrap_or_else(|_| "1970-01-01T00:00:00Z".to_owned())
}

/// Reads RFC 3339.
pub fn parse_time(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

/// Reads one line, with or without its newline.
pub fn decode(bytes: &[u8]) -> Result<Line, InvalidLine> {
    if bytes.len() > MAX_LINE {
        return Err(InvalidLine::TooLong { got: bytes.len() });
    }
    let wire: WireLine = serde_json::from_slice(bytes).map_err(InvalidLine::Json)?;
    if wire.v != VERSION {
        return Err(InvalidLine::Version { got: wire.v });
    }
    const fn field(field: &'static str) -> InvalidLine {
        InvalidLine::Field { field }
    }
    if matches!(wire.data, WirePayload::Mutation { .. }) {
        // Only the master knows what a decky was made to serve: on a line it is a forgery.
        return Err(field("data"));
    }
    let sighting = Sighting {
        at: parse_time(&wire.at).ok_or(field("at"))?,
        service: wire
            .service
            .map(|service| service.parse::<ServiceKind>().map_err(|_| field("service")))
            .transpose()?,
        session: wire
            .session
            .map(|session| session.parse::<SessionId>().map_err(|_| field("session")))
            .transpose()?,
        source: wire.src,
        destination: wire.dst,
        severity: wire.sev.parse::<Severity>().map_err(|_| field("sev"))?,
        payload: wire.data.try_into()?,
        raw: wire
            .raw
            .map(|raw| {
                STANDARD
                    .decode(raw)
                    .map(Evidence::new)
                    .map_err(|_| field("raw"))
            })
            .transpose()?,
    };
    Ok(Line {
        position: Position {
            boot: wire.boot.parse::<BootId>().map_err(|_| field("boot"))?,
            counter: wire.n,
        },
        sighting,
    })
}

/// The JSON of a payload, as the master stores and serves it.
pub fn payload_json(payload: &Payload) -> serde_json::Value {
    serde_json::to_value(WirePayload::from(payload))
        .expect("a payload has string keys and no custom serializer")
}

/// Reads what [`payload_json`] wrote.
pub fn payload_from_json(value: serde_json::Value) -> Result<Payload, InvalidLine> {
    serde_json::from_value::<WirePayload>(value)
        .map_err(InvalidLine::Json)?
        .try_into()
}

#[cfg(test)]
mod tests;

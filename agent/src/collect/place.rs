//! The place in one container's output: which lines are new, which were stored, which are missing.

use bytes::Bytes;
use domain::event::{MAX_LINE, Payload, Position};
use domain::id::{DeckyId, TopologyId};
use domain::observe::Handle;
use proto::line::{self, Line};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::lives::Lives;
use crate::engine::OutputLine;
use crate::notice::{Notice, Notices};
use crate::spool::{Class, Mark, NewEvent};

/// How many digits a digest of a configuration has.
const DIGEST: usize = 64;

/// Whose evidence it is: from the container's labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub(super) topology: TopologyId,
    pub(super) decky: DeckyId,
}

/// How far one container has been read.
#[derive(Debug)]
pub(super) struct Place {
    identity: Identity,
    handle: Handle,
    lives: Lives,
    /// Time and hash of the last line that was no decky line.
    raw: Option<(OffsetDateTime, u64)>,
    /// When the latest line was taken by its engine, whose clock may have gone back since.
    at: Option<OffsetDateTime>,
    config: String,
    repeats: Repeats,
    lines: u64,
}

/// Which lines without a position may be repetitions of stored ones. The others tell it themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeats {
    /// None any more.
    Over,
    /// Those up to this time.
    Until(OffsetDateTime),
    /// All until the last stored one comes by: times say nothing, for the clock has gone back.
    UntilKnown,
}

/// What a new line amounts to.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) events: Vec<NewEvent>,
    pub(super) mark: Mark,
    /// The digest of the configuration that the line says is in force.
    pub(super) config: Option<String>,
}

impl Place {
    /// A place behind what was stored, told by marks in the order of their lines.
    pub(super) fn new(identity: Identity, handle: Handle, marks: &[Mark]) -> Self {
        let newest = marks.last();
        let mut lives = Lives::default();
        for mark in marks {
            if let Some(boot) = mark.boot {
                lives.advance(boot, mark.counter);
            }
        }
        Self {
            identity,
            handle,
            lives,
            raw: marks
                .iter()
                .find(|mark| mark.boot.is_none())
                .map(|mark| (mark.at, mark.counter)),
            at: newest.map(|mark| mark.at),
            config: newest.map(|mark| mark.config.clone()).unwrap_or_default(),
            repeats: Repeats::Over,
            lines: 0,
        }
    }

    /// From when on to read, at this time; none for from the beginning. An engine that is asked for
    /// lines from a time to come on hands on none until then: what was stored is then read again.
    pub(super) fn since(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        self.at.filter(|at| *at <= now)
    }

    /// The configuration that the decky last said was in force.
    pub(super) fn config(&self) -> Option<&str> {
        Some(self.config.as_str()).filter(|config| !config.is_empty())
    }

    /// How many new lines there were.
    pub(super) const fn lines(&self) -> u64 {
        self.lines
    }

    /// The engine begins again at `since`, which was told by [`Self::since`].
    pub(super) fn replay(&mut self, since: Option<OffsetDateTime>) {
        let raw_comes_by = self
            .raw
            .is_some_and(|(at, _)| since.is_none_or(|since| at > since));
        self.repeats = match since {
            _ if raw_comes_by => Repeats::UntilKnown,
            Some(since) => Repeats::Until(since),
            None => Repeats::Over,
        };
    }

    /// Takes the next line of the stream; nothing when it was taken before.
    pub(super) fn take(
        &mut self,
        output: &OutputLine,
        notices: &Notices,
        now: OffsetDateTime,
    ) -> Option<Taken> {
        // Docker hands on longer lines in parts; whatever is longer still is no decky's.
        let bytes = output.line.slice(..output.line.len().min(MAX_LINE));
        let (decoded, class, config) = match line::decode(&bytes) {
            Ok(line) => (
                Some(line.position),
                class(&line.sighting.payload),
                said_config(line),
            ),
            Err(_) => (None, Class::Evidence, None),
        };
        let mut events = Vec::with_capacity(1);
        let (boot, counter) = match decoded {
            Some(position) => {
                let missing = self.advance(position)?;
                if let Some(gap) = missing {
                    let line = notices.line(self.identity.decky, gap);
                    events.push(self.event(line, Class::Evidence, now));
                }
                (Some(position.boot), position.counter)
            }
            None => (None, self.advance_raw(output.at, &bytes)?),
        };
        if let Some(config) = &config {
            self.config.clone_from(config);
        }
        events.push(self.event(bytes, class, now));
        self.at = Some(output.at);
        self.lines += 1;
        let mark = Mark {
            handle: self.handle.clone(),
            boot,
            counter,
            at: output.at,
            config: self.config.clone(),
        };
        Some(Taken {
            events,
            mark,
            config,
        })
    }

    fn event(&self, line: Bytes, class: Class, now: OffsetDateTime) -> NewEvent {
        let Identity { topology, decky } = self.identity;
        NewEvent {
            topology,
            decky,
            collected_at: now,
            class,
            line,
        }
    }

    /// `None` for a line that was taken before; otherwise the gap before it, if there is one.
    fn advance(&mut self, position: Position) -> Option<Option<Notice>> {
        let Position { boot, counter } = position;
        let last = self.lives.advance(boot, counter)?;
        // What stands behind a new line is new.
        self.repeats = Repeats::Over;
        let (first, missing) = (last + 1, counter - last - 1);
        Some((missing > 0).then_some(Notice::Gap {
            boot,
            first,
            missing,
        }))
    }

    /// A line without a position is known again by its time and its hash, and only while the
    /// engine may be repeating itself: afterwards, two lines may well be alike.
    fn advance_raw(&mut self, at: OffsetDateTime, bytes: &[u8]) -> Option<u64> {
        let line = (at, hash(bytes));
        let known = self.raw == Some(line);
        let repeated = match self.repeats {
            Repeats::Over => false,
            Repeats::Until(until) => {
                at <= until && (known || self.raw.is_some_and(|(stored, _)| at < stored))
            }
            Repeats::UntilKnown => {
                if known {
                    self.repeats = Repeats::Over;
                }
                true
            }
        };
        if repeated {
            return None;
        }
        self.raw = Some(line);
        Some(line.1)
    }
}

/// The digest of the configuration in force, if the line says one. It is kept for as long as the
/// decky is: whatever else stands there is evidence, and no more.
fn said_config(line: Line) -> Option<String> {
    let Payload::Lifecycle { config, .. } = line.sighting.payload else {
        return None;
    };
    let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    Some(config).filter(|config| config.len() == DIGEST && config.bytes().all(hexadecimal))
}

fn class(payload: &Payload) -> Class {
    let alive = |state: &str| state == "alive";
    // One to each connection: as many as connects.
    let of_each_connection = |of: &str| of == "tcp_syn";
    if matches!(payload, Payload::Connect | Payload::Disconnect { .. })
        || matches!(payload, Payload::Lifecycle { state, .. } if alive(state))
        || matches!(payload, Payload::Fingerprint { of, .. } if of_each_connection(of))
    {
        Class::Noise
    } else {
        Class::Evidence
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

//! Evidence without deckies: lines as a decky under a password guesser writes them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use domain::event::{AuthMethod, AuthOutcome, Evidence, Payload, Position, Severity, Sighting};
use domain::id::{BootId, SessionId};
use domain::service::ServiceKind;
use proto::line::{self, Line};
use proto::v1::{EventBatch, SpooledEvent};
use time::OffsetDateTime;
use uuid::Uuid;

/// Different lines that go round: writing each anew would measure the writer of lines.
const DIFFERENT: u64 = 4096;
const NAMES: [&str; 8] = [
    "root", "admin", "ubuntu", "oracle", "postgres", "test", "git", "deploy",
];
const SECRETS: [&str; 8] = [
    "123456",
    "password",
    "admin123",
    "P@ssw0rd!",
    "qwerty2024",
    "letmein",
    "root",
    "changeme",
];

/// A topology and a decky of it, as they stand in events.
pub(super) type Owner = (Uuid, Uuid);

/// One host's evidence, in the order of its spool.
#[derive(Debug, Clone)]
pub(super) struct Spring {
    spool: Uuid,
    owners: Arc<[Owner]>,
    lines: Arc<[Bytes]>,
    sequence: u64,
}

impl Spring {
    pub(super) fn new(owners: &[Owner]) -> Result<Self> {
        let boot = BootId::new(Uuid::now_v7());
        let lines: Vec<Bytes> = (0..DIFFERENT).map(|number| login(boot, number)).collect();
        Ok(Self {
            spool: Uuid::now_v7(),
            owners: owners.into(),
            lines: lines.into(),
            sequence: 0,
        })
    }

    /// The same lines from the start of another spool.
    pub(super) fn anew(&self) -> Self {
        Self {
            spool: Uuid::now_v7(),
            sequence: 0,
            ..self.clone()
        }
    }

    /// The number of the last event that was given out.
    pub(super) const fn last(&self) -> u64 {
        self.sequence
    }

    /// The next events.
    pub(super) fn batch(&mut self, events: usize) -> EventBatch {
        let collected_at = micros(OffsetDateTime::now_utc());
        let events = (0..events).map(|_| self.next(collected_at)).collect();
        EventBatch {
            spool_id: self.spool.as_bytes().to_vec(),
            events,
        }
    }

    fn next(&mut self, collected_at: i64) -> SpooledEvent {
        let place = usize::try_from(self.sequence).unwrap_or_default();
        self.sequence += 1;
        let (topology, decky) = self.owners[place % self.owners.len()];
        SpooledEvent {
            sequence: self.sequence,
            topology_id: topology.as_bytes().to_vec(),
            decky_id: decky.as_bytes().to_vec(),
            collected_at,
            line: self.lines[place % self.lines.len()].clone(),
        }
    }
}

fn micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or_default()
}

fn login(boot: BootId, number: u64) -> Bytes {
    let [.., third, fourth] = number.to_be_bytes();
    let place = usize::try_from(number).unwrap_or_default();
    let attacker = IpAddr::V4(Ipv4Addr::new(203, 0, third, fourth));
    let port = 32_768 + u16::from(fourth);
    let line = Line {
        position: Position {
            boot,
            counter: number,
        },
        sighting: Sighting {
            at: OffsetDateTime::now_utc(),
            service: Some(ServiceKind::Ssh),
            session: Some(SessionId::new(Uuid::now_v7())),
            source: Some(SocketAddr::new(attacker, port)),
            destination: Some(SocketAddr::from(([10, 0, 0, 10], 22))),
            severity: Severity::Warning,
            payload: Payload::Auth {
                method: AuthMethod::Password,
                username: Evidence::from(NAMES[place % NAMES.len()]),
                secret: Evidence::new(format!("{}{number}", SECRETS[place / 8 % SECRETS.len()])),
                outcome: AuthOutcome::Rejected,
            },
            raw: None,
        },
    };
    let mut bytes = line::encode(&line);
    // As the spool keeps it, without its newline.
    bytes.pop();
    bytes.into()
}

//! What the store takes and gives: rows, requests, and why a request was not granted.

use domain::assign::Assignment;
use domain::event::{EventKind, Evidence, Payload, Severity};
use domain::host::Standing;
use domain::id::{DeckyId, EventId, HostId, SessionId, SpoolId, TokenId, TopologyId};
use domain::name::{DeckyName, HostName, TopologyName};
use domain::revision::{Fence, Revision};
use domain::service::ServiceKind;
use domain::topology::Topology;
use domain::topology::hydrate::VersionHash;
use domain::topology::status::{IllegalTransition, StatusEvent, TopologyStatus};
use pki::fingerprint::KeyFingerprint;
use std::net::SocketAddr;
use time::OffsetDateTime;

use super::StoreError;

/// Who did something, for the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// An operator, by the name of the token that was used.
    Operator(String),
    /// A host.
    Host(HostId),
    /// The master itself.
    Reconciler,
}

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: OffsetDateTime,
    /// Who.
    pub actor: Actor,
    /// What, as `noun.verb`.
    pub action: String,
    /// On what.
    pub subject: String,
    /// More for a person; never a secret.
    pub detail: String,
}

/// A join token, as far as the master knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its public part.
    pub id: TokenId,
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
    /// The host name that it is bound to.
    pub name: HostName,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// Until when it can be redeemed.
    pub expires_at: OffsetDateTime,
    /// By whom it was made.
    pub creator: String,
    /// The host that it became, once redeemed.
    pub redeemed_by: Option<HostId>,
}

/// What a host presents to redeem a token.
#[derive(Debug, Clone)]
pub struct Redemption {
    /// The token's public part.
    pub token: TokenId,
    /// SHA-256 of the secret that was presented.
    pub secret_hash: [u8; 32],
    /// The name that the host expects, if it says one.
    pub expected_name: Option<String>,
    /// The identity to give.
    pub host: HostId,
    /// The key that asks.
    pub key: KeyFingerprint,
    /// The host's agent.
    pub agent_version: String,
    /// The time.
    pub now: OffsetDateTime,
}

/// What became of a redemption that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redeemed {
    /// The host: the new one, or the one that the same key redeemed this token for before.
    pub host: HostId,
    /// Its name.
    pub name: HostName,
    /// The certificate of the first redemption, to be given again.
    pub certificate: Option<Vec<u8>>,
}

/// Why a token was not accepted: for the audit log, never for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRefusal {
    /// No such token, or a wrong secret.
    Unknown,
    /// Redeemed by another key.
    Used,
    /// Too late.
    Expired,
    /// The host expects another name.
    Misnamed,
    /// The name was taken by a living host meanwhile.
    NameTaken,
}

/// Why a redemption failed.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// The token was not accepted; audited.
    #[error("token was refused")]
    Refused(TokenRefusal),
    /// The store failed.
    #[error("token could not be redeemed")]
    Store(#[source] StoreError),
}

/// A host, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRow {
    /// Its identity.
    pub id: HostId,
    /// Its name, unique among hosts that are not removed.
    pub name: HostName,
    /// What an operator has decided about it.
    pub standing: Standing,
    /// When it joined.
    pub enrolled_at: OffsetDateTime,
    /// When it was last heard, as flushed once a minute.
    pub last_seen: Option<OffsetDateTime>,
    /// Its agent.
    pub agent_version: String,
    /// What is assigned to it.
    pub assignment: Assignment,
}

/// A key that a host may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedKey {
    /// The host.
    pub host: HostId,
    /// The key.
    pub key: KeyFingerprint,
    /// The host's standing.
    pub standing: Standing,
}

/// Why a host's standing could not change.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// No such host.
    #[error("there is no such host")]
    Unknown,
    /// Its standing does not allow it.
    #[error("a host that is {from} cannot become {to}")]
    Illegal {
        /// Its standing.
        from: Standing,
        /// What was asked.
        to: Standing,
    },
    /// It still holds a topology.
    #[error("the host still carries a live topology")]
    Occupied(TopologyId),
    /// The store failed.
    #[error("standing of the host could not be changed")]
    Store(#[source] StoreError),
}

/// A topology with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyRow {
    /// The graph.
    pub topology: Topology,
    /// Where it stands.
    pub status: TopologyStatus,
    /// When its status last changed.
    pub status_at: OffsetDateTime,
    /// Why it last changed.
    pub reason: String,
    /// Until when a deploy may take.
    pub deadline: Option<OffsetDateTime>,
    /// The fence with which it was last assigned, and the hash of what.
    pub desired: Option<(Fence, VersionHash)>,
    /// What its host last reported as applied, and when.
    pub applied: Option<(Fence, VersionHash, OffsetDateTime)>,
}

/// A topology in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologySummary {
    /// Its place in the order of their making.
    pub row: i64,
    /// Its identity.
    pub id: TopologyId,
    /// Its name.
    pub name: TopologyName,
    /// Its host.
    pub host: Option<HostId>,
    /// Its revision.
    pub revision: Revision,
    /// Where it stands.
    pub status: TopologyStatus,
    /// When its status last changed.
    pub status_at: OffsetDateTime,
    /// Why.
    pub reason: String,
    /// How many LANs it has.
    pub lans: u32,
    /// How many deckies it has.
    pub deckies: u32,
}

/// Why a topology could not be stored or found.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// No such topology.
    #[error("there is no such topology")]
    Unknown,
    /// Another topology that is not torn down has that name.
    #[error("a topology of that name exists")]
    NameTaken,
    /// Its status does not allow it.
    #[error("a topology that is {0} cannot be removed; tear it down first")]
    NotRemovable(TopologyStatus),
    /// It was edited meanwhile.
    #[error("the topology has revision {current}, not {expected}")]
    StaleRevision {
        /// What the caller saw.
        expected: Revision,
        /// What is stored.
        current: Revision,
    },
    /// The store failed.
    #[error("topology could not be stored or read")]
    Store(#[source] StoreError),
}

/// A deploy that was decided: intent is stored before anything acts.
#[derive(Debug, Clone)]
pub struct Deploy {
    /// The topology.
    pub topology: TopologyId,
    /// The revision that was validated and hydrated.
    pub revision: Revision,
    /// The host.
    pub host: HostId,
    /// The hash of the hydrated document.
    pub hash: VersionHash,
    /// The hydrated document.
    pub hydrated: Vec<u8>,
    /// Whether a live topology on the host gives way.
    pub replace: Replace,
    /// Until when it may take.
    pub deadline: OffsetDateTime,
    /// Who asked.
    pub actor: Actor,
    /// The time.
    pub now: OffsetDateTime,
}

/// A teardown that was decided.
#[derive(Debug, Clone)]
pub struct Teardown {
    /// The topology.
    pub topology: TopologyId,
    /// At which revision it is meant, if that was said: at another one nothing is written.
    pub expected: Option<Revision>,
    /// Why.
    pub reason: String,
    /// Who asked.
    pub actor: Actor,
    /// The time.
    pub now: OffsetDateTime,
}

/// The removal of a topology.
#[derive(Debug, Clone)]
pub struct Removal {
    /// The topology.
    pub topology: TopologyId,
    /// At which revision it is meant, if that was said: at another one nothing is removed.
    pub expected: Option<Revision>,
    /// Whether the caller has seen that its host holds nothing of it.
    pub observed_empty: bool,
    /// Who asked.
    pub actor: Actor,
    /// The time.
    pub now: OffsetDateTime,
}

/// Whether a live topology on the host gives way to a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// It stays and the deploy is refused.
    Refuse,
    /// It moves to tearing down in the same transaction.
    Supersede,
}

/// Why intent could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum IntentError {
    /// No such topology.
    #[error("there is no such topology")]
    Unknown,
    /// Its status does not allow it.
    #[error(transparent)]
    Illegal(IllegalTransition),
    /// It was edited meanwhile.
    #[error("the topology has revision {current}, not {expected}")]
    StaleRevision {
        /// What the caller saw.
        expected: Revision,
        /// What is stored.
        current: Revision,
    },
    /// The host carries another live topology.
    #[error("the host carries the topology {0}")]
    HostOccupied(TopologyName),
    /// The host takes no new topology.
    #[error("the host is {0}")]
    HostClosed(Standing),
    /// The store failed.
    #[error("intent could not be stored")]
    Store(#[source] StoreError),
}

/// A change of status to be written with compare-and-set.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The topology.
    pub topology: TopologyId,
    /// The status from which it was decided: another one stored means that nothing is written.
    pub from: TopologyStatus,
    /// What happened.
    pub event: StatusEvent,
    /// Why.
    pub reason: String,
    /// What the host reported as applied, when this settles that.
    pub applied: Option<(Fence, VersionHash, OffsetDateTime)>,
    /// Whether the assignment of the host is withdrawn with it (a new generation of nothing).
    pub withdraw: Withdraw,
    /// Who.
    pub actor: Actor,
    /// The time.
    pub now: OffsetDateTime,
}

/// Whether a settlement takes the topology from its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdraw {
    /// The assignment stays.
    Keep,
    /// The host is assigned nothing, if it is assigned this topology.
    Nothing,
}

/// One change of a topology's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusChange {
    /// Its place in the order of all such changes: it stays when earlier ones are forgotten.
    pub row: i64,
    /// When.
    pub at: OffsetDateTime,
    /// From where.
    pub from: TopologyStatus,
    /// To where.
    pub to: TopologyStatus,
    /// What happened.
    pub event: StatusEvent,
    /// Why.
    pub reason: String,
    /// Who.
    pub actor: Actor,
}

/// A live topology, as far as the reconciler needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveTopology {
    /// The topology.
    pub id: TopologyId,
    /// Its name.
    pub name: TopologyName,
    /// Its host.
    pub host: HostId,
    /// Where it stands.
    pub status: TopologyStatus,
    /// Until when a deploy may take.
    pub deadline: Option<OffsetDateTime>,
}

/// Everything that a reconcile pass reads of the store.
#[derive(Debug, Clone, Default)]
pub struct Views {
    /// Every host that may connect.
    pub hosts: Vec<HostRow>,
    /// Every topology that is deploying, active, degraded or tearing down.
    pub topologies: Vec<LiveTopology>,
}

/// An event to be stored, its identity stamped.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Its identity (version 7, made by the master).
    pub id: EventId,
    /// Its number in the spool.
    pub sequence: u64,
    /// The topology of the container that wrote it.
    pub topology: TopologyId,
    /// The decky of the container that wrote it.
    pub decky: DeckyId,
    /// The service that saw it.
    pub service: Option<ServiceKind>,
    /// The decky's clock.
    pub at: OffsetDateTime,
    /// The master's clock.
    pub received_at: OffsetDateTime,
    /// The connection or login that it belongs to.
    pub session: Option<SessionId>,
    /// Who.
    pub source: Option<SocketAddr>,
    /// On which address of the decky.
    pub destination: Option<SocketAddr>,
    /// How much it matters.
    pub severity: Severity,
    /// What.
    pub payload: Payload,
    /// Bytes on the wire.
    pub raw: Option<Evidence>,
}

/// Events of one spool of one host.
#[derive(Debug, Clone, PartialEq)]
pub struct EventBatch {
    /// The host, from its certificate.
    pub host: HostId,
    /// Its spool.
    pub spool: SpoolId,
    /// The events.
    pub events: Vec<NewEvent>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Appended {
    /// How many rows are new; the rest was there already.
    pub stored: u64,
}

/// A stored event.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    /// Its place in the order of arrival: the cursor of lists.
    pub row: i64,
    /// The host.
    pub host: HostId,
    /// The spool that it came from.
    pub spool: SpoolId,
    /// The decky's name, while its topology is in the database.
    pub decky_name: Option<DeckyName>,
    /// The rest.
    pub event: NewEvent,
}

/// Which events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter {
    /// Of this topology.
    pub topology: Option<TopologyId>,
    /// Of this decky.
    pub decky: Option<DeckyId>,
    /// Of this host.
    pub host: Option<HostId>,
    /// Of this kind.
    pub kind: Option<EventKind>,
    /// Of this service.
    pub service: Option<ServiceKind>,
    /// From this source address.
    pub source: Option<std::net::IpAddr>,
    /// Seen at or after.
    pub since: Option<OffsetDateTime>,
    /// Seen before.
    pub until: Option<OffsetDateTime>,
    /// Of each decky only its last transition.
    pub last_transitions: bool,
}

/// Which page of a list of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventPage {
    /// Newest first, before this row when one is given.
    Newest {
        /// Row before which to go on.
        before: Option<i64>,
    },
    /// Oldest first, after this row.
    After {
        /// Row after which to go on; 0 for the start.
        row: i64,
    },
}

/// Whether a refusal for safety is overridden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It stands.
    No,
    /// It is overridden.
    Yes,
}

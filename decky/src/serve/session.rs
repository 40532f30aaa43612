//! One connection as events see it: who, to which address, on which service.

use std::net::SocketAddr;

use domain::event::{AuthMethod, AuthOutcome, Evidence, Payload, Severity, Sighting};
use domain::id::SessionId;
use domain::service::ServiceKind;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::emit::Emitter;

/// The identity of a connection, and the way to report what happens on it.
#[derive(Clone)]
pub(crate) struct Session {
    id: SessionId,
    service: ServiceKind,
    source: SocketAddr,
    destination: SocketAddr,
    emitter: Emitter,
}

impl Session {
    pub(crate) fn new(
        service: ServiceKind,
        source: SocketAddr,
        destination: SocketAddr,
        emitter: Emitter,
    ) -> Self {
        Self {
            id: SessionId::new(Uuid::now_v7()),
            service,
            source,
            destination,
            emitter,
        }
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// The client's address.
    pub(crate) fn source(&self) -> SocketAddr {
        self.source
    }

    /// The address of the decky to which the client connected.
    pub(crate) fn destination(&self) -> SocketAddr {
        self.destination
    }

    fn sighting(&self, severity: Severity, payload: Payload, raw: Option<Evidence>) -> Sighting {
        Sighting {
            at: self.now(),
            service: Some(self.service),
            session: Some(self.id),
            source: Some(self.source),
            destination: Some(self.destination),
            severity,
            payload,
            raw,
        }
    }

    /// The time.
    pub(crate) fn now(&self) -> OffsetDateTime {
        self.emitter.now()
    }

    /// Reports something.
    pub(crate) async fn emit(&self, severity: Severity, payload: Payload) {
        self.emitter
            .emit(self.sighting(severity, payload, None))
            .await;
    }

    /// Reports something that may be dropped and counted.
    pub(crate) fn offer(&self, severity: Severity, payload: Payload) {
        self.emitter.offer(self.sighting(severity, payload, None));
    }

    /// Reports a command line.
    pub(crate) async fn command(&self, line: &[u8]) {
        self.emit(
            Severity::Notice,
            Payload::Command {
                line: Evidence::new(line),
            },
        )
        .await;
    }

    /// Reports credentials.
    pub(crate) async fn auth(
        &self,
        method: AuthMethod,
        username: &[u8],
        secret: &[u8],
        outcome: AuthOutcome,
    ) {
        let severity = match outcome {
            AuthOutcome::Accepted => Severity::Warning,
            AuthOutcome::Rejected => Severity::Notice,
        };
        let payload = Payload::Auth {
            method,
            username: Evidence::new(username),
            secret: Evidence::new(secret),
            outcome,
        };
        self.emit(severity, payload).await;
    }

    /// Reports something by which the client can be known again.
    pub(crate) async fn fingerprint(&self, of: &str, value: &[u8]) {
        let payload = Payload::Fingerprint {
            of: of.to_owned(),
            value: Evidence::new(value),
        };
        self.emit(Severity::Info, payload).await;
    }

    /// Reports bytes that no parser took.
    pub(crate) async fn raw(&self, reason: &str, bytes: &[u8]) {
        let raw = (!bytes.is_empty()).then(|| Evidence::new(bytes));
        let payload = Payload::Raw {
            reason: reason.to_owned(),
        };
        self.emitter
            .emit(self.sighting(Severity::Notice, payload, raw))
            .await;
    }
}

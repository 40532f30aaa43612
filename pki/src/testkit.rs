//! A CA, hosts and a master for the tests of this crate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::id::HostId;
use time::OffsetDateTime;
use time::macros::datetime;
use uuid::Uuid;

use crate::ca::CertificateAuthority;
use crate::clock::Clock;
use crate::csr::HostKey;
use crate::identity::files::HostIdentity;

pub(crate) const NOW: OffsetDateTime = datetime!(2026-03-01 12:00:00 UTC);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn authority() -> CertificateAuthority {
    CertificateAuthority::create(NOW).expect("randomness")
}

pub(crate) fn host_id(number: u128) -> HostId {
    HostId::new(Uuid::from_u128(number))
}

/// A host that joined at `now`, for a day.
pub(crate) fn host_identity(
    ca: &CertificateAuthority,
    host: HostId,
    now: OffsetDateTime,
) -> HostIdentity {
    let key = HostKey::generate().expect("randomness");
    let csr = key.csr_der().expect("own key");
    let leaf = ca.issue_host(&csr, host, DAY, now).expect("own request");
    HostIdentity::new(key, leaf.certificate_der, ca.bundle()).expect("own key")
}

/// A clock that stands still until it is set.
#[derive(Clone)]
pub(crate) struct TestClock(Arc<Mutex<OffsetDateTime>>);

impl TestClock {
    pub(crate) fn at(now: OffsetDateTime) -> Self {
        Self(Arc::new(Mutex::new(now)))
    }

    pub(crate) fn set(&self, now: OffsetDateTime) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    pub(crate) fn clock(&self) -> Clock {
        let this = Arc::clone(&self.0);
        Arc::new(move || *this.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

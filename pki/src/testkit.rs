//! A CA, hosts and a master for the tests of this crate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::id::HostId;
use futures_util::StreamExt;
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::acceptor::{
    AcceptLimits, AllowList, Connection, Connections, ServerTls, Standing, accept_loop,
};
use crate::ca::CertificateAuthority;
use crate::clock::Clock;
use crate::connector::{Connector, MasterAddress, MasterStream, Trust};
use crate::csr::HostKey;
use crate::fingerprint::KeyFingerprint;
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

/// A master on a port of its own, whose accepted connections the test takes one by one.
pub(crate) struct Master {
    pub(crate) address: MasterAddress,
    pub(crate) ca: CertificateAuthority,
    pub(crate) clock: TestClock,
    pub(crate) gate: Arc<Gate>,
    pub(crate) tls: Arc<ServerTls>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) shutdown: CancellationToken,
    accepted: mpsc::UnboundedReceiver<Connection>,
    _tasks: JoinSet<()>,
}

pub(crate) const LIMITS: AcceptLimits = AcceptLimits {
    handshake: Duration::from_secs(10),
    connections: 64,
    unauthenticated: 32,
};

impl Master {
    pub(crate) async fn start() -> Self {
        Self::start_with(LIMITS).await
    }

    pub(crate) async fn start_with(limits: AcceptLimits) -> Self {
        let ca = authority();
        let clock = TestClock::at(NOW);
        let gate = Arc::new(Gate::default());
        let tls = Arc::new(
            ServerTls::new(
                ca.issue_master(&[], 90 * DAY, NOW).expect("no names"),
                &ca.bundle(),
                Arc::clone(&gate) as Arc<dyn AllowList>,
                clock.clock(),
            )
            .expect("own CA"),
        );
        let connections = Connections::new();
        let shutdown = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        let stream = accept_loop(
            listener,
            Arc::clone(&tls),
            Arc::clone(&connections),
            limits,
            shutdown.clone(),
        );
        let (sender, accepted) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(stream.for_each(move |connection| {
            // A test that has ended takes no more connections.
            drop(sender.send(connection.expect("never an error")));
            std::future::ready(())
        }));
        Self {
            address: address.parse().expect("a socket address"),
            ca,
            clock,
            gate,
            tls,
            connections,
            shutdown,
            accepted,
            _tasks: tasks,
        }
    }

    pub(crate) fn host(&self, number: u128) -> HostIdentity {
        host_identity(&self.ca, host_id(number), NOW)
    }

    /// How a host of this fleet trusts this master, with a clock that is right.
    pub(crate) fn trust(&self) -> Trust {
        Trust::Bundle {
            bundle: self.ca.bundle(),
            clock: self.clock.clock(),
            skew: time::Duration::ZERO,
        }
    }

    pub(crate) fn connector(&self, identity: Option<&HostIdentity>) -> Connector {
        Connector::new(self.trust(), identity).expect("sound identity")
    }

    pub(crate) async fn connect(&self, identity: Option<&HostIdentity>) -> MasterStream {
        self.connector(identity)
            .connect(&self.address)
            .await
            .expect("listening")
    }

    /// The next connection that got through, with patience for slow machines.
    pub(crate) async fn accepted(&mut self) -> Connection {
        within(self.accepted.recv())
            .await
            .expect("the accept loop runs")
    }

    /// `None` once the accept loop has ended.
    pub(crate) async fn accepted_or_end(&mut self) -> Option<Connection> {
        within(self.accepted.recv()).await
    }

    pub(crate) fn nothing_accepted(&mut self) -> bool {
        self.accepted.try_recv().is_err()
    }

    /// Connects and takes the other end too.
    pub(crate) async fn pair(
        &mut self,
        identity: Option<&HostIdentity>,
    ) -> (MasterStream, Connection) {
        let stream = self.connect(identity).await;
        (stream, self.accepted().await)
    }
}

/// An allow-list that says yes until told otherwise, and counts how often it is asked.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
}

#[derive(Default)]
struct GateState {
    standings: HashMap<HostId, Standing>,
    asked: usize,
    on_ask: Option<OnAsk>,
}

/// Called with the number of the question, after the answer was made and before it is given.
type OnAsk = Box<dyn Fn(usize) + Send>;

impl Gate {
    pub(crate) fn set(&self, host: HostId, standing: Standing) {
        self.lock().standings.insert(host, standing);
    }

    pub(crate) fn asked(&self) -> usize {
        self.lock().asked
    }

    pub(crate) fn on_ask(&self, call: impl Fn(usize) + Send + 'static) {
        self.lock().on_ask = Some(Box::new(call));
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AllowList for Gate {
    fn standing(&self, host: HostId, _: &KeyFingerprint) -> Standing {
        let mut state = self.lock();
        state.asked += 1;
        let (number, call) = (state.asked, state.on_ask.take());
        let answer = state
            .standings
            .get(&host)
            .copied()
            .unwrap_or(Standing::Allowed);
        drop(state);
        if let Some(call) = call {
            // The lock is free: the call may change the list.
            call(number);
            self.lock().on_ask = Some(call);
        }
        answer
    }
}

/// Waits, but not for ever.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .expect("within 10 s")
}

/// Waits until it holds, without saying how long that takes.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}

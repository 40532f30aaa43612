//! The control connection: keeps it, speaks first on it, hands on what is assigned, reports what
//! changes, and renews the certificate while it lives.
//!
//! Replacing a connection opens the new one first. Nothing that is assigned is judged here.

use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::assign::HostReport;
use domain::usage::Usages;
use futures_util::future::BoxFuture;
use pki::connector::MasterAddress;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::enroll::{RenewError, renew};
use super::open::{Control, Dialled, dial, open};
use super::retry::Retry;
use super::wire::{self, Order};
use super::{Jitter, LinkError, Pace};
use crate::apply::Progress;
use crate::chain::Chain;
use crate::health::Vitals;
use crate::identity::Credentials;
use crate::report::Obey;
use crate::spool::Figures;
use crate::task;

/// How long the engine may take to answer before it counts as silent.
const ENGINE_ANSWER: Duration = Duration::from_secs(5);
/// After a renewal that failed.
const RENEW_AGAIN: Duration = Duration::from_secs(60);

/// What both connections dial with.
#[derive(Clone)]
pub struct Dialling {
    /// Who this host is.
    pub credentials: Arc<Credentials>,
    /// Where the master is; tried in turn. Never empty.
    pub masters: Vec<MasterAddress>,
    /// How fast to try again.
    pub pace: Pace,
    /// Keeps a fleet from doing everything at once.
    pub jitter: Jitter,
}

/// The control connection's work.
#[derive(Clone)]
pub struct Session {
    /// How to dial.
    pub dialling: Dialling,
    /// Who obeys.
    pub obey: Arc<dyn Obey>,
    /// How the tasks are.
    pub vitals: Arc<Vitals>,
    /// Where the agent's data is, for the free space.
    pub data: PathBuf,
    /// The state of the spool.
    pub spool: watch::Receiver<Figures>,
    /// What the deckies use.
    pub usages: watch::Receiver<Arc<Usages>>,
    /// After how long without a master to look at the engine all the same, to collect evidence.
    pub without_master: Duration,
}

/// How a connection ended.
enum Served {
    /// The agent ends.
    Shutdown,
    /// The next one stands already.
    Replaced(Box<Control>),
    /// It broke.
    Lost(LinkError),
}

impl Session {
    /// Keeps the control connection until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let met = CancellationToken::new();
        let alone = self.clone().collect_alone(met.clone(), shutdown.clone());
        let alone = task::spawn("alone", tracing::info_span!("host.alone"), alone);
        self.keep(&met, &shutdown).await;
        // It ends by itself: its own shutdown has come, or its time.
        alone.abort();
    }

    async fn keep(&self, met: &CancellationToken, shutdown: &CancellationToken) {
        let Dialling {
            masters,
            pace,
            jitter,
            ..
        } = &self.dialling;
        let mut retry = Retry::new(*pace, Arc::clone(jitter));
        let mut turn = 0_usize;
        let mut silenced: Option<&'static str> = None;
        let mut ready: Option<Box<Control>> = None;
        loop {
            let master = &masters[turn % masters.len()];
            let connected = match ready.take() {
                Some(control) => Ok(control),
                None => tokio::select! {
                    connected = self.connect(master) => connected.map(Box::new),
                    () = shutdown.cancelled() => return,
                },
            };
            let wait = match connected {
                Ok(control) => {
                    if silenced.take().is_some() || !met.is_cancelled() {
                        tracing::info!(%master, "connected to the master");
                    }
                    met.cancel();
                    let spread = control.welcome.spread;
                    match self.serve(control, master, shutdown).await {
                        Served::Shutdown => return,
                        Served::Replaced(next) => {
                            tracing::info!("moved to a connection with the new certificate");
                            ready = Some(next);
                            continue;
                        }
                        Served::Lost(error) => {
                            log_once(&mut silenced, &error);
                            retry.after_loss(&error, spread)
                        }
                    }
                }
                Err(error) => {
                    turn = turn.wrapping_add(1);
                    log_once(&mut silenced, &error);
                    retry.after(&error)
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Connects as far as the welcome; renews before it when the certificate has run out, by this
    /// host's reckoning or by the master's.
    async fn connect(&self, master: &MasterAddress) -> Result<Control, LinkError> {
        let credentials = &self.dialling.credentials;
        if !credentials.is_expired() {
            let opened = self.open(master).await;
            let Err(LinkError::Denied { call, source }) = opened else {
                return opened;
            };
            // An expired certificate may connect and renew, and do nothing else. This host's idea
            // of the time may be wrong, so whether it is expired is asked and not computed.
            tracing::info!("the master did not permit the control stream; trying to renew");
            if let Err(error) = self.renew_apart(master).await {
                tracing::debug!(error = %Chain(&error), "could not renew either");
                return Err(LinkError::Denied { call, source });
            }
            return self.open(master).await;
        }
        tracing::warn!("the certificate has expired; renewing it first");
        self.renew_apart(master).await?;
        self.open(master).await
    }

    async fn dial(&self, master: &MasterAddress) -> Result<Dialled, LinkError> {
        let connector = self
            .dialling
            .credentials
            .connector()
            .map_err(|source| LinkError::Identity { source })?;
        dial(&connector, master).await
    }

    async fn open(&self, master: &MasterAddress) -> Result<Control, LinkError> {
        let dialled = self.dial(master).await?;
        let row = Arc::clone(&self.obey.reports().borrow());
        open(dialled, &self.dialling.credentials, &row).await
    }

    /// Renews on a connection that serves for nothing else.
    async fn renew_apart(&self, master: &MasterAddress) -> Result<(), LinkError> {
        let Dialled { channel, refusal } = self.dial(master).await?;
        renew_and_adopt(&self.dialling.credentials, channel)
            .await
            .map_err(|source| match (refusal.get(), source) {
                (Some(source), _) => LinkError::Refused { source },
                (None, RenewError::Call { source }) => {
                    LinkError::from_status("renew", *source, &refusal)
                }
                (None, source) => LinkError::Renew { source },
            })
    }

    /// Renews over the living connection and opens the one that takes its place.
    async fn replace(
        self,
        channel: tonic::transport::Channel,
        master: MasterAddress,
    ) -> Result<Box<Control>, LinkError> {
        renew_and_adopt(&self.dialling.credentials, channel)
            .await
            .map_err(|source| LinkError::Renew { source })?;
        self.open(&master).await.map(Box::new)
    }

    async fn serve(
        &self,
        control: Box<Control>,
        master: &MasterAddress,
        shutdown: &CancellationToken,
    ) -> Served {
        let Control {
            outbound,
            mut inbound,
            dialled,
            welcome,
        } = *control;
        self.obey.set_floor(welcome.floor).await;
        self.obey.observe().await;

        let mut out = Outbox::new(
            self.obey.reports(),
            self.obey.progress(),
            self.usages.clone(),
        );
        let mut ticker = interval(welcome.heartbeat);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewal = Renewal::new(&self.dialling);
        loop {
            if renewal.is_due() {
                let channel = dialled.channel.clone();
                renewal.start(Box::pin(self.clone().replace(channel, master.clone())));
            }
            let mut lost = None;
            tokio::select! {
                () = shutdown.cancelled() => return Served::Shutdown,
                message = inbound.message() => match message {
                    Ok(Some(message)) => match wire::order(message) {
                        Ok(Order::Assign(offer)) => self.obey.offer(offer).await,
                        Ok(Order::ReportWanted) => {
                            out.report = true;
                            self.obey.observe().await;
                        }
                        Ok(Order::RenewNow) => renewal.now(),
                        // One malformed order must not cost the connection, and with it all others.
                        Err(error) => tracing::error!(
                            error = %Chain(&error), "the master sent an unusable order"
                        ),
                    },
                    Ok(None) => lost = Some(LinkError::Closed),
                    Err(status) => {
                        lost = Some(LinkError::from_status("control", status, &dialled.refusal));
                    }
                },
                permit = outbound.reserve(), if out.has_any() => match permit {
                    Ok(permit) => permit.send(out.next(self)),
                    // The stream has ended; why is what the other direction tells.
                    Err(_) => out.close(),
                },
                _ = ticker.tick() => out.heartbeat = true,
                () = out.changed() => {}
                replaced = renewal.done() => match replaced {
                    Ok(next) => return Served::Replaced(next),
                    Err(error) => {
                        tracing::warn!(
                            error = %Chain(&error), "could not renew and move; trying again"
                        );
                        renewal.again();
                    }
                },
            }
            if let Some(error) = lost {
                return self.after_loss(error, renewal, shutdown).await;
            }
        }
    }

    /// The master ends a connection when the next one of the same host says hello; that one may
    /// be on its way still.
    async fn after_loss(
        &self,
        error: LinkError,
        mut renewal: Renewal,
        shutdown: &CancellationToken,
    ) -> Served {
        if renewal.running.is_none() {
            return Served::Lost(error);
        }
        tokio::select! {
            replaced = renewal.done() => match replaced {
                Ok(next) => Served::Replaced(next),
                Err(_) => Served::Lost(error),
            },
            () = shutdown.cancelled() => Served::Shutdown,
        }
    }

    /// Without a master the engine is not asked about anything, except so that evidence is
    /// collected from what runs.
    async fn collect_alone(self, met: CancellationToken, shutdown: CancellationToken) {
        tokio::select! {
            () = sleep(self.without_master) => {
                tracing::warn!("no master for a while; collecting evidence without one");
                self.obey.observe().await;
            }
            () = met.cancelled() => {}
            () = shutdown.cancelled() => {}
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("masters", &self.dialling.masters)
            .finish_non_exhaustive()
    }
}

async fn renew_and_adopt(
    credentials: &Arc<Credentials>,
    channel: tonic::transport::Channel,
) -> Result<(), RenewError> {
    let renewed = renew(channel).await?;
    credentials.note_master_time(renewed.master_time);
    let not_after = renewed.identity.not_after();
    let keeper = Arc::clone(credentials);
    task::blocking(move || keeper.adopt(renewed.identity))
        .await
        .map_err(|source| RenewError::Store { source })?;
    tracing::info!(%not_after, "the certificate is renewed");
    Ok(())
}

/// Says why there is no connection: once per reason, not once per attempt.
pub(super) fn log_once(silenced: &mut Option<&'static str>, error: &LinkError) {
    let reason = error.reason();
    if *silenced == Some(reason) {
        tracing::debug!(reason, error = %Chain(error), "still no connection to the master");
        return;
    }
    *silenced = Some(reason);
    let next_step = error.next_step();
    if error.is_refusal() {
        tracing::error!(reason, error = %Chain(error), next_step, "no connection to the master");
    } else {
        tracing::warn!(reason, error = %Chain(error), next_step, "no connection to the master");
    }
}

// === impl Outbox ===

/// What is still to be said. Messages are made when there is room for them, of what is then true.
struct Outbox {
    reports: watch::Receiver<Arc<HostReport>>,
    progress: watch::Receiver<Option<Progress>>,
    usages: watch::Receiver<Arc<Usages>>,
    report: bool,
    heartbeat: bool,
    steps: bool,
    usage: bool,
    reports_end: bool,
    progress_end: bool,
    usages_end: bool,
    closed: bool,
    /// The digest of the last report that was made.
    digest: u64,
    /// When the stream began.
    since: Instant,
}

impl Outbox {
    fn new(
        mut reports: watch::Receiver<Arc<HostReport>>,
        mut progress: watch::Receiver<Option<Progress>>,
        mut usages: watch::Receiver<Arc<Usages>>,
    ) -> Self {
        let digest = wire::observed_digest(&reports.borrow_and_update());
        progress.mark_unchanged();
        // What was measured before this stream began is told on it, too.
        let usage = !usages.borrow_and_update().is_empty();
        Self {
            reports,
            progress,
            usages,
            // The hello had the row alone: the master needs the whole once per stream.
            report: true,
            heartbeat: false,
            steps: false,
            usage,
            reports_end: false,
            progress_end: false,
            usages_end: false,
            closed: false,
            digest,
            since: Instant::now(),
        }
    }

    const fn has_any(&self) -> bool {
        !self.closed && (self.report || self.heartbeat || self.steps || self.usage)
    }

    /// Nothing more can be said on this stream.
    const fn close(&mut self) {
        self.closed = true;
    }

    /// Waits for news; never ends when there can be none.
    async fn changed(&mut self) {
        let reports = async {
            if self.reports_end {
                pending().await
            } else {
                self.reports.changed().await
            }
        };
        let progress = async {
            if self.progress_end {
                pending().await
            } else {
                self.progress.changed().await
            }
        };
        let usages = async {
            if self.usages_end {
                pending().await
            } else {
                self.usages.changed().await
            }
        };
        tokio::select! {
            changed = reports => {
                self.reports_end = changed.is_err();
                self.report = changed.is_ok();
                self.heartbeat = changed.is_ok();
            }
            changed = progress => {
                self.progress_end = changed.is_err();
                self.steps = changed.is_ok();
            }
            changed = usages => {
                self.usages_end = changed.is_err();
                self.usage = changed.is_ok();
            }
        }
    }

    /// The most urgent thing: the report, then the heartbeat that refers to it, then progress, then
    /// what the deckies use.
    fn next(&mut self, session: &Session) -> proto::v1::AgentMessage {
        if self.report {
            self.report = false;
            let report = Arc::clone(&self.reports.borrow_and_update());
            self.digest = wire::observed_digest(&report);
            return wire::report(&report);
        }
        if !self.heartbeat {
            if std::mem::take(&mut self.steps)
                && let Some(progress) = *self.progress.borrow_and_update()
            {
                return wire::progress(progress);
            }
            if std::mem::take(&mut self.usage) {
                return wire::usage(&self.usages.borrow_and_update());
            }
        }
        self.heartbeat = false;
        // A report that changed meanwhile is news of its own, and comes next.
        let report = Arc::clone(&self.reports.borrow());
        let mut health = session
            .vitals
            .sample(&session.data, session.spool.borrow().events);
        health.engine_ok &= self.engine_is_heard(&report);
        wire::heartbeat(&report, self.digest, health)
    }

    /// Whether the engine has answered since it was asked at the stream's beginning. An attempt
    /// under way tells of itself.
    fn engine_is_heard(&self, report: &HostReport) -> bool {
        report.observed.is_some() || report.in_flight || self.since.elapsed() < ENGINE_ANSWER
    }
}

// === impl Renewal ===

/// When the certificate is renewed, and the renewal under way.
struct Renewal {
    credentials: Arc<Credentials>,
    jitter: f64,
    asked: bool,
    not_before: Option<Instant>,
    running: Option<BoxFuture<'static, Result<Box<Control>, LinkError>>>,
}

impl Renewal {
    fn new(dialling: &Dialling) -> Self {
        Self {
            credentials: Arc::clone(&dialling.credentials),
            jitter: (dialling.jitter)(),
            asked: false,
            not_before: None,
            running: None,
        }
    }

    const fn now(&mut self) {
        self.asked = true;
        self.not_before = None;
    }

    /// By the master's clock, looked at with each heartbeat at the latest: a timer would not count
    /// the hours that a host was asleep.
    fn is_due(&self) -> bool {
        let held = self.not_before.is_some_and(|until| Instant::now() < until);
        let aged =
            self.credentials.identity().renew_at(self.jitter) <= self.credentials.master_now();
        self.running.is_none() && !held && (self.asked || aged)
    }

    fn start(&mut self, work: BoxFuture<'static, Result<Box<Control>, LinkError>>) {
        self.asked = false;
        self.running = Some(work);
    }

    /// The renewal's end; never, when none runs.
    async fn done(&mut self) -> Result<Box<Control>, LinkError> {
        match &mut self.running {
            Some(running) => {
                let done = running.await;
                self.running = None;
                done
            }
            None => pending().await,
        }
    }

    fn again(&mut self) {
        self.asked = true;
        self.not_before = Some(Instant::now() + RENEW_AGAIN);
    }
}

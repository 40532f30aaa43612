//! The actor: takes offers in the order of their fences, watches the engine, and reports.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use domain::assign::{ApplyFailure, FailureCode, HostReport, Refusal, Timings};
use domain::observe::{Drift, Inventory};
use domain::plan;
use domain::revision::Fence;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempt, End, Mode, Outcome};
use super::error::ApplyError;
use super::pace::Pace;
use super::wanted::{Wanted, desired};
use super::{Applier, Followed, Offer, Progress};
use crate::chain::Chain;
use crate::crash;
use crate::engine::{Changed, EngineError};
use crate::fence::{Offered, Verdict, judge};
use crate::store::{AppliedState, Held, Row};

/// First and longest wait before changes are subscribed to again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How often it is looked for what deckies say of themselves, at most.
const SAID_EVERY: Duration = Duration::from_secs(1);

/// What a handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    Offer(Offer),
    Floor(Fence),
    Observe,
}

type Inventoried = Result<Inventory, EngineError>;
type Subscribed = Result<BoxStream<'static, Changed>, EngineError>;

/// What is waited for besides commands. Each is at most once under way.
#[derive(Default)]
struct Waits {
    attempt: Option<BoxFuture<'static, Outcome>>,
    inventory: Option<BoxFuture<'static, Inventoried>>,
    subscription: Option<BoxFuture<'static, Subscribed>>,
    hints: Option<BoxStream<'static, Changed>>,
    look_at: Option<Instant>,
    subscribe_at: Option<Instant>,
}

pub(super) struct Actor {
    parts: Applier,
    inbox: mpsc::Receiver<Command>,
    row: Row,
    wanted: Option<Arc<Wanted>>,
    /// What was last made wholly, to go back to.
    before: Option<Arc<Wanted>>,
    mode: Mode,
    floor: Fence,
    observed: Option<Inventory>,
    drift: Vec<Drift>,
    /// Of the last attempt that ended.
    timings: Timings,
    refusal: Option<Refusal>,
    /// An offer whose answer depends on what the engine shows.
    parked: Option<Offer>,
    watching: bool,
    /// Somebody asked for a look while none could be taken.
    asked: bool,
    unwell: bool,
    /// When it was last looked, or will be, for what a decky has said.
    said_at: Option<Instant>,
    /// How many deckies at once the engine is fastest with, learned over attempts.
    pace: Arc<Pace>,
    retry: Duration,
    stop: CancellationToken,
    waits: Waits,
    reports: watch::Sender<Arc<HostReport>>,
    progress: watch::Sender<Option<Progress>>,
    following: watch::Sender<Arc<Vec<Followed>>>,
}

enum Woken {
    Told(Option<Command>),
    Ended(Outcome),
    Looked(Inventoried),
    Subscribed(Subscribed),
    Hinted(Option<Changed>),
    LookNow,
    SubscribeNow,
    Said,
}

impl Actor {
    pub(super) fn new(parts: Applier, mut row: Row, inbox: mpsc::Receiver<Command>) -> Self {
        let mut wanted = None;
        if let Some(held) = row.held() {
            match Wanted::read(held) {
                Ok(read) => wanted = Some(Arc::new(read)),
                Err(error) => {
                    tracing::error!(
                        fence = %row.fence,
                        error = %Chain(&error),
                        next_step = "nothing: the master assigns again",
                        "the stored topology is unreadable; only its fence is kept"
                    );
                    row.state = AppliedState::Idle;
                }
            }
        }
        let pace = Pace::new(parts.settings.deckies_at_once);
        let applied = matches!(row.state, AppliedState::Applied { .. });
        let this = Self {
            parts,
            inbox,
            before: wanted.clone().filter(|_| applied),
            wanted,
            row,
            mode: Mode::Apply,
            floor: Fence::default(),
            observed: None,
            drift: Vec::new(),
            timings: Timings::new(),
            refusal: None,
            parked: None,
            watching: false,
            asked: false,
            unwell: false,
            said_at: None,
            pace: Arc::new(pace),
            retry: RETRY.0,
            stop: CancellationToken::new(),
            waits: Waits::default(),
            reports: watch::Sender::new(Arc::new(HostReport {
                fence: Fence::default(),
                phase: domain::assign::Phase::Idle,
                in_flight: false,
                content: None,
                applied_at: None,
                failure: None,
                refusal: None,
                observed: None,
                drift: Vec::new(),
                timings: Timings::new(),
            })),
            progress: watch::Sender::new(None),
            following: watch::Sender::default(),
        };
        this.publish();
        this
    }

    pub(super) fn reports(&self) -> watch::Receiver<Arc<HostReport>> {
        self.reports.subscribe()
    }

    pub(super) fn progress(&self) -> watch::Receiver<Option<Progress>> {
        self.progress.subscribe()
    }

    pub(super) fn following(&self) -> watch::Receiver<Arc<Vec<Followed>>> {
        self.following.subscribe()
    }

    /// Ends when the last handle is gone; what is under way is dropped as if the process had died.
    pub(super) async fn run(mut self) {
        let mut said = self.parts.board.changed();
        loop {
            let waits = &mut self.waits;
            let woken = tokio::select! {
                command = self.inbox.recv() => Woken::Told(command),
                outcome = once(&mut waits.attempt) => Woken::Ended(outcome),
                inventory = once(&mut waits.inventory) => Woken::Looked(inventory),
                stream = once(&mut waits.subscription) => Woken::Subscribed(stream),
                hint = next(&mut waits.hints) => Woken::Hinted(hint),
                () = at(waits.look_at) => Woken::LookNow,
                () = at(waits.subscribe_at) => Woken::SubscribeNow,
                Ok(()) = said.changed() => Woken::Said,
            };
            match woken {
                Woken::Told(None) => return,
                Woken::Told(Some(command)) => self.obey(command).await,
                Woken::Ended(outcome) => self.settle(outcome).await,
                Woken::Looked(inventory) => self.looked(inventory).await,
                Woken::Subscribed(stream) => self.subscribed(stream),
                Woken::Hinted(Some(Changed)) => self.look_soon(),
                Woken::Hinted(None) => {
                    self.waits.hints = None;
                    self.subscribe_later();
                    self.look_soon();
                }
                Woken::LookNow => self.look(),
                Woken::SubscribeNow => self.subscribe(),
                Woken::Said if self.watching => self.look_for_what_was_said(),
                Woken::Said => {}
            }
        }
    }

    // === impl Actor: commands ===

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Floor(floor) => self.floor = self.floor.max(floor),
            Command::Observe => {
                self.asked = true;
                self.watch();
                self.look();
            }
            Command::Offer(offer) => {
                self.watch();
                self.consider(offer).await;
            }
        }
    }

    async fn consider(&mut self, offer: Offer) {
        let content = offer
            .topology
            .as_ref()
            .map(|(topology, hash, _)| (*topology, *hash));
        let offered = Offered {
            fence: offer.fence,
            content,
        };
        let drifted = self.drift.iter().any(|drift| drift.kind.needs_repair());
        let verdict = judge(&self.row, self.in_flight(), self.floor, &offered, drifted);
        tracing::debug!(fence = %offer.fence, verdict = ?verdict, "an assignment is offered");
        match verdict {
            Verdict::Stale => {
                let newest = self.row.fence.max(self.floor);
                let message = format!(
                    "assignment {} is older than assignment {newest}",
                    offer.fence
                );
                self.refuse(
                    offer.fence,
                    ApplyFailure {
                        code: FailureCode::Stale,
                        message,
                    },
                );
            }
            Verdict::Conflict => {
                let message = format!("assignment {} came before with other content", offer.fence);
                self.refuse(
                    offer.fence,
                    ApplyFailure {
                        code: FailureCode::Conflict,
                        message,
                    },
                );
            }
            Verdict::Nothing if self.observed.is_none() => {
                // Whether anything differs is not known: nothing is answered before it is.
                self.parked = Some(offer);
                self.asked = true;
                self.look();
            }
            Verdict::Attach | Verdict::Nothing => self.publish_anew(),
            Verdict::Begin | Verdict::Supersede | Verdict::RunAgain => {
                let mode = if content.is_some() {
                    Mode::Apply
                } else {
                    Mode::Clear
                };
                self.accept(offer, mode).await;
            }
            Verdict::Repair => {
                let mode = if content.is_some() {
                    Mode::Repair
                } else {
                    Mode::Clear
                };
                self.accept(offer, mode).await;
            }
        }
    }

    /// Persists, and only then begins.
    async fn accept(&mut self, offer: Offer, mode: Mode) {
        let held = offer.topology.map(|(topology, hash, hydrated)| Held {
            topology,
            hash,
            hydrated,
        });
        let wanted = match held.as_ref().map(Wanted::read).transpose() {
            Ok(wanted) => wanted.map(Arc::new),
            Err(error) => return self.refuse(offer.fence, error.failure()),
        };
        let state = held.map_or(AppliedState::Clearing, AppliedState::Applying);
        let row = Row {
            fence: offer.fence,
            state,
        };
        if let Err(error) = self.parts.store.save(&row).await {
            return self.refuse(offer.fence, ApplyError::Store(error).failure());
        }
        crash::point_of(mode.as_str(), "persisted");
        tracing::info!(fence = %row.fence, mode = mode.as_str(), "an assignment is accepted");
        self.row = row;
        self.wanted = wanted;
        self.mode = mode;
        self.refusal = None;
        self.parked = None;
        self.stop.cancel();
        self.compare();
        if !self.in_flight() {
            self.begin();
        }
        self.publish_anew();
    }

    fn refuse(&mut self, fence: Fence, failure: ApplyFailure) {
        tracing::warn!(fence = %fence, failure = %failure, "an assignment is refused");
        self.refusal = Some(Refusal { fence, failure });
        self.publish_anew();
    }

    // === impl Actor: attempts ===

    const fn in_flight(&self) -> bool {
        self.waits.attempt.is_some()
    }

    fn begin(&mut self) {
        self.stop = CancellationToken::new();
        let attempt = Attempt {
            engine: self.parts.engine.clone(),
            board: self.parts.board.clone(),
            settings: self.parts.settings,
            guard: self.parts.guard.clone(),
            pace: self.pace.clone(),
            fence: self.row.fence,
            mode: self.mode,
            wanted: self.wanted.clone(),
            before: self.before.clone(),
            stop: self.stop.clone(),
            progress: self.progress.clone(),
            following: self.following.clone(),
        };
        self.waits.attempt = Some(Box::pin(attempt.run()));
    }

    async fn settle(&mut self, outcome: Outcome) {
        let Outcome {
            fence,
            mode,
            end,
            observed,
            timings,
        } = outcome;
        self.timings = timings;
        if let Some(observed) = &observed {
            self.following.send_replace(Followed::of(observed));
        }
        self.observed = observed;
        if fence != self.row.fence {
            // Something newer was accepted meanwhile: how the old one ended matters to nobody.
            self.begin();
            self.compare();
            return self.publish();
        }
        let at = (self.parts.clock)();
        let held = self.row.held().cloned();
        let state = match end {
            End::Converged => match held {
                Some(held) => AppliedState::Applied { held, at },
                None => AppliedState::Idle,
            },
            End::Failed(error) => AppliedState::Failed {
                held,
                reason: error.failure(),
                at,
            },
            // Stopped by nothing newer: cannot be, and running again is what it would need.
            End::Superseded => return self.begin(),
        };
        let row = Row { fence, state };
        self.row = match self.parts.store.save(&row).await {
            Ok(()) => row,
            Err(error) => {
                // The row on the disk still says that it is at work: that is safe.
                let error = ApplyError::Store(error);
                tracing::error!(
                    error = %Chain(&error),
                    next_step = FailureCode::Store.next_step(),
                    "the result of an assignment cannot be recorded"
                );
                let held = row.held().cloned();
                Row {
                    fence,
                    state: AppliedState::Failed {
                        held,
                        reason: error.failure(),
                        at,
                    },
                }
            }
        };
        if !matches!(self.row.state, AppliedState::Failed { .. }) {
            crash::point_of(mode.as_str(), "saved");
            self.before.clone_from(&self.wanted);
        }
        tracing::info!(fence = %fence, phase = %self.row.phase(), "an assignment is settled");
        self.compare();
        self.publish_anew();
        if self.asked {
            self.look();
        }
    }

    // === impl Actor: observation ===

    /// Keeps an eye on the engine from here on.
    fn watch(&mut self) {
        if !self.watching {
            self.watching = true;
            self.subscribe();
        }
    }

    fn subscribe(&mut self) {
        self.waits.subscribe_at = None;
        let engine = self.parts.engine.clone();
        self.waits.subscription = Some(Box::pin(async move { engine.changes().await }));
    }

    fn subscribe_later(&mut self) {
        self.waits.subscribe_at = Some(Instant::now() + self.retry);
        self.retry = self.retry.saturating_mul(2).min(RETRY.1);
    }

    fn subscribed(&mut self, stream: Subscribed) {
        self.waits.subscription = None;
        match stream {
            Ok(stream) => {
                self.waits.hints = Some(stream);
                // What happened while nobody listened.
                self.look_soon();
            }
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "no events from the engine yet");
                self.subscribe_later();
            }
        }
    }

    /// Gathers hints: one inventory for all of them.
    fn look_soon(&mut self) {
        let soon = Instant::now() + self.parts.settings.gather;
        self.waits.look_at = Some(self.waits.look_at.map_or(soon, |at| at.min(soon)));
    }

    /// A decky says what it likes, as often as it likes: it keeps neither the engine nor the master busy.
    fn look_for_what_was_said(&mut self) {
        let now = Instant::now();
        let soon = now + self.parts.settings.gather;
        let soon = match self.said_at {
            None => soon,
            Some(at) if at > now => at,
            Some(at) => soon.max(at + SAID_EVERY),
        };
        self.said_at = Some(soon);
        self.waits.look_at = Some(self.waits.look_at.map_or(soon, |at| at.min(soon)));
    }

    fn look(&mut self) {
        self.waits.look_at = None;
        if self.in_flight() {
            // It ends with an inventory of its own, and what was hinted at may be later than that.
            self.asked = true;
            self.waits.look_at = Some(Instant::now() + self.parts.settings.period);
            return;
        }
        if self.waits.inventory.is_some() {
            // It may have been read before what was hinted at.
            self.asked = true;
            return;
        }
        let engine = self.parts.engine.clone();
        self.waits.inventory = Some(Box::pin(async move { engine.inventory().await }));
        self.asked = false;
    }

    async fn looked(&mut self, inventory: Inventoried) {
        self.waits.inventory = None;
        if !self.in_flight() {
            self.waits
                .look_at
                .get_or_insert(Instant::now() + self.parts.settings.period);
            match inventory {
                Ok(inventory) => {
                    if std::mem::take(&mut self.unwell) {
                        tracing::info!("the engine answers again");
                    }
                    self.retry = RETRY.0;
                    self.following.send_replace(Followed::of(&inventory));
                    self.observed = Some(inventory);
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.unwell, true) {
                        tracing::warn!(error = %Chain(&error), "the engine does not answer");
                    }
                    self.observed = None;
                }
            }
            self.compare();
        }
        match self.parked.take() {
            Some(offer) if self.observed.is_some() => self.consider(offer).await,
            Some(_) => self.publish_anew(),
            None => self.publish(),
        }
        if self.asked {
            self.look();
        }
    }

    fn compare(&mut self) {
        let wanted = desired(self.wanted.as_deref());
        self.drift = self
            .observed
            .as_ref()
            .map(|seen| plan::drift(wanted, seen))
            .unwrap_or_default();
    }

    // === impl Actor: reports ===

    fn report(&self) -> HostReport {
        let (applied_at, failure) = match &self.row.state {
            AppliedState::Applied { at, .. } => (Some(*at), None),
            AppliedState::Failed { reason, .. } => (None, Some(reason.clone())),
            AppliedState::Idle | AppliedState::Applying(_) | AppliedState::Clearing => (None, None),
        };
        HostReport {
            fence: self.row.fence,
            phase: self.row.phase(),
            in_flight: self.in_flight(),
            content: self.row.content(),
            applied_at,
            failure,
            refusal: self.refusal.clone(),
            observed: self.observed.clone(),
            drift: self.drift.clone(),
            timings: self.timings.clone(),
        }
    }

    /// Publishes what changed.
    fn publish(&self) {
        let report = self.report();
        self.reports.send_if_modified(|current| {
            let news = **current != report;
            if news {
                *current = Arc::new(report);
            }
            news
        });
    }

    /// Publishes an answer, even one that says the same again.
    fn publish_anew(&self) {
        self.reports.send_replace(Arc::new(self.report()));
    }
}

/// Awaits a future that may not be there, once.
async fn once<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(future) => {
            let value = future.await;
            *slot = None;
            value
        }
        None => pending().await,
    }
}

async fn next(stream: &mut Option<BoxStream<'static, Changed>>) -> Option<Changed> {
    match stream {
        Some(stream) => stream.next().await,
        None => pending().await,
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}

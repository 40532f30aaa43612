//! One attempt to make the engine hold what is wanted: plan, run, look again; on the first error
//! take back what this attempt made.
//!
//! It decides nothing about fences and writes no row. It ends early, at the next step, when it is
//! told that something newer has come.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::assign::{Stage, Timings};
use domain::id::{DeckyId, LanId};
use domain::name::LanName;
use domain::observe::{Handle, Inventory};
use domain::plan::{self, Action, Step};
use domain::revision::Fence;
use domain::topology::hydrate::{HydratedDecky, HydratedInterface};
use domain::wiring::Wiring;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::ApplyError;
use super::pace::Pace;
use super::phases::Phases;
use super::pool::{self, AtOnce, Flow, Job};
use super::told::Told;
use super::undo::Undo;
use super::wanted::{Wanted, desired};
use super::{Followed, Progress, Settings};
use crate::crash;
use crate::engine::liveness::LivenessBoard;
use crate::engine::{Engine, EngineError, NewDecky, Origin};
use crate::guard::Guard;

/// How often the plan is made anew before what still differs counts as refused.
const ROUNDS: u32 = 3;
/// Before another look at an engine that has moved on, for what it is still at.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Why it runs; the word is of the crash points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Apply,
    Repair,
    Clear,
}

impl Mode {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Repair => "repair",
            Self::Clear => "clear",
        }
    }
}

/// Everything that an attempt works with.
pub(super) struct Attempt {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) board: LivenessBoard,
    pub(super) settings: Settings,
    pub(super) guard: Guard,
    pub(super) pace: Arc<Pace>,
    pub(super) fence: Fence,
    pub(super) mode: Mode,
    pub(super) wanted: Option<Arc<Wanted>>,
    /// What was in force before, to go back to.
    pub(super) before: Option<Arc<Wanted>>,
    pub(super) stop: CancellationToken,
    pub(super) progress: watch::Sender<Option<Progress>>,
    pub(super) following: watch::Sender<Arc<Vec<Followed>>>,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) fence: Fence,
    pub(super) mode: Mode,
    pub(super) end: End,
    /// What the engine shows now, when it answers.
    pub(super) observed: Option<Inventory>,
    /// How long each stage took.
    pub(super) timings: Timings,
}

#[derive(Debug)]
pub(super) enum End {
    /// It holds exactly what is wanted.
    Converged,
    /// Something newer has come.
    Superseded,
    /// It could not; what was made is taken back.
    Failed(ApplyError),
}

/// What one attempt has made, found and done so far.
#[derive(Default)]
pub(super) struct Work {
    pub(super) made: Vec<Undo>,
    lans: BTreeMap<LanId, Handle>,
    told: Vec<DeckyId>,
    timings: Timings,
    done: u32,
    total: u32,
}

impl Attempt {
    pub(super) async fn run(self) -> Outcome {
        let work = Mutex::new(Work::default());
        let result = self.converge(&work).await;
        let (end, observed) = match result {
            Ok(Some(observed)) => (End::Converged, Some(observed)),
            Ok(None) => (End::Superseded, None),
            Err(error) => {
                tracing::warn!(
                    fence = %self.fence,
                    error = %crate::chain::Chain(&error),
                    "the attempt failed and is taken back"
                );
                let made = std::mem::take(&mut lock(&work).made);
                self.undo(made).await;
                (End::Failed(error), self.engine.inventory().await.ok())
            }
        };
        self.progress.send_replace(None);
        let timings = std::mem::take(&mut lock(&work).timings);
        Outcome {
            fence: self.fence,
            mode: self.mode,
            end,
            observed,
            timings,
        }
    }

    /// Waits for `work` and books its time.
    async fn timed<T>(&self, book: &Mutex<Work>, stage: Stage, work: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let result = work.await;
        let mut book = lock(book);
        *book.timings.entry(stage).or_default() += begun.elapsed();
        result
    }

    /// Nothing when something newer has come.
    async fn converge(&self, work: &Mutex<Work>) -> Result<Option<Inventory>, ApplyError> {
        let mut told = Told::default();
        for round in 0..=ROUNDS {
            if self.stop.is_cancelled() {
                return Ok(None);
            }
            let mut observed = self
                .timed(work, Stage::Look, self.engine.inventory())
                .await
                .map_err(ApplyError::Observe)?;
            self.following.send_replace(Followed::of(&observed));
            let wanted = desired(self.wanted.as_deref());
            let mut steps = plan::plan(wanted, &observed);
            if told.count(&steps) {
                told.condemn(&mut observed);
                steps = plan::plan(wanted, &observed);
            }
            if steps.is_empty() {
                crash::point_of(self.mode.as_str(), "verified");
                return Ok(Some(observed));
            }
            if round == ROUNDS {
                let mut left = plan::drift(wanted, &observed);
                left.retain(|drift| drift.kind.needs_repair());
                return Err(ApplyError::Unsettled {
                    rounds: ROUNDS,
                    left,
                });
            }
            self.timed(work, Stage::Prepare, self.prepare(&steps))
                .await?;
            match self.execute(work, steps, &observed).await {
                Ok(Flow::On) => self.await_configurations(work).await,
                Ok(Flow::Stop) => return Ok(None),
                Err(error) if error.is_outrun() && round + 1 < ROUNDS => {
                    tracing::debug!(error = %crate::chain::Chain(&error), "looking again");
                    tokio::time::sleep(LOOK_AGAIN * (round + 1)).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Everything that can be known to fail, before the first step.
    async fn prepare(&self, steps: &[Step]) -> Result<(), ApplyError> {
        let count =
            |makes: fn(&Action) -> bool| steps.iter().filter(|step| makes(&step.action)).count();
        let new_deckies = count(|action| matches!(action, Action::CreateDecky { .. }));
        let new_networks = count(|action| matches!(action, Action::CreateLan { .. }));
        self.guard
            .check(new_deckies, new_networks)
            .map_err(ApplyError::HostShort)?;
        let new_lans: Vec<_> = steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::CreateLan { lan, .. } => self.wanted.as_ref()?.lan(*lan),
                Action::RemoveDecky { .. }
                | Action::Disconnect { .. }
                | Action::RemoveLan { .. }
                | Action::Connect { .. }
                | Action::StartDecky { .. }
                | Action::CreateDecky { .. }
                | Action::Rewire { .. }
                | Action::Configure { .. } => None,
            })
            .collect();
        if !new_lans.is_empty() {
            let taken = self
                .engine
                .foreign_subnets()
                .await
                .map_err(ApplyError::Subnets)?;
            for lan in new_lans {
                // The host's own route to the real network that the LAN is to be on.
                let own = lan.driver.parent().map(crate::engine::route_user);
                let clash = taken.iter().find(|(user, theirs)| {
                    (theirs.contains(&lan.subnet) || lan.subnet.contains(theirs))
                        && own.as_deref() != Some(user)
                });
                if let Some((user, theirs)) = clash {
                    return Err(ApplyError::SubnetInUse {
                        lan: lan.name.clone(),
                        subnet: lan.subnet,
                        theirs: *theirs,
                        user: user.as_str().into(),
                    });
                }
            }
        }
        if steps
            .iter()
            .any(|step| matches!(step.action, Action::CreateDecky { .. }))
        {
            self.engine
                .ensure_image()
                .await
                .map_err(ApplyError::Image)?;
            crash::point_of(self.mode.as_str(), "imaged");
        }
        Ok(())
    }

    async fn execute(
        &self,
        work: &Mutex<Work>,
        steps: Vec<Step>,
        observed: &Inventory,
    ) -> Result<Flow, ApplyError> {
        {
            let mut work = lock(work);
            work.total = work.done + u32::try_from(steps.len()).unwrap_or(u32::MAX);
            work.lans = self.kept_lans(observed, &steps);
            work.told.clear();
        }
        self.advance(work, 0);
        let phases = Phases::of(&steps);
        let lans = AtOnce::Fixed(self.settings.lans_at_once);
        let deckies = match self.engine.at_once() {
            Some(limit) => AtOnce::Fixed(limit),
            None => AtOnce::Paced(&self.pace),
        };
        let chains = phases.chains.iter().map(|chain| self.chain(work, chain));
        for (stage, at_once, jobs) in [
            (Stage::Remove, deckies, self.singles(work, &phases.removals)),
            (
                Stage::Remove,
                lans,
                self.singles(work, &phases.lan_removals),
            ),
            (Stage::Lans, lans, self.singles(work, &phases.lan_creations)),
            (Stage::Deckies, deckies, chains.collect()),
        ] {
            if jobs.is_empty() {
                continue;
            }
            if self
                .timed(work, stage, pool::run(at_once, jobs, &self.stop))
                .await?
                == Flow::Stop
            {
                return Ok(Flow::Stop);
            }
        }
        Ok(Flow::On)
    }

    /// The LANs that stay, by their networks.
    fn kept_lans(&self, observed: &Inventory, steps: &[Step]) -> BTreeMap<LanId, Handle> {
        let goes = |handle: &Handle| {
            steps.iter().any(
                |step| matches!(&step.action, Action::RemoveLan { handle: gone, .. } if gone == handle),
            )
        };
        let topology = self.wanted.as_ref().map(|wanted| wanted.topology.id);
        let stays = observed
            .lans
            .iter()
            .filter(|lan| Some(lan.topology) == topology && !goes(&lan.handle));
        stays.map(|lan| (lan.id, lan.handle.clone())).collect()
    }

    /// A job for each of these steps.
    fn singles<'a>(&'a self, work: &'a Mutex<Work>, steps: &[&'a Step]) -> Vec<Job<'a>> {
        let job = |step: &&'a Step| -> Job<'a> {
            let step = *step;
            Box::pin(async move {
                self.step(work, step).await?;
                Ok(Flow::On)
            })
        };
        steps.iter().map(job).collect()
    }

    fn chain<'a>(&'a self, work: &'a Mutex<Work>, steps: &'a [&'a Step]) -> Job<'a> {
        Box::pin(async move {
            for step in steps {
                if self.stop.is_cancelled() {
                    return Ok(Flow::Stop);
                }
                self.step(work, step).await?;
            }
            Ok(Flow::On)
        })
    }

    #[tracing::instrument(
        name = "plan.step", level = "debug", skip_all,
        fields(step = step.action.as_str(), object = %step.reason.object)
    )]
    async fn step(&self, work: &Mutex<Work>, step: &Step) -> Result<(), ApplyError> {
        let at = |verb: &'static str| {
            move |source: EngineError| ApplyError::Step {
                verb,
                object: step.reason.object.as_str().into(),
                source,
            }
        };
        match &step.action {
            Action::RemoveDecky { handle, decky: _ } => {
                self.engine
                    .remove_decky(handle)
                    .await
                    .map_err(at("remove"))?;
                crash::point_of(self.mode.as_str(), "decky_removed");
            }
            Action::Disconnect {
                handle,
                network,
                decky: _,
            } => {
                self.engine
                    .disconnect(handle, network)
                    .await
                    .map_err(at("disconnect"))?;
            }
            Action::RemoveLan { handle, lan: _ } => {
                self.engine.remove_lan(handle).await.map_err(at("remove"))?;
                crash::point_of(self.mode.as_str(), "lan_removed");
            }
            Action::CreateLan { lan, depth } => {
                let Some(wanted) = &self.wanted else {
                    return Ok(());
                };
                let Some(lan) = wanted.lan(*lan) else {
                    return Ok(());
                };
                let made = self
                    .engine
                    .create_lan(self.origin(wanted), lan, *depth)
                    .await;
                let handle = made.map_err(at("create"))?;
                let mut work = lock(work);
                work.lans.insert(lan.id, handle.clone());
                work.made.push(Undo::Lan {
                    handle,
                    name: lan.name.clone(),
                });
                crash::point_of(self.mode.as_str(), "lan_created");
            }
            Action::CreateDecky { decky } => self.create(work, *decky, step).await?,
            Action::Connect {
                handle,
                interface,
                decky: _,
            } => {
                let network = self.network(work, interface).map_err(at("connect"))?;
                let connect = self.engine.connect(handle, &network, interface).await;
                connect.map_err(|source| ApplyError::Step {
                    verb: "connect",
                    object: format!(
                        "{} to lan {}",
                        step.reason.object,
                        self.lan_name(interface.lan)
                    )
                    .into(),
                    source,
                })?;
                lock(work).made.push(Undo::Connection {
                    handle: handle.clone(),
                    network,
                });
            }
            Action::StartDecky { handle, decky } => {
                // It may have ended before it was told of its newest configuration.
                let Some((decky, config, wiring)) = self.parts_of(*decky) else {
                    return Ok(());
                };
                self.engine
                    .configure(handle, decky, config)
                    .await
                    .map_err(at("configure"))?;
                let started = self.engine.start_decky(handle, wiring).await;
                started.map_err(at("start"))?;
                crash::point_of(self.mode.as_str(), "decky_started");
            }
            Action::Rewire { handle, decky } => {
                let Some((decky, _, wiring)) = self.parts_of(*decky) else {
                    return Ok(());
                };
                let rewired = self.engine.rewire(handle, wiring).await;
                rewired.map_err(at("rewire"))?;
                lock(work).made.push(Undo::Wiring {
                    handle: handle.clone(),
                    decky: decky.id,
                });
                crash::point_of(self.mode.as_str(), "decky_rewired");
            }
            Action::Configure { handle, decky } => {
                if let Some((decky, config)) =
                    self.wanted.as_ref().and_then(|all| all.decky(*decky))
                {
                    self.engine
                        .configure(handle, decky, config)
                        .await
                        .map_err(at("configure"))?;
                    let mut work = lock(work);
                    work.told.push(decky.id);
                    work.made.push(Undo::Configuration {
                        handle: handle.clone(),
                        decky: decky.id,
                    });
                }
            }
        }
        self.advance(work, 1);
        Ok(())
    }

    async fn create(
        &self,
        work: &Mutex<Work>,
        decky: DeckyId,
        step: &Step,
    ) -> Result<(), ApplyError> {
        let at = |verb: &'static str| {
            move |source: EngineError| ApplyError::Step {
                verb,
                object: step.reason.object.as_str().into(),
                source,
            }
        };
        let Some(wanted) = &self.wanted else {
            return Ok(());
        };
        let Some((decky, config, wiring)) = self.parts_of(decky) else {
            return Ok(());
        };
        let networks = decky
            .interfaces
            .iter()
            .map(|interface| Ok((self.network(work, interface)?, *interface)))
            .collect::<Result<Vec<_>, EngineError>>()
            .map_err(at("create"))?;
        let new = NewDecky {
            origin: self.origin(wanted),
            decky,
            networks,
            config,
            wiring,
        };
        let handle = self.engine.create_decky(new).await.map_err(at("create"))?;
        let undo = Undo::Decky {
            handle: handle.clone(),
            name: decky.name.clone(),
        };
        lock(work).made.push(undo);
        crash::point_of(self.mode.as_str(), "decky_connected");
        self.engine
            .start_decky(&handle, wiring)
            .await
            .map_err(at("start"))?;
        // Its output is evidence from its first line on.
        let followed = Followed {
            decky: decky.id,
            topology: wanted.topology.id,
            handle,
            running: true,
        };
        self.following
            .send_modify(|all| Arc::make_mut(all).push(followed));
        crash::point_of(self.mode.as_str(), "decky_started");
        Ok(())
    }

    /// What was configured is verified by what the deckies say of themselves.
    async fn await_configurations(&self, work: &Mutex<Work>) {
        let told = std::mem::take(&mut lock(work).told);
        let waits = told.into_iter().filter_map(|decky| {
            let digest = self.wanted.as_ref()?.digest(decky)?;
            Some(
                self.board
                    .shows(decky, digest, self.settings.configuration_within),
            )
        });
        join_all(waits).await;
    }

    /// What is wanted of a decky: itself, its configuration, its wiring.
    fn parts_of(&self, decky: DeckyId) -> Option<(&HydratedDecky, &[u8], &Wiring)> {
        let wanted = self.wanted.as_ref()?;
        let (hydrated, config) = wanted.decky(decky)?;
        Some((hydrated, config, wanted.wiring(decky)?))
    }

    fn origin(&self, wanted: &Wanted) -> Origin {
        Origin {
            topology: wanted.topology.id,
            generation: self.fence.generation,
        }
    }

    fn network(
        &self,
        work: &Mutex<Work>,
        interface: &HydratedInterface,
    ) -> Result<Handle, EngineError> {
        lock(work)
            .lans
            .get(&interface.lan)
            .cloned()
            .ok_or_else(|| EngineError {
                kind: crate::engine::EngineErrorKind::NotFound,
                attempt: format!("lan {} has no network", self.lan_name(interface.lan)),
                source: None,
            })
    }

    fn lan_name(&self, lan: LanId) -> String {
        let lan_of =
            |wanted: &Arc<Wanted>| wanted.lan(lan).map(|lan| LanName::to_string(&lan.name));
        self.wanted
            .as_ref()
            .and_then(lan_of)
            .unwrap_or_else(|| lan.to_string())
    }

    fn advance(&self, work: &Mutex<Work>, by: u32) {
        let mut work = lock(work);
        work.done = work.done.saturating_add(by);
        let (done, total) = (work.done, work.total);
        self.progress.send_replace(Some(Progress {
            fence: self.fence,
            done,
            total,
        }));
    }

    /// Runs `jobs` to their end whatever happens; for what is taken back.
    pub(super) async fn all<F: Future<Output = ()>>(&self, jobs: impl Iterator<Item = F>) {
        let limit = self.pace.limit();
        futures_util::stream::iter(jobs)
            .for_each_concurrent(limit, |job| job)
            .await;
    }
}

pub(super) fn lock(work: &Mutex<Work>) -> MutexGuard<'_, Work> {
    // Each change is whole: a panic of another step leaves nothing half written.
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

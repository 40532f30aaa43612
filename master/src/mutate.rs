//! Carries out queued mutations: claims one by lease, applies it, stores its effect as the next
//! revision and generation, or refuses it with findings and leaves the topology as it was.
//!
//! Any number of masters may do so on one database: a claim has one winner, and a commit is
//! stored only while the claim holds. Whether the host has made it so is told by the reconciler.

use std::sync::Arc;
use std::time::Duration;

use domain::topology::Topology;
use domain::topology::diff::Difference;
use domain::topology::finding::{Finding, FindingCode};
use domain::topology::hydrate::hydrate;
use domain::topology::mutation::{Applied, Mutation, Regime};
use domain::topology::validate::Limits;
use proto::difference::changes;
use proto::queued::Queued;
use proto::rest::FindingShape;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::bus::Bus;
use crate::chain::Chain;
use crate::clock::Clock;
use crate::crash;
use crate::db::queue::{Application, CommitError, Failure, MutationId, MutationRow, WorkerId};
use crate::db::{Store, StoreError};
use crate::entropy::uuid_v7;
use crate::signal::{MutationWaker, Waker, tell};
use crate::topology::Editor;

mod asked;
mod schedule;

pub use asked::Asked;
use schedule::Schedule;
pub(crate) use schedule::deckies_served_otherwise;

/// How long a claim holds: far longer than a mutation takes, and no longer than a queue may stand
/// still because a master has died.
const LEASE: Duration = Duration::from_secs(5);
/// How long the worker rests when nothing is queued and nobody wakes it: another master may have
/// died right after it has queued something.
const REST: Duration = Duration::from_secs(30);
/// How long it rests when the database did not answer.
const BACK_OFF: Duration = Duration::from_secs(2);
/// How often an effect is made anew when the topology was edited meanwhile.
const ATTEMPTS: u32 = 16;

/// What carries out mutations.
pub struct Mutator {
    store: Arc<dyn Store>,
    bus: Arc<Bus>,
    clock: Clock,
    limits: Limits,
    waker: MutationWaker,
    reconciler: Waker,
    worker: WorkerId,
    schedule: Schedule,
}

// === impl Mutator ===

impl Mutator {
    /// A worker that has done nothing yet.
    pub fn new(editor: Editor, reconciler: Waker) -> Self {
        let Editor {
            store,
            bus,
            waker,
            clock,
            limits,
            ..
        } = editor.clone();
        Self {
            worker: WorkerId::new(uuid_v7(clock())),
            schedule: Schedule::new(editor),
            store,
            bus,
            clock,
            limits,
            waker,
            reconciler,
        }
    }

    /// Works for as long as the master runs.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut failing = false;
        loop {
            let rest = match self.turn().await {
                Ok(next) => {
                    failing = false;
                    self.until(next)
                }
                Err(error) => {
                    // An idle loop logs transitions only.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(error = %Chain(&error), "mutations wait for the database");
                    }
                    BACK_OFF
                }
            };
            tokio::select! {
                () = self.waker.woken() => {}
                () = tokio::time::sleep(rest) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn until(&self, next: Option<OffsetDateTime>) -> Duration {
        let Some(next) = next else { return REST };
        let left = next - (self.clock)();
        // Whole milliseconds upwards, so that it is not awake a moment too early again and again.
        let left = Duration::try_from(left).unwrap_or_default() + Duration::from_millis(1);
        left.min(REST)
    }

    /// Queues what is due and carries out what is queued; when there will be more to do.
    pub(crate) async fn turn(&mut self) -> Result<Option<OffsetDateTime>, StoreError> {
        let due = self.schedule.queue_due().await?;
        loop {
            let now = (self.clock)();
            let claimable = match self.store.next_claim().await? {
                Some(at) if at <= now => self
                    .store
                    .claim_mutation(self.worker, now + LEASE, now)
                    .await?
                    .map_or(Next::Again, |claim| Next::Claimed(Box::new(claim))),
                Some(at) => Next::At(at),
                None => Next::Never,
            };
            match claimable {
                Next::Claimed(claim) => self.carry_out(&claim).await?,
                // Another master was quicker.
                Next::Again => {}
                Next::At(at) => return Ok(Some(due.map_or(at, |due| due.min(at)))),
                Next::Never => return Ok(due),
            }
        }
    }

    #[tracing::instrument(
        name = "mutation.commit",
        skip_all,
        fields(topology.id = %claim.topology, mutation.id = %claim.id)
    )]
    async fn carry_out(&self, claim: &MutationRow) -> Result<(), StoreError> {
        crash::point("mutation.claimed");
        let queued = match Queued::from_json(&claim.payload) {
            Ok(queued) => queued,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "mutation cannot be read");
                return self.fail(claim, error.to_string()).await;
            }
        };
        for _ in 0..ATTEMPTS {
            let Some(row) = self.store.topology(claim.topology).await? else {
                return Ok(());
            };
            let effect = match effect(&row.topology, &queued.mutation, &self.limits) {
                Ok(effect) => effect,
                Err(findings) => {
                    let shapes: Vec<_> = findings.iter().map(FindingShape::from).collect();
                    let reason = serde_json::to_string(&shapes)
                        .expect("findings have string keys and no custom serializer");
                    return self.fail(claim, reason).await;
                }
            };
            match self.commit(claim, effect).await {
                Ok(()) => return Ok(()),
                Err(CommitError::StaleRevision { .. }) => {}
                // It was cancelled, or its lease has ended and it is another's; or it went with
                // its topology.
                Err(CommitError::Lost | CommitError::NotLive(_)) => return Ok(()),
                Err(CommitError::Store(source)) => return Err(source),
            }
        }
        // Its lease ends, and it is tried again.
        Ok(())
    }

    async fn commit(&self, claim: &MutationRow, effect: Effect) -> Result<(), CommitError> {
        let Effect {
            topology,
            hydrated,
            hash,
            payload,
        } = effect;
        let committed = self
            .store
            .commit_mutation(Application {
                mutation: claim.id,
                worker: self.worker,
                topology,
                hash,
                hydrated,
                payload,
                now: (self.clock)(),
            })
            .await?;
        crash::point("mutation.committed");
        self.reconciler.wake();
        tracing::info!(
            revision = %committed.revision,
            generation = %committed.assignment.fence.generation,
            "mutation committed"
        );
        self.tell_of(claim.id).await.map_err(CommitError::Store)
    }

    async fn fail(&self, claim: &MutationRow, reason: String) -> Result<(), StoreError> {
        let failure = Failure {
            mutation: claim.id,
            worker: self.worker,
            reason,
            now: (self.clock)(),
        };
        if self.store.fail_mutation(failure).await? {
            self.tell_of(claim.id).await?;
        }
        Ok(())
    }

    async fn tell_of(&self, id: MutationId) -> Result<(), StoreError> {
        if let Some(row) = self.store.mutation(id).await? {
            tell(&self.bus, &row);
        }
        Ok(())
    }
}

enum Next {
    Claimed(Box<MutationRow>),
    Again,
    At(OffsetDateTime),
    Never,
}

/// What a mutation makes of a topology, ready to be stored.
struct Effect {
    /// The graph as it is to be, under the revision that it was made from.
    topology: Topology,
    hydrated: Vec<u8>,
    hash: domain::topology::hydrate::VersionHash,
    payload: String,
}

fn effect(before: &Topology, mutation: &Mutation, limits: &Limits) -> Result<Effect, Vec<Finding>> {
    let Applied {
        topology: mut after,
        findings: _,
    } = mutation.apply(before, Regime::Live, limits)?;
    let document = hydrate(&after);
    let hydrated = proto::hydrated::encode(&document);
    if hydrated.len() > proto::hydrated::MAX_DOCUMENT {
        return Err(vec![Finding::error(
            FindingCode::TooLarge,
            "topology",
            "",
            format!(
                "{} bytes of hydrated document exceed what agents take",
                hydrated.len()
            ),
        )]);
    }
    let difference = Difference::between(before, &after);
    let queued = Queued {
        mutation: mutation.clone(),
        undo: Mutation::revert(before, &after),
        changes: changes(&difference),
        words: difference.to_string(),
    };
    after.revision = before.revision;
    Ok(Effect {
        topology: after,
        hydrated,
        hash: document.version_hash(),
        payload: queued.to_json(),
    })
}

/// The id of a text, where it is one.
pub(crate) fn mutation_id(text: &str) -> Option<MutationId> {
    Uuid::try_parse(text).ok().map(MutationId::new)
}

//! Laws that hold in whatever order things happen: interleavings drawn from a seed, and real races.

use std::sync::Arc;

use domain::revision::Revision;
use domain::service::ServiceSet;
use domain::topology::Topology;
use domain::topology::hydrate::hydrate;
use futures_util::future::join_all;

use super::queue::{effect, mutation, renamed, stored, worker};
use super::{at, deployed, drafted, enrolled, operator, topology};
use crate::db::Store;
use crate::db::queue::{CommitError, EditError, MutationPage, MutationRow, WorkerId};
use crate::metrics::Metrics;

/// How many interleavings are tried, unless `DECNET_INTERLEAVINGS` says otherwise: so often an update
/// would be lost by a store that does not compare.
const INTERLEAVINGS: u64 = 10_000;

#[allow(
    clippy::disallowed_methods,
    reason = "a test is told by its environment"
)]
fn interleavings() -> u64 {
    std::env::var("DECNET_INTERLEAVINGS")
        .ok()
        .and_then(|number| number.parse().ok())
        .unwrap_or(INTERLEAVINGS)
}

/// Numbers that look like chance and are the same every time (Knuth's MMIX generator).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits fit") % bound
    }
}

const EDITORS: usize = 3;
/// Topologies that are edited at once, each in a share of the interleavings.
const MAZES: u8 = 2;

/// Three editors, each of whom changes a decky of its own, in an order that the dice say: with
/// what it has read, or has written itself, however long ago that was, and with what it reads anew
/// when that was too late. A store that takes anything else than an edit of what is stored, or that
/// forgets one, is found at that step.
pub(crate) async fn editors_lose_no_update_in_any_interleaving(store: Arc<dyn Store>) {
    let many = interleavings().div_ceil(u64::from(MAZES));
    let store = &store;
    let work = |maze| async move { Edited::new(store, maze).await.interleave(many).await };
    join_all((1..=MAZES).map(work)).await;
}

/// A topology with its editors.
struct Edited<'a> {
    store: &'a Arc<dyn Store>,
    dice: Dice,
    /// What must be stored.
    model: Topology,
    /// What each editor holds for it.
    views: [Option<Topology>; EDITORS],
    /// How often each has stored an edit.
    stored: [u64; EDITORS],
    /// How often somebody had stored one since the read of an editor that came to store its own.
    interleaved: u64,
}

impl<'a> Edited<'a> {
    async fn new(store: &'a Arc<dyn Store>, maze: u8) -> Self {
        let model = smallest(maze);
        drafted(store, &model).await;
        Self {
            store,
            dice: Dice(maze.into()),
            model,
            views: [const { None }; EDITORS],
            stored: [0; EDITORS],
            interleaved: 0,
        }
    }

    /// Steps until so many edits were of what another one had changed.
    async fn interleave(mut self, many: u64) {
        while self.interleaved < many {
            let editor = self.dice.below(EDITORS);
            self.step(editor).await;
        }
        let stored: u64 = self.stored.iter().sum();
        assert_eq!(self.model.revision, Revision::new(1 + stored));
        // Nobody is kept waiting for ever.
        for one in self.stored {
            assert!(one > stored / 10, "{:?}", self.stored);
        }
        assert_eq!(self::stored(self.store, self.model.id).await, self.model);
    }

    /// One step of an editor: it reads, or else it stores what it makes of what it has read.
    async fn step(&mut self, editor: usize) {
        let Some(view) = self.views[editor].take() else {
            let read = stored(self.store, self.model.id).await;
            assert_eq!(read, self.model);
            self.views[editor] = Some(read);
            return;
        };
        let (held, current) = (view.revision, self.model.revision);
        let name = format!("srv-{editor}-{current}");
        let mut edited = renamed(view, editor, &name);
        match self.store.edit_draft(&edited, operator(), at(20)).await {
            Ok(revision) => {
                assert_eq!((held, revision), (current, current.next()));
                edited.revision = revision;
                self.views[editor] = Some(edited);
                self.model = renamed(self.model.clone(), editor, &name);
                self.model.revision = revision;
                self.stored[editor] += 1;
            }
            Err(EditError::StaleRevision { expected, current }) => {
                assert!(held < self.model.revision);
                assert_eq!((expected, current), (held, self.model.revision));
                self.interleaved += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// As little as the editors need: they are to be quick, because they are many.
fn smallest(number: u8) -> Topology {
    let mut maze = topology(number, &format!("maze-{number}"), 2);
    assert_eq!(maze.deckies.len(), EDITORS);
    maze.lans.truncate(1);
    maze.edges.retain(|edge| edge.lan == maze.lans[0].id);
    for decky in &mut maze.deckies {
        decky.services = ServiceSet::new();
        decky.publish.clear();
    }
    maze
}

pub(crate) async fn editors_that_race_lose_no_update(store: Arc<dyn Store>) {
    const EDITS: u64 = 20;
    let maze = topology(1, "maze", 3);
    drafted(&store, &maze).await;
    let editor = |editor: usize| {
        let store = Arc::clone(&store);
        async move {
            let mut edit = 0;
            while edit < EDITS {
                let read = stored(&store, maze.id).await;
                let edited = renamed(read, editor, &format!("srv-{editor}-{edit}"));
                match store.edit_draft(&edited, operator(), at(20)).await {
                    Ok(_) => edit += 1,
                    Err(EditError::StaleRevision { .. }) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
    };
    join_all((0..EDITORS).map(editor)).await;
    let read = stored(&store, maze.id).await;
    let writes = EDITS * u64::try_from(EDITORS).expect("three fit");
    assert_eq!(read.revision, Revision::new(1 + writes));
    for editor in 0..EDITORS {
        let name = format!("srv-{editor}-{}", EDITS - 1);
        assert_eq!(read.deckies[editor].hostname.as_str(), name);
    }
}

const MUTATIONS: u8 = 12;
/// How long a lease lasts, in steps of the dice.
const LEASE: i64 = 6;

/// A worker: what it has claimed, and what it has read since.
struct Worker {
    id: WorkerId,
    claim: Option<MutationRow>,
    read: Option<Topology>,
}

impl Worker {
    fn new(number: u128) -> Self {
        Self {
            id: worker(number),
            claim: None,
            read: None,
        }
    }

    /// One step; the number of the mutation that it has committed, if it has.
    async fn step(&mut self, store: &Arc<dyn Store>, now: i64) -> Option<u64> {
        let Some(claim) = &self.claim else {
            self.claim = store
                .claim_mutation(self.id, at(now + LEASE), at(now))
                .await
                .expect("answered");
            return None;
        };
        let Some(read) = self.read.take() else {
            self.read = Some(stored(store, claim.topology).await);
            return None;
        };
        let sequence = claim.sequence;
        let edited = renamed(read, 0, &format!("srv-{sequence}"));
        let effect = effect(claim, self.id, edited);
        self.claim = None;
        match store.commit_mutation(effect).await {
            Ok(_) => Some(sequence),
            // The lease ran out and somebody was quicker.
            Err(CommitError::Lost | CommitError::StaleRevision { .. }) => None,
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Two workers on one queue; either may die at any moment, be replaced, and come back from the
/// dead with what it had in its hands.
pub(crate) async fn each_mutation_is_committed_once_whoever_dies(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 1);
    deployed(&store, &maze, edge).await;
    for number in 1..=MUTATIONS {
        store
            .enqueue_mutation(mutation(maze.id, number))
            .await
            .expect("queued");
    }
    let mut dice = Dice(7);
    let mut workers = [Worker::new(1), Worker::new(2)];
    let mut dead: Vec<Worker> = Vec::new();
    let mut committed = Vec::new();
    let mut now = 100;
    while committed.len() < usize::from(MUTATIONS) {
        now += 1;
        assert!(now < 5000, "the queue stands still: {committed:?}");
        let place = dice.below(workers.len());
        match dice.below(8) {
            0 => {
                let number = 10 + u128::try_from(now).expect("time goes on");
                dead.push(std::mem::replace(&mut workers[place], Worker::new(number)));
            }
            1 => {
                if let Some(mut risen) = dead.pop() {
                    committed.extend(risen.step(&store, now).await);
                }
            }
            _ => committed.extend(workers[place].step(&store, now).await),
        }
    }
    let expected: Vec<u64> = (1..=MUTATIONS.into()).collect();
    assert_eq!(committed, expected);
    let read = stored(&store, maze.id).await;
    assert_eq!(read.revision, Revision::new(1 + u64::from(MUTATIONS)));
    assert_eq!(
        read.deckies[0].hostname.as_str(),
        format!("srv-{MUTATIONS}")
    );
    let mut rows = store
        .mutations(maze.id, MutationPage::default(), 100)
        .await
        .expect("answered");
    rows.reverse();
    assert!(
        rows.windows(2).all(|pair| pair[0].fence < pair[1].fence),
        "{rows:?}"
    );
}

pub(crate) async fn workers_that_race_commit_each_mutation_once(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 1);
    deployed(&store, &maze, edge).await;
    for number in 1..=MUTATIONS {
        store
            .enqueue_mutation(mutation(maze.id, number))
            .await
            .expect("queued");
    }
    let work = |number: u128| {
        let store = Arc::clone(&store);
        async move {
            let mut worker = Worker::new(number);
            let mut committed = Vec::new();
            let pending = || store.pending_mutations(maze.id);
            while !pending().await.expect("answered").is_empty() {
                committed.extend(worker.step(&store, 100).await);
            }
            committed
        }
    };
    let mut committed = join_all((1..=4).map(work)).await.concat();
    committed.sort_unstable();
    let expected: Vec<u64> = (1..=MUTATIONS.into()).collect();
    assert_eq!(committed, expected);
}

/// Statements that reading `topology` takes, and storing it.
async fn cost(store: &dyn Store, metrics: &Metrics, topology: &Topology) -> (u64, u64) {
    let count = || metrics.db_statements_total.get();
    let start = count();
    store
        .insert_topology(topology, operator(), at(10))
        .await
        .expect("stored");
    let stored = count();
    let read = store.topology(topology.id).await.expect("answered");
    let read = read.expect("it is there").topology;
    assert_eq!(hydrate(&read), hydrate(topology));
    (count() - stored, stored - start)
}

/// Not of the suite: it must see the counter.
pub(crate) async fn a_topology_is_as_many_statements_whatever_its_size(
    store: &dyn Store,
    metrics: &Metrics,
) {
    // The first entry ever looks for the beginning of the audit's chain.
    store.audit(super::upkeep::entry(0)).await.expect("written");
    let small = cost(store, metrics, &topology(2, "small", 1)).await;
    let large = cost(store, metrics, &topology(3, "large", 120)).await;
    assert_eq!(small, large);
    assert_eq!(
        small.0, 4,
        "one for the topology, one for each kind of part"
    );
    let start = metrics.db_statements_total.get();
    assert_eq!(store.topologies().await.expect("answered").len(), 2);
    store.views().await.expect("answered");
    assert_eq!(metrics.db_statements_total.get() - start, 3);
}

//! Laws of edits: drafts, mutations, places.

use std::sync::Arc;

use domain::id::TopologyId;
use domain::name::Hostname;
use domain::revision::{Fence, Revision};
use domain::topology::Topology;
use domain::topology::hydrate::hydrate;
use domain::topology::mutation::state::MutationState;
use domain::topology::status::{StatusEvent, TopologyStatus};
use futures_util::future::join_all;

use super::{
    at, deployed, drafted, enrolled, host, operator, removal_of, settled, teardown_of, topology,
    uuid,
};
use crate::db::queue::{
    Application, Arrival, CancelError, Changed, CommitError, EditError, EnqueueError, Failure,
    MutationId, MutationPage, MutationRow, NewMutation, Place, Scheduled, WorkerId,
};
use crate::db::upkeep::Retention;
use crate::db::{EventFilter, EventPage, Removal, Store};

pub(crate) fn worker(number: u128) -> WorkerId {
    WorkerId::new(uuid(0x7000 + number))
}

/// The mutation of that number, queued whatever has happened.
pub(crate) fn mutation(topology: TopologyId, number: u8) -> NewMutation {
    NewMutation {
        id: MutationId::new(uuid(0x8000 + u128::from(number))),
        topology,
        op: "update_decky".to_owned(),
        payload: format!("{{\"number\":{number}}}"),
        cause: "operator".to_owned(),
        expected_revision: None,
        expected_last: None,
        actor: operator(),
        now: at(50),
    }
}

pub(crate) async fn stored(store: &Arc<dyn Store>, id: TopologyId) -> Topology {
    store
        .topology(id)
        .await
        .expect("the store answers")
        .expect("the topology is there")
        .topology
}

pub(crate) fn renamed(mut topology: Topology, decky: usize, name: &str) -> Topology {
    topology.deckies[decky].hostname = Hostname::parse(name).expect("it is a name");
    topology
}

/// The effect of a claimed mutation.
pub(crate) fn effect(claim: &MutationRow, worker: WorkerId, topology: Topology) -> Application {
    let hydrated = hydrate(&topology);
    Application {
        mutation: claim.id,
        worker,
        hash: hydrated.version_hash(),
        hydrated: proto::hydrated::encode(&hydrated),
        topology,
        payload: "{\"done\":true}".to_owned(),
        now: at(60),
    }
}

pub(crate) async fn queued(store: &Arc<dyn Store>, topology: &Topology, number: u8) -> MutationRow {
    store
        .enqueue_mutation(mutation(topology.id, number))
        .await
        .expect("a live topology takes mutations")
}

async fn state(store: &Arc<dyn Store>, id: MutationId) -> MutationState {
    let row = store.mutation(id).await.expect("the store answers");
    row.expect("the mutation is there").state
}

pub(crate) async fn a_draft_is_edited_only_from_the_stored_revision(store: Arc<dyn Store>) {
    let maze = topology(1, "maze", 2);
    let unknown = store.edit_draft(&maze, operator(), at(11)).await;
    assert!(matches!(unknown, Err(EditError::Unknown)), "{unknown:?}");
    drafted(&store, &maze).await;

    let mut edited = renamed(maze.clone(), 1, "files");
    edited.deckies.pop();
    edited.edges.pop();
    let revision = store.edit_draft(&edited, operator(), at(11)).await;
    assert_eq!(revision.expect("edited"), Revision::new(2));
    edited.revision = Revision::new(2);
    assert_eq!(stored(&store, maze.id).await, edited);

    match store.edit_draft(&maze, operator(), at(12)).await {
        Err(EditError::StaleRevision { expected, current }) => {
            assert_eq!((expected, current), (Revision::new(1), Revision::new(2)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(stored(&store, maze.id).await, edited);

    let edge = enrolled(&store, 1, "edge").await;
    store
        .deploy(super::deploy_of(&edited, edge))
        .await
        .expect("deployed");
    let late = store.edit_draft(&edited, operator(), at(13)).await;
    assert!(
        matches!(late, Err(EditError::NotDraft(TopologyStatus::Deploying))),
        "{late:?}"
    );
}

pub(crate) async fn mutations_queue_in_order_and_only_behind_what_was_seen(store: Arc<dyn Store>) {
    let maze = topology(1, "maze", 2);
    let enqueue = |new| store.enqueue_mutation(new);
    let unknown = enqueue(mutation(maze.id, 1)).await;
    assert!(matches!(unknown, Err(EnqueueError::Unknown)), "{unknown:?}");
    drafted(&store, &maze).await;
    let draft = enqueue(mutation(maze.id, 1)).await;
    assert!(
        matches!(draft, Err(EnqueueError::NotLive(TopologyStatus::Pending))),
        "{draft:?}"
    );
    let edge = enrolled(&store, 1, "edge").await;
    store
        .deploy(super::deploy_of(&maze, edge))
        .await
        .expect("deployed");

    let first = enqueue(NewMutation {
        expected_revision: Some(Revision::new(1)),
        expected_last: Some(0),
        ..mutation(maze.id, 1)
    })
    .await
    .expect("it was seen as it is");
    assert_eq!((first.sequence, first.claims), (1, 0));
    assert_eq!(first.state, MutationState::Pending);
    assert_eq!(first.payload, "{\"number\":1}");
    let overtaken = enqueue(NewMutation {
        expected_last: Some(0),
        ..mutation(maze.id, 2)
    })
    .await;
    assert!(
        matches!(overtaken, Err(EnqueueError::Overtaken { last: 1 })),
        "{overtaken:?}"
    );
    let stale = enqueue(NewMutation {
        expected_revision: Some(Revision::new(7)),
        ..mutation(maze.id, 2)
    })
    .await;
    match stale {
        Err(EnqueueError::StaleRevision { expected, current }) => {
            assert_eq!((expected, current), (Revision::new(7), Revision::new(1)));
        }
        other => panic!("{other:?}"),
    }
    queued(&store, &maze, 2).await;
    queued(&store, &maze, 3).await;
    let numbers = |rows: Vec<MutationRow>| rows.iter().map(|row| row.sequence).collect::<Vec<_>>();
    let pending = store.pending_mutations(maze.id).await.expect("answered");
    assert_eq!(numbers(pending), [1, 2, 3]);
    let every = store.every_pending_mutation().await.expect("answered");
    assert_eq!(numbers(every), [1, 2, 3]);
    let page = store
        .mutations(maze.id, MutationPage::default(), 2)
        .await
        .expect("answered");
    assert_eq!(numbers(page), [3, 2]);
    let page = store
        .mutations(
            maze.id,
            MutationPage {
                before: Some(2),
                state: Some(MutationState::Pending),
            },
            9,
        )
        .await
        .expect("answered");
    assert_eq!(numbers(page), [1]);
}

pub(crate) async fn a_claim_is_of_one_worker_until_its_lease_runs_out(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 2);
    let claim = |number, now| store.claim_mutation(worker(number), at(now + 10), at(now));
    assert_eq!(claim(1, 50).await.expect("answered"), None);
    deployed(&store, &maze, edge).await;
    let first = queued(&store, &maze, 1).await;
    queued(&store, &maze, 2).await;

    let racers = join_all((1..=8).map(|number| claim(number, 50))).await;
    let won: Vec<MutationRow> = racers
        .into_iter()
        .filter_map(|claim| claim.expect("answered"))
        .collect();
    assert_eq!(won.len(), 1, "the second waits behind the first: {won:?}");
    assert_eq!((won[0].id, won[0].claims), (first.id, 1));
    assert_eq!(claim(9, 59).await.expect("answered"), None);
    let again = claim(9, 60).await.expect("answered").expect("it is free");
    assert_eq!((again.id, again.claims), (first.id, 2));

    // Another topology's queue does not wait for this one.
    let host_two = enrolled(&store, 2, "two").await;
    let other = topology(2, "other", 0);
    deployed(&store, &other, host_two).await;
    let elsewhere = queued(&store, &other, 3).await;
    let claimed = claim(1, 61).await.expect("answered").expect("it is free");
    assert_eq!(claimed.id, elsewhere.id);
}

pub(crate) async fn a_commit_stores_everything_or_nothing(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 2);
    let before = deployed(&store, &maze, edge).await;
    let first = queued(&store, &maze, 1).await;
    let claim = store
        .claim_mutation(worker(1), at(60), at(51))
        .await
        .expect("answered")
        .expect("it is free");
    let edited = renamed(stored(&store, maze.id).await, 1, "files");

    let stranger = store.commit_mutation(effect(&claim, worker(2), edited.clone()));
    let stranger = stranger.await;
    assert!(matches!(stranger, Err(CommitError::Lost)), "{stranger:?}");
    let mut old = edited.clone();
    old.revision = Revision::new(9);
    match store.commit_mutation(effect(&claim, worker(1), old)).await {
        Err(CommitError::StaleRevision { expected, current }) => {
            assert_eq!((expected, current), (Revision::new(9), Revision::new(1)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(host(&store, edge).await.assignment, before);
    assert_eq!(state(&store, first.id).await, MutationState::Pending);

    let done = effect(&claim, worker(1), edited.clone());
    let document = done.hydrated.clone();
    let committed = store
        .commit_mutation(done.clone())
        .await
        .expect("committed");
    assert_eq!(committed.revision, Revision::new(2));
    assert_eq!(host(&store, edge).await.assignment, committed.assignment);
    assert!(committed.assignment.fence > before.fence);
    assert_eq!(
        store.assigned_document(edge).await.expect("answered"),
        Some(document)
    );
    let read = stored(&store, maze.id).await;
    assert_eq!(read.revision, Revision::new(2));
    assert_eq!(read.deckies, edited.deckies);
    let row = store.mutation(first.id).await.expect("answered");
    let row = row.expect("it is there");
    assert_eq!(row.state, MutationState::Applying);
    assert_eq!(row.payload, "{\"done\":true}");
    assert_eq!(row.revision, Some(Revision::new(2)));
    assert_eq!(row.fence, Some(committed.assignment.fence));
    let again = store.commit_mutation(done).await;
    assert!(matches!(again, Err(CommitError::Lost)), "{again:?}");
}

/// Claims and commits the next mutation, as worker 1.
async fn committed(store: &Arc<dyn Store>) -> MutationRow {
    let claim = store
        .claim_mutation(worker(1), at(70), at(60))
        .await
        .expect("answered")
        .expect("something is queued");
    let name = format!("srv-{}-{}", claim.sequence, claim.claims);
    let edited = renamed(stored(store, claim.topology).await, 0, &name);
    store
        .commit_mutation(effect(&claim, worker(1), edited))
        .await
        .expect("committed");
    let row = store.mutation(claim.id).await.expect("answered");
    row.expect("it is there")
}

pub(crate) async fn what_a_host_reports_settles_its_mutations(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 2);
    deployed(&store, &maze, edge).await;
    for number in 1..=4 {
        queued(&store, &maze, number).await;
    }
    let rows = [
        committed(&store).await,
        committed(&store).await,
        committed(&store).await,
    ];
    let settle = |fence| {
        let store = &store;
        async move {
            let arrival = Arrival::Reported;
            store
                .settle_mutations(maze.id, fence, &arrival, at(80))
                .await
        }
    };
    let none = settle(Fence::new(1, 1)).await.expect("answered");
    assert_eq!(none, []);
    let fence = rows[1].fence.expect("it is committed");
    let settled = settle(fence).await.expect("answered");
    let ids: Vec<_> = settled.iter().map(|row| row.id).collect();
    assert_eq!(ids, [rows[0].id, rows[1].id]);
    assert!(
        settled
            .iter()
            .all(|row| row.state == MutationState::Applied)
    );
    assert_eq!(settle(fence).await.expect("answered"), []);

    // What it could not carry out has failed; what has ended stays as it is.
    let arrival = Arrival::Failed("no room".to_owned());
    let fence = rows[2].fence.expect("it is committed");
    let ended = store
        .settle_mutations(maze.id, fence, &arrival, at(81))
        .await
        .expect("answered");
    assert_eq!((ended.len(), ended[0].id), (1, rows[2].id));
    assert_eq!(ended[0].reason, "no room");
    assert_eq!(state(&store, rows[0].id).await, MutationState::Applied);
    assert_eq!(state(&store, rows[2].id).await, MutationState::Failed);

    let changed = async |behind, limit| {
        let changed = store.mutations_changed(maze.id, behind, limit).await;
        changed.expect("answered")
    };
    let sequences = |rows: &[MutationRow]| rows.iter().map(|row| row.sequence).collect::<Vec<_>>();
    let all = changed(Changed::since(at(80)), 1000).await;
    assert_eq!(sequences(&all), [1, 2, 3]);
    let last = changed(Changed::since(at(81)), 1000).await;
    assert_eq!(sequences(&last), [3]);
    // Two of them changed at one time.
    let first = changed(Changed::since(at(80)), 1).await;
    assert_eq!(sequences(&first), [1]);
    let rest = changed(Changed::of(&first[0]), 1000).await;
    assert_eq!(sequences(&rest), [2, 3]);
    for (state, count) in [
        (None, 4),
        (Some(MutationState::Applied), 2),
        (Some(MutationState::Cancelled), 0),
    ] {
        let counted = store.count_mutations(maze.id, state).await;
        assert_eq!(counted.expect("answered"), count);
    }

    let failure = |mutation, worker| Failure {
        mutation,
        worker,
        reason: "no room".to_owned(),
        now: at(81),
    };
    let fail = |failure| store.fail_mutation(failure);
    assert!(
        !fail(failure(rows[0].id, worker(1)))
            .await
            .expect("answered")
    );

    // One that is refused before it is committed leaves the topology as it was.
    let before = stored(&store, maze.id).await;
    let claim = store
        .claim_mutation(worker(1), at(90), at(80))
        .await
        .expect("answered")
        .expect("the fourth");
    assert!(!fail(failure(claim.id, worker(2))).await.expect("answered"));
    assert!(fail(failure(claim.id, worker(1))).await.expect("answered"));
    let row = store.mutation(claim.id).await.expect("answered");
    let row = row.expect("it is there");
    assert_eq!(
        (row.state, row.reason.as_str(), row.revision),
        (MutationState::Failed, "no room", None)
    );
    assert_eq!(stored(&store, maze.id).await, before);
}

pub(crate) async fn only_what_is_pending_is_cancelled(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 2);
    deployed(&store, &maze, edge).await;
    let cancel = |id| store.cancel_mutation(id, operator(), at(70));
    let unknown = cancel(mutation(maze.id, 9).id).await;
    assert!(matches!(unknown, Err(CancelError::Unknown)), "{unknown:?}");

    let first = queued(&store, &maze, 1).await;
    let second = queued(&store, &maze, 2).await;
    let claim = store
        .claim_mutation(worker(1), at(60), at(51))
        .await
        .expect("answered")
        .expect("it is free");
    cancel(first.id).await.expect("a lease does not keep it");
    let late = effect(&claim, worker(1), stored(&store, maze.id).await);
    let late = store.commit_mutation(late).await;
    assert!(matches!(late, Err(CommitError::Lost)), "{late:?}");
    let again = cancel(first.id).await;
    assert!(
        matches!(
            again,
            Err(CancelError::NotPending(MutationState::Cancelled))
        ),
        "{again:?}"
    );
    assert_eq!(committed(&store).await.id, second.id);
    let late = cancel(second.id).await;
    assert!(
        matches!(late, Err(CancelError::NotPending(MutationState::Applying))),
        "{late:?}"
    );
}

pub(crate) async fn a_teardown_ends_what_is_queued(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 2);
    deployed(&store, &maze, edge).await;
    settled(
        &store,
        &maze,
        TopologyStatus::Deploying,
        StatusEvent::Converged,
    )
    .await;
    let first = queued(&store, &maze, 1).await;
    let second = queued(&store, &maze, 2).await;
    committed(&store).await;
    store
        .teardown(teardown_of(&maze))
        .await
        .expect("taken down");
    for ended in [first.id, second.id] {
        let row = store.mutation(ended).await.expect("answered");
        let row = row.expect("it is there");
        assert_eq!(row.state, MutationState::Cancelled);
        assert_eq!(row.reason, "the topology is taken down");
    }
    assert_eq!(store.next_claim().await.expect("answered"), None);
    let claim = store.claim_mutation(worker(1), at(90), at(81)).await;
    assert_eq!(claim.expect("answered"), None);
    let late = store.enqueue_mutation(mutation(maze.id, 3)).await;
    assert!(
        matches!(
            late,
            Err(EnqueueError::NotLive(TopologyStatus::TearingDown))
        ),
        "{late:?}"
    );
}

pub(crate) async fn a_removed_topology_takes_its_mutations_along(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 2);
    deployed(&store, &maze, edge).await;
    let (deploying, active) = (TopologyStatus::Deploying, TopologyStatus::Active);
    settled(&store, &maze, deploying, StatusEvent::Converged).await;
    let waiting = queued(&store, &maze, 1).await;
    settled(&store, &maze, active, StatusEvent::TeardownRequested).await;
    let going = TopologyStatus::TearingDown;
    settled(&store, &maze, going, StatusEvent::HostIsEmpty).await;
    let row = store.mutation(waiting.id).await.expect("answered");
    assert!(row.is_some(), "it is kept as long as its topology");
    store
        .delete_topology(Removal {
            observed_empty: false,
            ..removal_of(&maze)
        })
        .await
        .expect("one that is torn down is removed");
    let row = store.mutation(waiting.id).await.expect("answered");
    assert_eq!(row.map(|row| row.id), None);
}

pub(crate) async fn a_failed_deploy_ends_what_is_queued(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 2);
    deployed(&store, &maze, edge).await;
    let first = queued(&store, &maze, 1).await;
    let second = queued(&store, &maze, 2).await;
    committed(&store).await;
    settled(
        &store,
        &maze,
        TopologyStatus::Deploying,
        StatusEvent::ApplyFailed,
    )
    .await;
    assert_eq!(state(&store, first.id).await, MutationState::Failed);
    assert_eq!(state(&store, second.id).await, MutationState::Failed);
}

pub(crate) async fn the_next_claim_is_known_without_claiming(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 2);
    deployed(&store, &maze, edge).await;
    let next = || store.next_claim();
    assert_eq!(next().await.expect("answered"), None);
    queued(&store, &maze, 1).await;
    queued(&store, &maze, 2).await;
    let free = next().await.expect("answered").expect("one is pending");
    assert!(free <= at(50));
    store
        .claim_mutation(worker(1), at(70), at(60))
        .await
        .expect("answered")
        .expect("it is free");
    // What is behind a leased one waits with it.
    assert_eq!(next().await.expect("answered"), Some(at(70)));
}

pub(crate) async fn deckies_that_mutate_by_themselves_are_known_with_their_last_time(
    store: Arc<dyn Store>,
) {
    let edge = enrolled(&store, 1, "edge").await;
    let mut maze = topology(1, "maze", 2);
    maze.deckies[1].mutate_every = "30m".parse().ok();
    deployed(&store, &maze, edge).await;
    assert_eq!(store.scheduled().await.expect("answered"), []);
    settled(
        &store,
        &maze,
        TopologyStatus::Deploying,
        StatusEvent::Converged,
    )
    .await;
    let expected = |last| Scheduled {
        topology: maze.id,
        decky: maze.deckies[1].id,
        every: maze.deckies[1].mutate_every.expect("it was set"),
        last,
    };
    assert_eq!(store.scheduled().await.expect("answered"), [expected(None)]);
    for (sequence, time) in [(1, 60), (2, 65)] {
        let event = super::events::mutated(&maze, 1, sequence, at(time));
        store
            .append_events(edge, super::spool(1), vec![event])
            .await
            .expect("stored");
    }
    assert_eq!(
        store.scheduled().await.expect("answered"),
        [expected(Some(at(65)))]
    );
    let last = EventFilter {
        topology: Some(maze.id),
        last_transitions: true,
        ..EventFilter::default()
    };
    let last = store.events(&last, EventPage::After { row: 0 }, 10).await;
    let last: Vec<_> = last
        .expect("answered")
        .iter()
        .map(|row| row.event.sequence)
        .collect();
    assert_eq!(last, [2]);
    // Retention leaves them: the fold of a decky's services begins at its creation.
    let retention = Retention {
        received_before: Some(at(1000)),
        keep_newest: Some(0),
        batch: 100,
    };
    assert_eq!(store.forget_events(retention).await.expect("answered"), 0);
    let subnets = store.taken_subnets().await.expect("answered");
    let expected: Vec<_> = maze.lans.iter().map(|lan| lan.subnet).collect();
    assert_eq!(subnets, expected);
}

pub(crate) async fn places_are_beside_the_topology(store: Arc<dyn Store>) {
    let maze = topology(1, "maze", 2);
    drafted(&store, &maze).await;
    let place = |object, x, size| Place {
        object,
        x,
        y: -5,
        size,
    };
    let (lan, decky) = (maze.lans[0].id.uuid(), maze.deckies[1].id.uuid());
    let put = |places: Vec<Place>| {
        let store = Arc::clone(&store);
        async move { store.put_places(maze.id, &places).await.expect("stored") }
    };
    put(vec![
        place(lan, 1, Some((300, 200))),
        place(decky, 2, None),
        place(uuid(0xdead), 3, None),
    ])
    .await;
    put(vec![place(decky, 7, None), place(decky, 8, None)]).await;
    put(Vec::new()).await;
    let mut expected = vec![place(lan, 1, Some((300, 200))), place(decky, 8, None)];
    expected.sort_by_key(|place| place.object);
    assert_eq!(store.places(maze.id).await.expect("answered"), expected);
    let read = stored(&store, maze.id).await;
    assert_eq!(read.revision, maze.revision);

    // What is edited away is forgotten; what stays keeps its place.
    let mut edited = read;
    edited.edges.retain(|edge| edge.decky.uuid() != decky);
    edited.deckies.remove(1);
    store
        .edit_draft(&edited, operator(), at(11))
        .await
        .expect("edited");
    assert_eq!(
        store.places(maze.id).await.expect("answered"),
        [place(lan, 1, Some((300, 200)))]
    );
}

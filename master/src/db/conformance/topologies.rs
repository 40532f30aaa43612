//! Laws of topologies at rest.

use std::collections::HashSet;
use std::sync::Arc;

use domain::id::HostId;
use domain::topology::Topology;
use domain::topology::status::{StatusEvent, TopologyStatus};

use super::{
    at, deploy_of, deployed, drafted, enrolled, host, operator, removal_of, settled, teardown_of,
    topology,
};
use crate::db::{Removal, Store, TopologyError};

pub(crate) async fn a_topology_reads_back_as_it_was_stored(store: Arc<dyn Store>) {
    let mut maze = topology(1, "maze", 40);
    maze.host = Some(HostId::new(super::uuid(77)));
    // Order is the operator's and no one's to sort.
    maze.lans.reverse();
    maze.deckies.reverse();
    maze.edges.reverse();
    drafted(&store, &maze).await;
    let row = store
        .topology(maze.id)
        .await
        .expect("answered")
        .expect("there");
    assert_eq!(row.topology, maze);
    assert_eq!(
        (row.status, row.status_at),
        (TopologyStatus::Pending, at(10))
    );
    assert_eq!((row.deadline, row.desired, row.applied), (None, None, None));
    let other = topology(2, "other", 0).id;
    assert_eq!(store.topology(other).await.expect("answered"), None);
}

pub(crate) async fn a_head_is_a_topology_without_its_parts(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 3);
    let head = async || store.topology_head(maze.id).await.expect("answered");
    assert_eq!(head().await, None);
    deployed(&store, &maze, edge).await;
    settled(
        &store,
        &maze,
        TopologyStatus::Deploying,
        StatusEvent::Converged,
    )
    .await;
    let whole = store.topology(maze.id).await.expect("answered");
    let mut expected = whole.expect("it is there");
    assert!(expected.desired.is_some());
    expected.topology.lans.clear();
    expected.topology.deckies.clear();
    expected.topology.edges.clear();
    assert_eq!(head().await, Some(expected));
}

pub(crate) async fn a_name_is_one_name_in_any_case_until_torn_down(store: Arc<dyn Store>) {
    let first = topology(1, "Maze", 0);
    let second = topology(2, "mAZE", 0);
    drafted(&store, &first).await;
    let taken = store.insert_topology(&second, operator(), at(11)).await;
    assert!(matches!(taken, Err(TopologyError::NameTaken)), "{taken:?}");
    let named = |name: &'static str| {
        let store = Arc::clone(&store);
        async move { store.topology_named(name).await.expect("answered") }
    };
    assert_eq!(named("MAZE").await, Some(first.id));
    assert_eq!(named("none").await, None);

    let down = store.teardown(teardown_of(&first)).await;
    assert_eq!(down.expect("torn down"), TopologyStatus::TornDown);
    assert_eq!(named("maze").await, Some(first.id));
    drafted(&store, &second).await;
    assert_eq!(named("maze").await, Some(second.id));
    let down = store.teardown(teardown_of(&second)).await;
    assert_eq!(down.expect("torn down"), TopologyStatus::TornDown);
    assert_eq!(
        named("maze").await,
        Some(second.id),
        "the newest of those torn down"
    );
}

pub(crate) async fn a_decky_is_found_by_its_name_wherever_it_is(store: Arc<dyn Store>) {
    let (first, second) = (topology(1, "maze", 2), topology(2, "other", 1));
    for topology in [&first, &second] {
        drafted(&store, topology).await;
    }
    let named = async |name: &str| {
        let found = store.deckies_named(name).await.expect("answered");
        found.into_iter().collect::<HashSet<_>>()
    };
    let of = |topology: &Topology, index: usize| {
        let decky = &topology.deckies[index];
        (topology.id, TopologyStatus::Pending, decky.id)
    };
    let name = first.deckies[0].name.as_str();
    assert_eq!(name, second.deckies[0].name.as_str());
    let both = HashSet::from([of(&first, 0), of(&second, 0)]);
    assert_eq!(named(&name.to_ascii_uppercase()).await, both);
    let only = named(first.deckies[2].name.as_str()).await;
    assert_eq!(only, HashSet::from([of(&first, 2)]));
    assert_eq!(named("%").await, HashSet::new());

    let down = store.teardown(teardown_of(&second)).await;
    assert_eq!(down.expect("torn down"), TopologyStatus::TornDown);
    let (topology, _, decky) = of(&second, 0);
    let stands = (topology, TopologyStatus::TornDown, decky);
    assert_eq!(named(name).await, HashSet::from([of(&first, 0), stands]));
}

pub(crate) async fn subnets_are_taken_until_their_topology_is_torn_down(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 2);
    let taken = async || {
        let taken = store.taken_subnets().await.expect("answered");
        maze.lans
            .iter()
            .filter(|lan| taken.contains(&lan.subnet))
            .count()
    };
    assert_eq!(taken().await, 0);
    drafted(&store, &maze).await;
    assert_eq!(taken().await, maze.lans.len(), "a draft has its own");
    store
        .delete_topology(Removal {
            observed_empty: false,
            ..removal_of(&maze)
        })
        .await
        .expect("a pending one is removed");
    assert_eq!(taken().await, 0);

    deployed(&store, &maze, edge).await;
    let (deploying, active) = (TopologyStatus::Deploying, TopologyStatus::Active);
    settled(&store, &maze, deploying, StatusEvent::Converged).await;
    assert_eq!(taken().await, maze.lans.len());
    settled(&store, &maze, active, StatusEvent::TeardownRequested).await;
    assert_eq!(taken().await, maze.lans.len(), "its host may still hold it");
    let going = TopologyStatus::TearingDown;
    settled(&store, &maze, going, StatusEvent::HostIsEmpty).await;
    assert_eq!(taken().await, 0);
}

pub(crate) async fn the_list_is_newest_first_with_counts(store: Arc<dyn Store>) {
    assert_eq!(store.topologies().await.expect("answered"), []);
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 5);
    deployed(&store, &maze, edge).await;
    drafted(&store, &topology(2, "flat", 0)).await;
    let list = store.topologies().await.expect("answered");
    let shown: Vec<_> = list
        .iter()
        .map(|it| {
            (
                it.name.as_str(),
                it.host,
                it.status.as_str(),
                it.lans,
                it.deckies,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("flat", None, "pending", 2, 1),
            ("maze", Some(edge), "deploying", 2, 6)
        ]
    );
}

pub(crate) async fn only_what_no_host_holds_is_removed(store: Arc<dyn Store>) {
    use StatusEvent::{ApplyFailed, Converged, Drifted, HostIsEmpty, TeardownRequested};
    use TopologyStatus::{Active, Degraded, Deploying, Failed, TearingDown, TornDown};
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 2);
    let delete = |observed_empty| {
        store.delete_topology(Removal {
            observed_empty,
            ..removal_of(&maze)
        })
    };
    let unknown = delete(true).await;
    assert!(
        matches!(unknown, Err(TopologyError::Unknown)),
        "{unknown:?}"
    );

    drafted(&store, &maze).await;
    delete(false).await.expect("a pending one is removed");

    let path: [(TopologyStatus, &[StatusEvent]); 4] = [
        (Deploying, &[]),
        (Active, &[Converged]),
        (Degraded, &[Drifted]),
        (TearingDown, &[Converged, TeardownRequested]),
    ];
    for (status, events) in path {
        let before = deployed(&store, &maze, edge).await;
        let mut at_status = Deploying;
        for event in events {
            at_status = settled(&store, &maze, at_status, *event).await;
        }
        match delete(true).await {
            Err(TopologyError::NotRemovable(said)) => assert_eq!(said, status),
            other => panic!("a topology that is {status} was removed: {other:?}"),
        }
        if at_status != TearingDown {
            at_status = settled(&store, &maze, at_status, TeardownRequested).await;
        }
        assert_eq!(
            settled(&store, &maze, at_status, HostIsEmpty).await,
            TornDown
        );
        assert_eq!(host(&store, edge).await.assignment, before);
        delete(false)
            .await
            .expect("one that is torn down is removed");
        let after = host(&store, edge).await.assignment;
        assert_eq!(after.content, None);
        assert!(after.fence > before.fence);
    }

    deployed(&store, &maze, edge).await;
    assert_eq!(settled(&store, &maze, Deploying, ApplyFailed).await, Failed);
    let refused = delete(false).await;
    assert!(
        matches!(refused, Err(TopologyError::NotRemovable(Failed))),
        "{refused:?}"
    );
    delete(true)
        .await
        .expect("a failed one whose host was seen empty is removed");
    assert_eq!(store.topology(maze.id).await.expect("answered"), None);
    assert_eq!(store.status_changes(maze.id).await.expect("answered"), []);
    let log = store.audit_log(100).await.expect("answered");
    assert!(
        log.iter().any(|entry| entry.action == "topology.deploy"),
        "the audit stays"
    );
}

pub(crate) async fn deckies_of_a_host_outlive_their_topology(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let other = enrolled(&store, 2, "other").await;
    let maze = topology(1, "maze", 2);
    drafted(&store, &maze).await;
    assert_eq!(
        store.deckies_of_host(edge).await.expect("answered").len(),
        0
    );

    store
        .deploy(deploy_of(&maze, edge))
        .await
        .expect("deployed");
    let expected: std::collections::BTreeSet<_> = maze
        .deckies
        .iter()
        .map(|decky| (maze.id, decky.id))
        .collect();
    assert_eq!(
        store.deckies_of_host(edge).await.expect("answered"),
        expected
    );
    assert_eq!(
        store.deckies_of_host(other).await.expect("answered").len(),
        0
    );

    settled(
        &store,
        &maze,
        TopologyStatus::Deploying,
        StatusEvent::ApplyFailed,
    )
    .await;
    store
        .delete_topology(removal_of(&maze))
        .await
        .expect("removed");
    assert_eq!(
        store.deckies_of_host(edge).await.expect("answered"),
        expected
    );
}

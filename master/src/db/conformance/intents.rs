//! Laws of intent: deploy, teardown, settlement, and the fence of assignments.

use std::sync::Arc;

use domain::host::Standing;
use domain::revision::{Epoch, Fence, Revision};
use domain::topology::status::{IllegalTransition, StatusEvent, TopologyStatus};
use futures_util::future::join_all;

use super::{
    at, deploy_of, deployed, drafted, enrolled, host, operator, redemption, refusal, removal_of,
    settled, settlement, stand, status, teardown_of, topology,
};
use crate::db::{
    Deploy, IntentError, Removal, Replace, Settlement, Store, Teardown, TopologyError, Withdraw,
};

pub(crate) async fn a_deploy_stores_its_intent_whole(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 2);
    let before = host(&store, edge).await.assignment.fence;
    let assignment = deployed(&store, &maze, edge).await;
    let deploy = deploy_of(&maze, edge);

    assert_eq!(
        assignment.fence.epoch,
        store.epoch().await.expect("answered")
    );
    assert_eq!(assignment.fence.generation, before.generation.next());
    assert_eq!(assignment.content, Some((maze.id, deploy.hash)));
    assert_eq!(host(&store, edge).await.assignment, assignment);
    assert_eq!(
        store.assigned_document(edge).await.expect("answered"),
        Some(deploy.hydrated)
    );

    let row = store
        .topology(maze.id)
        .await
        .expect("answered")
        .expect("there");
    assert_eq!(
        (row.status, row.status_at),
        (TopologyStatus::Deploying, at(20))
    );
    assert_eq!(
        (row.topology.host, row.deadline),
        (Some(edge), Some(at(600)))
    );
    assert_eq!(row.desired, Some((assignment.fence, deploy.hash)));
    let changes = store.status_changes(maze.id).await.expect("answered");
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].event, StatusEvent::DeployRequested);
    assert_eq!(
        (changes[0].from, changes[0].to),
        (TopologyStatus::Pending, TopologyStatus::Deploying)
    );
    assert_eq!(changes[0].actor, operator());
    let log = store.audit_log(1).await.expect("answered");
    assert_eq!(log[0].action, "topology.deploy");
    assert_eq!(log[0].subject, maze.id.to_string());

    settled(
        &store,
        &maze,
        TopologyStatus::Deploying,
        StatusEvent::Converged,
    )
    .await;
    let row = store
        .topology(maze.id)
        .await
        .expect("answered")
        .expect("there");
    assert_eq!(row.deadline, None, "a deploy that is over has no deadline");
}

pub(crate) async fn a_deploy_that_is_refused_changes_nothing(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let closed = enrolled(&store, 2, "closed").await;
    stand(&store, closed, Standing::Cordoned).await;
    let resident = topology(1, "resident", 0);
    let resident_assignment = deployed(&store, &resident, edge).await;
    let maze = topology(2, "maze", 0);
    let deploy = || deploy_of(&maze, edge);

    let unknown = refusal(store.deploy(deploy()).await);
    assert!(matches!(unknown, IntentError::Unknown), "{unknown:?}");
    drafted(&store, &maze).await;
    let log = store.audit_log(1000).await.expect("answered");

    let stale = Deploy {
        revision: Revision::new(7),
        ..deploy()
    };
    let stale = refusal(store.deploy(stale).await);
    assert!(
        matches!(stale, IntentError::StaleRevision { expected, current }
            if expected == Revision::new(7) && current == Revision::new(1)),
        "{stale:?}"
    );
    for (host, standing) in [
        (closed, Standing::Cordoned),
        (redemption(99).host, Standing::Removed),
    ] {
        let closed = refusal(store.deploy(Deploy { host, ..deploy() }).await);
        assert!(
            matches!(closed, IntentError::HostClosed(said) if said == standing),
            "{closed:?}"
        );
    }
    let occupied = refusal(store.deploy(deploy()).await);
    assert!(
        matches!(&occupied, IntentError::HostOccupied(name) if name.as_str() == "resident"),
        "{occupied:?}"
    );
    let illegal = refusal(store.deploy(deploy_of(&resident, edge)).await);
    let arrow = IllegalTransition {
        from: TopologyStatus::Deploying,
        event: StatusEvent::DeployRequested,
    };
    assert!(
        matches!(illegal, IntentError::Illegal(said) if said == arrow),
        "{illegal:?}"
    );

    assert_eq!(status(&store, &maze).await, TopologyStatus::Pending);
    assert_eq!(store.status_changes(maze.id).await.expect("answered"), []);
    assert_eq!(host(&store, edge).await.assignment, resident_assignment);
    assert_eq!(store.audit_log(1000).await.expect("answered"), log);
}

pub(crate) async fn a_replaced_topology_is_torn_down(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let old = topology(1, "old", 0);
    let first = deployed(&store, &old, edge).await;
    let new = topology(2, "new", 0);
    drafted(&store, &new).await;
    let replace = |topology| Deploy {
        replace: Replace::Supersede,
        ..deploy_of(topology, edge)
    };
    let second = store.deploy(replace(&new)).await.expect("it gives way");
    assert!(second.fence > first.fence);
    assert_eq!(host(&store, edge).await.assignment, second);
    let row = store
        .topology(old.id)
        .await
        .expect("answered")
        .expect("there");
    assert_eq!(
        (row.status, row.reason.as_str()),
        (TopologyStatus::TearingDown, "replaced by new")
    );

    // One that is on its way out already occupies the host, and is let go on.
    let third = topology(3, "third", 0);
    drafted(&store, &third).await;
    store.deploy(replace(&third)).await.expect("both give way");
    let changes = store.status_changes(old.id).await.expect("answered");
    assert_eq!(changes.len(), 2);
    assert_eq!(status(&store, &new).await, TopologyStatus::TearingDown);

    // The end of the old one takes nothing from its successor.
    let end = Settlement {
        withdraw: Withdraw::Nothing,
        ..settlement(&old, TopologyStatus::TearingDown, StatusEvent::HostIsEmpty)
    };
    store.settle(end).await.expect("settled").expect("written");
    let content = host(&store, edge).await.assignment.content;
    assert_eq!(content.map(|(topology, _)| topology), Some(third.id));
}

pub(crate) async fn of_deploys_that_race_one_wins(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 3);
    drafted(&store, &maze).await;
    let results = join_all((0..8).map(|_| store.deploy(deploy_of(&maze, edge)))).await;
    let won = results.iter().filter(|result| result.is_ok()).count();
    let illegal = results
        .iter()
        .filter(|result| matches!(result, Err(IntentError::Illegal(_))))
        .count();
    assert_eq!((won, illegal), (1, 7));
    assert_eq!(
        store.status_changes(maze.id).await.expect("answered").len(),
        1
    );
    assert_eq!(
        host(&store, edge).await.assignment.fence.generation.get(),
        1
    );
}

pub(crate) async fn a_cordoned_host_takes_back_what_it_holds(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 0);
    let first = deployed(&store, &maze, edge).await;
    settled(
        &store,
        &maze,
        TopologyStatus::Deploying,
        StatusEvent::ApplyFailed,
    )
    .await;
    stand(&store, edge, Standing::Cordoned).await;
    let second = store
        .deploy(deploy_of(&maze, edge))
        .await
        .expect("it is there already");
    assert!(second.fence > first.fence);

    let give_up = Settlement {
        withdraw: Withdraw::Nothing,
        ..settlement(&maze, TopologyStatus::Deploying, StatusEvent::ApplyFailed)
    };
    store
        .settle(give_up)
        .await
        .expect("settled")
        .expect("written");
    let closed = refusal(store.deploy(deploy_of(&maze, edge)).await);
    assert!(
        matches!(closed, IntentError::HostClosed(Standing::Cordoned)),
        "{closed:?}"
    );
}

pub(crate) async fn a_retry_on_another_host_leaves_the_first_with_nothing(store: Arc<dyn Store>) {
    let first = enrolled(&store, 1, "first").await;
    let second = enrolled(&store, 2, "second").await;
    let maze = topology(1, "maze", 0);
    deployed(&store, &maze, first).await;
    settled(
        &store,
        &maze,
        TopologyStatus::Deploying,
        StatusEvent::ApplyFailed,
    )
    .await;
    store
        .deploy(deploy_of(&maze, second))
        .await
        .expect("deployed");
    assert_eq!(host(&store, first).await.assignment.content, None);
    assert_eq!(
        store.assigned_document(first).await.expect("answered"),
        None
    );
    let row = store
        .topology(maze.id)
        .await
        .expect("answered")
        .expect("there");
    assert_eq!(row.topology.host, Some(second));
}

pub(crate) async fn a_teardown_withdraws_the_assignment(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 0);
    let teardown = || store.teardown(teardown_of(&maze));
    let unknown = refusal(teardown().await);
    assert!(matches!(unknown, IntentError::Unknown), "{unknown:?}");

    let before = deployed(&store, &maze, edge).await;
    assert_eq!(
        teardown().await.expect("taken down"),
        TopologyStatus::TearingDown
    );
    let after = host(&store, edge).await.assignment;
    assert_eq!(
        (after.content, after.fence.generation),
        (None, before.fence.generation.next())
    );
    assert_eq!(store.assigned_document(edge).await.expect("answered"), None);
    let again = refusal(teardown().await);
    assert!(matches!(again, IntentError::Illegal(_)), "{again:?}");

    let draft = topology(2, "draft", 0);
    drafted(&store, &draft).await;
    let down = store.teardown(teardown_of(&draft)).await;
    assert_eq!(down.expect("no host holds it"), TopologyStatus::TornDown);
}

pub(crate) async fn nothing_ends_at_another_revision_than_is_meant(store: Arc<dyn Store>) {
    let maze = topology(1, "maze", 0);
    drafted(&store, &maze).await;
    // What an editor stores between the look at the topology and the act.
    let edited = store.edit_draft(&maze, operator(), at(11)).await;
    assert_eq!(edited.expect("it is a draft"), Revision::new(2));
    let teardown = |expected| {
        store.teardown(Teardown {
            expected,
            ..teardown_of(&maze)
        })
    };
    let remove = |expected| {
        store.delete_topology(Removal {
            expected,
            ..removal_of(&maze)
        })
    };
    let (seen, current) = (Revision::new(1), Revision::new(2));
    let stale = (seen, current);
    match refusal(teardown(Some(seen)).await) {
        IntentError::StaleRevision { expected, current } => assert_eq!((expected, current), stale),
        other => panic!("{other:?}"),
    }
    match remove(Some(seen)).await {
        Err(TopologyError::StaleRevision { expected, current }) => {
            assert_eq!((expected, current), stale);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(status(&store, &maze).await, TopologyStatus::Pending);
    assert_eq!(store.status_changes(maze.id).await.expect("answered"), []);
    let log = store.audit_log(1).await.expect("answered");
    assert_eq!(log[0].action, "topology.edit", "a refusal leaves no trace");

    let down = teardown(Some(current)).await;
    assert_eq!(down.expect("it is that one"), TopologyStatus::TornDown);
    remove(Some(current)).await.expect("it is that one");
    assert_eq!(store.topology(maze.id).await.expect("answered"), None);
}

pub(crate) async fn a_settlement_is_written_only_from_the_status_it_was_decided_on(
    store: Arc<dyn Store>,
) {
    use StatusEvent::{ApplyFailed, Converged, HostIsEmpty};
    use TopologyStatus::{Active, Deploying, Failed};
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 0);
    let unknown = refusal(store.settle(settlement(&maze, Deploying, Converged)).await);
    assert!(matches!(unknown, IntentError::Unknown), "{unknown:?}");
    let assignment = deployed(&store, &maze, edge).await;
    let (_, hash) = assignment.content.expect("it is assigned");

    let applied = Some((assignment.fence, hash, at(29)));
    let converged = Settlement {
        applied,
        ..settlement(&maze, Deploying, Converged)
    };
    let after = store.settle(converged.clone()).await.expect("settled");
    assert_eq!(after, Some(Active));
    let row = store
        .topology(maze.id)
        .await
        .expect("answered")
        .expect("there");
    assert_eq!(
        (row.applied, row.reason.as_str()),
        (applied, "the host says so")
    );

    let moved = Settlement {
        withdraw: Withdraw::Nothing,
        ..settlement(&maze, Deploying, ApplyFailed)
    };
    assert_eq!(store.settle(moved).await.expect("answered"), None);
    assert_eq!(host(&store, edge).await.assignment, assignment);
    let illegal = refusal(store.settle(settlement(&maze, Active, HostIsEmpty)).await);
    assert!(matches!(illegal, IntentError::Illegal(_)), "{illegal:?}");
    assert_eq!(
        store.status_changes(maze.id).await.expect("answered").len(),
        2
    );

    let later = (assignment.fence, hash, at(31));
    store
        .record_applied(maze.id, later)
        .await
        .expect("recorded");
    store
        .record_applied(maze.id, later)
        .await
        .expect("recorded");
    let row = store
        .topology(maze.id)
        .await
        .expect("answered")
        .expect("there");
    assert_eq!(row.applied, Some(later));

    let other = topology(2, "other", 0);
    let host_two = enrolled(&store, 2, "two").await;
    deployed(&store, &other, host_two).await;
    let withdrawn = Settlement {
        withdraw: Withdraw::Nothing,
        ..settlement(&other, Deploying, ApplyFailed)
    };
    assert_eq!(
        store.settle(withdrawn).await.expect("settled"),
        Some(Failed)
    );
    assert_eq!(host(&store, host_two).await.assignment.content, None);
}

pub(crate) async fn a_raised_fence_is_above_what_the_host_obeys(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let other = enrolled(&store, 2, "other").await;
    let maze = topology(1, "maze", 0);
    let before = deployed(&store, &maze, edge).await;
    let document = store.assigned_document(edge).await.expect("answered");

    for above in [before.fence, Fence::new(1, 40), Fence::new(9, 3)] {
        let raised = store.supersede(edge, above).await.expect("raised");
        assert!(
            raised.fence > above,
            "{} is not above {above}",
            raised.fence
        );
        assert_eq!(raised.content, before.content);
        assert_eq!(host(&store, edge).await.assignment, raised);
        let row = store
            .topology(maze.id)
            .await
            .expect("answered")
            .expect("there");
        assert_eq!(row.desired.map(|(fence, _)| fence), Some(raised.fence));
    }
    assert_eq!(
        store.assigned_document(edge).await.expect("answered"),
        document
    );

    let top = host(&store, edge).await.assignment.fence;
    store
        .teardown(teardown_of(&maze))
        .await
        .expect("taken down");
    assert!(
        host(&store, edge).await.assignment.fence > top,
        "a fence only rises"
    );
    // What one host claims moves no other.
    assert_eq!(store.epoch().await.expect("answered"), Epoch::new(1));
    assert_eq!(host(&store, other).await.assignment.fence, Fence::new(1, 0));
}

pub(crate) async fn a_pass_reads_what_may_connect_and_what_is_live(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let gone = enrolled(&store, 2, "gone").await;
    let barred = enrolled(&store, 3, "barred").await;
    stand(&store, gone, Standing::Removed).await;
    stand(&store, barred, Standing::Revoked).await;
    let maze = topology(1, "maze", 0);
    let assignment = deployed(&store, &maze, edge).await;
    drafted(&store, &topology(2, "draft", 0)).await;

    let views = store.views().await.expect("answered");
    let hosts: Vec<_> = views.hosts.iter().map(|row| row.id).collect();
    assert_eq!(hosts, [edge, gone]);
    assert_eq!(views.hosts[0].assignment, assignment);
    assert_eq!(views.topologies.len(), 1);
    let live = &views.topologies[0];
    assert_eq!(
        (live.id, live.host, live.status),
        (maze.id, edge, TopologyStatus::Deploying)
    );
    assert_eq!((live.name.as_str(), live.deadline), ("maze", Some(at(600))));
}

//! Laws of the audit's chain and of retention.

use std::sync::Arc;

use domain::id::TopologyId;
use domain::topology::mutation::state::MutationState;
use domain::topology::status::{StatusEvent, TopologyStatus};
use time::OffsetDateTime;

use super::accounts::one_session;
use super::events::event;
use super::queue::{effect, queued, stored, worker};
use super::{at, deployed, drafted, enrolled, operator, settlement, spool, topology, uuid};
use crate::db::accounts::KeyedRequest;
use crate::db::queue::{Arrival, MutationPage};
use crate::db::upkeep::{AuditChain, AuditFilter, Forgotten, Retention};
use crate::db::{Actor, AuditEntry, EventFilter, EventPage, NewEvent, Settlement, Store};

pub(crate) fn entry(number: i64) -> AuditEntry {
    AuditEntry {
        at: at(number),
        actor: operator(),
        action: "topology.edit".to_owned(),
        subject: format!("maze-{number}"),
        detail: "a reason with a \0 in it".to_owned(),
    }
}

pub(crate) async fn the_audit_is_a_chain(store: Arc<dyn Store>) {
    let intact = |entries| AuditChain::Intact { entries };
    assert_eq!(store.verify_audit().await.expect("answered"), intact(0));
    for number in 0..7 {
        store.audit(entry(number)).await.expect("written");
    }
    assert_eq!(store.verify_audit().await.expect("answered"), intact(7));
    let all = AuditFilter::default();
    let page = store.audit_page(&all, None, 3).await.expect("answered");
    let subjects: Vec<&str> = page.iter().map(|row| &*row.entry.subject).collect();
    assert_eq!(subjects, ["maze-6", "maze-5", "maze-4"]);
    assert_eq!(page[0].entry.detail, "a reason with a \u{2400} in it");
    let next = store.audit_page(&all, Some(page[2].row), 9).await;
    let next = next.expect("answered");
    assert_eq!(next.len(), 4);
    let mut previous: Vec<_> = page.iter().chain(&next).map(|row| row.previous).collect();
    assert_eq!(previous.last(), Some(&Some([0; 32])));
    previous.sort_unstable();
    previous.dedup();
    assert_eq!(previous.len(), 7, "each is after another one");
}

pub(crate) async fn the_audit_is_found_by_who_what_and_on_what(store: Arc<dyn Store>) {
    for (number, (who, action)) in [
        ("alice", "topology.create"),
        ("alice@127.0.0.1", "topology.edit"),
        ("alice2@127.0.0.1", "topology.edit"),
        ("bob@::1", "topologyish.edit"),
    ]
    .into_iter()
    .enumerate()
    {
        let written = AuditEntry {
            actor: Actor::Operator(who.to_owned()),
            action: action.to_owned(),
            ..entry(i64::try_from(number).expect("it is small"))
        };
        store.audit(written).await.expect("written");
    }
    let text = |text: &str| Some(text.to_owned());
    let none = AuditFilter::default;
    let cases = [
        (none(), vec![3, 2, 1, 0]),
        (
            AuditFilter {
                actor: text("operator:alice"),
                ..none()
            },
            vec![1, 0],
        ),
        (
            AuditFilter {
                actor: text("operator:ali"),
                ..none()
            },
            vec![],
        ),
        (
            AuditFilter {
                action: text("topology.edit"),
                ..none()
            },
            vec![2, 1],
        ),
        (
            AuditFilter {
                action: text("topology."),
                ..none()
            },
            vec![2, 1, 0],
        ),
        (
            AuditFilter {
                subject: text("maze-3"),
                ..none()
            },
            vec![3],
        ),
        (
            AuditFilter {
                actor: text("operator:alice"),
                action: text("topology.edit"),
                subject: text("maze-1"),
            },
            vec![1],
        ),
        (
            AuditFilter {
                subject: text("a\0b"),
                ..none()
            },
            vec![],
        ),
    ];
    for (filter, expected) in cases {
        let found = store.audit_page(&filter, None, 9).await.expect("answered");
        let subjects: Vec<&str> = found.iter().map(|row| &*row.entry.subject).collect();
        let expected: Vec<String> = expected.iter().map(|n| format!("maze-{n}")).collect();
        assert_eq!(subjects, expected, "{filter:?}");
        let count = store.count_audit(&filter).await.expect("answered");
        assert_eq!(
            count,
            u64::try_from(expected.len()).expect("few"),
            "{filter:?}"
        );
    }
}

pub(crate) async fn old_events_go_in_batches_and_others_stay(store: Arc<dyn Store>) {
    let host = domain::id::HostId::new(uuid(5));
    let events: Vec<NewEvent> = (0..100)
        .map(|number| NewEvent {
            received_at: at(i64::try_from(number).expect("it is small")),
            ..event(number)
        })
        .collect();
    store
        .append_events(host, spool(1), events)
        .await
        .expect("stored");
    let all = EventFilter::default();
    let newest = store.newest_event_row().await.expect("answered");
    let forget = |received_before, keep_newest| {
        store.forget_events(Retention {
            received_before,
            keep_newest,
            batch: 16,
        })
    };
    assert_eq!(forget(None, None).await.expect("answered"), 0);
    let mut batches = Vec::new();
    loop {
        match forget(Some(at(40)), None).await.expect("answered") {
            0 => break,
            gone => batches.push(gone),
        }
    }
    assert_eq!(batches, [16, 16, 8]);
    assert_eq!(store.count_events(&all).await.expect("answered"), 60);
    let first = store
        .events(&all, EventPage::After { row: 0 }, 1)
        .await
        .expect("answered");
    assert_eq!(first[0].event.sequence, 40);

    let mut gone = 0;
    loop {
        match forget(Some(at(45)), Some(30)).await.expect("answered") {
            0 => break,
            more => gone += more,
        }
    }
    assert_eq!(gone, 30);
    assert_eq!(store.count_events(&all).await.expect("answered"), 30);
    assert_eq!(store.newest_event_row().await.expect("answered"), newest);
    assert_eq!(forget(None, Some(30)).await.expect("answered"), 0);
    assert_eq!(forget(None, Some(1000)).await.expect("answered"), 0);
}

pub(crate) async fn what_has_expired_is_forgotten(store: Arc<dyn Store>) {
    one_session(&store).await;
    let request = KeyedRequest {
        owner: "alice".to_owned(),
        key: "a".to_owned(),
        digest: [1; 32],
        lease_until: at(10),
        expires_at: at(50),
        now: at(0),
    };
    store.take_keyed(&request).await.expect("taken");
    assert_eq!(store.forget_expired(at(49)).await.expect("answered"), 0);
    assert_eq!(store.forget_expired(at(50)).await.expect("answered"), 1);
    assert_eq!(store.forget_expired(at(100)).await.expect("answered"), 1);
}

async fn forgotten(store: &Arc<dyn Store>, topology: TopologyId) -> (i64, OffsetDateTime) {
    let forgotten = store.forgotten(topology).await.expect("answered");
    let Forgotten { status, mutation } = forgotten.expect("the topology is there");
    (status, mutation)
}

pub(crate) async fn old_status_changes_go_in_batches_and_the_newest_stays(store: Arc<dyn Store>) {
    use StatusEvent::{Converged, Drifted};
    use TopologyStatus::{Active, Degraded, Deploying};
    let edge = enrolled(&store, 1, "edge").await;
    let (maze, quiet) = (topology(1, "maze", 0), topology(2, "quiet", 0));
    drafted(&store, &quiet).await;
    deployed(&store, &maze, edge).await;
    for number in 0..40 {
        let (from, event) = match number {
            0 => (Deploying, Converged),
            _ if number % 2 == 1 => (Active, Drifted),
            _ => (Degraded, Converged),
        };
        let settled = store.settle(Settlement {
            now: at(100 + number),
            ..settlement(&maze, from, event)
        });
        settled
            .await
            .expect("answered")
            .expect("it was in that status");
    }
    let changes = async || store.status_changes(maze.id).await.expect("answered");
    let all = changes().await;
    assert_eq!(all.len(), 41);
    assert!(all.windows(2).all(|pair| pair[0].row < pair[1].row));
    let forget = |before| store.forget_status_changes(before, 16);
    assert_eq!(forget(at(20)).await.expect("answered"), 0, "none is older");
    assert_eq!(
        forgotten(&store, maze.id).await,
        (0, OffsetDateTime::UNIX_EPOCH)
    );
    let mut batches = Vec::new();
    while let gone @ 1.. = forget(at(125)).await.expect("answered") {
        batches.push(gone);
    }
    assert_eq!(batches, [16, 10]);
    // What is left has kept its place.
    assert_eq!(changes().await, all[26..]);
    assert_eq!(forgotten(&store, maze.id).await.0, all[25].row);

    while forget(at(10_000)).await.expect("answered") > 0 {}
    assert_eq!(changes().await, all[40..], "the newest stays");
    assert_eq!(forgotten(&store, maze.id).await.0, all[39].row);
    assert_eq!(forgotten(&store, quiet.id).await.0, 0);
    assert_eq!(
        store
            .forgotten(TopologyId::new(uuid(77)))
            .await
            .expect("answered"),
        None
    );
}

pub(crate) async fn old_mutations_go_in_batches_and_open_ones_stay(store: Arc<dyn Store>) {
    use MutationState::{Applied, Applying, Pending};
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 0);
    deployed(&store, &maze, edge).await;
    let commit = async || {
        let claim = store.claim_mutation(worker(1), at(70), at(55)).await;
        let claim = claim.expect("answered").expect("one is pending");
        let graph = stored(&store, maze.id).await;
        let committed = store
            .commit_mutation(effect(&claim, worker(1), graph))
            .await;
        committed.expect("the claim holds").assignment.fence
    };
    // Ended at 100, 101, …; the last one is on its way, and then one is pending.
    for number in 1..=20 {
        queued(&store, &maze, number).await;
        let fence = commit().await;
        if number < 20 {
            let now = at(99 + i64::from(number));
            let ended = store.settle_mutations(maze.id, fence, &Arrival::Reported, now);
            assert_eq!(ended.await.expect("answered").len(), 1);
        }
    }
    queued(&store, &maze, 21).await;
    let left = async || {
        let rows = store.mutations(maze.id, MutationPage::default(), 100).await;
        let rows = rows.expect("answered");
        rows.iter()
            .rev()
            .map(|row| (row.sequence, row.state))
            .collect::<Vec<_>>()
    };
    let forget = |before| store.forget_mutations(before, 8);
    assert_eq!(forget(at(100)).await.expect("answered"), 0, "none is older");
    let mut batches = Vec::new();
    while let gone @ 1.. = forget(at(110)).await.expect("answered") {
        batches.push(gone);
    }
    assert_eq!(batches, [8, 2]);
    assert_eq!(left().await[0], (11, Applied));
    assert_eq!(
        forgotten(&store, maze.id).await,
        (0, at(109)),
        "when the last of those that are gone had changed"
    );
    while forget(at(10_000)).await.expect("answered") > 0 {}
    assert_eq!(left().await, [(20, Applying), (21, Pending)]);

    // Ended as well, the newest stays: the next one is numbered after it.
    let fence = commit().await;
    let ended = store.settle_mutations(maze.id, fence, &Arrival::Reported, at(130));
    assert_eq!(ended.await.expect("answered").len(), 2);
    while forget(at(10_000)).await.expect("answered") > 0 {}
    assert_eq!(left().await, [(21, Applied)]);
    assert_eq!(queued(&store, &maze, 22).await.sequence, 22);
}

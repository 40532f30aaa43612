//! Laws of the audit's chain and of retention.

use std::sync::Arc;

use super::accounts::one_session;
use super::events::event;
use super::{at, operator, spool, uuid};
use crate::db::accounts::KeyedRequest;
use crate::db::upkeep::{AuditChain, AuditFilter, Retention};
use crate::db::{Actor, AuditEntry, EventFilter, EventPage, NewEvent, Store};

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

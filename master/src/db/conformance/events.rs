//! Laws of the table of events.

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::decky_mutation::{DeckyMutated, Trigger};
use domain::event::{AuthMethod, AuthOutcome, EventKind, Evidence, Payload, Severity};
use domain::id::{DeckyId, EventId, HostId, SessionId, TopologyId};
use domain::service::ServiceKind;
use domain::topology::Topology;
use domain::topology::status::{StatusEvent, TopologyStatus};
use time::{Duration, OffsetDateTime};

use super::{at, deployed, enrolled, removal_of, settled, spool, topology, uuid};
use crate::db::{EventBatch, EventFilter, EventPage, NewEvent, Store, StoreError};

fn sender(number: u128) -> HostId {
    HostId::new(uuid(0x0200 + number))
}

/// A plain event of that number.
pub(crate) fn event(sequence: u64) -> NewEvent {
    NewEvent {
        id: EventId::new(uuid(0x9_0000 + u128::from(sequence))),
        sequence,
        topology: TopologyId::new(uuid(1)),
        decky: DeckyId::new(uuid(2)),
        service: Some(ServiceKind::Ssh),
        at: at(100) + Duration::nanoseconds(7),
        received_at: at(101),
        session: Some(SessionId::new(uuid(3))),
        source: Some("203.0.113.9:40000".parse().expect("it is an address")),
        destination: Some("[2001:db8::1]:22".parse().expect("it is an address")),
        severity: Severity::Info,
        payload: Payload::Connect,
        raw: None,
    }
}

/// The event that a decky of `topology` serves something else since then.
pub(crate) fn mutated(
    topology: &Topology,
    decky: usize,
    sequence: u64,
    time: OffsetDateTime,
) -> NewEvent {
    let decky = &topology.deckies[decky];
    NewEvent {
        topology: topology.id,
        decky: decky.id,
        at: time,
        payload: Payload::Mutation(Box::new(DeckyMutated {
            decky: decky.id,
            name: decky.name.clone(),
            old: BTreeSet::new(),
            new: BTreeSet::from([ServiceKind::Ssh, ServiceKind::Http]),
            trigger: Trigger::Scheduled,
            actor: Some("operator:ada".to_owned()),
        })),
        ..event(sequence)
    }
}

pub(crate) async fn an_event_reads_back_as_it_was_stored(store: Arc<dyn Store>) {
    let odd = Evidence::new(b"a\0\n]\"\\ \xff\xfe \xe2\x80\xae".to_vec());
    let payloads = [
        Payload::Connect,
        Payload::Disconnect {
            received: u64::MAX,
            sent: 0,
            millis: 1 << 53,
        },
        Payload::Auth {
            method: AuthMethod::Password,
            username: odd.clone(),
            secret: Evidence::new("'; DROP TABLE events; --"),
            outcome: AuthOutcome::Rejected,
        },
        Payload::Command { line: odd.clone() },
        Payload::Request {
            method: "GET".into(),
            target: odd.clone(),
            headers: vec![(odd.clone(), odd.clone()), ("a".into(), "".into())],
            body: Evidence::default(),
            status: 404,
        },
        Payload::Fingerprint {
            of: "hassh".to_owned(),
            value: odd.clone(),
        },
        Payload::Lifecycle {
            state: "gap".to_owned(),
            config: String::new(),
            detail: odd.clone(),
            count: 3,
        },
        Payload::Raw {
            reason: "line is not a decky event".to_owned(),
        },
        mutated(&topology(1, "maze", 1), 0, 0, at(1)).payload,
    ];
    let events: Vec<NewEvent> = (1..)
        .zip(payloads)
        .map(|(sequence, payload)| NewEvent {
            payload,
            raw: (sequence % 2 == 0).then(|| odd.clone()),
            service: (sequence % 3 == 0).then_some(ServiceKind::Http),
            source: event(0).source.filter(|_| sequence > 4),
            session: event(0).session.filter(|_| sequence > 4),
            ..event(sequence)
        })
        .collect();
    let appended = store
        .append_events(sender(1), spool(1), events.clone())
        .await
        .expect("stored");
    assert_eq!(appended.stored, 9);

    let page = EventPage::After { row: 0 };
    let rows = store
        .events(&EventFilter::default(), page, 100)
        .await
        .expect("answered");
    assert!(
        rows.iter()
            .all(|row| (row.host, row.spool) == (sender(1), spool(1)))
    );
    assert!(rows.iter().all(|row| row.decky_name.is_none()));
    assert_eq!(
        rows.last().map(|row| row.row),
        store.newest_event_row().await.ok()
    );
    let read: Vec<NewEvent> = rows.into_iter().map(|row| row.event).collect();
    assert_eq!(read, events);
}

pub(crate) async fn an_event_that_is_delivered_twice_is_stored_once(store: Arc<dyn Store>) {
    assert_eq!(store.newest_event_row().await.expect("answered"), 0);
    let batch = |from: u64, to: u64| (from..to).map(event).collect::<Vec<_>>();
    let append = |host, number, events| store.append_events(sender(host), spool(number), events);
    assert_eq!(
        append(1, 1, batch(0, 600)).await.expect("stored").stored,
        600
    );
    assert_eq!(append(1, 1, batch(0, 600)).await.expect("stored").stored, 0);
    assert_eq!(
        append(1, 1, batch(590, 610)).await.expect("stored").stored,
        10
    );
    // The same numbers of another spool, and of another host, are other events.
    assert_eq!(append(1, 2, batch(0, 5)).await.expect("stored").stored, 5);
    assert_eq!(append(2, 1, batch(0, 5)).await.expect("stored").stored, 5);
    assert_eq!(append(2, 1, Vec::new()).await.expect("stored").stored, 0);
    assert_eq!(
        store
            .count_events(&EventFilter::default())
            .await
            .expect("answered"),
        620
    );
}

pub(crate) async fn pages_miss_nothing_and_repeat_nothing(store: Arc<dyn Store>) {
    let total = 10_000;
    for from in (0..total).step_by(1000) {
        let events = (from..from + 1000).map(event).collect();
        store
            .append_events(sender(1), spool(1), events)
            .await
            .expect("stored");
    }
    let all = EventFilter::default();

    let mut row = 0;
    let mut oldest_first = Vec::new();
    loop {
        let page = store
            .events(&all, EventPage::After { row }, 700)
            .await
            .expect("answered");
        let Some(last) = page.last() else { break };
        row = last.row;
        oldest_first.extend(page.iter().map(|row| row.event.sequence));
    }
    assert!(oldest_first.iter().copied().eq(0..total));

    let mut before = None;
    let mut newest_first = Vec::new();
    loop {
        let page = store
            .events(&all, EventPage::Newest { before }, 999)
            .await
            .expect("answered");
        let Some(last) = page.last() else { break };
        before = Some(last.row);
        newest_first.extend(page.iter().map(|row| row.event.sequence));
    }
    assert!(newest_first.iter().copied().eq((0..total).rev()));

    let page = store
        .events(&all, EventPage::After { row: 0 }, u32::MAX)
        .await
        .expect("answered");
    assert_eq!(page.len(), 1000, "no page is without bound");
}

pub(crate) async fn filters_and_counts_agree(store: Arc<dyn Store>) {
    let plain = event(0);
    let events = vec![
        plain.clone(),
        NewEvent {
            topology: TopologyId::new(uuid(11)),
            ..event(1)
        },
        NewEvent {
            decky: DeckyId::new(uuid(12)),
            ..event(2)
        },
        NewEvent {
            payload: Payload::Command { line: "id".into() },
            ..event(3)
        },
        NewEvent {
            service: None,
            ..event(4)
        },
        NewEvent {
            source: Some("[2001:db8::7]:9".parse().expect("it is one")),
            ..event(5)
        },
        NewEvent {
            source: None,
            ..event(6)
        },
        NewEvent {
            at: plain.at + Duration::nanoseconds(1),
            ..event(7)
        },
    ];
    store
        .append_events(sender(1), spool(1), events)
        .await
        .expect("stored");
    store
        .append_events(sender(2), spool(1), vec![event(8)])
        .await
        .expect("stored");

    let none = EventFilter::default;
    let cases: [(EventFilter, &[u64]); 9] = [
        (
            EventFilter {
                topology: Some(TopologyId::new(uuid(11))),
                ..none()
            },
            &[1],
        ),
        (
            EventFilter {
                decky: Some(DeckyId::new(uuid(12))),
                ..none()
            },
            &[2],
        ),
        (
            EventFilter {
                host: Some(sender(2)),
                ..none()
            },
            &[8],
        ),
        (
            EventFilter {
                kind: Some(EventKind::Command),
                ..none()
            },
            &[3],
        ),
        (
            EventFilter {
                source: "2001:db8::7".parse().ok(),
                ..none()
            },
            &[5],
        ),
        (
            EventFilter {
                since: Some(plain.at + Duration::nanoseconds(1)),
                ..none()
            },
            &[7],
        ),
        (
            EventFilter {
                until: Some(plain.at + Duration::nanoseconds(1)),
                last_transitions: false,
                service: Some(ServiceKind::Ssh),
                kind: Some(EventKind::Connect),
                host: Some(sender(1)),
                topology: Some(plain.topology),
                decky: Some(plain.decky),
                source: plain.source.map(|address| address.ip()),
                since: Some(plain.at),
            },
            &[0],
        ),
        (
            EventFilter {
                service: Some(ServiceKind::Redis),
                ..none()
            },
            &[],
        ),
        (none(), &[0, 1, 2, 3, 4, 5, 6, 7, 8]),
    ];
    for (filter, expected) in cases {
        let page = EventPage::After { row: 0 };
        let rows = store.events(&filter, page, 100).await.expect("answered");
        let found: Vec<_> = rows.iter().map(|row| row.event.sequence).collect();
        assert_eq!(found, expected, "{filter:?}");
        let count = store.count_events(&filter).await.expect("answered");
        assert_eq!(
            count,
            u64::try_from(expected.len()).expect("it is small"),
            "{filter:?}"
        );
    }
}

pub(crate) async fn batches_are_stored_together_or_not_at_all(store: Arc<dyn Store>) {
    let batch = |number, events| EventBatch {
        host: sender(number),
        spool: spool(number),
        events,
    };
    let stored = store
        .append_batches(&[batch(1, vec![event(1), event(2)]), batch(2, vec![event(1)])])
        .await
        .expect("stored");
    assert_eq!(
        stored.iter().map(|it| it.stored).collect::<Vec<_>>(),
        [2, 1]
    );

    let broken = store
        .append_batches(&[batch(1, vec![event(3)]), batch(3, vec![event(u64::MAX)])])
        .await;
    assert!(
        matches!(
            broken,
            Err(StoreError::Malformed {
                noun: "event",
                column: "sequence"
            })
        ),
        "{broken:?}"
    );
    assert_eq!(
        store
            .count_events(&EventFilter::default())
            .await
            .expect("answered"),
        3
    );
}

pub(crate) async fn a_decky_is_named_while_its_topology_is_stored(store: Arc<dyn Store>) {
    let edge = enrolled(&store, 1, "edge").await;
    let maze = topology(1, "maze", 1);
    deployed(&store, &maze, edge).await;
    let of_decky = NewEvent {
        topology: maze.id,
        decky: maze.deckies[1].id,
        ..event(1)
    };
    store
        .append_events(edge, spool(1), vec![of_decky])
        .await
        .expect("stored");
    let name = || async {
        let page = EventPage::Newest { before: None };
        let rows = store
            .events(&EventFilter::default(), page, 1)
            .await
            .expect("answered");
        rows.into_iter().next().expect("the event stays").decky_name
    };
    assert_eq!(
        name().await.map(|name| name.to_string()),
        Some("decky-1".to_owned())
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
    assert_eq!(name().await, None);
}

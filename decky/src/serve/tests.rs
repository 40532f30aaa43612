use std::time::Duration;

use domain::event::{Payload, Severity};
use domain::service::ServiceKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Caps;
use crate::supervise::tests::World;

#[tokio::test]
async fn connections_over_the_cap_are_closed_counted_and_told() {
    let caps = Caps {
        per_source: 1,
        ..Caps::default()
    };
    let world = World::within(r#"{"redis":{}}"#, caps).await;
    let held = world.connect(ServiceKind::Redis).await;
    let mut rest = Vec::new();
    for _ in 0..5 {
        let mut refused = world.connect(ServiceKind::Redis).await;
        // The end may come as a reset.
        refused.read_to_end(&mut rest).await.ok();
    }
    assert!(rest.is_empty());
    let source = held.local_addr().expect("connected");
    let sightings = world.end().await;
    let count = |wanted: &Payload| {
        sightings
            .iter()
            .filter(|sighting| sighting.payload == *wanted)
            .count()
    };
    assert_eq!(count(&Payload::Connect), 1);
    let mut refused = 0;
    for sighting in &sightings {
        if let Payload::Lifecycle { state, count, .. } = &sighting.payload
            && state == "dropped"
        {
            assert_eq!(sighting.source.map(|source| source.ip()), Some(source.ip()));
            assert_eq!(sighting.service, Some(ServiceKind::Redis));
            assert_eq!(sighting.severity, Severity::Warning);
            refused += count;
        }
    }
    assert_eq!(refused, 5);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let caps = Caps {
        idle: Duration::from_millis(30),
        ..Caps::default()
    };
    let world = World::within(r#"{"redis":{}}"#, caps).await;
    let mut silent = world.connect(ServiceKind::Redis).await;
    let mut rest = Vec::new();
    silent
        .read_to_end(&mut rest)
        .await
        .expect("closed, not reset");
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_connection_that_lasts_too_long_is_closed_whatever_it_says() {
    let caps = Caps {
        lifetime: Duration::from_millis(30),
        ..Caps::default()
    };
    let world = World::within(r#"{"redis":{}}"#, caps).await;
    let mut busy = world.connect(ServiceKind::Redis).await;
    let mut reply = [0; 64];
    while busy.write_all(b"PING\r\n").await.is_ok() {
        if !matches!(busy.read(&mut reply).await, Ok(1..)) {
            break;
        }
    }
}

#[tokio::test]
async fn a_connection_that_sends_too_much_is_closed_and_told() {
    let caps = Caps {
        bytes: 1000,
        ..Caps::default()
    };
    let world = World::within(r#"{"redis":{}}"#, caps).await;
    let mut loud = world.connect(ServiceKind::Redis).await;
    loud.write_all(&[b'x'; 5000])
        .await
        .expect("the session lives");
    let mut rest = Vec::new();
    loud.read_to_end(&mut rest).await.ok();
    let sightings = world.end().await;
    assert!(sightings.iter().any(|sighting| matches!(&sighting.payload,
        Payload::Raw { reason } if reason == "more bytes than a connection may send")));
}

#[tokio::test]
async fn both_ends_of_a_connection_are_told_with_its_bytes() {
    let world = World::serving(r#"{"redis":{}}"#).await;
    let mut stream = world.connect(ServiceKind::Redis).await;
    let (source, destination) = (
        stream.local_addr().expect("connected"),
        stream.peer_addr().expect("connected"),
    );
    stream
        .write_all(b"PING\r\n")
        .await
        .expect("the session lives");
    let mut reply = [0; 7];
    stream
        .read_exact(&mut reply)
        .await
        .expect("the session lives");
    let sightings = world.end().await;
    let ends: Vec<_> = sightings
        .iter()
        .filter(|sighting| sighting.session.is_some())
        .collect();
    assert_eq!(
        ends.first().map(|sighting| &sighting.payload),
        Some(&Payload::Connect)
    );
    let last = ends.last().expect("a session has an end");
    assert!(matches!(
        last.payload,
        Payload::Disconnect {
            received: 6,
            sent: 7,
            ..
        }
    ));
    for sighting in &ends {
        assert_eq!(sighting.session, last.session);
        assert_eq!(sighting.source, Some(source));
        assert_eq!(sighting.destination, Some(destination));
        assert_eq!(sighting.service, Some(ServiceKind::Redis));
    }
}

#[tokio::test]
async fn a_session_begins_with_the_fingerprint_of_its_first_segment_once_for_each_source() {
    let world = World::serving(r#"{"redis":{},"ftp":{}}"#).await;
    for kind in [ServiceKind::Redis, ServiceKind::Ftp] {
        for _ in 0..3 {
            drop(world.connect(kind).await);
        }
    }
    let sightings = patience(&world, 2).await;
    assert_eq!(sightings.len(), 2, "one for each service: {sightings:?}");
    for sighting in sightings {
        let Payload::Fingerprint { value, .. } = &sighting.payload else {
            panic!("filtered");
        };
        // This machine's own kernel: its options, in its order, over the loopback interface.
        let text = value.text().expect("a signature is text");
        assert!(text.starts_with("4:64+0:0:65495:"), "{text}");
        assert!(text.ends_with(":mss,sok,ts,nop,ws:df,id+:0"), "{text}");
        assert!(sighting.session.is_some() && sighting.source.is_some());
    }
}

/// The fingerprints, when there are as many.
async fn patience(world: &World, wanted: usize) -> Vec<domain::event::Sighting> {
    let found = async {
        loop {
            let mut sightings = world.sightings().await;
            sightings.retain(|sighting| {
                matches!(&sighting.payload, Payload::Fingerprint { of, .. } if of == "tcp_syn")
            });
            if sightings.len() >= wanted {
                return sightings;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found)
        .await
        .expect("each connection has a fingerprint")
}

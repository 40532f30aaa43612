use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;
use crate::connector::{Connector, RefusedByMaster, Trust, refusal_of};
use crate::testkit::{
    DAY, LIMITS, Master, NOW, authority, eventually, host_id, host_identity, within,
};

/// Reads until the master says no; how it said so.
async fn refusal(mut stream: crate::connector::MasterStream) -> Option<RefusedByMaster> {
    let watch = stream.refusal();
    let error = within(stream.read_u8())
        .await
        .expect_err("nothing is ever sent");
    assert_eq!(refusal_of(&error), watch.get());
    watch.get()
}

fn aborted<T: std::fmt::Debug>(result: std::io::Result<T>) -> bool {
    result.expect_err("the connection was cut").kind() == std::io::ErrorKind::ConnectionAborted
}

async fn exchange(client: &mut crate::connector::MasterStream, server: &mut Connection) {
    client.write_all(b"ping").await.expect("connected");
    client.flush().await.expect("connected");
    let mut heard = [0; 4];
    within(server.read_exact(&mut heard))
        .await
        .expect("connected");
    server.write_all(b"pong").await.expect("connected");
    server.flush().await.expect("connected");
    within(client.read_exact(&mut heard))
        .await
        .expect("connected");
    assert_eq!(&heard, b"pong");
}

// Who is there.

#[tokio::test]
async fn a_host_is_who_its_certificate_says() {
    let mut master = Master::start().await;
    let identity = master.host(7);
    let (mut client, mut server) = master.pair(Some(&identity)).await;

    let expected = HostPeer {
        id: host_id(7),
        key: identity.key().fingerprint(),
        serial: identity.serial(),
        not_after: identity.not_after(),
        expired: false,
        standing: Standing::Allowed,
    };
    assert_eq!(server.peer().host, Some(expected));
    exchange(&mut client, &mut server).await;
}

#[tokio::test]
async fn a_stranger_connects_without_an_identity_and_not_for_long() {
    let mut master = Master::start().await;
    let (mut client, mut server) = master.pair(None).await;
    assert_eq!(server.peer().host, None);
    exchange(&mut client, &mut server).await;
    assert!(server.ends_at() <= Instant::now() + UNPROVEN_LIFE);
}

#[tokio::test]
async fn a_removed_host_connects_and_is_flagged() {
    let mut master = Master::start().await;
    master.gate.set(host_id(7), Standing::Removed);
    let identity = master.host(7);
    let (_client, server) = master.pair(Some(&identity)).await;
    assert_eq!(
        server.peer().host.as_ref().map(|host| host.standing),
        Some(Standing::Removed)
    );
}

#[tokio::test]
async fn a_master_certificate_is_refused_as_a_client() {
    let mut master = Master::start().await;
    let leaf = master.ca.issue_master(&[], DAY, NOW).expect("no names");
    let connector = Connector::with_client(master.trust(), Some((leaf.certificate, leaf.key)))
        .expect("key and certificate fit");
    let stream = connector
        .connect(&master.address)
        .await
        .expect("refused later");
    assert_eq!(refusal(stream).await, Some(RefusedByMaster::NotAccepted));
    assert!(master.nothing_accepted());
}

#[tokio::test]
async fn a_host_of_another_ca_is_refused() {
    let mut master = Master::start().await;
    let foreign = host_identity(&authority(), host_id(7), NOW);
    let stream = master.connect(Some(&foreign)).await;
    assert_eq!(
        refusal(stream).await,
        Some(RefusedByMaster::UnknownAuthority)
    );
    assert!(master.nothing_accepted());
}

// Expiry.

#[tokio::test]
async fn a_certificate_expired_for_less_than_30_days_is_flagged_and_may_stay_a_minute() {
    let mut master = Master::start().await;
    let identity = master.host(7);
    for late in [time::Duration::SECOND, RENEWABLE_AFTER_EXPIRY] {
        master.clock.set(identity.not_after() + late);
        let (_client, server) = master.pair(Some(&identity)).await;
        assert!(server.peer().host.as_ref().expect("a host").expired);
        assert!(server.ends_at() <= Instant::now() + UNPROVEN_LIFE);
    }
}

#[tokio::test]
async fn a_certificate_expired_for_more_than_30_days_is_refused() {
    let mut master = Master::start().await;
    let identity = master.host(7);
    master
        .clock
        .set(identity.not_after() + RENEWABLE_AFTER_EXPIRY + time::Duration::SECOND);
    let stream = master.connect(Some(&identity)).await;
    assert_eq!(refusal(stream).await, Some(RefusedByMaster::Expired));
    assert!(master.nothing_accepted());
}

#[tokio::test]
async fn a_certificate_from_the_future_is_refused() {
    let mut master = Master::start().await;
    let identity = host_identity(&master.ca, host_id(7), NOW + DAY);
    let stream = master.connect(Some(&identity)).await;
    assert_eq!(refusal(stream).await, Some(RefusedByMaster::Expired));
    assert!(master.nothing_accepted());
}

#[tokio::test]
async fn a_live_connection_ends_with_its_certificate() {
    let mut master = Master::start().await;
    let identity = master.host(7);
    master
        .clock
        .set(identity.not_after() - time::Duration::milliseconds(300));
    let (_client, mut server) = master.pair(Some(&identity)).await;

    assert!(aborted(within(server.read_u8()).await));
    assert!(aborted(server.write_all(b"late").await));
    assert!(aborted(server.flush().await));
}

// Revocation.

#[tokio::test]
async fn revoking_cuts_the_live_stream_at_once_and_refuses_to_reconnect() {
    /// Far below any time after which an idle connection would end by itself.
    const SOON: Duration = Duration::from_secs(5);

    let mut master = Master::start().await;
    let (revoked, other) = (master.host(7), master.host(8));
    let (mut client, mut server) = master.pair(Some(&revoked)).await;
    let (mut other_client, mut other_server) = master.pair(Some(&other)).await;
    exchange(&mut client, &mut server).await;
    let reading = async { (server.read_u8().await, server) };

    let began = Instant::now();
    master.gate.set(host_id(7), Standing::Refused);
    assert_eq!(master.connections.cut(host_id(7)), 1);
    let (read, mut server) = within(reading).await;

    assert!(aborted(read));
    assert!(aborted(server.write_all(b"more").await));
    assert!(began.elapsed() < SOON);
    drop(server);
    within(client.read_u8()).await.expect_err("cut");
    assert!(began.elapsed() < SOON);
    assert_eq!(master.connections.live(), 1);
    exchange(&mut other_client, &mut other_server).await;

    let again = master.connect(Some(&revoked)).await;
    assert_eq!(refusal(again).await, Some(RefusedByMaster::Revoked));
    assert!(master.nothing_accepted());
}

#[tokio::test]
async fn cutting_wakes_a_reader_and_a_writer_in_different_tasks() {
    let mut master = Master::start().await;
    let identity = master.host(7);
    let (client, server) = master.pair(Some(&identity)).await;
    let (mut reader, mut writer) = tokio::io::split(server);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { aborted(reader.read_u8().await) });
    // The client reads nothing, so that the writer blocks on a full socket.
    tasks.spawn(async move {
        loop {
            if let Err(error) = writer.write_all(&[0; 65536]).await {
                return aborted::<()>(Err(error));
            }
        }
    });
    // Until both wait: one for bytes, one for room.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    master.connections.cut(host_id(7));
    assert_eq!(within(tasks.join_all()).await, [true, true]);
    drop(client);
}

#[tokio::test]
async fn cutting_a_key_leaves_the_other_keys_of_the_host() {
    let mut master = Master::start().await;
    let (old, new) = (master.host(7), master.host(7));
    let (_old_client, mut old_server) = master.pair(Some(&old)).await;
    let (mut new_client, mut new_server) = master.pair(Some(&new)).await;

    assert_eq!(master.connections.cut_key(&old.key().fingerprint()), 1);

    assert!(aborted(within(old_server.read_u8()).await));
    exchange(&mut new_client, &mut new_server).await;
}

/// The revocation happens while question `number` is being answered with the old list.
async fn revoked_during_question(number: usize) -> Master {
    let master = Master::start().await;
    let (gate, connections) = (
        Arc::downgrade(&master.gate),
        Arc::clone(&master.connections),
    );
    master.gate.on_ask(move |asked| {
        if asked == number {
            gate.upgrade()
                .expect("asked")
                .set(host_id(7), Standing::Refused);
            connections.cut(host_id(7));
        }
    });
    master
}

#[tokio::test]
async fn a_revocation_between_the_handshake_and_its_second_look_is_not_missed() {
    let mut master = revoked_during_question(1).await;
    let identity = master.host(7);
    let mut client = master.connect(Some(&identity)).await;
    within(client.read_u8())
        .await
        .expect_err("refused at the second look");
    assert_eq!(master.gate.asked(), 2);
    assert!(master.nothing_accepted());
    assert_eq!(master.connections.live(), 0);
}

#[tokio::test]
async fn a_revocation_during_the_second_look_is_not_missed() {
    let mut master = revoked_during_question(2).await;
    let identity = master.host(7);
    let (_client, mut server) = master.pair(Some(&identity)).await;
    // It got through with the old answer, but it was registered before it asked.
    assert!(aborted(within(server.read_u8()).await));
}

#[tokio::test]
async fn a_connection_is_registered_before_its_second_look() {
    let mut master = Master::start().await;
    let live = Arc::new(AtomicUsize::new(usize::MAX));
    let (seen, connections) = (Arc::clone(&live), Arc::clone(&master.connections));
    master.gate.on_ask(move |number| {
        if number == 2 {
            seen.store(connections.live(), Ordering::SeqCst);
        }
    });
    let identity = master.host(7);
    let _pair = master.pair(Some(&identity)).await;
    assert_eq!(live.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn every_reconnect_is_looked_at_anew() {
    let mut master = Master::start().await;
    let identity = master.host(7);
    let connector = master.connector(Some(&identity)).that_resumes();
    for times in 1..=3 {
        let mut client = connector.connect(&master.address).await.expect("listening");
        let mut server = master.accepted().await;
        // A ticket, if there were one, would come with the first bytes.
        exchange(&mut client, &mut server).await;
        // Once in the handshake and once after it; a resumed session would skip the first.
        assert_eq!(master.gate.asked(), 2 * times);
    }
}

#[tokio::test]
async fn a_dropped_connection_leaves_the_registry() {
    let mut master = Master::start().await;
    let pair = master.pair(None).await;
    assert_eq!(master.connections.live(), 1);
    drop(pair);
    assert_eq!(master.connections.live(), 0);
}

// Reload.

#[tokio::test]
async fn leaf_and_roots_are_replaced_without_a_restart() {
    let mut master = Master::start().await;
    let next = authority();
    let (old_host, new_host) = (master.host(7), host_identity(&next, host_id(8), NOW));
    let (mut live_client, mut live_server) = master.pair(Some(&old_host)).await;
    let trust = Trust::Bundle {
        bundle: next.bundle(),
        clock: master.clock.clock(),
        skew: time::Duration::ZERO,
    };
    let connector = Connector::new(trust, Some(&new_host)).expect("sound identity");
    let refused = connector
        .connect(&master.address)
        .await
        .expect_err("the old CA's leaf");
    assert!(
        matches!(refused, crate::connector::ConnectError::Untrusted { .. }),
        "{refused:?}"
    );

    let both = master
        .ca
        .bundle()
        .merged(&next.bundle())
        .expect("two roots");
    let leaf = next.issue_master(&[], DAY, NOW).expect("no names");
    master.tls.swap(leaf, &both).expect("sound");

    let mut client = connector
        .connect(&master.address)
        .await
        .expect("the new CA's leaf");
    let mut server = master.accepted().await;
    assert_eq!(
        server.peer().host.as_ref().map(|host| host.id),
        Some(host_id(8))
    );
    exchange(&mut client, &mut server).await;
    exchange(&mut live_client, &mut live_server).await;
}

#[tokio::test]
async fn a_root_that_was_taken_out_is_trusted_no_more() {
    let mut master = Master::start().await;
    let next = authority();
    let identity = master.host(7);
    let leaf = master.ca.issue_master(&[], DAY, NOW).expect("no names");
    master.tls.swap(leaf, &next.bundle()).expect("sound");
    let stream = master.connect(Some(&identity)).await;
    assert_eq!(
        refusal(stream).await,
        Some(RefusedByMaster::UnknownAuthority)
    );
    assert!(master.nothing_accepted());
}

// Rude peers.

#[tokio::test]
async fn a_silent_client_is_dropped_when_its_time_is_up() {
    let limits = AcceptLimits {
        handshake: Duration::from_millis(200),
        ..LIMITS
    };
    let master = Master::start_with(limits).await;
    let target = (master.address.host(), master.address.port());
    let mut silent = TcpStream::connect(target).await.expect("listening");
    let mut left = Vec::new();
    within(silent.read_to_end(&mut left))
        .await
        .expect("closed, not reset");
    assert_eq!(left, b"");
}

#[tokio::test]
async fn garbage_is_dropped_and_the_next_peer_is_served() {
    let mut master = Master::start().await;
    let target = (master.address.host().to_owned(), master.address.port());
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 4096],
        &[0x16, 3, 1, 0xff, 0xff],
    ] {
        let mut rude = TcpStream::connect(target.clone()).await.expect("listening");
        rude.write_all(garbage).await.expect("not closed yet");
        rude.shutdown().await.expect("not closed yet");
        // A reset or an end: gone in any case.
        drop(within(rude.read_to_end(&mut Vec::new())).await);
    }
    master.pair(None).await;
}

#[tokio::test]
async fn strangers_have_no_more_than_their_places() {
    let mut master = Master::start_with(AcceptLimits {
        unauthenticated: 1,
        ..LIMITS
    })
    .await;
    // Each host gives the place back as soon as it is known.
    let hosts: Vec<_> = (1..4).map(|number| master.host(number)).collect();
    let mut live = Vec::new();
    for identity in &hosts {
        live.push(master.pair(Some(identity)).await);
    }
    let stranger = master.pair(None).await;

    let crowded = master
        .connector(None)
        .connect(&master.address)
        .await
        .expect_err("no place");
    assert!(
        matches!(crowded, crate::connector::ConnectError::Closed { .. }),
        "{crowded:?}"
    );

    drop(stranger);
    master.pair(None).await;
}

#[tokio::test]
async fn no_more_connections_than_allowed_are_live() {
    let mut master = Master::start_with(AcceptLimits {
        connections: 1,
        ..LIMITS
    })
    .await;
    let identity = master.host(7);
    let first = master.pair(Some(&identity)).await;
    let crowded = master
        .connector(Some(&identity))
        .connect(&master.address)
        .await
        .expect_err("no place");
    assert!(
        matches!(crowded, crate::connector::ConnectError::Closed { .. }),
        "{crowded:?}"
    );
    drop(first);
    master.pair(Some(&identity)).await;
}

#[tokio::test]
async fn shutdown_ends_the_stream_and_closes_the_port() {
    let mut master = Master::start().await;
    master.shutdown.cancel();
    assert!(master.accepted_or_end().await.is_none());
    let address = master.address.clone();
    let port = (address.host(), address.port());
    eventually("the port is closed", || {
        std::net::TcpStream::connect(port).is_err()
    })
    .await;
}

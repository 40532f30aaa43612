use std::os::unix::fs::PermissionsExt;

use pki::connector::RefusedMaster;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;
use crate::link::scripted::{Answer, Control, Master, clock, now, within};

fn fresh() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

fn request(data: &Path, master: &MasterAddress, token: JoinToken) -> Join {
    Join {
        master: master.clone(),
        token,
        name: None,
        data: data.to_owned(),
        clock: clock(),
    }
}

/// Joins while the master welcomes whoever opens a control stream.
async fn try_join(master: &mut Master, request: Join) -> (Vec<Step>, Result<(), JoinError>) {
    let mut steps = Vec::new();
    let mut told = |step| steps.push(step);
    let mut joining = Box::pin(join(request, &mut told));
    let mut welcomed: Vec<Control> = Vec::new();
    let result = loop {
        tokio::select! {
            result = &mut joining => break result,
            control = master.welcomed(10_000) => welcomed.push(control),
        }
    };
    drop(joining);
    (steps, result)
}

#[tokio::test]
async fn joining_ends_with_an_identity_and_a_proven_connection() {
    let mut master = Master::start().await;
    let directory = fresh();
    let token = master.token(1);
    let request = request(directory.path(), &master.address, token);
    let (steps, result) = try_join(&mut master, request).await;
    result.expect("a good token");
    let said: Vec<_> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "✓ master matches the pin",
            "✓ key made here",
            "✓ certificate valid 24 h",
            "✓ connected: edge-07 is ready",
        ]
    );
    let credentials = Credentials::load(directory.path(), clock()).expect("joined");
    assert_eq!(credentials.membership().masters, [master.address.clone()]);
    assert!(!directory.path().join(PENDING_FILE).exists());
}

#[tokio::test]
async fn a_host_in_1970_joins_and_knows_the_masters_time_afterwards() {
    let mut master = Master::start().await;
    let directory = fresh();
    let token = master.token(1);
    let mut request = request(directory.path(), &master.address, token);
    request.clock = Arc::new(|| OffsetDateTime::UNIX_EPOCH + time::Duration::hours(1));
    let (steps, result) = try_join(&mut master, request).await;
    result.expect("no clock is needed");
    assert_eq!(steps[2], Step::Certified { hours: 24 });
    let skew = Membership::load(directory.path())
        .expect("readable")
        .expect("joined")
        .skew;
    assert!((now() - OffsetDateTime::UNIX_EPOCH - skew).whole_hours() <= 1);
}

#[tokio::test]
async fn a_wrong_pin_sends_nothing() {
    let mut master = Master::start().await;
    let other = Master::start().await;
    let directory = fresh();
    let request = request(directory.path(), &master.address, other.token(1));
    let (steps, result) = try_join(&mut master, request).await;
    let error = result.expect_err("another master's token");
    assert!(
        matches!(
            &error,
            JoinError::Connect {
                source: ConnectError::WrongPin {
                    source: RefusedMaster::WrongPin { .. },
                    ..
                }
            }
        ),
        "{error:?}"
    );
    assert!(
        error.next_step().contains("Nothing was sent"),
        "{}",
        error.next_step()
    );
    assert_eq!(steps, []);
    assert!(master.joins().is_empty());
    assert!(
        !directory.path().join(PENDING_FILE).exists(),
        "not even a key was made"
    );
}

#[tokio::test]
async fn a_lost_reply_is_repeatable_with_the_same_key() {
    let mut master = Master::start().await;
    master.answer([Answer::Lost]);
    let directory = fresh();
    let token = master.token(1);
    let lost = request(directory.path(), &master.address, token.clone());
    let (_, result) = try_join(&mut master, lost).await;
    let error = result.expect_err("the reply is lost");
    assert!(
        matches!(
            &error,
            JoinError::Redeem {
                source: RedeemError::Failed { .. }
            }
        ),
        "{error:?}"
    );
    let pending = directory.path().join(PENDING_FILE);
    let mode = fs::metadata(&pending).expect("kept").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let again = request(directory.path(), &master.address, token);
    let (_, result) = try_join(&mut master, again).await;
    result.expect("the same command again");
    let joins = master.joins();
    assert_eq!(public_key(&joins[0].csr), public_key(&joins[1].csr));
    assert!(!pending.exists());
}

/// P-256 signatures are random, so two requests of one key differ; their keys do not. The key's
/// uncompressed point follows its 65-byte BIT STRING header.
fn public_key(csr: &[u8]) -> &[u8] {
    let header = [0x03, 0x42, 0x00, 0x04];
    let at = csr
        .windows(4)
        .position(|window| window == header)
        .expect("a P-256 key");
    &csr[at + 4..at + 68]
}

#[tokio::test]
async fn another_token_gets_another_key() {
    let mut master = Master::start().await;
    master.answer([Answer::Refused]);
    let directory = fresh();
    let token = master.token(1);
    let used = request(directory.path(), &master.address, token);
    let (steps, result) = try_join(&mut master, used).await;
    let error = result.expect_err("refused");
    assert_eq!(
        crate::chain::Chain(&error).to_string(),
        "could not redeem the token: token not accepted"
    );
    assert!(
        error.next_step().starts_with("Ask for a new one"),
        "{}",
        error.next_step()
    );
    assert_eq!(steps, [Step::Pinned, Step::KeyMade]);

    let token = master.token(2);
    let fresh_token = request(directory.path(), &master.address, token);
    let (_, result) = try_join(&mut master, fresh_token).await;
    result.expect("a good token");
    let joins = master.joins();
    assert_ne!(public_key(&joins[0].csr), public_key(&joins[1].csr));
}

#[tokio::test]
async fn a_host_that_has_joined_has_nothing_to_do() {
    let mut master = Master::start().await;
    let directory = fresh();
    let token = master.token(1);
    let first = request(directory.path(), &master.address, token.clone());
    try_join(&mut master, first).await.1.expect("a good token");
    let already = || {
        vec![Step::AlreadyJoined {
            host: HostName::parse("edge-07").expect("a name"),
        }]
    };

    let same = request(directory.path(), &master.address, token);
    let (steps, result) = try_join(&mut master, same).await;
    result.expect("nothing to do");
    assert_eq!(steps, already());

    // Another token of the same master, which lets the host in as it is.
    let superfluous = request(directory.path(), &master.address, master.token(2));
    let (steps, result) = try_join(&mut master, superfluous).await;
    result.expect("nothing to do");
    assert_eq!(steps, already());

    // While an agent runs there, too.
    let _agent = DataDir::lock(directory.path()).expect("free");
    let running = request(directory.path(), &master.address, master.token(3));
    let (steps, result) = try_join(&mut master, running).await;
    result.expect("nothing to do");
    assert_eq!(steps, already());
    assert_eq!(master.joins().len(), 1);

    let other = Master::start().await;
    let elsewhere = request(directory.path(), &other.address, other.token(1));
    let error = try_join(&mut master, elsewhere)
        .await
        .1
        .expect_err("another master");
    assert!(
        matches!(&error, JoinError::OtherMaster { master: Some(at) } if *at == master.address),
        "{error:?}"
    );
    assert!(
        error.next_step().contains("decnet-agent leave"),
        "{}",
        error.next_step()
    );
}

#[tokio::test]
async fn a_revoked_host_comes_back_with_a_new_token() {
    let mut master = Master::start().await;
    let directory = fresh();
    let token = master.token(1);
    let first = request(directory.path(), &master.address, token);
    try_join(&mut master, first).await.1.expect("a good token");
    master.revoke();

    // The scripted master refuses the new certificate too: what counts is that it was asked for one.
    let back = request(directory.path(), &master.address, master.token(2));
    let (steps, result) = try_join(&mut master, back).await;
    let error = result.expect_err("still revoked");
    assert!(
        matches!(
            &error,
            JoinError::Prove {
                source: LinkError::Refused { .. },
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(steps.len(), 3);
    assert_eq!(master.joins().len(), 2);
}

#[tokio::test]
async fn whatever_listens_on_the_port_gets_its_name() {
    let directory = fresh();
    let master = Master::start().await;
    let join_at = async |address: &str| {
        let address = address.parse().expect("an address");
        let request = request(directory.path(), &address, master.token(1));
        match join(request, &mut |step| panic!("{step}")).await {
            Err(JoinError::Connect { source }) => source,
            other => panic!("{other:?}"),
        }
    };

    let closed = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = closed.local_addr().expect("bound").to_string();
    drop(closed);
    let error = join_at(&address).await;
    assert!(
        matches!(error, ConnectError::PortClosed { .. }),
        "{error:?}"
    );

    let plain = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = plain.local_addr().expect("bound").to_string();
    let web_server = async {
        let (mut peer, _) = plain.accept().await.expect("a peer");
        let mut hello = [0; 1024];
        peer.read_exact(&mut hello[..5]).await.expect("a hello");
        tokio::io::AsyncWriteExt::write_all(&mut peer, b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .expect("a peer that listens");
        // Closed with unread bytes it would be reset before the answer is read.
        while peer.read(&mut hello).await.is_ok_and(|read| read > 0) {}
    };
    let (error, ()) = within("an answer", async {
        tokio::join!(join_at(&address), web_server)
    })
    .await;
    assert!(matches!(error, ConnectError::NotTls { .. }), "{error:?}");

    let error = join_at("no-such-host.invalid:7443").await;
    // A resolver that nobody answers says so no sooner than it is waited for.
    let unresolved = matches!(
        error,
        ConnectError::Resolve { .. }
            | ConnectError::Timeout {
                during: "name lookup",
                ..
            }
    );
    assert!(unresolved, "{error:?}");
}

#[test]
fn every_kind_of_bad_token_has_its_next_step() {
    for (text, next) in [
        ("hello", "Copy the whole token"),
        ("dcn1_tooshort", "Copy the whole token"),
        ("dcn9_abc", "Install the decnet-agent"),
    ] {
        let error = JoinToken::parse(text).expect_err(text);
        assert!(token_next_step(error).starts_with(next), "{error}");
    }
}

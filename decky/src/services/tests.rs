use std::sync::Arc;

use domain::event::{AuthMethod, AuthOutcome, Evidence, Payload, Sighting};
use russh::client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::supervise::tests::World;

fn evidence(text: &str) -> Evidence {
    Evidence::from(text)
}

fn auth(method: AuthMethod, user: &str, secret: &str, outcome: AuthOutcome) -> Payload {
    Payload::Auth {
        method,
        username: evidence(user),
        secret: evidence(secret),
        outcome,
    }
}

fn command(line: &str) -> Payload {
    Payload::Command {
        line: evidence(line),
    }
}

fn has(sightings: &[Sighting], payload: &Payload) -> bool {
    sightings
        .iter()
        .any(|sighting| sighting.payload == *payload)
}

/// Sends and reads until `expected` came.
async fn talk(stream: &mut TcpStream, send: &[u8], expected: &str) -> String {
    stream.write_all(send).await.expect("the session lives");
    let mut seen = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if text.contains(expected) {
            return text;
        }
        let read = stream.read(&mut chunk).await.expect("the session lives");
        assert!(read > 0, "ended before {expected:?}: {text:?}");
        seen.extend_from_slice(&chunk[..read]);
    }
}

struct Client;

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

#[tokio::test]
async fn ssh_takes_passwords_and_runs_a_command() {
    let world = World::serving(r#"{"ssh":{"accept_after":2}}"#).await;
    let address = world.address(ServiceKind::Ssh);
    let mut client = client::connect(Arc::default(), address, Client)
        .await
        .expect("SSH answers");
    let key = russh::keys::PrivateKey::from(
        russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&[3; 32]),
    );
    let public = key
        .public_key()
        .to_openssh()
        .expect("a key has a text form");
    let with_key = russh::keys::PrivateKeyWithHashAlg::new(Arc::new(key), None);
    let offered = client
        .authenticate_publickey("root", with_key)
        .await
        .expect("it is answered");
    assert!(!offered.success());
    for (password, accepted) in [("näh \"no\"", false), ("hunter2", true)] {
        let result = client
            .authenticate_password("root", password)
            .await
            .expect("it is answered");
        assert_eq!(result.success(), accepted, "{password}");
    }
    let mut channel = client
        .channel_open_session()
        .await
        .expect("a channel is granted");
    channel
        .exec(true, "id -un; no-such-command")
        .await
        .expect("it is run");
    let (mut out, mut errors, mut status) = (Vec::new(), Vec::new(), None);
    while let Some(message) = channel.wait().await {
        if let russh::ChannelMsg::Data { data } = &message {
            out.extend_from_slice(data);
        } else if let russh::ChannelMsg::ExtendedData { data, .. } = &message {
            errors.extend_from_slice(data);
        } else if let russh::ChannelMsg::ExitStatus { exit_status } = message {
            status = Some(exit_status);
        }
    }
    assert_eq!(String::from_utf8_lossy(&out), "root\n");
    assert!(String::from_utf8_lossy(&errors).ends_with("no-such-command: command not found\n"));
    assert_eq!(status, Some(127));
    let forward = client
        .channel_open_direct_tcpip("10.0.0.9", 445, "127.0.0.1", 1)
        .await;
    assert!(matches!(forward, Err(russh::Error::ChannelOpenFailure(_))));

    let sightings = world.end().await;
    for payload in [
        auth(
            AuthMethod::PublicKey,
            "root",
            &public,
            AuthOutcome::Rejected,
        ),
        auth(
            AuthMethod::Password,
            "root",
            "näh \"no\"",
            AuthOutcome::Rejected,
        ),
        auth(
            AuthMethod::Password,
            "root",
            "hunter2",
            AuthOutcome::Accepted,
        ),
        command("id -un; no-such-command"),
        command("direct-tcpip 10.0.0.9:445"),
    ] {
        assert!(has(&sightings, &payload), "{payload:?}");
    }
    let measured = |wanted: &str| {
        sightings
            .iter()
            .filter(|sighting| {
                matches!(&sighting.payload,
            Payload::Fingerprint { of, value } if of == wanted && !value.bytes().is_empty())
            })
            .count()
    };
    assert_eq!((measured("ssh_client"), measured("hassh")), (1, 1));
}

#[tokio::test]
async fn ssh_answers_one_message_within_a_bound_however_large_the_window() {
    let world = World::serving(r#"{"ssh":{"accept_after":1}}"#).await;
    let config = client::Config {
        window_size: 1 << 30,
        ..client::Config::default()
    };
    let mut client = client::connect(Arc::new(config), world.address(ServiceKind::Ssh), Client)
        .await
        .expect("SSH answers");
    let result = client.authenticate_password("root", "x").await;
    assert!(result.expect("it is answered").success());
    let channel = client.channel_open_session().await;
    let mut channel = channel.expect("a channel is granted");
    let pty = channel.request_pty(false, "xterm", 80, 24, 0, 0, &[]).await;
    pty.expect("it is asked for");
    channel.request_shell(false).await.expect("it is asked for");

    let long = format!("cd /tmp; A={}\r", "x".repeat(4000));
    let file = format!("echo {}> f\r", "$A ".repeat(16));
    let mut received = Vec::new();
    for (message, most) in [
        (long.into_bytes(), 16 * 1024),
        // Up twice and down twice: draws the long line and rubs it out again.
        (b"\x1b[A\x1b[A\x1b[B\x1b[B".repeat(600), 600 * 1024),
        (file.into_bytes(), 16 * 1024),
        (b"cat f\r".repeat(60), 600 * 1024),
    ] {
        let begin = String::from_utf8_lossy(&message[..6]).into_owned();
        // As one message, whatever its length.
        channel
            .data_bytes(message)
            .await
            .expect("the session lives");
        // The end of the answer: what is typed does not look like what is printed.
        channel
            .data(&b"echo do''ne\r"[..])
            .await
            .expect("the session lives");
        received.clear();
        while !received.ends_with(b"\ndone\r\n") {
            let next = channel.wait().await.expect("the session lives");
            if let russh::ChannelMsg::Data { data } = next {
                received.extend_from_slice(&data);
                // The prompt that follows may come with it.
                if let Some(at) = data.windows(7).position(|seen| seen == b"\ndone\r\n") {
                    received.truncate(received.len() - data.len() + at + 7);
                }
            }
        }
        assert!(received.len() < most, "{begin:?}: {}", received.len());
    }
}

#[tokio::test]
async fn ssh_answers_what_is_no_ssh_as_openssh_does_and_keeps_it() {
    let world = World::serving(r#"{"ssh":{"banner":"OpenSSH_9.9p9 Test"}}"#).await;
    let mut stream = world.connect(ServiceKind::Ssh).await;
    let text = talk(&mut stream, b"GET / HTTP/1.0\r\n\r\n", "string.\r\n").await;
    assert_eq!(
        text,
        "SSH-2.0-OpenSSH_9.9p9 Test\r\nInvalid SSH identification string.\r\n"
    );
    let sightings = world.end().await;
    assert!(
        sightings
            .iter()
            .any(|sighting| sighting.raw == Some(evidence("GET / HTTP/1.0")))
    );
}

#[tokio::test]
async fn telnet_takes_a_login_and_gives_the_shell() {
    let world = World::serving(r#"{"telnet":{"accept_after":1,"banner":"hello"}}"#).await;
    let mut stream = world.connect(ServiceKind::Telnet).await;
    talk(&mut stream, b"\xff\xfb\x18", "web-7 login: ").await;
    talk(
        &mut stream,
        b"\xff\xfa\x18\0VT100\xff\xf0root\r\n",
        "Password: ",
    )
    .await;
    let screen = talk(&mut stream, b"s3cret\r\n", "~# ").await;
    assert!(!screen.contains("s3cret"), "a password is not shown");
    talk(&mut stream, b"whoami\r\n", "whoami\r\nroot\r\n").await;
    talk(&mut stream, b"exit\r\n", "logout\r\n").await;
    let sightings = world.end().await;
    for payload in [
        auth(
            AuthMethod::Password,
            "root",
            "s3cret",
            AuthOutcome::Accepted,
        ),
        command("whoami"),
        command("exit"),
        Payload::Fingerprint {
            of: "telnet_terminal".to_owned(),
            value: evidence("VT100"),
        },
    ] {
        assert!(has(&sightings, &payload), "{payload:?}");
    }
}

#[tokio::test]
async fn http_tells_each_request_with_its_fields_and_credentials() {
    let world =
        World::serving(r#"{"http":{"server":"Apache/2.4.62 (Debian)","title":"A <b>"}}"#).await;
    let mut stream = world.connect(ServiceKind::Http).await;
    let page = talk(
        &mut stream,
        b"GET /?q=1 HTTP/1.1\r\nHOST: x\r\nx-Odd:  y\r\n\r\n",
        "</html>",
    )
    .await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\nDate: "), "{page}");
    assert!(page.contains("<title>A &lt;b&gt;</title>"));
    let missing = talk(&mut stream, b"GET /nope HTTP/1.1\r\n\r\n", "</html>").await;
    assert!(missing.starts_with("HTTP/1.1 404 Not Found\r\n"));
    assert!(missing.contains("<address>Apache/2.4.62 (Debian) Server at web-7 Port 80</address>"));
    let basic = b"GET /admin HTTP/1.1\r\nAuthorization: Basic YWRtaW46YTpi\r\n\r\n";
    assert!(
        talk(&mut stream, basic, "</html>")
            .await
            .contains("WWW-Authenticate: Basic realm=")
    );
    let form = b"POST /login HTTP/1.1\r\nContent-Length: 23\r\n\r\nusername=bob&password=x";
    talk(&mut stream, form, "Invalid username or password").await;
    let mut chunked = world.connect(ServiceKind::Http).await;
    let request = b"POST /login HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nuser=a\r\n7\r\n&pass=b\r\n0\r\n\r\n";
    talk(&mut chunked, request, "Invalid username or password").await;
    let mut broken = world.connect(ServiceKind::Http).await;
    talk(&mut broken, b"\x16\x03\x01\n", "400 Bad Request").await;

    let sightings = world.end().await;
    let request = |method: &str, target: &str, headers: &[(&str, &str)], body: &str, status| {
        Payload::Request {
            method: evidence(method),
            target: evidence(target),
            headers: headers
                .iter()
                .map(|(name, value)| (evidence(name), evidence(value)))
                .collect(),
            body: evidence(body),
            status,
        }
    };
    for payload in [
        request("GET", "/?q=1", &[("HOST", "x"), ("x-Odd", "y")], "", 200),
        request("GET", "/nope", &[], "", 404),
        request(
            "POST",
            "/login",
            &[("Content-Length", "23")],
            "username=bob&password=x",
            200,
        ),
        auth(AuthMethod::Basic, "admin", "a:b", AuthOutcome::Rejected),
        auth(AuthMethod::Form, "bob", "x", AuthOutcome::Rejected),
        auth(AuthMethod::Form, "a", "b", AuthOutcome::Rejected),
        Payload::Raw {
            reason: "no HTTP request line".to_owned(),
        },
    ] {
        assert!(has(&sightings, &payload), "{payload:?}");
    }
}

#[tokio::test]
async fn ftp_takes_logins_and_an_upload_and_connects_to_nobody_else() {
    let world = World::serving(r#"{"ftp":{"anonymous":true,"banner":"(vsFTPd 3.0.3)"}}"#).await;
    let mut stream = world.connect(ServiceKind::Ftp).await;
    talk(&mut stream, b"", "220 (vsFTPd 3.0.3)\r\n").await;
    talk(&mut stream, b"LIST\r\n", "530 Please login").await;
    talk(&mut stream, b"USER anonymous\r\n", "331 ").await;
    talk(&mut stream, b"PASS me@here\r\n", "230 ").await;
    talk(
        &mut stream,
        b"PORT 10,9,8,7,200,1\r\n",
        "500 Illegal PORT command.",
    )
    .await;
    talk(
        &mut stream,
        b"EPRT |1|127.0.0.1|22|\r\n",
        "500 Illegal EPRT command.",
    )
    .await;
    talk(&mut stream, b"NONSENSE\r\n", "500 Unknown command.").await;
    let passive = talk(&mut stream, b"EPSV\r\n", "|)\r\n").await;
    let port: u16 = passive
        .split('|')
        .nth(3)
        .and_then(|port| port.parse().ok())
        .expect("a port");
    stream
        .write_all(b"STOR x.bin\r\n")
        .await
        .expect("the session lives");
    let mut data = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("it listens");
    data.write_all(b"abc").await.expect("it is taken");
    drop(data);
    talk(&mut stream, b"", "226 Transfer complete.").await;
    talk(&mut stream, b"QUIT\r\n", "221 ").await;
    let sightings = world.end().await;
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for payload in [
        auth(
            AuthMethod::Password,
            "anonymous",
            "me@here",
            AuthOutcome::Accepted,
        ),
        command("PORT 10,9,8,7,200,1"),
        command(&format!("upload x.bin size=3 sha256={digest}")),
    ] {
        assert!(has(&sightings, &payload), "{payload:?}");
    }
    assert!(!has(&sightings, &command("PASS me@here")));
}

#[tokio::test]
async fn redis_keeps_what_is_written_and_tells_each_command() {
    let world = World::serving(r#"{"redis":{"requirepass":"letmein"}}"#).await;
    let mut stream = world.connect(ServiceKind::Redis).await;
    talk(
        &mut stream,
        b"GET a\r\n",
        "-NOAUTH Authentication required.\r\n",
    )
    .await;
    talk(&mut stream, b"AUTH wrong\r\n", "-").await;
    talk(
        &mut stream,
        b"*2\r\n$4\r\nAUTH\r\n$7\r\nletmein\r\n",
        "+OK\r\n",
    )
    .await;
    talk(
        &mut stream,
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\nb\r\nc\r\n",
        "+OK\r\n",
    )
    .await;
    let mut second = world.connect(ServiceKind::Redis).await;
    talk(
        &mut second,
        b"AUTH letmein\r\nGET a\r\n",
        "$4\r\nb\r\nc\r\n",
    )
    .await;
    talk(
        &mut second,
        b"CONFIG SET dir /root/.ssh\r\nCONFIG GET dir\r\n",
        "/root/.ssh\r\n",
    )
    .await;
    talk(
        &mut second,
        b"*1\r\n$99999999\r\n",
        "-ERR Protocol error: invalid bulk length\r\n",
    )
    .await;
    let sightings = world.end().await;
    for payload in [
        auth(
            AuthMethod::Password,
            "default",
            "wrong",
            AuthOutcome::Rejected,
        ),
        auth(
            AuthMethod::Password,
            "default",
            "letmein",
            AuthOutcome::Accepted,
        ),
        command(r#""SET" "a" "b\r\nc""#),
        command(r#""CONFIG" "SET" "dir" "/root/.ssh""#),
        Payload::Raw {
            reason: "invalid bulk length".to_owned(),
        },
    ] {
        assert!(has(&sightings, &payload), "{payload:?}");
    }
}

#[test]
fn only_names_that_a_machine_could_have_are_let_in() {
    assert!(lets_in(b"root", 2, 2));
    assert!(!lets_in(b"root", 1, 2));
    assert!(!lets_in(b"root", 9, 0));
    for name in [
        &b""[..],
        b"-x",
        b"a b",
        b"a\n",
        b"a/../b",
        b"\xff",
        &[b'a'; 40],
    ] {
        assert!(!lets_in(name, 9, 1), "{name:?}");
    }
}

#[test]
fn exactly_the_services_that_the_catalogue_calls_implemented_can_be_built() {
    let facts = Arc::new(crate::persona::tests::facts(7));
    for kind in ServiceKind::ALL.iter().copied() {
        let built = build(kind, &ServiceOptions::default(), &facts);
        assert_eq!(built.is_ok(), kind.is_implemented(), "{kind}");
    }
}

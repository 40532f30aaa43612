//! Against a server that says what a test wants, and keeps what it was asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const TOKEN: &str = "dna_secret";

/// Answers one connection after another with these bytes; gives what each was asked.
fn server(answers: Vec<String>) -> (Url, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (asked, received) = channel();
    std::thread::spawn(move || {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else {
                return;
            };
            let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).unwrap_or(0) == 0 {
                    break;
                }
            }
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_lowercase()
                        .strip_prefix("content-length:")?
                        .trim()
                        .parse()
                        .ok()
                })
                .unwrap_or(0_usize);
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok();
            asked.send(head + &String::from_utf8_lossy(&body)).ok();
            stream.write_all(answer.as_bytes()).ok();
        }
    });
    (
        format!("http://{address}").parse().expect("a URL"),
        received,
    )
}

fn answer(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn client(base: &Url) -> Client {
    Client::new(base.clone(), TOKEN).expect("loopback")
}

fn event(row: i64) -> String {
    serde_json::to_string(&EventShape {
        id: "e".to_owned(),
        row,
        host: "h".to_owned(),
        topology: "t".to_owned(),
        decky: "d".to_owned(),
        decky_name: None,
        service: None,
        kind: "connect".to_owned(),
        severity: "info".to_owned(),
        at: "2026-01-01T00:00:00Z".to_owned(),
        received_at: "2026-01-01T00:00:00Z".to_owned(),
        session: None,
        source: None,
        destination: None,
        data: serde_json::json!({ "kind": "connect" }),
        raw: None,
        spool: "s".to_owned(),
        sequence: 1,
    })
    .expect("plain")
}

#[test]
fn a_token_travels_over_tls_or_inside_this_machine() {
    for good in [
        "http://127.0.0.1:1",
        "http://localhost:1",
        "http://[::1]:1",
        "https://10.0.0.5",
    ] {
        assert!(
            Client::new(good.parse().expect("a URL"), TOKEN).is_ok(),
            "{good}"
        );
    }
    let of = |url: &str, token| Client::new(url.parse().expect("a URL"), token).map(drop);
    assert!(matches!(
        of("http://10.0.0.5:1", TOKEN),
        Err(InvalidEndpoint::Plain { .. })
    ));
    assert!(matches!(
        of("ftp://127.0.0.1", TOKEN),
        Err(InvalidEndpoint::Scheme { .. })
    ));
    assert!(matches!(
        of("http://127.0.0.1:1", "a\nb"),
        Err(InvalidEndpoint::Token)
    ));
}

#[test]
fn the_token_is_not_in_a_debug_print() {
    let client = client(&"http://127.0.0.1:1".parse().expect("a URL"));
    assert!(!format!("{client:?}").contains(TOKEN));
}

#[tokio::test]
async fn a_request_carries_token_path_and_body() {
    let body = r#"{"findings":[]}"#;
    let (base, asked) = server(vec![answer("200 OK", "application/json", body)]);
    let file = TopologyFile {
        name: "office".to_owned(),
        lans: Vec::new(),
        deckies: Vec::new(),
    };
    let findings = client(&base).validate(&file).await.expect("an answer");
    assert_eq!(findings.findings, []);
    let asked = asked.recv().expect("it was asked");
    assert!(
        asked.starts_with("POST /api/v1/topologies/validate HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(
        asked.contains("authorization: Bearer dna_secret\r\n"),
        "{asked}"
    );
    assert!(asked.contains(r#""name":"office""#), "{asked}");
}

#[tokio::test]
async fn an_id_never_becomes_more_of_a_path() {
    let (base, asked) = server(vec![answer("204 No Content", "text/plain", "")]);
    client(&base)
        .remove_topology("a/../../hosts?x=1")
        .await
        .expect("an answer");
    let asked = asked.recv().expect("it was asked");
    assert!(
        asked.starts_with("DELETE /api/v1/topologies/a%2F..%2F..%2Fhosts%3Fx=1 "),
        "{asked}"
    );
}

#[tokio::test]
async fn every_page_of_a_list_is_read() {
    let token = |id: &str| {
        format!(r#"{{"id":"{id}","name":"n","created_at":"","expires_at":"","creator":"c"}}"#)
    };
    let page = |items: &str, next: &str| {
        answer(
            "200 OK",
            "application/json",
            &format!(r#"{{"items":[{items}],"total":2{next}}}"#),
        )
    };
    let (base, asked) = server(vec![
        page(&token("a"), r#","next":"c 1""#),
        page(&token("b"), ""),
    ]);
    let tokens = client(&base).tokens().await.expect("an answer");
    assert_eq!(
        tokens
            .iter()
            .map(|token| token.id.as_str())
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert!(
        asked
            .recv()
            .expect("asked")
            .starts_with("GET /api/v1/tokens HTTP")
    );
    assert!(
        asked
            .recv()
            .expect("asked")
            .starts_with("GET /api/v1/tokens?cursor=c+1 ")
    );
}

#[tokio::test]
async fn a_problem_comes_through_whole() {
    let body = r#"{"type":"urn:decnet:host_occupied","status":409,"title":"occupied","next_step":"tear it down","current":"lab"}"#;
    let (base, _asked) = server(vec![answer("409 Conflict", PROBLEM_TYPE, body)]);
    let error = client(&base)
        .deploy("office", &DeployRequest::default())
        .await
        .expect_err("409");
    let problem = error.problem().expect("a problem");
    assert_eq!(problem.next_step.as_deref(), Some("tear it down"));
    assert_eq!((error.status(), error.is_transient()), (Some(409), false));
    assert_eq!(error.to_string(), "occupied");
}

const PROBLEM_TYPE: &str = crate::rest::PROBLEM;

#[tokio::test]
async fn what_is_no_master_is_told_apart() {
    let (base, _asked) = server(vec![
        answer("404 Not Found", "text/html", "<h1>nginx</h1>"),
        answer("200 OK", "text/html", "<h1>nginx</h1>"),
        "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_owned(),
        answer("302 Found", "text/plain", ""),
    ]);
    let client = client(&base);
    let error = client.status().await.expect_err("no master");
    assert!(
        matches!(error, ClientError::Status { status: 404, .. }),
        "{error:?}"
    );
    let error = client.status().await.expect_err("no master");
    assert!(matches!(error, ClientError::Malformed { .. }), "{error:?}");
    let error = client.status().await.expect_err("cut");
    assert!(matches!(error, ClientError::Cut { .. }), "{error:?}");
    assert!(error.is_transient());
    let error = client.status().await.expect_err("never followed elsewhere");
    assert!(
        matches!(error, ClientError::Status { status: 302, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let base: Url = format!("http://{}", listener.local_addr().expect("bound"))
        .parse()
        .expect("a URL");
    drop(listener);
    let error = client(&base).healthz().await.expect_err("nobody");
    assert!(
        matches!(error, ClientError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_stream_gives_events_and_asks_from_where_it_stood() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let text = format!(
        "{head}: hello\n\nid: 8\ndata: {}\n\nevent: weather\ndata: rain\n\nid: 9\ndata: {}\n\n",
        event(8),
        event(9)
    );
    let (base, asked) = server(vec![text]);
    let query = EventQuery {
        topology: Some("office".to_owned()),
        after: Some(7),
        ..EventQuery::default()
    };
    let mut stream = client(&base).event_stream(&query).await.expect("a stream");
    let mut rows = Vec::new();
    while let Some(event) = stream.next().await.expect("whole") {
        rows.push(event.row);
    }
    assert_eq!(rows, [8, 9]);
    let asked = asked.recv().expect("asked");
    assert!(
        asked.starts_with("GET /api/v1/events/stream?topology=office&after=7 "),
        "{asked}"
    );
    assert!(asked.contains("last-event-id: 7\r\n"), "{asked}");
}

/// The comments that a master sends when it has nothing to say are signs of life.
#[tokio::test]
async fn a_stream_that_falls_silent_is_given_up() {
    // Far apart: a machine that is busy may make a pause much longer than it is meant to be.
    const SILENCE: Duration = Duration::from_secs(6);
    const PAUSE: Duration = Duration::from_millis(400);
    const COMMENTS: u32 = 3;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("bound");
    let master = async {
        let (mut stream, _) = listener.accept().await.expect("it asks");
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(stream.read_u8().await.expect("it asks on"));
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("it reads");
        for _ in 0..COMMENTS {
            tokio::time::sleep(PAUSE).await;
            stream.write_all(b":\n\n").await.expect("it still listens");
        }
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok();
    };
    let base = format!("http://{address}").parse().expect("a URL");
    let client = Client::with(base, TOKEN, SILENCE).expect("loopback");
    let listen = async {
        let started = Instant::now();
        let mut stream = client
            .topology_news("office", None)
            .await
            .expect("a stream");
        let error = stream.next().await.expect_err("nothing is ever told");
        assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
        assert!(error.is_transient());
        let took = started.elapsed();
        assert!(took >= PAUSE * COMMENTS + SILENCE, "{took:?}");
        drop((stream, client));
    };
    tokio::join!(master, listen);
}

#[tokio::test]
async fn a_stream_of_something_else_is_malformed() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let (base, _asked) = server(vec![format!("{head}data: rain\n\n")]);
    let mut stream = client(&base)
        .event_stream(&EventQuery::default())
        .await
        .expect("a stream");
    let error = stream.next().await.expect_err("no event");
    assert!(matches!(error, ClientError::Malformed { .. }), "{error:?}");
}

#[tokio::test]
async fn an_export_is_bytes_as_they_come() {
    let (base, _asked) = server(vec![answer("200 OK", "application/x-ndjson", "{}\n{}\n")]);
    let mut export = client(&base)
        .event_export(&EventQuery::default())
        .await
        .expect("bytes");
    let mut bytes = Vec::new();
    while let Some(chunk) = export.next().await.expect("whole") {
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(bytes, b"{}\n{}\n");
}

//! A master for tests: answers by route what a test wants, and keeps what it was asked.

use std::collections::BTreeMap;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::client::Client;
use proto::rest::mutation::{EditAnswer, EditOutcome, MutationShape};
use proto::rest::{TopologyShape, TopologyState};
use serde::Serialize;
use serde_json::{Value, json};

use crate::connect::Place;
use crate::context::{Context, Environment};
use crate::output::Output;
use crate::table::Look;

/// How results look in goldens.
pub(crate) const LOOK: Look = Look {
    width: None,
    colour: false,
};

type Answers = BTreeMap<String, Vec<(u16, Value)>>;

/// How a stream of news is answered.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// It says this, and ends.
    Ends(String),
    /// It says this, and breaks off in the middle of something.
    Breaks(String),
    /// It says this, and nothing any more, for as long as somebody listens.
    Holds(String),
    /// It is refused.
    Refused(u16, Value),
    /// The connection is closed without a word.
    Closed,
}

/// A master that says what it was told to.
pub(crate) struct Stub {
    url: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Stub {
    /// Answers `METHOD /path` with these, one after the other, the last one again and again.
    pub(crate) fn new(answers: Vec<(&str, Vec<(u16, Value)>)>) -> Self {
        Self::streaming(answers, Vec::new())
    }

    /// Streams of news are answered by `scripts`, one after the other; the last one stays.
    pub(crate) fn streaming(
        answers: Vec<(&str, Vec<(u16, Value)>)>,
        mut scripts: Vec<Script>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        let mut answers: Answers = answers
            .into_iter()
            .map(|(route, list)| (route.to_owned(), list))
            .collect();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
                let (route, body) = request(&mut reader);
                let script = if scripts.len() > 1 && route.ends_with("/events") {
                    Some(scripts.remove(0))
                } else {
                    scripts
                        .first()
                        .filter(|_| route.ends_with("/events"))
                        .cloned()
                };
                let answer = script.map_or_else(|| Err(next(&mut answers, &route)), Ok);
                kept.lock()
                    .expect("nobody panics with it")
                    .push((route, body));
                match answer {
                    Ok(script) => play(stream, script),
                    Err((status, answer)) => respond(stream, status, &answer),
                }
            }
        });
        Self { url, asked }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.url.parse().expect("a URL"), "dna_secret").expect("loopback")
    }

    pub(crate) fn context(&self, patience: Duration) -> Context {
        Context {
            output: Output {
                asked: None,
                quiet: true,
                look: LOOK,
                live: false,
            },
            environment: Environment::default(),
            place: Place {
                url: Some(self.url.clone()),
                data_dir: None,
                prefer_data_dir: false,
                token_file: None,
                token: Some(crate::context::Token("dna_secret".to_owned())),
                fallbacks: Vec::new(),
                sessions: None,
            },
            patience,
        }
    }

    /// The bodies that were sent to a route; of streams, the ids after which they were to go on.
    pub(crate) fn bodies(&self, route: &str) -> Vec<Value> {
        let asked = self.asked.lock().expect("nobody panics with it");
        let to_route = asked.iter().filter(|(asked, _)| asked == route);
        to_route.map(|(_, body)| body.clone()).collect()
    }
}

fn next(answers: &mut Answers, route: &str) -> (u16, Value) {
    let Some(list) = answers.get_mut(route) else {
        let problem = json!({ "type": "urn:decnet:unknown", "status": 404, "title": format!("nothing at {route}") });
        return (404, problem);
    };
    if list.len() > 1 {
        list.remove(0)
    } else {
        list[0].clone()
    }
}

/// One chunk, and only when all is said the one that ends it: what breaks off is told from an end.
fn play(mut stream: TcpStream, script: Script) {
    let (text, ends, holds) = match script {
        Script::Closed => return,
        Script::Refused(status, answer) => return respond(stream, status, &answer),
        Script::Ends(text) => (text, true, false),
        Script::Breaks(text) => (text, false, false),
        Script::Holds(text) => (text, false, true),
    };
    let head = "HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    let mut whole = head.to_owned();
    if !text.is_empty() {
        whole.push_str(&format!("{:x}\r\n{text}\r\n", text.len()));
    }
    if ends {
        whole.push_str("0\r\n\r\n");
    }
    std::thread::spawn(move || {
        stream.write_all(whole.as_bytes()).ok();
        if holds {
            // Until whoever listens has gone.
            stream.read_to_end(&mut Vec::new()).ok();
        }
    });
}

/// One message of a stream.
pub(crate) fn message(name: &str, id: &str, data: &impl Serialize) -> String {
    format!("event: {name}\nid: {id}\ndata: {}\n\n", value(data))
}

/// The method and path, without the query, and the body; of a stream, from where it is to go on.
fn request(reader: &mut impl std::io::BufRead) -> (String, Value) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            break;
        }
    }
    let length = head.lines().find_map(|line| {
        let line = line.to_lowercase();
        line.strip_prefix("content-length:")?.trim().parse().ok()
    });
    let last = head
        .lines()
        .find_map(|line| line.strip_prefix("last-event-id: ").map(str::to_owned));
    let mut body = vec![0; length.unwrap_or(0_usize)];
    reader.read_exact(&mut body).ok();
    let mut words = head.split_whitespace();
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let path = path.trim_start_matches("/api/v1");
    (
        format!("{method} {path}"),
        last.map_or_else(
            || serde_json::from_slice(&body).unwrap_or(Value::Null),
            Value::String,
        ),
    )
}

fn respond(mut stream: TcpStream, status: u16, answer: &Value) {
    let body = answer.to_string();
    let kind = if status < 400 {
        "application/json"
    } else {
        "application/problem+json"
    };
    let text = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).ok();
}

pub(crate) fn value(shape: &impl Serialize) -> Value {
    serde_json::to_value(shape).expect("plain")
}

/// An answer with this.
pub(crate) fn ok(shape: &impl Serialize) -> (u16, Value) {
    (200, value(shape))
}

pub(crate) fn page(items: &[impl Serialize]) -> Value {
    json!({ "items": items, "total": items.len() })
}

/// The mutation of a decky's services.
pub(crate) fn mutation(state: &str) -> MutationShape {
    MutationShape {
        id: "0190a000-0000-7000-8000-000000000003".to_owned(),
        topology: "0190a000-0000-7000-8000-000000000001".to_owned(),
        sequence: 3,
        op: "update_decky".to_owned(),
        state: state.to_owned(),
        cause: "operator".to_owned(),
        actor: "operator:alice".to_owned(),
        enqueued_at: "2026-01-01T00:00:00Z".to_owned(),
        changed_at: "2026-01-01T00:00:01Z".to_owned(),
        revision: (state != "pending").then_some(4),
        generation: (state != "pending").then_some(7),
        reason: String::new(),
        findings: Vec::new(),
        changes: Vec::new(),
        words: "~ decky web: services http -> http, ssh\n".to_owned(),
    }
}

pub(crate) fn queued(state: &str) -> EditAnswer {
    EditAnswer {
        outcome: EditOutcome::Queued,
        revision: 3,
        mutation: Some(mutation(state)),
        changes: Vec::new(),
        words: "~ decky web: services http -> http, ssh\n".to_owned(),
        findings: Vec::new(),
    }
}

/// A topology in a status.
pub(crate) fn state(status: &str) -> TopologyState {
    TopologyState {
        topology: TopologyShape {
            id: "0190a000-0000-7000-8000-000000000001".to_owned(),
            name: "office".to_owned(),
            status: status.to_owned(),
            status_at: "2026-01-01T00:00:00Z".to_owned(),
            reason: String::new(),
            revision: 3,
            host: Some("edge-07".to_owned()),
            lans: 2,
            deckies: 2,
        },
        desired: None,
        applied: None,
        observed: None,
        drift: Vec::new(),
        timings_us: BTreeMap::new(),
        condition: None,
        progress: None,
        findings: Vec::new(),
    }
}

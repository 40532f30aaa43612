//! The bus: subjects, patterns, and a bounded queue for each subscriber, inside the master and, by a
//! UNIX socket, for programs of this machine.
//!
//! At most once: the database is the truth, and whoever falls behind catches up from it. A
//! publisher never waits; a subscriber that does not read loses its oldest messages, counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use proto::bus::MAX_FRAME;
use serde_json::{Map, Value};
use tokio::sync::Notify;

pub mod socket;

/// Messages that wait for one subscriber.
const QUEUE: usize = 1024;
/// Bytes of what clients have said that wait for one subscriber: two of the longest messages.
const HELD: usize = 2 * MAX_FRAME;

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// What it is about, as tokens joined by dots.
    pub subject: Arc<str>,
    /// What kind of message it is: the last token of its subject, unless a client has said
    /// otherwise.
    pub kind: Arc<str>,
    /// What it says.
    pub body: Arc<Map<String, Value>>,
    /// Which client has published it; none is the master itself.
    pub from: Option<Peer>,
    /// How long a client's words are, in bytes; the master's own are short.
    weight: usize,
}

/// A client of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Which connection it is, of all since the master has started.
    pub connection: u64,
    /// The user that it runs as, by the kernel's word.
    pub uid: u32,
}

/// Whether `subject` is of `pattern`: `*` stands for one token that is not empty, `>` for one or
/// more up to the end (what follows it in a pattern says nothing).
pub fn matches(pattern: &str, subject: &str) -> bool {
    let mut given = subject.split('.');
    for token in pattern.split('.') {
        match (token, given.next()) {
            (">", rest) => return rest.is_some(),
            ("*", Some(actual)) if !actual.is_empty() => {}
            (token, Some(actual)) if token == actual => {}
            (_, Some(_) | None) => return false,
        }
    }
    given.next().is_none()
}

struct Queue {
    patterns: Mutex<Vec<String>>,
    state: Mutex<QueueState>,
    filled: Notify,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<Message>,
    held: usize,
    dropped: u64,
}

impl QueueState {
    fn pop(&mut self) -> Option<Message> {
        let message = self.waiting.pop_front()?;
        self.held -= message.weight;
        Some(message)
    }
}

/// Receives what fits one of its patterns.
pub struct Subscription {
    queue: Arc<Queue>,
}

/// What a subscriber gets next.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// A message.
    Message(Message),
    /// So many messages were lost, because the subscriber did not read.
    Dropped(u64),
}

impl Subscription {
    /// Hears of one more pattern from now on. How many there are now; one that is there counts once.
    pub fn add(&self, pattern: &str) -> usize {
        let mut patterns = self.queue.patterns();
        if !patterns.iter().any(|known| known == pattern) {
            patterns.push(pattern.to_owned());
        }
        patterns.len()
    }

    /// Hears of a pattern no more. What waits already is still delivered.
    pub fn remove(&self, pattern: &str) {
        self.queue.patterns().retain(|known| known != pattern);
    }

    /// The next delivery; waits for it.
    pub async fn next(&mut self) -> Delivery {
        loop {
            if let Some(delivery) = self.queue.take() {
                return delivery;
            }
            self.queue.filled.notified().await;
        }
    }
}

impl Queue {
    fn patterns(&self) -> MutexGuard<'_, Vec<String>> {
        self.patterns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wants(&self, subject: &str) -> bool {
        self.patterns()
            .iter()
            .any(|pattern| matches(pattern, subject))
    }

    fn take(&self) -> Option<Delivery> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.dropped > 0 {
            return Some(Delivery::Dropped(std::mem::take(&mut state.dropped)));
        }
        state.pop().map(Delivery::Message)
    }

    fn put(&self, message: Message) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.waiting.len() >= QUEUE || state.held + message.weight > HELD {
            if state.pop().is_none() {
                break;
            }
            state.dropped += 1;
        }
        state.held += message.weight;
        state.waiting.push_back(message);
        drop(state);
        self.filled.notify_one();
    }
}

/// The bus.
#[derive(Default)]
pub struct Bus {
    subscribers: Mutex<Vec<Weak<Queue>>>,
}

impl Bus {
    /// Subscribes to a pattern, until the subscription is dropped.
    pub fn subscribe(&self, pattern: &str) -> Subscription {
        let subscription = self.listen();
        subscription.add(pattern);
        subscription
    }

    /// A subscription that has no pattern yet.
    pub fn listen(&self) -> Subscription {
        let queue = Arc::new(Queue {
            patterns: Mutex::default(),
            state: Mutex::default(),
            filled: Notify::new(),
        });
        let mut subscribers = self
            .subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|queue| queue.strong_count() > 0);
        subscribers.push(Arc::downgrade(&queue));
        Subscription { queue }
    }

    /// Gives a message of the master's own to whoever has subscribed to its subject. `body` is an
    /// object.
    pub fn publish(&self, subject: impl Into<Arc<str>>, body: Value) {
        let subject: Arc<str> = subject.into();
        let Value::Object(body) = body else {
            unreachable!("what is published is an object");
        };
        self.put(&Message {
            kind: subject.rsplit('.').next().unwrap_or_default().into(),
            subject,
            body: Arc::new(body),
            from: None,
            weight: 0,
        });
    }

    /// Gives a message to whoever has subscribed to its subject.
    fn put(&self, message: &Message) {
        let subscribers = self
            .subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for queue in subscribers.iter().filter_map(Weak::upgrade) {
            if queue.wants(&message.subject) {
                queue.put(message.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_the_original_matched_them() {
        #[derive(serde::Deserialize)]
        struct Case {
            pattern: String,
            topic: String,
            #[serde(rename = "match")]
            expected: bool,
        }
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../../tests/vectors/topic_match.json"))
                .expect("the vectors are a list of cases");
        assert!(cases.len() > 20);
        for case in cases {
            assert_eq!(
                matches(&case.pattern, &case.topic),
                case.expected,
                "{} on {}",
                case.pattern,
                case.topic
            );
        }
    }

    #[tokio::test]
    async fn a_subscriber_that_does_not_read_loses_its_oldest_and_is_told_how_many() {
        let bus = Bus::default();
        let mut subscription = bus.subscribe("event.>");
        for number in 0..QUEUE + 3 {
            bus.publish("event.auth", serde_json::json!({ "number": number }));
        }
        bus.publish("host.x.state", serde_json::json!({}));
        assert_eq!(subscription.next().await, Delivery::Dropped(3));
        let Delivery::Message(first) = subscription.next().await else {
            panic!("a message")
        };
        assert_eq!(first.body.get("number"), Some(&serde_json::json!(3)));
        assert_eq!(&*first.kind, "auth");
    }

    #[tokio::test]
    async fn a_subscription_hears_once_of_what_fits_several_of_its_patterns() {
        let bus = Bus::default();
        let mut subscription = bus.listen();
        bus.publish("host.a.state", serde_json::json!({}));
        assert_eq!(subscription.add("host.>"), 1);
        assert_eq!(subscription.add("host.*.state"), 2);
        assert_eq!(subscription.add("host.>"), 2);
        bus.publish("host.b.state", serde_json::json!({}));
        subscription.remove("host.>");
        subscription.remove("host.*.state");
        bus.publish("host.c.state", serde_json::json!({}));
        subscription.add("host.d.>");
        bus.publish("host.d.state", serde_json::json!({}));
        for expected in ["host.b.state", "host.d.state"] {
            match subscription.next().await {
                Delivery::Message(message) => assert_eq!(&*message.subject, expected),
                Delivery::Dropped(lost) => panic!("{lost} lost"),
            }
        }
    }
}

//! The bus inside the master: subjects, patterns, and a bounded queue for each subscriber.
//!
//! At most once: the database is the truth, and whoever falls behind catches up from it. A
//! publisher never waits; a subscriber that does not read loses its oldest messages, counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;
use tokio::sync::Notify;

/// Messages that wait for one subscriber.
const QUEUE: usize = 1024;

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// What it is about, as tokens joined by dots.
    pub subject: Arc<str>,
    /// What it says.
    pub body: Arc<Value>,
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
    pattern: String,
    state: Mutex<QueueState>,
    filled: Notify,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<Message>,
    dropped: u64,
}

/// Receives what fits its pattern.
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
    fn take(&self) -> Option<Delivery> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.dropped > 0 {
            return Some(Delivery::Dropped(std::mem::take(&mut state.dropped)));
        }
        state.waiting.pop_front().map(Delivery::Message)
    }

    fn put(&self, message: Message) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.waiting.len() >= QUEUE {
            state.waiting.pop_front();
            state.dropped += 1;
        }
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
        let queue = Arc::new(Queue {
            pattern: pattern.to_owned(),
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

    /// Gives a message to whoever has subscribed to its subject.
    pub fn publish(&self, subject: impl Into<Arc<str>>, body: Value) {
        let message = Message {
            subject: subject.into(),
            body: Arc::new(body),
        };
        let subscribers = self
            .subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for queue in subscribers.iter().filter_map(Weak::upgrade) {
            if matches(&queue.pattern, &message.subject) {
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
            bus.publish("event.auth", serde_json::json!(number));
        }
        bus.publish("host.x.state", serde_json::json!("other"));
        assert_eq!(subscription.next().await, Delivery::Dropped(3));
        let Delivery::Message(first) = subscription.next().await else {
            panic!("a message")
        };
        assert_eq!(*first.body, serde_json::json!(3));
    }
}

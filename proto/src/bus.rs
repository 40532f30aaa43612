//! The bus on its UNIX socket: frames, and the envelope in which a message travels.
//!
//! A frame is a line `VERB args`, four bytes of length (big-endian) and so many bytes of body: a JSON
//! object, or nothing. Both ends read with [`parse`] from a buffer that they fill, and write what
//! [`Frame::encode`] gives.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Most bytes of a header, its line feed included.
pub const MAX_HEADER: usize = 4096;
/// Most bytes of a body.
pub const MAX_BODY: usize = 1024 * 1024;
/// Most bytes of a frame: a buffer that holds so many holds a whole one.
pub const MAX_FRAME: usize = MAX_HEADER + LENGTH + MAX_BODY;
/// The version of the envelope.
pub const VERSION: u32 = 1;

const LENGTH: usize = 4;

/// One frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// Client to master: its name, for the log.
    Hello(String),
    /// Client to master: a message on a subject. Only its type and its payload are taken.
    Publish(String, Envelope),
    /// Client to master: what it wants to hear of from now on.
    Subscribe(String),
    /// Client to master: what it wants to hear of no more.
    Unsubscribe(String),
    /// Master to client: a message on a subject.
    Event(String, Envelope),
    /// Either way: this was the last one. A master answers one with one, when all that came before
    /// it is taken.
    Bye,
}

/// A message around its payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Envelope {
    /// [`VERSION`].
    pub v: u32,
    /// What tells it from every other message.
    pub id: String,
    /// Its subject again; readers take that of the frame.
    pub topic: String,
    /// What kind of message it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was published, in seconds since 1970.
    pub ts: f64,
    /// What it says.
    pub payload: Map<String, Value>,
}

impl Default for Envelope {
    fn default() -> Self {
        Self {
            v: VERSION,
            id: String::new(),
            topic: String::new(),
            kind: String::new(),
            ts: 0.0,
            payload: Map::new(),
        }
    }
}

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The header does not end where it must.
    #[error("a header of a frame has at most {MAX_HEADER} bytes")]
    HeaderTooLong,
    /// The header is no text.
    #[error("a header of a frame is of ASCII, without control characters")]
    HeaderText,
    /// The verb is none of the known ones.
    #[error("{verb:?} is no verb of the bus")]
    Verb {
        /// What stands in its place.
        verb: String,
    },
    /// The verb needs a subject or a pattern.
    #[error("{verb} needs a subject")]
    Subject {
        /// The verb.
        verb: &'static str,
    },
    /// The body is too long.
    #[error("a body of {length} bytes: at most {MAX_BODY} are taken")]
    BodyTooLong {
        /// What was announced.
        length: usize,
    },
    /// The body is no JSON object.
    #[error("a body of a frame is a JSON object or nothing")]
    Body(#[source] serde_json::Error),
}

impl Frame {
    /// Its bytes.
    ///
    /// # Errors
    ///
    /// When it would be none that [`parse`] takes: a subject with a line feed, a body that is too
    /// long.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let (verb, argument, envelope) = match self {
            Self::Hello(name) => ("HELLO", name.as_str(), None),
            Self::Publish(subject, envelope) => ("PUB", subject.as_str(), Some(envelope)),
            Self::Subscribe(pattern) => ("SUB", pattern.as_str(), None),
            Self::Unsubscribe(pattern) => ("UNSUB", pattern.as_str(), None),
            Self::Event(subject, envelope) => ("EVT", subject.as_str(), Some(envelope)),
            Self::Bye => ("BYE", "", None),
        };
        if !is_text(argument) {
            return Err(FrameError::HeaderText);
        }
        let mut bytes = verb.as_bytes().to_vec();
        if !argument.is_empty() {
            bytes.push(b' ');
            bytes.extend(argument.as_bytes());
        }
        bytes.push(b'\n');
        if bytes.len() > MAX_HEADER {
            return Err(FrameError::HeaderTooLong);
        }
        let body = match envelope {
            Some(envelope) => serde_json::to_vec(envelope).map_err(FrameError::Body)?,
            None => Vec::new(),
        };
        let length = body.len();
        let announced = u32::try_from(length)
            .ok()
            .filter(|_| length <= MAX_BODY)
            .ok_or(FrameError::BodyTooLong { length })?;
        bytes.extend(announced.to_be_bytes());
        bytes.extend(body);
        Ok(bytes)
    }
}

/// The first frame of `bytes` and how long it is; none when it is not whole yet.
///
/// # Errors
///
/// When what comes is no frame, however it goes on. Nothing that comes behind can be read.
pub fn parse(bytes: &[u8]) -> Result<Option<(Frame, usize)>, FrameError> {
    let Some(end) = bytes
        .iter()
        .take(MAX_HEADER)
        .position(|byte| *byte == b'\n')
    else {
        return if bytes.len() < MAX_HEADER {
            Ok(None)
        } else {
            Err(FrameError::HeaderTooLong)
        };
    };
    let header = std::str::from_utf8(&bytes[..end]).map_err(|_| FrameError::HeaderText)?;
    let header = header.strip_suffix('\r').unwrap_or(header);
    if !is_text(header) {
        return Err(FrameError::HeaderText);
    }
    let (verb, argument) = header.split_once(' ').unwrap_or((header, ""));
    let argument = argument.trim();
    // A verb that is none is told before its body is waited for.
    let verb = Verb::of(verb)?;
    if verb.needs_subject() && argument.is_empty() {
        return Err(FrameError::Subject {
            verb: verb.as_str(),
        });
    }
    let behind = &bytes[end + 1..];
    let Some(announced) = behind.first_chunk::<LENGTH>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*announced)).unwrap_or(usize::MAX);
    if length > MAX_BODY {
        return Err(FrameError::BodyTooLong { length });
    }
    let Some(body) = behind.get(LENGTH..LENGTH + length) else {
        return Ok(None);
    };
    let envelope = if body.is_empty() {
        Envelope::default()
    } else {
        let object: Map<String, Value> = serde_json::from_slice(body).map_err(FrameError::Body)?;
        serde_json::from_value(object.into()).map_err(FrameError::Body)?
    };
    let argument = argument.to_owned();
    let frame = match verb {
        Verb::Hello => Frame::Hello(argument),
        Verb::Pub => Frame::Publish(argument, envelope),
        Verb::Sub => Frame::Subscribe(argument),
        Verb::Unsub => Frame::Unsubscribe(argument),
        Verb::Evt => Frame::Event(argument, envelope),
        Verb::Bye => Frame::Bye,
    };
    Ok(Some((frame, end + 1 + LENGTH + length)))
}

fn is_text(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Hello,
    Pub,
    Sub,
    Unsub,
    Evt,
    Bye,
}

impl Verb {
    const ALL: [Self; 6] = [
        Self::Hello,
        Self::Pub,
        Self::Sub,
        Self::Unsub,
        Self::Evt,
        Self::Bye,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::Pub => "PUB",
            Self::Sub => "SUB",
            Self::Unsub => "UNSUB",
            Self::Evt => "EVT",
            Self::Bye => "BYE",
        }
    }

    const fn needs_subject(self) -> bool {
        matches!(self, Self::Pub | Self::Sub | Self::Evt)
    }

    fn of(word: &str) -> Result<Self, FrameError> {
        Self::ALL
            .into_iter()
            .find(|verb| verb.as_str() == word)
            .ok_or_else(|| FrameError::Verb {
                verb: word.chars().take(32).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            id: "0af1".to_owned(),
            topic: "ext.lab".to_owned(),
            kind: "note".to_owned(),
            ts: 1.5,
            payload: Map::from_iter([("text".to_owned(), json!("a\nb"))]),
            ..Envelope::default()
        }
    }

    #[test]
    fn a_frame_is_a_line_a_length_and_a_body() {
        let bytes = Frame::Subscribe("topology.>".to_owned())
            .encode()
            .expect("it is short");
        assert_eq!(bytes, b"SUB topology.>\n\0\0\0\0");
        let published = Frame::Publish("ext.lab".to_owned(), envelope());
        let bytes = published.encode().expect("it is short");
        let body = br#"{"v":1,"id":"0af1","topic":"ext.lab","type":"note","ts":1.5,"payload":{"text":"a\nb"}}"#;
        assert_eq!(&bytes[..12], b"PUB ext.lab\n");
        assert_eq!(
            &bytes[12..16],
            u32::try_from(body.len()).expect("short").to_be_bytes()
        );
        assert_eq!(&bytes[16..], body);
        for cut in 0..bytes.len() {
            assert!(
                parse(&bytes[..cut]).expect("so far so good").is_none(),
                "{cut}"
            );
        }
        let two = [&bytes[..], b"BYE\r\n\0\0\0\0"].concat();
        let (first, length) = parse(&two).expect("a frame").expect("a whole one");
        assert_eq!((first, length), (published, bytes.len()));
        let (second, _) = parse(&two[length..])
            .expect("a frame")
            .expect("a whole one");
        assert_eq!(second, Frame::Bye);
    }

    #[test]
    fn what_an_envelope_lacks_has_its_default() {
        let (frame, _) = parse(b"PUB ext.a\n\0\0\0\x02{}")
            .expect("a frame")
            .expect("whole");
        assert_eq!(
            frame,
            Frame::Publish("ext.a".to_owned(), Envelope::default())
        );
    }

    #[test]
    fn what_is_no_frame_is_told_as_soon_as_it_is_seen() {
        let long = vec![b'x'; MAX_HEADER];
        for (bytes, told) in [
            (&long[..], "at most 4096 bytes"),
            (b"NOPE\n", "\"NOPE\" is no verb"),
            (b"\n", "\"\" is no verb"),
            (b"PUB\n", "PUB needs a subject"),
            (b"SUB  \n", "SUB needs a subject"),
            (b"HELLO a\tb\n", "ASCII"),
            (b"HELLO \xff\n", "ASCII"),
            (b"PUB ext.a\n\0\x10\0\x01", "1048577 bytes"),
            (b"PUB ext.a\n\0\0\0\x02[]", "JSON object"),
            (b"PUB ext.a\n\0\0\0\x01{", "JSON object"),
            (b"PUB ext.a\n\0\0\0\x0f{\"payload\":\"x\"}", "JSON object"),
        ] {
            let error = parse(bytes).expect_err(told).to_string();
            assert!(error.contains(told), "{error}");
        }
        let split = Frame::Subscribe("a\nPUB ext.b".to_owned());
        assert!(matches!(split.encode(), Err(FrameError::HeaderText)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            drop(parse(&bytes));
        }

        #[test]
        fn what_is_written_is_read_again(subject in "[a-z]{1,8}(\\.[a-z0-9-]{1,8}){0,4}", kind in ".{0,20}", text in ".{0,50}") {
            let payload = Map::from_iter([("text".to_owned(), json!(text))]);
            let envelope = Envelope { kind, payload, ..envelope() };
            let frame = Frame::Event(subject, envelope);
            let bytes = frame.encode().expect("it is short");
            let (read, length) = parse(&bytes).expect("a frame").expect("a whole one");
            prop_assert_eq!(length, bytes.len());
            prop_assert_eq!(read, frame);
        }
    }
}

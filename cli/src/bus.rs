//! `decnet bus`: what happens on a master of this machine, as it happens, and requests to it.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use proto::bus::{Envelope, Frame, MAX_BODY, parse};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::safe::safe;

/// The name of the socket in a master's data directory.
const FILE: &str = "bus.sock";
/// Where a master of the system may be configured to have it.
const SYSTEM: &str = "/run/decnet/bus.sock";

/// `decnet bus VERB`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
The bus is a UNIX socket of a master on this machine: bus.sock in its data directory, or what its
configuration says. What is said while nobody listens is not said again; the API has it all.")]
pub(crate) enum BusCommand {
    /// Print messages as they come, until Ctrl-C.
    Sub(SubArgs),
    /// Publish one message: on ext.>, or a decky.NAME.mutate_request.
    Pub(PubArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SubArgs {
    /// What to hear of, such as 'topology.>': * is one token, > the rest.
    #[arg(default_value = ">", value_parser = pattern)]
    pattern: Vec<String>,
    /// End after this many messages.
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
pub(crate) struct PubArgs {
    /// The subject, such as decky.web-1.mutate_request.
    #[arg(value_parser = pattern)]
    subject: String,
    /// What it says: a JSON object; - for standard input.
    #[arg(default_value = "{}")]
    payload: String,
    /// What kind of message it is [default: the last token of the subject].
    #[arg(long = "type", value_name = "WORD")]
    kind: Option<String>,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct At {
    /// The socket [default: bus.sock in the master's data directory].
    #[arg(
        long,
        value_name = "FILE",
        env = "DECNET_BUS_SOCKET",
        hide_env_values = true
    )]
    socket: Option<PathBuf>,
}

/// A subject or a pattern that fits into a frame.
fn pattern(text: &str) -> Result<String, String> {
    let fits = (1..=1024).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        Ok(text.to_owned())
    } else {
        Err("tokens of visible ASCII, joined by dots, such as topology.*.status".to_owned())
    }
}

pub(crate) async fn run(command: BusCommand, context: &Context) -> Result<Exit, Failure> {
    match command {
        BusCommand::Sub(args) => {
            tokio::select! {
                ended = listen(&args, context) => ended?,
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        BusCommand::Pub(args) => publish(args, context).await?,
    }
    Ok(Exit::Done)
}

async fn listen(args: &SubArgs, context: &Context) -> Result<(), Failure> {
    let mut bus = Connection::open(&args.at, context).await?;
    for pattern in &args.pattern {
        bus.say(&Frame::Subscribe(pattern.clone())).await?;
    }
    let mut left = args.count;
    while left != Some(0) {
        match bus.hear().await? {
            Some(Frame::Event(subject, envelope)) => {
                // The frame's word counts; the envelope is what a program gets.
                let envelope = Envelope {
                    topic: subject,
                    ..envelope
                };
                context.output.item(&envelope, line)?;
                left = left.map(|left| left - 1);
            }
            Some(_) => {}
            None => return Err(bus.cut("the master has ended the connection")),
        }
    }
    Ok(())
}

/// A message for a person.
fn line(envelope: &Envelope) -> String {
    let at = OffsetDateTime::UNIX_EPOCH
        + time::Duration::saturating_seconds_f64(envelope.ts.clamp(0.0, 1e11));
    let (hour, minute, second, millis) = at.to_hms_milli();
    let payload = Value::Object(envelope.payload.clone()).to_string();
    format!(
        "{hour:02}:{minute:02}:{second:02}.{millis:03} {} {}",
        safe(&envelope.topic),
        safe(&payload)
    )
}

async fn publish(args: PubArgs, context: &Context) -> Result<(), Failure> {
    let payload = payload(&args.payload)?;
    let last = args.subject.rsplit('.').next().unwrap_or_default();
    let envelope = Envelope {
        kind: args.kind.unwrap_or_else(|| last.to_owned()),
        topic: args.subject.clone(),
        payload,
        ..Envelope::default()
    };
    let mut bus = Connection::open(&args.at, context).await?;
    bus.say(&Frame::Publish(args.subject.clone(), envelope))
        .await?;
    // A farewell is answered when all before it was taken.
    bus.say(&Frame::Bye).await?;
    match bus.hear().await? {
        Some(_) => {
            context
                .output
                .note(&format!("published on {}", args.subject));
            Ok(())
        }
        None => Err(bus.cut(&format!("the master does not take {}", args.subject))),
    }
}

fn payload(text: &str) -> Result<Map<String, Value>, Failure> {
    let text = if text == "-" {
        let mut read = String::new();
        let most = u64::try_from(MAX_BODY).unwrap_or(u64::MAX);
        let stdin = io::stdin().take(most).read_to_string(&mut read);
        stdin.map_err(|error| Failure::new(error).context("could not read standard input"))?;
        read
    } else {
        text.to_owned()
    };
    serde_json::from_str(&text).map_err(|error| {
        Failure::new(error)
            .context("the payload is no JSON object")
            .next("give one, such as '{\"note\": \"hello\"}', or - and write it to standard input")
            .exits(Exit::Usage)
    })
}

/// A connection to the bus.
struct Connection {
    stream: UnixStream,
    path: PathBuf,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(at: &At, context: &Context) -> Result<Self, Failure> {
        let path = match &at.socket {
            Some(path) => path.clone(),
            None => find(context),
        };
        let stream = UnixStream::connect(&path).await.map_err(|error| {
            let next = if error.kind() == io::ErrorKind::PermissionDenied {
                "ask to be put into the socket's group, or run this as its owner"
            } else {
                "the bus is on the master's machine: give --data-dir of a master that runs there, \
                 or --socket"
            };
            Failure::new(error)
                .context(format!("could not reach the bus at {}", path.display()))
                .next(next)
        })?;
        let mut this = Self {
            stream,
            path,
            buffer: Vec::new(),
        };
        let name = format!("decnet-{}", std::process::id());
        this.say(&Frame::Hello(name)).await?;
        Ok(this)
    }

    async fn say(&mut self, frame: &Frame) -> Result<(), Failure> {
        let bytes = frame.encode().map_err(Failure::new)?;
        match self.stream.write_all(&bytes).await {
            // One that was cut learns why when it reads.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(self.broken(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// None when the master has ended the connection.
    async fn hear(&mut self) -> Result<Option<Frame>, Failure> {
        loop {
            if let Some((frame, length)) = parse(&self.buffer).map_err(Failure::new)? {
                self.buffer.drain(..length);
                return Ok(Some(frame));
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(self.broken(error)),
                Ok(_) => {}
            }
        }
    }

    fn broken(&self, error: io::Error) -> Failure {
        let path = self.path.display();
        Failure::new(error).context(format!("lost the bus at {path}"))
    }

    fn cut(&self, what: &str) -> Failure {
        Failure::say(format!("{what} ({})", self.path.display())).next(
            "its log says why; a client may publish ext.> and decky.NAME.mutate_request, and a \
             master that was started again is asked again",
        )
    }
}

/// Where the socket is when nobody says it: the first one that is there, else where it should be.
fn find(context: &Context) -> PathBuf {
    let place = &context.place;
    let directories: Vec<&Path> = match &place.data_dir {
        Some(directory) => vec![directory],
        None => place.fallbacks.iter().map(PathBuf::as_path).collect(),
    };
    let mut paths: Vec<PathBuf> = directories.iter().map(|it| it.join(FILE)).collect();
    if place.data_dir.is_none() {
        paths.insert(0, SYSTEM.into());
    }
    let there = paths.iter().find(|path| path.exists()).cloned();
    there
        .or_else(|| paths.into_iter().next())
        .unwrap_or_else(|| SYSTEM.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_a_line_without_a_trick() {
        let envelope = Envelope {
            topic: "decky.web.mutation".to_owned(),
            ts: 43_200.5,
            payload: Map::from_iter([("text".to_owned(), json!("a\u{202e}b\u{1b}[2J"))]),
            ..Envelope::default()
        };
        assert_eq!(
            line(&envelope),
            "12:00:00.500 decky.web.mutation {\"text\":\"a\\u{202e}b\\u001b[2J\"}"
        );
        let never = Envelope {
            ts: f64::NAN,
            ..Envelope::default()
        };
        assert!(!line(&never).is_empty());
    }

    #[test]
    fn what_is_no_object_is_no_payload() {
        assert_eq!(payload("{\"a\": 1}").expect("an object").len(), 1);
        for text in ["", "[]", "1", "{"] {
            let failure = payload(text).expect_err(text);
            assert_eq!(failure.exit(), Exit::Usage);
        }
        assert!(pattern("topology.>").is_ok());
        for text in ["", "a b", "a\nb", "\u{e4}"] {
            assert!(pattern(text).is_err(), "{text:?}");
        }
    }
}

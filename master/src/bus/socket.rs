//! The bus for programs of this machine, on a UNIX socket.
//!
//! The file's mode and group say who may connect; the kernel says who did. A client hears everything
//! that it subscribes to but its own, and may say little: what it publishes is a request or a remark,
//! never a fact of the master's. One that does not speak the protocol is cut; one that does not read
//! loses its oldest messages and holds up nobody.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use proto::bus::{Envelope, Frame, FrameError, parse};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::WriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Bus, Delivery, Message, Peer};
use crate::chain::Chain;
use crate::clock::Clock;
use crate::entropy::uuid_v7;
use crate::task;

/// The name of the socket in the data directory, where nothing else is configured.
pub const FILE: &str = "bus.sock";
/// The group that may use the socket, on a machine that has it.
const GROUP: &str = "decnet";
const MODE: u32 = 0o660;
/// Most clients at once; further ones wait to be accepted.
const CLIENTS: usize = 64;
/// Most patterns of one client.
const PATTERNS: usize = 64;
/// Bytes that are read at once.
const CHUNK: usize = 8 * 1024;
/// How long a client may take for the rest of a frame, and for taking one.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the bus says that it is well.
const HEALTH: Duration = Duration::from_secs(10);
/// Before another try when the system gives no connection.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process answers there.
    #[error("another process serves the bus at {}; name another path as bus.socket", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("{} is there and is no socket; remove it or name another path as bus.socket", path.display())]
    Occupied {
        /// The file.
        path: PathBuf,
    },
    /// The system refuses it.
    #[error(
        "could not serve the bus at {}: its directory must be there, and a path of a socket has at \
         most 107 bytes",
        path.display()
    )]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why a client was cut.
#[derive(Debug, thiserror::Error)]
enum ClientError {
    #[error("could not read from it, or write to it")]
    Stream(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("only the master says EVT")]
    Event,
    #[error("a client may publish ext.> and decky.*.mutate_request, not {subject:?}")]
    Subject { subject: String },
    #[error("more than {PATTERNS} patterns")]
    Patterns,
    #[error("it began a frame and did not end it")]
    Unfinished,
    #[error("it does not read")]
    Unread,
}

/// A socket that is bound, and removed when this is dropped.
#[derive(Debug)]
pub struct BusSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl BusSocket {
    /// Binds a socket, in place of one that a killed master has left.
    ///
    /// # Errors
    ///
    /// When another process serves the path, or it cannot be bound.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let refused = |source| BindError::Refused {
            path: path.to_owned(),
            source,
        };
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(BindError::Occupied {
                    path: path.to_owned(),
                });
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(BindError::Taken {
                    path: path.to_owned(),
                });
            }
            Ok(_) | Err(_) => {}
        }
        // Under another name until nobody but those who may can connect.
        let growing = path.with_added_extension("new");
        match fs::remove_file(&growing) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&growing).map_err(refused)?;
        let open = || {
            if let Some(group) = group_id(GROUP) {
                // Without the right to give it away, it stays with this process's own group.
                std::os::unix::fs::chown(&growing, None, Some(group)).ok();
            }
            fs::set_permissions(&growing, fs::Permissions::from_mode(MODE))?;
            fs::rename(&growing, path)
        };
        open().map_err(refused)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Serves clients for as long as the master runs.
    pub async fn serve(self, bus: Arc<Bus>, clock: Clock, shutdown: CancellationToken) {
        let next = AtomicU64::new(1);
        let room = Arc::new(Semaphore::new(CLIENTS));
        let clients = TaskTracker::new();
        let since = clock();
        let mut health = tokio::time::interval(HEALTH);
        loop {
            let accepted = async {
                let seat = Arc::clone(&room).acquire_owned().await;
                (seat, self.listener.accept().await)
            };
            let (seat, accepted) = tokio::select! {
                accepted = accepted => accepted,
                _ = health.tick() => {
                    tell_health(&bus, since, clock());
                    continue;
                }
                () = shutdown.cancelled() => break,
            };
            let identified = accepted.and_then(|(stream, _)| {
                let uid = stream.peer_cred()?.uid();
                Ok((stream, uid))
            });
            let (stream, uid) = match identified {
                Ok(client) => client,
                Err(error) => {
                    tracing::warn!(%error, "a client of the bus could not be accepted");
                    tokio::time::sleep(BACK_OFF).await;
                    continue;
                }
            };
            let connection = next.fetch_add(1, Ordering::Relaxed);
            let client = Client {
                bus: Arc::clone(&bus),
                clock: Arc::clone(&clock),
                peer: Peer { connection, uid },
            };
            let shutdown = shutdown.clone();
            let attended = async move {
                let _seat = seat;
                tokio::select! {
                    ended = client.attend(stream) => {
                        if let Err(error) = ended {
                            tracing::warn!(
                                connection, uid, error = %Chain(&error),
                                "a client of the bus is cut"
                            );
                        }
                    }
                    () = shutdown.cancelled() => {}
                }
            };
            let attended = clients.track_future(attended);
            task::spawn("bus.client", tracing::Span::none(), attended);
        }
        clients.close();
        clients.wait().await;
    }
}

impl Drop for BusSocket {
    fn drop(&mut self) {
        // One that is gone is removed.
        fs::remove_file(&self.path).ok();
    }
}

fn tell_health(bus: &Bus, since: OffsetDateTime, now: OffsetDateTime) {
    bus.publish(
        "system.bus.health",
        serde_json::json!({
            "pid": std::process::id(),
            "uptime_sec": (now - since).whole_seconds(),
            "ts": seconds(now),
        }),
    );
}

fn seconds(at: OffsetDateTime) -> f64 {
    (at - OffsetDateTime::UNIX_EPOCH).as_seconds_f64()
}

/// The number of a group of this machine (group(5)).
fn group_id(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        fields.nth(1)?.parse().ok()
    })
}

/// One who is connected.
struct Client {
    bus: Arc<Bus>,
    clock: Clock,
    peer: Peer,
}

impl Client {
    /// Until it goes, or is cut.
    async fn attend(&self, mut stream: UnixStream) -> Result<(), ClientError> {
        let (mut reading, mut writing) = stream.split();
        let mut subscription = self.bus.listen();
        let mut buffer = BytesMut::with_capacity(CHUNK);
        let mut begun = Instant::now();
        loop {
            buffer.reserve(CHUNK);
            let unfinished = !buffer.is_empty();
            tokio::select! {
                read = reading.read_buf(&mut buffer) => {
                    if read? == 0 {
                        return if unfinished { Err(ClientError::Unfinished) } else { Ok(()) };
                    }
                    if !unfinished {
                        begun = Instant::now();
                    }
                }
                delivery = subscription.next() => {
                    self.tell(delivery, &mut writing).await?;
                    continue;
                }
                () = sleep_until(begun + PATIENCE), if unfinished => {
                    return Err(ClientError::Unfinished);
                }
            }
            while let Some((frame, length)) = parse(&buffer)? {
                drop(buffer.split_to(length));
                begun = Instant::now();
                match frame {
                    Frame::Hello(name) => {
                        let Peer { connection, uid } = self.peer;
                        tracing::debug!(connection, uid, name, "a client of the bus");
                    }
                    Frame::Publish(subject, envelope) => self.publish(subject, envelope, length)?,
                    Frame::Subscribe(pattern) => {
                        if subscription.add(&pattern) > PATTERNS {
                            return Err(ClientError::Patterns);
                        }
                    }
                    Frame::Unsubscribe(pattern) => subscription.remove(&pattern),
                    Frame::Event(..) => return Err(ClientError::Event),
                    Frame::Bye => return write(&Frame::Bye, &mut writing).await,
                }
            }
        }
    }

    /// `length` is that of the frame, in bytes.
    fn publish(
        &self,
        subject: String,
        envelope: Envelope,
        length: usize,
    ) -> Result<(), ClientError> {
        if !may_publish(&subject) {
            return Err(ClientError::Subject { subject });
        }
        self.bus.put(&Message {
            subject: subject.into(),
            kind: envelope.kind.into(),
            body: Arc::new(envelope.payload),
            from: Some(self.peer),
            weight: length,
        });
        Ok(())
    }

    async fn tell(
        &self,
        delivery: Delivery,
        writing: &mut WriteHalf<'_>,
    ) -> Result<(), ClientError> {
        let Peer { connection, uid } = self.peer;
        let message = match delivery {
            Delivery::Message(message) => message,
            Delivery::Dropped(lost) => {
                tracing::warn!(
                    connection,
                    uid,
                    lost,
                    "a client of the bus reads too slowly"
                );
                return Ok(());
            }
        };
        if message
            .from
            .is_some_and(|from| from.connection == connection)
        {
            return Ok(());
        }
        let now = (self.clock)();
        let envelope = Envelope {
            id: uuid_v7(now).simple().to_string(),
            topic: message.subject.to_string(),
            kind: message.kind.to_string(),
            ts: seconds(now),
            payload: (*message.body).clone(),
            ..Envelope::default()
        };
        write(
            &Frame::Event(message.subject.to_string(), envelope),
            writing,
        )
        .await
    }
}

async fn write(frame: &Frame, writing: &mut WriteHalf<'_>) -> Result<(), ClientError> {
    let bytes = match frame.encode() {
        Ok(bytes) => bytes,
        // With the envelope around it, it is longer than what a client may be given.
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "a message of the bus is left out");
            return Ok(());
        }
    };
    match timeout(PATIENCE, writing.write_all(&bytes)).await {
        Ok(written) => Ok(written?),
        Err(_) => Err(ClientError::Unread),
    }
}

/// Whether a client may say something on a subject.
fn may_publish(subject: &str) -> bool {
    let whole = |token: &&str| {
        !token.is_empty()
            && token
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'*' && byte != b'>')
    };
    let tokens: Vec<&str> = subject.split('.').collect();
    tokens.iter().all(whole)
        && matches!(&tokens[..], ["ext", _, ..] | ["decky", _, "mutate_request"])
}

#[cfg(test)]
mod tests;

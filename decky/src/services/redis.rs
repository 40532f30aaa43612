//! Redis: RESP2 and inline commands, and a store that keeps what is written.

mod commands;
mod resp;
mod store;

use std::io;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use domain::event::{AuthMethod, AuthOutcome};
use domain::service::ServiceOptions;

use self::commands::{Connection, Effect};
use self::resp::{Missing, Parsed, ProtocolError};
use self::store::Store;
use crate::persona::Facts;
use crate::serve::{Buffered, Service, Session, Wire};

/// Longest command in all.
const MAX_REQUEST: usize = 256 * 1024;
/// Most commands of one connection.
const MAX_COMMANDS: usize = 20_000;

/// The service.
pub(crate) struct Redis {
    facts: Arc<Facts>,
    password: Option<String>,
    store: Mutex<Store>,
}

impl Redis {
    pub(crate) fn new(options: &ServiceOptions, facts: Arc<Facts>) -> Self {
        let password = options
            .text("requirepass")
            .filter(|text| !text.is_empty())
            .map(str::to_owned);
        let store = Mutex::new(Store::new(&facts));
        Self {
            facts,
            password,
            store,
        }
    }
}

#[async_trait]
impl Service for Redis {
    async fn serve(&self, session: &Session, wire: Wire) -> io::Result<()> {
        let mut stream = Buffered::new(wire);
        let mut connection = Connection::new(self.password.is_none(), session);
        for _ in 0..MAX_COMMANDS {
            let words = loop {
                match resp::parse(stream.held()) {
                    Ok(Parsed::Command { words, length }) => {
                        stream.take(length);
                        break words;
                    }
                    Ok(Parsed::Incomplete(_)) if stream.held().len() > MAX_REQUEST => {
                        return self.refuse(session, stream, ProtocolError::TooBig).await;
                    }
                    Ok(Parsed::Incomplete(missing)) => {
                        if !await_missing(&mut stream, missing).await? {
                            if !stream.held().is_empty() {
                                session.raw("a command cut off", stream.held()).await;
                            }
                            return Ok(());
                        }
                    }
                    Err(error) => return self.refuse(session, stream, error).await,
                }
            };
            if words.is_empty() {
                continue;
            }
            session.command(&resp::monitor(&words)).await;
            let now = session.now();
            let (reply, effect) = commands::run(self, &mut connection, &words, now);
            match effect {
                Effect::None => {}
                Effect::Auth {
                    username,
                    password,
                    accepted,
                } => {
                    let outcome = if accepted {
                        AuthOutcome::Accepted
                    } else {
                        AuthOutcome::Rejected
                    };
                    session
                        .auth(AuthMethod::Password, &username, &password, outcome)
                        .await;
                }
                Effect::Close => {
                    return stream.write(&reply).await;
                }
            }
            stream.write(&reply).await?;
        }
        Ok(())
    }
}

/// Reads until what is missing came, or more than a request may have; false when the stream ended
/// before that.
async fn await_missing(stream: &mut Buffered<Wire>, missing: Missing) -> io::Result<bool> {
    loop {
        let before = stream.held().len();
        if !stream.fill().await? {
            return Ok(false);
        }
        let held = stream.held();
        if held.len() > MAX_REQUEST || missing.came(held, before) {
            return Ok(true);
        }
    }
}

impl Redis {
    async fn refuse(
        &self,
        session: &Session,
        mut stream: Buffered<Wire>,
        error: ProtocolError,
    ) -> io::Result<()> {
        session.raw(&error.to_string(), stream.held()).await;
        stream
            .write(format!("-ERR Protocol error: {error}\r\n").as_bytes())
            .await
    }
}

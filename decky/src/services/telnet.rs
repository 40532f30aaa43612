//! Telnet: negotiates, asks for a name and a password, gives the shell.

mod iac;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::event::{AuthMethod, AuthOutcome};
use domain::service::ServiceOptions;

use self::iac::{Item, Negotiator};
use super::{accept_after, lets_in};
use crate::net::Network;
use crate::persona::{Facts, Family};
use crate::serve::{Buffered, Service, Session, Wire};
use crate::shell::{Echo, Editor, Key, Login, MAX_SCREEN, Shell, cooked};

/// Attempts before login gives up, as the login program of Debian.
const MAX_ATTEMPTS: u64 = 5;
/// Names that are asked for in vain before login gives up.
const MAX_EMPTY: u32 = 10;
/// How long the client's first answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The service.
pub(crate) struct Telnet {
    banner: String,
    accept_after: u64,
    facts: Arc<Facts>,
}

impl Telnet {
    pub(crate) fn new(options: &ServiceOptions, facts: Arc<Facts>) -> Self {
        let banner = match options.text("banner") {
            Some(banner) => format!("{banner}\r\n"),
            None => facts.release.issue.replace("%h", &facts.hostname),
        };
        Self {
            banner,
            accept_after: accept_after(options, &facts),
            facts,
        }
    }

    fn login_prompt(&self) -> String {
        match self.facts.release.family {
            Family::Cisco => "Username: ".to_owned(),
            Family::Windows | Family::Bsd => "login: ".to_owned(),
            Family::Debian | Family::Embedded => format!("{} login: ", self.facts.hostname),
        }
    }
}

#[async_trait]
impl Service for Telnet {
    async fn serve(&self, session: &Session, wire: Wire) -> io::Result<()> {
        let mut terminal = Terminal {
            stream: Buffered::new(wire),
            negotiator: Negotiator::default(),
            editor: Editor::default(),
            session,
        };
        let family = self.facts.release.family;
        terminal.stream.write(Negotiator::opening(family)).await?;
        if let Some(second) = Negotiator::second(family) {
            // A client that does not negotiate gets its prompt late, as from a slow name server.
            tokio::time::timeout(PATIENCE, terminal.stream.fill())
                .await
                .ok();
            terminal.stream.write(second).await?;
        }
        terminal.stream.write(self.banner.as_bytes()).await?;
        let user = self.login(&mut terminal).await;
        terminal.report().await;
        match user? {
            Some(user) => self.shell(&mut terminal, user).await,
            None => Ok(()),
        }
    }
}

impl Telnet {
    /// Asks until a login is let in, or enough were not.
    async fn login(&self, terminal: &mut Terminal<'_>) -> io::Result<Option<String>> {
        let mut attempt = 0;
        let mut empty = 0;
        while attempt < MAX_ATTEMPTS && empty < MAX_EMPTY {
            terminal
                .stream
                .write(self.login_prompt().as_bytes())
                .await?;
            let user = match terminal.key(Echo::On).await? {
                Some(Key::Line(user)) => user,
                Some(Key::Interrupt) | Some(Key::End) | None => return Ok(None),
            };
            if user.is_empty() {
                empty += 1;
                continue;
            }
            terminal.stream.write(b"Password: ").await?;
            let password = match terminal.key(Echo::Off).await? {
                Some(Key::Line(password)) => password,
                Some(Key::Interrupt) | Some(Key::End) | None => return Ok(None),
            };
            attempt += 1;
            let accepted = lets_in(&user, attempt, self.accept_after);
            let outcome = if accepted {
                AuthOutcome::Accepted
            } else {
                AuthOutcome::Rejected
            };
            terminal
                .session
                .auth(AuthMethod::Password, &user, &password, outcome)
                .await;
            if accepted {
                return Ok(Some(String::from_utf8_lossy(&user).into_owned()));
            }
            tokio::time::sleep(self.facts.fail_delay).await;
            let failure: &[u8] = match self.facts.release.family {
                Family::Cisco => b"% Login invalid\r\n\r\n",
                Family::Windows => b"The handle is invalid.\r\n\r\nLogin Failed\r\n\r\n",
                Family::Debian | Family::Bsd | Family::Embedded => b"\r\nLogin incorrect\r\n",
            };
            terminal.stream.write(failure).await?;
        }
        Ok(None)
    }

    async fn shell(&self, terminal: &mut Terminal<'_>, user: String) -> io::Result<()> {
        let session = terminal.session;
        let login = Login {
            user,
            source: session.source(),
            destination: session.destination(),
            at: session.now(),
            network: Network::read(session.destination().ip()),
        };
        let mut shell = Shell::new(Arc::clone(&self.facts), login).without_ssh();
        let greeting = format!("{}{}", shell.greeting(), shell.prompt());
        terminal.stream.write(&cooked(greeting.as_bytes())).await?;
        loop {
            let line = match terminal.key(Echo::On).await? {
                Some(Key::Line(line)) => line,
                Some(Key::Interrupt) => {
                    shell.interrupt();
                    Vec::new()
                }
                Some(Key::End) => b"exit".to_vec(),
                None => return Ok(()),
            };
            if !line.is_empty() {
                session.command(&line).await;
            }
            let output = shell.execute(&line, session.now());
            output.wait().await;
            let mut screen = cooked(&output.all());
            if shell.exited() {
                screen.extend_from_slice(b"logout\r\n");
                return terminal.stream.write(&screen).await;
            }
            screen.extend_from_slice(shell.prompt().as_bytes());
            terminal.stream.write(&screen).await?;
        }
    }
}

struct Terminal<'a> {
    stream: Buffered<Wire>,
    negotiator: Negotiator,
    editor: Editor,
    session: &'a Session,
}

impl Terminal<'_> {
    /// Reads until a line is done; none at the end of the stream.
    async fn key(&mut self, echo: Echo) -> io::Result<Option<Key>> {
        self.editor.set_echo(echo);
        let mut screen = Vec::new();
        loop {
            let mut taken = 0;
            let mut done = None;
            for byte in self.stream.held() {
                taken += 1;
                let key = match self.negotiator.feed(*byte, &mut screen) {
                    Some(Item::Data(byte)) => self.editor.feed(byte, &mut screen),
                    Some(Item::Interrupt) => self.editor.feed(0x03, &mut screen),
                    None => None,
                };
                // A few bytes may draw a long line anew: what is drawn is sent before there is
                // more of it.
                if key.is_some() || screen.len() > MAX_SCREEN {
                    done = key;
                    break;
                }
            }
            self.stream.take(taken);
            self.stream.write(&screen).await?;
            screen.clear();
            if done.is_some() {
                return Ok(done);
            }
            if !self.stream.held().is_empty() {
                continue;
            }
            if !self.stream.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Reports what the client said of itself in the negotiation.
    async fn report(&mut self) {
        let (options, terminal) = self.negotiator.seen();
        if !options.is_empty() {
            self.session
                .fingerprint("telnet_options", options.as_bytes())
                .await;
        }
        if !terminal.is_empty() {
            self.session.fingerprint("telnet_terminal", terminal).await;
        }
    }
}

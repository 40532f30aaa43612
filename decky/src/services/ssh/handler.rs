//! What the decky answers inside the encrypted connection: to credentials, channels and keystrokes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use domain::event::{AuthMethod, AuthOutcome};
use russh::server::{Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Response, Session as Ssh};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty};

use super::super::lets_in;
use super::hassh::hassh;
use super::methods;
use super::splice::Tap;
use crate::net::Network;
use crate::persona::Facts;
use crate::serve::Session;
use crate::shell::{Echo, Editor, Key, Login, MAX_SCREEN, Output, Shell, Stream, cooked};

/// Most passwords and keys that one connection may try, as OpenSSH's MaxAuthTries.
pub(super) const MAX_ATTEMPTS: usize = 6;
/// Most that is sent in answer to one message: a client that sends many lines at once, or keys that
/// draw a long line anew, must not make a multiple of them pile up here.
const MAX_ANSWER: usize = 512 * 1024;
/// Most channels of one connection.
const MAX_CHANNELS: usize = 4;
/// Most variables that a client may set for a channel.
const MAX_ENVIRONMENT: usize = 16;

pub(super) struct Handler {
    session: Session,
    facts: Arc<Facts>,
    accept_after: u64,
    tap: Tap,
    attempts: u64,
    user: String,
    channels: HashMap<ChannelId, State>,
    /// How much may still be sent in answer to the message that is being answered.
    room: usize,
}

#[derive(Default)]
struct State {
    environment: Vec<(String, String)>,
    terminal: bool,
    shell: Option<(Shell, Editor)>,
}

/// Reports the client's HASSH, once.
pub(super) async fn report_hassh(session: &Session, tap: &Tap) {
    let bytes = tap.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(value) = bytes.and_then(|bytes| hassh(&bytes)) {
        session.fingerprint("hassh", value.as_bytes()).await;
    }
}

impl Handler {
    pub(super) fn new(session: Session, facts: Arc<Facts>, accept_after: u64, tap: Tap) -> Self {
        Self {
            session,
            facts,
            accept_after,
            tap,
            attempts: 0,
            user: String::new(),
            channels: HashMap::new(),
            room: MAX_ANSWER,
        }
    }

    /// Judges one password.
    async fn password(&mut self, user: &str, password: &[u8]) -> Result<Auth, russh::Error> {
        self.attempts += 1;
        if self.attempts > MAX_ATTEMPTS as u64 {
            return Err(russh::Error::Disconnect);
        }
        let accepted = lets_in(user.as_bytes(), self.attempts, self.accept_after);
        let outcome = if accepted {
            AuthOutcome::Accepted
        } else {
            AuthOutcome::Rejected
        };
        self.session
            .auth(AuthMethod::Password, user.as_bytes(), password, outcome)
            .await;
        if accepted {
            user.clone_into(&mut self.user);
            return Ok(Auth::Accept);
        }
        Ok(rejection())
    }

    fn shell(&self, state: &State) -> Shell {
        let login = Login {
            user: self.user.clone(),
            source: self.session.source(),
            destination: self.session.destination(),
            at: self.session.now(),
            network: Network::read(self.session.destination().ip()),
        };
        let mut shell = Shell::new(Arc::clone(&self.facts), login);
        for (name, value) in &state.environment {
            shell.set(name, value.clone());
        }
        shell
    }

    async fn line(
        &mut self,
        channel: ChannelId,
        line: &[u8],
        ssh: &mut Ssh,
    ) -> Result<(), russh::Error> {
        if !line.is_empty() {
            self.session.command(line).await;
        }
        let now = self.session.now();
        let Some(State {
            shell: Some((shell, _)),
            terminal,
            ..
        }) = self.channels.get_mut(&channel)
        else {
            return Ok(());
        };
        let terminal = *terminal;
        let output = shell.execute(line, now);
        let (exited, status, prompt) = (shell.exited(), shell.status(), shell.prompt());
        output.wait().await;
        send(ssh, channel, &output, terminal, &mut self.room)?;
        if exited {
            if terminal {
                ssh.data(channel, &b"logout\r\n"[..])?;
            }
            return finish(ssh, channel, status);
        }
        if terminal {
            say(ssh, channel, prompt.into_bytes(), &mut self.room)?;
        }
        Ok(())
    }
}

/// Turns a client away and names what it may try next.
fn rejection() -> Auth {
    Auth::Reject {
        proceed_with_methods: Some(methods()),
        partial_success: false,
    }
}

/// Sends bytes, unless the client does not take what it was sent before, or asked for more at once
/// than there is room for: what it will not read must not pile up here.
fn say(
    ssh: &mut Ssh,
    channel: ChannelId,
    bytes: Vec<u8>,
    room: &mut usize,
) -> Result<(), russh::Error> {
    if bytes.is_empty() || !has_room(ssh, channel, bytes.len(), room) {
        return Ok(());
    }
    ssh.data(channel, bytes)
}

fn has_room(ssh: &Ssh, channel: ChannelId, length: usize, room: &mut usize) -> bool {
    let fits = !ssh.has_pending_data(channel) && length <= *room;
    if fits {
        *room -= length;
    }
    fits
}

fn send(
    ssh: &mut Ssh,
    channel: ChannelId,
    output: &Output,
    terminal: bool,
    room: &mut usize,
) -> Result<(), russh::Error> {
    if terminal {
        return say(ssh, channel, cooked(&output.all()), room);
    }
    for (stream, bytes) in output.chunks() {
        match stream {
            Stream::Out => say(ssh, channel, bytes.to_vec(), room)?,
            Stream::Error if has_room(ssh, channel, bytes.len(), room) => {
                ssh.extended_data(channel, 1, bytes.to_vec())?;
            }
            Stream::Error => {}
        }
    }
    Ok(())
}

fn finish(ssh: &mut Ssh, channel: ChannelId, status: u8) -> Result<(), russh::Error> {
    ssh.exit_status_request(channel, u32::from(status))?;
    ssh.eof(channel)?;
    ssh.close(channel)
}

impl russh::server::Handler for Handler {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Self::Error> {
        report_hassh(&self.session, &self.tap).await;
        Ok(rejection())
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        report_hassh(&self.session, &self.tap).await;
        self.password(user, password.as_bytes()).await
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        report_hassh(&self.session, &self.tap).await;
        let key = offer.public_key.to_openssh().unwrap_or_default();
        self.session
            .auth(
                AuthMethod::PublicKey,
                user.as_bytes(),
                key.as_bytes(),
                AuthOutcome::Rejected,
            )
            .await;
        Ok(rejection())
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        match response.and_then(|mut answers| answers.next()) {
            Some(answer) => self.password(user, &answer).await,
            None => Ok(Auth::Partial {
                name: "".into(),
                instructions: "".into(),
                prompts: vec![("Password: ".into(), false)].into(),
            }),
        }
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Ssh,
    ) -> Result<(), Self::Error> {
        if self.channels.len() >= MAX_CHANNELS {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        self.channels.insert(channel.id(), State::default());
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Ssh,
    ) -> Result<(), Self::Error> {
        self.session
            .command(format!("direct-tcpip {host}:{port}").as_bytes())
            .await;
        reply
            .reject(ChannelOpenFailure::AdministrativelyProhibited)
            .await;
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _: &mut Ssh,
    ) -> Result<bool, Self::Error> {
        self.session
            .command(format!("tcpip-forward {address}:{port}").as_bytes())
            .await;
        Ok(false)
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Ssh) -> Result<(), Self::Error> {
        self.channels.remove(&channel);
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, ssh: &mut Ssh) -> Result<(), Self::Error> {
        // Without a terminal the end of the input is the end of the shell.
        if let Some(State {
            shell: Some((shell, _)),
            ..
        }) = self.channels.get(&channel)
        {
            let status = shell.status();
            finish(ssh, channel, status)?;
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        // What sshd_config of the file tree accepts.
        let accepted = name == "LANG" || name.starts_with("LC_");
        let Some(state) = self.channels.get_mut(&channel) else {
            return Ok(());
        };
        if accepted && state.environment.len() < MAX_ENVIRONMENT && name.len() + value.len() < 256 {
            state.environment.push((name.to_owned(), value.to_owned()));
            return ssh.channel_success(channel);
        }
        ssh.channel_failure(channel)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        let Some(state) = self.channels.get_mut(&channel) else {
            return Ok(());
        };
        state.terminal = true;
        if term.len() < 64 && state.environment.len() < MAX_ENVIRONMENT {
            state.environment.push(("TERM".to_owned(), term.to_owned()));
        }
        ssh.channel_success(channel)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        ssh.channel_success(channel)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        let Some(state) = self.channels.get(&channel) else {
            return Ok(());
        };
        if state.shell.is_some() {
            return ssh.channel_failure(channel);
        }
        let mut shell = self.shell(state);
        let terminal = state.terminal;
        ssh.channel_success(channel)?;
        let mut editor = Editor::default();
        if terminal {
            let text = format!("{}{}", shell.greeting(), shell.prompt());
            say(ssh, channel, cooked(text.as_bytes()), &mut self.room)?;
        } else {
            shell = shell.without_terminal();
            editor.set_echo(Echo::Off);
        }
        if let Some(state) = self.channels.get_mut(&channel) {
            state.shell = Some((shell, editor));
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        let Some(state) = self.channels.get(&channel) else {
            return Ok(());
        };
        let terminal = state.terminal;
        let mut shell = self.shell(state).for_exec();
        ssh.channel_success(channel)?;
        self.session.command(data).await;
        let output = shell.execute(data, self.session.now());
        output.wait().await;
        self.room = MAX_ANSWER;
        send(ssh, channel, &output, terminal, &mut self.room)?;
        finish(ssh, channel, shell.status())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        self.session
            .command(format!("subsystem {name}").as_bytes())
            .await;
        ssh.channel_failure(channel)
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        ssh: &mut Ssh,
    ) -> Result<(), Self::Error> {
        self.room = MAX_ANSWER;
        let terminal = self
            .channels
            .get(&channel)
            .is_some_and(|state| state.terminal);
        let mut screen = Vec::new();
        for byte in data {
            if screen.len() > MAX_SCREEN {
                let drawn = std::mem::take(&mut screen);
                if terminal {
                    say(ssh, channel, drawn, &mut self.room)?;
                }
                tokio::task::yield_now().await;
            }
            let Some(State {
                shell: Some((shell, editor)),
                ..
            }) = self.channels.get_mut(&channel)
            else {
                return Ok(());
            };
            if shell.exited() {
                return Ok(());
            }
            let Some(key) = editor.feed(*byte, &mut screen) else {
                continue;
            };
            if terminal {
                say(ssh, channel, std::mem::take(&mut screen), &mut self.room)?;
            }
            match key {
                Key::Line(line) => self.line(channel, &line, ssh).await?,
                Key::Interrupt => {
                    shell.interrupt();
                    let prompt = shell.prompt();
                    say(ssh, channel, prompt.into_bytes(), &mut self.room)?;
                }
                Key::End => self.line(channel, b"exit", ssh).await?,
            }
        }
        if terminal {
            say(ssh, channel, screen, &mut self.room)?;
        }
        Ok(())
    }
}

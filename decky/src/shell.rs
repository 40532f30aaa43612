//! The shell that a login reaches: one session's variables, files and commands.
//!
//! Nothing here touches the machine or the network; everything an attacker does is undone by the
//! end of the session.

mod commands;
mod expand;
mod files;
mod grammar;
mod terminal;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use self::expand::{assignment, truncate};
use self::files::{Actor, Files};
use self::grammar::{Command, Pipeline, RedirectKind, When};
pub(crate) use self::terminal::{Echo, Editor, Key, MAX_SCREEN, cooked};
use crate::budget::Budget;
use crate::net::Network;
use crate::persona::{Account, Facts, Family};

/// Most bytes that one line may print.
const MAX_OUTPUT: usize = 128 * 1024;
/// Longest value of a variable, and longest expanded word.
const MAX_VALUE: usize = 4 * 1024;
/// Most words that a line expands to.
const MAX_WORDS: usize = 1024;
/// Most variables.
const MAX_VARIABLES: usize = 256;
/// How deep shells and substitutions nest.
const MAX_DEPTH: usize = 6;
/// Most lines of history that are kept.
const MAX_HISTORY: usize = 200;
/// The status of a command that the kernel has killed.
const KILLED: u8 = 137;
/// The work that one line may make, nested shells included.
const MAX_WORK: usize = 4 * 1024 * 1024;
/// What a simple command takes of that, whatever it does: it bounds their number.
const COMMAND_WORK: usize = 8 * 1024;
/// What each byte of a script takes to be parsed. A script of 128 KiB, the most that Linux hands to a
/// shell as one argument, is too much.
const PARSE_WORK: usize = 32;

/// Who logged in, from where, to what.
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) at: OffsetDateTime,
    pub(crate) network: Network,
}

/// What a line printed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// In the order of printing; the flag says whether it went to the error stream.
    chunks: Vec<(Stream, Vec<u8>)>,
    size: usize,
    /// How much would have been printed without a bound.
    offered: usize,
    /// What the terminal should wait before it shows the prompt.
    pause: std::time::Duration,
}

/// Where a program prints to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Error,
}

impl Output {
    fn push(&mut self, stream: Stream, bytes: &[u8]) {
        self.offered += bytes.len();
        let room = MAX_OUTPUT.saturating_sub(self.size).min(bytes.len());
        if room == 0 {
            return;
        }
        self.size += room;
        match self.chunks.last_mut() {
            Some((last, held)) if *last == stream => held.extend_from_slice(&bytes[..room]),
            Some(_) | None => self.chunks.push((stream, bytes[..room].to_vec())),
        }
    }

    /// Whether there is no room for more.
    fn is_full(&self) -> bool {
        self.size >= MAX_OUTPUT
    }

    /// Waits as long as the line takes. Everybody else has their turn in any case: many lines may
    /// have come at once.
    pub(crate) async fn wait(&self) {
        tokio::task::yield_now().await;
        tokio::time::sleep(self.pause).await;
    }

    /// What was printed, by stream.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = (Stream, &[u8])> {
        self.chunks
            .iter()
            .map(|(stream, bytes)| (*stream, bytes.as_slice()))
    }

    /// Everything that was printed, as a terminal shows it.
    pub(crate) fn all(&self) -> Vec<u8> {
        self.chunks
            .iter()
            .flat_map(|(_, bytes)| bytes.iter().copied())
            .collect()
    }

    fn only(self, wanted: Stream) -> Vec<u8> {
        let chunks = self
            .chunks
            .into_iter()
            .filter(|(stream, _)| *stream == wanted);
        chunks.flat_map(|(_, bytes)| bytes).collect()
    }
}

/// The shell of one login.
pub(crate) struct Shell {
    facts: Arc<Facts>,
    login: Login,
    account: Account,
    files: Files,
    cwd: String,
    variables: BTreeMap<String, String>,
    status: u8,
    history: Vec<String>,
    exited: bool,
    now: OffsetDateTime,
    depth: usize,
    /// What the line that runs may still do.
    budget: Arc<Budget>,
    pause: std::time::Duration,
    /// Whether it runs one command line that came with the request.
    exec: bool,
    /// Whether the login has a terminal.
    terminal: bool,
    /// Whether the command that runs prints to the terminal.
    to_terminal: bool,
}

impl Shell {
    pub(crate) fn new(facts: Arc<Facts>, login: Login) -> Self {
        let account = facts.account(&login.user).cloned().unwrap_or_else(|| {
            let uid = 1000 + u32::try_from(facts.accounts.len()).unwrap_or(0);
            Account {
                name: login.user.clone(),
                uid,
                gid: uid,
                gecos: ",,,".to_owned(),
                home: format!("/home/{}", login.user),
                shell: "/bin/bash".to_owned(),
            }
        });
        let now = login.at;
        let budget = Arc::new(Budget::of(MAX_WORK));
        let mut files = Files::new(Arc::clone(&facts), Arc::clone(&budget));
        if files.node(&account.home).is_none() {
            let root = Actor {
                uid: 0,
                now: facts.installed(),
            };
            files.make_directory("/", &account.home, root).ok();
        }
        let cwd = if files.node(&account.home).is_some() {
            &account.home
        } else {
            "/"
        }
        .to_owned();
        let path = if account.uid == 0 {
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        } else {
            "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
        };
        let (source, destination) = (login.source, login.destination);
        let variables = [
            ("HOME", account.home.clone()),
            ("LANG", "en_US.UTF-8".to_owned()),
            ("LOGNAME", account.name.clone()),
            ("PATH", path.to_owned()),
            ("PWD", cwd.clone()),
            ("SHELL", account.shell.clone()),
            ("SHLVL", "1".to_owned()),
            ("TERM", "xterm".to_owned()),
            ("USER", account.name.clone()),
            (
                "SSH_CLIENT",
                format!("{} {} {}", source.ip(), source.port(), destination.port()),
            ),
            (
                "SSH_CONNECTION",
                format!(
                    "{} {} {} {}",
                    source.ip(),
                    source.port(),
                    destination.ip(),
                    destination.port()
                ),
            ),
        ];
        Self {
            variables: variables
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            facts,
            login,
            account,
            files,
            cwd,
            status: 0,
            history: Vec::new(),
            exited: false,
            now,
            depth: 0,
            budget,
            pause: std::time::Duration::ZERO,
            exec: false,
            terminal: true,
            to_terminal: false,
        }
    }

    /// Sets a variable of the environment, within bounds.
    pub(crate) fn set(&mut self, name: &str, mut value: String) {
        let known = self.variables.contains_key(name);
        if name.len() <= 128 && (known || self.variables.len() < MAX_VARIABLES) {
            truncate(&mut value, MAX_VALUE);
            self.variables.insert(name.to_owned(), value);
        }
    }

    /// Forgets the variables that only a login over SSH has.
    pub(crate) fn without_ssh(mut self) -> Self {
        self.variables.retain(|name, _| !name.starts_with("SSH_"));
        self
    }

    /// The shell that runs one command line and is gone.
    pub(crate) fn for_exec(mut self) -> Self {
        self.exec = true;
        self.terminal = false;
        self
    }

    /// The shell of a login without a terminal.
    pub(crate) fn without_terminal(mut self) -> Self {
        self.terminal = false;
        self
    }

    /// What a login shell says first.
    pub(crate) fn greeting(&self) -> String {
        let release = self.facts.release;
        match release.family {
            Family::Embedded => "\n\nBusyBox v1.31.1 () built-in shell (ash)\n\n".to_owned(),
            Family::Debian | Family::Bsd | Family::Windows | Family::Cisco => {
                let uname = format!(
                    "{} {} {} {} {}",
                    release.system,
                    self.facts.hostname,
                    release.kernel,
                    release.build,
                    release.machine
                );
                if release.id == "ubuntu" {
                    format!(
                        "Welcome to {} (GNU/Linux {} {})\n\n * Documentation:  https://help.ubuntu.com\n * Management:     https://landscape.canonical.com\n * Support:        https://ubuntu.com/pro\n\n",
                        release.pretty, release.kernel, release.machine
                    )
                } else {
                    format!(
                        "{uname}\n\nThe programs included with the Debian GNU/Linux system are free software;\nthe exact distribution terms for each program are described in the\nindividual files in /usr/share/doc/*/copyright.\n\nDebian GNU/Linux comes with ABSOLUTELY NO WARRANTY, to the extent\npermitted by applicable law.\n"
                    )
                }
            }
        }
    }

    /// The prompt.
    pub(crate) fn prompt(&self) -> String {
        let home = &self.account.home;
        let place = match self.cwd.strip_prefix(home.as_str()) {
            Some("") => "~".to_owned(),
            Some(below) if below.starts_with('/') => format!("~{below}"),
            Some(_) | None => self.cwd.clone(),
        };
        let sign = if self.account.uid == 0 { '#' } else { '$' };
        match self.facts.release.family {
            Family::Embedded => format!("{place} {sign} "),
            Family::Debian | Family::Bsd | Family::Windows | Family::Cisco => {
                format!(
                    "{}@{}:{place}{sign} ",
                    self.account.name, self.facts.hostname
                )
            }
        }
    }

    /// Whether the shell is done.
    pub(crate) fn exited(&self) -> bool {
        self.exited
    }

    /// The status of the last command.
    pub(crate) fn status(&self) -> u8 {
        self.status
    }

    /// Says that the line was interrupted.
    pub(crate) fn interrupt(&mut self) {
        self.status = 130;
    }

    /// Runs a line, or several.
    pub(crate) fn execute(&mut self, line: &[u8], now: OffsetDateTime) -> Output {
        self.now = now;
        self.budget.renew(MAX_WORK);
        self.pause = std::time::Duration::ZERO;
        let text = String::from_utf8_lossy(line);
        if !text.trim().is_empty() && self.history.len() < MAX_HISTORY {
            self.history.push(text.trim().to_owned());
        }
        let mut output = Output::default();
        self.script(&text, &mut output);
        output.pause = self.pause;
        output
    }

    /// The name under which the shell complains.
    fn name(&self) -> &'static str {
        // bash counts lines in a command string since 5.1, which is younger than Ubuntu 20.04.
        if self.exec && self.facts.release.codename == "focal" {
            return "bash";
        }
        match (self.facts.release.family, self.exec) {
            (Family::Embedded, true) => "sh",
            (Family::Embedded, false) => "-sh",
            (Family::Debian | Family::Bsd | Family::Windows | Family::Cisco, true) => {
                "bash: line 1"
            }
            (Family::Debian | Family::Bsd | Family::Windows | Family::Cisco, false) => "-bash",
        }
    }

    fn actor(&self) -> Actor {
        Actor {
            uid: self.account.uid,
            now: self.now,
        }
    }

    fn uptime(&self) -> Duration {
        self.facts.uptime(self.now)
    }

    /// Runs a script, unless shells nest too deep.
    fn script(&mut self, source: &str, output: &mut Output) {
        if self.depth >= MAX_DEPTH {
            return;
        }
        if !self.budget.spend(source.len() * PARSE_WORK) {
            self.status = KILLED;
            return;
        }
        let script = match grammar::parse(source) {
            Ok(script) => script,
            Err(error) => {
                output.push(
                    Stream::Error,
                    format!("{}: {error}\n", self.name()).as_bytes(),
                );
                self.status = 2;
                return;
            }
        };
        self.depth += 1;
        for pipeline in &script {
            let run = match pipeline.when {
                When::Always => true,
                When::Succeeded => self.status == 0,
                When::Failed => self.status != 0,
            };
            if run && !self.exited {
                self.pipeline(pipeline, output);
            }
        }
        self.depth -= 1;
    }

    fn pipeline(&mut self, pipeline: &Pipeline, output: &mut Output) {
        if pipeline.background && self.depth == 1 {
            let pid = 2000 + self.facts.seed.pick("jobs", 9000) + self.history.len() as u64 * 3;
            output.push(Stream::Error, format!("[1] {pid}\n").as_bytes());
        }
        let mut stdin = Vec::new();
        let last = pipeline.commands.len().saturating_sub(1);
        for (index, command) in pipeline.commands.iter().enumerate() {
            let mut own = Output::default();
            self.to_terminal = self.terminal && self.depth == 1 && index == last;
            self.command(command, &stdin, &mut own);
            stdin.clear();
            for (stream, bytes) in own.chunks {
                match stream {
                    Stream::Out if index < last => stdin.extend_from_slice(&bytes),
                    Stream::Out | Stream::Error => output.push(stream, &bytes),
                }
            }
        }
    }

    fn command(&mut self, command: &Command, stdin: &[u8], output: &mut Output) {
        if !self.budget.spend(COMMAND_WORK + stdin.len()) {
            self.status = KILLED;
            return;
        }
        let mut words = Vec::new();
        let mut length = 0;
        for word in &command.words {
            let before = words.len();
            self.expand(word, &mut words);
            length += words[before..].iter().map(String::len).sum::<usize>();
            if length > MAX_OUTPUT {
                output.push(Stream::Error, b"-bash: Argument list too long\n");
                self.status = 126;
                return;
            }
            if words.len() >= MAX_WORDS || self.budget.is_spent() {
                break;
            }
        }
        let mut stdin = stdin.to_vec();
        let mut targets: [Target; 2] = [Target::Stream(Stream::Out), Target::Stream(Stream::Error)];
        for redirect in &command.redirects {
            let path = self.expand_one(&redirect.target);
            let target = match redirect.kind {
                RedirectKind::Read => match self.read(&path) {
                    Ok(bytes) => {
                        stdin = bytes;
                        continue;
                    }
                    Err(error) => return self.complain(&path, &error, output),
                },
                RedirectKind::Merge => match path.as_str() {
                    "1" => targets[0].clone(),
                    "2" => targets[1].clone(),
                    _ => continue,
                },
                kind @ (RedirectKind::Truncate | RedirectKind::Append) => {
                    let append = kind == RedirectKind::Append;
                    let actor = self.actor();
                    if let Err(error) = self.files.write(&self.cwd, &path, b"", append, actor) {
                        return self.complain(&path, &error, output);
                    }
                    Target::File(path)
                }
            };
            match redirect.stream {
                2 => targets[1] = target,
                3 => targets = [target.clone(), target],
                _ => targets[0] = target,
            }
        }
        self.to_terminal &= matches!(targets[0], Target::Stream(_));
        let mut own = Output::default();
        self.simple(words, &stdin, &mut own);
        if !self.budget.spend(own.offered) {
            self.status = KILLED;
        }
        for (stream, bytes) in own.chunks {
            let target = match stream {
                Stream::Out => &targets[0],
                Stream::Error => &targets[1],
            };
            match target {
                Target::Stream(stream) => output.push(*stream, &bytes),
                Target::File(path) => {
                    let actor = self.actor();
                    if let Err(error) = self.files.write(&self.cwd, path, &bytes, true, actor) {
                        let text = format!("{}: write error: {error}\n", self.name());
                        output.push(Stream::Error, text.as_bytes());
                        self.status = 1;
                    }
                }
            }
        }
    }

    fn complain(&mut self, path: &str, error: &dyn std::fmt::Display, output: &mut Output) {
        let text = format!("{}: {path}: {error}\n", self.name());
        output.push(Stream::Error, text.as_bytes());
        self.status = 1;
    }

    /// Runs one command whose words are expanded.
    fn simple(&mut self, mut words: Vec<String>, stdin: &[u8], output: &mut Output) {
        let mut assignments = 0;
        for (name, value) in words.iter().map_while(|word| assignment(word)) {
            self.set(name, value.to_owned());
            self.status = 0;
            assignments += 1;
        }
        words.drain(..assignments);
        if words.is_empty() {
            return;
        }
        self.status = commands::run(self, &words, stdin, output);
    }
}

#[derive(Clone)]
enum Target {
    Stream(Stream),
    File(String),
}

#[cfg(test)]
mod tests;

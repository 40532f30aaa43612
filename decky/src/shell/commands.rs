//! Finds the command of a name and runs it.

mod files;
mod network;
mod processes;
mod system;
mod text;

use std::time::Duration;

use super::{Output, Shell, Stream};
use crate::persona::NodeKind;

/// One command at work: its words, its input, where it prints.
pub(super) struct Call<'a> {
    pub(super) name: &'a str,
    pub(super) args: &'a [String],
    pub(super) stdin: &'a [u8],
    flags: Flags,
    output: &'a mut Output,
}

/// The letters of the options, a bit for each.
struct Flags(u128);

impl Flags {
    fn of(args: &[String]) -> Self {
        let letters = args
            .iter()
            .filter_map(|arg| arg.strip_prefix('-'))
            .filter(|letters| !letters.starts_with('-'))
            .flat_map(str::bytes)
            .filter(u8::is_ascii);
        Self(letters.fold(0, |flags, letter| flags | 1 << letter))
    }
}

impl Call<'_> {
    pub(super) fn out(&mut self, text: impl AsRef<[u8]>) {
        self.output.push(Stream::Out, text.as_ref());
    }

    pub(super) fn error(&mut self, text: impl AsRef<[u8]>) {
        self.output.push(Stream::Error, text.as_ref());
    }

    /// Whether whatever it would print further is lost.
    pub(super) fn is_full(&self) -> bool {
        self.output.is_full()
    }

    /// Prints a line and succeeds.
    pub(super) fn say(&mut self, text: impl AsRef<str>) -> u8 {
        self.out(text.as_ref());
        self.out("\n");
        0
    }

    /// Complains in the command's name and fails.
    pub(super) fn fail(&mut self, text: impl AsRef<str>) -> u8 {
        let text = format!("{}: {}\n", self.name, text.as_ref());
        self.error(text);
        1
    }

    /// Whether one of the flag letters is given.
    pub(super) fn flag(&self, letter: char) -> bool {
        letter.is_ascii() && self.flags.0 >> u32::from(letter) & 1 == 1
    }

    /// The words that are no options.
    pub(super) fn operands(&self) -> Vec<String> {
        self.args
            .iter()
            .filter(|arg| !arg.starts_with('-') || arg.len() == 1)
            .cloned()
            .collect()
    }
}

/// Names that the shell itself answers to.
const BUILTINS: &[&str] = &[
    ":", ".", "[", "alias", "bg", "cd", "command", "declare", "echo", "enable", "eval", "exec",
    "exit", "export", "false", "fg", "hash", "history", "jobs", "kill", "let", "logout", "printf",
    "pwd", "read", "set", "shopt", "source", "test", "trap", "true", "type", "ulimit", "umask",
    "unalias", "unset", "wait",
];

/// Runs `words`, of which the first is the command; gives its status.
pub(super) fn run(shell: &mut Shell, words: &[String], stdin: &[u8], output: &mut Output) -> u8 {
    let Some((first, args)) = words.split_first() else {
        return 0;
    };
    let builtin = BUILTINS.contains(&first.as_str());
    if !builtin {
        match shell.locate(first) {
            Located::Program => {}
            Located::Script(text) => {
                shell.script(&text, output);
                return shell.status;
            }
            Located::Refused(reason, status) => {
                let text = if first.contains('/') {
                    format!("{}: {first}: {reason}\n", shell.name())
                } else {
                    format!("{}: {first}: command not found\n", shell.name())
                };
                output.push(Stream::Error, text.as_bytes());
                return status;
            }
        }
    }
    let name = first.rsplit('/').next().unwrap_or(first);
    let mut call = Call {
        name,
        args,
        stdin,
        flags: Flags::of(args),
        output,
    };
    dispatch(shell, &mut call)
}

fn dispatch(shell: &mut Shell, call: &mut Call<'_>) -> u8 {
    match call.name {
        ":" | "true" | "alias" | "bg" | "enable" | "fg" | "hash" | "jobs" | "set" | "shopt"
        | "trap" | "ulimit" | "umask" | "unalias" | "wait" | "declare" | "let" | "read" => 0,
        "false" => 1,
        "echo" => text::echo(call),
        "printf" => text::printf(call),
        "cat" => text::cat(shell, call),
        "head" | "tail" => text::ends(shell, call),
        "grep" => text::grep(shell, call),
        "wc" => text::wc(shell, call),
        "sort" | "uniq" => text::order(shell, call),
        "cut" => text::cut(shell, call),
        "tr" => text::tr(call),
        "awk" => text::awk(shell, call),
        "sed" => text::sed(shell, call),
        "base64" => text::base64(shell, call),
        "pwd" => call.say(&shell.cwd),
        "cd" => files::cd(shell, call),
        "ls" => files::ls(shell, call),
        "mkdir" | "rmdir" | "touch" | "rm" | "cp" | "mv" | "chmod" | "chown" | "ln" | "dd" => {
            files::change(shell, call)
        }
        "find" => files::find(shell, call),
        "which" | "type" | "command" => files::which(shell, call),
        "whoami" | "id" | "groups" | "hostname" | "uname" | "uptime" | "date" | "nproc"
        | "lscpu" | "df" | "du" | "free" | "env" | "crontab" | "dmesg" | "last" | "w" | "who" => {
            system::run(shell, call)
        }
        "export" | "unset" | "history" | "exit" | "logout" | "clear" | "passwd" | "chpasswd" => {
            system::session(shell, call)
        }
        "ps" | "top" | "kill" | "pkill" | "systemctl" => processes::run(shell, call),
        "ifconfig" | "ip" | "netstat" | "ss" | "ping" | "wget" | "curl" | "ssh" => {
            network::run(shell, call)
        }
        "sleep" => sleep(shell, call),
        "test" | "[" => files::test(shell, call),
        "sudo" | "nohup" | "eval" | "exec" | "xargs" | "busybox" => pass_on(shell, call),
        "su" | "sh" | "bash" | "source" | "." => subshell(shell, call),
        "python3" | "perl" | "vi" | "tar" => 0,
        _ => 0,
    }
}

/// Where a command that is no builtin comes from.
enum Located {
    Program,
    Script(String),
    Refused(&'static str, u8),
}

impl Shell {
    fn locate(&self, name: &str) -> Located {
        use crate::persona::Content;
        if !name.contains('/') {
            let known = self.programs().any(|(_, program)| program == name);
            return if known {
                Located::Program
            } else {
                Located::Refused("command not found", 127)
            };
        }
        match self.files.find(&self.cwd, name) {
            Ok((_, node)) => match &node.kind {
                NodeKind::Directory | NodeKind::Link(_) => Located::Refused("Is a directory", 126),
                NodeKind::File(_) if node.mode & 0o111 == 0 => {
                    Located::Refused("Permission denied", 126)
                }
                NodeKind::File(Content::Program(_)) => Located::Program,
                NodeKind::File(Content::Live(_)) => Located::Refused("Permission denied", 126),
                NodeKind::File(Content::Bytes(bytes)) => match std::str::from_utf8(bytes) {
                    Ok(text) if !text.contains('\0') => Located::Script(text.to_owned()),
                    Ok(_) | Err(_) => {
                        Located::Refused("cannot execute binary file: Exec format error", 126)
                    }
                },
            },
            Err(_) => {
                // `/usr/bin/id` and `/bin/id` are one program on a merged file system.
                let program = ["/bin/", "/usr/bin/", "/sbin/", "/usr/sbin/"]
                    .iter()
                    .find_map(|directory| name.strip_prefix(directory));
                match program {
                    Some(program) if self.programs().any(|(_, known)| known == program) => {
                        Located::Program
                    }
                    Some(_) | None => Located::Refused("No such file or directory", 127),
                }
            }
        }
    }

    fn programs(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        crate::persona::PROGRAMS.iter().copied()
    }
}

fn sleep(shell: &mut Shell, call: &mut Call<'_>) -> u8 {
    let Some(seconds) = call
        .args
        .first()
        .and_then(|arg| arg.trim_end_matches('s').parse::<f64>().ok())
    else {
        return call.fail("missing operand\nTry 'sleep --help' for more information.");
    };
    // A connection must not be held for longer than a person would wait for the answer.
    let seconds = if seconds.is_finite() {
        seconds.clamp(0.0, 10.0)
    } else {
        0.0
    };
    shell.pause = (shell.pause + Duration::from_secs_f64(seconds)).min(Duration::from_secs(10));
    0
}

/// Runs the command that follows the name of another.
fn pass_on(shell: &mut Shell, call: &mut Call<'_>) -> u8 {
    let skip = call
        .args
        .iter()
        .position(|arg| !arg.starts_with('-') || arg.len() == 1)
        .unwrap_or(call.args.len());
    let mut words = call.args[skip..].to_vec();
    if call.name == "busybox" {
        let Some(applet) = words.first() else {
            return call.say("BusyBox v1.35.0 (Debian 1:1.35.0-4+b3) multi-call binary.\nBusyBox is copyrighted by many authors between 1998-2015.\nLicensed under GPLv2. See source distribution for detailed\ncopyright notices.\n\nUsage: busybox [function [arguments]...]");
        };
        if !shell.programs().any(|(_, program)| program == applet) {
            let text = format!("{applet}: applet not found\n");
            call.error(text);
            return 127;
        }
    }
    if call.name == "xargs" {
        let more = String::from_utf8_lossy(call.stdin);
        words.extend(more.split_whitespace().take(64).map(str::to_owned));
        if words.is_empty() {
            return 0;
        }
    }
    if call.name == "eval" {
        let source = words.join(" ");
        shell.script(&source, call.output);
        return shell.status;
    }
    if words.is_empty() {
        return if call.name == "sudo" {
            call.error("usage: sudo -h | -K | -k | -V\nusage: sudo [-ABbEHnPS] [-u user] [command [arg ...]]\n");
            1
        } else {
            0
        };
    }
    if shell.depth >= super::MAX_DEPTH {
        return 1;
    }
    let mut account = None;
    if call.name == "sudo"
        && let Some(root) = shell.facts.account("root").cloned()
    {
        account = Some(std::mem::replace(&mut shell.account, root));
    }
    shell.depth += 1;
    let status = run(shell, &words, call.stdin, call.output);
    shell.depth -= 1;
    if let Some(account) = account {
        shell.account = account;
    }
    status
}

/// A shell in the shell: a string, a file, its input, or nothing but another prompt.
fn subshell(shell: &mut Shell, call: &mut Call<'_>) -> u8 {
    let source = if call.flag('c') {
        call.args
            .iter()
            .skip_while(|arg| !(arg.starts_with('-') && arg.ends_with('c')))
            .nth(1)
            .cloned()
            .unwrap_or_default()
    } else if call.name == "su" {
        return 0;
    } else if let Some(path) = call.operands().first() {
        match shell.read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => {
                let text = format!("{}: {path}: {error}\n", call.name);
                call.error(text);
                return 127;
            }
        }
    } else {
        String::from_utf8_lossy(call.stdin).into_owned()
    };
    shell.script(&source, call.output);
    shell.status
}

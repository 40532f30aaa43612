//! Commands about files.

use time::OffsetDateTime;
use time::macros::format_description;

use super::super::files::{Errno, may, size};
use super::super::{MAX_DEPTH, Shell};
use super::Call;
use crate::pattern;
use crate::persona::{Content, Live, Node, NodeKind};

/// What it takes to make up a file that is live; the hashes of accounts are many.
const LIVE_WORK: usize = 16 * 1024;
const SHADOW_WORK: usize = 256 * 1024;

impl Shell {
    /// The bytes of a file, as far as the account may read them.
    pub(in super::super) fn read(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let (_, node) = self.files.find(&self.cwd, path)?;
        match &node.kind {
            NodeKind::Directory => Err(Errno::IsADirectory),
            NodeKind::Link(_) => Err(Errno::NotFound),
            NodeKind::File(_) if !may(node, self.account.uid, 0o4) => Err(Errno::Denied),
            _ if !self.budget.spend(self.work(node)) => Err(Errno::NoMemory),
            NodeKind::File(Content::Bytes(bytes)) => Ok(bytes.clone()),
            NodeKind::File(Content::Live(live)) => Ok(self.live(*live).into_bytes()),
            // The head of an ELF file is what loaders of malware read to learn the architecture.
            NodeKind::File(Content::Program(_)) => Ok(self.elf()),
        }
    }

    /// What it takes to read or copy a node.
    fn work(&self, node: &Node) -> usize {
        match &node.kind {
            NodeKind::File(Content::Bytes(bytes)) => bytes.len(),
            NodeKind::File(Content::Live(Live::Shadow)) => SHADOW_WORK,
            NodeKind::File(Content::Live(_)) => LIVE_WORK,
            NodeKind::File(Content::Program(_)) | NodeKind::Directory | NodeKind::Link(_) => 0,
        }
    }

    fn elf(&self) -> Vec<u8> {
        let (class, machine) = if self.facts.release.machine == "x86_64" {
            (2, 0x3e)
        } else {
            (1, 0x28)
        };
        let mut head = vec![
            0x7f, b'E', b'L', b'F', class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        head.extend([3, 0, machine, 0, 1, 0, 0, 0]);
        head.resize(64, 0);
        head
    }

    fn owner(&self, id: u32) -> String {
        if self.account.uid == id {
            return self.account.name.clone();
        }
        let account = self.facts.accounts.iter().find(|account| account.uid == id);
        account.map_or_else(|| id.to_string(), |account| account.name.clone())
    }
}

pub(super) fn cd(shell: &mut Shell, call: &mut Call<'_>) -> u8 {
    let target = match call.args.first().map(String::as_str) {
        None | Some("~") => shell.account.home.clone(),
        Some("-") => shell.variables.get("OLDPWD").cloned().unwrap_or_default(),
        Some(path) => path.to_owned(),
    };
    let found = shell
        .files
        .find(&shell.cwd, &target)
        .and_then(|(resolved, node)| match node.kind {
            NodeKind::Directory if may(node, shell.account.uid, 0o1) => Ok(resolved),
            NodeKind::Directory => Err(Errno::Denied),
            NodeKind::File(_) | NodeKind::Link(_) => Err(Errno::NotADirectory),
        });
    match found {
        Ok(resolved) => {
            let before = std::mem::replace(&mut shell.cwd, resolved.clone());
            shell.set("OLDPWD", before);
            shell.set("PWD", resolved);
            0
        }
        Err(error) => {
            let text = format!("{}: cd: {target}: {error}\n", shell.name());
            call.error(text);
            1
        }
    }
}

pub(super) fn ls(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let mut operands = call.operands();
    if operands.is_empty() {
        operands.push(".".to_owned());
    }
    let many = operands.len() > 1;
    let mut status = 0;
    for path in &operands {
        let (resolved, node) = match shell.files.find(&shell.cwd, path) {
            Ok(found) => found,
            Err(error) => {
                call.fail(format!("cannot access '{path}': {error}"));
                status = 2;
                continue;
            }
        };
        if node.kind != NodeKind::Directory || call.flag('d') {
            list(shell, call, &[(path.clone(), node)]);
            continue;
        }
        if !may(node, shell.account.uid, 0o4) {
            call.fail(format!("cannot open directory '{path}': {}", Errno::Denied));
            status = 2;
            continue;
        }
        if many {
            call.say(format!("{path}:"));
        }
        let mut entries = Vec::new();
        if call.flag('a') {
            let parent = shell
                .files
                .resolve(&resolved, "..", true)
                .unwrap_or_default();
            entries.push((".".to_owned(), node));
            if let Some(parent) = shell.files.node(&parent) {
                entries.push(("..".to_owned(), parent));
            }
        }
        let hidden = call.flag('a') || call.flag('A');
        let inside = shell.files.list(&resolved);
        entries.extend(
            inside
                .into_iter()
                .filter(|(name, _)| hidden || !name.starts_with('.')),
        );
        if call.flag('t') {
            entries.sort_by_key(|(_, node)| std::cmp::Reverse(node.modified));
        }
        if call.flag('l') {
            let blocks: u64 = entries
                .iter()
                .map(|(_, node)| size(node).div_ceil(4096) * 4)
                .sum();
            call.say(format!("total {blocks}"));
        }
        list(shell, call, &entries);
    }
    status
}

fn list(shell: &Shell, call: &mut Call<'_>, entries: &[(String, &Node)]) {
    if !call.flag('l') {
        let lines = call.flag('1') || !shell.to_terminal;
        let separator = if lines { "\n" } else { "  " };
        let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            call.say(names.join(separator));
        }
        return;
    }
    let human = call.flag('h');
    for (name, node) in entries {
        let kind = match node.kind {
            NodeKind::Directory => 'd',
            NodeKind::Link(_) => 'l',
            NodeKind::File(_) => '-',
        };
        let links = if kind == 'd' { 2 } else { 1 };
        let size = if human {
            human_size(size(node))
        } else {
            size(node).to_string()
        };
        let arrow = match &node.kind {
            NodeKind::Link(target) => format!(" -> {target}"),
            NodeKind::Directory | NodeKind::File(_) => String::new(),
        };
        call.say(format!(
            "{kind}{} {links} {:<8} {:<8} {size:>7} {} {name}{arrow}",
            permissions(node.mode),
            shell.owner(node.uid),
            shell.owner(node.gid),
            date(node.modified, shell.now),
        ));
    }
}

fn human_size(bytes: u64) -> String {
    if bytes < 1024 {
        bytes.to_string()
    } else {
        format!("{}K", bytes.div_ceil(1024))
    }
}

fn permissions(mode: u32) -> String {
    let mut text = String::new();
    for shift in [6, 3, 0] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        let sticky = shift == 0 && mode & 0o1000 != 0;
        let group = shift == 3 && mode & 0o2000 != 0;
        text.push(match (bits & 1 != 0, sticky, group) {
            (true, true, _) => 't',
            (true, _, true) => 's',
            (true, false, false) => 'x',
            (false, _, _) => '-',
        });
    }
    text
}

fn date(at: OffsetDateTime, now: OffsetDateTime) -> String {
    let recent = at <= now && now - at < time::Duration::days(182);
    let format = if recent {
        at.format(format_description!(
            "[month repr:short] [day padding:space] [hour]:[minute]"
        ))
    } else {
        at.format(format_description!(
            "[month repr:short] [day padding:space]  [year]"
        ))
    };
    format.unwrap_or_default()
}

/// The commands that change files.
pub(super) fn change(shell: &mut Shell, call: &mut Call<'_>) -> u8 {
    let operands = call.operands();
    let name = call.name.to_owned();
    let least = if matches!(name.as_str(), "cp" | "mv" | "chmod" | "chown" | "ln") {
        2
    } else {
        1
    };
    if name == "dd" {
        return dd(shell, call);
    }
    if operands.len() < least {
        if name == "rm" && call.flag('f') {
            return 0;
        }
        let missing = if operands.is_empty() {
            "missing file operand".to_owned()
        } else {
            format!("missing destination file operand after '{}'", operands[0])
        };
        return call.fail(format!(
            "{missing}\nTry '{name} --help' for more information."
        ));
    }
    if matches!(name.as_str(), "cp" | "mv") {
        return copy(shell, call, &operands);
    }
    let actor = shell.actor();
    let mode = mode(&operands[0]);
    let mut status = 0;
    for path in operands
        .iter()
        .skip(usize::from(matches!(name.as_str(), "chmod" | "chown")))
    {
        let cwd = shell.cwd.clone();
        let done = match name.as_str() {
            "mkdir" if call.flag('p') => make_parents(shell, path),
            "mkdir" => shell.files.make_directory(&cwd, path, actor),
            "touch" => shell.files.write(&cwd, path, b"", true, actor),
            "rmdir" => match shell.files.find(&cwd, path) {
                Ok((resolved, _)) if !shell.files.list(&resolved).is_empty() => {
                    Err(Errno::NotEmpty)
                }
                Ok(_) => shell.files.remove(&cwd, path, true, actor),
                Err(error) => Err(error),
            },
            "rm" => shell
                .files
                .remove(&cwd, path, call.flag('r') || call.flag('R'), actor),
            "chmod" => {
                let found = shell.files.find(&cwd, path);
                let before = found.map_or(0, |(_, node)| node.mode);
                shell.files.set_mode(&cwd, path, mode.of(before), actor)
            }
            _ => shell.files.find(&cwd, path).map(|_| ()),
        };
        if let Err(error) = done {
            if name == "rm" && call.flag('f') && error == Errno::NotFound {
                continue;
            }
            let what = match name.as_str() {
                "mkdir" => format!("cannot create directory '{path}'"),
                "touch" => format!("cannot touch '{path}'"),
                "rm" => format!("cannot remove '{path}'"),
                "rmdir" => format!("failed to remove '{path}'"),
                _ => format!("cannot access '{path}'"),
            };
            status = call.fail(format!("{what}: {error}"));
        }
    }
    status
}

/// The bits of a mode that are kept, and those that are set.
struct Mode {
    kept: u32,
    set: u32,
}

impl Mode {
    const fn of(&self, before: u32) -> u32 {
        before & self.kept | self.set
    }
}

/// Reads the mode that `chmod` is given.
fn mode(text: &str) -> Mode {
    if let Ok(mode) = u32::from_str_radix(text, 8) {
        let set = mode & 0o7777;
        return Mode { kept: 0, set };
    }
    let bits = |letters: &str| {
        letters.chars().fold(0, |bits, letter| {
            bits | match letter {
                'r' => 0o444,
                'w' => 0o200,
                'x' => 0o111,
                _ => 0,
            }
        })
    };
    let (kept, set) = match (text.split_once('+'), text.split_once('-')) {
        (Some((_, letters)), _) => (!0, bits(letters)),
        (None, Some((_, letters))) => (!bits(letters), 0),
        (None, None) => (!0, 0),
    };
    Mode { kept, set }
}

fn make_parents(shell: &mut Shell, path: &str) -> Result<(), Errno> {
    let mut at = if path.starts_with('/') {
        String::new()
    } else {
        ".".to_owned()
    };
    for part in path.split('/').filter(|part| !part.is_empty()) {
        at = format!("{at}/{part}");
        match shell.files.make_directory(&shell.cwd, &at, shell.actor()) {
            Ok(()) | Err(Errno::Exists) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn copy(shell: &mut Shell, call: &mut Call<'_>, operands: &[String]) -> u8 {
    let Some((target, sources)) = operands.split_last() else {
        return 1;
    };
    let cwd = shell.cwd.clone();
    let actor = shell.actor();
    let into = shell
        .files
        .find(&cwd, target)
        .is_ok_and(|(_, node)| node.kind == NodeKind::Directory);
    let mut status = 0;
    for source in sources {
        let name = source
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or(source);
        let destination = if into {
            format!("{target}/{name}")
        } else {
            target.clone()
        };
        let done = match shell.files.find(&cwd, source) {
            Ok((_, node)) if node.kind == NodeKind::Directory => {
                let (kind, mode) = (node.kind.clone(), node.mode);
                if call.name == "cp" && !call.flag('r') && !call.flag('a') && !call.flag('R') {
                    status = call.fail(format!("-r not specified; omitting directory '{source}'"));
                    continue;
                }
                shell.files.put(&cwd, &destination, kind, mode, actor)
            }
            Ok((_, node)) if !may(node, actor.uid, 0o4) => Err(Errno::Denied),
            Ok((_, node)) if !shell.budget.spend(shell.work(node)) => Err(Errno::NoMemory),
            Ok((_, node)) => {
                let (kind, mode) = (node.kind.clone(), node.mode);
                shell.files.put(&cwd, &destination, kind, mode, actor)
            }
            Err(error) => {
                status = call.fail(format!("cannot stat '{source}': {error}"));
                continue;
            }
        };
        let done = match done {
            Ok(()) if call.name == "mv" => shell.files.remove(&cwd, source, true, actor),
            done => done,
        };
        if let Err(error) = done {
            status = call.fail(format!(
                "cannot create regular file '{destination}': {error}"
            ));
        }
    }
    status
}

/// Enough of dd for `dd if=/bin/echo bs=52 count=1`, by which malware learns the architecture.
fn dd(shell: &mut Shell, call: &mut Call<'_>) -> u8 {
    let value = |name: &str| {
        call.args
            .iter()
            .find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='))
    };
    let number = |name: &str| value(name).and_then(|text| text.parse::<usize>().ok());
    let bytes = match value("if") {
        Some(path) => shell.read(path),
        None => Ok(call.stdin.to_vec()),
    };
    let mut bytes = match bytes {
        Ok(bytes) => bytes,
        Err(error) => {
            let path = value("if").unwrap_or_default().to_owned();
            return call.fail(format!("failed to open '{path}': {error}"));
        }
    };
    let block = number("bs").unwrap_or(512).max(1);
    if let Some(count) = number("count") {
        bytes.truncate(block.saturating_mul(count));
    }
    let blocks = bytes.len() / block;
    let part = usize::from(!bytes.len().is_multiple_of(block));
    let target = value("of").map(str::to_owned);
    if let Some(path) = target {
        let actor = shell.actor();
        if let Err(error) = shell.files.write(&shell.cwd, &path, &bytes, false, actor) {
            return call.fail(format!("failed to open '{path}': {error}"));
        }
    } else {
        call.out(&bytes);
    }
    call.error(format!(
        "{blocks}+{part} records in\n{blocks}+{part} records out\n{} bytes copied, 0.000{}s\n",
        bytes.len(),
        100 + shell.now.microsecond() % 800
    ));
    0
}

pub(super) fn find(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let operands = call.operands();
    let root = operands
        .first()
        .filter(|_| call.args.first().is_some_and(|arg| !arg.starts_with('-')));
    let root = root.map_or(".", String::as_str);
    let name = call
        .args
        .iter()
        .position(|arg| arg == "-name")
        .and_then(|at| call.args.get(at + 1))
        .cloned();
    let resolved = match shell.files.find(&shell.cwd, root) {
        Ok((resolved, _)) => resolved,
        Err(error) => return call.fail(format!("'{root}': {error}")),
    };
    let mut pending = vec![(resolved, root.trim_end_matches('/').to_owned())];
    let mut printed = 0;
    while let Some((resolved, shown)) = pending.pop() {
        let last = shown.rsplit('/').next().unwrap_or_default();
        if name
            .as_ref()
            .is_none_or(|name| pattern::matches(name.as_bytes(), last.as_bytes(), &shell.budget))
        {
            call.say(if shown.is_empty() { "/" } else { &shown });
            printed += 1;
        }
        let deep = resolved.matches('/').count() > MAX_DEPTH * 4;
        let directory = shell.files.node(&resolved).is_some_and(|node| {
            node.kind == NodeKind::Directory && may(node, shell.account.uid, 0o4)
        });
        if directory && !deep && printed < 2000 {
            for (name, _) in shell.files.list(&resolved).into_iter().rev() {
                let inside = format!("{}/{name}", resolved.trim_end_matches('/'));
                pending.push((inside, format!("{shown}/{name}")));
            }
        }
    }
    0
}

pub(super) fn which(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let mut status = 0;
    for name in call.operands() {
        let builtin = super::BUILTINS.contains(&name.as_str());
        match shell.programs().find(|(_, program)| *program == name) {
            _ if builtin && call.name == "type" => {
                call.say(format!("{name} is a shell builtin"));
            }
            Some((directory, _)) => {
                let path = format!(
                    "{}/{name}",
                    directory
                        .replace("/bin", "/usr/bin")
                        .replace("/usr/usr", "/usr")
                );
                call.say(if call.name == "type" {
                    format!("{name} is {path}")
                } else {
                    path
                });
            }
            None if builtin && call.name == "command" => {
                call.say(&name);
            }
            None => {
                if call.name == "type" {
                    let text = format!("{}: type: {name}: not found\n", shell.name());
                    call.error(text);
                }
                status = 1;
            }
        }
    }
    status
}

pub(super) fn test(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let mut args: Vec<&str> = call.args.iter().map(String::as_str).collect();
    if call.name == "[" && args.pop() != Some("]") {
        let text = format!("{}: [: missing `]'\n", shell.name());
        call.error(text);
        return 2;
    }
    let negated = args.first() == Some(&"!");
    if negated {
        args.remove(0);
    }
    let number = |text: &str| text.parse::<i64>().unwrap_or(0);
    let node = |path: &str| {
        shell
            .files
            .find(&shell.cwd, path)
            .ok()
            .map(|(_, node)| node)
    };
    let holds = match args.as_slice() {
        [] => false,
        [text] => !text.is_empty(),
        ["-z", text] => text.is_empty(),
        ["-n", text] => !text.is_empty(),
        ["-e", path] => node(path).is_some(),
        ["-f", path] => node(path).is_some_and(|node| matches!(node.kind, NodeKind::File(_))),
        ["-d", path] => node(path).is_some_and(|node| node.kind == NodeKind::Directory),
        ["-r", path] => node(path).is_some_and(|node| may(node, shell.account.uid, 0o4)),
        ["-w", path] => node(path).is_some_and(|node| may(node, shell.account.uid, 0o2)),
        ["-x", path] => node(path).is_some_and(|node| may(node, shell.account.uid, 0o1)),
        ["-s", path] => node(path).is_some_and(|node| size(node) > 0),
        [left, "=" | "==", right] => left == right,
        [left, "!=", right] => left != right,
        [left, "-eq", right] => number(left) == number(right),
        [left, "-ne", right] => number(left) != number(right),
        [left, "-gt", right] => number(left) > number(right),
        [left, "-ge", right] => number(left) >= number(right),
        [left, "-lt", right] => number(left) < number(right),
        [left, "-le", right] => number(left) <= number(right),
        _ => false,
    };
    u8::from(holds == negated)
}

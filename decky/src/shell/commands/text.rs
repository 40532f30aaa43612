//! Commands that print or filter text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::Shell;
use super::Call;

/// What a filter takes for each byte and for each line that it reads.
const BYTE_WORK: usize = 2;
const LINE_WORK: usize = 24;

pub(super) fn echo(call: &mut Call<'_>) -> u8 {
    let mut newline = true;
    let mut escapes = false;
    let mut words = call.args;
    while let Some((first, rest)) = words.split_first() {
        let letters = first.strip_prefix('-').unwrap_or_default();
        if letters.is_empty()
            || !letters
                .bytes()
                .all(|byte| matches!(byte, b'n' | b'e' | b'E'))
        {
            break;
        }
        newline &= !letters.contains('n');
        escapes |= letters.contains('e');
        words = rest;
    }
    let text = words.join(" ");
    let bytes = if escapes {
        unescape(&text)
    } else {
        text.into_bytes()
    };
    call.out(bytes);
    if newline {
        call.out("\n");
    }
    0
}

/// The escapes of `echo -e` and of a format of `printf`.
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    let number = |at: usize, base: u32, most: usize| {
        let digits = bytes[at.min(bytes.len())..]
            .iter()
            .take(most)
            .take_while(|byte| char::from(**byte).is_digit(base))
            .count();
        let value = std::str::from_utf8(&bytes[at.min(bytes.len())..][..digits])
            .ok()
            .and_then(|digits| u32::from_str_radix(digits, base).ok());
        value.map(|value| (value.to_le_bytes()[0], digits))
    };
    while let Some(byte) = bytes.get(at) {
        at += 1;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let Some(code) = bytes.get(at) else {
            out.push(b'\\');
            break;
        };
        at += 1;
        let parsed = match code {
            b'x' => number(at, 16, 2),
            b'0' => number(at, 8, 3).or(Some((0, 0))),
            b'1'..=b'7' => {
                at -= 1;
                number(at, 8, 3)
            }
            _ => None,
        };
        match (code, parsed) {
            (_, Some((value, digits))) => {
                out.push(value);
                at += digits;
            }
            (b'n', _) => out.push(b'\n'),
            (b't', _) => out.push(b'\t'),
            (b'r', _) => out.push(b'\r'),
            (b'a', _) => out.push(7),
            (b'b', _) => out.push(8),
            (b'e', _) => out.push(0x1b),
            (b'\\', _) => out.push(b'\\'),
            (other, _) => out.extend([b'\\', *other]),
        }
    }
    out
}

pub(super) fn printf(call: &mut Call<'_>) -> u8 {
    let Some((format, args)) = call.args.split_first() else {
        call.error("printf: usage: printf [-v var] format [arguments]\n");
        return 2;
    };
    let mut args = args.iter();
    let mut text = String::new();
    let mut rest = format.chars();
    while let Some(next) = rest.next() {
        if next != '%' {
            text.push(next);
            continue;
        }
        match rest.next() {
            Some('%') => text.push('%'),
            Some('d' | 'i') => {
                let number = args
                    .next()
                    .and_then(|arg| arg.parse::<i64>().ok())
                    .unwrap_or(0);
                text.push_str(&number.to_string());
            }
            Some('s' | 'b') => text.push_str(args.next().map_or("", String::as_str)),
            Some(other) => text.extend(['%', other]),
            None => text.push('%'),
        }
    }
    call.out(unescape(&text));
    0
}

/// What a filter reads: its files, or its input when it names none. What comes next is a look at
/// each byte and each line, and is paid for here.
fn input(shell: &Shell, call: &mut Call<'_>, paths: &[String]) -> (Vec<u8>, u8) {
    let mut bytes = Vec::new();
    let mut status = 0;
    if paths.is_empty() {
        bytes.extend_from_slice(call.stdin);
    }
    for path in paths {
        if bytes.len() >= super::super::MAX_OUTPUT {
            break;
        }
        if path == "-" {
            bytes.extend_from_slice(call.stdin);
            continue;
        }
        match shell.read(path) {
            Ok(read) => bytes.extend_from_slice(&read),
            Err(error) => status = call.fail(format!("{path}: {error}")),
        }
    }
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    if shell
        .budget
        .spend(BYTE_WORK * bytes.len() + LINE_WORK * lines)
    {
        (bytes, status)
    } else {
        (Vec::new(), status)
    }
}

pub(super) fn cat(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let operands = call.operands();
    let (bytes, status) = input(shell, call, &operands);
    call.out(bytes);
    status
}

/// Splits options that take a value from operands: `-n 5`, `-n5`, `-5`.
fn counted(args: &[String], letter: char) -> (Option<usize>, Vec<String>) {
    let mut count = None;
    let mut operands = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.strip_prefix('-') {
            Some(option) if !option.is_empty() => {
                let value = option.strip_prefix(letter).unwrap_or(option);
                let value = if value.is_empty() {
                    rest.next().map_or("", String::as_str)
                } else {
                    value
                };
                count = value.parse().ok().or(count);
            }
            Some(_) | None => operands.push(arg.clone()),
        }
    }
    (count, operands)
}

pub(super) fn ends(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let letter = if call.args.iter().any(|arg| arg.starts_with("-c")) {
        'c'
    } else {
        'n'
    };
    let (count, operands) = counted(call.args, letter);
    let count = count.unwrap_or(10);
    let (bytes, status) = input(shell, call, &operands);
    let head = call.name == "head";
    let kept: Vec<u8> = if letter == 'c' {
        let from = if head {
            0
        } else {
            bytes.len().saturating_sub(count)
        };
        bytes[from..].iter().take(count).copied().collect()
    } else {
        let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        let from = if head {
            0
        } else {
            lines.len().saturating_sub(count)
        };
        lines[from..]
            .iter()
            .take(count)
            .copied()
            .flatten()
            .copied()
            .collect()
    };
    call.out(kept);
    status
}

pub(super) fn grep(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let mut operands = call.operands();
    if operands.is_empty() {
        call.error(
            "Usage: grep [OPTION]... PATTERNS [FILE]...\nTry 'grep --help' for more information.\n",
        );
        return 2;
    }
    let pattern = operands.remove(0);
    let (bytes, _) = input(shell, call, &operands);
    let (fold, invert, quiet, counting) = (
        call.flag('i'),
        call.flag('v'),
        call.flag('q'),
        call.flag('c'),
    );
    let case = |text: &str| {
        if fold {
            text.to_lowercase()
        } else {
            text.to_owned()
        }
    };
    // Alternatives of literals with anchors are what intruders' scripts use.
    let choices: Vec<Choice> = case(&pattern)
        .replace("\\|", "|")
        .split('|')
        .map(Choice::of)
        .collect();
    let own: usize = choices.iter().map(Choice::work).sum();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut found = 0_usize;
    for line in text.lines() {
        // Each alternative looks at the line, and at itself.
        if !shell.budget.spend(own + choices.len() * line.len()) {
            break;
        }
        let searched = case(line);
        if choices.iter().any(|choice| choice.is_in(&searched)) != invert {
            found += 1;
            if !quiet && !counting && !call.is_full() {
                call.say(line);
            }
        }
    }
    if counting {
        call.say(found.to_string());
    }
    u8::from(found == 0)
}

/// One alternative of a pattern.
enum Choice {
    Whole(String),
    Start(String),
    End(String),
    /// Somewhere, as it is written or piece by piece.
    Within {
        literal: String,
        pieces: Vec<String>,
    },
}

impl Choice {
    fn of(pattern: &str) -> Self {
        let start = pattern.strip_prefix('^');
        let end = pattern.strip_suffix('$').filter(|_| pattern.len() > 1);
        match (start, end) {
            (Some(start), Some(_)) => Self::Whole(start[..start.len() - 1].to_owned()),
            (Some(start), None) => Self::Start(start.to_owned()),
            (None, Some(end)) => Self::End(end.to_owned()),
            (None, None) => Self::Within {
                literal: pattern.replace(".*", "").replace('\\', ""),
                pieces: if pattern.contains(".*") {
                    pattern.split(".*").map(str::to_owned).collect()
                } else {
                    Vec::new()
                },
            },
        }
    }

    /// What a look at any line takes.
    fn work(&self) -> usize {
        const CHOICE_WORK: usize = 16;
        match self {
            Self::Whole(text) | Self::Start(text) | Self::End(text) => CHOICE_WORK + text.len(),
            Self::Within { literal, pieces } => {
                let pieces = pieces.iter().map(|piece| CHOICE_WORK + piece.len());
                CHOICE_WORK + literal.len() + pieces.sum::<usize>()
            }
        }
    }

    fn is_in(&self, line: &str) -> bool {
        match self {
            Self::Whole(text) => line == text,
            Self::Start(text) => line.starts_with(text.as_str()),
            Self::End(text) => line.ends_with(text.as_str()),
            Self::Within { literal, pieces } => {
                line.contains(literal.as_str())
                    || !pieces.is_empty()
                        && pieces.iter().all(|piece| line.contains(piece.as_str()))
            }
        }
    }
}

pub(super) fn wc(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let operands = call.operands();
    let (bytes, status) = input(shell, call, &operands);
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    let words = String::from_utf8_lossy(&bytes).split_whitespace().count();
    let all = !(call.flag('l') || call.flag('w') || call.flag('c'));
    let mut counts = Vec::new();
    for (letter, count) in [('l', lines), ('w', words), ('c', bytes.len())] {
        if all || call.flag(letter) {
            counts.push(count);
        }
    }
    let name = operands
        .first()
        .map_or(String::new(), |path| format!(" {path}"));
    let text: Vec<String> = counts
        .iter()
        .map(|count| {
            if counts.len() > 1 {
                format!("{count:7}")
            } else {
                count.to_string()
            }
        })
        .collect();
    call.say(format!("{}{name}", text.join(" ")));
    status
}

pub(super) fn order(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let operands = call.operands();
    let (bytes, status) = input(shell, call, &operands);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut lines: Vec<&str> = text.lines().collect();
    if call.name == "sort" {
        // Each line is compared with about as many as their number has bits.
        let rounds = usize::BITS - lines.len().leading_zeros();
        let round = text.len() + LINE_WORK * lines.len();
        if !shell
            .budget
            .spend(usize::try_from(rounds).unwrap_or(64) * round / 4)
        {
            return status;
        }
        lines.sort_unstable();
        if call.flag('r') {
            lines.reverse();
        }
        if call.flag('u') {
            lines.dedup();
        }
    } else if call.flag('c') {
        let mut counts: Vec<(usize, &str)> = Vec::new();
        for line in lines {
            match counts.last_mut() {
                Some((count, last)) if *last == line => *count += 1,
                Some(_) | None => counts.push((1, line)),
            }
        }
        for (count, line) in counts {
            if call.is_full() {
                break;
            }
            call.say(format!("{count:7} {line}"));
        }
        return status;
    } else {
        lines.dedup();
    }
    for line in lines {
        if call.is_full() {
            break;
        }
        call.say(line);
    }
    status
}

/// The value of an option that may be glued to its letter.
fn option(args: &[String], letter: &str) -> Option<String> {
    let at = args.iter().position(|arg| arg.starts_with(letter))?;
    let glued = &args[at][letter.len()..];
    if glued.is_empty() {
        args.get(at + 1).cloned()
    } else {
        Some(glued.to_owned())
    }
}

pub(super) fn cut(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let delimiter = option(call.args, "-d")
        .and_then(|text| text.chars().next())
        .unwrap_or('\t');
    let Some(fields) = option(call.args, "-f") else {
        return call.fail("you must specify a list of bytes, characters, or fields");
    };
    let ranges: Vec<std::ops::RangeInclusive<usize>> = fields
        .split(',')
        .filter_map(|range| match range.split_once('-') {
            Some((from, to)) => Some(from.parse().unwrap_or(1)..=to.parse().unwrap_or(usize::MAX)),
            None => range.parse().ok().map(|number| number..=number),
        })
        .collect();
    let values: Vec<String> = [option(call.args, "-d"), Some(fields.clone())]
        .into_iter()
        .flatten()
        .collect();
    let operands: Vec<String> = call
        .operands()
        .into_iter()
        .filter(|operand| !values.contains(operand))
        .collect();
    let (bytes, status) = input(shell, call, &operands);
    for line in String::from_utf8_lossy(&bytes).lines() {
        let fields = line.matches(delimiter).count() + 1;
        if call.is_full() || !shell.budget.spend(fields * (16 + ranges.len())) {
            break;
        }
        let kept: Vec<&str> = line
            .split(delimiter)
            .zip(1..)
            .filter(|(_, number)| ranges.iter().any(|range| range.contains(number)))
            .map(|(field, _)| field)
            .collect();
        call.say(kept.join(&delimiter.to_string()));
    }
    status
}

pub(super) fn tr(call: &mut Call<'_>) -> u8 {
    let operands = call.operands();
    let expand = |text: &str| -> Vec<u8> {
        match text {
            "a-z" | "[:lower:]" | "[a-z]" => (b'a'..=b'z').collect(),
            "A-Z" | "[:upper:]" | "[A-Z]" => (b'A'..=b'Z').collect(),
            "0-9" | "[:digit:]" => (b'0'..=b'9').collect(),
            text => unescape(text),
        }
    };
    let from = operands
        .first()
        .map(|text| expand(text))
        .unwrap_or_default();
    let to = operands.get(1).map(|text| expand(text)).unwrap_or_default();
    let delete = call.flag('d');
    // What becomes of each byte; the first of several wishes counts.
    let mut becomes: [Option<u8>; 256] = std::array::from_fn(|byte| u8::try_from(byte).ok());
    for (at, byte) in from.iter().enumerate().rev() {
        becomes[usize::from(*byte)] = if delete {
            None
        } else {
            Some(to.get(at).or(to.last()).copied().unwrap_or(*byte))
        };
    }
    let out: Vec<u8> = call
        .stdin
        .iter()
        .filter_map(|byte| becomes[usize::from(*byte)])
        .collect();
    call.out(out);
    0
}

/// `{print $1,$2}` and the like; a program that is more prints nothing.
pub(super) fn awk(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let separator = option(call.args, "-F");
    let mut operands = call.operands();
    if let Some(separator) = &separator {
        operands.retain(|operand| operand != separator);
    }
    if operands.is_empty() {
        call.error("usage: awk [-F fs][-v var=value][prog | -f progfile][file ...]\n");
        return 2;
    }
    let program = operands.remove(0);
    let (bytes, status) = input(shell, call, &operands);
    let Some(list) = program
        .trim()
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .and_then(|body| body.trim().trim_end_matches(';').strip_prefix("print"))
    else {
        return status;
    };
    let items: Vec<&str> = list.split(',').take(16).map(str::trim).collect();
    for line in String::from_utf8_lossy(&bytes).lines() {
        if call.is_full() || !shell.budget.spend(items.len() * (LINE_WORK + line.len())) {
            break;
        }
        let printed: Vec<&str> = items
            .iter()
            .map(|item| match item.strip_prefix('$') {
                Some("0") => line,
                None if item.is_empty() && items.len() == 1 => line,
                Some(number) => field(line, separator.as_deref(), number).unwrap_or_default(),
                None => item.trim_matches('"'),
            })
            .collect();
        call.say(printed.join(" "));
    }
    status
}

/// The field of a line that `number` names: from 1, or `NF` for the last.
fn field<'l>(line: &'l str, separator: Option<&str>, number: &str) -> Option<&'l str> {
    if number == "NF" {
        return match separator {
            Some(separator) => line.rsplit(separator).next(),
            None => line.split_whitespace().next_back(),
        };
    }
    let index = number.parse::<usize>().ok()?.checked_sub(1)?;
    match separator {
        Some(separator) => line.split(separator).nth(index),
        None => line.split_whitespace().nth(index),
    }
}

/// `s/a/b/` with literals; anything else passes the text through.
pub(super) fn sed(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let mut operands = call.operands();
    if operands.is_empty() {
        call.error("Usage: sed [OPTION]... {script-only-if-no-other-script} [input-file]...\n");
        return 1;
    }
    let script = operands.remove(0);
    let (bytes, status) = input(shell, call, &operands);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let pieces: Vec<&str> = script
        .strip_prefix('s')
        .and_then(|rest| Some(rest.split(rest.chars().next()?).skip(1).collect()))
        .unwrap_or_default();
    let [from, to, flags] = pieces.as_slice() else {
        call.out(text);
        return status;
    };
    if from.is_empty() {
        call.out(text);
        return status;
    }
    for line in text.lines() {
        if call.is_full() || !shell.budget.spend(LINE_WORK + from.len() + 2 * line.len()) {
            break;
        }
        // A replacement must not multiply a line into more memory than we have.
        if line.matches(from).count() * to.len() > 64 * 1024 {
            call.say(line);
        } else if flags.contains('g') {
            call.say(line.replace(from, to));
        } else {
            call.say(line.replacen(from, to, 1));
        }
    }
    status
}

pub(super) fn base64(shell: &Shell, call: &mut Call<'_>) -> u8 {
    let operands = call.operands();
    let (bytes, status) = input(shell, call, &operands);
    if call.flag('d') || call.args.iter().any(|arg| arg == "--decode") {
        let text: Vec<u8> = bytes
            .into_iter()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        return match STANDARD.decode(text) {
            Ok(decoded) => {
                call.out(decoded);
                status
            }
            Err(_) => call.fail("invalid input"),
        };
    }
    let encoded = STANDARD.encode(bytes);
    for line in encoded.as_bytes().chunks(76) {
        call.out(line);
        call.out("\n");
    }
    status
}

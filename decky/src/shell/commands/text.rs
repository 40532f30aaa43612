//! Commands that print or filter text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::Shell;
use super::Call;

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

/// What a filter reads: its files, or its input when it names none.
fn input(shell: &Shell, call: &mut Call<'_>, paths: &[String]) -> (Vec<u8>, u8) {
    if paths.is_empty() {
        return (call.stdin.to_vec(), 0);
    }
    let mut bytes = Vec::new();
    let mut status = 0;
    for path in paths {
        if path == "-" {
            bytes.extend_from_slice(call.stdin);
            continue;
        }
        match shell.read(path) {
            Ok(read) if bytes.len() < super::super::MAX_OUTPUT => bytes.extend_from_slice(&read),
            Ok(_) => break,
            Err(error) => status = call.fail(format!("{path}: {error}")),
        }
    }
    (bytes, status)
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
    let choices: Vec<String> = case(&pattern)
        .replace("\\|", "|")
        .split('|')
        .map(str::to_owned)
        .collect();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut found = 0_usize;
    let mut out = String::new();
    for line in text.lines() {
        let searched = case(line);
        if choices.iter().any(|choice| matches(choice, &searched)) != invert {
            found += 1;
            if !quiet && !counting {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    if counting {
        out = format!("{found}\n");
    }
    call.out(out);
    u8::from(found == 0)
}

fn matches(pattern: &str, line: &str) -> bool {
    let start = pattern.strip_prefix('^');
    let end = pattern.strip_suffix('$').filter(|_| pattern.len() > 1);
    match (start, end) {
        (Some(_), Some(_)) => line == &pattern[1..pattern.len() - 1],
        (Some(start), None) => line.starts_with(start),
        (None, Some(end)) => line.ends_with(end),
        (None, None) => {
            line.contains(&pattern.replace(".*", "").replace('\\', ""))
                || (pattern.contains(".*") && pattern.split(".*").all(|piece| line.contains(piece)))
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
            call.say(format!("{count:7} {line}"));
        }
        return status;
    } else {
        lines.dedup();
    }
    for line in lines {
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
    let wanted = |number: usize| {
        fields.split(',').any(|range| match range.split_once('-') {
            Some((from, to)) => {
                from.parse().unwrap_or(1) <= number && number <= to.parse().unwrap_or(usize::MAX)
            }
            None => range.parse() == Ok(number),
        })
    };
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
        let kept: Vec<&str> = line
            .split(delimiter)
            .zip(1..)
            .filter(|(_, number)| wanted(*number))
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
    let out: Vec<u8> = call
        .stdin
        .iter()
        .filter_map(
            |byte| match from.iter().position(|candidate| candidate == byte) {
                Some(_) if delete => None,
                Some(at) => Some(to.get(at).or(to.last()).copied().unwrap_or(*byte)),
                None => Some(*byte),
            },
        )
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
    for line in String::from_utf8_lossy(&bytes).lines() {
        let fields: Vec<&str> = match &separator {
            Some(separator) => line.split(separator.as_str()).collect(),
            None => line.split_whitespace().collect(),
        };
        let one = |item: &str| -> String {
            let item = item.trim();
            match item.strip_prefix('$') {
                Some("0") => line.to_owned(),
                Some("NF") => fields.last().copied().unwrap_or_default().to_owned(),
                Some(number) => number
                    .parse::<usize>()
                    .ok()
                    .and_then(|number| fields.get(number.wrapping_sub(1)))
                    .copied()
                    .unwrap_or_default()
                    .to_owned(),
                None => item.trim_matches('"').to_owned(),
            }
        };
        let items: Vec<String> = if list.trim().is_empty() {
            vec![line.to_owned()]
        } else {
            list.split(',').take(16).map(one).collect()
        };
        call.say(items.join(" "));
    }
    status
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
    let text = match pieces.as_slice() {
        [from, to, flags] if !from.is_empty() => {
            let lines: Vec<String> = text
                .lines()
                .map(|line| {
                    // A replacement must not multiply a line into more memory than we have.
                    if line.matches(from).count() * to.len() > 64 * 1024 {
                        line.to_owned()
                    } else if flags.contains('g') {
                        line.replace(from, to)
                    } else {
                        line.replacen(from, to, 1)
                    }
                })
                .collect();
            lines
                .into_iter()
                .map(|line| line + "\n")
                .collect::<String>()
        }
        _ => text,
    };
    call.out(text);
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

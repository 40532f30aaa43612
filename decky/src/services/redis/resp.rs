//! The protocol of redis: arrays of bulk strings, and inline commands.

/// Most words of a command.
const MAX_WORDS: usize = 1024;
/// Longest word.
const MAX_BULK: usize = 128 * 1024;
/// Longest line that only says how much follows.
const MAX_HEAD: usize = 32;
/// Longest inline command, as in redis.
const MAX_INLINE: usize = 64 * 1024;

/// What stands at the start of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A command, and how many bytes it takes.
    Command { words: Vec<Vec<u8>>, length: usize },
    /// The start of one.
    Incomplete(Missing),
}

/// What must come before there is any use in looking again: a client may send byte by byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// The end of a line, which is refused when there are more than so many bytes without it.
    Line { most: usize },
    /// So many bytes in all.
    Bytes(usize),
}

impl Missing {
    /// Whether it came with what is behind the first `before` bytes.
    pub(super) fn came(self, bytes: &[u8], before: usize) -> bool {
        match self {
            Self::Line { most } => {
                bytes.len() > most
                    || bytes
                        .get(before..)
                        .is_some_and(|fresh| fresh.contains(&b'\n'))
            }
            Self::Bytes(all) => bytes.len() >= all,
        }
    }
}

/// Why the input is no command; worded as redis does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtocolError {
    #[error("invalid multibulk length")]
    Multibulk,
    #[error("invalid bulk length")]
    Bulk,
    #[error("expected '$', got '{}'", char::from(*.0))]
    NoBulk(u8),
    #[error("too big inline request")]
    TooBig,
    #[error("unbalanced quotes in request")]
    Quotes,
}

/// A line and where the next one starts; none while there is none.
fn line(bytes: &[u8], from: usize) -> Option<(&[u8], usize)> {
    let end = from + bytes.get(from..)?.iter().position(|byte| *byte == b'\n')?;
    let line = &bytes[from..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
}

fn number(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// The line that starts at `from`, which may have `most` bytes.
fn head(
    bytes: &[u8],
    from: usize,
    most: usize,
    refusal: ProtocolError,
) -> Result<Result<(&[u8], usize), Missing>, ProtocolError> {
    match line(bytes, from) {
        Some(found) => Ok(Ok(found)),
        None if bytes.len() > from + most => Err(refusal),
        None => Ok(Err(Missing::Line { most: from + most })),
    }
}

/// Parses the command at the start of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, ProtocolError> {
    let inline = bytes.first().is_some_and(|first| *first != b'*');
    let (most, refusal) = if inline {
        (MAX_INLINE, ProtocolError::TooBig)
    } else {
        (MAX_HEAD, ProtocolError::Multibulk)
    };
    let (first, mut at) = match head(bytes, 0, most, refusal)? {
        Ok(found) => found,
        Err(missing) => return Ok(Parsed::Incomplete(missing)),
    };
    let Some(count) = first.strip_prefix(b"*") else {
        let words = split(first)?;
        return Ok(Parsed::Command { words, length: at });
    };
    let count = number(count).ok_or(ProtocolError::Multibulk)?;
    let count = usize::try_from(count.max(0)).map_err(|_| ProtocolError::Multibulk)?;
    if count > MAX_WORDS {
        return Err(ProtocolError::Multibulk);
    }
    // Nothing is copied before the command is whole.
    let mut words = Vec::new();
    for _ in 0..count {
        let (length, next) = match head(bytes, at, MAX_HEAD, ProtocolError::Bulk)? {
            Ok((head, next)) => (bulk_length(head)?, next),
            Err(missing) => return Ok(Parsed::Incomplete(missing)),
        };
        let end = next + length;
        match bytes.get(next..end) {
            Some(word) if bytes.len() >= end + 2 => words.push(word),
            Some(_) | None => return Ok(Parsed::Incomplete(Missing::Bytes(end + 2))),
        }
        at = end + 2;
    }
    Ok(Parsed::Command {
        words: words.into_iter().map(<[u8]>::to_vec).collect(),
        length: at,
    })
}

/// The length that the head of a bulk string says.
fn bulk_length(head: &[u8]) -> Result<usize, ProtocolError> {
    match head.split_first() {
        Some((b'$', digits)) => number(digits)
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| *length <= MAX_BULK)
            .ok_or(ProtocolError::Bulk),
        Some((other, _)) if other.is_ascii_graphic() => Err(ProtocolError::NoBulk(*other)),
        Some(_) | None => Err(ProtocolError::NoBulk(b' ')),
    }
}

/// Splits an inline command as redis does: blanks, single and double quotes.
fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
    let mut words = Vec::new();
    let mut bytes = line.iter().copied().peekable();
    while bytes.peek().is_some() {
        if bytes.next_if(u8::is_ascii_whitespace).is_some() {
            continue;
        }
        let mut word = Vec::new();
        let mut quote = None;
        loop {
            match (bytes.next(), quote) {
                (None, None) => break,
                (None, Some(_)) => return Err(ProtocolError::Quotes),
                (Some(byte), Some(open)) if byte == open => quote = None,
                (Some(b'\\'), Some(b'"')) => match bytes.next() {
                    Some(b'n') => word.push(b'\n'),
                    Some(b'r') => word.push(b'\r'),
                    Some(b't') => word.push(b'\t'),
                    Some(b'x') => {
                        let mut digits = [0; 2];
                        for digit in &mut digits {
                            *digit = bytes.next().unwrap_or(b'0');
                        }
                        let mut byte = [0];
                        hex::decode_to_slice(digits, &mut byte).ok();
                        word.push(byte[0]);
                    }
                    Some(other) => word.push(other),
                    None => return Err(ProtocolError::Quotes),
                },
                (Some(byte), Some(_)) => word.push(byte),
                (Some(byte @ (b'"' | b'\'')), None) => quote = Some(byte),
                (Some(byte), None) if byte.is_ascii_whitespace() => break,
                (Some(byte), None) => word.push(byte),
            }
        }
        if words.len() >= MAX_WORDS {
            return Err(ProtocolError::TooBig);
        }
        words.push(word);
    }
    Ok(words)
}

/// A command as MONITOR shows it: words quoted, joined by blanks.
pub(super) fn monitor(words: &[Vec<u8>]) -> Vec<u8> {
    // More than a line of evidence keeps need not be written.
    let room = domain::event::Evidence::MAX;
    let mut out = Vec::new();
    for word in words {
        if out.len() > room {
            break;
        }
        if !out.is_empty() {
            out.push(b' ');
        }
        out.push(b'"');
        for byte in word.iter().take(room) {
            match byte {
                b'"' | b'\\' => out.extend([b'\\', *byte]),
                b'\n' => out.extend(b"\\n"),
                b'\r' => out.extend(b"\\r"),
                b'\t' => out.extend(b"\\t"),
                0x20..=0x7e => out.push(*byte),
                other => out.extend(format!("\\x{other:02x}").bytes()),
            }
        }
        out.push(b'"');
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(bytes: &[u8]) -> Vec<String> {
        match parse(bytes).expect("well formed") {
            Parsed::Command { words, .. } => words
                .iter()
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
            Parsed::Incomplete(missing) => panic!("incomplete: {missing:?}"),
        }
    }

    #[test]
    fn arrays_and_inline_commands_are_read() {
        assert_eq!(
            words(b"*2\r\n$4\r\nECHO\r\n$3\r\na\nb\r\n"),
            ["ECHO", "a\nb"]
        );
        assert_eq!(words(b"PING\r\n"), ["PING"]);
        assert_eq!(
            words(b"set \"a b\" 'c\"d' \"\\x41\"\n"),
            ["set", "a b", "c\"d", "A"]
        );
    }

    /// What is missing after each look, when a command comes byte by byte.
    fn looks(bytes: &[u8]) -> Vec<Missing> {
        let mut looks = Vec::new();
        let mut last = None;
        for length in 0..=bytes.len() {
            let held = &bytes[..length];
            let due = last.is_none_or(|missing: Missing| missing.came(held, length - 1));
            if !due {
                continue;
            }
            match parse(held) {
                Ok(Parsed::Incomplete(missing)) => {
                    looks.push(missing);
                    last = Some(missing);
                }
                parsed => {
                    assert_eq!(length, bytes.len(), "looked at too early or late");
                    assert_eq!(parsed, parse(bytes));
                    return looks;
                }
            }
        }
        panic!("{bytes:?} was not seen to be whole: {looks:?}");
    }

    #[test]
    fn a_command_that_comes_byte_by_byte_is_looked_at_once_for_each_part() {
        let value = "x".repeat(MAX_BULK);
        let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${MAX_BULK}\r\n{value}\r\n");
        let of = |most| Missing::Line { most };
        assert_eq!(
            looks(set.as_bytes()),
            [
                of(MAX_HEAD),
                of(4 + MAX_HEAD),
                Missing::Bytes(13),
                of(13 + MAX_HEAD),
                Missing::Bytes(20),
                of(20 + MAX_HEAD),
                Missing::Bytes(set.len()),
            ]
        );
        let inline = format!("SET k {}\n", "x".repeat(MAX_INLINE - 8));
        // Until there is a first byte it may become either.
        let wanted = [of(MAX_HEAD), of(MAX_INLINE)];
        assert_eq!(looks(inline.as_bytes()), wanted);
        // Refused as soon as it is too long.
        assert_eq!(looks(&[b'x'; MAX_INLINE + 1]), wanted);
    }

    #[test]
    fn what_breaks_the_protocol_is_refused_as_redis_does() {
        for (bytes, error) in [
            (&b"*99999\r\n"[..], ProtocolError::Multibulk),
            (b"*x\r\n", ProtocolError::Multibulk),
            (b"*1\r\n$999999999\r\n", ProtocolError::Bulk),
            (b"*1\r\n$-1\r\n", ProtocolError::Bulk),
            (b"*1\r\n:1\r\n", ProtocolError::NoBulk(b':')),
            (b"set \"a\n", ProtocolError::Quotes),
        ] {
            assert_eq!(parse(bytes), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn a_command_is_shown_as_monitor_shows_it() {
        assert_eq!(
            monitor(&[b"SET".to_vec(), b"a\"\n\xff".to_vec()]),
            b"\"SET\" \"a\\\"\\n\\xff\""
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            if let Ok(Parsed::Command { words, length }) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
                monitor(&words);
            }
        }

        #[test]
        fn what_a_client_writes_is_read_back(words in prop::collection::vec(any::<Vec<u8>>(), 1..8)) {
            let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
            for word in &words {
                bytes.extend(format!("${}\r\n", word.len()).bytes());
                bytes.extend(word);
                bytes.extend(b"\r\n");
            }
            let length = bytes.len();
            prop_assert_eq!(parse(&bytes), Ok(Parsed::Command { words, length }));
        }
    }
}

//! Parses command lines: lists, pipelines, redirections, quoting, variables, substitutions.
//!
//! Compound commands (`if`, `for`, functions) are not parsed; they come out as plain words.

use std::iter::Peekable;
use std::str::Chars;

/// Most commands on one line: a line of `;` alone must stay cheap.
const MAX_COMMANDS: usize = 128;

/// When a pipeline runs, judged by the status of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Always,
    Succeeded,
    Failed,
}

/// Commands connected by `|`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pipeline {
    pub(crate) when: When,
    pub(crate) commands: Vec<Command>,
    pub(crate) background: bool,
}

/// Words and redirections.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Command {
    pub(crate) words: Vec<Word>,
    pub(crate) redirects: Vec<Redirect>,
}

/// One redirection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Redirect {
    /// Which stream; 3 for both outputs.
    pub(crate) stream: u8,
    pub(crate) kind: RedirectKind,
    pub(crate) target: Word,
}

/// What a redirection does with its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RedirectKind {
    Truncate,
    Append,
    Read,
    /// To another stream (`2>&1`).
    Merge,
}

/// A word before expansion.
pub(crate) type Word = Vec<Part>;

/// A piece of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Text that no expansion touches.
    Quoted(String),
    /// Text in which wildcards count.
    Plain(String),
    /// `$NAME`; split into fields unless quoted.
    Variable { name: String, quoted: bool },
    /// `$(…)` or backticks.
    Substitution { source: String, quoted: bool },
}

/// A token where none may be, or a missing end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SyntaxError {
    #[error("syntax error near unexpected token `{0}'")]
    Unexpected(&'static str),
    #[error("unexpected EOF while looking for matching `{0}'")]
    Unclosed(char),
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
}

/// Parses one line, or several.
pub(crate) fn parse(source: &str) -> Result<Vec<Pipeline>, SyntaxError> {
    let mut parser = Parser {
        rest: source.chars().peekable(),
    };
    let mut script = Vec::new();
    let mut pipeline = Pipeline {
        when: When::Always,
        commands: Vec::new(),
        background: false,
    };
    let mut command = Command::default();
    let mut commands = 0;
    loop {
        parser.skip_blanks();
        let Some(&next) = parser.rest.peek() else {
            break;
        };
        match next {
            ';' | '\n' | '&' | '|' => {
                parser.rest.next();
                let doubled = next != ';' && next != '\n' && parser.rest.peek() == Some(&next);
                if next == '&' && parser.rest.peek() == Some(&'>') {
                    let redirect = parser.redirect(3)?;
                    command.redirects.push(redirect);
                    continue;
                }
                if doubled {
                    parser.rest.next();
                }
                if command == Command::default() {
                    if next == '\n' && pipeline.commands.is_empty() {
                        continue;
                    }
                    return Err(SyntaxError::Unexpected(token(next, doubled)));
                }
                pipeline.commands.push(std::mem::take(&mut command));
                commands += 1;
                if commands >= MAX_COMMANDS {
                    break;
                }
                if next == '|' && !doubled {
                    continue;
                }
                let when = match (next, doubled) {
                    ('&', true) => When::Succeeded,
                    ('|', true) => When::Failed,
                    _ => When::Always,
                };
                pipeline.background = next == '&' && !doubled;
                let fresh = Pipeline {
                    when,
                    commands: Vec::new(),
                    background: false,
                };
                script.push(std::mem::replace(&mut pipeline, fresh));
            }
            '>' | '<' => {
                let redirect = parser.redirect(u8::from(next == '>'))?;
                command.redirects.push(redirect);
            }
            '(' | ')' => return Err(SyntaxError::Unexpected(if next == '(' { "(" } else { ")" })),
            '#' => while parser.rest.next_if(|c| *c != '\n').is_some() {},
            digit @ ('1' | '2') if parser.is_stream_redirect() => {
                parser.rest.next();
                let redirect = parser.redirect(if digit == '1' { 1 } else { 2 })?;
                command.redirects.push(redirect);
            }
            _ => {
                let word = parser.word()?;
                command.words.push(word);
            }
        }
    }
    if command != Command::default() {
        pipeline.commands.push(command);
    } else if !pipeline.commands.is_empty() && commands < MAX_COMMANDS {
        return Err(SyntaxError::Unexpected("newline"));
    }
    if !pipeline.commands.is_empty() {
        script.push(pipeline);
    }
    Ok(script)
}

fn token(first: char, doubled: bool) -> &'static str {
    match (first, doubled) {
        ('&', true) => "&&",
        ('&', false) => "&",
        ('|', true) => "||",
        ('|', false) => "|",
        _ => ";",
    }
}

impl Parser<'_> {
    fn skip_blanks(&mut self) {
        while self
            .rest
            .next_if(|c| matches!(c, ' ' | '\t' | '\r'))
            .is_some()
        {}
    }

    fn is_stream_redirect(&self) -> bool {
        let mut ahead = self.rest.clone();
        ahead.next();
        ahead.next() == Some('>')
    }

    fn redirect(&mut self, stream: u8) -> Result<Redirect, SyntaxError> {
        let first = self.rest.next();
        let mut kind = if first == Some('<') {
            RedirectKind::Read
        } else {
            RedirectKind::Truncate
        };
        if kind == RedirectKind::Truncate && self.rest.next_if_eq(&'>').is_some() {
            kind = RedirectKind::Append;
        }
        if self.rest.next_if_eq(&'&').is_some() {
            kind = RedirectKind::Merge;
        }
        self.skip_blanks();
        let target = self.word()?;
        if target.is_empty() {
            return Err(SyntaxError::Unexpected("newline"));
        }
        Ok(Redirect {
            stream,
            kind,
            target,
        })
    }

    fn word(&mut self) -> Result<Word, SyntaxError> {
        let mut word = Word::new();
        let mut plain = String::new();
        let flush = |plain: &mut String, word: &mut Word| {
            if !plain.is_empty() {
                word.push(Part::Plain(std::mem::take(plain)));
            }
        };
        while let Some(&next) = self.rest.peek() {
            match next {
                ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')' => break,
                '\'' => {
                    self.rest.next();
                    flush(&mut plain, &mut word);
                    word.push(Part::Quoted(self.until('\'')?));
                }
                '"' => {
                    self.rest.next();
                    flush(&mut plain, &mut word);
                    self.double_quoted(&mut word)?;
                }
                '\\' => {
                    self.rest.next();
                    flush(&mut plain, &mut word);
                    if let Some(escaped) = self.rest.next() {
                        word.push(Part::Quoted(escaped.to_string()));
                    }
                }
                '$' | '`' => {
                    if let Some(part) = self.expansion(false)? {
                        flush(&mut plain, &mut word);
                        word.push(part);
                    } else {
                        plain.push('$');
                    }
                }
                other => {
                    self.rest.next();
                    plain.push(other);
                }
            }
        }
        flush(&mut plain, &mut word);
        Ok(word)
    }

    fn double_quoted(&mut self, word: &mut Word) -> Result<(), SyntaxError> {
        let mut text = String::new();
        loop {
            let Some(&next) = self.rest.peek() else {
                return Err(SyntaxError::Unclosed('"'));
            };
            match next {
                '"' => {
                    self.rest.next();
                    // Also when empty: `""` is a word.
                    word.push(Part::Quoted(text));
                    return Ok(());
                }
                '\\' => {
                    self.rest.next();
                    match self.rest.next() {
                        Some(c @ ('"' | '\\' | '$' | '`')) => text.push(c),
                        Some('\n') => {}
                        Some(c) => text.extend(['\\', c]),
                        None => return Err(SyntaxError::Unclosed('"')),
                    }
                }
                '$' | '`' => {
                    if let Some(part) = self.expansion(true)? {
                        word.push(Part::Quoted(std::mem::take(&mut text)));
                        word.push(part);
                    } else {
                        text.push('$');
                    }
                }
                other => {
                    self.rest.next();
                    text.push(other);
                }
            }
        }
    }

    /// What follows a `$` or backtick; none for a `$` that stands for itself.
    fn expansion(&mut self, quoted: bool) -> Result<Option<Part>, SyntaxError> {
        if self.rest.next() == Some('`') {
            return Ok(Some(Part::Substitution {
                source: self.until('`')?,
                quoted,
            }));
        }
        match self.rest.peek().copied() {
            Some('(') => {
                self.rest.next();
                let mut source = String::new();
                let mut depth = 1_usize;
                for next in self.rest.by_ref() {
                    match next {
                        '(' => depth += 1,
                        ')' => depth -= 1,
                        _ => {}
                    }
                    if depth == 0 {
                        return Ok(Some(Part::Substitution { source, quoted }));
                    }
                    source.push(next);
                }
                Err(SyntaxError::Unclosed(')'))
            }
            Some('{') => {
                self.rest.next();
                let inner = self.until('}')?;
                let end = inner.find(|c: char| !is_name(c)).unwrap_or(inner.len());
                let name = if end == 0 {
                    inner
                } else {
                    inner[..end].to_owned()
                };
                Ok(Some(Part::Variable { name, quoted }))
            }
            Some(c @ ('?' | '$' | '!' | '#' | '@' | '*' | '0'..='9')) => {
                self.rest.next();
                Ok(Some(Part::Variable {
                    name: c.to_string(),
                    quoted,
                }))
            }
            Some(c) if is_name(c) => {
                let mut name = String::new();
                while let Some(c) = self.rest.next_if(|c| is_name(*c)) {
                    name.push(c);
                }
                Ok(Some(Part::Variable { name, quoted }))
            }
            Some(_) | None => Ok(None),
        }
    }

    fn until(&mut self, end: char) -> Result<String, SyntaxError> {
        let mut text = String::new();
        for next in self.rest.by_ref() {
            if next == end {
                return Ok(text);
            }
            text.push(next);
        }
        Err(SyntaxError::Unclosed(end))
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

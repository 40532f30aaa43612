//! Expands words: variables, substitutions, fields, wildcards.

use super::grammar::{Part, Word};
use super::{MAX_VALUE, MAX_WORDS, Output, Shell, Stream};
use crate::pattern;

/// What each word, and each piece of one, takes beside its bytes.
const WORD_WORK: usize = 64;

impl Shell {
    fn value(&self, name: &str) -> String {
        match name {
            "?" => self.status.to_string(),
            "$" => (1200 + self.facts.seed.pick("pid", 20_000)).to_string(),
            "0" => self.name().to_owned(),
            "#" => "0".to_owned(),
            "UID" | "EUID" => self.account.uid.to_string(),
            "HOSTNAME" => self.facts.hostname.clone(),
            "PWD" => self.cwd.clone(),
            "RANDOM" => (self.now.nanosecond() % 32768).to_string(),
            name => self.variables.get(name).cloned().unwrap_or_default(),
        }
    }

    fn substitute(&mut self, source: &str) -> String {
        let mut output = Output::default();
        let pause = self.pause;
        self.script(source, &mut output);
        self.pause = pause;
        let out = output.only(Stream::Out);
        String::from_utf8_lossy(&out)
            .trim_end_matches('\n')
            .to_owned()
    }

    /// Expands one word into as many as it gives.
    pub(super) fn expand(&mut self, word: &Word, words: &mut Vec<String>) {
        let mut current = String::new();
        let mut pattern = false;
        let mut exists = false;
        for (index, part) in word.iter().enumerate() {
            let (text, quoted) = match part {
                Part::Quoted(text) => (text.clone(), true),
                Part::Plain(text) => {
                    pattern |= text.contains(['*', '?']);
                    let tilde = index == 0 && (text == "~" || text.starts_with("~/"));
                    let text = if tilde {
                        format!("{}{}", self.account.home, &text[1..])
                    } else {
                        text.clone()
                    };
                    (text, true)
                }
                Part::Variable { name, quoted } => (self.value(name), *quoted),
                Part::Substitution { source, quoted } => (self.substitute(source), *quoted),
            };
            if !self.budget.spend(WORD_WORK + text.len()) {
                break;
            }
            if quoted {
                exists = true;
                current.push_str(&text);
            } else {
                let mut fields = text.split_whitespace();
                if let Some(first) = fields.next() {
                    exists = true;
                    current.push_str(first);
                }
                for field in fields {
                    if words.len() >= MAX_WORDS || !self.budget.spend(WORD_WORK) {
                        break;
                    }
                    words.push(std::mem::replace(&mut current, field.to_owned()));
                }
            }
            truncate(&mut current, MAX_VALUE);
        }
        if exists {
            let matches = if pattern {
                self.glob(&current)
            } else {
                Vec::new()
            };
            if matches.is_empty() {
                words.push(current);
            } else {
                words.extend(matches);
            }
        }
        words.truncate(MAX_WORDS);
    }

    pub(super) fn expand_one(&mut self, word: &Word) -> String {
        let mut words = Vec::new();
        self.expand(word, &mut words);
        words.into_iter().next().unwrap_or_default()
    }

    /// The paths that match a pattern whose last part has wildcards.
    fn glob(&self, pattern: &str) -> Vec<String> {
        let (directory, last) = match pattern.rsplit_once('/') {
            Some((directory, last)) => (format!("{directory}/"), last),
            None => (String::new(), pattern),
        };
        if directory.contains(['*', '?']) {
            return Vec::new();
        }
        let place = if directory.is_empty() {
            "."
        } else {
            &directory
        };
        let Ok((resolved, _)) = self.files.find(&self.cwd, place) else {
            return Vec::new();
        };
        self.files
            .list(&resolved)
            .into_iter()
            .filter(|(name, _)| name.starts_with('.') == last.starts_with('.'))
            .filter(|(name, _)| pattern::matches(last.as_bytes(), name.as_bytes(), &self.budget))
            .map(|(name, _)| format!("{directory}{name}"))
            .collect()
    }
}

/// The name and value of a word such as `A=1`.
pub(super) fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let mut bytes = name.bytes();
    let starts = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    (starts && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
        .then_some((name, value))
}

/// Cuts a text to at most `max` bytes, never inside a character.
pub(super) fn truncate(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(end);
    }
}

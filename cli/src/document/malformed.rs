//! What is wrong with a document that cannot be read, said so that it can be found and mended.

use proto::settings;
use serde_path_to_error::Path;

use crate::failure::Failure;
use crate::safe::clipped;

/// Errors quote the document, and a document may hold one word of a megabyte.
const MAX_MESSAGE: usize = 600;
const MAX_PATH: usize = 200;

/// A document that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// Line and column, from 1.
    at: Option<(u64, u64)>,
    /// Where in the document, such as `deckies[3].edges[0]`.
    path: String,
    message: String,
    hint: Option<String>,
}

impl Malformed {
    pub(super) fn empty() -> Self {
        Self {
            at: None,
            path: String::new(),
            message: "the document is empty".to_owned(),
            hint: None,
        }
    }

    /// A fault at a line and a column, both from 1.
    pub(super) fn at(line: usize, column: usize, path: String, text: &str) -> Self {
        let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Self {
            at: Some((number(line), number(column))),
            path,
            message: text.to_owned(),
            hint: None,
        }
    }

    pub(super) fn of_json(error: &serde_json::Error, path: &Path) -> Self {
        let at = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let text = error.to_string();
        // It says its place at the end, in its own words.
        let text = text
            .rsplit_once(" at line ")
            .map_or(text.as_str(), |(text, _)| text);
        Self::new(Some((at(error.line()), at(error.column()))), path, text)
    }

    pub(super) fn of_yaml(error: &serde_saphyr::Error, path: &Path) -> Self {
        let error = error.without_snippet();
        let at = error.location().map(|at| (at.line(), at.column()));
        // It says an unknown field in words of its own, and knows it better than they say.
        let serde_saphyr::Error::SerdeUnknownField {
            field, expected, ..
        } = error
        else {
            let text = error.to_string();
            // It says its place at the end too.
            let text = text
                .rsplit_once(" at line ")
                .filter(|(_, place)| {
                    place
                        .bytes()
                        .all(|byte| b"0123456789, column".contains(&byte))
                })
                .map_or(text.as_str(), |(text, _)| text);
            return Self::new(at, path, text);
        };
        let hint = settings::nearest(field, expected.iter().copied())
            .map(|known| format!("did you mean `{known}`?"));
        let text = format!("unknown field `{field}`");
        Self {
            hint,
            ..Self::new(at, path, &text)
        }
    }

    fn new(at: Option<(u64, u64)>, path: &Path, text: &str) -> Self {
        let path = path.to_string();
        Self {
            at: at.filter(|(line, _)| *line > 0),
            // It does not know the place of what it could not begin to read.
            path: if path == "." || path == "?" {
                String::new()
            } else {
                path
            },
            hint: settings::hint(text),
            message: text.to_owned(),
        }
    }

    /// As the end of a command: `office.yaml:3:5: deckies[0]: unknown field `servces` …`.
    pub(super) fn failure(self, name: &str) -> Failure {
        let mut text = name.to_owned();
        if let Some((line, column)) = self.at {
            text.push_str(&format!(":{line}:{column}"));
        }
        text.push_str(": ");
        if !self.path.is_empty() {
            text.push_str(&format!("{}: ", clipped(&self.path, MAX_PATH)));
        }
        text.push_str(&clipped(&self.message, MAX_MESSAGE));
        let next = self
            .hint
            .unwrap_or_else(|| "compare it with `decnet topology export T`".to_owned());
        Failure::say(text).next(next)
    }
}

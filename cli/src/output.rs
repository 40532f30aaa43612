//! Where results, notes and failures go: results to standard output, all else to standard error.

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use crate::args::Format;
use crate::failure::Failure;
use crate::table::Look;

/// How to print.
#[derive(Debug)]
pub(crate) struct Output {
    /// As asked for; none when the command is to choose.
    pub(crate) asked: Option<Format>,
    /// Whether notes and progress are unwanted.
    pub(crate) quiet: bool,
    /// How tables look.
    pub(crate) look: Look,
    /// Whether a person sees standard error.
    pub(crate) live: bool,
}

impl Output {
    /// `colour` is whether the environment allows it, `columns` how wide it says we are.
    pub(crate) fn new(
        asked: Option<Format>,
        quiet: bool,
        colour: bool,
        columns: Option<u16>,
    ) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let width = terminal
            .then(|| columns.or_else(|| comfy_table::Table::new().width()))
            .flatten()
            // A terminal that does not know its width says 0.
            .filter(|width| *width > 0);
        Self {
            asked,
            quiet,
            look: Look {
                width,
                colour: colour && terminal,
            },
            live: std::io::stderr().is_terminal(),
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.asked.unwrap_or(Format::Table)
    }

    /// Whether people read it.
    pub(crate) fn is_table(&self) -> bool {
        self.format() == Format::Table
    }

    /// Prints one result; `table` says how it looks to people.
    pub(crate) fn show<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let text = match self.format() {
            Format::Table => table(value),
            Format::Json => line(serde_json::to_string_pretty(value))?,
            Format::Yaml => yaml(value)?,
            Format::Ndjson => line(serde_json::to_string(value))?,
        };
        self.raw(text.as_bytes())
    }

    /// Prints a list; `table` says how it looks to people.
    pub(crate) fn list<T: Serialize>(
        &self,
        items: &[T],
        table: impl FnOnce(&[T]) -> String,
    ) -> Result<(), Failure> {
        if self.format() == Format::Ndjson {
            return items
                .iter()
                .try_for_each(|item| self.show(item, |_| String::new()));
        }
        self.show(&items, |items| table(items))
    }

    /// Prints one of many things as it comes; `line` says how it looks to people.
    pub(crate) fn item<T: Serialize>(
        &self,
        value: &T,
        line: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.format() {
            Format::Table => self.say(&line(value)),
            Format::Json | Format::Ndjson => {
                self.say(&serde_json::to_string(value).map_err(Failure::new)?)
            }
            Format::Yaml => self.raw(format!("---\n{}", yaml(value)?).as_bytes()),
        }
    }

    /// Writes bytes to standard output as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    /// A line to standard output, for people.
    pub(crate) fn say(&self, text: &str) -> Result<(), Failure> {
        self.raw(format!("{text}\n").as_bytes())
    }

    /// A line beside the result, unless only results are wanted.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            to_stderr(&format!("{text}\n"));
        }
    }

    /// What went wrong.
    pub(crate) fn failure(&self, failure: &Failure) {
        for line in failure.lines() {
            to_stderr(&format!("{line}\n"));
        }
    }
}

/// Nobody can be told when standard error is gone.
pub(crate) fn to_stderr(text: &str) {
    std::io::stderr().lock().write_all(text.as_bytes()).ok();
}

fn line(text: serde_json::Result<String>) -> Result<String, Failure> {
    text.map(|text| text + "\n")
        .map_err(|error| Failure::new(error).context("could not write the result as JSON"))
}

/// The YAML form of anything.
pub(crate) fn yaml(value: &impl Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(value)
        .map(|text| {
            if text.ends_with('\n') {
                text
            } else {
                text + "\n"
            }
        })
        .map_err(|error| Failure::new(error).context("could not write the result as YAML"))
}

//! Topology documents from files: reading them with errors that say where, and judging them
//! without a master.

#[cfg(test)]
mod hostile;
mod local;
mod malformed;
mod nmap;
mod original;
#[cfg(test)]
mod tests;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use domain::name::MAX_NAME;
use domain::topology::finding::Finding;
use proto::topology_file::{MAX_FILE, TopologyFile};
use serde::Deserialize;
use serde::de::IgnoredAny;

pub(crate) use self::local::{Counting, judge};
use self::malformed::Malformed;
use crate::failure::Failure;

/// Largest scan, in bytes: it says of each machine much that is of no use here.
const MAX_SCAN: usize = 32 * 1024 * 1024;

/// What a document from standard input is called.
const STDIN: &str = "standard input";

/// Where a document comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// `-`.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// What a command means by `FILE|T`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A document here.
    Document(Source),
    /// A topology there, by name or id.
    Stored(String),
}

/// A document, and what was wrong with it that the document itself cannot say.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) file: TopologyFile,
    pub(crate) findings: Vec<Finding>,
}

impl Source {
    pub(crate) fn new(text: &str) -> Self {
        if text == "-" {
            Self::Stdin
        } else {
            Self::File(PathBuf::from(text))
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Stdin => STDIN.to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

impl Subject {
    /// A file when there is one, or when no topology could be called so.
    pub(crate) fn new(text: &str) -> Self {
        let is_name = crate::args::reference(text).is_ok();
        if text != "-" && is_name && !Path::new(text).is_file() {
            Self::Stored(text.to_owned())
        } else {
            Self::Document(Source::new(text))
        }
    }
}

/// Reads a document: ours as YAML or JSON, the original system's as JSON, or a scan of nmap.
pub(crate) fn load(source: &Source) -> Result<Loaded, Failure> {
    let name = source.name();
    let text = read(source, &name)?;
    parse_text(&text, &name)
}

/// Reads the text of a document that is called `name` in errors.
pub(crate) fn parse_text(text: &str, name: &str) -> Result<Loaded, Failure> {
    parse(text, name).map_err(|malformed| malformed.failure(name))
}

fn read(source: &Source, name: &str) -> Result<String, Failure> {
    // One byte more than allowed shows that there is more.
    let limit = u64::try_from(MAX_SCAN)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut bytes = Vec::new();
    let read = match source {
        Source::Stdin => std::io::stdin().lock().take(limit).read_to_end(&mut bytes),
        Source::File(path) => {
            std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
        }
    };
    read.with_context(|| format!("could not read {name}"))?;
    let most = if bytes.trim_ascii_start().starts_with(b"<") {
        MAX_SCAN
    } else {
        MAX_FILE
    };
    if bytes.len() > most {
        return Err(
            Failure::say(format!("{name} is larger than {} MiB", most / 1024 / 1024))
                .next("split it into several topologies"),
        );
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        Failure::say(format!("{name}:{line}: not UTF-8 text"))
            .next("a topology document is YAML or JSON in UTF-8")
    })
}

/// A name for a topology whose document has none: that of its file.
fn named_after(file: &str) -> String {
    if file == STDIN {
        return "scan".to_owned();
    }
    let stem = Path::new(file)
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let letters = stem.chars().map(|character| {
        if character.is_ascii_alphanumeric() {
            character
        } else {
            '-'
        }
    });
    let name: String = letters
        .skip_while(|character| *character == '-')
        .take(MAX_NAME)
        .collect();
    let name = name.trim_end_matches('-');
    if name.is_empty() { "scan" } else { name }.to_owned()
}

/// What sets the original system's documents apart from ours.
#[derive(Deserialize)]
struct Marks {
    topology: Option<IgnoredAny>,
    edges: Option<IgnoredAny>,
    hydrated: Option<IgnoredAny>,
}

fn parse(text: &str, name: &str) -> Result<Loaded, Malformed> {
    if text.trim().is_empty() {
        return Err(Malformed::empty());
    }
    if nmap::is_xml(text) {
        return nmap::convert(text, &named_after(name));
    }
    match serde_json::from_str::<Marks>(text) {
        Ok(Marks {
            topology: Some(_),
            edges: Some(_),
            ..
        }) => return original::convert(text),
        Ok(Marks {
            hydrated: Some(_), ..
        }) => return original::convert_pushed(text),
        Ok(_) | Err(_) => {}
    }
    let file = match json(text) {
        Some(outcome) => outcome?,
        None => yaml(text)?,
    };
    Ok(Loaded {
        file,
        findings: Vec::new(),
    })
}

/// Reads JSON; none when it is not JSON at all (a YAML flow mapping looks much alike).
fn json(text: &str) -> Option<Result<TopologyFile, Malformed>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut track = serde_path_to_error::Track::new();
    let mut json = serde_json::Deserializer::from_str(text);
    let outcome = TopologyFile::deserialize(serde_path_to_error::Deserializer::new(
        &mut json, &mut track,
    ))
    .and_then(|file| json.end().map(|()| file));
    match outcome {
        Err(error) if error.is_syntax() => None,
        outcome => Some(outcome.map_err(|error| Malformed::of_json(&error, &track.path()))),
    }
}

fn yaml(text: &str) -> Result<TopologyFile, Malformed> {
    let mut track = serde_path_to_error::Track::new();
    serde_saphyr::with_deserializer_from_str_with_options(text, options(), |yaml| {
        TopologyFile::deserialize(serde_path_to_error::Deserializer::new(yaml, &mut track))
    })
    .map_err(|error| Malformed::of_yaml(&error, &track.path()))
}

/// Anchors are welcome; a page of them that unfolds to gigabytes is not.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 64,
            max_documents: 1,
            max_aliases: 10_000,
            max_nodes: 500_000,
            max_total_scalar_bytes: 16 * 1024 * 1024,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 500_000,
            max_replay_stack_depth: 32,
            max_alias_expansions_per_anchor: 10_000,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        with_snippet: false,
    }
}

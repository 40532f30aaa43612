//! `decnet topology generate`: a topology document from a few numbers and a seed, or from a
//! document of another kind. No master is asked, and nothing is stored.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use domain::archetype::Archetype;
use domain::service::ServiceKind;
use domain::topology::allocate::SubnetBase;
use domain::topology::finding::Finding;
use domain::topology::generate::{self, Parameters, Probability, ServiceChoice};
use domain::topology::validate::Limits;
use proto::rest::FindingShape;
use proto::topology_file::TopologyFile;

use crate::args::Format;
use crate::context::Context;
use crate::document::{self, Source};
use crate::entropy;
use crate::failure::{Exit, Failure};
use crate::output::yaml;
use crate::safe::safe;

/// What a topology is generated from. Bounds are the domain's, which says them when one is left.
#[derive(Debug, Args)]
#[command(after_help = "\
The same options give the same document on every machine; `random` services are drawn from what
the deckies of this release can carry out. Without --seed one is chosen; the whole command stands
as a comment at the head of the document.

What a decky shows (keys, host name, hardware addresses) follows from a seed of its own, and who
knows that seed recognises it. The document leaves those seeds out, and the master draws them when
it stores the topology. With --with-seeds they are in the document, drawn from --seed: keep both
secret, and choose none that can be guessed.")]
pub(crate) struct GenerateArgs {
    /// Convert this instead: a scan (`nmap -oX FILE`), the original system's JSON, or a document
    /// of ours; - for standard input.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    #[arg(conflicts_with_all = ["depth", "branching", "deckies_per_lan", "forward_probability",
        "cross_probability", "seed", "subnet_base", "services", "archetype", "publish_offset",
        "with_seeds"])]
    from: Option<String>,
    /// The topology's name [default: maze, or that of the document].
    #[arg(long)]
    name: Option<String>,
    /// Levels of LANs below the DMZ, 1 to 16.
    #[arg(long, value_name = "N", default_value_t = 3)]
    depth: u32,
    /// Most LANs behind one, 1 to 8.
    #[arg(long, value_name = "N", default_value_t = 2)]
    branching: u32,
    /// How many deckies are at home on one inner LAN, 0 to 32: a number, or least-most.
    #[arg(long, value_name = "N|MIN-MAX", default_value = "1-3", value_parser = Span::parse)]
    deckies_per_lan: Span,
    /// How likely a decky on two LANs routes between them, 0 to 1.
    #[arg(long, value_name = "P", default_value = "1", value_parser = probability)]
    forward_probability: Probability,
    /// How likely a LAN is joined to one that is neither its parent nor its child, 0 to 1.
    #[arg(long, value_name = "P", default_value = "0", value_parser = probability)]
    cross_probability: Probability,
    /// What everything random is drawn from [default: one is chosen].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The range out of which each LAN gets a /24, from /12 to /24.
    #[arg(long, value_name = "CIDR", default_value_t)]
    subnet_base: SubnetBase,
    /// What every decky serves; `random` for one to three that a decky can carry out.
    #[arg(long, value_name = "A,B|random", default_value = "random", value_parser = services)]
    services: Services,
    /// What deckies are instead, drawn by weight: web-server, or web-server=3. Repeat it, or
    /// separate several by commas.
    #[arg(long, value_name = "A[=WEIGHT]", value_delimiter = ',', value_parser = Weighted::parse)]
    #[arg(conflicts_with = "services")]
    archetype: Vec<Weighted>,
    /// Added to each published port, 0 to 30000: a host that has an SSH server cannot publish 22.
    #[arg(long, value_name = "N", default_value_t = 0)]
    publish_offset: u32,
    /// Write each decky's seed into the document: it yields the decky's keys.
    #[arg(long)]
    with_seeds: bool,
    /// Write the document there instead of to standard output.
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
}

/// Least and most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    min: u32,
    max: u32,
}

impl Span {
    fn parse(text: &str) -> Result<Self, String> {
        let (min, max) = text.split_once('-').unwrap_or((text, text));
        match (min.parse(), max.parse()) {
            (Ok(min), Ok(max)) => Ok(Self { min, max }),
            _ => Err("a number such as 2, or least and most such as 1-3".to_owned()),
        }
    }
}

/// An archetype and how often it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Weighted {
    archetype: Archetype,
    weight: u32,
}

impl Weighted {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
        let archetype = name.parse().map_err(|_| {
            let known: Vec<_> = Archetype::ALL.iter().map(|each| each.as_str()).collect();
            format!("no such archetype; there are {}", known.join(", "))
        })?;
        let weight = weight
            .parse()
            .map_err(|_| "a weight is a whole number, such as web-server=3".to_owned())?;
        Ok(Self { archetype, weight })
    }
}

/// Which services.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Services {
    Random,
    These(BTreeSet<ServiceKind>),
}

fn services(text: &str) -> Result<Services, String> {
    if text == "random" {
        return Ok(Services::Random);
    }
    let each = text.split(',').map(|name| {
        name.trim().parse().map_err(|error| {
            let known: Vec<_> = ServiceKind::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("{error}; there are random, {}", known.join(", "))
        })
    });
    each.collect::<Result<_, _>>().map(Services::These)
}

fn probability(text: &str) -> Result<Probability, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "a number from 0 to 1, such as 0.25".to_owned())?;
    Probability::new(number).map_err(|error| error.to_string())
}

impl GenerateArgs {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("maze")
    }

    fn parameters(&self, seed: u64) -> Parameters {
        let services = match (&self.services, self.archetype.as_slice()) {
            (Services::Random, []) => ServiceChoice::random(),
            (Services::These(kinds), []) => ServiceChoice::Explicit(kinds.clone()),
            (_, mix) => {
                let mix = mix.iter().map(|each| (each.archetype, each.weight));
                ServiceChoice::Archetypes(mix.collect())
            }
        };
        Parameters {
            name: self.name().to_owned(),
            depth: self.depth,
            branching: self.branching,
            deckies_min: self.deckies_per_lan.min,
            deckies_max: self.deckies_per_lan.max,
            forward: self.forward_probability,
            cross_edge: self.cross_probability,
            services,
            subnet_base: self.subnet_base,
            publish_offset: self.publish_offset,
            seed,
        }
    }

    /// The command that gives this document again.
    fn command(&self, seed: u64) -> String {
        let Span { min, max } = self.deckies_per_lan;
        let part = |of: Probability| f64::from(of.millionths()) / 1_000_000.0;
        let mut words = vec![
            format!("decnet topology generate --name {}", self.name()),
            format!("--depth {} --branching {}", self.depth, self.branching),
            format!("--deckies-per-lan {min}-{max}"),
            format!("--forward-probability {}", part(self.forward_probability)),
            format!("--cross-probability {}", part(self.cross_probability)),
            format!("--seed {seed} --subnet-base {}", self.subnet_base),
        ];
        match (&self.services, self.archetype.as_slice()) {
            (Services::Random, []) => words.push("--services random".to_owned()),
            (Services::These(kinds), []) => {
                let names: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
                words.push(format!("--services {}", names.join(",")));
            }
            (_, mix) => {
                let mix: Vec<_> = mix
                    .iter()
                    .map(|each| format!("{}={}", each.archetype, each.weight))
                    .collect();
                words.push(format!("--archetype {}", mix.join(",")));
            }
        }
        if self.publish_offset != 0 {
            words.push(format!("--publish-offset {}", self.publish_offset));
        }
        if self.with_seeds {
            words.push("--with-seeds".to_owned());
        }
        words.join(" ")
    }
}

/// What to do with a document that is sound.
const CREATE: &str = "decnet topology create";

pub(super) fn run(args: &GenerateArgs, context: &Context) -> Result<Exit, Failure> {
    if let Some(from) = &args.from {
        return convert(from, args, context);
    }
    let output = &context.output;
    let seed = args.seed.unwrap_or_else(entropy::seed);
    let file = generated(args, seed)?;
    let command = args.command(seed);
    let text = written(&file, &command, context)?;
    if args.with_seeds {
        output.note(
            "the document and its --seed yield the keys of every decky: let nobody else read them",
        );
    }
    put(&file, &text, args, CREATE, context)?;
    Ok(Exit::Done)
}

/// Prints another document as one of ours, with what is wrong with it or was changed beside it.
/// A document with errors is printed all the same: an operator mends it in this form.
fn convert(from: &str, args: &GenerateArgs, context: &Context) -> Result<Exit, Failure> {
    let source = Source::new(from);
    let mut loaded = document::load(&source)?;
    if let Some(name) = &args.name {
        loaded.file.name.clone_from(name);
    }
    let file = loaded.file.clone();
    let heading = format!("converted from {}", safe(from));
    let text = written(&file, &heading, context)?;
    let findings = document::judge(loaded).findings;
    for finding in &findings {
        let severity = finding.severity.as_str();
        let text = finding.to_string();
        context.output.note(&format!("{severity}: {}", safe(&text)));
    }
    let (exit, next) = if findings.iter().any(Finding::is_error) {
        (
            Exit::Failed,
            "mend the errors in it, then: decnet topology validate",
        )
    } else {
        (Exit::Done, CREATE)
    };
    put(&file, &text, args, next, context)?;
    Ok(exit)
}

/// The text of a document. JSON has no comments: the heading is said beside it.
fn written(file: &TopologyFile, heading: &str, context: &Context) -> Result<String, Failure> {
    let output = &context.output;
    Ok(match output.format() {
        Format::Table | Format::Yaml => format!("# {heading}\n{}", yaml(file)?),
        Format::Json => {
            output.note(heading);
            json(serde_json::to_string_pretty(file))?
        }
        Format::Ndjson => {
            output.note(heading);
            json(serde_json::to_string(file))?
        }
    })
}

/// Puts a document where it is wanted; `next` is what to do with the file.
fn put(
    file: &TopologyFile,
    text: &str,
    args: &GenerateArgs,
    next: &str,
    context: &Context,
) -> Result<(), Failure> {
    let output = &context.output;
    let Some(path) = &args.output_file else {
        return output.raw(text.as_bytes());
    };
    write(path, text)?;
    output.note(&format!(
        "{} LANs and {} deckies in {path}; next: {next} {path}",
        file.lans.len(),
        file.deckies.len(),
        path = path.display(),
    ));
    Ok(())
}

/// The generated document; pure, so that it is the same for the same arguments.
fn generated(args: &GenerateArgs, seed: u64) -> Result<TopologyFile, Failure> {
    let parameters = args.parameters(seed);
    let faults = parameters.check();
    if !faults.is_empty() {
        return Err(refusal(args, &faults).exits(Exit::Usage));
    }
    let draft = generate::generate(&parameters, &[], &Limits::default())
        .map_err(|findings| refusal(args, &findings))?;
    let mut file = TopologyFile::from(draft);
    if !args.with_seeds {
        for decky in &mut file.deckies {
            decky.seed = None;
        }
    }
    Ok(file)
}

fn refusal(args: &GenerateArgs, findings: &[Finding]) -> Failure {
    let shapes = findings.iter().map(|finding| FindingShape {
        path: flag(args, &finding.path).to_owned(),
        ..FindingShape::from(finding)
    });
    Failure::say("no topology can be generated from this")
        .findings(shapes.collect())
        .next("decnet topology generate --help says every bound")
}

/// The flag that sets a parameter.
fn flag<'a>(args: &GenerateArgs, parameter: &'a str) -> &'a str {
    match parameter {
        "name" => "--name",
        "depth" => "--depth",
        "branching" => "--branching",
        "deckies_min" | "deckies_max" => "--deckies-per-lan",
        "publish_offset" => "--publish-offset",
        "services" if args.archetype.is_empty() => "--services",
        "services" => "--archetype",
        "subnet_base" => "--subnet-base",
        other => other,
    }
}

fn json(text: serde_json::Result<String>) -> Result<String, Failure> {
    let text =
        text.map_err(|error| Failure::new(error).context("could not write the document as JSON"))?;
    Ok(text + "\n")
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    // With seeds in it, it yields the keys of deckies: it is nobody else's to read.
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("could not write {}", path.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests;

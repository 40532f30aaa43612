//! The command line of `decnet topology`.

use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::apply::ApplyArgs;
use super::generate::GenerateArgs;
use super::mutate::MutateArgs;
use crate::args::{WaitArgs, reference};
use crate::{completion, mutation};

/// `decnet topology VERB`.
#[derive(Debug, Subcommand)]
pub(crate) enum TopologyCommand {
    /// Print a topology that is made from a few numbers and a seed (without a master).
    Generate(Box<GenerateArgs>),
    /// Store a topology from a file.
    Create(CreateArgs),
    /// List the topologies.
    Ls,
    /// Show one topology: what is wanted of it, and what is there.
    Inspect(InspectArgs),
    /// Print a topology as a file that `create` takes again.
    Export(ExportArgs),
    /// Make a host carry a topology.
    Deploy(DeployArgs),
    /// Try a failed deploy again.
    Retry(DeployArgs),
    /// Remove a topology from its host.
    Teardown(TeardownArgs),
    /// Forget a topology; its events stay.
    Rm(TopologyArg),
    /// Say what is wrong with a file (without a master), or with a stored topology.
    Validate(SubjectArg),
    /// Print the version hash of a file (without a master), or of a stored topology.
    #[command(after_help = "\
The hash covers ids and seeds. A stored topology has its own, so its hash is the one that its
host reports. A file has none: they are derived from its names by SHA-256, so that the hash of a
file tells two files apart and stays the same whatever the order of their parts, but never equals
the hash of what is created from it.")]
    Hash(SubjectArg),
    /// Draw a file (without a master), or a stored topology.
    #[command(after_help = "\
Examples:
  decnet topology graph office.yaml
  decnet topology graph office --format html > office.html
  decnet topology graph office --format dot | dot -Tsvg > office.svg")]
    Graph(GraphArgs),
    /// Say what a file would change of the stored topology of its name.
    Plan(PlanArgs),
    /// Make a topology be what a file says: create it, or change what differs.
    Apply(ApplyArgs),
    /// Change one thing of a topology, also while a host holds it.
    Mutate(Box<MutateArgs>),
    /// List a topology's mutations, the newest first.
    Mutations(mutation::ListArgs),
    /// Say why a topology stands as it does, and what to do about it.
    Explain(TopologyArg),
    /// List how a topology's status has changed.
    StatusEvents(TopologyArg),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The document: YAML, JSON, or what `generate --from` takes; - for standard input.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) file: String,
    /// The host that is to carry it, by name or id [default: local].
    #[arg(long, value_parser = reference, add = completion::hosts())]
    pub(super) host: Option<String>,
    /// Another name than the document's.
    #[arg(long)]
    pub(super) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TopologyArg {
    /// The topology, by name or id.
    #[arg(value_name = "TOPOLOGY", value_parser = reference)]
    #[arg(add = completion::topologies())]
    pub(super) topology: String,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(super) topology: TopologyArg,
    /// Follow it first, until it is active, failed or torn down.
    #[arg(long)]
    pub(super) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(super) topology: TopologyArg,
    /// Print the canonical document instead: the very bytes that are hashed, and nothing more.
    #[arg(long, conflicts_with = "format")]
    pub(super) hydrated: bool,
    /// As what; `compose` prints what the original system would have run [default: yaml].
    #[arg(long, value_enum)]
    pub(super) format: Option<ExportFormat>,
}

/// How a topology is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// The file that `create` and `apply` take.
    Yaml,
    /// The same as JSON.
    Json,
    /// A Compose file.
    Compose,
}

#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    #[command(flatten)]
    pub(super) topology: TopologyArg,
    /// Another host than the stored one, by name or id.
    #[arg(long, value_parser = reference, add = completion::hosts())]
    pub(super) host: Option<String>,
    /// Only print the steps that a host that holds nothing would take; change no status.
    #[arg(long, conflicts_with_all = ["wait", "no_wait"])]
    pub(super) dry_run: bool,
    /// Take the place of a topology that the host carries.
    #[arg(long)]
    pub(super) replace: bool,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TeardownArgs {
    #[command(flatten)]
    pub(super) topology: TopologyArg,
    /// Settle it at once although its host does not answer; if it returns, it is cleaned then.
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SubjectArg {
    /// A file (- for standard input), or a stored topology by name or id.
    #[arg(value_name = "FILE|TOPOLOGY", add = completion::subjects())]
    pub(super) subject: String,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The document, YAML or JSON; - for standard input.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) file: String,
    /// End with 4 when something differs.
    #[arg(long)]
    pub(super) detailed_exitcode: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    pub(super) subject: SubjectArg,
    /// In which notation.
    #[arg(long, value_enum, default_value_t = Notation::Tree)]
    pub(super) format: Notation,
}

/// How a graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Notation {
    /// Text: from the DMZ over its gateways inwards.
    Tree,
    /// A Mermaid flowchart.
    Mermaid,
    /// Graphviz.
    Dot,
    /// One page that needs nothing else: no script, no network.
    Html,
}

impl Notation {
    /// Every notation.
    #[cfg(test)]
    pub(super) const ALL: [Self; 4] = [Self::Tree, Self::Mermaid, Self::Dot, Self::Html];

    /// The word for it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Mermaid => "mermaid",
            Self::Dot => "dot",
            Self::Html => "html",
        }
    }
}

#[cfg(test)]
impl DeployArgs {
    pub(crate) fn waits(&self) -> bool {
        self.wait.waits()
    }
}

//! `decnet topology mutate`: one edit, written as `OP key=value…`. Which operations there are, and
//! what each takes, stands in one table: help, completion and errors are read from it.

use std::collections::BTreeMap;

use clap::Args;
use proto::decky_config::WireOption;
use proto::rest::mutation::{Attachment, DeckyPatch, EditRequest, LanPatch, NewLan, OpShape};
use proto::settings;
use proto::topology_file::{FileDecky, FileEdge, FilePublish};

use super::edit;
use crate::args::{WaitArgs, reference};
use crate::context::Context;
use crate::failure::{Exit, Failure};

/// `decnet topology mutate T OP key=value…`.
#[derive(Debug, Args)]
#[command(after_help = help())]
pub(crate) struct MutateArgs {
    /// The topology, by name or id.
    #[arg(value_name = "TOPOLOGY", value_parser = reference)]
    #[arg(add = crate::completion::topologies())]
    topology: String,
    /// The operation.
    #[arg(value_name = "OP", value_parser = operations())]
    op: String,
    /// What it takes.
    #[arg(value_name = "KEY=VALUE")]
    fields: Vec<String>,
    /// Do nothing when the topology is no longer at this revision.
    #[arg(long, value_name = "N")]
    expected_revision: Option<u64>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// An operation as an operator writes it.
struct Operation {
    name: &'static str,
    help: &'static str,
    fields: &'static [Field],
}

/// One `key=value`.
struct Field {
    name: &'static str,
    need: Need,
    help: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Must,
    May,
    Many,
}

const fn must(name: &'static str, help: &'static str) -> Field {
    let need = Need::Must;
    Field { name, need, help }
}

const fn may(name: &'static str, help: &'static str) -> Field {
    let need = Need::May;
    Field { name, need, help }
}

const fn many(name: &'static str, help: &'static str) -> Field {
    let need = Need::Many;
    Field { name, need, help }
}

const LAN: Field = must("lan", "the LAN, by name or id");
const DECKY: Field = must("decky", "the decky, by name or id");
const SUBNET6: Field = may("subnet6", "IPv6 range of 64 bits; empty takes it away");
const KIND: Field = may("kind", "dmz or internal");
const DRIVER: Field = may("driver", "bridge, macvlan:INTERFACE or ipvlan:INTERFACE");
const HOSTNAME: Field = may("hostname", "the name that attackers see");
const ARCHETYPE: Field = may("archetype", "what it is made from; empty takes it away");
const SERVICES: Field = may("services", "what it serves, whole: ssh,http");
const OPTION: Field = many(
    "SERVICE.OPTION",
    "an option of a service: ssh.accept_after=3",
);
const PERSONA: Field = may("persona", "the operating system that it shows");
const FORWARDS: Field = may(
    "forwards_l3",
    "whether it routes between its LANs: true or false",
);
const PUBLISH: Field = many(
    "publish",
    "a port of the host: [IP:]HOST_PORT:PORT[/udp]; empty for none",
);
const MUTATE_EVERY: Field = may(
    "mutate_every",
    "how often it mutates by itself, such as 6h; empty for never",
);
const SEED: Field = may("seed", "64 hexadecimal digits");
const MAC: Field = may("mac", "the hardware address there");

/// Every operation. The next one goes at the end, its fields as in `proto::rest::mutation`.
const OPERATIONS: [Operation; 8] = [
    Operation {
        name: "add_lan",
        help: "adds a LAN",
        fields: &[
            must("name", "its name"),
            may("subnet", "its range; the next free one when left out"),
            may("subnet6", "IPv6 range of 64 bits"),
            KIND,
            DRIVER,
        ],
    },
    Operation {
        name: "remove_lan",
        help: "removes a LAN that is no decky's home; deckies that visit it leave it",
        fields: &[LAN],
    },
    Operation {
        name: "update_lan",
        help: "changes a LAN; on a live topology only its name may change",
        fields: &[
            LAN,
            may("name", "its name from then on"),
            may("subnet", "its range"),
            SUBNET6,
            KIND,
            DRIVER,
        ],
    },
    Operation {
        name: "add_decky",
        help: "adds a decky",
        fields: &[
            must("name", "its name"),
            many(
                "lan",
                "a LAN that it is on, the first its home: NAME[@ADDRESS]",
            ),
            HOSTNAME,
            ARCHETYPE,
            SERVICES,
            OPTION,
            PERSONA,
            FORWARDS,
            PUBLISH,
            MUTATE_EVERY,
            SEED,
        ],
    },
    Operation {
        name: "remove_decky",
        help: "removes a decky",
        fields: &[DECKY],
    },
    Operation {
        name: "update_decky",
        help: "changes a decky",
        fields: &[
            DECKY,
            may("name", "its name from then on"),
            HOSTNAME,
            ARCHETYPE,
            SERVICES,
            OPTION,
            PERSONA,
            FORWARDS,
            PUBLISH,
            MUTATE_EVERY,
            SEED,
            many(
                "lan",
                "another address on a LAN that it is on: NAME@ADDRESS",
            ),
            may("home", "the LAN where it belongs from then on"),
        ],
    },
    Operation {
        name: "attach_decky",
        help: "puts a decky on a further LAN",
        fields: &[
            DECKY,
            LAN,
            may(
                "address",
                "the address there; the next free one when left out",
            ),
            MAC,
            may(
                "home",
                "whether it belongs there from then on: true or false",
            ),
            FORWARDS,
        ],
    },
    Operation {
        name: "detach_decky",
        help: "takes a decky off a LAN that is not its home",
        fields: &[DECKY, LAN],
    },
];

fn operations() -> clap::builder::PossibleValuesParser {
    OPERATIONS
        .iter()
        .map(|operation| clap::builder::PossibleValue::new(operation.name).help(operation.help))
        .collect::<Vec<_>>()
        .into()
}

fn help() -> String {
    let mut text = String::from(
        "Operations; what is marked * must be there, what is marked + may be there more than once:\n",
    );
    for operation in &OPERATIONS {
        text.push_str(&format!("\n  {}: {}\n", operation.name, operation.help));
        for field in operation.fields {
            let mark = match field.need {
                Need::Must => "*",
                Need::May => "",
                Need::Many => "+",
            };
            let name = format!("{}{mark}", field.name);
            text.push_str(&format!("    {name:<16} {}\n", field.help));
        }
    }
    text.push_str(
        "\nWhile no host holds the topology the edit is stored at once; while one does, it is queued and\n\
         followed until the host has it.\n\n\
         Examples:\n  \
         decnet topology mutate office update_decky decky=web services=http,ssh\n  \
         decnet topology mutate office add_decky name=db lan=inner@10.9.1.30 services=redis\n  \
         decnet topology mutate office attach_decky decky=gate lan=vault forwards_l3=true",
    );
    text
}

pub(super) async fn run(args: MutateArgs, context: &Context) -> Result<Exit, Failure> {
    let op = read(&args.op, &args.fields).map_err(|error| {
        Failure::say(error)
            .exits(Exit::Usage)
            .next("decnet topology mutate --help lists the operations with their fields")
    })?;
    let request = EditRequest {
        ops: vec![op],
        expected_revision: args.expected_revision,
    };
    let client = context.client()?;
    let answer = client.edit(&args.topology, &request).await?;
    edit::finish(answer, &args.wait, &client, context).await
}

/// What was written, by field.
struct Written<'a> {
    one: BTreeMap<&'static str, &'a str>,
    many: BTreeMap<&'static str, Vec<&'a str>>,
    options: BTreeMap<String, BTreeMap<String, WireOption>>,
}

/// Reads an operation as it was written.
fn read(op: &str, fields: &[String]) -> Result<OpShape, String> {
    let operation = OPERATIONS
        .iter()
        .find(|operation| operation.name == op)
        .ok_or_else(|| format!("there is no operation {op:?}"))?;
    let written = Written::read(operation, fields)?;
    Ok(match operation.name {
        "add_lan" => OpShape::AddLan(NewLan {
            name: written.must("name"),
            subnet: written.may("subnet"),
            subnet6: written.may("subnet6"),
            kind: written.may("kind"),
            driver: written.may("driver"),
        }),
        "remove_lan" => OpShape::RemoveLan {
            lan: written.must("lan"),
        },
        "update_lan" => OpShape::UpdateLan {
            lan: written.must("lan"),
            patch: LanPatch {
                name: written.may("name"),
                subnet: written.may("subnet"),
                subnet6: written.nullable("subnet6"),
                kind: written.may("kind"),
                driver: written.may("driver"),
            },
        },
        "add_decky" => OpShape::AddDecky(Box::new(written.decky()?)),
        "remove_decky" => OpShape::RemoveDecky {
            decky: written.must("decky"),
        },
        "update_decky" => OpShape::UpdateDecky {
            decky: written.must("decky"),
            patch: Box::new(written.patch()?),
        },
        "attach_decky" => OpShape::AttachDecky(Attachment {
            decky: written.must("decky"),
            lan: written.must("lan"),
            address: written.may("address"),
            mac: written.may("mac"),
            home: written.flag("home")?,
            forwards_l3: written.flag("forwards_l3")?,
        }),
        "detach_decky" => OpShape::DetachDecky {
            decky: written.must("decky"),
            lan: written.must("lan"),
        },
        other => return Err(format!("the operation {other} has no form")),
    })
}

impl<'a> Written<'a> {
    fn read(operation: &Operation, fields: &'a [String]) -> Result<Self, String> {
        let mut written = Self {
            one: BTreeMap::new(),
            many: BTreeMap::new(),
            options: BTreeMap::new(),
        };
        let takes_options = operation
            .fields
            .iter()
            .any(|field| field.name == OPTION.name);
        for text in fields {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| format!("{text:?} is no KEY=VALUE"))?;
            if let Some((service, option)) = key.split_once('.').filter(|_| takes_options) {
                let options = written.options.entry(service.to_owned()).or_default();
                options.insert(option.to_owned(), option_value(value));
                continue;
            }
            let known = operation.fields.iter().find(|field| field.name == key);
            let Some(field) = known.filter(|field| field.name != OPTION.name) else {
                let names = operation.fields.iter().map(|field| field.name);
                let hint = settings::nearest(key, names.clone()).map_or_else(
                    || format!("it takes {}", names.collect::<Vec<_>>().join(", ")),
                    |near| format!("did you mean {near}?"),
                );
                return Err(format!("{} takes no {key:?}; {hint}", operation.name));
            };
            if field.need == Need::Many {
                written.many.entry(field.name).or_default().push(value);
            } else if written.one.insert(field.name, value).is_some() {
                return Err(format!("{key} is there twice"));
            }
        }
        let lacks = |field: &&Field| {
            field.need == Need::Must
                && written
                    .one
                    .get(field.name)
                    .is_none_or(|text| text.is_empty())
        };
        match operation.fields.iter().find(lacks) {
            Some(field) => Err(format!(
                "{} needs {}=…: {}",
                operation.name, field.name, field.help
            )),
            None => Ok(written),
        }
    }

    /// A field that was looked for when the operation was read.
    fn must(&self, name: &str) -> String {
        self.one.get(name).copied().unwrap_or_default().to_owned()
    }

    fn may(&self, name: &str) -> Option<String> {
        self.one.get(name).map(|text| (*text).to_owned())
    }

    /// A field whose empty value takes away what is there.
    fn nullable(&self, name: &str) -> Option<Option<String>> {
        self.may(name)
            .map(|text| Some(text).filter(|text| !text.is_empty()))
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, String> {
        match self.one.get(name).copied() {
            None => Ok(None),
            Some("true" | "yes") => Ok(Some(true)),
            Some("false" | "no") => Ok(Some(false)),
            Some(other) => Err(format!("{name} is true or false, not {other:?}")),
        }
    }

    fn services(&self) -> Option<Vec<String>> {
        let text = self.one.get("services")?;
        let each = text
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty());
        Some(each.map(str::to_owned).collect())
    }

    fn edges(&self) -> Vec<FileEdge> {
        let lans = self.many.get("lan").into_iter().flatten();
        lans.map(|text| {
            let (lan, address) = text.split_once('@').unwrap_or((text, ""));
            FileEdge {
                lan: lan.to_owned(),
                address: Some(address.to_owned()).filter(|text| !text.is_empty()),
                mac: None,
                home: None,
            }
        })
        .collect()
    }

    fn publish(&self) -> Result<Option<Vec<FilePublish>>, String> {
        let Some(texts) = self.many.get("publish") else {
            return Ok(None);
        };
        let each = texts.iter().filter(|text| !text.is_empty());
        each.map(|text| published(text))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    fn decky(&self) -> Result<FileDecky, String> {
        let edges = self.edges();
        if edges.is_empty() {
            return Err("add_decky needs lan=…: a LAN that it is on".to_owned());
        }
        Ok(FileDecky {
            name: self.must("name"),
            hostname: self.may("hostname"),
            archetype: self.nullable("archetype").flatten(),
            persona: self.may("persona"),
            services: self.services().unwrap_or_default(),
            service_config: self.options.clone(),
            forwards_l3: self.flag("forwards_l3")?.unwrap_or(false),
            publish: self.publish()?.unwrap_or_default(),
            mutate_every: self.nullable("mutate_every").flatten(),
            seed: self.may("seed"),
            edges,
        })
    }

    fn patch(&self) -> Result<DeckyPatch, String> {
        let mut edges = self.edges();
        if let Some(home) = self.may("home") {
            match edges
                .iter_mut()
                .find(|edge| edge.lan.eq_ignore_ascii_case(&home))
            {
                Some(edge) => edge.home = Some(true),
                None => edges.push(FileEdge {
                    lan: home,
                    address: None,
                    mac: None,
                    home: Some(true),
                }),
            }
        }
        Ok(DeckyPatch {
            name: self.may("name"),
            hostname: self.may("hostname"),
            archetype: self.nullable("archetype"),
            services: self.services(),
            service_config: self.options.clone(),
            persona: self.may("persona"),
            forwards_l3: self.flag("forwards_l3")?,
            publish: self.publish()?,
            mutate_every: self.nullable("mutate_every"),
            seed: self.may("seed"),
            edges,
        })
    }
}

/// The value of an option as its type: what looks like a number or a truth is one. Text that does
/// is quoted: `ssh.banner="22"`.
fn option_value(text: &str) -> WireOption {
    let quoted = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    match (quoted, text, text.parse()) {
        (Some(inner), ..) => WireOption::Text(inner.to_owned()),
        (None, "true", _) => WireOption::Boolean(true),
        (None, "false", _) => WireOption::Boolean(false),
        (None, _, Ok(number)) => WireOption::Integer(number),
        (None, _, Err(_)) => WireOption::Text(text.to_owned()),
    }
}

/// `[IP:]HOST_PORT:PORT[/PROTOCOL]`.
fn published(text: &str) -> Result<FilePublish, String> {
    let wrong = || format!("{text:?} is no published port such as 2222:22 or 10.0.0.1:5353:53/udp");
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, Some(protocol.to_owned())),
        None => (text, None),
    };
    let parts: Vec<&str> = ports.split(':').collect();
    let (host_ip, host_port, decky_port) = match parts.as_slice() {
        [host, decky] => (None, host, decky),
        [ip, host, decky] => (Some((*ip).to_owned()), host, decky),
        _ => return Err(wrong()),
    };
    Ok(FilePublish {
        host_ip,
        host_port: host_port.parse().map_err(|_| wrong())?,
        decky_port: decky_port.parse().map_err(|_| wrong())?,
        protocol,
    })
}

#[cfg(test)]
mod tests;

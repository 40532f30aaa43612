//! The catalogue as data: what deckies can serve, as what they can show themselves, and the sets
//! of both that are offered.

use std::collections::BTreeMap;

use domain::archetype::Archetype;
use domain::persona::Persona;
use domain::service::{OptionDefault, OptionRule, OptionSchema, ServiceKind};
use serde::{Deserialize, Serialize};

use crate::decky_config::WireOption;

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceShape {
    /// The word for it in files.
    pub name: String,
    /// One line for a person who chooses.
    pub help: String,
    /// Whether a decky of this release can carry it out.
    pub implemented: bool,
    /// The TCP ports on which it listens.
    pub tcp: Vec<u16>,
    /// The UDP ports on which it listens.
    pub udp: Vec<u16>,
    /// The personas on which an attacker would expect it.
    pub personas: Vec<String>,
    /// The names of its options.
    pub options: Vec<String>,
}

/// One option of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionShape {
    /// Its key under the service in `service_config`.
    pub name: String,
    /// `text`, `integer`, `boolean` or `choice`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it may hold, in words.
    pub rule: String,
    /// Most bytes of a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<usize>,
    /// Least number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// Greatest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// The words of a choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// What holds when it is left out; none when that is nothing, or the seed's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<WireOption>,
    /// Whether the decky's seed chooses when it is left out.
    pub seeded: bool,
    /// One clause for a person who fills in a form.
    pub help: String,
}

/// One archetype.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchetypeShape {
    /// The word for it in files.
    pub name: String,
    /// Its name for a person.
    pub title: String,
    /// One line on what it stands for.
    pub help: String,
    /// What such a machine serves.
    pub services: Vec<String>,
    /// The personas that it may show, the usual one first.
    pub personas: Vec<String>,
}

/// One persona.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonaShape {
    /// The word for it in files.
    pub name: String,
    /// The services that an attacker would expect on it.
    pub services: Vec<String>,
    /// The archetypes that may show it.
    pub archetypes: Vec<String>,
    /// The kernel settings of a decky that shows it.
    pub sysctls: BTreeMap<String, String>,
}

/// Every service, in the order of the names.
pub fn services() -> Vec<ServiceShape> {
    let kinds = ServiceKind::ALL.iter().copied();
    kinds.map(ServiceShape::from).collect()
}

/// The options of a service.
pub fn options(service: ServiceKind) -> Vec<OptionShape> {
    service.schema().iter().map(OptionShape::from).collect()
}

/// Every archetype, in the order in which a person is offered them.
pub fn archetypes() -> Vec<ArchetypeShape> {
    let all = Archetype::ALL.iter().copied();
    all.map(ArchetypeShape::from).collect()
}

/// Every persona.
pub fn personas() -> Vec<PersonaShape> {
    Persona::ALL.into_iter().map(PersonaShape::from).collect()
}

impl From<ServiceKind> for ServiceShape {
    fn from(kind: ServiceKind) -> Self {
        Self {
            name: kind.as_str().to_owned(),
            help: kind.help().to_owned(),
            implemented: kind.is_implemented(),
            tcp: kind.ports().to_vec(),
            udp: kind.udp_ports().to_vec(),
            personas: words(kind.personas(), Persona::as_str),
            options: words(kind.schema(), |option| option.name),
        }
    }
}

impl From<&OptionSchema> for OptionShape {
    fn from(schema: &OptionSchema) -> Self {
        let mut shape = Self {
            name: schema.name.to_owned(),
            kind: String::new(),
            rule: schema.rule.to_string(),
            max_bytes: None,
            min: None,
            max: None,
            choices: Vec::new(),
            default: match schema.default {
                OptionDefault::Seeded | OptionDefault::Unset => None,
                OptionDefault::Text(text) => Some(WireOption::Text(text.to_owned())),
                OptionDefault::Integer(number) => Some(WireOption::Integer(number)),
                OptionDefault::Boolean(flag) => Some(WireOption::Boolean(flag)),
            },
            seeded: schema.default == OptionDefault::Seeded,
            help: schema.help.to_owned(),
        };
        let kind = match schema.rule {
            OptionRule::Text { max } => {
                shape.max_bytes = Some(max);
                "text"
            }
            OptionRule::Integer { min, max } => {
                (shape.min, shape.max) = (Some(min), Some(max));
                "integer"
            }
            OptionRule::Boolean => "boolean",
            OptionRule::Choice { of } => {
                shape.choices = words(of, |word| word);
                "choice"
            }
        };
        kind.clone_into(&mut shape.kind);
        shape
    }
}

impl From<Archetype> for ArchetypeShape {
    fn from(archetype: Archetype) -> Self {
        Self {
            name: archetype.as_str().to_owned(),
            title: archetype.title().to_owned(),
            help: archetype.help().to_owned(),
            services: words(archetype.services(), ServiceKind::as_str),
            personas: words(archetype.personas(), Persona::as_str),
        }
    }
}

impl From<Persona> for PersonaShape {
    fn from(persona: Persona) -> Self {
        let services = ServiceKind::ALL.iter().filter(|kind| kind.fits(persona));
        let archetypes = Archetype::ALL
            .iter()
            .filter(|archetype| archetype.personas().contains(&persona));
        Self {
            name: persona.as_str().to_owned(),
            services: services.map(|kind| kind.as_str().to_owned()).collect(),
            archetypes: archetypes.map(|each| each.as_str().to_owned()).collect(),
            sysctls: persona
                .sysctls()
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        }
    }
}

fn words<T: Copy>(of: &[T], word: impl Fn(T) -> &'static str) -> Vec<String> {
    of.iter().map(|each| word(*each).to_owned()).collect()
}

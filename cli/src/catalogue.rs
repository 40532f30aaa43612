//! `decnet service`, `decnet archetype`, `decnet persona`: what topologies are made of. All of it
//! is in this program: no master is asked.

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand};
use domain::service::ServiceKind;
use proto::catalogue::{self, ArchetypeShape, OptionShape, PersonaShape, ServiceShape};

use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::table::{Field, Look, table};

/// `decnet service VERB`.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// List the services, where they listen, and where they are plausible.
    Ls,
    /// Show the options of a service, as they stand in `service_config`.
    Schema(SchemaArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// The service.
    #[arg(value_name = "SERVICE", value_parser = service_parser())]
    service: ServiceKind,
}

/// `decnet archetype VERB`.
#[derive(Debug, Subcommand)]
pub(crate) enum ArchetypeCommand {
    /// List the archetypes with what they serve.
    Ls,
}

/// `decnet persona VERB`.
#[derive(Debug, Subcommand)]
pub(crate) enum PersonaCommand {
    /// List the personas with what is plausible on them.
    Ls,
}

/// Takes the names of services, and offers them where words are completed.
/// Takes the name of a service of the catalogue, and offers them.
pub(crate) fn service_parser() -> impl clap::builder::TypedValueParser<Value = ServiceKind> {
    PossibleValuesParser::new(ServiceKind::ALL.iter().map(|kind| kind.as_str()))
        .try_map(|text| text.parse::<ServiceKind>())
}

pub(crate) fn service(command: &ServiceCommand, context: &Context) -> Result<Exit, Failure> {
    let output = &context.output;
    match command {
        ServiceCommand::Ls => {
            let all = catalogue::services();
            output.list(&all, |all| services_table(output.look, all))?;
        }
        ServiceCommand::Schema(args) => {
            let options = catalogue::options(args.service);
            output.list(&options, |options| {
                if options.is_empty() {
                    format!("{} has no options\n", args.service)
                } else {
                    options_table(output.look, options)
                }
            })?;
        }
    }
    Ok(Exit::Done)
}

pub(crate) fn archetype(command: &ArchetypeCommand, context: &Context) -> Result<Exit, Failure> {
    let ArchetypeCommand::Ls = command;
    let output = &context.output;
    output.list(&catalogue::archetypes(), |all| {
        archetypes_table(output.look, all)
    })?;
    Ok(Exit::Done)
}

pub(crate) fn persona(command: &PersonaCommand, context: &Context) -> Result<Exit, Failure> {
    let PersonaCommand::Ls = command;
    let output = &context.output;
    output.list(&catalogue::personas(), |all| {
        personas_table(output.look, all)
    })?;
    Ok(Exit::Done)
}

fn services_table(look: Look, services: &[ServiceShape]) -> String {
    table(
        look,
        &["name", "shown", "tcp", "udp", "personas", "what"],
        services.iter().map(|service| {
            [
                Field::text(&service.name),
                // A name that no decky carries out yet is kept for files that hold it.
                Field::text(if service.implemented {
                    "yes"
                } else {
                    "not yet"
                }),
                Field::maybe(ports(&service.tcp)),
                Field::maybe(ports(&service.udp)),
                Field::text(service.personas.join(", ")),
                Field::text(&service.help),
            ]
        }),
    )
}

fn ports(ports: &[u16]) -> Option<String> {
    let texts: Vec<_> = ports.iter().map(u16::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

fn options_table(look: Look, options: &[OptionShape]) -> String {
    table(
        look,
        &["option", "holds", "when left out", "what"],
        options.iter().map(|option| {
            let default = match (&option.default, option.seeded) {
                (Some(value), _) => domain::service::OptionValue::from(value.clone()).to_string(),
                (None, true) => "from the seed".to_owned(),
                (None, false) => "none".to_owned(),
            };
            [
                Field::text(&option.name),
                Field::text(&option.rule),
                Field::text(default),
                Field::text(&option.help),
            ]
        }),
    )
}

fn archetypes_table(look: Look, archetypes: &[ArchetypeShape]) -> String {
    table(
        look,
        &["name", "services", "personas", "what"],
        archetypes.iter().map(|archetype| {
            [
                Field::text(&archetype.name),
                Field::text(archetype.services.join(", ")),
                Field::text(archetype.personas.join(", ")),
                Field::text(&archetype.help),
            ]
        }),
    )
}

fn personas_table(look: Look, personas: &[PersonaShape]) -> String {
    table(
        look,
        &["name", "ttl", "archetypes", "services"],
        personas.iter().map(|persona| {
            [
                Field::text(&persona.name),
                Field::maybe(persona.sysctls.get("net.ipv4.ip_default_ttl")),
                Field::text(persona.archetypes.join(", ")),
                Field::text(persona.services.join(", ")),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Look = Look {
        width: Some(110),
        colour: false,
    };

    #[test]
    fn the_catalogue_is_what_an_operator_reads() {
        let mut services = catalogue::services();
        services.retain(|service| ["ftp", "ssh", "sip"].contains(&service.name.as_str()));
        // What is carried out grows with each release, and the golden file does not.
        services
            .iter_mut()
            .for_each(|service| service.implemented = service.name != "sip");
        insta::assert_snapshot!("services", services_table(LOOK, &services));
        insta::assert_snapshot!(
            "archetypes",
            archetypes_table(LOOK, &catalogue::archetypes())
        );
        insta::assert_snapshot!("personas", personas_table(LOOK, &catalogue::personas()));
        let options = |kind| options_table(LOOK, &catalogue::options(kind));
        insta::assert_snapshot!("options_of_ssh", options(ServiceKind::Ssh));
        insta::assert_snapshot!("options_of_mqtt", options(ServiceKind::Mqtt));
    }

    #[test]
    fn the_schema_as_data_says_everything() {
        let json = serde_json::to_string_pretty(&catalogue::options(ServiceKind::Dns));
        insta::assert_snapshot!("options_of_dns", json.expect("plain"));
    }

    #[test]
    fn every_service_has_a_schema_to_show() {
        for kind in ServiceKind::ALL {
            for option in catalogue::options(*kind) {
                let known = ["text", "integer", "boolean", "choice"];
                assert!(known.contains(&option.kind.as_str()), "{kind}: {option:?}");
            }
        }
    }
}

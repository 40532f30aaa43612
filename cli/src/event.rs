//! `decnet event`: evidence, listed, live and exported.

mod export;
pub(crate) mod line;
pub(crate) mod tail;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use domain::event::EventKind;
use domain::service::ServiceKind;
use proto::client::Client;
use proto::rest::{EventQuery, EventShape};

use self::line::Names;
use crate::args::reference;
use crate::context::Context;
use crate::failure::{Exit, Failure};

/// Most events of one page that the API gives.
const PAGE: u32 = 1000;

/// `decnet event VERB`.
#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// List events, newest first.
    Ls(LsArgs),
    /// Print events as they arrive, until Ctrl-C.
    Tail(TailArgs),
    /// Write events as one JSON document a line, oldest first.
    Export(ExportArgs),
}

/// Which events.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Of this topology, by name or id.
    #[arg(long, value_parser = reference, add = crate::completion::topologies())]
    topology: Option<String>,
    /// Of this decky, by id, or by name together with --topology.
    #[arg(long, value_parser = reference, add = crate::completion::deckies())]
    decky: Option<String>,
    /// Of this host, by name or id.
    #[arg(long, value_parser = reference, add = crate::completion::hosts())]
    host: Option<String>,
    /// Of this kind.
    #[arg(long, value_parser = PossibleValuesParser::new(EventKind::ALL.iter().map(|kind| kind.as_str())))]
    kind: Option<String>,
    /// Of this service, such as ssh.
    #[arg(long, value_parser = crate::catalogue::service_parser(), hide_possible_values = true)]
    service: Option<ServiceKind>,
    /// From this source address.
    #[arg(long)]
    source: Option<IpAddr>,
    /// Seen at or after this time, such as 2026-03-01T12:00:00Z, or in the last 15m.
    #[arg(long, value_name = "TIME|DURATION", value_parser = moment)]
    since: Option<String>,
    /// Seen before this time, or before the last 15m.
    #[arg(long, value_name = "TIME|DURATION", value_parser = moment)]
    until: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    filter: Filter,
    /// At most this many.
    #[arg(long, short = 'n', default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// All of them.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    filter: Filter,
    /// How many of the past to begin with.
    #[arg(long, short = 'n', default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1000))]
    lines: u32,
    /// Go on with what arrives (the default).
    #[arg(long, short, overrides_with = "no_follow")]
    follow: bool,
    /// Stop after the past.
    #[arg(long, overrides_with = "follow")]
    no_follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    filter: Filter,
    /// Where to write; - for standard output.
    #[arg(long, short = 'o', value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// From after this row on.
    #[arg(long)]
    after: Option<i64>,
    /// At most this many.
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// A time, or how long ago it was.
fn moment(text: &str) -> Result<String, String> {
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;
    if OffsetDateTime::parse(text, &Rfc3339).is_ok() {
        return Ok(text.to_owned());
    }
    let past = proto::settings::duration(text).map_err(|_| {
        format!("{text:?} is neither a time (2026-03-01T12:00:00Z) nor a duration (15m)")
    })?;
    let at = time::Duration::try_from(past)
        .ok()
        .and_then(|past| crate::clock::now().checked_sub(past))
        .ok_or_else(|| format!("{text:?} is longer ago than time goes"))?;
    at.format(&Rfc3339).map_err(|error| error.to_string())
}

impl Filter {
    fn query(&self) -> EventQuery {
        EventQuery {
            topology: self.topology.clone(),
            decky: self.decky.clone(),
            host: self.host.clone(),
            kind: self.kind.clone(),
            service: self.service.map(|service| service.as_str().to_owned()),
            source: self.source.map(|address| address.to_string()),
            since: self.since.clone(),
            until: self.until.clone(),
            limit: None,
            cursor: None,
            after: None,
        }
    }
}

pub(crate) async fn run(command: EventCommand, context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    match command {
        EventCommand::Ls(args) => {
            let limit = if args.all { None } else { Some(args.limit) };
            let events = newest(&client, args.filter.query(), limit).await?;
            let look = context.output.look;
            let names = Names::ask(&client).await;
            context
                .output
                .list(&events, |events| line::events_table(look, &names, events))?;
        }
        EventCommand::Tail(args) => {
            let follow = args.follow || !args.no_follow;
            let query = args.filter.query();
            let past = if args.lines == 0 {
                // Nothing is shown of the past, but where it ends must be known.
                newest(&client, EventQuery::default(), Some(1)).await?
            } else {
                newest(&client, query.clone(), Some(args.lines)).await?
            };
            let names = Names::ask(&client).await;
            let show = |event: &_| print(context, &names, event);
            // Rows begin at 1.
            let after = past.first().map_or(0, |event| event.row);
            if args.lines > 0 {
                for event in past.iter().rev() {
                    show(event)?;
                }
            }
            if follow {
                let query = EventQuery {
                    after: Some(after),
                    ..query
                };
                tokio::select! {
                    ended = tail::follow(&client, query, &context.output, show) => ended?,
                    _ = tokio::signal::ctrl_c() => {}
                }
            }
        }
        EventCommand::Export(args) => {
            let query = EventQuery {
                after: args.after,
                limit: args.limit,
                ..args.filter.query()
            };
            export::run(&client, &query, &args.file, context).await?;
        }
    }
    Ok(Exit::Done)
}

/// The newest events, newest first; every one when there is no limit.
async fn newest(
    client: &Client,
    mut query: EventQuery,
    limit: Option<u32>,
) -> Result<Vec<EventShape>, Failure> {
    let mut events = Vec::new();
    let mut left = limit.unwrap_or(u32::MAX);
    while left > 0 {
        query.limit = Some(left.min(PAGE));
        let page = client.events(&query).await?;
        left = left.saturating_sub(u32::try_from(page.items.len()).unwrap_or(u32::MAX));
        events.extend(page.items);
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => break,
        }
    }
    Ok(events)
}

fn print(context: &Context, names: &Names, event: &EventShape) -> Result<(), Failure> {
    if context.output.is_table() && line::is_noise(event) {
        return Ok(());
    }
    context.output.item(event, |event| line::live(names, event))
}

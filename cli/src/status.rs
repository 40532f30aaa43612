//! `decnet status`: the master, its hosts and its topologies on one screen.

use std::collections::BTreeMap;

use proto::rest::{HostShape, SystemStatus, TopologyShape};
use serde::Serialize;

use crate::clock;
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::host::hosts_table;
use crate::safe::safe;
use crate::topology::topologies_table;

#[derive(Serialize)]
struct Overview {
    status: SystemStatus,
    hosts: Vec<HostShape>,
    topologies: Vec<TopologyShape>,
}

pub(crate) async fn run(context: &Context) -> Result<Exit, Failure> {
    let client = context.client()?;
    let overview = Overview {
        status: client.status().await?,
        hosts: client.hosts().await?,
        topologies: client.topologies().await?,
    };
    let look = context.output.look;
    context.output.show(&overview, |overview| {
        let SystemStatus {
            version,
            started_at,
            epoch,
            hosts,
            topologies,
            events,
            master_url,
            ..
        } = &overview.status;
        let started = clock::ago(started_at, clock::now());
        let head = format!(
            "master      {version} at {}, started {started}, epoch {epoch}\n\
             hosts dial  {}\nhosts       {}\ntopologies  {}\nevents      {events}\n",
            client.base(),
            safe(master_url),
            counts(hosts),
            counts(topologies),
        );
        let mut text = head;
        if !overview.hosts.is_empty() {
            text.push('\n');
            text.push_str(&hosts_table(look, &overview.hosts));
        }
        if !overview.topologies.is_empty() {
            text.push('\n');
            text.push_str(&topologies_table(look, &overview.topologies));
        }
        text
    })?;
    Ok(Exit::Done)
}

/// `3 ready, 1 lost`; `none` when there is nothing.
fn counts(counts: &BTreeMap<String, u64>) -> String {
    let words: Vec<String> = counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(word, count)| format!("{count} {}", safe(word)))
        .collect();
    if words.is_empty() {
        "none".to_owned()
    } else {
        words.join(", ")
    }
}

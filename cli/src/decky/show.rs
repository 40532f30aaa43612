//! How deckies look to people.

use proto::topology_file::FilePublish;

use super::DeckyShape;
use crate::table::{Field, Look, table};

pub(super) fn many(look: Look, deckies: &[DeckyShape]) -> String {
    table(
        look,
        &[
            "decky",
            "topology",
            "host",
            "state",
            "persona",
            "services",
            "addresses",
        ],
        deckies.iter().map(|shape| {
            let decky = &shape.decky;
            let addresses = decky
                .edges
                .iter()
                .filter_map(|edge| edge.address.as_deref());
            [
                Field::text(&shape.name),
                Field::text(&shape.topology),
                Field::maybe(shape.host.as_deref()),
                Field::State(shape.state.clone()),
                Field::maybe(decky.persona.as_deref()),
                Field::text(decky.services.join(" ")),
                Field::text(addresses.collect::<Vec<_>>().join(" ")),
            ]
        }),
    )
}

pub(super) fn one(look: Look, shape: &DeckyShape) -> String {
    let decky = &shape.decky;
    let mut rows: Vec<[Field; 2]> = Vec::new();
    let mut row = |name: &str, value: Field| rows.push([Field::text(name), value]);
    row("decky", Field::text(&shape.name));
    row("topology", Field::text(&shape.topology));
    row("host", Field::maybe(shape.host.as_deref()));
    row("state", Field::State(shape.state.clone()));
    if !shape.drift.is_empty() {
        row("drift", Field::text(shape.drift.join(", ")));
    }
    row("hostname", Field::maybe(decky.hostname.as_deref()));
    row("archetype", Field::maybe(decky.archetype.as_deref()));
    row("persona", Field::maybe(decky.persona.as_deref()));
    row("services", Field::text(decky.services.join(" ")));
    for (service, options) in &decky.service_config {
        for (option, value) in options {
            let value = serde_json::to_string(value).unwrap_or_default();
            row(&format!("{service}.{option}"), Field::text(value));
        }
    }
    row(
        "routes",
        Field::text(if decky.forwards_l3 { "yes" } else { "no" }),
    );
    row("mutates", Field::maybe(decky.mutate_every.as_deref()));
    for publish in &decky.publish {
        row("published", Field::text(published(publish)));
    }
    for edge in &decky.edges {
        let home = if edge.home == Some(true) {
            ", home"
        } else {
            ""
        };
        let address = edge.address.as_deref().unwrap_or("-");
        let mac = edge.mac.as_deref().unwrap_or("-");
        row(
            "on",
            Field::text(format!("{} {address} ({mac}){home}", edge.lan)),
        );
    }
    if let Some(usage) = &shape.usage {
        let mebibytes = usage.memory_bytes >> 20;
        row(
            "uses",
            Field::text(format!("{mebibytes} MiB, {} processes", usage.pids)),
        );
    }
    table(look, &[], rows)
}

fn published(publish: &FilePublish) -> String {
    let ip = publish.host_ip.as_deref().unwrap_or("0.0.0.0");
    let protocol = publish.protocol.as_deref().unwrap_or("tcp");
    format!(
        "{ip}:{} to {}/{protocol}",
        publish.host_port, publish.decky_port
    )
}

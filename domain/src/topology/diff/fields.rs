//! The difference between two forms of one decky, field by field.

use super::{Change, FieldChange, edge_patch, lan_name, none_if_empty};
use crate::service::ServiceSet;
use crate::topology::mutation::DeckyPatch;
use crate::topology::{Decky, Publish, Topology};

/// What turns `before` into `after`, apart from where it is.
pub(in crate::topology) fn decky_patch(before: &Decky, after: &Decky) -> DeckyPatch {
    DeckyPatch {
        name: (before.name != after.name).then(|| after.name.clone()),
        hostname: (before.hostname != after.hostname).then(|| after.hostname.clone()),
        archetype: (before.archetype != after.archetype).then(|| after.archetype.clone()),
        services: (before.services != after.services).then(|| after.services.clone()),
        persona: (before.persona != after.persona).then_some(after.persona),
        forwards_l3: (before.forwards_l3 != after.forwards_l3).then_some(after.forwards_l3),
        publish: (sorted(before) != sorted(after)).then(|| after.publish.clone()),
        mutate_every: (before.mutate_every != after.mutate_every).then_some(after.mutate_every),
        seed: (before.seed != after.seed).then_some(after.seed),
        edges: Vec::new(),
    }
}

/// The change of a decky that is in both; none when it is the same.
pub(super) fn decky_change(
    old: &Topology,
    new: &Topology,
    before: &Decky,
    after: &Decky,
) -> Option<Change> {
    let mut patch = decky_patch(before, after);
    let mut fields = words(before, after);
    for edge in new.edges_of(after.id) {
        let Some(known) = old.edge(before.id, edge.lan) else {
            // It is attached as a home when it is one.
            continue;
        };
        let Some(change) = edge_patch(known, edge) else {
            continue;
        };
        let lan = lan_name(new, edge.lan);
        if change.address.is_some() {
            fields.push(FieldChange {
                field: "address",
                before: format!("{} on {lan}", known.address),
                after: edge.address.to_string(),
            });
        }
        if change.mac.is_some() {
            fields.push(FieldChange {
                field: "mac",
                before: format!("{} on {lan}", known.mac),
                after: edge.mac.to_string(),
            });
        }
        if change.becomes_home {
            let home = old.edges_of(before.id).find(|edge| edge.home);
            fields.push(FieldChange {
                field: "home",
                before: home.map_or_else(
                    || "none".to_owned(),
                    |home| lan_name(old, home.lan).to_string(),
                ),
                after: lan.to_string(),
            });
        }
        patch.edges.push(change);
    }
    (patch != DeckyPatch::default()).then(|| Change::DeckyChanged {
        decky: before.id,
        name: before.name.clone(),
        fields,
        patch: Box::new(patch),
    })
}

fn sorted(decky: &Decky) -> Vec<Publish> {
    let mut publish = decky.publish.clone();
    publish.sort();
    publish
}

fn words(before: &Decky, after: &Decky) -> Vec<FieldChange> {
    let mut fields = Vec::new();
    let mut field = |field, before: String, after: String| {
        if before != after {
            fields.push(FieldChange {
                field,
                before,
                after,
            });
        }
    };
    field("name", before.name.to_string(), after.name.to_string());
    field(
        "hostname",
        before.hostname.to_string(),
        after.hostname.to_string(),
    );
    let archetype = |decky: &Decky| decky.archetype.clone().unwrap_or_else(|| "none".to_owned());
    field("archetype", archetype(before), archetype(after));
    field(
        "persona",
        before.persona.to_string(),
        after.persona.to_string(),
    );
    field(
        "services",
        services(&before.services),
        services(&after.services),
    );
    field(
        "service_config",
        options(&before.services),
        options(&after.services),
    );
    field(
        "forwards_l3",
        before.forwards_l3.to_string(),
        after.forwards_l3.to_string(),
    );
    field("publish", publish(before), publish(after));
    let every = |decky: &Decky| {
        let interval = decky.mutate_every.map(|interval| interval.to_string());
        interval.unwrap_or_else(|| "never".to_owned())
    };
    field("mutate_every", every(before), every(after));
    if before.seed != after.seed {
        // A seed yields host keys: it is not shown.
        field("seed", "one".to_owned(), "another".to_owned());
    }
    fields
}

fn services(services: &ServiceSet) -> String {
    let names: Vec<_> = services.keys().map(|kind| kind.as_str()).collect();
    none_if_empty(&names.join(", ")).to_owned()
}

fn options(services: &ServiceSet) -> String {
    let options: Vec<_> = services
        .iter()
        .flat_map(|(kind, options)| {
            options
                .iter()
                .map(move |(name, value)| format!("{kind}.{name}={value}"))
        })
        .collect();
    none_if_empty(&options.join(", ")).to_owned()
}

fn publish(decky: &Decky) -> String {
    let ports: Vec<_> = sorted(decky).iter().map(Publish::to_string).collect();
    none_if_empty(&ports.join(", ")).to_owned()
}

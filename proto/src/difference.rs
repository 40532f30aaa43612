//! The difference between two forms of a topology as data.

use domain::topology::diff::{Change, Difference, FieldChange};
use domain::topology::{Edge, Lan};
use serde::{Deserialize, Serialize};

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ChangeShape {
    /// `add`, `change` or `remove`.
    pub action: String,
    /// `lan`, `decky` or `edge`.
    pub object: String,
    /// The LAN's name, or the decky's: before, where it changes.
    pub name: String,
    /// The LAN's name, of an edge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lan: Option<String>,
    /// Its fields that differ; of what is new, those that say what it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldShape>,
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FieldShape {
    /// Its name in the topology file.
    pub field: String,
    /// Its value before, as a person reads it; none of what is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Its value after.
    pub after: String,
}

/// The changes in their order; the edges of a new decky follow it one by one.
pub fn changes(difference: &Difference) -> Vec<ChangeShape> {
    difference.changes.iter().flat_map(shapes).collect()
}

fn shapes(change: &Change) -> Vec<ChangeShape> {
    match change {
        Change::LanAdded(lan) => vec![shape("add", "lan", lan.name.as_str(), lan_fields(lan))],
        Change::LanRemoved(lan) => vec![shape("remove", "lan", lan.name.as_str(), Vec::new())],
        Change::LanChanged { name, fields, .. } => {
            vec![shape("change", "lan", name.as_str(), changed(fields))]
        }
        Change::DeckyAdded { decky, edges } => {
            let services: Vec<_> = decky.services.keys().map(|kind| kind.as_str()).collect();
            let mut fields = vec![
                new("persona", &decky.persona),
                new("services", &services.join(", ")),
                new("forwards_l3", &decky.forwards_l3),
            ];
            fields.extend(decky.publish.iter().map(|publish| new("publish", publish)));
            let name = decky.name.as_str();
            let mut all = vec![shape("add", "decky", name, fields)];
            all.extend(
                edges
                    .iter()
                    .map(|(edge, lan)| edge_added(name, edge, lan.as_str())),
            );
            all
        }
        Change::DeckyRemoved { name, .. } => {
            vec![shape("remove", "decky", name.as_str(), Vec::new())]
        }
        Change::DeckyChanged { name, fields, .. } => {
            vec![shape("change", "decky", name.as_str(), changed(fields))]
        }
        Change::Attached { decky, edge, lan } => {
            vec![edge_added(decky.as_str(), edge, lan.as_str())]
        }
        Change::Detached { decky, lan, .. } => vec![ChangeShape {
            lan: Some(lan.to_string()),
            ..shape("remove", "edge", decky.as_str(), Vec::new())
        }],
    }
}

fn shape(action: &str, object: &str, name: &str, fields: Vec<FieldShape>) -> ChangeShape {
    ChangeShape {
        action: action.to_owned(),
        object: object.to_owned(),
        name: name.to_owned(),
        lan: None,
        fields,
    }
}

fn edge_added(decky: &str, edge: &Edge, lan: &str) -> ChangeShape {
    let fields = vec![new("address", &edge.address), new("home", &edge.home)];
    ChangeShape {
        lan: Some(lan.to_owned()),
        ..shape("add", "edge", decky, fields)
    }
}

fn lan_fields(lan: &Lan) -> Vec<FieldShape> {
    let mut fields = vec![new("subnet", &lan.subnet)];
    fields.extend(lan.subnet6.map(|subnet| new("subnet6", &subnet)));
    fields.push(new("kind", &lan.kind.as_str()));
    fields.push(new("driver", &lan.driver));
    fields
}

fn new(field: &str, after: &impl ToString) -> FieldShape {
    FieldShape {
        field: field.to_owned(),
        before: None,
        after: after.to_string(),
    }
}

fn changed(fields: &[FieldChange]) -> Vec<FieldShape> {
    fields
        .iter()
        .map(|change| FieldShape {
            field: change.field.to_owned(),
            before: Some(change.before.clone()),
            after: change.after.clone(),
        })
        .collect()
}

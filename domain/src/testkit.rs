//! Topologies for tests: small, random, and made without any source of randomness but their
//! parameters.

use proptest::prelude::*;
use uuid::Uuid;

use crate::id::EdgeId;
use crate::revision::Revision;
use crate::service::ServiceKind;
use crate::topology::Topology;
use crate::topology::draft::{
    Draft, DraftDecky, DraftEdge, DraftLan, DraftPublish, Entropy, resolve,
};
use crate::topology::validate::Limits;

/// Entropy that counts.
#[derive(Debug, Default)]
pub(crate) struct Counting(pub(crate) u128);

impl Entropy for Counting {
    fn uuid(&mut self) -> Uuid {
        self.0 += 1;
        Uuid::from_u128(self.0)
    }

    fn bytes(&mut self) -> [u8; 32] {
        self.0 += 1;
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.0.to_be_bytes());
        bytes
    }
}

/// A draft of one DMZ, `inner` further LANs in a row, and deckies as the lists say: each decky is
/// on LAN `n` and, as a gateway, on LAN `n - 1` too.
pub(crate) fn draft(inner: usize, deckies: &[(usize, bool, Vec<ServiceKind>)]) -> Draft {
    let lans = (0..=inner)
        .map(|number| DraftLan {
            name: format!("lan-{number}"),
            subnet: format!("10.9.{number}.0/24"),
            kind: (number == 0).then(|| "dmz".to_owned()),
            ..DraftLan::default()
        })
        .collect();
    let deckies = deckies
        .iter()
        .enumerate()
        .map(|(index, (lan, gateway, services))| {
            let lan = lan % (inner + 1);
            let mut edges = vec![DraftEdge {
                lan: format!("lan-{lan}"),
                ..DraftEdge::default()
            }];
            if *gateway && lan > 0 {
                edges.push(DraftEdge {
                    lan: format!("lan-{}", lan - 1),
                    ..DraftEdge::default()
                });
            }
            let publish = if lan == 0 && !services.is_empty() {
                vec![DraftPublish {
                    host_port: 20_000 + i64::try_from(index).unwrap_or(0),
                    decky_port: i64::from(services[0].ports()[0]),
                    ..DraftPublish::default()
                }]
            } else {
                Vec::new()
            };
            DraftDecky {
                name: format!("decky-{index}"),
                services: services
                    .iter()
                    .map(|kind| kind.as_str().to_owned())
                    .collect(),
                forwards_l3: *gateway,
                publish,
                edges,
                ..DraftDecky::default()
            }
        })
        .collect();
    Draft {
        name: "maze".to_owned(),
        lans,
        deckies,
    }
}

/// A topology from a draft without a finding of reading.
pub(crate) fn topology(draft: &Draft) -> Topology {
    let resolved = resolve(draft, None, &Limits::default(), &mut Counting::default());
    assert_eq!(resolved.findings, []);
    resolved.topology
}

/// Random topologies of up to four LANs and six deckies.
pub(crate) fn any_topology() -> impl Strategy<Value = Topology> {
    let services = proptest::sample::subsequence(ServiceKind::IMPLEMENTED.to_vec(), 0..=3);
    let decky = (0_usize..4, any::<bool>(), services);
    (0_usize..4, proptest::collection::vec(decky, 0..6))
        .prop_map(|(inner, deckies)| topology(&draft(inner, &deckies)))
}

/// The same topology with everything left out that means nothing: order, revision, ids of edges.
pub(crate) fn plain(topology: &Topology) -> Topology {
    let mut plain = topology.clone();
    plain.revision = Revision::default();
    plain.lans.sort_by_key(|lan| lan.id);
    plain.deckies.sort_by_key(|decky| decky.id);
    for decky in &mut plain.deckies {
        decky.publish.sort();
    }
    plain.edges.sort_by_key(|edge| (edge.decky, edge.lan));
    for edge in &mut plain.edges {
        edge.id = EdgeId::new(Uuid::nil());
    }
    plain
}

/// RFC 8785 by another hand: sorted as it says, escaped by `serde_json`.
pub(crate) fn rfc8785(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members
                .iter()
                .map(|(key, value)| (key.encode_utf16().collect::<Vec<_>>(), key, value))
                .collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            let members: Vec<_> = members
                .into_iter()
                .map(|(_, key, value)| format!("{}:{}", Value::from(key.as_str()), rfc8785(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(rfc8785).collect();
            format!("[{}]", items.join(","))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

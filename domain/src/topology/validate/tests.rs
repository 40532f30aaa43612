//! The rules against the recorded cases, and each rule of a topology on its own.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::*;
use crate::service::{OptionValue, ServiceKind, ServiceOptions};
use crate::testkit::{self, Counting};
use crate::topology::draft::{Draft, DraftDecky, DraftEdge, DraftLan, resolve};
use crate::topology::{Edge, LanKind};

/// A recorded document as a draft: edges from its rows, addresses from the deckies' maps. What a
/// row refers to and nothing has stays as it is written.
fn draft_of(document: &Value) -> Draft {
    let list = |key: &str| document[key].as_array().expect("a list");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lan_named = |id: &Value| {
        let lan = list("lans").iter().find(|lan| lan["id"] == *id);
        lan.map_or_else(|| text(id), |lan| text(&lan["name"]))
    };
    let lans = list("lans").iter().map(|lan| DraftLan {
        name: text(&lan["name"]),
        subnet: text(&lan["subnet"]),
        kind: (lan["is_dmz"] == true).then(|| "dmz".to_owned()),
        ..DraftLan::default()
    });
    let mut deckies: Vec<DraftDecky> = list("deckies")
        .iter()
        .map(|decky| {
            let config = &decky["decky_config"];
            let edges = list("edges")
                .iter()
                .filter(|edge| edge["decky_uuid"] == decky["uuid"])
                .map(|edge| {
                    let lan = lan_named(&edge["lan_id"]);
                    DraftEdge {
                        address: config["ips_by_lan"][&lan].as_str().map(str::to_owned),
                        lan,
                        ..DraftEdge::default()
                    }
                });
            let configs = config["service_config"].as_object().expect("an object");
            let services = decky["services"].as_array().expect("a list");
            DraftDecky {
                name: text(&decky["name"]),
                services: services.iter().map(text).collect(),
                service_config: configs
                    .keys()
                    .map(|service| (service.clone(), BTreeMap::new()))
                    .collect(),
                forwards_l3: config["forwards_l3"] == true,
                edges: edges.collect(),
                ..DraftDecky::default()
            }
        })
        .collect();
    // A draft keeps edges within their decky: one of an unknown decky stands at a decky of its own.
    for edge in list("edges") {
        let known = |decky: &Value| decky["uuid"] == edge["decky_uuid"];
        if !list("deckies").iter().any(known) {
            deckies.push(DraftDecky {
                name: text(&edge["decky_uuid"]),
                edges: vec![DraftEdge {
                    lan: lan_named(&edge["lan_id"]),
                    ..DraftEdge::default()
                }],
                ..DraftDecky::default()
            });
        }
    }
    Draft {
        name: text(&document["topology"]["name"]),
        lans: lans.collect(),
        deckies,
    }
}

/// Severity, code and subject of everything found, one line a subject.
fn found(draft: &Draft) -> BTreeSet<String> {
    let resolved = resolve(draft, None, &Limits::default(), &mut Counting::default());
    check(&resolved)
        .iter()
        // The original knows neither what is implemented nor what a machine shows itself as.
        .filter(|finding| finding.code != Code::ServiceUnimplemented)
        .map(|finding| {
            let (severity, code) = (finding.severity.as_str(), finding.code.as_str());
            format!("{severity} {code} {}", finding.target)
        })
        .collect()
}

fn recorded(issues: &Value) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for issue in issues.as_array().expect("a list") {
        let code = issue["code"].as_str().expect("a code");
        let severity = issue["severity"].as_str().expect("a severity");
        let target = &issue["target"];
        let lans: Vec<_> = target["lans"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        match (code, target["decky"].as_str(), target["lan"].as_str()) {
            ("DMZ_ORPHAN", ..) => {
                for lan in lans {
                    lines.insert(format!("{severity} {code} lan {lan}"));
                }
            }
            (_, Some(decky), _) => {
                lines.insert(format!("{severity} {code} decky {decky}"));
            }
            (_, None, Some(lan)) => {
                lines.insert(format!("{severity} {code} lan {lan}"));
            }
            (_, None, None) => {
                lines.insert(format!("{severity} {code} lans {}", lans.join(", ")));
            }
        }
    }
    lines
}

#[test]
fn recorded_documents_have_the_recorded_findings() {
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("../../../../tests/vectors/validate.json"))
            .expect("the vectors are JSON");
    assert_eq!(cases.len(), 12);
    for case in cases {
        let name = case["name"].as_str().expect("a name");
        let mut expected = recorded(&case["issues"]);
        match name {
            // The original accepts both; a network's and a broadcast's address are no decky's.
            "ip-is-network-address(accepted)" | "ip-is-broadcast(accepted)" => {
                expected.insert("error IP_RESERVED decky decky-001".to_owned());
            }
            // The original says nothing of an edge that leads nowhere.
            "edge-to-unknown-lan-single" => {
                expected.insert("error EDGE_UNKNOWN decky ghost".to_owned());
            }
            _ => {}
        }
        assert_eq!(found(&draft_of(&case["input"])), expected, "{name}");
    }
}

fn sample() -> Topology {
    let services = vec![ServiceKind::Ssh, ServiceKind::Http];
    let mut draft = testkit::draft(1, &[(0, false, services.clone()), (1, true, services)]);
    draft.deckies[0].publish[0].host_port = 2222;
    testkit::topology(&draft)
}

#[test]
fn each_rule_of_a_whole_topology_fires_alone_and_at_its_place() {
    type Edit = fn(&mut Topology);
    let table: [(&str, &str, Edit); 22] = [
        ("DMZ_MISSING", "lans", |it| {
            it.lans[0].kind = LanKind::Internal;
            it.deckies[0].publish.clear();
        }),
        ("DMZ_MULTIPLE", "lans", |it| it.lans[1].kind = LanKind::Dmz),
        ("DMZ_ORPHAN", "lans[1]", |it| {
            it.edges.remove(2);
        }),
        ("DECKY_ORPHAN", "deckies[0].edges", |it| {
            it.edges.remove(0);
            it.deckies[0].publish.clear();
        }),
        ("HOME_LAN", "deckies[1].edges", |it| it.edges[2].home = true),
        ("EDGE_UNKNOWN", "edges[3].decky", |it| {
            let decky = crate::id::DeckyId::new(uuid::Uuid::from_u128(9));
            it.edges.push(Edge {
                decky,
                ..it.edges[0]
            });
        }),
        ("EDGE_UNKNOWN", "deckies[0].edges[1].lan", |it| {
            let lan = crate::id::LanId::new(uuid::Uuid::from_u128(9));
            let edge = Edge {
                lan,
                home: false,
                ..it.edges[0]
            };
            it.edges.insert(1, edge);
        }),
        ("LAN_NAME_DUP", "lans[1].name", |it| {
            it.lans[1].name = "LAN-0".parse().expect("a name");
        }),
        ("DECKY_NAME_DUP", "deckies[1].name", |it| {
            it.deckies[1].name = "DECKY-0".parse().expect("a name");
        }),
        ("SUBNET_RESERVED", "lans[1].subnet", |it| {
            it.lans[1].subnet = "127.0.1.0/24".parse().expect("a subnet");
            it.edges[1].address = [127, 0, 1, 9].into();
        }),
        ("SUBNET_OVERLAP", "lans[1].subnet", |it| {
            it.lans[1].subnet = "10.9.0.0/16".parse().expect("a subnet");
        }),
        ("IP_OUT_OF_SUBNET", "deckies[0].edges[0].address", |it| {
            it.edges[0].address = [10, 8, 0, 9].into();
        }),
        ("IP_RESERVED", "deckies[0].edges[0].address", |it| {
            it.edges[0].address = [10, 9, 0, 1].into();
        }),
        ("IP_COLLISION", "deckies[1].edges[1].address", |it| {
            it.edges[2].address = it.edges[0].address;
        }),
        ("EDGE_DUP", "deckies[1].edges[1].lan", |it| {
            it.edges[2].lan = it.edges[1].lan;
            it.edges[2].address = [10, 9, 1, 77].into();
            // One finding only: the DMZ keeps its way to the LAN by another decky.
            let decky = it.deckies[0].id;
            let edge = Edge {
                decky,
                home: false,
                address: [10, 9, 1, 78].into(),
                ..it.edges[1]
            };
            it.edges.insert(1, edge);
        }),
        ("PORT_COLLISION", "deckies[0].services", |it| {
            for kind in [ServiceKind::Smtp, ServiceKind::SmtpRelay] {
                it.deckies[0]
                    .services
                    .insert(kind, ServiceOptions::default());
            }
        }),
        (
            "SERVICE_CFG_INVALID",
            "deckies[0].service_config.http.anonymous",
            |it| {
                let mut options = ServiceOptions::default();
                let value = OptionValue::Boolean(true);
                options
                    .set(ServiceKind::Ftp, "anonymous", value)
                    .expect("ftp has it");
                it.deckies[0].services.insert(ServiceKind::Http, options);
            },
        ),
        ("SERVICE_UNIMPLEMENTED", "deckies[0].services", |it| {
            it.deckies[0]
                .services
                .insert(ServiceKind::Dns, ServiceOptions::default());
        }),
        ("PERSONA_MISMATCH", "deckies[0].persona", |it| {
            it.deckies[0].persona = crate::persona::Persona::WindowsServer;
        }),
        ("VALUE_INVALID", "deckies[0].archetype", |it| {
            it.deckies[0].archetype = Some("toaster".to_owned());
        }),
        ("GATEWAY_NOT_IN_DMZ", "deckies[1].publish", |it| {
            it.deckies[1].publish = std::mem::take(&mut it.deckies[0].publish);
            it.edges.remove(2);
            let decky = it.deckies[0].id;
            let edge = Edge {
                decky,
                home: false,
                address: [10, 9, 1, 78].into(),
                ..it.edges[1]
            };
            it.edges.insert(1, edge);
        }),
        (
            "PUBLISH_COLLISION",
            "deckies[1].publish[0].host_port",
            |it| {
                it.deckies[1].publish = it.deckies[0].publish.clone();
            },
        ),
    ];
    assert_eq!(validate(&sample()), []);
    for (code, path, edit) in table {
        let mut topology = sample();
        edit(&mut topology);
        let findings = validate(&topology);
        let own: Vec<_> = findings
            .iter()
            // Two SMTP servers share three ports, and nobody has written either yet.
            .filter(|it| code == "SERVICE_UNIMPLEMENTED" || it.code != Code::ServiceUnimplemented)
            .map(|finding| (finding.code.as_str(), finding.path.as_str()))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        assert_eq!(own, [(code, path)], "{findings:?}");
    }
}

#[test]
fn publishing_is_bound_to_the_dmz_and_routing_is_not() {
    let mut topology = sample();
    topology.deckies[1].forwards_l3 = true;
    topology.deckies[0].forwards_l3 = true;
    assert_eq!(validate(&topology), []);
    topology.deckies[0].publish[0].decky_port = 23;
    let findings = validate(&topology);
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].code, Code::PublishUnserved);
    assert!(!findings[0].is_error());
}

#[test]
fn limits_are_a_parameter_and_each_is_kept() {
    let topology = sample();
    let wide = Limits::default();
    for (limits, path) in [
        (Limits { lans: 1, ..wide }, "lans"),
        (Limits { deckies: 1, ..wide }, "deckies"),
        (
            Limits {
                edges_per_decky: 1,
                ..wide
            },
            "deckies[1].edges",
        ),
        (
            Limits {
                publish_per_decky: 0,
                ..wide
            },
            "deckies[0].publish",
        ),
    ] {
        let findings = validate_within(&topology, &limits);
        let places: Vec<_> = findings
            .iter()
            .map(|it| (it.code, it.path.as_str()))
            .collect();
        assert_eq!(places, [(Code::TooLarge, path)]);
    }
    assert_eq!(validate_within(&topology, &wide), []);
}

#[test]
fn every_finding_is_returned_in_one_order() {
    let mut topology = sample();
    topology.lans[0].kind = LanKind::Internal;
    topology.edges[0].address = [10, 8, 0, 9].into();
    topology.deckies[0]
        .services
        .insert(ServiceKind::Dns, ServiceOptions::default());
    topology.deckies[1].name = "decky-0".parse().expect("a name");
    let codes: Vec<_> = validate(&topology)
        .iter()
        .map(|it| it.code.as_str())
        .collect();
    assert_eq!(
        codes,
        [
            "DMZ_MISSING",
            "DECKY_NAME_DUP",
            "IP_OUT_OF_SUBNET",
            "SERVICE_UNIMPLEMENTED"
        ]
    );
}
